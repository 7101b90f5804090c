"""The fast engine: the mode of a posterior, then adaptive importance sampling, vectorised in numpy.

Random effects are integrated out (`noise`), so a posterior has three to ten parameters, and the likelihood of thousands
of draws is a few matrix products. Parameters are brought to coordinates of about unit size (in units of the curves'
scale where they have units of nats; the logarithm of a log-normal one, the logit of one between bounds), modes are
found by BFGS, and a mixture of multivariate t distributions around them is adapted in stages to the weighted draws. A
standard deviation is its own coordinate, with 0 as its bound: its logarithm would have a long tail where data allow 0.
All draws of all stages count, each weighted by the mixture of all proposals (deterministic mixture, Owen and Zhou 2000;
adaptive multiple importance sampling, Cornuet et al. 2012). The mean of the weights is the marginal likelihood.

Diagnostics are the Pareto k of the weights and their effective number. Where they are bad the mixture is fitted anew to
draws by tempering from the prior, which finds modes and ridges that the first ones miss, and stages are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from bayes_icl.hypotheses import Hypothesis, Prior
from bayes_icl.noise import LOG_2PI, Statistics, stacked, total_log_likelihood, trace, variances
from bayes_icl.posterior import Posterior
from bayes_icl.psis import pareto_k, smooth

DOF = 5  # of the proposals: tails heavier than any posterior here
STAGES, DEAR_STAGES = (1000, 1500, 2500), (500, 1000, 2000)  # draws
HEAVY = 9  # parameters
MORE_STAGES = (3000, 5000, 8000)  # while the diagnostics are bad
PARTICLES, MOVES, N_AFTER_TEMPERING = 1000, 4, 10
STAGES_TOGETHER, NEWTON_STEPS = (256, 256, 512, 1024), 8  # draws, powers of 2; stages mend what a mode misses
GOOD_K, GOOD_ESS = 0.7, 1000
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

    def params(self, z: Float[np.ndarray, "draw z"]) -> dict[str, np.ndarray]:
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

    def log_prior(self, z: Float[np.ndarray, "draw z"]) -> Float[np.ndarray, " draw"]:
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

    def log_posterior(self, z: Float[np.ndarray, "draw z"], *, mirror: bool = False) -> Float[np.ndarray, " draw"]:
        """Log prior plus log-likelihood, not normalised; -inf where it is not a number.

        Parameters
        ----------
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
        per_draw = len(self.stats.x) if self.hypothesis.by_sequence or self.hypothesis.student else 1
        per_draw = self.stats.x.size if self.hypothesis.latent_step else per_draw
        step = max(1, BLOCK // per_draw)
        if step >= n_draws:
            return total_log_likelihood(np, self.hypothesis, self.stats, params)
        blocks = [{k: v[i : i + step] for k, v in params.items()} for i in range(0, n_draws, step)]
        return np.concatenate([total_log_likelihood(np, self.hypothesis, self.stats, block) for block in blocks])

    def starts(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "draw z"]:
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
) -> Float[np.ndarray, " draw"]:
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


