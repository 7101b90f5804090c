"""The weight of an example by how many came after it: is it the ideal observer's?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from bayes_icl.core.intervals import Interval, mean_and_interval
from bayes_icl.hypotheses.history import lag_sizes
from bayes_icl.inference.histories import Histories, collapsed_history
from bayes_icl.inference.posterior import Posterior

DRAWS = 1000  # of the weights, kept

LEAST_READINGS = 0.1  # share of the readings that must have an example so long ago, for a group of lags to be looked at


@dataclass(frozen=True, eq=False)
class LagWeights:
    """Weights over lags, from the posterior of `per_lag`, and those that the ideal observer would have.

    Lags are taken in groups, 1, 2, 3 and 4, 5 to 8, ...: of single lags too little is known.

    Attributes
    ----------
    draws
        The weight of an example 1, 2, 3, ... examples ago, nats, shape (draw, lag).
    groups
        Lags of each group, as first and last, shape (group, 2).
    by_group
        Mean weight in each group, nats, shape (draw, group).
    readings
        Readings that have an example at each lag, shape (lag,).
    of_observer
        What the same weights are of the ideal observer's log-odds, nats, shape (lag,); None where it is not known.
    observer_by_group
        Their means in the groups, shape (group,); of equal weights where the observer is not known.
    """

    draws: np.ndarray
    groups: np.ndarray
    by_group: np.ndarray
    readings: np.ndarray
    of_observer: np.ndarray | None
    observer_by_group: np.ndarray

    @classmethod
    def of(cls, posterior: Posterior, stats: Histories) -> LagWeights:
        """Those of a posterior of `per_lag`."""
        some, past = posterior.equal(DRAWS), stats.past
        n_lags = past.by_lag.shape[1]
        at = np.searchsorted(stats.knots, np.arange(1, n_lags + 1), side="right") - 1
        steps = np.cumsum(some.params["kernel"] * lag_sizes(np, some.params["step"], past), axis=1)
        readings = (past.n[:, None] >= np.arange(1, n_lags + 1)).sum(0)
        edges = [1, *(2**i + 1 for i in range(int(np.log2(max(n_lags, 1))) + 1))]
        groups = [(first, min(after - 1, n_lags)) for first, after in zip(edges, [*edges[1:], n_lags + 1])]
        groups = [g for g in groups if g[0] <= g[1] and readings[g[0] - 1] >= LEAST_READINGS * len(past.n)]
        own = None if past.observer is None else _observer_weights(posterior, stats)[at]
        draws = steps[:, at]

        def grouped(x: np.ndarray) -> np.ndarray:
            return np.stack(
                [np.average(x[..., a - 1 : b], axis=-1, weights=readings[a - 1 : b]) for a, b in groups], axis=-1
            )

        equal = np.ones(n_lags) if own is None else own
        return cls(draws, np.array(groups), grouped(draws), readings, own, grouped(equal))

    def apart(self) -> Float[np.ndarray, "draw group"]:
        """How far each group's weight is from the observer's, each as a share of the mean over groups."""
        mean = self.by_group.mean(1, keepdims=True)
        safe = np.where(np.abs(mean) < 1e-9, 1e-9, mean)
        return self.by_group / safe - self.observer_by_group / self.observer_by_group.mean()

    def within(self, margin: float) -> float:
        """Probability that no group's weight is further than that from the observer's, as a share of the mean."""
        alike = (np.abs(self.apart()).max(1) < margin) & (self.by_group.mean(1) > 0)
        return float(alike.mean())

    def left_after(self, n: int) -> Interval | None:
        """Share of the last example's weight that an example has after `n` further ones; None if that may be 0."""
        if mean_and_interval(self.draws[:, 0], np.zeros(len(self.draws))).low <= 0:
            return None
        ratio = self.draws[:, min(n, self.draws.shape[1] - 1)] / self.draws[:, 0]
        return mean_and_interval(ratio, np.zeros(len(ratio)))


def _observer_weights(posterior: Posterior, stats: Histories) -> Float[np.ndarray, " knot"]:
    """What `per_lag`, under the same noise and prior, makes of the observer's log-odds in the place of the model's."""
    params = {name: posterior.params[name].mean(0, keepdims=True) for name in posterior.params if name != "kernel"}
    ideal = replace(stats, x=stats.transformed(stats.past.of_observer))
    _, _, mean = collapsed_history(ideal, params)
    return np.cumsum(mean[0] * lag_sizes(np, params["step"], stats.past)[0])
