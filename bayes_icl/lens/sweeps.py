"""Many edited runs of one prompt in one pass: each joins where it first differs from the run without edits.

A run whose residual stream is patched before block 12, or that goes without head L12H3, is the plain run up to there.
So the plain run is made once (`base_run`), and the edited ones are rows of a batch that grows from block to block;
positions before the first edit are not computed again either, their keys and values being those of the plain run.
Nothing is approximated: a row gives what a run of its own gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bayes_icl.core.errors import StatedError, first_line
from bayes_icl.lens.anatomy import Anatomy, first_of
from bayes_icl.lens.attention import Attention, attention_through, weighed
from bayes_icl.lens.edits import Edits, heads_replaced, projection, put, starting_at, unembedding

NEAR = 1e-3  # nats, between a plain run and one that starts in the middle of the prompt

TOKENS_AT_ONCE = 8192  # rows times positions of a pass, which bounds the memory


@dataclass(frozen=True)
class Row:
    """One edited run; positions count from `Base.first`.

    Attributes
    ----------
    layer
        The first block whose input or inside is edited; the number of layers stands for the final norm.
    patch
        The residual stream instead of what goes into `layer`, by position, shape (d_model,).
    heads
        By layer: heads, and what they hand to the output projection, shape (pos, chosen head, d_head); NaN keeps
        their own output.
    mlps
        By layer: what the MLP adds instead, shape (pos, d_model).
    at
        Where `heads` and `mlps` act, shape (pos,); None for everywhere.
    blocked
        What may not be attended to from `layer` on, shape (pos, seen), `seen` counting from the prompt's start.
    until
        The layer before which `blocked` ends.
    """

    layer: int
    patch: Mapping[int, Tensor] = field(default_factory=dict)
    heads: Mapping[int, tuple[Sequence[int], Tensor]] = field(default_factory=dict)
    mlps: Mapping[int, Tensor] = field(default_factory=dict)
    at: Bool[np.ndarray, " pos"] | None = None
    blocked: Bool[Tensor, "pos seen"] | None = None
    until: int = 1_000_000


@dataclass(frozen=True)
class Base:
    """The run that rows start from.

    Attributes
    ----------
    tokens
        Of the whole prompt, shape (pos,).
    first
        The first position that rows may edit.
    edits
        Heads that it went without, and every row does.
    start
        Where runs of rows start: `first`, or 0 where some layer keeps a state, which only the whole prompt gives.
    whole
        What goes into each block, and into the final norm last, from `start` on: shape (1, pos - start, d_model).
    keys, values
        By layer, of the positions before `start`: shape (1, kv_head, start, d_head).
    masks
        By layer, what positions from `start` on see, shape (pos - start, pos), bool; causal where there is none.
    logits
        After the last token, shape (1, vocab).
    """

    tokens: Int[np.ndarray, " pos"]
    first: int
    edits: Edits
    start: int
    whole: list[Tensor]
    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    masks: dict[int, Tensor]
    logits: Tensor

    @property
    def residual(self) -> list[Float[Tensor, "1 pos d_model"]]:
        """What goes into each block, and into the final norm last, from `first` on."""
        return [x[:, self.first - self.start :] for x in self.whole]


def base_run(anatomy: Anatomy, tokens: Int[np.ndarray, " pos"], first: int, edits: Edits | None = None) -> Base:
    """Run a prompt once, and keep what edited runs of it start from.

    Parameters
    ----------
    anatomy
        The model's parts.
    tokens
        The prompt.
    first
        First position that rows may edit.
    edits
        As for `stream.heads_replaced`, at every position of the prompt.

    Raises
    ------
    StatedError
        The edits change nothing at all.
    """
    edits = edits or {}
    start = 0 if anatomy.recurrent else first
    whole: list[Tensor] = []
    keys: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}
    masks: dict[int, Tensor] = {}

    def keep(_: nn.Module, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        whole.append(x[:, start:].clone())

    def keep_prefix(one: Attention) -> None:
        keys[one.layer] = one.key[:, :, :start].clone()
        values[one.layer] = one.value[:, :, :start].clone()
        if one.mask is not None:
            seen = one.mask if one.mask.dtype == torch.bool else one.mask > torch.finfo(one.mask.dtype).min / 2
            masks[one.layer] = seen[0, 0, start:, : len(tokens)].clone()

    with contextlib.ExitStack() as stack:
        for block in anatomy.blocks:
            stack.enter_context(block.register_forward_pre_hook(keep, with_kwargs=True))
        stack.enter_context(anatomy.before_final_norm(keep))
        changed = stack.enter_context(heads_replaced(anatomy, edits))
        stack.enter_context(attention_through(anatomy, keep_prefix))
        stack.enter_context(unembedding(anatomy, [-1]))
        stack.enter_context(torch.inference_mode())
        ids = torch.from_numpy(tokens)[None].to(anatomy.unembedding.device)
        logits = anatomy.hf(input_ids=ids, use_cache=False).logits[0]
    if edits and not changed:
        raise StatedError("the heads to ablate already put out what replaces them: nothing would be ablated")
    return Base(tokens, first, edits, start, whole, keys, values, masks, logits)


def check_starts(anatomy: Anatomy, tokens: Int[np.ndarray, " pos"]) -> None:
    """Start a run at the last token of a prompt, and compare it with the plain run.

    Raises
    ------
    StatedError
        They differ: what is kept of earlier tokens is not all that a later one needs.
    """
    base = base_run(anatomy, tokens, len(tokens) - 1)
    try:
        (one,) = sweep(anatomy, base, [Row(0), Row(0)], [0])
    except (RuntimeError, TypeError, KeyError, AttributeError, IndexError, ValueError) as error:
        raise StatedError(
            f"{type(anatomy.hf).__name__} cannot be run from the middle of a prompt on ({first_line(error)}): this "
            "model can be attributed, not patched"
        ) from error
    plain, again = (x.float().log_softmax(-1) for x in (base.logits[0], one.logits[0, 0]))
    if not (off := float((plain - again).abs().max())) <= NEAR:
        raise StatedError(
            f"{type(anatomy.hf).__name__} gives other log-probabilities, by {off:.2g} nats, where a run starts in the "
            "middle of a prompt from the keys and values before: this model can be attributed, not patched"
        )


class ComponentEffects(NamedTuple):
    """What rows write along a direction, nats; as in `DirectEffects`.

    Attributes
    ----------
    head
        Shape (row, layer, head).
    mlp
        Shape (row, layer); what else the layer adds is in it (`Anatomy.others`).
    """

    head: Tensor
    mlp: Tensor


class SweepResult(NamedTuple):
    """Some rows of a sweep.

    Attributes
    ----------
    rows
        Their numbers.
    logits
        Shape (row, read, vocab).
    written
        What they write, if it was watched.
    stream
        Shape (row, d_model), if it was asked for.
    """

    rows: list[int]
    logits: Tensor
    written: ComponentEffects | None
    stream: Tensor | None


class EffectProbe(NamedTuple):
    """What to measure of rows at one position, along the direction of the run without edits (`DirectEffects`).

    Attributes
    ----------
    position
        Counted from `Base.first`.
    direction
        Shape (d_model,).
    seen
        By layer, shape (head, d_head).
    head, mlp
        Of the run without edits, shapes (layer, head) and (layer,), which rows have below their layer.
    """

    position: int
    direction: Tensor
    seen: Sequence[Tensor]
    head: Tensor
    mlp: Tensor


def sweep(
    anatomy: Anatomy,
    base: Base,
    rows: Sequence[Row],
    read: Sequence[int],
    *,
    watched: EffectProbe | None = None,
    stream: tuple[int, int] | None = None,
    at_once: int = TOKENS_AT_ONCE,
) -> Iterator[SweepResult]:
    """Run every row.

    Parameters
    ----------
    anatomy
        The model's parts.
    base
        The run that is edited.
    rows
        What each run edits.
    read
        Positions whose logits are wanted, counted from `Base.first`.
    watched
        Measure what heads and MLPs write as well.
    stream
        Give the residual stream as well: what goes into this block at this position.
    at_once
        Rows times positions in one pass.
    """
    for row in rows:
        if any(layer < row.layer for layer in (*row.heads, *row.mlps)):
            raise ValueError(f"a row joins at layer {row.layer}, above an edit of its own")
    if ahead := base.first - base.start:
        rows, read = [_after(row, ahead) for row in rows], [ahead + position for position in read]
        watched = watched and watched._replace(position=ahead + watched.position)
        stream = stream and (stream[0], ahead + stream[1])
    order = sorted(range(len(rows)), key=lambda i: rows[i].layer)
    n = max(at_once // base.whole[0].shape[1], 1)
    for start in range(0, len(order), n):
        some = order[start : start + n]
        with torch.inference_mode():
            one = _Pass(anatomy, base, [rows[i] for i in some], watched, stream)
            logits = one.run(read)
        yield SweepResult(some, logits, one.written, one.kept)  # out of inference mode, which is not the caller's


def _after(row: Row, ahead: int) -> Row:
    """The same row where so many positions that it does not edit come first."""
    before = lambda x: nn.functional.pad(x, (0, 0) * (x.ndim - 1) + (ahead, 0))  # noqa: E731
    heads = {}
    for layer, (some, values) in row.heads.items():
        values = before(values)
        values[:ahead] = torch.nan
        heads[layer] = (some, values)
    mlps = {layer: before(values) for layer, values in row.mlps.items()}
    at = row.at
    if mlps or at is not None:
        n = len(next(iter(mlps.values()))) - ahead if at is None else len(at)
        at = np.concatenate([np.zeros(ahead, bool), np.ones(n, bool) if at is None else at])
    patch = {ahead + position: vector for position, vector in row.patch.items()}
    blocked = None if row.blocked is None else before(row.blocked)
    return Row(row.layer, patch, heads, mlps, at, blocked, row.until)


class _Pass:
    """One pass over rows in the order of their layers.

    Attributes
    ----------
    written
        What rows write, if it is watched.
    kept
        The residual stream asked for, shape (row, d_model).
    """

    def __init__(
        self,
        anatomy: Anatomy,
        base: Base,
        rows: Sequence[Row],
        watched: EffectProbe | None,
        stream: tuple[int, int] | None,
    ) -> None:
        self._anatomy, self._base, self._rows = anatomy, base, rows
        self._watched, self._stream = watched, stream
        # A run that starts above them would lack the keys and values that later layers share.
        self._joins = [min(row.layer, anatomy.shared_from) for row in rows]
        self._begin, self._width = self._joins[0], base.whole[0].shape[1]
        self._device = anatomy.unembedding.device
        self._here = torch.arange(base.start, base.start + self._width, device=self._device)
        self._blocked = [i for i, row in enumerate(rows) if row.blocked is not None]
        self.written: ComponentEffects | None = None
        if watched:
            self.written = ComponentEffects(watched.head.repeat(len(rows), 1, 1), watched.mlp.repeat(len(rows), 1))
        self.kept = base.whole[stream[0]][:, stream[1]].repeat(len(rows), 1) if stream else None

    def run(self, read: Sequence[int]) -> Tensor:
        """Logits at some positions, shape (row, read, vocab)."""
        anatomy, base, rows, begin = self._anatomy, self._base, self._rows, self._begin
        with contextlib.ExitStack() as stack:
            if begin:
                stack.enter_context(starting_at(anatomy, begin, base.whole[0]))

            def before(layer: int, hook: Any) -> None:
                if layer == anatomy.n_layers:
                    stack.enter_context(anatomy.before_final_norm(hook))
                else:
                    stack.enter_context(anatomy.blocks[layer].register_forward_pre_hook(hook, with_kwargs=True))

            for layer in sorted({*self._joins, *(row.layer for row in rows)}):
                before(layer, partial(self._join, layer))
            if self._stream and self._stream[0] >= begin:  # after those that join there
                before(self._stream[0], self._keep_stream)
            for layer in range(begin, anatomy.n_layers):
                edited = layer in base.edits or any(layer in row.heads for row in rows)
                if edited or (self._watched and anatomy.outs[layer] is not None):
                    edit_heads = partial(self._edit_heads, layer)
                    stack.enter_context(projection(anatomy, layer).register_forward_pre_hook(edit_heads))
                if self._watched:
                    before(layer, partial(self._at, layer))
                mlp = anatomy.mlp_output(layer)
                if mlp is not None and (self._watched or any(layer in row.mlps for row in rows)):
                    stack.enter_context(mlp.register_forward_hook(partial(self._edit_mlp, layer)))
                for other in anatomy.others[layer] if self._watched else ():
                    watch_other = partial(self._watch_other, layer, other.times)
                    stack.enter_context(other.module.register_forward_hook(watch_other))
            stack.enter_context(unembedding(anatomy, read))
            stack.enter_context(attention_through(anatomy, self._attend))
            logits = anatomy.hf(
                input_ids=torch.from_numpy(base.tokens[base.start :])[None].to(self._device),
                position_ids=self._here[None],
                use_cache=False,
            ).logits
        return logits[0].view(len(rows), len(read), -1)

    def _join(self, layer: int, _: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Rows of this layer join those that run already."""
        name = None if args else next(iter(kwargs))
        x = args[0] if args else kwargs[name]
        added = self._base.whole[layer].repeat(self._joins.count(layer), 1, 1)
        x = added if layer == self._begin else torch.cat([x, added])
        for i, row in enumerate(self._rows):
            if row.layer == layer:
                for position, vector in row.patch.items():
                    x[i, position] = vector.to(self._device)
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {name: x})

    def _keep_stream(self, _: nn.Module, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        if self._stream and self.kept is not None:
            self.kept[: len(x)] = x[:, self._stream[1]]

    def _edit_heads(self, layer: int, _: nn.Module, args: tuple) -> tuple:
        """Heads of rows are replaced, and watched."""
        base = self._base
        z = args[0].clone()
        by_head = z.view(len(z), self._width, *self._anatomy.shapes[layer])
        if layer in base.edits:
            heads, values = base.edits[layer]
            put(by_head, heads, values[:, base.start :].to(self._device))
        for i, row in enumerate(self._rows[: len(z)]):
            if layer in row.heads:
                heads, values = row.heads[layer]
                values = values.to(self._device)
                if row.at is not None:
                    values = torch.where(torch.from_numpy(row.at).to(self._device)[:, None, None], values, torch.nan)
                put(by_head[i : i + 1], heads, values[None])
        if self._watched and self.written:
            seen = self._watched.seen[layer]
            wide = self._anatomy.widened(by_head[:, self._watched.position].flatten(1), layer)
            self.written.head[: len(z), layer] = ((wide - self._anatomy.value_bias[layer]) * seen).sum(-1)
        return (z, *args[1:])

    def _edit_mlp(self, layer: int, _: nn.Module, args: tuple, given: Any) -> Any:
        """MLPs of rows are replaced, and watched."""
        multiplier, y = self._anatomy.multipliers[layer], first_of(given)
        flat = y.reshape(-1, self._width, y.shape[-1]).clone()  # OPT's MLP has one axis for rows and positions
        for i, row in enumerate(self._rows[: len(flat)]):
            if layer in row.mlps:
                at = slice(None) if row.at is None else torch.from_numpy(np.flatnonzero(row.at)).to(self._device)
                flat[i, at] = row.mlps[layer].to(self._device)[at] / multiplier
        if self._watched and self.written:
            # Of the residual stream at the end, as `multiplier` has it.
            effect = (flat[:, self._watched.position] * multiplier * self._watched.direction).sum(-1)
            self.written.mlp[: len(flat), layer] += effect
        return (flat.view(y.shape), *given[1:]) if isinstance(given, tuple) else flat.view(y.shape)

    def _at(self, layer: int, _: nn.Module, args: tuple, kwargs: dict) -> None:
        """What the layer adds but for its heads is added up, of the rows that run."""
        x = args[0] if args else next(iter(kwargs.values()))
        if self.written:
            self.written.mlp[: len(x), layer] = 0

    def _watch_other(self, layer: int, times: float, _: nn.Module, args: tuple, given: Any) -> None:
        if self._watched and self.written:
            y = first_of(given)[:, self._watched.position] * (times * self._anatomy.multipliers[layer])
            self.written.mlp[: len(y), layer] += (y * self._watched.direction).sum(-1)

    def _attend(self, one: Attention) -> Tensor | None:
        """Attention over the plain run's keys before the first position, and without what is blocked."""
        base, active = self._base, len(one.query)
        rows = self._rows
        blocked = [i for i in self._blocked if i < active and rows[i].layer <= one.layer < rows[i].until]
        if not base.start and not blocked:
            return None
        scores = one.scores(one.query, one.key)
        if base.start:
            scores = torch.cat([one.scores(one.query, base.keys[one.layer]), scores], -1)
        seen = torch.arange(base.start + self._width, device=self._device)
        allowed = base.masks[one.layer] if one.layer in base.masks else seen <= self._here[:, None]
        allowed = allowed.repeat(active if blocked else 1, 1, 1, 1)
        for i in blocked:
            mask = rows[i].blocked
            assert mask is not None
            allowed[i, 0] &= ~mask.to(self._device)
        weights = one.weights(scores, allowed)
        out = weighed(weights[..., base.start :], one.value)
        return out + weighed(weights[..., : base.start], base.values[one.layer]) if base.start else out