@dataclass(frozen=True)
class Mixture:
    """A mixture of multivariate t distributions, or one for each of several curves.

    Attributes
    ----------
    means, roots
        Shape (..., component, z) and (..., component, z, z): lower Cholesky factors of the scale matrices.
    shares
        Shape (component,), sum 1.
    folds
        Coordinates whose negative half is folded onto the positive one: standard deviations that may be near 0, of
        which half the draws would be lost otherwise.
    """

    means: np.ndarray
    roots: np.ndarray
    shares: np.ndarray
    folds: tuple[int, ...] = ()

    def folded(self, sds: np.ndarray) -> Mixture:
        """With folds where a standard deviation of mask `sds` may be near 0."""
        widths = np.linalg.norm(self.roots, axis=-1)
        near = (self.means < 4 * widths).reshape(-1, len(sds)).any(0)
        return replace(self, folds=tuple(np.flatnonzero(sds & near).tolist()))

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, as many from each component as its share says."""
        normal, square = rng.normal(size=(n, self.means.shape[-1])), rng.chisquare(DOF, size=n)
        return self.placed(normal / np.sqrt(square / DOF)[:, None])

    def placed(self, t: Float[np.ndarray, "draw z"]) -> Float[np.ndarray, "... draw z"]:
        """Draws of the standard t distribution brought to this one."""
        ends = np.floor(np.cumsum(self.shares[:-1]) * len(t) + 0.5).astype(int)
        parts = [
            self.means[..., i, None, :] + part @ self.roots[..., i, :, :].mT for i, part in enumerate(np.split(t, ends))
        ]
        z = np.concatenate(parts, axis=-2)
        z[..., self.folds] = np.abs(z[..., self.folds])
        return z

    def log_density(self, z: Float[np.ndarray, "... draw z"]) -> Float[np.ndarray, "... draw"]:
        """Log density of each draw."""
        signs = np.ones((1, z.shape[-1]))
        for i in self.folds:
            other = signs.copy()
            other[:, i] = -1
            signs = np.concatenate([signs, other])
        return _log_sum(np.concatenate([self.log_components(z * sign) for sign in signs]))

    def log_components(self, z: Float[np.ndarray, "... draw z"]) -> Float[np.ndarray, "component ... draw"]:
        """Log share times density of each component, folds left aside."""
        p = z.shape[-1]
        out = np.empty((len(self.shares), *z.shape[:-1]))
        for i, share in enumerate(self.shares):
            root = self.roots[..., i, :, :]
            # Draws last: numpy sums over few rows many times faster than along short ones.
            standard = np.linalg.inv(root) @ (z - self.means[..., i, None, :]).mT
            squares = np.einsum("...ij,...ij->...j", standard, standard)
            log_size = np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)[..., None]
            out[i] = np.log(share) - log_size - 0.5 * (DOF + p) * np.log1p(squares / DOF)
        return out + _t_constant(p)


def _log_sum(x: np.ndarray) -> np.ndarray:
    """log of the sum of exponentials along the first axis."""
    largest = x.max(0)
    return largest + np.log(np.exp(x - largest).sum(0))


def _t_constant(p: int) -> float:
    from math import lgamma, log, pi

    return lgamma((DOF + p) / 2) - lgamma(DOF / 2) - 0.5 * p * log(DOF * pi)


def sample_fast(
    hypothesis: Hypothesis, stats: Statistics, *, seed: int = 0, like: Posterior | None = None, least_draws: int = 0
) -> Posterior:
    """The posterior of a hypothesis by importance sampling.

    Parameters
    ----------
    like
        A posterior of the same hypothesis on similar curves (all of these but one), to begin from.
    least_draws
        Of the last stage, where more precision is wanted than scores need.
    """
    rng = np.random.default_rng([seed, 3])
    space = Space(hypothesis, stats)
    heavy = space.size >= HEAVY  # modes and their curvature tell little of so many parameters
    if like is not None:
        proposal = like.state
    elif heavy:
        proposal = _fitted(_tempered(space, rng, PARTICLES), None, N_AFTER_TEMPERING, rng)
    else:
        proposal = _around_modes(space, np.random.default_rng(4))
    # A likelihood that sums over steps costs as much as all the others together.
    first = DEAR_STAGES if hypothesis.latent_step else STAGES
    stages = [*first[:-1], max(first[-1], least_draws)]
    used: list[Mixture] = []
    z, target = np.empty((0, space.size)), np.empty(0)
    densities = np.empty((0, 0))  # of every draw so far under every proposal so far
    for i, n in enumerate([*stages, *MORE_STAGES]):
        proposal = proposal.folded(space.sds)
        fresh = proposal.draw(n, rng)
        densities = np.block(
            [
                [densities, np.stack([q.log_density(fresh) for q in used]) if used else np.empty((0, n))],
                [proposal.log_density(z), proposal.log_density(fresh)],
            ]
        )
        z, target = np.concatenate([z, fresh]), np.concatenate([target, space.log_posterior(fresh)])
        used.append(proposal)
        counts = np.array([*stages, *MORE_STAGES][: i + 1])
        density = _log_sum(densities + np.log(counts / counts.sum())[:, None])
        log_weights = target - density
        if i + 1 >= len(stages):
            k_hat = pareto_k(log_weights)
            total = logsumexp(log_weights)
            ess = float(np.exp(2 * total - logsumexp(2 * log_weights)))
            if (ess > GOOD_ESS and (k_hat < GOOD_K or ess > len(z) / 2)) or i + 1 == len(stages) + len(MORE_STAGES):
                break
        # Where tempering is dear, or was the beginning, ordinary stages are tried first.
        if i + 1 == len(stages) + 2 * hypothesis.latent_step + heavy:
            proposal = _fitted(_tempered(space, rng, 2 * PARTICLES), None, N_AFTER_TEMPERING, rng)
        else:
            proposal = _adapted(z, log_weights, rng)
    params = space.params(z)
    if hypothesis.ceiling:
        (name,) = (name for name, prior in hypothesis.all_priors.items() if prior.length)
        params[name] = _draw_means(hypothesis, stats, params, rng)
    return Posterior(
        hypothesis,
        {name: params[name] for name in hypothesis.parameters},
        log_weights - total,
        "fast",
        ess=ess,
        k_hat=k_hat,
        log_marginal=float(total - np.log(len(z))),
        state=proposal,
    )


def sample_together(hypothesis: Hypothesis, each: Sequence[Statistics], *, seed: int = 0) -> list[Posterior]:
    """The posteriors of a hypothesis on many curves of the same shape, at a fraction of the cost of one by one.

    One mode of each is climbed by Newton steps, and stages of importance sampling follow, all curves in the same array.
    The draws are those of the last stage: one scrambled Sobol sequence, brought to each curve's own proposal, so that
    no curve's posterior hangs on which others there are. Nothing is done about a curve for which that is too little:
    its posterior has `faults`, and `sample_fast` is for it.

    Parameters
    ----------
    hypothesis
        With normal noise, neither `by_sequence` nor of a latent step.
    each
        Statistics with the same shots and number of sequences.
    """
    rng = np.random.default_rng([seed, 6])
    space = Space(hypothesis, stacked(each))
    proposal = _at_modes(space)
    z = log_weights = np.empty(0)
    for i, n in enumerate(STAGES_TOGETHER):
        if i:
            proposal = _refitted(z, log_weights)
        proposal = replace(proposal, folds=tuple(np.flatnonzero(space.sds).tolist()))
        z = proposal.placed(_spread_t(n, space.size, rng))
        log_weights = space.log_posterior(z) - proposal.log_density(z)
    total = logsumexp(log_weights, axis=1, keepdims=True)
    log_weights -= total
    _, k_hat = smooth(log_weights.T)
    ess = np.exp(-logsumexp(2 * log_weights, axis=1))
    params = space.params(z)
    if hypothesis.ceiling:
        (name,) = (name for name, prior in hypothesis.all_priors.items() if prior.length)
        params[name] = _draw_means(hypothesis, space.stats, params, rng)
    return [
        Posterior(
            hypothesis,
            {name: params[name][i] for name in hypothesis.parameters},
            log_weights[i],
            "fast",
            ess=float(ess[i]),
            k_hat=float(k_hat[i]),
            log_marginal=float(total[i, 0] - np.log(STAGES_TOGETHER[-1])),
        )
        for i in range(len(each))
    ]


def _at_modes(space: Space) -> Mixture:
    """A t distribution at a mode of each curve, found by Newton steps from the best of some starts."""
    starts = space.starts(24 * max(1, len(space.hypothesis.priors)), np.random.default_rng(4))
    curves = np.arange(len(starts))
    z = starts[curves, space.log_posterior(starts, mirror=True).argmax(1)]
    shares = np.array([3.0, 1.0, 0.4, 0.1, 0.02, 0.0])  # of a step; the best is taken
    covs = np.empty(0)
    for _ in range(NEWTON_STEPS):
        gradient, covs = _curvature(space, z)
        step = (covs @ gradient[..., None])[..., 0]
        going = (gradient * step).sum(1, keepdims=True) > 1e-2
        if not going.any():
            break
        step *= going  # or a curve's own mode would hang on how far from theirs the others are
        tried = z[:, None] + shares[:, None] * step[:, None]
        z = tried[curves, space.log_posterior(tried, mirror=True).argmax(1)]
        z[:, space.sds] = np.abs(z[:, space.sds])
    return Mixture(z[:, None], np.linalg.cholesky(covs)[:, None], np.ones(1))


def _refitted(z: Float[np.ndarray, "curve draw z"], log_weights: Float[np.ndarray, "curve draw"]) -> Mixture:
    """A t distribution of the mean and covariance of each curve's weighted draws; none counts for too much."""
    log_weights = np.maximum(log_weights, -1e300)
    w = np.exp(log_weights - log_weights.max(1, keepdims=True))
    w = np.minimum(w, w.mean(1, keepdims=True) * np.sqrt(w.shape[1]))  # truncated as by Ionides 2008
    w /= w.sum(1, keepdims=True)
    means = (w[:, None] @ z)[:, 0]
    centred = z - means[:, None]
    covs = (centred * w[..., None]).mT @ centred + 1e-10 * np.eye(z.shape[-1])
    return Mixture(means[:, None], np.linalg.cholesky(covs)[:, None], np.ones(1))


