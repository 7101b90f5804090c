r"""The noise model that all hypotheses share, and its likelihood with everything latent integrated out.

A sequence s read after n = n_min ... n_max examples has the log-odds::

    L[s, n] = l0_s + g_s f(n) + walk + level,

with f(n_min) = 0 and f(n_max) = 1, a flat intercept l0_s, a random gain g_s ~ Normal(gain, gain_sd), level noise of sd
`level` (each shot asks a new query) and a random walk of sd `walk` (each example adds evidence of its own).
Differencing over n removes l0_s; the covariance of the differences, walk^2 I + level^2 tridiag(-1, 2, -1), is diagonal
in the discrete sine transform, whatever its parameters; and g_s adds rank one. With x_s the transformed differences of
sequence s, u those of f, and v the noise variances::

    x_s ~ Normal(gain u, diag(v) + gain_sd^2 u u'),

so a sequence's log-likelihood takes sums over n only (Sherman-Morrison), and that of all S sequences follows from their
mean and scatter: the cost does not grow with S. Three kinds of hypothesis must be taken sequence by sequence: one with
a latent step in each (`changepoint`; given the step the form is the same), one whose curve differs between them
(`observer`), and any with heavy-tailed noise, where x_s has the multivariate t distribution with that location and
scale matrix and `dof` degrees of freedom.

Functions that take `xp` run on numpy, with a leading axis of draws in every parameter (of curves and of draws, where
the statistics are `stacked`), and on pytensor.tensor, without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayes_icl.curves import Curves
from bayes_icl.hypotheses.law import Hypothesis

LOG_2PI = float(np.log(2 * np.pi))

# A mean total evidence below this share of the evidence's size is no unit: what speaks for and against cancels.
LEAST_SHARE = 0.1

# Keeps the variances positive where both noise sds are zero; far below any noise seen.
JITTER = 1e-8


@dataclass(frozen=True)
class Statistics:
    """What the likelihood needs to know of some sequences; every array is float64.

    Attributes
    ----------
    shots
        Numbers of examples, n_min to the last one read, shape (shot,).
    n_max
        Where f = 1. Beyond the last shot read when only the first part of the curves is fitted.
    x
        Transformed differences of each sequence, shape (seq, update).
    x_mean, x_scatter
        Their mean, and the sum over sequences of outer products about it, shapes (update,), (update, update).
    n_seqs
        Number of sequences.
    scale
        Typical spread of a sequence over shots, nats; the priors are in its units.
    transform, eigenvalues
        The sine transform (update, update) and the spectrum of tridiag(-1, 2, -1), shape (update,).
    step_positions
        Where a latent step can be, as a share of the way from n_min to n_max: at each update fitted, then at as many
        places again beyond n_max, shape (step,).
    evidence, evidence_total
        The ideal observer's updates of each sequence, shape (seq, update), in units of their mean total from n_min to
        n_max, and that total, nats; where it is about 0, in units of the root mean square of the evidence after each
        example. Zeros and 0 where it is not known or there is none.
    """

    shots: np.ndarray
    n_max: float
    x: np.ndarray
    x_mean: np.ndarray
    x_scatter: np.ndarray
    n_seqs: float
    scale: Any  # a float, but for `stacked`
    transform: np.ndarray
    eigenvalues: np.ndarray
    step_positions: np.ndarray
    evidence: np.ndarray
    evidence_total: float

    def of(self, seqs: np.ndarray) -> Statistics:
        """Those of some of the sequences; the scale, which the priors hang on, stays."""
        x = self.x[seqs]
        mean = x.mean(0)
        scatter = (x - mean).T @ (x - mean)
        return replace(self, x=x, x_mean=mean, x_scatter=scatter, n_seqs=float(len(x)), evidence=self.evidence[seqs])


def sine_transform(k: int) -> tuple[np.ndarray, np.ndarray]:
    """The orthogonal discrete sine transform of size k, and the eigenvalues of tridiag(-1, 2, -1), which it yields."""
    i = np.arange(1, k + 1)
    return np.sqrt(2 / (k + 1)) * np.sin(np.pi * np.outer(i, i) / (k + 1)), 2 - 2 * np.cos(np.pi * i / (k + 1))


def summarise(curves: Curves, *, until: float | None = None, scale: float | None = None) -> Statistics:
    """The statistics of some curves.

    Parameters
    ----------
    curves
        One task under one readout.
    until
        Fit the shots up to this one only; f = 1 stays where the curves end. All, if none is given.
    scale
        What priors are in units of, nats; the median over sequences of the sd over shots, if none is given.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.inference.noise import summarise
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> stats = summarise(curves)
    >>> stats.x.shape, round(stats.scale, 1)  # 32 sequences of 31 updates; nats
    ((32, 31), 1.5)
    """
    n_min, n_max = float(curves.shots[0]), float(curves.shots[-1])
    keep = curves.shots <= (n_max if until is None else until)
    log_odds, shots = curves.log_odds[:, keep], curves.shots[keep]
    transform, eigenvalues = sine_transform(len(shots) - 1)
    x = np.diff(log_odds, axis=1) @ transform
    mean = x.mean(0)
    evidence = np.zeros(x.shape)
    total = 0.0
    if (observed := curves.observed) is not None and observed.any():
        path = observed.cumsum(1)
        total, size = float(path[:, -1].mean()), float(np.sqrt((path**2).mean()))
        if abs(total) < LEAST_SHARE * size:  # evidence for and against cancels
            total = size
        evidence = observed[:, keep[1:]] / total
    return Statistics(
        shots=np.asarray(shots, float),
        n_max=n_max,
        x=x,
        x_mean=mean,
        x_scatter=(x - mean).T @ (x - mean),
        n_seqs=float(len(x)),
        scale=float(np.median(log_odds.std(1)) if scale is None else scale),
        transform=transform,
        eigenvalues=eigenvalues,
        step_positions=np.arange(0.5, 2 * (n_max - n_min)) / (n_max - n_min),
        evidence=evidence,
        evidence_total=total,
    )


def stacked(each: Sequence[Statistics]) -> Statistics:
    """Those of several curves of the same shape, with a leading axis of curves in all that differs between them.

    `total_log_likelihood` then takes parameters of shape (curve, draw, 1) or (curve, draw, length), where it need not
    go by sequence. x has shape (curve, seq, update), x_mean (curve, 1, update), x_scatter (curve, update, update) and
    scale (curve, 1, 1).
    """
    return replace(
        each[0],
        x=np.stack([stats.x for stats in each]),
        x_mean=np.stack([stats.x_mean for stats in each])[:, None],
        x_scatter=np.stack([stats.x_scatter for stats in each]),
        scale=np.array([stats.scale for stats in each])[:, None, None],
    )


def variances(stats: Any, level: Any, walk: Any) -> Any:
    """Noise variance of each transformed difference, v; arguments broadcast against a last axis of updates."""
    return level**2 * stats.eigenvalues + walk**2 + JITTER * stats.scale**2


def trace(xp: Any, scatter: Any, inverse: Any) -> Any:
    """Of scatter times the diagonal matrix `inverse`, whose entries are along the last axis."""
    return (inverse @ xp.diagonal(scatter, axis1=-2, axis2=-1)[..., None])[..., 0]


def total_log_likelihood(xp: Any, hypothesis: Hypothesis, stats: Any, params: Mapping[str, Any]) -> Any:
    """Log-likelihood of all sequences, nats, shape (...).

    Parameters
    ----------
    xp
        `numpy` or `pytensor.tensor`.
    hypothesis
        The law.
    stats
        `Statistics`, or the same names as tensors.
    params
        All parameters of the hypothesis; on numpy of shape (draw, 1) or (draw, length).
    """
    if hypothesis.student or hypothesis.latent_step or hypothesis.by_sequence:
        return log_likelihood(xp, hypothesis, stats, params).sum(axis=-1)
    v = variances(stats, params["level"], params["walk"])
    mean, f, _ = hypothesis.updates(xp, stats, params)
    mean, u, w2 = mean @ stats.transform, f @ stats.transform, params["gain_sd"] ** 2
    s, k = stats.n_seqs, stats.eigenvalues.shape[0]
    h = u / v
    q = (u * h).sum(axis=-1)
    w2 = w2[..., 0] if xp is np else w2
    error = stats.x_mean - mean
    squares = trace(xp, stats.x_scatter, 1 / v) + s * (error**2 / v).sum(axis=-1)
    along = ((h @ stats.x_scatter) * h).sum(axis=-1) + s * (h * error).sum(axis=-1) ** 2
    log_det = xp.log(v).sum(axis=-1) + xp.log1p(w2 * q)
    return -0.5 * (s * (log_det + k * LOG_2PI) + squares - w2 / (1 + w2 * q) * along)


def log_likelihood(xp: Any, hypothesis: Hypothesis, stats: Any, params: Mapping[str, Any]) -> Any:
    """Log-likelihood of each sequence, nats, shape (..., seq): what leave-one-sequence-out needs.

    Parameters are those of `total_log_likelihood`.
    """
    v = variances(stats, params["level"], params["walk"])
    w2 = params["gain_sd"] ** 2
    k = stats.eigenvalues.shape[0]
    inverse = 1 / v
    log_det = xp.log(v).sum(axis=-1, keepdims=True)
    own_squares = inverse @ (stats.x**2).T
    if hypothesis.latent_step:
        return _log_likelihood_of_steps(xp, hypothesis, stats, params, inverse, log_det, own_squares)
    # Squares are multiplied out, so that no array of shape (draw, seq, update) is needed.
    if hypothesis.by_sequence:
        _, f, gain = hypothesis.updates(xp, stats, params)
        u = f @ stats.transform
        match, q = inverse @ (stats.x * u).T, inverse @ (u**2).T
        squares = own_squares - 2 * gain * match + gain**2 * q
        along = match - gain * q
    else:
        mean, f, _ = hypothesis.updates(xp, stats, params)
        mean, u = mean @ stats.transform, f @ stats.transform
        h, weighted = u * inverse, mean * inverse
        q = (u * h).sum(axis=-1, keepdims=True)
        squares = own_squares - 2 * weighted @ stats.x.T + (mean * weighted).sum(axis=-1, keepdims=True)
        along = h @ stats.x.T - (h * mean).sum(axis=-1, keepdims=True)
    log_det = log_det + xp.log1p(w2 * q)
    return _log_density(xp, hypothesis, params, k, log_det, squares - w2 / (1 + w2 * q) * along**2)


def _log_likelihood_of_steps(
    xp: Any,
    hypothesis: Hypothesis,
    stats: Any,
    params: Mapping[str, Any],
    inverse: Any,
    log_det: Any,
    own_squares: Any,
) -> Any:
    """`log_likelihood` where f is a step at an unknown update of each sequence, or after the last shot."""
    # A step at update j is the unit vector e_j before the transform, so u is row j of the transform.
    match = (stats.x * inverse[..., None, :]) @ stats.transform
    q = (inverse @ stats.transform**2)[..., None, :]
    gain, w2 = params["gain"][..., None], params["gain_sd"][..., None] ** 2
    own_squares, log_det = own_squares[..., None], log_det[..., None]
    shrink = w2 / (1 + w2 * q)
    # 2 gain match - gain^2 q + shrink (match - gain q)^2, multiplied out: this is the largest array there is.
    explained = (shrink * match + 2 * gain * (1 - shrink * q)) * match + gain**2 * q * (shrink * q - 1)
    log_weights = hypothesis.step_log_weights(xp, stats, params)[..., None, :]
    k = stats.eigenvalues.shape[0]
    if hypothesis.student:
        own = {"dof": params["dof"][..., None]}
        never = _log_density(xp, hypothesis, own, k, log_det, own_squares)
        fit = _log_density(xp, hypothesis, own, k, log_det + xp.log1p(w2 * q), own_squares - explained) - never
    else:
        never = -0.5 * (k * LOG_2PI + log_det + own_squares)
        fit = 0.5 * explained - 0.5 * xp.log1p(w2 * q)
    # Relative to a step after the last shot, whose density is `never`.
    last = log_weights[..., -1][..., None]  # so that PyTensor knows its length to be 1
    fit = fit + (log_weights[..., :-1] - last)
    largest = xp.maximum(fit.max(axis=-1, keepdims=True), 0.0)
    total = xp.exp(fit - largest).sum(axis=-1, keepdims=True) + xp.exp(-largest)
    return (never + last + largest + xp.log(total))[..., 0]


def _log_density(xp: Any, hypothesis: Hypothesis, params: Mapping[str, Any], k: int, log_det: Any, squares: Any) -> Any:
    """Log density of k numbers whose squared length, in the metric of a scale matrix, is `squares`."""
    if not hypothesis.student:
        return -0.5 * (k * LOG_2PI + log_det + squares)
    dof = params["dof"]
    if xp is np:
        from scipy.special import gammaln
    else:
        gammaln = xp.gammaln
    constant = gammaln((dof + k) / 2) - gammaln(dof / 2) - 0.5 * k * xp.log(np.pi * dof)
    return constant - 0.5 * log_det - 0.5 * (dof + k) * xp.log1p(squares / dof)
