"""What goes when heads are ablated: sets of heads, what replaces them, the curves collected again.

`ablate_episode` ablates to means over the task's episodes, in two ways, since they ask two questions.
``mean_over_shots``: a head hands on its mean output over the task's episodes and shots, so that nothing it does can
grow with the number of examples. ``mean``: the mean is over episodes at the same shot, so what it says of this
episode's examples and query is gone, and what it writes in all of them at that shot is not. Both act at every token, on
what later heads read too, where a direct effect is of the answer's position alone. Ablating to zero would change the
norm of the residual stream besides.

Both are means over the task's own episodes (`mean_outputs.TASK_MEANS`). The experiments on one number of examples,
where the question is the task itself, take `AblationValues` instead (`ablation_values.REFERENCE_KINDS`): a mean over
episodes of the task holds the task (it is what a task vector is made of), so the reference there are the same episodes
with their answers permuted among the examples, which show the form and no rule.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.edits import Edits, blocks_kept, heads_replaced, starting_at
from bayes_icl.mechanism.answer_odds import shot_log_odds
from bayes_icl.mechanism.direct_effects import DirectEffects, direct_effects
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.head_names import Heads, by_layer
from bayes_icl.mechanism.mean_outputs import TASK_MEANS, MeanOutputs
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import Prompt
from bayes_icl.models.readouts import EpisodeReading, Vocabulary


def edits_of(heads: Heads, means: MeanOutputs, seq: int, way: str = "mean") -> Edits:
    """Edits that mean-ablate some heads in a sequence, at every token.

    Raises
    ------
    StatedError
        No heads.
    """
    if not heads:
        raise StatedError("no heads to ablate")
    return {layer: (own, means.at(seq, layer, own, way)) for layer, own in by_layer(heads).items()}


def read_answers(
    model: Model, prompt: Prompt, reading: EpisodeReading
) -> tuple[torch.Tensor, Float[np.ndarray, " shot"]]:
    """Logits at the positions of a reading, and the `complement` of whole answers, nats."""
    logits, _ = model.logits_at([prompt.tokens], [reading.positions], [prompt.branches], [()])
    buckets, _ = reading.read(logits)
    return logits, buckets[0, :, 0] - buckets[0, :, 1]


def read_targets(logits: torch.Tensor, reading: EpisodeReading, episode: Episode) -> Float[np.ndarray, " shot"]:
    """The log-odds attributed at every shot, from logits at the positions of a reading, nats."""
    rows = [reading.positions.index(p) for p in episode.target.positions]
    return shot_log_odds(logits[rows], episode.target)


def ablate_episode(
    model: Model,
    episode: Episode,
    sets: Mapping[str, Heads],
    means: MeanOutputs,
    vocabulary: Vocabulary,
    *,
    ways: Sequence[str] = TASK_MEANS,
    apart: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """An episode read again without each set of heads.

    Layers below the first head of a set are taken from a run without any ablation.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    episode
        One of a curves file, with the token attributed.
    sets
        Heads to ablate together, by name of the set.
    means
        What heads are ablated to.
    vocabulary
        The model's texts, for `complement` of the whole answer.
    ways
        ``mean``, ``mean_over_shots`` or both.
    apart
        Sets whose loss is taken apart as well, which takes a run of all layers.

    Returns
    -------
    dict
        By way and set, each of shape (shot,), nats: ``log_odds`` of the token attributed; ``curve``, the `complement`
        of the whole answer; ``taken``, the direct effect that goes with the heads, along the clean run's direction;
        and for sets in `apart` what `loss_apart` gives.
    """
    plain = replace(model, hf=model.plain)
    anatomy, prompt = model.anatomy, episode.prompt
    reading = EpisodeReading(None, prompt, ("complement",), vocabulary)
    edits = {way: {name: edits_of(heads, means, episode.seq, way) for name, heads in sets.items()} for way in ways}
    begins = {name: min(layer for layer, _ in heads) for name, heads in sets.items()}
    with blocks_kept(anatomy, sorted(set(begins.values()))) as kept:
        clean = direct_effects(anatomy, [episode], by_source=False)
    found: dict[str, dict[str, Any]] = {way: {} for way in ways}
    for way in ways:
        for name, begin in begins.items():
            own = edits[way][name]
            with starting_at(anatomy, begin, kept[begin]), heads_replaced(anatomy, own):
                logits, curve = read_answers(plain, prompt, reading)
            found[way][name] = {
                "log_odds": read_targets(logits, reading, episode).tolist(),
                "curve": curve.tolist(),
                "taken": _taken(model, episode, clean, own).tolist(),
            }
            if name in apart:
                ablated = ablated_effects(model, episode, sets[name], means, way, along=clean.direction)
                apart_ = loss_apart(clean, ablated, sets[name], np.array(found[way][name]["taken"]))
                found[way][name] |= {k: x.tolist() for k, x in apart_.items()}
    return found


def _taken(model: Model, episode: Episode, clean: DirectEffects, edits: Edits) -> np.ndarray:
    """Direct effect of some heads in the clean run less that of what replaces them, shape (shot,)."""
    target = episode.target
    total = np.zeros(target.n_shots)
    for layer, (heads, values) in edits.items():
        seen = clean.seen[layer][:, list(heads)]
        instead = values[0, target.positions].to(seen.device) - model.anatomy.value_bias[layer][list(heads)]
        total += clean.head[:, layer, list(heads)].sum(1)
        total -= np.bincount(target.shot, (seen * instead).sum((1, 2), dtype=torch.float64).cpu().numpy())
    return total


def ablated_effects(
    model: Model,
    episode: Episode,
    heads: Heads,
    means: MeanOutputs,
    way: str = "mean",
    *,
    along: torch.Tensor | None = None,
) -> DirectEffects:
    """Direct effects on an episode with some heads mean-ablated; `along` as in `effects.direct_effects`."""
    with heads_replaced(model.anatomy, edits_of(heads, means, episode.seq, way)):
        return direct_effects(model.anatomy, [episode], by_source=False, along=along)


def loss_apart(
    clean: DirectEffects, ablated: DirectEffects, heads: Heads, taken: Float[np.ndarray, " shot"]
) -> dict[str, np.ndarray]:
    """What becomes of the direct effect that goes with some heads, shape (shot,), nats.

    lost = taken - other_heads - mlps - norm: what the other heads and the MLPs (other mixers among them) write more
    than before, along the clean run's direction (self-repair as Rushing and Nanda 2024, arXiv 2402.15390, take it
    apart), and what the scales of norms and the competing tokens change. Where a norm follows attention, its scale is
    in what other heads write.

    Parameters
    ----------
    clean
        Direct effects without ablation.
    ablated
        Along the direction of `clean`.
    heads
        The heads ablated.
    taken
        The direct effect that goes with the heads.
    """
    layers, numbers = np.array(heads).T
    change = ablated.head.astype(np.float64) - clean.head
    own = change[:, layers, numbers].sum(1)
    others, mlps = change.sum((1, 2)) - own, (ablated.mlp - clean.mlp + ablated.other - clean.other).sum(1)
    norm = ablated.log_odds - clean.log_odds + taken - others - mlps
    return {"other_heads": others, "mlps": mlps, "norm": norm}
