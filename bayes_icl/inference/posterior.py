"""What an engine returns: draws of a hypothesis's parameters, their weights, and what the diagnostics say.

Two engines give posteriors of the same model: `importance` (mode and adaptive importance sampling, numpy) and `nuts`
(the PyMC model). Scores, verdicts and figures take either.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from bayes_icl.core.intervals import Interval, mean_and_interval
from bayes_icl.hypotheses.law import Hypothesis
from bayes_icl.inference.histories import Histories
from bayes_icl.inference.noise import Statistics

R_HAT_MOST, ESS_LEAST, PARETO_K_MOST = 1.01, 400, 0.7


@dataclass(frozen=True)
class Posterior:
    """Draws of one hypothesis on one curve.

    Attributes
    ----------
    params
        Every sampled parameter, shape (draw, 1) or (draw, length), nats where they have units of log-odds. Chains,
        where there are any, one after another.
    log_weights
        Of the draws, normalised; all equal from NUTS.
    engine
        ``"fast"`` or ``"nuts"``.
    ess
        The least bulk ESS of any parameter (NUTS), or the effective number of draws, 1 / sum of squared weights (fast).
    k_hat
        Pareto k of the importance weights; NaN from NUTS.
    rhat_max, divergences
        Of NUTS; NaN and 0 from the fast engine.
    log_marginal
        Log marginal likelihood of the updates, nats; NaN from NUTS.
    chains
        Number of them; 1 from the fast engine.
    state
        What the engine can start a similar fit from (fast), or the sampler's own statistics (NUTS).

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.hypotheses import HYPOTHESES
    >>> from bayes_icl.inference.importance import sample_fast
    >>> from bayes_icl.inference.noise import summarise
    >>> stats = summarise(select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1))
    >>> posterior = sample_fast(HYPOTHESES["additive"], stats)
    >>> f"{posterior.intervals(stats)['delta']:.2f} nats per example", posterior.faults
    ('0.07 [0.05, 0.08] nats per example', [])
    """

    hypothesis: Hypothesis
    params: dict[str, np.ndarray]
    log_weights: Float[np.ndarray, " draw"]
    engine: str
    ess: float
    k_hat: float = np.nan
    rhat_max: float = np.nan
    divergences: int = 0
    log_marginal: float = np.nan
    chains: int = 1
    state: Any = field(default=None, repr=False)

    @property
    def faults(self) -> list[str]:
        """Why it cannot be relied on, in words; empty where it can."""
        return [
            *([f"R-hat {self.rhat_max:.3f} above {R_HAT_MOST}"] if self.rhat_max > R_HAT_MOST else []),
            *([f"ESS {self.ess:.0f} below {ESS_LEAST}"] if not self.ess >= ESS_LEAST else []),
            *([f"{self.divergences} divergences after a retry"] if self.divergences else []),
            *([f"Pareto k {self.k_hat:.2f} of the importance weights"] if self._heavy else []),
        ]

    @property
    def _heavy(self) -> bool:
        """Whether a few draws may carry the weight; k has no scale, and says nothing where most weigh alike."""
        return self.k_hat > PARETO_K_MOST and self.ess < len(self.log_weights) / 2

    def numbers(self, stats: Statistics | Histories) -> dict[str, Float[np.ndarray, " draw"]]:
        """Every parameter that is a number, with `gain` and `delta` where there is a mean update, nats."""
        own = {name: x[:, 0] for name, x in self.params.items() if not self.hypothesis.all_priors[name].length}
        if self.hypothesis.has_gain and isinstance(stats, Statistics):
            gain = np.broadcast_to(self.hypothesis.updates(np, stats, self.params)[2], self.log_weights[:, None].shape)
            own = {"gain": gain[:, 0], **own, "delta": gain[:, 0] / (stats.n_max - stats.shots[0])}
        return own

    def intervals(self, stats: Statistics | Histories) -> dict[str, Interval]:
        """Mean and 95 % highest-density interval of `numbers`: what every file and table has for delta."""
        return {name: mean_and_interval(x, self.log_weights) for name, x in self.numbers(stats).items()}

    def equal(self, n: int, seed: int = 0) -> Posterior:
        """`n` draws of equal weight, by systematic resampling in random order; thinned where the weights are equal."""
        rng = np.random.default_rng([seed, 2])
        if np.ptp(self.log_weights) == 0:
            keep = np.linspace(0, len(self.log_weights) - 1, n).astype(int)
        else:
            cumulative = np.cumsum(np.exp(self.log_weights))
            at = (np.arange(n) + rng.uniform()) / n * cumulative[-1]
            keep = rng.permutation(np.minimum(np.searchsorted(cumulative, at), len(cumulative) - 1))
        return self.at(keep)

    def at(self, keep: np.ndarray) -> Posterior:
        """Some of the draws, by index, with equal weights."""
        params = {name: x[keep] for name, x in self.params.items()}
        return replace(self, params=params, log_weights=np.full(len(keep), -np.log(len(keep))))
