"""What fitting costs: both engines, the scores, and a plain PyMC model with every random effect as a parameter.

``python benchmarks/fit.py`` (about 5 minutes); all on the same simulated curves.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the simulator is the tests' own
FRESH = """
import sys, time, resource
sys.path.insert(0, {tests!r})
from simulate import power_law, simulate_curves
from bayes_icl.fit import Case
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.core.parallel import run_jobs
from bayes_icl.inference.scores import score_curves
curves = simulate_curves({n_seqs}, {n_shots}, f=power_law(0.3), seed={seed})
start = time.perf_counter()
with run_jobs(1):
    for name in HYPOTHESES:
        if Case(curves).fits(name):
            score_curves(HYPOTHESES[name], curves)
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


@dataclass(frozen=True)
class BenchSettings:
    """Time fits of simulated curves: power a = 0.3, gain 9.6, gain_sd 1.5, level 1.5, walk 0.1 nats."""

    n_seqs: tuple[int, ...] = (64, 2048)
    """Numbers of sequences; the first is the one for NUTS, the plain model and the scores."""
    n_shots: int = 32
    """Examples a sequence."""
    hypotheses: tuple[str, ...] = ("constant", "additive", "power", "changepoint", "lapse", "freeform")
    """Hypotheses to time one by one."""
    draws: int = 1000
    """NUTS: draws a chain; as many are spent on warm-up."""
    repeats: int = 3
    """The best of so many fits counts."""
    explicit: bool = True
    """Time the plain model too (the slowest part)."""
    seed: int = 0
    """Seed of the curves and the engines."""


