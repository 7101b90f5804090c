"""Figures of single heads and MLPs: backups, repair, roles, the steps of Skunnavakkam (2024)."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from bayes_icl.core.intervals import LEVEL_WORDS, Interval
from bayes_icl.mechanism.thresholds import STEP_LEAST
from bayes_icl.patch.drawing import GREY, KINDS, label_points, line, round_colour, unique
from bayes_icl.writing import style
from bayes_icl.writing.style import (
    BLUE,
    GREEN,
    INK,
    PINK,
    VERMILION,
    ZERO,
    number_words,
    styled,
    titled,
)

OTHERS = {"same y, other x": (PINK, "^")}  # of steps

PLACES = {"answers": BLUE, "others": GREEN, "last": VERMILION}

ROLES = {
    "bring": "bring",
    "to_answers": "to answers",
    "to_before": "to before",
    "to_queries": "to queries",
    "to_sink": "to sink",
    "previous_token": "previous token",
    "induction": "induction",
}

BACKUPS = {
    "effect_before": "nothing else ablated",
    "effect_after": "others ablated",
    "growth": "others ablated",
    "growth_placebo": "a placebo set ablated",
}

NATS = {"direct": "direct", "lost": "lost"}


@styled
def repair_figure(heads: pd.DataFrame, most: int = 6) -> Figure:
    """What is lost with each head against the direct effect that goes with it, a panel a task.

    Parameters
    ----------
    heads
        heads.csv of patching.
    most
        How many heads are named and have intervals in a panel, those that are largest in either.
    """
    tasks = unique(heads.task)
    figure, axes = style.panels(len(tasks), 2.3, 0.9)
    shown = sorted(heads["round"].dropna().unique())
    named, drawn = {}, {}
    for ax, task in zip(axes.flat, tasks):
        own = heads[heads.task == task].dropna(subset=["taken", "lost"])
        ax.axhline(0, **ZERO)
        ax.axvline(0, **ZERO)
        ax.axline((0, 0), slope=1, color=INK, lw=0.6, ls=style.DASHES, zorder=1)
        for value in (np.nan, *shown):
            part = own[own["round"].isna() if np.isnan(value) else own["round"] == value]
            size, above = (2.0, 2) if np.isnan(value) else (3.2, 4)
            ax.plot(part.taken, part.lost, "o", color=round_colour(value), ms=size, mew=0, zorder=above)
        largest = own.loc[own[["taken", "lost"]].abs().max(axis=1).nlargest(most).index]
        points = own[["taken", "lost"]].to_numpy(float)
        diagonal = np.linspace(points.min(initial=0), points.max(initial=0), 99)
        drawn[task], named[task] = [points, np.stack([diagonal, diagonal], 1)], largest
        for row in largest.itertuples():
            taken, lost = Interval.of(row, "taken"), Interval.of(row, "lost")
            for bar in ([(x, row.lost) for x in taken[1:]], [(row.taken, y) for y in lost[1:]]):
                ax.plot(*np.transpose(bar), color=round_colour(row.round), lw=0.7, zorder=3)
                drawn[task].append(np.linspace(np.array(bar[0]), np.array(bar[1]), 9))
        ax.margins(0.1)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        ax.set_title(task, loc="left", pad=3)
    names = {**{value: f"ablated in round {value:.0f}" for value in shown}, np.nan: "other heads"}
    styles = {word: {"marker": "o", "ms": 3.2, "lw": 0, "color": round_colour(x)} for x, word in names.items()}
    title = (
        "right of 0 and below the dashed line of equal loss:\n"
        f"others repair the head (self-repair); bars: {LEVEL_WORDS}"
    )
    legend = style.legend(figure, styles, ncols=len(styles) if len(tasks) > 1 else 2, title=title)
    legend.get_title().set_multialignment("center")
    titled(figure, "", "direct effect that goes with the head (nats)", "lost in all (nats)")
    figure.draw_without_rendering()  # so that places are known
    for ax, task in zip(axes.flat, tasks):
        points = named[task][["taken", "lost"]].to_numpy(float)
        label_points(ax, named[task].component, points, np.concatenate(drawn[task]))
    return figure


@styled
def backups_figure(backups: pd.DataFrame) -> Figure:
    """What is lost with each backup head, before and after the others are gone; beside it the growth, and a placebo's.

    `backups` is backups.csv; it may have no rows.
    """
    if backups.empty:
        figure, axes = style.new_figure(1, 1, 0.8)
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "no backup head was found", ha="center", va="center", fontsize=8, color=INK)
        return figure
    rows = _Rows()
    places: list[tuple[float, Any]] = []
    for task in unique(backups.task):
        rows.heading(task)
        own = backups[backups.task == task].sort_values(["round", "growth"], ascending=[True, False])
        for row in own.itertuples():
            mode = (row.mode if row.backup else "grows") if row.grows else "not beyond placebo"
            places.append((rows.add(f"{row.component}, round {row.round:.0f}, {mode}"), row))
    height = 0.16 * rows.end + 1.2
    figure, axes = style.new_figure(1, 2, height, width=2 * style.COLUMN, sharey=True, width_ratios=[1.1, 1])
    left, right = axes.flat
    for y, row in places:
        left.plot([row.effect_before, row.effect_after], [y - 0.15, y + 0.15], color=style.FAINT, lw=1.8, zorder=1)
    rows.name(left)
    for ax, label, parts in (
        (left, "lost with the head (nats)", (("effect_before", BLUE, "w"), ("effect_after", BLUE, BLUE))),
        (right, "growth (nats)", (("growth", VERMILION, VERMILION), ("growth_placebo", GREY, GREY))),
    ):
        for (part, colour, face), shift in zip(parts, (-0.15, 0.15)):
            for y, row in places:
                mean, low, high = Interval.of(row, part)
                ax.plot([low, high], [y + shift] * 2, color=colour, lw=0.9, zorder=2)
                ax.plot(mean, y + shift, "o", ms=3.5, mew=0.9, zorder=3, color=colour, mfc=face)
        ax.axvline(0, **ZERO)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel(label)
        handles = [Line2D([], [], marker="o", ms=3.5, lw=0.9, color=c, mfc=face, mew=0.9) for _, c, face in parts]
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "borderaxespad": 0.2}
        ax.legend(handles, [BACKUPS[part] for part, *_ in parts], ncols=2, columnspacing=1, **place)
    right.tick_params(axis="y", length=0)
    return titled(figure, f"heads that take over; active: looks more at examples or writes more; bars: {LEVEL_WORDS}")


@styled
def roles_figure(heads: pd.DataFrame, task: str, most: int = 12) -> Figure:
    """What heads attend to, and what they write and is lost with them: a row a head, numbers in the cells.

    Parameters
    ----------
    heads
        heads.csv of patching.
    task
        Which task.
    most
        Heads shown: the first in `bring`, `to_answers`, `lost` or ``|direct|``, then the second, and so on.
    """
    own = heads[heads.task == task]
    keys = own[["bring", "to_answers", "lost"]].assign(direct=own.direct.abs())
    best = keys.rank(ascending=False, method="first").min(axis=1)
    own = own.loc[best.nsmallest(most, keep="first").index].sort_values(["layer", "head"])
    height = 0.19 * len(own) + 1.45
    figure, axes = style.new_figure(1, 2, height, width_ratios=[len(ROLES), len(NATS) * 1.15], sharey=True)
    limit = float(np.nan_to_num(own[list(NATS)].abs().max().max())) or 1.0
    for ax, columns, cmap, low, high, label in (
        (axes[0, 0], ROLES, "Blues", 0.0, 1.0, "attention (0 to 1)"),
        (axes[0, 1], NATS, style.DIVERGING, -limit, limit, "nats"),
    ):
        cells = own[list(columns)].to_numpy(float)
        ax.set_facecolor("0.95")
        ax.pcolormesh(np.ma.masked_invalid(cells), cmap=cmap, vmin=low, vmax=high, edgecolors="w", lw=0.5)
        for (y, x), value in np.ndenumerate(cells):
            name = list(columns)[x]
            heavy = columns is NATS and Interval.of(own.iloc[y], name).excludes(0)
            dark = abs(value) > (0.6 if columns is ROLES else 0.7) * high
            look = {"color": "w" if dark else INK, "fontweight": "bold" if heavy else "normal"}
            if np.isfinite(value):
                ax.text(x + 0.5, y + 0.5, number_words(value), ha="center", va="center", fontsize=6, **look)
        ax.xaxis.tick_top()
        ax.set_xticks(np.arange(len(columns)) + 0.5, list(columns.values()), rotation=90)
        ax.tick_params(length=0, pad=2)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(label)
    rounds = ["" if np.isnan(value) else f" ({value:.0f})" for value in own["round"].astype(float)]
    axes[0, 0].set_yticks(np.arange(len(own)) + 0.5, own.component + rounds)
    axes[0, 0].set_ylim(len(own), 0)
    words = "(r): ablated in round r; " if any(rounds) else ""
    return titled(figure, f"{task}: roles of heads\n{words}bold: {LEVEL_WORDS} interval without zero")


@styled
def steps_figure(steps: pd.DataFrame) -> Figure:
    """The experiments behind each step of the account, as shares of the rule gain, a panel a task.

    `steps` is steps.csv.
    """
    steps = steps.assign(kind=steps.kind.fillna("").replace("", "no ablation"), decides=steps.decides.fillna(""))
    tasks, kinds = unique(steps.task), unique(steps.kind)
    named: dict[str, _Rows] = {}
    places: dict[str, list[tuple[float, Any]]] = {}
    for task in tasks:
        named[task], places[task] = _Rows(), []
        for step, part in steps[steps.task == task].groupby("step"):
            named[task].heading(f"step {step:.0f}: {part.verdict.iloc[0]}")
            for what, same in part.groupby("what", sort=False):
                y = named[task].add(fill(str(what), 30), 0.4 * len(same) + 0.4)
                offsets = 0.4 * (np.arange(len(same)) - (len(same) - 1) / 2)
                places[task] += list(zip(y + offsets, same.itertuples()))
    ends = [named[task].end for task in tasks]
    heights = [0.15 * max(ends[i : i + 2]) + 0.35 for i in range(0, len(tasks), 2)]
    figure, axes = style.panels(len(tasks), heights, 0.75)
    for ax, task in zip(axes.flat, tasks):
        ax.axvline(0, color=INK, lw=0.6, zorder=0)
        ax.axvline(STEP_LEAST, color=INK, lw=0.6, ls=style.DASHES, zorder=0)
        for y, row in places[task]:
            colour, marker = (KINDS | OTHERS).get(row.kind, (INK, "o"))
            ax.plot([row.share_low, row.share_high], [y, y], color=colour, lw=1, zorder=2)
            ax.plot(row.share, y, marker, color=colour, mfc=colour if row.decides else "w", ms=3.2, mew=0.8, zorder=3)
        named[task].name(ax)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_title(task, loc="left", pad=3)
    marks = {kind: (KINDS | OTHERS).get(kind, (INK, "o")) for kind in kinds}
    styles: dict[str, dict[str, Any]] = {
        kind: {"color": colour, "marker": marker, "ms": 3.2, "lw": 1} for kind, (colour, marker) in marks.items()
    }
    styles["open: decides nothing"] = {"color": INK, "marker": "o", "mfc": "w", "ms": 3.2, "lw": 1}
    styles[f"material: {STEP_LEAST}"] = {"color": INK, "lw": 0.6, "ls": style.DASHES}
    style.legend(figure, styles, ncols=len(styles) if len(tasks) > 1 else 2, columnspacing=1.2)
    return titled(figure, "", f"share of the rule gain, both in nats (bars: {LEVEL_WORDS})")


@styled
def mlps_figure(mlps: pd.DataFrame) -> Figure:
    """What is lost with the MLP of each layer, by the place where it is ablated; a row a task, a column a readout.

    `mlps` is mlps.csv.
    """
    tasks, readouts = unique(mlps.task), unique(mlps.readout)
    width = style.COLUMN if len(readouts) == 1 else 2 * style.COLUMN
    figure, axes = style.new_figure(
        len(tasks), len(readouts), 1.35 * len(tasks) + 0.75, width=width, sharex=True, sharey=True
    )
    for row_axes, task in zip(axes, tasks):
        for i, (ax, readout) in enumerate(zip(row_axes, readouts)):
            own = mlps[(mlps.task == task) & (mlps.readout == readout)].sort_values("layer")
            ax.set_title(f"{task}\n{readout}" if i == 0 else readout, loc="left", pad=3)
            if own.empty:
                ax.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=7, transform=ax.transAxes)
                continue
            ax.axhline(0, **ZERO)
            for place, colour in PLACES.items():
                part = own[own.place == place]
                line(ax, part.layer, part, "lost", color=colour, lw=1)
    for ax in axes.flat:
        ax.set_yscale("symlog", linthresh=1)
        ax.yaxis.set_major_locator(FixedLocator([-100, -10, -1, 0, 1, 10, 100]))
        ax.yaxis.set_minor_locator(FixedLocator([-0.5, 0.5, *range(-9, -1), *range(2, 10)]))
        ax.yaxis.set_major_formatter(lambda y, _: number_words(y, 0))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    styles = {place: {"color": colour, "lw": 1} for place, colour in PLACES.items()}
    style.legend(figure, styles, ncols=3, title=f"MLP ablated at; bands: {LEVEL_WORDS}")
    return titled(figure, "", "layer of the MLP", "lost (nats; log scale beyond \u00b11)")


class _Rows:
    """Named rows of a panel from the top, those of several lines higher, some under headings."""

    def __init__(self) -> None:
        self.end = 0.0
        self.places: list[float] = []
        self.names: list[str] = []
        self.headings: set[int] = set()

    def add(self, name: str, least: float = 1.0) -> float:
        """The place of a new row, which is as high as its name is, or `least`."""
        lines = max(1 + 0.75 * name.count("\n"), least)
        self.places.append(self.end + lines / 2)
        self.names.append(name)
        self.end += lines
        return self.places[-1]

    def heading(self, name: str) -> None:
        self.headings.add(len(self.names))
        self.end += 0.25 * bool(self.names)
        self.add(name)

    def name(self, ax: Axes) -> None:
        ax.set_yticks(self.places, self.names)
        ax.set_ylim(self.end, 0)
        ax.tick_params(axis="y", length=0)
        for i, label in enumerate(ax.get_yticklabels()):
            label.set(fontsize=7 if i in self.headings else 6.5, fontweight="bold" if i in self.headings else "normal")
