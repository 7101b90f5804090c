"""What `independence` leaves: its tables, and the words of its verdict."""

from __future__ import annotations

from bayes_icl.core.schemas import INTERVAL, Column, Table, columns

INDEPENDENT, NOT_INDEPENDENT, UNDECIDED, NO_UPDATE = "independent", "not_independent", "undecided", "no_update"

WORDS = (INDEPENDENT, NOT_INDEPENDENT, UNDECIDED, NO_UPDATE)

TASK = Column("task", "which", "text")

CURVES = Table(
    "curves",
    "A row for each curve and number of examples.",
    (
        TASK,
        Column("layers", "in which edges are cut; empty without a cut", "text"),
        Column("edges", "plain (none is cut), cut (between blocks) or control (as many elsewhere)", "text"),
        Column("size", "examples a block; NaN without a cut"),
        Column("n", "examples", "count"),
        Column("log_odds", "mean over sequences", ends=INTERVAL),
    ),
)

KEPT = Table(
    "kept",
    "A row for each size of blocks and layers in which edges are cut; NaN where there is no update.",
    (
        TASK,
        *columns("begin stop", "first layer with cut edges, and the one after the last", "count"),
        Column("layers", "the same in words", "text"),
        Column("size", "examples a block", "count"),
        Column("cut_edges", "share of the attention edges among tokens of examples that is cut"),
        Column("kept", "share of the update left when edges between blocks are cut", ends=INTERVAL),
        Column("control", "when as many are cut elsewhere", ends=INTERVAL),
        Column("beyond", "kept less control", ends=INTERVAL),
        *columns("kept_delta control_delta beyond_delta", "the same of delta, the slope on n", ends=INTERVAL),
    ),
)

VERDICTS = Table(
    "verdicts",
    "A row for each task.",
    (
        TASK,
        Column("verdict", "on blocks of one example, in all layers", "text", values=WORDS),
        Column("update", "from n_min to the most examples, without a cut", ends=INTERVAL),
        Column("kept", "share of it that blocks of one example keep", ends=INTERVAL),
        Column("control", "share that is kept when as many edges are cut elsewhere", ends=INTERVAL),
        Column("enough", "least examples a block that surely keep the update to 5 %; NaN if no size does"),
    ),
)

TABLES = {table.name: table for table in (CURVES, KEPT, VERDICTS)}
