"""Pareto-smoothed importance sampling, all columns at once.

After Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25(72). The same numbers
as `arviz.psislw`, whose import alone takes longer than a whole set of fits.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

_LEAST_TAIL = 5  # fewer weights above the cut are not fitted

_PRIOR_K, _PRIOR_DRAWS = 0.5, 10.0  # the fitted k is drawn towards 0.5 as by 10 draws

_PRIOR_QUARTILE = 3.0  # Zhang & Stephens' prior of b is scaled by 3 lower quartiles

_LOG_TINY = math.log(np.finfo(float).tiny)

_EPS = float(np.finfo(float).eps)


def smooth(
    log_weights: Float[np.ndarray, "draw seq"],
) -> tuple[Float[np.ndarray, "draw seq"], Float[np.ndarray, " seq"]]:
    """Smooth the largest weights of each column.

    Returns
    -------
    log_weights
        Smoothed, none above the largest raw one, each column's weights summing to 1.
    pareto_k
        Shape of each column's tail. Infinite, and the weights left raw, where at most 4 lie above the cut, as among
        equal weights, or where they do so by rounding alone (ArviZ 0.23 makes those weights NaN).
    """
    x = np.array(log_weights, dtype=float).T.copy()  # a row for each column: its draws side by side in memory
    n_seqs, n_draws = x.shape
    x -= x.max(1, keepdims=True)
    n_tail = math.ceil(min(n_draws / 5, 3 * math.sqrt(n_draws)))
    at = max(n_draws - n_tail - 1, 0)
    cut = np.maximum(np.partition(x, at, axis=1)[:, at], _LOG_TINY)
    k = np.full(n_seqs, np.inf)
    above = x > cut[:, None]
    tail_length = above.sum(1)
    for length in np.unique(tail_length[tail_length >= _LEAST_TAIL]):  # one length, unless weights are tied at the cut
        rows = np.flatnonzero(tail_length == length)
        draws = np.nonzero(above[rows])[1].reshape(len(rows), length)
        tail = np.take_along_axis(x[rows], draws, axis=1)
        order = np.argsort(tail, axis=1)
        tail, draws = np.take_along_axis(tail, order, axis=1), np.take_along_axis(draws, order, axis=1)
        floor = np.exp(cut[rows, None])
        with np.errstate(all="ignore"):  # what overflows is not finite, and left raw
            fitted, smoothed = _expected_tail(np.exp(tail) - floor)
            smoothed = np.minimum(np.log(smoothed + floor), 0)
        good = np.isfinite(fitted) & np.isfinite(smoothed).all(1)
        k[rows[good]] = fitted[good]
        x[rows[good, None], draws[good]] = smoothed[good]
    return (x - np.log(np.exp(x).sum(1, keepdims=True))).T, k


def pareto_k(log_weights: Float[np.ndarray, " draw"]) -> float:
    """Shape of the tail of one set of weights."""
    return float(smooth(log_weights[:, None])[1][0])


def _expected_tail(
    tail: Float[np.ndarray, "seq tail"],
) -> tuple[Float[np.ndarray, " seq"], Float[np.ndarray, "seq tail"]]:
    """Shape of the generalised Pareto distribution of each row of sorted excesses, and its order statistics.

    Zhang & Stephens (2009): with b = -k / sigma the likelihood has its maximum over k in closed form, so the posterior
    mean of b is a sum over a grid of b.
    """
    n = tail.shape[1]
    n_grid = 30 + int(math.sqrt(n))
    grid = 1 - np.sqrt(n_grid / (np.arange(n_grid) + 0.5))
    bs = grid[:, None] / (_PRIOR_QUARTILE * tail[:, int(n / 4 + 0.5) - 1]) + 1 / tail[:, -1]
    ks = np.stack([_k_given(b, tail) for b in bs])
    profile = n * (np.log(-bs / ks) - ks - 1)
    weights = np.exp(profile - profile.max(0))
    weights /= weights.sum(0)
    weights[weights < 10 * _EPS] = 0  # as ArviZ does
    b = (weights * bs).sum(0) / weights.sum(0)
    k = _k_given(b, tail)
    sigma = -k / b
    k = (n * k + _PRIOR_DRAWS * _PRIOR_K) / (n + _PRIOR_DRAWS)
    log_survival = np.log1p(-(np.arange(n) + 0.5) / n)
    exponential = np.abs(k) < _EPS
    shape = np.where(exponential, 1, k)[:, None]
    quantiles = np.where(exponential[:, None], -log_survival, np.expm1(-shape * log_survival) / shape)
    return k, sigma[:, None] * quantiles


def _k_given(b: Float[np.ndarray, " seq"], tail: Float[np.ndarray, "seq tail"]) -> Float[np.ndarray, " seq"]:
    return np.log1p(-b[:, None] * tail).mean(1)
