r"""Direct effects: what every head, MLP, embedding and bias adds to the log-odds of the answer.

With the scales of norms taken from the run, the residual stream is a sum, and logits are linear in it. Let q be the
model's distribution over the tokens other than the correct one t. Then::

    log P(t) - log P(not t) = logit(t) - sum_v q_v logit(v) - H(q)

exactly, so a component that writes c into the residual stream adds c . d to the log-odds, with
d = scale * gain * (W_U[t] - sum_v q_v W_U[v]) the direction that the unembedding reads through the final norm; -H(q)
belongs to none of them. Against a foil f the log-odds are logit(t) - logit(f), and nothing is left over. A head's
effect splits over the tokens that it attends to, attention * (value . W_O d): by contraction, so that nothing of shape
(head, position, d_model) is built.

What is not linear counts as the factor that it had in the run: the scales of norms, a gate on attention's output, and a
soft-cap of logits, cap(x) / x for a logit x before the cap. A learned sink takes attention and writes nothing.

Direct effect is not importance: what a head tells later components is not in it (see `ablation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.watching import Stream, watch
from bayes_icl.mechanism.answer_odds import Asked, answer_log_odds
from bayes_icl.mechanism.episodes import FORK, OWN, PARTING, WHOLE, Episode, Target, recorded_episodes, token_text
from bayes_icl.mechanism.line_effects import (
    LineEffects,
    Parts,
    Start,
    Writes,
    against_unembedding,
    along_line,
    by_token,
    mean_start,
    parts_along,
)
from bayes_icl.mechanism.mean_outputs import MeanOutputs
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import ROLES

COMPLETE = 1e-4  # parts and log-odds may differ by this share of the larger of 1 nat and the log-odds

SPLIT = 1e-5  # sources and a head's effect, as a share of what the sources add in all

_SCALE = "scale of the final norm as run"

METHOD = {
    OWN: f"direct effect on logit(correct) - sum_v q_v logit(v), {_SCALE}; entropy apart",
    WHOLE: f"the same of every step of the answer, {_SCALE}, by exact weights along the line from their means at n_min",
    FORK: f"direct effect on logit(correct) - logit(foil), {_SCALE}",
    PARTING: f"direct effect on log-odds of the labels where they part, {_SCALE}; entropy apart",
}

VARIABLES = {
    "effect": "what a head adds to log_odds",
    "effect_by_source": "its split over the sink, the examples shown and the query; NaN for examples not shown yet (of "
    "several tokens, before n_min, what a shot lacks by the examples that n_min has)",
    "effect_by_role": "the same by token role, mean over sequences",
    "attention_by_role": "attention mass, mean over sequences",
    "attention": "attention mass of a head on the examples shown",
    "mlp": "what an MLP adds to log_odds",
    "other": "what a mixer that is not attention adds to log_odds, or a second MLP; not where the model has none",
    "embedding": "what the embedding adds",
    "bias": "what biases add: of values, of projections, of norms, of the unembedding",
    "entropy": "entropy of the distribution over incorrect tokens, which log_odds has less; 0 for foil; of several "
    "tokens with a constant by which their log-odds differ from the answer's",
    "rest": "embedding + bias - entropy",
    "log_odds": "the quantity that effect, mlp, other and rest add up to: of the answer, or of a token given those "
    "before",
    "line_head": "what a head adds along the line from the mean stream at n_min",
    "line_mlp": "the same of an MLP",
    "line_others": "the same of what else adds (`other`)",
    "line_rest": "the same of the embedding and of biases",
    "line_asked": "log_odds of the answer asked, at the mean stream at n_min",
    "line_error": "log_odds less the sum of line_head, line_mlp, line_others, line_rest and line_asked",
    "curve": "log_odds of the whole answer, from the curves file",
    "ablated_log_odds": "log_odds without a set of heads, by way and set of ablation.csv",
    "error": "log_odds less the sum of its parts",
    "norm": "root mean square norm of what a head writes into the residual stream, at the positions read; NaN "
    "where there is no such head",
}


class DirectEffects(NamedTuple):
    """Effects of one pass, nats; shots are (episode, shot), steps (episode, step), tokens of answers.

    Of an answer of several steps, effects are sums over its steps of their weight (`Asked.weights`) times the effect on
    that step. They are what changes of a component count for, and add up to the log-odds once their level at the
    reference is set (`levelled`).

    Attributes
    ----------
    head
        Shape (shot, layer, head).
    by_place, attention
        Shape (shot, layer, head, place), places being the sink and then (shot, role); None where they were not wanted.
        Attention is the mean over steps.
    mlp, other
        Shape (shot, layer); `other` is what else a layer adds (`Anatomy.others`).
    embedding, bias, entropy, log_odds, error
        Shape (shot,).
    norm
        Shape (shot, layer, head), root mean square over steps.
    gap
        Shape (shot, layer): what a block adds less what its parts add; where an error comes from.
    direction
        Shape (step, d_model): what a write into the residual stream is multiplied with, times the step's weight.
    seen
        By layer, shape (step, head, d_head): the same for what heads hand to the output projection.
    steps
        Shape (shot, token): log-odds of steps; 0 where there is none.
    shift
        Shape (shot, token): weights of steps at the reference less mean weights on the way from there.
    level
        Shape (shot,): log-odds of the answer at the reference, less its steps' by their weights there.
    line
        The same log-odds taken apart along the line from the mean stream; None where it was not asked for.
    """

    head: np.ndarray
    by_place: np.ndarray | None
    attention: np.ndarray | None
    mlp: np.ndarray
    other: np.ndarray
    embedding: np.ndarray
    bias: np.ndarray
    entropy: np.ndarray
    log_odds: np.ndarray
    error: np.ndarray
    norm: np.ndarray
    gap: np.ndarray
    direction: Tensor
    seen: list[Tensor]
    steps: np.ndarray
    shift: np.ndarray
    level: np.ndarray
    line: LineEffects | None = None

    def levelled(self, start: Start) -> DirectEffects:
        """With each component at the reference what it writes there by the weights there, so that all add up."""
        if self.shift.shape[1] == 1:
            return self
        at = lambda x: np.tensordot(self.shift, x[: self.shift.shape[1]], 1)  # noqa: E731
        names = ("head", "mlp", "other", "embedding", "bias")
        moved = {name: getattr(self, name) + at(getattr(start, name)) for name in names}
        entropy = self.entropy + at(start.entropy) - self.level
        total = moved["head"].sum((1, 2)) + moved["mlp"].sum(1) + moved["other"].sum(1)
        total += moved["embedding"] + moved["bias"] - entropy
        return self._replace(**moved, entropy=entropy, error=self.log_odds - total)


def direct_effects(
    anatomy: Anatomy,
    episodes: Sequence[Episode],
    *,
    by_source: bool = True,
    on_z: Any = None,
    along: Float[Tensor, "step d_model"] | None = None,
    start: Start | None = None,
) -> DirectEffects:
    """Run some episodes and take the log-odds apart.

    Parameters
    ----------
    anatomy, episodes
        The model's parts, and what they run in one pass.
    by_source
        Split heads over the tokens attended to.
    on_z
        As in `stream.watch`.
    along
        Take effects along the direction of another run (`DirectEffects.direction`), so that what differs is what was
        written; they do not add up to this run's log-odds then.
    start
        The mean stream, to take the log-odds apart along the line from there too.
    """
    stream, asked = _watched(anatomy, episodes, on_z)
    with torch.inference_mode():
        rows = _take_apart(anatomy, stream, asked, along)
        return _by_answer(anatomy, stream, episodes, asked, rows, by_source=by_source, start=start, along=along)


def _watched(anatomy: Anatomy, episodes: Sequence[Episode], on_z: Any = None) -> tuple[Stream, Asked]:
    """A pass over some episodes, and what is read of it."""
    device = anatomy.unembedding.device
    asked = Asked.of(episodes, anatomy.unembedding.shape[0], device)
    return watch(anatomy, [e.prompt.tokens for e in episodes], asked.positions, on_z=on_z), asked


class _Steps(NamedTuple):
    """Effects on the log-odds of each step, not weighted; as in `DirectEffects`, tensors."""

    parts: Parts
    entropy: Tensor
    log_odds: Tensor
    gap: Tensor
    direction: Tensor
    constant: Tensor

    @property
    def bias(self) -> Tensor:
        """What biases add, of the final norm and the unembedding too."""
        return self.parts.bias + self.constant

    @property
    def total(self) -> Tensor:
        """What all components add."""
        head, mlp = self.parts.head.sum((1, 2), dtype=torch.float64), self.parts.mlp.sum(1)
        return head + mlp + self.parts.other.sum(1) + self.parts.embedding + self.bias - self.entropy


def _take_apart(anatomy: Anatomy, stream: Stream, asked: Asked, along: Tensor | None) -> _Steps:
    log_odds, slopes = asked.contrast(stream.logits)
    entropy = (slopes * stream.logits).sum(-1, dtype=torch.float64) - log_odds
    slopes = slopes * stream.scale
    read = against_unembedding(slopes, anatomy.unembedding)
    constant = torch.zeros_like(log_odds)
    if (bias := getattr(anatomy.unembed, "bias", None)) is not None:
        constant = (slopes @ bias).double()
    norm = anatomy.final_norm
    constant = constant + (read * norm.bias).sum(-1, dtype=torch.float64)
    direction = norm.back(read, norm.scale(stream.residual[-1], stream.normed)).float() if along is None else along
    parts = parts_along(anatomy, Writes.of(stream), direction)
    gaps = []
    for layer in range(anatomy.n_layers):
        before, then = (stream.residual[i] * anatomy.carried[i] for i in (layer, layer + 1))
        written = ((then - before) * direction).sum(-1, dtype=torch.float64)
        head = parts.head[:, layer].sum(-1, dtype=torch.float64)
        gaps.append(written - head - parts.block_bias[:, layer] - parts.mlp[:, layer] - parts.other[:, layer])
    return _Steps(parts, entropy, log_odds, torch.stack(gaps, dim=1), direction, constant)


def _by_answer(
    anatomy: Anatomy,
    stream: Stream,
    episodes: Sequence[Episode],
    asked: Asked,
    rows: _Steps,
    *,
    by_source: bool,
    start: Start | None,
    along: Tensor | None,
) -> DirectEffects:
    """Weighted sums over the steps of each answer; a direction `along` has its weights already."""
    steps = asked.by_answer(rows.log_odds)
    weights = asked.weights(steps)
    weight = asked.of_rows(weights) if along is None else (asked.of_rows(asked.real.double()))
    parts = rows.parts

    def summed(x: Tensor, by: Tensor = weight) -> np.ndarray:
        return asked.summed(x * by.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)).cpu().numpy()

    split = mass = None
    if by_source:
        places = _place_matrix(episodes, max(len(e.prompt.tokens) for e in episodes), weight.device)
        batch, n_read = asked.positions.shape
        each = [_by_place(anatomy, stream, i, parts.seen[i], places, batch, n_read) for i in range(anatomy.n_layers)]
        alike = asked.of_rows(asked.real / asked.real.sum(1, keepdim=True))
        split, mass = (np.stack([summed(pair[k], by) for pair in each], axis=1) for k, by in ((0, weight), (1, alike)))
    squares = [torch.einsum("rhk,hkj->rhj", z, gram) * z for z, gram in zip(stream.z, anatomy.gram)]
    size = torch.stack([x.sum(-1).clamp(min=0) for x in squares], dim=1)
    norm = np.sqrt(summed(size, asked.of_rows(asked.real / asked.real.sum(1, keepdim=True))))
    log_odds = answer_log_odds(steps, asked.real)
    shift, level = asked.from_reference(weights)
    head, mlp, other, embedding = (summed(x) for x in (parts.head, parts.mlp, parts.other, parts.embedding))
    bias, entropy = summed(rows.bias), summed(rows.entropy)
    error = summed(rows.log_odds - rows.total)
    line = None if start is None else along_line(anatomy, stream, asked, start)
    weighted = weight.float()
    return DirectEffects(
        head, split, mass, mlp, other, embedding, bias, entropy, log_odds.cpu().numpy(), error, norm, summed(rows.gap),
        rows.direction * weighted[:, None], [x * weighted[:, None, None] for x in parts.seen],
        steps.cpu().numpy(), shift.cpu().numpy(), level.cpu().numpy(), line,
    )  # fmt: skip


def _by_place(
    anatomy: Anatomy,
    stream: Stream,
    layer: int,
    seen: Float[Tensor, "row head d_head"],
    places: Float[Tensor, "batch pos place"],
    batch: int,
    n_read: int,
) -> tuple[Tensor, Tensor]:
    """A layer's effects and attention by place, shape (row, head, place)."""
    n_rows, n_all, n_places = len(seen), anatomy.n_heads, places.shape[2]
    if layer not in stream.pattern:
        nothing = seen.new_zeros(n_rows, n_all, n_places)
        return nothing, nothing
    pattern, values = stream.pattern[layer], stream.values[layer]
    n_heads, width = pattern.shape[1], pattern.shape[3]
    seen, value_bias = anatomy.narrowed(seen, layer), anatomy.narrowed(anatomy.value_bias[layer], layer)
    constant = (seen * value_bias).sum(-1)
    if layer in stream.gates:
        seen = seen * stream.gates[layer].view(seen.shape)
    by_head = seen.reshape(batch, n_read, n_heads, -1).transpose(1, 2)  # (batch, head, read, d_head)
    together = by_head.reshape(batch, values.shape[1], -1, values.shape[3])
    effect = (together @ values.transpose(-1, -2)).view(pattern.shape)
    effect -= constant.view(batch, n_read, n_heads).transpose(1, 2)[..., None]
    effect *= pattern
    both = torch.stack([effect, pattern], dim=1).view(batch, -1, width) @ places
    both = both.view(batch, 2, n_heads, n_read, -1).permute(1, 0, 3, 2, 4).flatten(1, 2)
    if n_heads < n_all:
        both = torch.nn.functional.pad(both, (0, 0, 0, n_all - n_heads))
    return both[0], both[1]


