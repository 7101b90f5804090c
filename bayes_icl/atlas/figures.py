"""Figures of an atlas: heads by scores, scores by scores, groups ablated.

Functions that take the tables of `atlas` with its JSON, `facts`, by task, and return a Figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bayes_icl.atlas.outputs import GROUPS, SCORES, read_atlas, wide
from bayes_icl.atlas.tables import largest_heads
from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.mechanism.head_names import name_of
from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.writing import style
from bayes_icl.writing.style import FAINT, INK, VERMILION, ZERO, number_words, styled, titled

Facts = Mapping[str, Mapping[str, Any]]

SHOWN = 24  # heads of a map


@styled
def atlas_figure(atlas: pd.DataFrame, agreement: pd.DataFrame, task: str, *, most: int = SHOWN) -> Figure:
    """Heads by scores, each score as a share of its largest value; beside it rank correlations of the scores.

    Parameters
    ----------
    atlas, agreement
        The tables of these names.
    task
        Which task.
    most
        How many heads are drawn, those first that come first by any score of effects.
    """
    heads = largest_heads(atlas, task, most)
    values = wide(atlas, task)
    scores = [str(name) for name in values]
    shown = (values / values.abs().max().replace(0, 1.0)).loc[heads]
    named = wide(atlas, task, "named").loc[heads].fillna(False).astype(bool)
    height = max(0.17 * len(heads), 0.27 * len(scores)) + 1.35
    figure = Figure(figsize=(2 * style.COLUMN, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    words = [SCORES[name].words for name in scores]
    mesh = left.pcolormesh(shown.to_numpy(float), cmap=style.DIVERGING, vmin=-1, vmax=1, edgecolors="face", lw=0.1)
    left.set_facecolor("0.95")
    for i, j in zip(*np.nonzero(named[scores].to_numpy())):
        left.plot(j + 0.5, i + 0.5, "o", ms=2.4, color=INK, mec="white", mew=0.5)
    left.set_yticks(np.arange(len(heads)) + 0.5, [name_of(head) for head in heads], fontsize=6)
    left.set_xticks(np.arange(len(scores)) + 0.5, words, rotation=45, ha="right", rotation_mode="anchor")
    left.set_title("scores of heads (dot: named)", loc="left", pad=3)
    figure.colorbar(mesh, ax=left, label="share of the score's largest", fraction=0.05, aspect=25, pad=0.02)
    grid = _agreement_grid(agreement[agreement.task == task], scores)
    mesh = right.pcolormesh(grid, cmap=style.DIVERGING, vmin=-1, vmax=1, edgecolors="face", lw=0.1)
    right.set_facecolor("0.95")
    for (i, j), x in np.ndenumerate(grid):
        if not np.isnan(x):
            colour = "white" if abs(x) > 0.6 else INK
            text = number_words(x, 1)
            right.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=6, color=colour)
    right.set_xticks(np.arange(len(scores)) + 0.5, words, rotation=45, ha="right", rotation_mode="anchor")
    right.set_yticks(np.arange(len(scores)) + 0.5, words)
    right.set_title("rank correlation over all heads\n(diagonal: of two halves of the sequences)", loc="left", pad=3)
    for ax in (left, right):
        ax.invert_yaxis()
        ax.tick_params(length=0)
    return titled(figure, task)


def _agreement_grid(own: pd.DataFrame, scores: list[str]) -> np.ndarray:
    """Rank correlations as a symmetric matrix."""
    grid = np.full((len(scores), len(scores)), np.nan)
    for row in own.to_dict("records"):
        i, j = scores.index(row["a"]), scores.index(row["b"])
        grid[i, j] = grid[j, i] = row["rank"]
    return grid


@styled
def lesions_figure(lesions: pd.DataFrame, facts: Facts) -> Figure:
    """Share of delta lost with each group, beside its placebo groups, a panel a task."""
    tasks = [task for task in facts if (lesions.task == task).any()]
    figure, axes = style.panels(len(tasks), 1.5, 0.75, sharex=False, sharey=True)
    groups = [group for group in GROUPS if (lesions.group == group).any()]
    for ax, task in zip(axes.flat, tasks):
        ax.axvline(0, **ZERO)
        for y, group in enumerate(groups):
            own = lesions[(lesions.task == task) & (lesions.group == group)]
            placebo = own[are_placebos(own["set"])]
            ax.plot(placebo.share, np.full(len(placebo), y), "o", ms=3.5, mfc="none", mec="0.5", mew=0.7)
            for row in own[own["set"] == "top"].itertuples():
                ax.plot([row.share_low, row.share_high], [y, y], color=VERMILION, lw=1.2)
                ax.plot(row.share, y, "o", ms=4, color=VERMILION)
        ax.set_yticks(range(len(groups)), [group.replace("_", " ") for group in groups])
        ax.set_ylim(len(groups) - 0.5, -0.5)
        ax.set_title(task, loc="left", pad=3)
        ax.grid(axis="x", color=FAINT, lw=0.3)
    style.legend(
        figure,
        {
            f"group ({LEVEL_WORDS} interval)": {"color": VERMILION, "marker": "o", "ms": 4, "lw": 1.2},
            "placebo groups": {"color": "0.5", "marker": "o", "ms": 3.5, "mfc": "none", "lw": 0},
        },
        ncols=2,
    )
    return titled(figure, "", "share of delta lost when ablated")


def atlas_figures(folder: Path) -> dict[str, Figure]:
    """All figures of a folder that `atlas` wrote, by name.

    Parameters
    ----------
    folder
        The one that `atlas` wrote.
    """
    tables, facts = read_atlas(folder)
    figures = {f"atlas_{file_name(task)}": atlas_figure(tables["atlas"], tables["agreement"], task) for task in facts}
    if len(tables["lesions"]):
        figures["lesions"] = lesions_figure(tables["lesions"], facts)
    return figures
