"""A fit in ArviZ's form: posterior, prior, replicates, and one log-likelihood a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import halfnorm, lognorm, norm, uniform

from bayes_icl.curves import Curves
from bayes_icl.hypotheses.law import Prior
from bayes_icl.inference.departure import MeanCurve
from bayes_icl.inference.histories import histories_of
from bayes_icl.inference.history_scores import history_mean
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import mean_curve, prior_predictive, replicate
from bayes_icl.inference.scores import sequence_log_likelihood

if TYPE_CHECKING:
    import arviz as az

REPLICATES = 1600  # new sequences a chain that are kept: 50 draws of 32, fewer draws of more

PRIOR_DRAWS = 200  # new sequences from the priors that are kept

CHAINS, DRAWS = 4, 500  # in which draws of the fast engine are laid out; they are independent


def inference_data(posterior: Posterior, curves: Curves, seed: int = 0) -> az.InferenceData:
    """The posterior as `arviz.InferenceData`.

    Weighted draws of the fast engine are resampled to equal weight and laid out as four chains. Vectors of parameters
    keep their length. `posterior_predictive` holds new sequences (`log_odds`: dims chain, draw, seq, shot, each at the
    level of the sequence that it stands for) and the mean curve (`mean_log_odds`) of some of the draws;
    `prior_predictive` the same of the priors, one new sequence a draw (dims chain, draw, shot), at the level of the
    curves. `log_prior` holds the log prior density of each parameter at each draw, as `arviz.psens` takes it: that of
    all priors is their sum. The posterior of `freeform` has the `total` update of the mean curve (nats), its
    `departure` from a line and the share that the `second_half` of the examples adds besides.
    """
    import arviz as az

    stats = summarise(curves)
    hypothesis = posterior.hypothesis
    rng = np.random.default_rng([seed, 1])
    if posterior.engine == "fast":
        sample_stats = {"log_weight": np.zeros((CHAINS, DRAWS))}
        posterior, chains = posterior.equal(CHAINS * DRAWS, seed), CHAINS
    else:
        sample_stats, chains = posterior.state, posterior.chains
    n_draws = len(posterior.log_weights) // chains
    n_kept = min(n_draws, max(10, REPLICATES // len(curves.log_odds)))
    kept = (np.arange(chains)[:, None] * n_draws + np.linspace(0, n_draws - 1, n_kept).astype(int)).ravel()
    thinned = posterior.at(kept)
    new = replicate(thinned, stats, rng) + curves.log_odds.mean(1)[:, None]
    means = mean_curve(thinned, stats) + curves.log_odds.mean()

    def as_chains(x: np.ndarray, n: int) -> np.ndarray:
        return x.reshape(chains, n, *x.shape[1:])

    draws = {name: as_chains(x, n_draws) for name, x in posterior.numbers(stats).items()}
    draws |= {name: as_chains(x, n_draws) for name, x in posterior.params.items() if name not in draws}
    if hypothesis.ceiling:
        of_mean = MeanCurve.of(posterior, stats)
        shapes = {"total": of_mean.totals, "departure": of_mean.departures, "second_half": of_mean.second_halves}
        draws |= {name: as_chains(x, n_draws) for name, x in shapes.items()}
    log_prior = {
        name: as_chains(log_density(own, posterior.params[name], stats.scale), n_draws)
        for name, own in hypothesis.all_priors.items()
    }
    of_prior = prior_predictive(hypothesis, stats, PRIOR_DRAWS, rng)
    from_prior = dict(zip(("log_odds", "mean_log_odds"), (x[None] + curves.log_odds.mean() for x in of_prior)))
    prior = {
        name: own.draw(rng, (1, DRAWS, *draws[name].shape[2:]), stats.scale)
        for name, own in hypothesis.all_priors.items()
    }
    if "gain" in prior:
        prior["delta"] = prior["gain"] / (stats.n_max - stats.shots[0])
    coords = {"seq": np.arange(len(curves.log_odds)), "shot": curves.shots.astype(int)}
    dims = {"log_odds": ["seq", "shot"]}
    own = as_chains(sequence_log_likelihood(posterior, stats), n_draws)
    return az.InferenceData(
        posterior=az.dict_to_dataset(draws),
        sample_stats=az.dict_to_dataset(sample_stats) if isinstance(sample_stats, dict) else sample_stats,
        log_prior=az.dict_to_dataset(log_prior),
        prior=az.dict_to_dataset(prior),
        prior_predictive=az.dict_to_dataset(
            {name: x.astype(np.float32) for name, x in from_prior.items()},
            coords={"shot": coords["shot"]},
            dims={name: ["shot"] for name in from_prior},
        ),
        posterior_predictive=az.dict_to_dataset(
            {"log_odds": as_chains(new, n_kept).astype(np.float32), "mean_log_odds": as_chains(means, n_kept)},
            coords=coords,
            dims={**dims, "mean_log_odds": ["shot"]},
        ),
        log_likelihood=az.dict_to_dataset({"log_odds": own}, coords=coords, dims={"log_odds": ["seq"]}),
        observed_data=xr.Dataset({"log_odds": (("seq", "shot"), curves.log_odds)}, coords=coords),
        attrs={"engine": posterior.engine},
    )


def history_data(posterior: Posterior, curves: Curves, seed: int = 0) -> az.InferenceData:
    """The posterior of a law of history as `arviz.InferenceData`: posterior, prior, log-likelihood of each sequence.

    `log_prior` is as in `inference_data`. The mean of each sequence under the mean of the posterior is
    ``mean_log_odds`` of `observed_data`, beside ``log_odds`` (dims seq, read), nats.
    """
    import arviz as az

    stats, hypothesis = histories_of(curves), posterior.hypothesis
    rng = np.random.default_rng([seed, 1])
    sample_stats, chains = posterior.state, posterior.chains
    if posterior.engine == "fast":
        sample_stats = az.dict_to_dataset({"log_weight": np.zeros((CHAINS, DRAWS))})
        posterior, chains = posterior.equal(CHAINS * DRAWS, seed), CHAINS
    n_draws = len(posterior.log_weights) // chains

    def as_chains(x: np.ndarray) -> np.ndarray:
        x = x[:, 0] if x.ndim == 2 and x.shape[1] == 1 else x
        return x.reshape(chains, n_draws, *x.shape[1:])

    priors = hypothesis.all_priors
    sizes = {name: (len(stats.knots),) if prior.length else () for name, prior in priors.items()}
    prior = {name: own.draw(rng, (1, DRAWS, *sizes[name]), stats.scale) for name, own in priors.items()}
    log_prior = {name: as_chains(log_density(own, posterior.params[name], stats.scale)) for name, own in priors.items()}
    own = as_chains(sequence_log_likelihood(posterior, stats))
    coords = {"seq": np.arange(len(stats.x))}
    mean = history_mean(posterior, stats)
    return az.InferenceData(
        posterior=az.dict_to_dataset({name: as_chains(x) for name, x in posterior.params.items()}),
        sample_stats=sample_stats,
        log_prior=az.dict_to_dataset(log_prior),
        prior=az.dict_to_dataset(prior),
        log_likelihood=az.dict_to_dataset({"log_odds": own}, coords=coords, dims={"log_odds": ["seq"]}),
        observed_data=xr.Dataset(
            {"log_odds": (("seq", "read"), curves.log_odds), "mean_log_odds": (("seq", "read"), mean)}, coords=coords
        ),
        attrs={"engine": posterior.engine},
    )


def log_density(prior: Prior, x: Float[np.ndarray, "draw length"], scale: float) -> Float[np.ndarray, " draw"]:
    """Log density of a prior at some draws, summed over the entries of a vector."""
    if prior.family == "HalfNormal":
        known = halfnorm(scale=prior.parameters[0])
    else:
        first, second = prior.parameters
        if prior.family == "Normal":
            known = norm(first, second)
        elif prior.family == "Uniform":
            known = uniform(first, second - first)
        else:
            known = lognorm(second, scale=np.exp(first))
    size = scale if prior.scaled else 1.0
    return (known.logpdf(x / size) - np.log(size)).sum(-1)
