"""Which hypotheses survive, and the verdict on the additive one.

No argmax: the survivors are all hypotheses within max(4 nats, 2 standard errors) of the best, and of those the simplest
is named. The rules stand in `judge`, and every verdict carries the reasons in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.sampling import ESS_LEAST, PARETO_K_MOST, R_HAT_MOST, Score

SLACK_NATS, SLACK_SE = 4.0, 2.0
EQUIVALENT_A = 0.15  # a power law with |a| below this is additive for practical purposes
LEAST_SEQS, LEAST_UPDATES = 8, 8
JUDGED_BY = ("constant", "additive", "power")


@dataclass(frozen=True)
class Verdict:
    """The answer for one curve.

    Attributes
    ----------
    verdict
        supported, rejected, no_update, undecided or refused.
    reasons
        Why, in words with numbers.
    named
        The simplest survivor; None where nothing was compared.
    delta
        Mean and 95 % highest-density interval of the update per example under `additive`, nats; None if not fitted.
    seqs_needed
        When undecided: about how many sequences would decide it, None if no number of them would.
    """

    task: str
    readout: str
    n_min: int
    verdict: str
    reasons: list[str]
    named: str | None = None
    delta: dict[str, float] | None = None
    seqs_needed: int | None = None
    survivors: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The form it has in verdict.json."""
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "named": self.named,
            "delta": self.delta,
            "n_min": self.n_min,
            "readout": self.readout,
            "seqs_needed": self.seqs_needed,
            "survivors": self.survivors,
        }


def too_little(curves: Curves) -> str | None:
    """Why these curves cannot be fitted at all, or None."""
    n_seqs, n_shots = curves.log_odds.shape
    if n_seqs < 2 or n_shots < 4:
        return (
            f"{_count(n_seqs, 'sequence')} of {_count(n_shots, 'shot')} from n = {curves.shots[0]:.0f}: at least 2 "
            f"sequences of 4 shots are needed for a fit, {LEAST_SEQS} of {LEAST_UPDATES + 1} for a verdict"
        )
    updates = np.diff(curves.log_odds, axis=1)
    noise = updates - updates.mean(0) - updates.mean(1, keepdims=True) + updates.mean()
    if noise.std() <= 1e-4 * curves.log_odds.std():
        return (
            "no variation: beside a mean curve and a slope of each sequence the updates do not vary, so there is no "
            "noise to judge by"
        )
    return None


def survivors(scores: Sequence[Score], values: str) -> tuple[list[str], dict[str, tuple[float, float]]]:
    """The hypotheses within max(4 nats, 2 SE) of the best, and each one's distance to the best with its SE.

    Parameters
    ----------
    values
        Which pointwise score: ``elpd_logo`` or ``elpd_lfo``.
    """
    pointwise = {s.hypothesis: getattr(s, values) for s in scores if np.isfinite(getattr(s, values)).all()}
    rivals = [name for name in pointwise if not HYPOTHESES[name].ceiling]
    if not rivals:
        return [], {}
    best = max(rivals, key=lambda name: pointwise[name].sum())
    distance = {name: _difference(pointwise[name], pointwise[best]) for name in pointwise}
    return [name for name in rivals if -distance[name][0] <= _slack(distance[name][1])], distance


