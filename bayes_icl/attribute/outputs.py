"""What `attribute` leaves: names and columns of its tables."""

from __future__ import annotations

HEAD_COLUMNS = [
    *("task", "component", "kind", "layer", "head", "n_min"),
    *("slope", "slope_low", "slope_high", "share", "share_low", "share_high", "rise", "rise_low", "rise_high"),
    *("pooled", "pooled_low", "pooled_high", "false_sign", "stands_out"),
    *("delta", "delta_low", "delta_high", "accumulation", "c", "c_low", "c_high", "attention", "slope_examples"),
    *("top", "lost", "lost_low", "lost_high", "lost_held", "lost_held_low", "lost_held_high"),
]

ATTRIBUTE_TABLES = ("heads", "ablation", "repair")

NUMBERS = ("delta", "lost", "delta_curve", "lost_curve", "direct", "predicted")

ABLATION_COLUMNS = [
    *("task", "way", "set", "heads", "n_heads", "norm", "n_seqs"),
    *(f"{name}{end}" for name in NUMBERS for end in ("", "_low", "_high")),
]

REPAIRED = ("predicted", "other_heads", "mlps", "norm", "lost")

REPAIR_COLUMNS = ["task", "way", *(f"{name}{end}" for name in REPAIRED for end in ("", "_low", "_high"))]
