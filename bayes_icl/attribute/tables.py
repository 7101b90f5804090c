"""The tables of `attribute` as a paper shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bayes_icl.attribute.outputs import ABLATION, HEADS, REPAIR
from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL_WORDS, Interval
from bayes_icl.mechanism.placebos import are_placebos, placebo_rank
from bayes_icl.writing import columns
from bayes_icl.writing.numbers import named_task, token_label
from bayes_icl.writing.tables import (
    SEVERAL,
    PaperTable,
)


def heads_table(heads: pd.DataFrame, facts: Mapping[str, Any], task: str, most: int = SEVERAL) -> PaperTable:
    """Components of one task; shown are the heads of the largest slopes and total effects, and those ablated.

    Parameters
    ----------
    heads
        heads.csv of `attribute`.
    facts
        Its JSON: whether delta is clear of 0, so that there is something to share out.
    task
        Which task.
    most
        How many heads are shown by their slopes, and by their total effects; twice as many rows at most.
    """
    own = heads[heads.task == task]
    named = named_task(facts, task)
    clear = Interval(*facts[task]["delta"].values()).excludes(0)
    only = own[own.kind == "head"]
    by_total = only.total.astype(float).abs()
    largest = (only.slope.abs().rank(ascending=False) <= most) | (by_total.rank(ascending=False) <= most)
    shown = only[largest | only.top.astype(bool)]
    shares = "share .0%; line_share .0%" if own.line_share.notna().any() else "share .0%"
    shares += "; total_share .0%" if by_total.notna().any() else ""
    return PaperTable(
        f"heads_{file_name(task)}",
        f"Heads that write the update on {task}",
        f"{named}: the heads of the largest slopes and total effects, nats per example, with {LEVEL_WORDS} intervals "
        "over sequences, and their shares of delta, written directly (scale of the norm held, and along the line from "
        "the mean stream) and in total; whether a head stands out, how its "
        "effect grows, its attention to examples at the last shot, and what of delta is lost if this head alone is "
        "mean-ablated over shots. Asterisk: among those ablated. The CSV has all components.",
        "heads.csv",
        own,
        (
            columns.Column("head", _starred, number=False),
            *columns.shown(HEADS, "slope .4f"),
            *(columns.shown(HEADS, shares) if clear else []),
            *columns.shown(HEADS, "stands_out; accumulation; attention .2f; lost_over_shots .4f"),
        ),
        shown.sort_values("slope", key=abs, ascending=False).head(2 * most),
    )


def _starred(row: Any) -> str:
    return columns.one_line(row.component) + ("*" if row.top else "")


def ablation_table(ablation: pd.DataFrame, facts: Mapping[str, Any]) -> PaperTable:
    """What goes with the top heads, and what placebo sets lose, from ablation.csv; the CSV has every set.

    Parameters
    ----------
    ablation
        ablation.csv of `attribute`.
    facts
        The JSON of `attribute`: delta of the sequences measured.
    """
    rows = []
    for (task, way), own in ablation.groupby(["task", "value"], sort=False):
        here, placebo = facts[task]["delta_measured"]["mean"], own[are_placebos(own["set"])].lost
        beyond, n_sets = placebo_rank(own, way, here)
        row = own[own["set"] == "top"].iloc[0].to_dict()
        spread = {"placebo_mean": placebo.mean(), "placebo_least": placebo.min(), "placebo_most": placebo.max()}
        rows.append(row | spread | {"share": row["lost"] / here, "as_much": f"{beyond} of {n_sets}"})
    return PaperTable(
        "ablation",
        "The top heads ablated",
        f"What of delta (nats per example, {LEVEL_WORDS} intervals over the sequences that the heads were not chosen "
        "on) is lost with the top heads mean-ablated, shot by shot (mean) or over shots too (mean_over_shots): beside "
        "it what they write directly, what of that goes, delta fitted again, and placebo sets of other heads of the "
        "same number and norm: how many lose as much, and what they lose, on average and from least to most. The CSV "
        "has every set." + _tokens(facts),
        "ablation.csv",
        ablation,
        (
            *columns.shown(ABLATION, "task; value; heads = n_heads; they write = direct; of it goes = predicted; lost"),
            columns.number("share", "share", ".0%"),
            *columns.shown(ABLATION, "delta again = delta"),
            columns.Column("placebos as much", lambda row: row.as_much),
            columns.Column("placebos lose", _placebos),
        ),
        pd.DataFrame(rows, columns=None if rows else [*ablation.columns, "share", "as_much"]),
    )


def _tokens(facts: Mapping[str, Any]) -> str:
    """Which token of the answer each task's numbers are of, as a sentence."""
    labels = {task: token_label(own) for task, own in facts.items()}
    words = "; ".join(f"{task}, {label}" for task, label in labels.items() if label)
    return f" Of the answers: {words}." if words else ""


def _placebos(row: Any) -> str:
    mean, least, most = (columns.number_cell(x, ".3f") for x in (row.placebo_mean, row.placebo_least, row.placebo_most))
    return columns.NOTHING if mean == columns.NOTHING else f"{mean} ({least} to {most})"


def repair_table(repair: pd.DataFrame, facts: Mapping[str, Any]) -> PaperTable:
    """From what goes with the top heads to what is lost, from repair.csv; `facts` as in `ablation_table`."""
    return PaperTable(
        "repair",
        "Self-repair of the top heads",
        "What goes with the top heads, less what other heads, MLPs, and the final norm and the other tokens repair "
        f", is what is lost of delta: nats per example, {LEVEL_WORDS} intervals over sequences." + _tokens(facts),
        "repair.csv",
        repair,
        (*columns.shown(REPAIR, "task; value; goes = predicted; other_heads; MLPs = mlps; norm, rivals = norm; lost"),),
    )
