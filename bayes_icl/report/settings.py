"""Settings of `report`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportSettings:
    """Write one HTML page, self-contained, of whatever stages were run on a curves file; beside it every figure as PDF
    and SVG, every table as CSV and LaTeX, and every number that the page quotes.
    """

    curves: Path | None = None
    """The curves file; the newest in data/curves if none is named."""
    fits: Path | None = None
    """Folder that `fit` wrote; data/fits/NAME of the curves if none is named."""
    effects: Path | None = None
    """File that `attribute` wrote; data/effects/NAME.nc of the curves if none is named."""
    atlas: Path | None = None
    """Folder that `atlas` wrote; data/atlas/NAME of the curves if none is named."""
    patch: Path | None = None
    """File that `patch` wrote; data/patch/NAME.nc of the curves if none is named."""
    addition: Path | None = None
    """File that `addition` wrote; data/addition/NAME.nc of the curves, if none is named."""
    independence: Path | None = None
    """File that `independence` wrote; data/independence/NAME.nc of the curves, if none is named."""
    calibration: Path | None = None
    """Folder that `calibrate` wrote; among those in figures/ the one of the curves' size, if none is named."""
    controls: Path | None = None
    """Folder that `fit` wrote of organisms, whose law is known; those in data/fits/controls* if none is
    named."""
    out: Path | None = None
    """The page to write (.html); reports/NAME.html of the curves if none is named. What belongs to it goes into the
    folder of the same name."""
    figures: Path | None = None
    """Folder for the figures (PDF and SVG); NAME/figures beside the page if none is named."""
    force: bool = False
    """Replace a file that is no report."""
