"""Figures of the second verdict: log-odds around a switch, weights over lags, order, prior and evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayes_icl.core.intervals import LEVEL_WORDS, t_interval
from bayes_icl.curves import Curves, select
from bayes_icl.inference.histories import past_of
from bayes_icl.writing import style
from bayes_icl.writing.style import BLUE, INK, VERMILION, ZERO, styled, titled

MOST_PANELS = 12

GROUPS = 12  # of readings that have nearly the same evidence


def plot_evidence(curves: Curves, verdict: Mapping[str, Any], ax: Axes) -> bool:
    """Log-odds against n, where all sequences were shown the same; else against what the observer would say.

    Parameters
    ----------
    curves
        Of one task and readout, nats.
    verdict
        Its second verdict.
    ax
        Where it is drawn.

    Returns
    -------
    bool
        Whether it is against n.
    """
    history = curves.history
    together = history is not None and curves.single is None and bool((history == history[:1]).all())
    if together:
        return _plot_against_n(curves, verdict, ax)
    past = past_of(curves)
    known = curves.observer is not None
    evidence = (past.of_observer if known else past.signed).reshape(curves.log_odds.shape)
    odds = curves.log_odds
    if curves.single is None:  # each sequence at a level of its own
        odds = odds - (odds.mean(1) - evidence.mean(1) * (verdict["weight"] or {"mean": 0})["mean"])[:, None]
    edges = np.unique(np.quantile(evidence, np.linspace(0, 1, GROUPS + 1)))
    at = np.clip(np.searchsorted(edges, evidence.ravel(), side="right") - 1, 0, max(len(edges) - 2, 0))
    for group in np.unique(at):
        own = odds.ravel()[at == group]
        mean, low, high = t_interval(own)
        look: dict[str, Any] = {"fmt": "o", "ms": 3, "lw": 0.9, "color": INK}
        ax.errorbar(evidence.ravel()[at == group].mean(), mean, [[mean - low], [high - mean]], **look)
    if known:
        ends = np.array([evidence.min(), evidence.max()])
        middle = odds.mean() - (verdict["weight"] or {"mean": 1})["mean"] * evidence.mean()
        ax.plot(ends, middle + ends, color=BLUE, lw=1.0, label="ideal: weight 1")
        if verdict["weight"]:
            three = [verdict["weight"][name] for name in ("mean", "low", "high")]
            words = "weight {:.2f} [{:.2f}, {:.2f}]".format(*three)
            ax.plot(ends, middle + three[0] * ends, color=VERMILION, lw=1.0, ls="--", label=words)
        ax.legend(loc="upper left", handlelength=1.4, borderaxespad=0.2)
    ax.set_xlabel("ideal observer's log-odds (nats)" if known else "examples for, less those against")
    return False


def _plot_against_n(curves: Curves, verdict: Mapping[str, Any], ax: Axes) -> bool:
    mean, low, high = t_interval(curves.log_odds)
    n = curves.shots
    ax.fill_between(n, low, high, color=INK, alpha=0.2, lw=0)
    ax.plot(n, mean, color=INK, lw=1.2, label=f"model, mean and {LEVEL_WORDS}")
    if curves.observer is not None:
        observer = curves.observer.mean(0)
        ax.plot(n, observer - observer.mean() + mean.mean(), color=BLUE, lw=1.0, ls="--", label="ideal observer")
    assert curves.history is not None
    turns = np.flatnonzero(np.diff(curves.history[0, : int(n[-1])])) + 1
    for i, turn in enumerate(turns if len(turns) <= 4 else []):
        ax.axvline(float(turn), color=VERMILION, lw=0.8, ls=":", label="examples change sides" if i == 0 else None)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.4 * (top - bottom))
    ax.legend(loc="upper left", handlelength=1.4, borderaxespad=0.2, ncols=2, columnspacing=1)
    ax.set_xlabel(style.EXAMPLES)
    return True


@styled
def evidence_figure(shown: Mapping[str, Curves], verdicts: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel a task: what the model makes of evidence, beside an ideal observer."""
    names = list(shown)[:MOST_PANELS]
    figure, axes = style.panels(len(names), 1.9, 0.4)
    for ax, name in zip(axes.flat, names):
        plot_evidence(shown[name], verdicts[name], ax)
        _named(ax, name, verdicts[name])
    return titled(figure, "", "", "log-odds for rule A (nats)")


