"""What fitting costs: compiling each hypothesis, sampling it, and how that grows with the number of sequences.

``python benchmarks/fit.py --n-seqs 64 2048 --n-shots 32``
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the simulator is the tests' own


@dataclass(frozen=True)
class BenchSettings:
    """Time every hypothesis on simulated curves: power a = 0.3, gain 9.6, gain_sd 1.5, level 1.5, walk 0.1 nats."""

    n_seqs: tuple[int, ...] = (64, 2048)
    """Numbers of sequences."""
    most_steps: int = 256
    """The most sequences for hypotheses with a latent step, summed sequence by sequence: minutes beyond it."""
    n_shots: int = 32
    """Examples a sequence."""
    hypotheses: tuple[str, ...] = ()
    """Hypotheses to time; all, if none is named."""
    draws: int = 1000
    """Posterior draws a chain; as many are spent on warm-up."""
    repeats: int = 3
    """The best of so many runs counts."""
    enough: float = 60.0
    """Seconds spent on the runs of one cell after which no further one is started."""
    seed: int = 0
    """Seed of the curves and the sampler."""


def time_sampling(sampler, curves, settings: BenchSettings):
    """Shortest time of a fit, from the curves to converged draws, and the fit."""
    from bayes_icl.noise import summarise

    seconds: list[float] = []
    while len(seconds) < settings.repeats and sum(seconds) < settings.enough:
        start = time.perf_counter()
        sampled = sampler.sample(summarise(curves.log_odds, curves.shots))
        seconds.append(time.perf_counter() - start)
    return min(seconds), sampled


def main(settings: BenchSettings) -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("pytensor").setLevel(logging.ERROR)
    from simulate import power_law, simulate_curves

    from bayes_icl.hypotheses import HYPOTHESES
    from bayes_icl.noise import summarise
    from bayes_icl.sampling import Sampler, SamplerSettings

    n_seqs = sorted({*settings.n_seqs, *(s for s in [settings.most_steps] if s < max(settings.n_seqs))})
    made = {s: simulate_curves(s, settings.n_shots, f=power_law(0.3), seed=settings.seed) for s in n_seqs}
    smallest = made[n_seqs[0]]
    title = f"{settings.n_shots} shots, 4 x ({settings.draws} + {settings.draws}) draws; seconds of wall clock"
    table = Table(title=title, box=None)
    table.add_column("hypothesis", no_wrap=True)
    table.add_column("compile", justify="right")
    for s in n_seqs:
        for heading in (f"S={s}\ns", "ESS/s", "R-hat", "div"):
            table.add_column(heading, justify="right")
    table.add_column("ratio of times", justify="right", no_wrap=True)
    grows: list[str] = []
    console = Console(width=130)
    for name in settings.hypotheses or tuple(HYPOTHESES):
        start = time.perf_counter()
        sampler = Sampler(
            HYPOTHESES[name],
            summarise(smallest.log_odds, smallest.shots),
            SamplerSettings(draws=settings.draws, tune=settings.draws, seed=settings.seed),
        )
        compiled = time.perf_counter() - start
        cells, times = [], []
        most = max((s for s in n_seqs if s <= settings.most_steps), default=n_seqs[0])
        last = most if HYPOTHESES[name].latent_step else n_seqs[-1]
        for s, curves in made.items():
            if s > last:
                cells += ["-"] * 4
                continue
            seconds, sampled = time_sampling(sampler, curves, settings)
            times.append(seconds)
            cells += [
                f"{seconds:.2f}",
                f"{sampled.ess_bulk_min / seconds:.0f}",
                f"{sampled.rhat_max:.3f}",
                str(sampled.divergences),
            ]
        ratio = times[-1] / times[0]
        if ratio > 3:
            grows.append(f"{name} ({ratio:.1f}x from {n_seqs[0]} to {last})")
        table.add_row(name, f"{compiled:.1f}", *cells, f"{ratio:.1f}" + ("" if last == n_seqs[-1] else f" (at {last})"))
        print(f"{name}: done", file=sys.stderr)
    console.print(table)
    console.print(f"time grows with the number of sequences (more than 3 times as long): {', '.join(grows) or 'none'}")


if __name__ == "__main__":
    main(tyro.cli(BenchSettings))
