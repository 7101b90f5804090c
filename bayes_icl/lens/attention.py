"""Attention by a function of ours, registered with transformers.

It keeps the rows of the pattern at the positions read and the values: no pattern of all positions is built, and
attention stays SDPA.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Anatomy

ATTENTION = "bayes_icl"  # the name of our attention function with transformers


def _scores(query: Tensor, key: Tensor, scaling: float, cap: float) -> Float[Tensor, "batch head read pos"]:
    """Attention scores; heads that share a key are taken together."""
    batch, n_heads, n_read, d_head = query.shape
    together = query.reshape(batch, key.shape[1], -1, d_head)
    scores = (together @ key.transpose(-1, -2)).view(batch, n_heads, n_read, -1) * scaling
    return torch.tanh(scores / cap) * cap if cap else scores


def masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores under a mask of what is seen (bool), or one that is added."""
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def weighed(
    weights: Float[Tensor, "batch head query key"], value: Float[Tensor, "kv_batch kv_head key d_head"]
) -> Float[Tensor, "batch head query d_head"]:
    """Values weighed by attention; a batch of values of 1 serves all."""
    batch, n_heads, n, width = weights.shape
    if value.shape[0] == 1 < batch:
        flat = weights.transpose(0, 1).reshape(1, value.shape[1], -1, width)
        return (flat @ value).view(n_heads, batch, n, -1).transpose(0, 1)
    together = weights.reshape(batch, value.shape[1], -1, width)
    return (together @ value).view(batch, n_heads, n, -1)


class Attention(NamedTuple):
    """One layer's attention on its way: what it is given, after rotation of queries and keys.

    Attributes
    ----------
    query, key, value
        Shapes (batch, head, pos, d_head) and (batch, kv_head, pos, d_head).
    mask
        What is seen (bool) or is added to scores, shape (batch or 1, head or 1, pos, pos); None if causal.
    scaling, cap
        Of scores; a cap of 0 is none.
    window
        Length of a sliding window; 0 for none.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    cap: float
    window: int

    def scores(self, query: Tensor, key: Tensor) -> Float[Tensor, "batch head query key"]:
        """Scores of some queries and keys; heads that share a key are taken together, and a batch of keys of 1."""
        if key.shape[0] == 1 < query.shape[0]:
            batch, n_heads, n, d_head = query.shape
            flat = query.transpose(0, 1).reshape(1, n_heads, batch * n, d_head)
            return _scores(flat, key, self.scaling, self.cap).view(n_heads, batch, n, -1).transpose(0, 1)
        return _scores(query, key, self.scaling, self.cap)


@contextlib.contextmanager
def attention_through(anatomy: Anatomy, attend: Any) -> Iterator[None]:
    """Show every `Attention` of the model to `attend`.

    It is computed by SDPA, unless `attend` gives the heads' output itself, shape (batch, head, pos, d_head).
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    layer_of = {id(module): i for i, module in enumerate(anatomy.attentions)}

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> Any:
        if kwargs.get("s_aux") is not None:
            raise StatedError("this model's attention has a learned sink: its heads cannot be attributed")
        scaling, cap = kwargs.pop("scaling", None) or query.shape[-1] ** -0.5, kwargs.pop("softcap", None) or 0.0
        if id(module) in layer_of:
            window = kwargs.get("sliding_window") or getattr(module, "sliding_window", None) or 0
            one = Attention(layer_of[id(module)], query, key, value, mask, scaling, cap, window)
            if (out := attend(one)) is not None:
                return out.transpose(1, 2).contiguous(), None
        kwargs["dropout"] = 0.0
        if not cap:
            return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **kwargs)
        scores = _scores(query, key, scaling, cap)
        if mask is None:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        weights = masked(scores, mask).softmax(-1)
        return weighed(weights, value).transpose(1, 2).contiguous(), None

    AttentionInterface.register(ATTENTION, forward)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    before = anatomy.hf.config._attn_implementation
    anatomy.hf.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        anatomy.hf.set_attn_implementation(before)
