"""The parts of a model and its norms as linear maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
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


@dataclass(frozen=True)
class Anatomy:
    """Where a model's parts are.

    Attributes
    ----------
    hf
        The plain transformers module.
    blocks, attentions, outs, mlps
        By layer: the block, its attention, the projection to the residual stream, and what an MLP's write comes out of.
    after_attention, after_mlp
        By layer: a norm between attention (MLP) and the residual stream, as Gemma 3 has, or None.
    final_norm, unembed, unembedding
        The last norm, the unembedding, and its weights.
    w_out
        By layer, shape (head, d_head, d_model): views of the weights.
    gram
        By layer, shape (head, d_head, d_head): w_out times its transpose, for norms of what heads write.
    out_bias
        By layer, shape (d_model,), or None.
    value_bias
        By layer, shape (head, d_head): what values are where the residual stream is 0. Attention sums to 1, so it adds
        the same whatever a head attends to, and counts as a bias and not as the head's.
    multiplier
        By which blocks multiply what they add to the residual stream (Granite).
    """

    hf: Any
    blocks: list[nn.Module]
    attentions: list[nn.Module]
    outs: list[nn.Module]
    mlps: list[nn.Module]
    after_attention: list[Norm | None]
    after_mlp: list[Norm | None]
    final_norm: Norm
    unembed: nn.Module
    unembedding: Float[Tensor, "vocab d_model"]
    w_out: list[Float[Tensor, "head d_head d_model"]]
    gram: list[Float[Tensor, "head d_head d_head"]]
    out_bias: list[Float[Tensor, " d_model"] | None]
    value_bias: list[Float[Tensor, "head d_head"]]
    multiplier: float

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        """Number of query heads in a layer."""
        return self.w_out[0].shape[0]

    def mlp_output(self, layer: int) -> nn.Module:
        """The module whose output is what a layer's MLP adds, before `multiplier`."""
        after = self.after_mlp[layer]
        return after.module if after else self.mlps[layer]
