r"""Which heads write the update: slopes that add up to delta, pooled over heads, and how each accumulates.

Under `additive` the posterior mean of delta is linear in the mean updates of L, given the noise. The same weights,
applied to the updates of what one component adds to L, give that component's slope, and the slopes of all components
add up to delta, as their effects add up to L.

How a head's effect grows tells what it does. Softmax weights add up to 1, so a head of fixed scores that averages over
examples writes A n/(n + c), and no single such head can write n delta for long: it must attend to something that
itself grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy import stats as distributions

from bayes_icl.compare import LEAST_SEQS, LEAST_UPDATES, slack, survivors, too_little
from bayes_icl.curves import Curves
from bayes_icl.errors import StatedError
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.importance import sample_fast
from bayes_icl.noise import Statistics, summarise, variances
from bayes_icl.posterior import Posterior, mean_and_interval
from bayes_icl.scores import Score, score_curves, score_together
from bayes_icl.shrinkage import pool_heads, stands_out

Interval = tuple[float, float, float]  # mean, low, high
Head = tuple[int, int]  # layer, head
Fit = tuple[Score, Posterior]

LINEAR_LEAST = 0.5  # the last update over the first; 1 is a straight line, 0 a ceiling reached
NEAREST = (5, 10, 20, 40)  # heads that a placebo is drawn from, in turn
MATCHED = 0.1  # a placebo set's sum of norms may be off by this share
TRIES = 200  # at another placebo set that differs from all before
BATCH = 16  # heads a job, fitted together: arrays that a core's cache holds
LAWS = ("constant", "additive", "pooling", "freeform")  # that a head's effect is fitted with
NOTHING: Interval = (np.nan, np.nan, np.nan)


def fit_delta(curves: Curves, seed: int = 0) -> tuple[Posterior, Interval]:
    """Delta under `additive`, as `fit` gives it with the fast engine.

    Returns
    -------
    posterior
        Of `additive`.
    delta
        Posterior mean and 95 % highest-density interval, nats per example.
    """
    stats = summarise(curves)
    posterior = sample_fast(HYPOTHESES["additive"], stats, seed=seed)
    return posterior, posterior.intervals(stats)["delta"]


def delta_weights(posterior: Posterior, stats: Statistics) -> Float[np.ndarray, " update"]:
    """Weights w, per example, with w @ (mean over sequences of the updates) = posterior mean of delta.

    Given the noise the posterior of the gain is normal, and its mean is linear in the mean updates: with u, v and q
    as in `noise`, S sequences and w2 = gain_sd^2, its precision is a q + 1/prior variance, where a = S/(1 + w2 q), and
    its mean a (u/v) @ x_mean over that precision. The linear form is averaged over the draws of the noise.
    The draws of the gain itself have a Monte Carlo error, so that the average misses their mean by some hundredths of
    delta's sd. The least change of w that removes this makes slopes add up to the delta that is reported.

    Parameters
    ----------
    posterior
        Of `additive` with normal noise.
    stats
        What it was fitted to.
    """
    params = posterior.params
    weights = np.exp(posterior.log_weights)
    weights /= weights.sum()
    _, f, _ = posterior.hypothesis.updates(np, stats, params)
    v = variances(stats, params["level"], params["walk"])
    u = f @ stats.transform
    h = u / v
    q = (h * u).sum(-1)
    a = stats.n_seqs / (1 + params["gain_sd"][:, 0] ** 2 * q)
    prior_sd = posterior.hypothesis.all_priors["gain"].parameters[1] * stats.scale
    along = (weights * a / (a * q + 1 / prior_sd**2)) @ h
    w = stats.transform @ along / (stats.n_max - stats.shots[0])
    mean_updates = stats.transform @ stats.x_mean
    delta, _, _ = posterior.intervals(stats)["delta"]
    return w + (delta - w @ mean_updates) * mean_updates / (mean_updates @ mean_updates)


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
    only if the last update under `pooling` is surely more than half the first.

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
    return score_curves(HYPOTHESES[name], curves, partial(sample_fast, seed=seed), future=False, checks=False)


def without_fits(curves: Curves) -> Accumulation | None:
    """That of a head whose effect does not vary, or not enough to be fitted; None for all others."""
    updates = np.diff(curves.log_odds, axis=1)
    if not updates.any():
        return Accumulation("none", (0.0, 0.0, 0.0), NOTHING)
    levelled = curves._replace(log_odds=curves.log_odds - curves.log_odds.mean(1, keepdims=True))
    if too_little(levelled) or not np.median(curves.log_odds.std(1)) > 0:
        return Accumulation("undecided", (float(updates.mean()), np.nan, np.nan), NOTHING)
    return None


def _judged(curves: Curves, fits: Mapping[str, Fit]) -> Accumulation:
    """What the fits of all `LAWS` say."""
    n_seqs, n_shots = curves.log_odds.shape
    _, additive = fits["additive"]
    _, pooling = fits["pooling"]
    delta = mean_and_interval(additive.numbers(summarise(curves))["delta"], additive.log_weights)
    c = pooling.params["c"][:, 0]
    first, last = curves.shots[:2, None] + c, curves.shots[-2:, None] + c
    _, least, _ = mean_and_interval(first.prod(0) / last.prod(0), pooling.log_weights)
    few = n_seqs < LEAST_SEQS or n_shots - 1 < LEAST_UPDATES
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


def head_table(
    effects: xr.Dataset, *, n_min: int = 1, seed: int = 0, workers: int = 1, progress: bool = False
) -> pd.DataFrame:
    """What every component adds to delta, and how each head does it: a row for each task and component.

    The heads first, by layer; then the MLPs, the embedding, the biases, minus the entropy of the incorrect tokens;
    last, all of them together.

    Parameters
    ----------
    effects
        Dims task, seq, shot, layer, head; nats: `effect`, `mlp`, `embedding`, `bias`, `entropy` and their sum
        `log_odds`; `attention`, the mass that a head has on examples. A sequence whose log_odds are NaN is absent.
    n_min
        The first shot that counts.
    workers
        Processes; 0 takes one a core, 4 at most.

    Returns
    -------
    table
        slope (nats per example) and share of delta, with 95 % t-intervals over sequences in which the weights of
        `delta_weights` are taken as known. The slopes of a task add up to the posterior mean of delta, which is the row
        "all". Beside it, free of any law, `rise`: the effect at the last shot less that at n_min, nats. Heads have
        besides: `pooled`, `false_sign`, `stands_out` (`pool_heads`), `accumulation`, `delta`, `c` (`accumulation`)
        and `attention` at the last shot.
        `slope_examples`, `top`, `lost` and `lost_held` are `attribute`'s to fill in.

    Raises
    ------
    StatedError
        A task's log_odds cannot be fitted.
    """
    from tqdm import tqdm

    from bayes_icl.parallel import one_a_core, run_jobs

    tables: list[pd.DataFrame] = []
    jobs: list[tuple[list[Curves], int]] = []
    places: list[tuple[int, int]] = []  # table and first row of each job
    for i, task in enumerate(effects.task.values):
        table, curves = slope_table(effects.sel(task=task), str(task), n_min, seed)
        tables.append(table)
        starts = range(0, len(curves), BATCH)
        jobs += [(curves[start : start + BATCH], seed) for start in starts]
        places += [(i, start) for start in starts]
    found: list[dict[int, Accumulation]] = [{} for _ in tables]
    workers = min(workers or one_a_core(), max(len(jobs), 1))
    bar = tqdm(total=sum(len(job[0]) for job in jobs), unit="head", disable=not progress, dynamic_ncols=True)
    with run_jobs(workers) as run, bar:
        for j, results in run(accumulations, jobs):
            i, start = places[j]
            found[i].update({start + k: one for k, one in enumerate(results)})
            bar.update(len(results))
    for table, own in zip(tables, found):
        for row, one in own.items():
            table.loc[row, "accumulation"] = one.kind
            table.loc[row, ["delta", "delta_low", "delta_high"]] = one.delta
            table.loc[row, ["c", "c_low", "c_high"]] = one.c
    return pd.concat(tables, ignore_index=True)


COLUMNS = [
    *("task", "component", "kind", "layer", "head", "n_min"),
    *("slope", "slope_low", "slope_high", "share", "share_low", "share_high", "rise", "rise_low", "rise_high"),
    *("pooled", "pooled_low", "pooled_high", "false_sign", "stands_out"),
    *("delta", "delta_low", "delta_high", "accumulation", "c", "c_low", "c_high", "attention", "slope_examples"),
    *("top", "lost", "lost_low", "lost_high", "lost_held", "lost_held_low", "lost_held_high"),
]


def slope_table(effects: xr.Dataset, task: str, n_min: int, seed: int) -> tuple[pd.DataFrame, list[Curves]]:
    """One task's rows of `head_table` without the heads' own fits, and the curves of its heads in the same order."""
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
    posterior, delta = fit_delta(whole, seed)
    weights = delta_weights(posterior, summarise(whole))

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
    rows += [{"component": name, "kind": "rest"} for name in ("embedding", "bias", "entropy")]
    rows.append({"component": "all", "kind": "all"})
    rest = [
        sign * effects[name].transpose("seq", "shot").values
        for name, sign in (("embedding", 1.0), ("bias", 1.0), ("entropy", -1.0))
    ]
    components = np.concatenate([heads.reshape(-1, *log_odds.shape), mlps, np.stack([*rest, log_odds])])

    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
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
    rise = (components[:, :, -1] - components[:, :, 0]).T
    table["rise"], table["rise_low"], table["rise_high"] = t_interval(rise)

    n = n_layers * n_heads
    errors = slopes[:, :n].std(0, ddof=1) / np.sqrt(len(slopes))
    pooled = pool_heads(slope[:n], errors, len(slopes) - 1, by_noise=True)
    for name in ("mean", "low", "high", "false_sign"):
        column = {"mean": "pooled", "false_sign": name}.get(name, f"pooled_{name}")
        table.loc[: n - 1, column] = getattr(pooled, name)
    table["stands_out"] = np.append(stands_out(pooled, delta), np.zeros(len(table) - n, bool))
    table["accumulation"] = ""
    if "attention" in effects:
        seen = effects.attention.isel(shot=-1).mean("seq").transpose("layer", "head").values
        table.loc[: n - 1, "attention"] = seen.ravel()
    table["top"] = False
    return table, [whole._replace(log_odds=head) for head in components[:n]]


def t_interval(x: Float[np.ndarray, "seq ..."], level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over sequences, and its t-interval, 95 % if not said, each of shape (...); NaN with one sequence."""
    n = len(x)
    mean = x.mean(0)
    quantile = distributions.t.ppf((1 + level) / 2, n - 1) if n > 1 else np.nan
    half = quantile * x.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full_like(mean, np.nan)
    return mean, mean - half, mean + half


