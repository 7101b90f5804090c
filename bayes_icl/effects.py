r"""Direct effects: what every head, MLP, embedding and bias adds to the log-odds of the answer.

With the scales of norms taken from the run, the residual stream is a sum, and logits are linear in it. Let q be the
model's distribution over the tokens other than the correct one t. Then::

    log P(t) - log P(not t) = logit(t) - sum_v q_v logit(v) - H(q)

exactly, so a component that writes c into the residual stream adds c . d to the log-odds, with
d = scale * gain * (W_U[t] - sum_v q_v W_U[v]) the direction that the unembedding reads through the final norm; -H(q)
belongs to none of them. Against a foil f the log-odds are logit(t) - logit(f), and nothing is left over. A head's
effect splits over the tokens that it attends to, attention * (value . W_O d): by contraction, so that nothing of shape
(head, position, d_model) is built.

Direct effect is not importance: what a head tells later components is not in it (see `ablate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from bayes_icl.errors import StatedError, shown, unknown
from bayes_icl.prompts import ROLES, Places, Prompt, encode_episode, recorded_prompt, token_places, token_read
from bayes_icl.stream import Anatomy, Stream, watch
from bayes_icl.tasks import Example, Task

if TYPE_CHECKING:
    from bayes_icl.models import Model

COMPLETE = 1e-4  # parts and log-odds may differ by this share of the larger of 1 nat and the log-odds
SPLIT = 1e-5  # sources and a head's effect, as a share of what the sources add in all
VOCABULARY_AT_ONCE = 1024  # tokens added up in float32
READOUTS = ("complement", "foil")
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
    "embedding": "what the embedding adds",
    "bias": "what biases add: of values, of projections, of norms, of the unembedding",
    "entropy": "entropy of the distribution over incorrect tokens, which log_odds has less; 0 for foil",
    "rest": "embedding + bias - entropy",
    "log_odds": "the quantity that effect, mlp and rest add up to: of one token of the answer, given those before it",
    "curve": "log_odds of the whole answer, from the curves file",
    "ablated_log_odds": "log_odds without a set of heads, by way and set of ablation.csv",
    "error": "log_odds less the sum of its parts",
    "norm": "root mean square norm of what a head writes into the residual stream, at the positions read",
}


class Target(NamedTuple):
    """Where the log-odds of an episode are read, and between which tokens.

    Attributes
    ----------
    positions, correct
        Shape (shot,): the position whose logits are read, and the correct token.
    foil
        The wrong token, shape (shot,), or None for all others.
    """

    positions: Int[np.ndarray, " shot"]
    correct: Int[np.ndarray, " shot"]
    foil: Int[np.ndarray, " shot"] | None


@dataclass(frozen=True)
class Episode:
    """A sequence of a curves file, to be run again.

    Attributes
    ----------
    token
        Which token of the answers is read, counted from 0; None where it is that at which answer and foil fork.
    """

    seq: int
    prompt: Prompt
    places: Places
    target: Target
    token: int | None = None


def recorded_episodes(
    model: Model, curves: xr.Dataset, task: str, *, readout: str = "complement", token: int | None = None
) -> list[Episode]:
    """The sequences of a task in a curves file.

    Parameters
    ----------
    readout
        ``complement`` or ``foil``.
    token
        For `complement`: which token of the answer, counted from 0 (its terminator counts too), the true ones standing
        before it; None for the first that tells the task's answers apart (`prompts.token_read`).

    Raises
    ------
    StatedError
        The file has no tokens, or no foils; an answer has no such token.
    """
    if readout not in READOUTS:
        raise unknown("readout to attribute", readout, READOUTS)
    needed = ("tokens", "answer_start", "answer_stop", "query", *(("fork", "foil_token") if readout == "foil" else ()))
    if missing := [name for name in needed if name not in curves]:
        raise StatedError(f"the curves have no {', '.join(missing)}, which attribution needs: collect them again")
    own = curves.sel(task=task)
    _check_places(model, own, [name for name in (*needed, "query_start", "query_stop") if name in own])
    every = [own.sel(seq=seq) for seq in own.seq.values.tolist()]
    prompts = [
        recorded_prompt(one.tokens.values, *(one[name].values.astype(np.int64) for name in needed[1:3]), *asked)
        for one, *asked in zip(every, *_query_places(model, own))
    ]
    if readout == "foil":
        token = None
    else:
        token = token_read(prompts, task) if token is None else token
        short = min(int((p.answer_stop - p.answer_start).min()) for p in prompts)
        if not 0 <= token < short:
            raise StatedError(f"--token {token}: an answer of {task!r} has the tokens 0 to {short - 1} only")
    episodes = []
    for one, prompt in zip(every, prompts):
        ahead, foil = np.full(len(prompt.answer_start), token or 0), None
        if readout == "foil":
            ahead, foil = (one[name].values.astype(np.int64) for name in ("fork", "foil_token"))
            if (ahead < 0).any():
                raise StatedError(f"task {task!r} was collected without foils: attribute --readout complement")
        at = prompt.answer_start + ahead
        episodes.append(
            Episode(int(one.seq), prompt, token_places(prompt), Target(at - 1, prompt.tokens[at], foil), token)
        )
    return episodes


def _check_places(model: Model, own: xr.Dataset, names: Sequence[str]) -> None:
    """State tokens and places of a file that do not fit together: another tool's, or altered ones, may be anything."""

    def need(holds: bool, what: str) -> None:
        if not holds:
            raise StatedError(
                f"task {str(own.task.values)!r}: the curves cannot be run again ({what}): collect them again"
            )

    need(own.seq.dtype.kind in "iu", "sequences are not numbered")
    need(int(own.shot[0]) == 0, f"they begin at n = {int(own.shot[0])}, and all from 0 on are needed")
    table = {}
    for name in names:
        dims = ("seq", "pos" if name == "tokens" else "shot")
        need(set(own[name].dims) == set(dims), f"{name} has the dimensions {', '.join(map(str, own[name].dims))}")
        table[name] = own[name].transpose(*dims).values
        kinds, words = ("OUT", "text") if name == "query" else ("iu", "whole numbers")
        need(table[name].dtype.kind in kinds, f"{name} is {table[name].dtype}, not {words}")
    tokens, start, stop = (table[name].astype(np.int64) for name in ("tokens", "answer_start", "answer_stop"))
    shown = tokens >= 0
    length = shown.sum(1)[:, None]
    need(bool((np.diff(shown.astype(int), axis=1) <= 0).all()), "there are gaps in them")
    need(bool((tokens < len(model.token_texts)).all()), f"{model.name!r} has no such tokens")
    need(bool(((start >= 1) & (start < stop) & (stop <= length)).all()), "answers stand outside of them")
    need(bool((start[:, 1:] >= stop[:, :-1]).all()), "answers overlap")
    if "query_start" in table and "query_stop" in table:
        asked, told = table["query_start"].astype(np.int64), table["query_stop"].astype(np.int64)
        need(bool(((asked >= 0) & (asked < told) & (told <= start + 1)).all()), "queries stand outside of their shot")
    if "fork" in table:
        fork, foil = table["fork"].astype(np.int64), table["foil_token"].astype(np.int64)
        need(bool(((fork < stop - start) & (foil < len(model.token_texts))).all()), "foils do not fit their answers")
        need(bool(((fork < 0) == (foil < 0)).all()), "foils do not fit their answers")


