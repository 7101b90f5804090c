"""One pass that keeps what heads and MLPs write into the residual stream, and passes with heads replaced.

Where the parts of a model are is TransformerLens's knowledge: its adapter of the architecture names them
(``blocks.3.attn.o``), and they are then hooked in the plain transformers module, which is never rewritten. Attention
runs through a function registered with transformers, which keeps the rows of the pattern at the positions read and the
values: no pattern of all positions is built, and attention stays SDPA.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bayes_icl.errors import StatedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "bayes_icl"  # the name of our attention function with transformers
EXACT = 1e-5  # logits that differ from a multiple of the unembedding's by more than this part were capped


def pad(rows: Sequence[Int[np.ndarray, " pos"]]) -> Int[Tensor, "batch pos"]:
    """Episodes as one tensor, with zeros on the right."""
    width = max(len(row) for row in rows)
    return torch.from_numpy(np.stack([np.pad(row, (0, width - len(row))) for row in rows]))


@dataclass(frozen=True)
class Norm:
    """A norm as a linear map, its scale taken from the run: y = gain * (x - mean, if centred) * scale + bias."""

    module: nn.Module
    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centred: bool

    @classmethod
    def of(cls, module: nn.Module, d_model: int, device: torch.device) -> Norm:
        """Read gain and bias off the module's answers, so that RMSNorm, LayerNorm and gains of 1 + w are one case.

        Of a vector of alternating signs, mean and root mean square are 0 and 1, if it has an even number of entries.
        """
        signs = torch.ones(d_model, device=device)
        signs[1::2] = -1
        big = 1e3  # so that the norm's epsilon does not count
        with torch.inference_mode():
            plus, minus, ones = module(torch.stack([big * signs, -big * signs, torch.full_like(signs, big)]))
        bias = (plus + minus) / 2
        return cls(module, (plus - minus) / 2 * signs, bias, bool((ones - bias).abs().max() < 1e-3 * plus.abs().max()))

    def scale(self, x: Float[Tensor, "row d_model"], y: Float[Tensor, "row d_model"]) -> Float[Tensor, "row 1"]:
        """The factor by which a run scaled each row, epsilon and all."""
        linear = (self.gain * self._centre(x)).double()
        size = (linear**2).sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)  # 0 of a row of zeros
        return ((y - self.bias).double() * linear).sum(-1, keepdim=True) / size

    def back(
        self, direction: Float[Tensor, "row d_model"], scale: Float[Tensor, "row 1"]
    ) -> Float[Tensor, "row d_model"]:
        """The direction before the norm that reads what `direction` reads after it, bias aside."""
        return self._centre(self.gain * direction) * scale

    def _centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centred else x


@dataclass(frozen=True)
class Anatomy:
    """Where a model's parts are.

    Attributes
    ----------
    hf
        The plain transformers module.
    blocks, attentions, outs, mlps
        By layer: the block, its attention, the projection to the residual stream, and what an MLP's write comes out of.
    after_attention, after_mlp
        By layer: a norm between attention (MLP) and the residual stream, as Gemma 3 has, or None.
    final_norm, unembed, unembedding
        The last norm, the unembedding, and its weights.
    w_out
        By layer, shape (head, d_head, d_model): views of the weights.
    gram
        By layer, shape (head, d_head, d_head): w_out times its transpose, for norms of what heads write.
    out_bias
        By layer, shape (d_model,), or None.
    value_bias
        By layer, shape (head, d_head): what values are where the residual stream is 0. Attention sums to 1, so it adds
        the same whatever a head attends to, and counts as a bias and not as the head's.
    multiplier
        By which blocks multiply what they add to the residual stream (Granite).
    """

    hf: Any
    blocks: list[nn.Module]
    attentions: list[nn.Module]
    outs: list[nn.Module]
    mlps: list[nn.Module]
    after_attention: list[Norm | None]
    after_mlp: list[Norm | None]
    final_norm: Norm
    unembed: nn.Module
    unembedding: Float[Tensor, "vocab d_model"]
    w_out: list[Float[Tensor, "head d_head d_model"]]
    gram: list[Float[Tensor, "head d_head d_head"]]
    out_bias: list[Float[Tensor, " d_model"] | None]
    value_bias: list[Float[Tensor, "head d_head"]]
    multiplier: float

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        """Number of query heads in a layer."""
        return self.w_out[0].shape[0]

    def mlp_output(self, layer: int) -> nn.Module:
        """The module whose output is what a layer's MLP adds, before `multiplier`."""
        after = self.after_mlp[layer]
        return after.module if after else self.mlps[layer]


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


