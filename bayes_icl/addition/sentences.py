"""What `addition` says, as sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bayes_icl.addition.outputs import TABLES
from bayes_icl.addition.tables import layers_table, slopes_table
from bayes_icl.core.files import beside
from bayes_icl.core.schemas import read_beside
from bayes_icl.writing.blocks import Heading, Tabled, Text, to_terminal
from bayes_icl.writing.numbers import Quotes, listed


def summarise_addition(out: Path) -> str:
    """Text for people: how the stream moves with examples, and what adding a vector does.

    Parameters
    ----------
    out
        The file of `addition`; its tables stand beside it.
    """
    facts = json.loads(beside(out, "json").read_text())
    tables = read_beside(out, TABLES)
    blocks: list[Heading | Text | Tabled] = []
    for task, own in facts.items():
        of_task = {name: table[table.task == task] for name, table in tables.items()}
        blocks += [Heading(task, ""), Text(addition_sentences(own, of_task, Quotes()))]
        blocks += [Tabled(layers_table(tables["layers"], task)), Tabled(slopes_table(tables["slopes"], task))]
    return to_terminal(blocks, width=130)


def addition_sentences(fact: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], quotes: Quotes) -> list[str]:
    """Of one task: where the stream moves, how, and what adding its direction does.

    Parameters
    ----------
    fact
        The task's facts.
    tables
        The task's rows of every table.
    quotes
        Where the numbers are kept that the sentences quote.
    """
    layers = tables["layers"]
    n_layers = layers.layer.nunique()
    sentences = []
    for part, words in (("task", "the examples"), ("rule", "the rule, beyond permuted answers,")):
        q = quotes.under(part)
        own = layers[(layers.part == part) & layers.moves]
        if own.empty:
            sentences.append(f"No layer shows that the stream where the answer is read moves with {words.rstrip(',')}.")
            continue
        sentences.append(
            f"With {words} the stream surely moves into {q.count('moving', len(own))} of "
            f"{q.count('layers', n_layers)} layers, the final norm counted as one."
        )
        row = own.loc[own["size"].idxmax()]
        sentences.append(
            f"It moves most, for its length, into layer {q.count('layer', row.layer)}: one direction has "
            f"{q.percent('rank1', row.rank1)} of the movement."
        )
        sentences.append(
            f"There a line in n has {q.percent('line', row.line)} of it and log n {q.percent('log', row.log)}."
        )
        fitted = own[~own.verdict.isin(["not_fitted"])]
        if len(fitted):
            found = [f"{verdict} into {q.count(verdict, n)}" for verdict, n in fitted.verdict.value_counts().items()]
            sentences.append(f"That the amount grows by equal steps is {listed(found)} of these layers.")
    best, q = fact["best"], quotes.under("dose")
    if best["named"]:
        sentences.append(
            f"Adding the direction stands in best for examples at layer {q.count('layer', best['layer'])} "
            f"(between {q.count('layer_low', best['layer_low'])} and {q.count('layer_high', best['layer_high'])})."
        )
        sentences.append(f"It misses {q.percent('missed', best['missed'])} of what examples raise, root mean square.")
    else:
        sentences.append(
            "At no layer does adding the direction stand in for examples: it must come within half of what they raise, "
            "and be surely steeper than a random direction."
        )
    return sentences