def _query_places(model: Model, own: xr.Dataset) -> tuple[Int[np.ndarray, "seq shot"], Int[np.ndarray, "seq shot"]]:
    """Where the tokens of each query begin and end, of the sequences of one task.

    A file of version 1 does not say. Its template is then read off the tokens, and stands if the episodes written with
    it have the very tokens of the file.

    Raises
    ------
    StatedError
        No template does.
    """
    if "query_start" in own and "query_stop" in own:
        return own.query_start.values.astype(np.int64), own.query_stop.values.astype(np.int64)
    found = {}
    for template in _likely_templates(model, own):
        places = []
        for seq in own.seq.values:
            one = own.sel(seq=seq)
            examples = tuple(Example(str(q), str(a)) for q, a in zip(one["query"].values, one["answer"].values))
            try:
                task = Task("recorded", examples, template, foils=False, repeats=True)
                prompt = encode_episode(task, examples, model.tokenizer, branch=False)
            except StatedError:
                break
            if not np.array_equal(prompt.tokens, one.tokens.values[one.tokens.values >= 0]):
                break
            places.append(np.stack([prompt.query_start, prompt.query_stop]))
        else:
            found[np.array(places).tobytes()] = np.array(places)
    if len(found) != 1:
        raise StatedError(
            f"task {str(own.task.values)!r}: the curves are of before files said where the tokens of queries stand, "
            "and their tokens do not tell: collect them again"
        )
    (places_,) = found.values()
    return places_[:, 0], places_[:, 1]


