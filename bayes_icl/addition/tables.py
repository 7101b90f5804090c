"""The tables of `addition` as a paper shows them."""

from __future__ import annotations

import pandas as pd

from bayes_icl.addition.outputs import LAYERS, SLOPES
from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.writing import columns
from bayes_icl.writing.tables import PaperTable

FEW = 6  # layers that are shown, evenly spaced


def layers_table(layers: pd.DataFrame, task: str) -> PaperTable:
    """How the stream moves on a task, at some layers, from layers.csv."""
    own = layers[layers.task == task]
    return PaperTable(
        f"addition_{file_name(task)}",
        f"Movement of the residual stream on {task}",
        "h(n) - h(1) where the answer is read: its length relative to the stream, shares of it along a line in n, "
        "log n and one direction with any amounts, the cosine of early and late movement, the length moved per "
        f"example late over early ({LEVEL_WORDS} intervals over sequences), and the verdict on the amounts. The CSV "
        "has all layers.",
        "layers.csv",
        own,
        tuple(
            columns.shown(
                LAYERS, "part; layer; size .2f; line .2f; log .2f; rank1 .2f; cosine .2f; late_over_early .2f; verdict"
            )
        ),
        _spaced(own),
    )


def slopes_table(slopes: pd.DataFrame, task: str) -> PaperTable:
    """What adding vectors does on a task, at some layers, from slopes.csv."""
    own = slopes[slopes.task == task]
    return PaperTable(
        f"addition_doses_{file_name(task)}",
        f"Vectors added on {task}",
        "Rise of the log-odds per example's worth of a vector, nats, and beyond that of a random direction of the same "
        f"length ({LEVEL_WORDS} intervals over sequences); and what is missed of the rise that real examples bring. "
        "The CSV has all layers.",
        "slopes.csv",
        own,
        tuple(columns.shown(SLOPES, "vector; layer; slope .3f; beyond_random .3f; missed .2f")),
        _spaced(own),
    )


def _spaced(table: pd.DataFrame) -> pd.DataFrame:
    last = int(table.layer.max())
    shown = {round(i * last / (FEW - 1)) for i in range(FEW)}
    return table[table.layer.isin(shown)]