def best_cpu(function, repeats: int):
    """Least CPU time of a call over all threads, with its result."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return min(times), result


def explicit_model(curves):
    """Additive the plain way: an intercept and a gain for each sequence, level noise and a walk with a state a shot."""
    import pymc as pm

    y = curves.log_odds
    n = (curves.shots - curves.shots[0]) / (curves.shots[-1] - curves.shots[0])
    scale = float(np.median(y.std(1)))
    with pm.Model() as model:
        gain = pm.Normal("gain", 0, 2.5 * scale)
        gain_sd = pm.HalfNormal("gain_sd", scale)
        level = pm.HalfNormal("level", scale)
        walk = pm.HalfNormal("walk", 0.5 * scale)
        intercept = pm.Normal("intercept", 0, 100, shape=(len(y), 1))
        gains = pm.Normal("gains", gain, gain_sd, shape=(len(y), 1))
        steps = pm.Normal("steps", 0, 1, shape=(len(y), len(n) - 1))
        path = pm.math.concatenate([np.zeros((len(y), 1)), walk * pm.math.cumsum(steps, axis=1)], axis=1)
        pm.Normal("y", intercept + gains * n + path, level, observed=y)
    return model


def main(settings: BenchSettings) -> None:
    warnings.simplefilter("ignore")
    from simulate import power_law, simulate_curves

    from bayes_icl.core.parallel import run_jobs
    from bayes_icl.hypotheses import HYPOTHESES
    from bayes_icl.inference.importance import sample_fast
    from bayes_icl.inference.noise import summarise
    from bayes_icl.inference.nuts import Sampler, SamplerSettings, quiet
    from bayes_icl.inference.scores import score_curves, sequence_log_likelihood

    console = Console(width=130)
    made = {s: simulate_curves(s, settings.n_shots, f=power_law(0.3), seed=settings.seed) for s in settings.n_seqs}
    first = made[settings.n_seqs[0]]

    code = FRESH.format(tests=sys.path[0], n_seqs=settings.n_seqs[0], n_shots=settings.n_shots, seed=settings.seed)
    wall, cpu, memory = map(
        float, subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    console.print(
        f"fast engine, all hypotheses, both scores and checks, {settings.n_seqs[0]} sequences of {settings.n_shots} "
        f"shots, fresh process with imports: {cpu:.2f} CPU s ({wall:.2f} s wall without imports, {memory:.0f} MB)"
    )

    table = Table(title=f"{settings.n_shots} shots; fast: CPU s of one fit; NUTS: wall s, 4 chains", box=None)
    for heading in ("hypothesis", *(f"fast S={s}" for s in made), "ratio", "ESS", "ESS/s"):
        table.add_column(heading, justify="left" if heading == "hypothesis" else "right")
    for heading in ("NUTS compile", "sample", "ESS", "ESS/s", "R-hat", "LOGO+LFO"):
        table.add_column(heading, justify="right")
    for name in settings.hypotheses:
        hypothesis = HYPOTHESES[name]
        with run_jobs(1):
            fits = {
                s: best_cpu(partial(sample_fast, hypothesis, summarise(c)), settings.repeats) for s, c in made.items()
            }
            scoring, _ = best_cpu(partial(score_curves, hypothesis, first, checks=False), 1)
        start = time.perf_counter()
        sampler = Sampler(
            hypothesis, summarise(first), SamplerSettings(settings.draws, settings.draws, 4, settings.seed)
        )
        compiled = time.perf_counter() - start
        start = time.perf_counter()
        nuts = sampler(hypothesis, summarise(first))
        sampled = time.perf_counter() - start
        seconds, fast = fits[settings.n_seqs[0]]
        table.add_row(
            name,
            *(f"{t:.3f}" for t, _ in fits.values()),
            f"{fits[settings.n_seqs[-1]][0] / seconds:.1f}",
            f"{fast.ess:.0f}",
            f"{fast.ess / seconds:.0f}",
            f"{compiled:.1f}",
            f"{sampled:.2f}",
            f"{nuts.ess:.0f}",
            f"{nuts.ess / sampled:.0f}",
            f"{nuts.rhat_max:.3f}",
            f"{scoring:.2f}",
        )
        print(f"{name}: done", file=sys.stderr)
    console.print(table)

    some = simulate_curves(32, settings.n_shots, f=power_law(0.3), seed=settings.seed)
    stats, additive = summarise(some), HYPOTHESES["additive"]
    score, _ = score_curves(additive, some, checks=False)
    exact = np.empty(32)
    start = time.process_time()
    with run_jobs(1):
        for s in range(32):
            refit = sample_fast(additive, stats.of(np.arange(32) != s))
            one = sequence_log_likelihood(refit, stats.of(np.array([s])))[:, 0] + refit.log_weights
            exact[s] = np.logaddexp.reduce(one)
    console.print(
        f"leave one sequence out, additive, 32 sequences: PSIS {score.elpd_logo.sum():.3f}, 32 exact refits "
        f"{exact.sum():.3f} ({time.process_time() - start:.2f} CPU s), largest difference of one sequence "
        f"{np.abs(score.elpd_logo - exact).max():.4f} nats"
    )

    if settings.explicit:
        import arviz as az
        import nutpie

        with quiet():
            start = time.perf_counter()
            compiled_model = nutpie.compile_pymc_model(explicit_model(first))
            compile_time = time.perf_counter() - start
            start = time.perf_counter()
            trace = nutpie.sample(
                compiled_model,
                draws=settings.draws,
                tune=settings.draws,
                chains=4,
                seed=settings.seed,
                progress_bar=False,
            )
            wall = time.perf_counter() - start
        shared = ["gain", "gain_sd", "level", "walk"]
        ess = min(float(x.min()) for x in az.ess(trace.posterior[shared]).data_vars.values())
        rhat = max(float(x.max()) for x in az.rhat(trace.posterior[shared]).data_vars.values())
        console.print(
            f"plain PyMC model of additive, every random effect a parameter ({len(first.log_odds)} sequences): compile "
            f"{compile_time:.1f} s, sample {wall:.1f} s, least ESS {ess:.0f} ({ess / wall:.1f}/s), R-hat {rhat:.3f}, "
            f"{int(trace.sample_stats.diverging.sum())} divergences"
        )
    console.print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main(tyro.cli(BenchSettings))
