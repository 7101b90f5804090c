"""Curves of a known truth."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from bayes_icl.curves import Curves
from bayes_icl.hypotheses.law import Hypothesis, Prior
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import PLAIN, early_bend

# Level and walk sd, nats: a new query at each shot, evidence of its own in each example, both.
NOISES = {"level": (1.0, 0.0), "walk": (0.3, 0.5), "both": (1.0, 0.4)}

TRUTHS: dict[str, dict[str, float]] = {
    "constant": {},
    "additive": {},
    "logarithmic": {"c": 1.0},
    "power": {"a": 0.3},
    "changepoint": {"tau": 0.4, "spread": 0.1},
}

OWN_TRUTH = {
    "c": 5.0, "a": 0.3, "tau": 10.0, "spread": 0.1, "slope": 0.5, "floor_until": 4.0, "ceiling_from": 20.0,
    "C": 6.0, "alpha": 0.7, "K": 0.2, "n_c": 5.0, "H": 6.0, "n_0": 8.0, "kappa": 1.5,
    "width": 15.0, "top": 2.0, "gap_3": 2.0, "odds_3": 0.0,
}  # fmt: skip


def simulate(
    hypothesis: Hypothesis,
    params: dict[str, float],
    n_seqs: int,
    n_shots: int,
    rng: np.random.Generator,
) -> Curves:
    """Curves of a hypothesis with known parameters, every random effect drawn on its own.

    Parameters
    ----------
    hypothesis
        The true law.
    params
        All that the hypothesis samples, nats.
    n_seqs, n_shots
        Size of the curves.
    rng
        Where all randomness comes from.

    Returns
    -------
    Curves
        From n = 0 to `n_shots`, at an intercept of 0 give or take 2 nats.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.calibrate.simulation import simulate
    >>> from bayes_icl.hypotheses import HYPOTHESES
    >>> truth = {"gain": 6.0, "gain_sd": 1.0, "early_sd": 0.3, "level": 1.0, "walk": 0.2}
    >>> curves = simulate(HYPOTHESES["additive"], truth, 2000, 24, np.random.default_rng(0))
    >>> curves.log_odds.shape, round((curves.log_odds[:, -1] - curves.log_odds[:, 0]).mean())
    ((2000, 25), 6)
    """
    shots = np.arange(n_shots + 1.0)
    blank = Curves(hypothesis.name, "complement", shots, np.zeros((n_seqs, n_shots + 1)))
    stats = summarise(blank, scale=1.0, shape=PLAIN)
    one = {name: np.reshape(value, (1, -1)) for name, value in params.items()}
    free = 0.0
    if hypothesis.latent_step:
        chances = np.exp(hypothesis.step_log_weights(np, stats, one)[0])
        f = np.eye(n_shots + 1)[rng.choice(n_shots + 1, n_seqs, p=chances / chances.sum())][:, :-1]
        gain: Any = params["gain"]
    else:
        mean, f, gain = hypothesis.updates(np, stats, one)
        gain = float(np.squeeze(gain))
        free = mean - gain * f if hypothesis.ceiling else 0.0
    f = np.broadcast_to(f, (n_seqs, n_shots))
    size = np.ones((n_seqs, 1))
    if hypothesis.student:
        size = np.sqrt(params["dof"] / rng.chisquare(params["dof"], (n_seqs, 1)))
    drift = params["gain_sd"] * rng.normal(size=(n_seqs, 1)) / n_shots
    bent = params["early_sd"] * rng.normal(size=(n_seqs, 1)) * np.diff(early_bend(shots))
    walk = params["walk"] * rng.normal(size=(n_seqs, n_shots))
    updates = gain * f + free + size * (drift + bent + walk)
    curves = np.concatenate([np.zeros((n_seqs, 1)), np.cumsum(updates, axis=1)], axis=1)
    noise = size * params["level"] * rng.normal(size=curves.shape)
    return blank._replace(log_odds=rng.normal(0, 2, (n_seqs, 1)) + curves + noise)


def without_walk(hypothesis: Hypothesis) -> Hypothesis:
    """The control: the same law, its noise without the walk."""
    nothing = Prior("HalfNormal", (1e-4,), scaled=True)

    def curve(xp: Any, n: Any, walk: Any, **theta: Any) -> Any:
        return hypothesis.curve(xp, n, **theta)

    return replace(hypothesis, curve=curve, priors={**hypothesis.priors, "walk": nothing})


def generator(seed: int, *cell: object) -> np.random.Generator:
    """Random numbers of one simulation, of its own in every cell of a table: shared ones would make cells depend."""
    return np.random.default_rng([seed, zlib.crc32(repr(cell).encode())])


def truth_of(hypothesis: Hypothesis, noise: str, gain: float) -> dict[str, float]:
    """A plain truth: own parameters of `TRUTHS` or `OWN_TRUTH`, the noise of `NOISES`."""
    level, walk = NOISES[noise]
    shared = {"gain": gain, "gain_sd": 1.5, "early_sd": 0.3, "level": level, "walk": walk, "dof": 8.0}
    own = {**OWN_TRUTH, **TRUTHS.get(hypothesis.name, {})}
    if hypothesis.latent_step:
        own["tau"] = TRUTHS["changepoint"]["tau"]
    prior = np.random.default_rng(0)
    return {
        name: {**shared, **own}.get(name, float(np.median(p.draw(prior, (999,)))))
        for name, p in hypothesis.all_priors.items()
    }
