"""Settings of `calibrate`: its flags, its ``--help``, its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.hypotheses.laws import RARELY_TOLD

LEAST = {
    "n_seqs": 32,
    "n_shots": 10,
    "sims": 50,
    "confusion_sims": 2,
    "coverage_sims": 30,
    "verdict_sims": 0,
}  # settings


@dataclass(frozen=True)
class CalibrateSettings:
    """Check fits and verdicts on simulated curves of the size of yours; fails if they fall outside the bounds."""

    n_seqs: int = 64
    """Sequences of a simulated set; confusion is also run with a quarter of them."""
    n_shots: int = 32
    """Examples shown at most."""
    gain: float = 9.6
    """Total update of truths that rise, nats."""
    hypotheses: tuple[str, ...] = tuple(
        name for name, h in HYPOTHESES.items() if not h.ceiling and name not in RARELY_TOLD
    )
    """Hypotheses to calibrate; confusion always compares all."""
    sims: int = 200
    """Simulations of each hypothesis: ranks, and recovery."""
    coverage_sims: int = 500
    """Simulations for the coverage of additive's delta and the power law's a."""
    confusion_sims: int = 10
    """Simulations of each truth and noise at the full number of sequences; additive gets four times as many."""
    verdict_sims: int = 60
    """Simulations of each truth that the model does not assume, at each of its numbers of sequences; 0 leaves them
    out."""
    seed: int = 0
    """Seed of everything."""
    workers: int = 0
    """Processes; 0 takes one a core, 4 at most."""
    figures: Path = Path("figures/calibration")
    """Folder for tables and figures."""
    force: bool = False
    """Replace files that were changed since an earlier calibration."""
