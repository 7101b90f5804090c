"""`atlas` as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bayes_icl.atlas.figures import atlas_figures
from bayes_icl.atlas.outputs import FACTS, TABLES
from bayes_icl.atlas.section import atlas_section
from bayes_icl.atlas.settings import AtlasSettings
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import Stage, StageOutputs


def _figures(found: StageOutputs) -> Mapping[str, Figure]:
    figures = atlas_figures(found.folder["atlas"])
    return {name if name.startswith("atlas_") else f"atlas_{name}": figure for name, figure in figures.items()}


def _sections(found: StageOutputs, quotes: Quotes) -> list[tuple[int, Section]]:
    return [(55, atlas_section(found, quotes))]


STAGE = Stage(
    "atlas",
    "an atlas of heads",
    AtlasSettings,
    _sections,
    _figures,
    flag="atlas",
    place=lambda curves: Path("data/atlas") / curves.stem,
    tables=TABLES,
    facts=(FACTS, frozenset({"n_min", "readout", "token", "wholes", "groups", "missing", "n_seqs"})),
)
