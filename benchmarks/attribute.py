"""What attribution costs: ours, with and without sources, beside the collector's pass and TransformerLens's own calls.

``python benchmarks/attribute.py``

Every way runs in a process of its own, with one thread, and takes the very same episodes; the processes wait for one
another, round by round. Times are CPU seconds an episode, memory the most that the process ever held beyond the loaded
model. TransformerLens is run as its documentation says: a copy of the model in compatibility mode, `run_with_cache`,
`stack_head_results` at the answers' positions, `logit_attrs`; it has no split by source.
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


MOST_NODES = 16  # of which no episode is given more
EVERY = 10  # the exact way takes every tenth head, as many of each layer as it comes
TIMES = {"total": 1 / MOST_NODES, "exact": EVERY}  # from a round to what the table says


@dataclass(frozen=True)
class BenchmarkSettings:
    """CPU time and peak memory of attributing episodes to heads."""

    model: str = "smollm2"
    """As for `python -m bayes_icl.collect`."""
    task: str = "category"
    """A task with foils, against which TransformerLens attributes."""
    n_shots: int = 32
    """Most examples shown."""
    n_seqs: int = 4
    """Episodes a round."""
    rounds: int = 3
    """Rounds; medians are shown."""


WAYS = {
    "collect": "the collector's pass, complement",
    "ours": "ours, heads by source example, mean outputs",
    "heads": "ours, heads only",
    "one": "ours, one token, along the line too",
    "whole": "ours, all tokens of the answers, along the line too",
    "forward": "a forward pass, answers' positions unembedded",
    "total": "total effects of all heads, a node: integrated gradients, by source",
    "exact": "total effects of all heads, the exact way: one head ablated a pass",
    "lens_forward": "TransformerLens, run_with_cache alone",
    "lens": "TransformerLens, run_with_cache, stack_head_results, logit_attrs",
}


def collected(model: Model, settings: BenchmarkSettings) -> Any:
    """The curves whose episodes every way takes."""
    from bayes_icl.collect import collect_curves
    from bayes_icl.tasks import load_tasks

    tasks = load_tasks([settings.task])
    return collect_curves(model, tasks, n_shots=settings.n_shots, n_seqs=settings.n_seqs, readouts=("foil",))


def worker(model: Model, way: str, settings: BenchmarkSettings) -> Callable[[], np.ndarray]:
    """What a way does in one round; it returns effects of heads (episode, shot, head of all layers) or log-odds."""
    import copy

    import torch

    from bayes_icl.mechanism.direct_effects import direct_effects, start_at, with_reference
    from bayes_icl.mechanism.episodes import recorded_episodes
    from bayes_icl.mechanism.mean_outputs import MeanOutputs
    from bayes_icl.models.readouts import EpisodeReading, Vocabulary

    curves = collected(model, settings)
    episodes = recorded_episodes(model, curves, settings.task, readout="foil")
    if way == "collect":
        vocabulary = Vocabulary(model.token_texts)

        def collect() -> np.ndarray:
            found = []
            for e in episodes:
                reading = EpisodeReading(None, e.prompt, ("complement",), vocabulary)
                logits, _ = model.logits_at([e.prompt.tokens], [reading.positions], [e.prompt.branches], [()])
                found.append(reading.read(logits)[0])
            return np.stack(found)

        return collect
    # Against all other tokens, which takes more than against a foil; the foil is for the comparison of values.
    plain = recorded_episodes(model, curves.assign_coords(readout=["complement"]), settings.task)
    if way in ("forward", "total", "exact"):
        return in_total(model, way, plain)
    if way in ("ours", "heads"):
        anatomy = model.anatomy

        def ours() -> np.ndarray:
            means = MeanOutputs(anatomy, plain) if way == "ours" else None
            for e in plain:
                direct_effects(anatomy, [e], by_source=way == "ours", on_z=means.taking([e]) if means else None)
            return np.empty(0)

        return ours

    if way in ("one", "whole"):
        complement = curves.assign_coords(readout=["complement"])
        asked = recorded_episodes(model, complement, settings.task, whole=way == "whole")

        def along() -> np.ndarray:
            start = start_at(model.anatomy, asked, 1)
            for e in with_reference(asked, start):
                direct_effects(model.anatomy, [e], start=start)
            return np.empty(0)

        return along

    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        model.name, hf_model=model.hf, tokenizer=copy.deepcopy(model.tokenizer), device="cpu"
    )
    bridge.enable_compatibility_mode(disable_warnings=True)

    def lens() -> np.ndarray:
        found = []
        for e in episodes:
            tokens = torch.from_numpy(e.prompt.tokens)[None]
            with torch.inference_mode():
                _, cache = bridge.run_with_cache(tokens)
                if way == "lens_forward":
                    continue
                stack = cache.stack_head_results(layer=-1, pos_slice=e.target.positions.tolist())
                attributed = cache.logit_attrs(
                    stack,
                    tokens=torch.from_numpy(e.target.correct)[None],
                    incorrect_tokens=torch.from_numpy(e.target.foil)[None],
                    pos_slice=e.target.positions.tolist(),
                )
                found.append(attributed[:, 0].T.numpy())
        return np.stack(found) if found else np.empty(0)

    return lens


def in_total(model: Model, way: str, episodes: Any) -> Callable[[], np.ndarray]:
    """Total effects by gradients or exactly, or the forward pass that they are measured in.

    A node is a sixteenth of a run with 16, which has its part of the two passes at the ends.
    """
    import torch

    from bayes_icl.lens.edits import unembedding
    from bayes_icl.mechanism.total_effects import ShotMeans, read_without, total_effects

    anatomy = model.anatomy
    means = ShotMeans(anatomy, episodes)
    heads = [(layer, head) for layer in range(anatomy.n_layers) for head in range(anatomy.n_heads)]
    weights = np.linspace(-1, 1, len(episodes[0].target.positions))

    def run() -> np.ndarray:
        for e in episodes:
            if way == "total":
                total_effects(anatomy, [e], means, weights, steps=MOST_NODES, by_source=True)
            elif way == "exact":
                read_without(anatomy, e, heads[::EVERY], means)
            else:
                with torch.inference_mode(), unembedding(anatomy, e.target.positions.tolist()):
                    model.plain(input_ids=torch.from_numpy(e.prompt.tokens)[None], use_cache=False)
        return np.empty(0)

    return run


def child(way: str, settings: BenchmarkSettings, line: Connection) -> None:
    """Load, warm up, then take all episodes whenever told to."""
    import torch

    from bayes_icl.models import load_model

    torch.set_num_threads(1)
    run = worker(load_model(settings.model, "cpu"), way, settings)
    line.send({"loaded": peak_mb()})
    while line.recv():
        start = time.process_time()
        values = run()
        line.send(((time.process_time() - start) / settings.n_seqs * TIMES.get(way, 1), values))
    line.send(peak_mb())


def agreement(settings: BenchmarkSettings, theirs: np.ndarray) -> str:
    """Our effects against the foil beside TransformerLens's, head by head."""
    from bayes_icl.mechanism.direct_effects import attribute_task
    from bayes_icl.models import load_model

    model = load_model(settings.model, "cpu")
    ours = attribute_task(model, collected(model, settings), settings.task, readout="foil", by_source=False)
    own = ours.effect.isel(task=0).stack(component=("layer", "head")).values
    gap = np.abs(own - theirs[..., : own.shape[-1]]).max()
    largest = np.abs(own).max()
    return f"against the foil, {own.size} effects of heads: at most {gap:.1e} nats apart, the largest {largest:.1f}"


