"""Models to be taken apart: random ones, biases and gains too; two whose one writing head is built by hand, and one in
which the heads that move a task to the last position are.
"""

from __future__ import annotations

import enum
import string
from typing import Any

import numpy as np
import torch
from tiny_families import FAMILIES
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

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


def adding_model(like: Model) -> Model:
    """`counting_model` with such a head in every block and a tenth of the noise: examples add as much in each."""
    model = counting_model(like)
    with torch.no_grad():
        model.plain.model.embed_tokens.weight[:, NOISE:] *= 0.1
        for block in model.plain.model.layers[: WRITER[0]]:
            _build_writer(block.self_attn, "count")
    return model


def chained_model(like: Model) -> Model:
    """`counting_model`, but that its head counts letters after a label of the query's class, and not labels.

    A head of the block before brings to each letter the mean of the labels before it: without another example before
    it, an example counts for nothing. The query counts as a letter, as soon as there is a label.
    """
    model = counting_model(like)
    size, (first, second) = WIDTH // HEADS, (2, 3)
    with torch.no_grad():
        hf: Any = model.plain
        embed = hf.model.embed_tokens.weight
        embed[:, NOISE:] *= 0.1
        embed[:, -2:] = hf.lm_head.weight[:, -2:] = 0  # the labels stand here, and no noise
        for block in hf.model.layers:
            for projection in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj,
                               block.mlp.gate_proj, block.mlp.up_proj):  # fmt: skip
                projection.weight[:, -2:] = 0
            for projection in (block.self_attn.o_proj, block.mlp.down_proj):
                projection.weight[-2:] = 0
        for i, label in enumerate(LABELS):
            embed[token_of(like, label), [LABEL_A, LABEL_B]] = 0
            embed[token_of(like, label), WIDTH - 2 + i] = 1
        attention = hf.model.layers[0].self_attn
        q, k, v = (getattr(attention, f"{name}_proj").weight[:size] for name in "qkv")
        out = attention.o_proj.weight[:, :size]
        for weight in (q, k, v, out):
            weight.zero_()
        q[first, CONST] = size**0.5 / LARGE
        k[first, SINK] = 2 * SCORE
        q[second, [QUERY_A, QUERY_B]] = size**0.5
        k[second, -2:] = 4 * SCORE
        v[0, -2] = v[1, -1] = 1
        out[LABEL_A, 0] = out[LABEL_B, 1] = 1
    return model


def averaging_model(like: Model) -> Model:
    """Its one head attends alike to all labels, and to the sink as to AVERAGE_SINK of them: CEILING n / (n + c) nats.

    Scores and values vary a little with what stood before each label.
    """
    return _built(like, "average")


