"""Quick frequentist checks beside the Bayesian fits.

None rests on a model of the noise within a sequence: they take one number a sequence, or three.

Left out because they mislead on these curves: a random intercept alone and plain least squares on updates (standard
errors far off), RESET, and a mixed model with a log term (false alarms under a walk). Left out because they repeat the
two t-tests in a balanced table: updates on n, and a mixed model with random slopes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from bayes_icl.core.intervals import LEVEL, TAILS
from bayes_icl.curves import Curves

CHECK_COLUMNS = ["check", "quantity", "estimate", "se", "low", "high", "p", "note"]

DEGREE = 3  # of the polynomials on which sequences are projected

ALPHA = round(1 - LEVEL, 12)  # of statsmodels' intervals

_ROUNDING = 1e-10  # sequences that differ by less than this part of the largest log-odds do not differ


def frequentist_checks(curves: Curves) -> pd.DataFrame:
    """One row a check, with `COLUMNS`: estimate, standard error, 95 % interval, p-value that the quantity is 0.

    slope by sequence
        Mean of each sequence's least-squares slope, t-test over sequences: delta.
    quadratic contrast
        `quadratic_contrast`: 0 if updates are additive.
    departure by polynomials
        `departure_by_polynomials`, with the p-value of Hotelling's test that the mean is a line; its standard error is
        the sd of the draws.

    Where a check has no answer its numbers are NaN and `note` says why; elsewhere `note` is empty.

    Parameters
    ----------
    curves
        One task under one readout.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.fit.checks import frequentist_checks
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> table = frequentist_checks(curves).set_index("check")
    >>> table.estimate.round(2).to_dict()
    {'slope by sequence': 0.08, 'quadratic contrast': -2.4, 'departure by polynomials': 0.39}
    """
    rows = [_slope_by_sequence(curves), _contrast(curves), _by_polynomials(curves)]
    return pd.DataFrame(rows, columns=CHECK_COLUMNS)


def quadratic_contrast(curves: Curves) -> tuple[float, float]:
    """Mean over sequences of each one's quadratic contrast over shots, and the p-value of a t-test that it is 0.

    The contrast is orthogonal to a line, so additive updates leave it at 0 whatever the noise; being one number a
    sequence, it needs no model of the noise within one.

    Parameters
    ----------
    curves
        One task under one readout.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import Curves
    >>> from bayes_icl.fit.checks import quadratic_contrast
    >>> shots, noise = np.arange(20.0), np.random.default_rng(0).normal(size=(2, 32, 20))
    >>> straight, bent = (Curves("mine", "complement", shots, y) for y in noise + [[shots], [4 * np.log1p(shots)]])
    >>> quadratic_contrast(straight)[1] > 0.01, quadratic_contrast(bent)[1] < 0.01
    (True, True)
    """
    from statsmodels.stats.weightstats import DescrStatsW

    described = DescrStatsW(_contrasts(curves))
    with np.errstate(divide="ignore", invalid="ignore"):  # of contrasts that do not vary at all
        return float(described.mean), float(described.ttest_mean(0)[1])


def _contrasts(curves: Curves) -> Float[np.ndarray, " seq"]:
    n = curves.shots - curves.shots.mean()
    basis, _ = np.linalg.qr(np.stack([np.ones_like(n), n, n**2], axis=1))
    return curves.log_odds @ basis[:, 2] * np.sign(basis[-1, 2])


def _slope_by_sequence(curves: Curves) -> dict[str, Any]:
    name = ("slope by sequence", "delta, nats/example")
    if reason := _too_few(curves, 2, 2):
        return _row(*name, note=reason)
    return _mean_row(*name, _slopes(curves.shots, curves.log_odds), _largest(curves))


def _contrast(curves: Curves) -> dict[str, Any]:
    name = ("quadratic contrast", "curvature over the shots, nats")
    if reason := _too_few(curves, 2, 3):
        return _row(*name, note=reason)
    return _mean_row(*name, _contrasts(curves), _largest(curves))


def _by_polynomials(curves: Curves) -> dict[str, Any]:
    name = ("departure by polynomials", "largest distance from the best line, share of the total update")
    if reason := _too_few(curves, DEGREE + 2, DEGREE + 2):
        return _row(*name, note=reason)
    for bends in _projected(curves)[1][:, 1:].T:
        if reason := _no_spread(bends, _largest(curves)):
            return _row(*name, note=reason)
    if not np.isfinite(np.cov(_projected(curves)[1].T)).all():
        return _row(*name)
    departure = departure_by_polynomials(curves)
    low, high = np.quantile(departure, TAILS)
    return _row(*name, float(np.median(departure)), float(departure.std()), low, high, _bend_p(curves))


def departure_by_polynomials(curves: Curves, *, draws: int = 4000, seed: int = 0) -> Float[np.ndarray, " draw"]:
    """The departure from a line without a model of the noise: a check beside that of `freeform`.

    Each sequence is projected on polynomials of degree 1 to 3; given the data their means over sequences have a
    multivariate t distribution with S - 3 degrees of freedom, under the flat prior.

    Parameters
    ----------
    curves
        One task under one readout, with at least 5 sequences.
    draws, seed
        Of that distribution.

    Returns
    -------
    array
        Largest distance from the best line as a share of the total update, of each draw.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import Curves
    >>> from bayes_icl.fit.checks import departure_by_polynomials
    >>> shots, noise = np.arange(20.0), np.random.default_rng(0).normal(size=(2, 64, 20))
    >>> straight, bent = (Curves("mine", "complement", shots, y) for y in noise + [[shots], [6 * np.log1p(shots)]])
    >>> [bool(np.median(departure_by_polynomials(curves)) > 0.05) for curves in (straight, bent)]
    [False, True]
    """
    basis, projected = _projected(curves)
    n, rng = len(projected), np.random.default_rng([seed, 7])
    df = n - DEGREE
    sizes, vectors = np.linalg.eigh(np.cov(projected.T) * (n - 1) / (n * df))
    root = vectors * np.sqrt(sizes.clip(0))  # of a covariance that may be singular
    size = np.sqrt(df / rng.chisquare(df, size=(draws, 1)))
    means = projected.mean(0) + size * (rng.normal(size=(draws, DEGREE)) @ root.T)
    off, whole = means[:, 1:] @ basis[:, 1:].T, means @ basis.T
    return np.abs(off).max(1) / np.maximum(np.abs(whole[:, -1] - whole[:, 0]), 1e-12)


def _projected(curves: Curves) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal polynomials of degree 1 to 3 over the shots, and each sequence's part along them."""
    n = (curves.shots - curves.shots.mean()) / np.ptp(curves.shots)
    basis, _ = np.linalg.qr(np.stack([n**power for power in range(DEGREE + 1)], axis=1))
    basis = basis[:, 1:] * np.sign(basis[-1, 1:])
    return basis, curves.log_odds @ basis


