"""Settings of `patch`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class PatchSettings:
    """Say at which layer a task that examples show is recovered into a prompt without them, which heads take over when
    those before it are ablated, how many can go, and whether the model works in the three steps of
    Skunnavakkam (2024).
    """

    curves: Path | None = None
    """A curves file of `collect` (.nc), whose very episodes are run again; the newest in data/curves, if none is
    named."""
    tasks: tuple[str, ...] = ()
    """Tasks of the file; all, if none is named."""
    n_examples: int = 8
    """Examples that run A shows before its query; run B shows none."""
    n_seqs: int = 0
    """Sequences, each paired with another one's query; at least 4, and 0 takes all."""
    token: int | None = None
    """Which token of the answer is read, counted from 0; else the first that tells the task's answers apart."""
    position: Literal["last", "query", "separator", "answers"] = "last"
    """Where A's residual stream is put into B: at the last position before the answer, the last token of the query, the
    tokens between query and answer; or at the answers of earlier examples, B then showing them permuted."""
    kind: Literal["zero", "mean", "resample"] = "mean"
    """What replaces an ablated head: nothing, its mean output over reference episodes at the same role, or that
    in one of them. Rounds are led by this kind; transfer is read in all three, backup heads and steps in two."""
    reference: Literal["shuffled", "task"] = "shuffled"
    """Reference episodes: these with their answers permuted among the examples, which show no rule; or the task's
    episodes as they are (the next one, for resample), whose mean holds the task as well."""
    ablate: tuple[str, ...] = ()
    """Heads to ablate in round 1, in place of all in the layers before the transfer layer: L12H3, 12, 10-11, top8."""
    ablate_at: Literal["everywhere", "last", "query", "separator", "answer"] = "everywhere"
    """Tokens at which heads are ablated in rounds: all, the last, or those of a role."""
    ranks: Path | None = None
    """A table of heads for `--ablate top8`, as heads.csv of `attribute` or `patch`."""
    rank_by: str = "slope"
    """Its column to rank by."""
    before: int = 2
    """How many layers just before the transfer layer round 1 ablates."""
    rounds: int = 4
    """Most rounds of ablation; 0 for none."""
    backups: int = 8
    """Most backup heads to name, and to ablate, in a round."""
    ladder: bool = False
    """Climb the rounds as the post has them too: by each kind of ablation, all heads of the `before` layers below every
    new transfer layer go, while A's own answer holds; attention patterns before and after, and features of the
    answer layer by layer."""
    placebos: int = 3
    """Random sets of as many heads and as large norms for each round, and random orders for the redundancy curve."""
    singles_everywhere: bool = False
    """Where each head is ablated by itself: at every token, not only at the last; some forty times as long."""
    steps: bool = True
    """Test the three steps of Skunnavakkam (2024)."""
    model: str = ""
    """The model that the curves were collected from, if it is now somewhere else; its weights must be the same."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    seed: int = 0
    """Decides permuted references, placebo sets, random orders and bootstrap resamples."""
    out: Path | None = None
    """The effects file to write (netCDF), with tables beside it; data/patch/NAME.nc of the curves, if none is named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME-patch of the curves if none is named."""
    force: bool = False
    """Replace an output that was made from other curves or settings."""
