"""The report's section on whether examples need to see one another."""

from __future__ import annotations

from typing import Any

from bayes_icl.core.files import file_name
from bayes_icl.independence.sentences import independence_sentences
from bayes_icl.independence.tables import kept_table, verdicts_table
from bayes_icl.writing.blocks import Heading, Section, Shown, Tabled, Text, id_of
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import StageOutputs


def independence_section(found: StageOutputs, quotes: Quotes) -> Section:
    """Section on whether examples need to see one another."""
    title = "Whether examples need to see one another"
    if "independence" not in found.folder:
        return Section("independence", title, [found.missing["independence"]])
    tables, facts = found.tables["independence"], found.facts["independence"]
    blocks: list[Any] = [Tabled(verdicts_table(tables["verdicts"]))]
    for task, fact in facts.items():
        of_task = {name: table[table.task == task] for name, table in tables.items()}
        blocks += [
            Heading(task, f"independence-{id_of(task)}"),
            Text(independence_sentences(fact, of_task, quotes.under(task, "independence")), as_list=True),
            Shown(file_name(f"independence_curves_{task}"), f"{task}: log-odds against n by size of blocks."),
            Shown(file_name(f"independence_kept_{task}"), f"{task}: share of the update left, by layers."),
            Tabled(kept_table(tables["kept"], task), folded=True),
        ]
    return Section("independence", title, blocks)
