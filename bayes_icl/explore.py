"""Figures to hover over, for the page: the same numbers as in `plots`, with every point's own words.

Functions that take a Dataset or a table and return a plotly Figure without background, colour of text or width, so that
a page can give it its own, dark or light. Numbers in them are rounded to 4 decimals, in maps of heads to 4 digits. Text
that comes from users (tasks, queries, answers) is escaped, since plotly reads tags in it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
import xarray as xr
from jaxtyping import Float
from plotly.colors import get_colorscale

from bayes_icl.curves import readouts_of
from bayes_icl.errors import StatedError, unknown
from bayes_icl.heads import t_interval
from bayes_icl.plots import colour_of

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


# --- curves


def curves_by_sequence(
    dataset: xr.Dataset,
    task: str,
    readouts: Sequence[str] | None = None,
    laws: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    n_min: int = 1,
) -> go.Figure:
    """Log-odds against examples, a thin line a sequence, with the mean and its 95 % interval over sequences.

    Parameters
    ----------
    dataset
        The curves; what they lack of query, answer, foil, correct and query_seen is left out of the words.
    readouts
        Those that a menu offers, the first drawn at once; all that the task has if None.
    laws
        By name: numbers of examples and the fitted mean there, nats. They are of the first readout, and gone with it.
    n_min
        From where the laws were fitted; a dotted line marks it.

    Raises
    ------
    StatedError
        The file has no such task, or the task no such readout.
    """
    if task not in dataset.task.values:
        raise unknown("task", task, [str(name) for name in dataset.task.values])
    known = readouts_of(dataset, task)
    shown = known if readouts is None else list(readouts)
    for name in shown:
        if name not in known:
            raise unknown(f"readout of task {task!r}:", name, known)
    odds = dataset.log_odds.sel(task=task, readout=shown).transpose("readout", "seq", "shot").astype(float)
    odds = odds.dropna("seq", how="all")
    shots = odds.shot.values.tolist()
    drawn = {name: _readout_arrays(odds.sel(readout=name).values) for name in shown}
    first = drawn[shown[0]]
    figure = go.Figure(layout=_layout(EXAMPLES, _odds_of(shown[0])))
    figure.add_scatter(
        x=[*shots, None] * odds.sizes["seq"],
        y=first["lines"],
        customdata=first["updates"],
        text=_episode_words(dataset, task, odds.seq.values),
        mode="lines",
        line={"width": 0.8, "color": FAINT},
        name=f"{odds.sizes['seq']} sequences",
        hovertemplate="%{text}<br>n = %{x}: L %{y:.4f} nats<br>update L(n) \u2212 L(n\u22121): %{customdata}"
        "<extra></extra>",
    )
    figure.add_scatter(
        x=shots + shots[::-1],
        y=first["band"],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor="rgba(128,128,128,0.3)",
        name="95 % of the mean",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=shots,
        y=first["mean"],
        customdata=first["ends"],
        mode="lines+markers",
        line={"width": 2, "color": GREY},
        marker={"size": 5},
        name="mean over sequences",
        hovertemplate="mean, n = %{x}: %{y:.4f} %{customdata} nats<extra></extra>",
    )
    curves = {
        name: (list(map(float, x)), _rounded(np.asarray(mean, float))) for name, (x, mean) in (laws or {}).items()
    }
    for name, (x, mean) in curves.items():
        figure.add_scatter(
            x=x,
            y=mean,
            mode="lines",
            line={"width": 2, "color": _rgb(colour_of(name))},
            name=_words(name),
            hovertemplate=f"{_words(name)}, n = %{{x}}: %{{y:.4f}} nats<extra></extra>",
        )
    figure.add_scatter(
        x=shots,
        y=[],
        mode="lines",
        line={"width": 2.5, "color": CHOSEN_COLOUR},
        name=CHOSEN,
        showlegend=False,
        hoverinfo="skip",
    )
    if laws and n_min > shots[0]:
        figure.add_vline(x=n_min, line={"width": 1, "dash": "dot", "color": GREY})
    if len(shown) > 1:
        gone: list[None] = []
        entries = []
        for name, own in drawn.items():
            fitted = [mean if name == shown[0] else gone for _, mean in curves.values()]
            changed = {
                "y": [own["lines"], own["band"], own["mean"], *fitted, gone],
                "customdata": [own["updates"], None, own["ends"], *(None for _ in curves), None],
                "visible": [True, True, True, *(name == shown[0] for _ in curves), True],
            }
            entries.append(_entry(name, changed, {"yaxis.title.text": _odds_of(name)}))
        figure.update_layout(updatemenus=[_menu(entries, 0)])
    return figure


def _odds_of(readout: str) -> str:
    return f"log-odds, {_words(readout)} (nats)"


def _readout_arrays(odds: Float[np.ndarray, "seq shot"]) -> dict[str, list]:
    """What is drawn of one readout, rounded, with a gap after every sequence."""
    updates = np.diff(odds, axis=1)
    own = odds[np.isfinite(odds).all(1)]
    mean, low, high = t_interval(own) if len(own) > 1 else (own.mean(0), *[np.full(odds.shape[1], np.nan)] * 2)
    return {
        "lines": [x for line in odds for x in (*_rounded(line), None)],
        "updates": [x for line in updates for x in (NOTHING, *_rounded(line), None)],
        "mean": _rounded(mean),
        "ends": _intervals(low, high),
        "band": _rounded(np.concatenate([low, high[::-1]])),
    }


def _episode_words(dataset: xr.Dataset, task: str, seqs: Iterable[Any]) -> list[str | None]:
    """What was asked at every shot of every sequence, a gap after each."""
    # As items: `Dataset.query` is a method.
    names = [name for name in ("query", "answer", "foil", "correct", "query_seen") if name in dataset]
    found = {name: dataset[name].sel(task=task, seq=list(seqs)).transpose("seq", "shot").values for name in names}
    words: list[str | None] = []
    for i, seq in enumerate(seqs):
        for j in range(dataset.sizes["shot"]):
            at = {name: values[i, j] for name, values in found.items()}
            lines = [f"sequence {_words(seq)}"]
            if "query" in at:
                lines[0] += f": <b>{_words(at['query'])} \u2192 {_words(at.get('answer', '?'))}</b>"
            if at.get("foil"):
                lines.append(f"foil {_words(at['foil'])}")
            if "correct" in at:
                lines.append("greedy decoding: " + ("right" if at["correct"] else "wrong"))
            if at.get("query_seen"):
                lines.append("query seen before")
            words.append("<br>".join(lines))
        words.append(None)
    return words


# --- heads


class Quantity(NamedTuple):
    """What a map of heads shows.

    Attributes
    ----------
    column
        Of the table; its interval, if any, is in the columns with ``_low`` and ``_high``.
    words, unit
        For people.
    signed
        Whether 0 is in the middle of the colours.
    """

    column: str
    words: str
    unit: str = ""
    signed: bool = True


ATTRIBUTED = (
    Quantity("slope", "slope", "nats/example"),
    Quantity("share", "share of delta"),
    Quantity("pooled", "slope, pooled over heads", "nats/example"),
    Quantity("rise", "rise from n_min to the last shot", "nats"),
    Quantity("slope_examples", "slope of what comes from examples", "nats/example"),
    Quantity("lost", "lost at its mean, shot by shot", "nats/example"),
    Quantity("lost_held", "lost if held at its mean", "nats/example"),
    Quantity("attention", "attention to examples, last shot", signed=False),
)
PATCHED = (
    Quantity("lost", "lost", "nats"),
    Quantity("taken", "direct effect that goes", "nats"),
    Quantity("other_heads", "other heads make up", "nats"),
    Quantity("mlps", "MLPs make up", "nats"),
    Quantity("norm", "norm and rivals make up", "nats"),
    Quantity("lost_resample", "lost, by resample", "nats"),
    Quantity("lost_mean", "lost, by mean", "nats"),
    Quantity("lost_zero", "lost, by zero", "nats"),
    Quantity("direct", "direct effect", "nats"),
    Quantity("bring", "attention of answers to their query", signed=False),
    Quantity("to_answers", "attention to answers", signed=False),
    Quantity("to_queries", "attention to earlier queries", signed=False),
    Quantity("to_before", "attention to what precedes answers", signed=False),
    Quantity("to_sink", "attention to the first token", signed=False),
    Quantity("previous_token", "attention to the token before", signed=False),
    Quantity("induction", "induction", signed=False),
)


def head_map(
    table: pd.DataFrame, tasks: Sequence[str] | None = None, quantities: Sequence[Quantity] | None = None
) -> go.Figure:
    """Layer by head maps with a menu of quantities and, of several tasks, one of tasks.

    Parameters
    ----------
    table
        heads.csv of `attribute` or of `patch`.
    tasks
        Those that the menu offers, the first drawn at once; all of the table if None.
    quantities
        The same of quantities; those of `ATTRIBUTED` or `PATCHED` that the table has if None.

    Each quantity has one range of colours for all tasks. Every cell's words have all quantities.
    """
    heads = table[table["kind"] == "head"] if "kind" in table else table
    shown = list(dict.fromkeys(heads.task)) if tasks is None else list(tasks)
    for task in shown:
        if task not in set(heads.task):
            raise unknown("task", task, list(dict.fromkeys(heads.task)))
    heads = heads[heads.task.isin(shown)]
    offered = quantities or (ATTRIBUTED if "slope" in heads else PATCHED)
    offered = [q for q in offered if q.column in heads and heads[q.column].notna().any()]
    if not offered:
        raise StatedError("a map of heads needs a table of heads with numbers, got one without: run attribute or patch")
    layers, numbers = (range(int(heads[name].max()) + 1) for name in ("layer", "head"))
    figure = go.Figure(layout=_layout("head", "layer", height=max(HEIGHT, 11 * len(layers) + 150)))
    grids = {task: _grids(heads[heads.task == task], offered, len(layers), len(numbers)) for task in shown}
    scales = {q.column: _scale(q, heads[q.column].to_numpy(float)) for q in offered}
    first = offered[0]
    lines = [f"{q.words}: %{{customdata[{k}]}}" for k, q in enumerate(offered)]
    template = "<br>".join(["<b>L%{y}H%{x}</b>", *lines, f"%{{customdata[{len(offered)}]}}<extra></extra>"])
    for i, task in enumerate(shown):
        z, words = grids[task]
        figure.add_heatmap(
            x=list(numbers),
            y=list(layers),
            z=z[first.column],
            customdata=words,
            name=_words(task),
            visible=i == 0,
            hovertemplate=template,
            hoverongaps=False,
            xgap=1,
            ygap=1,
            colorbar={
                "orientation": "h",
                "thickness": 10,
                **BELOW,
                "title": {"text": _title(first), "side": "bottom"},
                "outlinewidth": 0,
            },
            **scales[first.column],
        )
    figure.update_xaxes(dtick=-(-len(numbers) // 16), showgrid=False, zeroline=False, range=[-0.5, len(numbers) - 0.5])
    figure.update_yaxes(dtick=-(-len(layers) // 16), showgrid=False, zeroline=False, range=[-0.5, len(layers) - 0.5])
    by_quantity = [
        _entry(
            q.words,
            {
                "z": [grids[task][0][q.column] for task in shown],
                **{name: [value] for name, value in scales[q.column].items()},
                "colorbar.title.text": [_title(q)],
            },
        )
        for q in offered
    ]
    by_task = [_entry(task, {"visible": [other == task for other in shown]}) for task in shown]
    menus = [_menu(entries, i) for i, entries in enumerate(x for x in (by_quantity, by_task) if len(x) > 1)]
    figure.update_layout(updatemenus=menus, margin={"t": 12 + 38 * len(menus)})
    return figure


def _grids(
    own: pd.DataFrame, quantities: Sequence[Quantity], n_layers: int, n_heads: int
) -> tuple[dict[str, list[list[float | None]]], list[list[list[str]]]]:
    """Each quantity's values by layer and head; every cell's words: one for each quantity, last what else is known."""
    z = {q.column: np.full((n_layers, n_heads), np.nan) for q in quantities}
    words = [[[NOTHING] * len(quantities) + [""] for _ in range(n_heads)] for _ in range(n_layers)]
    for row in own.to_dict("records"):
        layer, head = int(row["layer"]), int(row["head"])
        for q in quantities:
            z[q.column][layer, head] = row[q.column]
        marks = [words for name, words in MARKS.items() if row.get(name) in (True, "True")]
        if isinstance(kind := row.get("accumulation"), str) and kind:
            marks.append(f"accumulation: {_words(kind)}")
        if not pd.isna(row.get("round", np.nan)):
            marks.append(f"ablated in round {row['round']:.0f}")
        words[layer][head] = [*(_with_interval(row, q.column) for q in quantities), "<br>".join(marks)]
    return {name: [_rounded(line, significant=True) for line in grid] for name, grid in z.items()}, words


MARKS = {"stands_out": "stands out", "top": "among those taken away"}


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    if pd.isna(row[name]):
        return NOTHING
    ends = [row.get(name + end, np.nan) for end in ("_low", "_high")]
    interval = "" if np.isnan(ends).any() else f" [{ends[0]:.3g}, {ends[1]:.3g}]"
    return f"{row[name]:.3g}{interval}".replace("-", "\u2212")


def _scale(quantity: Quantity, values: Float[np.ndarray, " head"]) -> dict[str, Any]:
    """Colours and their range: about 0 or from 0."""
    most = float(f"{np.nanmax(np.abs(values)):.3g}") or 1.0
    # Red is positive, as in the figures of the paper. Spelled out: plotly.js means other colours by these names.
    return {
        "colorscale": get_colorscale("RdBu_r" if quantity.signed else "Blues"),
        "zmin": -most if quantity.signed else 0,
        "zmax": most,
    }


def _title(quantity: Quantity) -> str:
    return quantity.words + (f" ({quantity.unit})" if quantity.unit else "")


# --- patches


def transfer_map(transfer: pd.DataFrame, task: str) -> go.Figure:
    """Log-odds of B's own answer and, dashed, of A's by the point patched, with 95 % bands: a colour a round.

    One more colour is a run with permuted answers, where there is one. A menu offers the kinds of ablation.

    Parameters
    ----------
    transfer
        transfer.csv; `attrs["kind"]` is the kind drawn at once, the first of the table if there is none.
    """
    own = transfer[transfer.task == task]
    if own.empty:
        raise unknown("task", task, list(dict.fromkeys(transfer.task)))
    ablated, control = own[own["set"] == "ablated"], own[own["set"] == "no rule"]
    first = transfer.attrs.get("kind", ablated.kind.iloc[0])
    kinds = list(dict.fromkeys([first, *ablated.kind]))
    lines: list[tuple[str | None, str, str, pd.DataFrame]] = []  # kind, words, colour, rows
    for (kind, number), rows in ablated.groupby(["kind", "round"], sort=False):
        words = f"round {number:.0f}" if number else "nothing ablated"
        lines.append((str(kind), words, ROUND_COLOURS[int(number) % len(ROUND_COLOURS)], rows))
    if len(control):
        lines.append((None, "permuted answers", CONTROL_COLOUR, control))
    title = "log-odds (nats); dashed: A\u2019s answer"
    figure = go.Figure(layout=_layout("point of the residual stream that is patched", title))
    for _, words, colour, rows in lines:
        for answer in ("own", "other"):
            figure.add_traces(_answer_traces(rows.sort_values("point"), answer, words, colour))
    per_line = len(figure.data) // len(lines)

    def visible(chosen: str) -> list[bool]:
        return [kind in (None, chosen) for kind, *_ in lines for _ in range(per_line)]

    for trace, there in zip(figure.data, visible(first)):
        trace.visible = there
    if len(kinds) > 1:
        entries = [_entry(f"{kind} ablation", {"visible": visible(kind)}) for kind in kinds]
        figure.update_layout(updatemenus=[_menu(entries, 0)])
    return figure


def _rgb(colour: Sequence[float]) -> str:
    return "rgb({})".format(",".join(f"{255 * c:.0f}" for c in colour))


ROUND_COLOURS = (GREY, *(_rgb(sns.color_palette("colorblind")[i]) for i in (0, 3, 2, 4, 1)))
CONTROL_COLOUR = _rgb(sns.color_palette("colorblind")[5])


def _answer_traces(rows: pd.DataFrame, answer: str, words: str, colour: str) -> list[go.Scatter]:
    """A band and a line; the own answer's is named in the legend."""
    name = "own answer" if answer == "own" else "A\u2019s answer"
    points = [int(x) for x in rows.point]
    low, high, mean = (rows[answer + end].to_numpy(float) for end in ("_low", "_high", ""))
    first = [f"{x:.0%}" for x in rows[f"{answer}_first"]]
    band = go.Scatter(
        x=points + points[::-1],
        y=_rounded(np.concatenate([low, high[::-1]])),
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=colour.replace("rgb", "rgba").replace(")", ",0.18)"),
        hoverinfo="skip",
        showlegend=False,
        legendgroup=words,
    )
    line = go.Scatter(
        x=points,
        y=_rounded(mean),
        customdata=[list(x) for x in zip(_intervals(low, high), first)],
        mode="lines+markers",
        line={"width": 1.6, "color": colour, "dash": "solid" if answer == "own" else "dash"},
        marker={"size": 4},
        name=words,
        legendgroup=words,
        showlegend=answer == "own",
        hovertemplate=f"<b>{words}</b><br>{name} at point %{{x}}:<br>%{{y:.4f}} %{{customdata[0]}} nats<br>comes "
        "first in %{customdata[1]}<extra></extra>",
    )
    return [band, line]