def through_model(like: Model) -> Model:
    """The head of `averaging_model` writes what no logit is read from; the MLP after it hands that on to the labels."""
    model = _built(like, "through")
    with torch.no_grad():
        layer: Any = model.plain.model.layers[WRITER[0]]
        out = layer.self_attn.o_proj.weight[:, WRITER[1] * WIDTH // HEADS :]
        for own, label in ((0, LABEL_A), (1, LABEL_B)):
            out[:, own] = 0
            out[label, own] = 1  # where the last letter of a query has nothing
        _add_units(layer.mlp, [({LABEL_A: 1.0}, OUT_A, 1.0), ({LABEL_B: 1.0}, OUT_B, 1.0)])
    return model


def _built(like: Model, kind: str) -> Model:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        hf = _llama(like, WIDTH, LAYERS, 16)
        for block in hf.model.layers:
            _fill_with_noise(block)
        _embed(hf, like)
        _build_writer(hf.model.layers[WRITER[0]].self_attn, kind)
    return Model(hf, like.tokenizer, kind)


def _llama(like: Model, width: int, layers: int, intermediate: int) -> Any:
    """A Llama whose norms leave the stream about as it is, if one of its dimensions is LARGE."""
    config = LlamaConfig(
        vocab_size=len(like.tokenizer),
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=4096,
        rope_theta=1e12,  # so that the last dimensions of a head hardly turn with the position
        tie_word_embeddings=False,
    )
    config.rope_parameters = {"rope_type": "default", "rope_theta": 1e12}
    hf = LlamaForCausalLM(config).eval()
    for norm in (m for m in hf.modules() if type(m).__name__ == "LlamaRMSNorm"):
        norm.weight.fill_(LARGE / width**0.5)
    hf.config.architectures = ["LlamaForCausalLM"]
    return hf


def _fill_with_noise(block: Any, first: int = NOISE, size: float = 0.3) -> None:
    """Every head and MLP reads noise, which dimensions from `first` on hold, and writes a little noise."""
    attention, mlp = block.self_attn, block.mlp
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
        projection.weight.normal_(0, size)
        projection.weight[:, :first] = 0
    for projection in (attention.o_proj, mlp.down_proj):
        projection.weight.normal_(0, size)
        projection.weight[:first] = 0


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


class Dim(enum.IntEnum):
    """The residual stream of `backup_model`."""

    CONST = 0
    SINK = 1
    QUERY_A, QUERY_B = 2, 3  # a query's letter is of this class
    LABEL_A, LABEL_B = 4, 5  # this label
    SEPARATOR, TERMINATOR = 6, 7
    BROUGHT_A, BROUGHT_B = 8, 9  # at an answer: the class of its own query
    EVIDENCE = 10  # at an answer: 1 if it follows the mapping, -1 if it is the other label
    TASK = 11  # at a separator: the mean evidence, shrunk towards 0 where there are few answers
    PRESENT = 12  # at a separator: 1 if the task is there
    FETCHED_A, FETCHED_B = 13, 14  # at a separator: the class of its own query
    ANSWER = 15  # above 0 for the first label, below for the second
    NOISE = 16


# What is built into `backup_model`. Point l of the residual stream is what goes into block l.
BRING = (0, 1)  # at an answer, attends to its own query's letter and brings the letter's class
FORMED = 1  # the MLP that compares the class brought with the label: evidence for the mapping or against it
MOVER = (3, 2)  # at a separator, attends to earlier answers and writes the task
PRESENCE = 3  # the MLP that says whether the task is there
BACKUP = (5, 1)  # writes the task as well, if it is not there
FETCH = (6, 3)  # at a separator, attends to its own query's letter and brings the letter's class
ANSWERED = 6  # the MLP that makes the answer from task and class
TRANSFER, TRANSFER_WITHOUT_MOVER, ANSWER = 4, 6, 7  # points from which on a patch brings the task; the answer
TASK_LAYERS, TASK_WIDTH = 8, 64
TASK_SINK = 4.0  # the sink weighs as much as so many answers
MOVED, BACKED_UP = 0.90, 0.86  # the task as the mover and the backup write it after 8 examples
ABSENT, ENOUGH = 0.64, 0.72  # the backup writes it all where the task is below ABSENT, nothing where it is above ENOUGH
NEEDED, FULL = 0.3, 0.5  # there is no answer where the task is below NEEDED, and hardly more of it above FULL
FULL_ANSWER, FURTHER = 6.0, 1.0  # nats at FULL, and nats for a task larger by 1 beyond
LIKELY = 20.0  # nats by which labels at a separator, and a terminator at a label, are above all other tokens


def mapping_task(name: str = "mapping", *, flipped: bool = False, shuffled: bool = False) -> Task:
    """As `class_task`, with a separator, from which the label is read; `flipped` gives each class the other label."""
    labels = LABELS[::-1] if flipped else LABELS
    pool = tuple(
        Example(digit + letter, label, foil)
        for label, foil, letters in zip(labels, labels[::-1], LETTERS.values())
        for letter in letters
        for digit in string.digits
    )
    return Task(name, pool, template="{query}>{answer}\n", form="label", labels=LABELS, shuffled=shuffled)


def backup_model(like: Model, *, backup: bool = True) -> Model:
    """Solves `mapping_task`, normal or flipped, by steps that are known, and has one backup head.

    Examples decide the answer: a bare query's two labels are about as likely. At examples' answers BRING and FORMED
    find what the answer says of the mapping; MOVER takes the mean of that to the last position; FETCH and ANSWERED
    make the answer of it. BACKUP does what MOVER does, and attends to the sink where the task is there already; so
    what its loss costs grows, though with MOVER or without it writes only noise along the answer itself.
    All other heads and MLPs write a little noise.

    Parameters
    ----------
    backup
        Build that head; else it is one of those that write noise.
    """
    return _task_model(like, "backup" if backup else "mover", solves=True, backup=backup)


def noise_model(like: Model) -> Model:
    """As `backup_model` with the answers' format only: every head writes noise, and examples say nothing."""
    return _task_model(like, "noise", solves=False, backup=False)


def _task_model(like: Model, name: str, *, solves: bool, backup: bool) -> Model:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(4)
        hf = _llama(like, TASK_WIDTH, TASK_LAYERS, 32)
        for block in hf.model.layers:
            _fill_with_noise(block, Dim.NOISE, 0.08)
        _embed_task(hf, like)
        blocks = hf.model.layers
        if solves:
            answers = {Dim.LABEL_A: 1.0, Dim.LABEL_B: 1.0, Dim.TERMINATOR: 1.0}
            _build_carrier(blocks[BRING[0]].self_attn, BRING[1], answers, Dim.BROUGHT_A)
            _build_evidence(blocks[FORMED].mlp)
            _build_mover(blocks[MOVER[0]].self_attn, MOVER[1], MOVED, {Dim.SEPARATOR: 1.0})
            _build_presence(blocks[PRESENCE].mlp)
            _build_carrier(blocks[FETCH[0]].self_attn, FETCH[1], {Dim.SEPARATOR: 1.0}, Dim.FETCHED_A)
            _build_answer(blocks[ANSWERED].mlp)
        if backup:
            absent = {Dim.SEPARATOR: 1.0, Dim.PRESENT: -2.0}
            _build_mover(blocks[BACKUP[0]].self_attn, BACKUP[1], BACKED_UP, absent)
    return Model(hf, like.tokenizer, name)


def _embed_task(hf: Any, like: Model) -> None:
    embed, unembed = hf.model.embed_tokens.weight, hf.lm_head.weight
    embed.zero_()
    unembed.zero_()
    unembed[:, Dim.NOISE :].normal_(0, 0.15)
    for letters in (string.digits, *LETTERS.values()):
        noise = 0.5 * torch.randn(len(letters), TASK_WIDTH - Dim.NOISE)
        embed[[token_of(like, letter) for letter in letters], Dim.NOISE :] = noise - noise.mean(0)
    embed[:, Dim.CONST] = LARGE
    embed[0, Dim.SINK] = 1
    embed[0, Dim.NOISE :].normal_(0, 0.1)  # so that a head that attends there writes something
    separator, terminator = token_of(like, ">"), token_of(like, "\n")
    embed[separator, Dim.SEPARATOR] = embed[terminator, Dim.TERMINATOR] = 1
    for i, (label, letters) in enumerate(LETTERS.items()):
        token = token_of(like, label)
        embed[token, Dim.LABEL_A + i] = 1
        unembed[token, Dim.SEPARATOR] = unembed[terminator, Dim.LABEL_A + i] = LIKELY
        unembed[token, Dim.ANSWER] = 0.5 - i
        embed[[token_of(like, letter) for letter in letters], Dim.QUERY_A + i] = 1


def _head(attention: Any, head: int) -> tuple[Any, Any, Any, Any, float]:
    """The weights of a head, whose values write noise but for the first two dimensions; what a score of 1 takes."""
    size = TASK_WIDTH // HEADS
    own = slice(head * size, (head + 1) * size)
    q, k, v = (getattr(attention, f"{name}_proj").weight[own] for name in "qkv")
    out = attention.o_proj.weight[:, own]
    for weight in (q, k, v[:2], out[:, :2]):
        weight.zero_()
    return q, k, v, out, size**0.5


def _build_carrier(attention: Any, head: int, here: dict[Dim, float], out_a: int) -> None:
    """At some tokens, attends to the nearest letter before it and brings its class; elsewhere, to the sink.

    In prompts of up to 190 tokens: a turn is 199.
    """
    q, k, v, out, one = _head(attention, head)
    turning, steady = 1, 5  # the first turns by 1/32 a token
    for dim, weight in here.items():
        q[turning, dim] = weight * one
    q[steady, Dim.CONST] = one / LARGE
    k[turning, [Dim.QUERY_A, Dim.QUERY_B]] = 800.0
    k[steady, Dim.SINK] = 20.0
    for i in (0, 1):
        v[i, Dim.QUERY_A + i] = out[out_a + i, i] = 1


def _build_mover(attention: Any, head: int, written: float, here: dict[Dim, float]) -> None:
    """Where `here` adds up to 1, attends alike to all labels, to the sink as to TASK_SINK of them; else to the sink."""
    q, k, v, out, one = _head(attention, head)
    to_labels, to_sink = 5, 6
    for dim, weight in here.items():
        q[to_labels, dim] = weight * one
    q[to_sink, Dim.CONST] = one / LARGE
    k[to_labels, [Dim.LABEL_A, Dim.LABEL_B]] = SCORE
    k[to_labels, Dim.NOISE :] = 0.3 * torch.randn(TASK_WIDTH - Dim.NOISE)
    k[to_sink, Dim.SINK] = SCORE + np.log(TASK_SINK)
    v[0, Dim.EVIDENCE] = written * (8 + TASK_SINK) / 8
    out[Dim.TASK, 0] = 1


STEEP = 100.0  # silu(STEEP x) / STEEP is max(x, 0) with a rounded corner


def _add_units(mlp: Any, units: list[tuple[dict[int, float], int, float]]) -> None:
    """Make first units of an MLP, each of what it reads (a weighted sum, if above 0), where it writes, and a factor."""
    for i, (reads, write, factor) in enumerate(units):
        for weight in (mlp.gate_proj.weight[i], mlp.up_proj.weight[i], mlp.down_proj.weight[:, i]):
            weight.zero_()
        for dim, weight in reads.items():
            mlp.gate_proj.weight[i, dim] = STEEP * weight / (LARGE if dim == Dim.CONST else 1)
        mlp.up_proj.weight[i, Dim.CONST] = 1 / LARGE
        mlp.down_proj.weight[write, i] = factor / STEEP


def _build_evidence(mlp: Any) -> None:
    _add_units(
        mlp,
        [
            ({brought: 1, label: 1, Dim.CONST: -1.5}, Dim.EVIDENCE, 2.0 if i == j else -2.0)
            for i, brought in enumerate((Dim.BROUGHT_A, Dim.BROUGHT_B))
            for j, label in enumerate((Dim.LABEL_A, Dim.LABEL_B))
        ],
    )


def _build_presence(mlp: Any) -> None:
    slope = 1 / (ENOUGH - ABSENT)
    _add_units(
        mlp,
        [
            ({Dim.TASK: sign, Dim.CONST: -knee}, Dim.PRESENT, factor)
            for sign in (1, -1)
            for knee, factor in ((ABSENT, slope), (ENOUGH, -slope))
        ],
    )


def _build_answer(mlp: Any) -> None:
    slope = FULL_ANSWER / (FULL - NEEDED)
    _add_units(
        mlp,
        [
            # A class that was not fetched takes 3 off the task, and nothing is left of it.
            ({Dim.TASK: sign, fetched: 3, Dim.CONST: -3 - knee}, Dim.ANSWER, sign * way * factor)
            for fetched, way in ((Dim.FETCHED_A, 1), (Dim.FETCHED_B, -1))
            for sign in (1, -1)
            for knee, factor in ((NEEDED, slope), (FULL, FURTHER - slope))
        ],
    )


def induction_model(like: Model, length: int = 160) -> Model:
    """Head 0 of layer 0 attends to the token before, head 0 of layer 1 to what came after the same token before.

    Both sharply, on texts of up to `length` tokens that do not repeat but once; the other heads attend alike to all.
    """
    vocabulary = len(like.tokenizer)
    size = max(vocabulary, length)
    token, place, before = (
        slice(start, start + n)
        for start, n in ((2, vocabulary), (2 + vocabulary, length), (2 + vocabulary + length, vocabulary))
    )
    width = 2 * size + 2 * (vocabulary + length)
    config = GPT2Config(vocab_size=vocabulary, n_embd=width, n_head=2, n_layer=2, n_inner=4, n_positions=length)
    config.tie_word_embeddings = False
    hf: Any = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for weight in hf.parameters():
            weight.zero_()
        stream = hf.transformer
        # Two large constants, which make norms give the stream as it is.
        stream.wte.weight[:, 0], stream.wte.weight[:, 1] = LARGE, -LARGE
        stream.wte.weight[:, token] = torch.eye(vocabulary)
        stream.wpe.weight[:, place] = torch.eye(length)
        for norm in (m for m in hf.modules() if isinstance(m, torch.nn.LayerNorm)):
            norm.weight.fill_(LARGE * (2 / width) ** 0.5)
        sharp = 30.0 * (width / 2) ** 0.5
        previous, induction = (block.attn.c_attn.weight for block in stream.h)
        previous[place, :length] = sharp * torch.eye(length).roll(-1, 1)  # place p asks for p - 1
        previous[place, width : width + length] = torch.eye(length)
        previous[token, 2 * width : 2 * width + vocabulary] = torch.eye(vocabulary)
        stream.h[0].attn.c_proj.weight[:vocabulary, before] = torch.eye(vocabulary)
        induction[token, :vocabulary] = sharp * torch.eye(vocabulary)
        induction[before, width : width + vocabulary] = torch.eye(vocabulary)
    hf.config.architectures = ["GPT2LMHeadModel"]
    return Model(hf, like.tokenizer, "induction")
