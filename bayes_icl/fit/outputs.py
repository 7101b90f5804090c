"""What `fit` leaves: tables, fits, verdicts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayes_icl.core.files import file_name
from bayes_icl.core.schemas import INTERVAL, POSTERIOR, Column, Table, columns
from bayes_icl.hypotheses.law import law_called
from bayes_icl.inference.scores import Score
from bayes_icl.inference.selection import FEW_SEQS, SMALL_DIFF, best_of, p_worse
from bayes_icl.inference.survival import doubt_of, survivors

# Verdicts beside which no number is to be relied on.
WITHOUT_VERDICT = ("refused", "not_asked")

CURVE = (
    Column("task", "which curve", "text"),
    Column("readout", "which curve", "text"),
    Column("n_min", "which curve", "count"),
)

COMPARISON = Table(
    "comparison",
    "A row for each task, readout, n_min and hypothesis.",
    (
        *CURVE,
        Column("hypothesis", "which law", "text"),
        *columns("elpd_logo se", "log predictive density of sequences left out, summed, and its standard error"),
        *columns(
            "elpd_diff diff_se",
            "its difference from the best rival, negative when worse, and the standard error of that over sequences",
        ),
        Column("p_worse", "probability that it predicts worse than the best, from the two"),
        Column("few_seqs", "fewer than 100 sequences: the standard errors may be too small", "flag"),
        Column("small_diff", "less than 4 nats from the best: not told from it", "flag"),
        Column("mcse", "Monte Carlo standard error of elpd_logo"),
        Column("above_median", "of rivals that can be relied on: how far the best is above the median one"),
        Column("by_chance", "how far it would be if none were better than that one (McLatchie and Vehtari 2024)"),
        Column("survivor", "within max(4 nats, 2 standard errors) of the best", "flag"),
        *columns("elpd_lfo lfo_diff lfo_diff_se", "the same for the second half of the shots, left out"),
        Column("survivor_lfo", "the same for the second half of the shots, left out", "flag"),
        Column("pareto_k_max", "largest Pareto k of a sequence that was not refitted"),
        Column("refits", "sequences scored by an exact refit", "count"),
        Column("rhat_max", "of NUTS"),
        Column("ess_bulk_min", "of NUTS; of the fast engine its effective number of draws"),
        Column("divergences", "of NUTS", "count"),
        Column("engine", "fast or nuts", "text"),
        Column("k_hat", "Pareto k of the fast engine's weights"),
        Column("faults", "why the fit cannot be relied on; empty where it can", "text"),
        Column("gap_to_freeform", "elpd_logo less that of the free mean"),
        Column("log_marginal", "log marginal likelihood; it hangs on the priors, and no verdict on it"),
        Column("coverage_ahead", "share of the second half's values inside their 95 % predictive intervals"),
        Column("lag", "lag-1 autocorrelation of the updates, and what 99 % of replicates have", ends=INTERVAL),
    ),
    {".*_(mean|hdi_low|hdi_high)": "mean and 95 % highest-density interval of every parameter"},
)

HISTORY = replace(
    COMPARISON,
    name="history",
    about="A row for each task and law of history, on curves whose examples disagree or whose observer is known.",
)

SENSITIVITY = Table(
    "sensitivity",
    "A row for each task and setting: how the verdict of verdict.json hangs on n_min, readout and noise.",
    (
        *CURVE,
        Column("noise", "normal or student", "text"),
        Column("verdict", "on `additive`", "text"),
        Column("selected", "the simplest survivor; of equals the best", "text", formerly="named"),
        Column("departure", "from a line, a share of the total update", ends=INTERVAL),
        Column("total", "total update, nats", ends=INTERVAL),
        Column("second_half", "adds this share of what the first half adds", ends=INTERVAL),
        Column("delta", "slope of the best line, nats per example", ends=POSTERIOR),
        Column("seqs_needed", "sequences to decide, when undecided"),
        Column("headline", "whether this is the setting of the verdict", "flag"),
    ),
)

CHECKS = Table(
    "checks",
    "A row for each check of a headline curve that knows of none of the models.",
    (
        *columns("check quantity", "which", "text"),
        *columns("estimate se low high", "the quantity, its standard error and its 95 % interval"),
        Column("p", "that the quantity is 0"),
        Column("p_holm", "the same, corrected over all tasks by Holm's method"),
        Column("note", "why there is no answer", "text"),
        *CURVE,
    ),
)

ENGINES = Table(
    "engines",
    "A row for each parameter that both engines gave.",
    (
        *columns("task hypothesis parameter", "which", "text"),
        *columns("mean_fast mean_nuts sd_fast sd_nuts", "posterior means and sds"),
        Column("shift", "difference of the means in sds of NUTS"),
        Column("shift_se", "its Monte Carlo error"),
        Column("sd_ratio", "of the fast engine over NUTS"),
    ),
)

PIT = Table(
    "pit",
    "A row for each sequence of a headline curve, statistic and law (additive and the one selected): where it lies "
    "among new sequences, predicted by the law without it.",
    (
        *CURVE,
        Column("hypothesis", "which law", "text"),
        Column(
            "statistic",
            "slope of the best line, quadratic contrast, or squared distance from the mean curve in the metric of the "
            "noise",
            "text",
        ),
        Column("seq", "which sequence", "count"),
        Column("pit", "probability integral transform: share of new sequences with less"),
        Column("pareto_k", "Pareto k of the weights without it"),
    ),
)

PIT_TESTS = Table(
    "pit_tests",
    "A row for each law and statistic of pit.csv: whether its values are uniform, as they are where the law holds.",
    (
        *CURVE,
        *columns("hypothesis statistic", "as in pit.csv", "text"),
        Column("n_seqs", "number of sequences", "count"),
        Column("p", "that values are uniform"),
        Column("p_holm", "the same, corrected over all rows by Holm's method"),
    ),
)

POWER_SCALING = Table(
    "power_scaling",
    "A row for each parameter of additive, of the law selected and of freeform on headline curves: how the posterior "
    "moves when the prior, or the likelihood, is raised to a power near 1.",
    (
        *CURVE,
        *columns("hypothesis parameter", "which", "text"),
        *columns(
            "prior_sensitivity likelihood_sensitivity",
            "distance by which the posterior moves for each doubling (arviz.psens; above 0.05 is much)",
        ),
        Column("diagnosis", "what both say; empty where the data decide", "text"),
    ),
)

NOISE = Table(
    "noise",
    "A row for each shot of a headline curve: the noise there, seen and expected.",
    (
        *CURVE,
        Column("shot", "number of examples", "count"),
        Column("sd", "over sequences, of log-odds less the mean curve and each sequence's own line", ends=INTERVAL),
        Column("expected", "the same as the fit of freeform expects it", ends=INTERVAL),
    ),
)

TABLES = {
    table.name: table
    for table in (COMPARISON, HISTORY, SENSITIVITY, CHECKS, ENGINES, PIT, PIT_TESTS, POWER_SCALING, NOISE)
}


def comparison_table(scores: Sequence[Score]) -> pd.DataFrame:
    """One row per task, readout, n_min and hypothesis: the columns of `COMPARISON`, parameters' means and intervals.

    Differences are to the best rival, negative when worse, nats; `gap_to_freeform` is to the free mean.
    """
    same = ("pareto_k_max", "refits", "rhat_max", "ess_bulk_min", "divergences", "engine", "k_hat")
    checks = ("log_marginal", "coverage_ahead", "lag", "lag_low", "lag_high")
    rows = []
    for group in _by_curve(scores):
        alive, distance = survivors(group, "elpd_logo")
        alive_lfo, distance_lfo = survivors(group, "elpd_lfo")
        best = best_of([s.elpd_logo.sum() for s in group if s.hypothesis in distance and _is_rival(s)])
        ceiling = next((s.elpd_logo.sum() for s in group if law_called(s.hypothesis).ceiling), math.nan)
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
                    "p_worse": p_worse(d, se),
                    "few_seqs": len(s.elpd_logo) < FEW_SEQS,
                    "small_diff": -SMALL_DIFF < d < 0,
                    "mcse": s.mcse,
                    "above_median": best.above,
                    "by_chance": best.by_chance,
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
    return COMPARISON.frame(rows)


def _is_rival(score: Score) -> bool:
    """Whether a law may be the best: not the free mean, and its fit can be relied on."""
    return law_called(score.hypothesis).rival and not doubt_of(score)


def _by_curve(scores: Sequence[Score]) -> list[list[Score]]:
    groups: dict[tuple[str, str, int], list[Score]] = {}
    for s in scores:
        groups.setdefault((s.task, s.readout, s.n_min), []).append(s)
    return list(groups.values())


def sensitivity_table(verdicts: Mapping[str, dict]) -> pd.DataFrame:
    """One row a task and setting: how the verdict of verdict.json hangs on n_min, readout and noise."""
    rows = []
    for task, headline in verdicts.items():
        for verdict in (headline, *headline["others"]):
            delta = verdict["delta"] or {"mean": math.nan, "hdi_low": math.nan, "hdi_high": math.nan}
            rows.append(
                {
                    "task": task,
                    **{name: verdict[name] for name in ("readout", "n_min", "noise", "verdict", "selected")},
                    **{
                        f"{what}{end}": (verdict.get(what) or {}).get(key, math.nan)
                        for what in ("departure", "total", "second_half")
                        for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))
                    },
                    **{f"delta_{name}": value for name, value in delta.items()},
                    "seqs_needed": verdict["seqs_needed"],
                    "headline": verdict is headline,
                }
            )
    return pd.DataFrame(rows)


def fit_file(task: str, hypothesis: str) -> str:
    """The name of a fit's file."""
    return f"{file_name(task)}__{hypothesis}.nc"


def verdicts_of(content: Any) -> Any:
    """Verdicts from the content of verdict.json, names of before made those of now.

    Files of before say ``named`` where this version says ``selected``.
    """
    if isinstance(content, dict):
        return {{"named": "selected"}.get(key, key): verdicts_of(value) for key, value in content.items()}
    return [verdicts_of(one) for one in content] if isinstance(content, list) else content


def read_verdicts(out: Path) -> dict[str, dict[str, Any]]:
    """Verdicts by task, from the folder of the fits."""
    return verdicts_of(json.loads((out / "verdict.json").read_text(encoding="utf-8")))