def _likely_templates(model: Model, own: xr.Dataset) -> list[str]:
    """Templates that the second example of a file's first sequence may have been written with."""
    if "answer" not in own or own.sizes["shot"] < 2:
        return []
    one = own.isel(seq=0)
    query, answer = (str(one[name].values[1]) for name in ("query", "answer"))
    (begin, stop), start = one.answer_stop.values[:2], one.answer_start.values[1]
    cuts = slice(begin, start), slice(start, stop)
    before, after = (str(model.tokenizer.decode(one.tokens.values[cut])) for cut in cuts)
    rest = after.lstrip(" ")
    if not rest.startswith(answer):
        return []
    at = [i for i in range(len(before)) if before.startswith(query, i)]
    return [
        # Tokenizers of the SentencePiece kind leave out a space at the start of what they decode.
        f"{lead}{before[:i]}{{query}}{before[i + len(query) :]}{gap}{{answer}}{rest[len(answer) :]}"
        for i in at
        for lead in ("", " ")
        for gap in sorted({after[: len(after) - len(rest)], " "})
    ]


TEXTS, LETTERS = 3, 24  # most texts that stand for a token, and about how long they are together


def token_text(model: Model, episodes: Sequence[Episode]) -> str:
    """What the token read says, in quotation marks: the most frequent texts of it, most frequent first.

    An ellipsis says that there are others; a lone text, that it is the same in all answers.
    """
    tokens, counts = np.unique(np.concatenate([e.target.correct for e in episodes]), return_counts=True)
    texts = [model.token_texts[token] for token in tokens.tolist()]
    in_order = [shown(text) for _, text in sorted(zip((-counts).tolist(), texts))]
    quoted = [f"\u201c{text}\u201d" for text in in_order[:TEXTS]]
    while len(quoted) > 1 and sum(map(len, quoted)) > LETTERS:
        quoted.pop()
    return ", ".join([*quoted, *(["\u2026"] if len(quoted) < len(texts) else [])])


