"""Truths that the model does not assume, and the verdicts that they must get.

Thirty-two shots from n = 1 on, a total update of 9.6 nats, level noise of sd 1.5, a walk of sd 0.1 and gains of sd 1.5
between sequences, unless a truth says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from bayes_icl.calibrate.simulation import generator
from bayes_icl.curves import Curves
from bayes_icl.fit.verdict import BENDS, Verdict, judge
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.inference.noise_shape import early_bend
from bayes_icl.inference.scores import Score, score_curves

N = np.arange(1.0, 33.0)  # shots

TOTAL = 9.6  # nats

SMALL, LARGE = 32, 256  # sequences


def _scaled(curve: np.ndarray, total: float = TOTAL) -> np.ndarray:
    return total * (curve - curve[0]) / (curve[-1] - curve[0])


def departure_of(curve: np.ndarray) -> float:
    """The largest distance of a curve over `N` from its best line, as a share of its rise."""
    basis = np.stack([np.ones_like(N), N], axis=1)
    off = curve - basis @ np.linalg.lstsq(basis, curve)[0]
    return float(np.abs(off).max() / abs(curve[-1] - curve[0]))


def s_shape(departure: float) -> np.ndarray:
    """A curve that is slow, fast, slow and departs from a line by that share: what a floor and a ceiling make."""
    low, high = 1e-5, 0.3
    for _ in range(60):
        share = np.sqrt(low * high)
        made = logit(share + (1 - 2 * share) * expit(_scaled(N) - TOTAL / 2))
        low, high = (share, high) if departure_of(made) < departure else (low, share)
    return _scaled(made)


LINE = _scaled(N)


@dataclass(frozen=True)
class Bound:
    """What must hold of the verdicts on a truth at a number of sequences.

    Attributes
    ----------
    n_seqs
        Sequences of a simulated set.
    verdicts
        Whose share is bounded; "delta" stands for the intervals that hold the true slope of the best line.
    least, most
        Bounds of the share.
    """

    n_seqs: int
    verdicts: tuple[str, ...]
    least: float = 0.0
    most: float = 1.0


@dataclass(frozen=True)
class Truth:
    """A truth: a mean curve and a noise.

    Attributes
    ----------
    words
        What it is.
    curve
        Mean log-odds over `N`, nats; of each sequence where `draw` is given.
    bounds
        What must hold.
    level, gain_sd
        sd of level noise, and of gains between sequences, nats.
    noise
        Standard normal level noise of that shape, (seq, shot), by default independent.
    items
        sd of what an item does that all sequences are asked at the same shot, nats.
    early_sd
        sd of a bend over the first examples by which sequences differ, nats.
    steps
        Whether every sequence jumps by the whole total at a shot of its own, in place of `curve`.
    """

    words: str
    curve: np.ndarray
    bounds: tuple[Bound, ...]
    level: float = 1.5
    gain_sd: float = 1.5
    noise: Callable[[np.random.Generator, tuple[int, int]], np.ndarray] = field(
        default=lambda rng, size: rng.normal(size=size)
    )
    items: float = 0.0
    early_sd: float = 0.0
    steps: bool = False

    def draw(self, n_seqs: int, rng: np.random.Generator) -> Curves:
        """Curves of that many sequences."""
        size = (n_seqs, len(N))
        odds = np.broadcast_to(self.curve, size)
        if self.steps:
            odds = TOTAL * (N >= np.clip(rng.normal(14, 4, (n_seqs, 1)), 2, 31))
        odds = odds + rng.normal(0, 2, (n_seqs, 1)) + self.gain_sd * rng.normal(size=(n_seqs, 1)) * (N - N[0]) / 31
        odds = odds + np.cumsum(0.1 * rng.normal(size=size), axis=1) + self.level * self.noise(rng, size)
        odds = odds + self.early_sd * rng.normal(size=(n_seqs, 1)) * early_bend(N)
        odds = odds + self.items * rng.normal(size=len(N))
        return Curves("made", "complement", N, odds)


def _t3(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.standard_t(3, size=size) / np.sqrt(3)


def _falling(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=size) * 3 ** -((N - N.mean()) / np.ptp(N))


def _carried(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    noise = rng.normal(size=size)
    for i in range(1, size[1]):
        noise[:, i] = 0.6 * noise[:, i - 1] + 0.8 * noise[:, i]
    return noise


def _line(least: float, most: float = 0.01) -> tuple[Bound, ...]:
    return (
        Bound(SMALL, ("rejected",), most=most),
        Bound(LARGE, ("rejected",), most=most),
        Bound(LARGE, ("supported",), least=least),
    )


def _bent() -> tuple[Bound, ...]:
    return (
        Bound(SMALL, ("rejected",), least=0.9),
        Bound(SMALL, ("supported", "supported_under_ceiling"), most=0.0),
        Bound(LARGE, ("rejected",), least=0.99),
    )


HOLDS_DELTA = (Bound(SMALL, ("delta",), 0.92, 0.98),)

TRUTHS = {
    "line": Truth("a line", LINE, (*_line(0.95), Bound(SMALL, ("supported",), least=0.25), *HOLDS_DELTA)),
    "line_t3": Truth("a line, t3 level noise", LINE, _line(0.95), noise=_t3),
    "line_falling": Truth("a line, level noise falling threefold", LINE, _line(0.95), noise=_falling),
    "line_carried": Truth("a line, AR(1) level noise, 0.6", LINE, _line(0.60), noise=_carried),
    "line_items": Truth(
        "a line, the same items at the same shots, sd 1",
        LINE,
        (Bound(SMALL, ("rejected",), most=0.05), Bound(LARGE, ("rejected",), most=0.05), *HOLDS_DELTA),
        level=1.0,
        items=1.0,
    ),
    "line_early": Truth("a line, sequences differing along an early bend", LINE, _line(0.80), early_sd=1.5),
    "power_95": Truth("n^0.95, departs by 1.3 %", _scaled(N**0.95), (*_line(0.95, most=0.0),)),
    "s_shape": Truth(
        "an S-shape that departs by 6 %",
        s_shape(0.06),
        (
            Bound(SMALL, ("supported",), most=0.05),
            Bound(LARGE, ("supported",), most=0.0),
            Bound(LARGE, ("rejected", "supported_under_ceiling"), least=0.4),
        ),
    ),
    "logarithmic": Truth("log(1 + n/5)", _scaled(np.log1p(N / 5)), _bent()),
    "pooling": Truth("n/(n + 5)", _scaled(N / (N + 5)), _bent()),
    "step": Truth("a step at 16", TOTAL * (N >= 16), _bent()),
    "steps": Truth("a step in each sequence", LINE, _bent(), steps=True),
    "ceiling": Truth(
        "a line under a readout of 2 to 95 %",
        logit(0.02 + 0.93 * expit(-4 + 0.3 * N)),
        (Bound(SMALL, ("rejected",), most=0.05), Bound(LARGE, ("supported_under_ceiling",), least=0.9)),
    ),
    "weak": Truth(
        "a line of 1.5 nats in all",
        _scaled(N, 1.5),
        (Bound(SMALL, ("no_update",), most=0.05), Bound(SMALL, ("rejected",), most=0.01)),
        gain_sd=0.5,
    ),
    "nothing": Truth(
        "no update",
        np.zeros_like(N),
        (
            Bound(SMALL, ("supported", "supported_under_ceiling", "rejected"), most=0.01),
            Bound(LARGE, ("no_update",), least=0.9),
        ),
    ),
}


def cells() -> Iterator[tuple[str, int]]:
    """Every truth, at every number of sequences of which something must hold."""
    for name, truth in TRUTHS.items():
        for n_seqs in sorted({bound.n_seqs for bound in truth.bounds}):
            yield name, n_seqs


def judge_truth(name: str, n_seqs: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The verdict on curves of a truth; one row a simulation.

    Parameters
    ----------
    name
        One of `TRUTHS`.
    n_seqs
        Sequences of a set.
    seeds
        One simulation each.
    """
    truth, rows = TRUTHS[name], []
    slope = np.polyfit(N, truth.curve, 1)[0]
    for seed in seeds:
        curves = truth.draw(n_seqs, generator(seed, "verdict", name, n_seqs))
        verdict = _verdict(curves)
        delta, departure = verdict.delta or {}, verdict.departure or {}
        rows.append(
            {
                "truth": name,
                "n_seqs": n_seqs,
                "verdict": verdict.verdict,
                "selected": verdict.selected or "none",
                "departure": departure.get("mean", np.nan),
                "departure_high": departure.get("high", np.nan),
                "held": not truth.steps and delta.get("hdi_low", np.inf) <= slope <= delta.get("hdi_high", -np.inf),
            }
        )
    return rows


