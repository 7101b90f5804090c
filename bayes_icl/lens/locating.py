"""Where the parts of a model are.

TransformerLens's adapter of an architecture names the parts (``blocks.3.attn.o``), and they are then hooked in the
plain transformers module, which is never rewritten. What it does not know, a layer without attention or a whole
architecture, is looked for under the names that transformers gives such parts. A part that was not found, or was
mistaken for another, shows where effects are added up (`direct_effects`), which refuses the model then.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bayes_icl.core.errors import StatedError, first_line
from bayes_icl.lens.anatomy import Anatomy, Norm, Writer, filled, first_of
from bayes_icl.lens.attention import Attention, attention_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What transformers calls a block's parts.
ATTENTIONS = ("self_attn", "self_attention", "attn", "attention", "temporal_block", "mixer")
OUTS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
MLPS = ("mlp", "feed_forward", "block_sparse_moe", "moe", "mlp_block", "ffn", "shared_mlp")
MIXERS = ("linear_attn", "mamba", "conv", "short_conv", "temporal_block", "mixer")
AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")
FINAL_NORMS = ("norm", "final_layernorm", "ln_f", "final_norm", "norm_f", "embedding_norm", "layer_norm")


def anatomy_of(hf: PreTrainedModel) -> Anatomy:
    """Find the parts of a plain transformers model.

    Raises
    ------
    StatedError
        Parts are not found, or no layer's attention is transformers' own.
    """
    name = type(hf).__name__
    try:
        parts = _Parts(hf)
        layers = [_layer(parts, i) for i in range(len(parts.blocks))]
        final_norm, unembed = parts.final_norm(), parts.unembed()
    except (AttributeError, ValueError, TypeError, IndexError) as error:
        raise StatedError(
            f"the parts of {name} are not found ({first_line(error)}): this model can be collected and fitted, not "
            "attributed"
        ) from error
    unembedding = unembed.weight.detach()
    if unembedding.ndim != 2:
        raise StatedError(f"the unembedding of {name} is no matrix: this model can be collected, not attributed")
    probe = _probe(hf, layers, final_norm, name)
    return _assembled(hf, layers, final_norm, unembed, probe)


@dataclass
class _Layer:
    """The parts of one block; `mixes` where another mixer than attention is among the others."""

    block: nn.Module
    attention: nn.Module | None
    out: nn.Module | None
    mlp: nn.Module | None
    others: list[Writer]
    after_attention: nn.Module | None
    after_mlp: nn.Module | None
    mixes: bool

    def without_heads(self) -> None:
        """Take attention that is not transformers' own for another mixer."""
        if (module := self.after_attention or self.attention) is not None:
            self.others.append(Writer(module, _number(self.block, "attn_out_multiplier")))
            self.mixes = True
        self.attention = self.out = self.after_attention = None


class _Parts:
    """Parts by TransformerLens's names, where it has them, and the blocks of the model."""

    def __init__(self, hf: Any) -> None:
        self._hf, self._component = hf, _components(hf)
        n_layers = hf.config.get_text_config().num_hidden_layers
        self._over, blocks = _blocks_of(hf, n_layers)
        named = [self.named(f"blocks.{i}") for i in range(n_layers)]
        self.blocks: list[nn.Module] = [one for one in named if one is not None]
        if len(self.blocks) < n_layers:
            if blocks is None:
                raise ValueError(f"no list of {n_layers} blocks")
            self.blocks = list(blocks)

    def named(self, name: str) -> Any:
        """TransformerLens's part of that name; None where it has none."""
        try:
            return self._component(name)
        except Exception:  # of many kinds, where a layer is not as the adapter has it
            return None

    def final_norm(self) -> nn.Module:
        """The norm before the unembedding."""
        norm = self.named("ln_final") or (_child(self._over, FINAL_NORMS) if self._over is not None else None)
        if norm is None:
            raise ValueError("no norm before the unembedding")
        return norm

    def unembed(self) -> Any:
        """The unembedding."""
        module = self.named("unembed")
        module = self._hf.get_output_embeddings() if module is None else module
        if module is None:
            raise ValueError("no unembedding")
        return module


def _components(hf: Any) -> Callable[[str], Any]:
    """TransformerLens's map from its names to the modules of a plain transformers model; of none if it has no map."""
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    architecture = type(hf).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = build_bridge_config_from_hf(hf.config, architecture, architecture, torch.float32)
            adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
    except Exception:  # of many kinds, where it does not know the architecture or a setting of it
        return lambda name: None
    return lambda name: adapter.get_component(hf, name)


def _blocks_of(hf: nn.Module, n_layers: int) -> tuple[nn.Module | None, nn.ModuleList | None]:
    """The model's blocks by the names of their parts, and the module that they are in."""
    for path, module in hf.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers and _child(module[0], (*ATTENTIONS, *MIXERS)):
            return hf.get_submodule(path.rpartition(".")[0]), module
    return None, None


