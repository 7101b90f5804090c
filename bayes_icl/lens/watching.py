"""One forward pass that keeps what heads and MLPs write into the residual stream at the positions read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import EXACT, Anatomy, Norm, pad
from bayes_icl.lens.attention import Attention, Gates, attention_through


@dataclass
class Stream:
    """What a pass wrote at the positions read; rows are (batch, read), flattened.

    Attributes
    ----------
    logits
        Shape (row, vocab), as the model gives them.
    scale
        Of those, relative to what the unembedding gives: a number, or shape (row, vocab) where they are capped.
    z
        By layer, shape (row, head, d_head): what heads hand to the output projection; 0 where there are no heads.
    pattern, values
        By layer that has heads, shapes (batch, head, read, pos) and (batch, kv_head, pos, d_head).
    gates
        By layer that is gated, shape (row, head * d_head): what attention's output is multiplied with.
    mlp, other
        By layer, shape (row, d_model): what the MLP adds, and what anything else does (`Anatomy.others`).
    residual
        Shape (row, d_model), before each block, and after the last.
    attention_scale
        By layer, shape (row, 1): of the norm after attention; None where there is none.
    normed
        Shape (row, d_model): what the unembedding reads.
    """

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    scale: float | Float[Tensor, "row vocab"] = 1.0
    z: list[Tensor] = field(default_factory=list)
    pattern: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    gates: dict[int, Tensor] = field(default_factory=dict)
    mlp: list[Tensor] = field(default_factory=list)
    other: list[Tensor] = field(default_factory=list)
    residual: list[Tensor] = field(default_factory=list)
    attention_scale: list[Tensor | None] = field(default_factory=list)
    normed: Tensor = field(default_factory=lambda: torch.empty(0))


def watch(
    anatomy: Anatomy,
    tokens: Sequence[Int[np.ndarray, " _pos"]],
    positions: Int[np.ndarray, "batch read"],
    *,
    on_z: Any = None,
) -> Stream:
    """Run episodes and keep what was written at the positions read.

    Parameters
    ----------
    anatomy
        The model's parts.
    tokens
        An episode each, padded here on the right, where a causal mask keeps padding from mattering.
    positions
        Those to read, of each episode.
    on_z
        Called with (layer, z of shape (batch, pos, head, d_head)) as every layer passes.

    Raises
    ------
    StatedError
        The model's attention or its logits are not of the kind that adds up.
    """
    ids = pad(tokens).to(anatomy.unembedding.device)
    hooks = _Hooks(anatomy, ids, torch.from_numpy(np.asarray(positions)).to(ids.device), on_z)
    with contextlib.ExitStack() as stack:
        hooks.enter(stack)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(attention_through(anatomy, hooks.keep_attention))
        logits = anatomy.hf(input_ids=ids, use_cache=False).logits[0]
    stream, name = hooks.stream, type(anatomy.hf).__name__
    hooks.finish()
    stream.scale = _scale_of(hooks.raw[0], logits, name)
    stream.logits = logits
    return stream


def _scale_of(
    raw: Float[Tensor, "row vocab"], logits: Float[Tensor, "row vocab"], name: str
) -> float | Float[Tensor, "row vocab"]:
    """What the model multiplies its unembedding's logits with.

    A soft-cap is one function of every logit, which never falls and keeps its sign: its factor is that of the run,
    logit by logit, as the scale of a norm is.

    Raises
    ------
    StatedError
        The logits are not finite, or neither a multiple of those nor capped.
    """
    if not torch.isfinite(logits).all():
        raise StatedError(f"{name} gives logits that are not finite: nothing can be attributed")
    size = float((raw**2).sum(dtype=torch.float64))
    scale = float((raw * logits).sum(dtype=torch.float64)) / size if size else 1.0
    near = EXACT * float(logits.abs().max())
    if torch.allclose(scale * raw, logits, rtol=EXACT, atol=near):
        return scale
    flat, order = raw.flatten().sort()
    capped = logits.flatten()[order]
    if (capped.diff() < -near).any() or ((flat * capped < 0) & (capped.abs() > near)).any():
        raise StatedError(
            f"{name} changes its logits after the unembedding, and not by a soft-cap: what heads write does not add up "
            "to its log-odds; this model can be collected and fitted, not attributed"
        )
    # Where a logit is next to 0 its factor is that of the smallest that is not.
    small = raw.abs() <= EXACT * float(raw.abs().max())
    by_size = torch.where(small, torch.inf, raw.abs()).flatten()
    least = int(by_size.argmin())
    return torch.where(small, float(logits.flatten()[least] / raw.flatten()[least]), logits / raw)


class _Hooks:
    """Hooks of one pass, which put what was written at the positions read into a stream.

    Attributes
    ----------
    stream
        What was written so far.
    raw
        What the unembedding gives, shape (1, row, vocab).
    """

    def __init__(
        self, anatomy: Anatomy, ids: Int[Tensor, "batch pos"], positions: Int[Tensor, "batch read"], on_z: Any
    ) -> None:
        self._anatomy, self._at, self._on_z = anatomy, positions, on_z
        self._batch, self._width = ids.shape
        self._rows = torch.arange(self._batch, device=ids.device)[:, None]
        self.stream = Stream()
        self.raw = torch.empty(0)
        self._gates = Gates(anatomy)

    def enter(self, stack: contextlib.ExitStack) -> None:
        """Register all hooks but that of attention."""
        anatomy, stream = self._anatomy, self.stream
        keep_residual = _first(lambda x: stream.residual.append(self._read(x)))
        nothing = anatomy.unembedding.new_zeros(self._at.numel(), anatomy.unembedding.shape[1])
        stream.attention_scale = [None] * anatomy.n_layers
        stream.z = [nothing.new_zeros(len(nothing), *anatomy.w_out[0].shape[:2])] * anatomy.n_layers
        stream.mlp, stream.other = [nothing] * anatomy.n_layers, [nothing] * anatomy.n_layers
        for layer, block in enumerate(anatomy.blocks):
            stack.enter_context(block.register_forward_pre_hook(keep_residual, with_kwargs=True))
            if (out := anatomy.outs[layer]) is not None:
                keep_z = _first(partial(self._keep_z, layer))
                stack.enter_context(out.register_forward_pre_hook(keep_z, with_kwargs=True))
            if norm := anatomy.after_attention[layer]:
                stack.enter_context(norm.module.register_forward_hook(partial(self._keep_scale, layer, norm)))
            if (mlp := anatomy.mlp_output(layer)) is not None:
                stack.enter_context(mlp.register_forward_hook(partial(self._add, stream.mlp, layer, 1.0)))
            for other in anatomy.others[layer]:
                add = partial(self._add, stream.other, layer, other.times)
                stack.enter_context(other.module.register_forward_hook(add))
        stack.enter_context(anatomy.before_final_norm(keep_residual))
        stack.enter_context(anatomy.unembed.register_forward_pre_hook(self._gather, with_kwargs=True))
        stack.enter_context(anatomy.unembed.register_forward_hook(self._keep_raw))
        self._gates.enter(stack)

    def finish(self) -> None:
        """What was kept at every token, at the positions read."""
        self.stream.gates = {layer: self._read(gate) for layer, gate in self._gates.by_layer.items()}

    def keep_attention(self, one: Attention) -> Tensor | None:
        """The rows of a layer's pattern at the positions read, and its values."""
        if (ones := self._gates.ones(one)) is not None:
            return ones
        rows, at = self._rows, self._at
        chosen = one.query[rows, :, at].transpose(1, 2)  # (batch, head, read, d_head)
        if one.mask is None:
            own = (torch.arange(self._width, device=at.device) <= at[..., None])[:, None]
        else:
            own = one.mask.expand(self._batch, -1, -1, -1)[rows, :, at].transpose(1, 2)[..., : one.key.shape[2]]
        self.stream.pattern[one.layer] = one.weights(one.scores(chosen, one.key), own)
        self.stream.values[one.layer] = one.value
        return None

    def _read(self, x: Any) -> Tensor:
        """The rows read of a (batch, pos, ...) tensor, flattened."""
        x = x[0] if isinstance(x, tuple) else x
        # OPT's MLP has one axis for both.
        return x.reshape(self._batch, self._width, -1)[self._rows, self._at].flatten(0, 1)

    def _keep_z(self, layer: int, x: Tensor) -> None:
        self.stream.z[layer] = self._anatomy.widened(self._read(x), layer)
        if self._on_z:
            self._on_z(layer, self._anatomy.widened(x.view(self._batch, self._width, -1), layer))

    def _keep_scale(self, layer: int, norm: Norm, _: Any, args: tuple, y: Tensor) -> None:
        self.stream.attention_scale[layer] = norm.scale(self._read(args[0]), self._read(y)).float()

    def _add(self, to: list[Tensor], layer: int, times: float, _: Any, args: tuple, y: Any) -> None:
        to[layer] = to[layer] + self._read(y) * (times * self._anatomy.multipliers[layer])

    def _gather(self, _: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The unembedding sees the rows read only: (batch, pos, d_model) becomes (1, row, d_model)."""
        hidden, *rest = args
        self.stream.normed = self._read(hidden)
        return (self.stream.normed[None], *rest), kwargs

    def _keep_raw(self, _: Any, args: tuple, y: Tensor) -> None:
        self.raw = y


def _first(hook: Any) -> Any:
    """A hook that takes the module's first argument, however it was given."""
    return lambda _, args, kwargs: hook(args[0] if args else next(iter(kwargs.values())))
