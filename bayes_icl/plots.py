"""Figures for a paper's column: functions that take data and return Axes, and the figures made of them.

Log-odds are in nats; every figure names its readout and n_min. Colours are seaborn's colour-blind palette, one for each
hypothesis in every figure, less those too pale for words and thin lines on white.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
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
from bayes_icl.curves import Curves, replacing
from bayes_icl.hypotheses import HYPOTHESES, Hypothesis, label_of

if TYPE_CHECKING:
    import arviz as az

COLUMN = 3.5  # inches: a column of a two-column paper
INK, FAINT = "0.15", "0.75"
STYLE = {
    "text.parse_math": False,  # a task may be called after a price
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
    """The colour of a hypothesis in every figure; the less common ones have darker ones."""
    light, dark = sns.color_palette("colorblind"), sns.color_palette("dark")
    palette = [*(light[i] for i in (0, 1, 2, 3, 4, 5, 9, 7)), *(dark[i] for i in (4, 0, 1, 2, 3, 9, 6, 8, 5, 7))]

    def place(name: str) -> tuple[bool, bool]:
        """Those that stand together in most figures come first, and a user's own last, so that they move no other."""
        h = HYPOTHESES[name]
        return h.curve.__module__ != Hypothesis.__module__, h.in_nats

    if hypothesis not in HYPOTHESES:  # a user's own, in a process that has not read its file
        return palette[-1]
    return palette[sorted(HYPOTHESES, key=place).index(hypothesis) % len(palette)]


def shown_hypotheses(verdict: Mapping[str, Any]) -> list[str]:
    """Those that get a panel or line of their own: laws of few parameters, the ceiling, and the one named."""
    shown = [name for name, h in HYPOTHESES.items() if not h.in_nats or name == verdict["named"]]
    return list(dict.fromkeys([*shown, verdict["named"]])) if verdict["named"] else shown


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
    ax.set_yticks(range(len(table)), [label_of(name) for name in table.hypothesis])
    for tick, survives in zip(ax.get_yticklabels(), table.survivor):
        tick.set_fontweight("bold" if survives else "normal")
    return ax


@_styled
def curves_figure(curves: Curves, inferences: Mapping[str, az.InferenceData]) -> Figure:
    """One panel a hypothesis, with the same data in each."""
    names = sorted(inferences, key=lambda name: list(HYPOTHESES).index(name) if name in HYPOTHESES else len(HYPOTHESES))
    rows = (len(names) + 1) // 2
    figure, axes = _figure(rows, 2, 1.25 * rows + 0.6, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, names):
        plot_curves(curves, inferences[name], ax, name=name)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
        axes[max(rows - 2, 0), 1].tick_params(labelbottom=True)  # the lowest panel of its column
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


def rows_of(table: pd.DataFrame, curves: Curves) -> pd.DataFrame:
    """The rows of one curve in `comparison.csv`."""
    at = (table.task == curves.task) & (table.readout == curves.readout) & (table.n_min == curves.shots[0])
    return table[at]


@_styled
def comparison_figure(table: pd.DataFrame, shown: Sequence[Curves]) -> Figure:
    """One panel a task; hypotheses in bold survive when a sequence is left out."""
    own = [rows_of(table, curves) for curves in shown]
    heights = [max(0.13 * len(rows) + 0.3, 0.8) for rows in own]
    figure, axes = _figure(len(shown), 1, sum(heights) + 0.6, sharex=True, height_ratios=heights)
    for ax, curves, rows in zip(axes.flat, shown, own):
        plot_comparison(rows, ax)
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
    ax.set_yticks(ticks, ([f"mean of {len(pooled['deltas'])} tasks\n(thin: a new one)"] if pooled else []) + labels)
    ax.axvline(0, color=INK, lw=0.6, ls=":")
    ax.set_ylim(-1.4 if pooled else -0.3, len(names))
    ax.set_xlabel("delta under additive (nats per example)")
    first = verdicts[names[0]]
    title = f"{first['readout']}, n \u2265 {first['n_min']}; bars: 95 %" + ("; diamonds: pooled" if pooled else "")
    figure.suptitle(title, fontsize=8)  # over the labels too: it may be wider than the axes
    return figure


VERDICT_COLOURS = {"supported": 2, "rejected": 3, "no_update": 7, "undecided": 1, "refused": 8}


def verdict_colour(verdict: str) -> str:
    """The colour of a verdict in every figure and table, as #rrggbb."""
    return mpl.colors.to_hex(sns.color_palette("colorblind")[VERDICT_COLOURS[verdict]])


