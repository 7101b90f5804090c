"""Quick frequentist checks beside the Bayesian fits.

None rests on a model of the noise within a sequence: three take one number a sequence, or cluster by it, and the mixed
model, which takes that noise as independent, comes to the same in a balanced table.

Left out because they mislead on these curves: a random intercept alone and plain least squares on updates (standard
errors far off), RESET, and a mixed model with a log term (false alarms under a walk).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t as student
from scipy.stats import wilcoxon

from bayes_icl.core.intervals import LEVEL, TAILS
from bayes_icl.curves import Curves

CHECK_COLUMNS = ["check", "quantity", "estimate", "se", "low", "high", "p", "note"]

ALPHA = round(1 - LEVEL, 12)  # of statsmodels' intervals

_ROUNDING = 1e-10  # sequences that differ by less than this part of the largest log-odds do not differ


def frequentist_checks(curves: Curves) -> pd.DataFrame:
    """One row a check, with `COLUMNS`: estimate, standard error, 95 % interval, p-value that the quantity is 0.

    slope by sequence
        Mean of each sequence's least-squares slope, t-test over sequences: delta.
    quadratic contrast
        `quadratic_contrast`: 0 if updates are additive.
    updates on n
        Slope of L(n) - L(n-1) on n, standard error clustered by sequence: 0 if updates are additive.
    mixed model
        delta with random intercept and slope, REML; S - 1 degrees of freedom rather than statsmodels' normal interval.
        Sequences being of equal length, it repeats `slope by sequence` where it has an answer, and has none where
        slopes vary no more than noise makes them.

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
    {'slope by sequence': 0.08, 'quadratic contrast': -2.4, 'updates on n': -0.02, 'mixed model': nan}
    >>> table.note["mixed model"].split(":")[0]
    'singular'
    """
    rows = [_slope_by_sequence(curves), _contrast(curves), _updates_on_n(curves), _mixed_model(curves)]
    return pd.DataFrame(rows, columns=CHECK_COLUMNS)


def quadratic_contrast(curves: Curves, *, robust: bool = False) -> tuple[float, float]:
    """Mean over sequences of each one's quadratic contrast over shots, and the p-value of a t-test that it is 0.

    The contrast is orthogonal to a line, so additive updates leave it at 0 whatever the noise; being one number a
    sequence, it needs no model of the noise within one.

    Parameters
    ----------
    curves
        One task under one readout.
    robust
        Median and Wilcoxon's signed-rank test instead, which a few odd sequences do not sway.

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
    if robust:
        contrasts = _contrasts(curves)
        return float(np.median(contrasts)), float(wilcoxon(contrasts).pvalue)
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


def _updates_on_n(curves: Curves) -> dict[str, Any]:
    from statsmodels.regression.linear_model import OLS

    name = ("updates on n", "change of the update, nats/example^2")
    if reason := _too_few(curves, 2, 3):
        return _row(*name, note=reason)
    updates, n = np.diff(curves.log_odds, axis=1), curves.shots[1:]
    n_seqs = len(updates)
    # In a balanced table each sequence counts by its own slope alone; where those agree the standard error is 0.
    if reason := _no_spread(_slopes(n, updates), _largest(curves)):
        return _row(*name, note=reason)
    design = np.stack([np.ones(updates.size), np.tile(n, n_seqs)], axis=1)
    fit = OLS(updates.ravel(), design).fit(
        cov_type="cluster",
        cov_kwds={"groups": np.repeat(np.arange(n_seqs), len(n)), "use_correction": True, "df_correction": True},
        use_t=True,
    )
    low, high = fit.conf_int(ALPHA)[1]
    return _row(*name, fit.params[1], fit.bse[1], low, high, fit.pvalues[1])


def _mixed_model(curves: Curves) -> dict[str, Any]:
    from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

    name = ("mixed model", "delta, nats/example")
    if reason := _too_few(curves, 3, 3):
        return _row(*name, note=reason)
    n_seqs, n_shots = curves.log_odds.shape
    unit = curves.shots.std()
    shots = (curves.shots - curves.shots.mean()) / unit
    design = np.stack([np.ones(n_shots), shots], axis=1)
    lines = curves.log_odds @ design / n_shots  # its columns are orthogonal, each of squared length n_shots
    left = curves.log_odds - lines @ design.T
    noise = math.sqrt((left**2).sum() / (n_seqs * (n_shots - 2)))
    if not noise > _ROUNDING * _largest(curves):
        return _row(*name, note="no variation about each sequence's own line")
    lines, odds = lines / noise, curves.log_odds / noise
    # In a balanced table this is the REML estimate itself, if it is a covariance; if not, REML lies at the boundary.
    covariance = np.cov(lines.T) - np.eye(2) / n_shots
    if np.linalg.eigvalsh(covariance)[0] <= 1e-6:
        return _row(*name, note="singular: intercepts or slopes differ no more between sequences than noise makes them")
    start = MixedLMParams.from_components(fe_params=lines.mean(0), cov_re=covariance)
    everywhere = np.tile(design, (n_seqs, 1))
    model = MixedLM(odds.ravel(), everywhere, groups=np.repeat(np.arange(n_seqs), n_shots), exog_re=everywhere)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = model.fit(reml=True, start_params=start)
        except (np.linalg.LinAlgError, ValueError) as error:
            return _row(*name, note=f"not fitted: {error}")
    if caught or not fit.converged:
        return _row(*name, note=str(caught[0].message) if caught else "did not converge")
    estimate, se = fit.fe_params[1] * noise / unit, fit.bse_fe[1] * noise / unit
    half = student.ppf(TAILS[1], n_seqs - 1) * se
    return _row(*name, estimate, se, estimate - half, estimate + half, 2 * student.sf(abs(estimate) / se, n_seqs - 1))


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
