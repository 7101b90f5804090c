"""The verdict on the additive law, and which laws describe the curve.

The verdict is given by the mean curve, which follows no law (`inference.departure`): is there an update, and how
straight is it, each with its interval and a stated region of practical equivalence. Scores of laws describe which one
predicts best; they judge nothing, but that a ceiling of the readout is seen by `lapse`. The rules stand in `judge`, and
every verdict carries the reasons in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import norm

from bayes_icl.core.intervals import Interval
from bayes_icl.curves import Curves
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.inference.departure import Belief, Straightness
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.scores import Score
from bayes_icl.inference.survival import LEAST_SEQS, doubt_of, few_shots, slack, survivors

MARGIN = 0.05  # departure from a line below which a curve is straight for practical purposes, a share of the total

SMALL = 0.5  # total update within which there is none for practical purposes, nats

SURE = 0.95  # posterior probability that decides

BENT_P = 0.01  # of `straight_p`, above which a departure has no known direction

LEAST_RAMP = 0.25  # share of the shots between a floor and a ceiling, below which a ramp is a jump and not a line

MOST_SEQS = 100_000

# Laws of a belief that bends by itself: where one of them survives, a ceiling of the readout is not the only account.
BENDS = ("logarithmic", "power", "saturating", "pooling", "changepoint")


@dataclass(frozen=True)
class Rules:
    """What a verdict's regions of practical equivalence are.

    Attributes
    ----------
    margin
        Departure from a line that is none, a share of the total update.
    small
        Total update that is none, nats.
    """

    margin: float = MARGIN
    small: float = SMALL


RULES = Rules()


@dataclass(frozen=True)
class Verdict:
    """The answer for one curve.

    Attributes
    ----------
    verdict
        supported, supported_under_ceiling, rejected, no_update, undecided, refused; not_asked where examples disagree.
    reasons
        Why, in words with numbers.
    departure, second_half, total, delta
        As in `inference.departure.MeanCurve`, mean and 95 % highest-density interval; None where nothing was fitted.
        `departure` has the margin and the posterior probability of lying within it besides; of `delta` the bounds are
        called hdi_low and hdi_high, as they are everywhere in files.
    ceiling
        Of the readout, where the verdict speaks of one: the log-odds that it cannot pass, nats; beside it the belief's
        update per example and curvature.
    selected
        The simplest law that survives; None where nothing was compared.
    seqs_needed
        When undecided: about how many sequences would decide it, None if no number of them would.
    survivors
        Laws within max(4 nats, 2 standard errors) of the best when a sequence is left out, or whose mean curve is
        surely within the margin of the mean curve.
    mean_curve
        Shots, mean curve, its 95 % interval and best line, nats, about a mean of 0: what the figure shows.
    noise, noise_shape
        The setting, as in `scores.Score`, and what was chosen for the noise, in words.
    notes
        What a reader should know beside the reasons.
    pulls
        Sequences that pull on delta, as in `scores.Score`.
    bayesian
        The second verdict (`weighing.Weighing`) and what stands beside it, where history or an observer is known.
    """

    task: str
    readout: str
    n_min: int
    verdict: str
    reasons: list[str]
    departure: dict[str, float] | None = None
    second_half: dict[str, float] | None = None
    total: dict[str, float] | None = None
    delta: dict[str, float] | None = None
    ceiling: dict[str, Any] | None = None
    selected: str | None = None
    seqs_needed: int | None = None
    survivors: list[str] = field(default_factory=list)
    mean_curve: dict[str, list[float]] | None = None
    noise: str = "normal"
    noise_shape: str = ""
    notes: list[str] = field(default_factory=list)
    pulls: list[dict[str, float]] = field(default_factory=list)
    bayesian: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The form it has in verdict.json."""
        return {name: value for name, value in vars(self).items() if name != "task"}


def refuse(curves: Curves, reason: str) -> Verdict:
    """The verdict for curves that were not fitted."""
    return Verdict(curves.task, curves.readout, int(curves.shots[0]), "refused", [reason])


