"""Partial pooling over heads: how far a head's slope is believed, given what most heads are like."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats as distributions
from scipy.special import ndtr

from bayes_icl.core.intervals import TAILS

LEAST_SHARE, SURE = 0.05, 0.95  # share of delta that a head which stands out exceeds, and with which probability

NULL_WEIGHT = 10.0  # of the Dirichlet prior on no effect; 1 on every other width, as in Stephens (2017)

EM_STEPS, EM_DONE = 5000, 1e-9

BISECTIONS = 60

WIDTHS = 24  # normals that make up a t


@dataclass(frozen=True)
class Pooled:
    """Partial pooling over heads; nats per example.

    Attributes
    ----------
    mean, low, high
        Posterior mean and 95 % equal-tailed interval of each head, shape (head,).
    false_sign
        Local false sign rate, shape (head,): the least probability of being wrong about the sign, where a head that
        writes nothing is wrong both ways.
    sds, weights
        The fitted mixture over heads, shape (component,); the first sd is 0.
    shares, centres, spreads
        Each head's posterior, a mixture of normals: weights, means, sds, shape (head, part).
    """

    mean: Float[np.ndarray, " head"]
    low: Float[np.ndarray, " head"]
    high: Float[np.ndarray, " head"]
    false_sign: Float[np.ndarray, " head"]
    sds: Float[np.ndarray, " component"]
    weights: Float[np.ndarray, " component"]
    shares: Float[np.ndarray, "head part"]
    centres: Float[np.ndarray, "head part"]
    spreads: Float[np.ndarray, "head part"]

    def not_above(self, x: np.ndarray | float) -> Float[np.ndarray, " head"]:
        """Probability of a value of x or less; x is a number or one a head."""
        return _not_above(x, self.shares, self.centres, self.spreads)

    def below(self, x: np.ndarray | float) -> Float[np.ndarray, " head"]:
        """Probability of a value less than x."""
        return 1 - _not_above(-np.asarray(x), self.shares, -self.centres, self.spreads)


def pool_heads(
    estimates: Float[np.ndarray, " head"],
    standard_errors: Float[np.ndarray, " head"],
    dof: float = np.inf,
    *,
    by_noise: bool = False,
) -> Pooled:
    """Adaptive shrinkage (Stephens 2017, "False discovery rates: a new deal", Biostatistics 18(2), 275-294).

    True values are taken to be drawn from a mixture of normals about 0, whose sds stand on a grid from 0 to twice the
    largest estimate. Its weights are fitted to all heads by EM, under a Dirichlet prior that leans towards 0. What
    most heads are like thus decides how far a single one is believed. Heads are taken to err independently.

    Parameters
    ----------
    estimates
        One a head, in any unit.
    standard_errors
        0 where an estimate is exact.
    dof
        Degrees of freedom of the standard errors: an estimate has Student's t about the truth, as a mixture of normals
        of several widths. Normal, if none is given.
    by_noise
        Pool values in units of their standard errors, as suits heads, since those that write more vary more (Stephens's
        alpha = 1). `sds` are in those units then.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.attribute.shrinkage import pool_heads, stands_out
    >>> slopes = np.array([0.02, -0.01, 0.01, -0.02, 0.0, 0.01, -0.01, 0.2])  # nats per example
    >>> pooled = pool_heads(slopes, np.full(8, 0.02))
    >>> abs(pooled.mean).round(1).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2]
    >>> np.flatnonzero(stands_out(pooled, (0.5, 0.4, 0.6))).tolist()
    [7]
    """
    x, s = np.asarray(estimates, float), np.asarray(standard_errors, float)
    exact = s <= 0
    if by_noise:
        unit = np.where(exact, 1.0, s)
        own = pool_heads(x / unit, s / unit, dof)
        unit = unit[:, None]
        scaled = replace(own, centres=own.centres * unit, spreads=own.spreads * unit)
        ends = {name: getattr(own, name) * unit[:, 0] for name in ("mean", "low", "high")}
        return replace(scaled, **ends)
    sds = np.zeros(1)
    if not exact.all():
        least, most = s[~exact].min() / 10, 2 * np.abs(x[~exact]).max()
        steps = int(np.ceil(2 * np.log2(max(most / least, 1))))
        sds = np.concatenate([[0.0], least * np.sqrt(2) ** np.arange(steps + 1)])
    widths, of_width = _widths_of_t(dof)
    # Shape (head, width, component) from here on. An exact estimate has one posterior, whatever the part.
    error = np.where(exact, 0.0, s)[:, None, None] * widths[:, None]
    total = np.where(error > 0, error**2 + sds**2, 1.0)
    at = np.where(exact, 0.0, x)[:, None, None]
    log_density = np.log(of_width)[:, None] - 0.5 * np.log(total) - 0.5 * at**2 / total
    density = np.exp(log_density - log_density.max((1, 2), keepdims=True))
    weights = _mixture_weights(density[~exact].sum(1))
    shares = (density * weights).reshape(len(x), -1)
    shares /= shares.sum(1, keepdims=True)
    shrink = np.where(error > 0, sds**2 / total, 1.0)
    centres = (shrink * x[:, None, None]).reshape(len(x), -1)
    spreads = (np.sqrt(shrink) * error).reshape(len(x), -1)
    low, high = (_quantile(p, shares, centres, spreads) for p in TAILS)
    pooled = Pooled((shares * centres).sum(1), low, high, np.empty(len(x)), sds, weights, shares, centres, spreads)
    return replace(pooled, false_sign=np.minimum(pooled.not_above(0), 1 - pooled.below(0)))


def _widths_of_t(dof: float) -> tuple[Float[np.ndarray, " width"], Float[np.ndarray, " width"]]:
    """Sds of normals, and their weights, that make up Student's t: one over the root of a chi-square over its dof."""
    if np.isinf(dof):
        return np.ones(1), np.ones(1)
    least, most = distributions.chi2.ppf([1e-7, 1 - 1e-7], dof) / dof
    precision = np.geomspace(least, most, WIDTHS)
    weights = distributions.chi2.pdf(dof * precision, dof) * precision
    return 1 / np.sqrt(precision), weights / weights.sum()


