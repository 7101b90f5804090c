"""Figures of how laws fit and what their priors say: PITs, noise by shot, curves from the priors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayes_icl.core.intervals import LEVEL_WORDS, TAILS
from bayes_icl.curves import Curves
from bayes_icl.inference.loo_pit import STATISTICS, uniform_band
from bayes_icl.writing import style
from bayes_icl.writing.style import BLUE, FAINT, GREEN, INK, VERMILION, ZERO, colour_of, styled, titled

if TYPE_CHECKING:
    import arviz as az

COLOURS = dict(zip(STATISTICS, (BLUE, VERMILION, GREEN)))


def plot_pits(pit: pd.DataFrame, ax: Axes) -> Axes:
    """Empirical distribution function of PITs less that of uniform values, with the band that holds all of it.

    Parameters
    ----------
    pit
        The rows of one curve and law in pit.csv.
    ax
        Where it is drawn.
    """
    n = int((pit.statistic == pit.statistic.iloc[0]).sum())
    places, low, high = uniform_band(n)
    ax.fill_between(places, low - places, high - places, color=FAINT, alpha=0.5, lw=0, step="mid")
    ax.axhline(0, **ZERO)
    grid = np.linspace(0, 1, 201)
    for statistic, own in pit.groupby("statistic", sort=False):
        share = np.searchsorted(np.sort(own.pit.to_numpy()), grid, side="right") / n
        ax.plot(grid, share - grid, color=COLOURS[statistic], lw=1.0)
    ax.set_xlim(0, 1)
    return ax


@styled
def pit_figure(pit: pd.DataFrame) -> Figure:
    """One panel a task and law: `additive`, and the one selected."""
    groups = list(pit.groupby(["task", "hypothesis"], sort=False))
    figure, axes = style.panels(len(groups), 1.15, 0.8, sharex=True, sharey=True)
    for ax, ((task, law), own) in zip(axes.flat, groups):
        plot_pits(own, ax)
        ax.set_title(f"{task}: {law}", loc="left", pad=3, fontsize=7)
    first = pit.iloc[0]
    title = f"{first.readout}, n \u2265 {first.n_min}; band: {LEVEL_WORDS} of uniform values"
    looks = {name: {"color": colour, "lw": 1.0} for name, colour in COLOURS.items()}
    style.legend(figure, looks, ncols=3, title=title)
    return titled(figure, "", "PIT of a sequence left out", "ECDF less uniform")


@styled
def noise_figure(noise: pd.DataFrame) -> Figure:
    """One panel a task: sd over sequences at each shot, and what the fit of `freeform` expects."""
    tasks = list(noise.groupby("task", sort=False))
    figure, axes = style.panels(len(tasks), 1.15, 0.8, sharex=True)
    for ax, (task, own) in zip(axes.flat, tasks):
        bars = [own.sd - own.sd_low, own.sd_high - own.sd]
        ax.errorbar(own["shot"], own.sd, bars, fmt=".", color=INK, ms=3, lw=0.6)
        ax.fill_between(own["shot"], own.expected_low, own.expected_high, color=BLUE, alpha=0.35, lw=0)
        ax.plot(own["shot"], own.expected, color=BLUE, lw=1.0)
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.set_title(task, loc="left", pad=3, fontsize=7)
    looks = {f"seen, {LEVEL_WORDS}": {"color": INK, "marker": "."}, "expected": {"color": BLUE, "lw": 1.0}}
    first = noise.iloc[0]
    title = f"{first.readout}, n \u2265 {first.n_min}; less mean curve and lines of sequences"
    style.legend(figure, looks, ncols=2, title=title)
    return titled(figure, "", style.EXAMPLES, "sd over sequences (nats)")


def plot_prior(curves: Curves, inference: az.InferenceData, ax: Axes, *, name: str) -> Axes:
    """New sequences from a law's priors, beside the data.

    Parameters
    ----------
    curves
        Those of one task and readout, nats.
    inference
        A fit of the hypothesis `name`.
    ax
        Where it is drawn.
    name
        The hypothesis, which gives the colour.
    """
    new, colour = inference["prior_predictive"]["log_odds"].values.reshape(-1, len(curves.shots)), colour_of(name)
    for low, high in (TAILS, (0.25, 0.75)):
        ax.fill_between(curves.shots, *np.quantile(new, (low, high), axis=0), color=colour, alpha=0.25, lw=0)
    means = inference["prior_predictive"]["mean_log_odds"].values.reshape(-1, len(curves.shots))
    ax.plot(curves.shots, means[:10].T, color=colour, lw=0.5, alpha=0.8)
    ax.plot(curves.shots, np.quantile(curves.log_odds, TAILS, axis=0).T, color=INK, lw=0.6, ls=style.DASHES)
    ax.plot(curves.shots, curves.log_odds.mean(0), color=INK, lw=1.0)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return ax


@styled
def prior_predictive_figure(tasks: Mapping[str, tuple[Curves, Mapping[str, az.InferenceData]]]) -> Figure:
    """One panel a task and law: curves from the priors, in the data's own scale."""
    shown = [(task, name, curves, fit) for task, (curves, fits) in tasks.items() for name, fit in fits.items()]
    figure, axes = style.panels(len(shown), 1.3, 0.9, sharex=True)
    for ax, (task, name, curves, inference) in zip(axes.flat, shown):
        plot_prior(curves, inference, ax, name=name)
        ax.set_title(f"{task}: {name}", loc="left", pad=3, fontsize=7)
    looks = {
        f"priors: 50 and {LEVEL_WORDS} of sequences": {"color": INK, "alpha": 0.25, "lw": 6},
        "mean curves": {"color": INK, "alpha": 0.8, "lw": 0.5},
        f"data: mean, {LEVEL_WORDS} of sequences": {"color": INK, "lw": 1.0},
    }
    curves = shown[0][2]
    title = f"{curves.readout}, n \u2265 {curves.shots[0]:.0f}"
    style.legend(figure, looks, ncols=3 if len(shown) > 1 else 1, title=title)
    return titled(figure, "", style.EXAMPLES, "log-odds L(n) (nats)")
