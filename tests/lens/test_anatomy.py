"""What one pass keeps is what the model computed; passes with heads replaced; hooks and attention are put back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import assert_put_back, attention_of
from handmade import random_model
from tiny_families import FAMILIES, _bridged
from torch import nn

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Norm
from bayes_icl.lens.edits import blocks_kept, heads_replaced, starting_at
from bayes_icl.lens.watching import watch
from bayes_icl.models import Model

KINDS = ["llama", "gpt2", "qwen2", "gpt_neox", "gemma3"]


@pytest.fixture(scope="module")
def model_of(tiny: Model) -> Callable[[str], Model]:
    """A random model with random biases and gains, made once."""
    made: dict[str, Model] = {}
    return lambda name: made.setdefault(name, random_model(name, tiny)) if name not in made else made[name]


def some_tokens(model: Model, lengths: tuple[int, ...] = (40, 29, 33)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(len(model.tokenizer), size=n) for n in lengths]


POSITIONS = np.array([[5, 20, 39], [0, 28, 3], [32, 31, 7]])  # in any order


# ------------------------------------------------------------------------------------------------- norms


def randomised(norm: Any) -> Any:
    with torch.no_grad():
        for weight in norm.parameters():
            weight.normal_(0.5, 1.0)
    return norm


def some_norms() -> dict[str, Any]:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(0)
    norms = {"rms": LlamaRMSNorm(24, eps=1e-3), "layer": nn.LayerNorm(24, eps=1e-3), "gemma": Gemma3RMSNorm(24, 1e-3)}
    return {name: randomised(norm) for name, norm in norms.items()}


@pytest.mark.parametrize("kind", ["rms", "layer", "gemma"])
def test_a_norm_is_a_linear_map_with_the_scale_of_the_run(kind: str) -> None:
    """Small inputs too, where the norm's epsilon counts."""
    module = some_norms()[kind]
    norm = Norm.of(module, 24, torch.device("cpu"))
    x = torch.randn(30, 24) * torch.logspace(-2, 2, 30)[:, None] + torch.randn(30, 1)
    y = module(x).detach()
    scale = norm.scale(x, y)
    centred = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    rebuilt = norm.gain * centred.double() * scale + norm.bias
    torch.testing.assert_close(rebuilt, y.double(), atol=1e-5, rtol=1e-5)
    assert norm.centred == (kind == "layer")
    gain = module.weight.detach() + (1 if kind == "gemma" else 0)
    torch.testing.assert_close(norm.gain, gain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.bias, module.bias.detach() if kind == "layer" else torch.zeros(24))


@pytest.mark.parametrize("kind", ["rms", "layer", "gemma"])
def test_a_direction_goes_back_through_a_norm(kind: str) -> None:
    module = some_norms()[kind]
    norm = Norm.of(module, 24, torch.device("cpu"))
    x, direction = torch.randn(6, 24), torch.randn(6, 24)
    y = module(x).detach()
    before = norm.back(direction, norm.scale(x, y))
    expected = ((y - norm.bias) * direction).sum(-1)
    torch.testing.assert_close((x * before).sum(-1), expected.double(), atol=1e-5, rtol=1e-4)
    # The control: without the gain it is another number.
    assert not torch.allclose((x * direction * norm.scale(x, y)).sum(-1), expected.double(), atol=1e-2)


@pytest.mark.parametrize("kind", ["rms", "layer", "gemma"])
def test_nothing_has_a_finite_scale(kind: str) -> None:
    """Attention that writes nothing, as with all its heads ablated to 0, or of padding, whose embedding is 0."""
    # Fails where 0 is divided by 0.
    module = some_norms()[kind]
    norm, nothing = Norm.of(module, 24, torch.device("cpu")), torch.zeros(2, 24)
    scale = norm.scale(nothing, module(nothing).detach())
    assert norm.back(torch.ones(2, 24), scale).isfinite().all()


# ------------------------------------------------------------------------------------------------- anatomy


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "gpt_neox"])
def test_the_bias_of_values_is_the_modules_own(model_of: Callable[[str], Model], name: str) -> None:
    """What values are where the residual stream is 0: the bias of the norm before attention is in it, through W_V.

    GPT-2 and GPT-NeoX join queries, keys and values, each in its own order; Qwen's heads share values.
    """
    # Fails for both where only the projection's own bias is taken.
    model = model_of(name)
    for layer, found in enumerate(model.anatomy.value_bias):
        if name == "qwen2":
            expected = model.hf.model.layers[layer].self_attn.v_proj.bias.view(2, 16).repeat_interleave(2, dim=0)
        elif name == "gpt2":
            block = model.hf.transformer.h[layer]
            expected = block.attn.c_attn(block.ln_1.bias)[128:].view(4, 16)
        else:
            block = model.hf.gpt_neox.layers[layer]
            expected = block.attention.query_key_value(block.input_layernorm.bias).view(4, 3, 16)[:, 2]
        torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)
        assert expected.abs().max() > 0.1


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_no_bias_is_found_where_there_is_none(model_of: Callable[[str], Model], name: str) -> None:
    anatomy = model_of(name).anatomy
    assert all(not bias.any() for bias in anatomy.value_bias) and anatomy.out_bias == [None, None]


