"""What an effect must reach to count, in one place; no torch, so that figures and pages can read it."""

from __future__ import annotations

PAIRS_LEAST = 4
"""Pairs of runs; with fewer, no half of them has an interval."""

RULE_LEAST = 0.5
"""Rule gain, nats, that there must be, or there is nothing to carry and nothing to explain."""

LEFT_LEAST = 0.25
"""Share of the rule gain that must be left, or it cannot be told who takes over."""

BACKUP_LEAST = 0.05
"""Share of the rule gain by which the cost of a backup head grows at least."""

BEFORE_MOST = 0.05
"""Share of the rule gain that a backup head's ablation costs at most while the others are there."""

BACKUP_ALPHA = 0.05
"""Chance that a round names any head though none is a backup."""

STEP_LEAST = 0.1
"""Share of the rule gain below which a step is not needed."""

ATTENDING_LEAST = 0.1
"""Attention mass of a role that a head of a step must have more than."""
