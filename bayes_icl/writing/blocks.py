"""Blocks that results are told in: headings, sentences, figures, tables; on a page, or in a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.padding import Padding

from bayes_icl.core.files import file_name
from bayes_icl.writing.numbers import plain
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


def to_terminal(blocks: Iterable[Heading | Text | Tabled], width: int) -> str:
    """Headings, sentences one below the other, and tables; a sentence keeps its indentation where it is wrapped."""
    console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=width)
    for block in blocks:
        if isinstance(block, Heading):
            console.rule(block.title, align="left")
        elif isinstance(block, Tabled):
            console.print(block.table.to_rich())
        else:
            for sentence in map(plain, block.sentences):
                words = sentence.lstrip(" ")
                console.print(Padding(words, (0, 0, 0, len(sentence) - len(words))))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