def _child(module: nn.Module, names: tuple[str, ...]) -> Any:
    """The first of some children that a module has."""
    return next((x for x in (getattr(module, name, None) for name in names) if isinstance(x, nn.Module)), None)


def _number(block: nn.Module, name: str) -> float:
    """A factor of a block; 1 where it has none of that name."""
    value = getattr(block, name, 1.0)
    return float(value) if value is not None else 1.0


def _layer(parts: _Parts, i: int) -> _Layer:
    """The parts of a block."""
    block = parts.blocks[i]
    attention, out = parts.named(f"blocks.{i}.attn"), parts.named(f"blocks.{i}.attn.o")
    if out is not None and attention is not None:
        norms = [parts.named(f"blocks.{i}.{name}") for name in ("ln1_post", "ln2_post")]
    else:
        attention = _child(block, ATTENTIONS)
        out = None if attention is None else _child(attention, OUTS)
        norms = [None, _child(block, AFTER_MLP)]
    if norms[0] is None:
        # Llama's post_attention_layernorm stands before the MLP; where a norm follows the MLP, it follows attention.
        names = ("post_self_attn_layernorm", *(("post_attention_layernorm",) if norms[1] is not None else ()))
        norms[0] = _child(block, names)
    mlp = parts.named(f"blocks.{i}.mlp")
    if mlp is block:  # OPT has no module of its own for the MLP
        mlp = parts.named(f"blocks.{i}.mlp.out")
    mlp = _child(block, MLPS) if mlp is None else mlp
    if out is None and attention is not None and any(hasattr(attention, x) for x in ("down_proj", "experts")):
        mlp, attention = attention, None  # Nemotron-H calls everything a mixer
    others = [Writer(x) for x in (_child(block, ("shared_mlp",)),) if x is not None and x is not mlp]
    others += [Writer(x) for x in (_child(block, ("post_per_layer_input_norm",)),) if x is not None]
    mixers = [x for x in (_child(block, (name,)) for name in MIXERS) if x not in (None, attention, mlp)]
    others += [Writer(x, _number(block, "ssm_out_multiplier")) for x in mixers]
    layer = _Layer(block, attention, out, mlp, others, norms[0], norms[1], bool(mixers))
    if out is None:
        layer.without_heads()
    return layer


@dataclass
class _Probe:
    """What passes over one token tell, by layer."""

    attention: dict[int, Attention] = field(default_factory=dict)
    n_given: dict[int, int] = field(default_factory=dict)
    final_norms: int = 0
    gated: dict[int, bool] = field(default_factory=dict)


def _probe(hf: Any, layers: list[_Layer], final_norm: nn.Module, name: str) -> _Probe:
    """Run one token through every block, at no residual stream and at one of random numbers.

    Attention is found where it runs through transformers' interface. Its output is gated where it does not reach the
    projection as it is, but coordinate by coordinate: leaving some out leaves out these alone.
    """
    probe = _Probe()

    def look(one: Attention) -> None:
        probe.attention[one.layer] = one

    def count(*_: Any) -> None:
        probe.final_norms += 1

    def shape(i: int) -> Any:
        def hook(_: nn.Module, args: tuple, y: Any) -> None:
            if first_of(y).ndim != 3:
                raise StatedError(
                    f"{name} has several residual streams: this model can be collected and fitted, not attributed"
                )
            probe.n_given[i] = len(y) if isinstance(y, tuple) else 0

        return hook

    with contextlib.ExitStack() as stack:
        for i, layer in enumerate(layers):
            stack.enter_context(layer.block.register_forward_hook(shape(i)))
        stack.enter_context(final_norm.register_forward_hook(count))
        _one_token(hf, layers, look, torch.zeros_like, name)
    if not probe.attention:
        raise StatedError(
            f"the attention of {name} does not run through transformers' attention interface: this model can be "
            "collected and fitted, not attributed"
        )
    for i, layer in enumerate(layers):
        if i not in probe.attention and layer.attention is not None:
            layer.without_heads()
    generator = torch.Generator().manual_seed(0)
    random = {
        i: torch.randn(x.query.shape[1], x.value.shape[3], generator=generator) for i, x in probe.attention.items()
    }
    some = {i: x * (torch.rand(x.shape, generator=generator) < 0.5) for i, x in random.items()}
    whole, left = (_projected(hf, layers, outputs, name) for outputs in (random, some))
    for i, put_in in random.items():
        flat, kept = put_in.flatten(), (some[i] != 0).flatten()
        if whole[i].shape != flat.shape:
            continue
        same = torch.allclose(whole[i], flat, rtol=1e-3, atol=1e-5)
        by_coordinate = torch.allclose(left[i], whole[i] * kept, rtol=1e-3, atol=1e-5)
        probe.gated[i] = by_coordinate and not same
    return probe