# --- what all figures share


def _rounded(values: Float[np.ndarray, " any"], significant: bool = False) -> list[float | None]:
    """Numbers for JSON: `DECIMALS` decimals, or as many significant digits; None where there is none."""
    form = f".{DECIMALS}g" if significant else f".{DECIMALS}f"
    return [float(format(x, f"z{form}")) if np.isfinite(x) else None for x in values.tolist()]


def _intervals(low: Float[np.ndarray, " any"], high: Float[np.ndarray, " any"]) -> list[str]:
    """Intervals in words, empty where there is none."""
    return [f"[{a:.{DECIMALS}f}, {b:.{DECIMALS}f}]" if np.isfinite([a, b]).all() else "" for a, b in zip(low, high)]


def _words(name: Any) -> str:
    """A user's text as plotly shows it: no tags, one line, not too long."""
    text = "".join("\u21b5" if c == "\n" else c if c.isprintable() else " " for c in str(name))
    return html.escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026", quote=False)


BELOW = {"yref": "container", "y": 0, "yanchor": "bottom"}


def _layout(x: str, y: str, height: int = HEIGHT) -> dict[str, Any]:
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


def _entry(label: str, traces: dict[str, Any], layout: dict[str, Any] | None = None) -> dict[str, Any]:
    """One choice of a menu."""
    return {"label": _words(label), "method": "update", "args": [traces, layout or {}]}


def _menu(entries: list[dict[str, Any]], row: int) -> dict[str, Any]:
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
