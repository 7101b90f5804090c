"""The second verdict: does the model weigh evidence as an ideal observer would, examples that disagree included?

It is given by which laws of history survive, by the weight of an example over lags beside the observer's, and by the
weight of the observer's log-odds, each with its interval and a stated region of practical equivalence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayes_icl.core.intervals import Interval
from bayes_icl.curves import Curves
from bayes_icl.fit.verdict import SURE
from bayes_icl.hypotheses.law import HISTORY_LAWS, law_called
from bayes_icl.inference.histories import past_of
from bayes_icl.inference.lag_weights import LagWeights
from bayes_icl.inference.scores import Score
from bayes_icl.inference.survival import LEAST_SEQS, difference_of, doubt_of, slack, survivors

FLAT = 0.2  # of the mean weight: how far weights over lags may be from the observer's

IDEAL = (0.8, 1.25)  # weights of an observer that are 1 for practical purposes

CLOSE = 0.05  # root mean square difference of two laws that say the same, a share of what evidence moves

LAGS = (1, 2, 4, 8)  # further examples, after which it is said how much of a weight is left

MAY_BE_NONE = "that evidence moves the log-odds its way is not sure: more sequences decide"

# What the verdict is called where a law alone survives.
CALLED = {
    "trend": "ignores",
    "signed": "additive",
    "recent": "recency",
}


@dataclass(frozen=True)
class Weighing:
    """The second verdict on one curve.

    Attributes
    ----------
    verdict
        bayesian, conservative, overconfident; leaky, asymmetric, counting, averaging, hazard, primacy, recency,
        additive, or the name of a law of the user's own; ignores; not separable; undecided; refused.
    reasons
        Why, in words with numbers.
    weight
        Of the observer's log-odds, 1 for the ideal: mean, low, high (95 %); None where it is not known.
    law, parameters
        The simplest law that survives, and its own parameters: mean, low, high of each.
    survivors
        Laws that survive a left-out sequence, and, of curves, a left-out future; or whose log-odds are those of the law
        that predicts best but for 5 % of what evidence moves.
    kernel
        Weights over lags: the share that is left after 1, 2, 4, 8 further examples (mean, low, high), the probability
        that they are the observer's within 20 %, and what the figure draws.
    combined
        Parameters of `combined`, mean, low, high: a Bayesian who counts has w = 1, leak = 1, kappa = 0.
    readout, n_min
        Which curve.
    """

    verdict: str
    reasons: list[str]
    readout: str
    n_min: int
    weight: dict[str, float] | None = None
    law: str | None = None
    parameters: dict[str, dict[str, float]] = field(default_factory=dict)
    survivors: list[str] = field(default_factory=list)
    kernel: dict[str, Any] | None = None
    combined: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The form it has in verdict.json, under ``bayesian``."""
        return dict(vars(self))


def weigh(curves: Curves, scores: Sequence[Score], small: float = 0.5) -> Weighing:
    """The second verdict on one curve.

    not separable
        All examples agree, so that laws differ in the shape of a curve at most; or several laws that say different
        things survive.
    bayesian, conservative, overconfident
        `observer` survives, and either no law survives that says another thing (by 20 % of what evidence moves), or
        weights over lags are the observer's within 20 % of their mean with a probability of 0.95; they are not surely
        others; and the interval of the observer's weight lies within (0.8, 1.25), below, or above.
    leaky, asymmetric, ...
        Named by the simplest law that survives, where `observer` does not.
    ignores
        What the evidence moves is surely below `small`, whatever law measures it.
    undecided
        Anything else.

    Parameters
    ----------
    curves
        One task under one readout.
    scores
        Of the laws of history that were fitted to it.
    small
        What evidence may move for there to be nothing, nats.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import Curves
    >>> from bayes_icl.fit.weighing import weigh
    >>> from bayes_icl.hypotheses import HISTORY_LAWS as LAWS
    >>> from bayes_icl.inference.history_scores import score_history
    >>> shown = np.random.default_rng(0).choice([-1, 1], (32, 17))
    >>> ideal, noise = 0.5 * (shown.cumsum(1) - shown), 0.3 * np.random.default_rng(1).normal(size=shown.shape)
    >>> curves = Curves("mine", "foil", np.arange(17.0), ideal + noise, history=shown, observer=ideal)
    >>> weigh(curves, [score_history(LAWS[law], curves)[0] for law in ("observer", "leaky", "per_lag")]).verdict
    'bayesian'
    """
    found = _Found.of(curves, scores)
    if refusals := found.refusals:
        return found.weighing("refused", refusals)
    if not curves.disagrees:
        which = ", ".join(found.both) or "none"
        why = f"all examples agree, so that no weighing shows (a design where they disagree tells); these fit: {which}"
        return found.weighing("not separable", [why])
    if (ignores := found.ignored(small)) is not None:
        return found.weighing("ignores", [ignores])
    if "observer" in found.both:
        return _beside_observer(found)
    if not found.both:
        return found.weighing("undecided", ["no law survives both a left-out sequence and a left-out future"])
    return _by_law(found)


