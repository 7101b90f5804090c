"""The unconstrained space in which the fast engine samples, and the collapsed log likelihood there."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from bayes_icl.hypotheses.kinds import Free
from bayes_icl.hypotheses.law import Hypothesis, Prior
from bayes_icl.inference.histories import Histories, collapsed_history, history_log_likelihood, known_starts
from bayes_icl.inference.noise import LOG_2PI, Between, Statistics, total_log_likelihood, trace, variances

BLOCK = 2**17  # numbers in the largest array of a likelihood that goes by sequence: what a core's cache holds


class Space:
    """The parameters of a hypothesis as coordinates z of about unit size.

    The vectors of a free mean are not among them: they are integrated out, and drawn given the rest in the end.
    """

    def __init__(self, hypothesis: Hypothesis, stats: Statistics | Histories) -> None:
        if hypothesis.ceiling and hypothesis.student:
            raise ValueError(f"{hypothesis.name}: a free mean is integrated out under normal noise only")
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
        if self.hypothesis.ceiling and isinstance(self.stats, Statistics):
            return collapsed_log_likelihood(self.hypothesis, self.stats, params)
        n_draws = params["level"].shape[-2]
        per_draw = max(self.hypothesis.kind.terms(self.stats), len(self.stats.x) if self.hypothesis.student else 1)
        step = max(1, BLOCK // per_draw)
        if step >= n_draws:
            return self._of_block(params)
        blocks = [{k: v[i : i + step] for k, v in params.items()} for i in range(0, n_draws, step)]
        return np.concatenate([self._of_block(block) for block in blocks])

    def _of_block(self, params: dict[str, np.ndarray]) -> np.ndarray:
        if not isinstance(self.stats, Histories):
            return total_log_likelihood(np, self.hypothesis, self.stats, params)
        if self.hypothesis.ceiling:
            return collapsed_history(self.stats, params)[0]
        return history_log_likelihood(np, self.hypothesis, self.stats, params).sum(-1)

    def starts(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "... draw z"]:
        """Places to begin: parameters of the law drawn from their priors, those of the noise estimated."""
        stats = self.stats
        if isinstance(stats, Histories):
            return self._starts_of_history(stats, n, rng)
        spectrum = np.diagonal(stats.x_scatter, axis1=-2, axis2=-1) / stats.n_seqs
        basis = np.stack([stats.eigenvalues, np.ones_like(stats.eigenvalues)], axis=1)
        level2, walk2 = np.moveaxis(spectrum @ np.linalg.pinv(basis).T, -1, 0)[..., None, None]
        least = 1e-3 * stats.scale**2 + 1e-300
        rises = stats.x @ stats.line / (stats.line @ stats.line)
        # Without a mean update, sequences differ by all that they rise.
        gain = rises.mean(-1) * self.hypothesis.has_gain
        known = {
            "level": np.sqrt(np.maximum(level2, least)),
            "walk": np.sqrt(np.maximum(walk2, least)),
            "gain": gain[..., None, None],
            "gain_sd": np.sqrt(np.maximum(((rises - gain[..., None]) ** 2).mean(-1)[..., None, None], least)),
            "early_sd": np.broadcast_to(0.1 * np.asarray(stats.scale), level2.shape),
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

    def _starts_of_history(self, stats: Histories, n: int, rng: np.random.Generator) -> np.ndarray:
        drawn = {name: prior.draw(rng, (n, 1), stats.scale) for name, prior in self.priors.items()}
        for name, prior in self.priors.items():
            if prior.family == "Uniform":
                low, high = prior.parameters
                drawn[name] = np.clip(drawn[name], low + 0.02 * (high - low), high - 0.02 * (high - low))
        drawn |= {name: x for name, x in known_starts(self.hypothesis, stats, drawn).items() if name in drawn}
        placed = [np.broadcast_to(self.place(name, np.asarray(x, float)), (n, 1)) for name, x in drawn.items()]
        return np.concatenate(placed, axis=1)


def collapsed_log_likelihood(
    hypothesis: Hypothesis, stats: Statistics, params: dict[str, np.ndarray]
) -> Float[np.ndarray, "... draw"]:
    """Log-likelihood of all sequences under a free mean, its vectors integrated out, nats.

    `params` lack the vectors. The mean of the sequences is then normal about the line, with what the vectors add to its
    variance; the scatter about it does not depend on them. Both are diagonal plus low rank.
    """
    s, k = stats.n_seqs, len(stats.eigenvalues)
    v = variances(stats, params["level"], params["walk"])
    inverse = 1 / v
    between = Between.of(np, stats, params, inverse)
    h1, h2 = between.columns
    scatter = [(h @ stats.x_scatter * other).sum(-1) for h, other in ((h1, h1), (h1, h2), (h2, h2))]
    squares = trace(np, stats.x_scatter, inverse) - between.taken(*scatter)
    log_det = (s - 1) * (np.log(v).sum(-1) + between.log_det) + np.log(v).sum(-1)
    gram, push, left = _columns(hypothesis, stats, params, inverse)
    root = np.linalg.cholesky(gram)
    taken = (np.linalg.solve(root, push[..., None])[..., 0] ** 2).sum(-1)
    log_det = log_det + 2 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
    return -0.5 * (log_det + squares + left - taken + s * k * LOG_2PI)


def _columns(
    hypothesis: Hypothesis, stats: Statistics, params: dict[str, np.ndarray], inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the mean of the sequences, whose variance is v over the weight and columns beside it: Woodbury's parts.

    Returns
    -------
    gram
        I + U' U / v times the weight, shape (..., draw, column, column): columns U of the vectors first, then the two
        along which sequences differ.
    push
        U' error / v times the weight, shape (..., draw, column).
    left
        The squared length of the error without the columns, shape (..., draw).
    """
    vectors = [(getattr(stats, prior.length or "") @ stats.transform, params[sd]) for prior, sd in _vectors(hypothesis)]
    each = np.concatenate([basis for basis, _ in vectors] + [stats.line[None], stats.early[None]])
    draws = params["level"].shape[:-1]
    # Sizes of the columns. Those of sequences are correlated, and their mean varies by 1 over the weight.
    along, bent = (params[name][..., 0] / np.sqrt(stats.weight) for name in ("gain_sd", "early_sd"))
    sizes = np.concatenate(
        [
            *(np.broadcast_to(sd, (*draws, len(basis))) for basis, sd in vectors),
            np.stack([np.broadcast_to(along, draws), np.sqrt(1 - stats.corr**2) * bent], axis=-1),
        ],
        axis=-1,
    )
    error = stats.x_mean - params["gain"] * stats.line
    products = (each[:, None] * each[None]).reshape(-1, each.shape[-1])
    inner = (stats.weight * inverse @ products.T).reshape(*draws, len(each), len(each))
    push = stats.weight * (error * inverse) @ each.T
    gram, scaled = inner * sizes[..., None] * sizes[..., None, :], push * sizes
    if stats.corr:  # the first of the two has a share of the second
        share = stats.corr * bent
        row = share[..., None] * inner[..., -1, :] * sizes
        gram[..., -2, :] += row
        gram[..., :, -2] += row
        gram[..., -2, -2] += share**2 * inner[..., -1, -1]
        scaled[..., -2] += share * push[..., -1]
    gram[..., np.arange(len(each)), np.arange(len(each))] += 1
    return gram, scaled, stats.weight * (error**2 * inverse).sum(-1)


