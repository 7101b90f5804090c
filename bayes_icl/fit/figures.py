"""Figures of `fit`: curves with fitted laws, updates, delta, comparison, sensitivity."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL, LEVEL_WORDS, TAILS, t_interval
from bayes_icl.curves import Curves, consecutive, select
from bayes_icl.fit.adequacy_figures import noise_figure, pit_figure, prior_predictive_figure
from bayes_icl.fit.outputs import COMPARISON, NOISE, PIT, SENSITIVITY, fit_file, read_verdicts
from bayes_icl.fit.weighing_figures import weighing_figures
from bayes_icl.hypotheses.law import HYPOTHESES, label_of
from bayes_icl.inference.survival import SLACK_NATS
from bayes_icl.writing import style
from bayes_icl.writing.style import INK, ZERO, colour_of, styled, titled

if TYPE_CHECKING:
    import arviz as az


def shown_hypotheses(verdict: Mapping[str, Any]) -> list[str]:
    """Those that get a panel or line of their own: laws of few parameters, the free mean, and the one selected."""
    shown = [name for name, h in HYPOTHESES.items() if not h.in_nats or name == verdict["selected"]]
    return list(dict.fromkeys([*shown, verdict["selected"]])) if verdict["selected"] else shown


def plot_curves(curves: Curves, inference: az.InferenceData, ax: Axes, *, name: str) -> Axes:
    """Log-odds against examples: sequences faint, their mean, and what one hypothesis predicts.

    Parameters
    ----------
    curves
        Those of one task and readout, nats.
    inference
        A fit of the hypothesis `name`: its mean curve gives the line, its replicates the band, for new sequences.
    ax
        Where it is drawn.
    name
        The hypothesis, which gives the colour.
    """
    colour = colour_of(name)
    ax.plot(curves.shots, curves.log_odds.T, color=style.FAINT, lw=0.3, alpha=0.5, zorder=1, rasterized=True)
    replicates = inference["posterior_predictive"]["log_odds"].stack(sample=("chain", "draw", "seq"))
    low, high = np.quantile(replicates.values, TAILS, axis=-1)
    ax.fill_between(curves.shots, low, high, color=colour, alpha=0.25, lw=0, zorder=2)
    mean = inference["posterior_predictive"]["mean_log_odds"].mean(("chain", "draw"))
    ax.plot(curves.shots, mean, color=colour, lw=1.4, zorder=3)
    ax.plot(curves.shots, curves.log_odds.mean(0), ".", color=INK, ms=2.5, zorder=4)
    ax.set_title(name, color=colour, fontweight="bold", pad=2)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return ax


def plot_updates(curves: Curves, inferences: Mapping[str, az.InferenceData], ax: Axes, *, named: str | None) -> Axes:
    """Mean update per example against n with t-intervals, and what `additive` and the selected hypothesis predict."""
    n, steps = curves.shots[1:], np.diff(curves.shots)
    mean, low, high = t_interval(np.diff(curves.log_odds, axis=1) / steps)
    ax.axhline(0, **ZERO)
    bars, label = [mean - low, high - mean], f"data, {LEVEL_WORDS} interval"
    ax.errorbar(n, mean, bars, fmt=".", color=INK, ms=3, lw=0.6, zorder=3, label=label)
    if "additive" in inferences:
        delta = inferences["additive"]["posterior"]["delta"].values
        ax.axhspan(*np.quantile(delta, TAILS), color=colour_of("additive"), alpha=0.3, lw=0, zorder=1)
        ax.axhline(delta.mean(), color=colour_of("additive"), lw=1.2, zorder=2, label="additive: constant delta")
    if named and named in inferences and named not in ("additive", "constant"):
        fitted = inferences[named]["posterior_predictive"]["mean_log_odds"].mean(("chain", "draw"))
        ax.plot(n, np.diff(fitted) / steps, color=colour_of(named), lw=1.2, zorder=2, label=named)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.35 * (top - bottom))  # room for the legend above the data
    ax.legend(loc="upper right", handlelength=1.2, borderaxespad=0.2, ncols=2, columnspacing=1)
    return ax


def plot_delta(inference: az.InferenceData, ax: Axes, *, at: float, height: float = 0.75) -> Axes:
    """The posterior density of delta, the slope of the best line, as a ridge at `at`, with its mean and interval."""
    import arviz as az

    delta = inference["posterior"]["delta"].values.ravel()
    low, high = az.hdi(delta, hdi_prob=LEVEL)
    grid, density = az.kde(delta)
    colour = colour_of("additive")
    ax.fill_between(grid, at, at + height * density / density.max(), color=colour, alpha=0.35, lw=0)
    ax.plot([low, high], [at, at], color=colour, lw=2, solid_capstyle="butt")
    ax.plot(delta.mean(), at, "o", color=INK, ms=3)
    return ax


def plot_comparison(table: pd.DataFrame, ax: Axes) -> Axes:
    """How far each hypothesis is below the best, with 2 SE: filled, a sequence left out; open, the future left out.

    Parameters
    ----------
    table
        The rows of one curve in `comparison.csv`.
    ax
        Where it is drawn.
    """
    table = table.sort_values("elpd_diff").reset_index(drop=True)
    for y, row in table.iterrows():
        for column, se, offset, face in (("elpd_diff", "diff_se", 0.13, None), ("lfo_diff", "lfo_diff_se", -0.13, "w")):
            colour = colour_of(row.hypothesis)
            if np.isfinite(row[column]):
                look: dict[str, Any] = {"fmt": "o", "ms": 3.5, "lw": 0.9, "color": colour}
                ax.errorbar(row[column], y + offset, xerr=2 * row[se], markerfacecolor=face or colour, **look)
    ax.axvspan(-SLACK_NATS, 0, color=style.FAINT, alpha=0.4, lw=0, zorder=0)
    ax.axvline(0, **ZERO)
    ax.set_xscale("symlog", linthresh=10, linscale=0.7)
    ax.set_yticks(range(len(table)), [label_of(name) for name in table.hypothesis])
    for tick, survives in zip(ax.get_yticklabels(), table.survivor):
        tick.set_fontweight("bold" if survives else "normal")
    return ax


@styled
def curves_figure(curves: Curves, inferences: Mapping[str, az.InferenceData]) -> Figure:
    """One panel a hypothesis, with the same data in each."""
    names = sorted(inferences, key=lambda name: list(HYPOTHESES).index(name) if name in HYPOTHESES else len(HYPOTHESES))
    rows = (len(names) + 1) // 2
    figure, axes = style.new_figure(rows, 2, 1.25 * rows + 0.6, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, names):
        plot_curves(curves, inferences[name], ax, name=name)
    style.hide_unused(axes, len(names))
    title = f"{style.title_of_curves(curves)}\ndots: mean; grey: sequences; colour: fit, {LEVEL_WORDS} of sequences"
    return titled(figure, title, style.EXAMPLES, "log-odds of the correct answer L(n) (nats)")


@styled
def updates_figure(
    tasks: Mapping[str, tuple[Curves, Mapping[str, az.InferenceData]]], verdicts: Mapping[str, dict]
) -> Figure:
    """One panel a task."""
    figure, axes = style.new_figure(len(tasks), 1, 1.5 * len(tasks) + 0.5, sharex=True)
    for ax, (task, (curves, inferences)) in zip(axes.flat, tasks.items()):
        plot_updates(curves, inferences, ax, named=verdicts[task]["selected"])
        title = f"{style.title_of_curves(curves)}:\nadditive {verdicts[task]['verdict'].replace('_', ' ')}"
        ax.set_title(title, loc="left", pad=3, fontsize=7)
    even = all(consecutive(curves.shots) for curves, _ in tasks.values())
    update = "update L(n) \u2212 L(n\u22121) (nats)" if even else "update since the shot before (nats per example)"
    return titled(figure, "", style.EXAMPLES, update)


def rows_of(table: pd.DataFrame, curves: Curves) -> pd.DataFrame:
    """The rows of one curve in `comparison.csv`."""
    at = (table.task == curves.task) & (table.readout == curves.readout) & (table.n_min == curves.shots[0])
    return table[at]


def plot_departure(curves: Curves, verdict: Mapping[str, Any], ax: Axes) -> Axes:
    """The mean curve, its best line, and the band in which a curve is straight for practical purposes.

    Parameters
    ----------
    curves
        Those of one task and readout, nats.
    verdict
        Its entry of verdict.json.
    ax
        Where it is drawn.
    """
    own, colour = verdict["mean_curve"], colour_of("additive")
    n, line, level = np.array(own["shots"]), np.array(own["line"]), curves.log_odds.mean()
    reach = verdict["departure"]["margin"] * abs(verdict["total"]["mean"])
    ax.fill_between(n, level + line - reach, level + line + reach, color=colour, alpha=0.25, lw=0)
    ax.plot(n, level + line, color=colour, lw=1.0)
    low, high = (level + np.array(own[name]) for name in ("low", "high"))
    ax.fill_between(n, low, high, color=INK, alpha=0.25, lw=0)
    ax.plot(n, level + np.array(own["mean"]), color=INK, lw=1.0)
    ax.plot(n, curves.log_odds.mean(0), ".", color=INK, ms=2.5)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return ax


@styled
def departure_figure(tasks: Mapping[str, Curves], verdicts: Mapping[str, dict]) -> Figure:
    """One panel a task: how far the mean curve is from a line."""
    rows = (len(tasks) + 1) // 2
    figure, axes = style.new_figure(rows, 2, 1.45 * rows + 0.7, sharex=True)
    for ax, (task, curves) in zip(axes.flat, tasks.items()):
        plot_departure(curves, verdicts[task], ax)
        departure = verdicts[task]["departure"]
        share = f"{100 * departure['mean']:.1f} [{100 * departure['low']:.1f}, {100 * departure['high']:.1f}] % off"
        word = verdicts[task]["verdict"].replace("_", " ")
        ax.set_title(f"{task}: {word}\n{share}", loc="left", pad=3, fontsize=7)
    style.hide_unused(axes, len(tasks))
    colour = colour_of("additive")
    margin = 100 * next(iter(verdicts[task]["departure"]["margin"] for task in tasks))
    looks = {
        f"straight: within {margin:g} %": {"color": colour, "alpha": 0.25, "lw": 6},
        "best line": {"color": colour, "lw": 1.0},
        f"mean curve, {LEVEL_WORDS}": {"color": INK, "lw": 1.0},
    }
    first = next(iter(tasks.values()))
    title = f"{first.readout}, n \u2265 {first.shots[0]:.0f}; dots: mean over sequences"
    style.legend(figure, looks, ncols=2, title=title)
    return titled(figure, "", style.EXAMPLES, "log-odds L(n) (nats)")


@styled
def comparison_figure(table: pd.DataFrame, shown: Sequence[Curves]) -> Figure:
    """One panel a task; hypotheses in bold survive when a sequence is left out."""
    own = [rows_of(table, curves) for curves in shown]
    heights = [max(0.13 * len(rows) + 0.3, 0.8) for rows in own]
    figure, axes = style.new_figure(len(shown), 1, sum(heights) + 0.6, sharex=True, height_ratios=heights)
    for ax, curves, rows in zip(axes.flat, shown, own):
        plot_comparison(rows, ax)
        ax.set_title(style.title_of_curves(curves), loc="left", pad=3)
    faces = {"sequence left out": INK, "future left out": "w"}
    look = {"marker": "o", "ms": 3.5, "lw": 0.9, "color": INK}
    style.legend(figure, {words: look | {"markerfacecolor": face} for words, face in faces.items()}, ncols=2)
    return titled(figure, "", "elpd below the best (nats), \u00b1 2 SE")


@styled
def delta_figure(
    inferences: Mapping[str, az.InferenceData], verdicts: Mapping[str, dict], pooled: Mapping[str, Any] | None = None
) -> Figure:
    """A ridge a task, with the verdict on the hypothesis under which delta is one number; below, delta over tasks.

    Parameters
    ----------
    inferences
        Fits of `freeform`, by task.
    verdicts
        verdict.json, by task.
    pooled
        The content of pooled.json: what partial pooling makes of the tasks (open diamonds) and of their mean.
    """
    figure, axes = style.new_figure(1, 1, 0.5 * (len(inferences) + bool(pooled)) + 0.9)
    ax = axes.flat[0]
    names = list(inferences)[::-1]
    labels = [f"{name}\n{in_lines(verdicts[name]['verdict'])}" for name in names]
    for at, name in enumerate(names):
        plot_delta(inferences[name], ax, at=at)
        if pooled and name in pooled["deltas"]:
            mean, low, high = pooled["deltas"][name]
            ax.plot([low, high], [at - 0.14] * 2, color=INK, lw=0.8)
            ax.plot(mean, at - 0.14, "D", color=INK, markerfacecolor="w", ms=3)
    if pooled:
        for name, lw in (("new_task", 0.8), ("mu", 2.0)):
            mean, low, high = pooled[name]
            ax.plot([low, high], [-1, -1], color=INK, lw=lw, solid_capstyle="butt")
        ax.plot(pooled["mu"][0], -1, "D", color=INK, ms=3)
    ticks = ([-1] if pooled else []) + list(range(len(names)))
    of = pooled and (f"{len(f)} families" if (f := pooled.get("families")) else f"{len(pooled['deltas'])} tasks")
    ax.set_yticks(ticks, ([f"mean of {of}\n(thin: a new one)"] if pooled else []) + labels)
    ax.axvline(0, color=INK, lw=0.6, ls=":")
    ax.set_ylim(-1.4 if pooled else -0.3, len(names))
    ax.set_xlabel("delta (nats per example)")
    first = verdicts[names[0]]
    pooling = "; diamonds: pooled" if pooled else ""
    # Over the labels too: it may be wider than the axes.
    return titled(figure, f"{first['readout']}, n \u2265 {first['n_min']}; bars: {LEVEL_WORDS}{pooling}")


def in_lines(verdict: str) -> str:
    """A verdict in words, the longest in two lines."""
    return verdict.replace("supported_under_ceiling", "supported\nunder ceiling").replace("_", " ")


@styled
def sensitivity_figure(table: pd.DataFrame) -> Figure:
    """The verdict on every task (rows) under every setting (columns), with the law that is selected.

    `table` is sensitivity.csv.
    """
    headline = table[table.headline].set_index("task")

    def setting(row: Any) -> str:
        own = headline.loc[row.task]
        if row.noise != own.noise:
            return f"{row.noise}\nnoise"
        return f"{row.readout}\nn \u2265 {row.n_min}"

    table = table.assign(setting=[setting(row) for row in table.itertuples()])
    tasks, settings = list(dict.fromkeys(table.task)), list(dict.fromkeys(table.setting))
    figure, axes = style.new_figure(1, 1, 0.34 * len(tasks) + 1.1, width=2 * style.COLUMN)
    ax = axes.flat[0]
    for row in table.itertuples():
        x, y = settings.index(row.setting), len(tasks) - 1 - tasks.index(row.task)
        colour = style.verdict_colour(row.verdict)
        ax.add_patch(Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, color=colour, alpha=0.35, lw=0))
        named = row.selected if isinstance(row.selected, str) else ""
        ax.text(x, y, f"{in_lines(row.verdict)}\n{named}", ha="center", va="center", fontsize=6, color=INK)
    ax.set_xticks(range(len(settings)), settings)
    ax.set_yticks(range(len(tasks)), tasks[::-1])
    ax.set_xlim(-0.5, len(settings) - 0.5)
    ax.set_ylim(-0.5, len(tasks) - 0.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    for tick, name in zip(ax.get_xticklabels(), settings):
        tick.set_fontweight("bold" if table.headline[table.setting == name].any() else "normal")
    ax.set_title(
        "verdict on the additive update, and the simplest law that survives; bold: the headline", loc="left", pad=4
    )
    return figure


def fit_figures(dataset: xr.Dataset, out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the curves and the folder of the fits."""
    import arviz as az

    verdicts = read_verdicts(out)
    shown = {
        task: select(dataset, task, verdict["readout"]).since(verdict["n_min"]) for task, verdict in verdicts.items()
    }
    inferences = {
        task: {
            name: az.from_netcdf(str(out / fit_file(task, name)))
            for name in shown_hypotheses(verdicts[task])
            if (out / fit_file(task, name)).exists()
        }
        for task in shown
    }
    fitted = {task: own for task, own in inferences.items() if own}
    drawn = {f"curves_{task}": curves_figure(shown[task], own) for task, own in fitted.items()}
    table = COMPARISON.read(out / "comparison.csv")
    # Those of the headlines; there may be no law among them that gets a panel.
    if scored := [c for c in shown.values() if len(rows_of(table, c))]:
        drawn["comparison"] = comparison_figure(table, scored)
    if fitted:
        drawn["updates"] = updates_figure({task: (shown[task], own) for task, own in fitted.items()}, verdicts)
        means = {task: own["freeform"] for task, own in fitted.items() if "freeform" in own}
        if means:
            drawn["delta"] = delta_figure(means, verdicts, _pooled(out))
    if judged := {task: c for task, c in shown.items() if verdicts[task].get("mean_curve")}:
        drawn["departure"] = departure_figure(judged, verdicts)
    drawn |= _adequacy_figures(out, fitted, shown, verdicts)
    drawn |= weighing_figures(dataset, verdicts)
    if any(len(verdict["others"]) for verdict in verdicts.values()):
        drawn["sensitivity"] = sensitivity_figure(SENSITIVITY.read(out / "sensitivity.csv"))
    return {file_name(name): figure for name, figure in drawn.items()}


def _adequacy_figures(
    out: Path,
    fitted: Mapping[str, Mapping[str, az.InferenceData]],
    shown: Mapping[str, Curves],
    verdicts: Mapping[str, dict],
) -> dict[str, Figure]:
    """How laws fit, and what their priors say."""
    drawn = {}
    for name, table, draw in (("pit", PIT, pit_figure), ("noise", NOISE, noise_figure)):
        if len(rows := table.read(out / f"{name}.csv")):
            drawn[name] = draw(rows)
    asked = {
        task: {name: own[name] for name in dict.fromkeys(("additive", verdicts[task]["selected"])) if name in own}
        for task, own in fitted.items()
    }
    if priors := {task: (shown[task], own) for task, own in asked.items() if own}:
        drawn["prior_predictive"] = prior_predictive_figure(priors)
    return drawn


def _pooled(out: Path) -> dict | None:
    path = out / "pooled.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    return content if "mu" in content else None
