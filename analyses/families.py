"""Write docs/families.md: which model families each command reads, tried on a tiny random model of every one.

``python analyses/families.py`` (`make families`): every family that transformers lists for causal language models is
made small, and what `collect` says is compared with plain forward passes, one a token. A family that cannot be made
small by the settings here, or takes longer than `LIMIT`, is left aside, with the reason.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import DONE, StatedError, exit_stating
from bayes_icl.core.files import replacing
from bayes_icl.mechanism.direct_effects import attribute_task
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.mechanism.head_names import name_of
from bayes_icl.mechanism.total_effects import ShotMeans, total_effects
from bayes_icl.models import Model, load_model
from bayes_icl.patch import PatchSettings, patch_curves
from bayes_icl.tasks import load_tasks

PAGE = Path(__file__).parent.parent / "docs/families.md"
LIMIT = 120  # seconds a family
LARGEST = 20_000_000  # parameters of a model that counts as small
NEAR = 1e-3  # nats

# What a configuration is made smaller by: only what it has, and only where it is larger.
SMALL = dict(
    hidden_size=64, d_model=64, n_embd=64, embedding_size=64, word_embed_proj_dim=64, attention_hidden_size=64,
    intermediate_size=96, ffn_dim=96, decoder_ffn_dim=96, encoder_ffn_dim=96, d_ff=96, dff=96, dim_ff=96,
    feed_forward_size=96, ffn_hidden_size=96, n_inner=96, d_inner=96, intermediate_size_mlp=96,
    shared_intermediate_size=96,
    moe_intermediate_size=32, shared_expert_intermediate_size=32, shared_experts_intermediate_size=32,
    moe_shared_expert_intermediate_size=32, prefix_dense_intermediate_size=96,
    num_hidden_layers=2, n_layer=2, n_layers=2, num_layers=2, decoder_layers=2, encoder_layers=2,
    num_decoder_layers=2, num_encoder_layers=2,
    num_attention_heads=4, n_head=4, n_heads=4, num_heads=4, decoder_attention_heads=4, encoder_attention_heads=4,
    num_decoder_attention_heads=4, num_encoder_attention_heads=4, swa_num_attention_heads=4,
    num_key_value_heads=2, swa_num_key_value_heads=2, num_kv_heads=4, head_dim=16, swa_head_dim=16,
    attention_head_dim=16, kv_channels=16, d_kv=16, dim_head=16, rotary_dim=16,
    kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, qk_head_dim=16, v_head_dim=16,
    index_head_dim=16, index_n_heads=2, index_topk=512, o_lora_rank=16,
    num_experts=4, num_local_experts=4, n_routed_experts=4, moe_num_experts=4, num_experts_per_tok=2,
    num_experts_per_token=2, moe_topk=2, moe_k=2, top_k_experts=2, n_group=1, topk_group=1, num_expert_group=1,
    first_k_dense_replace=1, num_dense_layers=1, n_shared_experts=1,
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
    linear_num_heads=4, linear_head_dim=16,
    mamba_d_state=16, mamba_n_heads=8, mamba_d_head=16, mamba_n_groups=1, mamba_chunk_size=16, mamba_num_heads=8,
    mamba_head_dim=16, mamba_d_ssm=128, mamba_dt_rank=4, n_mamba_heads=2, ssm_state_size=16, state_size=16, n_groups=1,
    time_step_rank=4, chunk_size=16, conv_kernel_size=4, lru_width=64,
    hidden_size_per_layer_input=16, laurel_rank=8, max_position_embeddings=512, n_positions=512,
    max_target_positions=512, max_seq_len=512, context_length=512, sliding_window=64, sliding_window_size=64,
    attention_window_size=64,
    block_size=16, attention_chunk_size=64, zero_expert_num=2, expert_ffn_hidden_size=32,
    vocab_size_per_layer_input=257,
)  # fmt: skip
ALWAYS = dict(
    pad_token_id=0, bos_token_id=0, eos_token_id=0, initializer_range=0.15, init_std=0.15, use_cache=True,
    num_nextn_predict_layers=0, num_mtp_layers=0,
)  # fmt: skip
# What some families need besides.
OWN: dict[str, dict[str, Any]] = {
    "bamba": dict(attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=16),
    "deepseek_v2": dict(num_experts_per_tok=2, n_group=1, topk_group=1),
    "dots1": dict(n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1),
    "gemma3n_text": dict(
        num_kv_shared_layers=0, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"]
    ),
    "gemma4_text": dict(num_kv_shared_layers=0, global_head_dim=16),
    "gpt_neo": dict(attention_types=[[["global", "local"], 1]], window_size=16),
    "granitemoehybrid": dict(layer_types=["linear_attention", "full_attention"]),
    "jamba": dict(attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1),
    "lfm2": dict(layer_types=["conv", "full_attention"]),
    "lfm2_moe": dict(layer_types=["conv", "full_attention"], num_hidden_layers=2),
    "mamba2": dict(num_heads=8, head_dim=16),
    "recurrent_gemma": dict(num_hidden_layers=3),
    "reformer": dict(
        is_decoder=True, attn_layers=["local", "lsh"], axial_pos_shape=[16, 32], axial_pos_embds_dim=[32, 32]
    ),
    "xlm": dict(causal=True, emb_dim=64, n_layers=2, n_heads=4),
    "xlnet": dict(d_head=16),
}  # fmt: skip
# Encoders that transformers runs as decoders if told to; checkpoints are not, unless they were trained so.
DECODERS = ("bert", "camembert", "electra", "rembert", "roberta", "roc_bert", "roformer", "xlm-roberta", "xmod")
AS_DECODER = " (is_decoder)"


def small(name: str) -> PretrainedConfig:
    """A configuration of a family, with one layer of every kind that its default has, two at least."""
    name, decoder = name.removesuffix(AS_DECODER), name.endswith(AS_DECODER)
    kind = CONFIG_MAPPING[name]
    default = kind()
    text = default.get_text_config(decoder=True)
    if type(text) is not kind:
        raise StatedError(f"wraps a text model: see {text.model_type}")
    had = default.to_dict()
    has = had | {key: getattr(default, key, None) for key in default.attribute_map}
    smaller = {k: v for k, v in SMALL.items() if isinstance(had.get(k), int) and had[k] > v}
    smaller |= {k: v for k, v in ALWAYS.items() if k in had}
    smaller["vocab_size"] = 257
    # Heads are as wide as their rotary part where keys are compressed; what is None follows from the rest, or fails to.
    smaller |= {k: v for k, v in (("head_dim", 16), ("num_key_value_heads", 2)) if k in had and had[k] is None}
    if "qk_rope_head_dim" in had:
        smaller["head_dim"] = SMALL["qk_rope_head_dim"]
    if decoder:  # positions are counted from the padding token, which is not the first of a text
        smaller |= dict(is_decoder=True, pad_token_id=1)
    for key in ("layer_types", "layers_block_type"):
        if isinstance(has.get(key), list | tuple):
            kinds = list(dict.fromkeys(has[key]))
            kinds = (kinds * 2)[: max(len(kinds), 2)]
            if key in had:
                smaller[key] = kinds
            smaller["num_hidden_layers"] = len(kinds)
    if isinstance(had.get("mlp_layer_types"), list | tuple):
        n = smaller.get("num_hidden_layers", 2)
        smaller["mlp_layer_types"] = (list(dict.fromkeys(had["mlp_layer_types"])) * n)[:n]
    return kind(**smaller | OWN.get(name, {}))


def build(name: str) -> PreTrainedModel:
    """A tiny random model of a family."""
    config = small(name)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise StatedError(f"has {size / 1e6:.0f} million parameters with the settings of this script")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    hf.config.architectures = [type(hf).__name__]
    return hf


def largest_gap(hf: PreTrainedModel, curves: xr.Dataset) -> dict[str, float]:
    """How far log P of answers, and log-odds against the foil, are from plain passes, one a token; nats."""
    gaps = {"complement": 0.0, "foil": 0.0}
    for seq in curves.seq.values:
        for shot in curves.shot.values:
            one = curves.isel(task=0).sel(seq=seq, shot=shot)
            start, stop = int(one.answer_start), int(one.answer_stop)
            prefix, answer = one.tokens.values[:start].tolist(), one.tokens.values[start:stop].tolist()
            # One token a byte: the foil's are those of the answer with its text exchanged.
            end = len(answer) - 1 - len(str(one.answer.values))
            letters = {**BYTES, " ": answer[0]}
            foil = [answer[0], *(letters[c] for c in str(one.foil.values)), *answer[len(answer) - end :]]
            own, other = (_log_p(hf, prefix, path) for path in (answer, foil))
            gaps["complement"] = max(gaps["complement"], abs(own - float(one.log_p_correct.sel(readout="complement"))))
            gaps["foil"] = max(gaps["foil"], abs(own - other - float(one.log_odds.sel(readout="foil"))))
    return gaps


TINY = load_model("tiny", "cpu")
BYTES = {chr(i): TINY.tokenizer(chr(i), add_special_tokens=False).input_ids[0] for i in range(32, 127)}


@torch.inference_mode()
def _log_p(hf: PreTrainedModel, prefix: list[int], path: list[int]) -> float:
    total = 0.0
    for j, token in enumerate(path):
        logits = hf(input_ids=torch.tensor([prefix + path[:j]]), use_cache=False).logits[0, -1]
        total += float(logits.double().log_softmax(-1)[token])
    return total


def try_family(name: str) -> dict[str, str]:
    """What each command makes of a family: by column a word, or why not."""
    try:
        model = Model(build(name), TINY.tokenizer, name)
    except StatedError as error:
        return {"aside": str(error)}
    except Exception as error:  # transformers' own code, on settings that do not go together
        return {"aside": f"not made small: {type(error).__name__}: {_line(error)}"}
    tasks = load_tasks(["category_arbitrary"])
    try:
        curves = collect_curves(model, tasks, n_shots=5, n_seqs=8)
    except Exception as error:
        return {"collect": _why(error)}
    gaps = largest_gap(model.hf, curves.isel(seq=slice(2)))
    found = {"collect": "exact" if gaps["complement"] < NEAR else f"WRONG by {gaps['complement']:.2g} nats"}
    said = curves.attrs["branches"]
    way = "exact" if not said.startswith("one by one") else said
    if "nats off" in said:  # by how much is the random weights' doing
        way = "one by one: over its cache the numbers would be others"
    found["branches"] = way if gaps["foil"] < NEAR else f"WRONG by {gaps['foil']:.2g} nats"
    commands: dict[str, Callable] = {
        "attribute": lambda: _attributed(model, curves.isel(seq=slice(2))),
        "patch": lambda: patch_curves(model, curves, settings=_settings(model)),
    }
    for command, call in commands.items():
        try:
            call()
            found[command] = "exact"
        except Exception as error:
            found[command] = _why(error)
    return found


def _attributed(model: Model, curves: xr.Dataset) -> None:
    """What `attribute` asks of a model: direct effects with their sources, total effects under both conventions."""
    task = str(curves.task.values[0])
    episodes = recorded_episodes(model, curves, task)
    attribute_task(model, curves, task, episodes=episodes)
    means, weights = ShotMeans(model.anatomy, episodes), np.ones(curves.sizes["shot"])
    for mlps in (False, True):
        total_effects(model.anatomy, episodes, means, weights, steps=2, mlps=mlps, by_source=not mlps)


def _settings(model: Model) -> PatchSettings:
    """A short run of `patch`, with a head of the first layer that has some and one of the last ablated."""
    ablated = [name_of(head) for head in (model.anatomy.heads[1], model.anatomy.heads[-1])]
    return PatchSettings(n_examples=4, n_seqs=4, ablate=tuple(ablated), rounds=1, placebos=1)


def _line(error: Exception) -> str:
    return (str(error).strip() or "no more is said").splitlines()[0]


def _why(error: Exception) -> str:
    return f"refused: {error}" if isinstance(error, StatedError) else f"ERROR: {type(error).__name__}: {_line(error)}"


def _in_child(name: str, answer: Connection) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        answer.send(try_family(name))


def in_time(name: str) -> dict[str, str]:
    """`try_family` in a process of its own, so that neither a hang nor a crash ends the run."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(name, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(LIMIT) else {"aside": f"took longer than {LIMIT} seconds"}
    except EOFError:
        return {"aside": "ended its process"}
    finally:
        child.kill()
        child.join()