def not_asked(curves: Curves) -> Verdict:
    """The verdict for curves whose examples disagree, of which a line is no prediction."""
    why = "examples disagree, or are single prompts, so that no straight line is expected: see the second verdict"
    return Verdict(curves.task, curves.readout, int(curves.shots[0]), "not_asked", [why])


def judge(
    curves: Curves,
    scores: Sequence[Score],
    rules: Rules = RULES,
) -> Verdict:
    """The verdict on one curve.

    Refused
        Fewer than 8 sequences, 5 shots, or 8 examples from the first shot to the last; evidence of both signs, of which
        a line is no prediction; or the fit of the mean curve (`freeform`) cannot be relied on. A law that could not be
        fitted is left aside and noted.
    no_update
        The 95 % interval of the total update, and the departure in nats, lie within the region of none (0.5 nats).
    supported
        The departure is below the margin (0.05) with a posterior probability of 0.95, and the total's sign is known.
    supported_under_ceiling
        Not supported as it stands, but `lapse` survives, none of the laws that bend without a ceiling does, and the
        belief under the ceiling may be straight.
    rejected
        The departure is above the margin with that probability, and the direction of the bend is known.
    undecided
        Anything else; with the number of sequences that would decide, or why none would.

    Parameters
    ----------
    curves
        One task under one readout.
    scores
        Of the laws that were fitted to it, `freeform` among them.
    rules
        Regions of practical equivalence.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.fit.verdict import judge
    >>> from bayes_icl.hypotheses import HYPOTHESES
    >>> from bayes_icl.inference.scores import score_curves
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> verdict = judge(curves, [score_curves(HYPOTHESES[law], curves)[0] for law in ("power", "freeform")])
    >>> verdict.verdict, verdict.selected, round(verdict.departure["mean"], 1)
    ('rejected', 'power', 0.4)
    """
    mean = next((s.straightness for s in scores if s.straightness is not None), None)
    if mean is None:
        return refuse(curves, "the verdict rests on freeform, which was not fitted")
    found = _Compared.of(scores, mean, rules)
    within = mean.within(rules.margin)
    if refusals := _refusals(curves, mean):
        return _verdict(curves, "refused", refusals, found, mean)
    reasons = [_how_straight(mean, rules), _second_half(mean)]
    if mean.total.low > -rules.small and mean.total.high < rules.small and mean.departure_nats.high < rules.small:
        none = f"the total update {mean.total:.2f} nats lies within {rules.small:g} nats of none"
        return _verdict(curves, "no_update", [none], found, mean)
    if within >= SURE and mean.total.excludes(0):
        falls = ["the log-odds fall with every example"] if mean.total.mean < 0 else []
        return _verdict(curves, "supported", [*reasons, *falls], found, mean)
    if found.ceiling_alone and (belief := Belief.of(curves, summarise(curves))).straight(rules.margin):
        ceiling = [
            f"lapse alone survives: a belief that gains {belief.delta:.3f} nats per example, under a readout that "
            f"cannot pass {belief.ceiling:.1f} nats",
            f"the belief departs from its best line by {Interval(*(100 * x for x in belief.departure)):.1f} % "
            f"(curvature {belief.curvature:.2f})",
        ]
        return _verdict(curves, "supported_under_ceiling", [*reasons, *ceiling], found, mean, belief=belief)
    if within <= 1 - SURE and mean.straight_p < BENT_P:
        if not found.ceiling:
            return _verdict(curves, "rejected", reasons, found, mean, apart=("additive", "constant"))
        under = "a line under a ceiling of the readout is not excluded: lapse survives"
        return _verdict(curves, "undecided", [*reasons, under], found, mean, apart=("additive", "constant"))
    needed, words = _seqs_needed(len(curves.log_odds), mean, rules)
    return _verdict(curves, "undecided", [*reasons, words], found, mean, needed=needed)


