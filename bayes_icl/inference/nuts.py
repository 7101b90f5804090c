"""The PyMC model of a hypothesis, and NUTS by nutpie: the engine whose posteriors the figures show.

The model is `build_model`: read it, change it. It is compiled once and then sampled for every task, readout and n_min,
since all data enter as `pm.Data`.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from bayes_icl.hypotheses.law import Hypothesis, Prior
from bayes_icl.inference.histories import Histories, history_log_likelihood
from bayes_icl.inference.noise import Statistics, total_log_likelihood
from bayes_icl.inference.posterior import ESS_LEAST, R_HAT_MOST, Posterior

if TYPE_CHECKING:
    import pymc as pm


@dataclass(frozen=True)
class SamplerSettings:
    """How long and how often to sample.

    Attributes
    ----------
    draws, tune
        Kept and warm-up draws a chain.
    """

    draws: int = 2000
    tune: int = 1000
    chains: int = 4
    seed: int = 0


def build_model(hypothesis: Hypothesis, stats: Statistics | Histories) -> pm.Model:
    """The PyMC model of a hypothesis.

    Parameters
    ----------
    hypothesis
        The law.
    stats
        Summary of the curves (`noise.summarise`); every array becomes `pm.Data`, so that other curves can be put in
        without compiling again. Those of laws of history (`histories.histories_of`) are constants of the model.

    Returns
    -------
    pm.Model
        Random effects are integrated out (`noise`), so it has the hypothesis's own parameters and at most five more:
        `gain`, `gain_sd`, `early_sd`, `level`, `walk`, all in nats, and `dof` where the noise is heavy-tailed;
        `delta` = gain / (n_max - n_min), nats per example.
    """
    import pymc as pm
    import pytensor.tensor as pt

    class Data:
        """The statistics as `pm.Data`, made on first use: a model holds only what it reads."""

        def __getattr__(self, name: str) -> Any:
            tensor = pm.Data(name, getattr(stats, name))
            setattr(self, name, tensor)
            return tensor

    with pm.Model() as model:
        data = Data()
        params = {
            name: _random_variable(
                name, prior, data.scale, length=len(getattr(stats, prior.length)) if prior.length else 0
            )
            for name, prior in hypothesis.all_priors.items()
        }
        if isinstance(stats, Histories):
            pm.Potential("log_likelihood", history_log_likelihood(pt, hypothesis, stats, params).sum())
        else:
            pm.Potential("log_likelihood", total_log_likelihood(pt, hypothesis, data, params))
        if hypothesis.has_gain:
            gain = params["gain"] if "gain" in params else hypothesis.updates(pt, data, params)[2].sum()
            if hypothesis.in_nats:
                pm.Deterministic("gain", gain)
            pm.Deterministic("delta", gain / (data.n_max - data.shots[0]))
    return model


def _random_variable(name: str, prior: Prior, scale: Any, *, length: int) -> Any:
    """A prior as a PyMC variable; a scaled one has units of nats."""
    import pymc as pm

    parameters = [p * scale for p in prior.parameters] if prior.scaled else prior.parameters
    return getattr(pm, prior.family)(name, *parameters, shape=length if prior.length else None)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of PyTensor without a BLAS of its own, and of ArviZ 0.23 under current libraries."""
    logger = logging.getLogger("pytensor")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*(BLAS|faster on contiguous).*")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def not_collecting() -> Iterator[None]:
    """Without the garbage collector: numba makes millions of objects that stay, a fifth of the time to look through."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


# Of this process, by hypothesis and length of its vectors: compiling takes longer than sampling.
_COMPILED: list[tuple[Hypothesis, int, list[str], Any]] = []


def _compile(hypothesis: Hypothesis, stats: Statistics | Histories) -> tuple[list[str], Any]:
    """Names of the data of the PyMC model, and the model compiled by nutpie; once a process."""
    import nutpie

    length = len(stats.items) if isinstance(stats, Statistics) and hypothesis.shared else 0
    for known, compiled_length, names, compiled in _COMPILED:
        if known == hypothesis and compiled_length == length and not hypothesis.of_history:
            return names, compiled
    with quiet():
        model = build_model(hypothesis, stats)
    # delta is asked for too, so that all data of the model are among those that can be replaced.
    wanted = [*hypothesis.parameters, *(["delta"] if hypothesis.has_gain else [])]
    with quiet(), not_collecting():
        compiled = nutpie.compile_pymc_model(model, var_names=wanted)
    # Of the data of the model, those that its density hangs on: `constant` reads the shots and needs none.
    names = [variable.name for variable in model.data_vars if variable.name in compiled.shared_data]
    if not hypothesis.of_history:  # its model holds the data of one curve
        _COMPILED.append((hypothesis, length, names, compiled))
    return names, compiled


class Sampler:
    """One hypothesis, compiled once a process, sampled on any curves.

    Parameters
    ----------
    hypothesis
        The law.
    stats
        Those with the most shots that will be sampled.
    settings
        How long NUTS samples, and its seed.
    """

    def __init__(
        self, hypothesis: Hypothesis, stats: Statistics | Histories, settings: SamplerSettings | None = None
    ) -> None:
        self.hypothesis, self.settings = hypothesis, settings or SamplerSettings()
        self._data, self._compiled = _compile(hypothesis, stats)

    def __call__(self, hypothesis: Hypothesis, stats: Statistics | Histories) -> Posterior:
        """The posterior; sampled once more, with smaller steps and a longer warm-up, if the diagnostics ask for it."""
        if hypothesis is not self.hypothesis and hypothesis != self.hypothesis:
            raise ValueError(f"compiled for {self.hypothesis.name!r}, asked for {hypothesis.name!r}")
        # Steps of sequences make a mixture, and a free mean has a funnel: such posteriors bend more.
        careful = hypothesis.latent_step or hypothesis.ceiling
        draws, tune = self.settings.draws, self.settings.tune
        first = self._sample(stats, draws, tune, 0.95 if careful else 0.9)
        if not first.faults:
            return first
        short = first.ess < ESS_LEAST or first.rhat_max > R_HAT_MOST
        return self._sample(stats, 2 * draws if short else draws, 2 * tune, 0.99)

    def _sample(self, stats: Statistics | Histories, draws: int, tune: int, target_accept: float) -> Posterior:
        import arviz as az
        import nutpie

        compiled = self._compiled.with_data(**{name: getattr(stats, name) for name in self._data})
        # Chains are threads already; BLAS threads within each would only wait for one another.
        with threadpool_limits(1, user_api="blas"), quiet():
            trace = nutpie.sample(
                compiled,
                draws=draws,
                tune=tune,
                chains=self.settings.chains,
                seed=self.settings.seed,
                target_accept=target_accept,
                progress_bar=False,
            )
            posterior = trace.posterior[[*self.hypothesis.parameters]]  # without the transformed copies nutpie adds
            rhat, ess = az.rhat(posterior), az.ess(posterior)
        n_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
        flat = {name: posterior[name].values.reshape(n_draws, -1) for name in self.hypothesis.parameters}
        return Posterior(
            self.hypothesis,
            flat,
            np.full(n_draws, -np.log(n_draws)),
            "nuts",
            ess=float(min(values.min() for values in ess.data_vars.values())),
            rhat_max=float(max(values.max() for values in rhat.data_vars.values())),
            divergences=int(trace.sample_stats.diverging.sum()),
            chains=self.settings.chains,
            state=trace.sample_stats,
        )
