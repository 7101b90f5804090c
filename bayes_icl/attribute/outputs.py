"""What `attribute` leaves: its tables."""

from __future__ import annotations

from bayes_icl.core.schemas import INTERVAL, Column, Table, columns

VALUES = ("mean", "mean_over_shots")

HEADS = Table(
    "heads",
    "A row for each component. The heads come first, then MLPs, other mixers, embedding, biases and entropy, last "
    "their sum.",
    (
        Column("task", "which", "text"),
        *columns(
            "component kind",
            "which; `kind` is head, mlp, other (a mixer that is not attention, a second MLP), rest or all",
            "text",
        ),
        *columns("layer head", "of a head, an MLP or another mixer"),
        Column("n_min", "the first shot that counts", "count"),
        *columns(
            "slope share",
            "part of delta, nats per example, and as a share of it; the rows add up to the last",
            ends=INTERVAL,
        ),
        *columns(
            "line_slope line_share",
            "the same along the line from the mean stream at n_min, of heads and MLPs; the JSON has the rest",
            ends=INTERVAL,
        ),
        Column("rise", "effect at the last shot less that at n_min", ends=INTERVAL),
        Column("pooled", "slope drawn towards the other heads'", ends=INTERVAL),
        Column("false_sign", "chance that the sign of the pooled slope is wrong"),
        Column(
            "stands_out",
            "more than 95 % of the posterior, pooled over heads, lies beyond 5 % of delta on one side",
            "flag",
        ),
        Column("delta", "of the head's own fit: update under `additive`", ends=INTERVAL),
        Column("accumulation", "how the head's effect grows: none, linear, averaging, other, undecided", "text"),
        Column("c", "of the head's own fit: c of `pooling`, examples", ends=INTERVAL),
        Column("attention", "attention mass on the examples, at the last shot"),
        Column("slope_examples", "part of the slope written from earlier examples"),
        *columns(
            "total total_share",
            "part of delta that the head adds in all, through MLPs and later heads too, nats per example, and as a "
            "share; the row `all` is delta less delta with all heads at their reference",
            ends=INTERVAL,
        ),
        *columns(
            "joint joint_share",
            "the same of heads and MLPs, which share what an MLP makes of a head's output",
            ends=INTERVAL,
        ),
        Column("total_stands_out", "as `stands_out`, of `total`", "flag"),
        Column("total_examples", "part of `total` from attention to earlier examples, at whatever token"),
        Column("top", "among those ablated", "flag"),
        Column("lost", "what goes when it alone is mean-ablated, shot by shot", ends=INTERVAL),
        Column(
            "lost_over_shots",
            "what goes when it alone is mean-ablated over shots: the exact counterpart of `total`",
            ends=INTERVAL,
            formerly="lost_held",
        ),
    ),
)

ABLATION = Table(
    "ablation",
    "A row for each set of heads ablated.",
    (
        Column("task", "which", "text"),
        Column(
            "value", "ablation value: mean (shot by shot) or mean_over_shots", "text", formerly="way", values=VALUES
        ),
        Column("set", "none, top, placebo 1, ..., or one head", "text"),
        Column("heads", "those of the set", "text"),
        Column("n_heads", "how many", "count"),
        Column("norm", "of what is ablated"),
        Column("n_seqs", "sequences that were measured", "count"),
        *columns("delta lost", "delta fitted again without them; slope that is lost", ends=INTERVAL),
        *columns("delta_curve lost_curve", "the same of the whole answer", ends=INTERVAL),
        *columns("direct predicted", "slope that the heads write; of what is ablated", ends=INTERVAL),
    ),
)

REPAIR = Table(
    "repair",
    "A row for each task and way of ablation: from what goes with the top heads to what is lost.",
    (
        Column("task", "which", "text"),
        Column(
            "value", "ablation value: mean (shot by shot) or mean_over_shots", "text", formerly="way", values=VALUES
        ),
        Column("predicted", "direct effects that go", ends=INTERVAL),
        *columns("other_heads mlps norm", "what other heads, MLPs, the norm and rivals change", ends=INTERVAL),
        Column("lost", "what is lost", ends=INTERVAL),
    ),
)

TABLES = {table.name: table for table in (HEADS, ABLATION, REPAIR)}
