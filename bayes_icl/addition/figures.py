"""Figures of addition: shares of the movement by layer, amounts against n, doses against examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayes_icl.addition.outputs import TABLES
from bayes_icl.addition.trajectories import PARTS
from bayes_icl.core.files import beside, file_name
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.core.schemas import read_beside
from bayes_icl.writing import style
from bayes_icl.writing.style import BLUE, BROWN, GREEN, INK, ORANGE, PINK, VERMILION, ZERO, styled, titled

SHAPES = {"line": BLUE, "log": VERMILION, "step": GREEN, "rank1": INK}

VECTOR_COLOURS = {"task": BLUE, "rule": VERMILION, "permuted": GREEN, "other task": PINK, "random": BROWN}


@styled
def shares_figure(layers: pd.DataFrame, task: str) -> Figure:
    """Shares of the movement along shapes in n, by layer, a panel a part; layers that do not surely move are left out.

    Parameters
    ----------
    layers
        layers.csv.
    task
        Which task.
    """
    figure, axes = style.new_figure(len(PARTS), 1, 4.6, sharex=True, sharey=True)
    for ax, part in zip(axes.flat, PARTS):
        own = layers[(layers.task == task) & (layers.part == part)].sort_values("layer")
        shown = own.where(own.moves)
        for name, colour in SHAPES.items():
            ax.plot(own.layer, shown[name], color=colour, marker=".", ms=3, lw=1)
            ax.fill_between(own.layer, shown[f"{name}_low"], shown[f"{name}_high"], color=colour, alpha=0.15, lw=0)
        ax.set(ylim=(0, 1.05), ylabel=part, xlim=(-0.5, own.layer.max() + 0.5))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if not own.moves.any():
            ax.text(0.5, 0.5, "nothing surely moves", transform=ax.transAxes, ha="center", va="center", fontsize=7)
    styles = {name: {"color": colour, "lw": 1.2} for name, colour in SHAPES.items()}
    style.legend(figure, styles, ncols=4, loc="outside lower center")
    axes[-1, 0].set_xlabel("into block; last: final norm")
    return titled(figure, f"{task}\nshare of the movement h(n) \u2212 h(1); {LEVEL_WORDS} bands")


@styled
def amounts_figure(amounts: pd.DataFrame, layers: pd.DataFrame, task: str) -> Figure:
    """Amounts along what an example adds on average, against n, at six layers; task above, rule below.

    Dashed grey: equal steps. Lines: the mean curve without a law. Above each panel, the layer and its verdict.

    Parameters
    ----------
    amounts, layers
        amounts.csv and layers.csv.
    task
        Which task.
    """
    figure, axes = style.new_figure(2, 3, 3.4, width=2 * style.COLUMN, sharex=True)
    for row, part in zip(axes, ("task", "rule")):
        own = amounts[(amounts.task == task) & (amounts.part == part)]
        moving = np.array(sorted(own.layer.unique()))
        shown = moving[np.unique(np.linspace(0, len(moving) - 1, 3).round().astype(int))] if len(moving) else []
        for ax, layer in zip(row, shown):
            _amount_panel(ax, own[own.layer == layer])
            of_layer = layers[(layers.task == task) & (layers.part == part) & (layers.layer == layer)].iloc[0]
            ax.set_title(f"{part}, into {layer}: {of_layer.verdict.replace('_', ' ')}", fontsize=7)
        for ax in row[len(shown) :]:
            ax.axis("off")
        if not len(shown):
            row[0].text(0, 0.5, f"{part}: nothing surely moves", transform=row[0].transAxes, fontsize=7)
    words = f"{task}\namount along what an example adds on average; {LEVEL_WORDS} bars"
    return titled(figure, words, "examples n", "examples\u2019 worth")


def _amount_panel(ax: Axes, own: pd.DataFrame) -> None:
    ax.plot(own.n, own.n - 1, color="0.6", ls="--", lw=0.8)
    ax.plot(own.n, own.fitted, color=VERMILION, lw=1)
    ax.errorbar(
        own.n, own.amount, yerr=[own.amount - own.amount_low, own.amount_high - own.amount], color=BLUE, fmt=".", ms=3,
        elinewidth=0.7,
    )  # fmt: skip
    ax.axhline(0, **ZERO)
    style.few_ticks(ax)


@styled
def doses_figure(doses: pd.DataFrame, slopes: pd.DataFrame, task: str, layer: int) -> Figure:
    """Rise of the log-odds against examples' worth, at one layer; below, its slope by layer.

    Parameters
    ----------
    doses, slopes
        doses.csv and slopes.csv.
    task
        Which task.
    layer
        That of the upper panel.
    """
    figure, axes = style.new_figure(2, 1, 4.6)
    own, steep = doses[doses.task == task], slopes[slopes.task == task]
    upper, lower = axes.flat
    styles = {"real examples": {"color": ORANGE, "lw": 1.5}}
    for vector in ("examples", *VECTOR_COLOURS):
        of_one = own[(own.vector == vector) & (own.layer.isna() | (own.layer == layer))].sort_values("dose")
        if of_one.empty:
            continue
        colour = VECTOR_COLOURS.get(vector, ORANGE)
        upper.plot(of_one.dose, of_one.rise, color=colour, marker=".", lw=1.5 if vector == "examples" else 1)
        upper.fill_between(of_one.dose, of_one.rise_low, of_one.rise_high, color=colour, alpha=0.12, lw=0)
        if vector != "examples":
            styles[vector] = {"color": colour, "lw": 1.2}
            by_layer = steep[steep.vector == vector].sort_values("layer")
            lower.plot(by_layer.layer, by_layer.slope, color=colour, lw=1)
            lower.fill_between(by_layer.layer, by_layer.slope_low, by_layer.slope_high, color=colour, alpha=0.12, lw=0)
    for ax in (upper, lower):
        ax.axhline(0, **ZERO)
        style.few_ticks(ax)
    upper.set(xlabel="examples, or examples\u2019 worth added", ylabel="rise of the\nlog-odds, nats")
    lower.set(xlabel="into block; last: final norm", ylabel="slope, nats per\nexample\u2019s worth")
    style.legend(figure, styles, ncols=3, loc="outside lower center")
    return titled(figure, f"{task}\nvectors added at block {layer} (above), at every block (below)")


def addition_figures(out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the tables beside the file of amounts."""
    table = read_beside(out, TABLES)
    facts = json.loads(beside(out, "json").read_text())
    drawn = {}
    for task, own in facts.items():
        drawn[file_name(f"shares_{task}")] = shares_figure(table["layers"], task)
        drawn[file_name(f"amounts_{task}")] = amounts_figure(table["amounts"], table["layers"], task)
        drawn[file_name(f"doses_{task}")] = doses_figure(table["doses"], table["slopes"], task, own["best"]["layer"])
    return drawn
