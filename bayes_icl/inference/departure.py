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

from bayes_icl.core.intervals import Interval, mean_and_interval
from bayes_icl.inference.noise import Statistics
from bayes_icl.inference.posterior import Posterior

BENDS_TESTED = 2  # of a deviation's smoothest components: a bend and a wave

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
    def second_half(self) -> Interval:
        """What the second half of the examples adds, as a share of what the first half adds: 1 for a line."""
        middle = (self.shots[0] + self.shots[-1]) / 2
        at = np.array([np.interp(middle, self.shots, curve) for curve in self.curves])
        first, second = at - self.curves[:, 0], self.curves[:, -1] - at
        return mean_and_interval(second / np.where(np.abs(first) < LEAST_TOTAL, LEAST_TOTAL, first), self.log_weights)

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
