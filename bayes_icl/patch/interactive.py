"""Patching to hover over: log-odds by layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bayes_icl.core.errors import unknown
from bayes_icl.writing import interactive


def transfer_map(transfer: pd.DataFrame, task: str, kind: str) -> go.Figure:
    """Log-odds of B's own answer and, dashed, of A's by the layer patched, with bands: a colour a round.

    One more colour is a run with permuted answers, where there is one. A menu offers the kinds of ablation in
    transfer.csv; `kind` is drawn at once.
    """
    own = transfer[transfer.task == task]
    if own.empty:
        raise unknown("task", task, list(dict.fromkeys(transfer.task)))
    ablated, control = own[own["set"] == "ablated"], own[own["set"] == "no rule"]
    kinds = list(dict.fromkeys([kind, *ablated.kind]))
    lines: list[tuple[str | None, str, str, pd.DataFrame]] = []  # kind, words, colour, rows
    for (of, number), rows in ablated.groupby(["kind", "round"], sort=False):
        words = f"round {number:.0f}" if number else "nothing ablated"
        lines.append((str(of), words, interactive.ROUND_COLOURS[int(number) % len(interactive.ROUND_COLOURS)], rows))
    if len(control):
        lines.append((None, "permuted answers", interactive.CONTROL_COLOUR, control))
    title = "log-odds (nats); dashed: A\u2019s answer"
    figure = go.Figure(layout=interactive.layout("layer whose resid_pre that is patched", title))
    for _, words, colour, rows in lines:
        for answer in ("own", "other"):
            figure.add_traces(_answer_traces(rows.sort_values("layer"), answer, words, colour))
    per_line = len(figure.data) // len(lines)

    def visible(chosen: str) -> list[bool]:
        return [of in (None, chosen) for of, *_ in lines for _ in range(per_line)]

    for trace, there in zip(figure.data, visible(kind)):
        trace.visible = there
    if len(kinds) > 1:
        entries = [interactive.entry(f"{one} ablation", {"visible": visible(one)}) for one in kinds]
        figure.update_layout(updatemenus=[interactive.menu(entries, 0)])
    return figure


def _answer_traces(rows: pd.DataFrame, answer: str, words: str, colour: str) -> list[go.Scatter]:
    """A band and a line; the own answer's is named in the legend."""
    name = "own answer" if answer == "own" else "A\u2019s answer"
    points = [int(x) for x in rows.layer]
    low, high, mean = (rows[answer + end].to_numpy(float) for end in ("_low", "_high", ""))
    first = [f"{x:.0%}" for x in rows[f"{answer}_first"]]
    pale = colour.replace("rgb", "rgba").replace(")", ",0.18)")
    area = interactive.band(points, interactive.rounded(np.concatenate([low, high[::-1]])), pale)
    curve = interactive.line(points, interactive.rounded(mean), colour, 1.6, words).update(
        customdata=[list(x) for x in zip(interactive.intervals(low, high), first)],
        mode="lines+markers",
        line={"dash": "solid" if answer == "own" else "dash"},
        marker={"size": 4},
        legendgroup=words,
        showlegend=answer == "own",
        hovertemplate=f"<b>{words}</b><br>{name} at layer %{{x}}:<br>%{{y:.4f}} %{{customdata[0]}} nats<br>comes "
        "first in %{customdata[1]}<extra></extra>",
    )
    return [area.update(showlegend=False, legendgroup=words), curve]
