"""Claim 3 of Skunnavakkam (2024) on SmolLM2-135M: whether heads bring x to y and later heads read MLPs' features.

``python analyses/claim3.py``: curves and `patch` (shared with claim 1); then docs/claim3.md, whose sentences are made
from the numbers found. It goes on where it stopped.
"""

from __future__ import annotations

import pandas as pd
from claims import FIGURES, PATCHED, ROOT, TASKS, at_answers, facts, patch_all, ranged, tables

from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.mechanism.thresholds import STEP_LEAST
from bayes_icl.patch.sentences import steps_sentences
from bayes_icl.patch.step_experiments import SETS_OF_FEW
from bayes_icl.patch.steps import STEPS
from bayes_icl.writing.numbers import Quotes, layer_of, listed, plain

OPENING = """# Claim 3: three steps

*Written by `analyses/claim3.py` (`make claim3`) from its output; SmolLM2-135M-Instruct, {n_pairs} pairs of sequences,
{n_examples} examples. Brackets hold {level} t-intervals over pairs. Losses are shares of the rule gain in
log-odds: A less the same run with its answers permuted among the examples. More than 100 % means that the form of
answers goes as well.*

Its algorithm: a head attends from an example's answer y to its query x and brings x there; an MLP makes
features of the pair; later heads attend from the query's last position to the earlier answers (or the tokens before
them) and add those features. Each step is asked twice: attention is kept from those tokens, in all layers and heads,
which says whether the model needs the way at all; and the heads that attend most so are ablated where they do, beside
{n_sets} random sets of other heads, which says whether it is those. For MLPs at y the second question is whether they
depend on the pair: they are replaced by what they put out where the same y follows another x. A step is *supported* if
each of these takes {material:.0%} or more (95 % interval), ways and MLPs more than their control and heads more than
every random set; *rejected* if the way takes less than that (95 % interval); and *not seen* otherwise.

{answers}
"""


class Findings:
    """What `patch` wrote, and sentences about it."""

    def __init__(self) -> None:
        self.facts = facts(PATCHED)
        self.tables = tables(PATCHED)

    def answers(self) -> str:
        """The steps and their verdicts."""
        return "\n".join(f"- {plain(sentence)}" for sentence in steps_sentences(self.facts, Quotes()))

    def steps_paragraph(self, task: str) -> str:
        """What each experiment takes."""
        if not self.facts[task]["taught"]:
            return "The examples teach no rule here: there is nothing to explain."
        own = self.tables["steps"][self.tables["steps"].task == task]
        parts = []
        for step in STEPS:
            rows = []
            for row in own[own.step == step].itertuples():
                beyond = "" if pd.isna(row.beyond) else f" ({ranged(row, 'beyond')} beyond its control)"
                rows.append(f"{row.what} ({row.kind}) {ranged(row, 'share')}{beyond}")
            parts.append(f"Step {step}, {self.facts[task]['steps'][str(step)]}: {'; '.join(rows)}.")
        return " ".join(parts)

    def heads_paragraph(self, task: str) -> str:
        """The heads that act in the steps, and what they cost."""
        heads = self.tables["heads"]
        own = heads[heads.task == task].set_index("component")
        parts = []
        for step, role, words in (
            (1, "bring", "from examples' answers to their queries"),
            (3, "to_answers", "from the last position to earlier answers"),
        ):
            names = self.facts[task][f"heads_of_step_{step}"]
            if not names:
                continue
            shown = [f"{name} ({own.loc[name, role]:.2f})" for name in names]
            parts.append(f"{words}, attention: {listed(shown)}")
        costly = own.nlargest(5, "lost")
        shown = [
            f"{row.Index} ({row.lost:.2f} nats; attention to answers {row.to_answers:.2f}, induction "
            f"{row.induction:.2f})"
            for row in costly.itertuples()
        ]
        look = f"Heads that look most {'; '.join(parts)}. " if parts else ""
        return f"{look}The heads whose ablation at the last position costs most: {listed(shown)}."

    def leaves_paragraph(self, task: str) -> str:
        """Where the task leaves the answers of examples, and where it is at the last position."""
        rounds = tables(at_answers(task))["rounds"]
        at, last = rounds.iloc[0], self.tables["rounds"][self.tables["rounds"].task == task].iloc[0]
        return (
            f"A's residual stream at the examples' answers, put into the same examples with their answers permuted "
            f"({at.n_pairs} pairs), carries half of A's lead up to layer {layer_of(at, 'transfer_until')}; at the last "
            f"position half of the rule gain is there from layer {layer_of(last, 'rule_layer')} on."
        )

    def mlps_paragraph(self, task: str) -> str:
        """Where MLPs matter."""
        own = self.tables["mlps"][self.tables["mlps"].task == task]
        parts = []
        for place in ("answers", "others", "last"):
            here = own[own.place == place]
            words = []
            for readout in here.readout.unique():
                most = here[here.readout == readout].nlargest(1, "lost").iloc[0]
                sure = here[(here.readout == readout) & (here.lost_low > 0)]
                words.append(
                    f"{readout} {ranged(most, 'lost')} at layer {most.layer} "
                    f"({len(sure)} layers with a 95 % interval above 0)"
                )
            parts.append(
                f"at {dict(answers='the answers', others='other tokens of examples', last='the last position')[place]} "
                + ", ".join(words)
            )
        return f"The MLP whose ablation costs most, nats: {'; '.join(parts)}."

    def page(self) -> str:
        """The page."""
        own = self.facts[TASKS[0]]
        lines = [
            OPENING.format(
                n_pairs=own["n_pairs"], n_examples=own["n_examples"], n_sets=SETS_OF_FEW, material=STEP_LEAST,
                level=LEVEL_WORDS, answers=self.answers(),
            )
        ]  # fmt: skip
        folder = f"../{FIGURES.relative_to(ROOT)}"
        figure = lambda name, text: f"![{text}]({folder}/{name}.png)\n"  # noqa: E731
        lines += [figure("steps", "what each experiment takes")]
        for task in TASKS:
            lines += [f"## {task}", "", self.steps_paragraph(task), "", self.heads_paragraph(task), ""]
            lines += [self.leaves_paragraph(task), ""]
            lines += [figure(f"roles_{task}", f"heads and roles on {task}"), self.mlps_paragraph(task), ""]
        lines += [figure("mlps", "what the ablation of each MLP costs")]
        return "\n".join(lines)


if __name__ == "__main__":
    patch_all()
    target = ROOT / "docs/claim3.md"
    target.write_text(Findings().page(), encoding="utf-8")
    print(target)
