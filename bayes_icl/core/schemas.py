"""Tables that stages write: every column decided once, for writing, reading and the documentation."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import xarray as xr
from pandera.errors import SchemaErrors

from bayes_icl.core.files import beside, read_table, to_csv, to_json, to_netcdf

ALONE = ("",)
INTERVAL = ("", "_low", "_high")
POSTERIOR = ("_mean", "_hdi_low", "_hdi_high")
REACHED = (*INTERVAL, "_reached")
KINDS = {"text": None, "number": "float64", "count": "int64", "flag": "bool"}


@dataclass(frozen=True)
class Column:
    """A column of a table, or an estimate and what belongs to it.

    Attributes
    ----------
    name
        In code, and in the file unless `written` says otherwise.
    meaning
        For the documentation, with its unit where that is not nats.
    kind
        ``"text"``, ``"number"``, ``"count"`` (whole, never missing) or ``"flag"``.
    ends
        What is added to the name: that of the estimate, and those of its interval.
    written
        The name in the file.
    formerly
        The name in files of before, which are still read.
    optional
        Whether some runs do not write it.
    values
        All that it may hold, where these are few.
    """

    name: str
    meaning: str
    kind: str = "number"
    ends: Sequence[str] = ALONE
    written: str = ""
    formerly: str = ""
    optional: bool = False
    values: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """Names in code, those of the ends too."""
        return [self.name + end for end in self.ends]


def columns(names: str, meaning: str, kind: str = "number", **more: Any) -> list[Column]:
    """Several columns with one meaning, their names divided by spaces."""
    return [Column(name, meaning, kind, **more) for name in names.split()]


@dataclass(frozen=True)
class Table:
    """A table that a stage writes.

    Attributes
    ----------
    name
        Of its file, without the ending.
    about
        What a row is.
    columns
        In the order of the file.
    more
        Regular expressions of columns that depend on the run, with their meaning.
    """

    name: str
    about: str
    columns: Sequence[Column]
    more: Mapping[str, str] | None = None

    @property
    def names(self) -> list[str]:
        """Names of all columns in code, without optional ones."""
        return [name for column in self.columns if not column.optional for name in column.names]

    def _renamed(self, take: Callable[[Column], str]) -> dict[str, str]:
        """From names in code to others, where there are others."""
        return {column.name + end: take(column) + end for column in self.columns if take(column) for end in column.ends}

    @functools.cached_property
    def schema(self) -> pa.DataFrameSchema:
        """The table as pandera has it, names as in code."""
        known = {
            name: pa.Column(
                KINDS[column.kind],
                nullable=column.kind != "count",
                required=not column.optional,
                coerce=KINDS[column.kind] is not None,
                description=column.meaning,
                checks=pa.Check.isin(list(column.values)) if column.values else None,
            )
            for column in self.columns
            for name in column.names
        }
        known |= {pattern: pa.Column(regex=True, required=False, nullable=True) for pattern in self.more or {}}
        return pa.DataFrameSchema(known, title=self.name, description=self.about)

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Rows as a table; one without rows has its columns all the same."""
        return pd.DataFrame(rows, columns=None if rows else self.names)

    def to_csv(self, table: pd.DataFrame, **how: Any) -> bytes:
        """The table as CSV, names as in the file.

        Raises
        ------
        ValueError
            It lacks a column, or has one that is not known.
        """
        known = {name for column in self.columns for name in column.names}
        more = [re.compile(pattern) for pattern in self.more or {}]
        strange = [name for name in map(str, table) if name not in known and not any(p.fullmatch(name) for p in more)]
        if missing := [name for name in self.names if name not in table]:
            raise ValueError(f"{self.name}.csv lacks {', '.join(missing)}")
        if strange:
            raise ValueError(f"{self.name}.csv has columns that no schema knows: {', '.join(strange)}")
        return to_csv(table.rename(columns=self._renamed(lambda column: column.written)), **how)

    def read(self, path: Path) -> pd.DataFrame:
        """The table from its file, of the types that it had, names as in code.

        Raises
        ------
        ValueError
            It lacks a column, or one of its columns is of another kind.
        """
        text = [column for column in self.columns if column.kind == "text"]
        table = read_table(path, {name for column in text for name in (column.name, column.written, column.formerly)})
        for take in (lambda column: column.written, lambda column: column.formerly):
            back = {there: here for here, there in self._renamed(take).items()}
            table = table.rename(columns={there: here for there, here in back.items() if here not in table})
        try:
            return self.schema.validate(table, lazy=True)
        except SchemaErrors as error:
            wrong = sorted(
                {str(case) for case in error.failure_cases["column"].fillna(error.failure_cases.failure_case)}
            )
            raise ValueError(f"{path} is not {self.name}.csv as this version reads it: {', '.join(wrong)}") from None

    def to_markdown(self) -> str:
        """Its columns and their meaning, for the documentation; those of one meaning in one row."""
        lines = ["| column | meaning |", "|---|---|"]
        for meaning, group in itertools.groupby(self.columns, key=lambda column: column.meaning):
            names = ", ".join(f"`{column.written or column.name}{column.ends[0]}`" for column in group)
            lines.append(f"| {names} | {meaning} |")
        lines += [f"| {meaning} |" for meaning in (self.more or {}).values()]
        return "\n".join(lines) + "\n"

    def formerly(self) -> dict[str, str]:
        """From names of before to those of now."""
        return {column.formerly: column.written or column.name for column in self.columns if column.formerly}


def names_beside(out: Path, tables: Iterable[str]) -> list[str]:
    """Names of the files that belong to an effects file."""
    return [beside(out, end).name for end in (*(f"{name}.csv" for name in tables), "json")]


def effects_files(
    out: Path,
    schemas: Mapping[str, Table],
    tables: Mapping[str, pd.DataFrame],
    facts: Mapping[str, Any],
    effects: xr.Dataset,
) -> dict[str, bytes]:
    """An effects file, and the tables and facts that stand beside it, by name."""
    files = {beside(out, f"{name}.csv").name: schemas[name].to_csv(table) for name, table in tables.items()}
    return files | {beside(out, "json").name: to_json(facts), out.name: to_netcdf(effects)}


def read_beside(out: Path, schemas: Mapping[str, Table]) -> dict[str, pd.DataFrame]:
    """The tables that stand beside an effects file, by name."""
    return {name: table.read(beside(out, f"{name}.csv")) for name, table in schemas.items()}
