"""Settings of `independence`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class IndependenceSettings:
    """Say how much of the update is left when examples cannot attend to one another: in blocks of 1, 2, 4, ...
    examples, in all layers and in parts of them, beside as many attention edges cut elsewhere.
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
    n_min: int = 1
    """Examples from which on the update counts."""
    n_seqs: int = 24
    """The first so many sequences are read; 0 for all. Each takes about 12 log2(examples) times the time of `collect`.
    """
    parts: int = 3
    """Parts of the layers in which edges are cut alone; 1 for all layers only."""
    resamples: int = 2000
    """Bootstrap resamples of sequences."""
    model: str = ""
    """The model that the curves were collected from, if it is now somewhere else; its weights must be the same."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    seed: int = 0
    """Decides the edges that controls cut, and resamples."""
    out: Path | None = None
    """The file of log-odds to write (netCDF), with tables beside it; data/independence/NAME.nc of the curves, if none
    is named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME-independence of the curves if none is named."""
    force: bool = False
    """Replace an output that was made from other curves or settings."""
