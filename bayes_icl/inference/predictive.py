"""What a fitted hypothesis says of curves it has not seen: new sequences, and how a sequence goes on.

The noise is that of `noise`, drawn instead of integrated out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from bayes_icl.hypotheses.law import Hypothesis
from bayes_icl.inference.noise import Statistics, variances
from bayes_icl.inference.posterior import Posterior


def mean_curve(posterior: Posterior, stats: Statistics) -> Float[np.ndarray, "draw shot"]:
    """The mean of L over sequences under each draw, each with a mean of 0 over shots, nats."""
    if posterior.hypothesis.latent_step:
        # A step has happened by update n with the probability of its weights up to there.
        weights = posterior.hypothesis.step_log_weights(np, stats, posterior.params)
        mean = posterior.params["gain"] * np.exp(weights[:, :-1])
    else:
        mean = posterior.hypothesis.updates(np, stats, posterior.params)[0]
    mean = np.broadcast_to(mean, (len(posterior.log_weights), len(stats.eigenvalues)))
    return curve_of(mean)


def curve_of(updates: np.ndarray) -> np.ndarray:
    """Curves with these updates, shape (..., shot), each with a mean of 0 over its shots."""
    curves = np.concatenate([np.zeros_like(updates[..., :1]), np.cumsum(updates, axis=-1)], axis=-1)
    return curves - curves.mean(-1, keepdims=True)


def replicate(posterior: Posterior, stats: Statistics, rng: np.random.Generator) -> Float[np.ndarray, "draw seq shot"]:
    """As many new sequences as there are, under each draw, each with a mean of 0 over its shots, nats.

    The intercept l0_s has a flat prior and cannot be drawn; whoever shows a replicate adds a level of their own.
    """
    hypothesis, params = posterior.hypothesis, posterior.params
    n_draws, n_seqs, k = len(posterior.log_weights), len(stats.x), len(stats.eigenvalues)
    if hypothesis.latent_step:
        f = _steps(hypothesis.step_log_weights(np, stats, params)[:, None, :], n_seqs, rng)
        mean = params["gain"][:, :, None] * f
    else:
        mean = np.broadcast_to(hypothesis.updates(np, stats, params)[0], (n_draws, k))[:, None]
    v = variances(stats, params["level"], params["walk"])
    drift = rng.normal(size=(n_draws, n_seqs, 2)) @ between(params, stats)
    noise = (np.sqrt(v)[:, None, :] * rng.normal(size=(n_draws, n_seqs, k))) @ stats.inverse_transform
    if hypothesis.student:
        size = np.sqrt(params["dof"] / rng.chisquare(params["dof"], size=(n_draws, n_seqs)))[:, :, None]
        drift, noise = drift * size, noise * size
    return curve_of(mean + drift + noise)


def prior_draws(hypothesis: Hypothesis, stats: Statistics, n: int, rng: np.random.Generator) -> Posterior:
    """Draws of a law's priors, in the form of a posterior, with equal weights.

    Parameters
    ----------
    hypothesis
        The law.
    stats
        Of the curves, in whose units priors are.
    n
        Number of draws.
    rng
        Where randomness comes from.
    """
    params = {
        name: prior.draw(rng, (n, len(getattr(stats, prior.length)) if prior.length else 1), stats.scale)
        for name, prior in hypothesis.all_priors.items()
    }
    return Posterior(hypothesis, params, np.full(n, -np.log(n)), "prior", ess=float(n))


def prior_predictive(
    hypothesis: Hypothesis, stats: Statistics, n: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "draw shot"], Float[np.ndarray, "draw shot"]]:
    """A new sequence and the mean curve under each of `n` draws of the priors, with a mean of 0 over shots, nats.

    Parameters are those of `prior_draws`.
    """
    some = stats.of(np.arange(1))
    draws = prior_draws(hypothesis, some, n, rng)
    new = replicate(draws, some, rng)
    return new[np.arange(n), np.arange(n) % new.shape[1]], mean_curve(draws, some)


def _steps(log_weights: Float[np.ndarray, "draw seq step"], n_seqs: int, rng: np.random.Generator) -> np.ndarray:
    """Differences of f of sequences that jump once, (draw, seq, update): 1 at the step, 0 if after the last shot."""
    n_steps = log_weights.shape[-1]
    step = (log_weights + rng.gumbel(size=(len(log_weights), n_seqs, n_steps))).argmax(-1)
    return np.eye(n_steps)[step][..., :-1]


def between(params: Mapping[str, np.ndarray], stats: Statistics) -> Float[np.ndarray, "draw 2 update"]:
    """What sequences differ along, as rows that independent standard normal numbers multiply; not transformed."""
    line, early = stats.line @ stats.inverse_transform, stats.early @ stats.inverse_transform
    bent = params["early_sd"] * early
    return np.stack([params["gain_sd"] * line + stats.corr * bent, np.sqrt(1 - stats.corr**2) * bent], axis=1)


def go_on(
    posterior: Posterior, stats: Statistics, n_past: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw seq later"]:
    """How each sequence goes on after its first updates: L less that of the last shot seen, under each draw, nats.

    Parameters
    ----------
    posterior
        Of the first part of these curves; not of a free mean, which says nothing of later shots.
    stats
        Of the whole curves.
    n_past
        Updates that are given.
    rng
        Where randomness comes from: the steps of a law of steps.
    """
    hypothesis, params = posterior.hypothesis, posterior.params
    n_draws, n_seqs, k = len(posterior.log_weights), len(stats.x), len(stats.eigenvalues)
    v, columns = variances(stats, params["level"], params["walk"]), between(params, stats)
    cov = (stats.inverse_transform.T * v[:, None, :]) @ stats.inverse_transform + columns.mT @ columns
    inverse = np.linalg.inv(cov[:, :n_past, :n_past])
    past = (stats.x @ stats.inverse_transform)[:, :n_past]
    if hypothesis.latent_step:
        gain = params["gain"][:, :, None]
        f = _steps(_step_beliefs(posterior, stats, past, inverse), n_seqs, rng)
    else:
        _, f, gain = hypothesis.updates(np, stats, params)
        gain = np.broadcast_to(gain, (n_draws, 1))[:, :, None]
        f = np.broadcast_to(f, (n_draws, k))[:, None]
    error = past - gain * f[..., :n_past]
    size = 1.0
    if hypothesis.student:
        squares = ((error @ inverse) * error).sum(-1, keepdims=True)
        dof = params["dof"][:, :, None]
        size = np.sqrt((dof + squares) / rng.chisquare(dof + n_past, size=squares.shape))
    carry = inverse @ cov[:, :n_past, n_past:]
    root = np.linalg.cholesky(cov[:, n_past:, n_past:] - cov[:, n_past:, :n_past] @ carry)
    noise = rng.normal(size=(n_draws, n_seqs, k - n_past)) @ np.swapaxes(root, -1, -2)
    return np.cumsum(gain * f[..., n_past:] + error @ carry + size * noise, axis=-1)


def _step_beliefs(
    posterior: Posterior, stats: Statistics, past: np.ndarray, inverse: np.ndarray
) -> Float[np.ndarray, "draw seq step"]:
    """Log probability of each place of the latent step given a sequence's first updates, not normalised."""
    params = posterior.params
    gain = params["gain"][:, :, None]
    matched = past @ inverse  # (draw, seq, past)
    explained = 2 * gain * matched - gain**2 * np.diagonal(inverse, axis1=1, axis2=2)[:, None, :]
    if posterior.hypothesis.student:
        dof, own = params["dof"][:, :, None], (matched * past).sum(-1, keepdims=True)
        n_past = past.shape[-1]
        fit = -0.5 * (dof + n_past) * (np.log1p((own - explained) / dof) - np.log1p(own / dof))
    else:
        fit = 0.5 * explained
    weights = posterior.hypothesis.step_log_weights(np, stats, params)[:, None, :]
    later = np.broadcast_to(weights[..., fit.shape[-1] :], (*fit.shape[:2], weights.shape[-1] - fit.shape[-1]))
    return np.concatenate([weights[..., : fit.shape[-1]] + fit, later], axis=-1)
