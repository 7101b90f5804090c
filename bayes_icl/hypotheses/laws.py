"""The laws: mean curves of log-odds against examples, each with its priors and its source."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np

from bayes_icl.hypotheses.kinds import Free, Smooth, Step
from bayes_icl.hypotheses.law import HYPOTHESES, LEAST_RATIO, Hypothesis, LogNormal, Prior, Uniform, hypothesis

# Published, but never told from their neighbours by curves of the sizes there are: fitted where they are asked for.
RARELY_TOLD = ("nll_bounded", "nll_logistic", "scaling_law")


@hypothesis(
    "constant",
    complexity=0,
    kind=Smooth(has_gain=False),
    reference="null",
    predicts="no change on average; single sequences may drift either way",
)
def constant(xp: Any, n: Any) -> Any:
    """L(n) = L(0) on average.

    The random gains, of mean zero, act along a straight line: slopes of mean zero must not pass for learning.
    """
    return n


@hypothesis(
    "additive",
    complexity=1,
    reference="Skunnavakkam (2024); Bayes with independent examples of equal evidence",
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
    reference="exponential saturation; the mean of a leaky integrator L(n) = leak L(n-1) + w (Gupta et al. 2025) is "
    "the same curve, with leak = exp(-1/tau)",
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
    kind=Step(),
    priors={"tau": Uniform(0.0, 1.0), "spread": LogNormal(log(0.1), 1.0)},
    meanings={
        "tau": "where sequences jump on average, as a share of the way from n_min to n_max",
        "spread": "how much sequences differ in that, same unit",
    },
    reference="sudden learning: a change-point in each sequence",
    predicts="two-peaked log-odds over sequences at fixed n, and averages that look smooth",
)
def changepoint(xp: Any, where: Any, tau: Any, spread: Any) -> Any:
    """0 for n < t, 1 from t on; t ~ Normal(tau, spread) in each sequence.

    Returns the log weight of a step at `where`, before the weights are made to sum to 1.
    """
    # Never narrower than 0.4 of an update: below that the posterior is a plateau with cliffs, which NUTS cannot walk.
    narrowest = 0.4 * (where[1] - where[0])
    return -((where - tau) ** 2) / (2 * (spread**2 + narrowest**2))


def _softplus(xp: Any, x: Any) -> Any:
    """log(1 + e^x), without overflow."""
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


def _log_sum(xp: Any, *terms: Any) -> Any:
    """log of the sum of e^term."""
    total = terms[0]
    for term in terms[1:]:
        total = total + _softplus(xp, term - total)
    return total


@hypothesis(
    "lapse",
    complexity=4,
    kind=Smooth(in_nats=True),
    priors={
        "slope": Prior("HalfNormal", (1.0,), scaled=True),
        "floor_until": Prior("Normal", (10.0, 20.0)),
        "ceiling_from": Prior("Normal", (10.0, 20.0)),
    },
    meanings={
        "slope": "update per example between the knees, nats",
        "floor_until": "where the floor ends, examples",
        "ceiling_from": "where the ceiling begins, examples; below the other the curve falls",
    },
    reference="psychometric function with guess and lapse rates; the same curve as the scaling law of Arora et al. "
    "2024 with two tasks (arXiv 2410.16531), see `lapse_from_scaling_law`",
    predicts="a straight line that bends into a floor and a ceiling although the posterior odds stay linear",
)
def lapse(xp: Any, n: Any, slope: Any, floor_until: Any, ceiling_from: Any) -> Any:
    """log-odds of p = lo + (1 - lo - hi) sigma(b + slope n), up to origin.

    The odds are (lo + (1 - hi) e^z) / (1 - lo + hi e^z) with z = b + slope n, so L is a ramp with a knee where
    e^z = lo / (1 - hi), and another where e^z = (1 - lo) / hi.
    """
    return _softplus(xp, slope * (n - floor_until)) - _softplus(xp, slope * (n - ceiling_from))


def curved_lapse(xp: Any, n: Any, slope: Any, floor_until: Any, ceiling_from: Any, a: Any) -> Any:
    """As `lapse`, but of a belief that need not be straight: linear in n^(1 - a), which is made to run as n does."""
    g = power(xp, n, a)
    ends = power(xp, xp.stack([n[0], n[-1]]), a)
    first, last = ends[..., :1], ends[..., 1:]
    return lapse(xp, n[0] + (n[-1] - n[0]) * (g - first) / (last - first), slope, floor_until, ceiling_from)


def lapse_from_scaling_law(rho: float, p1: float, p2: float, k: float) -> dict[str, float]:
    """The parameters of `lapse` that are the two-task scaling law with prior `rho` of the task shown.

    Parameters
    ----------
    rho
        Prior probability of the task shown.
    p1, p2
        Probability of an example under the task shown, and under the other; p1 > p2.
    k
        Efficiency K of Arora et al.
    """
    slope = k * log(p1 / p2)
    intercept = log(rho / (1 - rho))
    return {
        "slope": slope,
        "floor_until": (log(p2 / p1) - intercept) / slope,
        "ceiling_from": (log((1 - p2) / (1 - p1)) - intercept) / slope,
    }


CURVED_LAPSE = Hypothesis(
    "curved_lapse",
    curved_lapse,
    complexity=5,
    priors={**HYPOTHESES["lapse"].priors, "a": HYPOTHESES["power"].priors["a"]},
    meanings={**HYPOTHESES["lapse"].meanings, "a": "curvature of the belief: 0 is additive"},
    kind=Smooth(in_nats=True),
    reference="lapse of a belief that follows power: whether it is straight under the ceiling",
    predicts="no law of its own, and no rival: a is what is asked",
)


def _odds_of_nll(xp: Any, nll: Any) -> Any:
    """log p/(1 - p) for p = exp(-nll)."""
    return -nll - xp.log(-xp.expm1(-nll))


FLOOR_PRIOR = LogNormal(log(0.2), 1.0)

FLOOR = "-log P(correct) that is left after any number of examples, by the shape of the curve alone, nats"


@hypothesis(
    "nll_power",
    complexity=4,
    kind=Smooth(in_nats=True),
    priors={"C": LogNormal(log(3), 1.0), "alpha": LogNormal(log(0.7), 0.7), "K": FLOOR_PRIOR},
    meanings={"C": "-log P(correct) to be gained before the first example, nats", "alpha": "exponent", "K": FLOOR},
    reference="power law of -log P (Anil et al. 2024, many-shot; baseline of Arora et al. 2024)",
    predicts="-log P less its floor is a straight line on log-log axes; says nothing of P(incorrect)",
)
def nll_power(xp: Any, n: Any, C: Any, alpha: Any, K: Any) -> Any:
    """-log P = C (n + 1)^-alpha + K; counted from 1, as in the code of Arora et al."""
    return _odds_of_nll(xp, C * xp.exp(-alpha * xp.log1p(n)) + K)


@hypothesis(
    "nll_bounded",
    complexity=5,
    kind=Smooth(in_nats=True),
    priors={
        "C": LogNormal(log(3), 1.0),
        "n_c": LogNormal(log(5), 1.0),
        "alpha": LogNormal(log(0.7), 0.7),
        "K": FLOOR_PRIOR,
    },
    meanings={
        "C": "-log P(correct) to be gained at n = 0, nats",
        "n_c": "examples until the power law sets in",
        "alpha": "exponent",
        "K": FLOOR,
    },
    reference="bounded power law of -log P (baseline of Arora et al. 2024)",
    predicts="as nll_power, but flat for the first examples",
)
def nll_bounded(xp: Any, n: Any, C: Any, n_c: Any, alpha: Any, K: Any) -> Any:
    """-log P = C (1 + n/n_c)^-alpha + K."""
    return _odds_of_nll(xp, C * xp.exp(-alpha * xp.log1p(n / n_c)) + K)


@hypothesis(
    "nll_logistic",
    complexity=5,
    kind=Smooth(in_nats=True),
    priors={
        "H": LogNormal(log(3), 1.0),
        "n_0": LogNormal(log(8), 1.0),
        "kappa": LogNormal(0.0, 0.7),
        "K": FLOOR_PRIOR,
    },
    meanings={
        "H": "-log P(correct) to be gained, nats",
        "n_0": "examples until half of it is gained",
        "kappa": "steepness of that in log n",
        "K": FLOOR,
    },
    reference="logistic of -log P in log n (baseline of Arora et al. 2024); not the logistic of P in n, which is lapse",
    predicts="a drop of -log P around n_0",
)
def nll_logistic(xp: Any, n: Any, H: Any, n_0: Any, kappa: Any, K: Any) -> Any:
    """-log P = H / (1 + (n/n_0)^kappa) + K."""
    # n = 0 is a place short of which nothing changes; its logarithm is not wanted.
    ratio = xp.exp(xp.minimum(kappa * (xp.log(xp.maximum(n, 1e-9)) - xp.log(n_0)), 300.0))
    return _odds_of_nll(xp, H / (1 + ratio) + K)


@hypothesis(
    "scaling_law",
    complexity=6,
    kind=Smooth(in_nats=True),
    priors={
        "slope": Prior("HalfNormal", (1.0,), scaled=True),
        "ceiling_from": Prior("Normal", (10.0, 20.0)),
        "width": LogNormal(log(20), 1.0),
        "top": Prior("Normal", (2.0, 1.5)),
        "gap_3": LogNormal(log(2), 0.7),
        "odds_3": Prior("Normal", (0.0, 2.0)),
    },
    meanings={
        "slope": "evidence of an example against the second task, K log(P_1 / P_2), nats",
        "ceiling_from": "where the second task is ruled out, examples",
        "width": "examples before that in which it is; slope times width is the log-odds ratio of P_1 and P_2",
        "top": "log-odds of the answer under the task shown, nats",
        "gap_3": "how far the log-odds under a third task are below those under the second, nats",
        "odds_3": "prior log-odds of the third task against the second",
    },
    reference="Bayesian scaling law of Arora, Jurafsky, Potts and Goodman 2024 (arXiv 2410.16531) with three tasks; "
    "with two it is lapse. Of one task's curve their variants are no new curves: sampling (off-diagonal probabilities "
    "tied by column) leaves every entry of one row free, so it is this law; scoring (tied by row) leaves two values, "
    "so it is lapse for any number of tasks (`scaling_matrix`)",
    predicts="several knees: one task after the other is ruled out",
)
def scaling_law(xp: Any, n: Any, slope: Any, ceiling_from: Any, width: Any, top: Any, gap_3: Any, odds_3: Any) -> Any:
    """L of p = sum_m rho_m P_m^(K n + 1) / sum_m rho_m P_m^(K n).

    Its parameters are those of `lapse` for the first two tasks, which data can tell; rho_2, P_2 and K follow.
    """
    second = top - slope * width
    ratio = _softplus(xp, -second) - _softplus(xp, -top)  # log(P_1 / P_2)
    odds_2 = slope * (ceiling_from - width) + ratio
    # Where they all but agree, K would be without bound, and there is nothing to learn.
    k = slope / xp.maximum(ratio, LEAST_RATIO)
    return scaling_log_odds(xp, n, [0.0, odds_2, odds_2 + odds_3], [top, second, second - gap_3], k)


def scaling_log_odds(xp: Any, n: Any, log_prior: Sequence[Any], log_odds: Sequence[Any], k: Any) -> Any:
    """Log-odds under the Bayesian scaling law of any number of tasks, nats.

    Parameters
    ----------
    xp
        `numpy` or `pytensor.tensor`.
    n
        Numbers of examples.
    log_prior
        log rho_m of each task, up to a constant.
    log_odds
        Of an example under each task, log P_m / (1 - P_m).
    k
        Efficiency K of Arora et al.
    """
    log_p = [-_softplus(xp, -x) for x in log_odds]
    belief = [rho + k * n * p for rho, p in zip(log_prior, log_p)]
    right = _log_sum(xp, *(b + p for b, p in zip(belief, log_p)))
    wrong = _log_sum(xp, *(b - _softplus(xp, x) for b, x in zip(belief, log_odds)))
    return right - wrong


def scaling_matrix(variant: str, diagonal: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Probabilities P[h, m] of an example of task h under task m, as Arora et al. tie them.

    Parameters
    ----------
    variant
        ``"sampling"``: off-diagonal entries are those of their column; ``"scoring"``: of their row.
    diagonal, off
        Shape (task,).
    """
    if variant not in ("sampling", "scoring"):
        raise ValueError(f"variant must be sampling or scoring, got {variant!r}")
    full = np.broadcast_to(off[None, :] if variant == "sampling" else off[:, None], (len(off), len(off))).copy()
    np.fill_diagonal(full, diagonal)
    return full


@hypothesis(
    "freeform",
    complexity=9,
    kind=Free(),
    priors={
        "bend": Prior("HalfNormal", (1.0,), scaled=True),
        "shape": Prior("Normal", (0.0, 1.0), length="bends"),
    },
    meanings={
        "bend": "size of the mean curve's deviation from its best line, nats, root mean square",
        "shape": "the deviation, by principal components of smooth curves",
    },
    reference="a mean curve that follows no law: a line and a smooth deviation, its second differences independent a "
    "priori",
    predicts="anything smooth: what a law loses against it is its misfit; its departure from a line is the verdict",
)
def freeform(xp: Any, stats: Any, bend: Any, shape: Any, shot_sd: Any = None, at_shot: Any = None) -> Any:
    """gain (n - n_min) / (n_max - n_min) and any smooth deviation from it.

    Returns the updates of the deviation, and of what moves single shots in all sequences where something does, nats.
    """
    updates = bend * xp.dot(shape, stats.bends)
    return updates if at_shot is None else updates + shot_sd * xp.dot(at_shot, stats.items)
