"""Blocks that a section of the report is made of: headings, sentences, figures, tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bayes_icl.core.files import file_name
from bayes_icl.writing.tables import PaperTable


class Heading(NamedTuple):
    """A heading within a section."""

    title: str
    id: str
    kind: str = "heading"


class Text(NamedTuple):
    """Sentences: a paragraph, or a list."""

    sentences: Sequence[str]
    as_list: bool = False
    kind: str = "text"


class Shown(NamedTuple):
    """A figure by its name, with its caption."""

    name: str
    caption: str
    kind: str = "figure"


class Tabled(NamedTuple):
    """A table; folded, if it is long."""

    table: PaperTable
    folded: bool = False
    kind: str = "table"


class Explorer(NamedTuple):
    """A figure to hover over."""

    html: str
    caption: str
    kind: str = "explorer"


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    blocks: list[Any]


def id_of(name: str) -> str:
    """A task's name as a part of an element's id."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in file_name(name))
