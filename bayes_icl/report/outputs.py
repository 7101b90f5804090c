"""What the stages have left for a curves file, as far as it is whole and of that file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayes_icl.attribute.outputs import ABLATION_COLUMNS, ATTRIBUTE_TABLES, HEAD_COLUMNS, REPAIR_COLUMNS
from bayes_icl.calibrate.sentences import calibration_differs
from bayes_icl.calibrate.settings import LEAST
from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import beside, read_table, sha256
from bayes_icl.core.outputs import problem_of
from bayes_icl.core.provenance import read_record, record_of
from bayes_icl.fit.checks import CHECK_COLUMNS
from bayes_icl.fit.outputs import COMPARISON_COLUMNS
from bayes_icl.fit.verdict import Verdict
from bayes_icl.patch.outputs import PATCH_COLUMNS, PATCH_TABLES
from bayes_icl.writing.numbers import unmarked
from bayes_icl.writing.stage import Found, Missing

STAGES = {
    "collect": "the curves",
    "fit": "verdicts, laws, delta",
    "attribute": "which heads write the update",
    "patch": "where the task forms, which heads take over, the post's three steps",
    "calibrate": "whether fits of this size can be trusted",
}


def gather(
    path: Path,
    curves: xr.Dataset,
    *,
    fits: Path | None = None,
    effects: Path | None = None,
    patch: Path | None = None,
    calibration: Path | None = None,
) -> Found:
    """Read what the stages have left for a curves file.

    Parameters
    ----------
    path, curves
        The curves file and its content.
    fits, effects, patch, calibration
        Where the stages wrote; their default places, if None.

    Raises
    ------
    StatedError
        A stage's output that was named is not there, not whole, or of other curves. What stands at a default place and
        is of other curves is left out and said to be missing.
    """
    found = Found(path, curves, read=[path])
    found.records["collect"] = record_of(curves)
    digest = sha256(path)
    places = {
        "fit": (fits, Path("data/fits") / path.stem),
        "attribute": (effects, Path("data/effects") / f"{path.stem}.nc"),
        "patch": (patch, Path("data/patch") / f"{path.stem}.nc"),
    }
    for stage, (named, default) in places.items():
        place = named or default
        command = f"python -m bayes_icl.{stage} --curves {shlex.quote(str(path))}"
        record = _read_record(place)
        why = ""
        if record is None:
            why = f"{place} is not whole" if place.exists() else "not run"
        elif digest not in record.get("inputs", {}).values():
            why = f"{place} was made from other curves"
        elif problem := problem_of(*((place, "fit") if stage == "fit" else (place.parent, place.name))):
            why = f"{place} is not as {stage} wrote it: {problem}"
        elif not _take(found, stage, place, record):
            why = f"{place} is not whole, or was not written by {stage}"
        if named:
            command += f" --out {shlex.quote(str(named))}"
        if why and why != "not run":
            command += " --force"  # something stands there
        if why and named:
            raise StatedError(
                f"--{FLAG[stage]} {place}: {_problem(why, place)}; run `{command}`, or leave the flag away"
            )
        if why == "not run" and stage != "fit" and "model" not in found.records["collect"]:
            why, command = "these curves name no model that could be run again", "python -m bayes_icl.collect"
        if why:
            found.missing[stage] = Missing(stage, why, command)
    _gather_calibration(found, calibration)
    return found


def _take(found: Found, stage: str, place: Path, record: dict[str, Any]) -> bool:
    """Read a stage's tables and facts; whether they are all there."""

    def file(end: str) -> Path:
        return place / end if stage == "fit" else beside(place, end)

    tables = {name: file(f"{name}.csv") for name in _tables_of(stage)}
    facts = file("verdict.json" if stage == "fit" else "json")
    try:
        found.tables[stage] = {
            name: read_table(path).map(lambda x: unmarked(x) if isinstance(x, str) else x)
            for name, path in tables.items()
        }
        written = json.loads(facts.read_text(encoding="utf-8"))
        found.facts[stage] = json.loads(unmarked(json.dumps(written, ensure_ascii=False)))
        if not _as_written(stage, found.tables[stage], found.facts[stage]):
            raise ValueError
    except (OSError, ValueError, RecursionError):  # pandas' own errors are ValueErrors
        found.tables.pop(stage, None)
        found.facts.pop(stage, None)
        return False
    found.folder[stage], found.records[stage] = place, record
    found.read += [_whole(place), facts, *tables.values()]
    return True


