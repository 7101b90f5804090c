"""What `calibrate` leaves."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bayes_icl.calibrate.outcomes import rank_tests
from bayes_icl.core.files import to_csv


def calibration_files(tables: dict[str, pd.DataFrame], checked: list[dict[str, Any]]) -> dict[str, bytes]:
    """The tables that are written, by name."""
    recovery = tables["recovery"]
    coverage = recovery.groupby(["hypothesis", "noise", "parameter"], sort=False).agg(
        truth=("truth", "first"), mean=("mean", "mean"), width=("width", "mean"), held=("held", "mean"),
        sims=("held", "size"),
    ).reset_index()  # fmt: skip
    written = {
        "ranks.csv": tables["sbc"],
        "rank_tests.csv": rank_tests(tables["sbc"]),
        "recovery.csv": coverage,
        "confusion.csv": tables["confusion"],
        "averaging.csv": tables["averaging"],
        "outcomes.csv": pd.DataFrame(checked),
    }
    return {name: to_csv(table, float_format="%.6g") for name, table in written.items()}
