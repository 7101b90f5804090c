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

PREDICTIVE_DRAWS = 100  # replicates a chain that are kept
R_HAT_MOST, ESS_LEAST, PARETO_K_MOST = 1.01, 400, 0.7


@dataclass(frozen=True)
class SamplerSettings:
    """How long and how often to sample.

    Attributes
    ----------
    draws, tune
        Kept and warm-up draws a chain.
    """

    draws: int = 1000
    tune: int = 1000
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
        gain = shared.get("gain", pt.constant(0.0))
        v = noise.variances(data, shared["level"], shared["walk"])
        increments = hypothesis.increments(pt, data, theta)
        if hypothesis.latent_step:
            total = noise.total_log_likelihood_of_steps(pt, data, increments, v, gain, shared["gain_sd"])
        else:
            u = pt.dot(increments, data.transform)
            total = noise.total_log_likelihood(pt, data, u, v, gain, shared["gain_sd"])
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
        names = [*hypothesis.parameters, *(["delta"] if hypothesis.has_gain else [])]
        gc.disable()
        self._compiled = nutpie.compile_pymc_model(model, var_names=names)

    def sample(self, stats: Statistics) -> Sampled:
        """Sample the posterior; once more, with smaller steps and a longer warm-up, if the diagnostics ask for it."""
        # Steps of sequences make a mixture, whose posterior bends more.
        careful = self.hypothesis.latent_step
        draws, tune = self.settings.draws, self.settings.tune
        first = self._sample(stats, draws, tune, 0.9 if careful else 0.8)
        if first.converged:
            return first
        short = first.ess_bulk_min < ESS_LEAST or first.rhat_max > R_HAT_MOST
        return self._sample(stats, 2 * draws if short else draws, 2 * tune, 0.98 if careful else 0.95)

    def _sample(self, stats: Statistics, draws: int, tune: int, target_accept: float) -> Sampled:
        import arviz as az
        import nutpie

        compiled = self._compiled.with_data(**{name: getattr(stats, name) for name in self._data})
        trace = nutpie.sample(
            compiled,
            draws=draws,
            tune=tune,
            chains=self.settings.chains,
            seed=self.settings.seed,
            target_accept=target_accept,
            progress_bar=False,
        )
        posterior = trace.posterior
        rhat, ess = az.rhat(posterior), az.ess(posterior)
        return Sampled(
            posterior,
            trace.sample_stats,
            rhat_max=float(max(values.max() for values in rhat.data_vars.values())),
            ess_bulk_min=float(min(values.min() for values in ess.data_vars.values())),
            divergences=int(trace.sample_stats.diverging.sum()),
        )


def sequence_log_likelihood(
    hypothesis: Hypothesis, posterior: xr.Dataset, stats: Statistics
) -> Float[np.ndarray, "draw seq"]:
    """Log-likelihood of each sequence under each draw, chains one after another, nats."""
    from bayes_icl import noise

    of_draws = _of_draws(hypothesis, posterior, stats)
    if hypothesis.latent_step:
        return noise.log_likelihood_of_steps(stats, *of_draws)
    increments, *rest = of_draws
    return noise.log_likelihood(stats, increments @ stats.transform, *rest)


def _of_draws(hypothesis: Hypothesis, posterior: xr.Dataset, stats: Statistics) -> tuple[np.ndarray, ...]:
    """Increments of f (or log weights of steps), noise variances, gain and its sd, each with a leading axis of draws."""
    from bayes_icl import noise

    flat = {
        name: posterior[name].stack(sample=("chain", "draw")).transpose("sample", ...).values
        for name in hypothesis.parameters
    }
    n_draws = len(flat["level"])
    theta = {name: flat[name].reshape(n_draws, -1) for name in hypothesis.priors}
    increments = np.asarray(hypothesis.increments(np, stats, theta))
    increments = np.broadcast_to(increments, (n_draws, increments.shape[-1]))
    v = noise.variances(stats, flat["level"][:, None], flat["walk"][:, None])
    return increments, v, flat.get("gain", np.zeros(n_draws)), flat["gain_sd"]


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
        without = sampler.sample(summarise(np.delete(curves.log_odds, s, axis=0), curves.shots))
        one = sequence_log_likelihood(hypothesis, without.posterior, summarise(curves.log_odds[[s]], curves.shots))
        elpd_logo[s] = logsumexp(one[:, 0]) - np.log(len(one))
        if without.converged:
            k[s] = 0.0

    first_half = curves.shots <= curves.shots[-1] / 2
    if first_half.sum() >= 3 and not hypothesis.ceiling:
        half = summarise(curves.log_odds[:, first_half], curves.shots[first_half], n_max=curves.shots[-1])
        posterior = sampler.sample(half).posterior
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

    numbers = {name: values.values.ravel() for name, values in posterior.data_vars.items() if values.ndim == 2}
    return {name: (float(x.mean()), *map(float, az.hdi(x, hdi_prob=0.95))) for name, x in numbers.items()}


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
    thinned = sampled.posterior.isel(draw=slice(None, None, max(1, sampled.posterior.sizes["draw"] // PREDICTIVE_DRAWS)))
    increments, v, gain, gain_sd = _of_draws(hypothesis, thinned, stats)
    steps = increments if hypothesis.latent_step else None
    u = v if hypothesis.latent_step else increments @ stats.transform
    new = noise.replicate(stats, u, v, gain, gain_sd, steps, len(curves.log_odds), rng)
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
            {"log_odds": new.reshape(thinned.sizes["chain"], -1, *new.shape[1:])}, coords=coords, dims=dims
        ),
        log_likelihood=az.dict_to_dataset({"log_odds": log_likelihood}, coords=coords, dims={"log_odds": ["seq"]}),
        observed_data=xr.Dataset({"log_odds": (("seq", "shot"), curves.log_odds)}, coords=coords),
    )
