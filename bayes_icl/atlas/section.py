"""The report's section on the atlas of heads."""

from __future__ import annotations

from typing import Any

from bayes_icl.atlas.sentences import atlas_sentences
from bayes_icl.atlas.tables import atlas_table, lesions_table
from bayes_icl.core.files import file_name
from bayes_icl.writing.blocks import Heading, Section, Shown, Tabled, Text, id_of
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import StageOutputs


def atlas_section(found: StageOutputs, quotes: Quotes) -> Section:
    """Section on the scores of heads, the groups ablated, and the scores that agree."""
    title = "An atlas of heads"
    if "atlas" not in found.folder:
        return Section("atlas", title, [found.missing["atlas"]])
    tables, facts = found.tables["atlas"], found.facts["atlas"]
    blocks: list[Any] = []
    for task, own in facts.items():
        of_task = {name: table[table.task == task] for name, table in tables.items()}
        blocks += [
            Heading(task, f"atlas-{id_of(task)}"),
            Text(atlas_sentences(own, of_task, quotes.under(task, "atlas")), as_list=True),
            Shown(f"atlas_{file_name(task)}", f"{task}: scores of heads, and which scores go together."),
            Tabled(atlas_table(tables["atlas"], task), folded=True),
        ]
    if len(tables["lesions"]):
        blocks += [
            Heading("Groups ablated", "atlas-lesions"),
            Shown("atlas_lesions", "Share of delta lost with groups of heads, beside placebo groups."),
            Tabled(lesions_table(tables["lesions"]), folded=True),
        ]
    return Section("atlas", title, blocks)
