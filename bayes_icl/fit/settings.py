"""Settings of `fit`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bayes_icl.hypotheses.law import HISTORY_LAWS, HYPOTHESES
from bayes_icl.hypotheses.laws import RARELY_TOLD


@dataclass(frozen=True)
class FitSettings:
    """Fit the hypotheses to a curves file, compare them, and give a verdict on the additive one."""

    curves: Path | None = None
    """A curves file (.nc), or a .csv with the columns task, seq, shot, log_odds; the newest in data/curves if none is
    named."""
    tasks: tuple[str, ...] = ()
    """Tasks of the file to fit; all, if none is named."""
    readout: tuple[str, ...] = ("complement", "rule")
    """Readouts to fit where a task has them; the first is the headline."""
    n_min: tuple[int, ...] = (1, 0, 2)
    """Examples from which on the curve is fitted; the first is the headline. The first example teaches the form
    of an answer and, on some tasks, most of the rule, and is worth many later ones."""
    hypotheses: tuple[str, ...] = (
        *(name for name in HYPOTHESES if name not in RARELY_TOLD),
        *HISTORY_LAWS,
    )
    """Hypotheses to compare. Verdicts rest on freeform and per_lag, which are always fitted. Laws of history (trend to
    combined) are fitted where examples disagree or an observer is known. nll_bounded, nll_logistic and scaling_law,
    rarely told from others, are fitted if named."""
    hypotheses_from: Path | None = None
    """A Python file that registers hypotheses of your own; they are compared beside the others."""
    engine: Literal["auto", "fast", "nuts"] = "auto"
    """fast: importance sampling for everything (seconds a task). nuts: the PyMC models for everything but the
    sensitivity table and exact refits. auto: fast for the scores, NUTS for the posteriors of additive and of the
    simplest survivor, and how far the two agree. NUTS steps in where the fast engine's diagnostics are bad on a
    headline, but for scaling_law."""
    departure: float = 0.05
    """Region of practical equivalence: a mean curve that is nowhere further from its best line than this share of the
    total update is straight."""
    small: float = 0.5
    """A total update within this many nats of 0 is none."""
    noise: Literal["normal", "student"] = "normal"
    """Noise of a whole sequence: normal, or heavy-tailed (multivariate t), which odd sequences do not sway."""
    sensitivity: bool = True
    """Give the verdict with the other noise too."""
    pool: bool = False
    """Pool delta, each task's slope by sequence, over tasks and families of tasks: its mean and spread over such."""
    draws: int = 2000
    """NUTS: posterior draws a chain."""
    tune: int = 1000
    """NUTS: warm-up draws a chain."""
    chains: int = 4
    """NUTS: chains; convergence is judged between them."""
    seed: int = 0
    """Seed of both engines."""
    workers: int = 0
    """Processes; 0 takes one a core, 4 at most."""
    out: Path | None = None
    """Folder for the fits, the tables and verdict.json; data/fits/NAME of the curves if none is named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME of the curves if none is named."""
    force: bool = False
    """Replace fits that were made from other curves or settings."""


NOISES = ("normal", "student")

ENGINES = ("auto", "fast", "nuts")