def _difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Difference of two summed scores, and its standard error over sequences, nats."""
    d = one - other
    return float(d.sum()), float(np.sqrt(len(d)) * d.std(ddof=1))


def _slack(se: float) -> float:
    return max(SLACK_NATS, SLACK_SE * se)


COLUMNS = [
    *("task", "readout", "n_min", "hypothesis", "elpd_logo", "se", "elpd_diff", "diff_se", "survivor"),
    *("elpd_lfo", "lfo_diff", "lfo_diff_se", "survivor_lfo"),
    *("pareto_k_max", "refits", "rhat_max", "ess_bulk_min", "divergences"),
]


def comparison_table(scores: Sequence[Score]) -> pd.DataFrame:
    """One row per task, readout, n_min and hypothesis, with `COLUMNS`, then its parameters' means and intervals.

    Differences are to the best rival, negative when worse, nats.
    """
    rows = []
    for group in _by_curve(scores):
        alive, distance = survivors(group, "elpd_logo")
        alive_lfo, distance_lfo = survivors(group, "elpd_lfo")
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
                    "pareto_k_max": s.pareto_k_max,
                    "refits": s.refits,
                    "rhat_max": s.rhat_max,
                    "ess_bulk_min": s.ess_bulk_min,
                    "divergences": s.divergences,
                    **{
                        f"{name}_{end}": value
                        for name, interval in s.intervals.items()
                        for end, value in zip(("mean", "hdi_low", "hdi_high"), interval)
                    },
                }
            )
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def _by_curve(scores: Sequence[Score]) -> list[list[Score]]:
    groups: dict[tuple[str, str, int], list[Score]] = {}
    for s in scores:
        groups.setdefault((s.task, s.readout, s.n_min), []).append(s)
    return list(groups.values())


def quadratic_contrast(curves: Curves) -> tuple[float, float]:
    """Mean over sequences of each one's quadratic contrast over shots, and the p-value of a t-test that it is 0.

    The contrast is orthogonal to a line, so additive updates leave it at 0 whatever the noise; being one number a
    sequence, it needs no model of the noise within one.
    """
    from statsmodels.stats.weightstats import DescrStatsW

    n = curves.shots - curves.shots.mean()
    basis, _ = np.linalg.qr(np.stack([np.ones_like(n), n, n**2], axis=1))
    contrast = curves.log_odds @ basis[:, 2] * np.sign(basis[-1, 2])
    described = DescrStatsW(contrast)
    return float(described.mean), float(described.ttest_mean(0)[1])


def refuse(curves: Curves, reason: str) -> Verdict:
    """The verdict for curves that were not fitted."""
    return Verdict(curves.task, curves.readout, int(curves.shots[0]), "refused", [reason])


def judge(curves: Curves, scores: Sequence[Score]) -> Verdict:
    """The verdict on one curve, by the rules of the design.

    Refused
        Fewer than 8 sequences or updates, or a fit that the verdict rests on (additive, constant, power, any survivor)
        has R-hat above 1.01, bulk ESS below 400, divergences after one retry, or a Pareto k above 0.7 after exact
        refits. Another hypothesis that fails so is shown in the table and does not refuse the verdict.
    no_update
        `constant` survives and `additive` gains nothing on it. A rival whose own mean update has an interval around 0
        claims no update either, and does not count against `constant`.
    rejected
        `additive` does not survive leave-one-sequence-out; or the quadratic contrast has p < 0.01 and the 95 %
        interval of the power law's a excludes 0.
    supported
        `additive` survives both scores, the contrast has p > 0.05, and that interval lies within (-0.15, 0.15).
    undecided
        Anything else.
    """
    by_name = {s.hypothesis: s for s in scores}
    if missing := [name for name in JUDGED_BY if name not in by_name]:
        return refuse(
            curves, f"the verdict needs the hypotheses {', '.join(JUDGED_BY)}; {', '.join(missing)} not fitted"
        )
    additive, constant, power = (by_name[name] for name in ("additive", "constant", "power"))
    mean, low, high = additive.intervals["delta"]
    alive, distance = survivors(scores, "elpd_logo")
    alive_lfo, distance_lfo = survivors(scores, "elpd_lfo")
    named = min(alive, key=lambda name: (HYPOTHESES[name].complexity, -distance[name][0]), default=None)
    n_seqs, n_updates = len(curves.log_odds), len(curves.shots) - 1

    def verdict(kind: str, reasons: list[str], needed: int | None = None) -> Verdict:
        delta = {"mean": mean, "hdi_low": low, "hdi_high": high}
        n_min = int(curves.shots[0])
        return Verdict(curves.task, curves.readout, n_min, kind, reasons, named, delta, needed, alive)

    doubts = {s.hypothesis: _doubt(s) for s in scores}
    refusals = [doubt for name, doubt in doubts.items() if doubt and name in (*JUDGED_BY, *alive)]
    if n_seqs < LEAST_SEQS:
        refusals.append(f"{n_seqs} sequences, at least {LEAST_SEQS} are needed to compare hypotheses")
    if n_updates < LEAST_UPDATES:
        refusals.append(f"{n_updates} updates from n = {curves.shots[0]:.0f} on, at least {LEAST_UPDATES} are needed")
    if refusals:
        return verdict("refused", refusals)

    contrast, p = quadratic_contrast(curves)
    a_mean, a_low, a_high = power.intervals["a"]
    on_constant, on_constant_se = _difference(additive.elpd_logo, constant.elpd_logo)
    gains = on_constant > _slack(on_constant_se)
    best = max((n for n in distance if not HYPOTHESES[n].ceiling), key=lambda n: distance[n][0])
    moving = [s for s in scores if s.hypothesis in alive and _moves(s)]
    numbers = {
        "logo": f"additive is {_nats(*distance['additive'])} from the best ({best}) when a sequence is left out",
        "lfo": f"{_nats(*distance_lfo['additive'])} from the best when the second half is left out"
        if "additive" in distance_lfo
        else "the second half could not be left out",
        "contrast": f"quadratic contrast {contrast:+.2f} nats, p = {p:.2g}",
        "a": f"power law's a = {a_mean:.2f} [{a_low:.2f}, {a_high:.2f}]",
        "constant": f"additive gains {on_constant:+.1f} (SE {on_constant_se:.1f}) nats on constant",
    }
    if not gains and ("constant" in alive or not moving):
        reasons = [numbers["constant"], f"delta = {mean:+.3f} [{low:+.3f}, {high:+.3f}] nats per example"]
        if "constant" not in alive:
            reasons.append(f"what predicts better ({', '.join(alive)}) has a mean update whose interval includes 0")
        return verdict("no_update", reasons)
    if "additive" not in alive:
        return verdict("rejected", [numbers["logo"], numbers["contrast"], numbers["a"]])
    if p < 0.01 and not a_low <= 0 <= a_high:
        within = -EQUIVALENT_A < a_low and a_high < EQUIVALENT_A
        note = ["the curvature is detectable but small: a lies within (-0.15, 0.15)"] if within else []
        return verdict("rejected", [numbers["contrast"], numbers["a"], *note])
    equivalent = -EQUIVALENT_A < a_low and a_high < EQUIVALENT_A
    if "additive" in alive_lfo and p > 0.05 and equivalent and gains:
        return verdict("supported", [numbers["logo"], numbers["lfo"], numbers["contrast"], numbers["a"]])
    open_points = [
        *([] if gains else [numbers["constant"]]),
        *([] if "additive" in alive_lfo else [f"additive is {numbers['lfo']}"]),
        *([] if p > 0.05 else [numbers["contrast"]]),
        *([] if equivalent else [f"{numbers['a']} is not inside (-0.15, 0.15)"]),
    ]
    needed = _seqs_needed(n_seqs, distance["additive"], a_mean, a_high - a_low)
    open_points.append(
        f"about {needed} sequences would decide it" if needed else "more sequences of this length would not decide it"
    )
    return verdict("undecided", open_points, needed)


def _moves(score: Score) -> bool:
    """Whether a hypothesis's mean update is clear of 0."""
    if "gain" not in score.intervals:
        return False
    _, low, high = score.intervals["gain"]
    return not low <= 0 <= high


