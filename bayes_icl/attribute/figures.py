"""Figures of what heads write: shares of delta, effects against n and source, what ablation takes away.

Functions that take the tables and the Dataset of `attribute` and return a Figure, in the style of `writing.style`. Effects
are in nats, slopes in nats per example; intervals are 95 %, over sequences. Where delta may be zero, shares of it mean
nothing: such a task is named with the reason, and its shares are not drawn beside those of others. Where a function
takes `deltas`, that is mean and 95 % interval of delta by task; if None, `table.attrs["deltas"]`, and where there is
none either, the sum of the slopes, without an interval. `attrs["tokens"]` of a table has by task which token of the
answer is attributed, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy.stats import t as student

from bayes_icl.attribute.outputs import ATTRIBUTE_TABLES
from bayes_icl.core.files import beside, file_name, read_table
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.writing.numbers import token_label
from bayes_icl.writing.style import (
    BLUE,
    COLUMN,
    DASHES,
    DIVERGING,
    EXAMPLES,
    FAINT,
    GREEN,
    INK,
    MINUS,
    PINK,
    TASK_COLOURS,
    VERMILION,
    colour_of,
    few_ticks,
    hide_unused,
    label_right,
    new_figure,
    number_words,
    styled,
    titled,
)

Deltas = Mapping[str, Sequence[float]]

TAKEN = {
    "": "mean-ablated heads",
    "mean": "heads at their mean over episodes",
    "held": "heads held at their mean over shots",
}

PARTS = {"heads": "head", "MLPs": "mlp", "rest": "rest"}

STEPS = {
    "predicted": "predicted loss",
    "other_heads": f"{MINUS} other heads",
    "mlps": f"{MINUS} MLPs",
    "norm": f"{MINUS} norm, rivals",
    "lost": "= lost",
}


@styled
def share_map_figure(table: pd.DataFrame, deltas: Deltas | None = None, *, most: int = 8) -> Figure:
    """Layer by head maps of the share of delta, a panel a task, one range for all, zero in the middle.

    Parameters
    ----------
    table
        heads.csv.
    most
        How many of the heads that stand out are named in a panel, the largest first; all are outlined.
    """
    known, heads = _deltas(table, deltas), _heads(table)
    tasks, shape = list(known), (int(heads.layer.max()) + 1, int(heads["head"].max()) + 1)
    drawn = [task for task in tasks if _clear(known[task])] or tasks
    limit = float(heads.share[heads.task.isin(drawn)].abs().max()) or 1.0
    rows, columns = -(-len(tasks) // 2), min(len(tasks), 2)
    height = max(min(0.085 * shape[0], 7.7 / rows), 0.9)  # inches of a panel; all of them fill a page at most
    figure, axes = new_figure(
        rows, columns, rows * (height + 0.55) + 0.8, width=columns * COLUMN, sharex=True, sharey=True
    )
    for ax, task in zip(axes.flat, tasks):
        own, grid = heads[heads.task == task], np.full(shape, np.nan)
        if task in drawn:
            grid[own.layer.astype(int), own["head"].astype(int)] = own.share
        words = _delta_words(known[task]) if task in drawn else _delta_words(known[task], "no shares")
        ax.set_facecolor("0.95")
        mesh = ax.pcolormesh(grid, cmap=DIVERGING, vmin=-limit, vmax=limit, edgecolors="face", lw=0.1)
        out = own[own.stands_out]
        for row in out.itertuples():
            ax.add_patch(Rectangle((row.head, row.layer), 1, 1, fill=False, ec=INK, lw=0.8, clip_on=False))
        named = out.loc[out.slope.abs().nlargest(most).index].sort_values(["layer", "head"])
        names = [f"{row.layer:.0f}.{row.head:.0f}" for row in named.itertuples()]
        label_right(ax, names, named.layer.to_numpy() + 0.5, shape[0] * 0.11 / height, shape[0])
        count = f"{len(out)} heads stand out" if len(out) > 1 else f"{'one' if len(out) else 'no'} head stands out"
        more = f", {most} named" if len(out) > most else ""
        ax.set_title(f"{_named(task, table)}\n{count}{more}\n{words}", loc="left", pad=3)
        for axis, number in ((ax.xaxis, shape[1]), (ax.yaxis, shape[0])):
            ticks = np.arange(0, number, -(-number // 10))
            axis.set_ticks(ticks + 0.5, ticks)
    hide_unused(axes, len(tasks))
    shrink = 1 if rows == 1 else 1.4 / rows
    figure.colorbar(mesh, ax=axes, label="share of delta", fraction=0.04, aspect=30 * shrink, shrink=shrink, pad=0.02)
    words = f"{_context(table)}; delta in nats per example\noutlined: heads that stand out, named layer.head"
    return titled(figure, words, "head", "layer")


@styled
def effect_curves_figure(effects: xr.Dataset, table: pd.DataFrame, task: str, n_min: int = 1, most: int = 6) -> Figure:
    """The effect of the heads of the largest slopes against n, with two fits; last, L(n) and the sums it is made of.

    `additive` has the head's own delta (its slope where it has none), `pooling` its own c where that is finite; what is
    left, an offset and A, is least squares on the mean.

    Parameters
    ----------
    n_min
        The shot from which the fits were made; earlier ones are drawn open.
    """
    own, top = _of_task(effects, task), _top(table, task, most)
    shots = own.shot.values.astype(float)
    fitted = shots >= n_min
    n = shots[fitted]
    rows, (additive, pooling) = -(-(len(top) + 1) // 4), (colour_of(name) for name in ("additive", "pooling"))
    figure = Figure(figsize=(2 * COLUMN, 1.5 * rows + 0.75), layout="constrained")
    grid = figure.add_gridspec(rows, 4)
    for i, row in enumerate(top.itertuples()):
        ax = figure.add_subplot(grid[i // 4, i % 4])
        mean, half = _mean(_of_head(own.effect, row))
        ax.vlines(shots, mean - half, mean + half, color="0.5", lw=0.5)
        ax.plot(n, mean[fitted], ".", color=INK, ms=2.5)
        ax.plot(shots[~fitted], mean[~fitted], "o", color=INK, ms=2, mfc="w", mew=0.5)
        slope = row.delta if np.isfinite(row.delta) else row.slope
        ax.plot(n, mean[fitted].mean() + slope * (n - n.mean()), color=additive, lw=1.3, zorder=3)
        if np.isfinite(row.c):
            basis = np.stack([n / (n + row.c), np.ones_like(n)], 1)
            ax.plot(n, basis @ np.linalg.lstsq(basis, mean[fitted])[0], color=pooling, lw=1.5, ls=DASHES, zorder=4)
        ax.set_title(_head_words(row), loc="left", pad=3, fontsize=6.5)
    ax = figure.add_subplot(grid[rows - 1, len(top) % 4 :])
    ends = []
    for name, part, colour in (
        ("L(n)", own.log_odds, INK),
        ("heads", own.effect.sum(("layer", "head")), VERMILION),
        ("MLPs", own.mlp.sum("layer"), BLUE),
        ("rest", own.rest, GREEN),
    ):
        mean, half = _mean(part.transpose("seq", "shot").values)
        ax.fill_between(shots, mean - half, mean + half, color=colour, alpha=0.25, lw=0)
        ax.plot(shots, mean, color=colour, lw=1.8 if name == "L(n)" else 1.1)
        ends.append((mean[-1], name, colour))
    ax.set_title("L(n), the sum of\nheads, MLPs and rest", loc="left", pad=3, fontsize=7)
    low, high = ax.get_ylim()
    heights, names, colours = zip(*sorted(ends, key=lambda end: end[0]))
    label_right(ax, names, np.array(heights), 0.12 * (high - low), high, low=low, colours=colours)
    for ax in figure.axes:
        ax.axhline(0, color=FAINT, lw=0.6, zorder=0)
        few_ticks(ax)
    handles = [
        Line2D([], [], marker=".", ms=5, lw=0.6, color=INK),
        Line2D([], [], lw=1.3, color=additive),
        Line2D([], [], lw=1.5, color=pooling, ls=DASHES),
    ]
    words = [f"mean, {LEVEL_WORDS} interval", "additive: n delta", "averaging: A n/(n + c)"]
    title = f"{_named(task, table)} ({_context(effects, n_min=n_min)})"
    figure.legend(handles, words, loc="outside upper center", ncols=3, title=title, title_fontsize=8)
    return titled(figure, "", EXAMPLES, "effect on L(n) (nats)")


@styled
def source_map_figure(effects: xr.Dataset, table: pd.DataFrame, task: str, most: int = 4) -> Figure:
    """Where the effect of the top heads comes from: a column a head; below, by distance, and attention to examples.

    The range of colours holds 98 % of the examples' cells of all heads; arrows on its bar say that others are beyond.
    The profile by distance is over the later half of the shots alone, which all have all its distances: an average over
    all shots would have more of the early shots, with their larger effects, at short distances than at long ones.
    """
    own, top = _of_task(effects, task), _top(table, task, most)
    n_shots = int(own.shot.max())
    examples, shots = [str(i) for i in range(1, n_shots + 1)], np.arange(n_shots + 1)
    back = np.arange((n_shots + 1) // 2)
    late = shots[max(len(back), 1) :]
    by_source = [_of_head(own.effect_by_source, row, "source") for row in top.itertuples()]
    means = [head.mean("seq") for head in by_source]
    limit = float(np.nanquantile([np.abs(mean.sel(source=examples)) for mean in means], 0.98)) or 1.0
    beyond = max(float(np.abs(mean).max()) for mean in means) > limit
    wide = max(1.0, n_shots / 12)  # the sink's and the query's columns, as multiples of an example's
    left, right = 0.5 - 1.5 * wide, n_shots + 0.5 + 0.5 * wide
    columns = {left: ["sink"], 0.5: examples, right: ["query"]}
    shared = {"sharex": "row", "sharey": "row", "height_ratios": [1.7, 1, 1]}
    figure, axes = new_figure(3, len(top), 4.6, width=COLUMN * (2 if len(top) > 2 else 1), **shared)
    for (ax, below, lowest), row, head, mean in zip(axes.T, top.itertuples(), by_source, means):
        for start, names in columns.items():
            edges = np.linspace(start, start + (wide if len(names) == 1 and start != 0.5 else n_shots), len(names) + 1)
            cells = np.ma.masked_invalid(mean.sel(source=names).values)
            kwargs = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit, "rasterized": True}
            mesh = ax.pcolormesh(edges, np.arange(n_shots + 2) - 0.5, cells, **kwargs)
            ax.add_patch(Rectangle((start, -0.5), edges[-1] - start, n_shots + 1, fill=False, ec=FAINT, lw=0.5))
        ax.set_title(_head_words(row), loc="left", pad=3, fontsize=6)
        ticks = [i for i in MaxNLocator(4, integer=True).tick_values(1, n_shots) if 0.15 < i / n_shots < 0.9]
        ax.set_xticks([left + wide / 2, *ticks, right + wide / 2], ["sink", *(f"{i:.0f}" for i in ticks), "query"])
        ax.set(xlim=(left, right + wide), ylim=(n_shots + 0.5, -0.5))
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.spines[:].set_visible(False)
        profile = head.sel(source=examples).values[:, late[:, None], late[:, None] - back - 1].mean(1)
        for ax, x, samples in ((below, back, profile), (lowest, shots, _of_head(own.attention, row))):
            middle, half = _mean(samples)
            ax.fill_between(x, middle - half, middle + half, color=BLUE, alpha=0.25, lw=0)
            ax.plot(x, middle, ".-", color=BLUE, lw=0.8, ms=2.5)
            ax.axhline(0, color=FAINT, lw=0.6, zorder=0)
            few_ticks(ax)
    axes[2, 0].set_ylim(bottom=0)
    apart = " " if len(top) > 2 else "\n"
    distances = f"how many examples back, n {MINUS} i{apart}(0: the last; mean over n \u2265 {late[0]})"
    labels = ("query shot, n", "effect of an\nexample (nats)", "attention\non examples")
    for row_axes, across, up in zip(axes, ("source: sink, example i, or query", distances, EXAMPLES), labels):
        row_axes[0].set_ylabel(up)
        row_axes[len(top) // 2].set_xlabel(across, x=0.5 if len(top) % 2 else -0.1)
    extend = "both" if beyond else "neither"
    figure.colorbar(mesh, ax=axes[0], label="effect (nats)", fraction=0.03, aspect=18, extend=extend, pad=0.01)
    return titled(figure, f"{_named(task, table)} ({_context(effects)})")


@styled
def ablation_figure(
    ablation: pd.DataFrame, table: pd.DataFrame, deltas: Deltas | None = None, *, most: int = 10
) -> Figure:
    """What mean-ablation takes from delta: the top set, the placebo sets and single heads, a panel a task.

    Parameters
    ----------
    ablation
        ablation.csv.
    table
        heads.csv, for delta, the whole of what can be lost; `attrs["delta_measured"]` has by task that of the sequences
        measured.
    most
        How many single heads are shown in a panel, those of the largest loss.
    """
    known = {task: delta for task, delta in _deltas(table, deltas).items() if task in set(ablation.task)}
    own_delta = table.attrs.get("delta_measured", {})
    panels = []
    for task in known:
        own = ablation[ablation.task == task]
        is_top, is_placebo = own["set"] == "top", own["set"].str.startswith("placebo")
        single = own[~is_top & ~is_placebo & (own["set"] != "none")]
        single = single.loc[single.lost.abs().nlargest(most).index].sort_values("lost", ascending=False)
        panels.append((task, own[is_top], own[is_placebo], single))
    rows, columns = -(-len(panels) // 2), min(len(panels), 2)
    heights = [0.15 * (max(len(panel[3]) for panel in panels[2 * i : 2 * i + 2]) + 3.5) for i in range(rows)]
    height = sum(heights) + 0.55 * rows + 0.85
    figure, axes = new_figure(rows, columns, height, width=columns * COLUMN, height_ratios=heights)
    for ax, (task, top, placebo, single) in zip(axes.flat, panels):
        mean, low, high = known[task]
        ax.axvline(0, color=FAINT, lw=0.6, zorder=0)
        ax.axvspan(low, high, color=GREEN, alpha=0.12, lw=0, zorder=0)
        ax.axvline(mean, color=GREEN, lw=1.2, zorder=0)
        lanes = placebo.lost.rank(method="first") % 3 - 1  # so that near ones are told apart
        ax.plot(placebo.lost, -1 + 0.25 * lanes, "o", color="0.45", ms=2.5, mew=0, alpha=0.8, zorder=3)
        below = -2.5 - np.arange(len(single))
        for y, row in zip([*np.zeros(len(top)), *below], pd.concat([top, single]).itertuples()):
            colour, size = (VERMILION, 4.5) if row.set == "top" else (INK, 3)
            ax.plot([row.lost_low, row.lost_high], [y, y], color=colour, lw=1.1, zorder=3)
            ax.plot(row.lost, y, "o", color=colour, ms=size, zorder=3)
            ax.plot(row.predicted, y, "D", color=BLUE, mfc="w", ms=3.5, mew=0.8, zorder=4)
        number = int(top.n_heads.sum())
        names = [f"top {number} heads" if number != 1 else "top head", f"{len(placebo)} placebo sets", *single["set"]]
        ax.set_yticks([0, -1, *below], names)
        ax.get_yticklabels()[0].set_fontweight("bold")
        if len(single):
            ax.axhline(-1.75, color=FAINT, lw=0.6, ls=":")
        ax.set_ylim(-1.7 - len(single) - 0.5 * bool(len(single)), 0.6)
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        here = own_delta.get(task, mean)
        lost = f"; lost {number_words(100 * top.lost.iloc[0] / here, 0)} %" if len(top) and _clear(known[task]) else ""
        ax.set_title(f"{_named(task, table)}\n{_delta_words(known[task])}{lost}", loc="left", pad=3)
    hide_unused(axes, len(panels))
    handles = [
        Line2D([], [], marker="o", ms=4.5, lw=1.1, color=VERMILION),
        Line2D([], [], marker="D", ms=3.5, lw=0, color=BLUE, mfc="w", mew=0.8),
        Line2D([], [], marker="o", ms=2.5, lw=0, color="0.45"),
        Line2D([], [], lw=1.2, color=GREEN),
    ]
    words = [f"lost, {LEVEL_WORDS}", "predicted by direct effects", "placebo set", f"all of delta, {LEVEL_WORDS}"]
    title = f"{TAKEN[table.attrs.get('way', '')]} ({_context(table)})"
    figure.legend(handles, words, loc="outside upper center", ncols=2 * columns, title=title, title_fontsize=8)
    return titled(figure, "", "delta lost (nats per example)")


@styled
def cumulative_figure(table: pd.DataFrame, deltas: Deltas | None = None) -> Figure:
    """The share of delta that the first so many heads write, largest first; a dot where half of the heads' total is.

    Dotted: the heads' total, where a curve ends; the legend has the MLPs and the rest too. A curve that rises above its
    end has heads against delta, or noise, which sorting puts first where it is positive and last where it is negative.
    """
    known, heads = _deltas(table, deltas), _heads(table)
    shares = table.assign(share=pd.to_numeric(table.share, errors="coerce")).groupby(["task", "kind"]).share.sum()
    drawn = [task for task in known if _clear(known[task])] or list(known)
    figure, axes = new_figure(1, 1, 2.5 + 0.28 * len(known))
    ax, handles, words = axes.flat[0], [], []
    for i, task in enumerate(known):
        if task not in drawn:
            handles.append(Line2D([], [], lw=0))
            words.append(f"{_named(task, table)}\nnot drawn: delta may be zero")
            continue
        colour, style = TASK_COLOURS[i % len(TASK_COLOURS)], ("-", "--", "-.")[i // len(TASK_COLOURS) % 3]
        curve = heads.share[heads.task == task].sort_values(ascending=False).to_numpy().cumsum()
        handles += ax.plot(np.arange(1, len(curve) + 1), curve, color=colour, ls=style, lw=1.3)
        ax.axhline(curve[-1], color=colour, lw=0.7, ls=(0, (1, 2)), zorder=1)
        parts = [f"{name} {number_words(shares.get((task, kind), 0.0))}" for name, kind in PARTS.items()]
        if curve[-1] > 0:
            at = int(np.argmax(curve >= curve[-1] / 2))
            ax.plot(at + 1, curve[at], "o", color=colour, ms=4.5, mec="w", mew=0.6, zorder=4)
            parts[0] += f", half by {at + 1}"
        words.append(f"{_named(task, table)}\n{'; '.join(parts)}")
    ax.axhline(0, color=FAINT, lw=0.6, zorder=0)
    ax.axhline(1, color=INK, lw=0.6)
    box = {"facecolor": "w", "lw": 0, "pad": 0.5}
    ax.annotate("all of delta", (0.01, 1), (0, 3), ax.get_yaxis_transform(), "offset points", fontsize=7, bbox=box)
    most = int(heads.groupby("task").size().max())
    ticks = [k * 10**p for p in range(5) for k in (1, 2, 5) if k * 10**p <= most]
    ax.set_xscale("log")
    ax.set_xticks(ticks, ticks)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(
        xlim=(0.93, most * 1.07), xlabel="number of heads, the largest share first", ylabel="cumulative share of delta"
    )
    title = "shares of delta (dot: half of the heads\u2019, dotted: all)"
    figure.legend(handles, words, loc="outside lower center", title=title, title_fontsize=7, alignment="left")
    return titled(figure, _context(table))


@styled
def repair_figure(repair: pd.DataFrame) -> Figure:
    """From the loss that direct effects predict for the top set to the loss there is, a panel a task.

    Each bar starts where the one above ends: what the set's heads still write and what others make up for goes off the
    predicted loss, or on it, where they lose as well.

    Parameters
    ----------
    repair
        repair.csv.
    """
    rows, columns = -(-len(repair) // 2), min(len(repair), 2)
    figure, axes = new_figure(rows, columns, 1.4 * rows + 0.5, width=columns * COLUMN, sharey=True)
    for ax, row in zip(axes.flat, repair.to_dict("records")):
        largest = max(abs(row[name]) for name in STEPS)
        digits = int(np.clip(1 - np.floor(np.log10(largest or 1)), 3, 6))
        end = 0.0
        for y, name in enumerate(STEPS):
            off = name not in ("predicted", "lost")
            sign, start = (-1, end) if off else (1, 0.0)
            ax.plot([end, end], [max(y - 1, 0), y], color=INK, lw=0.4, zorder=3)
            end = start + sign * row[name]
            colour = (GREEN if row[name] > 0 else PINK) if off else {"predicted": BLUE, "lost": VERMILION}[name]
            ax.barh(y, end - start, left=start, height=0.62, color=colour, lw=0)
            ax.plot([start + sign * row[f"{name}_{side}"] for side in ("low", "high")], [y, y], color=INK, lw=0.9)
            words = number_words(sign * row[name], digits)
            ax.text(1.01, y, words, transform=ax.get_yaxis_transform(), fontsize=6.5, va="center", color=INK)
        ax.axvline(0, color=INK, lw=0.6)
        ax.set_yticks(range(len(STEPS)), list(STEPS.values()))
        ax.set_ylim(len(STEPS) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_title(_named(row["task"], repair), loc="left", pad=3)
    hide_unused(axes, len(repair))
    title = [f"predicted loss to loss found, {LEVEL_WORDS}", "green: stays, or is made up for; pink: goes as well"]
    if context := _context(repair):
        title[0] += f" ({context})"
    if way := repair.attrs.get("way"):
        title.insert(0, TAKEN[way])
    return titled(figure, "\n".join(title), "delta lost (nats per example)")


def _heads(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of heads, of the types that they had before they were written to a file."""
    heads = table[table.kind == "head"].copy()
    for column in ("layer", "head", "slope", "share", "share_low", "share_high", "delta", "c"):
        heads[column] = pd.to_numeric(heads[column], errors="coerce")
    return heads.assign(stands_out=heads.stands_out.astype(str).isin(["True", "1", "1.0"]))


