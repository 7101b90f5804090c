"""The report's section on addition in the residual stream."""

from __future__ import annotations

from typing import Any

from bayes_icl.addition.sentences import addition_sentences
from bayes_icl.addition.tables import layers_table, slopes_table
from bayes_icl.core.files import file_name
from bayes_icl.writing.blocks import Heading, Section, Shown, Tabled, Text, id_of
from bayes_icl.writing.numbers import Quotes, named_task
from bayes_icl.writing.stage import StageOutputs


def addition_section(found: StageOutputs, quotes: Quotes) -> Section:
    """Section on whether examples add a vector to the stream."""
    title = "Whether examples add to the residual stream"
    if "addition" not in found.folder:
        return Section("addition", title, [found.missing["addition"]])
    tables, facts = found.tables["addition"], found.facts["addition"]
    blocks: list[Any] = []
    for task, fact in facts.items():
        of_task = {name: table[table.task == task] for name, table in tables.items()}
        named = named_task(facts, task)
        blocks += [
            Heading(task, f"addition-{id_of(task)}"),
            Text(addition_sentences(fact, of_task, quotes.under(task, "addition")), as_list=True),
            Shown(file_name(f"addition_shares_{task}"), f"{named}: shares of the movement by layer."),
            Shown(file_name(f"addition_amounts_{task}"), f"{named}: amount along the direction against n, by layer."),
            Shown(file_name(f"addition_doses_{task}"), f"{named}: what adding vectors does beside real examples."),
            Tabled(layers_table(tables["layers"], task), folded=True),
            Tabled(slopes_table(tables["slopes"], task), folded=True),
        ]
    return Section("addition", title, blocks)