# ------------------------------------------------------------------------------------------------- one pass


def values_of(name: str, out: torch.Tensor) -> torch.Tensor:
    """Values, shape (kv_head, pos, d_head), from what the projection gives."""
    if name == "gpt_neox":
        return out[0].view(-1, 4, 3, 16)[:, :, 2].transpose(0, 1)
    values = out[0][:, 128:] if name == "gpt2" else out[0]
    return values.unflatten(-1, (-1, 16)).transpose(0, 1)


@pytest.mark.parametrize("name", KINDS)
def test_a_pass_keeps_what_an_eager_run_computes(model_of: Callable[[str], Model], name: str) -> None:
    """Episodes padded to one batch, against one eager forward each."""
    model = model_of(name)
    tokens = some_tokens(model)
    stream = watch(model.anatomy, tokens, POSITIONS)
    eager = Model(copy.deepcopy(model.hf), model.tokenizer, name)
    eager.hf.set_attn_implementation("eager")
    close = {"atol": 1e-5, "rtol": 1e-4}
    for i, (own, at) in enumerate(zip(tokens, POSITIONS)):
        z: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        handles = []
        for attention, out in attention_of(eager):
            handles.append(out.register_forward_pre_hook(lambda _, args, z=z: z.append(args[0][0])))
            projection = {"gpt2": "c_attn", "gpt_neox": "query_key_value"}.get(name, "v_proj")
            keep = lambda _, __, y, values=values: values.append(values_of(name, y))  # noqa: E731
            handles.append(getattr(attention, projection).register_forward_hook(keep))
        with torch.inference_mode():
            run = eager.hf(torch.from_numpy(own)[None], output_attentions=True, output_hidden_states=True)
        for handle in handles:
            handle.remove()
        rows, n = slice(3 * i, 3 * i + 3), len(own)
        torch.testing.assert_close(stream.logits[rows], run.logits[0, at], **close)
        for layer in range(2):
            torch.testing.assert_close(stream.z[layer][rows], z[layer][at].unflatten(-1, (4, 16)), **close)
            torch.testing.assert_close(stream.pattern[layer][i, :, :, :n], run.attentions[layer][0][:, at], **close)
            assert not stream.pattern[layer][i, :, :, n:].any()  # nothing attends to padding
            torch.testing.assert_close(stream.values[layer][i, :, :n], values[layer], **close)
            torch.testing.assert_close(stream.residual[layer][rows], run.hidden_states[layer][0, at], **close)
    if name == "gemma3":  # its window is narrower than the episode, in the first layer only
        far = [stream.pattern[layer][0, :, 2, :20].sum() for layer in range(2)]
        assert far[0] == 0 and far[1] > 0.01
    if name in ("llama", "qwen2"):
        assert stream.values[0].shape[1] == 2  # heads share values


def test_a_final_scale_is_taken_from_the_logits(model_of: Callable[[str], Model]) -> None:
    """A model that multiplies its logits (Granite, Cohere) is still linear."""
    model = model_of("llama")

    class Scaled(type(model.hf)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 0.25
            return out

    hf = copy.deepcopy(model.hf)
    hf.__class__ = type("LlamaForCausalLM", (Scaled,), {})
    scaled = Model(hf, model.tokenizer, "scaled")
    stream = watch(scaled.anatomy, some_tokens(model), POSITIONS)
    assert stream.scale == pytest.approx(0.25, rel=1e-6)
    assert watch(model.anatomy, some_tokens(model), POSITIONS).scale == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bloom", "attention of BloomForCausalLM does not run through transformers' attention interface"),
        ("gpt_neo", "attention of GPTNeoForCausalLM does not run through transformers' attention interface"),
    ],
)
def test_what_does_not_add_up_is_stated(model_of: Callable[[str], Model], name: str, says: str) -> None:
    model = model_of(name)
    with pytest.raises(StatedError, match=says):
        watch(model.anatomy, some_tokens(model), POSITIONS)
    assert_put_back(model, "eager")  # as transformers runs these


