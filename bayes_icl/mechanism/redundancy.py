"""How redundant heads are: what the ablation of each costs, self-repair, who takes over, how many can go.

A head's ablation costs less than what it writes where others repair it at once (self-repair: Rushing and Nanda
2024, arXiv 2402.15390), and a head that costs nothing now may cost much once others are gone: a backup head, found by
the growth of its own ablation's effect (conditional co-ablation: Gong et al. 2026, arXiv 2607.01940).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import ttest_1samp
from torch import Tensor

from bayes_icl.core.intervals import TAILS
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.edits import Edits, heads_replaced
from bayes_icl.lens.sweeps import EffectProbe, Row, base_run, sweep
from bayes_icl.mechanism.ablation_values import places_ablated
from bayes_icl.mechanism.direct_effects import direct_effects
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.halves import chosen_on
from bayes_icl.mechanism.head_names import Heads, by_layer
from bayes_icl.mechanism.thresholds import BACKUP_ALPHA, BACKUP_LEAST
from bayes_icl.mechanism.transfer import log_odds_of
from bayes_icl.models.prompts import ROLES


class SingleAblations(NamedTuple):
    """Heads ablated one by one, each of shape (layer, head), nats; NaN for what was not ablated, or gone already.

    lost = taken - other_heads - mlps - norm, along the direction of the run before.

    Attributes
    ----------
    lost
        What the log-odds lose.
    taken
        The direct effect that goes with the head.
    other_heads, mlps, norm
        What other heads and MLPs write more, and what the scales of norms and the competing tokens change.
    direct
        The direct effect of a head before, along the direction of the run in which no head is gone, lest a change of
        the direction pass for one of what the head writes.
    attention
        Its attention on examples, before; from the last position.
    """

    lost: np.ndarray
    taken: np.ndarray
    other_heads: np.ndarray
    mlps: np.ndarray
    norm: np.ndarray
    direct: np.ndarray
    attention: np.ndarray


def ablate_each(
    anatomy: Anatomy,
    episode: Episode,
    z: Float[Tensor, "layer pos head d_head"],
    *,
    edits: Edits | None = None,
    heads: Heads | None = None,
    everywhere: bool = False,
) -> SingleAblations:
    """Ablate heads of a cut episode, each alone.

    Parameters
    ----------
    anatomy
        The model's parts.
    episode
        As `cut` gives it.
    z
        What replaces heads (`AblationValues`).
    edits
        Heads that are gone in all these runs.
    heads
        Which; all that are not gone, if None.
    everywhere
        Ablate at every token but the first, not only at the last: what the head tells later tokens goes as well, and
        it takes some forty times as long.
    """
    edits = edits or {}
    gone = {(layer, head) for layer, (own, _) in edits.items() for head in own}
    shape = (anatomy.n_layers, anatomy.n_heads)
    chosen = [head for head in (anatomy.heads if heads is None else heads) if tuple(head) not in gone]
    with heads_replaced(anatomy, edits):
        before = direct_effects(anatomy, [episode])
    direct = before.head[0].astype(float)
    if edits:
        clean = direct_effects(anatomy, [episode], by_source=False)
        with heads_replaced(anatomy, edits):
            direct = direct_effects(anatomy, [episode], by_source=False, along=clean.direction).head[0].astype(float)
    last = len(episode.prompt.tokens) - 1
    first = 1 if everywhere else last
    base = base_run(anatomy, episode.prompt.tokens, first, edits)
    rows = [Row(layer, heads={layer: ([head], z[layer, first:, [head]])}) for layer, head in chosen]
    head, mlp = (torch.from_numpy(x[0]).to(base.logits.device) for x in (before.head, before.mlp + before.other))
    watched = EffectProbe(last - first, before.direction[0], [seen[0] for seen in before.seen], head, mlp)
    found = np.full((5, *shape), np.nan)
    clean_head, clean_mlp = before.head[0].astype(float), before.mlp[0] + before.other[0]
    for some in sweep(anatomy, base, rows, [last - first], watched=watched):
        log_odds = log_odds_of(some.logits[:, 0], [int(episode.target.correct[0])])[:, 0]
        assert some.written is not None
        heads_then, mlps_then = (x.double().cpu().numpy() for x in some.written)
        for i, log_odds_then, head_then, mlp_then in zip(some.rows, log_odds, heads_then, mlps_then):
            lost = before.log_odds[0] - log_odds_then
            change = head_then - clean_head
            taken = -change[chosen[i]]
            others, mlps = change.sum() + taken, (mlp_then - clean_mlp).sum()
            found[:, *chosen[i]] = lost, taken, others, mlps, taken - others - mlps - lost
    assert before.attention is not None
    n_examples = int(episode.places.shot.max())
    attention = before.attention[0][..., 1 : 1 + n_examples * len(ROLES)].sum(-1)
    return SingleAblations(found[0], found[1], found[2], found[3], found[4], direct, attention)


def stack(singles: Sequence[SingleAblations]) -> SingleAblations:
    """Episodes put together: each of shape (pair, layer, head)."""
    return SingleAblations(*(np.stack(parts) for parts in zip(*singles)))


class Backup(NamedTuple):
    """A head whose ablation costs more once others are gone.

    Attributes
    ----------
    head
        (layer, head).
    p_holm
        Of a one-sided t-test over the pairs on which it was chosen, corrected over all heads.
    """

    head: tuple[int, int]
    p_holm: float


def name_backups(
    before: Float[np.ndarray, "pair layer head"],
    after: Float[np.ndarray, "pair layer head"],
    rule: Float[np.ndarray, " pair"],
    most: int = 8,
) -> list[Backup]:
    """The heads whose ablation costs more once others are gone, the largest growth first.

    A one-sided t-test of the growth over every other pair, with Holm's correction over heads, so that with no backup
    head among them any is named in at most 5 % of cases; and their growth is at least 5 % of the rule gain. How
    much it grows, and whether more than beside placebo sets, is to be measured on the pairs left (the odd ones).

    Parameters
    ----------
    before, after
        What ablating a head costs with the others, and without them; NaN for those.
    rule
        The rule gain in log-odds, nats.
    most
        How many heads are named, the largest growth first.
    """
    from statsmodels.stats.multitest import multipletests

    growth = chosen_on(after - before)
    goal = BACKUP_LEAST * chosen_on(rule).mean()
    candidates = np.argwhere(~np.isnan(growth).any(0))
    if len(growth) < 2 or not len(candidates) or not goal > 0:
        return []
    own = growth[:, candidates[:, 0], candidates[:, 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.nan_to_num(ttest_1samp(own, 0.0, alternative="greater").pvalue, nan=1.0)
    sure, corrected, *_ = multipletests(p, BACKUP_ALPHA, method="holm")
    mean = own.mean(0)
    order = [i for i in np.argsort(-mean, kind="stable") if sure[i] and mean[i] >= goal]
    return [Backup((int(candidates[i][0]), int(candidates[i][1])), float(corrected[i])) for i in order[:most]]


def counts_ablated(n_heads: int) -> list[int]:
    """How many heads are ablated in turn: powers of two, and all."""
    return sorted({2**i for i in range(n_heads.bit_length()) if 2**i < n_heads} | {n_heads})


def orders(lost: Float[np.ndarray, "pair layer head"], n_random: int, seed: int) -> dict[str, list[tuple[int, int]]]:
    """Orders in which to ablate all heads (NaN is none): the most costly first, by every other pair, and at random."""
    mean = chosen_on(lost).mean(0)
    heads = [(int(i), int(j)) for i, j in np.argwhere(~np.isnan(mean))]
    found = {"best first": sorted(heads, key=lambda head: -mean[head])}
    for i in range(n_random):
        order = np.random.default_rng([seed, 19, i]).permutation(len(heads))
        found[f"random {i + 1}"] = [heads[k] for k in order]
    return found


def ablate_sets(
    anatomy: Anatomy,
    episode: Episode,
    z: Float[Tensor, "layer pos head d_head"],
    sets: Sequence[Heads],
    at: Bool[np.ndarray, " pos"] | None = None,
) -> Float[np.ndarray, " set"]:
    """Log-odds of a cut episode without each set of heads, at some positions, or at every token but the first."""
    last = len(episode.prompt.tokens) - 1
    at = places_ablated(episode, "everywhere") if at is None else at
    first = int(np.flatnonzero(at)[0])
    base = base_run(anatomy, episode.prompt.tokens, first)
    rows = []
    for heads in sets:
        edits = {layer: (own, z[layer, first:][:, own]) for layer, own in by_layer(heads).items()}
        rows.append(Row(min(edits), heads=edits, at=at[first:]))
    found = np.zeros(len(sets))
    for some in sweep(anatomy, base, rows, [last - first]):
        found[some.rows] = log_odds_of(some.logits[:, 0], [int(episode.target.correct[0])])[:, 0]
    return found


def half_gone(
    curves: Float[np.ndarray, "pair count"],
    counts: Sequence[int],
    without: Float[np.ndarray, " pair"],
    full: Float[np.ndarray, " pair"],
    *,
    seed: int = 0,
    n_resamples: int = 2000,
) -> tuple[float, float, float]:
    """How many heads are gone when half of the rule gain is, with a 95 % bootstrap interval over pairs.

    Parameters
    ----------
    curves
        Log-odds after so many heads; between the counts they are taken to fall in a straight line.
    counts
        How many heads are gone in each column of `curves`.
    without, full
        Log-odds when the examples show no rule, and with all heads.
    seed
        Of the bootstrap.
    n_resamples
        Resamples of pairs.

    Returns
    -------
    mean, low, high
        NaN where it never is; the interval is that of the resamples in which it is.
    """
    n = len(curves)
    draws = np.random.default_rng([seed, 23]).integers(n, size=(n_resamples, n))
    weights = np.stack([np.bincount(draw, minlength=n) for draw in draws]) / n
    found = _half_gone(np.vstack([np.ones((1, n)) / n, weights]), curves, counts, without, full)
    some = found[1:][~np.isnan(found[1:])]
    if not len(some):
        return float(found[0]), np.nan, np.nan
    low, high = np.quantile(some, TAILS)
    return float(found[0]), float(low), float(high)


def _half_gone(
    weights: Float[np.ndarray, "draw pair"],
    curves: np.ndarray,
    counts: Sequence[int],
    without: np.ndarray,
    full: np.ndarray,
) -> Float[np.ndarray, " draw"]:
    means = np.hstack([(weights @ full)[:, None], weights @ curves])
    goal = weights @ (without + full) / 2
    at = np.array([0, *counts], dtype=float)
    below = means[:, 1:] <= goal[:, None]
    found = np.full(len(weights), np.nan)
    for i in np.flatnonzero(below.any(1) & (means[:, 0] > goal)):
        k = int(below[i].argmax())
        high, low = means[i, k], means[i, k + 1]
        found[i] = at[k] + (at[k + 1] - at[k]) * (high - goal[i]) / (high - low)
    return found
