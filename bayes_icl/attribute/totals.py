"""Total effects on delta: what heads add through MLPs and later heads too, beside what goes without each of them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy import stats
from tqdm import tqdm

from bayes_icl.attribute.effects import TaskEffects
from bayes_icl.attribute.shrinkage import pool_heads, stands_out
from bayes_icl.attribute.slopes import existing
from bayes_icl.attribute.update import Update, three
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.intervals import TAILS, Interval, flat, t_interval
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.halves import CHOOSING, MEASURING
from bayes_icl.mechanism.head_names import Head, name_of
from bayes_icl.mechanism.placebos import placebo_sets
from bayes_icl.mechanism.total_effects import (
    COMPLETE,
    SOURCES,
    WAY,
    ShotMeans,
    TotalEffects,
    read_without,
    total_effects,
)
from bayes_icl.models.model import Model

COMPARED = 20
"""Heads of the largest total effects that are ablated one by one, and as many placebo heads."""

RESAMPLED = 1000  # times that the sequences are drawn again for the intervals of the comparison


@dataclass(frozen=True)
class Totals:
    """Total effects on one task.

    Attributes
    ----------
    facts
        As in the JSON file, under `total`.
    columns
        Of heads.csv, by row of the task: `total`, `joint`, their shares and what belongs to them.
    exact
        The same of `lost_over_shots`, for the heads that were ablated; empty where none were.
    """

    facts: dict[str, Any]
    columns: pd.DataFrame
    exact: pd.DataFrame = field(default_factory=pd.DataFrame)


def shot_weights(weights: Float[np.ndarray, " update"], n_shots: int) -> Float[np.ndarray, " shot"]:
    """Weights of L(n) from those of its updates, which are of the last shots; 0 where n does not count.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.attribute.totals import shot_weights
    >>> shot_weights(np.array([0.5, 0.5]), 4).tolist()
    [0.0, -0.5, 0.0, 0.5]
    """
    found = np.zeros(n_shots)
    found[-len(weights) :] += weights
    found[-len(weights) - 1 : -1] -= weights
    return found


def measure_totals(
    model: Model,
    effects: xr.Dataset,
    update: Update,
    measured: TaskEffects,
    *,
    steps: int,
    by_source: bool,
    batch_size: int,
    seed: int,
    parts: Checkpoint | None,
    progress: bool,
) -> Totals:
    """Total effects of every head of one task, and of every MLP beside them.

    Where heads may be ablated (`TaskEffects.means`) and there is an update, the exact way is taken as well: heads of
    the largest total effects on every other sequence, and placebo heads of about the same norms, are ablated one by one
    on the others.

    Parameters
    ----------
    model, effects, update, measured
        The model, the effects format of the task, its update, and the episodes with it.
    steps
        Nodes of the integral.
    by_source, batch_size, seed
        As in `AttributeSettings`.
    parts
        Keeps what is finished.
    progress
        Show a bar on stderr.
    """
    anatomy, episodes, task = model.anatomy, measured.episodes, str(effects.task.item())
    means = ShotMeans(anatomy, episodes)
    weights = shot_weights(update.weights, effects.sizes["shot"])
    batch_size = batch_size or (1 if model.device.type == "cpu" else 16)
    found = {}
    with tqdm(total=2 * len(episodes), unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        bar.set_description(f"{task}: total effects")
        for name, mlps in (("heads", False), ("joint", True)):
            batches = []
            for first in range(0, len(episodes), batch_size):
                some, key = episodes[first : first + batch_size], f"total {name} {first}/{task}"
                own = _kept(parts, key, weights)
                if own is None:
                    split = by_source and not mlps
                    one = total_effects(anatomy, some, means, weights, steps=steps, mlps=mlps, by_source=split)
                    own = _keep(parts, key, weights, one)
                batches.append(own)
                bar.update(len(some))
            found[name] = TotalEffects.joined(batches)
    facts, columns = _alone(found["heads"], update), _columns(found["heads"], found["joint"], update, effects)
    facts |= {"steps": steps, "reference": WAY, **_jointly(found["joint"], update)}
    exact = pd.DataFrame()
    if measured.means is not None and update.delta.excludes(0) and len(episodes[MEASURING]) > 1:
        norm = effects["norm"].transpose("layer", "head").values.astype(float)
        norms = measured.means.taken_norm(anatomy, episodes, norm)
        compared, exact = _compare(
            model, task, found["heads"].head, norms, episodes, means, weights, seed, parts, progress
        )
        facts["compared"] = compared
    return Totals(facts, columns, exact)


def _kept(parts: Checkpoint | None, key: str, weights: np.ndarray) -> Mapping[str, np.ndarray] | None:
    """A batch of an unfinished run, if it is of the same form of the curve."""
    if not parts or (kept := parts.get(key)) is None:
        return None
    with np.load(io.BytesIO(kept), allow_pickle=False) as stored:
        found = dict(stored)
    return found if np.array_equal(found.pop("weights"), weights) else None


def _keep(parts: Checkpoint | None, key: str, weights: np.ndarray, one: TotalEffects) -> Mapping[str, np.ndarray]:
    found = one.arrays()
    if parts:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, weights=weights, **found)
        parts.put(key, buffer.getvalue())
    return found


def _share(x: Float[np.ndarray, "seq ..."], full: Float[np.ndarray, " seq"], delta: float) -> tuple[np.ndarray, ...]:
    """Share of delta and its interval: what a sequence adds beyond its part of what it adds to delta is the error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = x.mean(0) / delta
        _, low, high = t_interval((x - share * full.reshape(-1, *[1] * (x.ndim - 1))) / delta)
    return share, share + low, share + high


