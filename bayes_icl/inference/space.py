"""The unconstrained space in which the fast engine samples, and the collapsed log likelihood there."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from bayes_icl.hypotheses.law import Hypothesis, Prior
from bayes_icl.inference.noise import LOG_2PI, Statistics, total_log_likelihood, trace, variances

BLOCK = 2**17  # numbers in the largest array of a likelihood that goes by sequence: what a core's cache holds


class Space:
    """The parameters of a hypothesis as coordinates z of about unit size.

    The vector of a `ceiling` is not among them: it is integrated out, and drawn given the rest in the end.
    """

    def __init__(self, hypothesis: Hypothesis, stats: Statistics) -> None:
        if hypothesis.ceiling and hypothesis.student:
            raise ValueError(f"{hypothesis.name}: free means are integrated out under normal noise only")
        self.hypothesis, self.stats = hypothesis, stats
        self.priors = {name: prior for name, prior in hypothesis.all_priors.items() if not prior.length}
        self.size = len(self.priors)
        self.sds = np.array([prior.family == "HalfNormal" for prior in self.priors.values()])

    def params(self, z: Float[np.ndarray, "... draw z"]) -> dict[str, np.ndarray]:
        """Each parameter, shape (draw, 1)."""
        return {name: self._constrain(prior, z[..., [i]]) for i, (name, prior) in enumerate(self.priors.items())}

    def _constrain(self, prior: Prior, z: np.ndarray) -> np.ndarray:
        if prior.family == "LogNormal":
            return np.exp(np.clip(z, -300.0, 300.0))
        if prior.family == "Uniform":
            low, high = prior.parameters
            # Never the bound itself, where a law may be 0/0.
            return low + (high - low) / (1 + np.exp(-np.clip(z, -30.0, 30.0)))
        return z * self.stats.scale if prior.scaled else z

    def place(self, name: str, value: np.ndarray) -> np.ndarray:
        """The inverse of `params` for one parameter."""
        prior = self.priors[name]
        if prior.family == "LogNormal":
            return np.log(value)
        if prior.family == "Uniform":
            low, high = prior.parameters
            return np.log((value - low) / (high - value))
        return value / self.stats.scale if prior.scaled else value

    def log_prior(self, z: Float[np.ndarray, "... draw z"]) -> Float[np.ndarray, "... draw"]:
        """Log prior density of z; that of a standard deviation is continued below 0 as its mirror image."""
        total = np.zeros(z.shape[:-1])
        for i, prior in enumerate(self.priors.values()):
            x = z[..., i]
            if prior.family == "Uniform":
                total -= np.logaddexp(0, -x) + np.logaddexp(0, x)
            else:
                mean, sd = prior.parameters if prior.family != "HalfNormal" else (0.0, prior.parameters[0])
                total += -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * LOG_2PI
        return total + self.sds.sum() * np.log(2)

    def log_posterior(
        self, z: Float[np.ndarray, "... draw z"], *, mirror: bool = False
    ) -> Float[np.ndarray, "... draw"]:
        """Log prior plus log-likelihood, not normalised; -inf where it is not a number.

        Parameters
        ----------
        z
            Points of the space that is sampled.
        mirror
            Continue it smoothly where a standard deviation is below 0, for an optimiser; otherwise it is -inf there.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value = self.log_prior(z) + self._log_likelihood(self.params(z))
        inside = mirror | (z[..., self.sds] >= 0).all(-1)
        return np.where(inside & np.isfinite(value), value, -np.inf)

    def _log_likelihood(self, params: dict[str, np.ndarray]) -> np.ndarray:
        if self.hypothesis.ceiling:
            return collapsed_log_likelihood(self.hypothesis, self.stats, params)
        n_draws = params["level"].shape[-2]
        per_draw = max(self.hypothesis.kind.terms(self.stats), len(self.stats.x) if self.hypothesis.student else 1)
        step = max(1, BLOCK // per_draw)
        if step >= n_draws:
            return total_log_likelihood(np, self.hypothesis, self.stats, params)
        blocks = [{k: v[i : i + step] for k, v in params.items()} for i in range(0, n_draws, step)]
        return np.concatenate([total_log_likelihood(np, self.hypothesis, self.stats, block) for block in blocks])

    def starts(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "... draw z"]:
        """Places to begin: parameters of the law drawn from their priors, those of the noise estimated."""
        stats = self.stats
        spectrum = np.diagonal(stats.x_scatter, axis1=-2, axis2=-1) / stats.n_seqs
        basis = np.stack([stats.eigenvalues, np.ones_like(stats.eigenvalues)], axis=1)
        level2, walk2 = np.moveaxis(spectrum @ np.linalg.pinv(basis).T, -1, 0)[..., None, None]
        least = 1e-3 * stats.scale**2 + 1e-300
        line = np.ones(len(stats.eigenvalues)) @ stats.transform  # a slope of 1 nat an example
        span = stats.n_max - stats.shots[0]
        slopes = stats.x @ line / (line @ line)
        known = {
            "level": np.sqrt(np.maximum(level2, least)),
            "walk": np.sqrt(np.maximum(walk2, least)),
            "gain": slopes.mean(-1)[..., None, None] * span,
            "gain_sd": np.sqrt(np.maximum(slopes.var(-1)[..., None, None] * span**2, least)),
        }
        z = np.empty((*np.shape(stats.scale)[:-2], n, self.size))
        for i, (name, prior) in enumerate(self.priors.items()):
            if name in known:
                z[..., [i]] = self.place(name, known[name])
            else:
                x = prior.draw(rng, (n, 1), stats.scale)
                if prior.family == "Uniform":
                    low, high = prior.parameters
                    x = np.clip(x, low + 0.02 * (high - low), high - 0.02 * (high - low))
                z[..., [i]] = self.place(name, x)
        return z


def collapsed_log_likelihood(
    hypothesis: Hypothesis, stats: Statistics, params: dict[str, np.ndarray]
) -> Float[np.ndarray, "... draw"]:
    """Log-likelihood of all sequences under a `ceiling`, its free means integrated out, nats.

    `params` lack the free means. The mean of the sequences is then normal about 0, with the prior variance of the means
    plus 1/S of a sequence's variance; the scatter about it does not depend on them; both are diagonal plus rank one.
    """
    s, k = stats.n_seqs, len(stats.eigenvalues)
    u = np.ones(k) / k @ stats.transform
    v = variances(stats, params["level"], params["walk"])
    w2 = params["gain_sd"][..., 0] ** 2
    x_mean = np.atleast_2d(stats.x_mean)

    def quadratic(v: np.ndarray, w2: np.ndarray, scatter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log det, and trace of scatter times inverse, of diag(v) + w2 u u'."""
        h = u / v
        q = h @ u
        along = ((h @ scatter) * h).sum(-1)
        return np.log(v).sum(-1) + np.log1p(w2 * q), trace(np, scatter, 1 / v) - w2 / (1 + w2 * q) * along

    log_det, squares = quadratic(v, w2, stats.x_scatter)
    log_det_mean, squares_mean = quadratic(v / s + _prior_variance(hypothesis, stats), w2 / s, x_mean.mT @ x_mean)
    return -0.5 * ((s - 1) * log_det + squares + log_det_mean + squares_mean + s * k * LOG_2PI + k * np.log(s))


def _prior_variance(hypothesis: Hypothesis, stats: Statistics) -> Any:
    """Of each transformed mean update under a `ceiling`, squared nats."""
    (prior,) = (p for p in hypothesis.all_priors.values() if p.length)
    return (prior.parameters[1] * stats.scale) ** 2


def _draw_means(
    hypothesis: Hypothesis, stats: Statistics, params: dict[str, np.ndarray], rng: np.random.Generator
) -> Float[np.ndarray, "... draw update"]:
    """Draws of a ceiling's vector given the rest, which is normal: precision diagonal less rank one."""
    s = stats.n_seqs
    v = variances(stats, params["level"], params["walk"])
    n_draws, k = v.shape[-2:]
    h = (np.ones(k) / k @ stats.transform) / v
    w2 = params["gain_sd"] ** 2
    a = s * w2 / (1 + w2 * (h * h * v).sum(-1, keepdims=True))
    d = s / v + 1 / _prior_variance(hypothesis, stats)
    spread = a / (1 - a * (h * h / d).sum(-1, keepdims=True))
    push = s * stats.x_mean / v - a * h * (h * stats.x_mean).sum(-1, keepdims=True)
    mean = push / d + spread * h / d * (h / d * push).sum(-1, keepdims=True)
    noise = rng.normal(size=(n_draws, k)) / np.sqrt(d) + np.sqrt(spread) * h / d * rng.normal(size=(n_draws, 1))
    return (mean + noise) / stats.scale