def _beside_observer(found: _Found) -> Weighing:
    """The verdict where the ideal observer survives."""
    weight, lags = found.by_name["observer"].intervals["w"], found.lags
    reasons = [f"the ideal observer survives, with weight {weight:.2f}"]
    if weight.low <= 0:
        return found.weighing("undecided", [*reasons, MAY_BE_NONE], law="observer")
    others = [name for name in found.both if name != "observer" and found.apart(name, "observer") > FLAT]
    alike = None if lags is None else lags.within(FLAT)
    if alike is not None:
        reasons.append(f"weights over lags are the observer's within {100 * FLAT:g} % with probability {alike:.2f}")
    if alike is not None and alike <= 1 - SURE:
        why = "though it predicts no worse than others, an example's weight over lags is not the observer's"
        reasons += [why, *found.others(others)]
        return found.weighing("not separable" if others else "undecided", reasons, law="observer")
    if others and (alike is None or alike < SURE):
        reasons += [*found.others(others), "more sequences, or another design, decide"]
        return found.weighing("not separable", reasons, law="observer")
    if weight.low > IDEAL[0] and weight.high < IDEAL[1]:
        return found.weighing("bayesian", reasons, law="observer")
    if weight.high < IDEAL[0]:
        return found.weighing("conservative", reasons, law="observer")
    if weight.low > IDEAL[1]:
        return found.weighing("overconfident", reasons, law="observer")
    edge = f"whether the weight lies in ({IDEAL[0]}, {IDEAL[1]}), where it is 1 for practical purposes, is open"
    return found.weighing("undecided", [*reasons, f"{edge}: more sequences decide"], law="observer")


def _by_law(found: _Found) -> Weighing:
    """The verdict where it does not survive, or is not known."""
    least = min(HISTORY_LAWS[name].complexity for name in found.both)
    simplest = [name for name in found.both if HISTORY_LAWS[name].complexity == least]
    law = found.best_of(simplest)
    rivals = [name for name in simplest if name != law and found.as_good(name, law)]
    known, w = "observer" in found.by_name, found.by_name[law].intervals.get("w")
    reasons = ["the ideal observer does not survive" if known else "no ideal observer is known", found.described(law)]
    if w is not None and w.low <= 0:
        return found.weighing("undecided", [*reasons, MAY_BE_NONE], law=law)
    if rivals:
        return found.weighing("not separable", [*reasons, *found.others(rivals)], law=law)
    return found.weighing(CALLED.get(law, law), reasons, law=law)


def _difference(one: Score, other: Score) -> float:
    """Root mean square difference of two laws' log-odds, each about a sequence's mean, as a share of the other's."""
    assert one.fitted is not None and other.fitted is not None
    axis = 1 if one.fitted.shape[1] > 1 else None
    first, second = (x - x.mean(axis, keepdims=True) for x in (one.fitted, other.fitted))
    return float(np.sqrt(((first - second) ** 2).mean() / max((second**2).mean(), 1e-12)))


def _close(scores: Sequence[Score]) -> list[str]:
    """Laws whose log-odds are those of the best law of all, but for a share `CLOSE` of what evidence moves."""
    sound = [s for s in scores if s.fitted is not None and not (s.faults or np.isnan(s.elpd_logo).any())]
    if not sound:
        return []
    best = max(sound, key=lambda s: s.elpd_logo.sum())
    return [s.hypothesis for s in sound if _difference(s, best) <= CLOSE]


