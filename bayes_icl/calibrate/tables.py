"""The table of `calibrate` as a paper shows it."""

from __future__ import annotations

import pandas as pd

from bayes_icl.calibrate.outputs import OUTCOMES
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
            *columns.shown(OUTCOMES, "check = what; found = value .3g; bound"),
            columns.Column("holds", lambda row: "yes" if row.holds in (True, "True") else "NO", number=False),
        ),
    )
