r"""The rival laws of the mean of L(n), each written once.

A hypothesis is a function of about ten lines and its registration:

    @hypothesis("logarithmic", complexity=2, priors={"c": LogNormal(log(5), 1.5)}, reference="...")
    def logarithmic(xp, n, c):
        return xp.log1p(n / c)

`xp` is numpy or pytensor.tensor, `n` the number of examples. The scale and origin of the result do not matter: it is
brought to f(n_min) = 0, f(n_max) = 1, and the total update `gain` (nats) multiplies it. Sampling, comparison, plots and
the tests that run over all hypotheses follow from the registration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Prior:
    """A prior distribution, as PyMC and numpy both spell it.

    Attributes
    ----------
    family
        Its name in PyMC: Normal, HalfNormal, LogNormal or Uniform.
    parameters
        Its parameters in PyMC's order.
    length
        For a vector with one entry an update: "update"; None for a number.
    """

    family: str
    parameters: tuple[float, ...]
    length: str | None = None

    def draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        """Draws of that shape by numpy."""
        if self.family == "HalfNormal":
            return np.abs(rng.normal(0.0, self.parameters[0], size))
        sampler: dict[str, Callable[..., np.ndarray]] = {
            "Normal": rng.normal,
            "LogNormal": rng.lognormal,
            "Uniform": rng.uniform,
        }
        return sampler[self.family](*self.parameters, size)


def LogNormal(mu: float, sigma: float) -> Prior:
    """Median exp(mu)."""
    return Prior("LogNormal", (mu, sigma))


def Uniform(low: float, high: float) -> Prior:
    """Flat between `low` and `high`."""
    return Prior("Uniform", (low, high))


# Shared by all hypotheses, in units of the curves' scale (`noise.Statistics.scale`).
SHARED_PRIORS = {
    "gain": Prior("Normal", (0.0, 2.5)),
    "gain_sd": Prior("HalfNormal", (1.0,)),
    "level": Prior("HalfNormal", (1.0,)),
    "walk": Prior("HalfNormal", (0.5,)),
}


@dataclass(frozen=True)
class Hypothesis:
    """A law of the mean of L(n).

    Attributes
    ----------
    name
        As in files and on the command line.
    curve
        ``curve(xp, n, **parameters)``: the law up to scale and origin. For `latent_step`, the log weight of a step at a
        share n of the way from n_min to n_max; for a `ceiling`, ``curve(xp, statistics, ...)``: the
        mean updates themselves, nats.
    complexity
        Among hypotheses that predict equally well the one with the least is named.
    priors
        Of its own parameters; every one needs its meaning and unit in `meanings`.
    has_gain
        False where no mean update is sampled: `constant`, whose random gains of mean zero act along its line, and a
        `ceiling`, whose curve is in nats already.
    latent_step
        Each sequence jumps once, at an update of its own.
    ceiling
        Not a rival but the best any law could do; left out of the survivors.
    reference, predicts
        Where it comes from, and what would tell it from the others.
    """

    name: str
    curve: Callable[..., Any]
    complexity: int
    reference: str
    predicts: str
    priors: Mapping[str, Prior] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    has_gain: bool = True
    latent_step: bool = False
    ceiling: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all that is sampled."""
        return tuple(p for p in SHARED_PRIORS if self.has_gain or p != "gain") + tuple(self.priors)

    def updates(self, xp: Any, stats: Any, theta: Mapping[str, Any], gain: Any) -> tuple[Any, Any]:
        """Mean updates, nats, and the differences of f along which random gains act, both shape (..., update).

        Parameters
        ----------
        theta
            Its own parameters; on numpy with a leading axis of draws, shape (draw, 1) or (draw, length).
        gain
            Mean total update, nats, likewise; 0 where it is not sampled.
        """
        if self.ceiling:
            # Random gains along a line: along the free curve itself there would be several modes.
            line = xp.ones_like(stats.eigenvalues) / stats.eigenvalues.shape[0]
            return self.curve(xp, stats, **theta), line
        g = self.curve(xp, stats.shots, **theta)
        end = self.curve(xp, xp.stack([stats.shots[0], stats.n_max]), **theta)
        f = (g[..., 1:] - g[..., :-1]) / (end[..., 1:] - end[..., :1])
        return gain * f, f

    def step_log_weights(self, xp: Any, stats: Any, theta: Mapping[str, Any]) -> Any:
        """For `latent_step`: log probability of a step at each update and after the last, shape (..., update + 1)."""
        n_updates = stats.shots.shape[0] - 1
        score = self.curve(xp, stats.step_positions, **theta)
        weight = xp.exp(score - score.max(axis=-1, keepdims=True))
        later = weight[..., n_updates:].sum(axis=-1, keepdims=True)
        # The floor keeps a step that is all but excluded from costing an infinity.
        weights = xp.concatenate([weight[..., :n_updates], later], axis=-1) + 1e-12
        return xp.log(weights / weights.sum(axis=-1, keepdims=True))


HYPOTHESES: dict[str, Hypothesis] = {}