def _place_matrix(episodes: Sequence[Episode], width: int, device: torch.device) -> Float[Tensor, "batch pos place"]:
    """1 where a token is at a place: the sink first, then each role of each shot."""
    n_shots = 1 + max(int(episode.places.shot.max()) for episode in episodes)
    matrix = torch.zeros(len(episodes), width, 1 + n_shots * len(ROLES))
    for i, episode in enumerate(episodes):
        shot, role, _ = episode.places
        place = np.where(shot < 0, 0, 1 + shot * len(ROLES) + role)
        matrix[i, torch.arange(len(place)), torch.from_numpy(place)] = 1
    return matrix.to(device)


def start_at(anatomy: Anatomy, episodes: Sequence[Episode], shot: int) -> Start:
    """Means over sequences after so many examples, from passes over episodes that end with that shot.

    Parameters
    ----------
    anatomy, episodes
        The model's parts, and the sequences of a task.
    shot
        How many examples.
    """
    n_shots, n_tokens = episodes[0].target.n_shots, max(int(e.target.token.max()) + 1 for e in episodes)
    cut = [_until(episode, shot) for episode in episodes]
    writes, tokens, numbers = [], [], []
    for one in cut:
        stream, asked = _watched(anatomy, [one])
        with torch.inference_mode():
            rows = _take_apart(anatomy, stream, asked, None)
            parts = rows.parts
            found = {"log_odds": rows.log_odds, "embedding": parts.embedding, "bias": rows.bias}
            found |= {"entropy": rows.entropy, "head": parts.head, "mlp": parts.mlp, "other": parts.other}
            places = _place_matrix([one], len(one.prompt.tokens), rows.bias.device)
            each = [
                _by_place(anatomy, stream, i, parts.seen[i], places, *asked.positions.shape)[0]
                for i in range(anatomy.n_layers)
            ]
            found["by_source"] = _by_shot(torch.stack(each, dim=1), shot, n_shots)
            writes.append(Writes.of(stream).each(lambda x: x.cpu()))
        tokens.append(one.target.token)
        numbers.append({name: x.double().cpu().numpy() for name, x in found.items()})
    means = {
        name: by_token(np.concatenate([each[name] for each in numbers]), np.concatenate(tokens), n_tokens)
        for name in numbers[0]
    }
    return Start(shot, writes=mean_start(writes, tokens, n_tokens), **means)


