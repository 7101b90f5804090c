"""What users bring: tables, read strictly, and Python files, run once.

A table that is not quite one is a stated error with its line: a cell too many would shift its neighbours, and a label
be scored as a wrong answer.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from bayes_icl.core.errors import StatedError, is_text


class Table(NamedTuple):
    """The rows of a table.

    Attributes
    ----------
    lines
        The line of the file on which each row begins, counted from 1.
    columns
        The cells of each column, stripped of spaces around them; an empty one is "".
    """

    lines: list[int]
    columns: dict[str, list[str]]


def read_table_file(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Read a CSV or, by its ending, a JSONL file; names of columns are taken in lower case.

    Parameters
    ----------
    path
        The file.
    needed, optional
        Columns. What the table has beside them is read too, and checked as strictly.

    Raises
    ------
    StatedError
        Not UTF-8, not a table, no rows, a column that is missing or stands there twice, or a row with more or fewer
        cells than the header; with its line.
    """
    text = _text(path)
    table = _jsonl(path, text, needed) if path.suffix.lower() == ".jsonl" else _csv(path, text)
    missing = [name for name in needed if name not in table.columns]
    if missing:
        wanted = ", ".join(needed) + (f" and perhaps {', '.join(optional)}" if optional else "")
        found = ", ".join(table.columns) or "none"
        only = next(iter(table.columns), "") if len(table.columns) == 1 else ""
        comma = "; columns are separated by commas" if any(mark in only for mark in ";\t|") else ""
        raise StatedError(
            f"{path}: expected the columns {wanted}; missing: {', '.join(missing)}; found: {found!r}{comma}"
            if text.strip()
            else f"{path} is empty: expected the columns {wanted}"
        )
    if not table.lines:
        raise StatedError(f"{path} has no rows below its header")
    return table


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StatedError(f"{path} is UTF-16 text: save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")  # Excel puts a byte-order mark first
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise StatedError(
            f"{path} line {line}: byte 0x{raw[error.start]:02x} is not UTF-8 text: save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise StatedError(
            f"{path} line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL byte: this is no text file"
        )
    return text


def _cells(n: int) -> str:
    return f"{n} cell{'' if n == 1 else 's'}"


def _csv(path: Path, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    lines, rows = [], []
    begin = 1
    try:
        for row in reader:
            if row:  # not an empty line
                lines.append(begin)
                rows.append([cell.strip() for cell in row])
            begin = reader.line_num + 1
    except csv.Error as error:
        raise StatedError(f"{path} line {begin} is not readable as CSV: {error} (is a quote left open?)") from None
    if not rows:
        return Table([], {})
    header = [name.lower() for name in rows[0]]
    while header and not header[-1]:
        header.pop()
    _check_names(path, lines[0], header)
    rows, lines = rows[1:], lines[1:]
    # A comma at the end of every line is a column without name and cells; at the end of some it is a slip.
    widths = {len(row) for row in rows}
    regular = len(widths) == 1 and min(widths) > len(header) and not any(any(row[len(header) :]) for row in rows)
    width = widths.pop() if regular else len(header)
    for line, row in zip(lines, rows):
        if len(row) != width:
            hint = "quote cells with a comma" if len(row) > width else "an empty cell needs its comma too"
            raise StatedError(f"{path} line {line} has {_cells(len(row))}, the header {width}: {hint}")
    return Table(lines, {name: [row[i] for row in rows] for i, name in enumerate(header)})


def _check_names(path: Path, line: int, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if not name:
            raise StatedError(f"{path} line {line}: column {i + 1} of the header has no name")
        if name in names[:i]:
            raise StatedError(f"{path} line {line}: the column {name} stands there twice")


def _jsonl(path: Path, text: str, needed: Sequence[str]) -> Table:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name.strip().lower() for name, _ in pairs]
        _check_names(path, line, names)
        return dict(zip(names, (value for _, value in pairs)))

    lines, rows = [], []
    for line, written in enumerate(text.split("\n"), start=1):  # splitlines would cut at U+2028, which JSON allows
        if not written.strip():
            continue
        try:
            # Numbers stay as they are written.
            row = json.loads(written, object_pairs_hook=once, parse_int=str, parse_float=str)
        except json.JSONDecodeError as error:
            raise StatedError(
                f"{path} line {line} is not readable as JSONL: {error.msg} at character {error.pos}"
            ) from None
        except RecursionError:
            raise StatedError(f"{path} line {line} is not readable as JSONL: too many brackets are open") from None
        if not isinstance(row, dict):
            raise StatedError(f'{path} line {line}: every line must be an object, {{"name": value, ...}}')
        for name, value in row.items():
            if value is not None and not isinstance(value, str):
                kinds: dict[type, str] = {list: "a list", dict: "an object"}
                kind = kinds.get(type(value)) or json.dumps(value)
                raise StatedError(f"{path} line {line}: {name} must be text or a number, not {kind}")
            if value is not None and not is_text(value):
                raise StatedError(f"{path} line {line}: {name} holds half a surrogate pair, which is no character")
        lines.append(line)
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for line, row in zip(lines, rows):
        if lacking := [name for name in needed if name in names and name not in row]:
            raise StatedError(f"{path} line {line} lacks {', '.join(lacking)}; it has {', '.join(row)}")
    return Table(lines, {name: [(row.get(name) or "").strip() for row in rows] for name in names})


def run_python(path: Path) -> ModuleType:
    """Run a user's Python file, once for each call, under a module name that no other file has.

    The module stands in `sys.modules`, where a dataclass of the file looks for it.

    Raises
    ------
    StatedError
        The file does not run; the first line says why.
    """
    import cloudpickle

    name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # exits too, and kinds of the file's own
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, StatedError):
            raise StatedError(f"{path}: {error}") from error
        try:
            said = next(iter(str(error).splitlines()), "")
        except Exception:  # an error that cannot say what it is
            said = "no more is said"
        raise StatedError(f"{path} does not run: {type(error).__name__}: {said}") from error
    # Worker processes get what it defines by value: they have no such module.
    cloudpickle.register_pickle_by_value(module)
    return module
