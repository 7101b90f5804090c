"""Settings of `collect`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CollectSettings:
    """Read a model's log-odds of the correct answer after 0 to n-shots examples, and write them as a curves file."""

    model: str = "smollm2"
    """`smollm2`, `tiny`, `organism:coin` (and others whose law is known), a .gguf file, a local folder, or a Hugging
    Face id."""
    tasks: tuple[str, ...] = ()
    """Built-in tasks, with settings if wanted (`affine:slope=3,intercept=1,low=10,high=49`), and .csv, .jsonl or .py
    files of your own; `affine~affine:intercept=5`: two rules over the same queries; `coin:bias=0.75`, `urn:colours=3`,
    `markov:states=3`: symbols without a query. If none is named, copy, times_ten, past_tense and category; of an
    organism, its own."""
    design: tuple[str, ...] = ("plain",)
    """What the examples show; every task is read under every design. `plain`: the answers. Rule B is that of the
    foils: `noise:p=0.2` (B at random), `switch:at=16` (first A, then B), `mixed:share=0.5` (B in that share),
    `orders:k=8` (the same examples in k orders). `repeat:times=4`: few examples, again and again. `prior:text=...`: a
    text in front of the examples. `blocks:size=1`: examples that do not attend to one another."""
    n_shots: int = 32
    """Most examples shown; every smaller number is read in the same pass."""
    n_seqs: int = 64
    """Sequences (episodes) a task."""
    seed: int = 0
    """Decides which examples an episode draws."""
    readouts: tuple[str, ...] = ()
    """Readouts to record; all that each task has, if none is named. `complement` alone is quickest."""
    martingale: bool = False
    """Record the martingale gap of tasks with labels too: what the model expects to say after one more example, less
    what it says now."""
    batch_size: int = 0
    """Episodes a forward pass; 0 takes 1 on a CPU and 16 on a GPU. Results do not depend on it."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    out: Path = Path("data/curves/demo.nc")
    """The curves file to write (netCDF)."""
    force: bool = False
    """Replace an output that was made with other settings."""
