"""What a stage leaves for a curves file, as sections and sentences read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from bayes_icl.core.errors import shown
from bayes_icl.core.schemas import Table
from bayes_icl.models.names import title_of
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes


class Missing(NamedTuple):
    """A stage that was not run, or not on these curves, and the command that does."""

    stage: str
    why: str
    command: str
    kind: str = "missing"


@dataclass
class StageOutputs:
    """What the stages have left for one curves file.

    Attributes
    ----------
    path, curves
        The curves file and its content.
    folder
        By stage, what was read: the fits' folder, the effects file, the patch file, the calibration's folder.
    tables
        By stage, tables by name.
    facts
        By stage: verdict.json, and what stands in .json beside the effects files.
    records
        By stage, provenance.
    missing
        Of the other stages.
    read
        Every file that the page is made from.
    """

    path: Path
    curves: xr.Dataset
    folder: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    read: list[Path] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The model's name, as the curves file has it."""
        name = self.records.get("collect", {}).get("model", {}).get("model", "")
        return shown(title_of(str(name))) if name else "the model"

    @property
    def n_seqs(self) -> list[int]:
        """Sequences of each task; tasks of a table may have different numbers."""
        return [int(n) for n in self.curves.log_odds.notnull().any(("readout", "shot")).sum("seq")]

    @property
    def sizes(self) -> tuple[int, int]:
        """Least number of sequences of a task, and most examples shown."""
        return min(self.n_seqs), int(self.curves.shot[-1])

    def settings(self, stage: str) -> dict[str, Any]:
        """Those that a stage was run with; empty where it was not."""
        return self.records.get(stage, {}).get("settings", {})


@dataclass(frozen=True)
class Stage:
    """A stage as the report reads it: where it writes, what is read of that, and what is made of it.

    Attributes
    ----------
    name
        Its command, and its key in `StageOutputs`.
    title
        What the report has of it, in words.
    settings
        The command's dataclass.
    sections
        Sections of the page, each with its place: those of low numbers come first.
    figures
        Figures by name, from what was read.
    flag
        The report's setting that names the output; empty if there is none.
    place
        From a curves file to where the output stands by default: a folder, or a netCDF file with tables beside it.
    tables
        Those that are read, by name.
    facts
        The JSON with facts by task, and the keys that each task needs.
    parse
        From the content of that JSON to what this version writes.
    gather
        Finds the output in a way of its own, in place of the fields above.
    """

    name: str
    title: str
    settings: Callable[[], Any]
    sections: Callable[[StageOutputs, Quotes], Sequence[tuple[int, Section]]]
    figures: Callable[[StageOutputs], Mapping[str, Figure]] = lambda found: {}
    flag: str = ""
    place: Callable[[Path], Path] | None = None
    tables: Mapping[str, Table] = field(default_factory=dict)
    facts: tuple[str, frozenset[str]] = ("json", frozenset())
    parse: Callable[[Any], Any] = lambda content: content
    gather: Callable[[StageOutputs, Path | None], None] | None = None
