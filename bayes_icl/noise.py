r"""The noise model that all hypotheses share, and its likelihood with everything latent integrated out.

A sequence s read after n = n_min ... n_max examples has the log-odds

    L[s, n] = l0_s + g_s f(n) + walk + level,

with f(n_min) = 0 and f(n_max) = 1, a flat intercept l0_s, a random gain g_s ~ Normal(gain, gain_sd), level noise of sd
`level` (each shot asks a new query) and a random walk of sd `walk` (each example adds evidence of its own).
Differencing over n removes l0_s; the covariance of the differences, walk^2 I + level^2 tridiag(-1, 2, -1), is diagonal
in the discrete sine transform, whatever its parameters; and g_s adds rank one. With x_s the transformed differences of
sequence s, u those of f, and v the noise variances,

    x_s ~ Normal(gain u, diag(v) + gain_sd^2 u u'),

so a sequence's log-likelihood takes sums over n only (Sherman-Morrison), and that of all S sequences follows from their
mean and scatter: the cost does not grow with S. The `changepoint` hypothesis has a latent step for each sequence; given
the step its likelihood has the same form, and the sum over steps must be taken sequence by sequence.

Functions that take `xp` run on numpy and on pytensor.tensor alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

LOG_2PI = float(np.log(2 * np.pi))
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
    """

    shots: np.ndarray
    n_max: float
    x: np.ndarray
    x_mean: np.ndarray
    x_scatter: np.ndarray
    n_seqs: float
    scale: float
    transform: np.ndarray
    eigenvalues: np.ndarray
    step_positions: np.ndarray


def sine_transform(k: int) -> tuple[np.ndarray, np.ndarray]:
    """The orthogonal discrete sine transform of size k, and the eigenvalues of tridiag(-1, 2, -1), which it yields."""
    i = np.arange(1, k + 1)
    return np.sqrt(2 / (k + 1)) * np.sin(np.pi * np.outer(i, i) / (k + 1)), 2 - 2 * np.cos(np.pi * i / (k + 1))


def summarise(
    log_odds: Float[np.ndarray, "seq shot"],
    shots: Float[np.ndarray, " shot"],
    n_max: float | None = None,
    scale: float | None = None,
) -> Statistics:
    """The statistics of some curves.

    Parameters
    ----------
    n_max, scale
        Defaults: the last shot; the median over sequences of the sd over shots.
    """
    transform, eigenvalues = sine_transform(len(shots) - 1)
    n_max = float(shots[-1] if n_max is None else n_max)
    x = np.diff(log_odds, axis=1) @ transform
    mean = x.mean(0)
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
        step_positions=np.arange(0.5, 2 * (n_max - shots[0])) / (n_max - shots[0]),
    )


def variances(stats: Any, level: Any, walk: Any) -> Any:
    """Noise variance of each transformed difference, v; arguments broadcast against a last axis of updates."""
    return level**2 * stats.eigenvalues + walk**2 + JITTER * stats.scale**2


def total_log_likelihood(xp: Any, stats: Any, mean: Any, u: Any, v: Any, gain_sd: Any) -> Any:
    """Log-likelihood of all sequences from their mean and scatter, nats.

    Parameters
    ----------
    stats
        `Statistics`, or the same names as tensors.
    mean, u, v
        Transformed mean updates (gain times u for all laws but `freeform`), differences of f, and noise variances,
        shape (update,).
    gain_sd
        Sd of the random gain, nats.
    """
    s, k = stats.n_seqs, u.shape[0]
    h = u / v
    q = (u * h).sum()
    shrink = gain_sd**2 / (1 + gain_sd**2 * q)
    error = stats.x_mean - mean
    squares = ((xp.diagonal(stats.x_scatter) + s * error**2) / v).sum()
    along = xp.dot(xp.dot(h, stats.x_scatter), h) + s * xp.dot(h, error) ** 2
    log_det = xp.log(v).sum() + xp.log1p(gain_sd**2 * q) + k * LOG_2PI
    return -0.5 * (s * log_det + squares - shrink * along)


