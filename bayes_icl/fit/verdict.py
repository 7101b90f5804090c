"""Which hypotheses survive, and the verdict on the additive one.

The survivors are all hypotheses within max(4 nats, 2 standard errors) of the best when a sequence is left out, and of
those the simplest is selected; of several equally simple ones, the best by that score. These are often not told apart,
so the survivors are given too. The rules stand in `judge`, and every verdict carries the reasons in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bayes_icl.curves import Curves
from bayes_icl.fit.checks import quadratic_contrast
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.inference.scores import Score
from bayes_icl.inference.survival import (
    JUDGED_BY,
    LEAST_SEQS,
    LEAST_UPDATES,
    SLACK_NATS,
    SLACK_SE,
    _difference,
    doubt_of,
    in_nats,
    slack,
    survivors,
)

EQUIVALENT_A = 0.15  # a power law with |a| below this is additive for practical purposes

AT_BOUND = 0.03


@dataclass(frozen=True)
class Verdict:
    """The answer for one curve.

    Attributes
    ----------
    verdict
        supported, rejected, no_update, undecided or refused.
    reasons
        Why, in words with numbers.
    selected
        The simplest survivor, of equals the best when a sequence is left out; None where nothing was compared.
    delta
        Mean and 95 % highest-density interval of the update per example under `additive`, nats; None if not fitted.
    seqs_needed
        When undecided: about how many sequences would decide it, None if no number of them would.
    noise, priors
        The setting, as in `scores.Score`.
    notes
        What a reader should know beside the reasons: a law that fits badly, a parameter at the bound of its prior.
    pulls
        Sequences that pull on delta, as in `scores.Score`.
    """

    task: str
    readout: str
    n_min: int
    verdict: str
    reasons: list[str]
    selected: str | None = None
    delta: dict[str, float] | None = None
    seqs_needed: int | None = None
    survivors: list[str] = field(default_factory=list)
    noise: str = "normal"
    priors: str = "stated"
    notes: list[str] = field(default_factory=list)
    pulls: list[dict[str, float]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The form it has in verdict.json."""
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "selected": self.selected,
            "delta": self.delta,
            "n_min": self.n_min,
            "readout": self.readout,
            "seqs_needed": self.seqs_needed,
            "survivors": self.survivors,
            "noise": self.noise,
            "priors": self.priors,
            "notes": self.notes,
            "pulls": self.pulls,
        }


def refuse(curves: Curves, reason: str) -> Verdict:
    """The verdict for curves that were not fitted."""
    return Verdict(curves.task, curves.readout, int(curves.shots[0]), "refused", [reason])


@dataclass(frozen=True)
class _Comparison:
    """What a verdict is made from: the scores of one curve, and how they compare.

    Attributes
    ----------
    doubts
        Why a fit cannot be relied on, by hypothesis.
    alive, distance
        Survivors of a left-out sequence; by hypothesis how far it is from the best, and the standard error, nats.
    alive_lfo, distance_lfo
        The same when the second half of the shots is left out.
    best
        Best rival whose fit is sound.
    """

    curves: Curves
    by_name: dict[str, Score]
    doubts: dict[str, str]
    alive: list[str]
    distance: dict[str, tuple[float, float]]
    alive_lfo: list[str]
    distance_lfo: dict[str, tuple[float, float]]
    best: str | None

    @classmethod
    def of(cls, curves: Curves, scores: Sequence[Score]) -> _Comparison:
        """That of the scores of all hypotheses fitted."""
        doubts = {s.hypothesis: doubt for s in scores if (doubt := doubt_of(s))}
        alive, distance = survivors(scores, "elpd_logo")
        rivals = [name for name in distance if not HYPOTHESES[name].ceiling and name not in doubts]
        best = max(rivals, key=lambda name: distance[name][0], default=None)
        by_name = {s.hypothesis: s for s in scores}
        return cls(curves, by_name, doubts, alive, distance, *survivors(scores, "elpd_lfo"), best)

    @property
    def n_seqs(self) -> int:
        """Number of sequences."""
        return len(self.curves.log_odds)

    @property
    def on_constant(self) -> tuple[float, float]:
        """What `additive` gains on `constant` when a sequence is left out, and its standard error, nats."""
        return _difference(self.by_name["additive"].elpd_logo, self.by_name["constant"].elpd_logo)

    @property
    def gains(self) -> bool:
        """Whether `additive` predicts better than `constant` by more than a survivor may be worse."""
        difference, se = self.on_constant
        return difference > slack(se)

    def moving(self) -> list[str]:
        """Survivors whose mean update is clear of 0."""
        # Laws in nats hardly fall, whatever the data, so their gain is no sign of one.
        return [s for s in self.alive if _moves(self.by_name[s]) and not HYPOTHESES[s].in_nats]

    def verdict(self, kind: str, reasons: list[str], needed: int | None = None) -> Verdict:
        """The verdict of that kind, with what stands beside its reasons."""
        additive, selected = self.by_name["additive"], _simplest(self.alive, self.distance)
        left_aside = [f"left aside: {doubt}" for name, doubt in self.doubts.items() if name not in JUDGED_BY]
        return Verdict(
            self.curves.task,
            self.curves.readout,
            int(self.curves.shots[0]),
            kind,
            reasons,
            selected=selected,
            delta=dict(zip(("mean", "hdi_low", "hdi_high"), additive.intervals["delta"])),
            seqs_needed=needed,
            survivors=self.alive,
            noise=additive.noise,
            priors=additive.priors,
            notes=[*left_aside, *_notes(self.by_name, selected)],
            pulls=additive.pulls,
        )


