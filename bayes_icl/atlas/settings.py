"""Settings of `atlas`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class AtlasSettings:
    """Map every attention head: what it writes and carries of the update, its function-vector, induction and attention
    scores, which of these agree, and what goes when groups of heads are ablated.
    """

    curves: Path | None = None
    """A curves file of `collect` (.nc), whose very episodes are run again; the newest in data/curves, if none is
    named."""
    tasks: tuple[str, ...] = ()
    """Tasks of the file; all, if none is named."""
    readout: Literal["complement", "foil"] = "complement"
    """What is attributed, as for `attribute`. Function-vector scores are always of a token against all others."""
    token: int | None = None
    """Which token of the answer is read, as for `attribute`."""
    n_min: int = 1
    """Examples from which on slopes are taken."""
    n_seqs: int = 16
    """Sequences of each task, the first of the file; 0 takes all."""
    n_examples: int = 8
    """Examples shown where attention and function vectors are taken; as many as there are, if there are fewer."""
    total_steps: int = 8
    """Nodes of the integral that gives total effects; 16 are taken of an episode whose effects do not add up with
    these."""
    group: int = 8
    """Heads of a group that is ablated; a quarter of all heads at most."""
    placebos: int = 5
    """Random groups of heads of the same number and norm beside each group; 0 ablates no groups."""
    model: str = ""
    """The model that the curves were collected from, if it is now somewhere else; its weights must be the same."""
    batch_size: int = 0
    """Episodes a pass; 0 takes 1 on a CPU and 16 on a GPU. Results do not depend on it."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    seed: int = 0
    """Decides permutations, random texts, placebo groups and resamples."""
    out: Path | None = None
    """The folder to write; data/atlas/NAME of the curves, if none is named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME-atlas of the curves if none is named."""
    force: bool = False
    """Replace an output that was made from other curves or settings."""