@styled
def kernel_figure(verdicts: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel a task: the weight of an example by how many were shown since, beside the observer's."""
    names = [name for name, own in verdicts.items() if own["kernel"]][:MOST_PANELS]
    figure, axes = style.panels(len(names), 1.5, 0.6)
    for ax, name in zip(axes.flat, names):
        own = verdicts[name]["kernel"]["weights"]
        lag, mean = np.array(own["lag"]), np.array(own["mean"])
        ax.axhline(0, **ZERO)
        ax.fill_between(lag, own["low"], own["high"], step="mid", color=INK, alpha=0.2, lw=0)
        ax.step(lag, mean, where="mid", color=INK, lw=1.2)
        if "observer" in own:
            ax.step(lag, own["observer"], where="mid", color=BLUE, lw=1.0, ls="--")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        _named(ax, name, verdicts[name])
    look = {f"model, mean and {LEVEL_WORDS}": {"color": INK}, "ideal observer": {"color": BLUE, "ls": "--"}}
    style.legend(figure, look, ncols=2)
    return titled(figure, "", "examples ago (1: the last before the query)", "weight of an example (nats)")


@styled
def orders_figure(verdicts: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The sd over orders of the same examples, by number of examples, with its interval over sets."""
    names = list(verdicts)
    figure, axes = style.panels(len(names), 1.5, 0.4)
    for ax, name in zip(axes.flat, names):
        share = verdicts[name]["order_share"]
        n = [row["n"] for row in share["by_n"]]
        mean, low, high = (np.array([row[key] for row in share["by_n"]]) for key in ("mean", "low", "high"))
        ax.axhline(0, **ZERO)
        ax.errorbar(n, mean, [mean - low, high - mean], fmt="o", ms=3, lw=0.9, color=INK)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        words = "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * share[key] for key in ("mean", "low", "high")))
        ax.set_title(f"{name}: {words} of all variance", loc="left", pad=3, fontsize=7)
    return titled(figure, "", style.EXAMPLES, "variance between orders (nats\u00b2)")


@styled
def prior_figure(dataset: xr.Dataset, verdicts: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel a task: log-odds with and without the text before the examples."""
    names = list(verdicts)
    figure, axes = style.panels(len(names), 1.7, 0.6)
    for ax, name in zip(axes.flat, names):
        own = verdicts[name]
        for task, colour in ((own["prior_shift"]["plain"], INK), (name, VERMILION)):
            curves = select(dataset, task, own["readout"])
            mean, low, high = t_interval(curves.log_odds)
            ax.fill_between(curves.shots, low, high, color=colour, alpha=0.2, lw=0)
            ax.plot(curves.shots, mean, color=colour, lw=1.1)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        shift = own["prior_shift"]
        words = f"shift {shift['first']['mean']:+.1f} nats at first, {shift['last']['mean']:+.1f} at last"
        ax.set_title(f"{shift['plain']}\n{words}", loc="left", pad=3, fontsize=7)
    look = {"examples alone": {"color": INK}, "text before them": {"color": VERMILION}}
    style.legend(figure, look, ncols=2)
    return titled(figure, "", style.EXAMPLES, "log-odds for rule A (nats)")


def _named(ax: Axes, name: str, verdict: Mapping[str, Any]) -> None:
    ax.set_title(f"{name} ({verdict['readout']}):\n{verdict['verdict']}", loc="left", pad=3, fontsize=7)


def weighing_figures(dataset: xr.Dataset, verdicts: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """The figures of the second verdict, by name: those that there is something for.

    Parameters
    ----------
    dataset
        The curves.
    verdicts
        verdict.json.
    """
    own = {task: v["bayesian"] for task, v in verdicts.items() if v.get("bayesian")}
    drawn: dict[str, Figure] = {}
    judged = {task: v for task, v in own.items() if v["kernel"] or v["weight"]}
    if judged:
        shown = {task: select(dataset, task, v["readout"]).since(v["n_min"]) for task, v in judged.items()}
        drawn["evidence"] = evidence_figure(shown, judged)
    if any(v["kernel"] for v in own.values()):
        drawn["kernel"] = kernel_figure(own)
    for name, figure in (("order_share", orders_figure), ("prior_shift", lambda found: prior_figure(dataset, found))):
        if found := {task: v for task, v in own.items() if v.get(name)}:
            drawn[{"order_share": "orders", "prior_shift": "prior"}[name]] = figure(found)
    return drawn


def drawn_names(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the figures that verdicts have something for."""
    own = [v["bayesian"] for v in verdicts if v.get("bayesian")]
    there = {
        "evidence": any(v["kernel"] or v["weight"] for v in own),
        "kernel": any(v["kernel"] for v in own),
        "orders": any(v.get("order_share") for v in own),
        "prior": any(v.get("prior_shift") for v in own),
    }
    return [name for name, is_there in there.items() if is_there]
