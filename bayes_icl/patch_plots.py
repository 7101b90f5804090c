"""Figures of patching and ablation: where a rule is transferred, what takes over when heads are gone, what heads do.

Functions that take the tables of the stage and return a Figure, in the style of `plots`. Log-odds and what is lost of
them are in nats; intervals and bands are 95 %. A is a run with examples, B the bare query of another episode; the own
answer is the rule's to B's query, the other answer is A's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from bayes_icl.head_plots import (
    BLUE,
    DASHES,
    DIVERGING,
    GREEN,
    PINK,
    TASK_COLOURS,
    VERMILION,
    _few_ticks,
    _hide_unused,
    _label_right,
    _number,
    _titled,
)
from bayes_icl.plots import COLUMN, FAINT, INK, _figure, _styled

ROUND_COLOURS = (INK, *TASK_COLOURS)
KINDS = {"zero": (BLUE, "o"), "mean": (VERMILION, "s"), "resample": (GREEN, "D")}
OTHERS = {"same y, other x": (PINK, "^")}  # of steps
PLACES = {"answers": BLUE, "others": GREEN, "last": VERMILION}
GREY = "0.55"
ROLES = {
    "bring": "bring",
    "to_answers": "to answers",
    "to_before": "to before",
    "to_queries": "to queries",
    "to_sink": "to sink",
    "previous_token": "previous token",
    "induction": "induction",
}
NATS = {"direct": "direct", "lost": "lost"}
MATERIAL = 0.1  # of what the rule adds
PATCHES = {
    "last": "A (with examples) patched into B (a bare query)",
    "query": "A (with examples) patched into B at the query",
    "separator": "A (with examples) patched into B at the separator",
    "answers": "examples\u2019 answers of A patched into B (permuted)",
}
POINT, LOG_ODDS = "point l of the residual stream (input of block l)", "log-odds (nats)"


@_styled
def transfer_figure(transfer: pd.DataFrame, rounds: pd.DataFrame, task: str) -> Figure:
    """The own answer (above) and A's (below) against the point that is patched, a line a round of ablation.

    Dashed, where the round's A is above B: half-way between them. Triangles on the lower edge: the first point at which
    an answer is half-way, with its interval. Dotted: a run whose examples have their answers permuted, patched alike.

    Parameters
    ----------
    transfer
        transfer.csv; `attrs["kind"]` is the kind of ablation that is drawn, the first of the table if there is none;
        `attrs["position"]` is where A was put into B, the last position if there is none.
    rounds
        rounds.csv; A and B are marked as they are in round 0.
    """
    kind = transfer.attrs.get("kind", transfer.kind.iloc[0])
    curves, known = (
        table[(table.task == task) & (table.kind == kind) & (table["set"] == "ablated")] for table in (transfer, rounds)
    )
    known = known.sort_values("round")
    words = [fill(_round_words(row), 54, subsequent_indent="    ") for row in known.itertuples()]
    height = 4.15 + 0.13 * (sum(word.count("\n") + 1 for word in words) + len(known))
    figure, axes = _figure(2, 1, height, sharex=True, height_ratios=[1.35, 1])
    for row in known.itertuples():
        own, colour = curves[curves["round"] == row.round].sort_values("point"), _round_colour(row.round)
        for ax, answer in zip(axes.flat, ("own", "other")):
            _line(ax, own.point, own, answer, color=colour, lw=1.2, marker=".", ms=2.5)
    no_rule = transfer[(transfer.task == task) & (transfer["set"] == "no rule")].sort_values("point")
    for ax, answer in zip(axes.flat, ("own", "other")):
        ax.plot(no_rule.point, no_rule[answer], color=INK, lw=1, ls=":", zorder=2)
    start = known.iloc[0]
    levels = {"A": start.a_own, "B": start.b_own}
    for row in known.itertuples():
        if row.a_own_low > row.b_own:
            half = (row.a_own + row.b_own) / 2
            axes[0, 0].axhline(half, color=_round_colour(row.round), lw=0.7, ls=DASHES, zorder=1)
    for ax, marked, shown in ((axes[0, 0], "transfer_layer", levels), (axes[1, 0], "answer_layer", {"A": levels["A"]})):
        finite = sorted((level, name) for name, level in shown.items() if np.isfinite(level))
        for level, _ in finite:
            ax.axhline(level, color=INK, lw=0.6, zorder=0)
        _few_ticks(ax)
        _mark_below(ax, [(*_of(row, marked), _round_colour(row.round)) for row in known.itertuples()])
        low, high = ax.get_ylim()
        heights, labels = np.array([level for level, _ in finite]), [f"{n} {_number(level, 1)}" for level, n in finite]
        _label_right(ax, labels, heights, 0.09 * (high - low), high, low=low, colours=[INK] * len(labels))
    axes[0, 0].set_ylabel(f"own answer\n{LOG_ODDS}")
    axes[1, 0].set(xlabel=POINT, ylabel=f"A\u2019s answer\n{LOG_ODDS}")
    handles = [Line2D([], [], color=_round_colour(row.round), marker="^", ms=4, lw=1.2) for row in known.itertuples()]
    if len(no_rule):
        handles.append(Line2D([], [], color=INK, lw=1, ls=":"))
        words.append("A with permuted answers, nothing ablated")
    figure.legend(handles, words, loc="outside lower left", alignment="left", handlelength=1.6)
    title = (
        task,
        PATCHES.get(transfer.attrs.get("position", "last"), PATCHES["last"]),
        f"{kind} ablation; bands and bars: 95 %",
        "dashed: half-way from B to the round\u2019s A",
    )
    return _titled(figure, "\n".join(title))


@_styled
def rounds_figure(rounds: pd.DataFrame) -> Figure:
    """The transfer layer by round (above) and A's own log-odds (below), a pair of panels a task.

    Grey dots: placebo sets; dashed: B, the bare query. What is never transferred is an open marker in a row of its own.

    Parameters
    ----------
    rounds
        rounds.csv.
    """
    tasks, kinds = _unique(rounds.task), [kind for kind in KINDS if kind in set(rounds.kind)]
    rows, columns = _grid(tasks)
    heights = [1.1, 0.9] * rows
    figure, axes = _figure(2 * rows, columns, 2.25 * rows + 0.7, width=columns * COLUMN, height_ratios=heights)
    upper, lower = axes[0::2], axes[1::2]
    layers = rounds[["transfer_layer", "transfer_layer_low", "transfer_layer_high"]].to_numpy(float)
    seen = layers[np.isfinite(layers)] if np.isfinite(layers).any() else np.zeros(1)
    bottom, top = max(float(seen.min()) - 1, -0.5), float(seen.max()) + 1
    never = top + 0.12 * (top - bottom)
    for above, below, task in zip(upper.flat, lower.flat, tasks):
        own = rounds[rounds.task == task]
        for kind, offset in zip(kinds, np.linspace(-0.2, 0.2, len(kinds)) if len(kinds) > 1 else [0.0]):
            colour, marker = KINDS[kind]
            ablated = own[(own.kind == kind) & (own["set"] == "ablated")].sort_values("round")
            placebo = own[(own.kind == kind) & own["set"].str.startswith("placebo")]
            x, style = ablated["round"] + offset, {"color": colour, "marker": marker, "ms": 3.5}
            for ax, column in ((above, "transfer_layer"), (below, "a_own")):
                ax.plot(placebo["round"] + offset + 0.08, placebo[column], "o", color=GREY, ms=2, zorder=2)
                ax.vlines(x, ablated[f"{column}_low"], ablated[f"{column}_high"], color=colour, lw=1)
                ax.plot(x, ablated[column], lw=0.7, zorder=3, **style)
            below.plot(ablated["round"], ablated.b_own, color=INK, lw=0.8, ls=DASHES)
            for part, shift, more in ((ablated, 0, style), (placebo, 0.08, {"color": GREY, "marker": "o", "ms": 2})):
                at = part["round"][part.transfer_layer.isna()] + offset + shift
                above.plot(at, np.full(len(at), never), lw=0, mfc="w", zorder=3, **more)
        ticks = [tick for tick in MaxNLocator(5, integer=True).tick_values(bottom, top) if bottom <= tick < top]
        above.set_yticks([*ticks, never], [*(f"{tick:.0f}" for tick in ticks), "never"])
        above.axhline((top + never) / 2, color=FAINT, lw=0.6, ls=":")
        above.set_ylim(bottom, never + (never - top) / 2)
        above.set_title(task, loc="left", pad=3)
        below.yaxis.set_major_locator(MaxNLocator(4))
        below.axhline(0, color=FAINT, lw=0.6, zorder=0)
        last = int(own["round"].max())
        for ax in (above, below):
            ax.set_xticks(range(last + 1))
            ax.set_xlim(-0.45, last + 0.45)
    for above, below in zip(upper, lower):
        above[0].set_ylabel("transfer layer")
        below[0].set_ylabel("A\u2019s log-odds\n(nats)")
    for part in (upper, lower):
        _hide_unused(part, len(tasks))
    for above in upper.flat:
        above.tick_params(labelbottom=False)
    handles = [Line2D([], [], color=KINDS[kind][0], marker=KINDS[kind][1], ms=3.5, lw=1) for kind in kinds]
    handles += [Line2D([], [], color=GREY, marker="o", ms=2, lw=0), Line2D([], [], color=INK, lw=0.8, ls=DASHES)]
    words = [*kinds, "placebo set", "B"]
    title = "kinds of ablation; bars: 95 %"
    ncols = len(words) if columns > 1 else 3
    figure.legend(handles, words, loc="outside upper center", ncols=ncols, title=title, title_fontsize=8)
    return _titled(figure, "", "round of ablation (0: nothing ablated)")


@_styled
def redundancy_figure(
    redundancy: pd.DataFrame, halves: pd.DataFrame, rules: Mapping[str, float] | None = None
) -> Figure:
    """A's log-odds against the number of heads ablated, best first and in random orders, a panel a task.

    Triangles on the lower edge: where half of what the rule adds is gone, with its interval.

    Parameters
    ----------
    redundancy
        redundancy.csv.
    halves
        halves.csv.
    rules
        What the rule adds by task, nats, of the facts; the line at half of it is drawn for those named.
    """
    tasks = _unique(redundancy.task)
    rows, columns = _grid(tasks)
    figure, axes = _figure(rows, columns, 2.0 * rows + 0.65, width=columns * COLUMN)
    colours = {"best first": VERMILION, "random": GREY}
    for ax, task in zip(axes.flat, tasks):
        own = redundancy[redundancy.task == task].sort_values("n_heads")
        for order, part in own.groupby("order"):
            if order == "best first":
                _line(ax, part.n_heads, part, "log_odds", color=VERMILION, lw=1.3, marker=".", ms=3, zorder=4)
            else:
                ax.plot(part.n_heads, part.log_odds, color=GREY, lw=0.6, zorder=2)
        if rules and np.isfinite(rules.get(task, np.nan)):
            level = own.log_odds[own.n_heads == 0].mean() - rules[task] / 2
            ax.axhline(level, color=INK, lw=0.6, ls=DASHES, zorder=1)
        most = int(own.n_heads.max())
        marks, words = [], [task]
        for row in halves[halves.task == task].itertuples():
            at = np.array(_of(row, "share"))
            marks.append((*(at * row.n_heads_all), colours[row.order]))
            gone = f"gone at {_between(*(100 * at), unit=' % of heads')}" if np.isfinite(row.share) else "never gone"
            words.append(f"{row.order}: half {gone}")
        ax.yaxis.set_major_locator(MaxNLocator(4))
        _mark_below(ax, marks)
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        ticks = [0, *(k * 10**p for p in range(5) for k in (1, 2, 5) if k * 10**p <= most)]
        ax.set_xticks(ticks, ticks)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(-0.15, most * 1.1)
        ax.set_title("\n".join(words), loc="left", pad=3)
    _hide_unused(axes, len(tasks))
    handles = [
        Line2D([], [], color=VERMILION, marker=".", ms=3, lw=1.3),
        Line2D([], [], color=GREY, lw=0.6),
        *([Line2D([], [], color=INK, lw=0.6, ls=DASHES)] if rules else []),
    ]
    names = ["best first, 95 %", "random orders", *(["half of what the rule adds is gone"] if rules else [])]
    figure.legend(handles, names, loc="outside upper center", ncols=3 if columns > 1 else 2, columnspacing=1.2)
    return _titled(figure, "", "heads ablated (log scale from 1)", f"A\u2019s {LOG_ODDS}")


@_styled
def repair_figure(heads: pd.DataFrame, most: int = 6) -> Figure:
    """What is lost with each head against the direct effect that goes with it, a panel a task.

    Parameters
    ----------
    heads
        heads.csv of patching.
    most
        How many heads are named and have intervals in a panel, those that are largest in either.
    """
    tasks = _unique(heads.task)
    rows, columns = _grid(tasks)
    figure, axes = _figure(rows, columns, 2.3 * rows + 0.9, width=columns * COLUMN)
    shown = sorted(heads["round"].dropna().unique())
    named, drawn = {}, {}
    for ax, task in zip(axes.flat, tasks):
        own = heads[heads.task == task].dropna(subset=["taken", "lost"])
        ax.axhline(0, color=FAINT, lw=0.6, zorder=0)
        ax.axvline(0, color=FAINT, lw=0.6, zorder=0)
        ax.axline((0, 0), slope=1, color=INK, lw=0.6, ls=DASHES, zorder=1)
        for value in (np.nan, *shown):
            part = own[own["round"].isna() if np.isnan(value) else own["round"] == value]
            size, above = (2.0, 2) if np.isnan(value) else (3.2, 4)
            ax.plot(part.taken, part.lost, "o", color=_round_colour(value), ms=size, mew=0, zorder=above)
        largest = own.loc[own[["taken", "lost"]].abs().max(axis=1).nlargest(most).index]
        points = own[["taken", "lost"]].to_numpy(float)
        diagonal = np.linspace(points.min(initial=0), points.max(initial=0), 99)
        drawn[task], named[task] = [points, np.stack([diagonal, diagonal], 1)], largest
        for row in largest.itertuples():
            across = np.array([(row.taken_low, row.lost), (row.taken_high, row.lost)])
            upwards = np.array([(row.taken, row.lost_low), (row.taken, row.lost_high)])
            for bar in (across, upwards):
                ax.plot(*bar.T, color=_round_colour(row.round), lw=0.7, zorder=3)
                drawn[task].append(np.linspace(bar[0], bar[1], 9))
        ax.margins(0.1)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        ax.set_title(task, loc="left", pad=3)
    _hide_unused(axes, len(tasks))
    handles = [Line2D([], [], marker="o", ms=3.2, lw=0, color=_round_colour(value)) for value in (*shown, np.nan)]
    words = [*(f"ablated in round {value:.0f}" for value in shown), "other heads"]
    title = "right of 0 and below the dashed line of equal loss:\nothers make up for the head (self-repair); bars: 95 %"
    ncols = len(words) if columns > 1 else 2
    legend = figure.legend(handles, words, loc="outside upper center", ncols=ncols, title=title, title_fontsize=8)
    legend.get_title().set_multialignment("center")
    _titled(figure, "", "direct effect that goes with the head (nats)", "lost in all (nats)")
    figure.draw_without_rendering()  # so that places are known
    for ax, task in zip(axes.flat, tasks):
        points = named[task][["taken", "lost"]].to_numpy(float)
        _label_points(ax, named[task].component, points, np.concatenate(drawn[task]))
    return figure


@_styled
def backups_figure(backups: pd.DataFrame) -> Figure:
    """What is lost with each backup head, before and after the others are gone; beside it the growth, and a placebo's.

    Parameters
    ----------
    backups
        backups.csv; it may have no rows.
    """
    if backups.empty:
        figure, axes = _figure(1, 1, 0.8)
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "no backup head was found", ha="center", va="center", fontsize=8, color=INK)
        return figure
    rows = _Rows()
    places: list[tuple[float, Any]] = []
    for task in _unique(backups.task):
        rows.heading(task)
        own = backups[backups.task == task].sort_values(["round", "growth"], ascending=[True, False])
        for row in own.itertuples():
            places.append(
                (
                    rows.add(
                        f"{row.component}, round {row.round:.0f}, {row.mode if row.backup else 'not beyond placebo'}"
                    ),
                    row,
                )
            )
    figure, axes = _figure(1, 2, 0.16 * rows.end + 1.2, width=2 * COLUMN, sharey=True, width_ratios=[1.1, 1])
    left, right = axes.flat
    for y, row in places:
        left.plot([row.effect_before, row.effect_after], [y - 0.15, y + 0.15], color=FAINT, lw=1.8, zorder=1)
        for ax, part, shift, style in (
            (left, "effect_before", -0.15, {"color": BLUE, "mfc": "w"}),
            (left, "effect_after", 0.15, {"color": BLUE}),
            (right, "growth", -0.15, {"color": VERMILION}),
            (right, "growth_placebo", 0.15, {"color": GREY}),
        ):
            value, low, high = _of(row, part)
            ax.plot([low, high], [y + shift] * 2, color=style["color"], lw=0.9, zorder=2)
            ax.plot(value, y + shift, "o", ms=3.5, mew=0.9, zorder=3, **style)
    rows.name(left)
    for ax, label, styles, words in (
        (left, "lost with the head (nats)", [(BLUE, "w"), (BLUE, BLUE)], ["nothing else ablated", "others ablated"]),
        (right, "growth (nats)", [(VERMILION,) * 2, (GREY,) * 2], ["others ablated", "a placebo set ablated"]),
    ):
        ax.axvline(0, color=FAINT, lw=0.6, zorder=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel(label)
        handles = [Line2D([], [], marker="o", ms=3.5, lw=0.9, color=c, mfc=face, mew=0.9) for c, face in styles]
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "borderaxespad": 0.2}
        ax.legend(handles, words, ncols=2, columnspacing=1, **place)
    right.tick_params(axis="y", length=0)
    return _titled(figure, "heads that take over; active: looks more at examples or writes more; bars: 95 %")


@_styled
def roles_figure(heads: pd.DataFrame, task: str, most: int = 12) -> Figure:
    """What heads attend to, and what they write and is lost with them: a row a head, numbers in the cells.

    Parameters
    ----------
    heads
        heads.csv of patching.
    most
        Heads shown: the first in `bring`, `to_answers`, `lost` or ``|direct|``, then the second, and so on.
    """
    own = heads[heads.task == task]
    keys = own[["bring", "to_answers", "lost"]].assign(direct=own.direct.abs())
    best = keys.rank(ascending=False, method="first").min(axis=1)
    own = own.loc[best.nsmallest(most, keep="first").index].sort_values(["layer", "head"])
    height = 0.19 * len(own) + 1.45
    figure, axes = _figure(1, 2, height, width_ratios=[len(ROLES), len(NATS) * 1.15], sharey=True)
    limit = float(np.nan_to_num(own[list(NATS)].abs().max().max())) or 1.0
    for ax, columns, cmap, low, high, label in (
        (axes[0, 0], ROLES, "Blues", 0.0, 1.0, "attention (0 to 1)"),
        (axes[0, 1], NATS, DIVERGING, -limit, limit, "nats"),
    ):
        cells = own[list(columns)].to_numpy(float)
        ax.set_facecolor("0.95")
        ax.pcolormesh(np.ma.masked_invalid(cells), cmap=cmap, vmin=low, vmax=high, edgecolors="w", lw=0.5)
        for (y, x), value in np.ndenumerate(cells):
            name = list(columns)[x]
            heavy = columns is NATS and np.prod(np.sign(own[[f"{name}_low", f"{name}_high"]].iloc[y])) > 0
            dark = abs(value) > (0.6 if columns is ROLES else 0.7) * high
            style = {"color": "w" if dark else INK, "fontweight": "bold" if heavy else "normal"}
            if np.isfinite(value):
                ax.text(x + 0.5, y + 0.5, _number(value), ha="center", va="center", fontsize=6, **style)
        ax.xaxis.tick_top()
        ax.set_xticks(np.arange(len(columns)) + 0.5, list(columns.values()), rotation=90)
        ax.tick_params(length=0, pad=2)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(label)
    rounds = ["" if np.isnan(value) else f" ({value:.0f})" for value in own["round"].astype(float)]
    axes[0, 0].set_yticks(np.arange(len(own)) + 0.5, own.component + rounds)
    axes[0, 0].set_ylim(len(own), 0)
    words = "(r): ablated in round r; " if any(rounds) else ""
    return _titled(figure, f"{task}: roles of heads\n{words}bold: 95 % interval without zero")


@_styled
def steps_figure(steps: pd.DataFrame) -> Figure:
    """The experiments behind each step of the account, as shares of what the rule adds, a panel a task.

    Parameters
    ----------
    steps
        steps.csv.
    """
    steps = steps.assign(kind=steps.kind.fillna("").replace("", "no ablation"), decides=steps.decides.fillna(""))
    tasks, kinds = _unique(steps.task), _unique(steps.kind)
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
    rows, columns = _grid(tasks)
    heights = [
        0.15 * max(named[task].end for task in tasks[i * columns : (i + 1) * columns]) + 0.35 for i in range(rows)
    ]
    figure, axes = _figure(rows, columns, sum(heights) + 0.75, width=columns * COLUMN, height_ratios=heights)
    for ax, task in zip(axes.flat, tasks):
        ax.axvline(0, color=INK, lw=0.6, zorder=0)
        ax.axvline(MATERIAL, color=INK, lw=0.6, ls=DASHES, zorder=0)
        for y, row in places[task]:
            colour, marker = (KINDS | OTHERS).get(row.kind, (INK, "o"))
            ax.plot([row.share_low, row.share_high], [y, y], color=colour, lw=1, zorder=2)
            ax.plot(row.share, y, marker, color=colour, mfc=colour if row.decides else "w", ms=3.2, mew=0.8, zorder=3)
        named[task].name(ax)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_title(task, loc="left", pad=3)
    _hide_unused(axes, len(tasks))
    handles = [
        *(
            Line2D([], [], color=c, marker=m, ms=3.2, lw=1)
            for c, m in ((KINDS | OTHERS).get(kind, (INK, "o")) for kind in kinds)
        ),
        Line2D([], [], color=INK, marker="o", mfc="w", ms=3.2, lw=1),
        Line2D([], [], color=INK, lw=0.6, ls=DASHES),
    ]
    words = [*kinds, "open: decides nothing", f"material: {MATERIAL}"]
    ncols = len(words) if columns > 1 else 3
    figure.legend(handles, words, loc="outside upper center", ncols=ncols, columnspacing=1.2)
    return _titled(figure, "", "share of what the rule adds, both in nats (bars: 95 %)")


@_styled
def mlps_figure(mlps: pd.DataFrame) -> Figure:
    """What is lost with the MLP of each layer, by the place where it is ablated; a row a task, a column a readout.

    Parameters
    ----------
    mlps
        mlps.csv.
    """
    tasks, readouts = _unique(mlps.task), _unique(mlps.readout)
    width = COLUMN if len(readouts) == 1 else 2 * COLUMN
    figure, axes = _figure(len(tasks), len(readouts), 1.35 * len(tasks) + 0.75, width=width, sharex=True, sharey=True)
    for row_axes, task in zip(axes, tasks):
        for i, (ax, readout) in enumerate(zip(row_axes, readouts)):
            own = mlps[(mlps.task == task) & (mlps.readout == readout)].sort_values("layer")
            ax.set_title(f"{task}\n{readout}" if i == 0 else readout, loc="left", pad=3)
            if own.empty:
                ax.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=7, transform=ax.transAxes)
                continue
            ax.axhline(0, color=FAINT, lw=0.6, zorder=0)
            for place, colour in PLACES.items():
                part = own[own.place == place]
                _line(ax, part.layer, part, "lost", color=colour, lw=1)
    for ax in axes.flat:
        ax.set_yscale("symlog", linthresh=1)
        ax.yaxis.set_major_locator(FixedLocator([-100, -10, -1, 0, 1, 10, 100]))
        ax.yaxis.set_minor_locator(FixedLocator([-0.5, 0.5, *range(-9, -1), *range(2, 10)]))
        ax.yaxis.set_major_formatter(lambda y, _: _number(y, 0))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    handles = [Line2D([], [], color=colour, lw=1) for colour in PLACES.values()]
    figure.legend(
        handles,
        list(PLACES),
        loc="outside upper center",
        ncols=3,
        title="MLP ablated at; bands: 95 %",
        title_fontsize=8,
    )
    return _titled(figure, "", "layer of the MLP", "lost (nats; log scale beyond \u00b11)")


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


def _unique(column: pd.Series) -> list[Any]:
    return list(dict.fromkeys(column))


def _grid(tasks: Sequence[str]) -> tuple[int, int]:
    """Rows and columns of panels."""
    return -(-len(tasks) // 2), min(len(tasks), 2)


def _of(row: Any, name: str) -> tuple[float, float, float]:
    """A value and its interval."""
    return getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")


def _line(ax: Axes, x: pd.Series, table: pd.DataFrame, name: str, **style: Any) -> None:
    """A line and its band."""
    ax.fill_between(x, table[f"{name}_low"], table[f"{name}_high"], color=style["color"], alpha=0.2, lw=0)
    ax.plot(x, table[name], **style)


def _round_colour(number: float) -> Any:
    """NaN, for heads that were ablated in no round, is grey."""
    return GREY if np.isnan(number) else ROUND_COLOURS[int(number) % len(ROUND_COLOURS)]


def _round_words(row: Any) -> str:
    heads = f"{row.layers_text} ({row.n_heads:.0f} head{'s' if row.n_heads > 1 else ''})"
    layer = f"at {_between(*_of(row, 'transfer_layer'))}" if np.isfinite(row.transfer_layer) else "never"
    words = f"round {row.round:.0f}: {heads if row.n_heads else 'nothing ablated'}; "
    return words + f"transfer {layer}".replace(" ", "\u00a0")  # kept on one line


def _between(value: float, low: float, high: float, *, unit: str = "") -> str:
    """A layer or percentage with its interval, if it has one."""
    words = [f"{x:.{int(0 < x < 1)}f}" for x in (value, low, high)]
    return f"{words[0]}{unit}" + (f" [{words[1]}, {words[2]}]" if np.isfinite([low, high]).all() else "")


def _mark_below(ax: Axes, marks: Sequence[tuple[float, float, float, Any]]) -> None:
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


def _label_points(ax: Axes, names: Iterable[str], points: np.ndarray, drawn: np.ndarray) -> None:
    """Names near their points, on no other name and on as little else as may be; the layout must be known.

    Parameters
    ----------
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
