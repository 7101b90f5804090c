"""What scores of sequences come to: means with intervals, heads that are named, scores that agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from bayes_icl.atlas.outputs import SCORES
from bayes_icl.attribute.shrinkage import pool_heads, stands_out
from bayes_icl.core.intervals import TAILS, UNKNOWN_INTERVAL, Interval, flat, resampling_weights, t_interval
from bayes_icl.mechanism.halves import chosen_on, measured_on
from bayes_icl.mechanism.head_names import name_of

RESAMPLED = 500  # times that the sequences are drawn again


def named_heads(values: Float[np.ndarray, "seq layer head"], whole: Interval) -> Bool[np.ndarray, "layer head"]:
    """Heads whose score is beyond 5 % of a whole on one side, with more than 95 % of the posterior pooled over heads.

    None where the interval of the whole holds 0: there is nothing to share out.

    Parameters
    ----------
    values
        NaN for heads that have no score, which are never named.
    whole
        Delta, or what else the scores are parts of.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.atlas.summaries import named_heads
    >>> from bayes_icl.core.intervals import Interval
    >>> values = np.random.default_rng(0).normal(0, 0.01, size=(8, 2, 4))
    >>> values[:, 1, 2] += 0.3  # of a delta of 0.5
    >>> np.argwhere(named_heads(values, Interval(0.5, 0.4, 0.6))).tolist()
    [[1, 2]]
    >>> bool(named_heads(values, Interval(0.5, -0.1, 1.1)).any())
    False
    """
    shape = values.shape[1:]
    flat_values = values.reshape(len(values), -1)
    there = ~np.isnan(flat_values).any(0)
    found = np.zeros(len(there), bool)
    if there.any() and whole.excludes(0):
        own = flat_values[:, there]
        errors = own.std(0, ddof=1) / np.sqrt(len(own))
        found[there] = stands_out(pool_heads(own.mean(0), errors, len(own) - 1, by_noise=True), whole)
    return found.reshape(shape)


def share_of(values: Float[np.ndarray, "seq ..."], whole: Interval) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means with intervals as shares of a whole, which is taken as known; NaN where it may be 0."""
    if not whole.excludes(0):
        whole = UNKNOWN_INTERVAL
    mean, low, high = (x / whole.mean for x in t_interval(values))
    return mean, np.minimum(low, high), np.maximum(low, high)


def atlas_rows(
    task: str, values: Mapping[str, Float[np.ndarray, "seq layer head"]], wholes: Mapping[str, Interval], toward: float
) -> list[dict[str, Any]]:
    """Rows of atlas.csv for one task.

    Parameters
    ----------
    task
        Its name.
    values
        By score; NaN where there is no such head.
    wholes
        What they are parts of, by name.
    toward
        The sign of delta, which writers have.
    """
    direct = values["direct"].mean(0) * toward
    sure = named_heads(values["direct"], wholes["delta"])
    kinds = np.where(sure, np.where(direct > 0, "writer", "canceller"), "")
    rows = []
    for name, (_, _, whole) in SCORES.items():
        if name not in values:
            continue
        x = values[name]
        named = named_heads(x, wholes[whole]) if whole else np.zeros(x.shape[1:], bool)
        if name == "backup":
            named &= _takes_over(x, values["total"], wholes["delta"])
        three = t_interval(x)
        shares = share_of(x, wholes[whole] if whole else UNKNOWN_INTERVAL)
        for layer, head in np.argwhere(~np.isnan(direct)).tolist():
            at = layer, head
            numbers = {"value": [end[at] for end in three], "share": [end[at] for end in shares]}
            about = {"task": task, "component": name_of(at), "layer": layer, "head": head, "score": name}
            rows.append(
                {**about, **flat(numbers), "named": bool(named[at]), "kind": str(kinds[at]) or None, "n_seqs": len(x)}
            )
    return rows


def _takes_over(growth: np.ndarray, total: np.ndarray, delta: Interval) -> Bool[np.ndarray, "layer head"]:
    """Heads that grow along delta, and carry some of it after: not those that only stop to work against it."""
    toward = 1.0 if delta.mean >= 0 else -1.0
    after = growth + measured_on(total)
    return named_heads(after, delta) & (toward * growth.mean(0) > 0) & (toward * after.mean(0) > 0)


def agreement_rows(
    task: str, values: Mapping[str, Float[np.ndarray, "seq layer head"]], seed: int
) -> list[dict[str, Any]]:
    """Rows of agreement.csv for one task: rank correlations over heads of the mean scores.

    Sequences are drawn again for the intervals, and heads are held; a score with itself is taken between two halves of
    the sequences, and says how far its ranks can be relied on.

    Parameters
    ----------
    task
        Its name.
    values
        By score.
    seed
        Of the resamples.
    """
    rng = np.random.default_rng([seed, 37])
    flat_values = {name: values[name].reshape(len(values[name]), -1) for name in SCORES if name in values}
    draws = {n: resampling_weights(n, RESAMPLED, rng) for n in sorted({len(x) for x in flat_values.values()})}
    rows = []
    names = list(flat_values)
    means = {name: np.vstack([x.mean(0), draws[len(x)] @ x]) for name, x in flat_values.items()}
    for i, a in enumerate(names):
        for b in names[i:]:
            if (a, b) == ("total", "backup"):
                continue  # growth has `total` in it, with a minus: they go against each other whatever heads do
            if a == b:
                halves = chosen_on(flat_values[a]), measured_on(flat_values[a])
                pair = tuple(np.vstack([x.mean(0), resampling_weights(len(x), RESAMPLED, rng) @ x]) for x in halves)
            else:
                pair = means[a], means[b]
            there = ~(np.isnan(pair[0]).any(0) | np.isnan(pair[1]).any(0))
            three = _rank_correlation(pair[0][:, there], pair[1][:, there])
            rows.append({"task": task, "a": a, "b": b, **flat({"rank": three}), "n_heads": int(there.sum())})
    return rows


def _rank_correlation(x: Float[np.ndarray, "draw head"], y: Float[np.ndarray, "draw head"]) -> Interval:
    """Of the first row, with the 95 % interval of the others; NaN where a score is the same of all heads."""
    if x.shape[1] < 3:
        return UNKNOWN_INTERVAL
    ranks = [stats.rankdata(part, axis=1) for part in (x, y)]
    a, b = (part - part.mean(1, keepdims=True) for part in ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    some = found[1:][~np.isnan(found[1:])]
    return Interval(float(found[0]), *map(float, np.quantile(some, TAILS))) if len(some) else UNKNOWN_INTERVAL