def _verdict(curves: Curves) -> Verdict:
    """The verdict by the laws that can change it: others only where the mean curve alone does not decide."""
    scores = [score_curves(HYPOTHESES["freeform"], curves, future=False, checks=False)[0]]
    verdict = judge(curves, scores)
    if verdict.verdict in ("supported", "no_update", "refused"):
        return verdict
    quick = [law for law in BENDS if not HYPOTHESES[law].latent_step]
    scores += _scored(curves, ("additive", *quick, "lapse"))
    verdict = judge(curves, scores)
    if verdict.verdict != "supported_under_ceiling":
        return verdict
    return judge(curves, [*scores, *_scored(curves, [law for law in BENDS if law not in quick])])


def _scored(curves: Curves, laws: Sequence[str]) -> list[Score]:
    return [score_curves(HYPOTHESES[law], curves, future=False, checks=False)[0] for law in laws]


def outcomes_of(verdicts: pd.DataFrame) -> Iterator[tuple[Truth, Bound, int, int]]:
    """Every bound, with how many simulations are of its kind, of how many.

    Parameters
    ----------
    verdicts
        Rows of `judge_truth`.
    """
    for name, truth in TRUTHS.items():
        for bound in truth.bounds:
            own = verdicts[(verdicts.truth == name) & (verdicts.n_seqs == bound.n_seqs)]
            hit = own.held if bound.verdicts == ("delta",) else own.verdict.isin(bound.verdicts)
            if len(own):
                yield truth, bound, int(hit.sum()), len(own)
