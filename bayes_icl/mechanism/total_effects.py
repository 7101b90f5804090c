r"""Total effects: what heads add to delta through MLPs and later heads as well, and not by their own writing alone.

Delta is one linear form of the curve, sum_n w_n L(n), and so one number of one pass over an episode. Every head is
given a gate a: it hands on r + a (z - r), where z is what it makes of what stands before it in that very pass and r is
its reference. Let F(a) be delta with all gates at a. The contribution of head h is its gate's gradient along the way
from 0 to 1::

    total_h = int_0^1 dF/da_h da,    dF/da_h = sum over tokens of (z_h - r_h) . dF/d(output of h)

(integrated gradients in the gates; the Aumann-Shapley value of a head), by Gauss-Legendre nodes, with one backward pass
a node for all heads at every token. The contributions add up to F(1) - F(0), which is checked (`COMPLETE`). Plain
gradients at the end point fail where attention saturates; these do not.

What else adds to the residual stream, such as a mixer that is not attention (`Anatomy.others`), has no gate.

Two conventions. *Heads alone*: only heads have gates, and MLPs respond to them, so what an MLP makes of a head's output
is the head's. *Heads and MLPs*: MLPs have gates too, and what an MLP makes of a head's output is shared between them.

The reference is a head's mean output over the task's episodes and shots, at the same role and distance from the answer
(``mean_over_shots`` of `mean_outputs`): delta is growth with n, and nothing that a head does can grow with n there. It
holds the task, which delta is not about. Permuted episodes would leave whatever grows with n whether there is a rule or
not, the answers' form for one, and ask for another quantity. Heads ablated by `ablation` in that way have the same
reference, so that a head's loss (`read_without`) is the exact counterpart: its gate alone moved from 1 to 0, where
integrated gradients move all gates together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayes_icl.lens.anatomy import Anatomy, pad
from bayes_icl.lens.attention import Attention
from bayes_icl.lens.edits import Edits, blocks_kept, heads_replaced, outputs_of, starting_at, unembedding
from bayes_icl.lens.gates import GatedPass, Reference, by_head, gated_pass, stacked, weights_fixed
from bayes_icl.mechanism.answer_odds import Asked, shot_log_odds
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.head_names import Head, Heads, by_layer, name_of
from bayes_icl.mechanism.mean_outputs import MeanOutputs
from bayes_icl.models.prompts import ROLES

WAY = "mean_over_shots"
"""The reference, of `mean_outputs.TASK_MEANS`."""

SOURCES = ("sink", "examples", "query")
"""What a head attends to from a token: the first token, those of earlier shots, those of the token's own shot."""

COMPLETE = 0.03
"""Contributions and F(1) - F(0) may differ by this share of the latter, or of a nat at every shot if that is larger."""

MOST_STEPS = 16
"""Nodes that an episode is given at most, where fewer were asked for and do not add up."""


class ShotMeans:
    """Mean outputs of heads and MLPs over the episodes and shots of a task, at every role and distance from the answer.

    Parameters
    ----------
    anatomy
        The model's parts.
    episodes
        Of one task; a pass for each.
    """

    def __init__(self, anatomy: Anatomy, episodes: Sequence[Episode]) -> None:
        self._anatomy = anatomy
        self._heads = MeanOutputs(anatomy, episodes)
        self._mlps = MeanOutputs(anatomy, episodes, width=anatomy.unembedding.shape[1])
        for episode in episodes:
            z, mlp = outputs_of(anatomy, episode.prompt.tokens)
            for layer in range(anatomy.n_layers):
                self._heads.add(episode.places, layer, z[layer].flatten(1))
                self._mlps.add(episode.places, layer, mlp[layer])

    def reference(self, episodes: Sequence[Episode], *, mlps: bool) -> Reference:
        """What gates of some episodes, run as one batch, move from."""
        width = max(len(e.prompt.tokens) for e in episodes)
        device, layers = self._anatomy.unembedding.device, range(self._anatomy.n_layers)

        def of(means: MeanOutputs) -> list[Tensor]:
            return [stacked([means.rows(e.seq, layer, WAY) for e in episodes], width, device) for layer in layers]

        return Reference(of(self._heads), of(self._mlps) if mlps else None)

    def edits(self, episode: Episode, heads: Heads) -> Edits:
        """Edits that ablate some heads of an episode at every token."""
        return {layer: (own, self._heads.at(episode.seq, layer, own, WAY)) for layer, own in by_layer(heads).items()}

    def taken_norm(
        self, episodes: Sequence[Episode], norm: Float[np.ndarray, "layer head"]
    ) -> Float[np.ndarray, "layer head"]:
        """Norm of what ablating a head takes from the residual stream, at the answers (`MeanOutputs.taken_norm`)."""
        return self._heads.taken_norm(self._anatomy, episodes, norm)


