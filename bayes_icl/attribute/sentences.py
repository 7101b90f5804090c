"""What attributions say, as sentences: for the terminal, the report and its first screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bayes_icl.attribute.outputs import TABLES
from bayes_icl.attribute.shrinkage import LEAST_SHARE
from bayes_icl.attribute.tables import heads_table
from bayes_icl.core.files import beside
from bayes_icl.core.intervals import Interval
from bayes_icl.core.schemas import read_beside
from bayes_icl.mechanism.placebos import are_placebos, placebo_rank
from bayes_icl.models.prompts import OFTEN
from bayes_icl.writing.blocks import Heading, Tabled, Text, to_terminal
from bayes_icl.writing.numbers import Quotes, code, plain, token_words

MOSTLY = 0.5  # attention on examples from which a head is said to attend to them

ABLATED_WORDS = {
    "mean_over_shots": "mean-ablated over episodes and shots",
    "mean": "mean-ablated over episodes, shot by shot",
}

LINE_COMPLETE = 1e-3  # relative error of the line's sum that is passed over

NAMED = 5  # heads of the largest total effects that a sentence names

OTHERS = "other mixers (what writes beside heads and MLPs)"
ADDING_UP = {"error": "total effects of heads", "joint_error": "those of heads and MLPs"}

UNCLEAR = "delta's interval has zero in it: there is no update to share out, and nothing is ablated"


def summarise_heads(out: Path) -> str:
    """Text for people: what writes delta on each task, and what goes when the top heads are ablated.

    Parameters
    ----------
    out
        The effects file; its tables stand beside it.
    """
    facts = json.loads(beside(out, "json").read_text())
    tables = list(read_beside(out, TABLES).values())
    blocks: list[Heading | Text | Tabled] = []
    for task, own in facts.items():
        sentences = head_sentences(own, *(table[table.task == task] for table in tables))
        blocks += [Heading(task, ""), Text(sentences), Tabled(heads_table(tables[0], facts, task))]
    complete, split = (max(own[name] for own in facts.values()) for name in ("completeness", "split"))
    words = f"heads + MLPs + rest = log-odds within {complete:.1g} relative; sources = head within {split:.1g}"
    return to_terminal([*blocks, Heading("completeness", ""), Text([words])], width=110)


def is_clear(facts: Mapping[str, Any]) -> bool:
    """Whether delta's interval excludes 0, so that there is something to share out."""
    return Interval(*facts["delta"].values()).excludes(0)


def head_sentences(
    facts: Mapping[str, Any],
    heads: pd.DataFrame,
    ablation: pd.DataFrame,
    repair: pd.DataFrame,
    quotes: Quotes | None = None,
) -> list[str]:
    """What was found on one task, from its part of the tables; shares are given where there is something to share.

    With `quotes`, numbers are kept there and sentences hold their keys (`Quotes`); without, they are plain text.
    """
    if quotes is None:
        return [plain(line) for line in head_sentences(facts, heads, ablation, repair, Quotes())]
    q = quotes.under(unit="nats/example")
    others = f"{_slope(facts, 'other', OTHERS, q)}, " if "slope_other" in facts else ""
    lines = [
        f"{facts['readout']}, {token_words(facts, q)}, n >= {q.count('n_min', facts['n_min'])}: delta "
        f"{q.three('delta', facts['delta'].values())} nats/example, "
        f"{q.three('delta_seqs', facts['delta_seqs'].values())} over sequences; {_as_fitted(facts)}, as "
        f"fit has it, {q.three('delta_curve', facts['delta_curve'].values())}",
        f"adding up to it: {_slope(facts, 'head', 'heads', q)}, {_slope(facts, 'mlp', 'MLPs', q)}, {others}"
        f"{_slope(facts, 'rest', 'embedding, biases and entropy', q)}; of the last, "
        f"entropy of the other tokens {q.three('slope_entropy', facts['slope_entropy'].values())}",
    ]
    if "line" in facts:
        lines.append(_along_line(facts, quotes.under("line", unit="nats/example")))
    if facts.get("token_differs", 1) < OFTEN:
        lines.append(
            f"two answers drawn at random differ in this token in "
            f"{q.percent('token_differs', facts['token_differs'])}: it tells of their form more than of the task"
        )
    if "further_example" in facts:
        lines += _by_source(facts, q)
    if not is_clear(facts):
        return [*lines, UNCLEAR]
    lines.append(standing_out(heads, q))
    if "total" in facts:
        lines += _in_total(facts, heads, quotes.under("total", unit="nats/example"))
    if facts.get("note"):
        lines.append(q.all_in("note", facts["note"]))
    return lines + (_taken_away(facts, ablation, repair, q) if len(ablation) else [])


