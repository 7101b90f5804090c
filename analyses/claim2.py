"""Claim 2 of the post on SmolLM2-135M: does each example add the same, and do heads that attend to examples write it?

``python analyses/claim2.py`` (about 20 minutes): curves, fits, heads, intervention; then docs/claim2.md, whose
sentences are made from the numbers found. It goes on where it stopped.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from bayes_icl import attribute, collect, fit
from bayes_icl.curves import beside
from bayes_icl.heads import placebo_rank
from bayes_icl.summary import TAKEN

ROOT = Path(__file__).parent.parent
TASKS = ("copy", "past_tense", "category")
CURVES, FITS, EFFECTS = ROOT / "data/curves/claim2.nc", ROOT / "data/fits/claim2", ROOT / "data/effects/claim2.nc"
FIGURES = ROOT / "figures/claim2"
OPENING = """# Claim 2: constant updates, written by heads that attend to examples

*Written by `analyses/claim2.py` (`make claim2`) from its output; SmolLM2-135M-Instruct, {n_seqs} sequences of {n_shots}
examples, n >= {n_min}. Brackets hold 95 % intervals: of delta those of its posterior under `additive`, which
counts curvature as noise; of everything else t-intervals over sequences.*

The post says that log P(correct)/P(incorrect) gains a constant with every example, and that heads which attend from
earlier examples add it to the residual stream. That is four questions, and the model's answers are:

{answers}

What is attributed is the log-odds of the answer's first token; the curves that `fit` judges are those of the whole
answer. Direct effect: logit(correct) less the mean logit of all other tokens, weighted by their probability, through
the final norm as it was in the run; what heads, MLPs, embedding, biases and the others' entropy add comes to the
log-odds itself, here within {completeness:.0e} relative. A component's slope is the linear form of its updates that is
delta's posterior mean when applied to the log-odds; where the update is not constant, that form weighs shots by the
noise of the task, and shares of two tasks are not alike. A slope is not only what a component writes more: the
direction in which its writes count moves with n as well. Ablation acts at every token, direct effects at the answer's
position; heads are chosen on half of the sequences and taken away on the other half.
"""


def run() -> None:
    """The stages, each skipped where its output is there already."""
    collect.main(collect.CollectSettings(tasks=TASKS, n_seqs=32, out=CURVES))
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


def three(x: dict) -> str:
    """A mean with its interval."""
    mean, low, high = x.values()
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def listed(parts: list[str]) -> str:
    """Words in a row."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def excludes_zero(x: dict) -> bool:
    """Whether an interval is clear of 0."""
    _, low, high = x.values()
    return not low <= 0 <= high


