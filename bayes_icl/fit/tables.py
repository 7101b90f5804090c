"""The tables of `fit` as a paper shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.fit.outputs import CHECKS, COMPARISON, ENGINES, PIT_TESTS, POWER_SCALING, SENSITIVITY, WITHOUT_VERDICT
from bayes_icl.hypotheses.law import label_of
from bayes_icl.writing import columns
from bayes_icl.writing.tables import (
    PaperTable,
)


def verdict_table(verdicts: Mapping[str, dict], comparison: pd.DataFrame, checks: pd.DataFrame) -> PaperTable:
    """The headline verdicts: a row a task.

    Parameters
    ----------
    verdicts
        verdict.json.
    comparison, checks
        comparison.csv and checks.csv; without rows where nothing was fitted.
    """
    rows = []
    for task, verdict in verdicts.items():
        setting = {"task": task, "readout": verdict["readout"], "n_min": verdict["n_min"]}
        sound = verdict["verdict"] not in WITHOUT_VERDICT
        score = _row_where(comparison, **setting, hypothesis="additive")
        departure, half = (((sound and verdict.get(name)) or {}) for name in ("departure", "second_half"))
        check = _row_where(checks, **setting, check="departure by polynomials")
        rows.append(
            {
                **setting,
                "verdict": verdict["verdict"],
                # Of a refused fit neither is to be relied on.
                **{f"delta_{end}": ((sound and verdict["delta"]) or {}).get(end, math.nan) for end in ("mean", *HDI)},
                "selected": verdict["selected"] if sound else None,
                **{name: score.get(name, math.nan) for name in ("elpd_diff", "diff_se")},
                "total": ((sound and verdict.get("total")) or {}).get("mean", math.nan),
                **{
                    f"{name}_{end}": size * found.get(end, math.nan)
                    for name, found, size in (("departs", departure, 100), ("half", half, 1))
                    for end in ("mean", "low", "high")
                },
                "by_polynomials": 100 * check.get("estimate", math.nan),
                "survivors": ", ".join(verdict["survivors"]),
                "seqs_needed": verdict["seqs_needed"],
            }
        )
    settings = dict.fromkeys((verdict["readout"], verdict["n_min"]) for verdict in verdicts.values())
    words = " or ".join(f"{readout}, n \u2265 {n_min}" for readout, n_min in settings)
    several = "task; readout; n from = n_min"
    return PaperTable(
        "verdicts",
        "Verdicts",
        f"The additive update under the readout {words}: by how much the mean curve departs from its best line, "
        "percent of the total update; the same by polynomials, without a model of the noise; the total update, nats; "
        "what the second half of the examples adds as a share of what the first half adds (1 for a line); delta, the "
        f"slope of the best line, nats per example. Means and {LEVEL_WORDS} highest-density intervals. How far "
        "additive is from the best law when a sequence is left out, nats (SE); all laws that survive, the simplest of "
        "which is selected.",
        "verdict.json",
        pd.DataFrame(rows),
        (
            *(columns.shown(SENSITIVITY, several) if len(settings) > 1 else columns.shown(SENSITIVITY, "task")),
            *columns.shown(SENSITIVITY, "additive = verdict"),
            columns.interval("departs, %", "departs_mean", ".1f", ends=("departs_low", "departs_high")),
            columns.number("by polynomials", "by_polynomials", ".1f"),
            columns.number("total", "total", ".1f"),
            columns.interval("second half", "half_mean", ".2f", ends=("half_low", "half_high")),
            *columns.shown(SENSITIVITY, "delta; law selected = selected"),
            columns.Column("from best (SE)", _from_best),
            columns.text("survivors", "survivors"),
        ),
    )


HDI = ("hdi_low", "hdi_high")


def _row_where(table: pd.DataFrame, **values: Any) -> dict[str, Any]:
    """The first row with these values, empty if there is none."""
    if table.empty:
        return {}
    at = pd.concat([table[name] == value for name, value in values.items()], axis=1).all(axis=1)
    return table[at].iloc[0].to_dict() if at.any() else {}


def _from_best(row: Any) -> str:
    behind, se = (columns.number_cell(x, ".1f") for x in (row.elpd_diff, row.diff_se))
    return behind if behind == columns.NOTHING else f"{behind} ({se})"


def comparison_tables(verdicts: Mapping[str, dict], comparison: pd.DataFrame) -> list[PaperTable]:
    """The hypotheses under the headline's setting, best first: a table a task that was fitted."""
    tables = []
    for task, verdict in verdicts.items():
        if comparison.empty:
            continue
        at = (comparison.task == task) & (comparison.readout == verdict["readout"])
        own = comparison[at & (comparison.n_min == verdict["n_min"])].sort_values("elpd_diff", ascending=False)
        if own.empty:
            continue
        tables.append(
            PaperTable(
                f"comparison_{file_name(task)}",
                f"Hypotheses on {task}",
                f"{task}, readout {verdict['readout']}, n \u2265 {verdict['n_min']}: differences from the best "
                "hypothesis when a sequence, or the future half of all, is left out, nats; which of the two scores a "
                "hypothesis survives; the probability that it predicts worse than the best, whether it is less than "
                "4 nats from it, and the Monte Carlo error of its score, nats; effective sample size and Pareto k; how "
                f"much of the future the {LEVEL_WORDS} intervals cover.",
                "comparison.csv",
                own,
                (
                    columns.Column("hypothesis", _hypothesis, number=False),
                    *columns.shown(COMPARISON, "left-out seq = elpd_diff .1f; SE = diff_se .1f"),
                    *columns.shown(COMPARISON, "left-out future = lfo_diff .1f; SE = lfo_diff_se .1f"),
                    columns.Column("survives", _survives, number=False),
                    *columns.shown(COMPARISON, "p worse = p_worse .2f; < 4 = small_diff; MCSE = mcse .2f"),
                    *columns.shown(COMPARISON, "engine; ESS = ess_bulk_min .0f; k = pareto_k_max .2f"),
                    *columns.shown(COMPARISON, "covers = coverage_ahead .2f"),
                ),
            )
        )
    return tables


