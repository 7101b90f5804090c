"""Tiny random models of every family that is read, and a byte tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SHAPE: dict[str, Any] = dict(
    # Wide initial weights, so that attention matters and a wrong mask shows.
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    initializer_range=0.15,
)

FAMILIES: dict[str, Callable[[int], PreTrainedModel]] = {
    "llama": lambda v: LlamaForCausalLM(LlamaConfig(vocab_size=v, num_key_value_heads=2, **SHAPE)),
    "gpt2": lambda v: GPT2LMHeadModel(
        GPT2Config(vocab_size=v, n_embd=64, n_head=4, n_layer=2, n_positions=512, initializer_range=0.15)
    ),
    "qwen2": lambda v: Qwen2ForCausalLM(Qwen2Config(vocab_size=v, num_key_value_heads=2, **SHAPE)),
    "gpt_neox": lambda v: GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=v, **SHAPE)),
    "gemma2": lambda v: Gemma2ForCausalLM(
        # Caps so tight that leaving them out would change every logit.
        Gemma2Config(
            vocab_size=v,
            num_key_value_heads=2,
            head_dim=16,
            final_logit_softcapping=2.0,
            attn_logit_softcapping=1.0,
            **SHAPE,
        )
    ),
    # Its attention is local by index in its own code, whatever mask it is given.
    "gpt_neo": lambda v: GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=v,
            hidden_size=64,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=16,
            initializer_range=0.15,
        )
    ),
    # Its positions are biases made from a two-dimensional mask.
    "bloom": lambda v: BloomForCausalLM(
        BloomConfig(vocab_size=v, hidden_size=64, n_layer=2, n_head=4, initializer_range=0.15)
    ),
    "gemma3": lambda v: Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=v,
            num_key_value_heads=2,
            head_dim=16,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
            **SHAPE,
        )
    ),
}


def _bridged(model: Any) -> Any:
    """A user's own bridge around a copy: bridging changes the module it is given."""
    from transformer_lens.model_bridge import TransformerBridge

    hf, tokenizer = copy.deepcopy(model.hf), copy.deepcopy(model.tokenizer)
    return TransformerBridge.boot_transformers("mine", hf_model=hf, tokenizer=tokenizer, device="cpu")


def byte_tokenizer(
    merges: list[tuple[str, str]] | None = None, specials: tuple[str, ...] = (), words: bool = False, **roles: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the given merges, which may cross any boundary; with `words` none of GPT-2's."""
    merges = merges or []
    tokens = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


words = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<"), min_size=1, max_size=6)
