"""What is said of how far laws are told apart, of their fit and of their priors; for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.inference.selection import FEW_SEQS, SMALL_DIFF
from bayes_icl.writing.columns import p_cell
from bayes_icl.writing.numbers import code, listed

ALPHA = 0.05  # of tests over all tasks together


def selection_sentences(verdicts: Mapping[str, Mapping[str, Any]], comparison: pd.DataFrame) -> list[str]:
    """Whether the best law is told from the others; a line a task, then what is true of all.

    Parameters
    ----------
    verdicts, comparison
        verdict.json and comparison.csv.
    """
    lines, few = [], []
    for task, verdict in verdicts.items():
        own = comparison[
            (comparison.task == task)
            & (comparison.readout == verdict["readout"])
            & (comparison.n_min == verdict["n_min"])
            & ~comparison.hypothesis.isin([name for name, law in HYPOTHESES.items() if law.ceiling])
        ]
        known = own[own.elpd_diff.notna()].sort_values("elpd_diff", ascending=False)
        if len(known) < 2:
            continue
        best = known.iloc[0]
        if best.few_seqs:
            few.append(task)
        words = f"{code(task)}: {code(best.hypothesis)} predicts best of {len(known)} laws"
        if best.above_median <= best.by_chance:
            words += (
                f", but not better than chance makes the best of so many: {best.above_median:.1f} nats above the "
                f"median law, {best.by_chance:.1f} expected of equals"
            )
        elif best.above_median == best.above_median:
            words += f", {best.above_median:.1f} nats above the median law ({best.by_chance:.1f} expected by chance)"
        near = [code(name) for name in known[known.small_diff].hypothesis]
        words += f"; less than {SMALL_DIFF:g} nats from it: {listed(near)}" if near else ""
        lines.append(words)
    if few:
        lines.append(
            f"fewer than {FEW_SEQS} sequences ({len(few)} of {len(verdicts)} tasks): standard errors of differences "
            "may be too small"
        )
    if comparison.mcse.notna().any():
        worst = comparison.loc[comparison.mcse.idxmax()]
        lines.append(
            f"Monte Carlo error of scores: at most {worst.mcse:.2f} nats ({code(worst.hypothesis)}, {code(worst.task)})"
        )
    return lines


def bent_sentence(checks: pd.DataFrame) -> list[str]:
    """On how many tasks the curve bends by the quadratic contrast, all tasks taken together."""
    own = checks[(checks.check == "quadratic contrast") & checks.p_holm.notna()]
    if own.empty:
        return []
    bent = own[own.p_holm < ALPHA]
    words = f"quadratic contrast, corrected over {len(own)} tasks (Holm): "
    if bent.empty:
        return [f"{words}no curve bends at {ALPHA:g}; least p {p_cell(own.p_holm.min())}"]
    return [f"{words}{len(bent)} of {len(own)} bend at {ALPHA:g}: {listed(list(map(code, bent.task)))}"]


def pit_sentences(pit_tests: pd.DataFrame) -> list[str]:
    """Which laws do not predict sequences left out, and in what."""
    if pit_tests.empty:
        return []
    off = pit_tests[pit_tests.p_holm < ALPHA]
    words = f"sequences left out, {len(pit_tests)} tests of uniform PITs, corrected by Holm: "
    if off.empty:
        return [f"{words}none fails at {ALPHA:g}; least p {p_cell(pit_tests.p_holm.min())}"]
    lines = [f"{words}{len(off)} fail at {ALPHA:g}"]
    for (law, statistic), own in off.groupby(["hypothesis", "statistic"], sort=False):
        lines.append(f"{code(law)}, {statistic}: {listed(list(map(code, own.task)))}")
    return lines


def power_scaling_sentences(power_scaling: pd.DataFrame) -> list[str]:
    """Which parameters hang on their priors."""
    if power_scaling.empty:
        return []
    hangs = power_scaling[power_scaling.diagnosis.astype(object).fillna("") != ""]
    words = f"sensitivity to priors by power-scaling, {len(power_scaling)} parameters: "
    if hangs.empty:
        worst = power_scaling.loc[power_scaling.prior_sensitivity.idxmax()]
        return [
            f"{words}none hangs on its prior; the most sensitive is {worst.parameter} of {code(worst.hypothesis)} on "
            f"{code(worst.task)}, {worst.prior_sensitivity:.3f}"
        ]
    lines = [f"{words}{len(hangs)} hang on the prior"]
    for (law, parameter, diagnosis), own in hangs.groupby(["hypothesis", "parameter", "diagnosis"], sort=False):
        lines.append(f"{parameter} of {code(law)}: {diagnosis} on {listed(list(map(code, own.task)))}")
    return lines


def noise_sentences(noise: pd.DataFrame) -> list[str]:
    """How many shots have noise that the fit does not expect; 5 % by chance."""
    if noise.empty:
        return []
    off = (noise.expected < noise.sd_low) | (noise.expected > noise.sd_high)
    interval = f"the {LEVEL_WORDS} interval of what is seen"
    if not off.any():
        return [f"noise by shot: what the fit expects lies inside {interval} at every shot"]
    shares = off.groupby(noise.task, sort=False).mean()
    return [
        f"noise by shot: what the fit expects lies outside {interval} at {off.mean():.0%} of the shots, most on "
        f"{code(shares.idxmax())} ({shares.max():.0%})"
    ]