def _until(episode: Episode, shot: int) -> Episode:
    """An episode cut after the tokens read at a shot, of which that shot alone is read."""
    target = episode.target
    own = target.shot == shot
    stop = int(target.positions[own].max()) + 1
    sets = None if target.sets is None else tuple(one for one, here in zip(target.sets, own) if here)
    read = Target(
        target.positions[own], target.correct[own], None if target.foil is None else target.foil[own],
        np.zeros(int(own.sum()), int), sets,
    )  # fmt: skip
    places = episode.places._replace(**{k: x[:stop] for k, x in episode.places._asdict().items()})
    return replace(
        episode, prompt=replace(episode.prompt, tokens=episode.prompt.tokens[:stop]), places=places, target=read
    )


def _by_shot(x: Float[Tensor, "row layer head place"], shot: int, n_shots: int) -> Tensor:
    """From places of episodes that end with a shot to (row, layer, head, source, role), the sources of `n_shots`."""
    out = torch.zeros(*x.shape[:3], n_shots + 1, len(ROLES), dtype=x.dtype, device=x.device)
    out[..., 0, ROLES.index("separator")] = x[..., 0]
    own = x[..., 1:].unflatten(-1, (-1, len(ROLES)))
    out[..., 1 : shot + 1, :] = own[..., :shot, :]
    out[..., -1, :] = own[..., shot, :]
    return out


