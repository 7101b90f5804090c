"""What the accumulation of heads costs: all heads of a task fitted together, beside one by one.

``python benchmarks/heads.py EFFECTS.nc``

Both ways take the same heads of an effects file of `attribute`, in turn, in one process with one thread; times are CPU
seconds a head. Agreement is in the units of what it is beside: delta's posterior sd, and nats of the difference between
two laws that a verdict is taken from.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
import xarray as xr
from rich.console import Console
from rich.table import Table

from bayes_icl.attribute import accumulation, slopes
from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.scores import score_together


@dataclass(frozen=True)
class BenchmarkSettings:
    """CPU time of the accumulation of heads, together and one by one, and how far the two agree."""

    effects: Annotated[Path, tyro.conf.Positional]
    """An effects file (.nc)."""
    n_heads: int = 0
    """Heads a task; all, if 0."""


def batches(curves: list[Curves]) -> list[list[Curves]]:
    """As `head_table` fits them."""
    return [curves[i : i + slopes.BATCH] for i in range(0, len(curves), slopes.BATCH)]


def every_fit(curves: list[Curves], *, together: bool, seed: int = 0) -> list[dict[str, accumulation.Fit]]:
    """The fits of each head that can be fitted."""
    curves = [one for one in curves if accumulation.without_fits(one) is None]
    if not together:
        return [{name: accumulation.fit_alone(name, one, seed) for name in accumulation.LAWS} for one in curves]
    by_batch = [
        {name: score_together(HYPOTHESES[name], batch) for name in accumulation.LAWS} for batch in batches(curves)
    ]
    return [{name: fits[i] for name, fits in laws.items()} for laws in by_batch for i in range(len(laws["additive"]))]


def seconds(curves: list[Curves], *, together: bool) -> tuple[float, list[accumulation.Accumulation]]:
    """CPU seconds a head, and what was found."""
    start = time.process_time()
    if together:
        found = [one for batch in batches(curves) for one in accumulation.accumulations(batch)]
    else:
        found = [accumulation.accumulation(one) for one in curves]
    return (time.process_time() - start) / len(curves), found


def mean_and_sd(fit: accumulation.Fit) -> tuple[float, float]:
    """Of the total update under `additive`, nats."""
    gain, weights = fit[1].params["gain"][:, 0], np.exp(fit[1].log_weights)
    mean = weights @ gain
    return mean, np.sqrt(weights @ (gain - mean) ** 2)


def main(settings: BenchmarkSettings) -> None:
    """Print what was measured."""
    effects = xr.load_dataset(settings.effects)
    table = Table(title=str(settings.effects.name), title_justify="left")
    for heading in ("task", "heads", "one by one, s a head", "together, s a head", "times faster"):
        table.add_column(heading, justify="right")
    notes = []
    for task in effects.task.values:
        _, curves = slopes.slope_table(effects.sel(task=task), str(task), 1, 0)
        curves = curves[: settings.n_heads or None]
        accumulation.accumulations(curves[: slopes.BATCH])  # what is loaded on first use
        after, new = seconds(curves, together=True)
        before, old = seconds(curves, together=False)
        size = f"{len(curves)} of {curves[0].log_odds.shape[0]} seqs x {curves[0].log_odds.shape[1]} shots"
        table.add_row(str(task), size, f"{before:.4f}", f"{after:.4f}", f"{before / after:.1f}")
        notes.append(f"{task}: {agreement(curves, old, new)}")
    console = Console(width=150)
    console.print(table)
    for note in notes:
        console.print(note)
    console.print(f"numpy {np.__version__}, 1 thread, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")


def agreement(curves: list[Curves], old: list[accumulation.Accumulation], new: list[accumulation.Accumulation]) -> str:
    """Kinds, means of delta and differences of elpd, both ways."""
    other = Counter((a.kind, b.kind) for a, b in zip(old, new) if a.kind != b.kind)
    one = every_fit(curves, together=False)
    again = every_fit(curves, together=False, seed=1)
    both = every_fit(curves, together=True)
    redone = [sum(not score.reliable for score, _ in fits.values()) for fits in both]
    return (
        f"{len(old) - sum(other.values())} of {len(old)} heads of the same kind (others: {dict(other)}); "
        f"{sum(redone)} of {len(both) * len(accumulation.LAWS)} fits done again alone, "
        f"of {np.count_nonzero(redone)} heads\n"
        f"  together beside one by one: {distance(one, both)}\n"
        f"  one by one, seed 1 beside 0: {distance(one, again)}"
    )


def distance(one: list[dict[str, accumulation.Fit]], other: list[dict[str, accumulation.Fit]]) -> str:
    """How far two ways are apart in heads all of whose fits can be relied on in both."""
    sound = [(a, b) for a, b in zip(one, other) if all(score.reliable for fits in (a, b) for score, _ in fits.values())]
    means = [(mean_and_sd(a["additive"]), mean_and_sd(b["additive"])) for a, b in sound]
    off = np.quantile([abs(x - y) / sd for (x, sd), (y, _) in means], (0.5, 0.99, 1.0))
    apart = [
        [(a[p][0].elpd_logo - a[q][0].elpd_logo - b[p][0].elpd_logo + b[q][0].elpd_logo).sum() for a, b in sound]
        for p, q in combinations(accumulation.LAWS, 2)
    ]
    nats = np.quantile(np.abs(apart), (0.5, 0.99, 1.0))
    three = "{:.3f} (median), {:.3f} (99 %), {:.3f} (most)"
    return f"mean of delta {three.format(*off)} sd; differences of elpd {three.format(*nats)} nats"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(BenchmarkSettings, prog="python benchmarks/heads.py"))
