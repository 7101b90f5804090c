"""Blocks as a terminal shows them."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding

from bayes_icl.writing.blocks import Heading, Tabled, Text
from bayes_icl.writing.numbers import plain


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
