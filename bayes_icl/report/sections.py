"""The report's parts: opening, sections of the stages, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.figure import Figure

from bayes_icl.calibrate.sentences import calibration_differs
from bayes_icl.curves import consecutive
from bayes_icl.report.claims import answer
from bayes_icl.report.controls import control_sentences, controls_of
from bayes_icl.report.stages import STAGES
from bayes_icl.writing.blocks import Section
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import StageOutputs


def draw(found: StageOutputs) -> dict[str, Figure]:
    """The figures of all stages, by name."""
    return {
        name: figure
        for stage in STAGES.values()
        if stage.name in found.folder
        for name, figure in stage.figures(found).items()
    }


class Opening(NamedTuple):
    """The page's first lines: the question, how controls came out, the answer in a word or two and in sentences, and
    what it is of.
    """

    question: str
    controls: list[str]
    word: str
    sentences: list[str]
    setting: str


def open_with(found: StageOutputs, quotes: Quotes) -> Opening:
    """The question, and its answer as far as `fit` was run."""
    q, verdicts = quotes.under("answer"), found.facts.get("fit", {})
    word, sentences = "Not judged yet.", list[str]()
    numbers, n_shots = sorted(set(found.n_seqs)), found.sizes[1]
    n_seqs = " to ".join(q.count(f"n_seqs_{i}", n) for i, n in enumerate(dict.fromkeys((numbers[0], numbers[-1]))))
    setting = f"{found.model}, {n_seqs} sequences of {q.count('n_shots', n_shots)} examples a task"
    controls = controls_of(found)
    if verdicts:
        word, sentences = answer(found.curves, verdicts, quotes)
        of = dict.fromkeys((v["readout"], v["n_min"], v["noise"]) for v in verdicts.values())
        setting += "; " + " or ".join(
            f"{readout}, n \u2265 {q.count(f'n_min_{n_min}', n_min)}, {noise} noise" for readout, n_min, noise in of
        )
        if "calibrate" not in found.folder:
            setting += "; not calibrated"
        elif calibration_differs(
            found.settings("calibrate"),
            found.sizes,
            found.settings("fit"),
            gaps=not consecutive(found.curves.shot.values),
        ):
            setting += "; calibrated on other settings (below)"
        else:
            setting += "; calibrated on these settings (below)"
    question = f"Does every example add the same evidence in {found.model}, as a Bayesian's would?"
    if not all(control.holds for control in controls):
        word = "In doubt: a control fails."
    return Opening(question, control_sentences(controls, quotes), word, sentences, f"{setting}.")


def compose(found: StageOutputs, figures: Mapping[str, Figure], quotes: Quotes) -> list[Section]:
    """The sections of the page, in order; a stage that was not run has one that says how to run it."""
    placed = [own for stage in STAGES.values() for own in stage.sections(found, quotes)]
    sections = [section for _, section in sorted(placed, key=lambda own: own[0])]
    return [
        section._replace(blocks=[b for b in section.blocks if b.kind != "figure" or b.name in figures])
        for section in sections
    ]
