"""What `atlas` leaves: its scores and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bayes_icl.core.files import file_name
from bayes_icl.core.schemas import INTERVAL, Column, Table, columns


class Score(NamedTuple):
    """A score of heads.

    Attributes
    ----------
    words
        For figures and tables.
    meaning
        For the documentation.
    whole
        What it is a share of: a quantity of the JSON file, or nothing.
    """

    words: str
    meaning: str
    whole: str = ""


SCORES = {
    "direct": Score("direct", "part of delta that the head writes itself, nats per example", "delta"),
    "total": Score("total", "part of delta that it adds in all, through MLPs and later heads too", "delta"),
    "backup": Score("backup growth", "by how much `total` grows once the writers are ablated", "delta"),
    "function_vector": Score(
        "function vector",
        "what its mean output over the task's other episodes adds to the right answer's log-odds in an episode with "
        "permuted answers, at the last position, nats (causal indirect effect)",
        "rule_gain",
    ),
    "recognition": Score(
        "recognition", "part of the slope of `format` that it writes itself, nats per example", "delta_format"
    ),
    "learning": Score("learning", "the same of `rule`", "delta_rule"),
    "bring": Score("brings query", "attention from an example's answer to its own query"),
    "to_answers": Score("to answers", "attention from the last position to the answers of examples"),
    "induction": Score("induction", "attention to what came after the same token before, on random tokens said twice"),
    "previous_token": Score("previous token", "attention to the token before, on the same"),
}

GROUPS = {
    "carriers": "largest total effects",
    "writers": "largest direct effects along delta",
    "cancellers": "largest direct effects against delta",
    "both": "writers and cancellers",
    "function_vector": "largest function-vector scores",
}

ATLAS = Table(
    "atlas",
    "A row for each task, head and score.",
    (
        *columns("task component", "which", "text"),
        *columns("layer head", "of the head", "count"),
        Column("score", "; ".join(f"{name}: {s.meaning}" for name, s in SCORES.items()), "text", values=tuple(SCORES)),
        Column("value", "the score: mean over sequences (over random texts for the last two)", ends=INTERVAL),
        Column(
            "share",
            "of delta, of the rule gain or of the readout's own slope; NaN where that may be 0",
            ends=INTERVAL,
        ),
        Column(
            "named",
            "more than 95 % of the posterior, pooled over heads, lies beyond 5 % of the whole on one side; of growth, "
            "along delta, and where what it grows to does so too; never of attention",
            "flag",
        ),
        Column(
            "kind",
            "writer or canceller: direct effect along or against delta, where it is named",
            "text",
            values=("writer", "canceller"),
        ),
        Column("n_seqs", "sequences, or random texts", "count"),
    ),
)

LESIONS = Table(
    "lesions",
    "A row for each group of heads ablated together, and each of its placebo groups.",
    (
        Column("task", "which", "text"),
        Column("group", "; ".join(f"{name}: {words}" for name, words in GROUPS.items()), "text", values=tuple(GROUPS)),
        Column("set", "top, or placebo 1, ...", "text"),
        Column("heads", "those ablated", "text"),
        Column("n_heads", "how many", "count"),
        Column("norm", "of what is ablated"),
        Column("n_seqs", "sequences that were measured, on which no head was chosen", "count"),
        Column("lost", "slope that is lost, nats per example", ends=INTERVAL),
        Column("share", "as a share of delta", ends=INTERVAL),
        Column("beyond", "lost, less the mean over placebo groups; NaN for these", ends=INTERVAL),
    ),
)

AGREEMENT = Table(
    "agreement",
    "A row for each task and pair of scores; of a score with itself, between two halves of the sequences. Not of "
    "`total` and its growth, which has it with a minus.",
    (
        Column("task", "which", "text"),
        *columns("a b", "the scores", "text", values=tuple(SCORES)),
        Column("rank", "rank correlation over heads, with a bootstrap interval over sequences", ends=INTERVAL),
        Column("n_heads", "heads that have both", "count"),
    ),
)

TABLES = {table.name: table for table in (ATLAS, LESIONS, AGREEMENT)}

FACTS = "atlas.json"


def circuit_file(task: str) -> str:
    """Name of the file with a task's heads as a circuit."""
    return f"{file_name(task)}.heads.json"


def read_atlas(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, Any]]]:
    """Tables by name, and facts by task, of a folder that `atlas` wrote."""
    tables = {name: table.read(folder / f"{name}.csv") for name, table in TABLES.items()}
    return tables, json.loads((folder / FACTS).read_text(encoding="utf-8"))


def wide(atlas: pd.DataFrame, task: str, column: str = "value") -> pd.DataFrame:
    """One task's heads by rows, scores by columns in the order of `SCORES`.

    Parameters
    ----------
    atlas
        atlas.csv.
    task
        Which task.
    column
        What of a score.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_icl.atlas.outputs import wide
    >>> rows = [{"task": "copy", "layer": 0, "head": h, "score": "total", "value": h / 10} for h in (0, 1)]
    >>> wide(pd.DataFrame(rows), "copy").total.tolist()
    [0.0, 0.1]
    """
    table = atlas[atlas.task == task].pivot(index=["layer", "head"], columns="score", values=column)
    return table[[name for name in SCORES if name in table]]
