"""Kinds of law: one curve for all sequences, a step in each, a function of what each sequence's examples showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# A total update below this, nats, is none: shares of it would be shares of rounding errors.
LEAST_TOTAL = 1e-6


@dataclass(frozen=True)
class Smooth:
    """One mean curve for all sequences: ``curve(xp, n, **parameters)``, up to origin and scale.

    Attributes
    ----------
    has_gain
        False where there is no mean update: `constant`, whose random gains of mean zero act along its line.
    in_nats
        The curve has its own size: the total update follows from its parameters and is not sampled.
    """

    has_gain: bool = True
    in_nats: bool = False

    def updates(self, curve: Any, xp: Any, stats: Any, theta: Mapping[str, Any], gain: Any) -> tuple[Any, Any, Any]:
        """Mean updates and their shares, each of shape (..., update), and the total, nats."""
        g = curve(xp, stats.shots, **theta)
        end = curve(xp, xp.stack([stats.shots[0], stats.n_max]), **theta)
        total = end[..., 1:] - end[..., :1]
        if self.in_nats:
            mean = g[..., 1:] - g[..., :-1]
            return mean, mean / xp.where(xp.abs(total) < LEAST_TOTAL, LEAST_TOTAL, total), total
        f = (g[..., 1:] - g[..., :-1]) / total
        gain = gain if self.has_gain else 0.0
        return gain * f, f, gain

    def terms(self, stats: Any) -> int:
        """Log densities to sum for one draw under normal noise."""
        return 1


SMOOTH = Smooth()


@dataclass(frozen=True)
class Step(Smooth):
    """Each sequence jumps once: `curve` is the log weight of a step at a share n of the way from n_min to n_max."""

    def terms(self, stats: Any) -> int:
        """One for each sequence and place of the step."""
        return int(stats.x.size)


@dataclass(frozen=True)
class Free:
    """Not a rival: a line, and whatever smooth deviation from it the sequences share, its coefficients sampled.

    ``curve(xp, statistics, **parameters)`` is the deviation's updates, nats. The gain is the rise of the best line.

    Attributes
    ----------
    vectors
        For each vector among the parameters, the one that is its sd.
    """

    vectors: Mapping[str, str] = field(default_factory=lambda: {"shape": "bend", "at_shot": "shot_sd"})
    has_gain: bool = True
    in_nats: bool = False

    def updates(self, curve: Any, xp: Any, stats: Any, theta: Mapping[str, Any], gain: Any) -> tuple[Any, Any, Any]:
        """Mean updates of shape (..., update); those of a line; the rise of the best line."""
        line = (stats.shots[1:] - stats.shots[:-1]) / (stats.n_max - stats.shots[0])
        return gain * line + curve(xp, stats, **theta), line, gain

    def terms(self, stats: Any) -> int:
        """The vectors are integrated out."""
        return 1


@dataclass(frozen=True)
class OfHistory:
    """What each sequence's examples showed makes its curve: ``curve(xp, past, **parameters)``, its f at every reading.

    The mean of L is then w f, with a weight w, and what the curve gives beside f, nats, where it gives a pair.

    Attributes
    ----------
    weighted
        False where f has its own size, nats: the weight is 1.
    uses_examples
        False for the rival that ignores what they show, and has no weight of each sequence's own.
    free
        Not a rival: f follows no law, and the vector among the parameters is integrated out.
    rival
        False where it only describes, as `combined`.
    """

    weighted: bool = True
    uses_examples: bool = True
    free: bool = False
    rival: bool = True
    has_gain: bool = False
    in_nats: bool = False

    def terms(self, stats: Any) -> int:
        """Numbers in the largest array for one draw: all readings."""
        return int(stats.x.size)


Kind = Smooth | Free | OfHistory
