"""The report's section on heads."""

from __future__ import annotations

from typing import Any

from bayes_icl.attribute.sentences import head_sentences
from bayes_icl.attribute.settings import AttributeSettings
from bayes_icl.attribute.tables import ablation_table, heads_table, repair_table
from bayes_icl.core.files import file_name
from bayes_icl.core.provenance import command_of
from bayes_icl.writing.blocks import Explorer, Heading, Section, Shown, Tabled, Text, id_of
from bayes_icl.writing.head_map import head_map
from bayes_icl.writing.interactive import as_html
from bayes_icl.writing.numbers import Quotes, named_task
from bayes_icl.writing.stage import Missing, StageOutputs


def heads_section(found: StageOutputs, quotes: Quotes) -> Section:
    """Section on the heads that write the update, and what goes with them."""
    title = "Which heads write the update"
    if "attribute" not in found.folder:
        return Section("heads", title, [found.missing["attribute"]])
    own, facts = found.tables["attribute"], found.facts["attribute"]
    heads, ablation, repair = (own[name] for name in ("heads", "ablation", "repair"))
    blocks: list[Any] = [
        Explorer(
            as_html(head_map(heads, list(facts)), "head-map"),
            "Every head by layer: choose a task and a quantity, hover for the numbers behind it.",
        ),
        Shown("heads_share_map", "Share of delta that each head writes; heads that stand out are outlined."),
        Shown(
            "heads_conventions",
            "What heads, MLPs and the rest add, with the scale of the final norm as run and along the line from the "
            "mean stream. Neither is the truth; what both say can be relied on.",
        ),
        Shown("heads_cumulative", "Shares of delta added up, the largest first."),
        Shown(
            "heads_total", "What each head writes itself, and what it adds in total, through MLPs and later heads too."
        ),
    ]
    for task, fact in facts.items():
        of_task, taken, repaired = (table[table.task == task] for table in (heads, ablation, repair))
        sentences = head_sentences(fact, of_task, taken, repaired, quotes.under(task, "heads"))
        named = named_task(facts, task)
        blocks += [
            Heading(task, f"heads-{id_of(task)}"),
            Text([line.strip() for line in sentences], as_list=True),
            Tabled(heads_table(heads, facts, task), folded=True),
            Shown(file_name(f"heads_effects_{task}"), f"{named}: effects of the heads of largest slope against n."),
            Shown(file_name(f"heads_sources_{task}"), f"{named}: what heads write, by the token that they attend to."),
        ]
    blocks.append(Heading("Heads ablated", "heads-ablated"))
    for way, words in (("mean_over_shots", "mean-ablated over shots"), ("mean", "mean-ablated shot by shot")):
        blocks += [
            Shown(f"heads_ablation_{way}", f"Delta lost with the top heads {words}, beside placebo sets."),
            Shown(f"heads_repair_{way}", f"From what was to go to what went, heads {words}."),
        ]
    if len(ablation):
        blocks += [
            Tabled(ablation_table(ablation, facts), folded=True),
            Tabled(repair_table(repair, facts), folded=True),
        ]
    elif not found.settings("attribute").get("ablate", True):
        settings = found.settings("attribute") | {"ablate": True}
        command = f"{command_of('attribute', settings, AttributeSettings())} --force"
        blocks.append(Missing("attribute", "no heads were ablated, so the effects are direct effects only", command))
    return Section("heads", title, blocks)