@dataclass(frozen=True)
class _Found:
    """Which laws of history describe a curve.

    Attributes
    ----------
    both
        Laws that survive: a left-out sequence, and a left-out future where that was asked; or that say the same as the
        law that predicts best, for practical purposes (`CLOSE`).
    """

    curves: Curves
    by_name: dict[str, Score]
    both: list[str]

    @classmethod
    def of(cls, curves: Curves, scores: Sequence[Score]) -> _Found:
        rivals = [s for s in scores if law_called(s.hypothesis).rival]
        alive, _ = survivors(rivals, "elpd_logo")
        ahead, _ = survivors(rivals, "elpd_lfo")
        asked = any(np.isfinite(s.elpd_lfo).all() for s in rivals)
        alive = [name for name in alive if name in ahead or not asked]
        close = _close(scores)
        both = [s.hypothesis for s in rivals if s.hypothesis in alive or s.hypothesis in close]
        return cls(curves, {s.hypothesis: s for s in scores}, both)

    def apart(self, name: str, law: str) -> float:
        """How far one law's log-odds are from another's, a share of what evidence moves by that."""
        return _difference(self.by_name[name], self.by_name[law])

    def as_good(self, name: str, law: str) -> bool:
        """Whether one law predicts left-out sequences as well as another, or better."""
        difference, se = difference_of(self.by_name[name].elpd_logo, self.by_name[law].elpd_logo)
        return -difference <= slack(se)

    @property
    def lags(self) -> LagWeights | None:
        """Weights over lags."""
        return self.by_name["per_lag"].lag_weights if "per_lag" in self.by_name else None

    @property
    def refusals(self) -> list[str]:
        """Why there is no verdict."""
        if (n := len(self.curves.log_odds)) < LEAST_SEQS:
            return [f"{n} sequences, at least {LEAST_SEQS} are needed"]
        if not any(not doubt_of(s) for s in self.by_name.values()):
            return ["no law of history could be fitted"]
        return []

    def best_of(self, names: Sequence[str]) -> str:
        """Of laws the one that predicts best."""
        return max(names, key=lambda name: self.by_name[name].elpd_logo.sum())

    def ignored(self, small: float) -> str | None:
        """That evidence moves nothing, where it surely moves less than `small`; None where it does, or may."""
        if "trend" not in self.both or "signed" not in self.by_name:
            return None
        past = past_of(self.curves)
        last = past.signed.reshape(past.reads.shape)[:, -1]
        size = float(np.sqrt((last**2).mean()))
        moved = Interval(*(size * x for x in self.by_name["signed"].intervals["w"]))
        if moved.low > -small and moved.high < small:
            return f"what the examples show moves the log-odds by {moved:.2f} nats (root mean square, at the last shot)"
        return None

    def described(self, law: str) -> str:
        """The law that survives, with its own parameters."""
        own = self.own_parameters(law)
        said = ", ".join(f"{name} {interval:.2f}" for name, interval in own.items())
        return f"the simplest law that survives is {law}" + (f": {said}" if said else "")

    def others(self, names: Sequence[str]) -> list[str]:
        """That other laws survive as well."""
        return [f"not told from {', '.join(names)}"] if names else []

    def own_parameters(self, law: str) -> dict[str, Interval]:
        """Intervals of a law's own parameters and its weight."""
        known = self.by_name[law].intervals
        return {name: known[name] for name in ("w", *HISTORY_LAWS[law].priors) if name in known}

    def weighing(self, verdict: str, reasons: list[str], law: str | None = None) -> Weighing:
        """The verdict, with all that stands beside it."""
        sound = "observer" in self.by_name and not doubt_of(self.by_name["observer"])
        named = law or (self.best_of(self.both) if self.both else None)
        combined = self.by_name.get("combined")
        return Weighing(
            verdict,
            reasons,
            self.curves.readout,
            self.curves.n_min,
            weight=_three(self.by_name["observer"].intervals["w"]) if sound else None,
            law=named,
            parameters={k: _three(v) for k, v in self.own_parameters(named).items()} if named else {},
            survivors=self.both,
            kernel=None if self.lags is None else _kernel(self.lags, self.curves),
            combined={k: _three(v) for k, v in self.own_parameters("combined").items()}
            if combined and not doubt_of(combined)
            else {},
        )


def _three(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _kernel(lags: LagWeights, curves: Curves) -> dict[str, Any] | None:
    """What verdict.json says of weights over lags."""
    if not curves.disagrees:
        return None
    low, high = np.quantile(lags.draws, (0.025, 0.975), axis=0)
    drawn = {"lag": np.arange(1, lags.draws.shape[1] + 1), "mean": lags.draws.mean(0), "low": low, "high": high}
    if lags.of_observer is not None:
        drawn["observer"] = lags.of_observer
    return {
        "alike": lags.within(FLAT),
        "left_after": {str(n): _three(left) for n in LAGS if n < lags.draws.shape[1] and (left := lags.left_after(n))},
        "weights": {name: x.tolist() for name, x in drawn.items()},
    }
