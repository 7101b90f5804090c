"""The report's sentences follow the data: verdicts, claims, calibration, what was refused."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_icl.compare import read_table
from bayes_icl.findings import (
    answer,
    beside_verdict,
    calibration_sentences,
    claims,
    left_aside,
    null_controls,
    verdict_sentence,
)
from bayes_icl.quotes import Quotes, plain

ROOT = Path(__file__).parent.parent
CHECKS = pd.DataFrame(columns=["task", "check", "estimate", "p"])


def curves(*tasks: str, null: tuple[str, ...] = ()) -> xr.Dataset:
    odds = np.zeros((len(tasks), 1, 3, 5))
    evidence = np.array([0.0 if task in null else np.nan for task in tasks])
    return xr.Dataset(
        {
            "log_odds": (("task", "readout", "seq", "shot"), odds),
            "evidence": (("task", "seq", "shot"), np.broadcast_to(evidence[:, None, None], (len(tasks), 3, 5)).copy()),
        },
        coords={"task": list(tasks), "readout": ["complement"], "seq": range(3), "shot": range(5)},
    )


def verdict(kind: str, **more: Any) -> dict:
    own = {
        "verdict": kind, "reasons": [], "named": "pooling", "readout": "complement", "n_min": 1, "noise": "normal",
        "priors": "stated", "notes": [], "pulls": [], "others": [], "seqs_needed": None,
        "delta": {"mean": 0.2, "hdi_low": 0.1, "hdi_high": 0.3},
    }  # fmt: skip
    return own | more


def asked(*kinds: str, checks: pd.DataFrame = CHECKS, null: tuple[str, ...] = ()) -> tuple[str, str]:
    tasks = [f"task{chr(ord('a') + i)}" for i in range(len(kinds))]
    verdicts = {task: verdict(kind) for task, kind in zip(tasks, kinds)}
    word, sentences = answer(curves(*tasks, null=null), verdicts, checks, Quotes())
    return word, plain(" ".join(sentences))


@pytest.mark.parametrize(
    ("kinds", "word"),
    [
        (["supported"], "Yes."),
        (["supported", "supported"], "Yes."),
        (["rejected"] * 3, "No."),
        (["supported", "rejected"], "On some tasks."),
        (["rejected", "undecided"], "No, where it can be told."),
        (["no_update", "no_update"], "Nothing is learned."),
        (["undecided", "undecided"], "It cannot be told."),
        (["refused"], "It cannot be told."),
        ([], "Nothing was asked."),
    ],
)
def test_the_answer_follows_the_verdicts(kinds: list[str], word: str) -> None:
    found, sentences = asked(*kinds)
    assert found == word
    for i, kind in enumerate(kinds):
        assert f"`task{chr(ord('a') + i)}`" in sentences
        n, of = kinds.count(kind), len(kinds)
        assert f"({n} of {of} task{'s' * (of > 1)})" in sentences


def test_a_null_control_is_no_task_to_learn() -> None:
    found, sentences = asked("supported", "rejected", null=("taskb",))
    assert found == "Yes." and "taskb" not in sentences
    assert null_controls(curves("a", "b", null=("b",))) == ["b"]
    assert null_controls(curves("a").drop_vars("evidence")) == []


def test_updates_that_fall_are_said_to_and_others_not() -> None:
    rows = [("taska", -3.0, 1e-9), ("taskb", -3.0, 0.02), ("taskc", 3.0, 1e-9)]
    table = pd.DataFrame([{"task": t, "check": "quadratic contrast", "estimate": e, "p": p} for t, e, p in rows])
    _, sentences = asked("rejected", "rejected", "rejected", checks=table)
    assert "less and less on `taska` (" in sentences
    _, sentences = asked("rejected", "rejected", "rejected", checks=table.assign(estimate=3.0))
    assert "less and less" not in sentences


def test_a_verdict_is_told_with_its_numbers() -> None:
    q = Quotes()
    own = verdict("undecided", reasons=["additive is 4.2 (SE 3.1) nats from the best (power)"], seqs_needed=140)
    text = plain(verdict_sentence("copy", own, q))
    assert text == (
        "`copy`: undecided (complement, n \u2265 1). additive is 4.2 (SE 3.1) nats from the best (power). Delta under "
        "`additive` is 0.200 [0.100, 0.300] nats per example. The simplest law that survives is `pooling`. About 140 "
        "sequences would decide it."
    )
    assert q.numbers["copy.verdict.delta"]["low"] == 0.1
    assert q.numbers["copy.verdict.reasons.0.1"]["value"] == 3.1
    refused = verdict("refused", delta=None, named=None, reasons=["too few sequences: 3"])
    assert plain(verdict_sentence("copy", refused, Quotes())) == (
        "`copy`: refused (complement, n \u2265 1). too few sequences: 3."
    )


def test_what_stands_beside_a_verdict() -> None:
    others = [verdict("rejected", n_min=0), verdict("supported", n_min=2), verdict("no_update", readout="rule")]
    own = verdict("rejected", others=others, notes=["the power law's a is at the bound of its prior (-0.5, 1.0)"])
    q = Quotes()
    found = [plain(s) for s in beside_verdict(curves("copy", null=("copy",)), "copy", own, q)]
    assert found == [
        "the verdict is the same in 1 of 2 other settings of complement",
        "complement rises but rule does not: what is learned is the form of an answer, not the rule",
        "null control (nothing to learn): rule must be no_update and is no_update: passes",
        "note: the power law's a is at the bound of its prior (-0.5, 1.0)",
    ]
    assert [n["value"] for key, n in q.numbers.items() if ".beside.0." in key] == [1, 2]
    assert beside_verdict(curves("copy"), "copy", verdict("rejected"), Quotes()) == []


def test_what_was_refused_is_listed_with_its_setting() -> None:
    other = verdict(
        "refused", reasons=["fewer than 8 sequences: 7"], priors="halved", notes=["left aside: lapse: ESS 65"]
    )
    student = verdict("rejected", noise="student", notes=["left aside: power: ESS 12", "a note that is none"])
    q = Quotes()
    found = [plain(s) for s in left_aside({"copy": verdict("rejected", others=[other, student])}, q)]
    assert found == [
        "`copy` (complement, n \u2265 1, priors halved): refused: fewer than 8 sequences: 7.",
        "`copy` (complement, n \u2265 1, priors halved): left aside: lapse: ESS 65.",
        "`copy` (complement, n \u2265 1, student noise): left aside: power: ESS 12.",
    ]
    assert left_aside({"copy": verdict("rejected")}, q) == []


@pytest.mark.parametrize(("sizes", "same"), [((64, 32), True), ((32, 32), False), ((64, 16), False)])
def test_calibration_says_whose_size_it_is_of(sizes: tuple[int, int], same: bool) -> None:
    outcomes = read_table(ROOT / "figures/calibration/outcomes.csv")
    settings = {"n_seqs": 64, "n_shots": 32}
    text = plain(" ".join(calibration_sentences(outcomes, settings, sizes, Quotes())))
    assert ("these very sizes" in text) == same and ("for which it was not run" in text) != same
    assert f"{len(outcomes)} of {len(outcomes)} checks hold" in text and "Fails" not in text
    failing = outcomes.assign(holds=[False, *[True] * (len(outcomes) - 1)])
    text = plain(" ".join(calibration_sentences(failing, settings, sizes, Quotes())))
    assert f"{len(outcomes) - 1} of {len(outcomes)} checks hold" in text and "Fails: " + outcomes.what[0] in text


# ------------------------------------------------------------------------------------------------- heads and layers


def heads_of(clear: bool = True) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    low = 0.1 if clear else -0.1
    facts = {
        "copy": {
            "delta": {"mean": 0.2, "hdi_low": low, "hdi_high": 0.3},
            "slope_head": {"mean": 0.15, "low": 0.1, "high": 0.2},
            "slope_examples": {"mean": 0.12, "low": 0.1, "high": 0.14},
            "share_head": 0.75,
            "delta_measured": {"mean": 0.25},
        }
    }
    table = pd.DataFrame(
        {"task": "copy", "kind": ["head"] * 4 + ["mlp"], "stands_out": [True, False, True, False, True]}
    )
    sets = [("top", 0.10, 2), ("placebo 0", 0.12, 2), ("placebo 1", 0.01, 2)]
    ablation = pd.DataFrame([{"task": "copy", "way": "held", "set": s, "lost": x, "n_heads": n} for s, x, n in sets])
    return facts, table, ablation


def test_who_writes_the_update() -> None:
    first = claims(*heads_of(), None, None, Quotes())[0]
    (text,) = map(plain, first.sentences)
    assert text == (
        "`copy`: heads write 0.150 [0.100, 0.200] of the first token's 0.200 [0.100, 0.300] nats per example (75%), "
        "0.120 [0.100, 0.140] from examples they attend to; 2 of 4 stand out; without the 2 that write most, 40% of "
        "delta goes, which 1 of 2 placebo sets reach."
    )
    (text,) = map(plain, claims(*heads_of(clear=False), None, None, Quotes())[0].sentences)
    assert "zero in it" in text and "stand out" not in text
    without = claims(*heads_of()[:2], heads_of()[2].head(0), None, None, Quotes())[0]
    assert "placebo" not in plain(without.sentences[0])
    assert [claim.stage for claim in claims(None, None, None, None, None, Quotes())] == ["attribute", "patch", "patch"]
    assert not any(claim.sentences for claim in claims(None, None, None, None, None, Quotes()))


@pytest.fixture(scope="module")
def patched() -> tuple[dict, dict[str, pd.DataFrame]]:
    """What `patch` found on SmolLM2-135M, as far as the tests keep it."""
    files = json.loads((ROOT / "tests/data/claims.json").read_text(encoding="utf-8"))
    tables = {name: pd.read_csv(io.StringIO(files[f"claims.{name}.csv"])) for name in ("rounds", "backups")}
    return json.loads(files["claims.json"]), tables


def test_where_the_task_forms_and_who_takes_over(patched: tuple[dict, dict[str, pd.DataFrame]]) -> None:
    facts, tables = patched
    q = Quotes()
    _, layers, steps = claims(None, None, None, facts, tables, q)
    said = dict(zip(facts, map(plain, layers.sentences)))
    first = tables["rounds"][(tables["rounds"]["round"] == 0) & (tables["rounds"].kind == "mean")].set_index("task")
    assert f"comes across at point {first.transfer_layer['copy']:.0f} [" in said["copy"]
    assert "does not come across" in said["category"]
    named = tables["backups"][tables["backups"].backup].component
    assert len(named) and all(head in said["past_tense"] for head in named) and "take over" not in said["copy"]
    assert q.numbers["copy.patch.transfer_layer"]["value"] == first.transfer_layer["copy"]
    # Other data, other sentences: a later layer, no backup heads, no rule.
    later = tables["rounds"].assign(transfer_layer=tables["rounds"].transfer_layer + 2)
    none = {"rounds": later, "backups": tables["backups"].assign(backup=False)}
    _, other, _ = claims(None, None, None, facts, none, Quotes())
    moved = dict(zip(facts, map(plain, other.sentences)))
    assert f"comes across at point {first.transfer_layer['copy'] + 2:.0f} [" in moved["copy"]
    assert "no head is shown to take over" in moved["past_tense"]
    untaught = {task: own | {"taught": task != "copy"} for task, own in facts.items()}
    _, layers, _ = claims(None, None, None, untaught, tables, Quotes())
    assert plain(layers.sentences[-1]) == "On `copy` the examples teach no rule that could be patched."
    # The steps, by their verdicts.
    for i, sentence in enumerate(map(plain, steps.sentences), 1):
        assert sentence.startswith(f"Step {i}, ")
        for task, own in facts.items():
            assert f"`{task}`" in sentence and own["steps"][str(i)] in sentence
