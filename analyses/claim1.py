"""Claim 1 of Skunnavakkam (2024) on SmolLM2-135M: where a task forms, and whether other heads take over.

``python analyses/claim1.py``: curves and `patch` (shared with claim 3); then docs/claim1.md, whose sentences are made
from the numbers found. It goes on where it stopped.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from claims import FIGURES, PATCHED, ROOT, TASKS, facts, of_task, patch_all, ranged, tables, three

from bayes_icl.core.intervals import LEVEL_WORDS, TAIL, Interval
from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.patch.sentences import came_across
from bayes_icl.patch.tables import rounds_table
from bayes_icl.writing.numbers import layer_of, listed

OPENING = """# Claim 1: the layer where a task forms, and heads that take over

*Written by `analyses/claim1.py` (`make claim1`) from its output; SmolLM2-135M-Instruct, {n_pairs} pairs of sequences,
{n_examples} examples. Brackets hold {level} intervals: of layers by bootstrap over pairs ("never": more than {tail:g} %
of the resamples do not get there), of everything else t-intervals over pairs.*

Skunnavakkam (2024) patches the residual stream of a run with examples (A) into one without (B) and finds the layer
where the task is formed; it ablates the heads just before that layer, finds the task formed two layers later, and so
on: 12, 14, 16. Its picture is that other heads take over. On this model:

{answers}

