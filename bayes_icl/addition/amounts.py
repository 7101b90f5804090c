"""The laws of `hypotheses` fitted to the amounts along a direction, and the verdict that log-odds are given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from bayes_icl.curves import Curves
from bayes_icl.fit.verdict import judge
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise_shape import PLAIN
from bayes_icl.inference.scores import score_curves, score_together
from bayes_icl.inference.survival import survivors

LAWS = ("constant", "additive", "logarithmic", "power", "saturating", "pooling", "freeform")

STILL = "no_movement"  # in place of a verdict, where nothing surely moves


def judge_amounts(each: Sequence[Curves], seed: int = 0) -> list[dict[str, Any]]:
    """Fit `LAWS` to amounts of several layers, and judge each as log-odds are judged.

    Parameters
    ----------
    each
        Amounts along a direction, in the unit of what an example adds; of the same shots and sequences.
    seed
        Of the fits' draws.

    Returns
    -------
    list
        Of each: ``verdict``, ``selected``, ``survivors``, ``departure`` and ``second_half`` as in `fit.verdict`, and
        ``mean_curve``, the mean curve by shot.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.addition.amounts import judge_amounts
    >>> from bayes_icl.curves import Curves
    >>> shots, noise = np.arange(1.0, 17), 0.3 * np.random.default_rng(0).normal(size=(16, 16))
    >>> line, log = (Curves("mine", "task", shots, mean + noise) for mean in (shots, 5 * np.log(shots)))
    >>> [one["verdict"] for one in judge_amounts([line, log])]
    ['supported', 'rejected']
    """
    if not each:
        return []
    engine = partial(sample_fast, seed=seed)

    def alone(name: str, curves: Curves) -> Any:
        return score_curves(HYPOTHESES[name], curves, engine, future=False, checks=False, shape=PLAIN)[0]

    scores: list[list[Any]] = [[] for _ in each]
    for name in LAWS:
        if name == "freeform":  # whose mean curve the verdict is made from
            found = [alone(name, curves) for curves in each]
        else:
            together = score_together(HYPOTHESES[name], list(each), seed=seed)
            found = [s if s.reliable else alone(name, curves) for (s, _), curves in zip(together, each)]
        for of_curve, score in zip(scores, found):
            of_curve.append(score)
    return [_judged(curves, of_curve) for curves, of_curve in zip(each, scores)]


def _judged(curves: Curves, scores: Sequence[Any]) -> dict[str, Any]:
    verdict = judge(curves, scores)
    alive, _ = survivors(list(scores), "elpd_logo")
    unknown = dict.fromkeys(("mean", "low", "high"), np.nan)
    mean = verdict.mean_curve or {}
    return {
        "verdict": verdict.verdict,
        "selected": verdict.selected or "",
        "survivors": " ".join(alive),
        "departure": [(verdict.departure or unknown)[name] for name in ("mean", "low", "high")],
        "second_half": [(verdict.second_half or unknown)[name] for name in ("mean", "low", "high")],
        "mean_curve": list(mean.get("mean", [])),
    }
