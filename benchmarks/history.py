"""What the second verdict costs: all laws of history on signed curves, and on single prompts.

``python benchmarks/history.py > benchmarks/history.txt`` (about a minute); simulated data, one core. Beside it stands
the plain way to score single prompts: a least-squares fit of each of four laws, a row left out at a time.
"""

from __future__ import annotations

import time

import numpy as np

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HISTORY_LAWS, Past
from bayes_icl.inference.history_scores import score_history

GRID, ROWS = (1, 3, 5, 10, 20, 100), 550  # prompts of each number of examples
N_SEQS, N_SHOTS = 64, 32


def curves() -> Curves:
    """Sequences whose examples disagree, and a learner who adds up what they show."""
    rng = np.random.default_rng(0)
    shown = rng.choice([-1.0, 1.0], (N_SEQS, N_SHOTS))
    walk = np.pad(0.3 * shown.cumsum(1), ((0, 0), (1, 0)))
    return Curves("curves", "foil", np.arange(N_SHOTS + 1.0), walk + 0.5 * rng.normal(size=walk.shape), history=shown)


def prompts() -> Curves:
    """Single prompts, and a learner who counts, with a contrast to the last example."""
    rng = np.random.default_rng(0)
    n = np.repeat(GRID, ROWS)
    shown = rng.choice([-1.0, 1.0], (len(n), max(GRID)))
    past = Past(shown, n[:, None])
    ideal = np.log((past.ups + 1) / (past.downs + 1))
    odds = 0.8 * ideal - past.last / np.sqrt(n) + 0.5 * rng.normal(size=len(n))
    return Curves("prompts", "foil", np.array([100.0]), odds[:, None], history=shown, observer=ideal[:, None], single=n)


def plain(one: Curves) -> float:
    """Seconds of leaving out each row of four linear laws by refitting them."""
    assert one.single is not None and one.history is not None
    past, start = Past(one.history, one.single[:, None]), time.process_time()
    for f in (past.n, past.signed, past.ups, past.of_observer):
        design, y = np.stack([np.ones(len(f)), f], axis=1), one.log_odds[:, 0]
        for i in range(len(y)):
            keep = np.arange(len(y)) != i
            np.linalg.lstsq(design[keep], y[keep], rcond=None)
    return time.process_time() - start


def main() -> None:
    """A line for each kind of data, CPU seconds."""
    for one in (curves(), prompts()):
        total = 0.0
        for name, law in HISTORY_LAWS.items():
            if name == "observer" and one.observer is None:
                continue
            start = time.process_time()
            score_history(law, one)
            total += time.process_time() - start
        shape = f"{one.log_odds.shape[0]} x {one.log_odds.shape[1]}"
        print(f"{one.task:8s} {shape:10s} all laws of history: {total:6.1f} CPU s")
        if one.single is not None:
            print(f"{one.task:8s} {shape:10s} four laws, refitted without each row: {plain(one):6.1f} CPU s")


if __name__ == "__main__":
    main()
