"""The table of `calibrate` as a paper shows it."""

from __future__ import annotations

import pandas as pd

from bayes_icl.writing import columns
from bayes_icl.writing.tables import PaperTable


def calibration_table(outcomes: pd.DataFrame) -> PaperTable:
    """What a calibration must keep and whether it does, from outcomes.csv."""
    return PaperTable(
        "calibration",
        "Calibration on simulated curves",
        "What must hold on curves whose truth is known, what was found, and the bound set before.",
        "outcomes.csv",
        outcomes,
        (
            columns.text("check", "what"),
            columns.number("found", "value", ".3g"),
            columns.text("bound", "bound"),
            columns.Column("holds", lambda row: "yes" if row.holds in (True, "True") else "NO", number=False),
        ),
    )