class Parts(NamedTuple):
    """Effects of one pass, nats; rows are (episode, shot).

    Attributes
    ----------
    head
        Shape (row, layer, head).
    by_place, attention
        Shape (row, layer, head, place), places being the sink and then (shot, role); None where they were not wanted.
    mlp
        Shape (row, layer).
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
) -> Parts:
    """Run some episodes and take the log-odds apart.

    Parameters
    ----------
    by_source
        Split heads over the tokens attended to.
    on_z
        As in `stream.watch`.
    along
        Take effects along the direction of another run (`Parts.direction`), so that what differs is what was written;
        they do not add up to this run's log-odds then.
    """
    positions = np.stack([e.target.positions for e in episodes])
    stream = watch(anatomy, [e.prompt.tokens for e in episodes], positions, on_z=on_z)
    with torch.inference_mode():
        return _take_apart(anatomy, stream, episodes, by_source, along)


def _take_apart(
    anatomy: Anatomy, stream: Stream, episodes: Sequence[Episode], by_source: bool, along: Tensor | None
) -> Parts:
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
    places = _place_matrix(episodes, stream.values[0].shape[2], device) if by_source else None
    heads, mlps, norms, splits, masses, gaps, all_seen = [], [], [], [], [], [], []
    for layer in range(anatomy.n_layers):
        d, after = direction * anatomy.multiplier, anatomy.after_attention[layer]
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
        written = ((stream.residual[layer + 1] - stream.residual[layer]) * direction).sum(-1, dtype=torch.float64)
        gaps.append(written - head.sum(-1, dtype=torch.float64) - own_bias - mlp)
        bias = bias + own_bias
        heads.append(head)
        all_seen.append(seen)
        mlps.append(mlp)
        squares = torch.einsum("rhk,hkj->rhj", stream.z[layer], anatomy.gram[layer]) * stream.z[layer]
        norms.append(squares.sum(-1).clamp(min=0).sqrt())
        if places is not None:
            split, mass = _by_place(stream, layer, seen, constant, places, batch, n_read)
            splits.append(split)
            masses.append(mass)
    stack = lambda parts: torch.stack(parts, dim=1)  # noqa: E731
    head, mlp = stack(heads), stack(mlps)
    embedding = (stream.residual[0] * direction).sum(-1, dtype=torch.float64)
    total = head.sum((1, 2), dtype=torch.float64) + mlp.sum(1) + embedding + bias - entropy
    numbers = (head, mlp, embedding, bias, entropy, log_odds, log_odds - total, stack(norms), stack(gaps))
    head_, mlp_, embedding_, bias_, entropy_, log_odds_, error_, norm_, gap_ = (x.cpu().numpy() for x in numbers)
    by_place = stack(splits).cpu().numpy() if splits else None
    attention = stack(masses).cpu().numpy() if masses else None
    more = (norm_, gap_, direction, all_seen)
    return Parts(head_, by_place, attention, mlp_, embedding_, bias_, entropy_, log_odds_, error_, *more)


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
    largest = others.amax(-1, keepdim=True)
    # float32 exponentials, summed in float64, as in `readouts`.
    return own - largest[:, 0].double() - others.sub_(largest).exp_().sum(-1, dtype=torch.float64).log()


def _direction(
    anatomy: Anatomy, stream: Stream, correct: Int[Tensor, " row"], foil: Int[Tensor, " row"] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-odds, the entropy they have less, the direction after the final norm, and the unembedding's bias along it."""
    logits = stream.logits
    rows = torch.arange(len(correct), device=logits.device)
    unembed = anatomy.unembedding
    log_odds = token_log_odds(logits, correct, foil)
    if foil is None:
        own = logits[rows, correct]
        q = (logits - (own.double() - log_odds).float()[:, None]).exp_()
        q[rows, correct] = 0
        q /= q.sum(-1, keepdim=True, dtype=torch.float64).float()
        entropy = own.double() - log_odds - (q * logits).sum(-1, dtype=torch.float64)
        # By parts of the vocabulary: of one row, a float32 product over all of it is off by 1e-3.
        parts = zip(q.split(VOCABULARY_AT_ONCE, dim=1), unembed.split(VOCABULARY_AT_ONCE))
        wrong = sum((x @ w).double() for x, w in parts).float()  # type: ignore[union-attr]
    else:
        entropy = torch.zeros_like(log_odds)
        wrong = unembed[foil]
    constant = torch.zeros_like(log_odds)
    if (bias := getattr(anatomy.unembed, "bias", None)) is not None:
        constant = (bias[correct] - (bias[foil] if foil is not None else q @ bias)).double() * stream.scale
    return log_odds, entropy, (unembed[correct] - wrong) * stream.scale, constant