@_styled
def sensitivity_figure(table: pd.DataFrame) -> Figure:
    """The verdict on every task (rows) under every setting (columns), with the law that is named.

    Parameters
    ----------
    table
        sensitivity.csv.
    """
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
        colour = verdict_colour(row.verdict)
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
    for tick, name in zip(ax.get_xticklabels(), settings):
        tick.set_fontweight("bold" if table.headline[table.setting == name].any() else "normal")
    ax.set_title(
        "verdict on the additive update, and the simplest law that survives; bold: the headline", loc="left", pad=4
    )
    return figure


@_styled
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
    figure, axes = _figure(-(-len(groups) // 4), 4, 1.25 * -(-len(groups) // 4) + 0.7, width=2 * COLUMN, sharex=True)
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
    figure.supxlabel("rank of the truth in its posterior, as a share of draws", fontsize=8)
    figure.supylabel("cumulative share less uniform", fontsize=8)
    return figure


@_styled
def recovery_figure(coverage: pd.DataFrame) -> Figure:
    """Share of 95 % intervals that hold the truth, with binomial 95 % intervals; a row a hypothesis, noise, parameter.

    Parameters
    ----------
    coverage
        recovery.csv of `calibrate`.
    """
    from statsmodels.stats.proportion import proportion_confint

    names = list(dict.fromkeys(coverage.hypothesis))
    figure, axes = _figure(1, 1, 0.24 * len(names) + 1.0, width=1.4 * COLUMN)
    ax = axes.flat[0]
    # Over the kinds of noise, where there are several.
    held = coverage.assign(held=(coverage.held * coverage.sims).round())
    held = held.groupby(["hypothesis", "parameter"], sort=False)[["held", "sims"]].sum().reset_index()
    for y, name in enumerate(names[::-1]):
        own = held[held.hypothesis == name]
        for j, row in enumerate(own.itertuples()):
            at = y + 0.35 - 0.7 * (j + 0.5) / len(own)
            low, high = proportion_confint(int(row.held), int(row.sims), method="wilson")
            heavy = row.parameter == "delta" or (name, row.parameter) == ("power", "a")
            ax.plot([low, high], [at, at], color=colour_of(name), lw=1.2 if heavy else 0.6)
            ax.plot(row.held / row.sims, at, "o" if heavy else ".", color=colour_of(name), ms=2.5)
    ax.axvline(0.95, color=INK, lw=0.6)
    ax.axvspan(0.92, 0.98, color=FAINT, alpha=0.3, lw=0)
    ax.set_yticks(range(len(names)), names[::-1])
    ax.set_xlim(0.8, 1.0)
    ax.set_xlabel("share of 95 % intervals that hold the truth\n(heavy: delta and the power law\u2019s a; bars: 95 %)")
    return figure


@_styled
def confusion_figure(confusion: pd.DataFrame) -> Figure:
    """The kind of law named, and the verdict, by true law: shares of simulations over three kinds of noise.

    Parameters
    ----------
    confusion
        confusion.csv of `calibrate`.
    """
    own = confusion[~confusion.averaged]
    sizes = sorted(own.n_seqs.unique(), reverse=True)
    truths = list(dict.fromkeys(own.truth))
    figure, axes = _figure(len(sizes), 2, 1.55 * len(sizes) + 0.4, width=2 * COLUMN)
    columns = {
        "named_kind": ["constant", "additive", "curved", "change-point"],
        "verdict": ["no_update", "supported", "rejected", "undecided", "refused"],
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
            what = "law named" if column == "named_kind" else "verdict on additive"
            ax.set_title(f"{what}, {n_seqs} sequences (%)", loc="left", pad=3)
            ax.set(xlabel="", ylabel="truth" if column == "named_kind" else "")
            ax.tick_params(axis="x", rotation=20, length=0)
            ax.tick_params(axis="y", rotation=0, length=0)
            if column == "verdict":
                ax.set_yticks([])
    return figure


def figure_files(figures: Mapping[str, Figure], suffixes: Sequence[str] = (".png", ".pdf")) -> dict[str, bytes]:
    """Figures as files, PNG and PDF, by name; without a date, so that the same numbers give the same file."""
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    files = {}
    for name, figure in figures.items():
        for suffix in suffixes:
            buffer = io.BytesIO()
            with mpl.rc_context({"svg.hashsalt": name}):
                figure.savefig(buffer, format=suffix[1:], dpi=200, metadata=undated.get(suffix))
            files[name + suffix] = buffer.getvalue()
            figure.set_layout_engine("none")  # laid out by the first save
    return files


def save_figures(figures: Mapping[str, Figure], folder: Path, suffixes: Sequence[str] = (".png", ".pdf")) -> None:
    """Write figures into a folder, each whole or not at all."""
    for name, content in figure_files(figures, suffixes).items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)


def _figure(
    rows: int, columns: int, height: float, *, width: float = COLUMN, **shared: Any
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _title(curves: Curves) -> str:
    return f"{curves.task} ({curves.readout}, n \u2265 {curves.shots[0]:.0f})"
