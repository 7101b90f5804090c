"""Rows of a sweep are runs of their own: each against one plain eager forward with hooks that do what it says."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import assert_put_back, attention_of, blocks_of, by_hooks, forward
from handmade import random_model, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import SHAPE
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM, OPTConfig, OPTForCausalLM

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.edits import Edits, heads_replaced, outputs_of
from bayes_icl.lens.sweeps import Base, EffectProbe, Row, base_run, sweep
from bayes_icl.mechanism.direct_effects import DirectEffects, direct_effects
from bayes_icl.mechanism.episodes import Episode, Target
from bayes_icl.models import Model
from bayes_icl.models.prompts import Branches, Prompt

N = 40  # tokens of a prompt, more than the sliding windows of 16
FIRSTS = [0, 23, N - 1]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
OWN: dict[str, Callable[[int], Any]] = {
    # What blocks add is multiplied; three layers, so that a row can join, be blocked for one layer, and go on.
    "granite": lambda v: GraniteForCausalLM(
        GraniteConfig(
            vocab_size=v,
            num_key_value_heads=2,
            residual_multiplier=0.4,
            attention_multiplier=0.3,
            logits_scaling=2.0,
            **{**SHAPE, "num_hidden_layers": 3},
        )
    ),
    # Caps on attention, and a window.
    "gemma2_local": lambda v: Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=v,
            num_key_value_heads=2,
            head_dim=16,
            final_logit_softcapping=None,
            attn_logit_softcapping=1.0,
            sliding_window=16,
            **SHAPE,
        )
    ),
    # Learned positions with an offset; the output of its MLP has one axis for rows and positions.
    "opt": lambda v: OPTForCausalLM(
        OPTConfig(
            vocab_size=v,
            hidden_size=64,
            word_embed_proj_dim=64,
            ffn_dim=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            init_std=0.15,
        )
    ),
}
SUMS = ["llama", "gpt2", "qwen2", "gpt_neox", "gemma3", *OWN]  # direct effects add up to their logits
KINDS = [*SUMS, "gemma2"]


@pytest.fixture(scope="module")
def model_of(tiny: Model) -> Callable[[str], Model]:
    """A random model with random biases and gains, made once."""

    def make(name: str) -> Model:
        if name not in OWN:
            return random_model(name, tiny)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            hf = OWN[name](len(tiny.tokenizer))
            randomise(hf)
        return Model(hf.eval(), tiny.tokenizer, name)

    return functools.cache(make)


@pytest.fixture(scope="module")
def eager_of(model_of: Callable[[str], Model]) -> Callable[[str], Model]:
    """A copy that runs eager attention, whose mask hooks can change."""

    def make(name: str) -> Model:
        copied = Model(copy.deepcopy(model_of(name).hf), model_of(name).tokenizer, name)
        copied.hf.set_attn_implementation("eager")
        return copied

    return functools.cache(make)


def put_back(model: Model) -> None:
    assert_put_back(model, "eager" if "gemma2" in model.name else "sdpa")  # as transformers runs them


def some_tokens(model: Model, n: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(len(model.tokenizer), size=n)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def by_hand(model: Model, tokens: np.ndarray, first: int, row: Row, edits: Edits | None = None) -> torch.Tensor:
    """Logits of one whole forward from `first` on."""
    with by_hooks(model, first, row, edits):
        return forward(model, tokens)[first:]


def plain(model: Model, tokens: np.ndarray, first: int = 0) -> torch.Tensor:
    return by_hand(model, tokens, first, Row(0))


def swept(
    model: Model, base: Base, rows: Sequence[Row], read: Sequence[int] | None = None, **kwargs: Any
) -> torch.Tensor:
    """Logits of all rows, shape (row, read, vocab), each where it was asked for."""
    read = range(len(base.tokens) - base.first) if read is None else read
    found: dict[int, torch.Tensor] = {}
    for some in sweep(model.anatomy, base, rows, read, **kwargs):
        assert not found.keys() & set(some.rows)
        found |= dict(zip(some.rows, some.logits, strict=True))
    return torch.stack([found[i] for i in range(len(rows))])


def assert_as_by_hand(
    model: Model, eager: Model, first: int, rows: Sequence[Row], edits: Edits | None = None, **kwargs: Any
) -> None:
    """Every row at every position; and the control, that each row differs from the run without edits."""
    tokens = some_tokens(model)
    base = base_run(model.anatomy, tokens, first, edits)
    found = swept(model, base, rows, **kwargs)
    unedited = by_hand(eager, tokens, first, Row(0), edits)
    for logits, row in zip(found, rows):
        torch.testing.assert_close(logits, by_hand(eager, tokens, first, row, edits), **CLOSE)
        assert (logits - unedited).abs().max() > 1e-3
    put_back(model)


@pytest.mark.parametrize("first", FIRSTS)
@pytest.mark.parametrize("name", KINDS)
def test_a_row_without_edits_is_the_plain_run(model_of: Callable[[str], Model], name: str, first: int) -> None:
    """From any layer on, at the positions read, in the order asked for."""
    model = model_of(name)
    tokens = some_tokens(model)
    expected = plain(model, tokens, first)
    base = base_run(model.anatomy, tokens, first)
    torch.testing.assert_close(base.logits, expected[-1:], **CLOSE)
    rows = [Row(layer) for layer in reversed(range(model.anatomy.n_layers + 1))]
    assert len(base.residual) == len(rows) and base.residual[0].shape == (1, N - first, 64)
    for logits in swept(model, base, rows):
        torch.testing.assert_close(logits, expected, **CLOSE)
    read = [N - 1 - first, 0]
    for logits in swept(model, base, rows, read):
        torch.testing.assert_close(logits, expected[read], **CLOSE)
    assert list(sweep(model.anatomy, base, [], read)) == []
    put_back(model)


@pytest.mark.parametrize("name", ["bloom", "gpt_neo"])
def test_a_model_with_attention_of_its_own_is_refused(tiny: Model, name: str) -> None:
    with pytest.raises(StatedError, match="does not run through transformers' attention interface"):
        _ = random_model(name, tiny).anatomy


@pytest.mark.parametrize("first", FIRSTS)
@pytest.mark.parametrize("name", KINDS)
def test_a_runs_own_residual_changes_nothing(model_of: Callable[[str], Model], name: str, first: int) -> None:
    """Not one bit, in a pass of the same size."""
    model = model_of(name)
    base = base_run(model.anatomy, some_tokens(model), first)
    for layer, residual in enumerate(base.residual):
        own = Row(layer, dict(enumerate(residual[0])))
        assert torch.equal(swept(model, base, [own]), swept(model, base, [Row(layer)]))


@pytest.mark.parametrize("name", KINDS)
def test_the_last_point_of_another_run_gives_its_logits(model_of: Callable[[str], Model], name: str) -> None:
    """Prompts of unequal length, end to end."""
    model = model_of(name)
    long, short = some_tokens(model), some_tokens(model, 5, seed=1)
    source = base_run(model.anatomy, long, N - 1)
    for first in (0, 4):
        base = base_run(model.anatomy, short, first)
        rows = [Row(layer, {4 - first: x[0, 0]}) for layer, x in enumerate(source.residual)]
        found = swept(model, base, rows, [4 - first])[:, 0]
        torch.testing.assert_close(found[-1], plain(model, long)[-1], atol=1e-4, rtol=0)
        assert (found[:-1] - found[-1]).abs().amax(-1).min() > 1e-2  # the control: below, the prompt counts


@pytest.mark.parametrize("first", [0, 23])
@pytest.mark.parametrize("name", KINDS)
def test_a_patch_is_a_hook_on_the_block(
    model_of: Callable[[str], Model], eager_of: Callable[[str], Model], name: str, first: int
) -> None:
    model, points = model_of(name), range(model_of(name).anatomy.n_layers + 1)
    rows = [Row(layer, {N - 1 - first: normal(64)}) for layer in points]
    rows += [Row(layer, {3: normal(64, seed=1), 9: normal(64, seed=2)}) for layer in points]
    assert_as_by_hand(model, eager_of(name), first, rows)


@pytest.mark.parametrize("first", [0, 23])
@pytest.mark.parametrize("name", KINDS)
def test_zeroed_heads_are_zeroed_weights(model_of: Callable[[str], Model], name: str, first: int) -> None:
    model = model_of(name)
    tokens = some_tokens(model)
    base = base_run(model.anatomy, tokens, first)
    pairs = [(layer, head) for layer in range(model.anatomy.n_layers) for head in range(4)]
    rows = [Row(layer, heads={layer: ([head], torch.zeros(N - first, 1, 16))}) for layer, head in pairs]
    rows.append(Row(0, heads={layer: ([3, 1], torch.zeros(N - first, 2, 16)) for layer in (0, 1)}))
    z, _ = outputs_of(model.anatomy, tokens)
    for logits, row in zip(swept(model, base, rows), rows):
        edits = {layer: (heads, z[layer][None, :, list(heads)].clone()) for layer, (heads, _) in row.heads.items()}
        for _, values in edits.values():
            values[:, first:] = 0
        with heads_replaced(model.anatomy, edits):
            torch.testing.assert_close(logits, plain(model, tokens, first), **CLOSE)
        if first:
            continue
        other = Model(copy.deepcopy(model.hf), model.tokenizer, name)
        with torch.no_grad():
            for layer, (heads, _) in row.heads.items():
                out = attention_of(other)[layer][1].weight
                for head in heads:
                    (out if name == "gpt2" else out.T)[16 * head : 16 * head + 16] = 0
        torch.testing.assert_close(logits, plain(other, tokens), **CLOSE)


def heads_of(layers: Sequence[int], width: int, seed: int = 0) -> Mapping[int, tuple[Sequence[int], torch.Tensor]]:
    return {layer: ([2, 0], normal(width, 2, 16, seed=seed + layer)) for layer in layers}


def mlps_of(layers: Sequence[int], width: int, seed: int = 0) -> Mapping[int, torch.Tensor]:
    return {layer: normal(width, 64, seed=seed + layer) for layer in layers}


def some_places(width: int, seed: int = 0) -> np.ndarray:
    at = np.random.default_rng(seed).random(width) < 0.4
    at[width // 2] = True
    return at


def some_edges(first: int, seed: int = 0, share: float = 0.3) -> torch.Tensor:
    """What may not be attended to: never the token itself, lest nothing be left."""
    blocked = np.random.default_rng(seed).random((N - first, N)) < share
    blocked[np.arange(N - first), np.arange(first, N)] = False
    return torch.from_numpy(blocked)


@pytest.mark.parametrize("first", [0, 23])
@pytest.mark.parametrize("name", KINDS)
def test_heads_and_mlps_are_hooks(
    model_of: Callable[[str], Model], eager_of: Callable[[str], Model], name: str, first: int
) -> None:
    """In one layer and in several, everywhere and at some places, together with a patch."""
    model, width = model_of(name), N - first
    last, at = model.anatomy.n_layers - 1, some_places(width)
    rows = [
        Row(last, heads=heads_of([last], width)),
        Row(0, heads=heads_of(range(last + 1), width)),
        Row(0, heads=heads_of(range(last + 1), width), at=at),
        Row(0, heads=heads_of([last], width), at=at),
        Row(last, mlps=mlps_of([last], width)),
        Row(0, mlps=mlps_of(range(last + 1), width)),
        Row(0, mlps=mlps_of([0], width), at=at),
        Row(1, {2: normal(64)}, heads_of([1], width), mlps_of([last], width), at),
    ]
    assert_as_by_hand(model, eager_of(name), first, rows)


@pytest.mark.parametrize("first", FIRSTS)
@pytest.mark.parametrize("name", KINDS)
def test_blocked_edges_are_scores_of_minus_infinity(
    model_of: Callable[[str], Model], eager_of: Callable[[str], Model], name: str, first: int
) -> None:
    """From a layer on, until a layer, beside rows that may attend to everything."""
    model, blocked = model_of(name), some_edges(first)
    only_far = torch.zeros_like(blocked)
    only_far[-1, N - 6 : N - 2] = True
    rows = [
        Row(0, blocked=blocked),
        Row(0, {N - 1 - first: normal(64)}),
        Row(1, blocked=blocked),
        Row(0, blocked=some_edges(first, 1), until=1),
        Row(1, blocked=only_far, until=2),
        Row(0, heads=heads_of([1], N - first), blocked=only_far, until=2),
    ]
    assert_as_by_hand(model, eager_of(name), first, rows)


@pytest.mark.parametrize("first", [0, 23])
@pytest.mark.parametrize("name", KINDS)
def test_rows_of_an_edited_run_have_both_edits(
    model_of: Callable[[str], Model], eager_of: Callable[[str], Model], name: str, first: int
) -> None:
    """Where both replace a head, the row's is taken; the base's may leave some places out."""
    model, width = model_of(name), N - first
    edits = {0: ([1, 2], normal(1, N, 2, 16, seed=7)), 1: ([2], normal(1, N, 1, 16, seed=8))}
    edits[1][1][0, some_places(N)] = torch.nan
    rows = [
        Row(0, heads=heads_of([0, 1], width)),
        Row(1, heads=heads_of([1], width), at=some_places(width)),
        Row(1, {4: normal(64)}),
        Row(0, mlps=mlps_of([0], width)),
        Row(0, blocked=some_edges(first), until=1),
    ]
    assert_as_by_hand(model, eager_of(name), first, rows, edits)
    tokens = some_tokens(model)
    base = base_run(model.anatomy, tokens, first, edits)
    unedited = swept(model, base, [Row(1)])[0]
    torch.testing.assert_close(unedited, by_hand(model, tokens, first, Row(0), edits), **CLOSE)
    torch.testing.assert_close(base.logits, unedited[-1:], **CLOSE)
    assert (unedited - plain(model, tokens, first)).abs().max() > 1e-2


def test_edits_that_change_nothing_are_refused(model_of: Callable[[str], Model]) -> None:
    """They would pass for an ablation without effect."""
    anatomy, tokens = model_of("llama").anatomy, some_tokens(model_of("llama"))
    z, _ = outputs_of(anatomy, tokens)
    values = z[0][None, :, [1]].clone()
    left = torch.full_like(values, torch.nan)
    for edits in ({0: ([1], values)}, {0: ([1], left)}, {0: ([1], values), 1: ([0], left)}):
        with pytest.raises(StatedError, match="nothing would be ablated"):
            base_run(anatomy, tokens, 0, edits)
        put_back(model_of("llama"))
    base_run(anatomy, tokens, 0, {0: ([1], values), 1: ([1], values)})  # the control


@pytest.mark.parametrize("first", [0, 23])
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "granite"])
def test_order_and_chunks_do_not_matter(model_of: Callable[[str], Model], name: str, first: int) -> None:
    model, width = model_of(name), N - first
    base = base_run(model.anatomy, some_tokens(model), first)
    rows = [Row(layer, {k: normal(64, seed=k)}) for layer in (2, 0, 1) for k in range(3)]
    rows += [Row(layer, heads=heads_of([1], width, seed=layer)) for layer in (1, 0)]
    rows += [Row(1, blocked=some_edges(first)), Row(0, mlps=mlps_of([0, 1], width)), Row(1), Row(0)]
    expected = swept(model, base, rows)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    shuffled = swept(model, base, [rows[i] for i in order])
    torch.testing.assert_close(shuffled, expected[order], **CLOSE)
    for at_once in (0, width, 4 * width):
        torch.testing.assert_close(swept(model, base, rows, at_once=at_once), expected, **CLOSE)
        sizes = [len(some.rows) for some in sweep(model.anatomy, base, rows, [0], at_once=at_once)]
        assert sum(sizes) == len(rows) and max(sizes) == max(at_once // width, 1)


def test_a_row_costs_the_blocks_from_its_layer_on(model_of: Callable[[str], Model]) -> None:
    """Rows and positions that each block computes."""
    model = model_of("granite")
    base = base_run(model.anatomy, some_tokens(model), 23)
    computed: list[tuple[int, tuple[int, ...]]] = []
    with contextlib.ExitStack() as stack:
        for layer, (_, out) in enumerate(attention_of(model)):
            keep = lambda _, args, layer=layer: computed.append((layer, args[0].shape[:2]))  # noqa: E731
            stack.enter_context(out.register_forward_pre_hook(keep))
        list(sweep(model.anatomy, base, [Row(layer) for layer in (3, 2, 1, 1)], [0]))
    assert computed == [(1, (2, 17)), (2, (3, 17))]


# ------------------------------------------------------------------------------------------------- what rows write


def episode_of(tokens: np.ndarray) -> Episode:
    """An episode that is read at its last token."""
    empty = np.zeros(0, np.int64)
    prompt = Prompt(tokens, empty, empty, (), (), Branches(empty, empty, empty, empty), (), empty, empty)
    at = np.array([len(tokens) - 1])
    return Episode(0, prompt, (empty, empty, empty), Target(at, np.array([5]), None))  # type: ignore[arg-type]


def parts_along(model: Model, episode: Episode, clean: DirectEffects | None = None) -> DirectEffects:
    along = None if clean is None else clean.direction
    return direct_effects(model.anatomy, [episode], by_source=False, along=along)


@pytest.mark.parametrize("first", FIRSTS)
@pytest.mark.parametrize("name", SUMS)
def test_what_rows_write_is_their_direct_effect(model_of: Callable[[str], Model], name: str, first: int) -> None:
    """Every head replaced, patches and MLPs, along the direction of the run without edits.

    A norm after attention (Gemma) keeps the scale that it has in the run without edits, in whose `seen` it is.
    """
    model, width = model_of(name), N - first
    anatomy = model.anatomy
    episode = episode_of(some_tokens(model))
    clean = parts_along(model, episode)
    z, _ = outputs_of(anatomy, episode.prompt.tokens)
    pairs = [(layer, head) for layer in range(anatomy.n_layers) for head in range(4)]
    rows = [Row(layer, heads={layer: ([head], normal(width, 1, 16))}) for layer, head in pairs]
    rows += [Row(layer, {width - 1: normal(64)}) for layer in range(anatomy.n_layers + 1)]
    rows += [Row(0, mlps=mlps_of([0], width)), Row(1, mlps=mlps_of([1], width))]
    base = base_run(anatomy, episode.prompt.tokens, first)
    seen = [x[0] for x in clean.seen]
    head_, mlp_ = torch.from_numpy(clean.head[0]), torch.from_numpy(clean.mlp[0])
    watched = EffectProbe(width - 1, clean.direction[0], seen, head_, mlp_)
    ratios: list[float] = []
    for at_once in (8192, 3 * width):
        for some in sweep(anatomy, base, rows, [width - 1], watched=watched, at_once=at_once):
            assert some.written is not None and len(some.written.head) == len(some.rows)
            for i, head, mlp in zip(some.rows, *some.written):
                row = rows[i]
                with contextlib.ExitStack() as stack:
                    if row.heads:
                        ((layer, (heads, values)),) = row.heads.items()
                        whole = z[layer][None, :, list(heads)].clone()
                        whole[0, first:] = values
                        stack.enter_context(heads_replaced(anatomy, {layer: (heads, whole)}))
                    else:
                        stack.enter_context(by_hooks(model, first, row))
                    parts = parts_along(model, episode, clean)
                expected, expected_mlp = parts.head[0].copy(), parts.mlp[0].copy()
                for layer in range(anatomy.n_layers):
                    # By how much the norm after attention scaled more than in the run without edits.
                    ratio = float((parts.seen[layer] * clean.seen[layer]).sum() / (clean.seen[layer] ** 2).sum())
                    if "gemma" in name:
                        ratios.append(ratio)
                    else:
                        assert ratio == pytest.approx(1, abs=1e-6)
                    if layer >= row.layer:
                        expected[layer] /= ratio
                    else:
                        assert np.array_equal(head[layer], clean.head[0, layer]) and mlp[layer] == mlp_[layer]
                    if layer in row.mlps:  # the hook is on the block, so that the pass sees the MLP's own
                        expected_mlp[layer] = float((row.mlps[layer][-1] * clean.direction[0]).sum())
                if row.layer == anatomy.n_layers:  # nothing below the final norm
                    expected, expected_mlp = clean.head[0], clean.mlp[0]
                size = max(1.0, float(np.abs(expected).max()), float(np.abs(expected_mlp).max()))
                np.testing.assert_allclose(head, expected, atol=2e-5 * size)
                np.testing.assert_allclose(mlp, expected_mlp, atol=2e-5 * size)
    assert not ratios or max(np.abs(np.log(ratios))) > 0.1  # the control: it is another scale in the edited run


@pytest.mark.parametrize("first", [0, 23])
@pytest.mark.parametrize("name", ["gpt2", "gemma3", "granite"])
def test_the_stream_of_rows_is_that_of_runs_of_their_own(
    model_of: Callable[[str], Model], eager_of: Callable[[str], Model], name: str, first: int
) -> None:
    """What goes into any block, at any position; a patch there is in it."""
    model, eager, width = model_of(name), eager_of(name), N - first
    tokens, points = some_tokens(model), range(model.anatomy.n_layers + 1)
    base = base_run(model.anatomy, tokens, first)
    rows = [Row(layer, {width - 5: normal(64, seed=layer)}) for layer in points]
    rows += [Row(0, heads=heads_of([0, 1], width)), Row(1, mlps=mlps_of([1], width), blocked=some_edges(first))]
    for point in points:
        for position in (width - 5, width - 1):
            found = torch.empty(len(rows), 64)
            for some in sweep(model.anatomy, base, rows, [0], stream=(point, position), at_once=5 * width):
                assert some.stream is not None
                found[some.rows] = some.stream
            for own, row in zip(found, rows):
                kept: list[torch.Tensor] = []
                with by_hooks(eager, first, row), contextlib.ExitStack() as stack:
                    # After the module, which hands its input on to such a hook as other hooks left it.
                    keep = lambda _, args, kwargs, y, kept=kept: kept.append((*args, *kwargs.values())[0][0])  # noqa: E731
                    stack.enter_context(blocks_of(eager)[point].register_forward_hook(keep, with_kwargs=True))
                    forward(eager, tokens)
                torch.testing.assert_close(own, kept[0][first + position], **CLOSE)
                if row.layer > point:
                    assert torch.equal(own, base.residual[point][0, position])


def test_watching_changes_no_logits(model_of: Callable[[str], Model]) -> None:
    model = model_of("gpt2")
    episode = episode_of(some_tokens(model))
    clean = parts_along(model, episode)
    base = base_run(model.anatomy, episode.prompt.tokens, 23)
    seen = [x[0] for x in clean.seen]
    watched = EffectProbe(3, clean.direction[0], seen, torch.from_numpy(clean.head[0]), torch.from_numpy(clean.mlp[0]))
    rows = [Row(1, {2: normal(64)}), Row(0, heads=heads_of([0], 17)), Row(0, mlps=mlps_of([1], 17))]
    assert torch.equal(swept(model, base, rows, watched=watched, stream=(1, 3)), swept(model, base, rows))


# ------------------------------------------------------------------------------------------------- put back


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_model_is_put_back(tiny: Model, implementation: str) -> None:
    """After a pass, after half of them, and after an error in one."""
    model = random_model("llama", tiny)
    anatomy, tokens = model.anatomy, some_tokens(model)
    model.hf.set_attn_implementation(implementation)
    before = plain(model, tokens)
    base = base_run(anatomy, tokens, 23)
    assert_put_back(model, implementation)
    rows = [Row(0, {0: normal(64)}), Row(1, {0: normal(65)})]
    passes = sweep(anatomy, base, rows, [0], at_once=0)
    next(passes)
    assert_put_back(model, implementation)  # between passes too: others may use the model
    assert not torch.is_inference_mode_enabled()
    with pytest.raises(RuntimeError):
        next(passes)
    assert_put_back(model, implementation)
    wrong = [
        Row(0, heads={1: ([0], normal(17, 2, 16))}),
        Row(1, mlps={1: normal(17, 3)}),
        Row(1, blocked=torch.zeros(3, 4, dtype=torch.bool)),
    ]
    for row in wrong:
        with pytest.raises(RuntimeError):
            list(sweep(anatomy, base, [Row(0), row], [0]))
        assert_put_back(model, implementation)
    with pytest.raises(RuntimeError):
        base_run(anatomy, tokens, 23, {1: ([0], normal(1, N, 3, 16))})
    assert_put_back(model, implementation)
    assert torch.equal(plain(model, tokens), before)


def test_rows_and_base_are_not_written_to(model_of: Callable[[str], Model]) -> None:
    model = model_of("llama")
    base = base_run(model.anatomy, some_tokens(model), 23, {0: ([1], normal(1, N, 1, 16))})
    rows = [Row(0, {0: normal(64)}, heads_of([0, 1], 17), mlps_of([1], 17), some_places(17), some_edges(23))]
    kept = copy.deepcopy((base, rows))
    first, again = swept(model, base, rows), swept(model, base, rows)
    assert torch.equal(first, again)
    for own, old in zip(
        (*base.whole, *base.keys.values(), *base.values.values()),
        (*kept[0].whole, *kept[0].keys.values(), *kept[0].values.values()),
    ):
        assert torch.equal(own, old)
    assert torch.equal(rows[0].heads[0][1], kept[1][0].heads[0][1])
    assert torch.equal(rows[0].mlps[1], kept[1][0].mlps[1])


# ------------------------------------------------------------------------------------------------- any rows at all


@st.composite
def some_rows(draw: st.DrawFn, n_layers: int, first: int) -> list[Row]:
    """Rows with any of the edits, in any layers from their own on."""
    rows = []
    width = N - first
    for seed in range(draw(st.integers(1, 5))):
        layer = draw(st.integers(0, n_layers))
        some = st.sets(st.integers(layer, n_layers - 1)) if layer < n_layers else st.just(set())
        patch = draw(st.dictionaries(st.integers(0, width - 1), st.integers(0, 9), max_size=3))
        rows.append(
            Row(
                layer,
                {position: normal(64, seed=k) for position, k in patch.items()},
                heads_of(sorted(draw(some)), width, seed),
                mlps_of(sorted(draw(some)), width, seed),
                draw(st.sampled_from([None, some_places(width, seed)])),
                draw(st.sampled_from([None, some_edges(first, seed), some_edges(first, seed, 0.9)])),
                draw(st.integers(layer, n_layers + 1)),
            )
        )
    return rows


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_rows_are_runs_of_their_own(
    model_of: Callable[[str], Model], eager_of: Callable[[str], Model], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["gpt2", "gemma3", "granite", "gemma2_local", "opt"]))
    model, first = model_of(name), data.draw(st.integers(0, N - 1))
    rows = data.draw(some_rows(model.anatomy.n_layers, first))
    edits = data.draw(st.sampled_from([None, {0: ([1, 2], normal(1, N, 2, 16, seed=7))}]))
    tokens = some_tokens(model)
    base = base_run(model.anatomy, tokens, first, edits)
    found = swept(model, base, rows, at_once=data.draw(st.sampled_from([8192, 3 * (N - first)])))
    for logits, row in zip(found, rows):
        torch.testing.assert_close(logits, by_hand(eager_of(name), tokens, first, row, edits), **CLOSE)