class Found:
    """What the stages wrote, and sentences about it."""

    def __init__(self) -> None:
        self.verdicts = json.loads((FITS / "verdict.json").read_text())
        self.facts = json.loads(beside(EFFECTS, "json").read_text())
        self.heads, self.ablation, self.repair = (
            pd.read_csv(beside(EFFECTS, f"{name}.csv")) for name in attribute.TABLES
        )

    def per_example(self, task: str) -> tuple[int, dict, int, dict]:
        """What an example adds by all heads together, early and late."""
        numbers = self.facts[task]["per_example"]
        early, late = "2", list(numbers)[-1]
        return int(early), numbers[early], int(late), numbers[late]

    def lost(self, task: str, way: str) -> tuple[pd.Series, pd.DataFrame, str]:
        """The row of the top set, those of placebo sets, and how many of these lose as much, in words."""
        own = self.ablation[(self.ablation.task == task) & (self.ablation.way == way)]
        top, placebo = own[own.set == "top"].iloc[0], own[own.set.str.startswith("placebo ")]
        beyond, n_sets = placebo_rank(own, way, self.facts[task]["delta"]["mean"])
        return top, placebo, f"{beyond} of {n_sets} placebo sets lose as much"

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
        flat = []
        for task in TASKS:
            early, x, late, y = self.per_example(task)
            flat.append(f"{three(x)} nats at n = {early} and {three(y)} at n = {late} on {task}")
        removed, common = [], []
        for task in TASKS:
            top, _, beside_placebos = self.lost(task, "held")
            share = top.lost / self.facts[task]["delta"]["mean"]
            removed.append(f"{share:.0%} of delta on {task} ({top.n_heads} heads; {beside_placebos})")
            kept = 1 - self.lost(task, "mean")[0].predicted / top.predicted
            common.append(f"{kept:.0%} on {task}")
        weak = []
        for task in TASKS:
            own = self.heads[(self.heads.task == task) & (self.heads.kind == "head")]
            first = own.loc[own.pooled.idxmax() if self.facts[task]["delta"]["mean"] > 0 else own.pooled.idxmin()]
            weak.append(f"{first.component} on {task} ({first.attention:.0%})")
        return "\n".join(
            [
                f"1. *Is the update constant?* {constant}.",
                f"2. *Do heads write it?* Their direct effects add {shares}; MLPs and the rest add what is left. "
                f"Attention on examples, at the last shot, of the head that writes most: {listed(weak)}.",
                f"3. *Does every example add the same?* By all heads together one earlier example adds {listed(flat)}.",
                f"4. *Does it go with the heads?* Those that write half of what heads write, held at their mean over "
                f"episodes and shots, take with them {listed(removed)}. Of the direct effect that goes, "
                f"{listed(common)} is in the heads' mean over episodes at each shot: the same whatever the examples.",
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
            "Share of delta that each head writes. After partial pooling over heads, a head stands out if it surely "
            f"writes more than 5 % of delta, for or against it: {'; '.join(parts)}."
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
                f"embedding, biases and entropy {three(facts['slope_rest'])}; {n_top} heads make half of what heads add"
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
            f"averaging A n/(n + c)). The largest, {lead.component}, writes {lead.slope:.4f} [{lead.slope_low:.4f}, "
            f"{lead.slope_high:.4f}] nats per example, {'for' if lead.share > 0 else 'against'} the update, and has "
            f"{lead.attention:.0%} of its attention on examples at the "
            "last shot."
        )

    def sources_paragraph(self, task: str) -> str:
        """Of the source maps."""
        facts = self.facts[task]
        early, x, late, y = self.per_example(task)
        ratio = y["mean"] / x["mean"]
        falls = (
            f"An example's effect changes sign or size: {three(x)} nats at n = {early}, {three(y)} at n = {late}"
            if not 0 < ratio < 1
            else f"An example adds {three(x)} nats at n = {early} and {three(y)} at n = {late}, {ratio:.0%} as much"
        )
        most = max(("examples", "query", "sink"), key=lambda part: facts[f"slope_{part}"]["mean"])
        words = {"examples": "earlier examples", "query": "the query itself", "sink": "the first token"}
        clear = excludes_zero(facts["slope_examples"])
        return (
            f"What heads write, by the token that they attend to: of delta, {three(facts['slope_examples'])} nats per "
            f"example come from earlier examples, {three(facts['slope_query'])} from the query and "
            f"{three(facts['slope_sink'])} from the first token; the largest part is from {words[most]}"
            + ("" if clear else ", and that from examples may be nothing")
            + f". {falls}; a constant update written from examples would leave it as it is."
        )

    def ablation_paragraph(self, way: str) -> str:
        """Of the intervention."""
        parts = []
        for task in TASKS:
            top, placebo, beside_placebos = self.lost(task, way)
            lost = f"{top.lost:.3f} [{top.lost_low:.3f}, {top.lost_high:.3f}]"
            predicted = f"{top.predicted:.3f} [{top.predicted_low:.3f}, {top.predicted_high:.3f}]"
            parts.append(
                f"on {task} the {top.n_heads} heads take {lost} of {self.facts[task]['delta']['mean']:.3f} nats per "
                f"example with them, where direct effects of {predicted} go; {beside_placebos}, which lose "
                f"{placebo.lost.mean():.3f} on average ({placebo.lost.min():.3f} to {placebo.lost.max():.3f})"
            )
        return f"Heads {TAKEN[way]}: {'; '.join(parts)}."

    def repair_paragraph(self, way: str) -> str:
        """Of what made up for the loss."""
        parts = []
        for row in self.repair[self.repair.way == way].itertuples():
            moves = {"other heads": row.other_heads, "MLPs": row.mlps, "the final norm and rival tokens": row.norm}
            made_up = [f"{name} {x:+.3f}" for name, x in moves.items()]
            parts.append(f"on {row.task} {row.predicted:.3f} was to go and {row.lost:.3f} went: {', '.join(made_up)}")
        return (
            "From the direct effects that go to the loss found (nats per example; plus: made up for, minus: lost as "
            f"well): {'; '.join(parts)}."
        )

    def page(self) -> str:
        """The page."""
        import xarray as xr

        with xr.open_dataset(EFFECTS, engine="h5netcdf") as effects:
            n_seqs, n_shots, completeness = effects.sizes["seq"], int(effects.shot[-1]), effects.attrs["completeness"]
        n_min = self.facts[TASKS[0]]["n_min"]
        opening = OPENING.format(
            n_seqs=n_seqs, n_shots=n_shots, n_min=n_min, answers=self.answers(), completeness=completeness
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
                f"{three(verdict['delta'])}, of its first token {three(self.facts[task]['delta'])} nats per example; "
                f"the simplest law that survives is {verdict['named']}.",
                "",
                self.effects_paragraph(task),
                "",
                figure(f"effects_{task}", f"effects of heads on {task} against examples shown"),
                self.sources_paragraph(task),
                "",
                figure(f"sources_{task}", f"effects of heads on {task} by source example"),
            ]
        lines += ["## Taking the heads away", ""]
        for way in TAKEN:
            lines += [self.ablation_paragraph(way), "", figure(f"ablation_{way}", f"delta lost, heads {TAKEN[way]}")]
            lines += [self.repair_paragraph(way), "", figure(f"repair_{way}", "predicted and found loss")]
        return "\n".join(lines)


if __name__ == "__main__":
    run()
    target = ROOT / "docs/claim2.md"
    target.write_text(Found().page(), encoding="utf-8")
    print(target)
