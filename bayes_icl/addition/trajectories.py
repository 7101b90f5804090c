"""How the residual stream moves as examples are added: along which shape in n, and along how many directions.

m(n) = h(n) - h(1), averaged over sequences. All inner products are of one half of the sequences with the other, so that
the noise of a mean is not taken for movement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import ttest_1samp

from bayes_icl.core.intervals import TAILS, Interval, flat, resampling_weights
from bayes_icl.mechanism.halves import CHOOSING, MEASURING

HALVES = (CHOOSING, MEASURING)

PARTS = ("task", "permuted", "rule")
"""The episodes; the same with answers permuted among the examples; the first less the second, sequence by sequence."""

ALPHA = 0.05  # chance that some layer of a model without movement is said to move, over all layers of a part

EARLY = 4  # examples at which early movement ends

SHARES = ("line", "log", "step", "rank1")

MEASURES = ("size", *SHARES, "cosine", "late_over_early")

Stream = Float[np.ndarray, "seq shot d_model"]


def signs_of(correct: Int[np.ndarray, "seq shot"]) -> Float[np.ndarray, "seq shot"] | None:
    """Which of two answers is right, as 1 and -1; None for a task with more answers or one.

    Parameters
    ----------
    correct
        The token of the right answer.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.addition.trajectories import signs_of
    >>> signs_of(np.array([[7, 9], [9, 9]])).tolist(), signs_of(np.array([[7, 8, 9]]))
    ([[1.0, -1.0], [-1.0, -1.0]], None)
    """
    tokens = np.unique(correct)
    return np.where(correct == tokens[0], 1.0, -1.0) if len(tokens) == 2 else None


def turned(stream: Stream, signs: Float[np.ndarray, "seq shot"] | None) -> Stream:
    """The stream as it is averaged; of two answers, its distance from their midpoint, towards the right one.

    What examples add to one of two answers is the opposite of what they add to the other, and would cancel. The
    midpoint at each shot is of the sequence's own half, so that the halves stay independent.

    Parameters
    ----------
    stream
        At one layer.
    signs
        As `signs_of` gives them.
    """
    if signs is None:
        return stream.astype(np.float64)
    out = stream.astype(np.float64)
    for half in HALVES:
        of_half = out[half]
        for shot in range(out.shape[1]):
            sides = [of_half[signs[half, shot] == sign, shot] for sign in (1, -1)]
            sides = [side.mean(0) for side in sides if len(side)]
            of_half[:, shot] = signs[half, shot, None] * (of_half[:, shot] - np.mean(sides, axis=0))
    return out


class Movement(NamedTuple):
    """The movement of one part at one layer.

    Attributes
    ----------
    numbers
        `MEASURES` with their intervals: ``size`` relative to the stream, shares of the movement (`SHARES`), cosine of
        early and late movement, length moved per example late over early. NaN where the halves do not agree that there
        is any.
    p
        That there is movement in the second half of the examples: of both halves, Bonferroni-corrected.
    """

    numbers: dict[str, Interval]
    p: float

    def row(self) -> dict[str, float]:
        """As columns of a table."""
        return flat(self.numbers) | {"p": self.p}


def movement_of(stream: Stream, scale: float, weights: tuple[np.ndarray, np.ndarray]) -> Movement:
    """Measure how a stream moves.

    Parameters
    ----------
    stream
        From one example on, as `turned` gives it.
    scale
        Root mean square length of the stream after the most examples.
    weights
        Bootstrap weights of the sequences of each half, shape (draw, seq); as `bootstrap_weights` gives them.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.addition.trajectories import bootstrap_weights, movement_of
    >>> rng = np.random.default_rng(0)
    >>> steps = np.arange(8)[:, None] * np.eye(6)[0]
    >>> found = movement_of(steps + 0.1 * rng.normal(size=(16, 8, 6)), 7.0, bootstrap_weights(16, 50, 0))
    >>> found.p < 0.01, f"{found.numbers['line'].mean:.2f}", f"{found.numbers['cosine'].mean:.2f}"
    (True, '1.00', '1.00')
    """
    a, b = ((stream - stream[:, :1])[half, 1:] for half in HALVES)
    n = a.shape[1]
    cross = np.tensordot(a, b, (2, 2)).transpose(0, 2, 1, 3)  # (seq a, seq b, n, n')
    cross = ((cross + cross.swapaxes(2, 3)) / 2).reshape(len(a), len(b), n * n)
    means = a.mean(0), b.mean(0)
    within = sum(x @ x.T for x in means)
    direction = np.linalg.eigh(within)[1][:, -1]  # amounts, chosen with noise and measured without
    equal = np.full((1, len(a)), 1 / len(a)), np.full((1, len(b)), 1 / len(b))
    here, draws = (_measures(_gram(cross, *w).reshape(-1, n, n), direction, scale) for w in (equal, weights))
    numbers = {}
    for name in MEASURES:
        known = draws[name][np.isfinite(draws[name])]
        ends = np.quantile(known, TAILS) if len(known) > len(draws[name]) / 2 else (np.nan, np.nan)
        numbers[name] = Interval(float(here[name][0]), *map(float, ends))
    return Movement(numbers, _moves(a, b))


def bootstrap_weights(n_seqs: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of sequences resampled within each half, shape (draw, seq) each."""
    rng = np.random.default_rng([seed, 29])
    first, second = (resampling_weights(len(range(n_seqs)[half]), draws, rng) for half in HALVES)
    return first, second


