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
soft-cap of logits, where W_U[v] above is cap(x_v) / x_v times its row, x_v being the logit before the cap. A learned
sink takes attention and writes nothing.

Direct effect is not importance: what a head tells later components is not in it (see `ablation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.watching import Stream, watch
from bayes_icl.mechanism.episodes import Episode, recorded_episodes, token_text
from bayes_icl.mechanism.mean_outputs import MeanOutputs
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import ROLES

COMPLETE = 1e-4  # parts and log-odds may differ by this share of the larger of 1 nat and the log-odds

SPLIT = 1e-5  # sources and a head's effect, as a share of what the sources add in all

VOCABULARY_AT_ONCE = 1024  # tokens added up in float32

METHOD = {
    "complement": "direct effect on logit(correct) - sum_v q_v logit(v), scale of the final norm as run; entropy apart",
    "foil": "direct effect on logit(correct) - logit(foil), scale of the final norm as run",
}

VARIABLES = {
    "effect": "what a head adds to log_odds",
    "effect_by_source": "its split over the sink, the examples shown and the query; NaN for examples not shown yet",
    "effect_by_role": "the same by token role, mean over sequences",
    "attention_by_role": "attention mass, mean over sequences",
    "attention": "attention mass of a head on the examples shown",
    "mlp": "what an MLP adds to log_odds",
    "other": "what a mixer that is not attention adds to log_odds, or a second MLP; not where the model has none",
    "embedding": "what the embedding adds",
    "bias": "what biases add: of values, of projections, of norms, of the unembedding",
    "entropy": "entropy of the distribution over incorrect tokens, which log_odds has less; 0 for foil",
    "rest": "embedding + bias - entropy",
    "log_odds": "the quantity that effect, mlp, other and rest add up to: of one token of the answer, given what "
    "is before it",
    "curve": "log_odds of the whole answer, from the curves file",
    "ablated_log_odds": "log_odds without a set of heads, by way and set of ablation.csv",
    "error": "log_odds less the sum of its parts",
    "norm": "root mean square norm of what a head writes into the residual stream, at the positions read; NaN "
    "where there is no such head",
}


class DirectEffects(NamedTuple):
    """Effects of one pass, nats; rows are (episode, shot).

    Attributes
    ----------
    head
        Shape (row, layer, head).
    by_place, attention
        Shape (row, layer, head, place), places being the sink and then (shot, role); None where they were not wanted.
    mlp, other
        Shape (row, layer); `other` is what else a layer adds (`Anatomy.others`).
    embedding, bias, entropy, log_odds, error
        Shape (row,).
    norm
        Shape (row, layer, head).
    gap
        Shape (row, layer): what a block adds less what its parts add; where an error comes from.
    direction
        Shape (row, d_model): what a write into the residual stream is multiplied with.
    seen
        By layer, shape (row, head, d_head): the same for what heads hand to the output projection.
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


def direct_effects(
    anatomy: Anatomy,
    episodes: Sequence[Episode],
    *,
    by_source: bool = True,
    on_z: Any = None,
    along: Float[Tensor, "row d_model"] | None = None,
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
    """
    positions = np.stack([e.target.positions for e in episodes])
    stream = watch(anatomy, [e.prompt.tokens for e in episodes], positions, on_z=on_z)
    with torch.inference_mode():
        return _take_apart(anatomy, stream, episodes, by_source, along)


def _take_apart(
    anatomy: Anatomy, stream: Stream, episodes: Sequence[Episode], by_source: bool, along: Tensor | None
) -> DirectEffects:
    batch, n_read = len(episodes), len(episodes[0].target.positions)
    device = stream.logits.device
    correct = torch.from_numpy(np.concatenate([e.target.correct for e in episodes])).to(device)
    foils = [e.target.foil for e in episodes]
    foil = (
        None if foils[0] is None else torch.from_numpy(np.concatenate([f for f in foils if f is not None])).to(device)
    )
    log_odds, entropy, read, bias = _direction(anatomy, stream, correct, foil)
    norm = anatomy.final_norm
    bias = bias + (read * norm.bias).sum(-1, dtype=torch.float64)
    direction = norm.back(read, norm.scale(stream.residual[-1], stream.normed)).float() if along is None else along
    width = max(len(e.prompt.tokens) for e in episodes)
    places = _place_matrix(episodes, width, device) if by_source else None
    heads, mlps, others, norms, splits, masses, gaps, all_seen = [], [], [], [], [], [], [], []
    for layer in range(anatomy.n_layers):
        d, after = direction * anatomy.multipliers[layer], anatomy.after_attention[layer]
        own_bias = torch.zeros_like(log_odds)
        if after:
            scale = stream.attention_scale[layer]
            assert scale is not None
            own_bias = own_bias + (d * after.bias).sum(-1, dtype=torch.float64)
            d = after.back(d, scale)
        if (out_bias := anatomy.out_bias[layer]) is not None:
            own_bias = own_bias + (d * out_bias).sum(-1, dtype=torch.float64)
        # The direction as each head's values see it: (row, head, d_head).
        seen = torch.einsum("rd,hkd->rhk", d, anatomy.w_out[layer])
        constant = (seen * anatomy.value_bias[layer]).sum(-1)
        head = (seen * stream.z[layer]).sum(-1) - constant
        own_bias = own_bias + constant.sum(-1, dtype=torch.float64)
        mlp = (stream.mlp[layer] * direction).sum(-1, dtype=torch.float64)
        other = (stream.other[layer] * direction).sum(-1, dtype=torch.float64)
        before, then = (stream.residual[i] * anatomy.carried[i] for i in (layer, layer + 1))
        written = ((then - before) * direction).sum(-1, dtype=torch.float64)
        gaps.append(written - head.sum(-1, dtype=torch.float64) - own_bias - mlp - other)
        bias = bias + own_bias
        heads.append(head)
        all_seen.append(seen)
        mlps.append(mlp)
        others.append(other)
        squares = torch.einsum("rhk,hkj->rhj", stream.z[layer], anatomy.gram[layer]) * stream.z[layer]
        norms.append(squares.sum(-1).clamp(min=0).sqrt())
        if places is not None:
            split, mass = _by_place(anatomy, stream, layer, seen, places, batch, n_read)
            splits.append(split)
            masses.append(mass)
    stack = lambda parts: torch.stack(parts, dim=1)  # noqa: E731
    head, mlp, other = stack(heads), stack(mlps), stack(others)
    embedding = (stream.residual[0] * anatomy.carried[0] * direction).sum(-1, dtype=torch.float64)
    total = head.sum((1, 2), dtype=torch.float64) + mlp.sum(1) + other.sum(1) + embedding + bias - entropy
    numbers = (head, mlp, other, embedding, bias, entropy, log_odds, log_odds - total, stack(norms), stack(gaps))
    head_, mlp_, other_, embedding_, bias_, entropy_, log_odds_, error_, norm_, gap_ = (
        x.cpu().numpy() for x in numbers
    )
    by_place = stack(splits).cpu().numpy() if splits else None
    attention = stack(masses).cpu().numpy() if masses else None
    more = (norm_, gap_, direction, all_seen)
    return DirectEffects(
        head_, by_place, attention, mlp_, other_, embedding_, bias_, entropy_, log_odds_, error_, *more
    )


def token_log_odds(
    logits: Float[Tensor, "row vocab"], correct: Int[Tensor, " row"], foil: Int[Tensor, " row"] | None
) -> Float[Tensor, " row"]:
    """Log-odds of the correct token against the foil, or against all others where there is none; nats, float64."""
    rows = torch.arange(len(correct), device=logits.device)
    own = logits[rows, correct].double()
    if foil is not None:
        return own - logits[rows, foil].double()
    others = logits.clone()
    others[rows, correct] = -torch.inf
    largest = others.detach().amax(-1, keepdim=True)  # which the result does not depend on
    # float32 exponentials, summed in float64, as in `readouts`.
    return own - largest[:, 0].double() - others.sub_(largest).exp_().sum(-1, dtype=torch.float64).log()


def _direction(
    anatomy: Anatomy, stream: Stream, correct: Int[Tensor, " row"], foil: Int[Tensor, " row"] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-odds, the entropy they have less, the direction after the final norm, and the unembedding's bias along it."""
    logits, scale = stream.logits, stream.scale
    rows = torch.arange(len(correct), device=logits.device)
    unembed = anatomy.unembedding
    log_odds = token_log_odds(logits, correct, foil)
    if foil is None:
        own = logits[rows, correct]
        q = (logits - (own.double() - log_odds).float()[:, None]).exp_()
        q[rows, correct] = 0
        q /= q.sum(-1, keepdim=True, dtype=torch.float64).float()
        entropy = own.double() - log_odds - (q * logits).sum(-1, dtype=torch.float64)
        read = q * scale if torch.is_tensor(scale) else q
        # By parts of the vocabulary: of one row, a float32 product over all of it is off by 1e-3.
        parts = zip(read.split(VOCABULARY_AT_ONCE, dim=1), unembed.split(VOCABULARY_AT_ONCE))
        wrong = sum((x @ w).double() for x, w in parts).float()  # type: ignore[union-attr]
    else:
        entropy = torch.zeros_like(log_odds)
        wrong = _scaled(unembed[foil], scale, foil)
    right = _scaled(unembed[correct], scale, correct)
    constant = torch.zeros_like(log_odds)
    if (bias := getattr(anatomy.unembed, "bias", None)) is not None:
        against = read @ bias if foil is None else _scaled(bias[foil][:, None], scale, foil)[:, 0]
        constant = (_scaled(bias[correct][:, None], scale, correct)[:, 0] - against).double()
    if not torch.is_tensor(scale):
        wrong, right, constant = wrong * scale, right * scale, constant * scale
    return log_odds, entropy, right - wrong, constant


def _scaled(
    x: Float[Tensor, "row width"], scale: float | Float[Tensor, "row vocab"], token: Int[Tensor, " row"]
) -> Float[Tensor, "row width"]:
    """What reads a token's logit, by the factor that its cap has in each row."""
    return x * scale.gather(1, token[:, None]) if isinstance(scale, Tensor) else x


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


def attribute_task(
    model: Model,
    curves: xr.Dataset,
    task: str,
    *,
    readout: str = "complement",
    token: int | None = None,
    by_source: bool = True,
    batch_size: int = 0,
    on_batch: Any = None,
    means: MeanOutputs | None = None,
    episodes: Sequence[Episode] | None = None,
) -> xr.Dataset:
    """Direct effects on every sequence and shot of a task in a curves file.

    Parameters
    ----------
    model, curves, task, readout, token
        As in `recorded_episodes`.
    by_source
        Split heads over examples, sink and query, which takes most of the file.
    batch_size
        Episodes a pass; 0 takes 1 on a CPU and 16 on a GPU.
    on_batch
        Called with the number of episodes done.
    means
        Takes the mean outputs of heads, for mean-ablation.
    episodes
        What `recorded_episodes` gives, where it is at hand; `token` is theirs then.

    Returns
    -------
    Dataset
        In the effects format, one task.

    Raises
    ------
    StatedError
        The parts do not add up to the log-odds: names the worst place.
    """
    episodes = episodes or recorded_episodes(model, curves, task, readout=readout, token=token)
    batch_size = batch_size or (1 if model.device.type == "cpu" else 16)
    anatomy = model.anatomy
    n_seqs, n_shots = len(episodes), len(episodes[0].target.positions)
    shape = (n_seqs, n_shots, anatomy.n_layers, anatomy.n_heads)
    arrays = _empty_arrays(shape, by_source)
    squares, by_role = np.zeros(shape[2:]), np.zeros((2, *shape[1:], n_shots + 1, len(ROLES)))
    worst = 0.0
    for first in range(0, n_seqs, batch_size):
        some = episodes[first : first + batch_size]
        parts = direct_effects(anatomy, some, by_source=by_source, on_z=means.taking(some) if means else None)
        _check_complete(parts, some, task, n_shots)
        at = slice(first, first + len(some))
        for name, x in (("effect", parts.head), ("mlp", parts.mlp), ("other", parts.other)):
            arrays[name][at] = x.reshape(len(some), n_shots, *x.shape[1:])
        for name in SCALARS:
            arrays[name][at] = getattr(parts, name).reshape(len(some), n_shots)
        squares += (parts.norm**2).sum(0)
        if parts.by_place is not None and parts.attention is not None:
            split, mass = (_by_example(x, len(some), n_shots) for x in (parts.by_place, parts.attention))
            worst = max(worst, _check_split(split, parts, some, task))
            arrays["effect_by_source"][at] = split.sum(-1)
            arrays["attention"][at] = np.nansum(mass[..., 1:-1, :], axis=(-1, -2))
            by_role += np.stack([split.sum(0), mass.sum(0)])
        if on_batch:
            on_batch(len(some))
    arrays["norm"] = np.where(anatomy.exists(), np.sqrt(squares / (n_seqs * n_shots)), np.nan)
    if not any(anatomy.others):
        del arrays["other"]
    roles = dict(zip(("effect_by_role", "attention_by_role"), by_role / n_seqs)) if by_source else {}
    dataset = _effects_dataset(curves, task, episodes, readout, arrays, roles)
    dataset = dataset.assign_coords(token_text=("task", [token_text(model, episodes)]))
    for name in map(str, dataset):
        dataset[name].attrs["description"] = VARIABLES[name]
        if name not in ("attention", "attention_by_role", "norm"):
            dataset[name].attrs["units"] = "nats"
    dataset.attrs |= {"method": METHOD[readout], "readout": readout, "model": model.name}
    dataset.attrs["completeness"] = float(_relative(arrays["error"], arrays["log_odds"]).max())
    dataset.attrs["split"] = worst
    return dataset


SCALARS = ("embedding", "bias", "entropy", "log_odds", "error")  # one number a sequence and shot


def _empty_arrays(shape: tuple[int, int, int, int], by_source: bool) -> dict[str, np.ndarray]:
    """Arrays of the effects format, to be filled; shape (seq, shot, layer, head)."""
    arrays: dict[str, np.ndarray] = {"effect": np.zeros(shape, np.float32)}
    if by_source:
        arrays["attention"] = np.zeros(shape, np.float32)
        arrays["effect_by_source"] = np.full((*shape, shape[1] + 1), np.nan, np.float32)
    arrays |= {name: np.zeros(shape[:2]) for name in SCALARS}
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
