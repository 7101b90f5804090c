"""Curves of the noise model, drawn the plain way: every random effect on its own, nothing integrated out.

And made-up fits for what only reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES, Hypothesis, Prior
from bayes_icl.inference.noise import JITTER, Statistics
from bayes_icl.inference.noise_shape import PLAIN, Shape
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
    early_sd: float = 0.0,
    corr: float = 0.0,
    level: float = 1.5,
    walk: float = 0.1,
    trend: float = 0.0,
    carry: float = 0.0,
    f: Callable[[np.ndarray], np.ndarray] = line,
    n_min: int = 0,
    shots: Sequence[float] | None = None,
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
    shots
        Those read, where they are not all of these.
    gain
        Mean of the total update from `n_min` to `n_shots`, nats.
    gain_sd, early_sd, corr
        How sequences differ: sds along a line and along an early bend, nats, and their correlation.
    level, walk
        Sd of the noise of each shot, and of the extra evidence of each example, nats.
    trend, carry
        How level noise changes with n, and what it keeps from shot to shot.
    f
        The law up to scale and origin.
    intercept_sd
        Wide, as the model's prior of the intercept is flat.
    """
    rng = np.random.default_rng([seed, n_seqs, n_shots])
    n = np.arange(n_min, n_shots + 1, dtype=float) if shots is None else np.array(shots, dtype=float)
    apart = np.diff(n)
    law = (f(n) - f(n)[0]) / (f(n)[-1] - f(n)[0])
    intercepts = rng.normal(0, intercept_sd, size=(n_seqs, 1))
    drift = rng.normal(0, 1, size=(n_seqs, 1))
    straight = (n - n[0]) / (n[-1] - n[0])
    walked = np.sqrt(apart) * rng.normal(0, walk, size=(n_seqs, len(n) - 1))
    steps = np.concatenate([np.zeros((n_seqs, 1)), walked], axis=1)
    noise = rng.normal(0, level, size=(n_seqs, len(n)))
    for i in range(1, len(n)):  # an AR(1) process from its stationary distribution on
        kept = carry ** apart[i - 1]
        noise[:, i] = kept * noise[:, i - 1] + np.sqrt(1 - kept**2) * noise[:, i]
    noise *= np.exp(-trend * (n - (n[0] + n[-1]) / 2) / (n[-1] - n[0]))
    bent = rng.normal(0, 1, size=(n_seqs, 1)) if early_sd else np.zeros((n_seqs, 1))
    own = gain_sd * drift * straight + early_sd * (corr * drift + np.sqrt(1 - corr**2) * bent) * early_by_hand(n)
    return Curves(task, readout, n, intercepts + gain * law + own + np.cumsum(steps, axis=1) + noise)


def early_by_hand(n: np.ndarray) -> np.ndarray:
    """1 - exp(-(n - n_min) / 3) less its best line, at most 1 from it."""
    bend = 1 - np.exp(-(n - n[0]) / 3)
    bend = bend - np.polyval(np.polyfit(n, bend, 1), n)
    return bend / max(abs(bend).max(), 1e-12)


def covariance_by_hand(
    n: np.ndarray, one: dict[str, np.ndarray], scale: float, *, shape: Shape = PLAIN, until: float | None = None
) -> np.ndarray:
    """Covariance of the updates of a sequence, written out shot by shot, at one value of the parameters."""
    at = {name: float(np.ravel(x)[0]) for name, x in one.items() if np.size(x) == 1}
    sd = at["level"] * np.exp(-shape.trend * (n - (n[0] + n[-1]) / 2) / (n[-1] - n[0]))
    shot, span = n - n[0], n[-1] - n[0]
    curve = np.array([[s * t * shape.carry ** abs(i - j) for j, t in zip(n, sd)] for i, s in zip(n, sd)])
    curve += at["walk"] ** 2 * np.minimum.outer(shot, shot)
    along, bent = at["gain_sd"] * shot / span, at["early_sd"] * early_by_hand(n)
    curve += (
        np.outer(along, along) + np.outer(bent, bent) + shape.corr * (np.outer(along, bent) + np.outer(bent, along))
    )
    seen = n <= (n[-1] if until is None else until)
    difference = np.diff(np.eye(seen.sum()), axis=0)
    return difference @ curve[seen][:, seen] @ difference.T + JITTER * scale**2 * np.diag(np.diff(n[seen]))


def prior_draws(hypothesis: Hypothesis, stats: Statistics, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws of every parameter, shape (n, 1) or (n, update), nats where they have units."""
    rng = np.random.default_rng([seed, 9])
    return {
        name: prior.draw(rng, (n, len(getattr(stats, prior.length)) if prior.length else 1), stats.scale)
        for name, prior in hypothesis.all_priors.items()
    }


@dataclass(frozen=True)
class Wider(Hypothesis):
    """A law whose priors are wider, bounds aside: what a test that rests on the priors must tell from the law."""

    factor: float = 1.0

    @property
    def all_priors(self) -> dict[str, Prior]:
        return {
            name: replace(prior, parameters=(*prior.parameters[:-1], self.factor * prior.parameters[-1]))
            if prior.family != "Uniform"
            else prior
            for name, prior in super().all_priors.items()
        }


def wider(hypothesis: Hypothesis, factor: float) -> Hypothesis:
    return Wider(**{one.name: getattr(hypothesis, one.name) for one in fields(hypothesis)}, factor=factor)


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
