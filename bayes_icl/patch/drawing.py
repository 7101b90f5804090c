"""Colours, words and parts that the figures of `patch` share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayes_icl.core.intervals import Interval
from bayes_icl.writing.style import BLUE, GREEN, INK, TASK_COLOURS, VERMILION

ROUND_COLOURS = (INK, *TASK_COLOURS)

KINDS = {"zero": (BLUE, "o"), "mean": (VERMILION, "s"), "resample": (GREEN, "D")}

GREY = "0.55"

PATCHES = {
    "last": "A (with examples) patched into B (a bare query)",
    "query": "A (with examples) patched into B at the query",
    "separator": "A (with examples) patched into B at the separator",
    "answers": "examples\u2019 answers of A patched into B (permuted)",
}

LAYER, LOG_ODDS = "layer whose resid_pre is patched", "log-odds (nats)"


def unique(column: pd.Series) -> list[Any]:
    """Values of a column, each once, in the order of their first row."""
    return list(dict.fromkeys(column))


def line(ax: Axes, x: pd.Series, table: pd.DataFrame, name: str, **style: Any) -> None:
    """A line and its band."""
    ax.fill_between(x, table[f"{name}_low"], table[f"{name}_high"], color=style["color"], alpha=0.2, lw=0)
    ax.plot(x, table[name], **style)


def round_colour(number: float) -> Any:
    """NaN, for heads that were ablated in no round, is grey."""
    return GREY if np.isnan(number) else ROUND_COLOURS[int(number) % len(ROUND_COLOURS)]


def round_words(row: Any) -> str:
    """A round's number, heads ablated and transfer layer, from a row of rounds.csv."""
    heads = f"{row.layers_text} ({row.n_heads:.0f} head{'s' if row.n_heads > 1 else ''})"
    layer = f"at {between(Interval.of(row, 'transfer_layer'))}" if np.isfinite(row.transfer_layer) else "never"
    words = f"round {row.round:.0f}: {heads if row.n_heads else 'nothing ablated'}; "
    return words + f"transfer {layer}".replace(" ", "\u00a0")  # kept on one line


def between(interval: Interval, unit: str = "") -> str:
    """A layer or percentage with its interval, if it has one."""
    mean, low, high = (f"{x:.{int(0 < x < 1)}f}" for x in interval)
    return f"{mean}{unit}" + (f" [{low}, {high}]" if np.isfinite(interval[1:]).all() else "")


def mark_below(ax: Axes, marks: Sequence[tuple[float, float, float, Any]]) -> None:
    """Triangles with intervals in rows of their own below the data: value, interval and colour of each."""
    finite = [mark for mark in marks if np.isfinite(mark[0])]
    if not finite:
        return
    share = 0.05 * (len(finite) + 0.5)
    low, high = ax.get_ylim()
    ax.set_ylim(low - (high - low) * share / (1 - share), high)
    for i, (at, left, right, colour) in enumerate(finite):
        y = share - 0.05 * (i + 0.75)
        ax.plot([left, right], [y, y], color=colour, lw=1.2, transform=ax.get_xaxis_transform(), zorder=5)
        ax.plot(at, y, "^", color=colour, ms=4, mew=0, transform=ax.get_xaxis_transform(), zorder=6)


def label_points(ax: Axes, names: Iterable[str], points: np.ndarray, drawn: np.ndarray) -> None:
    """Names near their points, on no other name and on as little else as may be; the layout must be known.

    Parameters
    ----------
    ax
        Where they are drawn.
    names
        One a point.
    points
        Those named, shape (name, 2).
    drawn
        All that a name should not cover, shape (point, 2).
    """
    figure = ax.figure
    assert isinstance(figure, Figure)
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 6.5}
    angles = np.deg2rad(np.arange(0, 360, 30))
    around = np.stack([1.6 * np.cos(angles), np.sin(angles)], 1)
    offsets = np.concatenate([radius * around for radius in (9, 14, 20, 28)])
    others = ax.transData.transform(drawn[np.isfinite(drawn).all(1)])
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    for name, point in zip(names, points):
        measured = ax.annotate(name, point, (0, 0), **style)
        half = np.array(measured.get_window_extent().size) / 2
        measured.remove()
        centres = ax.transData.transform(point) + offsets * figure.dpi / 72
        low, high = centres - half, centres + half
        hits = sum(((low < b) & (a < high)).all(1) for a, b in taken)
        outside = (low < ax.bbox.min).any(1) | (high > ax.bbox.max).any(1)
        covered = ((others > low[:, None] - 1) & (others < high[:, None] + 1)).all(2).sum(1)
        best = np.argmin(100.0 * (hits + outside) + 5 * covered + np.hypot(*offsets.T) / 10)
        far = np.hypot(*offsets[best]) > 20
        line = {"arrowstyle": "-", "lw": 0.4, "shrinkA": 0, "shrinkB": 2, "color": INK} if far else None
        note = ax.annotate(name, point, tuple(offsets[best]), color=INK, arrowprops=line, **style)
        note.set_in_layout(False)
        taken.append((low[best], high[best]))