@dataclass(frozen=True)
class TotalEffects:
    """Contributions to delta, nats an example, of each episode.

    Attributes
    ----------
    head
        Shape (episode, layer, head).
    mlp
        Shape (episode, layer); None where MLPs have no gates.
    by_source
        Those of heads by what they attend to, shape (episode, layer, head, source, role), `SOURCES` and `ROLES`; what
        is missing from a head's contribution is its reference's, with a minus. None where it was not asked for.
    full, reference
        Delta with all gates open and shut, shape (episode,).
    error
        By how much contributions miss full - reference, relative (`COMPLETE`), shape (episode,).
    steps
        Nodes taken, shape (episode,).
    """

    head: Float[np.ndarray, "episode layer head"]
    mlp: Float[np.ndarray, "episode layer"] | None
    by_source: Float[np.ndarray, "episode layer head source role"] | None
    full: Float[np.ndarray, " episode"]
    reference: Float[np.ndarray, " episode"]
    error: Float[np.ndarray, " episode"]
    steps: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, without those that are None."""
        return {name: x for name, x in vars(self).items() if x is not None}

    @classmethod
    def joined(cls, parts: Sequence[Mapping[str, np.ndarray]]) -> TotalEffects:
        """What `arrays` of some batches gave, as one."""
        found: dict[str, Any] = dict.fromkeys(("mlp", "by_source"))
        found |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return cls(**found)


def total_effects(
    anatomy: Anatomy,
    episodes: Sequence[Episode],
    means: ShotMeans,
    weights: Float[np.ndarray, " shot"],
    *,
    steps: int = 8,
    mlps: bool = False,
    by_source: bool = False,
) -> TotalEffects:
    """Contributions of every head to delta on some episodes, run as one batch.

    An episode whose contributions do not add up is taken again with twice the nodes, `MOST_STEPS` at most.

    Parameters
    ----------
    anatomy, episodes
        The model's parts, and what they run.
    means
        What gates move from.
    weights
        Of L(n), which make delta; 0 where n does not count.
    steps
        Gauss-Legendre nodes.
    mlps
        Give MLPs gates as well.
    by_source
        Split heads over what they attend to.
    """
    run = _Run.of(anatomy, episodes, means, weights, mlps, by_source)
    found = run.integrate(steps)
    poor = np.flatnonzero(~(found.error <= COMPLETE)).tolist()
    if len(poor) and 2 * steps <= MOST_STEPS:
        again = total_effects(
            anatomy, [episodes[i] for i in poor], means, weights, steps=2 * steps, mlps=mlps, by_source=by_source
        )
        for name, x in again.arrays().items():
            getattr(found, name)[poor] = x
    return found


class _Run(NamedTuple):
    """Some episodes as one batch."""

    anatomy: Anatomy
    episodes: Sequence[Episode]
    ids: Tensor
    positions: Tensor
    asked: Asked
    reference: Reference
    weights: Tensor
    by_source: bool

    @classmethod
    def of(
        cls,
        anatomy: Anatomy,
        episodes: Sequence[Episode],
        means: ShotMeans,
        weights: Float[np.ndarray, " shot"],
        mlps: bool,
        by_source: bool,
    ) -> _Run:
        device = anatomy.unembedding.device
        asked = Asked.of(episodes, anatomy.unembedding.shape[0], device)
        return cls(
            anatomy,
            episodes,
            pad([e.prompt.tokens for e in episodes]).to(device),
            torch.from_numpy(asked.positions).to(device),
            asked,
            means.reference(episodes, mlps=mlps),
            torch.from_numpy(np.asarray(weights, float)).to(device),
            by_source,
        )

    def at(self, gate: float) -> tuple[GatedPass, Float[Tensor, " episode"]]:
        """A pass with all gates there, and delta of each episode."""
        keep = self.by_source and torch.is_grad_enabled()
        one = gated_pass(self.anatomy, self.ids, self.positions, self.reference, gate, keep_attention=keep)
        log_odds = self.asked.log_odds(one.logits).view(len(self.episodes), -1)
        return one, log_odds @ self.weights

    def integrate(self, steps: int) -> TotalEffects:
        """Contributions by some nodes."""
        batch, n_layers, n_heads = len(self.episodes), self.anatomy.n_layers, self.anatomy.n_heads
        head = np.zeros((batch, n_layers, n_heads))
        mlp = None if self.reference.mlps is None else np.zeros((batch, n_layers))
        split = np.zeros((batch, n_layers, n_heads, len(SOURCES), len(ROLES))) if self.by_source else None
        nodes, shares = np.polynomial.legendre.leggauss(steps)
        with torch.inference_mode():
            full, reference = (self.at(end)[1].cpu().numpy() for end in (1.0, 0.0))
        for node, share in zip((nodes + 1) / 2, shares / 2):
            with torch.enable_grad(), weights_fixed(self.anatomy.hf):
                one, delta = self.at(float(node))
                outputs = [*one.outputs.values(), *one.mlp_outputs.values()]
                slopes = torch.autograd.grad(delta.sum(), outputs)
            with torch.inference_mode():
                for (layer, moved), slope in zip(one.moved.items(), slopes):
                    n_own = self.anatomy.shapes[layer][0]
                    product = by_head(slope * moved, n_own).sum((1, 3), dtype=torch.float64)
                    head[:, layer, :n_own] += share * product.cpu().numpy()
                    if split is not None:
                        own = slope * one.factors[layer] if layer in one.factors else slope
                        found = self._by_source(one.attention[layer], own)
                        split[:, layer, :n_own] += share * found.cpu().numpy()
                for (layer, moved), slope in zip(one.mlp_moved.items(), slopes[len(one.moved) :]):
                    assert mlp is not None
                    mlp[:, layer] += share * (slope * moved).sum((1, 2), dtype=torch.float64).cpu().numpy()
        added = head.sum((1, 2)) + (0 if mlp is None else mlp.sum(1))
        size = np.maximum(np.abs(full - reference), np.abs(self.weights.cpu().numpy()).sum())
        error = np.abs(added - (full - reference)) / size
        return TotalEffects(head, mlp, split, full, reference, error, np.full(batch, steps))

    def _by_source(
        self, one: Attention, slope: Float[Tensor, "batch pos width"]
    ) -> Float[Tensor, "batch head source role"]:
        """A layer's contributions by what heads attend to: attention * value . slope, as direct effects are split."""
        n_heads, (batch, width) = self.anatomy.shapes[one.layer][0], self.ids.shape
        slope_ = by_head(slope, n_heads).transpose(1, 2)  # (batch, head, pos, d_head)
        value_bias = self.anatomy.narrowed(self.anatomy.value_bias[one.layer], one.layer)
        bias = (slope_ * value_bias[:, None]).sum(-1)
        grouped = slope_.reshape(batch, one.value.shape[1], -1, one.value.shape[3])
        worth = (grouped @ one.value.transpose(-1, -2)).view(batch, n_heads, width, width) - bias[..., None]
        causal = torch.ones(width, width, dtype=torch.bool, device=slope.device).tril()
        mask = causal if one.mask is None else one.mask[..., :width]
        worth *= one.weights(one.scores(one.query, one.key), mask)
        shot, role = (
            torch.from_numpy(np.stack([np.pad(x, (0, width - len(x)), constant_values=-2) for x in each]))
            for each in zip(*((e.places.shot, e.places.role) for e in self.episodes))
        )
        shot, role = shot.to(slope.device), role.to(slope.device)
        is_role = torch.nn.functional.one_hot(role.clamp(min=0), len(ROLES)).to(worth.dtype)
        is_role *= (shot >= 0)[..., None]
        earlier = (shot[:, None, :] < shot[:, :, None]).to(worth.dtype)
        both = [worth.sum(2), torch.einsum("bhts,bts->bhs", worth, earlier)]  # over tokens that heads write at
        all_, before = (x @ is_role for x in both)  # (batch, head, role); the sink is of no role here
        sink = torch.zeros_like(all_)
        sink[..., ROLES.index("separator")] = (both[0] * (shot == -1)[:, None]).sum(-1)
        return torch.stack([sink, before, all_ - before], dim=2).double()


