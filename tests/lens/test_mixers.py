"""Blocks that are more than attention and an MLP, against plain hooks: mixers, sinks, gates, scalars, soft-caps."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import randomise

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.attention import attention_through
from bayes_icl.lens.edits import heads_replaced, outputs_of
from bayes_icl.lens.sweeps import Row, base_run, check_starts, sweep
from bayes_icl.lens.watching import watch
from bayes_icl.mechanism.direct_effects import DirectEffects, direct_effects
from bayes_icl.mechanism.episodes import Episode, Target
from bayes_icl.models import Model
from bayes_icl.models.prompts import Branches, Places, Prompt

ANALYSES = Path(__file__).parents[2] / "analyses"
N, FIRST, SHOTS = 24, 17, 4  # tokens of a prompt; the first one that rows edit

# What is new in each; more of them in docs/families.md.
FAMILIES = {
    "qwen3_5_text": "linear attention in layer 0, a gate in layer 1",
    "gemma4_text": "scaled blocks, an input of the layer, heads of two widths",
    "gemma4_shared": "keys and values of an earlier layer",
    "gpt_oss": "learned sinks",
    "granitemoehybrid": "a state space, experts and an MLP beside them, a residual multiplier",
    "falcon_h1": "a state space beside attention, in blocks that give tuples",
    "nemotron_h": "blocks of one part each",
    "gemma2": "soft-caps",
    "nanochat": "a soft-cap, and the final norm on the embedding too",
    "llama4_text": "experts that give tuples",
    "helium": "unknown to TransformerLens",
}


@pytest.fixture(scope="module")
def model_of(tiny: Model) -> Any:
    """Tiny random models of `analyses/families.py`, with random biases, gains, scalars and sinks."""
    sys.path.insert(0, str(ANALYSES))
    families = importlib.import_module("families")
    shared = dict(num_hidden_layers=4, num_kv_shared_layers=2, layer_types=["sliding_attention", "full_attention"] * 2)

    def make(name: str) -> Model:
        if name == "gemma4_shared":
            families.OWN["gemma4_text"], own = families.OWN["gemma4_text"] | shared, families.OWN["gemma4_text"]
            hf = families.build("gemma4_text")
            families.OWN["gemma4_text"] = own
        else:
            hf = families.build(name)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            randomise(hf)
            for key, x in (*hf.named_parameters(), *hf.named_buffers()):
                if "layer_scalar" in key:
                    x.fill_(0.7)
                if "sinks" in key:
                    x.normal_(2.0, 1.0)
        if name == "gemma2":
            hf.config.final_logit_softcapping = 2.0  # so tight that leaving it out would change every logit
        return Model(hf, tiny.tokenizer, name)

    yield functools.cache(make)
    sys.path.remove(str(ANALYSES))


def some_tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(2, 250, size=N)


def episode_of(foil: bool) -> Episode:
    """Four shots of five tokens after a first one, read before each last token."""
    empty, tokens = np.zeros(0, np.int64), some_tokens()
    prompt = Prompt(tokens, empty, empty, (), (), Branches(empty, empty, empty, empty), (), empty, empty)
    at = np.arange(5, 5 * SHOTS + 1, 5)
    places = Places(*(np.concatenate([[first], x]) for first, x in (
        (-1, np.minimum(np.arange(N - 1) // 5, SHOTS - 1)), (0, np.arange(N - 1) % 3), (0, np.zeros(N - 1, int)),
    )))  # fmt: skip
    target = Target(at, np.full(SHOTS, 5), np.full(SHOTS, 9) if foil else None)
    return Episode(0, prompt, places, target)


def effects_of(anatomy: Anatomy, foil: bool = False, by_source: bool = True) -> DirectEffects:
    return direct_effects(anatomy, [episode_of(foil)], by_source=by_source)


def off(parts: DirectEffects) -> float:
    return float(np.abs(parts.error).max())


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_and_sources_add_up(model_of: Callable[[str], Model], name: str) -> None:
    anatomy = model_of(name).anatomy
    for foil in (False, True):
        parts = effects_of(anatomy, foil)
        assert off(parts) < 1e-4
        assert parts.by_place is not None
        np.testing.assert_allclose(parts.by_place.sum(-1), parts.head, atol=1e-4)
    there = anatomy.exists()
    assert not parts.head[:, ~there].any() and np.abs(parts.head[:, there]).max() > 0.01
    assert anatomy.heads == [tuple(head) for head in np.argwhere(there).tolist()]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("qwen3_5_text", {"others": [[], []]}),
        ("granitemoehybrid", {"others": [[], []]}),
        ("gemma4_text", {"carried": [1.0, 1.0, 1.0]}),
        ("gemma4_text", {"multipliers": [1.0, 1.0]}),
    ],
)
def test_without_what_is_new_they_do_not(model_of: Callable[[str], Model], name: str, change: dict[str, Any]) -> None:
    """The control."""
    assert off(effects_of(dataclasses.replace(model_of(name).anatomy, **change), by_source=False)) > 1e-2


def logits_by_hooks(model: Model, row: Row) -> torch.Tensor:
    """One whole plain pass with hooks that do what a row says, from `FIRST` on."""
    anatomy = model.anatomy

    def patch(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        name = None if args else next(iter(kwargs))
        x = (args[0] if args else kwargs[name]).clone()
        for position, vector in row.patch.items():
            x[0, FIRST + position] = vector
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {name: x})

    def replace(layer: int, _: Any, args: tuple) -> tuple:
        heads, values = row.heads[layer]
        z = args[0].clone().view(1, N, *anatomy.shapes[layer])
        z[0, FIRST:, heads] = values[..., : z.shape[-1]]
        return (z.view(args[0].shape), *args[1:])

    def other_mlp(layer: int, _: Any, args: tuple, y: Any) -> Any:
        first = (y[0] if isinstance(y, tuple) else y).clone()
        first.view(N, -1)[FIRST:] = row.mlps[layer] / anatomy.multipliers[layer]
        return (first, *y[1:]) if isinstance(y, tuple) else first

    with contextlib.ExitStack() as stack, torch.inference_mode():
        if row.patch and row.layer == anatomy.n_layers:
            stack.enter_context(anatomy.before_final_norm(patch))
        elif row.patch:
            stack.enter_context(anatomy.blocks[row.layer].register_forward_pre_hook(patch, with_kwargs=True))
        for layer in row.heads:
            stack.enter_context(anatomy.outs[layer].register_forward_pre_hook(functools.partial(replace, layer)))
        for layer in row.mlps:
            stack.enter_context(anatomy.mlp_output(layer).register_forward_hook(functools.partial(other_mlp, layer)))
        return model.hf(input_ids=torch.from_numpy(some_tokens())[None], use_cache=False).logits[0, FIRST:]


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_runs_of_their_own(model_of: Callable[[str], Model], name: str) -> None:
    """Patches before every block and the final norm, heads and MLPs replaced, from the middle of the prompt on."""
    model = model_of(name)
    anatomy = model.anatomy
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    width, d_head = N - FIRST, anatomy.w_out[0].shape[1]
    rows = [Row(layer, {2: normal(64)}) for layer in range(anatomy.n_layers + 1)]
    rows += [Row(layer, heads={layer: ([0, 2], normal(width, 2, d_head))}) for layer in anatomy.with_heads]
    with_mlps = [layer for layer in range(anatomy.n_layers) if anatomy.mlp_output(layer) is not None]
    rows += [Row(layer, mlps={layer: normal(width, 64)}) for layer in with_mlps] + [Row(0)]
    base = base_run(anatomy, some_tokens(), FIRST)
    assert base.residual[0].shape == (1, width, 64)
    found = torch.zeros(len(rows), width, anatomy.unembedding.shape[0])
    for some in sweep(anatomy, base, rows, range(width)):
        found[some.rows] = some.logits
    for row, logits in zip(rows, found):
        torch.testing.assert_close(logits, logits_by_hooks(model, row), atol=2e-4, rtol=1e-4)
    check_starts(anatomy, some_tokens())


def test_attention_with_learned_sinks_is_the_models_own(model_of: Callable[[str], Model]) -> None:
    model = model_of("gpt_oss")
    tokens = some_tokens()
    stream = watch(model.anatomy, [tokens], np.array([[N - 1]]))
    model.hf.set_attn_implementation("eager")
    with torch.inference_mode():
        eager = model.hf(input_ids=torch.from_numpy(tokens)[None], use_cache=False, output_attentions=True).attentions
    for layer, weights in enumerate(eager):
        torch.testing.assert_close(stream.pattern[layer][0, :, 0], weights[0, :, -1, :N], atol=1e-5, rtol=1e-4)
        assert (stream.pattern[layer].sum(-1) < 0.99).any()  # the sink takes some
        assert not model.anatomy.value_bias[layer].any()


def test_gates_are_the_models_own(model_of: Callable[[str], Model]) -> None:
    """Qwen3.5 multiplies attention's output by a sigmoid, which its query projection gives beside the queries."""
    model = model_of("qwen3_5_text")
    assert model.anatomy.gated == [False, True]
    kept: list[torch.Tensor] = []
    attention: Any = model.anatomy.attentions[1]
    with attention.q_proj.register_forward_hook(lambda _, args, y: kept.append(y)):
        stream = watch(model.anatomy, [some_tokens()], np.array([[3, N - 1]]))
    _, gate = kept[0][0].view(N, 4, 32).chunk(2, dim=-1)
    torch.testing.assert_close(stream.gates[1].view(2, 4, 16), gate[[3, N - 1]].sigmoid(), atol=1e-6, rtol=1e-5)