COLUMNS = {
    "collect": "collect: complement",
    "branches": "collect: foil, format, rule",
    "attribute": "attribute",
    "patch": "patch",
}
OPENING = """# Which models are read

*Written by `analyses/families.py` (`make families`), with transformers {version}: a tiny random model of every family
that it lists for causal language models, and some encoders as decoders: {n} of them.*

What `collect` says is compared with plain forward passes, one a token: *exact* is within {near} nats. *One by one*: its
cache cannot be shared by branches (a recurrent state, positions of its own, no cache at all, a window of attention
that the episode outgrows: 64 tokens here), so every foil and label has a plain pass of its own; as exact, and slower.
This is found out when a model is read, not looked up here, and the curves file says so (attribute `branches`).
`attribute` and `patch` check for themselves that their parts add up. ERROR: an exception that nothing states in words.

{counts}
"""


def page(found: dict[str, dict[str, str]]) -> str:
    """The page: a table of families, the reasons below it."""
    import transformers

    tried = {name: own for name, own in found.items() if "aside" not in own}
    reasons: dict[str, str] = {}
    rows = []
    for name, own in sorted(tried.items()):
        cells = []
        for column in COLUMNS:
            said = own.get(column, "-")
            if ": " in said:
                word, _, why = said.partition(": ")
                why = why.replace(f"{name!r}", "the model")
                note = reasons.setdefault(why, str(len(reasons) + 1))
                said = f"{word} ({note})"
            cells.append(said)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    counts = [
        f"- {COLUMNS[column]}: "
        + ", ".join(
            f"{n} {word}"
            for word, n in Counter(own.get(column, "-").split(":")[0] for own in tried.values()).most_common()
        )
        for column in COLUMNS
    ]
    text = OPENING.format(version=transformers.__version__, n=len(found), near=NEAR, counts="\n".join(counts))
    text += f"\n| family | {' | '.join(COLUMNS.values())} |\n|{'---|' * (len(COLUMNS) + 1)}\n" + "\n".join(rows)
    text += "\n\n## Why not\n\n" + "\n".join(f"{number}. {_plain_text(why)}" for why, number in reasons.items())
    aside = {name: own["aside"] for name, own in found.items() if "aside" in own}
    text += "\n\n## Left aside\n\n| family | why |\n|---|---|\n"
    return text + "\n".join(f"| {name} | {_plain_text(why)} |" for name, why in sorted(aside.items())) + "\n"


def _plain_text(words: str) -> str:
    """Cut, and without what Markdown would take for its own."""
    words = words if len(words) <= 240 else words[:237] + "..."
    return "".join(f"\\{c}" if c in "|<>*_[]`" else c for c in words)


def main(names: list[str] | None = None) -> int:
    """Try the families, all if none is named, and write the page if all were."""
    found = {}
    for name in names or sorted([*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *(name + AS_DECODER for name in DECODERS)]):
        found[name] = in_time(name)
        print(name, found[name], file=sys.stderr, flush=True)
    if not names:
        with replacing(PAGE) as temporary:
            temporary.write_text(page(found), encoding="utf-8")
        print(PAGE)
    return DONE


if __name__ == "__main__":
    exit_stating(lambda: main(sys.argv[1:]))
