"""How a head's effect grows with examples: not at all, like a sum, like a mean.

Softmax weights add up to 1, so a head of fixed scores that averages over examples writes A n/(n + c), and no single
such head can write n delta for long: it must attend to something that itself grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bayes_icl.core.intervals import UNKNOWN_INTERVAL, Interval, mean_and_interval
from bayes_icl.curves import Curves
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import PLAIN
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.scores import Score, score_curves, score_together
from bayes_icl.inference.survival import LEAST_SEQS, few_shots, slack, survivors, too_little

Fit = tuple[Score, Posterior]

LINEAR_LEAST = 0.5  # the last update over the first; 1 is a straight line, 0 a ceiling reached

LAWS = ("constant", "additive", "pooling", "freeform")  # that a head's effect is fitted with


@dataclass(frozen=True)
class Accumulation:
    """How a head's effect grows with examples.

    Attributes
    ----------
    kind
        ``"none"``, ``"linear"``, ``"averaging"``, ``"other"`` or ``"undecided"``; see `accumulation`.
    delta
        The head's own update under `additive`: mean and 95 % interval, nats per example.
    c
        Of its own `pooling` fit, A n/(n + c), examples.
    """

    kind: str
    delta: Interval
    c: Interval


def accumulation(curves: Curves, seed: int = 0) -> Accumulation:
    """Fit a head's effect on L by `constant`, `additive` and `pooling`, each with noise of its own.

    A head whose softmax scores do not change averages over examples, which makes A n/(n + c): steep at first, then
    flat. One that counts them makes n delta. The two look alike where c is large, so that a straight line is claimed
    only if the 95 % interval of the last update over the first, under `pooling`, lies above a half.

    none
        `constant` survives (within max(4 nats, 2 SE) of the best when a sequence is left out), or nothing varies.
    linear, undecided
        `additive` survives; the last update over the first, under `pooling`, has a 95 % interval above 0.5, or not.
    averaging
        `pooling` survives and the others do not.
    other
        One mean for each shot (`freeform`) predicts better than all three by more than a survivor may be worse, as it
        does where a curve speeds up or jumps.

    With fewer than 8 sequences or updates it is ``"undecided"``, as such curves are refused a verdict, and so it is
    where the fits cannot be relied on. ``"none"`` says that no change is not excluded, not that there is none.

    Parameters
    ----------
    curves
        What the head adds to L, nats.
    seed
        Of the fits' random draws.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.attribute.accumulation import accumulation
    >>> from bayes_icl.curves import Curves
    >>> shots, noise = np.arange(25.0), np.random.default_rng(0).normal(size=(32, 25))
    >>> counts, averages = 0.3 * shots, 8 * shots / (shots + 2)
    >>> [accumulation(Curves("L0H0", "complement", shots, mean + noise)).kind for mean in (counts, averages)]
    ['linear', 'averaging']
    """
    return without_fits(curves) or _judged(curves, {name: fit_alone(name, curves, seed) for name in LAWS})


def accumulations(each: Sequence[Curves], seed: int = 0) -> list[Accumulation]:
    """`accumulation` of many heads at once, whose curves have the same shots and sequences.

    All are fitted together, law by law. What such a fit cannot be relied on for, `accumulation` fits alone, so that
    each head has the same verdict as there but for Monte Carlo error. It does not hang on which other heads there are.
    """
    found = [without_fits(curves) for curves in each]
    rest = [i for i, one in enumerate(found) if one is None]
    if not rest:
        return [one for one in found if one]
    together = {name: score_together(HYPOTHESES[name], [each[i] for i in rest], seed=seed) for name in LAWS}
    for j, i in enumerate(rest):
        fits = {name: fits[j] for name, fits in together.items()}
        fits |= {name: fit_alone(name, each[i], seed) for name, (score, _) in fits.items() if not score.reliable}
        found[i] = _judged(each[i], fits)
    return [one for one in found if one]


def fit_alone(name: str, curves: Curves, seed: int = 0) -> Fit:
    """One law of `LAWS` as every other curve is fitted and scored, refits and all."""
    engine = partial(sample_fast, seed=seed)
    return score_curves(HYPOTHESES[name], curves, engine, future=False, checks=False, shape=PLAIN)


def without_fits(curves: Curves) -> Accumulation | None:
    """That of a head whose effect does not vary, or not enough to be fitted; None for all others."""
    updates = np.diff(curves.log_odds, axis=1)
    if not updates.any():
        return Accumulation("none", Interval(0.0, 0.0, 0.0), UNKNOWN_INTERVAL)
    levelled = curves._replace(log_odds=curves.log_odds - curves.log_odds.mean(1, keepdims=True))
    if too_little(levelled) or not np.median(curves.log_odds.std(1)) > 0:
        return Accumulation("undecided", Interval(float(updates.mean()), np.nan, np.nan), UNKNOWN_INTERVAL)
    return None


def _judged(curves: Curves, fits: Mapping[str, Fit]) -> Accumulation:
    """What the fits of all `LAWS` say."""
    _, additive = fits["additive"]
    _, pooling = fits["pooling"]
    delta = mean_and_interval(additive.numbers(summarise(curves, shape=PLAIN))["delta"], additive.log_weights)
    c = pooling.params["c"][:, 0]
    first, last = curves.shots[:2, None] + c, curves.shots[-2:, None] + c
    _, least, _ = mean_and_interval(first.prod(0) / last.prod(0), pooling.log_weights)
    few = len(curves.log_odds) < LEAST_SEQS or few_shots(curves.shots) is not None
    kind = "undecided" if few else _kind({name: score for name, (score, _) in fits.items()}, least)
    return Accumulation(kind, delta, mean_and_interval(c, pooling.log_weights))


def _kind(scores: dict[str, Score], least: float) -> str:
    """The kind of accumulation, given the lower bound of the last update over the first under `pooling`."""
    sound = {name for name, score in scores.items() if score.reliable}
    if not {"constant", "additive"} <= sound:
        return "undecided"
    alive, distance = survivors(list(scores.values()), "elpd_logo")
    if "freeform" in sound:
        gap, se = distance["freeform"]
        if gap > slack(se):
            return "other"
    if "constant" in alive:
        return "none"
    if "additive" in alive:
        return "linear" if "pooling" in sound and least > LINEAR_LEAST else "undecided"
    return "averaging"
