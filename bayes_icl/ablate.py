"""What goes when heads are taken away: mean-ablation of sets of heads, the curves collected again.

Two kinds, since they ask two questions. ``mean``: a head hands on its mean output over the episodes of the task at the
same shot and place, so what it says of this episode's examples and query is gone, and what it writes in all of them at
that shot is not. ``held``: the mean is over shots too, so that what grows with the number of examples in all episodes
alike is gone as well. Ablating to zero would change the norm of the residual stream besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayes_icl.effects import Episode, MeanOutputs, Parts, direct_effects, token_log_odds
from bayes_icl.errors import StatedError
from bayes_icl.readouts import EpisodeReading, Vocabulary
from bayes_icl.stream import Edits, blocks_kept, heads_replaced, starting_at

if TYPE_CHECKING:
    from bayes_icl.models import Model

Heads = Sequence[tuple[int, int]]
"""(layer, head) of each."""


def edits_of(heads: Heads, means: MeanOutputs, seq: int, kind: str = "mean") -> Edits:
    """Edits that mean-ablate some heads in a sequence.

    Raises
    ------
    StatedError
        No heads.
    """
    if not heads:
        raise StatedError("no heads to ablate")
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    return {layer: (own, means.at(seq, layer, own, kind)) for layer, own in by_layer.items()}


def ablate_episode(
    model: Model,
    episode: Episode,
    sets: Mapping[str, Heads],
    means: MeanOutputs,
    vocabulary: Vocabulary,
    kind: str = "mean",
) -> dict[str, dict[str, list[float]]]:
    """An episode read again without each set of heads.

    Layers below the first head of a set are taken from a run without any ablation.

    Parameters
    ----------
    kind
        ``mean`` or ``held``.

    Returns
    -------
    By set, ``log_odds`` of the token attributed, and ``curve``, the `complement` of the whole answer; shape (shot,),
    nats.
    """
    plain = replace(model, hf=model.plain)
    anatomy, prompt = model.anatomy, episode.prompt
    reading = EpisodeReading(None, prompt, ("complement",), vocabulary)
    rows = [reading.positions.index(p) for p in episode.target.positions]
    correct, foil = (
        None if x is None else torch.from_numpy(x).to(model.device)
        for x in (episode.target.correct, episode.target.foil)
    )
    assert correct is not None
    edits = {name: edits_of(heads, means, episode.seq, kind) for name, heads in sets.items()}
    begins = {name: min(own) for name, own in edits.items()}
    read: Callable[[], torch.Tensor] = lambda: plain.logits_at(  # noqa: E731
        [prompt.tokens], [reading.positions], [prompt.branches], [()]
    )[0]
    with blocks_kept(anatomy, sorted(set(begins.values()))) as kept:
        read()
    found = {}
    for name, begin in begins.items():
        with starting_at(anatomy, begin, kept[begin]), heads_replaced(anatomy, edits[name]):
            logits = read()
        buckets, _ = reading.read(logits)
        found[name] = {
            "log_odds": token_log_odds(logits[rows], correct, foil).tolist(),
            "curve": (buckets[0, :, 0] - buckets[0, :, 1]).tolist(),
        }
    return found


def ablated_effects(model: Model, episode: Episode, heads: Heads, means: MeanOutputs, kind: str = "mean") -> Parts:
    """Direct effects on an episode with some heads mean-ablated: what the others make up for."""
    with heads_replaced(model.anatomy, edits_of(heads, means, episode.seq, kind)):
        return direct_effects(model.anatomy, [episode], by_source=False)


def parts_by_kind(parts: Parts, heads: Heads) -> dict[str, list[float]]:
    """Effects of the heads named, all other heads, MLPs and the rest, shape (shot,): they add up to the log-odds."""
    layers, numbers = np.array(heads).T
    named = parts.head[:, layers, numbers].sum(1, dtype=np.float64)
    every = parts.head.sum((1, 2), dtype=np.float64)
    rest: Any = parts.embedding + parts.bias - parts.entropy + parts.error
    kinds = {"set": named, "other_heads": every - named, "mlps": parts.mlp.sum(1), "rest": rest}
    return {name: x.tolist() for name, x in kinds.items()}
