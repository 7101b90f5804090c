"""What a model gives, computed by hooks in the plain way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bayes_icl.lens.edits import Edits
from bayes_icl.lens.sweeps import Row
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.transfer import cut
from bayes_icl.models import Model
from bayes_icl.models.prompts import encode_episode, token_places
from bayes_icl.tasks import Example, Task


def attention_of(model: Model) -> list[tuple[Any, Any]]:
    """By layer: the attention and its output projection."""
    hf: Any = model.hf
    if model.name == "opt":
        return [(block.self_attn, block.self_attn.out_proj) for block in hf.model.decoder.layers]
    if model.name == "gpt2":
        return [(block.attn, block.attn.c_proj) for block in hf.transformer.h]
    if model.name == "gpt_neox":
        return [(block.attention, block.attention.dense) for block in hf.gpt_neox.layers]
    return [(block.self_attn, block.self_attn.o_proj) for block in hf.model.layers]


def blocks_of(model: Model) -> list[Any]:
    """Blocks, and the final norm last."""
    hf: Any = model.hf
    if model.name == "opt":
        return [*hf.model.decoder.layers, hf.model.decoder.final_layer_norm]
    if model.name == "gpt2":
        return [*hf.transformer.h, hf.transformer.ln_f]
    if model.name == "gpt_neox":
        return [*hf.gpt_neox.layers, hf.gpt_neox.final_layer_norm]
    return [*hf.model.layers, hf.model.norm]


@contextlib.contextmanager
def by_hooks(model: Model, first: int, row: Row, edits: Edits | None = None) -> Iterator[None]:
    """Do to a plain model what a row of a base with edits says; `blocked` needs eager attention.

    An MLP is replaced where its block ends, by what the block would add less.
    """
    *blocks, final = blocks_of(model)
    multiplier = getattr(model.hf.config, "residual_multiplier", 1.0)
    written: dict[int, torch.Tensor] = {}

    def places(at: np.ndarray | None, n: int) -> torch.Tensor:
        return torch.arange(n) if at is None else torch.from_numpy(np.flatnonzero(at))

    def patch(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        x = (args[0] if args else kwargs["hidden_states"]).clone()
        for position, vector in row.patch.items():
            x[0, first + position] = vector
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    def replace(layer: int) -> Any:
        def hook(_: Any, args: tuple) -> tuple:
            z = args[0].clone()
            size = z.shape[-1] // 4
            if edits and layer in edits:
                for k, head in enumerate(edits[layer][0]):
                    own, other = z[0, :, head * size : (head + 1) * size], edits[layer][1][0, :, k]
                    z[0, :, head * size : (head + 1) * size] = torch.where(other.isnan(), own, other)
            if layer in row.heads:
                heads, values = row.heads[layer]
                for k, head in enumerate(heads):
                    for i in places(row.at, len(values)):
                        z[0, first + i, head * size : (head + 1) * size] = values[i, k]
            return (z,)

        return hook

    def block_edges(layer: int) -> Any:
        def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            mask = kwargs["attention_mask"].clone()
            mask[0, 0, first:][row.blocked] = -torch.inf
            return args, kwargs | {"attention_mask": mask}

        return hook

    def other_mlp(layer: int) -> Any:
        def hook(_: Any, args: tuple, y: Any) -> Any:
            y = y.clone()
            for i in places(row.at, len(row.mlps[layer])):
                y[0, first + i] += row.mlps[layer][i] - multiplier * written[layer][first + i]
            return y

        return hook

    handles = [[*blocks, final][row.layer].register_forward_pre_hook(patch, with_kwargs=True)]
    for layer, block in enumerate(blocks):
        attention, out = attention_of(model)[layer]
        handles.append(out.register_forward_pre_hook(replace(layer)))
        if row.blocked is not None and row.layer <= layer < row.until:
            handles.append(attention.register_forward_pre_hook(block_edges(layer), with_kwargs=True))
        if layer in row.mlps:
            write = getattr(block, {"gemma": "post_feedforward_layernorm", "opt": "fc2"}.get(model.name[:5], "mlp"))
            keep = lambda _, __, y, layer=layer: written.update({layer: y.reshape(-1, 64)})  # noqa: E731
            handles.append(write.register_forward_hook(keep))
            handles.append(block.register_forward_hook(other_mlp(layer)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def forward(model: Model, tokens: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return model.hf(input_ids=torch.from_numpy(tokens)[None], use_cache=False).logits[0]


def odds_by_hand(logits: torch.Tensor, token: int) -> float:
    log_p = logits.double().log_softmax(-1)
    return float(log_p[token] - torch.log1p(-log_p[token].exp()))


def outputs(model: Model, episode: Episode) -> list[torch.Tensor]:
    """By layer, what goes into the output projection, shape (pos, head, d_head): a forward of the episode alone."""
    z: list[torch.Tensor] = []
    # A hook after the module sees its input as other hooks left it.
    handles = [
        out.register_forward_hook(lambda _, args, __: z.append(args[0][0].unflatten(-1, (4, -1)).clone()))
        for _, out in attention_of(model)
    ]
    with torch.inference_mode():
        model.hf(torch.from_numpy(episode.prompt.tokens)[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return z


def assert_put_back(model: Model, implementation: str = "sdpa") -> None:
    assert model.hf.config._attn_implementation == implementation
    for module in model.hf.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert "forward" not in vars(module)


def spelled_out(task: Task, examples: list[Example], model: Model, shot: int, token: int) -> Episode:
    """An episode of these examples, tokenised anew and cut."""
    prompt = encode_episode(task, examples, model.tokenizer, branch=False)
    whole = Episode(0, prompt, token_places(prompt), None)  # type: ignore[arg-type]
    return cut(whole, shot, token)
