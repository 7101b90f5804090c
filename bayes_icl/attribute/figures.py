"""Figures of what heads write: shares of delta, effects against n and source, what ablation removes.

Functions that take the tables and the Dataset of `attribute` with its JSON, `facts`, by task, and return a Figure.
Effects are in nats, slopes in nats per example; intervals are over sequences. Where delta may be zero, shares of it
mean nothing: such a task is named with the reason, and its shares are not drawn beside those of others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from bayes_icl.attribute.outputs import TABLES
from bayes_icl.core.files import beside, file_name
from bayes_icl.core.intervals import LEVEL_WORDS, Interval, t_interval
from bayes_icl.core.schemas import read_beside
from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.writing import style
from bayes_icl.writing.numbers import named_task
from bayes_icl.writing.style import (
    BLUE,
    GREEN,
    INK,
    MINUS,
    PINK,
    VERMILION,
    ZERO,
    number_words,
    styled,
    titled,
)

Facts = Mapping[str, Mapping[str, Any]]

ABLATED_WORDS = {"mean": "heads at their mean over episodes", "mean_over_shots": "heads mean-ablated over shots"}

PARTS = {"heads": "head", "MLPs": "mlp", "other mixers": "other", "rest": "rest"}

STEPS = {
    "predicted": "predicted loss",
    "other_heads": f"{MINUS} other heads",
    "mlps": f"{MINUS} MLPs",
    "norm": f"{MINUS} norm, rivals",
    "lost": "= lost",
}


@styled
def share_map_figure(table: pd.DataFrame, facts: Facts, *, most: int = 8) -> Figure:
    """Layer by head maps of the share of delta, a panel a task, one range for all, zero in the middle.

    Parameters
    ----------
    table
        heads.csv.
    facts
        The JSON of `attribute`, by task; a panel for each.
    most
        How many of the heads that stand out are named in a panel, the largest first; all are outlined.
    """
    heads, tasks = _heads(table), list(facts)
    shape = (int(heads.layer.max()) + 1, int(heads["head"].max()) + 1)
    drawn = _with_shares(facts)
    limit = float(heads.share[heads.task.isin(drawn)].abs().max()) or 1.0
    rows = -(-len(tasks) // 2)
    height = max(min(0.085 * shape[0], 7.7 / rows), 0.9)  # inches of a panel; all of them fill a page at most
    figure, axes = style.panels(len(tasks), height + 0.55, 0.8, sharex=True, sharey=True)
    for ax, task in zip(axes.flat, tasks):
        own, grid = heads[heads.task == task], np.full(shape, np.nan)
        if task in drawn:
            grid[own.layer.astype(int), own["head"].astype(int)] = own.share
        ax.set_facecolor("0.95")
        mesh = ax.pcolormesh(grid, cmap=style.DIVERGING, vmin=-limit, vmax=limit, edgecolors="face", lw=0.1)
        out = own[own.stands_out]
        for row in out.itertuples():
            ax.add_patch(Rectangle((row.head, row.layer), 1, 1, fill=False, ec=INK, lw=0.8, clip_on=False))
        named = out.loc[out.slope.abs().nlargest(most).index].sort_values(["layer", "head"])
        names = [f"{row.layer:.0f}.{row.head:.0f}" for row in named.itertuples()]
        style.label_right(ax, names, named.layer.to_numpy() + 0.5, shape[0] * 0.11 / height, shape[0])
        count = f"{len(out)} heads stand out" if len(out) > 1 else f"{'one' if len(out) else 'no'} head stands out"
        more = f", {most} named" if len(out) > most else ""
        words = _delta_words(_delta(facts, task), "may be zero" if task in drawn else "no shares")
        ax.set_title(f"{named_task(facts, task)}\n{count}{more}\n{words}", loc="left", pad=3)
        for axis, number in ((ax.xaxis, shape[1]), (ax.yaxis, shape[0])):
            ticks = np.arange(0, number, -(-number // 10))
            axis.set_ticks(ticks + 0.5, ticks)
    shrink = 1 if rows == 1 else 1.4 / rows
    figure.colorbar(mesh, ax=axes, label="share of delta", fraction=0.04, aspect=30 * shrink, shrink=shrink, pad=0.02)
    words = f"{_context(facts)}; delta in nats per example\noutlined: heads that stand out, named layer.head"
    return titled(figure, words, "head", "layer")


@styled
def effect_curves_figure(effects: xr.Dataset, table: pd.DataFrame, facts: Facts, task: str, most: int = 6) -> Figure:
    """The effect of the heads of the largest slopes against n, with two fits; last, L(n) and the sums it is made of.

    `additive` has the head's own delta (its slope where it has none), `pooling` its own c where that is finite; what is
    left, an offset and A, is least squares on the mean. Shots before those of the fits are drawn open.
    """
    own, top = _of_task(effects, task), _top(table, task, most)
    rows, (additive, pooling) = -(-(len(top) + 1) // 4), (style.colour_of(name) for name in ("additive", "pooling"))
    figure = Figure(figsize=(2 * style.COLUMN, 1.5 * rows + 0.75), layout="constrained")
    grid = figure.add_gridspec(rows, 4)
    for i, row in enumerate(top.itertuples()):
        _draw_effect(figure.add_subplot(grid[i // 4, i % 4]), own, row, facts[task]["n_min"])
    ax = figure.add_subplot(grid[rows - 1, len(top) % 4 :])
    ends = []
    for name, part, colour in (
        ("L(n)", own.log_odds, INK),
        ("heads", own.effect.sum(("layer", "head")), VERMILION),
        ("MLPs", own.mlp.sum("layer"), BLUE),
        *([("other mixers", own.other.sum("layer"), PINK)] if "other" in own else []),
        ("rest", own.rest, GREEN),
    ):
        mean, low, high = t_interval(part.transpose("seq", "shot").values.astype(float))
        ax.fill_between(own.shot, low, high, color=colour, alpha=0.25, lw=0)
        ax.plot(own.shot, mean, color=colour, lw=1.8 if name == "L(n)" else 1.1)
        ends.append((mean[-1], name, colour))
    ax.set_title("L(n), the sum of\nheads, MLPs and rest", loc="left", pad=3, fontsize=7)
    bottom, top_end = ax.get_ylim()
    heights, names, colours = zip(*sorted(ends, key=lambda end: end[0]))
    gap = 0.12 * (top_end - bottom)
    style.label_right(ax, names, np.array(heights), gap, top_end, low=bottom, colours=colours)
    for ax in figure.axes:
        ax.axhline(0, **ZERO)
        style.few_ticks(ax)
    styles = {
        f"mean, {LEVEL_WORDS} interval": {"marker": ".", "ms": 5, "lw": 0.6, "color": INK},
        "additive: n delta": {"lw": 1.3, "color": additive},
        "averaging: A n/(n + c)": {"lw": 1.5, "color": pooling, "ls": style.DASHES},
    }
    style.legend(figure, styles, ncols=3, title=f"{named_task(facts, task)} ({_context(facts)})")
    return titled(figure, "", style.EXAMPLES, "effect on L(n) (nats)")


def _draw_effect(ax: Axes, effects: xr.Dataset, row: Any, n_min: int) -> None:
    """One head's mean effect with its interval, and the two fits."""
    shots = effects.shot.values.astype(float)
    fitted = shots >= n_min
    n, (mean, low, high) = shots[fitted], t_interval(_of_head(effects.effect, row).values.astype(float))
    ax.vlines(shots, low, high, color="0.5", lw=0.5)
    ax.plot(n, mean[fitted], ".", color=INK, ms=2.5)
    ax.plot(shots[~fitted], mean[~fitted], "o", color=INK, ms=2, mfc="w", mew=0.5)
    line = mean[fitted].mean() + (row.delta if np.isfinite(row.delta) else row.slope) * (n - n.mean())
    ax.plot(n, line, color=style.colour_of("additive"), lw=1.3, zorder=3)
    if np.isfinite(row.c):
        basis = np.stack([n / (n + row.c), np.ones_like(n)], 1)
        curve = basis @ np.linalg.lstsq(basis, mean[fitted])[0]
        ax.plot(n, curve, color=style.colour_of("pooling"), lw=1.5, ls=style.DASHES, zorder=4)
    ax.set_title(_head_words(row), loc="left", pad=3, fontsize=6.5)