def history_table(history: pd.DataFrame) -> PaperTable:
    """Laws of history on every task whose examples disagree, best first."""
    own = history.sort_values(["task", "elpd_diff"], ascending=[True, False])
    return PaperTable(
        "history",
        "Laws of history",
        "Laws of what the examples showed: differences from the best when a sequence, or the future half of all, is "
        "left out, nats; which of the two scores a law survives. The parameters of each stand in history.csv.",
        "history.csv",
        own,
        (
            *columns.shown(COMPARISON, "task; readout"),
            columns.Column("law", _hypothesis, number=False),
            *columns.shown(COMPARISON, "left-out seq = elpd_diff .1f; SE = diff_se .1f"),
            *columns.shown(COMPARISON, "left-out future = lfo_diff .1f; SE = lfo_diff_se .1f"),
            columns.Column("survives", _survives, number=False),
            *columns.shown(COMPARISON, "ESS = ess_bulk_min .0f; k = pareto_k_max .2f"),
        ),
    )


def _hypothesis(row: Any) -> str:
    return columns.one_line(label_of(row.hypothesis))


def _survives(row: Any) -> str:
    words = {(True, True): "both", (True, False): "seq", (False, True): "future", (False, False): columns.NOTHING}
    return words[bool(row.survivor), bool(row.survivor_lfo)]


def sensitivity_table(sensitivity: pd.DataFrame) -> PaperTable:
    """The verdict under every setting, from sensitivity.csv."""
    return PaperTable(
        "sensitivity",
        "Verdicts under other settings",
        f"How the verdict on the additive update, the law selected and delta (nats per example, {LEVEL_WORDS} "
        "highest-density interval) hang on the readout, the first n and the noise; and how many sequences "
        "would decide.",
        "sensitivity.csv",
        sensitivity,
        (
            *columns.shown(
                SENSITIVITY,
                "task; readout; n from = n_min; noise; additive = verdict; law selected = selected; delta",
            ),
            *columns.shown(SENSITIVITY, "seqs_needed .0f; headline"),
        ),
    )


def checks_table(checks: pd.DataFrame) -> PaperTable:
    """The frequentist checks that have an answer, from checks.csv."""
    return PaperTable(
        "checks",
        "Frequentist checks",
        f"Quick checks of the headline curves without a prior: estimate, {LEVEL_WORDS} interval, p, and p corrected "
        "over all tasks.",
        "checks.csv",
        checks,
        (
            *columns.shown(CHECKS, "task; check; what = quantity"),
            columns.interval("estimate", "estimate", ".4g", ends=("low", "high")),
            *columns.shown(CHECKS, "p p; p, Holm = p_holm p"),
        ),
        checks[checks.estimate.notna()] if len(checks) else checks,
    )