def _spread_t(n: int, p: int, rng: np.random.Generator) -> Float[np.ndarray, "draw z"]:
    """Draws of the standard t distribution, from a scrambled Sobol sequence: means over them have less error."""
    from scipy.stats import chi2, norm, qmc

    u = qmc.Sobol(p + 1, rng=rng).random(n).clip(1e-12, 1 - 1e-12)
    return norm.ppf(u[:, 1:]) / np.sqrt(chi2.ppf(u[:, :1], DOF) / DOF)


def _around_modes(space: Space, rng: np.random.Generator) -> Mixture:
    """t distributions at the best modes found from scattered starts, with the curvature there."""
    from scipy.optimize import minimize

    starts = space.starts(24 * max(1, len(space.hypothesis.priors)), rng)
    order = np.argsort(-space.log_posterior(starts, mirror=True))
    modes: list[tuple[float, np.ndarray, np.ndarray]] = []
    for start in starts[order[: min(3, 1 + len(space.hypothesis.priors))]]:
        found = minimize(_with_gradient(space), start, jac=True, method="BFGS", options={"gtol": 1e-2, "maxiter": 60})
        found.x[space.sds] = np.abs(found.x[space.sds])
        root = _curvature_root(space, found.x)
        # Found before: within half a unit of its own width.
        if any(np.linalg.norm(np.linalg.solve(other, found.x - mode)) < 0.5 for _, mode, other in modes):
            continue
        evidence = -found.fun + np.log(np.diagonal(root)).sum()
        modes.append((evidence, found.x, root))
    evidences = np.array([m[0] for m in modes])
    shares = np.maximum(np.exp(evidences - evidences.max()), 0.05)
    return Mixture(np.stack([m[1] for m in modes]), np.stack([m[2] for m in modes]), shares / shares.sum())


