"""The report's section on curves: every task's sequences, verdict and fitted laws."""

from __future__ import annotations

from typing import Any

import xarray as xr

from bayes_icl.collect.interactive import curves_by_sequence
from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.curves import learning_of, readouts_of
from bayes_icl.fit.outputs import fit_file
from bayes_icl.fit.sentences import beside_verdict, verdict_sentence
from bayes_icl.fit.weighing_sentences import beside_weighing_sentences, weighing_sentence
from bayes_icl.writing.blocks import Explorer, Heading, Section, Shown, Text, id_of
from bayes_icl.writing.interactive import as_html
from bayes_icl.writing.learning import not_learnt
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import StageOutputs


def curves_section(found: StageOutputs, quotes: Quotes) -> Section:
    """Section on curves: a heading, verdict and two figures a task."""
    verdicts = found.facts.get("fit", {})
    blocks: list[Any] = []
    for i, task in enumerate(map(str, found.curves.task.values), 1):
        verdict = verdicts.get(task)
        blocks.append(Heading(task, f"task-{i}"))
        if verdict and (second := verdict.get("bayesian")):
            blocks.append(Text([weighing_sentence(task, second, quotes)]))
            if beside := beside_weighing_sentences(task, second, quotes):
                blocks.append(Text(beside, as_list=True))
        if verdict and verdict["verdict"] != "not_asked":
            learning = learning_of(found.curves, task)
            warning = not_learnt(learning._asdict() if learning else None, quotes.under(task))
            blocks.append(Text([*warning, verdict_sentence(task, verdict, quotes)]))
            if beside := beside_verdict(found.curves, task, verdict, quotes):
                blocks.append(Text(beside, as_list=True))
        readouts = readouts_of(found.curves, task)
        if verdict:  # the one that was judged first: laws belong to it
            readouts = list(dict.fromkeys([verdict["readout"], *readouts]))
        laws, n_min = _mean_curves(found, task), verdict["n_min"] if verdict else 1
        figure = curves_by_sequence(found.curves, task, readouts, laws, n_min)
        blocks.append(
            Explorer(
                as_html(figure, f"curves-{id_of(task)}"),
                f"{task}: every sequence. Hover for the query, its answer and the update; click names in the legend.",
            )
        )
        blocks.append(
            Shown(
                file_name(f"curves_{task}"),
                f"{task}: log-odds of the correct answer against examples shown, with every law's mean and the band "
                f"that holds {LEVEL_WORDS} of new sequences (posterior predictive).",
            )
        )
    return Section("curves", "Curves", blocks)


def _mean_curves(found: StageOutputs, task: str) -> dict[str, tuple[Any, Any]]:
    """Posterior mean curves of `additive` and of the law that is selected, from their files."""
    verdict = found.facts.get("fit", {}).get(task)
    curves: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys(["additive", verdict["selected"]] if verdict else []):
        file = found.folder["fit"] / fit_file(task, name) if name else None
        if file and file.exists():
            with xr.open_dataset(file, group="posterior_predictive", engine="h5netcdf") as predicted:
                mean = predicted["mean_log_odds"].mean(("chain", "draw"))
                curves[name] = mean.shot.values, mean.values
    return curves
