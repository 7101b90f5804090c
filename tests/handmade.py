"""Models to be taken apart: random ones, biases and gains too, and two whose one writing head is built by hand."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import torch
from test_models import FAMILIES
from transformers import LlamaConfig, LlamaForCausalLM

from bayes_icl.models import Model
from bayes_icl.tasks import Example, Task


def random_model(name: str, like: Model, *, tied: bool | None = None) -> Model:
    """A random model of a family; biases and gains, which transformers sets to 0 and 1, are random as well."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        hf: Any = FAMILIES[name](len(like.tokenizer))
        if tied is not None and tied != hf.config.tie_word_embeddings:
            hf.config.tie_word_embeddings = tied
            hf = type(hf)(hf.config)
        randomise(hf)
    hf.config.architectures = [type(hf).__name__]  # as a saved model has it; TransformerLens goes by it
    return Model(hf.eval(), like.tokenizer, name)


def randomise(hf: Any) -> None:
    """Random biases and gains."""
    with torch.no_grad():
        for key, weight in hf.named_parameters():
            if key.endswith("bias"):
                weight.normal_(0, 0.3)
            elif "norm" in key or "ln_" in key:
                weight.add_(0.3 * torch.randn_like(weight))


# The residual stream of the models built by hand: a large constant, which keeps the scale of norms from moving; what a
# query's last letter, a label and the first token are; what raises the two labels; and room for noise.
CONST, QUERY_A, QUERY_B, LABEL_A, LABEL_B, SINK, OUT_A, OUT_B, NOISE = range(9)
WIDTH, HEADS, LAYERS, LARGE = 32, 4, 2, 100.0
WRITER = (1, 2)
SCORE = 10.0  # of a label that is attended to; all other tokens have 0, and e^10 times less weight
LABELS = ("x", "y")
LETTERS = {"x": string.ascii_lowercase[:8], "y": string.ascii_lowercase[8:16]}
COUNT_SINK = 2000.0  # the sink weighs as much as so many examples, so that a count stays far below it
AVERAGE_SINK = 3.0
AMOUNT = 0.6  # nats per matching example, of the head that counts
CEILING = 6.0  # nats, of the head that averages


def counting_model(like: Model) -> Model:
    """Its one head adds AMOUNT k / (1 + k / COUNT_SINK) nats to the label of the query's class, k examples having it.

    Softmax averages, so counting takes a sink that holds nearly all attention, and a value as large as the sink.
    """
    return _built(like, "count")


def averaging_model(like: Model) -> Model:
    """Its one head attends alike to all labels, and to the sink as to AVERAGE_SINK of them: CEILING n / (n + c) nats.

    Scores and values vary a little with what stood before each label.
    """
    return _built(like, "average")


def _built(like: Model, kind: str) -> Model:
    config = LlamaConfig(
        vocab_size=len(like.tokenizer),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=4096,
        rope_theta=1e12,  # so that the last dimensions of a head hardly turn with the position
        tie_word_embeddings=False,
    )
    config.rope_parameters = {"rope_type": "default", "rope_theta": 1e12}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        hf = LlamaForCausalLM(config).eval()
        for block in hf.model.layers:
            _fill_with_noise(block)
        _embed(hf, like)
        _build_writer(hf.model.layers[WRITER[0]].self_attn, kind)
        for norm in (m for m in hf.modules() if type(m).__name__ == "LlamaRMSNorm"):
            norm.weight.fill_(LARGE / WIDTH**0.5)  # so that norms leave the stream about as it is
    hf.config.architectures = ["LlamaForCausalLM"]
    return Model(hf, like.tokenizer, kind)


def _fill_with_noise(block: Any) -> None:
    """Every head and MLP reads noise and writes a little noise."""
    attention, mlp = block.self_attn, block.mlp
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
        projection.weight.normal_(0, 0.3)
        projection.weight[:, :NOISE] = 0
    for projection in (attention.o_proj, mlp.down_proj):
        projection.weight.normal_(0, 0.3)
        projection.weight[:NOISE] = 0


def _embed(hf: Any, like: Model) -> None:
    embed, unembed = hf.model.embed_tokens.weight, hf.lm_head.weight
    embed.zero_()
    unembed.zero_()
    unembed[:, NOISE:].normal_(0, 0.15)
    # Only queries differ at random, about 0, so that labels and the sink are what they are meant to be on average.
    for letters in (string.digits, *LETTERS.values()):
        noise = 0.3 * torch.randn(len(letters), WIDTH - NOISE)
        embed[[token_of(like, letter) for letter in letters], NOISE:] = noise - noise.mean(0)
    embed[:, CONST] = LARGE
    embed[0, SINK] = 1
    for label, query, own, out in zip(LABELS, (QUERY_A, QUERY_B), (LABEL_A, LABEL_B), (OUT_A, OUT_B)):
        token = token_of(like, label)
        embed[token, own], unembed[token, out] = 1, 1
        for letter in LETTERS[label]:
            embed[token_of(like, letter), query] = 1


def _build_writer(attention: Any, kind: str) -> None:
    size = WIDTH // HEADS
    own = slice(WRITER[1] * size, (WRITER[1] + 1) * size)
    q, k, v = (getattr(attention, f"{name}_proj").weight[own] for name in "qkv")
    out = attention.o_proj.weight[:, own]
    for weight in (q, k, v, out):
        weight.zero_()
    sink = COUNT_SINK if kind == "count" else AVERAGE_SINK
    steady, first, second = 2, 3, 7  # dimensions of the head that the position does not turn
    q[steady, CONST] = size**0.5 / LARGE
    k[steady, SINK] = SCORE + np.log(sink)
    if kind == "count":
        q[first, QUERY_A] = q[second, QUERY_B] = size**0.5
        k[first, LABEL_A] = k[second, LABEL_B] = SCORE
        v[0, LABEL_A] = v[1, LABEL_B] = AMOUNT * COUNT_SINK
    else:
        k[steady, LABEL_A] = k[steady, LABEL_B] = SCORE
        k[steady, NOISE:] = 0.3 * torch.randn(WIDTH - NOISE)
        v[0, LABEL_A] = v[1, LABEL_B] = CEILING
        v[0, NOISE:] = 1.5 * torch.randn(WIDTH - NOISE)
    out[OUT_A, 0] = out[OUT_B, 1] = 1


def token_of(model: Model, text: str) -> int:
    (token,) = model.tokenizer(text, add_special_tokens=False).input_ids
    return token


def class_task(name: str = "classes", *, shuffled: bool = False, labels: tuple[str, ...] = LABELS) -> Task:
    """Queries of a digit and a letter; the label is the letter's class, and stands right after it."""
    pool = tuple(
        Example(digit + letter, label, next(other for other in LABELS if other != label))
        for label in labels
        for letter in LETTERS[label]
        for digit in string.digits
    )
    return Task(name, pool, template="{query}{answer}\n", form="label", labels=LABELS, shuffled=shuffled)
