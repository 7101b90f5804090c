"""`independence` as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bayes_icl.independence.figures import independence_figures
from bayes_icl.independence.outputs import TABLES
from bayes_icl.independence.section import independence_section
from bayes_icl.independence.settings import IndependenceSettings
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import Stage, StageOutputs


def _figures(found: StageOutputs) -> Mapping[str, Figure]:
    return {f"independence_{name}": f for name, f in independence_figures(found.folder["independence"]).items()}


def _sections(found: StageOutputs, quotes: Quotes) -> list[tuple[int, Section]]:
    return [(67, independence_section(found, quotes))]


STAGE = Stage(
    "independence",
    "whether examples need to see one another",
    IndependenceSettings,
    _sections,
    _figures,
    flag="independence",
    place=lambda curves: Path("data/independence") / f"{curves.stem}.nc",
    tables=TABLES,
    facts=("json", frozenset({"verdict", "layers", "n_min", "n_shots"})),
)
