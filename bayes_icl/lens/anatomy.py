"""The parts of a model and its norms as linear maps."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

EXACT = 1e-5  # logits that differ from a multiple of the unembedding's by more than this part were capped


def pad(rows: Sequence[Int[np.ndarray, " _pos"]]) -> Int[Tensor, "batch pos"]:
    """Episodes as one tensor, with zeros on the right."""
    width = max(len(row) for row in rows)
    return torch.from_numpy(np.stack([np.pad(row, (0, width - len(row))) for row in rows]))


@dataclass(frozen=True)
class Norm:
    """A norm as a linear map, its scale taken from the run: y = gain * (x - mean, if centred) * scale + bias."""

    module: nn.Module
    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centred: bool

    @classmethod
    def of(cls, module: nn.Module, d_model: int, device: torch.device) -> Norm:
        """Read gain and bias off the module's answers, so that RMSNorm, LayerNorm and gains of 1 + w are one case.

        Of a vector of alternating signs, mean and root mean square are 0 and 1, if it has an even number of entries.
        """
        signs = torch.ones(d_model, device=device)
        signs[1::2] = -1
        big = 1e3  # so that the norm's epsilon does not count
        with torch.inference_mode():
            plus, minus, ones = module(torch.stack([big * signs, -big * signs, torch.full_like(signs, big)]))
        bias = (plus + minus) / 2
        return cls(module, (plus - minus) / 2 * signs, bias, bool((ones - bias).abs().max() < 1e-3 * plus.abs().max()))

    def scale(self, x: Float[Tensor, "row d_model"], y: Float[Tensor, "row d_model"]) -> Float[Tensor, "row 1"]:
        """The factor by which a run scaled each row, epsilon and all."""
        linear = self.linear(x).double()
        size = (linear**2).sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)  # 0 of a row of zeros
        return ((y - self.bias).double() * linear).sum(-1, keepdim=True) / size

    def back(
        self, direction: Float[Tensor, "row d_model"], scale: Float[Tensor, "row 1"]
    ) -> Float[Tensor, "row d_model"]:
        """The direction before the norm that reads what `direction` reads after it, bias aside."""
        return self.centre(self.gain * direction) * scale

    def linear(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """What the norm makes of rows but for its scale and its bias."""
        return self.gain * self.centre(x)

    def centre(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """Rows less their means, where the norm takes these off."""
        return x - x.mean(-1, keepdim=True) if self.centred else x


class Writer(NamedTuple):
    """A module that adds its output to the residual stream, `times` a number."""

    module: nn.Module
    times: float = 1.0


@dataclass(frozen=True)
class Anatomy:
    """Where a model's parts are.

    A layer may be without attention heads, or without an MLP. Heads may be of fewer dimensions in some layers than in
    others, or fewer: what is kept of heads is filled up with zeros to the largest (`widened`).

    What a layer adds is measured as it stands in the last residual stream, so that where blocks scale the stream
    (Gemma 4) one direction reads all.

    Attributes
    ----------
    hf
        The plain transformers module.
    blocks, attentions, outs, mlps
        By layer: the block, its attention, the projection to the residual stream, and what an MLP's write comes out of.
    others
        By layer: what else adds to the residual stream, such as a mixer that is not attention (linear attention, state
        space, convolution), a second set of experts, or Gemma 4's input of the layer.
    after_attention, after_mlp
        By layer: a norm between attention (MLP) and the residual stream, as Gemma 3 has, or None.
    final_norm, unembed, unembedding
        The last norm, the unembedding, and its weights.
    w_out
        By layer, shape (head, d_head, d_model): views of the weights, where no filling up was needed.
    gram
        By layer, shape (head, d_head, d_head): w_out times its transpose, for norms of what heads write.
    out_bias
        By layer, shape (d_model,), or None.
    shapes
        By layer: how many heads, and of how many dimensions; (0, 0) where there are none.
    value_bias
        By layer, shape (head, d_head): what values are where the residual stream is 0. Attention sums to 1, so it adds
        the same whatever a head attends to, and counts as a bias and not as the head's. 0 where that is not so: a
        learned sink takes attention, or the output is gated.
    carried
        By layer, and of the final norm's input last: by how much the residual stream there is scaled until the end.
    multipliers
        By layer: by how much what attention and MLPs add is scaled until the end (Granite, Gemma 4).
    gated
        By layer: attention's output is multiplied, coordinate by coordinate, before the projection (Qwen3.5).
    n_given
        By layer: how many things the block gives as a tuple; 0 where it gives its output alone.
    recurrent
        Some layer keeps a state, so that no run can start in the middle of a prompt.
    shared_from
        The first layer whose keys and values later layers attend to; no run can start above it. The number of layers
        where there is none.
    norms_before
        How many times the final norm runs before it is the final one (NanoChat: once, on the embedding).
    """

    hf: Any
    blocks: list[nn.Module]
    attentions: list[nn.Module | None]
    outs: list[nn.Module | None]
    mlps: list[nn.Module | None]
    others: list[list[Writer]]
    after_attention: list[Norm | None]
    after_mlp: list[Norm | None]
    final_norm: Norm
    unembed: nn.Module
    unembedding: Float[Tensor, "vocab d_model"]
    w_out: list[Float[Tensor, "head d_head d_model"]]
    gram: list[Float[Tensor, "head d_head d_head"]]
    out_bias: list[Float[Tensor, " d_model"] | None]
    shapes: list[tuple[int, int]]
    value_bias: list[Float[Tensor, "head d_head"]]
    carried: list[float]
    multipliers: list[float]
    gated: list[bool]
    n_given: list[int]
    recurrent: bool
    shared_from: int
    norms_before: int

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        """Number of query heads in a layer, the largest."""
        return self.w_out[0].shape[0]

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Every head that there is: layer, number."""
        return [(layer, head) for layer, (n_heads, _) in enumerate(self.shapes) for head in range(n_heads)]

    @property
    def with_heads(self) -> list[int]:
        """The layers that have attention heads."""
        return [layer for layer, out in enumerate(self.outs) if out is not None]

    def before_final_norm(self, hook: Callable[..., Any]) -> contextlib.AbstractContextManager:
        """Call a hook, with keywords, before the final norm of each pass."""
        calls = itertools.count(1)
        last = self.norms_before + 1

        def on_last(module: nn.Module, args: tuple, kwargs: dict) -> Any:
            return hook(module, args, kwargs) if next(calls) % last == 0 else None

        return self.final_norm.module.register_forward_pre_hook(on_last, with_kwargs=True)

    def exists(self) -> Bool[np.ndarray, "layer head"]:
        """Which heads there are."""
        there = np.zeros((self.n_layers, self.n_heads), bool)
        there[tuple(np.array(self.heads).T)] = True
        return there

    def widened(self, z: Float[Tensor, "*rows width"], layer: int) -> Float[Tensor, "*rows head d_head"]:
        """Head by head what a layer's heads hand on, filled up with zeros to the largest layer's shape."""
        return filled(z.unflatten(-1, self.shapes[layer]), self.w_out[0].shape[:2])

    def narrowed(
        self, z: Float[Tensor, "*rows head d_head"], layer: int
    ) -> Float[Tensor, "*rows layer_head layer_d_head"]:
        """Without what `widened` filled up."""
        n_heads, d_head = self.shapes[layer]
        return z[..., :n_heads, :d_head]

    def mlp_output(self, layer: int) -> nn.Module | None:
        """The module whose output is what a layer's MLP adds, before `multipliers`; None where there is no MLP."""
        after = self.after_mlp[layer]
        return after.module if after else self.mlps[layer]


def filled(x: Float[Tensor, "*rows head d_head"], shape: Sequence[int]) -> Float[Tensor, "*rows n_heads width"]:
    """With zeros after the last head, and after the last dimension of each."""
    n_heads, width = shape
    if x.shape[-2:] == (n_heads, width):
        return x
    return nn.functional.pad(x, (0, width - x.shape[-1], 0, n_heads - x.shape[-2]))


def first_of(y: Any) -> Tensor:
    """A module's output, which mixtures of experts and some blocks give more with."""
    return y[0] if isinstance(y, tuple) else y