def _top(table: pd.DataFrame, task: str, most: int) -> pd.DataFrame:
    heads = _heads(table[table.task == task])
    return heads.loc[heads.slope.abs().nlargest(most).index]


def _deltas(table: pd.DataFrame, deltas: Deltas | None) -> dict[str, tuple[float, float, float]]:
    given = table.attrs.get("deltas", {}) if deltas is None else deltas
    sums = table[table.kind != "all"].groupby("task", sort=False).slope.sum()
    known = {str(task): given.get(task, (total, np.nan, np.nan)) for task, total in sums.items()}
    return {task: (float(mean), float(low), float(high)) for task, (mean, low, high) in known.items()}


def _clear(delta: tuple[float, float, float]) -> bool:
    """Whether zero is outside the interval; a delta with no interval counts as clear."""
    return not delta[1] <= 0 <= delta[2]


def _of_task(effects: xr.Dataset, task: str) -> xr.Dataset:
    """Without the padding to the longest and largest of the tasks."""
    own = effects.sel(task=task)
    return own.dropna("seq", how="all", subset=["log_odds"]).dropna("shot", how="all", subset=["log_odds"])


def _of_head(part: xr.DataArray, row: Any, *more: str) -> xr.DataArray:
    return part.sel(layer=int(row.layer), head=int(row.head)).transpose("seq", "shot", *more)


