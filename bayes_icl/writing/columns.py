"""Columns of a table as it is shown: headings and formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bayes_icl.core.intervals import Interval
from bayes_icl.core.schemas import REACHED, Table
from bayes_icl.writing.numbers import layer_of

NOTHING = "\u2013"  # where a number is not known

P_LEAST = 1e-300  # below it, p is 0 by rounding


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


def text(heading: str, name: str) -> Column:
    """A column of words; what is missing is empty."""
    return Column(heading, lambda row: one_line(getattr(row, name)), number=False)


def yes(heading: str, name: str) -> Column:
    """A column that says "yes" or nothing."""
    return Column(heading, lambda row: "yes" if getattr(row, name) in (True, "True") else "", number=False)


def number(heading: str, name: str, form: str = ".3f") -> Column:
    """A column of numbers in the form of `format`."""
    return Column(heading, lambda row: number_cell(getattr(row, name), form))


def interval(heading: str, mean: str, form: str = ".3f", *, ends: tuple[str, str] = ("", "")) -> Column:
    """A column of means with intervals; their ends are in the columns with _low and _high if `ends` names no others."""

    def cell(row: Any) -> str:
        numbers = Interval.of(row, mean, *ends)
        return NOTHING if missing(numbers.mean) else numbers.words(lambda x: number_cell(x, form))

    return Column(heading, cell)


def p_value(heading: str, name: str) -> Column:
    """A column of p-values, to two digits."""
    return Column(heading, lambda row: p_cell(getattr(row, name)))


def layer(heading: str, name: str) -> Column:
    """A column of layers that may never be reached."""
    return Column(heading, lambda row: NOTHING if (words := layer_of(row, name)) == "-" else words)


def shown(table: Table, words: str) -> list[Column]:
    """Columns as the schema has them: words, counts, numbers, means with intervals, layers or flags.

    Parameters
    ----------
    table
        The table's schema.
    words
        ``"place; takes = share .0%; p_holm p"``: by column its heading, if that is not its name, its name, and the form
        of its numbers, if that is not ``.3f``; a p-value's is ``p``.
    """
    known, made = {column.name: column for column in table.columns}, []
    for part in words.split("; "):
        heading, _, rest = part.rpartition(" = ")
        name, _, form = rest.partition(" ")
        heading, (kind, ends) = heading or name.replace("_", " "), (known[name].kind, known[name].ends)
        if kind in ("text", "flag"):
            made.append((text if kind == "text" else yes)(heading, name))
        elif form == "p":
            made.append(p_value(heading, name))
        elif len(ends) == 1:
            made.append(number(heading, name, form or (".0f" if kind == "count" else ".3f")))
        elif ends == REACHED:
            made.append(layer(heading, name))
        else:
            mean, low, high = (name + end for end in ends)
            made.append(interval(heading, mean, form or ".3f", ends=(low, high)))
    return made


def missing(x: Any) -> bool:
    """Whether there is no value: None or NaN."""
    return x is None or (isinstance(x, float) and math.isnan(x))


def one_line(x: Any) -> str:
    """A name on one line, without characters that cannot be printed."""
    return "" if missing(x) else " ".join("".join(c if c.isprintable() else " " for c in str(x)).split())


def number_cell(x: Any, form: str) -> str:
    """A number in that form, as plain text; what is missing as `NOTHING`."""
    return NOTHING if missing(x) else f"{x:z{form}}"  # z: no minus before what is rounded to 0


def p_cell(x: Any) -> str:
    """A p-value to two digits, as plain text; below `P_LEAST` as a bound."""
    return number_cell(x, ".2g") if missing(x) or x > P_LEAST else f"<{P_LEAST:g}"