def _slope(facts: Mapping[str, Any], part: str, name: str, quotes: Quotes) -> str:
    """What one part writes of delta, and its share where delta is clear."""
    text = f"{name} {quotes.three(f'slope_{part}', facts[f'slope_{part}'].values())}"
    share = f"share_{part}"
    return f"{text} ({quotes.percent(share, facts[share])})" if share in facts and is_clear(facts) else text


def _as_fitted(facts: Mapping[str, Any]) -> str:
    """What `fit` reads, beside what is attributed."""
    return "the same" if facts.get("read") == "whole answer" else "of the whole answer"


def _along_line(facts: Mapping[str, Any], quotes: Quotes) -> str:
    """The same sum along the line from the mean stream, and how far it adds up."""
    own, n_min = facts["line"], quotes.count("n_min", facts["n_min"])
    names = {"head": "heads", "mlp": "MLPs", "others": OTHERS, "rest": "embedding and biases"}
    names = {key: words for key, words in names.items() if f"slope_{key}" in own} | {"asked": "which answer is asked"}
    parts = ", ".join(_slope({**facts, **own}, part, name, quotes) for part, name in names.items())
    text = (
        f"that was with the scale of the final norm held as run; along the line from the mean stream at n = {n_min}, "
        f"with neither scale nor entropy apart: {parts}; they add up within "
        f"{quotes.number('error', own['error'], '.1g')}"
    )
    return text if own["error"] <= LINE_COMPLETE else f"{text}, MORE than {LINE_COMPLETE:g}: do not rely on the line"


def _by_source(facts: Mapping[str, Any], quotes: Quotes) -> list[str]:
    """What heads write by the token they attend to, and what a further example adds by that."""
    here = "the query and the answer so far" if facts["token"] else "the query"
    names = {"examples": "earlier examples", "query": here, "sink": "the first token"}
    sources = ", ".join(_slope(facts, part, name, quotes) for part, name in names.items())
    by_role = facts["slope_by_role"].items()
    roles = ", ".join(f"{name} {quotes.number(f'slope_by_role.{name}', x)}" for name, x in by_role)
    further = [
        f"{quotes.three(f'further_example.{key}', x.values())} nats from n = {quotes.all_in(f'from.{key}', n)}"
        for n, x in facts["further_example"].items()
        for key in [n.replace(" ", "_")]
    ]
    return [
        f"what heads write of it, by where they attend: {sources}; within examples: {roles}",
        f"a further example adds, by what all heads write from examples, {', '.join(further)}",
    ]


def standing_out(heads: pd.DataFrame, quotes: Quotes) -> str:
    """How many heads of one task stand out, how their effects grow, for or against the update, and where they look."""
    own = heads[heads.kind == "head"]
    standing = own[own.stands_out.astype(bool)]
    text = (
        f"{quotes.count('standing', len(standing))} of {quotes.count('n_heads', len(own))} heads stand out ("
        f"more than {quotes.count('least_share', 100 * LEAST_SHARE, 'g')} % of delta, for or against it)"
    )
    if not len(standing):
        return text
    counts = standing.accumulation.value_counts().items()
    kinds = ", ".join(f"{quotes.count(f'standing.{kind}', n)} {kind}" for kind, n in counts)
    return (
        f"{text}: {kinds}; {quotes.count('standing_for', (standing.share > 0).sum())} for the update and "
        f"{quotes.count('standing_against', (standing.share < 0).sum())} against it; "
        f"{quotes.count('standing_attending', (standing.attention > MOSTLY).sum())} of them have most of their "
        "attention on examples"
    )


