"""Dose-response: what adding k examples' worth of a vector does, beside what k real examples do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bayes_icl.addition.trajectories import HALVES, bootstrap_weights, directions_of, other_half
from bayes_icl.core.intervals import TAILS, flat, t_interval
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.stream_states import log_odds_with
from bayes_icl.mechanism.transfer import cut

VECTORS = ("task", "rule", "permuted", "other task", "random")
"""What is added: what an example adds on average in the task, with answers permuted, of the rule alone (the first less
the second), in another task; a direction drawn from how sequences differ, as long as the task's."""

Turned = dict[str, Float[np.ndarray, "seq shot point d_model"]]


def vectors_by_half(
    turned: Turned, other: Float[np.ndarray, "seq shot point d_model"] | None
) -> dict[str, Float[np.ndarray, "half point d_model"]]:
    """What an example adds, by kind of vector, half of the sequences and layer; ``random`` is drawn later."""
    sources = dict(turned) | ({"other task": other} if other is not None else {})
    return {
        name: np.stack([directions_of(stream[:, :, point])[0] for point in range(stream.shape[2])], axis=1)
        for name, stream in sources.items()
    }


def dose_response(
    anatomy: Anatomy,
    episodes: Sequence[Episode],
    vectors: dict[str, Float[np.ndarray, "half point d_model"]],
    spread: Float[np.ndarray, "seq point d_model"],
    signs: Float[np.ndarray, " seq"] | None,
    *,
    few: int,
    doses: Int[np.ndarray, " dose"],
    seed: int = 0,
    step: Callable[[], object] = lambda: None,
) -> dict[str, np.ndarray]:
    """Add vectors to the stream after a few examples, at every layer and dose.

    Parameters
    ----------
    anatomy
        The model's parts.
    episodes
        Of the task.
    vectors
        As `vectors_by_half` gives them; a sequence is given those of the other half.
    spread
        The streams that random directions are drawn from.
    signs
        Which of two answers is right at these shots, as 1 and -1; None where there are more.
    few
        Examples that are shown.
    doses
        Examples' worth that is added.
    seed
        Of random directions, one a sequence and layer.
    step
        Called after each sequence.

    Returns
    -------
    dict
        ``plain``, log-odds without a vector, shape (seq,), and by kind of vector log-odds with it, shape
        (seq, point, dose), nats.
    """
    names = [*(name for name in VECTORS if name in vectors), "random"]
    n_points = spread.shape[1]
    points = np.repeat(np.arange(n_points), len(doses))
    plain, added = [], []
    for seq, half, number in other_half(len(episodes)):
        of_half = spread[half] - spread[half].mean(0)
        rng = np.random.default_rng([seed, 31, seq])
        mixed = np.einsum("s,spd->pd", rng.normal(size=len(of_half)), of_half)
        lengths = np.linalg.norm(vectors["task"][number], axis=-1) / np.maximum(np.linalg.norm(mixed, axis=-1), 1e-30)
        by_name = {name: vectors[name][number] for name in names[:-1]} | {"random": mixed * lengths[:, None]}
        sign = 1.0 if signs is None else signs[seq]
        rows = np.concatenate([(sign * v[:, None] * doses[:, None]).reshape(-1, v.shape[-1]) for v in by_name.values()])
        run = cut(episodes[seq], few, episodes[seq].token or 0)
        without, every = log_odds_with(anatomy, run, np.tile(points, len(names)), rows.astype(np.float32))
        plain.append(without)
        added.append(every.reshape(len(names), n_points, len(doses)))
        step()
    return {"plain": np.array(plain)} | {name: np.stack([x[i] for x in added]) for i, name in enumerate(names)}


def dose_tables(
    task: str,
    found: dict[str, np.ndarray],
    real: Float[np.ndarray, "seq dose"],
    doses: Int[np.ndarray, " dose"],
    *,
    resamples: int = 500,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Rows of doses.csv and of slopes.csv, and the layer at which the task's vector stands in best for examples.

    Parameters
    ----------
    task
        Its name.
    found
        As `dose_response` gives it.
    real
        Log-odds after as many real examples more, nats.
    doses
        Examples' worth.
    resamples, seed
        Of the bootstrap over sequences.
    """
    plain = found["plain"]
    kinds = [name for name in VECTORS if name in found]
    rises = {name: found[name] - plain[:, None, None] for name in kinds}
    rise = real - plain[:, None]
    slopes = {name: x @ doses / (doses @ doses) for name, x in rises.items()}
    rows = [
        {"task": task, "vector": "examples", "layer": np.nan, "dose": int(k)} | flat({"rise": _three(rise[:, j])})
        for j, k in enumerate(doses)
    ]
    summary = []
    n_points = rises["task"].shape[1]
    corrected = 1 - 0.05 / n_points  # over layers
    for name in kinds:
        missed = _missed(rises[name], rise, np.full((1, len(plain)), 1 / len(plain)))[0]
        for point in range(n_points):
            at = {"task": task, "vector": name, "layer": point}
            rows += [
                at | {"dose": int(k)} | flat({"rise": _three(rises[name][:, point, j])}) for j, k in enumerate(doses)
            ]
            more = slopes[name][:, point] - slopes["random"][:, point]
            beyond = t_interval(more, corrected)[1] > 0 if name != "random" else False
            summary.append(
                at
                | flat({"slope": _three(slopes[name][:, point]), "beyond_random": _three(more)})
                | {"missed": missed[point], "beyond": bool(beyond)}
            )
    weights = np.empty((resamples, len(plain)))
    for half, drawn in zip(HALVES, bootstrap_weights(len(plain), resamples, seed)):
        weights[:, half] = drawn / len(HALVES)
    best = _missed(rises["task"], rise, weights).argmin(1)
    one: list[dict[str, Any]] = [row for row in summary if row["vector"] == "task"]
    layer = int(np.argmin([row["missed"] for row in one]))
    low, high = np.quantile(best, TAILS, method="inverted_cdf")
    slope = t_interval(rise @ doses / (doses @ doses))
    facts = {
        "layer": layer, "layer_low": int(low), "layer_high": int(high), "missed": one[layer]["missed"],
        "named": bool(one[layer]["beyond"] and one[layer]["missed"] < 0.5),
        "slope_examples": [float(x) for x in slope],
    }  # fmt: skip
    return rows, summary, facts


def _missed(rises: np.ndarray, rise: np.ndarray, weights: Float[np.ndarray, "draw seq"]) -> np.ndarray:
    """Of what examples raise the mean log-odds by, the share that adding misses, root mean square, by layer."""
    off = np.tensordot(weights, rises - rise[:, None], (1, 0))
    size = (weights @ rise) ** 2
    return np.sqrt((off**2).mean(-1) / np.maximum(size.mean(-1), 1e-30)[:, None])


def _three(x: Float[np.ndarray, " seq"]) -> tuple[float, ...]:
    return tuple(float(v) for v in t_interval(x))
