"""Figures of independence: curves by size of blocks, and what they keep of the update."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bayes_icl.core.files import beside, file_name
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.core.schemas import read_beside
from bayes_icl.independence.kept import TOLERANCE
from bayes_icl.independence.outputs import TABLES
from bayes_icl.writing import style
from bayes_icl.writing.style import BLUE, DASHES, EXAMPLES, INK, ORANGE, ZERO, styled, titled

SIDES = {"cut": "between blocks", "control": "as many elsewhere"}

SHADE = {"color": "0.92", "lw": 0, "zorder": 0}  # where the update counts as kept


@styled
def curves_figure(curves: pd.DataFrame, task: str, layers: str) -> Figure:
    """Log-odds against n by size of blocks; edges cut between blocks on the left, as many elsewhere on the right.

    Parameters
    ----------
    curves
        curves.csv.
    task
        Which task.
    layers
        In which edges are cut, as the table has it.
    """
    own = curves[curves.task == task]
    plain, cut = own[own.edges == "plain"], own[own.layers == layers]
    sizes = sorted(cut["size"].unique())
    colours = dict(zip(sizes, sns.color_palette("viridis_r", len(sizes) + 1)[1:]))
    figure, axes = style.new_figure(1, 2, 2.9, width=2 * style.COLUMN, sharex=True, sharey=True)
    for ax, (edges, words) in zip(axes.flat, SIDES.items()):
        for size in sizes:
            one = cut[(cut.edges == edges) & (cut["size"] == size)]
            ax.plot(one.n, one.log_odds, color=colours[size], lw=1)
            ax.fill_between(one.n, one.log_odds_low, one.log_odds_high, color=colours[size], alpha=0.12, lw=0)
        ax.plot(plain.n, plain.log_odds, color=INK, lw=1.2, ls=DASHES)
        ax.axhline(0, **ZERO)
        ax.set_title(f"cut {words}", fontsize=8)
        ax.set_xlabel(EXAMPLES)  # of all panels at once it would stand on the legend
        style.few_ticks(ax)
    styles = {f"{size:.0f}": {"color": colour, "lw": 1.2} for size, colour in colours.items()}
    styles["all, no cut"] = {"color": INK, "lw": 1.2, "ls": DASHES}
    style.legend(figure, styles, ncols=len(styles), loc="outside lower center", title="examples a block")
    words = f"{task}\nattention edges cut in layers {layers}; {LEVEL_WORDS} bands"
    return titled(figure, words, up="log-odds, nats")


@styled
def kept_figure(kept: pd.DataFrame, task: str) -> Figure:
    """Share of the update left against size of blocks, cut beside control, a panel a range of layers.

    Grey: kept to 5 %. Open circle: all examples in one block, where nothing is cut.

    Parameters
    ----------
    kept
        kept.csv.
    task
        Which task.
    """
    own = kept[kept.task == task]
    ranges = list(dict.fromkeys(own.layers))
    columns = min(len(ranges), 4)
    rows = -(-len(ranges) // columns)
    width = min(2, columns / 2 + 0.5) * style.COLUMN
    figure, axes = style.new_figure(rows, columns, 1.9 * rows + 0.9, width=width, sharex=True, sharey=True)
    for ax, layers in zip(axes.flat, ranges):
        one = own[own.layers == layers].sort_values("size")
        ax.axhspan(1 - TOLERANCE, 1 + TOLERANCE, **SHADE)
        ax.axhline(0, **ZERO)
        last = one["size"].max() * 2
        for name, colour, dash in (("control", ORANGE, DASHES), ("kept", BLUE, "-")):
            shares, ends = one[name].to_numpy(), [one[f"{name}_low"].to_numpy(), one[f"{name}_high"].to_numpy()]
            ax.fill_between(one["size"], *ends, color=colour, alpha=0.2, lw=0)
            ax.plot(
                [*one["size"], last],
                [*shares, np.nan if np.isnan(shares).all() else 1.0],
                color=colour,
                ls=dash,
                lw=1.2,
                marker=".",
                ms=4,
            )
        if one.kept.isna().all():
            ax.text(0.5, 0.5, "no update", transform=ax.transAxes, ha="center", va="center", fontsize=7)
        else:
            ax.plot(last, 1, marker="o", mfc="white", mec=INK, ms=4, ls="none")
        ax.set_xscale("log", base=2)
        ax.set_xticks([*one["size"], last], [*map(str, one["size"]), "all"])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(0.85, 1.18 * last)
        number = "layers" if "-" in layers else "layer"
        ax.set_title(f"all layers ({layers})" if layers == ranges[0] else f"{number} {layers}", fontsize=8)
    for ax in axes.flat[len(ranges) :]:
        ax.axis("off")
    for ax in axes[-1]:
        ax.set_xlabel("examples a block")
    styles = {
        "cut between blocks": {"color": BLUE, "lw": 1.2},
        "as many elsewhere": {"color": ORANGE, "lw": 1.2, "ls": DASHES},
    }
    style.legend(figure, styles, ncols=2, loc="outside lower center")
    return titled(figure, f"{task}\nshare of the update left; {LEVEL_WORDS} bands", up="share left")


def independence_figures(out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the tables beside the file of log-odds."""
    table = read_beside(out, TABLES)
    facts = json.loads(beside(out, "json").read_text())
    drawn = {}
    for task, own in facts.items():
        drawn[file_name(f"curves_{task}")] = curves_figure(table["curves"], task, own["layers"][0])
        drawn[file_name(f"kept_{task}")] = kept_figure(table["kept"], task)
    return drawn
