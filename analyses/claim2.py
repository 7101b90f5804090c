"""Claim 2 of Skunnavakkam (2024) on SmolLM2-135M: whether examples add alike, and heads that attend to them write it.

``python analyses/claim2.py`` (about 20 minutes): curves, fits, heads, intervention; then docs/claim2.md, whose
sentences are made from the numbers found. It goes on where it stopped.
"""

from __future__ import annotations

import json

import pandas as pd
from claims import CURVES, ROOT, TASKS, collect_all, ranged, three

from bayes_icl import attribute, fit
from bayes_icl.attribute import outputs as attribute_outputs
from bayes_icl.attribute.sentences import ABLATED_WORDS, MOSTLY
from bayes_icl.core.files import beside
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.fit.outputs import read_verdicts
from bayes_icl.mechanism.placebos import are_placebos, placebo_rank
from bayes_icl.writing.numbers import listed, token_label

FITS, EFFECTS = ROOT / "data/fits/claims", ROOT / "data/effects/claims.nc"
FIGURES = ROOT / "figures/claim2"
OPENING = """# Claim 2: constant updates, written by heads that attend to examples

*Written by `analyses/claim2.py` (`make claim2`) from its output; SmolLM2-135M-Instruct, {n_seqs} sequences of {n_shots}
examples, n >= {n_min}. Brackets hold {level} intervals: of delta those of its posterior under `additive`, which
counts curvature as noise; of everything else t-intervals over sequences.*

Skunnavakkam (2024) says that log P(correct)/P(incorrect) gains a constant with every example, and that heads which
attend from earlier examples add it to the residual stream. That is four questions, and the model's answers are:

{answers}

What is attributed is the log-odds of the whole answer, which `fit` judges, by exact weights of its tokens ({tokens}).
Direct effect on a token: logit(correct) less the mean logit of all other tokens,
weighted by their probability, through the final norm as it was in the run; what heads, MLPs, embedding, biases and the
others' entropy add comes to the log-odds itself, here within {completeness:.0e} relative. A component's slope is the
linear form of its updates that is delta's posterior mean when applied to the log-odds; where the update is not
constant, that form weighs shots by the noise of the task, and shares of two tasks are not alike. A slope is not only
what a component writes more: the direction in which its writes count moves with n as well. Ablation acts at every
token, direct effects at the answer's position; heads are chosen on half of the sequences and ablated on the other
half.
"""


def heads_of(n: int) -> str:
    """How many heads, in words."""
    return f"{n} head" if n == 1 else f"{n} heads"


def run() -> None:
    """The stages, each skipped where its output is there already."""
    collect_all()
    fit.main(
        fit.FitSettings(
            curves=CURVES,
            readout=("complement",),
            n_min=(1,),
            engine="fast",
            sensitivity=False,
            out=FITS,
            figures=FIGURES,
        )
    )
    attribute.main(attribute.AttributeSettings(curves=CURVES, out=EFFECTS, figures=FIGURES / "heads"))