def read_without(
    anatomy: Anatomy, episode: Episode, heads: Sequence[Head], means: ShotMeans
) -> dict[str, Float[np.ndarray, " shot"]]:
    """The log-odds attributed, without each of some heads, ablated one by one at all tokens.

    Returns
    -------
    dict
        By name of the head, and of no head as ``none``; nats.
    """
    return read_without_sets(anatomy, episode, {name_of(head): [head] for head in heads}, means)


def read_without_sets(
    anatomy: Anatomy, episode: Episode, sets: Mapping[str, Heads], means: ShotMeans
) -> dict[str, Float[np.ndarray, " shot"]]:
    """As `read_without`, of sets of heads, each ablated together; by name of the set.

    Layers below a set's first head are taken from the plain run.
    """
    target = episode.target
    ids = pad([episode.prompt.tokens]).to(anatomy.unembedding.device)

    def read() -> Float[np.ndarray, " shot"]:
        with torch.inference_mode(), unembedding(anatomy, target.positions.tolist()):
            return shot_log_odds(anatomy.hf(input_ids=ids, use_cache=False).logits[0], target)

    begins = {name: min(layer for layer, _ in heads) for name, heads in sets.items()}
    with blocks_kept(anatomy, sorted(set(begins.values()))) as kept:
        found = {"none": read()}
    for name, layer in begins.items():
        with starting_at(anatomy, layer, kept[layer]), heads_replaced(anatomy, means.edits(episode, sets[name])):
            found[name] = read()
    return found
