"""What patching and ablating cost: ours, many edited runs in one pass, beside TransformerLens's one run each.

``python benchmarks/patch.py``

Run A has 20 examples of past tense and a query, run B is the bare query of another episode, cut before the first token
of the answer. (a) A's residual stream at its last position is put into B's last position, at every layer; A's own run
is counted apart. (b) Each head of A is set to zero at every position. (c) The same at the last position only: ours
keeps what is before it, TransformerLens's loop runs the whole prompt for every head.

Every way runs in a process of its own, with one thread; the processes wait for one another, round by round. Times are
CPU seconds, memory the most that the process ever held. TransformerLens runs as a bridge of the same weights, not in
compatibility mode, with one `run_with_hooks` for every edit, on ``blocks.{l}.hook_resid_pre`` and
``blocks.{l}.attn.hook_z``. Its `patching` module matches positions by index, so between prompts of unequal length it
cannot be used. Its loops over heads are timed on a random subset of them and scaled to all. The last column is against
what the same took in an experiment before this package was written, on a quiet machine: 0.22, 39 and 1.0 seconds.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from collect import measure, peak_mb

if TYPE_CHECKING:
    from bayes_icl.models import Model


@dataclass(frozen=True)
class BenchmarkSettings:
    """CPU time and peak memory of patching a residual stream and of ablating heads."""

    model: str = "smollm2"
    """As for `python -m bayes_icl.collect`."""
    task: str = "past_tense"
    """A task whose answers begin differently."""
    n_examples: int = 20
    """Examples before the query of run A."""
    n_heads: int = 18
    """Heads that TransformerLens ablates one by one, drawn at random; its times are scaled to all."""
    seed: int = 0
    """Draws those."""
    rounds: int = 3
    """Rounds; medians are shown."""


WAYS = {
    "source": "run A itself, ours",
    "source_lens": "run A itself, TransformerLens run_with_cache",
    "patch": "(a) patched at every layer, ours",
    "patch_lens": "(a) patched at every layer, TransformerLens",
    "heads": "(b) heads at all positions, ours",
    "heads_lens": "(b) heads at all positions, TransformerLens *",
    "last": "(c) heads at the last position, ours",
    "last_lens": "(c) heads at the last position, TransformerLens, whole runs *",
}
REFERENCE = {"patch": 0.22, "heads": 39.0, "last": 1.0}


def prompts(model: Model, settings: BenchmarkSettings) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of A and of B."""
    from bayes_icl.models.prompts import encode_episode
    from bayes_icl.tasks import load_tasks

    (task,) = load_tasks([settings.task])
    shown = (settings.n_examples, 0)
    long, short = (encode_episode(task, task.episode(n, 0, seq), model.tokenizer) for seq, n in enumerate(shown))
    return long.tokens[: long.answer_start[-1]], short.tokens[: short.answer_start[0]]


def some_heads(n_layers: int, n_heads: int, settings: BenchmarkSettings) -> np.ndarray:
    """Layer and head of those that are ablated one by one, in order."""
    drawn = np.random.default_rng(settings.seed).choice(n_layers * n_heads, settings.n_heads, replace=False)
    return np.stack(np.divmod(np.sort(drawn), n_heads), axis=1)


def ours(model: Model, way: str, settings: BenchmarkSettings) -> Callable[[], np.ndarray]:
    """What a way of ours does in one round; it returns log P of every token, by layer or head."""
    import torch

    from bayes_icl.lens.sweeps import Row, base_run, sweep

    anatomy = model.anatomy
    long, short = prompts(model, settings)
    last = len(long) - 1
    source = base_run(anatomy, long, last)

    def swept(tokens: np.ndarray, first: int, rows: list[Row]) -> torch.Tensor:
        logits = torch.empty(len(rows), anatomy.unembedding.shape[0])
        for some in sweep(anatomy, base_run(anatomy, tokens, first), rows, [len(tokens) - 1 - first]):
            logits[some.rows] = some.logits[:, 0]
        return logits

    def run() -> torch.Tensor:
        if way == "source":
            return base_run(anatomy, long, last).logits
        if way == "patch":
            points = range(anatomy.n_layers)
            return swept(short, len(short) - 1, [Row(i, {0: source.residual[i][0, 0]}) for i in points])
        first = 0 if way == "heads" else last
        none = torch.zeros(len(long) - first, 1, anatomy.w_out[0].shape[1])
        pairs = [(layer, head) for layer in range(anatomy.n_layers) for head in range(anatomy.n_heads)]
        return swept(long, first, [Row(layer, heads={layer: ([head], none)}) for layer, head in pairs])

    chosen = some_heads(anatomy.n_layers, anatomy.n_heads, settings) @ [anatomy.n_heads, 1]
    return lambda: run().log_softmax(-1)[chosen if way in ("heads", "last") else slice(None)].numpy()


