"""That a task is not learnt, said before anything else is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayes_icl.writing.numbers import Quotes


def not_learnt(learning: Mapping[str, Any] | None, quotes: Quotes) -> list[str]:
    """One sentence where a task is not learnt, none where it is or where it cannot be told.

    Parameters
    ----------
    learning
        The fields of `curves.Learning`.
    quotes
        The numbers that the text quotes.
    """
    if not learning or learning["learnt"]:
        return []
    q = quotes.under("learning")
    sentence = (
        f"NOT LEARNT: greedy answers are right in {q.percent('right', learning['right'])} after "
        f"{q.count('shot', learning['shot'])} examples, {q.percent('right_before', learning['right_before'])} before"
    )
    foil = [learning[f"foil{end}"] for end in ("", "_low", "_high")]
    if foil[0] is not None and foil[0] == foil[0]:
        sentence += f"; against the foil the log-odds rise by {q.under(unit='nats').three('foil', foil, '.2f')} nats"
    return [f"{sentence}; what else rises may be the form of answers"]
