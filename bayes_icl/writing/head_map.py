"""Heads to hover over: layer by head maps of their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.colors import get_colorscale

from bayes_icl.core.errors import StatedError, unknown
from bayes_icl.writing.interactive import BELOW, HEIGHT, NOTHING, entry, escaped, layout, menu, rounded


class Quantity(NamedTuple):
    """What a map of heads shows.

    Attributes
    ----------
    column
        Of the table; its interval, if any, is in the columns with ``_low`` and ``_high``.
    words, unit
        For people.
    signed
        Whether 0 is in the middle of the colours.
    """

    column: str
    words: str
    unit: str = ""
    signed: bool = True


ATTRIBUTED = (
    Quantity("slope", "slope", "nats/example"),
    Quantity("share", "share of delta"),
    Quantity("line_share", "share of delta, along the line"),
    Quantity("total", "total effect on delta", "nats/example"),
    Quantity("total_share", "total share of delta"),
    Quantity("joint_share", "total share, MLPs having theirs"),
    Quantity("pooled", "slope, pooled over heads", "nats/example"),
    Quantity("rise", "rise from n_min to the last shot", "nats"),
    Quantity("slope_examples", "slope of what comes from examples", "nats/example"),
    Quantity("lost", "lost if mean-ablated, shot by shot", "nats/example"),
    Quantity("lost_over_shots", "lost if mean-ablated over shots", "nats/example"),
    Quantity("attention", "attention to examples, last shot", signed=False),
)

PATCHED = (
    Quantity("lost", "lost", "nats"),
    Quantity("taken", "direct effect that goes", "nats"),
    Quantity("other_heads", "other heads make up", "nats"),
    Quantity("mlps", "MLPs make up", "nats"),
    Quantity("norm", "norm and rivals make up", "nats"),
    Quantity("lost_resample", "lost, by resample", "nats"),
    Quantity("lost_mean", "lost, by mean", "nats"),
    Quantity("lost_zero", "lost, by zero", "nats"),
    Quantity("direct", "direct effect", "nats"),
    Quantity("bring", "attention of answers to their query", signed=False),
    Quantity("to_answers", "attention to answers", signed=False),
    Quantity("to_queries", "attention to earlier queries", signed=False),
    Quantity("to_before", "attention to what precedes answers", signed=False),
    Quantity("to_sink", "attention to the first token", signed=False),
    Quantity("previous_token", "attention to the token before", signed=False),
    Quantity("induction", "induction", signed=False),
)


def head_map(
    table: pd.DataFrame, tasks: Sequence[str] | None = None, quantities: Sequence[Quantity] | None = None
) -> go.Figure:
    """Layer by head maps with a menu of quantities and, of several tasks, one of tasks.

    Each quantity has one range of colours for all tasks. Every cell's words have all quantities.

    Parameters
    ----------
    table
        heads.csv of `attribute` or of `patch`.
    tasks
        Those that the menu offers, the first drawn at once; all of the table if None.
    quantities
        The same of quantities; those of `ATTRIBUTED` or `PATCHED` that the table has if None.
    """
    heads = table[table["kind"] == "head"] if "kind" in table else table
    shown = list(dict.fromkeys(heads.task)) if tasks is None else list(tasks)
    for task in shown:
        if task not in set(heads.task):
            raise unknown("task", task, list(dict.fromkeys(heads.task)))
    heads = heads[heads.task.isin(shown)]
    offered = quantities or (ATTRIBUTED if "slope" in heads else PATCHED)
    offered = [q for q in offered if q.column in heads and heads[q.column].notna().any()]
    if not offered:
        raise StatedError("a map of heads needs a table of heads with numbers, got one without: run attribute or patch")
    layers, numbers = (range(int(heads[name].max()) + 1) for name in ("layer", "head"))
    figure = go.Figure(layout=layout("head", "layer", height=max(HEIGHT, 11 * len(layers) + 150)))
    grids = {task: _grids(heads[heads.task == task], offered, len(layers), len(numbers)) for task in shown}
    scales = {q.column: _scale(q, heads[q.column].to_numpy(float)) for q in offered}
    first = offered[0]
    lines = [f"{q.words}: %{{customdata[{k}]}}" for k, q in enumerate(offered)]
    template = "<br>".join(["<b>L%{y}H%{x}</b>", *lines, f"%{{customdata[{len(offered)}]}}<extra></extra>"])
    for i, task in enumerate(shown):
        z, words = grids[task]
        figure.add_heatmap(
            x=list(numbers),
            y=list(layers),
            z=z[first.column],
            customdata=words,
            name=escaped(task),
            visible=i == 0,
            hovertemplate=template,
            hoverongaps=False,
            xgap=1,
            ygap=1,
            colorbar={
                "orientation": "h",
                "thickness": 10,
                **BELOW,
                "title": {"text": _title(first), "side": "bottom"},
                "outlinewidth": 0,
            },
            **scales[first.column],
        )
    figure.update_xaxes(dtick=-(-len(numbers) // 16), showgrid=False, zeroline=False, range=[-0.5, len(numbers) - 0.5])
    figure.update_yaxes(dtick=-(-len(layers) // 16), showgrid=False, zeroline=False, range=[-0.5, len(layers) - 0.5])
    by_quantity = [
        entry(
            q.words,
            {
                "z": [grids[task][0][q.column] for task in shown],
                **{name: [value] for name, value in scales[q.column].items()},
                "colorbar.title.text": [_title(q)],
            },
        )
        for q in offered
    ]
    by_task = [entry(task, {"visible": [other == task for other in shown]}) for task in shown]
    menus = [menu(entries, i) for i, entries in enumerate(x for x in (by_quantity, by_task) if len(x) > 1)]
    figure.update_layout(updatemenus=menus, margin={"t": 12 + 38 * len(menus)})
    return figure


def _grids(
    own: pd.DataFrame, quantities: Sequence[Quantity], n_layers: int, n_heads: int
) -> tuple[dict[str, list[list[float | None]]], list[list[list[str]]]]:
    """Each quantity's values by layer and head; every cell's words: one for each quantity, last what else is known."""
    z = {q.column: np.full((n_layers, n_heads), np.nan) for q in quantities}
    words = [[[NOTHING] * len(quantities) + [""] for _ in range(n_heads)] for _ in range(n_layers)]
    for row in own.to_dict("records"):
        layer, head = int(row["layer"]), int(row["head"])
        for q in quantities:
            z[q.column][layer, head] = row[q.column]
        marks = [words for name, words in MARKS.items() if row.get(name) in (True, "True")]
        if isinstance(kind := row.get("accumulation"), str) and kind:
            marks.append(f"accumulation: {escaped(kind)}")
        if not pd.isna(row.get("round", np.nan)):
            marks.append(f"ablated in round {row['round']:.0f}")
        words[layer][head] = [*(_with_interval(row, q.column) for q in quantities), "<br>".join(marks)]
    return {name: [rounded(line, significant=True) for line in grid] for name, grid in z.items()}, words


MARKS = {"stands_out": "stands out", "total_stands_out": "stands out in total", "top": "among those ablated"}


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    if pd.isna(row[name]):
        return NOTHING
    ends = [row.get(name + end, np.nan) for end in ("_low", "_high")]
    interval = "" if np.isnan(ends).any() else f" [{ends[0]:.3g}, {ends[1]:.3g}]"
    return f"{row[name]:.3g}{interval}".replace("-", "\u2212")


def _scale(quantity: Quantity, values: Float[np.ndarray, " head"]) -> dict[str, Any]:
    """Colours and their range: about 0 or from 0."""
    most = float(f"{np.nanmax(np.abs(values)):.3g}") or 1.0
    # Red is positive, as in the figures of the paper. Spelled out: plotly.js means other colours by these names.
    return {
        "colorscale": get_colorscale("RdBu_r" if quantity.signed else "Blues"),
        "zmin": -most if quantity.signed else 0,
        "zmax": most,
    }


def _title(quantity: Quantity) -> str:
    return quantity.words + (f" ({quantity.unit})" if quantity.unit else "")
