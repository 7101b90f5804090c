"""What the instrument answered on networks whose law is known, which the page says before it says what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from bayes_icl.core.errors import StatedError
from bayes_icl.core.outputs import problem_of
from bayes_icl.curves import null_controls
from bayes_icl.fit.outputs import verdicts_of
from bayes_icl.fit.sentences import departure_words, null_holds, rule_beside
from bayes_icl.fit.stage import STAGE as FIT
from bayes_icl.writing.numbers import Quotes, code
from bayes_icl.writing.stage import Missing, StageOutputs

PLACES = ("data/fits", "controls*")  # a folder an organism

COMMAND = (
    "python -m bayes_icl.collect --model organism:coin --out data/curves/controls.nc && "
    "python -m bayes_icl.fit --curves data/curves/controls.nc --readout rule"
)

# By the task of an organism: the verdict that it must get, and what is known of it.
EXPECTED = {
    "organism_coin": ("supported", "trained to add 0.25 nats an example"),
    "organism_rule": ("supported", "trained to add 0.25 nats an example, once query and answer are bound"),
    "organism_redundant": ("supported", "trained to add 0.25 nats an example"),
    "organism_count": ("rejected", "trained to count"),
    "organism_leaky": ("rejected", "trained to forget a fifth at every example"),
    "organism_pooled": ("rejected", "trained to average"),
    "organism_constant": ("no_update", "trained on labels without a rule"),
}


class Control(NamedTuple):
    """One control: what it is of, what must come out, what came."""

    task: str
    known: str
    wanted: str
    verdict: str
    numbers: str
    holds: bool


def gather_controls(found: StageOutputs, named: Path | None) -> None:
    """Read the fits of organisms, from the place named or the usual ones.

    Raises
    ------
    StatedError
        Nothing whole at the place named, or fits of no organism.
    """
    known: dict[str, Any] = {}
    for place in [named] if named else sorted(Path(PLACES[0]).glob(PLACES[1])):
        try:
            verdicts = verdicts_of(json.loads((place / "verdict.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
        if not isinstance(verdicts, dict) or problem_of(place, "fit"):
            continue
        # Of this version alone: one of before had other rules, and no departure.
        whole = {task: own for task, own in verdicts.items() if isinstance(own, dict) and FIT.facts[1] <= own.keys()}
        if own := {task: verdict for task, verdict in whole.items() if task in EXPECTED}:
            known |= own
            found.read.append(place / "verdict.json")
    if known:
        found.facts["controls"] = known
    elif named:
        raise StatedError(
            f"--controls {named}: no fits of organisms there, as this version writes them; run `{COMMAND}`, or leave "
            "the flag away"
        )
    else:
        found.missing["controls"] = Missing("controls", "not run", COMMAND)


def controls_of(found: StageOutputs) -> list[Control]:
    """Every control that was run: organisms, then null tasks of the curves themselves."""
    controls = []
    for task, verdict in found.facts.get("controls", {}).items():
        wanted, known = EXPECTED[task]
        numbers = departure_words(verdict)
        controls.append(Control(task, known, wanted, verdict["verdict"], numbers, verdict["verdict"] == wanted))
    return controls + _nulls(found.curves, found.facts.get("fit", {}))


def _nulls(curves: xr.Dataset, verdicts: Mapping[str, dict[str, Any]]) -> list[Control]:
    controls = []
    for task in null_controls(curves):
        if task in verdicts and (rule := rule_beside(verdicts[task])):
            known, wanted = "answers drawn at random", "no_update, or undecided about a total that may be 0"
            controls.append(Control(task, known, wanted, rule["verdict"], departure_words(rule), null_holds(rule)))
    return controls


def control_sentences(controls: list[Control], quotes: Quotes) -> list[str]:
    """What must come out and what came, a sentence a control."""
    q = quotes.under("controls")
    if not controls:
        return ["No control was run: what follows rests on an instrument that was shown neither a yes nor a no."]
    sentences = []
    for control in controls:
        outcome = (
            "as it must be" if control.holds else f"it must be {control.wanted.replace('_', ' ')}: the control FAILS"
        )
        text = f"{control.verdict.replace('_', ' ')} ({control.numbers}), {outcome}"
        sentences.append(f"Control {code(control.task)}, {control.known}: {q.all_in(control.task, text)}.")
    return sentences
