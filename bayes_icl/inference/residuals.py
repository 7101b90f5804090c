"""The noise of each shot: what is left of the curves without their mean and each sequence's own line.

Seen beside what a fit expects there, it shows a noise that changes with n where the fit has none, or another.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from bayes_icl.core.intervals import TAILS
from bayes_icl.curves import Curves
from bayes_icl.inference.noise import Statistics, variances
from bayes_icl.inference.noise_shape import off_line
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import between

Three = tuple[np.ndarray, np.ndarray, np.ndarray]

DRAWS = 500


def residual_sd(curves: Curves) -> Three:
    """The sd over sequences at each shot and its 95 % interval, nats, each of shape (shot,).

    Of log-odds less their mean over sequences and each sequence's best line. The interval is that of chi-square, for
    noise that is normal over sequences.

    Parameters
    ----------
    curves
        One task under one readout, of 2 sequences or more.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import Curves
    >>> from bayes_icl.inference.residuals import residual_sd
    >>> shots, rng = np.arange(33.0), np.random.default_rng(0)
    >>> falling = 0.3 * shots + rng.normal(size=(256, 33)) * np.linspace(3, 1, 33)
    >>> residual_sd(Curves("mine", "complement", shots, falling))[0][[1, 16, 31]].round(1).tolist()
    [2.7, 1.9, 1.1]
    """
    left = off_line(curves.shots, curves.log_odds)
    df = len(left) - 1
    sd = left.std(0, ddof=1)
    low, high = (sd * np.sqrt(df / chi2.ppf(tail, df)) for tail in TAILS[::-1])
    return sd, low, high


def expected_sd(posterior: Posterior, stats: Statistics) -> Three:
    """What a fit expects of `residual_sd`: posterior mean and 95 % interval, nats, each of shape (shot,).

    Parameters
    ----------
    posterior
        Of any law; under heavy-tailed noise of at most 2 degrees of freedom the sd is infinite, and such draws are left
        out.
    stats
        Of the curves that it was fitted to.
    """
    draws = posterior.equal(DRAWS)
    factor = np.ones(len(draws.log_weights))
    if posterior.hypothesis.student:
        dof = draws.params["dof"][:, 0]
        finite = dof > 2
        draws, dof = draws.at(np.flatnonzero(finite)), dof[finite]
        factor = np.sqrt(dof / (dof - 2))
    summed = np.tril(np.ones((len(stats.shots), len(stats.shots))), -1)[:, : len(stats.eigenvalues)]
    off = off_line(stats.shots, summed.T).T  # updates to what is left
    noise, columns = (off @ stats.inverse_transform.T) ** 2, between(draws.params, stats) @ off.T
    v = np.broadcast_to(variances(stats, draws.params["level"], draws.params["walk"]), (len(factor), noise.shape[1]))
    sd = np.sqrt(v @ noise.T + (columns**2).sum(1)) * factor[:, None]
    low, high = np.quantile(sd, TAILS, axis=0)
    return sd.mean(0), low, high
