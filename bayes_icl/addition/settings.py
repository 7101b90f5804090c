"""Settings of `addition`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AdditionSettings:
    """Say whether every example adds the same vector to the residual stream where the answer is read, layer by layer,
    and whether adding that vector does what examples do.
    """

    curves: Path | None = None
    """A curves file of `collect` (.nc), whose very episodes are run again; the newest in data/curves, if none is
    named."""
    tasks: tuple[str, ...] = ()
    """Tasks of the file; all, if none is named."""
    token: int | None = None
    """Which token of the answer is read, counted from 0; else the first that tells the task's answers apart."""
    few: int = 2
    """Examples that are shown where vectors are added in place of more."""
    doses: tuple[int, ...] = (2, 4, 6, 10, 14)
    """How many examples' worth of the vector is added; those beyond the curves' examples are left out."""
    fits: bool = True
    """Fit the laws to the amounts along the vector, and give a verdict: most of the time."""
    resamples: int = 500
    """Bootstrap resamples of sequences."""
    model: str = ""
    """The model that the curves were collected from, if it is now somewhere else; its weights must be the same."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    seed: int = 0
    """Decides permutations, random directions, resamples and the fits' draws."""
    out: Path | None = None
    """The file of amounts to write (netCDF), with tables beside it; data/addition/NAME.nc of the curves, if none is
    named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME-addition of the curves if none is named."""
    force: bool = False
    """Replace an output that was made from other curves or settings."""