def _as_written(stage: str, tables: dict[str, pd.DataFrame], facts: Any) -> bool:
    """Whether tables and facts have what the page reads: those of another version or tool may not."""
    keys = {
        "fit": set(Verdict("", "", 0, "", []).as_json()) | {"others"},
        "attribute": {"n_min", "readout", "token", "delta", "slope_head", "share_head", "stands_out"},
        "patch": {"taught", "kind", "position", "backups_sought", "rule_measured", "n_examples"},
    }[stage]
    columns: dict[str, list[str]] = {
        "fit": {
            "comparison": COMPARISON_COLUMNS,
            "checks": [*CHECK_COLUMNS, "task"],
            "sensitivity": [
                *("task", "readout", "n_min", "priors", "noise", "verdict", "named", "seqs_needed", "headline"),
                *("delta_mean", "delta_hdi_low", "delta_hdi_high"),
            ],
            "engines": ["task", "hypothesis", "parameter", "shift", "shift_se", "sd_ratio"],
        },
        "attribute": {"heads": HEAD_COLUMNS, "ablation": ABLATION_COLUMNS, "repair": REPAIR_COLUMNS},
        "patch": PATCH_COLUMNS,
    }[stage]
    return (
        isinstance(facts, dict)
        and bool(facts)
        and all(isinstance(own, dict) and keys <= own.keys() for own in facts.values())
        and all(set(wanted) <= set(tables[name]) for name, wanted in columns.items())
    )


FLAG = {"fit": "fits", "attribute": "effects", "patch": "patch"}


def _problem(why: str, place: Path) -> str:
    return "nothing there" if why == "not run" else why.removeprefix(f"{place} ")


def _tables_of(stage: str) -> tuple[str, ...]:
    return {
        "fit": ("comparison", "sensitivity", "checks", "engines"),
        "attribute": ATTRIBUTE_TABLES,
        "patch": PATCH_TABLES,
    }[stage]


def _whole(place: Path) -> Path:
    """The file with which a stage's output is whole."""
    return place if place.suffix == ".nc" else place / "provenance.json"


def _read_record(place: Path) -> dict[str, Any] | None:
    """Provenance of a stage's output; None where it is not there or not whole."""
    try:
        if place.suffix != ".nc":
            return read_record(_whole(place).read_text(encoding="utf-8")) or None
        with xr.open_dataset(place, engine="h5netcdf") as dataset:
            return record_of(dataset)
    except Exception:  # h5py raises many kinds on damaged files
        return None


def _gather_calibration(found: Found, named: Path | None) -> None:
    """The calibration of the curves' size, or another, which the page then says."""
    n_seqs, n_shots = (max(size, LEAST[name]) for name, size in zip(("n_seqs", "n_shots"), found.sizes))
    command = f"python -m bayes_icl.calibrate --n-seqs {n_seqs} --n-shots {n_shots}"
    command += f" --figures figures/calibration_{n_seqs}x{n_shots}"
    folders = [named] if named else sorted(path.parent for path in Path("figures").glob("*/outcomes.csv"))
    found_there = {folder: _read_record(folder) or {} for folder in folders}

    def outcomes(folder: Path) -> pd.DataFrame | None:
        try:
            table = read_table(folder / "outcomes.csv")
        except (OSError, ValueError):
            return None
        return table if {"what", "value", "bound", "holds"} <= set(table) else None

    kinds = {"n_seqs": int, "n_shots": int, "sims": int, "gain": int | float, "hypotheses": list}
    records = {
        folder: own
        for folder, own in found_there.items()
        if all(isinstance(own.get("settings", {}).get(name), kind) for name, kind in kinds.items())
        and not problem_of(folder, "calibrate")
        and outcomes(folder) is not None
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
    found.folder["calibrate"], found.records["calibrate"] = folder, records[folder]
    found.tables["calibrate"] = {"outcomes": outcomes(folder)}
    names = ("outcomes", "ranks", "rank_tests", "recovery", "confusion")
    found.read += [_whole(folder), *(folder / f"{name}.csv" for name in names)]
    if distance(folder)[1]:
        found.missing["calibrate"] = Missing("calibrate", "run for curves of another size", command)
