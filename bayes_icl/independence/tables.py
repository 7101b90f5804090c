"""The tables of `independence` as a paper shows them."""

from __future__ import annotations

import pandas as pd

from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.independence.outputs import KEPT, VERDICTS
from bayes_icl.writing import columns
from bayes_icl.writing.tables import PaperTable

OVER = f"{LEVEL_WORDS} intervals over sequences"


def verdicts_table(verdicts: pd.DataFrame) -> PaperTable:
    """The verdicts of all tasks, from verdicts.csv."""
    return PaperTable(
        "independence",
        "Whether examples need to see one another",
        "update: from the fewest examples that count to the most, nats. kept, control: share of it left with each "
        f"example in a block of its own, and with as many attention edges cut elsewhere ({OVER}). enough: least "
        "examples a block that surely keep the update to 5 %.",
        "verdicts.csv",
        verdicts,
        tuple(columns.shown(VERDICTS, "task; verdict; update .2f; kept .3f; control .3f; enough .0f")),
    )


def kept_table(kept: pd.DataFrame, task: str) -> PaperTable:
    """What is left of the update of a task, by size and layers, from kept.csv."""
    return PaperTable(
        f"independence_{file_name(task)}",
        f"Update left on {task} with examples in blocks",
        "size: examples a block. cut edges: share of the attention edges among tokens of examples. kept, control: "
        "share of the update left when those between blocks are cut, and when as many are cut elsewhere; delta: the "
        f"same of the slope on n ({OVER}).",
        "kept.csv",
        kept[kept.task == task],
        tuple(
            columns.shown(
                KEPT,
                "layers; size; cut edges = cut_edges .0%; kept .3f; control .3f; beyond .3f; "
                "kept of delta = kept_delta .3f",
            )
        ),
    )
