"""What the examples before each reading showed, as laws of history take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Past:
    """What was shown before every reading of some sequences.

    A reading is one log-odds: of sequence s after ``reads[s, j]`` examples. Arrays by reading have an axis `reading`,
    the readings of the first sequence first.

    Attributes
    ----------
    history
        +1 where an example showed rule A's answer, -1 where rule B's, 0 where neither, shape (seq, place); what follows
        a sequence's last reading is not looked at.
    reads
        Numbers of examples before each reading, shape (seq, read), rising.
    observer
        The ideal observer's log-odds at each reading, nats, shape (seq, read); None where it is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.hypotheses.past import Past
    >>> past = Past(np.array([[1, 1, -1]]), np.array([[0, 1, 2, 3]]))
    >>> past.signed.tolist(), past.last.tolist()
    ([0.0, 1.0, 2.0, 1.0], [0.0, 1.0, 1.0, -1.0])
    """

    history: Float[np.ndarray, "seq place"] | Int[np.ndarray, "seq place"]
    reads: Int[np.ndarray, "seq read"]
    observer: Float[np.ndarray, "seq read"] | None = None

    def of(self, seqs: np.ndarray) -> Past:
        """That of some of the sequences."""
        observer = None if self.observer is None else self.observer[seqs]
        return Past(self.history[seqs], self.reads[seqs], observer)

    def until(self, keep: np.ndarray) -> Past:
        """That of some of each sequence's readings."""
        observer = None if self.observer is None else self.observer[:, keep]
        return Past(self.history, self.reads[:, keep], observer)

    @cached_property
    def n(self) -> Float[np.ndarray, " reading"]:
        """Examples before each reading."""
        return self.reads.ravel().astype(float)

    @cached_property
    def by_place(self) -> Float[np.ndarray, "reading place"]:
        """What the first, second, ... example showed, 0 from the reading on."""
        longest = int(self.reads.max())
        shown = np.asarray(self.history[:, :longest], float)
        before = np.arange(longest) < self.reads[..., None]
        return np.where(before, shown[:, None, :], 0.0).reshape(-1, longest)

    @cached_property
    def by_lag(self) -> Float[np.ndarray, "reading lag"]:
        """What the last example before the reading showed, the one before it, ...; 0 where there was none."""
        longest = int(self.reads.max())
        place = self.reads[..., None] - 1 - np.arange(longest)
        rows = np.arange(len(self.reads))[:, None, None]
        shown = np.asarray(self.history, float)[rows, np.maximum(place, 0)]
        return np.where(place >= 0, shown, 0.0).reshape(-1, longest)

    @cached_property
    def ups(self) -> Float[np.ndarray, " reading"]:
        """Examples that showed rule A."""
        return (self.by_place > 0).sum(1).astype(float)

    @cached_property
    def downs(self) -> Float[np.ndarray, " reading"]:
        """Examples that showed rule B."""
        return (self.by_place < 0).sum(1).astype(float)

    @property
    def signed(self) -> Float[np.ndarray, " reading"]:
        """The sum of what was shown."""
        return self.ups - self.downs

    @property
    def last(self) -> Float[np.ndarray, " reading"]:
        """What the last example showed; 0 where there was none."""
        return self.by_lag[:, 0] if self.by_lag.shape[1] else np.zeros(len(self.n))

    @property
    def of_observer(self) -> Float[np.ndarray, " reading"]:
        """The ideal observer's log-odds, nats; 0 where it is not known."""
        return np.zeros(len(self.n)) if self.observer is None else self.observer.ravel()

    def weighed_by_lag(self, weights: Any) -> Any:
        """Sums of what was shown, each example weighted by how long ago it was.

        Parameters
        ----------
        weights
            Of the last example, the one before it, ...: shape (..., lag).
        """
        return weights @ self.by_lag.T

    def weighed_by_place(self, weights: Any) -> Any:
        """Sums of what was shown, each example weighted by its place; `weights` of shape (..., place)."""
        return weights @ self.by_place.T

    @property
    def ages(self) -> Float[np.ndarray, " lag"]:
        """Examples since each lag's own: 0 for the last, 1 for the one before it, ..."""
        return np.arange(self.by_lag.shape[1], dtype=float)

    def filtered(self, xp: Any, step: Callable[[Any, Any], Any], first: float) -> Any:
        """What a belief has become at every reading, after a step for each example.

        Parameters
        ----------
        xp
            `numpy` or `pytensor.tensor`.
        step
            ``step(belief, shown)``, of shapes (..., seq) and (seq,); a draw of a parameter is a row of shape (draw, 1).
        first
            The belief before any example.
        """
        # Longest first: a sequence that has been read for the last time needs no more steps.
        order = np.argsort(-self.reads[:, -1], kind="stable")
        shown, reads = np.asarray(self.history, float)[order], self.reads[order]
        belief = first + 0 * step(np.full(len(order), first), shown[:, 0])
        values, readings = [], []
        for n in range(int(reads.max()) + 1):
            if n:
                going = int((reads[:, -1] >= n).sum())
                moved = step(belief[..., :going], shown[:going, n - 1])
                belief = moved if going == len(order) else xp.concatenate([moved, belief[..., going:]], axis=-1)
            seq, read = np.nonzero(reads == n)
            if len(seq):
                values.append(belief[..., seq])
                readings.append(order[seq] * reads.shape[1] + read)
        return xp.concatenate(values, axis=-1)[..., np.argsort(np.concatenate(readings))]