def _mixture_weights(density: Float[np.ndarray, "head component"]) -> Float[np.ndarray, " component"]:
    """Weights of most posterior probability, by EM."""
    n, k = density.shape
    extra = np.zeros(k)
    extra[0] = NULL_WEIGHT - 1
    weights = np.full(k, 1 / k)
    for _ in range(EM_STEPS):
        # The share that each component has in a head, summed over heads.
        new = weights * ((1 / (density @ weights)) @ density) + extra
        new /= n + extra.sum()
        moved = np.abs(new - weights).max()
        weights = new
        if moved < EM_DONE:
            break
    return weights


def _not_above(
    x: np.ndarray | float, shares: np.ndarray, centres: np.ndarray, spreads: np.ndarray
) -> Float[np.ndarray, " head"]:
    """Probability of x or less under mixtures of normals, some of sd 0."""
    error = np.broadcast_to(np.asarray(x, float), (len(shares),))[:, None] - centres
    point = spreads <= 0
    upto = np.where(point, error >= 0, ndtr(error / np.where(point, 1.0, spreads)))
    return np.minimum((shares * upto).sum(1), 1.0)


def _quantile(p: float, shares: np.ndarray, centres: np.ndarray, spreads: np.ndarray) -> Float[np.ndarray, " head"]:
    """The least value with at least probability p not above it, by bisection; exactly 0 where p falls on no effect."""
    low, high = (centres - 10 * spreads).min(1), (centres + 10 * spreads).max(1)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        less = _not_above(middle, shares, centres, spreads) < p
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    below, upto = 1 - _not_above(0.0, shares, -centres, spreads), _not_above(0.0, shares, centres, spreads)
    return np.where((below < p) & (p <= upto), 0.0, high)


def stands_out(pooled: Pooled, delta: tuple[float, float, float]) -> Bool[np.ndarray, " head"]:
    """Heads that write more than 5 % of delta, or as much against it, with probability above 0.95.

    None where the interval of delta itself holds 0: there is no update to write.
    """
    mean, low, high = delta
    if not (low > 0 or high < 0):
        return np.zeros(len(pooled.mean), bool)
    bar = LEAST_SHARE * abs(mean)
    return pooled.below(-bar) + 1 - pooled.not_above(bar) > SURE