def _in_total(facts: Mapping[str, Any], heads: pd.DataFrame, quotes: Quotes) -> list[str]:
    """What heads add through MLPs and later heads too, which heads, how far that adds up, and how ablation agrees."""
    q, own = quotes, facts["total"]

    def share(name: str) -> str:
        return q.three_percent(name, own[name].values(), ".0%")

    of_heads = heads[heads.kind == "head"].dropna(subset=["total"])
    largest = of_heads.loc[of_heads.total.abs().nlargest(NAMED).index]
    names = [
        f"{row.component} {q.percent(f'{row.component}.total_share', row.total_share)} "
        f"({q.percent(f'{row.component}.share', row.share)})"
        for row in largest.itertuples()
    ]
    standing = of_heads.total_stands_out.astype(bool).sum()
    lines = [
        f"in total, through MLPs and later heads too, heads add {q.three('head', own['head'].values())} "
        f"({share('share_head')} of delta), where directly they write {q.percent('direct_head', facts['share_head'])} "
        f"and MLPs {q.percent('direct_mlp', facts['share_mlp'])}; with MLPs moved from their reference as "
        f"well, {share('joint_share_head')} is the heads' and {share('joint_share_mlp')} the MLPs'; with heads at "
        f"their reference, delta is {q.three('at_reference', own['at_reference'].values())}",
        f"{q.count('standing', standing)} of {q.count('n_heads', len(of_heads))} heads stand out by that; the largest "
        f"total shares (direct ones in brackets): {', '.join(names)}",
    ]
    if "examples" in own:
        parts = {"examples": "earlier shots", "query": "the shot's own tokens", "sink": "the first token"}
        parts |= {"from_reference": "less what they hand on at their reference"}
        sources = ", ".join(f"{words} {q.three(name, own[name].values())}" for name, words in parts.items())
        lines.append(f"heads' total effect by what they attend to, from any token: {sources}")
    lines += [_adding_up(own[name], words, q.under(name)) for name, words in ADDING_UP.items()]
    if "compared" in own:
        lines.append(_compared(own["compared"], q.under("compared")))
    return lines


def _adding_up(error: Mapping[str, Any], words: str, quotes: Quotes) -> str:
    """How far integrated gradients add up to what they must, and in how many sequences they do not."""
    q = quotes
    text = (
        f"{words} add up to delta less delta at the reference within {q.percent('mean', error['mean'], '.1%')} on "
        f"average over sequences, {q.percent('largest', error['largest'], '.1%')} in the worst"
    )
    if not error["beyond"]:
        return text
    beyond, steps = q.count("beyond", error["beyond"]), q.count("steps", error["steps"])
    return (
        f"{text}; NOT within the bound in {beyond} of them, with {steps} nodes: more --total-steps may do, but not "
        "with experts"
    )


def _compared(own: Mapping[str, Any], quotes: Quotes) -> str:
    """Total effects by gradients beside heads ablated one by one."""
    q = quotes
    rank, among, slope = (q.three_percent(name, own[name].values(), ".2f") for name in ("rank", "rank_top", "slope"))
    return (
        f"ablated one by one on the {q.count('n_seqs', own['n_seqs'])} sequences that they were not chosen on, the "
        f"{q.count('n_top', len(own['top']))} heads of the largest total effects lose "
        f"{q.number('top_lost', own['top_lost'])} each, {q.count('n_placebos', len(own['placebos']))} placebo heads "
        f"{q.number('placebo_lost', own['placebo_lost'])}; rank correlation of loss and total effect {rank} ({among} "
        f"among the former), loss for a total effect of 1 {slope}"
    )