def _vectors(hypothesis: Hypothesis) -> list[tuple[Prior, str]]:
    """Priors of a free mean's vectors, and the parameter that is the sd of each."""
    assert isinstance(hypothesis.kind, Free)
    return [(prior, hypothesis.kind.vectors[name]) for name, prior in hypothesis.all_priors.items() if prior.length]


def draw_vectors(
    hypothesis: Hypothesis, stats: Statistics | Histories, params: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "... draw length"]]:
    """Draws of a free mean's vectors given the rest, which are normal."""
    if isinstance(stats, Histories):
        step = max(1, BLOCK // stats.x.size)
        n_draws = len(params["level"])
        blocks = [{k: v[i : i + step] for k, v in params.items()} for i in range(0, n_draws, step)]
        drawn_kernels = []
        for block in blocks:
            _, root, mean = collapsed_history(stats, block)
            drawn_kernels.append(mean + np.linalg.solve(root.mT, rng.normal(size=(*mean.shape, 1)))[..., 0])
        return {"kernel": np.concatenate(drawn_kernels)}
    inverse = 1 / variances(stats, params["level"], params["walk"])
    gram, push, _ = _columns(hypothesis, stats, params, inverse)
    root = np.linalg.cholesky(gram)
    noise = rng.normal(size=push.shape)[..., None]
    drawn = np.linalg.solve(root.mT, np.linalg.solve(root, push[..., None]) + noise)[..., 0]
    vectors, at = {}, 0
    for name, prior in hypothesis.all_priors.items():
        if prior.length:
            n = len(getattr(stats, prior.length))
            vectors[name] = drawn[..., at : at + n]
            at += n
    return vectors
