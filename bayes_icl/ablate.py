"""What goes when heads are taken away: sets of heads, what stands in for them, the curves collected again.

`ablate_episode` ablates to means over the task's episodes, in two ways, since they ask two questions. ``held``: a head
hands on its mean output over the task's episodes and shots, so that nothing it does can grow with the number of
examples. ``mean``: the mean is over episodes at the same shot, so what it says of this episode's examples and query is
gone, and what it writes in all of them at that shot is not. Both act at every token, on what later heads read too,
where a direct effect is of the answer's position alone. Ablating to zero would change the norm of the residual stream
besides.

`StandIns` serve the experiments on one number of examples, where the question is the task itself. A mean over episodes
of the task holds the task (it is what a task vector is made of), so the reference there are the same episodes with
their answers permuted among the examples, which show the form and no rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from bayes_icl.effects import WAYS, Episode, MeanOutputs, Parts, direct_effects, token_log_odds
from bayes_icl.errors import StatedError, unknown
from bayes_icl.prompts import ROLES, Prompt
from bayes_icl.readouts import EpisodeReading, Vocabulary
from bayes_icl.stream import Anatomy, Edits, blocks_kept, heads_replaced, outputs_of, starting_at

if TYPE_CHECKING:
    import pandas as pd

    from bayes_icl.models import Model

Heads = Sequence[tuple[int, int]]
"""(layer, head) of each."""


def name_of(head: tuple[int, int]) -> str:
    """A head's name in tables and figures."""
    return f"L{head[0]}H{head[1]}"


def by_layer(heads: Heads) -> dict[int, list[int]]:
    """The heads of each layer."""
    found: dict[int, list[int]] = {}
    for layer, head in heads:
        found.setdefault(layer, []).append(head)
    return found


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
    """Log-odds of the token attributed at every shot, from logits at the positions of a reading, nats."""
    rows = [reading.positions.index(p) for p in episode.target.positions]
    correct, foil = (
        None if x is None else torch.from_numpy(x).to(logits.device)
        for x in (episode.target.correct, episode.target.foil)
    )
    assert correct is not None
    return token_log_odds(logits[rows], correct, foil).cpu().numpy()


def ablate_episode(
    model: Model,
    episode: Episode,
    sets: Mapping[str, Heads],
    means: MeanOutputs,
    vocabulary: Vocabulary,
    *,
    ways: Sequence[str] = WAYS,
    apart: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """An episode read again without each set of heads.

    Layers below the first head of a set are taken from a run without any ablation.

    Parameters
    ----------
    ways
        ``mean``, ``held`` or both.
    apart
        Sets whose loss is taken apart as well, which takes a run of all layers.

    Returns
    -------
    By way and set, each of shape (shot,), nats: ``log_odds`` of the token attributed; ``curve``, the `complement` of
    the whole answer; ``taken``, the direct effect that goes with the heads, along the clean run's direction; and for
    sets in `apart` what `loss_apart` gives.
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


def _taken(model: Model, episode: Episode, clean: Parts, edits: Edits) -> np.ndarray:
    """Direct effect of some heads in the clean run less that of what stands in for them, shape (shot,)."""
    total = np.zeros(len(episode.target.positions))
    for layer, (heads, values) in edits.items():
        seen = clean.seen[layer][:, list(heads)]
        instead = values[0, episode.target.positions].to(seen.device) - model.anatomy.value_bias[layer][list(heads)]
        total += clean.head[:, layer, list(heads)].sum(1) - (seen * instead).sum((1, 2)).cpu().numpy()
    return total


def ablated_effects(
    model: Model,
    episode: Episode,
    heads: Heads,
    means: MeanOutputs,
    way: str = "mean",
    *,
    along: torch.Tensor | None = None,
) -> Parts:
    """Direct effects on an episode with some heads mean-ablated; `along` as in `effects.direct_effects`."""
    with heads_replaced(model.anatomy, edits_of(heads, means, episode.seq, way)):
        return direct_effects(model.anatomy, [episode], by_source=False, along=along)


def loss_apart(clean: Parts, ablated: Parts, heads: Heads, taken: Float[np.ndarray, " shot"]) -> dict[str, np.ndarray]:
    """What becomes of the direct effect that goes with some heads, shape (shot,), nats.

    lost = taken - other_heads - mlps - norm: what the other heads and the MLPs write more than before, along the clean
    run's direction (self-repair as Rushing and Nanda 2024, arXiv 2402.15390, take it apart), and what the scales of
    norms and the competing tokens change. Where a norm follows attention, its scale is in what other heads write.

    Parameters
    ----------
    ablated
        Along the direction of `clean`.
    taken
        The direct effect that goes with the heads.
    """
    layers, numbers = np.array(heads).T
    change = ablated.head.astype(np.float64) - clean.head
    own = change[:, layers, numbers].sum(1)
    others, mlps = change.sum((1, 2)) - own, (ablated.mlp - clean.mlp).sum(1)
    norm = ablated.log_odds - clean.log_odds + taken - others - mlps
    return {"other_heads": others, "mlps": mlps, "norm": norm}


KINDS = ("zero", "mean", "resample")
"""What stands in for a head: nothing, its mean output over reference episodes at the same place, or one of theirs."""


class StandIns:
    """What heads and MLPs put out in reference episodes, where the tokens of given episodes stand.

    A place is a shot, a role and a distance from the answer, as in `MeanOutputs`.

    Parameters
    ----------
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
        """Stand-ins for all heads and all MLPs of an episode; `kind` is one of `KINDS`."""
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
    """Edits that put what `StandIns.of` gives in the place of some heads, at some positions."""
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


def heads_named(
    specs: Sequence[str], n_layers: int, n_heads: int, ranks: pd.DataFrame | None = None, rank_by: str = ""
) -> list[tuple[int, int]]:
    """Heads that a command line names.

    Parameters
    ----------
    specs
        Each a head (``L12H3``), a layer (``12``), a range of layers (``10-11``), or ``top8``: the eight heads with the
        largest `rank_by` in a table.
    ranks
        A table with the columns layer, head and `rank_by`.

    Raises
    ------
    StatedError
        A name of another form, a head or layer that the model has not, or no table to rank by.
    """
    found: list[tuple[int, int]] = []
    for spec in specs:
        if match := re.fullmatch("L([0-9]{1,9})H([0-9]{1,9})", spec):
            found.append((int(match[1]), int(match[2])))
        elif match := re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", spec):
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise StatedError(f"--ablate {spec}: a range of layers goes up, as in {last}-{first}")
            layers = range(first, min(last, first + n_layers) + 1)  # one too many says that there is none
            found += [(layer, head) for layer in layers for head in range(n_heads)]
        elif match := re.fullmatch("top([0-9]{1,9})", spec):
            if ranks is None:
                raise StatedError(f"--ablate {spec}: give the table to rank by with --ranks")
            if missing := [name for name in ("layer", "head", rank_by) if name not in ranks]:
                raise unknown("column in the table of --ranks:", missing[0], list(ranks))
            rows = ranks[ranks["head"].notna() & ranks["layer"].notna()].nlargest(int(match[1]), rank_by)
            found += [(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"])]
        else:
            raise StatedError(f"--ablate {spec}: expected a head (L12H3), a layer (12), layers (10-11) or top8")
    for layer, head in found:
        if layer >= n_layers or head >= n_heads:
            raise StatedError(
                f"the model has no head L{layer}H{head}: it has layers 0 to {n_layers - 1} and heads 0 to {n_heads - 1}"
            )
    return list(dict.fromkeys(found))