def _alone(own: TotalEffects, update: Update) -> dict[str, Any]:
    """Facts of heads whose gates alone move."""
    heads, delta = own.head.sum((1, 2)), update.delta.mean
    facts = {"head": three(t_interval(heads)), "share_head": three(_share(heads, own.full, delta))}
    facts["at_reference"] = three(t_interval(own.reference))
    facts |= {"error": _errors(own)}
    if own.by_source is not None:
        by_source = own.by_source.sum((1, 2))
        for i, name in enumerate(SOURCES):
            facts[name] = three(t_interval(by_source[:, i].sum(-1)))
        facts["from_reference"] = three(t_interval(heads - by_source.sum((1, 2))))
    return facts


def _jointly(own: TotalEffects, update: Update) -> dict[str, Any]:
    """Facts of heads and MLPs whose gates move together."""
    assert own.mlp is not None
    facts: dict[str, Any] = {"joint_at_reference": three(t_interval(own.reference)), "joint_error": _errors(own)}
    for name, x in (("head", own.head.sum((1, 2))), ("mlp", own.mlp.sum(1))):
        facts[f"joint_{name}"] = three(t_interval(x))
        facts[f"joint_share_{name}"] = three(_share(x, own.full, update.delta.mean))
    return facts


def _errors(own: TotalEffects) -> dict[str, Any]:
    """How far contributions add up: on average over sequences, at worst, and in how many sequences they do not."""
    added = own.head.sum((1, 2)) + (0 if own.mlp is None else own.mlp.sum(1))
    moved = own.full - own.reference
    mean = abs(added.mean() - moved.mean()) / (abs(moved.mean()) or np.nan)
    beyond = int((~(own.error <= COMPLETE)).sum())
    return {"mean": float(mean), "largest": float(own.error.max()), "beyond": beyond, "steps": int(own.steps.max())}


def _columns(alone: TotalEffects, joint: TotalEffects, update: Update, effects: xr.Dataset) -> pd.DataFrame:
    """Columns of heads.csv: rows are heads, MLPs, what else adds, three others, and all of them (`slope_table`)."""
    assert joint.mlp is not None
    n_seqs, n_layers, n_heads = alone.head.shape
    n, delta = n_layers * n_heads, update.delta
    last = n + n_layers * (1 + ("other" in effects)) + 3  # the row of all
    heads = alone.head.reshape(n_seqs, n)
    tables = []
    for name, own, rows, x in (
        ("total", alone, [*range(n), last], [heads, (alone.full - alone.reference)[:, None]]),
        (
            "joint",
            joint,
            [*range(n + n_layers), last],
            [joint.head.reshape(n_seqs, n), joint.mlp, (joint.full - joint.reference)[:, None]],
        ),
    ):
        values = np.concatenate(x, axis=1)
        found = {name: t_interval(values), f"{name}_share": _share(values, own.full, delta.mean)}
        columns = {f"{key}{end}": c for key, each in found.items() for end, c in zip(("", "_low", "_high"), each)}
        tables.append(pd.DataFrame(columns, index=rows))
    table = pd.concat(tables, axis=1).sort_index()
    exist = existing(effects)
    errors = heads[:, exist].std(0, ddof=1) / np.sqrt(n_seqs)
    pooled = pool_heads(heads[:, exist].mean(0), errors, n_seqs - 1, by_noise=True)
    table["total_stands_out"] = pd.Series(stands_out(pooled, delta), exist)
    if alone.by_source is not None:
        examples = alone.by_source[..., SOURCES.index("examples"), :].sum(-1).mean(0)
        table["total_examples"] = pd.Series(examples.ravel())
    return table