def engines_table(engines: pd.DataFrame) -> PaperTable:
    """The two engines beside each other, from engines.csv: of every fit, the parameter that is furthest off."""
    shown = engines
    if len(engines):
        furthest = engines["shift"].abs().groupby([engines.task, engines.hypothesis], sort=False).idxmax()
        shown = engines.loc[furthest]
    return PaperTable(
        "engines",
        "The fast engine beside NUTS",
        "Of every fit by both engines, the parameter whose posterior means are furthest apart: the shift in posterior "
        "sds with its Monte Carlo error, and the ratio of the sds. The CSV has all parameters.",
        "engines.csv",
        engines,
        (
            *columns.shown(
                ENGINES, "task; hypothesis; parameter; mean, fast = mean_fast .4g; mean, NUTS = mean_nuts .4g"
            ),
            *columns.shown(ENGINES, "sd, fast = sd_fast .3g; sd, NUTS = sd_nuts .3g; shift; SE = shift_se; sd_ratio"),
        ),
        shown,
    )


def pit_tests_table(pit_tests: pd.DataFrame) -> PaperTable:
    """Whether laws predict sequences left out, from pit_tests.csv."""
    return PaperTable(
        "pit_tests",
        "Sequences left out, as laws predict them",
        "Whether the probability integral transforms of sequences left out are uniform: of their slope, of their "
        "quadratic contrast, and of their distance from the mean curve in the metric of the noise; p, and p corrected "
        "over all rows. Small values: the law's curve (contrast) or the noise (distance) is not that of the data.",
        "pit_tests.csv",
        pit_tests,
        tuple(
            columns.shown(PIT_TESTS, "task; law = hypothesis; statistic; sequences = n_seqs; p p; p, Holm = p_holm p")
        ),
    )


def power_scaling_table(power_scaling: pd.DataFrame) -> PaperTable:
    """How posteriors move with the power of prior and likelihood, from power_scaling.csv."""
    return PaperTable(
        "power_scaling",
        "Sensitivity to priors",
        "How far a posterior moves when its prior, or its likelihood, is raised to a power near 1 (power-scaling "
        "sensitivity, Kallioinen et al. 2024): above 0.05 it hangs on it. The data are to decide, not the prior.",
        "power_scaling.csv",
        power_scaling,
        tuple(
            columns.shown(
                POWER_SCALING,
                "task; law = hypothesis; parameter; prior = prior_sensitivity; "
                "likelihood = likelihood_sensitivity; diagnosis",
            )
        ),
    )


POOLED = {"mu": "mean over tasks like these", "tau": "sd over tasks", "new_task": "a further task"}

OF_FAMILIES = {
    "mu": "mean over families like these",
    "tau": "sd over tasks of a family",
    "tau_family": "sd over families",
    "new_task": "a task of a further family",
}


def pooled_rows(pooled: Mapping[str, Any]) -> list[tuple[str, Sequence[float]]]:
    """What pooling says beside each task's delta, in words, with mean and interval; of a pooled.json of before too."""
    families = pooled.get("families") or {}
    words = OF_FAMILIES if families else POOLED
    return [
        *((text, pooled[name]) for name, text in words.items()),
        *((f"mean of {family}", three) for family, three in families.items()),
    ]


def pooled_table(pooled: Mapping[str, Any]) -> PaperTable:
    """Delta over tasks, from pooled.json; without rows, and with the reason, where pooling was refused."""
    rows = []
    if "refused" not in pooled:
        for what, three in [*pooled_rows(pooled), *pooled["deltas"].items()]:
            alone = pooled["alone"].get(what, {})
            numbers = {name: alone[name] for name in ("mean", "sd") if name in alone}
            rows.append({"what": what, **dict(zip(("mean", "low", "high"), three)), **_named("alone", numbers)})
    return PaperTable(
        "pooled",
        "Delta over tasks",
        pooled.get("refused")
        or "Delta, the mean slope over sequences, nats per example, with partial pooling over tasks and their "
        f"families: posterior means and {LEVEL_WORDS} intervals; beside them, what each task says alone, mean and "
        "standard error.",
        "pooled.json",
        pd.DataFrame(rows, columns=["what", "mean", "low", "high", "alone_mean", "alone_sd"]),
        (
            columns.text("", "what"),
            columns.interval("pooled", "mean", ends=("low", "high")),
            columns.number("alone", "alone_mean"),
            columns.number("SE", "alone_sd"),
        ),
    )


def _named(prefix: str, numbers: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": x for name, x in numbers.items()}