@dataclass(frozen=True)
class _Compared:
    """Which laws describe a curve.

    Attributes
    ----------
    alive, distance
        Survivors of a left-out sequence; by hypothesis how far it is from the best, and the standard error, nats.
    close
        Laws whose mean curve is surely within the margin of the mean curve.
    """

    rules: Rules
    shots: tuple[float, float]
    by_name: dict[str, Score]
    alive: list[str]
    distance: dict[str, tuple[float, float]]
    close: list[str]

    @classmethod
    def of(cls, scores: Sequence[Score], mean: Straightness, rules: Rules) -> _Compared:
        """That of the scores of all laws fitted."""
        alive, distance = survivors(scores, "elpd_logo")
        close = [
            s.hypothesis
            for s in scores
            if s.mean_curve is not None
            and not doubt_of(s)
            and not HYPOTHESES[s.hypothesis].ceiling
            and not HYPOTHESES[s.hypothesis].latent_step
            and mean.close(s.mean_curve, rules.margin) >= SURE
        ]
        shots = float(mean.shots[0]), float(mean.shots[-1])
        return cls(rules, shots, {s.hypothesis: s for s in scores}, alive, distance, close)

    @property
    def ceiling(self) -> bool:
        """Whether `lapse` survives where `additive` does not, and its ramp is more than a jump."""
        return "lapse" in self.alive and "additive" not in self.alive and self._ramp >= LEAST_RAMP

    @property
    def _ramp(self) -> float:
        """Share of the shots between the knees of `lapse`: of a step there is next to none."""
        knees = [self.by_name["lapse"].intervals.get(name) for name in ("floor_until", "ceiling_from")]
        first, last = self.shots
        if None in knees:
            return 1.0
        floor, ceiling = (knee[0] for knee in knees if knee is not None)
        return float(np.clip(ceiling, first, last) - np.clip(floor, first, last)) / (last - first)

    @property
    def ceiling_alone(self) -> bool:
        """Whether it is the only kind of law that does."""
        return self.ceiling and not set(BENDS) & set(self.alive)

    @property
    def all(self) -> list[str]:
        """Survivors by score or by practical equivalence."""
        return [*self.alive, *(name for name in self.close if name not in self.alive)]

    def simplest(self, apart: Sequence[str]) -> str | None:
        """The simplest survivor, of equals the best when a sequence is left out."""
        known = [name for name in self.all if name not in apart]
        return min(known, key=lambda name: (HYPOTHESES[name].complexity, -self.distance[name][0]), default=None)


def _verdict(
    curves: Curves,
    kind: str,
    reasons: list[str],
    found: _Compared,
    mean: Straightness,
    *,
    needed: int | None = None,
    belief: Belief | None = None,
    apart: Sequence[str] = (),
) -> Verdict:
    """The verdict of that kind, with what stands beside its reasons."""
    additive = found.by_name.get("additive")
    selected = "lapse" if belief else found.simplest(apart)
    doubts = {name: doubt for name, score in found.by_name.items() if (doubt := doubt_of(score))}
    left_aside = [
        f"left aside: {doubt}"
        + (
            f"; it may be {found.distance[name][0]:.1f} nats better than the best"
            if name in found.distance and found.distance[name][0] > slack(found.distance[name][1])
            else ""
        )
        for name, doubt in doubts.items()
    ]
    shown = {"shots": mean.shots, "mean": mean.curve, "low": mean.low, "high": mean.high, "line": mean.line}
    return Verdict(
        curves.task,
        curves.readout,
        int(curves.shots[0]),
        kind,
        reasons,
        departure={**_three(mean.departure), "margin": found.rules.margin, "within": mean.within(found.rules.margin)},
        second_half=_three(mean.second_half),
        total=_three(mean.total),
        delta=dict(zip(("mean", "hdi_low", "hdi_high"), mean.delta)),
        ceiling={
            **_three(belief.ceiling),
            "delta": _three(belief.delta),
            "curvature": _three(belief.curvature),
            "departure": _three(belief.departure),
        }
        if belief
        else None,
        selected=selected,
        seqs_needed=needed,
        survivors=found.all,
        mean_curve={name: np.round(values, 6).tolist() for name, values in shown.items()},
        noise=additive.noise if additive else "normal",
        noise_shape=mean.noise,
        notes=[*left_aside, *_notes(found, selected)],
        pulls=additive.pulls if additive else [],
    )


