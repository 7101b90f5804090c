"""What attributions say, as sentences and as the terminal's tables."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from bayes_icl.attribute.outputs import TABLES
from bayes_icl.attribute.shrinkage import LEAST_SHARE
from bayes_icl.core.files import beside
from bayes_icl.core.schemas import read_beside
from bayes_icl.mechanism.placebos import are_placebos, placebo_rank
from bayes_icl.models.prompts import OFTEN
from bayes_icl.writing.numbers import Quotes, plain, token_words


def summarise_heads(out: Path) -> str:
    """Text for people: what writes delta on each task, and what goes when the top heads are taken away.

    Parameters
    ----------
    out
        The effects file; its tables stand beside it.
    """
    console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=110)
    facts = json.loads(beside(out, "json").read_text())
    heads, ablation, repair = read_beside(out, TABLES).values()
    for task, own in facts.items():
        console.rule(task, align="left")
        for sentence in head_sentences(
            own, heads[heads.task == task], ablation[ablation.task == task], repair[repair.task == task]
        ):
            console.print(sentence)
        clear = not own["delta"]["hdi_low"] <= 0 <= own["delta"]["hdi_high"]
        console.print(_head_table(heads[(heads.task == task) & (heads.kind == "head")], clear))
    console.rule("completeness", align="left")
    console.print(
        f"heads + MLPs + rest = log-odds within {max(own['completeness'] for own in facts.values()):.1g} relative; "
        f"sources = head within {max(own['split'] for own in facts.values()):.1g}"
    )
    return console.file.getvalue()  # type: ignore[attr-defined]


def head_sentences(
    facts: dict, heads: pd.DataFrame, ablation: pd.DataFrame, repair: pd.DataFrame, quotes: Quotes | None = None
) -> list[str]:
    """What was found on one task, from its part of the tables; shares are given where there is something to share.

    With `quotes`, numbers are kept there and sentences hold their keys (`quotes`); without, they are plain text.
    """
    if quotes is None:
        return [plain(line) for line in head_sentences(facts, heads, ablation, repair, Quotes())]

    q, delta = quotes.under(unit="nats/example"), facts["delta"]
    clear = not delta["hdi_low"] <= 0 <= delta["hdi_high"]

    def slopes(names: dict[str, str]) -> str:
        return ", ".join(
            f"{name} {q.three(f'slope_{key}', facts[f'slope_{key}'].values())}"
            + (f" ({q.percent(f'share_{key}', facts[f'share_{key}'])})" if clear and f"share_{key}" in facts else "")
            for key, name in names.items()
        )

    lines = [
        f"{facts['readout']}, {token_words(facts, q)}, n >= {q.count('n_min', facts['n_min'])}: delta "
        f"{q.three('delta', delta.values())} nats/example under additive, "
        f"{q.three('delta_seqs', facts['delta_seqs'].values())} over sequences; of the whole answer, as "
        f"fit has it, {q.three('delta_curve', facts['delta_curve'].values())}",
        "adding up to it: "
        + slopes({"head": "heads", "mlp": "MLPs", "rest": "embedding, biases and entropy"})
        + "; of the last, entropy of the other tokens "
        + q.three("slope_entropy", facts["slope_entropy"].values()),
    ]
    if facts.get("token_differs", 1) < OFTEN:
        lines.append(
            f"two answers drawn at random differ in this token in "
            f"{q.percent('token_differs', facts['token_differs'])}: it tells of their form more than of the task"
        )
    if "further_example" in facts:
        here = "the query and the answer so far" if facts["token"] else "the query"
        names = {"examples": "earlier examples", "query": here, "sink": "the first token"}
        by_role = ", ".join(
            f"{name} {q.number(f'slope_by_role.{name}', x)}" for name, x in facts["slope_by_role"].items()
        )
        further = [
            f"{q.three(f'further_example.{key}', x.values())} nats from n = {q.all_in(f'from.{key}', n)}"
            for n, x in facts["further_example"].items()
            for key in [n.replace(" ", "_")]
        ]
        lines += [
            f"what heads write of it, by where they attend: {slopes(names)}; within examples: {by_role}",
            f"a further example adds, by what all heads write from examples, {', '.join(further)}",
        ]
    if not clear:
        return [*lines, "delta's interval has zero in it: there is no update to share out, and nothing is taken away"]
    own = heads[heads.kind == "head"]
    standing = own[own.stands_out.astype(bool)]
    kinds = ", ".join(
        f"{q.count(f'standing.{kind}', n)} {kind}" for kind, n in standing.accumulation.value_counts().items()
    )
    lines.append(
        f"{q.count('standing', len(standing))} of {q.count('n_heads', len(own))} heads stand out (surely more "
        f"than {q.count('least_share', 100 * LEAST_SHARE, 'g')} % of delta, for or against it)"
        + (f": {kinds}" if kinds else "")
    )
    if facts.get("note"):
        lines.append(q.all_in("note", facts["note"]))
    return lines + (_ablation_sentences(facts, ablation, repair, q) if len(ablation) else [])


TAKEN = {
    "held": "held at their mean over episodes and shots",
    "mean": "at their mean over episodes, shot by shot",
}


def _ablation_sentences(facts: dict, ablation: pd.DataFrame, repair: pd.DataFrame, quotes: Quotes) -> list[str]:
    q, first, here = quotes.under("taken"), ablation[ablation.set == "top"].iloc[0], facts["delta_measured"]["mean"]
    lines = [
        f"taken away, of heads those that write most: {q.count('n_heads', first.n_heads)} ({first['heads']}), chosen "
        f"on every other sequence; on the other {q.count('n_seqs', first.n_seqs)}, of delta "
        f"{q.number('delta_here', here)}, what they write is {q.columns(first, 'direct')}"
    ]
    for way in TAKEN:
        q, own = quotes.under("taken", way), ablation[ablation.way == way]
        top, placebo = own[own.set == "top"].iloc[0], own[are_placebos(own.set)]
        clean, mended = own[own.set == "none"].iloc[0], repair[repair.way == way].iloc[0]
        moves = ", ".join(
            f"{name} {q.columns(mended, part)}"
            for part, name in (("other_heads", "other heads"), ("mlps", "MLPs"), ("norm", "norms and rivals"))
        )
        beyond, n_sets = placebo_rank(own, way, here)
        norms = {
            "placebo_norm_least": placebo.norm.min(),
            "placebo_norm_most": placebo.norm.max(),
            "norm_of_heads": top.norm,
        }
        least, most, of_heads = (q.count(name, x, ".3g") for name, x in norms.items())
        lines += [
            f"{TAKEN[way]}: {q.columns(top, 'lost')} is lost ({q.percent('share_lost', top.lost / here)}), "
            f"where direct effects of {q.columns(top, 'predicted')} go; delta fitted again "
            f"{q.columns(top, 'delta')}, from {q.number('delta_clean', clean.delta)}; of the whole "
            f"answer (complement) {q.columns(top, 'lost_curve')} is lost",
            f"    {q.count('placebos_beyond', beyond)} of {q.count('placebos', n_sets)} placebo sets lose as much; "
            f"they lose {q.number('placebo_mean', placebo.lost.mean())} on average, "
            f"{q.number('placebo_least', placebo.lost.min())} to {q.number('placebo_most', placebo.lost.max())} "
            f"(norm {least} to {most}, that of the heads {of_heads})",
            f"    from what goes to what is lost, by the change of {moves}",
        ]
    return lines


def _head_table(heads: pd.DataFrame, shares: bool, most: int = 10) -> Table:
    table = Table(box=None, pad_edge=False, title="heads of the largest slope", title_justify="left")
    headings = ("head", "slope", "95 %", "share", "stands out", "accumulation", "attention", "lost if held")
    for heading in headings:
        left = heading in ("head", "stands out", "accumulation")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    shown = heads.slope.abs().rank(ascending=False) <= most
    shown |= heads.top.astype(bool)
    for row in heads[shown].sort_values("slope", key=abs, ascending=False).head(2 * most).itertuples():
        low, high = row.lost_held_low, row.lost_held_high
        alone = "" if row.lost_held != row.lost_held else f"{row.lost_held:.4f} [{low:.4f}, {high:.4f}]"
        table.add_row(
            f"{row.component}{'*' if row.top else ''}",
            f"{row.slope:.4f}",
            f"[{row.slope_low:.4f}, {row.slope_high:.4f}]".replace("[", "\\["),
            f"{row.share:.0%}" if shares else "",
            "yes" if row.stands_out else "",
            str(row.accumulation),
            "" if row.attention != row.attention else f"{row.attention:.2f}",
            alone.replace("[", "\\["),
        )
    table.caption = "*: among those taken away; lost if held: this head alone"
    table.caption_justify = "left"
    return table