def _bend_p(curves: Curves) -> float:
    """Of Hotelling's test that the mean is a line."""
    from statsmodels.stats.multivariate import test_mvmean

    with np.errstate(all="ignore"):
        try:
            return float(test_mvmean(_projected(curves)[1][:, 1:]).pvalue)
        except np.linalg.LinAlgError:
            return math.nan


def _mean_row(check: str, quantity: str, each: Float[np.ndarray, " seq"], largest: float) -> dict[str, Any]:
    """The mean of one number a sequence, with its t interval and t-test."""
    from statsmodels.stats.weightstats import DescrStatsW

    if reason := _no_spread(each, largest):
        return _row(check, quantity, note=reason)
    described = DescrStatsW(each)
    low, high = described.tconfint_mean(ALPHA)
    return _row(check, quantity, described.mean, described.std_mean, low, high, described.ttest_mean(0)[1])


def _row(
    check: str,
    quantity: str,
    estimate: float = math.nan,
    se: float = math.nan,
    low: float = math.nan,
    high: float = math.nan,
    p: float = math.nan,
    note: str = "",
) -> dict[str, Any]:
    numbers = [float(x) for x in (estimate, se, low, high, p)]
    if not note and not np.isfinite(numbers).all():
        numbers, note = [math.nan] * 5, "not finite: the log-odds are too large to be squared"
    return dict(zip(CHECK_COLUMNS, [check, quantity, *numbers, note]))


def _slopes(n: Float[np.ndarray, " shot"], values: Float[np.ndarray, "seq shot"]) -> Float[np.ndarray, " seq"]:
    centred = n - n.mean()
    return values @ centred / (centred @ centred)


def _largest(curves: Curves) -> float:
    return float(np.abs(curves.log_odds).max())


def _too_few(curves: Curves, least_seqs: int, least_shots: int) -> str | None:
    n_seqs, n_shots = curves.log_odds.shape
    if n_seqs < least_seqs or n_shots < least_shots:
        return f"needs {least_seqs} sequences of {least_shots} shots, got {n_seqs} of {n_shots}"
    if not np.isfinite(curves.log_odds).all():
        return "log-odds that are not finite"
    return None


def _no_spread(each: Float[np.ndarray, " seq"], largest: float) -> str | None:
    return None if np.ptp(each) > _ROUNDING * largest else "no variation between sequences"
