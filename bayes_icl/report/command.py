"""``python -m bayes_icl.report``: outputs of all stages, one page and what a paper lifts from it."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from bayes_icl.core.errors import DONE, StatedError
from bayes_icl.core.files import to_json, within
from bayes_icl.core.outputs import Output
from bayes_icl.core.provenance import provenance
from bayes_icl.curves import newest_curves, read_curves
from bayes_icl.report.claims import claims
from bayes_icl.report.controls import gather_controls
from bayes_icl.report.outputs import gather
from bayes_icl.report.page import render, sentences_latex
from bayes_icl.report.sections import compose, draw, open_with
from bayes_icl.report.settings import ReportSettings
from bayes_icl.report.stages import STAGES
from bayes_icl.writing.numbers import Quotes, latex_macros
from bayes_icl.writing.stage import StageOutputs
from bayes_icl.writing.style import figure_files
from bayes_icl.writing.tables import table_files


def main(settings: ReportSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    started = datetime.now(UTC)
    path = settings.curves or newest_curves()
    out = settings.out or Path("reports") / f"{path.stem}.html"
    beside = out.parent / out.stem
    given = [file for file in (path, settings.effects, settings.patch) if file]
    output = Output.file(out, "report", suffixes=(".html", ".htm"), alone=beside.name, inputs=given)
    own = settings.figures
    if own and own.resolve() == (beside / "figures").resolve():
        own = None  # the default, named
    if own:
        if within(own, beside):
            raise StatedError(f"--figures {own} lies within {beside}, which belongs to the page alone: give another")
        drawn = Output(own, "report", flag="--figures", inputs=given)
        drawn.check(force=settings.force)
    with output.held(force=settings.force):
        found, files, figures = _compose(path, settings, out, started)
        if own:
            drawn.check(force=settings.force, beside=figures)  # before anything is written
        else:
            files |= {f"{beside.name}/figures/{name}": content for name, content in figures.items()}
        output.write(files)
    if own:
        with drawn.held(force=settings.force):
            drawn.write(figures, of=out)
    for missing in found.missing.values():
        title = STAGES[missing.stage].title if missing.stage in STAGES else "controls"
        print(f"not in the report: {title} ({missing.why}); {missing.command}", file=sys.stderr)
    print(beside)
    print(out)
    return DONE


def _compose(
    path: Path, settings: ReportSettings, out: Path, started: datetime
) -> tuple[StageOutputs, dict[str, bytes], dict[str, bytes]]:
    """What was found, the page and what belongs to it, and the figures; files by name as seen from the page."""
    named = {stage.flag: getattr(settings, stage.flag, None) for stage in STAGES.values() if stage.flag}
    found = gather(path, read_curves(path), named)
    gather_controls(found, settings.controls)
    quotes = Quotes()
    figures = draw(found)
    asked = claims(found, quotes)
    opening = open_with(found, quotes)
    sections = compose(found, figures, quotes)
    beside = out.parent / out.stem
    record = provenance(settings, started=started, inputs=found.read)
    page = render(
        found, opening, asked, sections, figures, quotes, record,
        links=_link(settings.figures or beside / "figures", out), beside=_link(beside, out),
    )  # fmt: skip
    tables = [block.table for section in sections for block in section.blocks if block.kind == "table"]
    files = {f"{beside.name}/tables/{name}": content for name, content in table_files(tables).items()}
    texts = {"numbers.tex": latex_macros(quotes.numbers), "sentences.tex": sentences_latex(opening, asked, sections)}
    files |= {f"{beside.name}/{name}": text.encode() for name, text in texts.items()}
    files[f"{beside.name}/numbers.json"] = to_json({"provenance": record, "numbers": quotes.numbers})
    return found, files | {out.name: page.encode()}, figure_files(figures, (".pdf", ".svg"))


def _link(folder: Path, page: Path) -> str:
    """A folder as the page's links have it."""
    return quote(Path(os.path.relpath(folder, page.parent)).as_posix())
