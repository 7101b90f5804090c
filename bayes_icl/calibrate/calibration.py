"""Simulated ranks, coverage and verdicts, which say whether fits of a size can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import binom
from tqdm import tqdm

from bayes_icl.calibrate.outputs import VERDICTS
from bayes_icl.calibrate.settings import CalibrateSettings
from bayes_icl.calibrate.simulation import NOISES, TRUTHS, generator, simulate, truth_of, without_walk
from bayes_icl.calibrate.truths import cells, judge_truth
from bayes_icl.core.intervals import mean_and_interval
from bayes_icl.core.parallel import one_a_core, run_jobs
from bayes_icl.fit.cases import Case
from bayes_icl.fit.verdict import judge
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.hypotheses.laws import RARELY_TOLD
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import N_BENDS, PLAIN
from bayes_icl.inference.scores import score_curves

# Of the control: a parameter that data often leave to its prior, or a shifted prior would go unseen.
SHIFTED = ("lapse", "floor_until")

# Kind of law that a name stands for; all laws with a bend are one kind, as data of this size rarely tell them apart.
KINDS = {"constant": "constant", "additive": "additive", "changepoint": "change-point"}


def ranks(name: str, setting: str, seeds: Sequence[int], n_seqs: int, n_shots: int) -> list[dict[str, Any]]:
    """Posterior probability below the truth of every parameter, truths drawn from the prior; one row a simulation.

    Parameters
    ----------
    name
        The law, which is the truth and is fitted.
    setting
        ``"sound"``; ``"student"`` (heavy-tailed noise); controls ``"shifted prior"`` (`SHIFTED` two prior sds higher
        than the fit expects) and ``"wrong noise"`` (fitted without a walk).
    seeds
        One simulation each.
    n_seqs, n_shots
        Size of the simulated curves.
    """
    hypothesis = HYPOTHESES[name].varied(student=setting == "student")
    fitted = without_walk(hypothesis) if setting == "wrong noise" else hypothesis
    rows = []
    for seed in seeds:
        rng = generator(seed, "ranks", name, setting)
        truth: dict[str, Any] = {
            name: prior.draw(rng, (N_BENDS,)) if prior.length else float(prior.draw(rng, ()))
            for name, prior in hypothesis.all_priors.items()
        }
        if setting == "shifted prior":
            truth[SHIFTED[1]] += 2 * hypothesis.all_priors[SHIFTED[1]].parameters[1]
        curves = simulate(hypothesis, truth, n_seqs, n_shots, rng)
        # Ranks are uniform only if the prior does not look at the data, so the scale is given.
        posterior = sample_fast(fitted, summarise(curves, scale=1.0, shape=PLAIN), seed=seed)
        weights = np.exp(posterior.log_weights)
        row: dict[str, Any] = {"hypothesis": name, "setting": setting, "faulty": bool(posterior.faults)}
        if setting == "wrong noise":
            del truth["walk"]  # which the fit has pinned; the others must show what that does
        for parameter, value in truth.items():
            if np.ndim(value):
                continue  # the mean curve's own numbers are in the table of verdicts
            below = float(weights @ (posterior.params[parameter][:, 0] < value))
            row[parameter] = below
        rows.append(row)
    return rows


def recover(
    name: str, noise: str, seeds: Sequence[int], n_seqs: int, n_shots: int, gain: float
) -> list[dict[str, Any]]:
    """Whether 95 % intervals hold a fixed truth; one row a simulation and parameter."""
    hypothesis = HYPOTHESES[name]
    rows = []
    for seed in seeds:
        rng = generator(seed, "recovery", name, noise)
        truth = truth_of(hypothesis, noise, gain)
        curves = simulate(hypothesis, truth, n_seqs, n_shots, rng)
        stats = summarise(curves)
        posterior = sample_fast(hypothesis, stats, seed=seed)
        if hypothesis.has_gain:
            one = {key: np.array([[value]]) for key, value in truth.items()}
            total = truth.get("gain", float(np.squeeze(hypothesis.updates(np, stats, one)[2])))
            truth = {**truth, "delta": total / n_shots}
        for parameter, x in posterior.numbers(stats).items():
            if parameter in truth:
                mean, low, high = mean_and_interval(x, posterior.log_weights)
                held = low <= truth[parameter] <= high
                rows.append(
                    {
                        "hypothesis": name,
                        "noise": noise,
                        "parameter": parameter,
                        "truth": truth[parameter],
                        "mean": mean,
                        "width": high - low,
                        "held": held,
                    }
                )
    return rows


def confuse(
    name: str, noise: str, seeds: Sequence[int], n_seqs: int, n_shots: int, gain: float, averaged: bool
) -> list[dict[str, Any]]:
    """Which law is named, and the verdict, on curves of a known law; one row a simulation.

    Parameters
    ----------
    name, noise
        The true law, and its noise: one of `NOISES`.
    seeds
        One simulation each.
    n_seqs, n_shots
        Size of the simulated curves.
    gain
        True total update, nats.
    averaged
        The control: each curve is the log-odds of the mean probability of a tenth of the sequences, as if they had been
        averaged before the fit.
    """
    rows = []
    for seed in seeds:
        rng = generator(seed, "confusion", name, noise, n_seqs, averaged)
        hypothesis = HYPOTHESES[name]
        n_drawn = 10 * n_seqs if averaged else n_seqs
        curves = simulate(hypothesis, truth_of(hypothesis, noise, gain), n_drawn, n_shots, rng)
        if averaged:
            curves = curves._replace(log_odds=logit(expit(curves.log_odds.reshape(n_seqs, 10, -1)).mean(1)))
        case = Case(curves)
        compared = [h for h in HYPOTHESES if h not in RARELY_TOLD and case.fits(h)]
        scores = [score_curves(HYPOTHESES[h], curves, future=False, checks=False)[0] for h in compared]
        verdict = judge(curves, scores)
        rows.append(
            {
                "truth": name,
                "kind": kind_of(name),
                "noise": noise,
                "n_seqs": n_seqs,
                "averaged": averaged,
                "selected": verdict.selected or "none",
                # No update on average is one kind, whichever law without a mean update predicts best.
                "selected_kind": "constant" if verdict.verdict == "no_update" else kind_of(verdict.selected or "none"),
                "verdict": verdict.verdict,
            }
        )
    return rows


def kind_of(name: str) -> str:
    """Kind of a law: constant, additive, change-point or curved."""
    return KINDS.get(name, "curved") if name != "none" else "none"


def averaging_ratio(n: Sequence[int] = (1, 5, 10, 20, 50, 100)) -> pd.DataFrame:
    """How much of the mean log-odds is left in the log-odds of the mean probability: two coins, 3/4 and 1/4 heads.

    An ideal observer's log-odds gain log(3)/2 a flip on average; averaged as probabilities they seem to gain ever less.
    Exact: summed over the number of heads.
    """
    ratios = []
    for flips in n:
        heads = np.arange(flips + 1)
        chance, log_odds = binom.pmf(heads, flips, 0.75), (2 * heads - flips) * np.log(3)
        apparent = np.log(chance @ expit(log_odds)) - np.log(chance @ expit(-log_odds))
        ratios.append(apparent / (0.5 * np.log(3) * flips))
    return pd.DataFrame({"n": n, "ratio": ratios})


def _run(function: Callable, jobs: Sequence[tuple], workers: int, label: str) -> list[dict[str, Any]]:
    """All rows of all jobs, in the order of the jobs."""
    rows: list[list[dict[str, Any]]] = [[] for _ in jobs]
    with run_jobs(workers) as run:
        for i, own in tqdm(run(function, jobs), total=len(jobs), desc=label, dynamic_ncols=True):
            rows[i] = own
    return [row for own in rows for row in own]


def _chunks(n: int, size: int, seed: int) -> Iterator[list[int]]:
    numbers = [seed * 1_000_003 + i for i in range(n)]
    return (numbers[i : i + size] for i in range(0, n, size))


def calibrate(settings: CalibrateSettings) -> dict[str, pd.DataFrame]:
    """All tables: sbc, recovery, confusion, averaging, verdicts."""
    workers = settings.workers or one_a_core()
    size = settings.n_seqs, settings.n_shots
    plan = [(name, "sound") for name in (*settings.hypotheses, "freeform")] + [("additive", "student")]
    plan += [(SHIFTED[0], "shifted prior"), ("additive", "wrong noise")]
    jobs = [
        (name, setting, seeds, *size) for name, setting in plan for seeds in _chunks(settings.sims, 25, settings.seed)
    ]
    sbc = pd.DataFrame(_run(ranks, jobs, workers, "ranks"))
    many = {"additive": settings.coverage_sims, "power": settings.coverage_sims}
    recovery_jobs = [
        (name, noise, seeds, *size, settings.gain)
        for name in settings.hypotheses
        for noise in (NOISES if name in many else ["both"])
        for seeds in _chunks(-(-many.get(name, settings.sims) // (3 if name in many else 1)), 25, settings.seed)
    ]
    recovery = pd.DataFrame(_run(recover, recovery_jobs, workers, "recovery"))
    confusion_jobs = [
        (truth, noise, seeds, n_seqs, settings.n_shots, settings.gain, averaged)
        for truth in TRUTHS
        for noise in NOISES
        for n_seqs in (settings.n_seqs, settings.n_seqs // 4)
        for averaged in ([False, True] if n_seqs == settings.n_seqs and truth == "additive" else [False])
        for seeds in _chunks(
            settings.confusion_sims
            * (4 if truth == "additive" and n_seqs == settings.n_seqs else 1)
            // (1 if n_seqs == settings.n_seqs else 2),
            5,
            settings.seed,
        )
    ]
    confusion = pd.DataFrame(_run(confuse, confusion_jobs, workers, "confusion"))
    verdict_jobs = [
        (truth, n_seqs, seeds)
        for truth, n_seqs in cells()
        for seeds in _chunks(settings.verdict_sims, 10, settings.seed)
    ]
    verdicts = VERDICTS.frame(_run(judge_truth, verdict_jobs, workers, "verdicts"))
    return {
        "sbc": sbc,
        "recovery": recovery,
        "confusion": confusion,
        "averaging": averaging_ratio(),
        "verdicts": verdicts,
    }
