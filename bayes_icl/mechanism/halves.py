"""Two halves of the sequences: one chooses heads, the other measures them.

A head that is chosen for a large number has had luck; measured on the sequences it was not chosen on, it has none.
"""

from __future__ import annotations

from typing import Any

CHOOSING = slice(0, None, 2)
"""Of an axis of sequences or pairs: the first, the third, ..."""

MEASURING = slice(1, None, 2)
"""The others."""


def chosen_on(x: Any) -> Any:
    """The half of a sequence or an array that chooses; along the first axis."""
    return x[CHOOSING]


def measured_on(x: Any) -> Any:
    """The half of a sequence or an array that measures; along the first axis."""
    return x[MEASURING]
