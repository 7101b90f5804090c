"""Mean outputs of heads and MLPs by role and place, which an ablated head writes instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.models.prompts import Places

TASK_MEANS = ("mean", "mean_over_shots")
"""Ablation values of `attribute`: a head's mean output over the task's own episodes, at the same shot and place
(``mean``) or over shots as well (``mean_over_shots``).

Both hold the task, and one of them what grows with examples. They are not the ``mean`` of
`ablation_values.REFERENCE_KINDS`, which is over reference episodes that show no rule.
"""


class MeanOutputs:
    """Mean output of every head over the episodes of a task: at the same shot and place within it, or over shots too.

    A place is a role and a distance from the answer of the shot, so queries of unequal length meet at their ends. A
    mean includes the episode it replaces, and a place that one episode alone has keeps its own output. Means over
    shots weigh all shots alike, n = 0 too. The sink is a place of its own.

    Attributes
    ----------
    of_token
        By sequence: the group of each token, shape (pos,).
    sums
        Shape (layer, group, head * d_head).
    """

    def __init__(
        self,
        anatomy: Anatomy,
        episodes: Sequence[Episode],
        *,
        over: Sequence[Episode] | None = None,
        width: int = 0,
    ) -> None:
        """`over`: the episodes whose outputs are averaged, if not these; `width` of an output, if not that of heads."""
        over = episodes if over is None else over
        self._groups: dict[tuple[int, int, int], int] = {}
        self.of_token = {e.seq: torch.from_numpy(self._number(e.places)) for e in episodes}
        averaged = [torch.from_numpy(self._number(e.places)) for e in over]
        n, width = len(self._groups), width or anatomy.w_out[0].shape[:2].numel()
        self.sums = torch.zeros(anatomy.n_layers, n, width)
        self._counts = torch.zeros(n)
        for groups in averaged:
            self._counts += torch.bincount(groups, minlength=n)
        self._d_head = anatomy.w_out[0].shape[1]
        # Groups that differ by shot only, for means over shots.
        held: dict[tuple[bool, int, int], int] = {}
        numbers = [held.setdefault((s < 0, role, offset), len(held)) for s, role, offset in self._groups]
        self._held = torch.tensor(numbers)

    def _number(self, places: Places) -> np.ndarray:
        found = zip(places.shot.tolist(), places.role.tolist(), places.offset.tolist())
        return np.array([self._groups.setdefault(place, len(self._groups)) for place in found])

    def restore(self, sums: np.ndarray) -> None:
        """Take the sums of a run before."""
        if sums.shape != tuple(self.sums.shape):
            raise ValueError(f"sums of shape {tuple(self.sums.shape)} expected, got {sums.shape}")
        self.sums = torch.from_numpy(sums)

    def taking(self, episodes: Sequence[Episode]) -> Any:
        """A function for `stream.watch` that adds these episodes' outputs."""

        def take(layer: int, z: Tensor) -> None:
            for i, episode in enumerate(episodes):
                self.add(episode.places, layer, z[i, : len(episode.places.shot)].flatten(1))

        return take

    def add(self, places: Places, layer: int, outputs: Float[Tensor, "pos width"]) -> None:
        """Count an episode's outputs."""
        self.sums[layer].index_add_(0, torch.from_numpy(self._number(places)), outputs.cpu())

    def taken_norm(
        self, anatomy: Anatomy, episodes: Sequence[Episode], norm: Float[np.ndarray, "layer head"]
    ) -> Float[np.ndarray, "layer head"]:
        """Root mean square norm of what holding a head at its mean takes from the residual stream, at the answers.

        Exact where all tokens at the places read are read, as with a fixed `token`; with forks at several depths the
        mean is over other tokens too.

        Parameters
        ----------
        anatomy
            The model's parts.
        episodes
            Those whose answers are meant.
        norm
            Of what heads write there, as in the effects format.
        """
        at = torch.cat([self._held[self.of_token[e.seq][e.target.positions]] for e in episodes])
        # Answers count alike, however many of their tokens are read.
        steps = [np.bincount(e.target.shot)[e.target.shot] for e in episodes]
        share = torch.bincount(at, torch.from_numpy(1 / np.concatenate(steps)), minlength=int(self._held.max()) + 1)
        share = (share / share.sum()).to(self.sums.dtype)
        squares = []
        for layer in range(anatomy.n_layers):
            means = self._held_means(layer).unflatten(1, (-1, self._d_head))
            size = torch.einsum("ghk,hkj,ghj->gh", means, anatomy.gram[layer].cpu(), means)
            squares.append((share[:, None] * size).sum(0).numpy())
        return np.sqrt(np.maximum(norm**2 - np.stack(squares), 0))

    def _held_means(self, layer: int) -> Float[Tensor, "place width"]:
        """Mean outputs over episodes and shots."""
        n = int(self._held.max()) + 1
        sums = torch.zeros(n, self.sums.shape[2]).index_add_(0, self._held, self.sums[layer])
        return sums / torch.zeros(n).index_add_(0, self._held, self._counts)[:, None].clamp(min=1)

    def rows(self, seq: int, layer: int, way: str = "mean") -> Float[Tensor, "pos width"]:
        """Mean outputs where a sequence's tokens stand; over shots where no episode averaged has that shot's place."""
        groups = self.of_token[seq]
        counts = self._counts[groups][:, None]
        if way == "mean" and counts.all():
            return self.sums[layer][groups] / counts
        held = self._held_means(layer)[self._held[groups]]
        return (
            held
            if way == "mean_over_shots"
            else torch.where(counts > 0, self.sums[layer][groups] / counts.clamp(min=1), held)
        )

    def at(self, seq: int, layer: int, heads: Sequence[int], way: str = "mean") -> Float[Tensor, "1 pos chosen d_head"]:
        """Mean outputs of some heads where a sequence's tokens stand; `way` is one of `TASK_MEANS`."""
        return self.rows(seq, layer, way).unflatten(1, (-1, self._d_head))[None, :, list(heads)]