def hypothesis(name: str, complexity: int, **fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a curve as a hypothesis; the fields are those of `Hypothesis`."""

    def register(curve: Callable[..., Any]) -> Callable[..., Any]:
        if name in HYPOTHESES:
            raise ValueError(f"a hypothesis called {name!r} is registered already")
        HYPOTHESES[name] = Hypothesis(name, curve, complexity, **fields)
        return curve

    return register


@hypothesis(
    "constant",
    complexity=0,
    has_gain=False,
    reference="null",
    predicts="no change on average; single sequences may drift either way",
)
def constant(xp: Any, n: Any) -> Any:
    """The random gains, of mean zero, act along a straight line: slopes of mean zero must not pass for learning."""
    return n


@hypothesis(
    "additive",
    complexity=1,
    reference="the post; Bayes with independent examples of equal evidence",
    predicts="every example adds the same amount, delta = gain / (n_max - n_min)",
)
def additive(xp: Any, n: Any) -> Any:
    """L(n) = L(0) + n delta."""
    return n


@hypothesis(
    "logarithmic",
    complexity=2,
    priors={"c": LogNormal(log(5), 1.5)},
    meanings={"c": "prior weight, in examples"},
    reference="Beta-Bernoulli counts: from Beta(a, a), n agreeing flips give log(1 + n/a)",
    predicts="the update after n examples falls as 1/(n + c); equal gains per doubling; no ceiling",
)
def logarithmic(xp: Any, n: Any, c: Any) -> Any:
    """log(1 + n/c)."""
    return xp.log1p(n / c)


@hypothesis(
    "power",
    complexity=2,
    priors={"a": Uniform(-0.5, 1.0)},
    meanings={"a": "curvature: 0 is additive, towards 1 is logarithmic, below 0 accelerates"},
    reference="Bigelow et al. 2025 (belief dynamics); Wurgaft et al. 2025",
    predicts="updates fall as n^-a; no ceiling",
)
def power(xp: Any, n: Any, a: Any) -> Any:
    """n^(1 - a), less its value at n = 1 and divided by 1 - a: finite as a goes to 1, where it is log n."""
    b = 1 - a
    return xp.where(n > 0, xp.expm1(b * xp.log(xp.maximum(n, 1))) / b, -1 / b)


@hypothesis(
    "saturating",
    complexity=2,
    priors={"tau": LogNormal(log(10), 1.0)},
    meanings={"tau": "examples until 63 % of the ceiling"},
    reference="mean of a leaky integrator (Gupta et al. 2025) with leak exp(-1/tau)",
    predicts="updates fall by a constant ratio; a ceiling soon reached",
)
def saturating(xp: Any, n: Any, tau: Any) -> Any:
    """1 - exp(-n/tau)."""
    # From n_min on the law has the same form, and short of it an early ceiling would leave 0/0.
    return -xp.expm1(-(n - n[0]) / tau)


@hypothesis(
    "pooling",
    complexity=2,
    priors={"c": LogNormal(log(5), 1.5)},
    meanings={"c": "weight of everything else the head attends to, in examples"},
    reference="one softmax head that averages over examples: n e^s / (n e^s + Z)",
    predicts="a hyperbolic ceiling, reached more slowly than an exponential one",
)
def pooling(xp: Any, n: Any, c: Any) -> Any:
    """n/(n + c)."""
    return n / (n + c)


@hypothesis(
    "changepoint",
    complexity=3,
    latent_step=True,
    priors={"tau": Uniform(0.0, 1.0), "spread": LogNormal(log(0.1), 1.0)},
    meanings={
        "tau": "where sequences jump on average, as a share of the way from n_min to n_max",
        "spread": "how much sequences differ in that, same unit",
    },
    reference="sudden learning: a change-point in each sequence",
    predicts="two-peaked log-odds over sequences at fixed n, and averages that look smooth",
)
def changepoint(xp: Any, where: Any, tau: Any, spread: Any) -> Any:
    """Log weight of a step at `where`: a normal law of mean `tau` and sd `spread`, before it is made to sum to 1."""
    # Never narrower than 0.4 of an update: below that the posterior is a plateau with cliffs, which NUTS cannot walk.
    narrowest = 0.4 * (where[1] - where[0])
    return -((where - tau) ** 2) / (2 * (spread**2 + narrowest**2))


@hypothesis(
    "freeform",
    complexity=9,
    ceiling=True,
    has_gain=False,
    priors={"shape": Prior("Normal", (0.0, 2.5), length="update")},
    meanings={"shape": "the mean updates, sine-transformed, in units of the curves' scale"},
    reference="one mean per shot",
    predicts="anything: what a law loses against it is the law's misfit",
)
def freeform(xp: Any, stats: Any, shape: Any) -> Any:
    """Mean updates in nats, one parameter each."""
    # In the transformed coordinates, where the noise is independent and NUTS sees round contours.
    return stats.scale * xp.dot(shape[..., -stats.transform.shape[0] :], stats.transform)
