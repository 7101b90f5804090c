"""What `independence` says, as sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bayes_icl.core.files import beside
from bayes_icl.core.intervals import Interval
from bayes_icl.core.schemas import read_beside
from bayes_icl.independence.outputs import INDEPENDENT, NO_UPDATE, NOT_INDEPENDENT, TABLES
from bayes_icl.independence.tables import kept_table, verdicts_table
from bayes_icl.writing.blocks import Heading, Tabled, Text, to_terminal
from bayes_icl.writing.numbers import Quotes, listed


def summarise_independence(out: Path) -> str:
    """Text for people: what of the update is left when examples do not see one another.

    Parameters
    ----------
    out
        The file of `independence`; its tables stand beside it.
    """
    facts = json.loads(beside(out, "json").read_text())
    tables = read_beside(out, TABLES)
    blocks: list[Heading | Text | Tabled] = [Tabled(verdicts_table(tables["verdicts"]))]
    for task, own in facts.items():
        of_task = {name: table[table.task == task] for name, table in tables.items()}
        blocks += [Heading(task, ""), Text(independence_sentences(own, of_task, Quotes()))]
        blocks += [Tabled(kept_table(tables["kept"], task))]
    return to_terminal(blocks, width=130)


def independence_sentences(fact: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], quotes: Quotes) -> list[str]:
    """Of one task: what is left of the update when examples do not see one another.

    Parameters
    ----------
    fact
        The task's facts.
    tables
        The task's rows of every table.
    quotes
        Where the numbers are kept that the sentences quote.
    """
    verdict, kept = tables["verdicts"].iloc[0], tables["kept"]
    update = quotes.under(unit="nats").columns(verdict, "update", ".2f")
    span = f"from n = {quotes.count('n_min', fact['n_min'])} to {quotes.count('n_shots', fact['n_shots'])}"
    if verdict.verdict == NO_UPDATE:
        return [f"There is no update to lose: {update} nats {span}, so nothing is said of independence."]
    share = quotes.three_percent("kept", Interval.of(verdict, "kept"))
    sentences = [
        f"The update {span} is {update} nats.",
        f"With every example in a block of its own, {share} of it is left.",
        _verdict_sentence(verdict, fact, quotes),
        "When as many attention edges of each token are cut elsewhere, "
        f"{quotes.three_percent('control', Interval.of(verdict, 'control'))} is left.",
    ]
    parts = kept[(kept["size"] == 1) & (kept.layers != fact["layers"][0])]
    if len(parts):
        each = [
            f"{quotes.percent(f'layers.{row.layers}', row.kept)} in {'layers' if '-' in row.layers else 'layer'} "
            f"{row.layers}"
            for row in parts.itertuples()
        ]
        sentences.append(f"Cut in some layers only, what is left is {listed(each)}.")
    return sentences


def _verdict_sentence(verdict: pd.Series, fact: Mapping[str, Any], quotes: Quotes) -> str:
    """The verdict, and which blocks suffice."""
    if verdict.verdict == INDEPENDENT:
        return "So the examples are independent: they keep their update, to 5 %, without seeing one another."
    if pd.notna(verdict.enough):
        blocks = f"blocks of {quotes.count('enough', int(verdict.enough))} examples surely keep the update to 5 %"
    else:
        blocks = "no size of blocks surely keeps the update to 5 %"
    if verdict.verdict == NOT_INDEPENDENT:
        way = "more" if verdict.kept > 1 else "less"
        return f"So the examples are not independent: they are worth {way} when they do not see one another; {blocks}."
    return f"Whether the examples are independent is undecided: the interval holds a change of 5 %; {blocks}."