@dataclass
class Stream:
    """What a pass wrote at the positions read; rows are (batch, read), flattened.

    Attributes
    ----------
    logits
        Shape (row, vocab), as the model gives them.
    scale
        Of those, relative to what the unembedding gives.
    z
        By layer, shape (row, head, d_head): what heads hand to the output projection.
    pattern, values
        By layer, shapes (batch, head, read, pos) and (batch, kv_head, pos, d_head).
    mlp
        By layer, shape (row, d_model): what the MLP adds.
    residual
        Shape (row, d_model), before each block, and after the last.
    attention_scale
        By layer, shape (row, 1): of the norm after attention; None where there is none.
    normed
        Shape (row, d_model): what the unembedding reads.
    """

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    scale: float = 1.0
    z: list[Tensor] = field(default_factory=list)
    pattern: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)
    residual: list[Tensor] = field(default_factory=list)
    attention_scale: list[Tensor | None] = field(default_factory=list)
    normed: Tensor = field(default_factory=lambda: torch.empty(0))


def watch(
    anatomy: Anatomy,
    tokens: Sequence[Int[np.ndarray, " pos"]],
    positions: Int[np.ndarray, "batch read"],
    *,
    on_z: Any = None,
) -> Stream:
    """Run episodes and keep what was written at the positions read.

    Parameters
    ----------
    tokens
        An episode each, padded here on the right, where a causal mask keeps padding from mattering.
    on_z
        Called with (layer, z of shape (batch, pos, head, d_head)) as every layer passes.

    Raises
    ------
    StatedError
        The model's attention or its logits are not of the kind that adds up.
    """
    ids = pad(tokens).to(anatomy.unembedding.device)
    batch, width = ids.shape
    at = torch.from_numpy(np.asarray(positions)).to(ids.device)
    n_read = at.shape[1]
    rows = torch.arange(batch, device=ids.device)[:, None]
    stream = Stream()
    kept: dict[str, Any] = {}

    def read(x: Any) -> Tensor:
        """The rows read of a (batch, pos, ...) tensor, flattened."""
        x = x[0] if isinstance(x, tuple) else x
        return x.reshape(batch, width, -1)[rows, at].flatten(0, 1)  # OPT's MLP has one axis for both

    def into(hook: Any) -> Any:
        """A hook that takes the module's first argument, however it was given."""
        return lambda _, args, kwargs: hook(args[0] if args else next(iter(kwargs.values())))

    def keep_z(layer: int) -> Any:
        def hook(x: Tensor) -> None:
            stream.z.append(read(x).view(batch * n_read, anatomy.n_heads, -1))
            if on_z:
                on_z(layer, x.view(batch, width, anatomy.n_heads, -1))

        return hook

    def keep_scale(norm: Norm) -> Any:
        return lambda _, args, y: stream.attention_scale.append(norm.scale(read(args[0]), read(y)).float())

    def keep_logits(_: Any, args: tuple, y: Tensor) -> None:
        kept["raw"] = y

    def gather(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The unembedding sees the rows read only: (batch, pos, d_model) becomes (1, row, d_model)."""
        hidden, *rest = args
        stream.normed = read(hidden)
        return (stream.normed[None], *rest), kwargs

    def keep_attention(one: Attention) -> None:
        chosen = one.query[rows, :, at].transpose(1, 2)  # (batch, head, read, d_head)
        if one.mask is None:
            own = (torch.arange(width, device=ids.device) <= at[..., None])[:, None]
        else:
            own = one.mask.expand(batch, -1, -1, -1)[rows, :, at].transpose(1, 2)[..., : one.key.shape[2]]
        stream.pattern.append(masked(one.scores(chosen, one.key), own).softmax(-1))
        stream.values.append(one.value)

    with contextlib.ExitStack() as stack:
        for layer, block in enumerate(anatomy.blocks):
            keep = into(lambda x: stream.residual.append(read(x)))
            stack.enter_context(block.register_forward_pre_hook(keep, with_kwargs=True))
            stack.enter_context(anatomy.outs[layer].register_forward_pre_hook(into(keep_z(layer)), with_kwargs=True))
            if norm := anatomy.after_attention[layer]:
                stack.enter_context(norm.module.register_forward_hook(keep_scale(norm)))
            else:
                stream.attention_scale.append(None)
            written = anatomy.mlp_output(layer)
            keep_mlp = lambda _, args, y: stream.mlp.append(read(y) * anatomy.multiplier)  # noqa: E731
            stack.enter_context(written.register_forward_hook(keep_mlp))
        keep = into(lambda x: stream.residual.append(read(x)))
        stack.enter_context(anatomy.final_norm.module.register_forward_pre_hook(keep, with_kwargs=True))
        stack.enter_context(anatomy.unembed.register_forward_pre_hook(gather, with_kwargs=True))
        stack.enter_context(anatomy.unembed.register_forward_hook(keep_logits))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(attention_through(anatomy, keep_attention))
        logits = anatomy.hf(input_ids=ids, use_cache=False).logits[0]
    if len(stream.pattern) != anatomy.n_layers:
        raise StatedError(
            f"the attention of {type(anatomy.hf).__name__} does not run through transformers' attention interface: "
            "this model can be collected and fitted, not attributed"
        )
    raw = kept["raw"][0]
    if not torch.isfinite(logits).all():
        raise StatedError(f"{type(anatomy.hf).__name__} gives logits that are not finite: nothing can be attributed")
    size = float((raw**2).sum(dtype=torch.float64))
    stream.scale = float((raw * logits).sum(dtype=torch.float64)) / size if size else 1.0
    if not torch.allclose(stream.scale * raw, logits, rtol=EXACT, atol=EXACT * float(logits.abs().max())):
        raise StatedError(
            f"{type(anatomy.hf).__name__} changes its logits after the unembedding (a soft-cap?): what heads write "
            "does not add up to its log-odds; this model can be collected and fitted, not attributed"
        )
    stream.logits = logits
    return stream


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
    window
        Length of a sliding window; 0 for none.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    cap: float
    window: int

    def scores(self, query: Tensor, key: Tensor) -> Float[Tensor, "batch head query key"]:
        """Scores of some queries and keys; heads that share a key are taken together, and a batch of keys of 1."""
        if key.shape[0] == 1 < query.shape[0]:
            batch, n_heads, n, d_head = query.shape
            flat = query.transpose(0, 1).reshape(1, n_heads, batch * n, d_head)
            return _scores(flat, key, self.scaling, self.cap).view(n_heads, batch, n, -1).transpose(0, 1)
        return _scores(query, key, self.scaling, self.cap)


@contextlib.contextmanager
def attention_through(anatomy: Anatomy, attend: Any) -> Iterator[None]:
    """Show every `Attention` of the model to `attend`.

    It is computed by SDPA, unless `attend` gives the heads' output itself, shape (batch, head, pos, d_head).
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    layer_of = {id(module): i for i, module in enumerate(anatomy.attentions)}

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> Any:
        if kwargs.get("s_aux") is not None:
            raise StatedError("this model's attention has a learned sink: its heads cannot be attributed")
        scaling, cap = kwargs.pop("scaling", None) or query.shape[-1] ** -0.5, kwargs.pop("softcap", None) or 0.0
        if id(module) in layer_of:
            window = kwargs.get("sliding_window") or getattr(module, "sliding_window", None) or 0
            one = Attention(layer_of[id(module)], query, key, value, mask, scaling, cap, window)
            if (out := attend(one)) is not None:
                return out.transpose(1, 2).contiguous(), None
        kwargs["dropout"] = 0.0
        if not cap:
            return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **kwargs)
        scores = _scores(query, key, scaling, cap)
        if mask is None:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        weights = masked(scores, mask).softmax(-1)
        return weighed(weights, value).transpose(1, 2).contiguous(), None

    AttentionInterface.register(ATTENTION, forward)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    before = anatomy.hf.config._attn_implementation
    anatomy.hf.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        anatomy.hf.set_attn_implementation(before)


