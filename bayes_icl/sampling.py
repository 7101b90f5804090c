"""From a hypothesis and some curves to a posterior and its scores: the PyMC model, NUTS by nutpie, leave-one-out.

The model of a hypothesis is `build_model`: read it, change it. It is compiled once and then sampled for every task,
readout and n_min, since all data enter as `pm.Data`.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayes_icl.hypotheses import SHARED_PRIORS, Hypothesis, Prior

if TYPE_CHECKING:
    import arviz as az
    import pymc as pm
    import xarray as xr

    from bayes_icl.curves import Curves
    from bayes_icl.noise import Statistics

REPLICATES = 6400  # new sequences a chain that are kept: 100 draws of 64, fewer draws of more
R_HAT_MOST, ESS_LEAST, PARETO_K_MOST = 1.01, 400, 0.7
EFFECTIVE_LEAST = 20  # draws that must carry the score of a refit


@dataclass(frozen=True)
class SamplerSettings:
    """How long and how often to sample.

    Attributes
    ----------
    draws, tune
        Kept and warm-up draws a chain.
    """

    draws: int = 1000
    tune: int = 500
    chains: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """How one hypothesis does on one curve.

    Attributes
    ----------
    elpd_logo, elpd_lfo
        Expected log predictive density of each sequence left out, and of each sequence's second half given its first,
        nats, shape (seq,); NaN where it is not defined.
    intervals
        Posterior mean and bounds of the 95 % highest-density interval of every number among the parameters.
    pareto_k_max
        The largest Pareto k among sequences that were not refitted.
    refits
        Sequences scored by an exact refit, because their k was above 0.7.
    """

    task: str
    readout: str
    n_min: int
    hypothesis: str
    elpd_logo: np.ndarray
    elpd_lfo: np.ndarray
    intervals: dict[str, tuple[float, float, float]]
    pareto_k_max: float
    refits: int
    rhat_max: float
    ess_bulk_min: float
    divergences: int


def build_model(hypothesis: Hypothesis, stats: Statistics) -> pm.Model:
    """The PyMC model of a hypothesis.

    Parameters
    ----------
    stats
        Summary of the curves (`noise.summarise`); every array becomes `pm.Data`, so that other curves can be put in
        without compiling again.

    Returns
    -------
    pm.Model
        Random effects are integrated out (`noise`), so it has the hypothesis's own parameters and at most four more:
        `gain`, `gain_sd`, `level`, `walk`, all in nats; `delta` = gain / (n_max - n_min), nats per example.
    """
    import pymc as pm
    import pytensor.tensor as pt

    from bayes_icl import noise

    class Data:
        """The statistics as `pm.Data`, made on first use: a model holds only what it reads."""

        def __getattr__(self, name: str) -> Any:
            tensor = pm.Data(name, getattr(stats, name))
            setattr(self, name, tensor)
            return tensor

    with pm.Model() as model:
        data = Data()
        shared = {
            name: _random_variable(name, SHARED_PRIORS[name], scale=data.scale)
            for name in SHARED_PRIORS
            if name in hypothesis.parameters
        }
        theta = {
            name: _random_variable(name, prior, length=len(stats.shots) - 1)
            for name, prior in hypothesis.priors.items()
        }
        gain, gain_sd = shared.get("gain", 0.0), shared["gain_sd"]
        v = noise.variances(data, shared["level"], shared["walk"])
        if hypothesis.latent_step:
            weights = hypothesis.step_log_weights(pt, data, theta)
            total = noise.total_log_likelihood_of_steps(pt, data, weights, v, gain, gain_sd)
        else:
            mean, f = hypothesis.updates(pt, data, theta, gain)
            u = pt.dot(f, data.transform)
            total = noise.total_log_likelihood(pt, data, pt.dot(mean, data.transform), u, v, gain_sd)
        pm.Potential("log_likelihood", total)
        if hypothesis.has_gain:
            pm.Deterministic("delta", gain / (data.n_max - data.shots[0]))
    return model


def _random_variable(name: str, prior: Prior, *, scale: Any = 1.0, length: int | None = None) -> Any:
    """A prior as a PyMC variable; `scale` multiplies the parameters of the shared ones, which have units of nats."""
    import pymc as pm

    shape = length if prior.length else None
    return getattr(pm, prior.family)(name, *(p * scale for p in prior.parameters), shape=shape)


@dataclass(frozen=True)
class Sampled:
    """Posterior draws and what their diagnostics say."""

    posterior: xr.Dataset
    sample_stats: xr.Dataset
    rhat_max: float
    ess_bulk_min: float
    divergences: int

    @property
    def converged(self) -> bool:
        """Whether R-hat, bulk ESS and the count of divergences are as they should be."""
        return self.rhat_max <= R_HAT_MOST and self.ess_bulk_min >= ESS_LEAST and not self.divergences


class Sampler:
    """One hypothesis, compiled once, sampled on any curves.

    Parameters
    ----------
    stats
        Those with the most shots that will be sampled.
    """

    def __init__(self, hypothesis: Hypothesis, stats: Statistics, settings: SamplerSettings) -> None:
        import nutpie

        self.hypothesis, self.settings = hypothesis, settings
        model = build_model(hypothesis, stats)
        self._data = [variable.name for variable in model.data_vars]
        self._names = [*hypothesis.parameters, *(["delta"] if hypothesis.has_gain else [])]
        collecting = gc.isenabled()
        gc.disable()  # numba makes millions of objects that stay: looking through them costs a fifth of the time
        try:
            self._compiled = nutpie.compile_pymc_model(model, var_names=self._names)
        finally:
            if collecting:
                gc.enable()

    def sample(self, stats: Statistics, *, share: float = 1.0) -> Sampled:
        """Sample the posterior; once more, with smaller steps and a longer warm-up, if the diagnostics ask for it.

        Parameters
        ----------
        share
            Of the draws; half of them do where only a mean over draws is wanted.
        """
        # Steps of sequences make a mixture, whose posterior bends more.
        careful = self.hypothesis.latent_step
        draws, tune = int(self.settings.draws * share), self.settings.tune
        first = self._sample(stats, draws, tune, 0.95 if careful else 0.8)
        if first.converged:
            return first
        short = first.ess_bulk_min < ESS_LEAST or first.rhat_max > R_HAT_MOST
        return self._sample(stats, 2 * draws if short else draws, 2 * tune, 0.99 if careful else 0.95)

    def _sample(self, stats: Statistics, draws: int, tune: int, target_accept: float) -> Sampled:
        import arviz as az
        import nutpie
        from threadpoolctl import threadpool_limits

        compiled = self._compiled.with_data(**{name: getattr(stats, name) for name in self._data})
        # Chains are threads already; BLAS threads within each would only wait for one another.
        with threadpool_limits(1, user_api="blas"):
            trace = nutpie.sample(
                compiled,
                draws=draws,
                tune=tune,
                chains=self.settings.chains,
                seed=self.settings.seed,
                target_accept=target_accept,
                progress_bar=False,
            )
        posterior = trace.posterior[self._names]  # without the transformed copies that nutpie adds
        rhat, ess = az.rhat(posterior), az.ess(posterior)
        return Sampled(
            posterior,
            trace.sample_stats,
            rhat_max=float(max(values.max() for values in rhat.data_vars.values())),
            ess_bulk_min=float(min(values.min() for values in ess.data_vars.values())),
            divergences=int(trace.sample_stats.diverging.sum()),
        )


@dataclass(frozen=True)
class Draws:
    """The parameters of a hypothesis, chains one after another, as arrays with a leading axis of draws.

    Attributes
    ----------
    theta
        Its own parameters, shape (draw, 1) or (draw, length).
    gain, gain_sd
        Shape (draw,); gain is 0 where it is not sampled.
    v
        Noise variances of the transformed updates, shape (draw, update).
    """

    theta: dict[str, np.ndarray]
    gain: np.ndarray
    gain_sd: np.ndarray
    v: np.ndarray

    @classmethod
    def of(cls, hypothesis: Hypothesis, posterior: xr.Dataset, stats: Statistics) -> Draws:
        """Take them from a posterior."""
        from bayes_icl.noise import variances

        flat = {
            name: posterior[name].stack(sample=("chain", "draw")).transpose("sample", ...).values
            for name in hypothesis.parameters
        }
        n_draws = len(flat["level"])
        return cls(
            theta={name: flat[name].reshape(n_draws, -1) for name in hypothesis.priors},
            gain=flat.get("gain", np.zeros(n_draws)),
            gain_sd=flat["gain_sd"],
            v=variances(stats, flat["level"][:, None], flat["walk"][:, None]),
        )

    def updates(self, hypothesis: Hypothesis, stats: Statistics) -> tuple[np.ndarray, np.ndarray]:
        """Mean updates and differences of f, shape (draw, update)."""
        mean, f = hypothesis.updates(np, stats, self.theta, self.gain[:, None])
        return np.broadcast_to(mean, self.v.shape), np.broadcast_to(f, self.v.shape)


def sequence_log_likelihood(
    hypothesis: Hypothesis, posterior: xr.Dataset, stats: Statistics
) -> Float[np.ndarray, "draw seq"]:
    """Log-likelihood of each sequence under each draw, chains one after another, nats."""
    from bayes_icl import noise

    draws = Draws.of(hypothesis, posterior, stats)
    if hypothesis.latent_step:
        weights = hypothesis.step_log_weights(np, stats, draws.theta)
        return noise.log_likelihood_of_steps(stats, weights, draws.v, draws.gain, draws.gain_sd)
    mean, f = draws.updates(hypothesis, stats)
    return noise.log_likelihood(stats, mean @ stats.transform, f @ stats.transform, draws.v, draws.gain_sd)


def score_curves(sampler: Sampler, curves: Curves) -> tuple[Score, az.InferenceData]:
    """Sample a hypothesis on some curves and score it by leaving out sequences, and by leaving out the future.

    Every sequence whose Pareto k is above 0.7 is scored by an exact refit without it. For the second score the first
    half of the shots is fitted, and the rest of each sequence predicted from its own first half and that posterior.
    """
    import arviz as az
    from scipy.special import logsumexp

    from bayes_icl.noise import summarise

    hypothesis = sampler.hypothesis
    stats = summarise(curves.log_odds, curves.shots)
    sampled = sampler.sample(stats)
    chains = sampled.posterior.sizes["chain"], sampled.posterior.sizes["draw"], -1
    log_likelihood = sequence_log_likelihood(hypothesis, sampled.posterior, stats).reshape(chains)
    inference = _inference_data(hypothesis, curves, stats, sampled, log_likelihood, sampler.settings.seed)

    n_seqs = len(curves.log_odds)
    elpd_logo, elpd_lfo = np.full(n_seqs, np.nan), np.full(n_seqs, np.nan)
    k = np.zeros(n_seqs)
    if n_seqs > 1:
        loo = az.loo(inference, pointwise=True)
        elpd_logo, k = loo.loo_i.values.copy(), loo.pareto_k.values.copy()
    refitted = np.flatnonzero(k > PARETO_K_MOST)
    for s in refitted:
        without = sampler.sample(summarise(np.delete(curves.log_odds, s, axis=0), curves.shots), share=0.5)
        one = sequence_log_likelihood(hypothesis, without.posterior, summarise(curves.log_odds[[s]], curves.shots))
        elpd_logo[s] = logsumexp(one[:, 0]) - np.log(len(one))
        # A score that hangs on a few of the draws is not exact; its k stays, and the verdict is refused.
        weights = np.exp(one[:, 0] - logsumexp(one[:, 0]))
        if without.converged and 1 / (weights**2).sum() >= EFFECTIVE_LEAST:
            k[s] = 0.0

    first_half = curves.shots <= curves.shots[-1] / 2
    if first_half.sum() >= 3 and not hypothesis.ceiling:
        half = summarise(curves.log_odds[:, first_half], curves.shots[first_half], n_max=curves.shots[-1])
        posterior = sampler.sample(half, share=0.5).posterior
        future = sequence_log_likelihood(hypothesis, posterior, stats)
        future = future - sequence_log_likelihood(hypothesis, posterior, half)
        elpd_lfo = logsumexp(future, axis=0) - np.log(len(future))
    score = Score(
        task=curves.task,
        readout=curves.readout,
        n_min=int(curves.shots[0]),
        hypothesis=hypothesis.name,
        elpd_logo=elpd_logo,
        elpd_lfo=elpd_lfo,
        intervals=_intervals(sampled.posterior),
        pareto_k_max=float(k.max()),
        refits=len(refitted),
        rhat_max=sampled.rhat_max,
        ess_bulk_min=sampled.ess_bulk_min,
        divergences=sampled.divergences,
    )
    return score, inference


def _intervals(posterior: xr.Dataset) -> dict[str, tuple[float, float, float]]:
    """Mean and 95 % highest-density interval of every number among the parameters."""
    import arviz as az

    numbers = {str(name): values.values.ravel() for name, values in posterior.data_vars.items() if values.ndim == 2}
    hdi = {name: az.hdi(x, hdi_prob=0.95) for name, x in numbers.items()}
    return {name: (float(x.mean()), float(hdi[name][0]), float(hdi[name][1])) for name, x in numbers.items()}


def _inference_data(
    hypothesis: Hypothesis,
    curves: Curves,
    stats: Statistics,
    sampled: Sampled,
    log_likelihood: np.ndarray,
    seed: int,
) -> az.InferenceData:
    """The fit in ArviZ's form: posterior, prior, replicates, and one log-likelihood a sequence."""
    import arviz as az
    import xarray as xr

    from bayes_icl import noise

    rng = np.random.default_rng([seed, 1])
    n_seqs = len(curves.log_odds)
    n_kept = max(10, REPLICATES // max(n_seqs, 64))
    thinned = sampled.posterior.isel(draw=slice(None, None, -(-sampled.posterior.sizes["draw"] // n_kept)))
    draws = Draws.of(hypothesis, thinned, stats)
    if hypothesis.latent_step:
        weights = hypothesis.step_log_weights(np, stats, draws.theta)
        directions = noise.draw_steps(weights, n_seqs, rng)
        each = draws.gain[:, None, None] * directions
        # A step has happened by update n with the probability of its weights up to there.
        mean = draws.gain[:, None] * np.exp(weights[:, :-1])
    else:
        mean, f = draws.updates(hypothesis, stats)
        each, directions = (np.repeat(x[:, None], n_seqs, axis=1) for x in (mean, f))
    means = np.hstack([np.zeros((len(mean), 1)), np.cumsum(mean, axis=1)])
    means += curves.log_odds.mean() - means.mean(1, keepdims=True)
    new = noise.replicate(stats, each, directions, draws.v, draws.gain_sd, rng)
    new += curves.log_odds.mean(1)[:, None]  # each replicate at the level of the sequence that it stands for
    prior = {}
    for name in hypothesis.parameters:
        own = {**SHARED_PRIORS, **hypothesis.priors}[name]
        length = sampled.posterior[name].shape[2:]
        prior[name] = own.draw(rng, (1, 1000, *length)) * (stats.scale if name in SHARED_PRIORS else 1.0)
    if hypothesis.has_gain:
        prior["delta"] = prior["gain"] / (stats.n_max - stats.shots[0])
    coords = {"seq": np.arange(len(curves.log_odds)), "shot": curves.shots.astype(int)}
    dims = {"log_odds": ["seq", "shot"]}
    return az.InferenceData(
        posterior=sampled.posterior,
        sample_stats=sampled.sample_stats,
        prior=az.dict_to_dataset(prior),
        posterior_predictive=az.dict_to_dataset(
            {
                "log_odds": new.reshape(thinned.sizes["chain"], -1, *new.shape[1:]).astype(np.float32),
                "mean_log_odds": means.reshape(thinned.sizes["chain"], -1, means.shape[1]),
            },
            coords=coords,
            dims={**dims, "mean_log_odds": ["shot"]},
        ),
        log_likelihood=az.dict_to_dataset({"log_odds": log_likelihood}, coords=coords, dims={"log_odds": ["seq"]}),
        observed_data=xr.Dataset({"log_odds": (("seq", "shot"), curves.log_odds)}, coords=coords),
    )
