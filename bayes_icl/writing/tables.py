"""A table once: columns with headings and formats, and its renderings for terminal, page, paper and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape
from rich.table import Table
from rich.text import Text

from bayes_icl.core.files import to_csv
from bayes_icl.writing.columns import NOTHING, Column, one_line
from bayes_icl.writing.numbers import escape_latex, typeset_html, typeset_latex

SEVERAL = 10  # rows of a table that is too long to be shown whole


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

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_icl.writing.columns import number, text
    >>> from bayes_icl.writing.tables import PaperTable
    >>> frame = pd.DataFrame({"task": ["copy", "capital"], "delta": [0.178, 0.091]})
    >>> columns = text("task", "task"), number("delta", "delta", ".2f")
    >>> table = PaperTable("deltas", "Updates", "delta: nats per example", "verdict.json", frame, columns)
    >>> print(table.to_markdown().splitlines()[2])
    | copy | 0.18 |
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

    def to_rich(self) -> Table:
        """The table for a terminal: numbers are never broken, words where they must be."""
        table = Table(box=None, pad_edge=False, collapse_padding=True, title=Text(self.title), title_justify="left")
        for column in self.columns:
            justify = "right" if column.number else "left"
            table.add_column(Text(one_line(column.heading)), justify=justify, no_wrap=column.number)  # type: ignore[arg-type]
        for row in self.cells():
            table.add_row(*map(Text, row))  # a name is not rich's markup
        return table

    def to_markdown(self) -> str:
        """The table for a page of the documentation."""
        rows = [[one_line(column.heading) for column in self.columns], ["---"] * len(self.columns), *self.cells()]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)

    def to_html(self) -> str:
        """The table as HTML that scrolls within its own width; numbers have the class ``num``."""
        rows = [
            [Markup(typeset_html(str(escape(x)))) if column.number else x for x, column in zip(row, self.columns)]
            for row in self.cells()
        ]  # words are escaped by the template
        return _PAGE.render(table=self, rows=rows)

    def to_latex(self) -> str:
        r"""A booktabs tabular to ``\input``, after comments that say what it is."""
        cells = [[_latex(x, column.number) for x, column in zip(row, self.columns)] for row in self.cells()]
        body = pd.DataFrame(cells, columns=[_latex(one_line(column.heading), False) for column in self.columns])
        aligned = "".join("r" if column.number else "l" for column in self.columns)
        tabular = body.style.hide(axis="index").to_latex(hrules=True, column_format=aligned)
        return f"% {one_line(self.name)}, from {one_line(self.source)}\n% {one_line(self.caption)}\n{tabular}"


def table_files(tables: Iterable[PaperTable]) -> dict[str, bytes]:
    """NAME.csv and NAME.tex of each table, by name."""
    files = {}
    for table in tables:
        files[f"{table.name}.csv"] = to_csv(table.frame)
        files[f"{table.name}.tex"] = table.to_latex().encode()
    return files


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
