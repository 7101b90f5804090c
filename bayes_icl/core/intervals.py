"""Means with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats as distributions


def mean_and_interval(
    x: Float[np.ndarray, " draw"], log_weights: Float[np.ndarray, " draw"], share: float = 0.95
) -> tuple[float, float, float]:
    """Weighted mean and the narrowest interval that holds `share` of the weight."""
    weights = np.exp(log_weights)
    mean = float(weights @ x / weights.sum())
    order = np.argsort(x)
    x, below = x[order], np.cumsum(weights[order]) / weights.sum()
    stop = np.searchsorted(below, below - weights[order] / weights.sum() + share - 1e-12)
    start = np.flatnonzero(stop < len(x))
    best = start[np.argmin(x[stop[start]] - x[start])]
    return mean, float(x[best]), float(x[stop[best]])


Interval = tuple[float, float, float]  # mean, low, high

UNKNOWN_INTERVAL: Interval = (np.nan, np.nan, np.nan)


def t_interval(x: Float[np.ndarray, "seq ..."], level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over sequences, and its t-interval, 95 % if not said, each of shape (...); NaN with one sequence."""
    n = len(x)
    mean = x.mean(0)
    quantile = distributions.t.ppf((1 + level) / 2, n - 1) if n > 1 else np.nan
    half = quantile * x.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full_like(mean, np.nan)
    return mean, mean - half, mean + half


def flat(numbers: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """A mean and interval each as three columns of a table: its name, and with ``_low`` and ``_high``."""
    return {f"{name}{end}": float(x) for name, three in numbers.items() for end, x in zip(("", "_low", "_high"), three)}