def test_the_factor_of_a_cap_is_that_of_the_run(model_of: Callable[[str], Model]) -> None:
    model = model_of("gemma2")
    stream = watch(model.anatomy, [some_tokens()], np.array([[N - 1]]))
    raw = stream.normed @ model.anatomy.unembedding.T
    assert isinstance(stream.scale, torch.Tensor)
    torch.testing.assert_close(stream.scale * raw, stream.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(2.0 * torch.tanh(raw / 2.0), stream.logits, atol=1e-5, rtol=1e-4)
    assert stream.scale.min() < 0.7 and stream.scale.max() <= 1 + 1e-4


def test_heads_of_layers_without_any_are_refused(model_of: Callable[[str], Model]) -> None:
    anatomy = model_of("qwen3_5_text").anatomy
    z, _ = outputs_of(anatomy, some_tokens())
    assert not z[0].any() and z[1].any() and anatomy.with_heads == [1]
    with pytest.raises(StatedError, match=r"layer 0 has no attention heads; layers \[1\] have"):
        with heads_replaced(anatomy, {0: ([0], z[0][None, :, [0]])}):
            pass


def test_windows_are_those_of_the_layer(model_of: Callable[[str], Model]) -> None:
    """A row from the middle sees what the plain run sees, in sliding and in full layers, past the window's length."""
    model = model_of("gemma4_text")
    model.hf.config.sliding_window, before = 8, model.hf.config.sliding_window
    masks: dict[int, Any] = {}
    with attention_through(model.anatomy, lambda one: masks.update({one.layer: one.mask})), torch.inference_mode():
        plain = model.hf(input_ids=torch.from_numpy(some_tokens())[None], use_cache=False).logits[0, FIRST:]
    base = base_run(model.anatomy, some_tokens(), FIRST)
    (one,) = sweep(model.anatomy, base, [Row(0)], range(N - FIRST))
    model.hf.config.sliding_window = before
    assert masks[0] is not None and int(masks[0][0, 0, -1].sum()) == 8
    torch.testing.assert_close(one.logits[0], plain, atol=2e-4, rtol=1e-4)
