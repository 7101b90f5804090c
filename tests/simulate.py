"""Curves of the noise model, drawn the plain way: every random effect on its own, nothing integrated out.

And made-up fits for what only reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES, Hypothesis
from bayes_icl.inference.noise import Statistics
from bayes_icl.inference.scores import Score

if TYPE_CHECKING:
    import arviz as az


def line(n: np.ndarray) -> np.ndarray:
    return n


def power_law(a: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda n: n ** (1 - a)


def simulate_curves(
    n_seqs: int,
    n_shots: int,
    *,
    gain: float = 9.6,
    gain_sd: float = 1.5,
    level: float = 1.5,
    walk: float = 0.1,
    f: Callable[[np.ndarray], np.ndarray] = line,
    n_min: int = 0,
    intercept_sd: float = 30.0,
    seed: int = 0,
    task: str = "made",
    readout: str = "complement",
) -> Curves:
    """Sequences with the mean law `f` and known noise.

    Parameters
    ----------
    n_shots
        The last shot; the curves run from `n_min` to it.
    gain, gain_sd
        Mean and sd of the total update from `n_min` to `n_shots`, nats.
    level, walk
        Sd of the noise of each shot, and of the extra evidence of each example, nats.
    f
        The law up to scale and origin.
    intercept_sd
        Wide, as the model's prior of the intercept is flat.
    """
    rng = np.random.default_rng([seed, n_seqs, n_shots])
    n = np.arange(n_min, n_shots + 1, dtype=float)
    law = (f(n) - f(n)[0]) / (f(n)[-1] - f(n)[0])
    intercepts = rng.normal(0, intercept_sd, size=(n_seqs, 1))
    gains = rng.normal(gain, gain_sd, size=(n_seqs, 1))
    steps = np.concatenate([np.zeros((n_seqs, 1)), rng.normal(0, walk, size=(n_seqs, len(n) - 1))], axis=1)
    noise = rng.normal(0, level, size=(n_seqs, len(n)))
    return Curves(task, readout, n, intercepts + gains * law + np.cumsum(steps, axis=1) + noise)


def prior_draws(hypothesis: Hypothesis, stats: Statistics, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws of every parameter, shape (n, 1) or (n, update), nats where they have units."""
    rng = np.random.default_rng([seed, 9])
    k = len(stats.eigenvalues)
    return {
        name: prior.draw(rng, (n, k if prior.length else 1), stats.scale)
        for name, prior in hypothesis.all_priors.items()
    }


def with_evidence(curves: Curves, seed: int = 0) -> Curves:
    """The same curves with made-up evidence, so that `observer` is defined."""
    rng = np.random.default_rng([seed, 8])
    return curves._replace(evidence=rng.normal(0.5, 1.0, size=curves.log_odds.shape))


def made_fit(
    curves: Curves, hypothesis: str, *, elpd: float = -300.0, draws: int = 40
) -> tuple[Score, az.InferenceData]:
    """A fit as `score_curves` returns it, made up: good diagnostics, a mean curve that is the data's."""
    import arviz as az

    rng = np.random.default_rng(0)
    n_seqs, n_shots = curves.log_odds.shape
    rise = curves.log_odds.mean(0)[-1] - curves.log_odds.mean(0)[0]
    posterior = {name: rng.gamma(9, 0.1, size=(2, draws)) for name in HYPOTHESES[hypothesis].parameters}
    posterior.pop("shape", None)
    if HYPOTHESES[hypothesis].has_gain:
        posterior["gain"] = rise + rng.normal(size=(2, draws))
        posterior["delta"] = posterior["gain"] / (n_shots - 1)
    new = curves.log_odds + rng.normal(size=(2, draws, n_seqs, n_shots))
    mean = curves.log_odds.mean(0) + 0.1 * rng.normal(size=(2, draws, n_shots))
    coords = {"seq": np.arange(n_seqs), "shot": curves.shots.astype(int)}
    inference = az.from_dict(
        posterior=posterior,
        posterior_predictive={"log_odds": new, "mean_log_odds": mean},
        observed_data={"log_odds": curves.log_odds},
        coords=coords,
        dims={"log_odds": ["seq", "shot"], "mean_log_odds": ["shot"]},
    )
    intervals = {
        name: (float(x.mean()), float(np.quantile(x, 0.025)), float(np.quantile(x, 0.975)))
        for name, x in posterior.items()
    }
    each = elpd / n_seqs + rng.normal(0, 0.2, n_seqs)
    score = Score(
        task=curves.task,
        readout=curves.readout,
        n_min=int(curves.shots[0]),
        hypothesis=hypothesis,
        elpd_logo=each,
        elpd_lfo=each / 2,
        intervals=intervals,
        pareto_k_max=0.3,
        refits=0,
        rhat_max=1.001,
        ess_bulk_min=2000.0,
        divergences=0,
    )
    return score, inference