What is read is the log-odds of the first token that tells the task's answers apart (of a number, its first digit),
against all other tokens. A and B ask different queries with different answers, so that "the task was recovered" (B
gives the rule's answer to its own query) and "A's answer was recovered" are two things. What is patched at a *layer*
is its resid_pre: what goes into the block of that number. A layer is named where the mean over pairs first comes half
of the way from B to what A has in that round, in nats. Much of that way is the form of an answer; *the rule gain* is
A's log-odds less those of the same run with its answers permuted among the examples, which shows the form and no rule.
*mean* and *resample* put in the place of a head what it hands on in those permuted runs; *zero* puts in nothing, which
also changes the norm of the residual stream. Rounds ablate at every token of A but the first.
"""


class Findings:
    """What `patch` wrote, and sentences about it."""

    def __init__(self) -> None:
        self.facts = facts(PATCHED)
        self.tables = tables(PATCHED)
        rounds = self.tables["rounds"]
        self.ablated = rounds[rounds.set == "ablated"]
        self.kind = next(iter(self.facts.values()))["kind"]

    def row(self, task: str, number: int, kind: str = "") -> Any:
        """One round of a task; None where there was none."""
        own = self.ablated[(self.ablated.task == task) & (self.ablated["round"] == number)]
        own = own[own.kind == (kind or self.kind)]
        return next(own.itertuples(), None)

    def rounds_of(self, task: str) -> list[int]:
        """Rounds in which something was ablated."""
        own = self.ablated[self.ablated.task == task]
        return sorted(n for n in own["round"].unique() if n > 0)

    def answers(self) -> str:
        """The questions and their answers."""
        return "\n".join(
            f"{i}. {text}"
            for i, text in enumerate(
                (self.where(), self.moved(), self.took_over(), self.redundant(), self.stood_in()), 1
            )
            if text
        )

    def where(self) -> str:
        """Whether there is a layer at which the task is recovered."""
        parts = [f"on {task}, {came_across(self.row(task, 0))}" for task in TASKS]
        return f"*Is there a layer where the task is recovered?* {sentence(parts)}"

    def moved(self) -> str:
        """Whether ablating the layers before it moves it up."""
        parts, later = [], []
        for task in TASKS:
            first, after = self.row(task, 0), self.row(task, 1)
            if after is None:
                parts.append(f"on {task} there is nothing to move ({self.facts[task]['ended']})")
                continue
            rows = [self.row(task, 1, kind) for kind in self.facts[task]["kinds"]]
            kept = listed([f"{row.rule_gain / first.rule_gain:.0%} ({row.kind})" for row in rows])
            shifts = listed([f"{shifted(row)} ({row.kind})" for row in rows])
            parts.append(
                f"on {task}, without {after.layers_text}, A keeps {kept} of the rule gain, and the layer moves by "
                f"{shifts}"
            )
            later += [f"{task} ({row.kind})" for row in rows if row.shift_low > 0]
        verdict = f"It moves up (95 % interval) {f'on {listed(later)}' if later else 'in no case'}."
        return (
            "*Does it move to later layers when all heads of the layers just before it are ablated?* "
            f"{verdict} {sentence(parts)} In Skunnavakkam (2024) A keeps its answer, and the layer moves up by two."
        )

    def took_over(self) -> str:
        """Whether backup heads are found."""
        backups = self.tables["backups"]
        parts = []
        for task in TASKS:
            if not self.facts[task]["backups_sought"]:
                parts.append(f"on {task} none was looked for ({self.facts[task]['ended']})")
                continue
            own = backups[backups.task == task] if len(backups) else backups
            found = own[own.backup.astype(bool)] if len(own) else own
            names = [
                f"{row.component} ({row.mode}, round {row.round}, growth {ranged(row, 'growth')} nats, "
                f"{ranged(row, 'beyond')} beyond placebo sets, "
                f"{ranged(row, 'growth_other_kind')} by {self.facts[task]['other_kind']})"
                for row in found.itertuples()
            ]
            grown = len(own) - len(found)
            also = (
                f"; {grown} more whose cost grows, but which mattered before, or not beyond placebo sets"
                if grown
                else ""
            )
            parts.append(f"on {task} {listed(names) if names else 'none could be named'}{also}")
        return f"*Do backup heads take over?* {sentence(parts)}"

    def redundant(self) -> str:
        """How many heads can go."""
        halves = self.tables["halves"]
        parts = []
        for task in TASKS:
            if not self.facts[task]["taught"]:
                continue
            own = halves[halves.task == task]
            best, chance = (own[own.order == order].iloc[0] for order in ("best first", "random"))
            parts.append(f"on {task} {share(best)}, the most costly first, and {share(chance)}, in random order")
        return f"*How redundant is the model?* Half of the rule gain is gone: {'; '.join(parts)}."

    def stood_in(self) -> str:
        """What ablating to the task's own mean does."""
        parts = []
        for task in TASKS:
            first, ours = self.row(task, 0), self.row(task, 1)
            if ours is None or not of_task(task).exists():
                continue
            again = tables(of_task(task))["rounds"]
            again = again[(again.set == "ablated") & (again.kind == self.kind)]
            before, after = (next(again[again["round"] == n].itertuples(), None) for n in (0, 1))
            if before is None or after is None:
                continue
            parts.append(
                f"on {task} A keeps {after.rule_gain / before.rule_gain:.0%} of the rule gain ({after.n_pairs} "
                "pairs), where it "
                f"keeps {ours.rule_gain / first.rule_gain:.0%} with episodes that show no rule"
            )
        if not parts:
            return ""
        return (
            "*What replaces a head decides the answer.* With the mean over the task's own episodes in "
            "place of the "
            f"heads of round 1, the usual mean-ablation, {'; '.join(parts)}. That mean holds the task itself."
        )

    def transfer_paragraph(self, task: str) -> str:
        """Of one task's transfer curves."""
        first, own = self.row(task, 0), self.facts[task]
        lines = [
            f"{own['n_examples']} examples take the log-odds from {ranged(first, 'b_own')} to {ranged(first, 'a_own')} "
            f"nats, with their answers permuted to {three(own['no_rule'])}. Patched, B's own answer is "
            "likeliest at layer "
            f"{first.peak_layer:.0f}: {ranged(first, 'peak')} nats, and first of all tokens in {first.peak_first:.0%}."
        ]
        for number in self.rounds_of(task):
            row = self.row(task, number)
            lines.append(
                f"Round {number}, without {row.layers_text} ({row.n_heads} heads): A has "
                f"{ranged(row, 'a_own')} nats left, "
                f"{row.rule_gain / first.rule_gain:.0%} of the rule gain; half of what it has over B is recovered "
                f"{at(row)}."
            )
            rounds = self.tables["rounds"]
            rounds = rounds[rounds.kind == self.kind]
            placebo = rounds[(rounds.task == task) & (rounds["round"] == number) & are_placebos(rounds.set)]
            if len(placebo):
                left = listed([f"{x:.2f}" for x in placebo.a_own])
                layers = listed([at(one) for one in placebo.itertuples()])
                lines.append(
                    f"As many other heads with as large a norm leave A {left} nats; then it is recovered {layers}."
                )
        return " ".join(lines)

    def page(self) -> str:
        """The page."""
        own = self.facts[TASKS[0]]
        sizes = {name: own[name] for name in ("n_pairs", "n_examples")}
        lines = [OPENING.format(**sizes, level=LEVEL_WORDS, tail=100 * TAIL, answers=self.answers())]
        rounds = rounds_table(self.tables["rounds"])
        folder = f"../{FIGURES.relative_to(ROOT)}"
        figure = lambda name, text: f"![{text}]({folder}/{name}.png)\n"  # noqa: E731
        for task in TASKS:
            lines += [
                f"## {task}",
                "",
                self.transfer_paragraph(task),
                "",
                figure(f"transfer_{task}", f"transfer on {task}"),
            ]
        lines += [
            "## Rounds",
            "",
            rounds.caption,
            "",
            rounds.to_markdown(),
            figure("rounds", "transfer layer and A's log-odds by round"),
        ]
        lines += ["## Heads that take over", "", self.backups_paragraph(), ""]
        if len(self.tables["backups"]):
            lines.append(figure("backups", "backup heads"))
        lines += [
            "## How many heads can go",
            "",
            self.halves_paragraph(),
            "",
            figure("redundancy", "log-odds against heads ablated"),
        ]
        lines += [
            "## Self-repair",
            "",
            self.repair_paragraph(),
            "",
            figure("repair", "direct effect that goes and what is lost"),
        ]
        return "\n".join(lines)

    @staticmethod
    def named(row: Any) -> str:
        """What a head is whose cost grows: a backup head, active or passive; one that mattered before; or neither."""
        if not getattr(row, "grows", row.backup):
            return "not beyond placebo"
        return str(row.mode) if row.backup else "grows"

    def backups_paragraph(self) -> str:
        """Of the backup heads."""
        backups = self.tables["backups"]
        text = (
            "A backup head costs more when it is ablated after the others than before. Its growth is tested on every "
            "other pair (t-test, Holm over all heads, 5 %) and measured on the rest, where its 95 % interval must be "
            "above that with placebo sets ablated. *Active*: it then looks more at examples, or adds more to the "
            "log-odds itself."
        )
        if not len(backups):
            sought = [task for task in TASKS if self.facts[task]["backups_sought"]]
            return f"{text} {f'None could be named on {listed(sought)}.' if sought else 'None was looked for.'}"
        rows = [
            f"{row.component} on {row.task} in round {row.round} ({self.named(row)}): "
            f"{ranged(row, 'effect_before')} nats before, {ranged(row, 'effect_after')} after; growth "
            f"{ranged(row, 'growth')}, by {self.facts[row.task]['other_kind']} {ranged(row, 'growth_other_kind')}, "
            f"with placebo sets {ranged(row, 'growth_placebo')}; its direct effect rises by "
            f"{ranged(row, 'direct_rise')}, its attention on examples by {ranged(row, 'attention_rise')}"
            for row in backups.itertuples()
        ]
        return f"{text} Found: {'; '.join(rows)}."

    def halves_paragraph(self) -> str:
        """Of the redundancy curves."""
        return (
            "Heads are ablated at every token, ranked by what the ablation of each alone costs on every other "
            "pair, and "
            f"read on the rest. {self.redundant().split('* ', 1)[1]}"
        )

    def repair_paragraph(self) -> str:
        """Of self-repair."""
        heads = self.tables["heads"]
        parts = []
        for task in TASKS:
            own = heads[heads.task == task]
            first = own.loc[own.taken.idxmax()]
            most = own.loc[own.lost.idxmax()]
            parts.append(
                f"on {task} the head with the largest direct effect, {first.component}, takes "
                f"{ranged(first, 'taken')} nats "
                f"and {ranged(first, 'lost')} are lost (other heads {first.other_heads:+.2f}, MLPs "
                f"{first.mlps:+.2f}, norms "
                f"and rivals {first.norm:+.2f} change); the most costly, {most.component}, loses "
                f"{ranged(most, 'lost')} of "
                f"which {most.taken:.2f} is its own"
            )
        return f"Each head alone, at the last position: {'; '.join(parts)}."


def at(row: Any) -> str:
    """Where the task is recovered."""
    point = layer_of(row, "transfer_layer")
    return {"never": "nowhere", "-": "nowhere, no rule being left"}.get(point, f"at layer {point}")


def shifted(row: Any) -> str:
    """By how many layers it is later than without ablation."""
    if pd.isna(row.shift):
        return "nothing: it is recovered " + at(row)
    return f"{Interval.of(row, 'shift'):+.0f}"


def share(row: pd.Series) -> str:
    """A share of heads with its interval."""
    if pd.isna(row.share):
        return f"never ({row.left_without_heads:.2f} nats are left without any head)"
    number = row.share * row.n_heads_all
    return f"with {Interval.of(row, 'share'):.1%} of all heads ({number:.1f})"


def sentence(parts: list[str], *, upper: bool = True) -> str:
    """Parts as one sentence."""
    text = "; ".join(parts)
    return f"{text[:1].upper() if upper else text[:1]}{text[1:]}." if text else ""


if __name__ == "__main__":
    patch_all()
    target = ROOT / "docs/claim1.md"
    target.write_text(Findings().page(), encoding="utf-8")
    print(target)
