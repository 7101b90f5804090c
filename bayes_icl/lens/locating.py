"""Where the parts of a model are.

TransformerLens's adapter of an architecture names the parts (``blocks.3.attn.o``), and they are then hooked in the
plain transformers module, which is never rewritten.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Anatomy, Norm
from bayes_icl.lens.watching import watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def anatomy_of(hf: PreTrainedModel) -> Anatomy:
    """Find the parts of a plain transformers model.

    Raises
    ------
    StatedError
        TransformerLens does not know the architecture, or the model's attention is not transformers' own.
    """
    config = hf.config.get_text_config()
    component = _components(hf)
    n_layers = config.num_hidden_layers
    blocks = [component(f"blocks.{i}") for i in range(n_layers)]
    outs = [component(f"blocks.{i}.attn.o") for i in range(n_layers)]
    mlps = [component(f"blocks.{i}.mlp") for i in range(n_layers)]
    # OPT has no module of its own for the MLP.
    mlps = [component(f"blocks.{i}.mlp.out") if m is b else m for i, (m, b) in enumerate(zip(mlps, blocks))]
    d_model, device = config.hidden_size, hf.device
    norms = {
        name: [_norm_or_none(component, f"blocks.{i}.{name}", d_model, device) for i in range(n_layers)]
        for name in ("ln1_post", "ln2_post")
    }
    n_heads = config.num_attention_heads
    # Conv1D of GPT-2 holds the transpose of a Linear.
    weights = [o.weight.detach().T if isinstance(o, nn.Linear) else o.weight.detach() for o in outs]
    w_out = [w.unflatten(0, (n_heads, -1)) for w in weights]
    anatomy = Anatomy(
        hf,
        blocks,
        [component(f"blocks.{i}.attn") for i in range(n_layers)],
        outs,
        mlps,
        norms["ln1_post"],
        norms["ln2_post"],
        Norm.of(component("ln_final"), d_model, device),
        component("unembed"),
        component("unembed").weight.detach(),
        w_out,
        [w @ w.transpose(-1, -2) for w in w_out],
        [None if out.bias is None else out.bias.detach() for out in outs],
        [],
        float(getattr(config, "residual_multiplier", 1.0) or 1.0),
    )
    anatomy.value_bias.extend(_value_bias(anatomy))
    return anatomy


def _components(hf: Any) -> Any:
    """TransformerLens's map from its names to the modules of a plain transformers model."""
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    architecture = type(hf).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = build_bridge_config_from_hf(hf.config, architecture, architecture, torch.float32)
            adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
        adapter.get_component(hf, "blocks.0.attn.o")
    except Exception as error:
        raise StatedError(
            f"TransformerLens does not say where the attention heads of {architecture} write ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:120]}): this model can be collected and fitted, not attributed"
        ) from error
    return lambda name: adapter.get_component(hf, name)


def _norm_or_none(component: Any, name: str, d_model: int, device: torch.device) -> Norm | None:
    try:
        module = component(name)
    except (ValueError, AttributeError):
        return None
    return Norm.of(module, d_model, device)


def _value_bias(anatomy: Anatomy) -> list[Tensor]:
    """Values where the residual stream is 0: one pass over one token."""

    def empty(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (torch.zeros_like(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": torch.zeros_like(kwargs["hidden_states"])}

    with contextlib.ExitStack() as stack:
        for block in anatomy.blocks:
            stack.enter_context(block.register_forward_pre_hook(empty, with_kwargs=True))
        stream = watch(anatomy, [np.zeros(1, dtype=np.int64)], np.zeros((1, 1), dtype=np.int64))
    repeats = [anatomy.n_heads // v.shape[1] for v in stream.values]
    return [v[0, :, 0].repeat_interleave(n, dim=0) for v, n in zip(stream.values, repeats)]
