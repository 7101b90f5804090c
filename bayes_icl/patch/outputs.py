"""What `patch` leaves: names and columns of its tables, variables of its file."""

from __future__ import annotations

PATCH_TABLES = ("transfer", "rounds", "backups", "redundancy", "halves", "heads", "mlps", "steps")

PATCH_COLUMNS: dict[str, list[str]] = {
    "backups": ["task", "round", "component", "layer", "head", "p_holm", "growth", "mode", "n_seqs"],
    "mlps": ["task", "layer", "place", "readout", "kind", "lost", "lost_low", "lost_high"],
    "steps": ["task", "step", "verdict", "what", "kind", "decides", "share", "share_low", "share_high"],
}
"""Of tables that may have no row."""

DESCRIBED = {
    "transfer_own": "log-odds of the right answer to B's own query, A's residual stream being put into B at each point",
    "transfer_other": "log-odds of A's answer after B, likewise",
    "log_odds_a": "A's own log-odds",
    "log_odds_b": "log-odds of B's right answer without a patch",
    "lost_alone": "what the log-odds lose when one head is ablated",
}
