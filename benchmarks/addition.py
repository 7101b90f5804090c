"""What reading the stream costs: all numbers of examples in one pass, beside a pass for each, in CPU time of forwards.

``python benchmarks/addition.py CURVES.nc``

The unit is a forward pass of the whole episode that unembeds the positions read, in the same process with one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from bayes_icl.curves import read_curves
from bayes_icl.lens.edits import unembedding
from bayes_icl.mechanism.episodes import Episode, recorded_episodes
from bayes_icl.mechanism.recorded import recorded_model
from bayes_icl.mechanism.stream_states import permuted_throughout, states_of
from bayes_icl.mechanism.transfer import cut
from bayes_icl.models.loading import load_model
from bayes_icl.models.model import Model


@dataclass(frozen=True)
class BenchmarkSettings:
    """CPU time of the stream after all numbers of examples, beside the plain way."""

    curves: Annotated[Path, tyro.conf.Positional]
    """A curves file (.nc)."""
    n_seqs: int = 3
    """Sequences that are timed."""


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def forward(model: Model, episode: Episode) -> None:
    """The plain way: transformers' own forward pass, unembedding the positions read."""
    ids = torch.from_numpy(episode.prompt.tokens)[None]
    with torch.inference_mode(), unembedding(model.anatomy, episode.target.positions.tolist()):
        model.anatomy.hf(input_ids=ids, use_cache=False)


def main(settings: BenchmarkSettings) -> None:
    """Time each way on the same sequences in turn, and print medians."""
    torch.set_num_threads(1)
    curves = read_curves(settings.curves)
    model = load_model(recorded_model(curves, ""), "cpu")
    episodes = recorded_episodes(model, curves, str(curves.task.values[0]))[: settings.n_seqs]
    ways: dict[str, list[float]] = {"a forward pass": [], "the stream, task and permuted": [], "a pass for each n": []}
    states_of(model.anatomy, episodes[:1])
    last = curves.sizes["shot"] - 1
    for one in episodes:
        each = [cut(one, n, one.token or 0) for n in range(last + 1)]
        shuffled = permuted_throughout(one, 0)
        runs: tuple[Callable[[], object], ...] = (
            lambda one=one: forward(model, one),
            lambda one=one, shuffled=shuffled: states_of(model.anatomy, [one, shuffled]),
            lambda each=each: [states_of(model.anatomy, [run]) for run in each],
        )
        for times, run in zip(ways.values(), runs):
            times.append(seconds(run))
    unit = float(np.median(ways["a forward pass"]))
    for name, times in ways.items():
        print(f"{name}: {np.median(times):.2f} CPU s a sequence, {np.median(times) / unit:.2f} forwards")


if __name__ == "__main__":
    main(tyro.cli(BenchmarkSettings))
