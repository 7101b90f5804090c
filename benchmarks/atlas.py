"""What an atlas of heads costs: CPU seconds of each part, on one task.

``python benchmarks/atlas.py``
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BenchmarkSettings:
    """CPU time of an atlas of all heads on one task."""

    model: str = "smollm2"
    """As for `python -m bayes_icl.collect`."""
    task: str = "past_tense"
    """Which task."""
    n_shots: int = 16
    """Most examples shown."""
    n_seqs: int = 16
    """Sequences."""


PARTS = {
    "text_scores": "induction and previous token",
    "measure_effects": "direct effects",
    "function_vectors": "function vectors, every head exactly",
    "attention_by_role": "attention by role",
    "total_effects": "total effects, with and without the writers",
    "read_without_sets": "groups and placebo groups ablated",
}


def main(settings: BenchmarkSettings) -> None:
    """Print the table."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from bayes_icl.atlas import AtlasSettings, atlas_curves, lesions, mapping, scores
    from bayes_icl.collect import collect_curves
    from bayes_icl.models import load_model
    from bayes_icl.tasks import load_tasks

    torch.set_num_threads(1)
    model = load_model(settings.model, "cpu")
    curves = collect_curves(model, load_tasks([settings.task]), n_shots=settings.n_shots, n_seqs=settings.n_seqs)
    spent = dict.fromkeys(PARTS, 0.0)

    def timed(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            start = time.process_time()
            found = run(*args, **more)
            spent[name] += time.process_time() - start
            return found

        return call

    for module in (mapping, scores, lesions):
        for name in PARTS:
            if hasattr(module, name):
                setattr(module, name, timed(name, getattr(module, name)))
    start = time.process_time()
    found = atlas_curves(model, curves, settings=AtlasSettings(n_seqs=settings.n_seqs))
    whole = time.process_time() - start
    heads = found.atlas.component.nunique()
    table = Table(
        title=f"{settings.model}, {settings.task}, {heads} heads, {settings.n_seqs} sequences", title_justify="left"
    )
    table.add_column("part")
    table.add_column("CPU s", justify="right")
    for name, words in PARTS.items():
        table.add_row(words, f"{spent[name]:.0f}")
    table.add_row("rest", f"{whole - sum(spent.values()):.0f}")
    table.add_row("all", f"{whole:.0f}")
    console = Console()
    console.print(table)
    console.print(f"torch {torch.__version__}, 1 thread, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(BenchmarkSettings, prog="python benchmarks/atlas.py"))