def total_log_likelihood_of_steps(xp: Any, stats: Any, log_weights: Any, v: Any, gain: Any, gain_sd: Any) -> Any:
    """Log-likelihood of all sequences when f is a step at an unknown update of each, nats.

    Parameters
    ----------
    log_weights
        Log prior probability of each update being the step, then of a step after the last shot, shape (update + 1,).
    """
    # A step at update j is the unit vector e_j before the transform, so u is row j of the transform.
    c = xp.dot(stats.x / v, stats.transform)
    q = ((stats.transform**2) / v).sum(axis=1)
    steps = log_weights[:-1] + _step_gain(xp, c, q, gain, gain_sd)
    largest = xp.maximum(steps.max(axis=1), log_weights[-1])
    mixed = largest + xp.log(xp.exp(steps - largest[:, None]).sum(axis=1) + xp.exp(log_weights[-1] - largest))
    log_det = xp.log(v).sum() + v.shape[0] * LOG_2PI
    return mixed.sum() - 0.5 * ((stats.x**2 / v).sum() + stats.n_seqs * log_det)


def _step_gain(xp: Any, c: Any, q: Any, gain: Any, gain_sd: Any) -> Any:
    """What a step adds to the log-likelihood, from its match c with the data and its own squared length q."""
    shrink = gain_sd**2 / (1 + gain_sd**2 * q)
    return gain * c - 0.5 * gain**2 * q - 0.5 * xp.log1p(gain_sd**2 * q) + 0.5 * shrink * (c - gain * q) ** 2


def log_likelihood(
    stats: Statistics,
    mean: Float[np.ndarray, "draw update"],
    u: Float[np.ndarray, "draw update"],
    v: Float[np.ndarray, "draw update"],
    gain_sd: Float[np.ndarray, " draw"],
) -> Float[np.ndarray, "draw seq"]:
    """Log-likelihood of each sequence under each posterior draw, nats: what leave-one-sequence-out needs."""
    h, weighted = u / v, mean / v
    q = (u * h).sum(1)[:, None]
    w = gain_sd[:, None]
    # The squares are multiplied out, so that no array of shape (draw, seq, update) is needed.
    squares = (1 / v) @ (stats.x**2).T - 2 * weighted @ stats.x.T + (mean * weighted).sum(1)[:, None]
    along = h @ stats.x.T - (h * mean).sum(1)[:, None]
    log_det = np.log(v).sum(1)[:, None] + np.log1p(w**2 * q) + u.shape[1] * LOG_2PI
    return -0.5 * (log_det + squares - w**2 / (1 + w**2 * q) * along**2)


def log_likelihood_of_steps(
    stats: Statistics,
    log_weights: Float[np.ndarray, "draw step"],
    v: Float[np.ndarray, "draw update"],
    gain: Float[np.ndarray, " draw"],
    gain_sd: Float[np.ndarray, " draw"],
) -> Float[np.ndarray, "draw seq"]:
    """As `log_likelihood`, with the step of each sequence summed over."""
    g, w = gain[:, None], gain_sd[:, None]
    mixed = np.broadcast_to(log_weights[:, -1:], (len(v), len(stats.x)))
    for j, direction in enumerate(stats.transform):
        h = direction / v
        step = _step_gain(np, h @ stats.x.T, (direction * h).sum(1)[:, None], g, w)
        mixed = np.logaddexp(mixed, log_weights[:, j, None] + step)
    log_det = np.log(v).sum(1)[:, None] + v.shape[1] * LOG_2PI
    return mixed - 0.5 * (log_det + (1 / v) @ (stats.x**2).T)


def replicate(
    stats: Statistics,
    means: Float[np.ndarray, "draw seq update"],
    directions: Float[np.ndarray, "draw seq update"],
    v: Float[np.ndarray, "draw update"],
    gain_sd: Float[np.ndarray, " draw"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "draw seq shot"]:
    """New sequences drawn from the model, each with a mean of 0 over its shots.

    The intercept l0_s has a flat prior and cannot be drawn; whoever shows a replicate adds a level of their own.

    Parameters
    ----------
    means, directions
        Mean updates, nats, and differences of f of each new sequence, not transformed.
    """
    drift = gain_sd[:, None, None] * rng.normal(size=(*means.shape[:2], 1))
    noise = (np.sqrt(v)[:, None, :] * rng.normal(size=means.shape)) @ stats.transform
    curves = np.cumsum(means + drift * directions + noise, axis=-1)
    curves = np.concatenate([np.zeros_like(curves[..., :1]), curves], axis=-1)
    return curves - curves.mean(-1, keepdims=True)


def draw_steps(
    log_weights: Float[np.ndarray, "draw step"], n_seqs: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw seq update"]:
    """Differences of f of new sequences that jump once: 1 at the step, all 0 if it comes after the last shot."""
    n_draws, n_steps = log_weights.shape
    step = (log_weights[:, None, :] + rng.gumbel(size=(n_draws, n_seqs, n_steps))).argmax(-1)
    return np.eye(n_steps)[step][..., :-1]