def attribute_task(
    model: Model,
    curves: xr.Dataset,
    task: str,
    *,
    readout: str = "complement",
    token: int | None = None,
    whole: bool = False,
    start: Start | None = None,
    by_source: bool = True,
    batch_size: int = 0,
    on_batch: Any = None,
    means: MeanOutputs | None = None,
    episodes: Sequence[Episode] | None = None,
) -> xr.Dataset:
    """Direct effects on every sequence and shot of a task in a curves file.

    Parameters
    ----------
    model, curves, task, readout, token, whole
        As in `recorded_episodes`.
    start
        What lines from a mean stream begin at (`start_at`), for the log-odds taken apart along them as well; answers of
        several tokens need it.
    by_source
        Split heads over examples, sink and query, which takes most of the file.
    batch_size
        Episodes a pass; 0 takes 1 on a CPU and 16 on a GPU.
    on_batch
        Called with the number of episodes done.
    means
        Takes the mean outputs of heads, for mean-ablation.
    episodes
        What `recorded_episodes` gives, where it is at hand; `token` is theirs then, and with `start` the reference
        (`with_reference`).

    Returns
    -------
    Dataset
        In the effects format, one task.

    Raises
    ------
    StatedError
        The parts do not add up to the log-odds: names the worst place.
    """
    episodes = episodes or recorded_episodes(model, curves, task, readout=readout, token=token, whole=whole)
    batch_size = batch_size or (1 if model.device.type == "cpu" else 16)
    anatomy = model.anatomy
    n_seqs, n_shots = len(episodes), episodes[0].target.n_shots
    several = any(e.target.token.any() for e in episodes)
    if several and start is None:
        start = start_at(anatomy, episodes, 0)
    if start is not None:
        episodes = with_reference(episodes, start)
    shape = (n_seqs, n_shots, anatomy.n_layers, anatomy.n_heads)
    arrays = _empty_arrays(shape, by_source, line=start is not None)
    squares, by_role = np.zeros(shape[2:]), np.zeros((2, *shape[1:], n_shots + 1, len(ROLES)))
    worst = 0.0
    for first in range(0, n_seqs, batch_size):
        some = episodes[first : first + batch_size]
        raw = direct_effects(
            anatomy, some, by_source=by_source, on_z=means.taking(some) if means else None,
            start=start,
        )  # fmt: skip
        parts = raw.levelled(start) if start is not None else raw
        _check_complete(parts, some, task, n_shots)
        at = slice(first, first + len(some))
        for name, x in (("effect", parts.head), ("mlp", parts.mlp), ("other", parts.other)):
            arrays[name][at] = x.reshape(len(some), n_shots, *x.shape[1:])
        for name in SCALARS:
            arrays[name][at] = getattr(parts, name).reshape(len(some), n_shots)
        if parts.line is not None:
            for name, x in parts.line._asdict().items():
                arrays[LINE[name]][at] = x.reshape(len(some), n_shots, *x.shape[1:])
        squares += (parts.norm**2).sum(0)
        if parts.by_place is not None and parts.attention is not None:
            split, mass = (_by_example(x, len(some), n_shots) for x in (parts.by_place, parts.attention))
            if several and start is not None:
                split = _level_sources(split, parts, start)
            worst = max(worst, _check_split(split, parts, some, task))
            arrays["effect_by_source"][at] = split.sum(-1)
            arrays["attention"][at] = np.nansum(mass[..., 1:-1, :], axis=(-1, -2))
            by_role += np.stack([split.sum(0), mass.sum(0)])
        if on_batch:
            on_batch(len(some))
    arrays["norm"] = np.where(anatomy.exists(), np.sqrt(squares / (n_seqs * n_shots)), np.nan)
    if not any(anatomy.others):
        arrays = {name: x for name, x in arrays.items() if name not in ("other", LINE["others"])}
    roles = dict(zip(("effect_by_role", "attention_by_role"), by_role / n_seqs)) if by_source else {}
    dataset = _effects_dataset(curves, task, episodes, readout, arrays, roles)
    dataset = dataset.assign_coords(
        token_text=("task", [token_text(model, episodes)]), read=("task", [episodes[0].read])
    )
    for name in map(str, dataset):
        dataset[name].attrs["description"] = VARIABLES[name]
        if name not in ("attention", "attention_by_role", "norm"):
            dataset[name].attrs["units"] = "nats"
    dataset.attrs |= {"method": METHOD[episodes[0].read], "readout": readout, "model": model.name}
    dataset.attrs["completeness"] = float(_relative(arrays["error"], arrays["log_odds"]).max())
    dataset.attrs["split"] = worst
    return dataset