# By layer: which heads, and what they hand to the output projection instead, shape (batch, pos, chosen head, d_head);
# where that is NaN, their own output stays.
Edits = Mapping[int, tuple[Sequence[int], Tensor]]


@contextlib.contextmanager
def heads_replaced(anatomy: Anatomy, edits: Edits) -> Iterator[set[int]]:
    """Run with some heads' output (TransformerLens's ``blocks.{layer}.attn.hook_z``) replaced.

    Yields
    ------
    The layers at which that has changed anything, so far.
    """
    changed: set[int] = set()

    def replace(layer: int, heads: Sequence[int], values: Tensor) -> Any:
        def hook(_: nn.Module, args: tuple) -> tuple:
            z, *rest = args
            edited = z.clone().view(*z.shape[:2], anatomy.n_heads, -1)
            put(edited, heads, values.to(z.device))
            edited = edited.view(z.shape)
            if layer not in changed and not torch.equal(edited, z):
                changed.add(layer)
            return (edited, *rest)

        return hook

    with contextlib.ExitStack() as stack:
        for layer, edit in edits.items():
            stack.enter_context(anatomy.outs[layer].register_forward_pre_hook(replace(layer, *edit)))
        yield changed


def put(z: Float[Tensor, "batch pos head d_head"], heads: Sequence[int], values: Tensor) -> None:
    """Replace some heads' output in place, but for NaN."""
    own = z[:, :, list(heads)]
    z[:, :, list(heads)] = torch.where(values.isnan(), own, values)


