"""Curves to hover over: sequence by sequence, with the episode's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

from bayes_icl.core.errors import unknown
from bayes_icl.core.intervals import LEVEL_WORDS, t_interval
from bayes_icl.curves import readouts_of
from bayes_icl.writing import interactive
from bayes_icl.writing.style import colour_of


def curves_by_sequence(
    dataset: xr.Dataset,
    task: str,
    readouts: Sequence[str] | None = None,
    laws: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    n_min: int = 1,
) -> go.Figure:
    """Log-odds against examples, a thin line a sequence, with the mean and its interval over sequences.

    Parameters
    ----------
    dataset
        The curves; what they lack of query, answer, foil, correct and query_seen is left out of the words.
    task
        Name of the task.
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
    words = _episode_words(dataset, task, odds.seq.values)
    fitted = {
        name: (list(map(float, x)), interactive.rounded(np.asarray(mean, float)))
        for name, (x, mean) in (laws or {}).items()
    }
    update = "update L(n) \u2212 L(n\u22121): %{customdata}"
    traces = [
        interactive.line(
            [*shots, None] * odds.sizes["seq"], first["lines"], interactive.FAINT, 0.8, f"{odds.sizes['seq']} sequences"
        ).update(
            customdata=first["updates"],
            text=words,
            hovertemplate=f"%{{text}}<br>n = %{{x}}: L %{{y:.4f}} nats<br>{update}<extra></extra>",
        ),
        interactive.band(shots, first["band"], "rgba(128,128,128,0.3)", f"{LEVEL_WORDS} of the mean"),
        interactive.line(shots, first["mean"], interactive.GREY, 2, "mean over sequences").update(
            customdata=first["ends"],
            mode="lines+markers",
            marker={"size": 5},
            hovertemplate="mean, n = %{x}: %{y:.4f} %{customdata} nats<extra></extra>",
        ),
        *(
            interactive.line(x, mean, interactive.rgb(colour_of(name)), 2, interactive.escaped(name)).update(
                hovertemplate=f"{interactive.escaped(name)}, n = %{{x}}: %{{y:.4f}} nats<extra></extra>"
            )
            for name, (x, mean) in fitted.items()
        ),
        interactive.line(shots, [], interactive.CHOSEN_COLOUR, 2.5, interactive.CHOSEN).update(
            showlegend=False, hoverinfo="skip"
        ),
    ]
    figure = go.Figure(traces, layout=interactive.layout(interactive.EXAMPLES, _odds_of(shown[0])))
    if laws and n_min > shots[0]:
        figure.add_vline(x=n_min, line={"width": 1, "dash": "dot", "color": interactive.GREY})
    if len(shown) > 1:
        means = [mean for _, mean in fitted.values()]
        entries = [_choice(name, own, means, laws_shown=name == shown[0]) for name, own in drawn.items()]
        figure.update_layout(updatemenus=[interactive.menu(entries, 0)])
    return figure


def _choice(readout: str, arrays: dict[str, list], means: list[list], *, laws_shown: bool) -> dict[str, Any]:
    """A readout of the menu: what it changes in all traces, in their order."""
    gone: list[None] = []
    changed = {
        "y": [arrays["lines"], arrays["band"], arrays["mean"], *(mean if laws_shown else gone for mean in means), gone],
        "customdata": [arrays["updates"], None, arrays["ends"], *(None for _ in means), None],
        "visible": [True, True, True, *(laws_shown for _ in means), True],
    }
    return interactive.entry(readout, changed, {"yaxis.title.text": _odds_of(readout)})


def _odds_of(readout: str) -> str:
    return f"log-odds, {interactive.escaped(readout)} (nats)"


def _readout_arrays(odds: Float[np.ndarray, "seq shot"]) -> dict[str, list]:
    """What is drawn of one readout, rounded, with a gap after every sequence."""
    updates = np.diff(odds, axis=1)
    mean, low, high = t_interval(odds[np.isfinite(odds).all(1)])
    return {
        "lines": [x for line in odds for x in (*interactive.rounded(line), None)],
        "updates": [x for line in updates for x in (interactive.NOTHING, *interactive.rounded(line), None)],
        "mean": interactive.rounded(mean),
        "ends": interactive.intervals(low, high),
        "band": interactive.rounded(np.concatenate([low, high[::-1]])),
    }


def _episode_words(dataset: xr.Dataset, task: str, seqs: Iterable[Any]) -> list[str | None]:
    """What was asked at every shot of every sequence, a gap after each."""
    # As items: `Dataset.query` is a method.
    names = [name for name in ("query", "answer", "foil", "shown", "correct", "query_seen") if name in dataset]
    found = {name: dataset[name].sel(task=task, seq=list(seqs)).transpose("seq", "shot").values for name in names}
    words: list[str | None] = []
    for i, seq in enumerate(seqs):
        for j in range(dataset.sizes["shot"]):
            at = {name: values[i, j] for name, values in found.items()}
            lines = [f"sequence {interactive.escaped(seq)}"]
            if "query" in at:
                lines[0] += (
                    f": <b>{interactive.escaped(at['query'])} \u2192 {interactive.escaped(at.get('answer', '?'))}</b>"
                )
            if at.get("foil"):
                lines.append(f"foil {interactive.escaped(at['foil'])}")
            if "shown" in at and at["shown"] != at.get("answer"):
                lines.append(f"the text shows {interactive.escaped(at['shown'])}")
            if "correct" in at:
                lines.append("greedy decoding: " + ("right" if at["correct"] else "wrong"))
            if at.get("query_seen"):
                lines.append("query seen before")
            words.append("<br>".join(lines))
        words.append(None)
    return words