def with_reference(episodes: Sequence[Episode], start: Start) -> list[Episode]:
    """Episodes whose answers' steps have their weights on the way from the mean log-odds of a start."""
    return [replace(e, target=e.target._replace(reference=start.log_odds)) for e in episodes]


def _level_sources(split: np.ndarray, parts: DirectEffects, start: Start) -> np.ndarray:
    """The split over sources with each at its level at the reference, as in `DirectEffects.levelled`.

    Examples that the reference has and a shot before it has not are there with what they lack.
    """
    shift = parts.shift.reshape(*split.shape[:2], -1)
    level = np.tensordot(shift, start.by_source[: shift.shape[2]], 1)
    split[..., : start.shot + 1, :] = np.nan_to_num(split[..., : start.shot + 1, :])
    return split + level


SCALARS = ("embedding", "bias", "entropy", "log_odds", "error")  # one number a sequence and shot


LINE = {name: f"line_{name}" for name in LineEffects._fields}
"""Names of line effects in the effects format."""


def _empty_arrays(shape: tuple[int, int, int, int], by_source: bool, line: bool) -> dict[str, np.ndarray]:
    """Arrays of the effects format, to be filled; shape (seq, shot, layer, head)."""
    arrays: dict[str, np.ndarray] = {"effect": np.zeros(shape, np.float32)}
    if by_source:
        arrays["attention"] = np.zeros(shape, np.float32)
        arrays["effect_by_source"] = np.full((*shape, shape[1] + 1), np.nan, np.float32)
    arrays |= {name: np.zeros(shape[:2]) for name in SCALARS}
    if line:
        arrays |= {name: np.zeros(shape[:2]) for name in LINE.values()}
        arrays |= {LINE["head"]: np.zeros(shape, np.float32)}
        arrays |= {LINE[name]: np.zeros(shape[:3]) for name in ("mlp", "others")}
    return arrays | {"mlp": np.zeros(shape[:3]), "other": np.zeros(shape[:3])}


