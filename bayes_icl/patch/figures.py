"""Figures of patching and ablation: where a rule is transferred, what takes over when heads are gone, what heads do.

Functions that take the tables of the stage and return a Figure, in the style of `plots`. Log-odds and what is lost of
them are in nats; intervals and bands are 95 %. A is a run with examples, B the bare query of another episode; the own
answer is the rule's to B's query, the other answer is A's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from bayes_icl.core.files import beside, file_name, read_table
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.patch.drawing import (
    GREY,
    KINDS,
    LOG_ODDS,
    PATCHES,
    POINT,
    between,
    grid,
    line,
    mark_below,
    of,
    round_colour,
    round_words,
    unique,
)
from bayes_icl.patch.outputs import PATCH_TABLES
from bayes_icl.patch.step_figures import backups_figure, mlps_figure, repair_figure, roles_figure, steps_figure
from bayes_icl.writing.style import (
    COLUMN,
    DASHES,
    FAINT,
    INK,
    VERMILION,
    few_ticks,
    hide_unused,
    label_right,
    new_figure,
    number_words,
    styled,
    titled,
)


@styled
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
    words = [fill(round_words(row), 54, subsequent_indent="    ") for row in known.itertuples()]
    height = 4.15 + 0.13 * (sum(word.count("\n") + 1 for word in words) + len(known))
    figure, axes = new_figure(2, 1, height, sharex=True, height_ratios=[1.35, 1])
    for row in known.itertuples():
        own, colour = curves[curves["round"] == row.round].sort_values("point"), round_colour(row.round)
        for ax, answer in zip(axes.flat, ("own", "other")):
            line(ax, own.point, own, answer, color=colour, lw=1.2, marker=".", ms=2.5)
    no_rule = transfer[(transfer.task == task) & (transfer["set"] == "no rule")].sort_values("point")
    for ax, answer in zip(axes.flat, ("own", "other")):
        ax.plot(no_rule.point, no_rule[answer], color=INK, lw=1, ls=":", zorder=2)
    start = known.iloc[0]
    levels = {"A": start.a_own, "B": start.b_own}
    for row in known.itertuples():
        if row.a_own_low > row.b_own:
            half = (row.a_own + row.b_own) / 2
            axes[0, 0].axhline(half, color=round_colour(row.round), lw=0.7, ls=DASHES, zorder=1)
    for ax, marked, shown in ((axes[0, 0], "transfer_layer", levels), (axes[1, 0], "answer_layer", {"A": levels["A"]})):
        finite = sorted((level, name) for name, level in shown.items() if np.isfinite(level))
        for level, _ in finite:
            ax.axhline(level, color=INK, lw=0.6, zorder=0)
        few_ticks(ax)
        mark_below(ax, [(*of(row, marked), round_colour(row.round)) for row in known.itertuples()])
        low, high = ax.get_ylim()
        heights, labels = (
            np.array([level for level, _ in finite]),
            [f"{n} {number_words(level, 1)}" for level, n in finite],
        )
        label_right(ax, labels, heights, 0.09 * (high - low), high, low=low, colours=[INK] * len(labels))
    axes[0, 0].set_ylabel(f"own answer\n{LOG_ODDS}")
    axes[1, 0].set(xlabel=POINT, ylabel=f"A\u2019s answer\n{LOG_ODDS}")
    handles = [Line2D([], [], color=round_colour(row.round), marker="^", ms=4, lw=1.2) for row in known.itertuples()]
    if len(no_rule):
        handles.append(Line2D([], [], color=INK, lw=1, ls=":"))
        words.append("A with permuted answers, nothing ablated")
    figure.legend(handles, words, loc="outside lower left", alignment="left", handlelength=1.6)
    title = (
        task,
        PATCHES.get(transfer.attrs.get("position", "last"), PATCHES["last"]),
        f"{kind} ablation; bands and bars: {LEVEL_WORDS}",
        "dashed: half-way from B to the round\u2019s A",
    )
    return titled(figure, "\n".join(title))


@styled
def rounds_figure(rounds: pd.DataFrame) -> Figure:
    """The transfer layer by round (above) and A's own log-odds (below), a pair of panels a task.

    Grey dots: placebo sets; dashed: B, the bare query. What is never transferred is an open marker in a row of its own.

    Parameters
    ----------
    rounds
        rounds.csv.
    """
    tasks, kinds = unique(rounds.task), [kind for kind in KINDS if kind in set(rounds.kind)]
    rows, columns = grid(tasks)
    heights = [1.1, 0.9] * rows
    figure, axes = new_figure(2 * rows, columns, 2.25 * rows + 0.7, width=columns * COLUMN, height_ratios=heights)
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
        hide_unused(part, len(tasks))
    for above in upper.flat:
        above.tick_params(labelbottom=False)
    handles = [Line2D([], [], color=KINDS[kind][0], marker=KINDS[kind][1], ms=3.5, lw=1) for kind in kinds]
    handles += [Line2D([], [], color=GREY, marker="o", ms=2, lw=0), Line2D([], [], color=INK, lw=0.8, ls=DASHES)]
    words = [*kinds, "placebo set", "B"]
    title = f"kinds of ablation; bars: {LEVEL_WORDS}"
    ncols = len(words) if columns > 1 else 3
    figure.legend(handles, words, loc="outside upper center", ncols=ncols, title=title, title_fontsize=8)
    return titled(figure, "", "round of ablation (0: nothing ablated)")


@styled
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
    tasks = unique(redundancy.task)
    rows, columns = grid(tasks)
    figure, axes = new_figure(rows, columns, 2.0 * rows + 0.65, width=columns * COLUMN)
    colours = {"best first": VERMILION, "random": GREY}
    for ax, task in zip(axes.flat, tasks):
        own = redundancy[redundancy.task == task].sort_values("n_heads")
        for order, part in own.groupby("order"):
            if order == "best first":
                line(ax, part.n_heads, part, "log_odds", color=VERMILION, lw=1.3, marker=".", ms=3, zorder=4)
            else:
                ax.plot(part.n_heads, part.log_odds, color=GREY, lw=0.6, zorder=2)
        if rules and np.isfinite(rules.get(task, np.nan)):
            level = own.log_odds[own.n_heads == 0].mean() - rules[task] / 2
            ax.axhline(level, color=INK, lw=0.6, ls=DASHES, zorder=1)
        most = int(own.n_heads.max())
        marks, words = [], [task]
        for row in halves[halves.task == task].itertuples():
            at = np.array(of(row, "share"))
            marks.append((*(at * row.n_heads_all), colours[row.order]))
            gone = f"gone at {between(*(100 * at), unit=' % of heads')}" if np.isfinite(row.share) else "never gone"
            words.append(f"{row.order}: half {gone}")
        ax.yaxis.set_major_locator(MaxNLocator(4))
        mark_below(ax, marks)
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        ticks = [0, *(k * 10**p for p in range(5) for k in (1, 2, 5) if k * 10**p <= most)]
        ax.set_xticks(ticks, ticks)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(-0.15, most * 1.1)
        ax.set_title("\n".join(words), loc="left", pad=3)
    hide_unused(axes, len(tasks))
    handles = [
        Line2D([], [], color=VERMILION, marker=".", ms=3, lw=1.3),
        Line2D([], [], color=GREY, lw=0.6),
        *([Line2D([], [], color=INK, lw=0.6, ls=DASHES)] if rules else []),
    ]
    names = [f"best first, {LEVEL_WORDS}", "random orders", *(["half of what the rule adds is gone"] if rules else [])]
    figure.legend(handles, names, loc="outside upper center", ncols=3 if columns > 1 else 2, columnspacing=1.2)
    return titled(figure, "", "heads ablated (log scale from 1)", f"A\u2019s {LOG_ODDS}")


def patch_figures(out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the tables beside the effects file."""
    table = {name: read_table(beside(out, f"{name}.csv")) for name in PATCH_TABLES}
    facts = json.loads(beside(out, "json").read_text())
    rules = {task: own["rule_measured"] for task, own in facts.items() if own["taught"]}
    for one in table.values():
        one.attrs |= {name: next(iter(facts.values()))[name] for name in ("kind", "position")}
    drawn = {
        "rounds": rounds_figure(table["rounds"]),
        "redundancy": redundancy_figure(table["redundancy"], table["halves"], rules),
        "repair": repair_figure(table["heads"]),
    }
    if any(own["backups_sought"] for own in facts.values()):
        drawn["backups"] = backups_figure(table["backups"])
    for task in facts:
        drawn[file_name(f"transfer_{task}")] = transfer_figure(table["transfer"], table["rounds"], task)
        if "bring" in table["heads"]:
            drawn[file_name(f"roles_{task}")] = roles_figure(table["heads"], task)
    if len(table["steps"]):
        drawn |= {"steps": steps_figure(table["steps"]), "mlps": mlps_figure(table["mlps"])}
    return drawn