def _with_gradient(space: Space) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Minus the log posterior and its gradient, by central differences in one vectorised call."""
    h = 1e-4
    steps = np.concatenate([np.zeros((1, space.size)), h * np.eye(space.size), -h * np.eye(space.size)])

    def evaluate(z: np.ndarray) -> tuple[float, np.ndarray]:
        value = -np.maximum(space.log_posterior(z + steps, mirror=True), -1e12)
        return value[0], (value[1 : space.size + 1] - value[space.size + 1 :]) / (2 * h)

    return evaluate


def _curvature_root(space: Space, z: np.ndarray) -> np.ndarray:
    """Cholesky factor of `_curvature`."""
    return np.linalg.cholesky(_curvature(space, z)[1])


def _curvature(
    space: Space, z: Float[np.ndarray, "... z"]
) -> tuple[Float[np.ndarray, "... z"], Float[np.ndarray, "... z z"]]:
    """Gradient, and the inverse of minus the Hessian, held between widths that a proposal can use."""
    p, h = space.size, 1e-2
    eye = h * np.eye(p)
    pairs = [(i, j) for i in range(p) for j in range(i, p)]
    signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    steps = np.array([a * eye[i] + b * eye[j] for i, j in pairs for a, b in signs])
    value = np.maximum(space.log_posterior(z[..., None, :] + steps, mirror=True), -1e12)
    value = value.reshape(*z.shape[:-1], len(pairs), 4)
    gradient, hessian = np.zeros(z.shape), np.zeros((*z.shape, p))
    for (i, j), (pp, pm, mp, mm) in zip(pairs, np.moveaxis(value, (-2, -1), (0, 1))):
        hessian[..., i, j] = hessian[..., j, i] = -(pp - pm - mp + mm) / (4 * h * h)
        if i == j:
            gradient[..., i] = (pp - mm) / (4 * h)
    values, vectors = np.linalg.eigh(hessian)
    squares = 1 / np.clip(values, 1 / 3.0**2, 1 / 1e-5**2)
    return gradient, (vectors * squares[..., None, :]) @ vectors.mT


def _adapted(z: np.ndarray, log_weights: np.ndarray, rng: np.random.Generator) -> Mixture:
    """A mixture fitted to weighted draws."""
    p = z.shape[1]
    top = np.argsort(-log_weights)[: max(len(z) // 2, 50 * p)]
    z, log_weights = z[top], log_weights[top]
    # Tempered until enough draws count, or a lucky few would make the mixture collapse on them.
    for power in (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05):
        w = np.exp(power * (log_weights - log_weights.max()))
        w /= w.sum()
        if 1 / (w**2).sum() >= 10 * p:
            break
    return _fitted(z, w, 3 if p < 8 else 6, rng)


def _fitted(z: np.ndarray, w: np.ndarray | None, n_components: int, rng: np.random.Generator) -> Mixture:
    """A mixture by a few steps of EM, and one wide component that covers all of the draws."""
    p = z.shape[1]
    w = np.full(len(z), 1 / len(z)) if w is None else w
    mean = w @ z
    cov = (z - mean).T @ ((z - mean) * w[:, None]) + 1e-10 * np.eye(p)
    means = z[rng.choice(len(z), n_components, p=w)]
    covs, shares = np.repeat(cov[None] / 2, n_components, axis=0), np.full(n_components, 1 / n_components)
    for _ in range(8):
        mixture = Mixture(means, np.linalg.cholesky(covs), shares)
        log_part = mixture.log_components(z)
        part = np.exp(log_part - _log_sum(log_part)) * w
        shares = np.maximum(part.sum(1), 1e-3)
        means = (part @ z) / shares[:, None]
        centred = z[None] - means[:, None]
        covs = (centred * part[..., None]).mT @ centred / shares[:, None, None]
        covs += 0.02 * cov + 1e-12 * np.eye(p)
        shares /= shares.sum()
    # t components of these covariances are wider than what they were fitted to, as proposals should be.
    return Mixture(
        np.concatenate([means, mean[None]]),
        np.linalg.cholesky(np.concatenate([covs, 2 * cov[None]])),
        np.concatenate([0.85 * shares, [0.15]]),
    )


def _tempered(space: Space, rng: np.random.Generator, n: int) -> Float[np.ndarray, "draw z"]:
    """Draws spread over all of a posterior with several modes or ridges, for a mixture to be fitted to.

    Sequential Monte Carlo from the prior (Del Moral, Doucet and Jasra 2006): the likelihood enters by degrees, each so
    large that half of the draws still count, and every degree ends with random-walk Metropolis steps.
    """
    z = np.stack([_prior_draws(prior, n, rng) for prior in space.priors.values()], axis=1)
    target, prior = space.log_posterior(z), space.log_prior(z)
    power = 0.0
    while power < 1:
        likelihood = np.where(np.isfinite(target), target - prior, -1e300)
        low, high = power, 1.0
        for _ in range(40):  # the next degree by bisection
            middle = (low + high) / 2 if _effective((high - power) * likelihood) < n / 2 else high
            if middle == high:
                break
            low, high = (low, middle) if _effective((middle - power) * likelihood) < n / 2 else (middle, high)
        step, power = high - power, high
        w = np.exp(step * (likelihood - likelihood.max()))
        at = np.searchsorted(np.cumsum(w), (np.arange(n) + rng.uniform()) / n * w.sum())
        at = at.clip(max=n - 1)
        z, target, prior = z[at], target[at], prior[at]
        root = np.linalg.cholesky(np.cov(z.T) + 1e-10 * np.eye(space.size))
        size = 2.38 / np.sqrt(space.size)
        for _ in range(MOVES):
            to = z + size * rng.normal(size=z.shape) @ root.T
            to[:, space.sds] = np.abs(to[:, space.sds])
            new_target, new_prior = space.log_posterior(to), space.log_prior(to)
            gain = power * (new_target - target) + (1 - power) * (new_prior - prior)
            accept = np.log(rng.uniform(size=len(z))) < gain
            z[accept], target[accept], prior[accept] = to[accept], new_target[accept], new_prior[accept]
            size *= np.exp(2 * (accept.mean() - 0.25))
    return z


def _effective(log_weights: np.ndarray) -> float:
    w = np.exp(log_weights - log_weights.max())
    return float(w.sum() ** 2 / (w**2).sum())


def _prior_draws(prior: Prior, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws of one coordinate z from its prior."""
    if prior.family == "Uniform":
        return rng.logistic(size=n)
    mean, sd = prior.parameters if prior.family != "HalfNormal" else (0.0, prior.parameters[0])
    x = rng.normal(mean, sd, size=n)
    return np.abs(x) if prior.family == "HalfNormal" else x