class Findings:
    """What the stages wrote, and sentences about it."""

    def __init__(self) -> None:
        self.verdicts = read_verdicts(FITS)
        self.facts = json.loads(beside(EFFECTS, "json").read_text())
        self.heads, self.ablation, self.repair = (
            table.read(beside(EFFECTS, f"{name}.csv")) for name, table in attribute_outputs.TABLES.items()
        )

    def further(self, task: str) -> tuple[str, dict, str, dict]:
        """What a further example adds, by what all heads write from examples, early and late."""
        numbers = self.facts[task]["further_example"]
        first, *_, last = numbers
        return first, numbers[first], last, numbers[last]

    def in_words(self, task: str) -> str:
        """Whether it falls."""
        first, x, last, y = self.further(task)
        apart = x["low"] > y["high"] or x["high"] < y["low"]
        words = "so it falls" if apart and abs(y["mean"]) < abs(x["mean"]) else "which cannot be told apart"
        return f"{three(x)} nats from n = {first} and {three(y)} from n = {last}, {words}"

    def lost(self, task: str, way: str) -> tuple[pd.Series, pd.DataFrame, str]:
        """The row of the top set, those of placebo sets, and how many of these lose as much, in words."""
        own = self.ablation[(self.ablation.task == task) & (self.ablation.value == way)]
        top, placebo = own[own.set == "top"].iloc[0], own[are_placebos(own.set)]
        beyond, n_sets = placebo_rank(own, way, self.facts[task]["delta"]["mean"])
        return top, placebo, f"{beyond} of {n_sets} placebo sets lose as much"

    def query(self, task: str) -> str:
        """What heads attend to that is not of an example, in words."""
        return "the query and the answer so far" if self.facts[task]["token"] else "the query"

    def most_from(self, task: str) -> str:
        """Where most of what heads write comes from, if that is sure."""
        words = {"examples": "earlier examples", "query": self.query(task), "sink": "the first token"}
        slopes = {part: self.facts[task][f"slope_{part}"] for part in words}
        order = sorted(words, key=lambda part: -abs(slopes[part]["mean"]))
        first, second = (slopes[part] for part in order[:2])
        sure = first["low"] > second["high"] or first["high"] < second["low"]
        return f"most is from {words[order[0]]}" if sure else "which part is the largest cannot be told"

    def answers(self) -> str:
        """The four questions and their answers."""
        kinds: dict[str, list[str]] = {}
        for task in TASKS:
            kinds.setdefault(self.verdicts[task]["verdict"], []).append(task)
        constant = "; ".join(f"additive is {kind} on {listed(tasks)}" for kind, tasks in kinds.items())
        shares = listed(
            [
                f"{three(self.facts[task]['slope_head'])} of {self.facts[task]['delta']['mean']:.3f} nats per example "
                f"on {task} ({self.facts[task]['share_head']:.0%})"
                for task in TASKS
            ]
        )
        flat = listed([f"on {task} {self.in_words(task)}" for task in TASKS])
        attending, taken = [], []
        for task in TASKS:
            facts, own = self.facts[task], self.heads[(self.heads.task == task) & (self.heads.kind == "head")]
            mostly = own.slope[own.attention > MOSTLY].sum()
            attending.append(
                f"{mostly:.3f} on {task} (by any head from examples {three(facts['slope_examples'])}, from "
                f"{self.query(task)} {three(facts['slope_query'])} nats per example; {self.most_from(task)})"
            )
            top, _, beside_placebos = self.lost(task, "mean_over_shots")
            here = facts["delta_measured"]["mean"]
            still = self.lost(task, "mean")[0].lost / top.lost
            taken.append(
                f"{top.lost / here:.0%} of delta on {task} ({heads_of(top.n_heads)}; {beside_placebos}; with their "
                f"mean over episodes at each shot left in, {still:.0%} of that loss still goes)"
            )
        return "\n".join(
            [
                f"1. *Is the update constant?* {constant}.",
                f"2. *Do heads that attend to examples write it?* Heads add {shares}; MLPs and the rest add what is "
                f"left. Heads with most of their attention on examples at the last shot add {listed(attending)}.",
                f"3. *Does every example add the same?* By what all heads write from examples, a further example adds "
                f"{flat}.",
                f"4. *Does it go with the heads?* Heads that write half of what heads write, mean-ablated over "
                f"episodes and shots, take with them {listed(taken)}.",
            ]
        )

    def map_paragraph(self) -> str:
        """Of the layer by head maps."""
        parts = []
        for task in TASKS:
            own = self.heads[(self.heads.task == task) & (self.heads.kind == "head")]
            standing = own[own.stands_out.astype(bool)].sort_values("share", key=abs, ascending=False)
            names = [f"{row.component} ({row.share:.0%})" for row in standing.head(4).itertuples()]
            more = f" and {len(standing) - 4} more" if len(standing) > 4 else ""
            parts.append(
                f"on {task} {len(standing)} of {len(own)} heads stand out"
                + (f": {', '.join(names)}{more}" if names else "")
            )
        return (
            "Share of delta that each head writes. After partial pooling over heads, a head stands out if with a "
            "probability above 0.95 it writes "
            f"more than 5 % of delta, for or against it: {'; '.join(parts)}."
        )

    def cumulative_paragraph(self) -> str:
        """Of the cumulative shares."""
        parts = []
        for task in TASKS:
            facts = self.facts[task]
            own = self.heads[(self.heads.task == task) & (self.heads.kind == "head")]
            share = own.share.sort_values(ascending=False).cumsum()
            n_top = int((share < facts["share_head"] / 2).to_numpy().argmin()) + 1
            parts.append(
                f"on {task} heads add {three(facts['slope_head'])} nats per example, MLPs {three(facts['slope_mlp'])}, "
                f"embedding, biases and entropy {three(facts['slope_rest'])}; half of what heads add is that of "
                f"{heads_of(n_top)}"
            )
        return f"Shares added up, the largest first: {'; '.join(parts)}."

    def effects_paragraph(self, task: str) -> str:
        """Of the effect curves."""
        own = self.heads[(self.heads.task == task) & (self.heads.kind == "head")]
        first = own.loc[own.slope.abs().nlargest(6).index]
        counts = first.accumulation.value_counts()
        kinds = listed([f"{n} {kind}" for kind, n in counts.items()])
        lead = first.iloc[0]
        return (
            f"Effects of the six heads of the largest slope against n. Their accumulation: {kinds} (linear is n delta, "
            f"averaging A n/(n + c)). The largest, {lead.component}, writes "
            f"{ranged(lead, 'slope', '.4f')} nats per example, {'for' if lead.share > 0 else 'against'} the update, "
            f"and has {lead.attention:.0%} of its attention on examples at the last shot."
        )

    def sources_paragraph(self, task: str) -> str:
        """Of the source maps."""
        facts = self.facts[task]
        return (
            f"What heads write, by the token that they attend to: of delta, {three(facts['slope_examples'])} nats per "
            f"example come from earlier examples, {three(facts['slope_query'])} from {self.query(task)}, and "
            f"{three(facts['slope_sink'])} from the first token of the text; {self.most_from(task)}. A further "
            f"example adds {self.in_words(task)}; under a constant update the two would be alike."
        )

    def ablation_paragraph(self, way: str) -> str:
        """Of the intervention."""
        parts = []
        for task in TASKS:
            top, placebo, beside_placebos = self.lost(task, way)
            lost, direct, predicted = (ranged(top, name, ".3f") for name in ("lost", "direct", "predicted"))
            own = self.ablation[(self.ablation.task == task) & (self.ablation.value == way)]
            single = own[own.set.isin(self.facts[task]["top"])]
            largest = single.loc[single.lost.abs().idxmax()] if len(single) else None
            parts.append(
                f"on {task}, where the {heads_of(top.n_heads)} that were chosen write {direct}, of which {predicted} "
                f"goes, {lost} of {self.facts[task]['delta_measured']['mean']:.3f} nats per example go; "
                f"{beside_placebos}, which "
                f"lose {placebo.lost.mean():.3f} on average ({placebo.lost.min():.3f} to {placebo.lost.max():.3f})"
                + (
                    f"; alone, {largest.set} loses most, {largest.lost:.3f} where {largest.predicted:.3f} goes directly"
                    if largest is not None
                    else ""
                )
            )
        left = "What does not go is their mean, along a direction that moves with n."
        return f"Heads {ABLATED_WORDS[way]}: {'; '.join(parts)}. {left}"

    def repair_paragraph(self, way: str) -> str:
        """Of what repaired the loss."""
        parts = []
        for row in self.repair[self.repair.value == way].itertuples():
            moves = {"other heads": row.other_heads, "MLPs": row.mlps, "norms and rival tokens": row.norm}
            made_up = [f"{name} {x:+.3f}" for name, x in moves.items()]
            parts.append(f"on {row.task} {row.predicted:.3f} was to go and {row.lost:.3f} went: {', '.join(made_up)}")
        return (
            "From the direct effects that go to the loss found, by what others change (nats per example; plus: "
            f"repaired, minus: lost as well): {'; '.join(parts)}."
        )

    def page(self) -> str:
        """The page."""
        import xarray as xr

        with xr.open_dataset(EFFECTS, engine="h5netcdf") as effects:
            n_seqs, n_shots, completeness = effects.sizes["seq"], int(effects.shot[-1]), effects.attrs["completeness"]
        n_min = self.facts[TASKS[0]]["n_min"]
        tokens = "; ".join(f"on {task} {token_label(self.facts[task])}" for task in TASKS)
        opening = OPENING.format(
            n_seqs=n_seqs,
            n_shots=n_shots,
            n_min=n_min,
            level=LEVEL_WORDS,
            answers=self.answers(),
            tokens=tokens,
            completeness=completeness,
        )
        figure = lambda name, text: f"![{text}](../figures/claim2/heads/{name}.png)\n"  # noqa: E731
        lines = [opening, "## Which heads", "", self.map_paragraph(), "", figure("share_map", "share of delta by head")]
        lines += [self.cumulative_paragraph(), "", figure("cumulative", "cumulative share of delta")]
        for task in TASKS:
            verdict = self.verdicts[task]
            lines += [
                f"## {task}",
                "",
                f"`fit`: additive is {verdict['verdict']} ({verdict['reasons'][0]}); delta of the whole answer "
                f"{three(verdict['delta'])}, of {token_label(self.facts[task])} "
                f"{three(self.facts[task]['delta'])} nats per example; "
                f"the simplest law that survives is {verdict['selected']}.",
                "",
                self.effects_paragraph(task),
                "",
                figure(f"effects_{task}", f"effects of heads on {task} against examples shown"),
                self.sources_paragraph(task),
                "",
                figure(f"sources_{task}", f"effects of heads on {task} by source example"),
            ]
        lines += ["## Ablating the heads", ""]
        for way in ABLATED_WORDS:
            lines += [
                self.ablation_paragraph(way),
                "",
                figure(f"ablation_{way}", f"delta lost, heads {ABLATED_WORDS[way]}"),
            ]
            lines += [self.repair_paragraph(way), "", figure(f"repair_{way}", "predicted and found loss")]
        return "\n".join(lines)


if __name__ == "__main__":
    run()
    target = ROOT / "docs/claim2.md"
    target.write_text(Findings().page(), encoding="utf-8")
    print(target)
