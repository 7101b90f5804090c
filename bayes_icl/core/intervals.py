"""Means with their intervals, and the share that every interval holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats as distributions

LEVEL = 0.95  # share that an interval holds, everywhere: computations, tables, sentences, figures

LEVEL_WORDS = f"{100 * LEVEL:g} %"

TAIL = round((1 - LEVEL) / 2, 12)  # share below an equal-tailed interval, and above it

TAILS = (TAIL, 1 - TAIL)


class Interval(NamedTuple):
    """A mean with its interval; all three NaN where they are not known, the ends where there is no interval.

    Attributes
    ----------
    mean, low, high
        In the unit of what was averaged.

    Examples
    --------
    >>> from bayes_icl.core.intervals import Interval
    >>> delta = Interval(0.178, 0.148, 0.211)
    >>> f"{delta:.2f}", delta.excludes(0)
    ('0.18 [0.15, 0.21]', True)
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Any, mean: str, low: str = "", high: str = "") -> Interval:
        """The interval of a table's row, whose columns are its keys or its attributes.

        Parameters
        ----------
        row
            A row as pandas gives it, or a mapping.
        mean, low, high
            Columns; the ends are those with ``_low`` and ``_high`` if none are named.
        """
        columns = (mean, low or f"{mean}_low", high or f"{mean}_high")
        return cls(*(row[name] if hasattr(row, "keys") else getattr(row, name) for name in columns))

    def excludes(self, value: float) -> bool:
        """Whether a value lies outside the interval; False without an interval."""
        return self.low > value or self.high < value

    def words(self, write: Callable[[float], str]) -> str:
        """Mean and ends, each as `write` writes it."""
        mean, low, high = map(write, self)
        return f"{mean} [{low}, {high}]"

    def __format__(self, form: str) -> str:
        """ "0.178 [0.148, 0.211]"."""
        return self.words(lambda x: format(x, form))


UNKNOWN_INTERVAL = Interval(np.nan, np.nan, np.nan)


def mean_and_interval(
    x: Float[np.ndarray, " draw"], log_weights: Float[np.ndarray, " draw"], share: float = LEVEL
) -> Interval:
    """Weighted mean and the narrowest interval that holds `share` of the weight.

    Parameters
    ----------
    x
        Draws, shape (draw,).
    log_weights
        Their log weights, same shape; they need not add up to 1.
    share
        Of the weight, inside.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.core.intervals import mean_and_interval
    >>> draws, equal = np.arange(101.0), np.zeros(101)
    >>> f"{mean_and_interval(draws, equal, share=0.5):.0f}"
    '50 [0, 50]'
    """
    weights = np.exp(log_weights)
    mean = float(weights @ x / weights.sum())
    order = np.argsort(x)
    x, below = x[order], np.cumsum(weights[order]) / weights.sum()
    stop = np.searchsorted(below, below - weights[order] / weights.sum() + share - 1e-12)
    start = np.flatnonzero(stop < len(x))
    best = start[np.argmin(x[stop[start]] - x[start])]
    return Interval(mean, float(x[best]), float(x[stop[best]]))


def t_interval(x: Float[np.ndarray, "seq ..."], level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over sequences and its t-interval, each of shape (...); NaN with one sequence.

    Parameters
    ----------
    x
        One number a sequence, or an array of them, shape (seq, ...).
    level
        Share of such intervals that hold the true mean.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.core.intervals import Interval, t_interval
    >>> f"{Interval(*t_interval(np.array([1.0, 2.0, 3.0]))):.1f}"
    '2.0 [-0.5, 4.5]'
    """
    n = len(x)
    mean = x.mean(0)
    quantile = distributions.t.ppf((1 + level) / 2, n - 1) if n > 1 else np.nan
    half = quantile * x.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full_like(mean, np.nan)
    return mean, mean - half, mean + half


def resampling_weights(n: int, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draw seq"]:
    """Weights that make of n sequences their mean in each bootstrap resample: how often one is drawn, over n.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.core.intervals import resampling_weights
    >>> resampling_weights(4, 100, np.random.default_rng(0)).sum(1).round(9).tolist() == [1.0] * 100
    True
    """
    return rng.multinomial(n, np.full(n, 1 / n), size=draws) / n


def flat(numbers: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """A mean and interval each as three columns of a table: its name, and with ``_low`` and ``_high``."""
    return {f"{name}{end}": float(x) for name, three in numbers.items() for end, x in zip(("", "_low", "_high"), three)}
