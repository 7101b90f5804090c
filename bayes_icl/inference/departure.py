r"""How the mean curve departs from a straight line: what the verdict on the additive law is made from.

The mean curve m(n) is that of `freeform`: a line and a smooth deviation from it, with no law assumed. Its departure is
the largest distance from its best straight line, as a share of the total update |m(n_max) - m(n_min)|; the second half
of the examples adds a share of what the first half adds that is 1 for a line; delta is the slope of the best line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2

from bayes_icl.core.intervals import TAILS, Interval, mean_and_interval
from bayes_icl.curves import Curves
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.hypotheses.laws import CURVED_LAPSE
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import Statistics
from bayes_icl.inference.noise_shape import Shape, off_line
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import mean_curve

BENDS_TESTED = 2  # of a deviation's smoothest components: a bend and a wave

DRAWS = 2000  # of the mean curve that are kept

LEAST_TOTAL = 1e-9  # nats; below it a share of the total is not a number


@dataclass(frozen=True)
class MeanCurve:
    """Draws of a mean curve that follows no law.

    Attributes
    ----------
    shots
        Numbers of examples, shape (shot,).
    lines, deviations
        The best line of each draw, and the deviation from it, nats, shape (draw, shot); together the mean curve, with
        a mean of 0 over shots.
    log_weights
        Of the draws.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.hypotheses import HYPOTHESES
    >>> from bayes_icl.inference.departure import MeanCurve
    >>> from bayes_icl.inference.importance import sample_fast
    >>> from bayes_icl.inference.noise import summarise
    >>> stats = summarise(select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1))
    >>> mean = MeanCurve.of(sample_fast(HYPOTHESES["freeform"], stats), stats)
    >>> mean.chance_within(0.05) < 0.01, f"{mean.delta.mean:.2f} nats per example"
    (True, '0.08 nats per example')
    """

    shots: Float[np.ndarray, " shot"]
    lines: Float[np.ndarray, "draw shot"]
    deviations: Float[np.ndarray, "draw shot"]
    log_weights: Float[np.ndarray, " draw"]

    @classmethod
    def of(cls, posterior: Posterior, stats: Statistics) -> MeanCurve:
        """That of a posterior of `freeform`; what moves single shots alike is noise, and left out.

        Parameters
        ----------
        posterior
            Of `freeform`, by either engine.
        stats
            What it was fitted to.
        """
        along = (stats.shots - stats.shots.mean()) / (stats.n_max - stats.shots[0])
        bends = np.concatenate([np.zeros((len(stats.bends), 1)), stats.bends.cumsum(1)], axis=1)
        bends -= bends.mean(1, keepdims=True)
        params = posterior.params
        shape = params["shape"][:, : len(bends)]
        return cls(stats.shots, params["gain"] * along, params["bend"] * (shape @ bends), posterior.log_weights)

    @property
    def curves(self) -> Float[np.ndarray, "draw shot"]:
        """The mean curve of each draw, nats."""
        return self.lines + self.deviations

    @property
    def totals(self) -> Float[np.ndarray, " draw"]:
        """The total update of each draw, nats."""
        return self.curves[:, -1] - self.curves[:, 0]

    @property
    def departures(self) -> Float[np.ndarray, " draw"]:
        """The largest distance of each draw from its best line, as a share of its total update."""
        return np.abs(self.deviations).max(1) / np.maximum(np.abs(self.totals), LEAST_TOTAL)

    @property
    def total(self) -> Interval:
        """The total update, nats."""
        return mean_and_interval(self.totals, self.log_weights)

    @property
    def departure(self) -> Interval:
        """The largest distance from the best line, as a share of the total update."""
        return mean_and_interval(self.departures, self.log_weights)

    @property
    def departure_nats(self) -> Interval:
        """The largest distance from the best line, nats."""
        return mean_and_interval(np.abs(self.deviations).max(1), self.log_weights)

    @property
    def delta(self) -> Interval:
        """Slope of the best line, nats per example."""
        slopes = (self.lines[:, -1] - self.lines[:, 0]) / (self.shots[-1] - self.shots[0])
        return mean_and_interval(slopes, self.log_weights)

    @property
    def second_halves(self) -> Float[np.ndarray, " draw"]:
        """What the second half of the examples adds, as a share of what the first half adds, in each draw."""
        middle = (self.shots[0] + self.shots[-1]) / 2
        at = np.array([np.interp(middle, self.shots, curve) for curve in self.curves])
        first, second = at - self.curves[:, 0], self.curves[:, -1] - at
        return second / np.where(np.abs(first) < LEAST_TOTAL, LEAST_TOTAL, first)

    @property
    def second_half(self) -> Interval:
        """What the second half of the examples adds, as a share of what the first half adds: 1 for a line."""
        return mean_and_interval(self.second_halves, self.log_weights)

    def chance_within(self, margin: float) -> float:
        """Posterior probability that the departure is below a share of the total update.

        Parameters
        ----------
        margin
            The share.
        """
        weights = np.exp(self.log_weights - self.log_weights.max())
        return float(weights @ (self.departures < margin) / weights.sum())

    @property
    def straight_p(self) -> float:
        """How far the posterior of the bend is from none: the tail of chi-square at its squared distance from 0.

        A departure is a distance and above 0 whatever the curve; this asks whether its direction is known.
        """
        n = self.shots - self.shots.mean()
        basis, _ = np.linalg.qr(np.stack([n**power for power in range(2 + BENDS_TESTED)], axis=1))
        scores = self.deviations @ basis[:, 2:]
        weights = np.exp(self.log_weights - self.log_weights.max())
        weights /= weights.sum()
        mean = weights @ scores
        cov = (scores - mean).T @ ((scores - mean) * weights[:, None])
        return float(chi2.sf(mean @ np.linalg.solve(cov + 1e-300 * np.eye(len(cov)), mean), BENDS_TESTED))


@dataclass(frozen=True)
class Straightness:
    """What a verdict takes from a mean curve.

    Attributes
    ----------
    total, departure, departure_nats, second_half, delta
        As in `MeanCurve`.
    straight_p
        As in `MeanCurve`.
    shots, curve, low, high, line
        The mean curve, its 95 % interval shot by shot and its best line, nats, about a mean of 0; shape (shot,).
    noise
        What was chosen for the noise, in words (`noise_shape.Shape.words`).
    faults
        Why the fit cannot be relied on.
    draws, departures
        Some draws of the mean curve, shape (draw, shot), and the departure of each.
    """

    total: Interval
    departure: Interval
    departure_nats: Interval
    second_half: Interval
    delta: Interval
    straight_p: float
    shots: np.ndarray
    curve: np.ndarray
    low: np.ndarray
    high: np.ndarray
    line: np.ndarray
    noise: str
    faults: tuple[str, ...]
    draws: np.ndarray
    departures: np.ndarray

    @classmethod
    def of(cls, posterior: Posterior, stats: Statistics, shape: Shape) -> Straightness:
        """That of a posterior of `freeform`.

        Parameters
        ----------
        posterior, stats
            As in `MeanCurve.of`.
        shape
            Of the noise.
        """
        mean = MeanCurve.of(posterior, stats)
        equal = MeanCurve.of(posterior.equal(DRAWS), stats)
        low, high = np.quantile(equal.curves, TAILS, axis=0)
        return cls(
            total=mean.total,
            departure=mean.departure,
            departure_nats=mean.departure_nats,
            second_half=mean.second_half,
            delta=mean.delta,
            straight_p=mean.straight_p,
            shots=mean.shots,
            curve=equal.curves.mean(0),
            low=low,
            high=high,
            line=equal.lines.mean(0),
            noise=shape.words,
            faults=tuple(posterior.faults),
            draws=equal.curves.astype(np.float32),
            departures=equal.departures,
        )

    def within(self, margin: float) -> float:
        """Posterior probability that the departure is below a share of the total update.

        Parameters
        ----------
        margin
            The share.
        """
        return float((self.departures < margin).mean())

    def close(self, curve: Float[np.ndarray, " shot"], margin: float) -> float:
        """Posterior probability that a law's mean curve is nowhere further from the mean curve than the margin.

        Parameters
        ----------
        curve
            Nats; its level does not matter.
        margin
            Share of the total update.
        """
        total = np.maximum(np.abs(self.draws[:, -1] - self.draws[:, 0]), LEAST_TOTAL)
        off = self.draws - (curve - curve.mean())
        return float((np.abs(off).max(1) < margin * total).mean())

    def misfit(self, curve: Float[np.ndarray, " shot"]) -> float:
        """The largest distance of a law's mean curve from the mean curve, as a share of the total update."""
        off = self.curve - (curve - curve.mean())
        return float(np.abs(off).max() / max(abs(self.total.mean), LEAST_TOTAL))


