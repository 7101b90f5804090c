"""What an ablated head or MLP writes instead: nothing, a mean over reference episodes, one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.edits import Edits, outputs_of
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.head_names import Heads, by_layer
from bayes_icl.mechanism.mean_outputs import MeanOutputs
from bayes_icl.models.prompts import ROLES

REFERENCE_KINDS = ("zero", "mean", "resample")
"""Ablation values of `patch`: nothing, a head's mean output over reference episodes at a place, or one of theirs.

``mean`` is over *reference* episodes (answers permuted, unless asked otherwise), which show no rule. It is not the
``mean`` of `mean_outputs.TASK_MEANS`, which is over the task's own episodes and holds the task.
"""


class AblationValues:
    """What heads and MLPs put out in reference episodes, where the tokens of given episodes stand.

    A place is a shot, a role and a distance from the answer, as in `MeanOutputs`.

    Parameters
    ----------
    anatomy
        The model's parts.
    episodes
        Those to be ablated.
    references
        One for each, which `resample` takes; `mean` averages over all of them. A token whose place that one does not
        have (a longer answer) gets the mean.
    """

    def __init__(self, anatomy: Anatomy, episodes: Sequence[Episode], references: Sequence[Episode]) -> None:
        self._anatomy = anatomy
        self._reference = {e.seq: reference for e, reference in zip(episodes, references)}
        self._places = {e.seq: e.places for e in episodes}
        width = anatomy.unembedding.shape[1]
        self._heads = MeanOutputs(anatomy, episodes, over=references)
        self._mlps = MeanOutputs(anatomy, episodes, over=references, width=width)
        for reference in references:
            z, mlp = outputs_of(anatomy, reference.prompt.tokens)
            for layer in range(anatomy.n_layers):
                self._heads.add(reference.places, layer, z[layer].flatten(1))
                self._mlps.add(reference.places, layer, mlp[layer])

    def of(
        self, seq: int, kind: str
    ) -> tuple[Float[torch.Tensor, "layer pos head d_head"], Float[torch.Tensor, "layer pos d_model"]]:
        """Ablation values of all heads and all MLPs of an episode; `kind` is one of `REFERENCE_KINDS`."""
        anatomy = self._anatomy
        layers, n_heads = range(anatomy.n_layers), anatomy.n_heads
        if kind == "zero":
            shape = (anatomy.n_layers, len(self._places[seq].shot))
            return torch.zeros(*shape, *anatomy.w_out[0].shape[:2]), torch.zeros(*shape, anatomy.unembedding.shape[1])
        z, mlp = (torch.stack([means.rows(seq, layer) for layer in layers]) for means in (self._heads, self._mlps))
        z = z.unflatten(-1, (n_heads, -1))
        if kind == "resample":
            reference = self._reference[seq]
            at = {place: i for i, place in enumerate(zip(*(x.tolist() for x in reference.places)))}
            found = [at.get(place, -1) for place in zip(*(x.tolist() for x in self._places[seq]))]
            here = np.flatnonzero(np.array(found) >= 0)
            theirs = outputs_of(anatomy, reference.prompt.tokens)
            for own, other in zip((z, mlp), theirs):
                own[:, here] = other[:, np.array(found)[here]].to(own.device)
        return z, mlp


def edits_from(heads: Heads, z: Float[torch.Tensor, "layer pos head d_head"], at: Bool[np.ndarray, " pos"]) -> Edits:
    """Edits that put what `AblationValues.of` gives in the place of some heads, at some positions."""
    edits = {}
    for layer, own in by_layer(heads).items():
        values = z[layer][:, own].clone()
        values[torch.from_numpy(~at)] = torch.nan
        edits[layer] = (own, values[None])
    return edits


def places_ablated(episode: Episode, where: str) -> Bool[np.ndarray, " pos"]:
    """Tokens of a cut episode: everywhere but the first, the last, or those of a role in its examples and query.

    What heads hand on at the first token, the sink, is the same in all episodes; without it, later tokens go astray.
    """
    if where == "everywhere":
        return episode.places.shot >= 0
    if where == "last":
        return np.arange(len(episode.places.shot)) == len(episode.places.shot) - 1
    return (episode.places.role == ROLES.index(where)) & (episode.places.shot >= 0)
