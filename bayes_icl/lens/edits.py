"""Forward passes with heads replaced, blocks skipped, or only some positions unembedded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Anatomy, first_of

# By layer: which heads, and what they hand to the output projection instead, shape (batch, pos, chosen head, d_head);
# where that is NaN, their own output stays.
Edits = Mapping[int, tuple[Sequence[int], Tensor]]


@contextlib.contextmanager
def heads_replaced(anatomy: Anatomy, edits: Edits) -> Iterator[set[int]]:
    """Run with some heads' output (TransformerLens's ``blocks.{layer}.attn.hook_z``) replaced.

    Yields
    ------
    The layers at which that has changed anything, so far.
    """
    changed: set[int] = set()

    def replace(layer: int, heads: Sequence[int], values: Tensor) -> Any:
        def hook(_: nn.Module, args: tuple) -> tuple:
            z, *rest = args
            edited = z.clone().view(*z.shape[:2], *anatomy.shapes[layer])
            put(edited, heads, values.to(z.device))
            edited = edited.view(z.shape)
            if layer not in changed and not torch.equal(edited, z):
                changed.add(layer)
            return (edited, *rest)

        return hook

    with contextlib.ExitStack() as stack:
        for layer, edit in edits.items():
            stack.enter_context(projection(anatomy, layer).register_forward_pre_hook(replace(layer, *edit)))
        yield changed


def projection(anatomy: Anatomy, layer: int) -> nn.Module:
    """The output projection of a layer's heads.

    Raises
    ------
    StatedError
        The layer has no attention heads.
    """
    out = anatomy.outs[layer]
    if out is None:
        raise StatedError(f"layer {layer} has no attention heads; layers {anatomy.with_heads} have")
    return out


def put(z: Float[Tensor, "batch pos head d_head"], heads: Sequence[int], values: Tensor) -> None:
    """Replace some heads' output in place, but for NaN; values may be filled up (`Anatomy.widened`)."""
    own = z[:, :, list(heads)]
    values = values[..., : z.shape[-1]]
    z[:, :, list(heads)] = torch.where(values.isnan(), own, values)


def outputs_of(
    anatomy: Anatomy, tokens: Int[np.ndarray, " pos"]
) -> tuple[Float[Tensor, "layer pos head d_head"], Float[Tensor, "layer pos d_model"]]:
    """What every head hands on and every MLP adds, at every token of a prompt."""
    n, device = len(tokens), anatomy.unembedding.device
    z = torch.zeros(anatomy.n_layers, n, *anatomy.w_out[0].shape[:2], device=device)
    mlps = torch.zeros(anatomy.n_layers, n, anatomy.unembedding.shape[1], device=device)

    def keep_z(layer: int, _: nn.Module, args: tuple) -> None:
        z[layer] = anatomy.widened(args[0].view(n, -1), layer)

    def keep_mlp(layer: int, _: nn.Module, args: tuple, y: Any) -> None:
        mlps[layer] = first_of(y).view(n, -1) * anatomy.multipliers[layer]

    with contextlib.ExitStack() as stack:
        for layer, out in enumerate(anatomy.outs):
            if out is not None:
                stack.enter_context(out.register_forward_pre_hook(partial(keep_z, layer)))
            if (mlp := anatomy.mlp_output(layer)) is not None:
                stack.enter_context(mlp.register_forward_hook(partial(keep_mlp, layer)))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(unembedding(anatomy, [0]))
        anatomy.hf(input_ids=torch.from_numpy(tokens)[None].to(device), use_cache=False)
    return z, mlps


@contextlib.contextmanager
def unembedding(anatomy: Anatomy, positions: Sequence[int]) -> Iterator[None]:
    """Unembed some positions only: logits come with shape (1, batch * position, vocab)."""

    def gather(_: nn.Module, args: tuple) -> tuple:
        return (args[0][:, list(positions)].flatten(0, 1)[None], *args[1:])

    with anatomy.unembed.register_forward_pre_hook(gather):
        yield


@contextlib.contextmanager
def blocks_kept(anatomy: Anatomy, layers: Sequence[int]) -> Iterator[dict[int, Float[Tensor, "batch pos d_model"]]]:
    """Keep what goes into some blocks, by layer, for `starting_at`."""
    kept: dict[int, Tensor] = {}

    def hook(layer: int) -> Any:
        return lambda _, args, kwargs: kept.update({layer: args[0] if args else kwargs["hidden_states"]})

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(anatomy.blocks[layer].register_forward_pre_hook(hook(layer), with_kwargs=True))
        yield kept


@contextlib.contextmanager
def starting_at(anatomy: Anatomy, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> Iterator[None]:
    """Run from a block on, with what went into it in a run before; the blocks below are not computed."""
    with contextlib.ExitStack() as stack:
        for block, n_given in zip(anatomy.blocks[:layer], anatomy.n_given):
            stack.enter_context(_standing_in(block, (residual, *[None] * (n_given - 1)) if n_given else residual))
        yield


@contextlib.contextmanager
def _standing_in(block: nn.Module, output: Any) -> Iterator[None]:
    own = vars(block).get("forward")  # some libraries put one there
    block.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own