@dataclass(frozen=True)
class Belief:
    """What lies under a readout's ceiling: a belief, and whether it is straight.

    Attributes
    ----------
    delta
        Update of the belief per example, nats, if it is straight.
    ceiling
        The log-odds that the readout cannot pass, nats.
    curvature
        Its curvature `a`: 0 is straight (`CURVED_LAPSE`).
    departure
        By how much it departs from its best line, a share of its own total update.
    faults
        Why the fits cannot be relied on.
    """

    delta: Interval
    ceiling: Interval
    curvature: Interval
    departure: Interval
    faults: tuple[str, ...]

    def straight(self, margin: float) -> bool:
        """Whether the belief is straight for practical purposes, or is not told from one that is.

        Parameters
        ----------
        margin
            Share of its total update.
        """
        return not self.faults and (self.departure.high < margin or not self.curvature.excludes(0))

    @classmethod
    def of(cls, curves: Curves, stats: Statistics, seed: int = 0) -> Belief:
        """That of some curves, by two fits.

        Parameters
        ----------
        curves, stats
            One task under one readout, and their statistics.
        seed
            Of the draws.
        """
        lapse, curved = (sample_fast(law, stats, seed=seed) for law in (HYPOTHESES["lapse"], CURVED_LAPSE))
        far = np.array([stats.shots[0], 1e6])
        theta = {name: lapse.params[name] for name in HYPOTHESES["lapse"].priors}
        asymptote = np.diff(HYPOTHESES["lapse"].curve(np, far, **theta), axis=1)[:, 0]
        curve = mean_curve(lapse, stats)
        first = curves.log_odds.mean() + curve[:, 0]
        bent = HYPOTHESES["power"].curve(np, stats.shots, a=curved.params["a"])
        off = np.abs(off_line(stats.shots, bent)).max(1) / np.abs(bent[:, -1] - bent[:, 0])
        return cls(
            delta=lapse.intervals(stats)["slope"],
            ceiling=mean_and_interval(first + asymptote, lapse.log_weights),
            curvature=curved.intervals(stats)["a"],
            departure=mean_and_interval(off, curved.log_weights),
            faults=(*lapse.faults, *curved.faults),
        )
