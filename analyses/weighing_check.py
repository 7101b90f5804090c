"""The second verdict on simulated learners whose law of history is known: confusion, coverage, order, controls.

``python analyses/weighing_check.py`` (`make weighing-check`): data/weighing/simulations.csv, a row a simulation, and
data/weighing/summary.csv, a row a check with its bound. Seeds are fixed, so that it comes out the same on one machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from claims import ROOT
from tqdm import tqdm

from bayes_icl.core.files import replacing
from bayes_icl.core.parallel import one_a_core, run_jobs
from bayes_icl.curves import Curves
from bayes_icl.fit.orders import order_share
from bayes_icl.fit.weighing import CALLED, weigh
from bayes_icl.hypotheses import HISTORY_LAWS, Past
from bayes_icl.inference.history_scores import score_history
from bayes_icl.inference.survival import doubt_of
from bayes_icl.tasks.observers import predictive, two_rules

FOLDER = ROOT / "data/weighing"
N_SEQS, N_SHOTS, REPEATS, ORDERS = 64, 32, 2, 300
LEVEL, WALK, GAIN_SD, NOISE = 0.5, 0.1, 0.5, 0.2  # nats; the last is what the observer takes for the share of rule B
TRUTHS: dict[str, dict[str, float]] = {
    "trend": {"w": 0.1},
    "observer": {"w": 1.0},
    "signed": {"w": 0.3},
    "leaky": {"w": 0.5, "leak": 0.8},
    "asymmetric": {"w": 0.3, "r": 0.4},
    "counting": {"w": 1.0, "a": 1.0},
    "averaging": {"w": 4.0, "c": 6.0},
    "recent": {"w": 0.25, "kappa": -0.8, "r": 0.3},
    "hazard": {"e": 0.8, "rate": 0.1},
    "primacy": {"w": 0.6, "fade": 0.85},
}
CONTROLS = {"half of Bayes": ("observer", {"w": 0.5}), "twice Bayes": ("observer", {"w": 2.0})}
MUST = {"half of Bayes": "conservative", "twice Bayes": "overconfident", "observer": "bayesian"}


def shown(rng: np.random.Generator) -> np.ndarray:
    """What examples show: in half of the sequences mixed, in half a switch in the middle, shape (seq, place)."""
    half = N_SHOTS // 2
    sides = np.repeat([1.0, -1.0], half)
    mixed = np.stack([rng.permutation(sides) for _ in range(N_SEQS // 2)])
    return np.concatenate([mixed, np.tile(sides, (N_SEQS // 2, 1))])


def simulated(law: str, truth: dict[str, float], rng: np.random.Generator) -> Curves:
    """Curves of a learner who follows a law, with the noise of the noise model."""
    history, shots = shown(rng), np.arange(N_SHOTS + 1.0)
    observer = predictive(two_rules(history, float(np.log((1 - NOISE) / NOISE))), NOISE)
    past = Past(history, np.tile(shots.astype(int), (N_SEQS, 1)), observer)
    own = {name: np.array([[value]]) for name, value in truth.items() if name != "w"}
    found = HISTORY_LAWS[law].curve(np, past, **own)
    f, beside = found if isinstance(found, tuple) else (found, 0.0)
    mean = (truth.get("w", 1.0) * f + beside).reshape(observer.shape)
    walk = np.pad(np.cumsum(WALK * rng.normal(size=(N_SEQS, N_SHOTS)), axis=1), ((0, 0), (1, 0)))
    slope = GAIN_SD * rng.normal(size=(N_SEQS, 1)) * shots / N_SHOTS
    noise = LEVEL * rng.normal(size=mean.shape) + walk + slope + rng.normal(size=(N_SEQS, 1))
    return Curves(law, "foil", shots, mean + noise, history=history, observer=observer).since(1)


def simulation(name: str, seed: int) -> dict[str, Any]:
    """One simulation: what was true, and what came."""
    law, truth = CONTROLS.get(name, (name, TRUTHS.get(name, {})))
    rng = np.random.default_rng([seed, *name.encode()])
    curves = simulated(law, truth, rng)
    scores = [score_history(one, curves)[0] for one in HISTORY_LAWS.values() if one.rival or one.ceiling]
    verdict = weigh(curves, scores)
    own = next(score for score in scores if score.hypothesis == law)
    held = [own.intervals[k].low <= value <= own.intervals[k].high for k, value in truth.items()]
    return {
        "truth": name,
        "seed": seed,
        "verdict": verdict.verdict,
        "law": verdict.law,
        "survivors": " ".join(verdict.survivors),
        "right": verdict.verdict == MUST.get(name, CALLED.get(law, law)),
        "parameters": len(held),
        "held": sum(held),
        "w_held": held[list(truth).index("w")] if "w" in truth else None,
        "faults": "; ".join(filter(None, map(doubt_of, scores))),
    }


def orders(leak: float, seed: int) -> bool:
    """Whether the interval of the order share of a learner holds 0: 24 sets of 20 examples in 4 orders, 16 permuted."""
    rng = np.random.default_rng([seed, int(1000 * leak)])
    n_sets, k, first, n = 24, 4, 16, 20
    sets = np.repeat(np.arange(n_sets), k)
    kept = rng.choice([1.0, -1.0], (n_sets, n))[sets]
    for row in kept:
        row[:first] = rng.permutation(row[:first])
    reads = np.arange(first, n)
    odds = np.stack([0.3 * kept[:, :m] @ leak ** np.arange(m)[::-1] for m in reads], axis=1)
    found = order_share(odds + LEVEL * rng.normal(size=odds.shape), sets)
    assert found is not None
    return found[0].low <= 0 <= found[0].high


def summary(found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Checks with their bounds."""
    laws = found[found.truth.isin(TRUTHS)]
    yield _check("laws named right", laws.right.mean(), 0.95, 1.0, len(laws))
    controls = found[found.truth.isin(CONTROLS)]
    yield _check("conservative and overconfident learners named right", controls.right.mean(), 0.95, 1.0, len(controls))
    ignores = found[found.truth == "trend"]
    yield _check(
        "a line that ignores examples called Bayesian", (ignores.verdict == "bayesian").mean(), 0.0, 0.0, len(ignores)
    )
    w = found.w_held.dropna().astype(bool)
    yield _check("intervals of w that hold it", w.mean(), 0.88, 1.0, len(w))
    yield _check("intervals of all parameters that hold them", found.held.sum() / found.parameters.sum(), 0.9, 0.99,
                 int(found.parameters.sum()))  # fmt: skip
    for leak, low, high in ((1.0, 0.92, 0.98), (0.8, 0.0, 0.3)):
        holds = np.mean([orders(leak, seed) for seed in range(ORDERS)])
        what = "exchangeable" if leak == 1 else f"leaky ({leak})"
        yield _check(f"order shares of a learner who is {what} that hold 0", float(holds), low, high, ORDERS)


def _check(what: str, value: float, low: float, high: float, number: int) -> dict[str, Any]:
    return {"check": what, "value": round(float(value), 4), "low": low, "high": high, "of": number,
            "holds": bool(low <= value <= high)}  # fmt: skip


def _call(job: tuple[str, int]) -> dict[str, Any]:
    return simulation(*job)


def main() -> None:
    """All simulations, and what they say."""
    jobs = [(name, seed) for seed in range(REPEATS) for name in (*TRUTHS, *CONTROLS)]
    rows: list[Any] = [None] * len(jobs)
    with run_jobs(one_a_core()) as run, tqdm(total=len(jobs), unit="simulation") as bar:
        for i, row in run(_call, [(job,) for job in jobs]):
            rows[i] = row
            bar.update(1)
    found = pd.DataFrame(rows)
    for name, table in (("simulations", found), ("summary", pd.DataFrame(summary(found)))):
        with replacing(FOLDER / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        print(FOLDER / f"{name}.csv")


if __name__ == "__main__":
    main()
