"""Write up whatever stages were run on a curves file: one HTML page, and its figures, tables and numbers for a paper.

``python -m bayes_icl.report --curves data/curves/demo.nc``

Beside NAME.html stands the folder NAME: ``figures/`` (PDF, SVG), ``tables/`` (CSV, LaTeX with booktabs),
``numbers.json`` and ``numbers.tex`` (every number that the page quotes) and ``sentences.tex`` (its sentences). The page
itself needs none of them, no server and no network.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bayes_icl.errors import DONE, StatedError, exit_stating
from bayes_icl.sections import Opening, Section, compose, draw, open_with
from bayes_icl.stages import STAGES, Found, gather

if TYPE_CHECKING:
    from datetime import datetime

    from matplotlib.figure import Figure

    from bayes_icl.findings import Claim
    from bayes_icl.quotes import Quotes


@dataclass(frozen=True)
class ReportSettings:
    """Write one HTML page, self-contained, of whatever stages were run on a curves file; beside it every figure as PDF
    and SVG, every table as CSV and LaTeX, and every number that the page quotes."""

    curves: Path | None = None
    """The curves file; the newest in data/curves if none is named."""
    fits: Path | None = None
    """Folder that `fit` wrote; data/fits/NAME of the curves if none is named."""
    effects: Path | None = None
    """File that `attribute` wrote; data/effects/NAME.nc of the curves if none is named."""
    patch: Path | None = None
    """File that `patch` wrote; data/patch/NAME.nc of the curves if none is named."""
    calibration: Path | None = None
    """Folder that `calibrate` wrote; among those in figures/ the one of the curves' size, if none is named."""
    out: Path | None = None
    """The page to write (.html); reports/NAME.html of the curves if none is named. What belongs to it goes into the
    folder of the same name."""
    figures: Path | None = None
    """Folder for the figures (PDF and SVG); NAME/figures beside the page if none is named."""
    force: bool = False
    """Replace a file that is no report."""


GENERATOR = "bayes_icl report"