@styled
def source_map_figure(effects: xr.Dataset, table: pd.DataFrame, facts: Facts, task: str, most: int = 4) -> Figure:
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
    figure, axes = style.new_figure(3, len(top), 4.6, width=style.COLUMN * (2 if len(top) > 2 else 1), **shared)
    for (ax, below, lowest), row, head, mean in zip(axes.T, top.itertuples(), by_source, means):
        for start, names in columns.items():
            edges = np.linspace(start, start + (wide if len(names) == 1 and start != 0.5 else n_shots), len(names) + 1)
            cells = np.ma.masked_invalid(mean.sel(source=names).values)
            kwargs = {"cmap": style.DIVERGING, "vmin": -limit, "vmax": limit, "rasterized": True}
            mesh = ax.pcolormesh(edges, np.arange(n_shots + 2) - 0.5, cells, **kwargs)
            ax.add_patch(Rectangle((start, -0.5), edges[-1] - start, n_shots + 1, fill=False, ec=style.FAINT, lw=0.5))
        ax.set_title(_head_words(row), loc="left", pad=3, fontsize=6)
        ticks = [i for i in MaxNLocator(4, integer=True).tick_values(1, n_shots) if 0.15 < i / n_shots < 0.9]
        ax.set_xticks([left + wide / 2, *ticks, right + wide / 2], ["sink", *(f"{i:.0f}" for i in ticks), "query"])
        ax.set(xlim=(left, right + wide), ylim=(n_shots + 0.5, -0.5))
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.spines[:].set_visible(False)
        profile = head.sel(source=examples).values[:, late[:, None], late[:, None] - back - 1].mean(1)
        for ax, x, samples in ((below, back, profile), (lowest, shots, _of_head(own.attention, row))):
            middle, lower, upper = t_interval(np.asarray(samples, float))
            ax.fill_between(x, lower, upper, color=BLUE, alpha=0.25, lw=0)
            ax.plot(x, middle, ".-", color=BLUE, lw=0.8, ms=2.5)
            ax.axhline(0, **ZERO)
            style.few_ticks(ax)
    axes[2, 0].set_ylim(bottom=0)
    apart = " " if len(top) > 2 else "\n"
    distances = f"how many examples back, n {MINUS} i{apart}(0: the last; mean over n \u2265 {late[0]})"
    labels = ("query shot, n", "effect of an\nexample (nats)", "attention\non examples")
    for row_axes, across, up in zip(axes, ("source: sink, example i, or query", distances, style.EXAMPLES), labels):
        row_axes[0].set_ylabel(up)
        row_axes[len(top) // 2].set_xlabel(across, x=0.5 if len(top) % 2 else -0.1)
    extend = "both" if beyond else "neither"
    figure.colorbar(mesh, ax=axes[0], label="effect (nats)", fraction=0.03, aspect=18, extend=extend, pad=0.01)
    return titled(figure, f"{named_task(facts, task)} ({facts[task]['readout']})")


@styled
def ablation_figure(ablation: pd.DataFrame, facts: Facts, way: str, *, most: int = 10) -> Figure:
    """What mean-ablation takes from delta: the top set, the placebo sets and single heads, a panel a task.

    Parameters
    ----------
    ablation
        ablation.csv, of one kind of mean.
    facts
        The JSON of `attribute`, by task.
    way
        Which kind of mean heads are ablated to: ``mean`` or ``mean_over_shots``.
    most
        How many single heads are shown in a panel, those of the largest loss.
    """
    tasks, sets = [task for task in facts if task in set(ablation.task)], []
    for task in tasks:
        own = ablation[ablation.task == task]
        is_top, is_placebo = own["set"] == "top", are_placebos(own["set"])
        single = own[~is_top & ~is_placebo & (own["set"] != "none")]
        single = single.loc[single.lost.abs().nlargest(most).index].sort_values("lost", ascending=False)
        sets.append((own[is_top], own[is_placebo], single))
    longest = [max(len(single) for *_, single in sets[i : i + 2]) for i in range(0, len(tasks), 2)]
    heights = [0.15 * (rows + 3.5) for rows in longest]
    figure, axes = style.panels(len(tasks), heights, 0.55 * len(heights) + 0.85)
    for ax, task, (top, placebo, single) in zip(axes.flat, tasks, sets):
        delta = _delta(facts, task)
        ax.axvline(0, **ZERO)
        ax.axvspan(delta.low, delta.high, color=GREEN, alpha=0.12, lw=0, zorder=0)
        ax.axvline(delta.mean, color=GREEN, lw=1.2, zorder=0)
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
            ax.axhline(-1.75, color=style.FAINT, lw=0.6, ls=":")
        ax.set_ylim(-1.7 - len(single) - 0.5 * bool(len(single)), 0.6)
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        here = facts[task].get("delta_measured", {}).get("mean", delta.mean)
        told = len(top) and delta.excludes(0)
        lost = f"; lost {number_words(100 * top.lost.iloc[0] / here, 0)} %" if told else ""
        ax.set_title(f"{named_task(facts, task)}\n{_delta_words(delta)}{lost}", loc="left", pad=3)
    styles = {
        f"lost, {LEVEL_WORDS}": {"marker": "o", "ms": 4.5, "lw": 1.1, "color": VERMILION},
        "predicted by direct effects": {"marker": "D", "ms": 3.5, "lw": 0, "color": BLUE, "mfc": "w", "mew": 0.8},
        "placebo set": {"marker": "o", "ms": 2.5, "lw": 0, "color": "0.45"},
        f"all of delta, {LEVEL_WORDS}": {"lw": 1.2, "color": GREEN},
    }
    style.legend(figure, styles, ncols=2 * min(len(tasks), 2), title=f"{ABLATED_WORDS[way]} ({_context(facts)})")
    return titled(figure, "", "delta lost (nats per example)")


@styled
def cumulative_figure(table: pd.DataFrame, facts: Facts) -> Figure:
    """The share of delta that the first so many heads write, largest first; a dot where half of the heads' total is.

    Dotted: the heads' total, where a curve ends; the legend has the MLPs and the rest too. A curve that rises above its
    end has heads against delta, or noise, which sorting puts first where it is positive and last where it is negative.
    """
    heads, drawn = _heads(table), _with_shares(facts)
    shares = table.assign(share=pd.to_numeric(table.share, errors="coerce")).groupby(["task", "kind"]).share.sum()
    figure, axes = style.new_figure(1, 1, 2.5 + 0.28 * len(facts))
    ax, handles, words = axes.flat[0], [], []
    for i, task in enumerate(facts):
        if task not in drawn:
            handles.append(Line2D([], [], lw=0))
            words.append(f"{named_task(facts, task)}\nnot drawn: delta may be zero")
            continue
        colour, dashes = (
            style.TASK_COLOURS[i % len(style.TASK_COLOURS)],
            ("-", "--", "-.")[i // len(style.TASK_COLOURS) % 3],
        )
        curve = heads.share[heads.task == task].sort_values(ascending=False).to_numpy().cumsum()
        handles += ax.plot(np.arange(1, len(curve) + 1), curve, color=colour, ls=dashes, lw=1.3)
        ax.axhline(curve[-1], color=colour, lw=0.7, ls=(0, (1, 2)), zorder=1)
        there = {name: kind for name, kind in PARTS.items() if kind != "other" or (task, kind) in shares}
        parts = [f"{name} {number_words(shares.get((task, kind), 0.0))}" for name, kind in there.items()]
        if curve[-1] > 0:
            at = int(np.argmax(curve >= curve[-1] / 2))
            ax.plot(at + 1, curve[at], "o", color=colour, ms=4.5, mec="w", mew=0.6, zorder=4)
            parts[0] += f", half by {at + 1}"
        words.append(f"{named_task(facts, task)}\n{'; '.join(parts)}")
    ax.axhline(0, **ZERO)
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
    return titled(figure, _context(facts))


@styled
def total_figure(table: pd.DataFrame, facts: Facts, *, most: int = 6) -> Figure:
    """What heads write themselves against what they add in total, as shares of delta: a panel a task, a dot a head.

    Above the line a head adds through MLPs and later heads what it does not write. Filled are heads that stand out in
    total; those of the largest total shares are named, with their intervals.
    """
    heads, tasks = _heads(table), [task for task in _with_shares(facts) if "total" in facts[task]]
    figure, axes = style.panels(len(tasks), 1.9, 0.65)
    for ax, task in zip(axes.flat, tasks):
        own, of = heads[heads.task == task], facts[task]
        named = own.loc[own.total_share.abs().nlargest(most).index].sort_values("total_share")
        ax.vlines(named.share, named.total_share_low, named.total_share_high, color=BLUE, lw=0.8)
        for out, face in ((False, "w"), (True, BLUE)):
            some = own[own.total_stands_out == out]
            ax.plot(some.share, some.total_share, "o", ms=3, mfc=face, mec=BLUE, mew=0.6, zorder=3)
        ax.axline((0, 0), slope=1, color=INK, lw=0.6, ls=style.DASHES, zorder=1)
        ax.axhline(0, **ZERO)
        low, high = ax.get_ylim()
        style.label_right(ax, named.component.tolist(), named.total_share.values, 0.1 * (high - low), high, low=low)
        direct, total = (number_words(100 * x, 0) for x in (of["share_head"], of["total"]["share_head"]["mean"]))
        ax.set_title(f"{named_task(facts, task)}\nheads: directly {direct} %, in total {total} %", loc="left", pad=3)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    title = f"shares of delta, {LEVEL_WORDS} intervals ({_context(facts)})\nfilled: stands out in total; dashed: alike"
    return titled(figure, title, "share written directly", "total share")


@styled
def conventions_figure(facts: Facts) -> Figure:
    """What heads, MLPs and the rest add to delta under both conventions, a panel a task.

    The scale of the final norm held as run, or moving along the line from the mean stream; both add up to delta.
    """
    tasks = [task for task in facts if "line" in facts[task]]
    figure, axes = style.panels(len(tasks), 1.1, 0.75, sharey=True)
    kinds = ("heads", "MLPs", "rest")
    for ax, task in zip(axes.flat, tasks):
        delta = _delta(facts, task)
        ax.axvspan(delta.low, delta.high, color=GREEN, alpha=0.12, lw=0, zorder=0)
        ax.axvline(delta.mean, color=GREEN, lw=1.2, zorder=0)
        ax.axvline(0, **ZERO)
        for own, rest, shift, colour, marker in (
            (facts[task], "rest", -0.15, VERMILION, "o"),
            (facts[task]["line"], "other", 0.15, BLUE, "D"),
        ):
            for y, part in enumerate(("head", "mlp", rest)):
                mean, low, high = own[f"slope_{part}"].values()
                ax.plot([low, high], [y + shift] * 2, color=colour, lw=1.1, zorder=3)
                ax.plot(mean, y + shift, marker, color=colour, ms=3.5, zorder=3)
        ax.set_yticks(range(len(kinds)), kinds)
        ax.set_ylim(len(kinds) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(f"{named_task(facts, task)}\n{_delta_words(delta)}", loc="left", pad=3)
    styles = {
        "scale as run": {"marker": "o", "ms": 3.5, "lw": 1.1, "color": VERMILION},
        "along the line": {"marker": "D", "ms": 3.5, "lw": 1.1, "color": BLUE},
        f"all of delta, {LEVEL_WORDS}": {"lw": 1.2, "color": GREEN},
    }
    style.legend(figure, styles, ncols=3 if len(tasks) > 1 else 2, title=f"two conventions ({_context(facts)})")
    return titled(figure, "", "slope (nats per example)")


@styled
def repair_figure(repair: pd.DataFrame, facts: Facts, way: str) -> Figure:
    """From the loss that direct effects predict for the top set to the loss there is, a panel a task.

    Each bar starts where the one above ends: what the set's heads still write and what others repair goes off the
    predicted loss, or on it, where they lose as well. `repair` is repair.csv, of one kind of mean.
    """
    figure, axes = style.panels(len(repair), 1.4, 0.5, sharey=True)
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
        ax.set_title(named_task(facts, row["task"]), loc="left", pad=3)
    readout = next(iter(facts.values()))["readout"]
    title = f"{ABLATED_WORDS[way]}\npredicted loss to loss found, {LEVEL_WORDS} ({readout})"
    legend = "green: stays, or is repaired; pink: goes as well"
    return titled(figure, f"{title}\n{legend}", "delta lost (nats per example)")


def _heads(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of heads, of the types that they had before they were written to a file."""
    heads = table[table.kind == "head"].copy()
    numbers = ["layer", "head", "slope", "share", "share_low", "share_high", "delta", "c"]
    numbers += [name for name in heads if name.startswith("total_share")]
    heads[numbers] = heads[numbers].apply(pd.to_numeric, errors="coerce")
    flags = heads.columns.intersection(["stands_out", "total_stands_out"])
    return heads.assign(**{name: heads[name].astype(str).isin(["True", "1", "1.0"]) for name in flags})


def _top(table: pd.DataFrame, task: str, most: int) -> pd.DataFrame:
    heads = _heads(table[table.task == task])
    return heads.loc[heads.slope.abs().nlargest(most).index]


def _delta(facts: Facts, task: str) -> Interval:
    return Interval(*facts[task]["delta"].values())


def _with_shares(facts: Facts) -> list[str]:
    """Tasks whose delta is clear of zero; all where there is none."""
    return [task for task in facts if _delta(facts, task).excludes(0)] or list(facts)


def _of_task(effects: xr.Dataset, task: str) -> xr.Dataset:
    """Without the padding to the longest and largest of the tasks."""
    own = effects.sel(task=task)
    return own.dropna("seq", how="all", subset=["log_odds"]).dropna("shot", how="all", subset=["log_odds"])


def _of_head(part: xr.DataArray, row: Any, *more: str) -> xr.DataArray:
    return part.sel(layer=int(row.layer), head=int(row.head)).transpose("seq", "shot", *more)


def _context(facts: Facts) -> str:
    """Readout and n_min, which all tasks share."""
    first = next(iter(facts.values()))
    return f"{first['readout']}, n \u2265 {first['n_min']}"


def _delta_words(delta: Interval, unclear: str = "may be zero") -> str:
    text = f"delta {delta.words(lambda x: number_words(x, 3))}"
    return text if delta.excludes(0) else f"{text}: {unclear}"


def _head_words(row: Any) -> str:
    return f"{row.component}: {row.accumulation}\nshare {Interval.of(row, 'share').words(number_words)}"


def attribute_figures(out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the effects file and the tables beside it."""
    table, ablation, repair = read_beside(out, TABLES).values()
    table["accumulation"] = table.accumulation.fillna("")
    facts = json.loads(beside(out, "json").read_text())
    drawn = {"share_map": share_map_figure(table, facts), "cumulative": cumulative_figure(table, facts)}
    if any("line" in own for own in facts.values()):
        drawn["conventions"] = conventions_figure(facts)
    if any("total" in own for own in facts.values()):
        drawn["total"] = total_figure(table, facts)
    with xr.open_dataset(out, engine="h5netcdf") as effects:
        for task in effects.task.values.tolist():
            drawn[file_name(f"effects_{task}")] = effect_curves_figure(effects, table, facts, task)
            if "effect_by_source" in effects:
                drawn[file_name(f"sources_{task}")] = source_map_figure(effects, table, facts, task)
    for way in dict.fromkeys(ablation.value):
        drawn[f"ablation_{way}"] = ablation_figure(ablation[ablation.value == way], facts, way)
        drawn[f"repair_{way}"] = repair_figure(repair[repair.value == way], facts, way)
    return drawn
