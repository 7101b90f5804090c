"""How far the best of several laws can be told from the others by the scores of left-out sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

FEW_SEQS = 100  # below it the standard error of a difference may be too small

SMALL_DIFF = 4.0  # nats; a smaller difference is within what misfit and noise do to an elpd

LEAST_RIVALS = 3


class BestOf(NamedTuple):
    """The best of some laws beside what chance alone would make of it.

    Attributes
    ----------
    above
        By how much the best score is above the median one, nats.
    by_chance
        By how much it would be, if no law were better than the median one.
    """

    above: float
    by_chance: float

    @property
    def chosen(self) -> bool:
        """Whether the best is better than chance makes it."""
        return self.above > self.by_chance


def best_of(elpds: Sequence[float]) -> BestOf:
    """The best of some laws, and how much better than the median it would look by chance.

    Scores above the median one are taken to be the upper half of a normal distribution about it, of which the largest
    of K has the expectation sd * z(1 - 1 / (2 K)): McLatchie and Vehtari (2024, Statistics and Computing 34, 132), as
    in `loo` and ArviZ 1, which ask for more than 10 candidates; with fewer it is rough.

    Parameters
    ----------
    elpds
        Summed scores, one a law, nats. With fewer than 3 laws both numbers are NaN.

    Examples
    --------
    >>> from bayes_icl.inference.selection import best_of
    >>> best_of([-300.0, -300.4, -303.0, -306.0, -307.0, -323.0, -340.0]).chosen
    False
    >>> best_of([-250.0, -300.4, -300.6, -301.0, -301.2, -323.0, -340.0]).chosen
    True
    """
    if len(elpds) < LEAST_RIVALS:
        return BestOf(math.nan, math.nan)
    above = np.asarray(elpds) - np.median(elpds)
    sd = np.sqrt(np.mean(above[above >= 0] ** 2))
    return BestOf(float(above.max()), float(sd * norm.ppf(1 - 1 / (2 * (len(elpds) - 1)))))


def p_worse(diff: float, se: float) -> float:
    """Probability that a law predicts worse than the best, its difference (negative) taken to be normal.

    NaN where there is no difference or no standard error.
    """
    return float(norm.cdf(-diff / se)) if se > 0 else math.nan
