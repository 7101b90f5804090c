"""Tables as a paper shows them: columns with headings and formats; LaTeX, HTML, CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape

from bayes_icl.core.files import to_csv
from bayes_icl.writing.numbers import escape_latex, point_of, typeset_html, typeset_latex

NOTHING = "\u2013"  # where a number is not known

P_LEAST = 1e-300  # below it, p is 0 by rounding

SEVERAL = 10  # rows of a table that is too long to be shown whole


@dataclass(frozen=True)
class Column:
    """A column as it is shown.

    Attributes
    ----------
    heading
        What stands above it.
    cell
        A row of the table, columns as attributes, to the cell's plain text.
    number
        Whether cells are numbers: aligned to the right, with minus signs and powers of ten.
    """

    heading: str
    cell: Callable[[Any], str]
    number: bool = True


@dataclass(frozen=True)
class PaperTable:
    """A table with what is shown of it.

    Attributes
    ----------
    name
        Its files' name.
    title, caption
        In words; units stand in the caption.
    source
        The file of a command that it was made from.
    frame
        All of it, as the CSV holds it.
    columns
        Those shown.
    shown
        The rows shown, where they are not all rows of `frame`.
    """

    name: str
    title: str
    caption: str
    source: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    shown: pd.DataFrame | None = None

    def cells(self) -> list[list[str]]:
        """The cells shown, by row, as plain text."""
        rows = self.frame if self.shown is None else self.shown
        return [[column.cell(row) for column in self.columns] for row in rows.itertuples(index=False)]


def text(heading: str, name: str) -> Column:
    """A column of words; what is missing is empty."""
    return Column(heading, lambda row: one_line(getattr(row, name)), number=False)


def yes(heading: str, name: str) -> Column:
    """A column that says "yes" or nothing."""
    return Column(heading, lambda row: "yes" if getattr(row, name) in (True, "True") else "", number=False)


def number(heading: str, name: str, form: str = ".3f") -> Column:
    """A column of numbers in the form of `format`."""
    return Column(heading, lambda row: number_cell(getattr(row, name), form))


def interval(heading: str, mean: str, form: str = ".3f", *, ends: tuple[str, str] | None = None) -> Column:
    """A column of means with intervals; their ends are in the columns with _low and _high if `ends` names no others."""
    names = (mean, *(ends or (f"{mean}_low", f"{mean}_high")))

    def cell(row: Any) -> str:
        middle, low, high = (number_cell(getattr(row, name), form) for name in names)
        return NOTHING if middle == NOTHING else f"{middle} [{low}, {high}]"

    return Column(heading, cell)


def p_value(heading: str, name: str) -> Column:
    """A column of p-values, to two digits."""
    return Column(heading, lambda row: p_cell(getattr(row, name)))


def point(heading: str, name: str) -> Column:
    """A column of layers, or points between them, that may never be reached."""
    return Column(heading, lambda row: NOTHING if (words := point_of(row, name)) == "-" else words)


def missing(x: Any) -> bool:
    return x is None or (isinstance(x, float) and math.isnan(x))


def one_line(x: Any) -> str:
    """A name on one line, without characters that cannot be printed."""
    return "" if missing(x) else " ".join("".join(c if c.isprintable() else " " for c in str(x)).split())


def number_cell(x: Any, form: str) -> str:
    return NOTHING if missing(x) else f"{x:z{form}}"  # z: no minus before what is rounded to 0


def p_cell(x: Any) -> str:
    return number_cell(x, ".2g") if missing(x) or x > P_LEAST else f"<{P_LEAST:g}"


def to_latex(table: PaperTable) -> str:
    r"""A booktabs tabular to ``\input``, after comments that say what it is."""
    columns = table.columns
    cells = [[_latex(x, column.number) for x, column in zip(row, columns)] for row in table.cells()]
    body = pd.DataFrame(cells, columns=[_latex(one_line(column.heading), False) for column in columns])
    aligned = "".join("r" if column.number else "l" for column in columns)
    tabular = body.style.hide(axis="index").to_latex(hrules=True, column_format=aligned)
    return f"% {one_line(table.name)}, from {one_line(table.source)}\n% {one_line(table.caption)}\n{tabular}"


def _latex(cell: str, numeric: bool) -> str:
    if not numeric:
        words = re.sub("-(?=-)", "-{}", escape_latex(cell))  # two hyphens would be a dash
        # What ends the row before looks for a bracket or an asterisk.
        return f"{{{words[0]}}}{words[1:]}" if words[:1] in ("[", "*") else words
    return typeset_latex(cell.replace(NOTHING, "--"))


_ENVIRONMENT = Environment(autoescape=True, trim_blocks=True)

_ENVIRONMENT.filters["words"] = one_line

_PAGE = _ENVIRONMENT.from_string(
    """\
<div class="scroll" role="region" aria-label="{{ table.title | words }}" tabindex="0">
<table>
<thead><tr>
{% for column in table.columns %}
<th scope="col"{% if column.number %} class="num"{% endif %}>{{ column.heading | words }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row[0] }}</th>
{%- for column in table.columns[1:] %}
<td{% if column.number %} class="num"{% endif %}>{{ row[loop.index] }}</td>
{%- endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
"""
)


def to_html(table: PaperTable) -> str:
    """The table as HTML that scrolls within its own width; numbers have the class ``num``."""
    rows = [
        [Markup(typeset_html(str(escape(x)))) if column.number else x for x, column in zip(row, table.columns)]
        for row in table.cells()
    ]  # words are escaped by the template
    return _PAGE.render(table=table, rows=rows)


def table_files(tables: Iterable[PaperTable]) -> dict[str, bytes]:
    """NAME.csv and NAME.tex of each table, by name."""
    files = {}
    for table in tables:
        files[f"{table.name}.csv"] = to_csv(table.frame)
        files[f"{table.name}.tex"] = to_latex(table).encode()
    return files