def flat(numbers: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """A mean and interval each as three columns of a table: its name, and with ``_low`` and ``_high``."""
    return {f"{name}{end}": float(x) for name, three in numbers.items() for end, x in zip(("", "_low", "_high"), three)}


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


def placebo_sets(
    norms: Float[np.ndarray, "layer head"],
    chosen: Sequence[Head],
    n_sets: int = 20,
    seed: int = 0,
    *,
    besides: Sequence[Head] = (),
) -> list[list[Head]]:
    """Random sets of other heads, as many as the chosen ones and with as large a sum of norms, within 10 %.

    Each chosen head is stood in for by one of the heads near it in norm, and the set kept where the sum is near enough.
    No two are the same. Where there are not enough such sets, those nearest in sum are taken, and there may be fewer
    than `n_sets`. Heads in `besides` are in none.

    Raises
    ------
    StatedError
        There are fewer other heads than chosen ones.
    """
    norms = np.asarray(norms, float)
    others = [(int(i), int(j)) for i, j in np.ndindex(*norms.shape) if (i, j) not in {*chosen, *besides}]
    if len(others) < len(chosen):
        raise StatedError(
            f"{len(chosen)} of {norms.size} heads are chosen, so that {len(others)} are left to compare them with; "
            "choose at most half"
        )
    if not chosen:
        return []
    rng = np.random.default_rng([seed, 11])
    sizes = np.array([norms[head] for head in others])
    order = sorted(chosen, key=lambda head: -norms[head])
    goal = sum(norms[head] for head in chosen)
    sets: dict[frozenset[int], float] = {}
    for i in range(n_sets * TRIES):
        width = NEAREST[i % len(NEAREST)]
        free = np.full(len(others), True)
        for head in order:
            near = np.argsort(np.where(free, np.abs(sizes - norms[head]), np.inf), kind="stable")
            free[rng.choice(near[: min(width, free.sum())])] = False
        drawn = frozenset(np.flatnonzero(~free).tolist())
        sets[drawn] = abs(sizes[list(drawn)].sum() - goal)
        if sum(off <= MATCHED * goal for off in sets.values()) >= n_sets:
            break
    near_enough = [drawn for drawn, off in sets.items() if off <= MATCHED * goal]
    further = sorted((drawn for drawn in sets if drawn not in set(near_enough)), key=lambda drawn: sets[drawn])
    return [[others[i] for i in sorted(drawn)] for drawn in [*near_enough, *further][:n_sets]]


def placebo_rank(ablation: pd.DataFrame, way: str, delta: float) -> tuple[int, int]:
    """How many placebo sets lose as much of delta as the top set, and how many there are.

    Parameters
    ----------
    ablation
        Rows of one task in ablation.csv.
    way
        ``mean`` or ``held``.
    delta
        Its sign says which way a loss is.
    """
    own = ablation[ablation.way == way]
    lost = own.lost * (1.0 if delta >= 0 else -1.0)
    placebo = lost[own["set"].str.startswith("placebo ")]
    return int((placebo >= lost[own["set"] == "top"].iloc[0]).sum()), len(placebo)
