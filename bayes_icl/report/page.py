"""The page: template, figures as images, commands, numbers for LaTeX."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.core.provenance import command_of
from bayes_icl.curves import null_controls
from bayes_icl.fit.outputs import WITHOUT_VERDICT
from bayes_icl.report.claims import Claim
from bayes_icl.report.sections import Opening
from bayes_icl.report.stages import STAGES
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.interactive import STYLE, library
from bayes_icl.writing.numbers import Quotes, escape_latex, to_html, to_latex
from bayes_icl.writing.stage import StageOutputs
from bayes_icl.writing.style import verdict_colour

GENERATOR = "bayes_icl report"


def render(
    found: StageOutputs,
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
    found
        What the stages wrote.
    opening
        What stands above all sections.
    asked
        The claims, and what was found of each.
    sections
        In their order on the page.
    figures
        By name.
    quotes
        The numbers that the page quotes.
    record
        Provenance of the report.
    links, beside
        Folder of the figures' PDF and SVG, and that of everything else that belongs to the page, as seen from it.
    """
    environment = Environment(loader=PackageLoader("bayes_icl.report", "pages"), autoescape=True, trim_blocks=True)
    environment.filters["quoted"] = lambda text: Markup(to_html(text, quotes.numbers))
    interactive = any(block.kind == "explorer" for section in sections for block in section.blocks)
    return environment.get_template("report.html").render(
        found=found,
        opening=opening,
        verdicts=found.facts.get("fit", {}),
        nulls=null_controls(found.curves),
        colour=verdict_colour,
        without=WITHOUT_VERDICT,
        weighed=any(verdict.get("bayesian") for verdict in found.facts.get("fit", {}).values()),
        weight=lambda task, verdict: quotes.under(task, "bayesian").three(
            "weight", (verdict["weight"][x] for x in ("mean", "low", "high")), ".2f"
        ),
        claims=asked,
        sections=sections,
        images={name: _image(figure) for name, figure in figures.items()},
        links=links,
        beside=beside,
        explorer_style=Markup(STYLE),
        library=Markup(library()) if interactive else "",
        commands=commands_of(found),
        stages={name: stage.title for name, stage in STAGES.items()},
        record=record,
        generator=GENERATOR,
        level=LEVEL_WORDS.replace(" ", "\u00a0"),
        delta=lambda task, verdict: quotes.under(task, "verdict", unit="nats/example").three(
            "delta", (verdict["delta"][x] for x in ("mean", "hdi_low", "hdi_high"))
        ),
        departs=lambda task, verdict: quotes.under(task, "verdict", unit="%").three(
            "departure", (100 * verdict["departure"][x] for x in ("mean", "low", "high")), ".1f"
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=200, pil_kwargs={"lossless": True})
    figure.set_layout_engine("none")  # as in `plots.save_figures`
    width, height = figure.get_size_inches()
    return Image("data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), float(width), float(height))


def commands_of(found: StageOutputs) -> dict[str, str]:
    """By stage, the command that makes its output again."""
    return {
        stage.name: command_of(stage.name, record.get("settings", {}), stage.settings())
        for stage in STAGES.values()
        if (record := found.records.get(stage.name))
    }


def sentences_latex(opening: Opening, asked: Sequence[Claim], sections: Sequence[Section]) -> str:
    r"""The page's sentences with ``\bayesicl{key}`` for their numbers, for a paper that has ``\input{numbers}``."""

    def items(sentences: Sequence[str]) -> list[str]:
        return [r"\begin{itemize}", *(rf"\item {to_latex(sentence)}" for sentence in sentences), r"\end{itemize}"]

    lines = [r"% Needs \input{numbers} in the preamble.", "", escape_latex(opening.question), opening.word]
    lines += ["", *map(to_latex, opening.controls)]
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
