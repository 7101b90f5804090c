"""Figures for a paper's column: functions that take data and return Axes, and the figures made of them.

Log-odds are in nats; every figure names its readout and n_min. Colours are seaborn's colour-blind palette, one for each
hypothesis in every figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bayes_icl.compare import SLACK_NATS
from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES

if TYPE_CHECKING:
    import arviz as az

COLUMN = 3.5  # inches: a column of a two-column paper
INK, FAINT = "0.15", "0.75"
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,
}

# Matplotlib reads its settings when artists are made, so figures are made whole under them.
_styled = mpl.rc_context(STYLE)  # type: ignore[arg-type]


def colour_of(hypothesis: str) -> tuple[float, float, float]:
    """The colour of a hypothesis in every figure; the less common ones share darker ones."""
    palette = [*sns.color_palette("colorblind"), *sns.color_palette("dark")]
    # Those that stand together in most figures come first.
    order = sorted(HYPOTHESES, key=lambda name: HYPOTHESES[name].in_nats)
    return palette[order.index(hypothesis) % len(palette)]


def shown_hypotheses(verdict: Mapping[str, Any]) -> list[str]:
    """Those that get a panel or line of their own: laws of few parameters, the ceiling, and the one named."""
    return [name for name, h in HYPOTHESES.items() if not h.in_nats or name == verdict["named"]]


def plot_curves(curves: Curves, inference: az.InferenceData, ax: Axes, *, name: str) -> Axes:
    """Log-odds against examples: sequences faint, their mean, and what one hypothesis predicts.

    Parameters
    ----------
    inference
        A fit of the hypothesis `name`: its mean curve gives the line, its replicates the band (95 % of new sequences).
    """
    colour = colour_of(name)
    ax.plot(curves.shots, curves.log_odds.T, color=FAINT, lw=0.3, alpha=0.5, zorder=1, rasterized=True)
    replicates = inference["posterior_predictive"]["log_odds"].stack(sample=("chain", "draw", "seq"))
    low, high = np.quantile(replicates.values, [0.025, 0.975], axis=-1)
    ax.fill_between(curves.shots, low, high, color=colour, alpha=0.25, lw=0, zorder=2)
    mean = inference["posterior_predictive"]["mean_log_odds"].mean(("chain", "draw"))
    ax.plot(curves.shots, mean, color=colour, lw=1.4, zorder=3)
    ax.plot(curves.shots, curves.log_odds.mean(0), ".", color=INK, ms=2.5, zorder=4)
    ax.set_title(name, color=colour, fontweight="bold", pad=2)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return ax


def plot_updates(curves: Curves, inferences: Mapping[str, az.InferenceData], ax: Axes, *, named: str | None) -> Axes:
    """Mean update L(n) - L(n-1) against n with 95 % intervals, and what `additive` and the named hypothesis predict."""
    updates = np.diff(curves.log_odds, axis=1)
    se = updates.std(0, ddof=1) / np.sqrt(len(updates))
    n = curves.shots[1:]
    ax.axhline(0, color=FAINT, lw=0.6, zorder=0)
    ax.errorbar(n, updates.mean(0), 1.96 * se, fmt=".", color=INK, ms=3, lw=0.6, zorder=3, label="data, 95 % interval")
    if "additive" in inferences:
        delta = inferences["additive"]["posterior"]["delta"].values
        low, high = np.quantile(delta, [0.025, 0.975])
        ax.axhspan(low, high, color=colour_of("additive"), alpha=0.3, lw=0, zorder=1)
        ax.axhline(delta.mean(), color=colour_of("additive"), lw=1.2, zorder=2, label="additive: constant delta")
    if named and named in inferences and named not in ("additive", "constant"):
        mean = inferences[named]["posterior_predictive"]["mean_log_odds"].mean(("chain", "draw"))
        ax.plot(n, np.diff(mean), color=colour_of(named), lw=1.2, zorder=2, label=named)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.35 * (top - bottom))  # room for the legend above the data
    ax.legend(loc="upper right", handlelength=1.2, borderaxespad=0.2, ncols=2, columnspacing=1)
    return ax


def plot_delta(inference: az.InferenceData, ax: Axes, *, at: float, height: float = 0.75) -> Axes:
    """The posterior density of delta under `additive` as a ridge at `at`, with its mean and 95 % interval."""
    import arviz as az

    delta = inference["posterior"]["delta"].values.ravel()
    low, high = az.hdi(delta, hdi_prob=0.95)
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
    """
    table = table.sort_values("elpd_diff").reset_index(drop=True)
    for y, row in table.iterrows():
        for column, se, offset, face in (("elpd_diff", "diff_se", 0.13, None), ("lfo_diff", "lfo_diff_se", -0.13, "w")):
            colour = colour_of(row.hypothesis)
            if np.isfinite(row[column]):
                ax.errorbar(
                    *(row[column], y + offset),
                    xerr=2 * row[se],
                    fmt="o",
                    ms=3.5,
                    lw=0.9,
                    color=colour,
                    markerfacecolor=face or colour,
                )
    ax.axvspan(-SLACK_NATS, 0, color=FAINT, alpha=0.4, lw=0, zorder=0)
    ax.axvline(0, color=FAINT, lw=0.6, zorder=0)
    ax.set_xscale("symlog", linthresh=10, linscale=0.7)
    ax.set_yticks(range(len(table)), [h + (" (ceiling)" if HYPOTHESES[h].ceiling else "") for h in table.hypothesis])
    for tick, survives in zip(ax.get_yticklabels(), table.survivor):
        tick.set_fontweight("bold" if survives else "normal")
    return ax