def outputs_of(
    anatomy: Anatomy, tokens: Int[np.ndarray, " pos"]
) -> tuple[Float[Tensor, "layer pos head d_head"], Float[Tensor, "layer pos d_model"]]:
    """What every head hands on and every MLP adds, at every token of a prompt."""
    z: list[Tensor] = []
    mlps: list[Tensor] = []
    n = len(tokens)
    with contextlib.ExitStack() as stack:
        for layer in range(anatomy.n_layers):
            keep_z = lambda _, args: z.append(args[0].view(n, anatomy.n_heads, -1))  # noqa: E731
            keep_mlp = lambda _, args, y: mlps.append(y.view(n, -1) * anatomy.multiplier)  # noqa: E731
            stack.enter_context(anatomy.outs[layer].register_forward_pre_hook(keep_z))
            stack.enter_context(anatomy.mlp_output(layer).register_forward_hook(keep_mlp))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(unembedding(anatomy, [0]))
        anatomy.hf(input_ids=torch.from_numpy(tokens)[None].to(anatomy.unembedding.device), use_cache=False)
    return torch.stack(z), torch.stack(mlps)


@contextlib.contextmanager
def unembedding(anatomy: Anatomy, positions: Sequence[int]) -> Iterator[None]:
    """Unembed some positions only: logits come with shape (1, batch * position, vocab)."""

    def gather(_: nn.Module, args: tuple) -> tuple:
        return (args[0][:, list(positions)].flatten(0, 1)[None], *args[1:])

    with anatomy.unembed.register_forward_pre_hook(gather):
        yield


@contextlib.contextmanager
def blocks_kept(anatomy: Anatomy, layers: Sequence[int]) -> Iterator[dict[int, Float[Tensor, "batch pos d_model"]]]:
    """Keep what goes into some blocks, by layer, for `starting_at`."""
    kept: dict[int, Tensor] = {}

    def hook(layer: int) -> Any:
        return lambda _, args, kwargs: kept.update({layer: args[0] if args else kwargs["hidden_states"]})

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(anatomy.blocks[layer].register_forward_pre_hook(hook(layer), with_kwargs=True))
        yield kept


@contextlib.contextmanager
def starting_at(anatomy: Anatomy, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> Iterator[None]:
    """Run from a block on, with what went into it in a run before; the blocks below are not computed."""
    with contextlib.ExitStack() as stack:
        for block in anatomy.blocks[:layer]:
            stack.enter_context(_standing_in(block, residual))
        yield


@contextlib.contextmanager
def _standing_in(block: nn.Module, residual: Tensor) -> Iterator[None]:
    own = vars(block).get("forward")  # some libraries put one there
    block.forward = lambda *args, **kwargs: residual
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own