def _effects_dataset(
    curves: xr.Dataset,
    task: str,
    episodes: Sequence[Episode],
    readout: str,
    arrays: Mapping[str, np.ndarray],
    roles: Mapping[str, np.ndarray],
) -> xr.Dataset:
    """Arrays of one task in the effects format, with the whole answer's curve.

    Parameters
    ----------
    arrays
        Of the shapes (seq, shot, ...), or (layer, head) for the norm.
    roles
        Of shape (shot, layer, head, source, role); none without sources.
    """
    dims = {
        "norm": ("layer", "head"),
        "mlp": ("seq", "shot", "layer"),
        "other": ("seq", "shot", "layer"),
        "effect": ("seq", "shot", "layer", "head"),
        "line_head": ("seq", "shot", "layer", "head"),
        "line_mlp": ("seq", "shot", "layer"),
        "line_others": ("seq", "shot", "layer"),
        "attention": ("seq", "shot", "layer", "head"),
        "effect_by_source": ("seq", "shot", "layer", "head", "source"),
    }
    variables: dict[str, Any] = {
        k: (dims.get(k, ("seq", "shot")), x) for k, x in arrays.items() if k not in ("effect_by_source", "norm")
    }
    variables["rest"] = (("seq", "shot"), arrays["embedding"] + arrays["bias"] - arrays["entropy"])
    variables["norm"] = (dims["norm"], arrays["norm"])
    _, n_shots, n_layers, n_heads = arrays["effect"].shape
    coords: dict[str, Any] = {
        "seq": [e.seq for e in episodes],
        "shot": curves.shot.values,
        "layer": np.arange(n_layers),
        "head": np.arange(n_heads),
    }
    if roles:
        variables["effect_by_source"] = (dims["effect_by_source"], arrays["effect_by_source"])
        for name, x in roles.items():
            variables[name] = (("shot", "layer", "head", "source", "role"), x.astype(np.float32))
        coords |= {"source": ["sink", *map(str, range(1, n_shots)), "query"], "role": list(ROLES)}
    whole = curves.log_odds.sel(task=task, readout=readout).transpose("seq", "shot").values
    variables["curve"] = (("seq", "shot"), whole.astype(np.float64))
    read = -1 if episodes[0].token is None else episodes[0].token
    return xr.Dataset(variables, coords).expand_dims(task=[task]).assign_coords(token=("task", [read]))