def _three(interval: Interval) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), map(float, interval)))


def _refusals(curves: Curves, mean: Straightness) -> list[str]:
    """Why no verdict can be given, in words; empty where one can."""
    refusals = []
    if (observed := curves.observed) is not None and (observed < 0).any() and (observed > 0).any():
        refusals.append(
            "the evidence has both signs, and this verdict asks what examples add that all agree: see what `observer` "
            "makes of it"
        )
    if mean.faults:
        refusals.append(f"the mean curve could not be fitted: {', '.join(mean.faults)}")
    if len(curves.log_odds) < LEAST_SEQS:
        refusals.append(f"{len(curves.log_odds)} sequences, at least {LEAST_SEQS} are needed")
    if few := few_shots(curves.shots):
        refusals.append(few)
    return refusals


def _how_straight(mean: Straightness, rules: Rules) -> str:
    """The departure, beside the margin, in words."""
    share = Interval(*(100 * x for x in mean.departure))
    return (
        f"the mean curve departs from its best line by {share:.1f} % of {abs(mean.total.mean):.1f} nats "
        f"(below {100 * rules.margin:g} % with probability {mean.within(rules.margin):.2f})"
    )


def _second_half(mean: Straightness) -> str:
    return f"the second half of the examples adds {mean.second_half:.2f} of what the first half adds"


def _seqs_needed(n_seqs: int, mean: Straightness, rules: Rules) -> tuple[int | None, str]:
    """About how many sequences would decide, if what is seen goes on, and which way.

    Standard deviations fall with the root of the number. Where no bend is seen, the largest departure that is not
    excluded has to shrink to the margin, as it does for a line. Where one is, its departure has to lie 1.645 sds from
    the margin, and to reject it its direction has to be known (`BENT_P`). The sign of the total is known 1.96 of its
    sds from 0.
    """
    sign_sd = (mean.total.high - mean.total.low) / (2 * norm.ppf(0.975))
    if abs(mean.total.mean) < sign_sd:
        return None, "how many sequences would decide cannot be said: not even the sign of the total update is known"
    wanted = 1.0 if mean.total.excludes(0) else (norm.ppf(0.975) * sign_sd / mean.total.mean) ** 2
    # Shares of the mean total: draws of a total near 0 make shares that are no numbers to reckon with.
    nats = mean.departures * np.abs(mean.draws[:, -1] - mean.draws[:, 0])
    share = nats / abs(mean.total.mean)
    off, way = rules.margin - share.mean(), "to support, unless a bend shows"
    if mean.straight_p > 1 - SURE:
        wanted = max(wanted, (np.quantile(share, SURE) / rules.margin) ** 2)
    elif abs(off) < 0.1 * share.std():
        return None, "no number of sequences would decide if what is seen goes on: the departure is at the margin"
    else:
        way = "to support" if off > 0 else "to reject"
        wanted = max(wanted, (norm.ppf(SURE) * share.std() / off) ** 2)
        if off < 0 and mean.straight_p > BENT_P:
            wanted = max(wanted, math.log(BENT_P) / math.log(mean.straight_p))
    number = math.ceil(n_seqs * max(wanted, 1 + 1 / n_seqs))
    if number > MOST_SEQS:
        return None, f"more than {MOST_SEQS:,} sequences would be needed to decide"
    return number, f"if what is seen goes on, about {number} sequences would decide it ({way})"


def _notes(found: _Compared, selected: str | None) -> list[str]:
    """What a reader should know of the law selected."""
    if not selected:
        return []
    s = found.by_name[selected]
    if s.lag == s.lag and not s.lag_low <= s.lag <= s.lag_high:
        return [
            f"the noise is not what {selected} expects: lag-1 autocorrelation of the updates {s.lag:.2f}, "
            f"99 % of replicates in [{s.lag_low:.2f}, {s.lag_high:.2f}]"
        ]
    return []
