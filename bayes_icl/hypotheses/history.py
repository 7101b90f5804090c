"""The laws of history: log-odds as functions of what the examples showed, for and against.

Each is ``curve(xp, past, **parameters)``, with ``past`` a `Past`, and gives f at every reading, shape (..., reading):
the mean log-odds is l0_s + w f, where the weight w has a prior of its own (`law.HISTORY_PRIORS`). What is given beside
f, as a pair, is added in nats whatever the weight.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from bayes_icl.hypotheses.kinds import OfHistory
from bayes_icl.hypotheses.law import LogNormal, Prior, Uniform, law_of_history
from bayes_icl.hypotheses.past import Past

IN_LOG_ODDS = Prior("Normal", (1.0, 1.0))  # of a weight that is 1 for the ideal

KNOTS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256)  # lags where it steps

FIRST_SD = 1.0  # nats: of the last example's weight a priori, under `per_lag`


@law_of_history(
    "trend",
    complexity=0,
    kind=OfHistory(uses_examples=False),
    meanings={"w": "change with every example, whatever it shows, nats"},
    reference="null: what the examples show makes no difference",
    predicts="a line in n, the same whatever was shown",
)
def trend(xp: Any, past: Past) -> Any:
    """n."""
    return past.n


@law_of_history(
    "observer",
    complexity=1,
    priors={"w": IN_LOG_ODDS},
    meanings={"w": "share of the ideal observer's log-odds that is shown: 1 is ideal, less is conservative"},
    reference="the task's ideal observer, as the curves file has it",
    predicts="what an ideal observer would say, times w",
)
def observer(xp: Any, past: Past) -> Any:
    """The ideal observer's log-odds."""
    return past.of_observer


@law_of_history(
    "signed",
    complexity=1,
    meanings={"w": "evidence in an example, nats"},
    reference="the additive law for evidence of both signs: two rules of equal prior, independent examples",
    predicts="contrary examples take back what supporting ones add; order does not matter",
)
def signed(xp: Any, past: Past) -> Any:
    """n_A - n_B."""
    return past.signed


@law_of_history(
    "leaky",
    complexity=2,
    priors={"leak": Uniform(0.0, 1.0)},
    meanings={
        "w": "evidence in the last example, nats",
        "leak": "share left after one more: 1 forgets nothing",
    },
    reference="Bayesian filtering with a discount (Gupta et al. 2025)",
    predicts="weights that fall by a constant ratio with every further example",
)
def leaky(xp: Any, past: Past, leak: Any) -> Any:
    """Sum of leak^age h."""
    return past.weighed_by_lag(leak**past.ages)


@law_of_history(
    "asymmetric",
    complexity=2,
    priors={"r": LogNormal(0.0, 0.7)},
    meanings={"w": "evidence in a supporting example, nats", "r": "what a contrary example counts, in supporting ones"},
    reference="confirmation bias: contrary evidence is discounted, r < 1, or counts more",
    predicts="slopes of other size for supporting and for contrary examples, whatever their order: signed, and a trend",
)
def asymmetric(xp: Any, past: Past, r: Any) -> Any:
    """n_A - r n_B."""
    return past.ups - r * past.downs


@law_of_history(
    "counting",
    complexity=2,
    priors={"w": IN_LOG_ODDS, "a": LogNormal(log(2), 1.0)},
    meanings={"w": "1 for a Beta-Bernoulli observer", "a": "prior weight of each side, in examples"},
    reference="Beta-Bernoulli counting: the predictive log-odds of a coin of unknown bias",
    predicts="examples count less the more there are; order does not matter",
)
def counting(xp: Any, past: Past, a: Any) -> Any:
    """log((n_A + a) / (n_B + a))."""
    return xp.log((past.ups + a) / (past.downs + a))


@law_of_history(
    "averaging",
    complexity=2,
    priors={"w": Prior("Normal", (0.0, 2.5), scaled=True), "c": LogNormal(log(5), 1.5)},
    meanings={"w": "log-odds when all examples agree and there are many, nats", "c": "weight of all else, in examples"},
    reference="the mean that one softmax head takes of the examples",
    predicts="the share of supporting examples decides, not their number",
)
def averaging(xp: Any, past: Past, c: Any) -> Any:
    """(n_A - n_B) / (n + c)."""
    return past.signed / (past.n + c)


@law_of_history(
    "recent",
    complexity=3,
    priors={"kappa": Prior("Normal", (0.0, 2.0)), "r": Prior("HalfNormal", (1.0,))},
    meanings={
        "w": "evidence in an example, nats",
        "kappa": "what the last example adds besides after one, nats; below 0 it is taken back (a contrast)",
        "r": "kappa fades as n^-r",
    },
    reference="recency, or contrast to the last example: found on coin flips read by five public models",
    predicts="the last example counts otherwise than all others",
)
def recent(xp: Any, past: Past, kappa: Any, r: Any) -> Any:
    """n_A - n_B, and kappa n^-r h of the last example beside."""
    return past.signed, kappa * past.last * xp.exp(-r * np.log(np.maximum(past.n, 1)))


