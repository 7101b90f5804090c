"""`attribute` as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bayes_icl.attribute.figures import attribute_figures
from bayes_icl.attribute.outputs import TABLES
from bayes_icl.attribute.section import heads_section
from bayes_icl.attribute.settings import AttributeSettings
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import Stage, StageOutputs


def _figures(found: StageOutputs) -> Mapping[str, Figure]:
    return {f"heads_{name}": figure for name, figure in attribute_figures(found.folder["attribute"]).items()}


def _sections(found: StageOutputs, quotes: Quotes) -> list[tuple[int, Section]]:
    return [(50, heads_section(found, quotes))]


STAGE = Stage(
    "attribute",
    "which heads write the update",
    AttributeSettings,
    _sections,
    _figures,
    flag="effects",
    place=lambda curves: Path("data/effects") / f"{curves.stem}.nc",
    tables=TABLES,
    facts=("json", frozenset({"n_min", "readout", "token", "delta", "slope_head", "share_head", "stands_out"})),
)
