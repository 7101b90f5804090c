"""The style of all figures, and what they share: a paper's column, colours, labels.

Colours are seaborn's colour-blind palette, one for each hypothesis in every figure, less those too pale for words and
thin lines on white.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from bayes_icl.core.files import replacing
from bayes_icl.curves import Curves
from bayes_icl.hypotheses.law import HYPOTHESES, LAWS_MODULE

COLUMN = 3.5  # inches: a column of a two-column paper

INK, FAINT = "0.15", "0.75"

STYLE = {
    "text.parse_math": False,  # a task may be called after a price
    "text.usetex": False,  # nor is a name LaTeX, whatever the user's own settings
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
styled = mpl.rc_context(STYLE)  # type: ignore[arg-type]


def colour_of(hypothesis: str) -> tuple[float, float, float]:
    """The colour of a hypothesis in every figure; the less common ones have darker ones."""
    light, dark = sns.color_palette("colorblind"), sns.color_palette("dark")
    palette = [*(light[i] for i in (0, 1, 2, 3, 4, 5, 9, 7)), *(dark[i] for i in (4, 0, 1, 2, 3, 9, 6, 8, 5, 7))]

    def place(name: str) -> tuple[bool, bool]:
        """Those that stand together in most figures come first, and a user's own last, so that they move no other."""
        h = HYPOTHESES[name]
        return h.curve.__module__ != LAWS_MODULE, h.in_nats

    if hypothesis not in HYPOTHESES:  # a user's own, in a process that has not read its file
        return palette[-1]
    return palette[sorted(HYPOTHESES, key=place).index(hypothesis) % len(palette)]


VERDICT_COLOURS = {
    "supported": 2, "supported_under_ceiling": 0, "rejected": 3, "no_update": 7, "undecided": 1, "refused": 8,
    "not_asked": 7, "bayesian": 2, "conservative": 0, "overconfident": 0, "not separable": 7, "ignores": 7,
    "additive": 0,
}  # fmt: skip


def verdict_colour(verdict: str) -> str:
    """The colour of a verdict in every figure and table, as #rrggbb."""
    return mpl.colors.to_hex(sns.color_palette("colorblind")[VERDICT_COLOURS.get(verdict, 4)])


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


def new_figure(
    rows: int, columns: int, height: float, *, width: float = COLUMN, **shared: Any
) -> tuple[Figure, np.ndarray]:
    """Figure and its axes, of shape (rows, columns), sizes in inches; `shared` goes to `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def panels(number: int, heights: float | Sequence[float], more: float, **shared: Any) -> tuple[Figure, np.ndarray]:
    """So many panels in one or two columns, each as wide as a paper's; places left over are blank.

    Parameters
    ----------
    number
        Of panels.
    heights
        Of a row of panels, inches; of each row if there are several.
    more
        What is above and below the panels, inches.
    **shared
        What `Figure.subplots` takes.
    """
    rows, columns = -(-number // 2), min(number, 2)
    own = [heights] * rows if isinstance(heights, float) else list(heights)
    width = columns * COLUMN
    figure, axes = new_figure(rows, columns, sum(own) + more, width=width, height_ratios=own, **shared)
    hide_unused(axes, number)
    return figure, axes


def legend(figure: Figure, styles: Mapping[str, Mapping[str, Any]], **more: Any) -> Legend:
    """Words with the styles of their lines, above the panels if `more` says nothing else."""
    handles = [Line2D([], [], **style) for style in styles.values()]
    where = {"loc": "outside upper center"} | more | ({"title_fontsize": 8} if "title" in more else {})
    return figure.legend(handles, list(styles), **where)


def title_of_curves(curves: Curves) -> str:
    """Title of a panel: task, readout and n_min."""
    return f"{curves.task} ({curves.readout}, n \u2265 {curves.shots[0]:.0f})"


ZERO: dict[str, Any] = {"color": FAINT, "lw": 0.6, "zorder": 0}  # a line at 0

DIVERGING = "RdBu_r"

BLUE, ORANGE, GREEN, VERMILION, PINK, BROWN = sns.color_palette("colorblind")[:6]

TASK_COLOURS = (BLUE, VERMILION, GREEN, PINK, BROWN, ORANGE)

EXAMPLES, MINUS = "examples shown, n", "\u2212"

DASHES = (0, (3, 1.2))


def label_right(
    ax: Axes,
    names: Sequence[str],
    heights: np.ndarray,
    gap: float,
    high: float,
    *,
    low: float = 0,
    colours: Sequence[Any] = (),
) -> None:
    """Names beside the right edge, as near to their heights (ascending) as `gap` allows, with a line to each."""
    if not len(names):
        return
    steps = gap * np.arange(len(names))
    free = isotonic_regression(heights - steps).x
    places = np.clip(free, low + gap / 2, max(high - gap / 2 - steps[-1], low + gap / 2)) + steps
    line = {"arrowstyle": "-", "lw": 0.4, "shrinkA": 0, "shrinkB": 0, "color": INK}
    for name, at, y, colour in zip(names, heights, places, colours or [INK] * len(names)):
        style = {"fontsize": 7 if colours else 6, "color": colour, "va": "center", "annotation_clip": False}
        ax.annotate(name, (1, at), (1.05, y), ax.get_yaxis_transform(), arrowprops=line, **style)


def few_ticks(ax: Axes) -> None:
    """Ticks in at most four steps a side, whole numbers along x."""
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4))


def titled(figure: Figure, title: str, across: str = "", up: str = "") -> Figure:
    """The same figure with a title, and labels below and beside all panels."""
    for set_words, words in ((figure.suptitle, title), (figure.supxlabel, across), (figure.supylabel, up)):
        if words:
            set_words(words, fontsize=8)
    return figure


def hide_unused(axes: np.ndarray, number: int) -> None:
    """Blank places after the first `number` axes; the panel above one keeps its tick labels."""
    for ax in axes.flat[number:]:
        ax.axis("off")
        axes[max(len(axes) - 2, 0), 1].tick_params(labelbottom=True)  # the lowest panel of its column


def number_words(x: float, digits: int = 2) -> str:
    """A number with so many decimals, a true minus sign, and no minus before 0."""
    return f"{round(x, digits) + 0.0:.{digits}f}".replace("-", MINUS)
