"""The report's section on calibration."""

from __future__ import annotations

from typing import Any

from bayes_icl.calibrate.sentences import calibration_differs, calibration_sentences
from bayes_icl.calibrate.tables import calibration_table
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.curves import consecutive
from bayes_icl.writing.blocks import Section, Shown, Tabled, Text
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.stage import StageOutputs


def calibration_section(found: StageOutputs, quotes: Quotes) -> Section:
    """Section on what the fits make of curves whose law is known."""
    blocks: list[Any] = []
    if "calibrate" in found.folder:
        outcomes, settings = found.tables["calibrate"]["outcomes"], found.settings("calibrate")
        gaps = not consecutive(found.curves.shot.values)
        differs = calibration_differs(settings, found.sizes, found.settings("fit") or None, gaps=gaps)
        blocks += [
            Text(calibration_sentences(outcomes, settings, differs, quotes)),
            Tabled(calibration_table(outcomes)),
            Shown(
                "calibration_verdicts",
                "Which verdicts are given on truths that the model does not assume: lines with other noise, curves "
                "that bend by little and by much, a line under a ceiling, nothing.",
            ),
            Shown("calibration_confusion", "Which kind of law is selected and which verdict given, by the true law."),
            Shown("calibration_recovery", f"How many {LEVEL_WORDS} intervals hold the truth, by law and parameter."),
            Shown("calibration_ranks", "Ranks of true parameters in their posteriors, less uniform; red: controls."),
        ]
    if "calibrate" in found.missing:
        blocks.insert(1 if blocks else 0, found.missing["calibrate"])
    return Section("calibration", "Calibration", blocks)
