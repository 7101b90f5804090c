"""Whether a law predicts a sequence that it has not seen: probability integral transforms, and a test of them.

A sequence is summed up by three numbers: the slope of its best line, its quadratic contrast, and its squared distance
from the mean curve in the metric of the noise (Mahalanobis). The PIT of each is the probability, under the posterior
without that sequence, that a new sequence has less. Where the law holds, curve and noise, PITs are uniform.

Whether they are is judged by their empirical distribution function against bands that hold the whole of it with a given
probability (Saeilynoja, Buerkner and Vehtari 2022, Statistics and Computing 32, 32). Sequences are left out of a fit
that the others share, so that the test errs on the side of too few alarms.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln
from scipy.stats import binom, poisson

from bayes_icl.core.intervals import LEVEL
from bayes_icl.inference.noise import Statistics, variances
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import between, curve_of, mean_curve, replicate
from bayes_icl.inference.psis import smooth
from bayes_icl.inference.scores import sequence_log_likelihood

STATISTICS = ("slope", "contrast", "distance")

MOST_NUMBERS = 2**20  # of replicated log-odds

LEAST_DRAWS, MOST_DRAWS = 200, 1000

MOST_PLACES = 100  # at which the distribution function is looked at


def loo_pits(
    posterior: Posterior, stats: Statistics, seed: int = 0
) -> tuple[dict[str, Float[np.ndarray, " seq"]], Float[np.ndarray, " seq"]]:
    """PITs of every sequence left out, by statistic, and the Pareto k of the weights without it.

    Parameters
    ----------
    posterior
        Of any law, by either engine.
    stats
        Of the curves that it was fitted to.
    seed
        Of the new sequences.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.hypotheses import HYPOTHESES
    >>> from bayes_icl.inference.importance import sample_fast
    >>> from bayes_icl.inference.loo_pit import loo_pits, uniform_p
    >>> from bayes_icl.inference.noise import summarise
    >>> stats = summarise(select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1))
    >>> pits, _ = loo_pits(sample_fast(HYPOTHESES["additive"], stats), stats)
    >>> uniform_p(pits["contrast"]) < 0.001  # sequences bend, and this law has no bend
    True
    """
    draws = posterior.equal(int(np.clip(MOST_NUMBERS // stats.x.size, LEAST_DRAWS, MOST_DRAWS)), seed)
    log_weights, pareto_k = smooth(-sequence_log_likelihood(draws, stats))
    weights = np.exp(log_weights)
    seen = curve_of(stats.x @ stats.inverse_transform)
    new = replicate(draws, stats, np.random.default_rng([seed, 11]))
    n = stats.shots - stats.shots.mean()
    basis = np.linalg.qr(np.stack([np.ones_like(n), n, n**2], axis=1))[0][:, 1:]
    basis *= np.sign(basis[-1])
    v, columns = variances(stats, draws.params["level"], draws.params["walk"]), between(draws.params, stats)
    cov = (stats.inverse_transform.T * v[:, None, :]) @ stats.inverse_transform + columns.mT @ columns
    inverse = np.linalg.inv(cov)
    mean = mean_curve(draws, stats)[:, None]

    def distances(curves: np.ndarray) -> np.ndarray:
        off = np.diff(curves - mean, axis=-1)
        return ((off @ inverse) * off).sum(-1)

    own, of_new = seen @ basis, new @ basis
    pairs = {
        "slope": (own[:, 0], of_new[..., 0]),
        "contrast": (own[:, 1], of_new[..., 1]),
        "distance": (distances(seen), distances(new)),
    }
    return {name: (weights * (theirs < ours)).sum(0) for name, (ours, theirs) in pairs.items()}, pareto_k


def uniform_p(pits: Float[np.ndarray, " seq"]) -> float:
    """The p-value that values are uniform on 0 to 1: how rarely bands that their distribution function leaves are left.

    Exact for independent values.

    Parameters
    ----------
    pits
        The values.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.inference.loo_pit import uniform_p
    >>> evenly = (np.arange(40) + 0.5) / 40
    >>> uniform_p(evenly) > 0.9, uniform_p(evenly**2) < 0.01
    (True, True)
    """
    n = len(pits)
    places = _places(n)
    counts = (pits[:, None] <= places).sum(0)
    below, above = _tails(n)
    at = np.arange(len(places))
    return _outside(n, float(min(below[counts, at].min(), above[counts, at].min())))


def uniform_band(n: int, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places on 0 to 1, and the band there that holds the whole distribution function of `n` uniform values.

    Parameters
    ----------
    n
        Number of values.
    level
        With this probability.
    """
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _outside(n, middle) < 1 - level else (low, middle)
    first, last = _inside(n, low)
    return _places(n), first / n, last / n


def _places(n: int) -> np.ndarray:
    k = min(n, MOST_PLACES)
    return np.arange(1, k + 1) / (k + 1)


@lru_cache(maxsize=16)
def _tails(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Probability of that count or fewer below each place, and of that or more; shape (count, place)."""
    counts = np.arange(n + 1)[:, None]
    return binom.cdf(counts, n, _places(n)), binom.sf(counts - 1, n, _places(n))


def _inside(n: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest count at each place whose tails are both above `tail`."""
    below, above = _tails(n)
    return (below <= tail).sum(0), n - (above <= tail).sum(0)


def _outside(n: int, tail: float) -> float:
    """Probability that one of the counts of `n` uniform values has a tail of at most `tail`.

    Counts are sums of Poisson numbers, given that they are n in the end: a step from place to place is a convolution.
    """
    first, last = _inside(n, tail)
    if (first > last).any():
        return 1.0
    steps = np.diff(np.concatenate([[0.0], _places(n), [1.0]])) * n
    state, start = np.ones(1), 0
    for size, low, high in zip(steps, [*first, n], [*last, n]):
        more = np.arange(high - start + 1)
        state = np.convolve(state, poisson.pmf(more, size))[low - start : high - start + 1]
        start = low
    log_all = n * np.log(n) - n - gammaln(n + 1)
    return float(np.clip(1 - state[0] / np.exp(log_all), 0.0, 1.0))