def _by_place(
    stream: Stream,
    layer: int,
    seen: Float[Tensor, "row head d_head"],
    constant: Float[Tensor, "row head"],
    places: Float[Tensor, "batch pos place"],
    batch: int,
    n_read: int,
) -> tuple[Tensor, Tensor]:
    """A layer's effects and attention by place, shape (row, head, place)."""
    pattern, values = stream.pattern[layer], stream.values[layer]
    n_heads, width = pattern.shape[1], pattern.shape[3]
    by_head = seen.view(batch, n_read, n_heads, -1).transpose(1, 2)  # (batch, head, read, d_head)
    together = by_head.reshape(batch, values.shape[1], -1, values.shape[3])
    effect = (together @ values.transpose(-1, -2)).view(pattern.shape)
    effect -= constant.view(batch, n_read, n_heads).transpose(1, 2)[..., None]
    effect *= pattern
    both = torch.stack([effect, pattern], dim=1).view(batch, -1, width) @ places
    both = both.view(batch, 2, n_heads, n_read, -1).permute(1, 0, 3, 2, 4).flatten(1, 2)
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
    readout, token
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
    Dataset in the effects format, one task.

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
    arrays: dict[str, np.ndarray] = {"effect": np.zeros(shape, np.float32), "attention": np.zeros(shape, np.float32)}
    arrays |= {name: np.zeros(shape[:2]) for name in ("embedding", "bias", "entropy", "log_odds", "error")}
    arrays["mlp"] = np.zeros(shape[:3])
    squares = np.zeros(shape[2:])
    if by_source:
        arrays["effect_by_source"] = np.full((*shape, n_shots + 1), np.nan, np.float32)
        by_role = np.zeros((2, *shape[1:], n_shots + 1, len(ROLES)))
    worst = 0.0
    for first in range(0, n_seqs, batch_size):
        some = episodes[first : first + batch_size]
        parts = direct_effects(anatomy, some, by_source=by_source, on_z=means.taking(some) if means else None)
        _check_complete(parts, some, task, n_shots)
        at = slice(first, first + len(some))
        for name, x in (("effect", parts.head), ("mlp", parts.mlp)):
            arrays[name][at] = x.reshape(len(some), n_shots, *x.shape[1:])
        for name in ("embedding", "bias", "entropy", "log_odds", "error"):
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
    if not by_source:
        del arrays["attention"]
    dims = {2: ("seq", "shot"), 3: ("seq", "shot", "layer"), 4: ("seq", "shot", "layer", "head")}
    variables: dict[str, Any] = {k: (dims[x.ndim], x) for k, x in arrays.items() if k != "effect_by_source"}
    variables["rest"] = (("seq", "shot"), arrays["embedding"] + arrays["bias"] - arrays["entropy"])
    variables["norm"] = (("layer", "head"), np.sqrt(squares / (n_seqs * n_shots)))
    coords: dict[str, Any] = {
        "seq": [e.seq for e in episodes],
        "shot": curves.shot.values,
        "layer": np.arange(anatomy.n_layers),
        "head": np.arange(anatomy.n_heads),
    }
    if by_source:
        variables["effect_by_source"] = (("seq", "shot", "layer", "head", "source"), arrays["effect_by_source"])
        for name, x in zip(("effect_by_role", "attention_by_role"), by_role / n_seqs):
            variables[name] = (("shot", "layer", "head", "source", "role"), x.astype(np.float32))
        coords |= {"source": ["sink", *map(str, range(1, n_shots)), "query"], "role": list(ROLES)}
    whole = curves.log_odds.sel(task=task, readout=readout).transpose("seq", "shot").values
    variables["curve"] = (("seq", "shot"), whole.astype(np.float64))
    dataset = xr.Dataset(variables, coords).expand_dims(task=[task])
    read = -1 if episodes[0].token is None else episodes[0].token
    dataset = dataset.assign_coords(token=("task", [read]), token_text=("task", [token_text(model, episodes)]))
    for name in map(str, dataset):
        dataset[name].attrs["description"] = VARIABLES[name]
        if name not in ("attention", "attention_by_role", "norm"):
            dataset[name].attrs["units"] = "nats"
    dataset.attrs |= {"method": METHOD[readout], "readout": readout, "model": model.name}
    dataset.attrs["completeness"] = float(_relative(arrays["error"], arrays["log_odds"]).max())
    dataset.attrs["split"] = worst
    return dataset


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


def _check_complete(parts: Parts, episodes: Sequence[Episode], task: str, n_shots: int) -> None:
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


def _check_split(split: np.ndarray, parts: Parts, episodes: Sequence[Episode], task: str) -> float:
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


WAYS = ("mean", "held")
"""Ablations: a head's mean output over episodes at the same shot and place, or over shots as well."""


class MeanOutputs:
    """Mean output of every head over the episodes of a task: at the same shot and place within it, or over shots too.

    A place is a role and a distance from the answer of the shot, so queries of unequal length meet at their ends. A
    mean includes the episode it stands in for, and a place that one episode alone has keeps its own output. Means over
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
        norm
            Of what heads write there, as in the effects format.
        """
        at = torch.cat([self._held[self.of_token[e.seq][e.target.positions]] for e in episodes])
        share = torch.bincount(at, minlength=int(self._held.max()) + 1) / len(at)
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
        return held if way == "held" else torch.where(counts > 0, self.sums[layer][groups] / counts.clamp(min=1), held)

    def at(self, seq: int, layer: int, heads: Sequence[int], way: str = "mean") -> Float[Tensor, "1 pos chosen d_head"]:
        """Mean outputs of some heads where a sequence's tokens stand; `way` is one of `WAYS`."""
        return self.rows(seq, layer, way).unflatten(1, (-1, self._d_head))[None, :, list(heads)]
