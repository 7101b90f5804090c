"""`calibrate` as the report reads it: of all calibrations that are there, the one of the curves' size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bayes_icl.calibrate.figures import calibration_figures
from bayes_icl.calibrate.outputs import OUTCOMES
from bayes_icl.calibrate.section import calibration_section
from bayes_icl.calibrate.sentences import calibration_differs
from bayes_icl.calibrate.settings import LEAST, CalibrateSettings
from bayes_icl.core.errors import StatedError
from bayes_icl.core.outputs import problem_of
from bayes_icl.core.provenance import read_record
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import Missing, Stage, StageOutputs

READ = ("outcomes", "ranks", "rank_tests", "recovery", "confusion", "verdicts")  # tables that the page is made from
SETTINGS = {"n_seqs": int, "n_shots": int, "sims": int, "gain": int | float, "hypotheses": list}


def _outcomes(folder: Path) -> pd.DataFrame | None:
    try:
        return OUTCOMES.read(folder / "outcomes.csv")
    except (OSError, ValueError):
        return None


def _record(folder: Path) -> dict[str, Any]:
    """Provenance of a calibration; empty where it is not there or not whole."""
    try:
        return read_record((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _gather(found: StageOutputs, named: Path | None) -> None:
    """Take the calibration of the curves' size, or another, which the page then says."""
    n_seqs, n_shots = (max(size, LEAST[name]) for name, size in zip(("n_seqs", "n_shots"), found.sizes))
    command = f"python -m bayes_icl.calibrate --n-seqs {n_seqs} --n-shots {n_shots}"
    command += f" --figures figures/calibration_{n_seqs}x{n_shots}"
    folders = [named] if named else sorted(path.parent for path in Path("figures").glob("*/outcomes.csv"))
    records = {
        folder: own
        for folder, own in ((folder, _record(folder)) for folder in folders)
        if all(isinstance(own.get("settings", {}).get(name), kind) for name, kind in SETTINGS.items())
        and not problem_of(folder, "calibrate")
        and all((folder / f"{name}.csv").is_file() for name in READ)  # as this version writes them
        and _outcomes(folder) is not None
    }
    if named and not records:
        raise StatedError(f"--calibration {named}: no calibration there; run `{command}`, or leave the flag away")
    if not records:
        found.missing["calibrate"] = Missing("calibrate", "not run", command)
        return

    def distance(folder: Path) -> tuple[bool, int, int]:
        own = records[folder]["settings"]
        differs = calibration_differs(own, (n_seqs, n_shots), found.settings("fit") or None)
        return bool(differs), abs(own["n_seqs"] - n_seqs) + abs(own["n_shots"] - n_shots), -own["n_seqs"]

    folder = min(records, key=distance)
    outcomes = _outcomes(folder)
    assert outcomes is not None
    found.folder["calibrate"], found.records["calibrate"] = folder, records[folder]
    found.tables["calibrate"] = {"outcomes": outcomes}
    found.read += [folder / "provenance.json", *(folder / f"{name}.csv" for name in READ)]
    if distance(folder)[1]:
        found.missing["calibrate"] = Missing("calibrate", "run for curves of another size", command)


def _figures(found: StageOutputs) -> Mapping[str, Figure]:
    drawn = calibration_figures(found.folder["calibrate"])
    return {f"calibration_{name}": figure for name, figure in drawn.items()}


def _sections(found: StageOutputs, quotes: Quotes) -> list[tuple[int, Section]]:
    return [(40, calibration_section(found, quotes))]


STAGE = Stage(
    "calibrate",
    "whether fits of this size can be trusted",
    CalibrateSettings,
    _sections,
    _figures,
    flag="calibration",
    gather=_gather,
)
