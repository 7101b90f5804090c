"""How much of the update is left when edges are cut, and what is said of it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from bayes_icl.core.intervals import TAILS, Interval, resampling_weights, t_interval
from bayes_icl.independence.outputs import INDEPENDENT, NO_UPDATE, NOT_INDEPENDENT, UNDECIDED

TOLERANCE = 0.05
"""Share of the update that may be lost, or won, by examples that do not see one another."""

UPDATE_LEAST = 0.5
"""Nats of update below which there is none to lose."""


def linear_forms(shots: Float[np.ndarray, " shot"]) -> Float[np.ndarray, "form shot"]:
    """What makes of a curve its total update, and delta: the slope of its best straight line.

    Parameters
    ----------
    shots
        Numbers of examples that count.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.independence.kept import linear_forms
    >>> (linear_forms(np.arange(1.0, 5)) @ np.array([0.5, 1.0, 1.5, 2.0])).round(6).tolist()
    [1.5, 0.5]
    """
    total = np.zeros(len(shots))
    total[0], total[-1] = -1, 1
    centred = shots - shots.mean()
    return np.stack([total, centred / (centred @ centred)])


def resampled_means(n_seqs: int, draws: int, seed: int) -> Float[np.ndarray, "draw seq"]:
    """Weights of the mean over sequences, and after it those of resampled ones.

    Parameters
    ----------
    n_seqs
        Sequences.
    draws
        Resamples.
    seed
        Of the resamples.
    """
    drawn = resampling_weights(n_seqs, draws, np.random.default_rng([seed, 31]))
    return np.vstack([np.full(n_seqs, 1 / n_seqs), drawn])


def shares_kept(
    whole: Float[np.ndarray, " seq"], left: Float[np.ndarray, "... seq"], means: Float[np.ndarray, "draw seq"]
) -> Float[np.ndarray, "... draw"]:
    """Share of an update that is left, of the mean over sequences and of resampled means.

    Parameters
    ----------
    whole, left
        The update of each sequence without a cut and with it, nats.
    means
        As `resampled_means` gives them.
    """
    return (left @ means.T) / (means @ whole)


def interval_of(draws: Float[np.ndarray, " draw"]) -> Interval:
    """The first number, with the interval of the others."""
    return Interval(float(draws[0]), *map(float, np.quantile(draws[1:], TAILS)))


def update_of(updates: Float[np.ndarray, " seq"]) -> tuple[Interval, bool]:
    """Mean update with its interval, nats; whether there is any to lose.

    Parameters
    ----------
    updates
        Of each sequence, nats.
    """
    update = Interval(*(float(x) for x in t_interval(updates)))
    return update, update.mean >= UPDATE_LEAST and update.low > 0


def verdict_of(kept: Interval) -> str:
    """What the share that blocks of one example keep says, `no_update` where it is not known.

    What is won counts as what is lost: examples that are worth more when they do not see one another do not add either.

    Parameters
    ----------
    kept
        Share of the update.

    Examples
    --------
    >>> from bayes_icl.core.intervals import Interval
    >>> from bayes_icl.independence.kept import verdict_of
    >>> [verdict_of(Interval(*kept)) for kept in ((1, 0.98, 1.01), (0.7, 0.6, 0.8), (0.9, 0.8, 1), (1.2, 1.1, 1.3))]
    ['independent', 'not_independent', 'undecided', 'not_independent']
    """
    if np.isnan(kept.mean):
        return NO_UPDATE
    if kept.low > 1 - TOLERANCE and kept.high < 1 + TOLERANCE:
        return INDEPENDENT
    return NOT_INDEPENDENT if kept.high < 1 - TOLERANCE or kept.low > 1 + TOLERANCE else UNDECIDED
