"""Figures to hover over, as HTML that needs no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import seaborn as sns
from jaxtyping import Float

DECIMALS = 4

LONGEST = 60  # letters of a query or an answer that are shown

HEIGHT = 400  # pixels

GREY, FAINT, GRID = "rgb(128,128,128)", "rgba(128,128,128,0.35)", "rgba(128,128,128,0.25)"  # seen on light and dark

NOTHING = "\u2013"

EXAMPLES = "examples shown, n"

CHOSEN, CHOSEN_COLOUR = "chosen sequence", "rgb(230,0,126)"  # no law has that colour

# For the page's style sheet: plotly's menus have a light ground of their own, on which light text is lost; and it
# measures text in the page's font while its own style sheet gives another.
STYLE = """\
.js-plotly-plot .updatemenu-item-rect { fill: var(--menu, Canvas) !important; fill-opacity: 1 !important; }
.js-plotly-plot .plotly, .js-plotly-plot .plotly div { font-family: inherit !important; }
"""


def rgb(colour: Sequence[float]) -> str:
    """A colour as plotly takes it, from red, green and blue between 0 and 1."""
    return "rgb({})".format(",".join(f"{255 * c:.0f}" for c in colour))


ROUND_COLOURS = (GREY, *(rgb(sns.color_palette("colorblind")[i]) for i in (0, 3, 2, 4, 1)))

CONTROL_COLOUR = rgb(sns.color_palette("colorblind")[5])


def rounded(values: Float[np.ndarray, " any"], significant: bool = False) -> list[float | None]:
    """Numbers for JSON: `DECIMALS` decimals, or as many significant digits; None where there is none."""
    form = f".{DECIMALS}g" if significant else f".{DECIMALS}f"
    return [float(format(x, f"z{form}")) if np.isfinite(x) else None for x in values.tolist()]


def intervals(low: Float[np.ndarray, " any"], high: Float[np.ndarray, " any"]) -> list[str]:
    """Intervals in words, empty where there is none."""
    return [f"[{a:.{DECIMALS}f}, {b:.{DECIMALS}f}]" if np.isfinite([a, b]).all() else "" for a, b in zip(low, high)]


def escaped(name: Any) -> str:
    """A user's text as plotly shows it: no tags, one line, not too long."""
    text = "".join("\u21b5" if c == "\n" else c if c.isprintable() else " " for c in str(name))
    return html.escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026", quote=False)


BELOW = {"yref": "container", "y": 0, "yanchor": "bottom"}


def layout(x: str, y: str, height: int = HEIGHT) -> dict[str, Any]:
    """Plotly's layout of a figure with those axis titles, `height` pixels high, its ground clear."""
    axis = {"gridcolor": GRID, "zerolinecolor": "rgba(128,128,128,0.6)", "zerolinewidth": 1, "automargin": True}
    return {
        "template": go.layout.Template(),  # plotly's own has colours of text and ground
        "autosize": True,
        "height": height,
        "margin": {"l": 48, "r": 8, "t": 50, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit", "size": 12},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "font": {"family": "inherit", "size": 12}},
        "legend": {**BELOW, "orientation": "h", "x": 0, "bgcolor": "rgba(0,0,0,0)"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "rgba(128,128,128,0.7)", "activecolor": GREY},
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
    }


def line(x: list, y: list, colour: str, width: float, name: str) -> go.Scatter:
    """A line with its name in the legend."""
    return go.Scatter(x=x, y=y, mode="lines", line={"width": width, "color": colour}, name=name)


def band(x: list, edge: list, colour: str, name: str | None = None) -> go.Scatter:
    """A band between the lower ends by x and the upper ones back again, over which nothing is said."""
    there_and_back = x + x[::-1]
    return line(there_and_back, edge, colour, 0, name or "").update(
        fill="toself", line={"width": 0, "color": None}, fillcolor=colour, hoverinfo="skip", name=name
    )


def entry(label: str, traces: dict[str, Any], layout: dict[str, Any] | None = None) -> dict[str, Any]:
    """One choice of a menu."""
    return {"label": escaped(label), "method": "update", "args": [traces, layout or {}]}


def menu(entries: list[dict[str, Any]], row: int) -> dict[str, Any]:
    """A menu above the plot; several stand above each other."""
    return {
        "buttons": entries,
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 6 + 38 * row},
        "bgcolor": "rgba(128,128,128,0.12)",
        "bordercolor": GRID,
        "showactive": False,  # its ground would be light in the dark
    }


_CHOOSE = """\
const plot = document.getElementById('{plot_id}');
const last = plot.data.length - 1, n = plot.data[last].x.length;
const show = y => Plotly.restyle(plot, {y: [y]}, [last]);
plot.on('plotly_hover', e => {
  const point = e.points[0], start = Math.floor(point.pointIndex / (n + 1)) * (n + 1);
  if (point.curveNumber === 0) show(point.data.y.slice(start, start + n));
});
plot.on('plotly_doubleclick', () => show([]));
"""


def as_html(figure: go.Figure, id: str) -> str:
    """The figure as a part of a page that has `library` before it; `id` is that of its element."""
    sequences = bool(figure.data) and figure.data[-1].name == CHOSEN
    return figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=id,
        default_height=f"{figure.layout.height}px",
        post_script=_CHOOSE if sequences else None,
        config={
            "displaylogo": False,
            "responsive": True,
            # These only: by default plotly also offers to send the figure to a server of its makers.
            "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
        },
    )


def library() -> str:
    """The source of plotly.js, for a script element of the page."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")
