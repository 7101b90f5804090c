"""How fast a model is read, and in how much memory: our collector against two plain ways with transformers.

``python benchmarks/collect.py --tasks copy past_tense --n-shots 32 --n-seqs 8``

Every way runs in a process of its own (peak memory is then its own) and reads the very same token sequences with
SmolLM2 in float32. The processes wait for one another, round by round, so that a busy minute of the machine falls on
all of them; the median of the rounds is shown. All ways count the tokens of the episodes, once each.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayes_icl.models import Model


@dataclass(frozen=True)
class BenchmarkSettings:
    """Time and peak memory of reading curves in four ways."""

    model: str = "smollm2"
    """As for `python -m bayes_icl.collect`."""
    tasks: tuple[str, ...] = ("copy", "past_tense")
    """Tasks to read."""
    n_shots: int = 32
    """Most examples shown."""
    n_seqs: int = 8
    """Sequences a task."""
    rounds: int = 3
    """Times every way reads all sequences; the median is shown."""
    per_shot_seqs: int = 1
    """Sequences a task for the one-request-per-shot way, which would take hours on all; it is scaled per token."""
    device: str = "cpu"
    """Peak memory is that of the process, so on a GPU only the times mean something."""


WAYS = {
    "ours": "bayes_icl, complement readout",
    "ours_all": "bayes_icl, all readouts",
    "full": "transformers, one forward a sequence, full logits",
    "per_shot": "transformers, one forward a shot, full logits",
}


def reader(model: Model, way: str, settings: BenchmarkSettings) -> tuple[Callable[[], Any], int]:
    """What a way does in one round, and how many episode tokens it reads by that."""
    import torch

    from bayes_icl.collect import collect_curves
    from bayes_icl.models.prompts import encode_episode
    from bayes_icl.tasks import load_tasks

    tasks = load_tasks(settings.tasks)
    n_seqs = min(settings.per_shot_seqs, settings.n_seqs) if way == "per_shot" else settings.n_seqs
    prompts = [
        encode_episode(task, task.episode(settings.n_shots, 0, seq), model.tokenizer, branch=False)
        for task in tasks
        for seq in range(n_seqs)
    ]
    n_tokens = sum(len(prompt.tokens) for prompt in prompts)

    def log_p(logits: torch.Tensor, tokens: torch.Tensor, start: int, stop: int) -> float:
        """log P of tokens[start:stop] from logits of all positions; the softmax at these positions only."""
        chosen = logits[start - 1 : stop - 1].log_softmax(-1)
        return float(chosen.gather(1, tokens[start:stop, None]).sum())

    def forward(tokens: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model.hf(input_ids=tokens[None], use_cache=False).logits[0]

    def plain() -> list[float]:
        read = []
        for prompt in prompts:
            tokens = torch.from_numpy(prompt.tokens).to(model.device)
            if way == "full":
                logits = forward(tokens)
                read += [log_p(logits, tokens, a, b) for a, b in zip(prompt.answer_start, prompt.answer_stop)]
            else:
                for a, b in zip(prompt.answer_start, prompt.answer_stop):
                    read.append(log_p(forward(tokens[:b]), tokens, a, b))
        return read

    def ours() -> list[float]:
        readouts = ("complement",) if way == "ours" else ()
        dataset = collect_curves(model, tasks, n_shots=settings.n_shots, n_seqs=n_seqs, readouts=readouts)
        return dataset.log_p_correct.sel(readout="complement").values.ravel().tolist()

    return (ours if way.startswith("ours") else plain), n_tokens


def peak_mb() -> float:
    """Most memory this process ever held resident; ru_maxrss is in KiB on Linux, in bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def child(way: str, settings: BenchmarkSettings, line: Connection) -> None:
    """Load and warm up on one sequence, then read once whenever told to."""
    from bayes_icl.models import load_model

    model = load_model(settings.model, settings.device)
    loaded = peak_mb()
    warm_up, _ = reader(model, way, dataclasses.replace(settings, n_seqs=1, n_shots=2))
    warm_up()
    read, n_tokens = reader(model, way, settings)
    line.send({"tokens": n_tokens, "loaded": loaded})
    while line.recv():
        start = time.perf_counter()
        values = read()
        line.send((time.perf_counter() - start, values))
    line.send(peak_mb())


