"""What `calibrate` leaves."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bayes_icl.calibrate.outcomes import rank_tests
from bayes_icl.core.schemas import Column, Table, columns

LAW = Column("hypothesis", "which law", "text")

OUTCOMES = Table(
    "outcomes",
    "A row for each thing that was checked.",
    (
        Column("what", "was checked", "text"),
        Column("value", "what was found"),
        Column("bound", "set before", "text"),
        Column("holds", "whether the value keeps the bound", "flag"),
    ),
)

RANKS = Table(
    "ranks",
    "A row for each simulation.",
    (
        LAW,
        Column("setting", "sound, student, or a control that must fail", "text"),
        Column("faulty", "whether the fit says that it cannot be relied on", "flag"),
    ),
    {"[A-Za-z][A-Za-z_0-9]*": "posterior probability below the truth of every parameter"},
)

RANK_TESTS = Table(
    "rank_tests",
    "A row for each hypothesis, setting and parameter.",
    (
        LAW,
        *columns("setting parameter", "which", "text"),
        Column("sims", "simulations", "count"),
        Column("p", "that ranks are uniform"),
        Column("coverage_90", "share of ranks between 0.05 and 0.95"),
    ),
)

RECOVERY = Table(
    "recovery",
    "A row for each hypothesis, noise and parameter.",
    (
        LAW,
        *columns("noise parameter", "which", "text"),
        Column("truth", "the value that was simulated"),
        Column("mean", "mean of the posterior means"),
        Column("width", "mean width of the 95 % intervals"),
        Column("held", "share of the 95 % intervals that hold the truth"),
        Column("sims", "simulations", "count"),
    ),
)

CONFUSION = Table(
    "confusion",
    "A row for each simulation of a truth.",
    (
        *columns("truth kind", "the law that was simulated, and its kind", "text"),
        Column("noise", "level, walk or both", "text"),
        Column("n_seqs", "sequences", "count"),
        Column("averaged", "whether it is the control whose probabilities were averaged before the fit", "flag"),
        Column("selected", "the simplest law that survives, and its kind", "text", formerly="named"),
        Column("selected_kind", "the simplest law that survives, and its kind", "text", formerly="named_kind"),
        Column("verdict", "on `additive`", "text"),
    ),
)

VERDICTS = Table(
    "verdicts",
    "A row for each simulation of a truth that the model does not assume.",
    (
        Column("truth", "which truth", "text"),
        Column("n_seqs", "sequences", "count"),
        Column("verdict", "on `additive`", "text"),
        Column("selected", "the simplest law that survives", "text"),
        *columns("departure departure_high", "from a line, a share of the total update; upper bound of its interval"),
        Column("held", "whether delta's interval holds the slope of the best line", "flag"),
    ),
)

AVERAGING = Table(
    "averaging",
    "What averaging probabilities leaves of the log-odds of two coins.",
    (
        Column("n", "flips", "count"),
        Column("ratio", "log-odds of the mean probability over the mean log-odds"),
    ),
)

TABLES = {table.name: table for table in (OUTCOMES, RANKS, RANK_TESTS, RECOVERY, CONFUSION, AVERAGING, VERDICTS)}


def calibration_files(tables: dict[str, pd.DataFrame], checked: list[dict[str, Any]]) -> dict[str, bytes]:
    """The tables that are written, by name."""
    recovery = tables["recovery"]
    coverage = recovery.groupby(["hypothesis", "noise", "parameter"], sort=False).agg(
        truth=("truth", "first"), mean=("mean", "mean"), width=("width", "mean"), held=("held", "mean"),
        sims=("held", "size"),
    ).reset_index()  # fmt: skip
    written = {
        "ranks": tables["sbc"],
        "rank_tests": rank_tests(tables["sbc"]),
        "recovery": coverage,
        "confusion": tables["confusion"],
        "averaging": tables["averaging"],
        "verdicts": tables["verdicts"],
        "outcomes": pd.DataFrame(checked),
    }
    return {f"{name}.csv": TABLES[name].to_csv(table, float_format="%.6g") for name, table in written.items()}
