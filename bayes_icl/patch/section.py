"""The report's section on patching."""

from __future__ import annotations

from typing import Any

from bayes_icl.core.files import file_name
from bayes_icl.patch import tables
from bayes_icl.patch.interactive import transfer_map
from bayes_icl.patch.sentences import patch_sentences
from bayes_icl.writing.blocks import Explorer, Heading, Section, Shown, Tabled, Text, id_of
from bayes_icl.writing.head_map import head_map
from bayes_icl.writing.interactive import as_html
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import StageOutputs


def patch_section(found: StageOutputs, quotes: Quotes) -> Section:
    """Section on where the task forms, and the heads that take over."""
    title = "Where the task forms, and who takes over"
    if "patch" not in found.folder:
        return Section("formation", title, [found.missing["patch"]])
    own, facts = found.tables["patch"], found.facts["patch"]
    halves = own["halves"][own["halves"].task.map(lambda task: facts[task]["taught"]).astype(bool)]
    blocks: list[Any] = []
    for task, fact in facts.items():
        parts = {name: table[table.task == task] for name, table in own.items()}
        sentences = patch_sentences(fact, parts, quotes.under(task, "patch"))
        blocks += [
            Heading(task, f"formation-{id_of(task)}"),
            Text([line.strip() for line in sentences], as_list=True),
            Explorer(
                as_html(transfer_map(own["transfer"], task, fact["kind"]), f"transfer-{id_of(task)}"),
                f"{task}: A's residual stream put into B, layer by layer; hover for the numbers.",
            ),
            Shown(
                file_name(f"patch_transfer_{task}"), f"{task}: where the task and A's answer are recovered, by round."
            ),
            Shown(file_name(f"patch_roles_{task}"), f"{task}: what the most costly heads attend to, by role."),
            Tabled(tables.costly_table(own["heads"], facts, task), folded=True),
        ]
        if "ladder_ended" in fact:
            drawn = {
                "ladder": "whole layers ablated step by step, by three kinds of ablation, beside placebo sets",
                "ladder_transfer": "A patched into B at each step of the ladder",
                "lit": "every head at the last position before and after each step (zero)",
                "patterns": "attention patterns of the heads that rise most, before and after (zero)",
            }
            if not parts["ladder"].step.max():
                drawn = dict(list(drawn.items())[:2])
            blocks += [Shown(file_name(f"patch_{name}_{task}"), f"{task}: {words}.") for name, words in drawn.items()]
    blocks += [
        Heading("All tasks", "formation-all"),
        *(
            [Shown("patch_features", "Classes of the answer that a logit lens reads, layer by layer.")]
            if len(own["features"])
            else []
        ),
        *([Tabled(tables.ladder_table(own["ladder"]), folded=True)] if len(own["ladder"]) else []),
        Shown("patch_rounds", "The transfer layer and A's log-odds after each round of ablation, beside placebo sets."),
        Tabled(tables.rounds_table(own["rounds"]), folded=True),
        Shown("patch_backups", "Heads that take over: what their ablation costs before and after."),
        *([Tabled(tables.backups_table(own["backups"]), folded=True)] if len(own["backups"]) else []),
        Shown("patch_redundancy", "How many heads can go: the most costly first, and in random order."),
        *([Tabled(tables.halves_table(halves), folded=True)] if len(halves) else []),
        Tabled(tables.redundancy_table(own["redundancy"]), folded=True),
        Shown("patch_repair", "Self-repair: what a head's ablation takes, and what others repair."),
        Shown("patch_steps", "Three steps (Skunnavakkam 2024): what each experiment takes, beside its control."),
        *([Tabled(tables.steps_table(own["steps"]), folded=True)] if len(own["steps"]) else []),
        Shown("patch_mlps", "MLPs ablated by layer, place and readout."),
        *([Tabled(tables.mlps_table(own["mlps"]), folded=True)] if len(own["mlps"]) else []),
        Tabled(tables.transfer_table(own["transfer"]), folded=True),
    ]
    blocks.insert(
        0,
        Explorer(
            as_html(head_map(own["heads"], list(facts)), "cost-map"),
            "What each head's ablation alone costs, and what it attends to.",
        ),
    )
    return Section("formation", title, blocks)