def _gram(cross: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    pairs = (first[:, :, None] * second[:, None]).reshape(len(first), -1)
    return pairs @ cross.reshape(pairs.shape[1], -1)


def _measures(gram: Float[np.ndarray, "draw n n"], direction: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """`MEASURES` of Gram matrices of movement after 2, 3, ... examples."""
    n = gram.shape[1]
    after = np.arange(2.0, n + 2)
    shapes = {"line": after - 1, "log": np.log(after), "step": np.ones(n), "rank1": direction}
    total = np.trace(gram, axis1=1, axis2=2)
    early_end = min(EARLY - 2, (n - 1) // 2)
    middle = min(max(n // 2, early_end), n - 2)
    early, late = np.zeros(n), np.zeros(n)
    early[early_end] = 1
    late[-1], late[middle] = 1, -1
    square = {
        name: np.einsum("i,rij,j->r", x, gram, y)
        for name, x, y in (("ee", early, early), ("ll", late, late), ("el", early, late))
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        there = np.where(total > 0, total, np.nan)
        out = {name: np.einsum("i,rij,j->r", x, gram, x) / (x @ x) / there for name, x in shapes.items()}
        lengths = {name: np.sqrt(np.where(square[name] > 0, square[name], np.nan)) for name in ("ee", "ll")}
        out["cosine"] = square["el"] / lengths["ee"] / lengths["ll"]
        per_example = lengths["ll"] / (after[-1] - after[middle]), lengths["ee"] / (after[early_end] - 1)
        out["late_over_early"] = per_example[0] / per_example[1]
        out["size"] = np.sqrt(np.where(gram[:, -1, -1] > 0, gram[:, -1, -1], np.nan)) / scale
    return out


def _moves(a: Float[np.ndarray, "seq n d_model"], b: Float[np.ndarray, "seq n d_model"]) -> float:
    """The p of the mean movement of each half along the other's, the smaller of the two doubled."""
    late = [x[:, x.shape[1] // 2 :].mean(1) for x in (a, b)]
    ps = []
    for own, other in ((late[0], late[1]), (late[1], late[0])):
        along = own @ other.mean(0)
        if not along.std() > 1e-12 * max(abs(along.mean()), 1e-300):
            ps.append(0.0 if along.mean() > 0 else 1.0)
        else:
            ps.append(float(ttest_1samp(along, 0, alternative="greater").pvalue))
    return min(1.0, 2 * min(ps))


def directions_of(stream: Stream) -> tuple[Float[np.ndarray, "half d_model"], float]:
    """What an example adds on average: the slope of the mean movement on n, of each half of the sequences.

    Parameters
    ----------
    stream
        From one example on, as `turned` gives it.

    Returns
    -------
    directions
        Of the first half and of the second.
    square
        Their inner product, which is the squared length without noise.
    """
    n = np.arange(stream.shape[1], dtype=float)
    moved = stream - stream[:, :1]
    both = np.stack([np.tensordot(n, moved[half].mean(0), (0, 0)) / (n @ n) for half in HALVES])
    return both, float(both[0] @ both[1])


def amounts_along(stream: Stream) -> Float[np.ndarray, "seq shot"]:
    """How much of the direction each sequence has after n examples, less what all have on average after one.

    The direction is the other half's. The unit is what an example adds on average, so that a line has slope 1. NaN
    where the halves' directions do not agree.

    Parameters
    ----------
    stream
        From one example on, as `turned` gives it.
    """
    directions, square = directions_of(stream)
    if not square > 0:
        return np.full(stream.shape[:2], np.nan)
    out = np.empty(stream.shape[:2])
    for i, half in enumerate(HALVES):
        out[half] = stream[half] @ directions[1 - i] / square
        out[half] -= out[half][:, 0].mean()
    return out


def other_half(n_seqs: int) -> Iterator[tuple[int, slice, int]]:
    """Sequences with the half that they are in and the number of the other: (sequence, other half, its number)."""
    for seq in range(n_seqs):
        yield seq, HALVES[1 - seq % 2], 1 - seq % 2
