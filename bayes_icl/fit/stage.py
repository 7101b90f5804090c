"""`fit` as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bayes_icl.fit.figures import fit_figures
from bayes_icl.fit.outputs import TABLES, verdicts_of
from bayes_icl.fit.section import fit_sections, refused_section
from bayes_icl.fit.settings import FitSettings
from bayes_icl.fit.verdict import Verdict
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import Stage, StageOutputs


def _figures(found: StageOutputs) -> Mapping[str, Figure]:
    return fit_figures(found.curves, found.folder["fit"])


def _sections(found: StageOutputs, quotes: Quotes) -> list[tuple[int, Section]]:
    """Verdicts stand first, what was refused last."""
    verdicts, *others = fit_sections(found, quotes)
    return [(10, verdicts), *((30, section) for section in others), (90, refused_section(found, quotes))]


STAGE = Stage(
    "fit",
    "verdicts, laws, delta",
    FitSettings,
    _sections,
    _figures,
    flag="fits",
    place=lambda curves: Path("data/fits") / curves.stem,
    tables=TABLES,
    parse=verdicts_of,
    facts=("verdict.json", frozenset({*Verdict("", "", 0, "", []).as_json(), "others"})),
)
