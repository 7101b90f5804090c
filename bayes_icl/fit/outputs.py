"""What `fit` leaves: tables, fits, verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bayes_icl.core.files import file_name
from bayes_icl.fit.checks import CHECK_COLUMNS
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.inference.scores import Score
from bayes_icl.inference.survival import survivors

COMPARISON_COLUMNS = [
    *("task", "readout", "n_min", "hypothesis", "elpd_logo", "se", "elpd_diff", "diff_se", "survivor"),
    *("elpd_lfo", "lfo_diff", "lfo_diff_se", "survivor_lfo"),
    *("pareto_k_max", "refits", "rhat_max", "ess_bulk_min", "divergences", "engine", "k_hat", "faults"),
    *("gap_to_freeform", "log_marginal", "nrmse", "nrmse_ahead", "coverage_ahead", "lag", "lag_low", "lag_high"),
]

FIT_TABLES: dict[str, list[str]] = {
    "comparison": COMPARISON_COLUMNS,
    "sensitivity": [
        *("task", "readout", "n_min", "priors", "noise", "verdict", "named", "seqs_needed", "headline"),
        *("delta_mean", "delta_hdi_low", "delta_hdi_high"),
    ],
    "checks": [*CHECK_COLUMNS, "task"],
    "engines": ["task", "hypothesis", "parameter", "shift", "shift_se", "sd_ratio"],
}
"""What is read of each table."""


def comparison_table(scores: Sequence[Score]) -> pd.DataFrame:
    """One row per task, readout, n_min and hypothesis, with `COLUMNS`, then its parameters' means and intervals.

    Differences are to the best rival, negative when worse, nats; `gap_to_freeform` is to the ceiling.
    """
    same = ("pareto_k_max", "refits", "rhat_max", "ess_bulk_min", "divergences", "engine", "k_hat")
    checks = ("log_marginal", "nrmse", "nrmse_ahead", "coverage_ahead", "lag", "lag_low", "lag_high")
    rows = []
    for group in _by_curve(scores):
        alive, distance = survivors(group, "elpd_logo")
        alive_lfo, distance_lfo = survivors(group, "elpd_lfo")
        ceiling = next((s.elpd_logo.sum() for s in group if HYPOTHESES[s.hypothesis].ceiling), math.nan)
        for s in group:
            d, se = distance.get(s.hypothesis, (math.nan, math.nan))
            d_lfo, se_lfo = distance_lfo.get(s.hypothesis, (math.nan, math.nan))
            rows.append(
                {
                    "task": s.task,
                    "readout": s.readout,
                    "n_min": s.n_min,
                    "hypothesis": s.hypothesis,
                    "elpd_logo": s.elpd_logo.sum(),
                    "se": np.sqrt(len(s.elpd_logo)) * s.elpd_logo.std(ddof=1),
                    "elpd_diff": d,
                    "diff_se": se,
                    "survivor": s.hypothesis in alive,
                    "elpd_lfo": s.elpd_lfo.sum(),
                    "lfo_diff": d_lfo,
                    "lfo_diff_se": se_lfo,
                    "survivor_lfo": s.hypothesis in alive_lfo,
                    **{name: getattr(s, name) for name in same},
                    "faults": "; ".join(s.faults),
                    "gap_to_freeform": s.elpd_logo.sum() - ceiling,
                    **{name: getattr(s, name) for name in checks},
                    **{
                        f"{name}_{end}": value
                        for name, interval in s.intervals.items()
                        for end, value in zip(("mean", "hdi_low", "hdi_high"), interval)
                    },
                }
            )
    return pd.DataFrame(rows, columns=None if rows else COMPARISON_COLUMNS)


def _by_curve(scores: Sequence[Score]) -> list[list[Score]]:
    groups: dict[tuple[str, str, int], list[Score]] = {}
    for s in scores:
        groups.setdefault((s.task, s.readout, s.n_min), []).append(s)
    return list(groups.values())


def sensitivity_table(verdicts: Mapping[str, dict]) -> pd.DataFrame:
    """One row a task and setting: how the verdict of verdict.json hangs on n_min, readout, priors and noise."""
    rows = []
    for task, headline in verdicts.items():
        for verdict in (headline, *headline["others"]):
            delta = verdict["delta"] or {"mean": math.nan, "hdi_low": math.nan, "hdi_high": math.nan}
            rows.append(
                {
                    "task": task,
                    **{name: verdict[name] for name in ("readout", "n_min", "priors", "noise", "verdict", "named")},
                    **{f"delta_{name}": value for name, value in delta.items()},
                    "seqs_needed": verdict["seqs_needed"],
                    "headline": verdict is headline,
                }
            )
    return pd.DataFrame(rows)


def fit_file(task: str, hypothesis: str) -> str:
    """The name of a fit's file."""
    return f"{file_name(task)}__{hypothesis}.nc"