def print_table(settings: BenchmarkSettings, found: dict[str, dict[str, Any]]) -> None:
    """Print what was measured."""
    import torch
    from rich.console import Console
    from rich.table import Table

    collect = statistics.median(found["collect"]["seconds"])
    table = Table(
        title=f"{settings.model}, {settings.task}, {settings.n_seqs} episodes of {settings.n_shots} shots; median "
        f"(least to most) of {settings.rounds} rounds",
        title_justify="left",
    )
    table.add_column("way")
    for heading in ("CPU s an episode", "least to most", "/ collector", "peak RSS MB", "loaded", "peak / collector"):
        table.add_column(heading, justify="right")
    for way, f in found.items():
        seconds = statistics.median(f["seconds"])
        table.add_row(
            WAYS[way],
            f"{seconds:.3f}",
            f"{min(f['seconds']):.3f} to {max(f['seconds']):.3f}",
            f"{seconds / collect:.2f}",
            f"{f['peak']:.0f}",
            f"{f['loaded']:.0f}",
            f"{f['peak'] / found['collect']['peak']:.2f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    forward, node, exact = (statistics.median(found[way]["seconds"]) for way in ("forward", "total", "exact"))
    console.print(
        f"total effects of all heads: {node / forward:.1f} forward passes a node and sequence, "
        f"{8 * node / forward:.0f} with 8 nodes; one by one {exact / forward:.0f}"
    )
    console.print(agreement(settings, found["lens"]["values"]))
    console.print(f"torch {torch.__version__}, 1 thread, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(BenchmarkSettings, prog="python benchmarks/attribute.py")
    print_table(chosen, measure(chosen, WAYS, child))