def lens(model: Model, way: str, settings: BenchmarkSettings) -> Callable[[], np.ndarray]:
    """The same by TransformerLens."""
    import copy

    import torch
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        model.name, hf_model=model.hf, tokenizer=copy.deepcopy(model.tokenizer), device="cpu"
    )
    long, short = (torch.from_numpy(tokens)[None] for tokens in prompts(model, settings))
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(bridge.cfg.n_layers)]

    def source() -> tuple[torch.Tensor, Any]:
        return bridge.run_with_cache(long, names_filter=names)

    with torch.inference_mode():
        cache = source()[1]

    def put(vector: torch.Tensor) -> Any:
        def hook(x: torch.Tensor, hook: Any) -> torch.Tensor:
            x[:, -1] = vector
            return x

        return hook

    def zero(head: int) -> Any:
        def hook(z: torch.Tensor, hook: Any) -> torch.Tensor:
            z[:, slice(-1, None) if way == "last_lens" else slice(None), head] = 0
            return z

        return hook

    def run() -> torch.Tensor:
        if way == "source_lens":
            return source()[0][:, -1]
        if way == "patch_lens":
            tokens, hooks = short, [(name, put(cache[name][:, -1])) for name in names]
        else:
            heads = some_heads(bridge.cfg.n_layers, bridge.cfg.n_heads, settings).tolist()
            tokens, hooks = long, [(f"blocks.{layer}.attn.hook_z", zero(head)) for layer, head in heads]
        return torch.cat([bridge.run_with_hooks(tokens, fwd_hooks=[hook])[:, -1] for hook in hooks])

    def timed() -> np.ndarray:
        with torch.inference_mode():
            return run().log_softmax(-1).numpy()

    return timed


def child(way: str, settings: BenchmarkSettings, line: Connection) -> None:
    """Load, then run whenever told to; what is run over some heads is scaled to all."""
    import torch

    from bayes_icl.models import load_model

    torch.set_num_threads(1)
    model = load_model(settings.model, "cpu")
    run = (lens if way.endswith("_lens") else ours)(model, way, settings)
    config = model.hf.config.get_text_config()
    n_heads = config.num_hidden_layers * config.num_attention_heads
    scale = n_heads / settings.n_heads if way in ("heads_lens", "last_lens") else 1.0
    line.send({"loaded": peak_mb(), "tokens": [len(tokens) for tokens in prompts(model, settings)], "n_heads": n_heads})
    while line.recv():
        start = time.process_time()
        values = run()
        line.send(((time.process_time() - start) * scale, values))
    line.send(peak_mb())


def print_table(settings: BenchmarkSettings, found: dict[str, dict[str, Any]]) -> None:
    """Print what was measured."""
    import torch
    from rich.console import Console
    from rich.table import Table

    seconds = {way: statistics.median(f["seconds"]) for way, f in found.items()}
    long, short = found["source"]["tokens"]
    table = Table(
        title=f"{settings.model}, {settings.task}: A of {settings.n_examples} examples, {long} tokens, B of {short}; "
        f"median (least to most) of {settings.rounds} rounds",
        title_justify="left",
    )
    table.add_column("way")
    for heading in ("CPU s", "least to most", "TransformerLens / ours", "peak RSS MB", "loaded", "CPU s / before"):
        table.add_column(heading, justify="right")
    for way, f in found.items():
        table.add_row(
            WAYS[way],
            f"{seconds[way]:.2f}",
            f"{min(f['seconds']):.2f} to {max(f['seconds']):.2f}",
            f"{seconds[way] / seconds[way.removesuffix('_lens')]:.1f}" if way.endswith("_lens") else "",
            f"{f['peak']:.0f}",
            f"{f['loaded']:.0f}",
            f"{seconds[way] / REFERENCE[way]:.2f} ({REFERENCE[way]:g})" if way in REFERENCE else "",
        )
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    console.print(f"* timed on {settings.n_heads} of {found['heads']['n_heads']} heads, scaled to all")
    for way in ("source", "patch", "heads", "last"):
        own, theirs = found[way]["values"], found[f"{way}_lens"]["values"]
        console.print(f"{WAYS[way]}: log P of {own.size} tokens within {np.abs(own - theirs).max():.1e} nats of theirs")
    console.print(f"torch {torch.__version__}, 1 thread, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(BenchmarkSettings, prog="python benchmarks/patch.py")
    print_table(chosen, measure(chosen, WAYS, child))
