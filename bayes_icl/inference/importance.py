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
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import chi2, norm, qmc

from bayes_icl.hypotheses.law import Hypothesis, Prior
from bayes_icl.inference.histories import Histories
from bayes_icl.inference.mixture import DOF, Mixture, _log_sum
from bayes_icl.inference.noise import Statistics, stacked
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.psis import pareto_k, smooth
from bayes_icl.inference.space import Space, draw_vectors

STAGES, DEAR_STAGES, HISTORY_STAGES = (1000, 1500, 2500), (500, 1000, 2000), (400, 800, 1500)  # draws

HEAVY = 9  # parameters

MORE_STAGES = (3000, 5000, 8000)  # while the diagnostics are bad

PARTICLES, MOVES, HEAVY_MOVES, N_AFTER_TEMPERING = 1000, 4, 10, 10

STAGES_TOGETHER, NEWTON_STEPS = (256, 256, 256, 512, 1024), 8  # draws, powers of 2; stages mend what a mode misses

GOOD_K, GOOD_ESS = 0.7, 1000


def sample_fast(
    hypothesis: Hypothesis,
    stats: Statistics | Histories,
    *,
    seed: int = 0,
    like: Posterior | None = None,
    least_draws: int = 0,
) -> Posterior:
    """The posterior of a hypothesis by importance sampling.

    Parameters
    ----------
    hypothesis
        The law.
    stats
        Of the curves (`noise.summarise`; of a law of history `histories.histories_of`).
    seed
        Of the draws.
    like
        A posterior of the same hypothesis on similar curves (all of these but one), to begin from.
    least_draws
        Of the last stage, where more precision is wanted than scores need.
    """
    rng = np.random.default_rng([seed, 3])
    space = Space(hypothesis, stats)
    # Modes and their curvature tell little of so many parameters, but of laws of history, whose mean is all but linear.
    heavy = space.size >= HEAVY and not hypothesis.of_history
    if like is not None:
        proposal = like.state
    elif heavy:
        proposal = _fitted(_tempered(space, rng, PARTICLES), None, N_AFTER_TEMPERING, rng)
    else:
        proposal = _around_modes(space, np.random.default_rng(4))
    # A likelihood that goes by sequence costs as much as many others.
    first = DEAR_STAGES if hypothesis.latent_step else HISTORY_STAGES if hypothesis.of_history else STAGES
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
        if i + 1 == len(stages) + 2 * hypothesis.latent_step + heavy and not hypothesis.of_history:
            proposal = _fitted(_tempered(space, rng, 2 * PARTICLES), None, N_AFTER_TEMPERING, rng)
        else:
            proposal = _adapted(z, log_weights, rng)
    params = space.params(z)
    if hypothesis.ceiling:
        params |= draw_vectors(hypothesis, stats, params, rng)
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
        A law of n with normal noise, not of a latent step.
    each
        Statistics with the same shots and number of sequences.
    seed
        Of the draws.
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
        params |= draw_vectors(hypothesis, space.stats, params, rng)
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
    u = qmc.Sobol(p + 1, rng=rng).random(n).clip(1e-12, 1 - 1e-12)
    return norm.ppf(u[:, 1:]) / np.sqrt(chi2.ppf(u[:, :1], DOF) / DOF)


def _around_modes(space: Space, rng: np.random.Generator) -> Mixture:
    """t distributions at the best modes found from scattered starts, with the curvature there."""
    starts = space.starts(24 * max(1, len(space.hypothesis.priors)), rng)
    order = np.argsort(-space.log_posterior(starts, mirror=True))
    modes: list[tuple[float, np.ndarray, np.ndarray]] = []
    for start in _far_apart(starts[order[: len(order) // 2]], min(3, 1 + len(space.hypothesis.priors))):
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


def _far_apart(z: Float[np.ndarray, "start z"], n: int) -> Float[np.ndarray, "some z"]:
    """The first of some points, then those furthest from all taken before: the best ones may all be at one mode."""
    size = z.std(0) + 1e-300
    taken = [0]
    while len(taken) < min(n, len(z)):
        taken.append(int((((z[:, None] - z[taken]) / size) ** 2).sum(2).min(1).argmax()))
    return z[taken]


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
    """Gradient, and the inverse of minus the Hessian, held between widths that a proposal can use.

    Where a curvature has the wrong sign, as between a small sd and its mirror image, its size is taken.
    """
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
    squares = 1 / np.clip(np.abs(values), 1 / 3.0**2, 1 / 1e-5**2)
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
        for _ in range(HEAVY_MOVES if space.size >= HEAVY else MOVES):
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