def test_caps_on_attention_alone_add_up(tiny: Model) -> None:
    """Gemma 2 without its final cap, attention caps and all; with it, in test_mixers."""
    model = random_model("gemma2", tiny)
    model.hf.config.final_logit_softcapping = None
    tokens = some_tokens(model)
    stream = watch(model.anatomy, tokens, POSITIONS)
    model.hf.set_attn_implementation("eager")
    with torch.inference_mode():
        run = model.hf(torch.from_numpy(tokens[0])[None], output_attentions=True)
    torch.testing.assert_close(stream.logits[:3], run.logits[0, POSITIONS[0]], atol=1e-5, rtol=1e-4)
    for layer in range(2):
        expected = run.attentions[layer][0][:, POSITIONS[0]]
        torch.testing.assert_close(stream.pattern[layer][0], expected, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------------------------------- other passes


def logits_of(model: Model, tokens: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return model.hf(torch.from_numpy(tokens)[None], use_cache=False).logits[0]


@pytest.mark.parametrize("name", KINDS)
def test_starting_at_a_block_gives_the_logits_of_the_whole_run(model_of: Callable[[str], Model], name: str) -> None:
    model = model_of(name)
    (tokens,) = some_tokens(model, (40,))
    with blocks_kept(model.anatomy, [0, 1]) as kept:
        whole = logits_of(model, tokens)
    for layer in (0, 1):
        computed = []
        handle = attention_of(model)[0][0].register_forward_hook(lambda *_: computed.append(True))  # noqa: B023
        with starting_at(model.anatomy, layer, kept[layer]):
            assert torch.equal(logits_of(model, tokens), whole)
        handle.remove()
        assert bool(computed) == (layer == 0)  # the first block is not computed
    with starting_at(model.anatomy, 1, 2 * kept[1]):  # the control: what is handed on matters
        assert not torch.allclose(logits_of(model, tokens), whole, atol=1e-3)
    assert_put_back(model)


@pytest.mark.parametrize("name", KINDS)
def test_a_heads_own_output_changes_nothing(model_of: Callable[[str], Model], name: str) -> None:
    model = model_of(name)
    (tokens,) = some_tokens(model, (40,))
    z: dict[int, torch.Tensor] = {}
    watch(model.anatomy, [tokens], POSITIONS[:1], on_z=lambda layer, x: z.update({layer: x.clone()}))
    whole = logits_of(model, tokens)
    with heads_replaced(model.anatomy, {0: ([2, 1], z[0][:, :, [2, 1]]), 1: ([3], z[1][:, :, [3]])}):
        assert torch.equal(logits_of(model, tokens), whole)
    with heads_replaced(model.anatomy, {0: ([1, 2], z[0][:, :, [2, 1]])}):  # the control: outputs exchanged
        assert not torch.allclose(logits_of(model, tokens), whole, atol=1e-3)
    assert_put_back(model)


@pytest.mark.parametrize("name", KINDS)
def test_zeros_are_as_zeroing_a_heads_weights(model_of: Callable[[str], Model], name: str) -> None:
    model = model_of(name)
    (tokens,) = some_tokens(model, (40,))
    with heads_replaced(model.anatomy, {0: ([1, 3], torch.zeros(1, 40, 2, 16))}):
        found = logits_of(model, tokens)
    other = Model(copy.deepcopy(model.hf), model.tokenizer, name)
    out = attention_of(other)[0][1]
    with torch.no_grad():
        weight = out.weight if name == "gpt2" else out.weight.T  # Conv1D holds the transpose of a Linear
        weight[16:32], weight[48:64] = 0, 0
    torch.testing.assert_close(found, logits_of(other, tokens), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, logits_of(model, tokens), atol=1e-3)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_hooks_and_attention_are_put_back(tiny: Model, implementation: str) -> None:
    model = random_model("llama", tiny)
    model.hf.set_attn_implementation(implementation)
    tokens = some_tokens(model)
    before = logits_of(model, tokens[0])
    watch(model.anatomy, tokens, POSITIONS)
    assert_put_back(model, implementation)

    def fail(layer: int, z: torch.Tensor) -> None:
        raise KeyError(layer)

    with pytest.raises(KeyError):
        watch(model.anatomy, tokens, POSITIONS, on_z=fail)
    assert_put_back(model, implementation)
    residual = torch.zeros(1, 1, 64)
    with pytest.raises(KeyError), heads_replaced(model.anatomy, {0: ([0], torch.zeros(1))}):
        raise KeyError
    with pytest.raises(KeyError), blocks_kept(model.anatomy, [1]), starting_at(model.anatomy, 1, residual):
        raise KeyError
    assert_put_back(model, implementation)
    assert torch.equal(logits_of(model, tokens[0]), before)


# ------------------------------------------------------------------------------------------------- bridges


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bridged_models_plain_module_is_the_same_one(model_of: Callable[[str], Model], name: str) -> None:
    """The same logits from the same memory, biases and gains included."""
    model = model_of(name)
    (tokens,) = some_tokens(model, (40,))
    assert model.plain is model.hf  # nothing to undo
    bridged = Model.from_bridge(_bridged(model), name, model.tokenizer)
    plain = Model(bridged.plain, model.tokenizer, name)
    assert type(plain.hf) is type(model.hf) and bridged.plain is not bridged.hf
    torch.testing.assert_close(logits_of(plain, tokens), logits_of(model, tokens), atol=1e-5, rtol=1e-5)
    theirs = {p.data_ptr() for p in bridged.hf.parameters()}
    assert {p.data_ptr() for p in plain.hf.parameters()} <= theirs
    assert not {p.data_ptr() for p in model.hf.parameters()} & theirs  # the control: the bridge is around a copy
