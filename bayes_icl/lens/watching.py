"""One forward pass that keeps what heads and MLPs write into the residual stream at the positions read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import EXACT, Anatomy, Norm, pad
from bayes_icl.lens.attention import Attention, attention_through, masked


@dataclass
class Stream:
    """What a pass wrote at the positions read; rows are (batch, read), flattened.

    Attributes
    ----------
    logits
        Shape (row, vocab), as the model gives them.
    scale
        Of those, relative to what the unembedding gives.
    z
        By layer, shape (row, head, d_head): what heads hand to the output projection.
    pattern, values
        By layer, shapes (batch, head, read, pos) and (batch, kv_head, pos, d_head).
    mlp
        By layer, shape (row, d_model): what the MLP adds.
    residual
        Shape (row, d_model), before each block, and after the last.
    attention_scale
        By layer, shape (row, 1): of the norm after attention; None where there is none.
    normed
        Shape (row, d_model): what the unembedding reads.
    """

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    scale: float = 1.0
    z: list[Tensor] = field(default_factory=list)
    pattern: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)
    residual: list[Tensor] = field(default_factory=list)
    attention_scale: list[Tensor | None] = field(default_factory=list)
    normed: Tensor = field(default_factory=lambda: torch.empty(0))


def watch(
    anatomy: Anatomy,
    tokens: Sequence[Int[np.ndarray, " pos"]],
    positions: Int[np.ndarray, "batch read"],
    *,
    on_z: Any = None,
) -> Stream:
    """Run episodes and keep what was written at the positions read.

    Parameters
    ----------
    tokens
        An episode each, padded here on the right, where a causal mask keeps padding from mattering.
    on_z
        Called with (layer, z of shape (batch, pos, head, d_head)) as every layer passes.

    Raises
    ------
    StatedError
        The model's attention or its logits are not of the kind that adds up.
    """
    ids = pad(tokens).to(anatomy.unembedding.device)
    batch, width = ids.shape
    at = torch.from_numpy(np.asarray(positions)).to(ids.device)
    n_read = at.shape[1]
    rows = torch.arange(batch, device=ids.device)[:, None]
    stream = Stream()
    kept: dict[str, Any] = {}

    def read(x: Any) -> Tensor:
        """The rows read of a (batch, pos, ...) tensor, flattened."""
        x = x[0] if isinstance(x, tuple) else x
        return x.reshape(batch, width, -1)[rows, at].flatten(0, 1)  # OPT's MLP has one axis for both

    def into(hook: Any) -> Any:
        """A hook that takes the module's first argument, however it was given."""
        return lambda _, args, kwargs: hook(args[0] if args else next(iter(kwargs.values())))

    def keep_z(layer: int) -> Any:
        def hook(x: Tensor) -> None:
            stream.z.append(read(x).view(batch * n_read, anatomy.n_heads, -1))
            if on_z:
                on_z(layer, x.view(batch, width, anatomy.n_heads, -1))

        return hook

    def keep_scale(norm: Norm) -> Any:
        return lambda _, args, y: stream.attention_scale.append(norm.scale(read(args[0]), read(y)).float())

    def keep_logits(_: Any, args: tuple, y: Tensor) -> None:
        kept["raw"] = y

    def gather(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The unembedding sees the rows read only: (batch, pos, d_model) becomes (1, row, d_model)."""
        hidden, *rest = args
        stream.normed = read(hidden)
        return (stream.normed[None], *rest), kwargs

    def keep_attention(one: Attention) -> None:
        chosen = one.query[rows, :, at].transpose(1, 2)  # (batch, head, read, d_head)
        if one.mask is None:
            own = (torch.arange(width, device=ids.device) <= at[..., None])[:, None]
        else:
            own = one.mask.expand(batch, -1, -1, -1)[rows, :, at].transpose(1, 2)[..., : one.key.shape[2]]
        stream.pattern.append(masked(one.scores(chosen, one.key), own).softmax(-1))
        stream.values.append(one.value)

    with contextlib.ExitStack() as stack:
        for layer, block in enumerate(anatomy.blocks):
            keep = into(lambda x: stream.residual.append(read(x)))
            stack.enter_context(block.register_forward_pre_hook(keep, with_kwargs=True))
            stack.enter_context(anatomy.outs[layer].register_forward_pre_hook(into(keep_z(layer)), with_kwargs=True))
            if norm := anatomy.after_attention[layer]:
                stack.enter_context(norm.module.register_forward_hook(keep_scale(norm)))
            else:
                stream.attention_scale.append(None)
            written = anatomy.mlp_output(layer)
            keep_mlp = lambda _, args, y: stream.mlp.append(read(y) * anatomy.multiplier)  # noqa: E731
            stack.enter_context(written.register_forward_hook(keep_mlp))
        keep = into(lambda x: stream.residual.append(read(x)))
        stack.enter_context(anatomy.final_norm.module.register_forward_pre_hook(keep, with_kwargs=True))
        stack.enter_context(anatomy.unembed.register_forward_pre_hook(gather, with_kwargs=True))
        stack.enter_context(anatomy.unembed.register_forward_hook(keep_logits))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(attention_through(anatomy, keep_attention))
        logits = anatomy.hf(input_ids=ids, use_cache=False).logits[0]
    if len(stream.pattern) != anatomy.n_layers:
        raise StatedError(
            f"the attention of {type(anatomy.hf).__name__} does not run through transformers' attention interface: "
            "this model can be collected and fitted, not attributed"
        )
    raw = kept["raw"][0]
    if not torch.isfinite(logits).all():
        raise StatedError(f"{type(anatomy.hf).__name__} gives logits that are not finite: nothing can be attributed")
    size = float((raw**2).sum(dtype=torch.float64))
    stream.scale = float((raw * logits).sum(dtype=torch.float64)) / size if size else 1.0
    if not torch.allclose(stream.scale * raw, logits, rtol=EXACT, atol=EXACT * float(logits.abs().max())):
        raise StatedError(
            f"{type(anatomy.hf).__name__} changes its logits after the unembedding (a soft-cap?): what heads write "
            "does not add up to its log-odds; this model can be collected and fitted, not attributed"
        )
    stream.logits = logits
    return stream