@law_of_history(
    "hazard",
    complexity=2,
    kind=OfHistory(weighted=False),
    priors={"e": LogNormal(log(0.5), 1.0), "rate": Uniform(0.0, 0.5)},
    meanings={"e": "evidence in an example, nats", "rate": "probability that the rule changes before a query"},
    reference="exact filter of a rule that may change (Glaze, Kable and Gold 2015)",
    predicts="log-odds that stop at log((1 - rate) / rate), and come back soon after a change",
)
def hazard(xp: Any, past: Past, e: Any, rate: Any) -> Any:
    """Log-odds of the rule in force, from the filter."""

    more, less = xp.expm1(e), xp.expm1(-e)

    def step(odds: Any, shown: Any) -> Any:
        odds = odds * (1 + more * (shown > 0) + less * (shown < 0))
        return ((1 - rate) * odds + rate) / (rate * odds + 1 - rate)

    return xp.log(past.filtered(xp, step, 1.0))


@law_of_history(
    "primacy",
    complexity=2,
    priors={"fade": Uniform(0.0, 1.0)},
    meanings={"w": "evidence in the first example, nats", "fade": "share that the next example counts: 1 is the same"},
    reference="primacy: first impressions last",
    predicts="the first examples decide; later ones hardly move the log-odds",
)
def primacy(xp: Any, past: Past, fade: Any) -> Any:
    """Sum of fade^(place - 1) h."""
    return past.weighed_by_place(fade ** np.arange(past.by_place.shape[1], dtype=float))


@law_of_history(
    "per_lag",
    complexity=9,
    kind=OfHistory(weighted=False, free=True),
    priors={"step": Prior("HalfNormal", (0.5,)), "kernel": Prior("Normal", (0.0, 1.0), length="knots")},
    meanings={
        "step": "how much weights may differ between a lag and twice that lag, nats",
        "kernel": "innovations of the weights over lags",
    },
    reference="a weight for every lag, a random walk in the logarithm of the lag a priori",
    predicts="any weights over lags: the most that a law linear in the examples can explain",
)
def per_lag(xp: Any, past: Past, step: Any, kernel: Any) -> Any:
    """Sum of weights over lags; they step at `KNOTS`."""
    return (kernel * lag_sizes(xp, step, past)) @ lag_basis(past)


def knots_of(past: Past) -> np.ndarray:
    """Lags at which weights step, shape (knot,): the first is 1."""
    return np.array([lag for lag in KNOTS if lag <= max(past.by_lag.shape[1], 1)])


def lag_basis(past: Past) -> np.ndarray:
    """What all examples at a knot's lag or beyond showed, shape (knot, reading)."""
    beyond = np.cumsum(past.by_lag[:, ::-1], axis=1)[:, ::-1]
    return beyond[:, knots_of(past) - 1].T


def lag_sizes(xp: Any, step: Any, past: Past) -> Any:
    """Prior sds of the steps at the knots, nats, shape (..., knot): `step` for each doubling of the lag."""
    knots = knots_of(past)
    walk = np.sqrt(np.diff(np.log2(knots)))
    first = np.concatenate([[FIRST_SD], np.zeros(len(walk))])
    return first + step * np.concatenate([[0.0], walk])


@law_of_history(
    "combined",
    complexity=8,
    kind=OfHistory(rival=False),
    priors={
        "w": IN_LOG_ODDS,
        "a": LogNormal(log(2), 1.0),
        "leak": Uniform(0.0, 1.0),
        "kappa": Prior("Normal", (0.0, 2.0)),
        "r": Prior("HalfNormal", (1.0,)),
    },
    meanings={
        "w": "1 for a Beta-Bernoulli observer",
        "a": "prior weight of each side, in examples",
        "leak": "share of a count that is left after one more example: 1 forgets nothing",
        "kappa": "what the last example adds besides after one, nats",
        "r": "kappa fades as n^-r",
    },
    reference="all in one: a Bayesian who counts has w = 1, leak = 1 and kappa = 0",
    predicts="no law of its own, and no rival: its parameters say what departs from counting",
)
def combined(xp: Any, past: Past, a: Any, leak: Any, kappa: Any, r: Any) -> Any:
    """log((H + a) / (T + a)) of counts that fade, and kappa n^-r h of the last example beside."""
    weights = leak**past.ages
    up, down = weights @ (past.by_lag > 0).T, weights @ (past.by_lag < 0).T
    return xp.log((up + a) / (down + a)), kappa * past.last * xp.exp(-r * np.log(np.maximum(past.n, 1)))
