"""What `addition` leaves: its tables."""

from __future__ import annotations

from bayes_icl.core.schemas import INTERVAL, Column, Table, columns

TASK = Column("task", "which", "text")
PART = Column("part", "task, the same with answers permuted, or rule: the first less the second", "text")
LAYER = Column("layer", "block into which the stream goes; the number of layers for the final norm")

LAYERS = Table(
    "layers",
    "A row for each part of a task and layer: how the stream h(n) - h(1) moves where the answer is read; NaN where it "
    "does not surely move.",
    (
        TASK,
        PART,
        Column("layer", "block into which the stream goes; the number of layers for the final norm", "count"),
        Column("size", "length of the movement at the last shot, relative to the stream", ends=INTERVAL),
        *columns(
            "line log step", "share of the movement along n - 1, log n, or a step after one example", ends=INTERVAL
        ),
        Column("rank1", "share along one direction, with any amounts", ends=INTERVAL),
        Column("cosine", "of the movement over the first examples and over the last half", ends=INTERVAL),
        Column("late_over_early", "length moved per example, in the last half over the first", ends=INTERVAL),
        Column("p", "of no movement"),
        Column("moves", "p below 0.05 over the number of layers", "flag"),
        Column("verdict", "on the amounts, as `fit` gives it on log-odds; no_movement; not_fitted", "text"),
        *columns(
            "selected survivors", "the simplest law that survives; all that do when a sequence is left out", "text"
        ),
        *columns("departure second_half", "of the amounts, as in verdict.json", ends=INTERVAL),
    ),
)

AMOUNTS = Table(
    "amounts",
    "A row for each part of a task that moves, layer and number of examples.",
    (
        TASK,
        PART,
        Column("layer", "block into which the stream goes; the number of layers for the final norm", "count"),
        Column("n", "examples", "count"),
        Column("amount", "along what an example adds on average, in units of it", ends=INTERVAL),
        Column("fitted", "mean curve without a law, from one example on; NaN where none was fitted"),
    ),
)

DOSES = Table(
    "doses",
    "A row for each vector, layer and dose.",
    (
        TASK,
        Column("vector", "what is added: task, rule, permuted, other task, random; or real examples", "text"),
        LAYER,
        Column("dose", "examples' worth", "count"),
        Column("rise", "of the log-odds, nats", ends=INTERVAL),
    ),
)

SLOPES = Table(
    "slopes",
    "A row for each vector and layer.",
    (
        TASK,
        Column("vector", "what is added", "text"),
        Column("layer", "block into which it is added; the number of layers for the final norm", "count"),
        Column("slope", "of the log-odds on the dose, nats per example's worth", ends=INTERVAL),
        Column("beyond_random", "slope less that of a random direction", ends=INTERVAL),
        Column("missed", "share of what real examples raise that adding misses, root mean square over doses"),
        Column("beyond", "surely steeper than a random direction, over all layers", "flag"),
    ),
)

TABLES = {table.name: table for table in (LAYERS, AMOUNTS, DOSES, SLOPES)}
