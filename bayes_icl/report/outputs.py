"""What the stages have left for a curves file, as far as it is whole and of that file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import beside, sha256
from bayes_icl.core.outputs import problem_of
from bayes_icl.core.provenance import read_record, record_of
from bayes_icl.report.stages import STAGES
from bayes_icl.writing.numbers import unmarked
from bayes_icl.writing.stage import Missing, Stage, StageOutputs


def gather(path: Path, curves: xr.Dataset, named: Mapping[str, Path | None] | None = None) -> StageOutputs:
    """Read what the stages have left for a curves file.

    Parameters
    ----------
    path, curves
        The curves file and its content.
    named
        Where a stage wrote, by the report's setting that names it; its default place, if None.

    Raises
    ------
    StatedError
        A stage's output that was named is not there, not whole, or of other curves. What stands at a default place and
        is of other curves is left out and said to be missing.
    """
    found = StageOutputs(path, curves, read=[path])
    found.records["collect"] = record_of(curves)
    for stage in STAGES.values():
        own = (named or {}).get(stage.flag)
        if stage.gather:
            stage.gather(found, own)
        elif stage.place:
            _gather(found, stage, own)
    return found


def _gather(found: StageOutputs, stage: Stage, named: Path | None) -> None:
    """Read a stage's output, or say why it is missing."""
    assert stage.place is not None
    place = named or stage.place(found.path)
    command = f"python -m bayes_icl.{stage.name} --curves {shlex.quote(str(found.path))}"
    record, file = _read_record(place), place.suffix == ".nc"
    why = ""
    if record is None:
        why = f"{place} is not whole" if place.exists() else "not run"
    elif sha256(found.path) not in record.get("inputs", {}).values():
        why = f"{place} was made from other curves"
    elif problem := problem_of(*((place.parent, place.name) if file else (place, stage.name))):
        why = f"{place} is not as {stage.name} wrote it: {problem}"
    elif not _take(found, stage, place, record):
        why = f"{place} is not whole, or was not written by this version of {stage.name}"
    if named:
        command += f" --out {shlex.quote(str(named))}"
    if why and why != "not run":
        command += " --force"  # something stands there
    if why and named:
        problem = "nothing there" if why == "not run" else why.removeprefix(f"{place} ")
        raise StatedError(f"--{stage.flag} {place}: {problem}; run `{command}`, or leave the flag away")
    if why == "not run" and file and "model" not in found.records["collect"]:
        why, command = "these curves name no model that could be run again", "python -m bayes_icl.collect"
    if why:
        found.missing[stage.name] = Missing(stage.name, why, command)


def _take(found: StageOutputs, stage: Stage, place: Path, record: dict[str, Any]) -> bool:
    """Read a stage's tables and facts; whether they are all there, as this version writes them."""

    def file(end: str) -> Path:
        return beside(place, end) if place.suffix == ".nc" else place / end

    paths = {name: file(f"{name}.csv") for name in stage.tables}
    name_of_facts, keys = stage.facts
    try:
        tables = {
            name: table.read(paths[name]).map(lambda x: unmarked(x) if isinstance(x, str) else x)
            for name, table in stage.tables.items()
        }
        written = json.loads(file(name_of_facts).read_text(encoding="utf-8"))
        facts = stage.parse(json.loads(unmarked(json.dumps(written, ensure_ascii=False))))
    except (OSError, ValueError, RecursionError):  # pandas' own errors are ValueErrors
        return False
    known = isinstance(facts, dict) and bool(facts)
    if not known or not all(isinstance(own, dict) and keys <= own.keys() for own in facts.values()):
        return False
    found.tables[stage.name], found.facts[stage.name] = tables, facts
    found.folder[stage.name], found.records[stage.name] = place, record
    found.read += [_whole(place), file(name_of_facts), *paths.values()]
    return True


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
