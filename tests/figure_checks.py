"""What a reader would see of a figure: its texts, which are cut off, which overlap."""

from __future__ import annotations

import itertools

from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(figure: Figure) -> list[Text]:
    """The figure's texts that are seen, laid out as in a file."""
    FigureCanvasAgg(figure).draw()
    hidden = {id(text) for text in figure.findobj(Text) if not text.get_visible() or not text.get_text().strip()}
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, ax.viewLim.intervalx), (ax.yaxis, ax.viewLim.intervaly)):
            # Ticks outside the limits, spare ones and those of axes that are off exist and are not drawn.
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()] if ax.axison else []
            drawn = {id(tick) for tick in ticks if min(limits) <= tick.get_loc() <= max(limits)}
            for tick in axis.findobj(Tick):
                if id(tick) not in drawn:
                    hidden |= {id(tick.label1), id(tick.label2)}
    return [text for text in figure.findobj(Text) if id(text) not in hidden]


def cut_off(figure: Figure) -> list[str]:
    """Texts that are not wholly inside the figure, to half a pixel."""
    shown = texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    outside = []
    for text in shown:
        box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        if box.width and (box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > width + 0.5 or box.y1 > height + 0.5):
            outside.append(text.get_text())
    return outside


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a sliver (boxes have room for ascenders and descenders)."""
    shown = texts(figure)
    # Of the words alone, where an annotation has a line too.
    boxes = [Text.get_window_extent(text, figure.canvas.get_renderer()) for text in shown]  # type: ignore[attr-defined]
    pairs = []
    for (one, a), (other, b) in itertools.combinations(zip(shown, boxes), 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if width > 1 and height > 0.25 * min(a.height, b.height):
            pairs.append((one.get_text(), other.get_text()))
    return pairs


def words_of(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))