@_styled
def curves_figure(curves: Curves, inferences: Mapping[str, az.InferenceData]) -> Figure:
    """One panel a hypothesis, with the same data in each."""
    names = [name for name in HYPOTHESES if name in inferences]
    rows = (len(names) + 1) // 2
    figure, axes = _figure(rows, 2, 1.25 * rows + 0.6, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, names):
        plot_curves(curves, inferences[name], ax, name=name)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    figure.suptitle(_title(curves) + "\ndots: mean; grey: sequences; colour: fit, 95 % of sequences", fontsize=8)
    figure.supxlabel("examples shown, n", fontsize=8)
    figure.supylabel("log-odds of the correct answer L(n) (nats)", fontsize=8)
    return figure


@_styled
def updates_figure(
    tasks: Mapping[str, tuple[Curves, Mapping[str, az.InferenceData]]], verdicts: Mapping[str, dict]
) -> Figure:
    """One panel a task."""
    figure, axes = _figure(len(tasks), 1, 1.5 * len(tasks) + 0.5, sharex=True)
    for ax, (task, (curves, inferences)) in zip(axes.flat, tasks.items()):
        plot_updates(curves, inferences, ax, named=verdicts[task]["named"])
        ax.set_title(f"{_title(curves)}: additive {verdicts[task]['verdict']}", loc="left", pad=3)
    figure.supxlabel("examples shown, n", fontsize=8)
    figure.supylabel("update L(n) \u2212 L(n\u22121) (nats)", fontsize=8)
    return figure


@_styled
def comparison_figure(table: pd.DataFrame, shown: Sequence[Curves]) -> Figure:
    """One panel a task; hypotheses in bold survive when a sequence is left out."""
    figure, axes = _figure(len(shown), 1, 1.75 * len(shown) + 0.6, sharex=True)
    for ax, curves in zip(axes.flat, shown):
        at = (table.task == curves.task) & (table.readout == curves.readout) & (table.n_min == curves.shots[0])
        plot_comparison(table[at], ax)
        ax.set_title(_title(curves), loc="left", pad=3)
    filled, hollow = (Line2D([], [], marker="o", ms=3.5, lw=0.9, color=INK, markerfacecolor=c) for c in (INK, "w"))
    figure.legend([filled, hollow], ["sequence left out", "future left out"], loc="outside upper center", ncols=2)
    figure.supxlabel("elpd below the best (nats), \u00b1 2 SE", fontsize=8)
    return figure


@_styled
def delta_figure(
    inferences: Mapping[str, az.InferenceData], verdicts: Mapping[str, dict], pooled: Mapping[str, Any] | None = None
) -> Figure:
    """A ridge a task, with the verdict on the hypothesis under which delta is one number; below, delta over tasks.

    Parameters
    ----------
    pooled
        The content of pooled.json: what partial pooling makes of the tasks (open diamonds) and of their mean.
    """
    figure, axes = _figure(1, 1, 0.5 * (len(inferences) + bool(pooled)) + 0.9)
    ax = axes.flat[0]
    names = list(inferences)[::-1]
    labels = [f"{name}\n{verdicts[name]['verdict']}" for name in names]
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
    ax.set_yticks(ticks, (["mean of tasks\n(thin: a new one)"] if pooled else []) + labels)
    ax.axvline(0, color=INK, lw=0.6, ls=":")
    ax.set_ylim(-1.4 if pooled else -0.3, len(names))
    ax.set_xlabel("delta under additive (nats per example)")
    first = verdicts[names[0]]
    title = f"{first['readout']}, n \u2265 {first['n_min']}; bars: 95 %" + ("; diamonds: pooled" if pooled else "")
    ax.set_title(title, loc="left")
    return figure


VERDICT_COLOURS = {"supported": 2, "rejected": 3, "no_update": 7, "undecided": 1, "refused": 8}


@_styled
def sensitivity_figure(table: pd.DataFrame) -> Figure:
    """The verdict on every task (rows) under every setting (columns), with the law that is named.

    Parameters
    ----------
    table
        sensitivity.csv.
    """
    palette = sns.color_palette("colorblind")
    headline = table[table.headline].set_index("task")

    def setting(row: Any) -> str:
        own = headline.loc[row.task]
        if row.priors != "stated":
            return f"priors\n{row.priors}"
        if row.noise != own.noise:
            return f"{row.noise}\nnoise"
        return f"{row.readout}\nn \u2265 {row.n_min}"

    table = table.assign(setting=[setting(row) for row in table.itertuples()])
    tasks, settings = list(dict.fromkeys(table.task)), list(dict.fromkeys(table.setting))
    figure, axes = _figure(1, 1, 0.34 * len(tasks) + 1.1, width=2 * COLUMN)
    ax = axes.flat[0]
    for row in table.itertuples():
        x, y = settings.index(row.setting), len(tasks) - 1 - tasks.index(row.task)
        colour = palette[VERDICT_COLOURS[row.verdict]]
        ax.add_patch(Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, color=colour, alpha=0.35, lw=0))
        named = row.named if isinstance(row.named, str) else ""
        ax.text(x, y, f"{row.verdict}\n{named}", ha="center", va="center", fontsize=6, color=INK)
    ax.set_xticks(range(len(settings)), settings)
    ax.set_yticks(range(len(tasks)), tasks[::-1])
    ax.set_xlim(-0.5, len(settings) - 0.5)
    ax.set_ylim(-0.5, len(tasks) - 0.5)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.xaxis.tick_top()
    ax.set_title("verdict on the additive update, and the simplest law that survives", loc="left", pad=4)
    return figure


def _figure(
    rows: int, columns: int, height: float, *, width: float = COLUMN, **shared: Any
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _title(curves: Curves) -> str:
    return f"{curves.task} ({curves.readout}, n \u2265 {curves.shots[0]:.0f})"