def judge(curves: Curves, scores: Sequence[Score]) -> Verdict:
    """The verdict on one curve, by the rules of the design.

    Refused
        Fewer than 8 sequences or updates, or a fit that the verdict rests on (additive, constant, power) has R-hat
        above 1.01, ESS below 400, divergences after one retry, or a Pareto k above 0.7 after exact refits. Another
        hypothesis that fails so is left aside and noted, unless it seems better than all others by more than a
        survivor may be worse.
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
    fitted = {s.hypothesis for s in scores}
    if missing := [name for name in JUDGED_BY if name not in fitted]:
        return refuse(
            curves, f"the verdict needs the hypotheses {', '.join(JUDGED_BY)}; {', '.join(missing)} not fitted"
        )
    found = _Comparison.of(curves, scores)
    if refusals := _refusals(found):
        return found.verdict("refused", refusals)
    contrast, p = quadratic_contrast(curves, robust=found.by_name["additive"].noise == "student")
    _, a_low, a_high = found.by_name["power"].intervals["a"]
    numbers = _numbers(found, contrast, p)
    if not found.gains and ("constant" in found.alive or not found.moving()):
        mean, low, high = found.by_name["additive"].intervals["delta"]
        reasons = [numbers["constant"], f"delta = {mean:+.3f} [{low:+.3f}, {high:+.3f}] nats per example"]
        if "constant" not in found.alive:
            better = ", ".join(found.alive)
            reasons.append(f"what predicts better ({better}) has a mean update whose interval includes 0")
        return found.verdict("no_update", reasons)
    if "additive" not in found.alive:
        return found.verdict("rejected", [numbers["logo"], numbers["contrast"], numbers["a"]])
    equivalent = -EQUIVALENT_A < a_low and a_high < EQUIVALENT_A
    if p < 0.01 and not a_low <= 0 <= a_high:
        note = ["the curvature is detectable but small: a lies within (-0.15, 0.15)"] if equivalent else []
        return found.verdict("rejected", [numbers["contrast"], numbers["a"], *note])
    if "additive" in found.alive_lfo and p > 0.05 and equivalent and found.gains:
        return found.verdict("supported", [numbers["logo"], numbers["lfo"], numbers["contrast"], numbers["a"]])
    open_points = [
        *([] if found.gains else [numbers["constant"]]),
        *([] if "additive" in found.alive_lfo else [f"additive is {numbers['lfo']}"]),
        *([] if p > 0.05 else [numbers["contrast"]]),
        *([] if equivalent else [f"{numbers['a']} is not inside (-0.15, 0.15)"]),
    ]
    needed = _seqs_needed(found.n_seqs, found.distance["additive"], found.by_name["power"].intervals["a"])
    if needed:
        number, decided = needed
        open_points.append(f"if what is seen goes on, about {number} sequences would decide it ({decided})")
        return found.verdict("undecided", open_points, number)
    return found.verdict("undecided", [*open_points, "how many sequences would decide it cannot be said from these"])


def _refusals(found: _Comparison) -> list[str]:
    """Why no verdict can be given, in words; empty where one can."""
    refusals = [doubt for name, doubt in found.doubts.items() if name in JUDGED_BY]
    # A rival that could not be fitted is left aside, unless it may be far better than the rest.
    for name, doubt in found.doubts.items():
        distance = found.distance.get(name)
        if distance and distance[0] > slack(distance[1]) and not HYPOTHESES[name].ceiling:
            refusals.append(f"{doubt}; it may be {in_nats(*distance)} better than {found.best}")
    if found.n_seqs < LEAST_SEQS:
        refusals.append(f"{found.n_seqs} sequences, at least {LEAST_SEQS} are needed to compare hypotheses")
    shots = found.curves.shots
    if len(shots) - 1 < LEAST_UPDATES:
        refusals.append(f"{len(shots) - 1} updates from n = {shots[0]:.0f} on, at least {LEAST_UPDATES} are needed")
    return refusals


def _numbers(found: _Comparison, contrast: float, p: float) -> dict[str, str]:
    """What the reasons are made of: numbers in words, by what they are of."""
    distance, distance_lfo = found.distance["additive"], found.distance_lfo.get("additive")
    a_mean, a_low, a_high = found.by_name["power"].intervals["a"]
    on_constant, on_constant_se = found.on_constant
    return {
        "logo": f"additive is {in_nats(*distance)} from the best ({found.best}) when a sequence is left out",
        "lfo": f"{in_nats(*distance_lfo)} from the best when the second half is left out"
        if distance_lfo
        else "the second half could not be left out",
        "contrast": f"quadratic contrast {contrast:+.2f} nats, p = {p:.2g}",
        "a": f"power law's a = {a_mean:.2f} [{a_low:.2f}, {a_high:.2f}]",
        "constant": f"additive gains {on_constant:+.1f} (SE {on_constant_se:.1f}) nats on constant",
    }


def _moves(score: Score) -> bool:
    """Whether a hypothesis's mean update is clear of 0."""
    if "gain" not in score.intervals:
        return False
    _, low, high = score.intervals["gain"]
    return not low <= 0 <= high