def _mean(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis, sequences, and half of its 95 % t-interval."""
    values = np.asarray(samples, float)
    se = values.std(0, ddof=1) / np.sqrt(len(values))
    return values.mean(0), student.ppf(0.975, len(values) - 1) * se


def _context(source: pd.DataFrame | xr.Dataset, *, n_min: int | None = None) -> str:
    """Readout and n_min as far as they are known."""
    if n_min is None and isinstance(source, pd.DataFrame) and "n_min" in source:
        n_min = int(source.n_min.iloc[0])
    words = [source.attrs.get("readout", ""), "" if n_min is None else f"n \u2265 {n_min}"]
    return ", ".join(word for word in words if word)


def _named(task: str, table: pd.DataFrame) -> str:
    """A task with the token that is attributed, where the table says which."""
    token = table.attrs.get("tokens", {}).get(task, "")
    return f"{task}, {token}" if token else task


def _delta_words(delta: tuple[float, float, float], unclear: str = "may be zero") -> str:
    mean, low, high = (number_words(x, 3) for x in delta)
    interval = f" [{low}, {high}]" if np.isfinite(delta[1]) else ""
    return f"delta {mean}{interval}" + ("" if _clear(delta) else f": {unclear}")


def _head_words(row: Any) -> str:
    share = f"share {number_words(row.share)} [{number_words(row.share_low)}, {number_words(row.share_high)}]"
    return f"{row.component}: {row.accumulation}\n{share}"


def attribute_figures(out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the effects file and the tables beside it."""
    table, ablation, repair = (read_table(beside(out, f"{name}.csv")) for name in ATTRIBUTE_TABLES)
    table["accumulation"] = table.accumulation.fillna("")
    facts = json.loads(beside(out, "json").read_text())
    deltas = {task: tuple(own["delta"].values()) for task, own in facts.items()}
    first = next(iter(facts.values()))
    measured = {task: own["delta_measured"]["mean"] for task, own in facts.items() if "delta_measured" in own}
    table.attrs["delta_measured"] = measured
    tokens = {task: token_label(own) for task, own in facts.items()}
    for one in (table, repair):
        one.attrs |= {"readout": first["readout"], "n_min": first["n_min"], "tokens": tokens}
    drawn = {
        "share_map": share_map_figure(table, deltas),
        "cumulative": cumulative_figure(table, deltas),
    }
    with xr.open_dataset(out, engine="h5netcdf") as effects:
        n_min = int(effects.attrs["n_min"])
        for task in effects.task.values.tolist():
            drawn[file_name(f"effects_{task}")] = effect_curves_figure(effects, table, task, n_min)
            if "effect_by_source" in effects:
                drawn[file_name(f"sources_{task}")] = source_map_figure(effects, table, task)
    for way in dict.fromkeys(ablation.way):
        table.attrs["way"] = repair.attrs["way"] = way
        drawn[f"ablation_{way}"] = ablation_figure(ablation[ablation.way == way], table, deltas)
        drawn[f"repair_{way}"] = repair_figure(repair[repair.way == way])
    return drawn