def _by_example(x: np.ndarray, batch: int, n_shots: int) -> np.ndarray:
    """From places to (episode, shot, layer, head, source, role): the sink, examples 1 to n_shots - 1, the query.

    At shot n the query is the text of shot n, and the examples those of the shots before it.
    """
    x = x.reshape(batch, n_shots, *x.shape[1:])
    shape = (*x.shape[:-1], n_shots + 1, len(ROLES))
    out = np.full(shape, np.nan)
    out[..., 0, :] = 0
    out[..., 0, ROLES.index("separator")] = x[..., 0]
    own = x[..., 1:].reshape(*x.shape[:-1], n_shots, len(ROLES))
    for n in range(n_shots):
        out[:, n, ..., 1 : n + 1, :] = own[:, n, ..., :n, :]
        out[:, n, ..., -1, :] = own[:, n, ..., n, :]
    return out


def _relative(error: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    return np.abs(error) / np.maximum(1.0, np.abs(log_odds))


def _check_complete(parts: DirectEffects, episodes: Sequence[Episode], task: str, n_shots: int) -> None:
    relative = _relative(parts.error, parts.log_odds)
    worst = int(np.argmax(np.where(np.isfinite(relative), relative, np.inf)))
    if relative[worst] <= COMPLETE:
        return
    seq, shot, layer = episodes[worst // n_shots].seq, worst % n_shots, int(np.abs(parts.gap[worst]).argmax())
    raise StatedError(
        f"the parts do not add up to the log-odds: task {task!r}, sequence {seq}, n = {shot}: "
        f"{parts.log_odds[worst] - parts.error[worst]:.5g} against {parts.log_odds[worst]:.5g} nats (at most "
        f"{COMPLETE:g} relative); of the layers, {layer} is off most, by {parts.gap[worst, layer]:.2g} nats; "
        "this model writes into its residual stream in a way that is not known here"
    )


def _check_split(split: np.ndarray, parts: DirectEffects, episodes: Sequence[Episode], task: str) -> float:
    """The largest error of a head's split over sources, relative to what they add in all."""
    head = parts.head.reshape(split.shape[:4])
    size = np.nansum(np.abs(split), axis=(-1, -2))
    error = np.abs(np.nansum(split, axis=(-1, -2)) - head) / np.maximum(size, 1.0)
    worst = np.unravel_index(int(np.argmax(np.where(np.isfinite(error), error, np.inf))), error.shape)
    if error[worst] > SPLIT:
        episode, shot, layer, number = worst
        raise StatedError(
            f"the split over sources does not add up: task {task!r}, sequence {episodes[int(episode)].seq}, "
            f"n = {shot}, L{layer}H{number}, off by {error[worst]:.2g}; attention of this kind is not known here"
        )
    return float(error[worst])
