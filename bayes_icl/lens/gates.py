"""Passes in which heads, and MLPs, stand somewhere between a reference and what they do: a gate on every output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.attention import Attention, attention_through


class Reference(NamedTuple):
    """What heads and MLPs put out where their gates are shut, by layer.

    Attributes
    ----------
    heads
        What they hand to the output projection, shape (batch, pos, head * d_head).
    mlps
        What they add to the residual stream, shape (batch, pos, d_model); None where they have no gates.
    """

    heads: list[Tensor]
    mlps: list[Tensor] | None = None


@dataclass
class GatedPass:
    """A pass with gates, by layer.

    Attributes
    ----------
    logits
        Shape (row, vocab), rows being (batch, read).
    moved, outputs
        Of heads, shape (batch, pos, head * d_head): their own output less the reference, and what they handed on, which
        is part of the graph where gradients are wanted.
    mlp_moved, mlp_outputs
        The same of MLPs, shape (batch, pos, d_model); empty where they have no gates.
    attention
        What each layer's attention was given; empty where it was not asked for.
    """

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    moved: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    mlp_moved: list[Tensor] = field(default_factory=list)
    mlp_outputs: list[Tensor] = field(default_factory=list)
    attention: list[Attention] = field(default_factory=list)


def gated_pass(
    anatomy: Anatomy,
    ids: Int[Tensor, "batch pos"],
    positions: Int[Tensor, "batch read"],
    reference: Reference,
    gate: float,
    *,
    keep_attention: bool = False,
) -> GatedPass:
    """Run episodes in which every head hands on reference + gate * (its own output - reference).

    Its own output is what it makes of what stands before it in this very pass, so that everything responds to what is
    gated below it. At a gate of 1 this is the plain run.

    Parameters
    ----------
    anatomy
        The model's parts.
    ids, positions
        Episodes, padded on the right, and where their logits are read.
    reference
        With gates on MLPs as well, or on heads alone.
    gate
        From 0, the reference, to 1.
    keep_attention
        Keep what attention is given, to split heads over what they attend to.

    Raises
    ------
    StatedError
        A layer's attention heads were not passed through.
    """
    found, rows = GatedPass(), torch.arange(len(ids), device=ids.device)[:, None]

    def blend(own: Tensor, at_zero: Tensor, moved: list[Tensor], outputs: list[Tensor]) -> Tensor:
        away = own - at_zero
        out = at_zero + gate * away
        if torch.is_grad_enabled() and not out.requires_grad:
            out.requires_grad_()
        moved.append(away.detach())
        outputs.append(out)
        return out

    def gate_heads(layer: int, _: nn.Module, args: tuple) -> tuple:
        z, *rest = args
        out = blend(z.view(*ids.shape, -1), reference.heads[layer], found.moved, found.outputs)
        return (out.view(z.shape), *rest)

    def gate_mlp(at_zero: Tensor, _: nn.Module, args: tuple, y: Any) -> Any:
        first = y[0] if isinstance(y, tuple) else y
        out = blend(first.reshape(at_zero.shape), at_zero / anatomy.multiplier, found.mlp_moved, found.mlp_outputs)
        out = out.view(first.shape)
        return (out, *y[1:]) if isinstance(y, tuple) else out

    def gather(_: nn.Module, args: tuple) -> tuple:
        return (args[0][rows, positions].flatten(0, 1)[None], *args[1:])

    def keep(one: Attention) -> None:
        if keep_attention:
            query, key, value = (x.detach() for x in (one.query, one.key, one.value))
            found.attention.append(one._replace(query=query, key=key, value=value))

    with contextlib.ExitStack() as stack:
        for layer, out in enumerate(anatomy.outs):
            stack.enter_context(out.register_forward_pre_hook(partial(gate_heads, layer)))
        for layer, at_zero in enumerate(reference.mlps or []):
            stack.enter_context(anatomy.mlp_output(layer).register_forward_hook(partial(gate_mlp, at_zero)))
        stack.enter_context(anatomy.unembed.register_forward_pre_hook(gather))
        stack.enter_context(attention_through(anatomy, keep))
        found.logits = anatomy.hf(input_ids=ids, use_cache=False).logits[0]
    if len(found.outputs) != anatomy.n_layers:
        raise StatedError(
            f"{len(found.outputs)} of {anatomy.n_layers} layers of {type(anatomy.hf).__name__} hand on what heads put "
            "out: total effects need all; give --total-steps 0"
        )
    return found


@contextlib.contextmanager
def weights_fixed(hf: nn.Module) -> Iterator[None]:
    """Take no gradients with respect to weights, so that none of what they would need is kept."""
    free = [p for p in hf.parameters() if p.requires_grad]
    for p in free:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in free:
            p.requires_grad_(True)


def by_head(x: Float[Tensor, "batch pos width"], n_heads: int) -> Float[Tensor, "batch pos head d_head"]:
    """Head by head what heads hand on."""
    return x.view(*x.shape[:2], n_heads, -1)


def stacked(rows: Sequence[Tensor], width: int, device: torch.device) -> Tensor:
    """Episodes' outputs as one tensor, shape (batch, pos, ...), with zeros on the right up to `width`."""
    return torch.stack([nn.functional.pad(x, (0, 0, 0, width - len(x))) for x in rows]).to(device)
