"""Attention by a function of ours, registered with transformers.

It keeps the rows of the pattern at the positions read and the values: no pattern of all positions is built, and
attention stays SDPA.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
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
    sinks
        Learned scores of a column of value 0 that takes attention (gpt-oss), shape (head,); None where there is none.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    cap: float
    sinks: Tensor | None = None

    def weights(
        self, scores: Float[Tensor, "batch head query key"], mask: Tensor
    ) -> Float[Tensor, "batch head query key"]:
        """Attention from scores under a mask; sums to less than 1 where a learned sink takes some."""
        scores = masked(scores, mask)
        if self.sinks is None:
            return scores.softmax(-1)
        sinks = self.sinks.to(scores.dtype)[None, :, None, None].expand(*scores.shape[:3], 1)
        return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]

    def scores(self, query: Tensor, key: Tensor) -> Float[Tensor, "batch head query key"]:
        """Scores of some queries and keys; heads that share a key are taken together, and a batch of keys of 1."""
        if key.shape[0] == 1 < query.shape[0]:
            batch, n_heads, n, d_head = query.shape
            flat = query.transpose(0, 1).reshape(1, n_heads, batch * n, d_head)
            return _scores(flat, key, self.scaling, self.cap).view(n_heads, batch, n, -1).transpose(0, 1)
        return _scores(query, key, self.scaling, self.cap)


def attention_through(anatomy: Anatomy, attend: Any) -> contextlib.AbstractContextManager[None]:
    """Show every `Attention` of the model to `attend`.

    It is computed by SDPA, unless `attend` gives the heads' output itself, shape (batch, head, pos, d_head).
    """
    return attention_of(anatomy.hf, anatomy.attentions, attend)


class Gates:
    """The factors, coordinate by coordinate, between attention's output and the projection, where there are any.

    A gated layer's attention module is run again as it passes, its output taken to be 1 everywhere, so that what
    reaches the projection is the factor.

    Attributes
    ----------
    by_layer
        Those of gated layers, shape (batch, pos, head * d_head).
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._again = False
        self.by_layer: dict[int, Tensor] = {}

    def enter(self, stack: contextlib.ExitStack) -> None:
        """Register what is needed; the second run ends before any hook of the projection."""
        for layer, gated in enumerate(self._anatomy.gated):
            attention, out = self._anatomy.attentions[layer], self._anatomy.outs[layer]
            if gated and attention is not None and out is not None:
                stack.enter_context(out.register_forward_pre_hook(partial(self._keep, layer), prepend=True))
                stack.enter_context(attention.register_forward_hook(self._run_again, with_kwargs=True))

    def ones(self, one: Attention) -> Tensor | None:
        """What attention's output is in a second run; None in the first."""
        if not self._again:
            return None
        return torch.ones_like(one.query[..., :1]).expand(*one.query.shape[:3], one.value.shape[3])

    def _run_again(self, module: nn.Module, args: tuple, kwargs: dict, _: Any) -> None:
        if self._again:
            return
        self._again = True
        try:
            with torch.no_grad(), contextlib.suppress(_ReachedError):
                module(*args, **kwargs)
        finally:
            self._again = False

    def _keep(self, layer: int, _: nn.Module, args: tuple) -> None:
        if self._again:
            self.by_layer[layer] = args[0].detach()
            raise _ReachedError


class _ReachedError(Exception):
    """A second run has reached the projection, and goes no further."""


@contextlib.contextmanager
def attention_of(hf: Any, attentions: Sequence[nn.Module | None], attend: Any) -> Iterator[None]:
    """The same of a model whose attention modules are known, by layer."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    layer_of = {id(module): i for i, module in enumerate(attentions) if module is not None}

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> Any:
        if kwargs.get("position_bias") is not None:
            raise StatedError("this model's attention adds a bias of positions to scores: it cannot be attributed")
        scaling, cap = kwargs.pop("scaling", None) or query.shape[-1] ** -0.5, kwargs.pop("softcap", None) or 0.0
        sinks = kwargs.pop("s_aux", None)
        one = Attention(layer_of.get(id(module), -1), query, key, value, attention_mask, scaling, cap, sinks)
        if one.layer >= 0 and (out := attend(one)) is not None:
            return out.transpose(1, 2).contiguous(), None
        kwargs["dropout"] = 0.0
        if not cap and sinks is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        scores = one.scores(query, key)
        mask = attention_mask
        if mask is None:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        return weighed(one.weights(scores, mask), value).transpose(1, 2).contiguous(), None

    AttentionInterface.register(ATTENTION, forward)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    before = hf.config._attn_implementation
    hf.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        hf.set_attn_implementation(before)
