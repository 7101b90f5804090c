"""`patch` as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bayes_icl.patch.figures import patch_figures
from bayes_icl.patch.outputs import TABLES
from bayes_icl.patch.section import patch_section
from bayes_icl.patch.settings import PatchSettings
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import Stage, StageOutputs


def _figures(found: StageOutputs) -> Mapping[str, Figure]:
    return {f"patch_{name}": figure for name, figure in patch_figures(found.folder["patch"]).items()}


def _sections(found: StageOutputs, quotes: Quotes) -> list[tuple[int, Section]]:
    return [(60, patch_section(found, quotes))]


STAGE = Stage(
    "patch",
    "where the task forms, which heads take over, the three steps of Skunnavakkam (2024)",
    PatchSettings,
    _sections,
    _figures,
    flag="patch",
    place=lambda curves: Path("data/patch") / f"{curves.stem}.nc",
    tables=TABLES,
    facts=("json", frozenset({"taught", "kind", "position", "backups_sought", "rule_gain_measured", "n_examples"})),
)
