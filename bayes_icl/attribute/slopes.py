"""Slopes of what components write, which add up to delta.

Delta is the slope of the best straight line through L, whatever law L follows: one linear form of the updates. The same
weights, applied to the updates of what one component adds to L, give that component's slope, and the slopes of all
components add up to delta, as their effects add up to L.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int
from tqdm import tqdm

from bayes_icl.attribute.accumulation import Accumulation, accumulations
from bayes_icl.attribute.outputs import HEADS
from bayes_icl.attribute.shrinkage import pool_heads, stands_out
from bayes_icl.core.errors import StatedError
from bayes_icl.core.intervals import Interval, flat, t_interval
from bayes_icl.core.parallel import one_a_core, run_jobs
from bayes_icl.curves import Curves
from bayes_icl.inference.survival import too_little
from bayes_icl.mechanism.head_names import Head

REST = {"embedding": 1.0, "bias": 1.0, "entropy": -1.0}
"""What is no head and no MLP, with its sign in the log-odds."""

BATCH = 16  # heads a job, fitted together: arrays that a core's cache holds


def delta_of(curves: Curves) -> Interval:
    """Delta, the slope of the best straight line: its mean over sequences with a 95 % t-interval, nats per example.

    Under flat priors that is its posterior mean and highest-density interval.

    Parameters
    ----------
    curves
        One task under one readout, at least 2 sequences.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.attribute.slopes import delta_of
    >>> from bayes_icl.curves import read_curves, select
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> f"{delta_of(curves):.3f} nats per example"
    '0.082 [0.071, 0.092] nats per example'
    """
    return Interval(*(float(x) for x in t_interval(np.diff(curves.log_odds, axis=1) @ delta_weights(curves.shots))))


def delta_weights(shots: Float[np.ndarray, " shot"]) -> Float[np.ndarray, " update"]:
    """Weights w, per example, with w @ (updates of a curve) = slope of its best straight line.

    Parameters
    ----------
    shots
        Numbers of examples.
    """
    centred = shots - shots.mean()
    # The slope is a weighted sum of L(n), and L(n) the sum of the updates up to n.
    return np.cumsum((centred / (centred @ centred))[::-1])[::-1][1:]


def head_table(
    effects: xr.Dataset, *, n_min: int = 1, seed: int = 0, workers: int = 1, progress: bool = False
) -> pd.DataFrame:
    """What every component adds to delta, and how each head does it: a row for each task and component.

    The heads first, by layer; then the MLPs, other mixers (kind `other`), the embedding, the biases, minus the entropy
    of the incorrect tokens; last, all of them together.

    Parameters
    ----------
    effects
        Dims task, seq, shot, layer, head; nats: `effect`, `mlp`, `other` if there is any, `embedding`, `bias`,
        `entropy` and their sum `log_odds`; `norm`, NaN where there is no such head;
        `attention`, the mass that a head has on examples. A sequence whose log_odds are NaN is absent.
    n_min
        The first shot that counts.
    seed
        Of the fits' random draws.
    workers
        Processes; 0 takes one a core, 4 at most.
    progress
        Show a bar on stderr.

    Returns
    -------
    DataFrame
        Slope (nats per example) and share of delta, with 95 % t-intervals over sequences. The slopes of a task add up
        to delta, which is the row "all". Beside it `rise`: the effect at the last shot less that at n_min, nats. Heads
        have besides: `pooled`, `false_sign`, `stands_out` (`pool_heads`), `accumulation`, `delta`, `c`
        (`accumulation`) and `attention` at the last shot. `slope_examples`, `top`, `lost` and `lost_over_shots` are
        empty here.

    Raises
    ------
    StatedError
        A task's log_odds cannot be fitted.
    """
    tables, curves = zip(*(slope_table(effects.sel(task=task), str(task), n_min) for task in effects.task.values))
    return join_columns(tables, accumulation_columns(curves, seed=seed, workers=workers, progress=progress))


def accumulation_columns(
    curves: Sequence[Mapping[int, Curves]], *, seed: int = 0, workers: int = 1, progress: bool = False
) -> list[pd.DataFrame]:
    """How each head grows with examples: columns of heads.csv, a table a task with a row a head.

    Parameters
    ----------
    curves
        By task, of its heads, by row of the task's table.
    seed
        Of the fits' random draws.
    workers
        Processes; 0 takes one a core, 4 at most.
    progress
        Show a bar on stderr.
    """
    jobs: list[tuple[list[Curves], int]] = []
    tasks: list[int] = []  # of each job
    for i, heads in enumerate(curves):
        each = list(heads.values())
        for start in range(0, len(each), BATCH):
            jobs.append((each[start : start + BATCH], seed))
            tasks.append(i)
    by_job: dict[int, list[Accumulation]] = {}
    workers = min(workers or one_a_core(), max(len(jobs), 1))
    bar = tqdm(total=sum(len(job[0]) for job in jobs), unit="head", disable=not progress, dynamic_ncols=True)
    with run_jobs(workers) as run, bar:
        for j, results in run(accumulations, jobs):
            by_job[j] = results
            bar.update(len(results))
    rows: list[list[dict[str, Any]]] = [[] for _ in curves]
    for j, i in enumerate(tasks):
        rows[i] += [{"accumulation": one.kind, **flat({"delta": one.delta, "c": one.c})} for one in by_job[j]]
    return [pd.DataFrame(own, index=list(heads)) for own, heads in zip(rows, curves)]


def join_columns(tables: Sequence[pd.DataFrame], *columns: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """heads.csv: the rows of all tasks, with the columns that each step finds.

    Parameters
    ----------
    tables
        By task, as `slope_table` gives them: heads first.
    *columns
        From each step a table a task, its index the row of the task's table; or none at all. What is in none is NaN.
    """
    wide = []
    for table, *more in zip(tables, *(own for own in columns if own)):
        wide.append(pd.concat([table, *(own.reindex(table.index) for own in more)], axis=1))
    heads = pd.concat([table.reindex(columns=HEADS.names) for table in wide], ignore_index=True)
    flags = {name: heads[name].eq(True) for name in ("top", "total_stands_out")}
    return heads.assign(accumulation=heads.accumulation.astype(object).fillna(""), **flags)


def existing(effects: xr.Dataset) -> Int[np.ndarray, " head"]:
    """Numbers of the heads that there are, counted as if every layer had all; others have no norm."""
    if "norm" not in effects:
        return np.arange(effects.sizes["layer"] * effects.sizes["head"])
    there = effects["norm"].notnull()
    there = there.any([dim for dim in there.dims if dim not in ("layer", "head")])
    return np.flatnonzero(there.transpose("layer", "head").values)


def slope_table(effects: xr.Dataset, task: str, n_min: int) -> tuple[pd.DataFrame, dict[int, Curves]]:
    """One task's rows of `head_table` without the heads' own fits, and the curves of its heads by row.

    Rows are numbered as if every layer had all heads; those of heads that there are not are left out.
    """
    effects = effects.isel(shot=effects.shot.values >= n_min)
    effects = effects.isel(seq=effects.log_odds.notnull().all("shot").values)
    shots = effects.shot.values.astype(float)
    if len(shots) < 4:
        raise StatedError(
            f"task {task!r}: {len(shots)} shots from n = {n_min} on, at least 4 are needed; give less n_min"
        )
    log_odds = effects.log_odds.transpose("seq", "shot").values.astype(float)
    whole = Curves(task, str(effects.attrs.get("readout", "")), shots, log_odds)
    if reason := too_little(whole):
        raise StatedError(f"task {task!r}: {reason}")
    delta, weights = delta_of(whole), delta_weights(shots)

    heads = effects.effect.transpose("layer", "head", "seq", "shot").values.astype(float)
    mlps = effects.mlp.transpose("layer", "seq", "shot").values.astype(float)
    n_layers, n_heads = heads.shape[:2]
    layers = effects.layer.values.astype(int)
    rows: list[dict[str, Any]] = [
        {"component": f"L{layer}H{head}", "kind": "head", "layer": layer, "head": head}
        for layer in layers
        for head in effects["head"].values.astype(int)
    ]
    rows += [{"component": f"MLP {layer}", "kind": "mlp", "layer": layer} for layer in layers]
    others = effects.other.transpose("layer", "seq", "shot").values.astype(float) if "other" in effects else mlps[:0]
    rows += [{"component": f"other {layer}", "kind": "other", "layer": layer} for layer in layers[: len(others)]]
    rows += [{"component": name, "kind": "rest"} for name in REST]
    rows.append({"component": "all", "kind": "all"})
    rest = [sign * effects[name].transpose("seq", "shot").values for name, sign in REST.items()]
    components = np.concatenate([heads.reshape(-1, *log_odds.shape), mlps, others, np.stack([*rest, log_odds])])

    table = pd.DataFrame(rows)
    table["task"], table["n_min"] = task, n_min
    slopes = (np.diff(components, axis=2) @ weights).T
    total = np.diff(log_odds, axis=1) @ weights
    slope, table["slope_low"], table["slope_high"] = t_interval(slopes)
    table["slope"] = slope
    with np.errstate(divide="ignore", invalid="ignore"):
        # The error of a ratio: what a sequence adds to the slope beyond its part of what it adds to delta.
        share = slope / delta[0]
        _, low, high = t_interval((slopes - share * total[:, None]) / delta[0])
    table["share"], table["share_low"], table["share_high"] = share, share + low, share + high
    if "line_head" in effects:
        table = table.join(_line_columns(effects, weights, total, delta.mean))
    rise = (components[:, :, -1] - components[:, :, 0]).T
    table["rise"], table["rise_low"], table["rise_high"] = t_interval(rise)

    n = n_layers * n_heads
    exist = existing(effects)
    errors = slopes[:, exist].std(0, ddof=1) / np.sqrt(len(slopes))
    pooled = pool_heads(slope[exist], errors, len(slopes) - 1, by_noise=True)
    for name in ("mean", "low", "high", "false_sign"):
        column = {"mean": "pooled", "false_sign": name}.get(name, f"pooled_{name}")
        table[column] = pd.Series(getattr(pooled, name), exist)  # NaN in the rows after those of heads
    table["stands_out"] = False
    table.loc[exist, "stands_out"] = stands_out(pooled, delta)
    if "attention" in effects:
        seen = effects.attention.isel(shot=-1).mean("seq").transpose("layer", "head").values
        table["attention"] = pd.Series(seen.ravel().astype(float))
    left_out = [*set(range(n)) - set(exist), *(n + n_layers + k for k, x in enumerate(others) if not x.any())]
    return table.drop(index=left_out), {int(i): whole._replace(log_odds=components[i]) for i in exist}


LINES = ("line_mlp", "line_others")


def _line_columns(
    effects: xr.Dataset, weights: Float[np.ndarray, " update"], total: Float[np.ndarray, " seq"], delta: float
) -> pd.DataFrame:
    """Slopes along the line of heads, MLPs and what else adds, and their shares of delta, by row; the last is all."""
    heads = effects.line_head.transpose("seq", "shot", "layer", "head").values.astype(float)
    more = [effects[name].transpose("seq", "shot", "layer").values for name in LINES if name in effects]
    written = np.concatenate([heads.reshape(*heads.shape[:2], -1), *more], axis=2)
    slopes = np.concatenate([np.einsum("u,suc->sc", weights, np.diff(written, axis=1)), total[:, None]], axis=1)
    n = slopes.shape[1] - 1
    rows = [*range(n), n + len(REST)]
    slope, low, high = t_interval(slopes)
    columns = {"line_slope": slope, "line_slope_low": low, "line_slope_high": high}
    with np.errstate(divide="ignore", invalid="ignore"):
        share = slope / delta
        _, low, high = t_interval((slopes - share * total[:, None]) / delta)
    columns |= {"line_share": share, "line_share_low": share + low, "line_share_high": share + high}
    return pd.DataFrame(columns, index=rows)


def choose_top(table: pd.DataFrame, top: int = 0, toward: float = 1.0) -> list[Head]:
    """The heads that write most of the update: as many as make half of what all heads write together, or `top`.

    They come in order of their pooled slope, in delta's direction. Where heads that write against delta leave less than
    half of what the others write, half of what those others write is taken instead.

    Parameters
    ----------
    table
        Rows of `slope_table` or `head_table` of one task; only those of heads count.
    top
        How many, if not 0.
    toward
        Delta, whose sign is its direction.

    Returns
    -------
    heads
        (layer, head); none where no head writes in delta's direction.

    Raises
    ------
    StatedError
        The model has fewer heads.
    """
    heads = table[table.kind == "head"]
    if top > len(heads):
        raise StatedError(f"--top {top}: the model has {len(heads)} heads")
    slope = heads["pooled"].to_numpy(float) * (1.0 if toward >= 0 else -1.0)
    order = np.argsort(-slope, kind="stable")
    order = order[slope[order] > 0]
    helping = np.maximum(slope, 0)
    if not top and helping.any():
        goal = (slope.sum() if slope.sum() >= helping.sum() / 2 else helping.sum()) / 2
        top = int(np.searchsorted(np.cumsum(helping[order]), goal * (1 - 1e-12))) + 1
    chosen = heads.iloc[order[:top]]
    return [(int(layer), int(head)) for layer, head in zip(chosen["layer"], chosen["head"])]
