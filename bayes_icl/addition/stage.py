"""`addition` as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bayes_icl.addition.figures import addition_figures
from bayes_icl.addition.outputs import TABLES
from bayes_icl.addition.section import addition_section
from bayes_icl.addition.settings import AdditionSettings
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import Stage, StageOutputs


def _figures(found: StageOutputs) -> Mapping[str, Figure]:
    return {f"addition_{name}": figure for name, figure in addition_figures(found.folder["addition"]).items()}


def _sections(found: StageOutputs, quotes: Quotes) -> list[tuple[int, Section]]:
    return [(65, addition_section(found, quotes))]


STAGE = Stage(
    "addition",
    "whether examples add to the residual stream",
    AdditionSettings,
    _sections,
    _figures,
    flag="addition",
    place=lambda curves: Path("data/addition") / f"{curves.stem}.nc",
    tables=TABLES,
    facts=("json", frozenset({"best", "moving", "few", "token"})),
)