def _simplest(alive: list[str], distance: dict[str, tuple[float, float]]) -> str | None:
    return min(alive, key=lambda name: (HYPOTHESES[name].complexity, -distance[name][0]), default=None)


def _notes(by_name: dict[str, Score], selected: str | None) -> list[str]:
    """What a reader should know of the law selected and of the power law's a."""
    notes = []
    if selected:
        s = by_name[selected]
        if s.lag == s.lag and not s.lag_low <= s.lag <= s.lag_high:
            notes.append(
                f"the noise is not what {selected} expects: lag-1 autocorrelation of the updates {s.lag:.2f}, "
                f"99 % of replicates in [{s.lag_low:.2f}, {s.lag_high:.2f}]"
            )
        if "freeform" in by_name and not doubt_of(by_name["freeform"]):
            gap, se = _difference(by_name["freeform"].elpd_logo, s.elpd_logo)
            if gap > slack(se):
                notes.append(f"{selected} misses part of the curve: freeform is {in_nats(gap, se)} better")
    low, high = HYPOTHESES["power"].priors["a"].parameters
    _, a_low, a_high = by_name["power"].intervals["a"]
    if a_high > high - AT_BOUND or a_low < low + AT_BOUND:
        notes.append(f"the power law's a is at the bound of its prior ({low}, {high})")
    return notes


def _seqs_needed(n_seqs: int, distance: tuple[float, float], a: tuple[float, float, float]) -> tuple[int, str] | None:
    """About how many sequences would decide, if what is seen now goes on, and which way; None if that cannot be said.

    Differences of elpd grow with the number of sequences and their SE with its root, so `additive` falls out once
    n d > max(4, 2 s sqrt(n)) for a difference d and sd s per sequence; a difference below its SE says nothing. The
    interval of the power law's a narrows with the root of n: it lies within (-0.15, 0.15) once |a| + half-width < 0.15,
    and excludes 0 once half-width < |a|, which with the contrast rejects.
    """
    mean, low, high = a
    half = (high - low) / 2
    candidates: list[tuple[float, str]] = []
    if -distance[0] > distance[1]:
        d, s = -distance[0] / n_seqs, distance[1] / math.sqrt(n_seqs)
        candidates.append((max(SLACK_NATS / d, (SLACK_SE * s / d) ** 2), "to reject: additive falls behind"))
    if abs(mean) < EQUIVALENT_A:
        candidates.append((n_seqs * (half / (EQUIVALENT_A - abs(mean))) ** 2, "to support: a within (-0.15, 0.15)"))
    if abs(mean) > EQUIVALENT_A:
        candidates.append((n_seqs * (half / abs(mean)) ** 2, "to reject: a clear of 0"))
    possible = [(math.ceil(n), way) for n, way in candidates if n_seqs < n < 100_000]
    return min(possible, default=None)
