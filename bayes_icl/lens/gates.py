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
from bayes_icl.lens.anatomy import Anatomy, first_of
from bayes_icl.lens.attention import Attention, Gates, attention_through
from bayes_icl.lens.edits import projection


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
        Of heads, of layers that have some, shape (batch, pos, head * d_head): their own output less the reference, and
        what they handed on, which is part of the graph where gradients are wanted.
    mlp_moved, mlp_outputs
        The same of MLPs, shape (batch, pos, d_model); empty where they have no gates.
    attention
        What each layer's attention was given; empty where it was not asked for.
    factors
        Of layers whose heads are gated by the model itself: with what (`attention.Gates`).
    """

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    moved: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)
    mlp_moved: dict[int, Tensor] = field(default_factory=dict)
    mlp_outputs: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Attention] = field(default_factory=dict)
    factors: dict[int, Tensor] = field(default_factory=dict)


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
    found, own_gates, rows = GatedPass(), Gates(anatomy), torch.arange(len(ids), device=ids.device)[:, None]

    def blend(layer: int, own: Tensor, at_zero: Tensor, moved: dict, outputs: dict) -> Tensor:
        away = own - at_zero
        out = at_zero + gate * away
        if torch.is_grad_enabled() and not out.requires_grad:
            out.requires_grad_()
        moved[layer], outputs[layer] = away.detach(), out
        return out

    def gate_heads(layer: int, _: nn.Module, args: tuple) -> tuple:
        z, *rest = args
        at_zero = anatomy.narrowed(by_head(reference.heads[layer], anatomy.n_heads), layer).flatten(2)
        out = blend(layer, z.view(*ids.shape, -1), at_zero, found.moved, found.outputs)
        return (out.view(z.shape), *rest)

    def gate_mlp(layer: int, at_zero: Tensor, _: nn.Module, args: tuple, y: Any) -> Any:
        first, at_zero = first_of(y), at_zero / anatomy.multipliers[layer]
        out = blend(layer, first.reshape(at_zero.shape), at_zero, found.mlp_moved, found.mlp_outputs)
        out = out.view(first.shape)
        return (out, *y[1:]) if isinstance(y, tuple) else out

    def gather(_: nn.Module, args: tuple) -> tuple:
        return (args[0][rows, positions].flatten(0, 1)[None], *args[1:])

    def keep(one: Attention) -> Tensor | None:
        if keep_attention and (ones := own_gates.ones(one)) is not None:
            return ones
        if keep_attention:
            query, key, value = (x.detach() for x in (one.query, one.key, one.value))
            found.attention[one.layer] = one._replace(query=query, key=key, value=value)
        return None

    with contextlib.ExitStack() as stack:
        for layer in anatomy.with_heads:
            stack.enter_context(projection(anatomy, layer).register_forward_pre_hook(partial(gate_heads, layer)))
        for layer, at_zero in enumerate(reference.mlps or []):
            if (mlp := anatomy.mlp_output(layer)) is not None:
                stack.enter_context(mlp.register_forward_hook(partial(gate_mlp, layer, at_zero)))
        if keep_attention:
            own_gates.enter(stack)
        stack.enter_context(anatomy.unembed.register_forward_pre_hook(gather))
        stack.enter_context(attention_through(anatomy, keep))
        found.logits = anatomy.hf(input_ids=ids, use_cache=False).logits[0]
    found.factors = own_gates.by_layer
    if len(found.outputs) != (n := len(anatomy.with_heads)):
        raise StatedError(
            f"{len(found.outputs)} of {n} layers with heads of {type(anatomy.hf).__name__} hand on what heads put "
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