def _compare(
    model: Model,
    task: str,
    totals: Float[np.ndarray, "seq layer head"],
    norms: Float[np.ndarray, "layer head"],
    episodes: Sequence[Episode],
    means: ShotMeans,
    weights: Float[np.ndarray, " shot"],
    seed: int,
    parts: Checkpoint | None,
    progress: bool,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Total effects beside what goes without a head, of heads chosen on the other sequences and of placebo heads."""
    order = np.argsort(-np.abs(totals[CHOOSING].mean(0)), axis=None, kind="stable")
    order = order[np.isfinite(norms).ravel()[order]]
    at = [np.unravel_index(i, norms.shape) for i in order[: min(COMPARED, len(order) // 2)]]
    top: list[Head] = [(int(layer), int(head)) for layer, head in at]
    (placebos,) = placebo_sets(norms, top, 1, seed)
    heads, lost = [*top, *placebos], []
    wanted = [list(head) for head in heads]
    with tqdm(episodes[MEASURING], unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        bar.set_description(f"{task}: {len(heads)} heads ablated one by one")
        for episode in bar:
            key = f"without {episode.seq}/{task}"
            kept = parts.get(key) if parts else None
            values = json.loads(kept) if kept else {}
            if values.get("heads") != wanted:
                read = read_without(model.anatomy, episode, heads, means)
                values = {"heads": wanted, **{name: x.tolist() for name, x in read.items()}}
                if parts:
                    parts.put(key, json.dumps(values).encode())
            lost.append([weights @ (np.array(values["none"]) - values[name_of(head)]) for head in heads])
    found = np.array(lost)
    own = np.stack([totals[MEASURING][:, layer, head] for layer, head in heads], axis=1)
    rows = [layer * norms.shape[1] + head for layer, head in heads]
    exact = [flat({"lost_over_shots": t_interval(found[:, i])}) for i in range(len(heads))]
    facts: dict[str, Any] = {"top": [name_of(h) for h in top], "placebos": [name_of(h) for h in placebos]}
    facts |= {"n_seqs": len(found), **agreement(own, found, len(top), seed)}
    return facts, pd.DataFrame(exact, index=rows)


def agreement(
    total: Float[np.ndarray, "seq head"], lost: Float[np.ndarray, "seq head"], n_top: int, seed: int = 0
) -> dict[str, Any]:
    """How far total effects and losses agree, the first `n_top` heads being the top ones and the others placebos.

    Parameters
    ----------
    total, lost
        Of each head in each sequence, nats an example.
    n_top
        Heads that count as top.
    seed
        Of the sequences drawn again.

    Returns
    -------
    dict
        ``rank`` and ``rank_top``: rank correlation over all these heads and over the top ones; ``slope``: the loss that
        goes with a total effect of 1, by least squares through 0 over all of them; each with a bootstrap interval over
        sequences, in which heads are held. ``top_lost`` and ``placebo_lost``: mean sizes of the losses.
    """

    def numbers(x: Float[np.ndarray, " head"], y: Float[np.ndarray, " head"]) -> list[float]:
        ranked = [stats.rankdata(part) for part in (x, y, x[:n_top], y[:n_top])]
        rank = [float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 else np.nan for a, b in (ranked[:2], ranked[2:])]
        return [*rank, float(x @ y / (x @ x)) if x.any() else np.nan]

    rng = np.random.default_rng([seed, 17])
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = []
        for _ in range(RESAMPLED):
            again = rng.integers(len(total), size=len(total))
            drawn.append(numbers(total[again].mean(0), lost[again].mean(0)))
        ends = (
            np.nanquantile(np.array(drawn), TAILS, axis=0).T
            if np.isfinite(drawn).any(0).all()
            else np.full((3, 2), np.nan)
        )
        middle = numbers(total.mean(0), lost.mean(0))
    found: dict[str, Any] = {
        name: three(Interval(m, *end)) for name, m, end in zip(("rank", "rank_top", "slope"), middle, ends)
    }
    size = np.abs(lost.mean(0))
    return found | {"top_lost": float(size[:n_top].mean()), "placebo_lost": float(size[n_top:].mean())}