def _doubt(score: Score) -> str | None:
    """Why a fit cannot be relied on, or None."""
    wrong = [
        *([f"R-hat {score.rhat_max:.3f} above {R_HAT_MOST}"] if not score.rhat_max <= R_HAT_MOST else []),
        *([f"bulk ESS {score.ess_bulk_min:.0f} below {ESS_LEAST}"] if not score.ess_bulk_min >= ESS_LEAST else []),
        *([f"{score.divergences} divergences after a retry"] if score.divergences else []),
        *([f"Pareto k {score.pareto_k_max:.2f} after refits"] if not score.pareto_k_max <= PARETO_K_MOST else []),
    ]
    return f"{score.hypothesis}: {', '.join(wrong)}" if wrong else None


def _seqs_needed(n_seqs: int, distance: tuple[float, float], a: float, a_width: float) -> int | None:
    """About how many sequences would decide, if what is seen now goes on; None if no number would.

    Differences of elpd grow with the number of sequences and their SE with its root, so `additive` falls out once
    n d > max(4, 2 s sqrt(n)) for a difference d and sd s per sequence; the interval of a narrows with the root, so it
    enters (-0.15, 0.15) once |a| + half-width < 0.15.
    """
    d, s = -distance[0] / n_seqs, distance[1] / math.sqrt(n_seqs)
    candidates = []
    if d > 0:
        candidates.append(max(SLACK_NATS / d, (SLACK_SE * s / d) ** 2))
    if abs(a) < EQUIVALENT_A:
        candidates.append(n_seqs * (a_width / 2 / (EQUIVALENT_A - abs(a))) ** 2)
    needed = [math.ceil(c) for c in candidates if n_seqs < c < 100_000]
    return min(needed, default=None)


def _nats(difference: float, se: float) -> str:
    return f"{abs(difference):.1f} (SE {se:.1f}) nats"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