def _taken_away(facts: Mapping[str, Any], ablation: pd.DataFrame, repair: pd.DataFrame, quotes: Quotes) -> list[str]:
    """What goes with the top heads, in both ways of ablating them, and self-repair."""
    q, first = quotes.under("taken"), ablation[ablation.set == "top"].iloc[0]
    lines = [
        f"ablated, of heads those that write most: {q.count('n_heads', first.n_heads)} ({first['heads']}), chosen "
        f"on every other sequence; on the other {q.count('n_seqs', first.n_seqs)}, of delta "
        f"{q.number('delta_here', facts['delta_measured']['mean'])}, what they write is {q.columns(first, 'direct')}"
    ]
    for way in ABLATED_WORDS:
        q, own = quotes.under("taken", way), ablation[ablation.value == way]
        top, clean = (own[own.set == name].iloc[0] for name in ("top", "none"))
        mended, placebo = repair[repair.value == way].iloc[0], own[are_placebos(own.set)]
        norms = {
            "placebo_norm_least": placebo.norm.min(),
            "placebo_norm_most": placebo.norm.max(),
            "norm_of_heads": top.norm,
        }
        least, most, of_heads = (q.count(name, x, ".3g") for name, x in norms.items())
        lines += [
            f"{lost_with_top(facts, ablation, way, quotes)}, where direct effects of {q.columns(top, 'predicted')} go; "
            f"delta fitted again {q.columns(top, 'delta')}, from {q.number('delta_clean', clean.delta)}; of the whole "
            f"answer (complement) {q.columns(top, 'lost_curve')} is lost",
            f"    {lost_with_placebos(facts, ablation, way, quotes)}, "
            f"{q.number('placebo_least', placebo.lost.min())} to {q.number('placebo_most', placebo.lost.max())} "
            f"(norm {least} to {most}, that of the heads {of_heads})",
            f"    from what goes to what is lost, by the change of other heads {q.columns(mended, 'other_heads')}, "
            f"MLPs {q.columns(mended, 'mlps')}, norms and rivals {q.columns(mended, 'norm')}",
        ]
    return lines


def lost_with_top(facts: Mapping[str, Any], ablation: pd.DataFrame, way: str, quotes: Quotes) -> str:
    """What of delta is lost with the top heads of one task."""
    q = quotes.under("taken", way)
    top = ablation[(ablation.value == way) & (ablation.set == "top")].iloc[0]
    share = q.percent("share_lost", top.lost / facts["delta_measured"]["mean"])
    return f"{ABLATED_WORDS[way]}: {q.columns(top, 'lost')} is lost ({share})"


def lost_with_placebos(facts: Mapping[str, Any], ablation: pd.DataFrame, way: str, quotes: Quotes) -> str:
    """How many placebo sets of one task lose as much as its top heads, and what they lose on average."""
    q, own = quotes.under("taken", way), ablation[ablation.value == way]
    beyond, n_sets = placebo_rank(own, way, facts["delta_measured"]["mean"])
    mean = q.number("placebo_mean", own[are_placebos(own.set)].lost.mean())
    sets = f"{q.count('placebos_beyond', beyond)} of {q.count('placebos', n_sets)} placebo sets"
    return f"{sets} lose as much; they lose {mean} on average"


def writers_sentence(
    task: str, facts: Mapping[str, Any], heads: pd.DataFrame, ablation: pd.DataFrame, quotes: Quotes
) -> str:
    """Whether heads that attend to examples write the update, in short; `heads` and `ablation` are of one task."""
    q = quotes.under(unit="nats/example")
    of = f"{q.three('delta', facts['delta'].values())} nats per example, {token_words(facts, q)}"
    if not is_clear(facts):
        return f"{code(task)} ({of}): {UNCLEAR}."
    parts = [_slope(facts, "head", "what heads write of it is", q)]
    if "line" in facts:
        share = quotes.under("line").percent("share_head", facts["line"]["share_head"])
        parts.append(f"along the line from the mean stream {share}")
    if "slope_examples" in facts:
        parts.append(_slope(facts, "examples", "from examples that they attend to", q))
    sentences = [", ".join(parts), standing_out(heads, q)]
    if len(ablation):
        n_heads = q.under("taken").count("n_heads", ablation[ablation.set == "top"].n_heads.iloc[0])
        lost = [
            f"{lost_with_top(facts, ablation, way, q)}; {lost_with_placebos(facts, ablation, way, q)}"
            for way in ABLATED_WORDS
        ]
        sentences.append(f"Of those that write most ({n_heads}), {'; '.join(lost)}")
    return f"{code(task)} ({of}): {'. '.join(sentences)}."
