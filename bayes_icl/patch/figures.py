"""Figures of patching and ablation: where a rule is transferred, what takes over when heads are gone, what heads do.

Functions that take the tables of the stage and return a Figure. Log-odds and what is lost of them are in nats;
intervals and bands are over pairs. A is a run with examples, B the bare query of another episode; the own answer is the
rule's to B's query, the other answer is A's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from bayes_icl.core.files import beside, file_name
from bayes_icl.core.intervals import LEVEL_WORDS, Interval
from bayes_icl.core.schemas import read_beside
from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.patch import drawing
from bayes_icl.patch.ladder_figures import (
    features_figure,
    ladder_figure,
    ladder_transfer_figure,
    lit_figure,
    patterns_figure,
)
from bayes_icl.patch.outputs import TABLES
from bayes_icl.patch.step_figures import backups_figure, mlps_figure, repair_figure, roles_figure, steps_figure
from bayes_icl.writing import style
from bayes_icl.writing.style import INK, VERMILION, ZERO, number_words, styled, titled


@styled
def transfer_figure(
    transfer: pd.DataFrame, rounds: pd.DataFrame, task: str, *, kind: str, position: str = "last"
) -> Figure:
    """The own answer (above) and A's (below) against the layer that is patched, a line a round of ablation.

    Dashed, where the round's A is above B: half-way between them. Triangles on the lower edge: the first layer at which
    an answer is half-way, with its interval. Dotted: a run whose examples have their answers permuted, patched alike.

    Parameters
    ----------
    transfer, rounds
        transfer.csv and rounds.csv; A and B are marked as they are in round 0.
    task
        Which task.
    kind
        Kind of ablation that is drawn.
    position
        Where A was put into B.
    """
    curves, known = (
        table[(table.task == task) & (table.kind == kind) & (table["set"] == "ablated")] for table in (transfer, rounds)
    )
    known = known.sort_values("round")
    words = [fill(drawing.round_words(row), 54, subsequent_indent="    ") for row in known.itertuples()]
    height = 4.15 + 0.13 * (sum(word.count("\n") + 1 for word in words) + len(known))
    figure, axes = style.new_figure(2, 1, height, sharex=True, height_ratios=[1.35, 1])
    no_rule = transfer[(transfer.task == task) & (transfer["set"] == "no rule")].sort_values("layer")
    for ax, answer in zip(axes.flat, ("own", "other")):
        for number in known["round"]:
            own = curves[curves["round"] == number].sort_values("layer")
            drawing.line(ax, own.layer, own, answer, color=drawing.round_colour(number), lw=1.2, marker=".", ms=2.5)
        ax.plot(no_rule.layer, no_rule[answer], color=INK, lw=1, ls=":", zorder=2)
    for row in known.itertuples():
        if row.a_own_low > row.b_own:
            half = (row.a_own + row.b_own) / 2
            axes[0, 0].axhline(half, color=drawing.round_colour(row.round), lw=0.7, ls=style.DASHES, zorder=1)
    levels = {"A": known.iloc[0].a_own, "B": known.iloc[0].b_own}
    _mark_levels(axes[0, 0], known, "transfer_layer", levels)
    _mark_levels(axes[1, 0], known, "answer_layer", {"A": levels["A"]})
    axes[0, 0].set_ylabel(f"own answer\n{drawing.LOG_ODDS}")
    axes[1, 0].set(xlabel=drawing.LAYER, ylabel=f"A\u2019s answer\n{drawing.LOG_ODDS}")
    styles: dict[str, dict[str, Any]] = {
        word: {"color": drawing.round_colour(number), "marker": "^", "ms": 4, "lw": 1.2}
        for word, number in zip(words, known["round"])
    }
    if len(no_rule):
        styles["A with permuted answers, nothing ablated"] = {"color": INK, "lw": 1, "ls": ":"}
    style.legend(figure, styles, loc="outside lower left", alignment="left", handlelength=1.6)
    title = (
        f"{task}\n{drawing.PATCHES[position]}\n{kind} ablation; bands and bars: {LEVEL_WORDS}\n"
        "dashed: half-way from B to the round\u2019s A"
    )
    return titled(figure, title)


def _mark_levels(ax: Axes, rounds: pd.DataFrame, layer: str, levels: Mapping[str, float]) -> None:
    """Levels with their names, and below the data where each round gets half of the way."""
    finite = sorted((level, name) for name, level in levels.items() if np.isfinite(level))
    for level, _ in finite:
        ax.axhline(level, color=INK, lw=0.6, zorder=0)
    style.few_ticks(ax)
    drawing.mark_below(ax, [(*Interval.of(row, layer), drawing.round_colour(row.round)) for row in rounds.itertuples()])
    low, high = ax.get_ylim()
    labels = [f"{name} {number_words(level, 1)}" for level, name in finite]
    heights = np.array([level for level, _ in finite])
    style.label_right(ax, labels, heights, 0.09 * (high - low), high, low=low, colours=[INK] * len(labels))


@styled
def rounds_figure(rounds: pd.DataFrame) -> Figure:
    """The transfer layer by round (above) and A's own log-odds (below), a pair of panels a task.

    Grey dots: placebo sets; dashed: B, the bare query. What is never transferred is an open marker in a row of its own.

    `rounds` is rounds.csv.
    """
    tasks, kinds = drawing.unique(rounds.task), [kind for kind in drawing.KINDS if kind in set(rounds.kind)]
    rows, columns = -(-len(tasks) // 2), min(len(tasks), 2)
    heights = [1.1, 0.9] * rows
    figure, axes = style.new_figure(
        2 * rows, columns, 2.25 * rows + 0.7, width=columns * style.COLUMN, height_ratios=heights
    )
    upper, lower = axes[0::2], axes[1::2]
    layers = rounds[["transfer_layer", "transfer_layer_low", "transfer_layer_high"]].to_numpy(float)
    seen = layers[np.isfinite(layers)] if np.isfinite(layers).any() else np.zeros(1)
    bottom, top = max(float(seen.min()) - 1, -0.5), float(seen.max()) + 1
    never = top + 0.12 * (top - bottom)
    for above, below, task in zip(upper.flat, lower.flat, tasks):
        own = rounds[rounds.task == task]
        for kind, offset in zip(kinds, np.linspace(-0.2, 0.2, len(kinds)) if len(kinds) > 1 else [0.0]):
            colour, marker = drawing.KINDS[kind]
            ablated = own[(own.kind == kind) & (own["set"] == "ablated")].sort_values("round")
            placebo = own[(own.kind == kind) & are_placebos(own["set"])]
            x, look = ablated["round"] + offset, {"color": colour, "marker": marker, "ms": 3.5}
            for ax, column in ((above, "transfer_layer"), (below, "a_own")):
                ax.plot(placebo["round"] + offset + 0.08, placebo[column], "o", color=drawing.GREY, ms=2, zorder=2)
                ax.vlines(x, ablated[f"{column}_low"], ablated[f"{column}_high"], color=colour, lw=1)
                ax.plot(x, ablated[column], lw=0.7, zorder=3, **look)
            below.plot(ablated["round"], ablated.b_own, color=INK, lw=0.8, ls=style.DASHES)
            for part, shift, more in (
                (ablated, 0, look),
                (placebo, 0.08, {"color": drawing.GREY, "marker": "o", "ms": 2}),
            ):
                at = part["round"][part.transfer_layer.isna()] + offset + shift
                above.plot(at, np.full(len(at), never), lw=0, mfc="w", zorder=3, **more)
        ticks = [tick for tick in MaxNLocator(5, integer=True).tick_values(bottom, top) if bottom <= tick < top]
        above.set_yticks([*ticks, never], [*(f"{tick:.0f}" for tick in ticks), "never"])
        above.axhline((top + never) / 2, color=style.FAINT, lw=0.6, ls=":")
        above.set_ylim(bottom, never + (never - top) / 2)
        above.set_title(task, loc="left", pad=3)
        below.yaxis.set_major_locator(MaxNLocator(4))
        below.axhline(0, **ZERO)
        last = int(own["round"].max())
        for ax in (above, below):
            ax.set_xticks(range(last + 1))
            ax.set_xlim(-0.45, last + 0.45)
    for above, below in zip(upper, lower):
        above[0].set_ylabel("transfer layer")
        below[0].set_ylabel("A\u2019s log-odds\n(nats)")
    for part in (upper, lower):
        style.hide_unused(part, len(tasks))
    for above in upper.flat:
        above.tick_params(labelbottom=False)
    styles = {
        kind: {"color": drawing.KINDS[kind][0], "marker": drawing.KINDS[kind][1], "ms": 3.5, "lw": 1} for kind in kinds
    }
    styles["placebo set"] = {"color": drawing.GREY, "marker": "o", "ms": 2, "lw": 0}
    styles["B"] = {"color": INK, "lw": 0.8, "ls": style.DASHES}
    ncols = len(styles) if columns > 1 else 3
    style.legend(figure, styles, ncols=ncols, title=f"kinds of ablation; bars: {LEVEL_WORDS}")
    return titled(figure, "", "round of ablation (0: nothing ablated)")


@styled
def redundancy_figure(
    redundancy: pd.DataFrame, halves: pd.DataFrame, rules: Mapping[str, float] | None = None
) -> Figure:
    """A's log-odds against the number of heads ablated, best first and in random orders, a panel a task.

    Triangles on the lower edge: where half of the rule gain is gone, with its interval.

    Parameters
    ----------
    redundancy, halves
        redundancy.csv and halves.csv.
    rules
        The rule gain by task, nats, of the facts; the line at half of it is drawn for those named.
    """
    tasks = drawing.unique(redundancy.task)
    figure, axes = style.panels(len(tasks), 2.0, 0.65)
    colours = {"best first": VERMILION, "random": drawing.GREY}
    for ax, task in zip(axes.flat, tasks):
        own = redundancy[redundancy.task == task].sort_values("n_heads")
        for order, part in own.groupby("order"):
            if order == "best first":
                drawing.line(ax, part.n_heads, part, "log_odds", color=VERMILION, lw=1.3, marker=".", ms=3, zorder=4)
            else:
                ax.plot(part.n_heads, part.log_odds, color=drawing.GREY, lw=0.6, zorder=2)
        if rules and np.isfinite(rules.get(task, np.nan)):
            level = own.log_odds[own.n_heads == 0].mean() - rules[task] / 2
            ax.axhline(level, color=INK, lw=0.6, ls=style.DASHES, zorder=1)
        most = int(own.n_heads.max())
        marks, words = [], [task]
        for row in halves[halves.task == task].itertuples():
            at = np.array(Interval.of(row, "share"))
            marks.append((*(at * row.n_heads_all), colours[row.order]))
            share = drawing.between(Interval(*(100 * at)), " % of heads")
            gone = f"gone at {share}" if np.isfinite(row.share) else "never gone"
            words.append(f"{row.order}: half {gone}")
        ax.yaxis.set_major_locator(MaxNLocator(4))
        drawing.mark_below(ax, marks)
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        ticks = [0, *(k * 10**p for p in range(5) for k in (1, 2, 5) if k * 10**p <= most)]
        ax.set_xticks(ticks, ticks)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(-0.15, most * 1.1)
        ax.set_title("\n".join(words), loc="left", pad=3)
    styles: dict[str, dict[str, Any]] = {
        f"best first, {LEVEL_WORDS}": {"color": VERMILION, "marker": ".", "ms": 3, "lw": 1.3},
        "random orders": {"color": drawing.GREY, "lw": 0.6},
    }
    if rules:
        styles["half of the rule gain is gone"] = {"color": INK, "lw": 0.6, "ls": style.DASHES}
    style.legend(figure, styles, ncols=3 if len(tasks) > 1 else 2, columnspacing=1.2)
    return titled(figure, "", "heads ablated (log scale from 1)", f"A\u2019s {drawing.LOG_ODDS}")


def patch_figures(out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the tables beside the effects file."""
    table = read_beside(out, TABLES)
    facts = json.loads(beside(out, "json").read_text())
    rules = {task: own["rule_gain_measured"] for task, own in facts.items() if own["taught"]}
    drawn_of = {name: next(iter(facts.values()))[name] for name in ("kind", "position")}
    drawn = {
        "rounds": rounds_figure(table["rounds"]),
        "redundancy": redundancy_figure(table["redundancy"], table["halves"], rules),
        "repair": repair_figure(table["heads"]),
    }
    if any(own["backups_sought"] for own in facts.values()):
        drawn["backups"] = backups_figure(table["backups"])
    for task in facts:
        drawn[file_name(f"transfer_{task}")] = transfer_figure(table["transfer"], table["rounds"], task, **drawn_of)
        if "bring" in table["heads"]:
            drawn[file_name(f"roles_{task}")] = roles_figure(table["heads"], task)
        if len(table["ladder"]):
            drawn |= _ladder_figures(table, task)
    if len(table["features"]):
        drawn["features"] = features_figure(table["features"])
    if len(table["steps"]):
        drawn |= {"steps": steps_figure(table["steps"]), "mlps": mlps_figure(table["mlps"])}
    return drawn


def _ladder_figures(table: Mapping[str, pd.DataFrame], task: str) -> dict[str, Figure]:
    """The figures of one task's ladder; those of heads where any were ablated by knock-out."""
    drawn = {
        f"ladder_{task}": ladder_figure(table["ladder"], task),
        f"ladder_transfer_{task}": ladder_transfer_figure(table["ladder_transfer"], task),
    }
    heads = table["ladder_heads"]
    if ((heads.task == task) & (heads.kind == "zero")).any():
        drawn[f"lit_{task}"] = lit_figure(heads, task, "zero")
        drawn[f"patterns_{task}"] = patterns_figure(table["ladder_patterns"], task, "zero")
    return {file_name(name): figure for name, figure in drawn.items()}
