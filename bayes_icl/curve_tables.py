"""Curves from a table of rows, one a task, sequence and shot."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from bayes_icl.core.errors import MOST, StatedError
from bayes_icl.core.inputs import read_table_file

DIMS = ("task", "readout", "seq", "shot")

INFINITE = "infinite values come from probabilities that were rounded to 0 or 1: compute log-odds from logits"

UNKNOWN = ("", "NA", "NaN", "nan")  # cells of what is not known

OPTIONAL = ("readout", "evidence", "family", "history", "observer")


def curves_from_table(path: Path) -> xr.Dataset:
    """The curves of a CSV table, as `bayes_icl.curves.read_curves` describes its columns."""
    lines, columns = read_table_file(path, ("task", "seq", "shot", "log_odds"), OPTIONAL)
    for name in ("task", "readout", "seq"):
        if "" in columns.get(name, ()):
            raise StatedError(f"{path} line {lines[columns[name].index('')]}: the {name} is empty")
    shots = _numbers(path, lines, "shot", columns["shot"])
    if (wrong := (shots < 0) | (shots % 1 != 0) | (shots > MOST)).any():
        at = int(wrong.argmax())
        bound = f"{MOST} or less" if shots[at] > MOST else "0 or more"
        raise StatedError(
            f"{path} line {lines[at]}: a shot is a whole number of examples, {bound}, not {columns['shot'][at]}"
        )
    table = pd.DataFrame(
        {
            "task": columns["task"],
            "readout": columns.get("readout", ["complement"] * len(lines)),
            "seq": _whole(columns["seq"]),
            "shot": shots.astype(np.int64),
            "log_odds": _numbers(path, lines, "log_odds", columns["log_odds"]),
            "line": lines,
        }
    )
    if (twice := table.duplicated([*DIMS])).any():
        row = table[twice].iloc[0]
        same = table.line[(table[[*DIMS]] == row[[*DIMS]]).all(axis=1)]
        raise StatedError(
            f"{path}: task {row.task}, seq {row.seq}, shot {row.shot}, {row.readout} stands there twice (lines "
            f"{' and '.join(map(str, same[:2]))}): keep one"
        )
    _check_rows(path, table)
    families = _families(path, columns["task"], columns["family"]) if "family" in columns else None
    dataset = table.set_index([*DIMS])[["log_odds"]].to_xarray()
    for name in ("evidence", "observer"):
        if name in columns:
            known = ["nan" if cell in UNKNOWN else cell for cell in columns[name]]
            table[name] = _numbers(path, lines, name, known)
            dataset[name] = _of_shots(path, table, name)
    if "history" in columns:
        dataset["history"] = _history(path, table, columns["history"], dataset)
    if families:
        dataset["family"] = ("task", [families[task] for task in dataset.task.values])
    return dataset


def _of_shots(path: Path, table: pd.DataFrame, name: str) -> xr.DataArray:
    """A column that is of the shot, and so the same in all readouts."""
    places = table.groupby(["task", "seq", "shot"])[name]
    if (differ := places.transform("nunique", dropna=False) > 1).any():
        row = table[differ].iloc[0]
        raise StatedError(
            f"{path}: task {row.task}, seq {row.seq}, shot {row.shot} has another {name} in another readout: "
            "it is that of the example, the same in all"
        )
    return places.first().to_xarray()


SIGNS = {"+": 1.0, "-": -1.0, "0": 0.0}


def _history(path: Path, table: pd.DataFrame, cells: list[str], dataset: xr.Dataset) -> xr.DataArray:
    """What examples showed: by shot, where every cell is one number, else by place, from all before each query."""
    cells = ["" if cell in UNKNOWN else cell.strip().strip("[]()") for cell in cells]
    if all(re.fullmatch(r"|[+-]?[01](\.0*)?", cell) for cell in cells):
        table["history"] = [float(cell) if cell else np.nan for cell in cells]
        return _of_shots(path, table, "history")
    before = [_signs(path, line, shot, cell) for line, shot, cell in zip(table.line, table["shot"], cells)]
    longest = max(map(len, before))
    places = ["task", "seq", "place"]
    shape = (dataset.sizes["task"], dataset.sizes["seq"], longest)
    values = np.full(shape, np.nan)
    at = {name: {key: i for i, key in enumerate(dataset[name].values.tolist())} for name in ("task", "seq")}
    for line, task, seq, shown in zip(table.line, table["task"], table["seq"], before):
        row = values[at["task"][task], at["seq"][seq]]
        known = row[: len(shown)]
        if (np.isfinite(known) & (known != shown)).any():
            raise StatedError(
                f"{path} line {line}: the history of task {task}, seq {seq} is not that of its other rows, gone on: "
                "give every text a seq of its own"
            )
        row[: len(shown)] = shown
    return xr.DataArray(values, dims=places)


def _signs(path: Path, line: int, shot: int, cell: str) -> list[float]:
    """What all examples before a query showed, from a cell."""
    parts = re.split(r"[\s,;]+", cell) if re.search(r"[\s,;]", cell) else re.findall(r"[+-]1|.", cell)
    shown = [SIGNS.get(part, {"1": 1.0, "+1": 1.0, "-1": -1.0}.get(part, np.nan)) for part in parts if part]
    if np.isnan(shown).any() or len(shown) != shot:
        raise StatedError(
            f"{path} line {line}: history must say what each of the {shot} examples before the query showed, as in "
            f"{'+-+0'[: max(min(shot, 4), 1)]!r} (+ rule A, - rule B, 0 neither), got {cell[:40]!r}"
            + (f", which has {len(shown)}" if not np.isnan(shown).any() else "")
        )
    return shown


def _families(path: Path, tasks: list[str], families: list[str]) -> dict[str, str]:
    """The family of each task, the same in all its rows."""
    found: dict[str, str] = {}
    for task, family in zip(tasks, families):
        if not family or found.setdefault(task, family) != family:
            raise StatedError(
                f"{path}: task {task} is of the families {found.get(task, '')!r} and {family!r}: give it one, in "
                "all its rows"
            )
    return found


def _numbers(path: Path, lines: list[int], name: str, cells: list[str]) -> Float[np.ndarray, " row"]:
    """A column of numbers, exactly as they are written."""
    found = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            found[i] = float(cell) if "_" not in cell else float("one number")
        except ValueError:
            raise StatedError(f"{path} line {lines[i]}: {name} must be a number, got {cell!r}") from None
        if np.isnan(found[i]) and name not in ("evidence", "observer"):
            raise StatedError(f"{path} line {lines[i]}: {name} must be a number, got {cell!r}")
        if np.isinf(found[i]):
            raise StatedError(f"{path} line {lines[i]}: {name} is {cell}; {INFINITE}")
    return found


def _whole(cells: list[str]) -> list[int] | list[str]:
    """Sequences are numbered, or have names."""
    return [int(cell) for cell in cells] if all(re.fullmatch("-?[0-9]{1,18}", cell) for cell in cells) else cells


def _check_rows(path: Path, table: pd.DataFrame) -> None:
    """State the first sequence that lacks a row: its curve would have a hole, or end early."""
    shots = np.unique(table.shot)
    if not table.duplicated(["task", "readout", "seq"]).any():
        return  # single prompts
    have = table.groupby(["task", "readout", "seq"], sort=False).shot.agg(set)
    short = have[have.map(len) < len(shots)]
    if len(short):
        (task, readout, seq), own = short.index[0], short.iloc[0]
        lacking = sorted(set(shots.tolist()) - own)
        raise StatedError(
            f"{path}: task {task}, readout {readout}, seq {seq} has no row for shot {', '.join(map(str, lacking[:5]))}"
            f"{', ...' if len(lacking) > 5 else ''}; {len(short)} of {len(have)} sequences lack rows: each "
            f"needs all shots of the table ({shots[0]} to {shots[-1]}), and tasks of other lengths a table of their own"
        )
