"""Figures of the ladder: transfer by step, heads before and after the ablation, features of the answer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.patch import drawing
from bayes_icl.writing import style
from bayes_icl.writing.style import BLUE, GREEN, INK, ORANGE, VERMILION, ZERO, styled, titled

READOUTS = {
    "format": (INK, "is of the form (a number, a label)"),
    "parity": (BLUE, "has the parity of the answer"),
    "foil": (ORANGE, "is the answer, not its foil"),
    "rule": (VERMILION, "is the answer, among its form"),
    "complement": (GREEN, "is the answer, among all"),
}


@styled
def ladder_figure(ladder: pd.DataFrame, task: str) -> Figure:
    """Transfer and answer layer by step (above), A's share of right tokens and of the rule gain (below).

    A column a kind of ablation; grey: placebo sets.

    Parameters
    ----------
    ladder
        ladder.csv.
    task
        Which task.
    """
    own = ladder[ladder.task == task]
    kinds = [kind for kind in drawing.KINDS if kind in set(own.kind)]
    figure, axes = style.new_figure(
        2, len(kinds), 3.3, width=2 * style.COLUMN, sharex=True, sharey="row", height_ratios=[1.2, 1]
    )
    finite = own[["transfer_layer", "answer_layer"]].to_numpy(float)
    top = float(np.nanmax(finite)) if np.isfinite(finite).any() else 1.0
    never = top + max(1.0, 0.15 * top)
    for (above, below), kind in zip(axes.T, kinds):
        part = own[own.kind == kind]
        chosen, placebos = part[part["set"] == "ablated"].sort_values("step"), part[are_placebos(part["set"])]
        for name, marker, colour in (("transfer_layer", "o", VERMILION), ("answer_layer", "s", BLUE)):
            known = chosen[chosen[name].notna()]
            above.vlines(known.step, known[f"{name}_low"], known[f"{name}_high"], color=colour, lw=1)
            above.plot(known.step, known[name], color=colour, marker=marker, ms=3.5, lw=0.8)
            gone = chosen[chosen[name].isna()]
            above.plot(gone.step, np.full(len(gone), never), marker, color=colour, mfc="w", ms=3.5)
        above.plot(placebos.step + 0.12, placebos.transfer_layer, "o", color=drawing.GREY, ms=2)
        for name, marker, colour in (("a_first", "^", INK), ("left", "D", GREEN)):
            below.plot(chosen.step, chosen[name], color=colour, marker=marker, ms=3.5, lw=0.8)
            below.plot(placebos.step + 0.12, placebos[name], marker, color=drawing.GREY, ms=2)
        above.set_title(kind, loc="left", pad=3)
        below.axhline(0, **ZERO)
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    ticks = [tick for tick in MaxNLocator(5, integer=True).tick_values(0, top) if 0 <= tick <= top]
    axes[0, 0].set_yticks([*ticks, never], [*(f"{tick:.0f}" for tick in ticks), "never"])
    axes[0, 0].set_ylabel("layer")
    axes[1, 0].set_ylabel("share")
    styles: dict[str, dict[str, Any]] = {
        "task recovered": {"color": VERMILION, "marker": "o", "ms": 3.5, "lw": 0.8},
        "A\u2019s answer copied": {"color": BLUE, "marker": "s", "ms": 3.5, "lw": 0.8},
        "A\u2019s token comes first": {"color": INK, "marker": "^", "ms": 3.5, "lw": 0.8},
        "rule gain left": {"color": GREEN, "marker": "D", "ms": 3.5, "lw": 0.8},
        "placebo sets": {"color": drawing.GREY, "marker": "o", "ms": 2, "lw": 0},
    }
    title = f"{task}: whole layers ablated, step by step; bars: {LEVEL_WORDS}"
    style.legend(figure, styles, ncols=5, columnspacing=1, title=title)
    return titled(figure, "", "step of the ladder")


@styled
def ladder_transfer_figure(transfer: pd.DataFrame, task: str) -> Figure:
    """B's own answer (above) and A's (below) against the layer that is patched, a line a step, a column a kind.

    Parameters
    ----------
    transfer
        ladder_transfer.csv.
    task
        Which task.
    """
    own = transfer[transfer.task == task]
    kinds = [kind for kind in drawing.KINDS if kind in set(own.kind)]
    figure, axes = style.new_figure(2, len(kinds), 3.5, width=2 * style.COLUMN, sharex=True, sharey="row")
    for column, kind in zip(axes.T, kinds):
        for ax, answer in zip(column, ("own", "other")):
            for step, part in own[own.kind == kind].groupby("step"):
                by_layer = part.sort_values("layer")
                colour = drawing.round_colour(float(step))
                drawing.line(ax, by_layer.layer, by_layer, answer, color=colour, lw=1.1, marker=".", ms=2.5)
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        column[0].set_title(kind, loc="left", pad=3)
    axes[0, 0].set_ylabel(f"own answer\n{drawing.LOG_ODDS}")
    axes[1, 0].set_ylabel(f"A\u2019s answer\n{drawing.LOG_ODDS}")
    styles = {
        f"step {step}": {"color": drawing.round_colour(float(step)), "marker": ".", "ms": 2.5, "lw": 1.1}
        for step in sorted(set(own.step))
    }
    title = f"{task}: A patched into B, by step of the ladder; bands: {LEVEL_WORDS}"
    style.legend(figure, styles, ncols=6, columnspacing=1.2, title=title)
    return titled(figure, "", drawing.LAYER)


@styled
def lit_figure(heads: pd.DataFrame, task: str, kind: str) -> Figure:
    """Every head before and after each step: attention on examples (above), direct effect (below).

    Grey: ablated. Framed: heads whose direct effect, or whose attention on examples, surely rises.

    Parameters
    ----------
    heads
        ladder_heads.csv.
    task
        Which task.
    kind
        Which kind of ablation.
    """
    own = heads[(heads.task == task) & (heads.kind == kind)]
    steps = sorted(set(own.step))[:4]
    columns = ["before", *(f"step {step}" for step in steps)]
    n_layers, n_heads = int(own.layer.max()) + 1, int(own["head"].max()) + 1
    height = min(max(0.085 * n_layers, 0.9), 3.2)
    figure, axes = style.new_figure(2, len(columns), 2 * height + 1.3, width=2 * style.COLUMN, sharex=True, sharey=True)
    limit = float(own[["direct_before", "direct_after"]].abs().max().max()) or 1.0
    for i, name in enumerate(columns):
        part = own[own.step == steps[max(i - 1, 0)]].sort_values(["layer", "head"])
        end = "after" if i else "before"
        at = part.layer.to_numpy(int), part["head"].to_numpy(int)
        gone = np.zeros((n_layers, n_heads), bool)
        gone[at] = part.gone.to_numpy(bool) & bool(i)
        for ax, column, look in (
            (axes[0, i], f"attention_{end}", {"cmap": "Blues", "vmin": 0, "vmax": 1}),
            (axes[1, i], f"direct_{end}", {"cmap": style.DIVERGING, "vmin": -limit, "vmax": limit}),
        ):
            grid = np.full(gone.shape, np.nan)
            grid[at] = part[column].to_numpy(float)
            cells = np.ma.masked_array(grid, gone | np.isnan(grid))
            ax.set_facecolor("0.8")
            mesh = ax.pcolormesh(np.arange(n_heads + 1) - 0.5, np.arange(n_layers + 1) - 0.5, cells, **look)
            if i:
                for row in part[part.lights].itertuples():
                    ax.plot(row.head, row.layer, "s", mfc="none", mec=INK, ms=5, mew=0.8)
            if i == len(columns) - 1:
                words = "attention on\nexamples" if column.startswith("att") else "direct effect\n(nats)"
                figure.colorbar(mesh, ax=axes[0 if column.startswith("att") else 1, :], label=words, pad=0.01)
        axes[0, i].set_title(name, loc="left", pad=3)
        for ax in axes[:, i]:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    for ax in axes[:, 0]:
        ax.set_ylabel("layer")
    words = "grey: ablated; framed: lights up (direct effect or attention surely rises)"
    title = f"{task}: heads at the last position, {kind} ablation\n{words}"
    return titled(figure, title, "head")


@styled
def patterns_figure(patterns: pd.DataFrame, task: str, kind: str) -> Figure:
    """Attention patterns on the examples of the heads that rise most at each step, before (above) and after (below).

    Parameters
    ----------
    patterns
        ladder_patterns.csv.
    task
        Which task.
    kind
        Which kind of ablation.
    """
    own = patterns[(patterns.task == task) & (patterns.kind == kind)]
    roles = drawing.unique(own.role)
    rows: list[tuple[str, np.ndarray]] = []
    for (step, component), part in own.groupby(["step", "component"], sort=False):
        at = part.sort_values("shot", kind="stable")
        for end in ("before", "after"):
            rows.append((f"{component}, {end} step {step}", at[f"attention_{end}"].to_numpy(float)))
    n_examples = int(own.shot.max()) + 1
    figure, axes = style.new_figure(1, 1, 0.15 * len(rows) + 1.2, width=2 * style.COLUMN)
    ax: Axes = axes[0, 0]
    cells = np.stack([x for _, x in rows])
    mesh = ax.pcolormesh(cells, cmap="Blues", vmin=0, vmax=max(float(cells.max()), 0.05), edgecolors="w", lw=0.3)
    ax.set_yticks(np.arange(len(rows)) + 0.5, [name for name, _ in rows])
    for y in range(2, len(rows), 2):
        ax.axhline(y, color=INK, lw=0.5)
    ax.set_ylim(len(rows), 0)
    letters = [role[0] for role in roles]
    ax.set_xticks(np.arange(cells.shape[1]) + 0.5, letters * n_examples, fontsize=6)
    ax.tick_params(length=0)
    for x in range(len(roles), cells.shape[1], len(roles)):
        ax.axvline(x, color=INK, lw=0.5)
    figure.colorbar(mesh, ax=ax, label="attention", pad=0.01)
    words = ", ".join(f"{role[0]}: {role}" for role in roles)
    return titled(
        figure, f"{task}: attention patterns before and after ablation ({kind})", f"examples, first to last ({words})"
    )


@styled
def features_figure(features: pd.DataFrame) -> Figure:
    """Log-odds of classes of answers that a logit lens reads, by layer: in A, and dotted without the rule.

    `features` is features.csv; a panel a task.
    """
    tasks = drawing.unique(features.task)
    figure, axes = style.panels(len(tasks), 2.0, 0.95)
    for ax, task in zip(axes.flat, tasks):
        own = features[features.task == task]
        for readout, (colour, _) in READOUTS.items():
            part = own[own.readout == readout].sort_values("layer")
            with_rule, without = (part[part.run == run] for run in ("A", "no rule"))
            drawing.line(ax, with_rule.layer, with_rule, "log_odds", color=colour, lw=1.1)
            ax.plot(without.layer, without.log_odds, color=colour, lw=0.9, ls=":")
        ax.axhline(0, **ZERO)
        ax.set_title(task, loc="left", pad=3)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    shown = set(features.readout)
    styles: dict[str, dict[str, Any]] = {
        words: {"color": colour, "lw": 1.1} for name, (colour, words) in READOUTS.items() if name in shown
    }
    styles["without the rule"] = {"color": INK, "lw": 0.9, "ls": ":"}
    title = f"the next token by a logit lens; bands: {LEVEL_WORDS}"
    style.legend(figure, styles, ncols=2 if len(tasks) > 1 else 1, columnspacing=1.2, title=title)
    return titled(figure, "", "layer", "log-odds (nats)")