def main(settings: ReportSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    from datetime import UTC, datetime

    from bayes_icl.curves import newest_curves
    from bayes_icl.outputs import Output, within

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
        print(f"not in the report: {STAGES[missing.stage]} ({missing.why}); {missing.command}", file=sys.stderr)
    print(beside)
    print(out)
    return DONE


def _compose(
    path: Path, settings: ReportSettings, out: Path, started: datetime
) -> tuple[Found, dict[str, bytes], dict[str, bytes]]:
    """What was found, the page and what belongs to it, and the figures; files by name as seen from the page."""
    from bayes_icl.curves import read_curves
    from bayes_icl.findings import claims
    from bayes_icl.outputs import to_json
    from bayes_icl.plots import figure_files
    from bayes_icl.provenance import provenance
    from bayes_icl.quotes import Quotes, latex_macros
    from bayes_icl.tables import table_files

    found = gather(
        path,
        read_curves(path),
        fits=settings.fits,
        effects=settings.effects,
        patch=settings.patch,
        calibration=settings.calibration,
    )
    quotes = Quotes()
    figures = draw(found)
    heads, patched, facts = found.tables.get("attribute", {}), found.tables.get("patch"), found.facts
    asked = claims(
        facts.get("attribute"),
        heads.get("heads"),
        heads.get("ablation"),
        facts.get("patch"),
        patched,
        found.settings("patch"),
        quotes,
    )
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
    from urllib.parse import quote

    return quote(Path(os.path.relpath(folder, page.parent)).as_posix())


def render(
    found: Found,
    opening: Opening,
    asked: Sequence[Claim],
    sections: Sequence[Section],
    figures: Mapping[str, Figure],
    quotes: Quotes,
    record: Mapping[str, Any],
    *,
    links: str,
    beside: str,
) -> str:
    """The page.

    Parameters
    ----------
    links, beside
        Folder of the figures' PDF and SVG, and that of everything else that belongs to the page, as seen from it.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    from bayes_icl import explore
    from bayes_icl.curves import null_controls
    from bayes_icl.plots import VERDICT_COLOURS, verdict_colour
    from bayes_icl.quotes import to_html
    from bayes_icl.tables import to_html as table_html

    environment = Environment(loader=PackageLoader("bayes_icl", "pages"), autoescape=True, trim_blocks=True)
    environment.filters["quoted"] = lambda text: Markup(to_html(text, quotes.numbers))
    environment.filters["tabled"] = lambda table: Markup(table_html(table))
    interactive = any(block.kind == "explorer" for section in sections for block in section.blocks)
    return environment.get_template("report.html").render(
        found=found,
        opening=opening,
        verdicts=found.facts.get("fit", {}),
        nulls=null_controls(found.curves),
        colours={kind: verdict_colour(kind) for kind in VERDICT_COLOURS},
        claims=asked,
        sections=sections,
        images={name: _image(figure) for name, figure in figures.items()},
        links=links,
        beside=beside,
        explorer_style=Markup(explore.STYLE),
        library=Markup(explore.library()) if interactive else "",
        commands=commands_of(found),
        stages=STAGES,
        record=record,
        generator=GENERATOR,
        delta=lambda task, verdict: quotes.under(task, "verdict", unit="nats/example").three(
            "delta", (verdict["delta"][x] for x in ("mean", "hdi_low", "hdi_high"))
        ),
        pretty=lambda content: json.dumps(content, indent=1, ensure_ascii=False, default=str),
    )


class Image(NamedTuple):
    """A figure as the page holds it.

    Attributes
    ----------
    source
        A data URI: WebP, which loses nothing and is half of a PNG.
    width, height
        Inches.
    """

    source: str
    width: float
    height: float


def _image(figure: Figure) -> Image:
    import base64
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=200, pil_kwargs={"lossless": True})
    figure.set_layout_engine("none")  # as in `plots.save_figures`
    width, height = figure.get_size_inches()
    return Image("data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), float(width), float(height))


def commands_of(found: Found) -> dict[str, str]:
    """By stage, the command that makes its output again."""
    from bayes_icl import attribute, calibrate, collect, experiments, fit
    from bayes_icl.provenance import command_of

    defaults: dict[str, object] = {
        "collect": collect.CollectSettings(),
        "fit": fit.FitSettings(),
        "attribute": attribute.AttributeSettings(),
        "patch": experiments.PatchSettings(),
        "calibrate": calibrate.CalibrateSettings(),
    }
    return {
        stage: command_of(stage, found.records[stage].get("settings", {}), default)
        for stage, default in defaults.items()
        if found.records.get(stage)
    }


def sentences_latex(opening: Opening, asked: Sequence[Claim], sections: Sequence[Section]) -> str:
    r"""The page's sentences with ``\bayesicl{key}`` for their numbers, for a paper that has ``\input{numbers}``."""
    from bayes_icl.quotes import escape_latex, to_latex

    def items(sentences: Sequence[str]) -> list[str]:
        return [r"\begin{itemize}", *(rf"\item {to_latex(sentence)}" for sentence in sentences), r"\end{itemize}"]

    lines = [r"% Needs \input{numbers} in the preamble.", "", escape_latex(opening.question), opening.word]
    lines += ["", *map(to_latex, opening.sentences), "", to_latex(opening.setting)]
    for claim in asked:
        lines += ["", f"% {claim.title}", *(items(claim.sentences) if claim.sentences else [])]
    for section in sections:
        blocks = [block for block in section.blocks if block.kind in ("text", "heading")]
        lines += ["", f"% {section.title}"] if any(block.kind == "text" for block in blocks) else []
        for block in blocks:
            if block.kind == "heading":
                lines += ["", rf"\paragraph{{{escape_latex(block.title)}}}"]
            else:
                lines += items(block.sentences) if block.as_list else [" ".join(map(to_latex, block.sentences))]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    import tyro

    # Under its own name, as in fit.
    from bayes_icl.report import ReportSettings, main

    settings = tyro.cli(ReportSettings, prog="python -m bayes_icl.report")
    exit_stating(lambda: main(settings))
