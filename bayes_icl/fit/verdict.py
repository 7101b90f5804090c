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
    by_name = {s.hypothesis: s for s in scores}
    if missing := [name for name in JUDGED_BY if name not in by_name]:
        return refuse(
            curves, f"the verdict needs the hypotheses {', '.join(JUDGED_BY)}; {', '.join(missing)} not fitted"
        )
    additive, constant, power = (by_name[name] for name in ("additive", "constant", "power"))
    mean, low, high = additive.intervals["delta"]
    n_seqs, n_updates = len(curves.log_odds), len(curves.shots) - 1
    doubts = {s.hypothesis: doubt for s in scores if (doubt := doubt_of(s))}
    alive, distance = survivors(scores, "elpd_logo")
    alive_lfo, distance_lfo = survivors(scores, "elpd_lfo")
    rivals = [name for name in distance if not HYPOTHESES[name].ceiling and name not in doubts]
    best = max(rivals, key=lambda name: distance[name][0], default=None)
    # A rival that could not be fitted is left aside, unless it may be far better than the rest.
    refusals = [doubt for name, doubt in doubts.items() if name in JUDGED_BY]
    for name, doubt in doubts.items():
        if name in distance and distance[name][0] > slack(distance[name][1]) and not HYPOTHESES[name].ceiling:
            refusals.append(f"{doubt}; it may be {in_nats(*distance[name])} better than {best}")
    notes = [f"left aside: {doubt}" for name, doubt in doubts.items() if name not in JUDGED_BY]
    selected = _simplest(alive, distance)

    def verdict(kind: str, reasons: list[str], needed: int | None = None) -> Verdict:
        delta = {"mean": mean, "hdi_low": low, "hdi_high": high}
        n_min, setting = int(curves.shots[0]), (additive.noise, additive.priors)
        notes_here = [*notes, *_notes(by_name, selected)]
        return Verdict(
            curves.task, curves.readout, n_min, kind, reasons, selected, delta, needed, alive, *setting, notes_here,
            additive.pulls,
        )  # fmt: skip

    if n_seqs < LEAST_SEQS:
        refusals.append(f"{n_seqs} sequences, at least {LEAST_SEQS} are needed to compare hypotheses")
    if n_updates < LEAST_UPDATES:
        refusals.append(f"{n_updates} updates from n = {curves.shots[0]:.0f} on, at least {LEAST_UPDATES} are needed")
    if refusals:
        return verdict("refused", refusals)

    contrast, p = quadratic_contrast(curves, robust=additive.noise == "student")
    a_mean, a_low, a_high = power.intervals["a"]
    on_constant, on_constant_se = _difference(additive.elpd_logo, constant.elpd_logo)
    gains = on_constant > slack(on_constant_se)
    # Laws in nats hardly fall, whatever the data, so their gain is no sign of one.
    moving = [s for s in scores if s.hypothesis in alive and _moves(s) and not HYPOTHESES[s.hypothesis].in_nats]
    numbers = {
        "logo": f"additive is {in_nats(*distance['additive'])} from the best ({best}) when a sequence is left out",
        "lfo": f"{in_nats(*distance_lfo['additive'])} from the best when the second half is left out"
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
    needed = _seqs_needed(n_seqs, distance["additive"], (a_mean, a_low, a_high))
    if needed:
        number, decided = needed
        open_points.append(f"if what is seen goes on, about {number} sequences would decide it ({decided})")
        return verdict("undecided", open_points, number)
    return verdict("undecided", [*open_points, "how many sequences would decide it cannot be said from these"])


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
