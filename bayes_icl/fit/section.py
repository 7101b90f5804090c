"""The report's sections on fits."""

from __future__ import annotations

import json
from typing import Any

from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.fit import adequacy_sentences as tell
from bayes_icl.fit import tables
from bayes_icl.fit.sentences import engines_agree, left_aside, pooled_sentences
from bayes_icl.fit.weighing_figures import drawn_names
from bayes_icl.writing.blocks import Section, Shown, Tabled, Text
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import StageOutputs

CAPTIONS = {
    "evidence": "What the model makes of evidence: its log-odds around a switch, or against what an ideal observer "
    "would say, with the weight that fits.",
    "kernel": f"The weight of an example by how many were shown since, with {LEVEL_WORDS} bands, and the observer's.",
    "orders": "The variance between orders of the same examples, free of what single queries add, by the number of "
    "examples shown; 0 for an exchangeable learner.",
    "prior": "Log-odds with and without the text before the examples: parallel where prior and evidence add.",
}


def fit_sections(found: StageOutputs, quotes: Quotes) -> list[Section]:
    """Sections on verdicts, delta, laws compared and the checks of the fits."""
    if "fit" not in found.folder:
        return [Section("verdicts", "Verdicts", [found.missing["fit"]])]
    own, verdicts, q = found.tables["fit"], found.facts["fit"], quotes.under("fit")
    comparison = own["comparison"]
    delta: list[Any] = [
        Shown(
            "delta",
            f"Delta, the slope of the best line: posterior density, mean and {LEVEL_WORDS} interval, by task, with the "
            "verdict.",
        ),
        Shown(
            "updates", "Mean update by number of examples, and what additive and the law that is selected make of it."
        ),
    ]
    pooled = found.folder["fit"] / "pooled.json"
    if pooled.exists():
        content = json.loads(pooled.read_text(encoding="utf-8"))
        # The lines of single tasks, which are indented, stand in the table.
        lines = [line for line in pooled_sentences(content) if not line.startswith(" ")]
        delta.insert(1, Text([q.all_in(f"pooled.{i}", line) for i, line in enumerate(lines)], as_list=True))
        if "mu" in content:
            delta.insert(2, Tabled(tables.pooled_table(content)))
    compared: list[Any] = [
        Shown(
            "comparison",
            "How far each law predicts below the best, with 2 standard errors: a sequence left out, the future left "
            "out. Laws in bold survive; the grey band is within 4 nats.",
        )
    ]
    told = tell.selection_sentences(verdicts, comparison) if len(comparison) else []
    compared.append(Text([q.all_in(f"told.{i}", line) for i, line in enumerate(told)], as_list=True))
    compared += [Tabled(table, folded=True) for table in tables.comparison_tables(verdicts, comparison)]
    agree = engines_agree(own["engines"], comparison)
    engines = [q.all_in(f"engines.{i}", line) for i, line in enumerate(agree)]
    sensitive: list[Any] = [
        Shown("sensitivity", "The verdict on every task under every setting, and the law that is selected."),
        Tabled(tables.sensitivity_table(own["sensitivity"]), folded=True),
        Tabled(tables.checks_table(own["checks"]), folded=True),
        Text(engines),
        *([Tabled(tables.engines_table(own["engines"]), folded=True)] if len(own["engines"]) else []),
    ]
    lines = [
        *tell.bent_sentence(own["checks"]),
        *tell.pit_sentences(own["pit_tests"]),
        *tell.noise_sentences(own["noise"]),
        *tell.power_scaling_sentences(own["power_scaling"]),
    ]
    fitting: list[Any] = [
        Text([q.all_in(f"adequacy.{i}", line) for i, line in enumerate(lines)], as_list=True),
        Shown(
            "pit",
            "Sequences left out, as additive and the law selected predict them: the distribution function of their "
            f"probability integral transforms less that of uniform values; band: {LEVEL_WORDS}.",
        ),
        Tabled(tables.pit_tests_table(own["pit_tests"]), folded=True),
        Shown("noise", "The sd over sequences at each number of examples, and what the fit of the free mean expects."),
        Shown("prior_predictive", "New sequences from the priors of additive and of the law selected, and the data."),
        Tabled(tables.power_scaling_table(own["power_scaling"]), folded=True),
    ]
    verdict = tables.verdict_table(verdicts, comparison, own["checks"])
    straight = [
        Shown(
            "departure",
            "The mean curve of every task, its best line, and the band within which it is straight for practical "
            "purposes.",
        )
    ]
    weighed: list[Any] = [Shown(name, CAPTIONS[name]) for name in drawn_names(list(verdicts.values()))]
    if len(own["history"]):
        weighed.append(Tabled(tables.history_table(own["history"]), folded=True))
    evidence = [Section("evidence", "How evidence is weighed", weighed)] if weighed else []
    return [
        Section("verdicts", "Verdicts", [Tabled(verdict), *straight]),
        *evidence,
        Section("delta", "Delta and updates", delta),
        Section("comparison", "Comparison of laws", compared),
        Section("adequacy", "How laws fit, and their priors", fitting),
        Section("sensitivity", "Sensitivity and checks", sensitive),
    ]


def refused_section(found: StageOutputs, quotes: Quotes) -> Section:
    """Section on curves that were refused, and laws that were left aside."""
    sentences = left_aside(found.facts.get("fit", {}), quotes)
    if "fit" not in found.folder:
        return Section("refused", "Refused and left aside", [found.missing["fit"]])
    return Section("refused", "Refused and left aside", [Text(sentences or ["Nothing."], as_list=bool(sentences))])