def measure(settings: Any, ways: dict[str, str], child: Callable[..., None]) -> dict[str, dict[str, Any]]:
    """Seconds and values of every round, peak memory, and what each child says of itself, by way.

    Parameters
    ----------
    ways
        Names, and what they are in words.
    child
        What runs in a process: ``child(way, settings, line)``.
    """
    fresh = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, Any]] = {}
    lines, children = {}, {}
    for way in ways:
        lines[way], theirs = fresh.Pipe()
        children[way] = fresh.Process(target=child, args=(way, settings, theirs), daemon=True)
        children[way].start()
        found[way] = {**lines[way].recv(), "seconds": []}
    for i in range(settings.rounds):
        for way in list(ways)[:: 1 if i % 2 == 0 else -1]:  # there and back, lest an order favour one
            lines[way].send(True)
            seconds, found[way]["values"] = lines[way].recv()
            found[way]["seconds"].append(seconds)
            print(f"round {i + 1}: {ways[way]}: {seconds:.1f} s", file=sys.stderr)
    for way, line in lines.items():
        line.send(False)
        found[way]["peak"] = line.recv()
        children[way].join()
    return found


def print_table(settings: BenchmarkSettings, found: dict[str, dict[str, Any]]) -> None:
    import torch
    from rich.console import Console
    from rich.table import Table

    episodes = len(settings.tasks) * settings.n_seqs
    per_token = {way: statistics.median(f["seconds"]) / f["tokens"] for way, f in found.items()}
    per_seq = found["ours"]["tokens"] / episodes
    table = Table(
        title=f"{settings.model}, {', '.join(settings.tasks)}: {episodes} sequences of {settings.n_shots} shots, "
        f"{per_seq:.0f} tokens each; median (least to most) of {settings.rounds} rounds",
        title_justify="left",
    )
    table.add_column("way")
    for heading in ("episode tokens/s", "s a sequence", "least to most", "peak RSS MB", "after loading", "time / ours"):
        table.add_column(heading, justify="right")
    for way, f in found.items():
        spread = [seconds / f["tokens"] * per_seq for seconds in f["seconds"]]
        table.add_row(
            WAYS[way] + (" *" if way == "per_shot" else ""),
            f"{1 / per_token[way]:.1f}",
            f"{per_token[way] * per_seq:.2f}",
            f"{min(spread):.2f} to {max(spread):.2f}",
            f"{f['peak']:.0f}",
            f"{f['loaded']:.0f}",
            f"{per_token[way] / per_token['ours']:.2f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    some = min(settings.per_shot_seqs, settings.n_seqs)
    console.print(
        f"* timed on {some} of {settings.n_seqs} sequences a task, scaled by the tokens of their episodes; "
        "its peak memory is of those."
    )
    ours = found["ours"]["values"]
    shots = settings.n_shots + 1
    short = [v for t in range(len(settings.tasks)) for v in ours[t * settings.n_seqs * shots :][: some * shots]]
    for way, f in found.items():
        reference = short if way == "per_shot" else ours
        worst = max(abs(a - b) for a, b in zip(reference, f["values"], strict=True))
        console.print(f"{WAYS[way]}: log P(correct) is within {worst:.1e} nats of ours on {len(reference)} shots")
    console.print(
        f"torch {torch.__version__}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load average "
        f"{os.getloadavg()[0]:.1f} at the end"
    )


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(BenchmarkSettings, prog="python benchmarks/collect.py")
    print_table(chosen, measure(chosen, WAYS, child))
