"""Settings of `attribute`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class AttributeSettings:
    """Say how much of the log-odds, and of their growth with examples, each attention head writes, from which
    examples, and whether ablating those heads removes the update.
    """

    curves: Path | None = None
    """A curves file of `collect` (.nc), whose very episodes are run again; the newest in data/curves, if none is
    named."""
    tasks: tuple[str, ...] = ()
    """Tasks of the file; all, if none is named."""
    readout: Literal["complement", "foil", "format", "rule", "parity"] = "complement"
    """complement: log-odds of the whole answer against all else, as `fit` judges them. foil: answer against foil, where
    the two fork. format, rule, parity: of numbers as `collect` has them; of labels as far as the token at which they
    part."""
    token: int | None = None
    """For complement: one token of the answer in place of all, counted from 0 (its terminator counts too), those before
    it standing."""
    n_min: int = 1
    """Examples from which on slopes are taken."""
    model: str = ""
    """The model that the curves were collected from, if it is now somewhere else; its weights must be the same."""
    top: int = 0
    """How many heads the intervention ablates; 0 takes as many as write half of what all heads write."""
    placebos: int = 20
    """Random sets of heads of the same number and norm, ablated for comparison."""
    ablate: bool = True
    """Ablate heads and collect again: most of the time."""
    by_source: bool = True
    """Split heads over the examples they attend to: most of the file."""
    total_steps: int = 8
    """Nodes of the integral that gives total effects, of which one takes a forward and a backward pass; 16 are taken of
    an episode whose effects do not add up with these. 0 leaves total effects out."""
    batch_size: int = 0
    """Episodes a forward pass; 0 takes 1 on a CPU and 16 on a GPU. Results do not depend on it."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    seed: int = 0
    """Decides the fits' draws and the placebo sets."""
    workers: int = 0
    """Processes for the fits of heads; 0 takes one a core, 4 at most."""
    out: Path | None = None
    """The effects file to write (netCDF), with tables beside it; data/effects/NAME.nc of the curves, if none is
    named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME-heads of the curves if none is named."""
    force: bool = False
    """Replace an output that was made from other curves or settings."""