def _one_token(hf: Any, layers: list[_Layer], attend: Any, residual: Callable[[Tensor], Tensor], name: str) -> None:
    """Run one token with another residual stream before every block."""

    def enter(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (residual(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, kwargs | {first: residual(kwargs[first])}

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.block.register_forward_pre_hook(enter, with_kwargs=True))
        stack.enter_context(attention_of(hf, [layer.attention for layer in layers], attend))
        stack.enter_context(torch.inference_mode())
        try:
            hf(input_ids=torch.zeros(1, 1, dtype=torch.long, device=hf.device), use_cache=False)
        except (StatedError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a model's own code raises
            raise StatedError(
                f"{name} cannot be run as attribution needs it ({first_line(error)}): this model can be collected and "
                "fitted, not attributed"
            ) from error


def _projected(hf: Any, layers: list[_Layer], outputs: dict[int, Tensor], name: str) -> dict[int, Tensor]:
    """What reaches each projection where attention's output is given, by layer, flat."""
    reached: dict[int, Tensor] = {}

    def attend(one: Attention) -> Tensor:
        return outputs[one.layer].to(one.value)[None, :, None]

    def keep(i: int) -> Any:
        return lambda _, args: reached.update({i: args[0].float().flatten().cpu()})

    def random(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)

    with contextlib.ExitStack() as stack:
        for i in outputs:
            out = layers[i].out
            assert out is not None
            stack.enter_context(out.register_forward_pre_hook(keep(i)))
        _one_token(hf, layers, attend, random, name)
    return reached


def _assembled(hf: Any, layers: list[_Layer], final_norm: nn.Module, unembed: Any, probe: _Probe) -> Anatomy:
    """The anatomy from the parts of every layer."""
    n_layers, unembedding, device = len(layers), unembed.weight.detach(), hf.device
    d_model = unembedding.shape[1]
    norm_of = lambda module: None if module is None else Norm.of(module, d_model, device)  # noqa: E731
    shapes, w_out, biases, seen = [(0, 0)] * n_layers, {}, {}, probe.attention
    for i, layer in enumerate(layers):
        if layer.out is None:
            continue
        out: Any = layer.out
        n_heads, times = seen[i].query.shape[1], _number(layer.block, "attn_out_multiplier")
        # Conv1D of GPT-2 holds the transpose of a Linear.
        weight = out.weight.detach().T if isinstance(out, nn.Linear) else out.weight.detach()
        w_out[i] = (weight if times == 1 else weight * times).unflatten(0, (n_heads, -1))
        shapes[i] = (n_heads, w_out[i].shape[1])
        biases[i] = None if out.bias is None else out.bias.detach() * times
    largest = tuple(max(x[axis] for x in shapes) for axis in (0, 1))
    nothing = unembedding.new_zeros(1).expand(*largest, d_model)
    # (d_model, head, d_head) is filled up at its end.
    wide = [
        filled(w_out[i].permute(2, 0, 1), largest).permute(1, 2, 0) if i in w_out else nothing for i in range(n_layers)
    ]
    value_bias = [unembedding.new_zeros(largest) for _ in layers]
    for i, one in seen.items():
        if one.sinks is None and not probe.gated[i]:
            value = one.value[0, :, 0].repeat_interleave(shapes[i][0] // one.value.shape[1], dim=0)
            value_bias[i] = filled(value.clone(), largest)
    carried = [1.0]
    for layer in reversed(layers):
        carried.insert(0, carried[0] * _number(layer.block, "layer_scalar"))
    times = float(getattr(hf.config.get_text_config(), "residual_multiplier", 1.0) or 1.0)
    pointers = [seen[i].value.data_ptr() if i in seen else -1 - i for i in range(n_layers)]
    shared = [pointers.index(at) for i, at in enumerate(pointers) if at in pointers[:i]]
    return Anatomy(
        hf,
        [layer.block for layer in layers],
        [layer.attention for layer in layers],
        [layer.out for layer in layers],
        [layer.mlp for layer in layers],
        [layer.others for layer in layers],
        [norm_of(layer.after_attention) for layer in layers],
        [norm_of(layer.after_mlp) for layer in layers],
        Norm.of(final_norm, d_model, device),
        unembed,
        unembedding,
        wide,
        [w @ w.transpose(-1, -2) for w in wide],
        [biases.get(i) for i in range(n_layers)],
        shapes,
        value_bias,
        carried,
        [times * _number(layer.block, "residual_scale") * x for layer, x in zip(layers, carried)],
        [probe.gated.get(i, False) for i in range(n_layers)],
        [probe.n_given[i] for i in range(n_layers)],
        any(layer.mixes for layer in layers),
        min(shared, default=n_layers),
        probe.final_norms - 1,
    )
