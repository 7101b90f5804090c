"""What the instrument answered where the law is known, said before what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bayes_icl.core.errors import StatedError
from bayes_icl.fit.verdict import Verdict
from bayes_icl.report import controls
from bayes_icl.report.controls import EXPECTED, control_sentences, controls_of, gather_controls
from bayes_icl.writing.numbers import Quotes, plain
from bayes_icl.writing.stage import StageOutputs


def verdict(kind: str, **own: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "departure": {"mean": 0.008, "low": 0.005, "high": 0.012, "margin": 0.05, "within": 1.0},
        "total": {"mean": 7.7, "low": 7.6, "high": 7.8},
        "delta": {"mean": 0.249, "hdi_low": 0.248, "hdi_high": 0.25},
    }
    others = own.pop("others", [])
    return {
        **Verdict("made", own.pop("readout", "complement"), 1, kind, [], **fields | own).as_json(),
        "others": others,
    }


def found(*nulls: str, **fit: dict[str, Any]) -> StageOutputs:
    dataset = xr.Dataset(
        {
            "log_odds": (("task", "readout", "seq", "shot"), np.zeros((len(nulls), 1, 3, 5))),
            "evidence": (("task", "seq", "shot"), np.zeros((len(nulls), 3, 5))),
        },
        coords={"task": list(nulls), "readout": ["complement"], "seq": range(3), "shot": range(5)},
    )
    return StageOutputs(Path("t.nc"), dataset, facts={"fit": fit})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of fits that are whole."""
    monkeypatch.setattr(controls, "problem_of", lambda *_: None)
    return tmp_path


def write(folder: Path, **verdicts: Any) -> None:
    (folder / "verdict.json").write_text(json.dumps(verdicts), encoding="utf-8")


@pytest.mark.parametrize(("task", "wanted"), [(task, wanted) for task, (wanted, _) in EXPECTED.items()])
def test_a_control_holds_if_it_is_what_is_known(folder: Path, task: str, wanted: str) -> None:
    for kind in ("supported", "supported_under_ceiling", "rejected", "no_update", "undecided", "refused"):
        write(folder, **{task: verdict(kind), "past_tense": verdict("rejected")})
        outputs = found()
        gather_controls(outputs, folder)
        (control,) = controls_of(outputs)  # past_tense is none
        assert control.holds == (kind == wanted)
        (sentence,) = map(plain, control_sentences([control], Quotes()))
        assert sentence.startswith(f"Control `{task}`, {EXPECTED[task][1]}: {kind.replace('_', ' ')} (departs by 0.8 [")
        assert ("FAILS" in sentence) != control.holds and ("as it must be" in sentence) == control.holds


def test_null_tasks_are_controls_too() -> None:
    unsure = {"mean": 0.1, "low": -0.2, "high": 0.4}
    for kind, total, holds in (
        ("no_update", unsure, True),
        ("undecided", unsure, True),
        ("undecided", {"mean": 0.9, "low": 0.4, "high": 1.4}, False),
        ("rejected", unsure, False),
        ("supported", unsure, False),
    ):
        rule = verdict(kind, readout="rule", total=total)
        outputs = found("empty", "copy", empty=verdict("rejected", others=[rule]), copy=verdict("rejected"))
        (control,) = controls_of(outputs)  # copy has no `rule`
        assert (control.task, control.holds) == ("empty", holds)


def test_without_a_control_it_is_said() -> None:
    (sentence,) = control_sentences([], Quotes())
    assert sentence.startswith("No control was run")


def before(own: dict[str, Any]) -> dict[str, Any]:
    """A verdict of before: no departure, no total, and priors."""
    gone = ("departure", "second_half", "total", "ceiling", "mean_curve", "noise_shape")
    return {name: value for name, value in own.items() if name not in gone} | {"priors": "stated"}


@pytest.mark.parametrize(
    "content",
    [
        {"organism_coin": before(verdict("rejected"))},
        {"organism_coin": None},
        {"organism_coin": []},
        {"past_tense": verdict("supported")},
        {},
        [],
        None,
        "text",
    ],
    ids=["of before", "none", "list", "no organism", "empty", "a list", "null", "a text"],
)
def test_what_another_version_wrote_is_refused_in_a_line(folder: Path, content: Any) -> None:
    (folder / "verdict.json").write_text(json.dumps(content), encoding="utf-8")
    outputs = found()
    with pytest.raises(StatedError, match="no fits of organisms there, as this version writes them; run `python -m"):
        gather_controls(outputs, folder)
    assert "controls" not in outputs.facts


def test_at_its_own_place_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = found()
    gather_controls(outputs, None)
    assert outputs.missing["controls"].why == "not run" and controls_of(outputs) == []
