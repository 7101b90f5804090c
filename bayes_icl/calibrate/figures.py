"""Figures of `calibrate`: ranks, recovery, confusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from bayes_icl.calibrate.outcomes import Bounds
from bayes_icl.calibrate.outputs import TABLES
from bayes_icl.calibrate.truths import TRUTHS
from bayes_icl.core.intervals import LEVEL, LEVEL_WORDS
from bayes_icl.writing.style import COLUMN, FAINT, INK, colour_of, legend, new_figure, styled, titled, verdict_colour


@styled
def ranks_figure(ranks: pd.DataFrame, tests: pd.DataFrame) -> Figure:
    """How far the ranks of true parameters are from uniform: one panel a hypothesis, one line a parameter.

    The grey band holds the whole line of a sound parameter in 95 % of runs (Kolmogorov-Smirnov).

    Parameters
    ----------
    ranks
        ranks.csv of `calibrate`: one row a simulation, a column a parameter.
    tests
        rank_tests.csv.
    """
    groups = list(ranks.groupby(["hypothesis", "setting"], sort=False))
    figure, axes = new_figure(-(-len(groups) // 4), 4, 1.25 * -(-len(groups) // 4) + 0.7, width=2 * COLUMN, sharex=True)
    grid = np.linspace(0, 1, 101)
    for ax, ((name, setting), own) in zip(axes.flat, groups):
        u = own.drop(columns=["hypothesis", "setting", "faulty"]).dropna(axis=1, how="all")
        half = 1.36 / np.sqrt(len(u))
        ax.fill_between([0, 1], [-half] * 2, [half] * 2, color=FAINT, alpha=0.5, lw=0)
        for column in u:
            difference = (u[column].to_numpy()[:, None] <= grid).mean(0) - grid
            ax.plot(grid, difference, lw=0.7, color=colour_of(name), alpha=0.8)
        control = setting in ("shifted prior", "wrong noise")
        p = tests[(tests.hypothesis == name) & (tests.setting == setting)].p.min()
        words = "" if setting == "sound" else f"\n{'control: ' if control else ''}{setting}"
        ax.set_title(f"{name}{words}", pad=2, color="firebrick" if control else INK, fontsize=7)
        ax.text(0.03, 0.03, f"least p {p:.2g}", transform=ax.transAxes, fontsize=6, color=INK)
        ax.set_ylim(*((-0.6, 0.6) if control else (-0.2, 0.2)))
        ax.set_xticks([0, 0.5, 1])
    for ax in axes.flat[len(groups) :]:
        ax.axis("off")
    across = "rank of the truth in its posterior, as a share of draws"
    return titled(figure, "", across, "cumulative share less uniform")


@styled
def recovery_figure(coverage: pd.DataFrame) -> Figure:
    """Share of 95 % intervals that hold the truth, with binomial 95 % intervals; a row a hypothesis, noise, parameter.

    `coverage` is recovery.csv.
    """
    from statsmodels.stats.proportion import proportion_confint

    names = list(dict.fromkeys(coverage.hypothesis))
    figure, axes = new_figure(1, 1, 0.24 * len(names) + 1.0, width=1.4 * COLUMN)
    ax = axes.flat[0]
    # Over the kinds of noise, where there are several.
    held = coverage.assign(held=(coverage.held * coverage.sims).round())
    held = held.groupby(["hypothesis", "parameter"], sort=False)[["held", "sims"]].sum().reset_index()
    for y, name in enumerate(names[::-1]):
        own = held[held.hypothesis == name]
        for j, row in enumerate(own.itertuples()):
            at = y + 0.35 - 0.7 * (j + 0.5) / len(own)
            low, high = proportion_confint(int(row.held), int(row.sims), 1 - LEVEL, "wilson")
            heavy = row.parameter == "delta" or (name, row.parameter) == ("power", "a")
            ax.plot([low, high], [at, at], color=colour_of(name), lw=1.2 if heavy else 0.6)
            ax.plot(row.held / row.sims, at, "o" if heavy else ".", color=colour_of(name), ms=2.5)
    ax.axvline(LEVEL, color=INK, lw=0.6)
    ax.axvspan(Bounds().coverage_low, Bounds().coverage_high, color=FAINT, alpha=0.3, lw=0)
    ax.set_yticks(range(len(names)), names[::-1])
    ax.set_xlim(LEVEL - 0.15, 1.0)
    ax.set_xlabel(
        f"share of {LEVEL_WORDS} intervals that hold the truth\n"
        f"(heavy: delta and the power law\u2019s a; bars: {LEVEL_WORDS})"
    )
    return figure


@styled
def confusion_figure(confusion: pd.DataFrame) -> Figure:
    """The kind of law selected, and the verdict, by true law: shares of simulations over three kinds of noise.

    `confusion` is confusion.csv.
    """
    own = confusion[~confusion.averaged]
    sizes = sorted(own.n_seqs.unique(), reverse=True)
    truths = list(dict.fromkeys(own.truth))
    figure, axes = new_figure(len(sizes), 2, 1.55 * len(sizes) + 0.4, width=2 * COLUMN)
    columns = {
        "selected_kind": ["constant", "additive", "curved", "change-point"],
        "verdict": KINDS,
    }
    for row, n_seqs in zip(axes, sizes):
        for ax, (column, kinds) in zip(row, columns.items()):
            at = own[own.n_seqs == n_seqs]
            share = pd.crosstab(at.truth, at[column], normalize="index").reindex(
                index=truths, columns=kinds, fill_value=0
            )
            sns.heatmap(
                100 * share, ax=ax, annot=True, fmt=".0f", cbar=False, cmap="Blues", vmin=0, vmax=100, lw=0.5,
                annot_kws={"fontsize": 7},
            )  # fmt: skip
            what = "law selected" if column == "selected_kind" else "verdict on additive"
            ax.set_title(f"{what}, {n_seqs} sequences (%)", loc="left", pad=3)
            ax.set(xlabel="", ylabel="truth" if column == "selected_kind" else "")
            ax.tick_params(axis="x", rotation=20, length=0)
            ax.tick_params(axis="y", rotation=0, length=0)
            if column == "verdict":
                ax.set_yticks([])
    return figure


KINDS = ["no_update", "supported", "supported_under_ceiling", "rejected", "undecided", "refused"]


@styled
def verdicts_figure(verdicts: pd.DataFrame) -> Figure:
    """Which verdicts are given on truths that the model does not assume: shares of simulations, by sequences.

    `verdicts` is verdicts.csv.
    """
    sizes = sorted(verdicts.n_seqs.unique())
    names = [name for name in TRUTHS if name in set(verdicts.truth)][::-1]
    figure, axes = new_figure(1, len(sizes), 0.22 * len(names) + 1.1, width=2 * COLUMN, sharey=True)
    for ax, n_seqs in zip(axes.flat, sizes):
        own = verdicts[verdicts.n_seqs == n_seqs]
        share = pd.crosstab(own.truth, own.verdict, normalize="index").reindex(names).fillna(0)
        left = np.zeros(len(names))
        for kind in (kind for kind in KINDS if kind in share):
            width = 100 * share[kind].to_numpy()
            ax.barh(range(len(names)), width, left=left, color=verdict_colour(kind), alpha=0.6, lw=0, height=0.8)
            left += width
        ax.set_title(f"{n_seqs} sequences", loc="left", pad=3)
        ax.set_yticks(range(len(names)), [TRUTHS[name].words for name in names])
        ax.set_xlim(0, 100)
        ax.tick_params(axis="y", length=0)
    looks = {
        kind.replace("_", " "): {"color": verdict_colour(kind), "alpha": 0.6, "lw": 6}
        for kind in KINDS
        if kind in set(verdicts.verdict)
    }
    legend(figure, looks, ncols=len(looks))
    return titled(figure, "", "share of simulations (%)")


def calibration_figures(folder: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the tables in a folder."""
    ranks, tests, recovery, confusion, verdicts = (
        TABLES[name].read(folder / f"{name}.csv")
        for name in ("ranks", "rank_tests", "recovery", "confusion", "verdicts")
    )
    return {
        "ranks": ranks_figure(ranks, tests),
        "recovery": recovery_figure(recovery),
        "confusion": confusion_figure(confusion),
        **({"verdicts": verdicts_figure(verdicts)} if len(verdicts) else {}),
    }
