"""The report's sentences follow the data: verdicts, claims, calibration, what was refused."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_icl.calibrate.sentences import calibration_differs, calibration_sentences
from bayes_icl.core.files import read_table
from bayes_icl.curves import null_controls
from bayes_icl.fit.sentences import beside_verdict, left_aside, verdict_sentence
from bayes_icl.report.claims import Claim, answer, claims
from bayes_icl.writing.numbers import Quotes, plain
from bayes_icl.writing.stage import StageOutputs

ROOT = Path(__file__).parents[2]


def claimed(
    heads: Any, standing: Any, ablation: Any, patch: Any, tables: Any, settings: dict, q: Quotes
) -> list[Claim]:
    """The claims where `attribute` and `patch` have left this, or nothing."""
    found = StageOutputs(Path("t.nc"), xr.Dataset(), records={"patch": {"settings": settings}})
    if heads is not None:
        found.facts["attribute"], found.tables["attribute"] = heads, {"heads": standing, "ablation": ablation}
    if patch is not None:
        found.facts["patch"], found.tables["patch"] = patch, tables
    return claims(found, q)


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
        "verdict": kind, "reasons": [], "selected": "pooling", "readout": "complement", "n_min": 1, "noise": "normal",
        "notes": [], "pulls": [], "others": [], "seqs_needed": None, "survivors": ["pooling"],
        "delta": {"mean": 0.2, "hdi_low": 0.1, "hdi_high": 0.3}, "total": {"mean": 6.0, "low": 5.0, "high": 7.0},
        "departure": {"mean": 0.02, "low": 0.01, "high": 0.03, "margin": 0.05, "within": 0.99},
        "second_half": {"mean": 0.9, "low": 0.8, "high": 1.1}, "ceiling": None,
    }  # fmt: skip
    return own | more


def asked(*kinds: str, halves: tuple[tuple[float, ...], ...] = (), null: tuple[str, ...] = ()) -> tuple[str, str]:
    tasks = [f"task{chr(ord('a') + i)}" for i in range(len(kinds))]
    verdicts = {task: verdict(kind) for task, kind in zip(tasks, kinds)}
    for own, half in zip(verdicts.values(), halves):
        own["second_half"] = dict(zip(("mean", "low", "high"), half))
    word, sentences = answer(curves(*tasks, null=null), verdicts, Quotes())
    return word, plain(" ".join(sentences))


@pytest.mark.parametrize(
    ("kinds", "word"),
    [
        (["supported"], "Yes."),
        (["supported", "supported"], "Yes."),
        (["rejected"] * 3, "No."),
        (["supported", "rejected"], "On some tasks."),
        (["supported_under_ceiling"], "Yes, under a ceiling of the readout."),
        (["supported_under_ceiling", "supported"], "Yes, under a ceiling of the readout."),
        (["supported_under_ceiling", "rejected"], "On some tasks."),
        (["supported_under_ceiling", "undecided"], "On some tasks."),
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
    assert found == "Yes." and "(1 of 1 task)" in sentences
    assert "The null control `taskb` was not tested" in sentences
    # How it came out is told before the answer (test_controls).
    others = [verdict("rejected", readout="rule")]
    verdicts = {"taska": verdict("supported"), "taskb": verdict("rejected", others=others)}
    word, said = answer(curves("taska", "taskb", null=("taskb",)), verdicts, Quotes())
    assert word == "Yes." and "taskb" not in plain(" ".join(said))
    assert null_controls(curves("a", "b", null=("b",))) == ["b"]
    assert null_controls(curves("a").drop_vars("evidence")) == []


def test_later_examples_that_add_less_are_said_to_and_others_not() -> None:
    less, unsure, more = (0.44, 0.38, 0.51), (0.8, 0.5, 1.1), (1.3, 1.2, 1.4)
    _, sentences = asked("rejected", "rejected", "rejected", halves=(less, unsure, more))
    assert "Later examples add less on `taska`: their second half adds 0.44 of what the first half adds." in sentences
    _, sentences = asked("rejected", "supported", halves=(less, (0.93, 0.9, 0.96)))
    assert "on `taska` and `taskb`: their second half adds 0.44 to 0.93 of" in sentences
    assert "Later examples" not in asked("rejected", "rejected", halves=(unsure, more))[1]
    for kind in ("no_update", "refused"):  # nothing to slow down, or not to be relied on
        assert "Later examples" not in asked(kind, "undecided", halves=(less, more))[1]


def test_other_bayesian_laws_that_survive_are_named() -> None:
    """What is rejected is equal evidence from every example, not every Bayesian learner."""
    verdicts = {"a": verdict("rejected", survivors=["lapse", "power"]), "b": verdict("rejected", survivors=["power"])}
    (said,) = [s for s in answer(curves("a", "b"), verdicts, Quotes())[1] if "Bayesian" in s]
    assert said.endswith("laws of others survive, `lapse` (two known tasks) on `a`.")
    verdicts["a"]["survivors"] = ["power"]
    (said,) = [s for s in answer(curves("a", "b"), verdicts, Quotes())[1] if "Bayesian" in s]
    assert "no law of another survives" in said
    assert not [s for s in answer(curves("a"), {"a": verdict("supported")}, Quotes())[1] if "Bayesian" in s]


def test_tasks_that_were_not_judged_are_named() -> None:
    _, sentences = answer(curves("a", "b"), {"a": verdict("rejected")}, Quotes())
    assert "Not judged: `b`." in sentences


def test_a_verdict_is_told_with_its_numbers() -> None:
    q = Quotes()
    own = verdict("undecided", reasons=["the mean curve departs by 4.2 [3.1, 5.0] % of 6.0 nats"], seqs_needed=140)
    text = plain(verdict_sentence("copy", own, q))
    assert text == (
        "`copy`: undecided (complement, n \u2265 1). the mean curve departs by 4.2 [3.1, 5.0] % of 6.0 nats. Delta, "
        "the slope of the best line, is 0.200 [0.100, 0.300] nats per example. The simplest law that survives is "
        "`pooling`. About 140 sequences would decide it."
    )
    assert q.numbers["copy.verdict.delta"]["low"] == 0.1
    said = ["a reason", "if what is seen goes on, about 140 sequences would decide it (to reject)"]
    assert plain(verdict_sentence("copy", own | {"reasons": said}, Quotes())).count("140") == 1  # not twice
    assert q.numbers["copy.verdict.reasons.0.1"]["value"] == 3.1
    # A refused verdict has a delta and a law all the same, neither to be relied on.
    refused = verdict("refused", reasons=["too few sequences: 3"])
    assert plain(verdict_sentence("copy", refused, Quotes())) == (
        "`copy`: refused (complement, n \u2265 1). too few sequences: 3."
    )


def test_what_stands_beside_a_verdict() -> None:
    others = [verdict("rejected", n_min=0), verdict("supported", n_min=2), verdict("no_update", readout="rule")]
    note = "left aside: lapse: ESS 65 below 400"
    own = verdict("rejected", others=others, notes=[note])
    q = Quotes()
    found = [plain(s) for s in beside_verdict(curves("copy", null=("copy",)), "copy", own, q)]
    assert found == [
        "the verdict is the same in 1 of 2 other settings of complement",
        "complement rises but rule does not: what is learned is the form of an answer, not the rule",
        "null control (nothing to learn): rule must be no_update, or undecided about a total that may be 0, and is "
        "no_update: passes",
        f"note: {note}",
    ]
    assert [n["value"] for key, n in q.numbers.items() if ".beside.0." in key] == [1, 2]
    assert beside_verdict(curves("copy"), "copy", verdict("rejected"), Quotes()) == []


def test_what_was_refused_is_listed_with_its_setting() -> None:
    other = verdict("refused", reasons=["fewer than 8 sequences: 7"], n_min=0, notes=["left aside: lapse: ESS 65"])
    student = verdict("rejected", noise="student", notes=["left aside: power: ESS 12", "a note that is none"])
    q = Quotes()
    found = [plain(s) for s in left_aside({"copy": verdict("rejected", others=[other, student])}, q)]
    assert found == [
        "`copy` (complement, n \u2265 0): refused: fewer than 8 sequences: 7.",
        "`copy` (complement, n \u2265 0): left aside: lapse: ESS 65.",
        "`copy` (complement, n \u2265 1, student noise): left aside: power: ESS 12.",
    ]
    assert left_aside({"copy": verdict("rejected")}, q) == []


CALIBRATED = {"n_seqs": 64, "n_shots": 32, "hypotheses": ["additive", "power"], "sims": 200, "gain": 9.6}


@pytest.mark.parametrize(
    ("sizes", "fitted", "differs"),
    [
        ((64, 32), {}, ""),
        ((64, 32), {"hypotheses": ["additive", "freeform"], "noise": "normal"}, ""),
        ((32, 32), {}, "the curves have 32 sequences of 32 examples"),
        ((64, 16), {}, "the curves have 64 sequences of 16 examples"),
        ((64, 32), {"hypotheses": ["additive", "mine"], "noise": "normal"}, "mine was fitted and not calibrated"),
        ((64, 32), {"hypotheses": ["power"], "noise": "student"}, "student noise was fitted"),
    ],
)
def test_calibration_says_what_it_is_of(sizes: tuple[int, int], fitted: dict, differs: str) -> None:
    outcomes = read_table(ROOT / "figures/calibration/outcomes.csv").assign(holds=True)
    settings = CALIBRATED
    found = calibration_differs(settings, sizes, fitted or None)
    assert len(calibration_differs(settings, sizes, fitted or None, gaps=True)) == len(found) + 1
    text = plain(" ".join(calibration_sentences(outcomes, settings, found, Quotes())))
    assert ("Not the very settings" in text) == bool(differs) and differs in text
    assert ("the sizes, laws and noise of the fits" in text) != bool(differs)
    assert f"{len(outcomes)} of {len(outcomes)} checks hold" in text and "Fails" not in text
    failing = outcomes.assign(holds=[False, *[True] * (len(outcomes) - 1)])
    text = plain(" ".join(calibration_sentences(failing, settings, found, Quotes())))
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
            "readout": "complement",
            "token": 0,
        }
    }
    kind = ["head"] * 4 + ["mlp"]
    table = pd.DataFrame({"task": "copy", "kind": kind, "stands_out": [True, False, True, False, True]})
    table["accumulation"] = ["linear", "none", "averaging", "none", ""]
    table = table.assign(share=[0.3, 0.1, -0.2, 0.0, 0.5], attention=[0.8, 0.9, 0.2, 0.1, np.nan])
    sets = [("top", 0.10, 2), ("placebo 0", 0.12, 2), ("placebo 1", 0.02, 2)]
    rows = [
        {"task": "copy", "value": way, "set": s, "lost": x * y, "lost_low": 0.0, "lost_high": 0.2, "n_heads": n}
        for s, x, n in sets
        for way, y in (("mean_over_shots", 1.0), ("mean", 0.5))
    ]
    return facts, table, pd.DataFrame(rows)


def test_who_writes_the_update() -> None:
    first = claimed(*heads_of(), None, None, {}, Quotes())[0]
    (text,) = map(plain, first.sentences)
    assert text == (
        "`copy` (0.200 [0.100, 0.300] nats per example, token 0 of the answer): what heads write of it is 0.150 "
        "[0.100, 0.200] (75%), from examples that they attend to 0.120 [0.100, 0.140]. 2 of 4 heads stand out (more "
        "than 5 % of delta, for or against it): 1 linear, 1 averaging; 1 for the update and 1 against it; 1 of "
        "them have most of their attention on examples. Of those that write most (2), mean-ablated over episodes and "
        "shots: 0.100 [0.000, 0.200] is lost (40%); 1 of 2 placebo sets lose as much; they lose 0.070 on average; "
        "mean-ablated over episodes, shot by shot: 0.050 [0.000, 0.200] is lost (20%); 1 of 2 placebo sets lose as "
        "much; they lose 0.035 on average."
    )
    (text,) = map(plain, claimed(*heads_of(clear=False), None, None, {}, Quotes())[0].sentences)
    assert "zero in it" in text and "stand out" not in text
    without = claimed(*heads_of()[:2], heads_of()[2].head(0), None, None, {}, Quotes())[0]
    assert "placebo" not in plain(without.sentences[0])
    nothing = claimed(None, None, None, None, None, {}, Quotes())
    assert [claim.stage for claim in nothing] == ["attribute", "patch", "patch"]
    assert not any(claim.sentences for claim in nothing)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"token": 1, "token_text": "\u201c5\u201d, \u2026"},
            "token 1 of the answer (\u201c5\u201d, \u2026), given those before it)",
        ),
        ({"token": 9}, "token 9 of the answer"),
        ({"readout": "foil"}, "foil, where it forks"),
    ],
)
def test_it_is_said_what_is_taken_apart(more: dict, words: str) -> None:
    facts, table, ablation = heads_of()
    facts["copy"] |= more
    (text,) = map(plain, claimed(facts, table, ablation, None, None, {}, Quotes())[0].sentences)
    assert words in text


@pytest.fixture(scope="module")
def patched() -> tuple[dict, dict[str, pd.DataFrame]]:
    """What `patch` found on SmolLM2-135M, as far as the tests keep it."""
    files = json.loads((ROOT / "tests/data/claims.json").read_text(encoding="utf-8"))
    tables = {name: pd.read_csv(io.StringIO(files[f"claims.{name}.csv"])) for name in ("rounds", "backups")}
    return json.loads(files["claims.json"]), tables


def test_where_the_task_forms_and_who_takes_over(patched: tuple[dict, dict[str, pd.DataFrame]]) -> None:
    facts, tables = patched
    q = Quotes()
    _, layers, steps = claimed(None, None, None, facts, tables, {}, q)
    said = dict(zip(facts, map(plain, layers.sentences)))
    first = tables["rounds"][(tables["rounds"]["round"] == 0) & (tables["rounds"].kind == "mean")].set_index("task")
    assert f"is recovered at layer {first.transfer_layer['copy']:.0f} [" in said["copy"]
    assert "is not recovered" in said["category"]
    named = tables["backups"][tables["backups"].backup].component
    assert len(named) and all(head in said["past_tense"] for head in named) and "backup" not in said["copy"]
    rounds = tables["rounds"]
    ablated = rounds[(rounds.task == "past_tense") & (rounds["round"] == 1) & (rounds.set == "ablated")]
    assert f"With {ablated.layers_text.iloc[0]} ablated" in said["past_tense"]
    assert all(f"({mode}: " in said["past_tense"] for mode in tables["backups"]["mode"].unique())
    assert q.numbers["copy.patch.transfer_layer"]["value"] == first.transfer_layer["copy"]
    # Other data, other sentences: a later layer, no backup heads, no rule.
    later = tables["rounds"].assign(transfer_layer=tables["rounds"].transfer_layer + 2)
    none = {"rounds": later, "backups": tables["backups"].assign(backup=False)}
    _, other, _ = claimed(None, None, None, facts, none, {}, Quotes())
    moved = dict(zip(facts, map(plain, other.sentences)))
    assert f"is recovered at layer {first.transfer_layer['copy'] + 2:.0f} [" in moved["copy"]
    assert "No head is shown to take over" in moved["past_tense"]
    untaught = {task: own | {"taught": task != "copy"} for task, own in facts.items()}
    _, layers, _ = claimed(None, None, None, untaught, tables, {}, Quotes())
    assert plain(layers.sentences[-1]) == "On `copy` the examples teach no rule that could be patched."
    # The steps, by their verdicts.
    for i, sentence in enumerate(map(plain, steps.sentences), 1):
        assert sentence.startswith(f"Step {i}, ")
        for task, own in facts.items():
            assert f"`{task}`" in sentence and own["steps"][str(i)] in sentence
    # What was not asked is said not to be.
    unasked = {task: {k: v for k, v in own.items() if k != "steps"} for task, own in facts.items()}
    _, layers, steps = claimed(None, None, None, unasked, tables, {"rounds": 0, "steps": False}, Quotes())
    assert "not sought" in plain(layers.sentences[-1]) and "--no-steps" in plain(steps.sentences[0])


def test_the_stream_at_the_answers_leaves_and_does_not_arrive() -> None:
    """At the answers of examples it is read up to which point they carry the task, not from which."""
    files = json.loads((ROOT / "tests/data/claims.json").read_text(encoding="utf-8"))
    facts = json.loads(files["claims_at_answers_copy.json"])
    tables = {n: pd.read_csv(io.StringIO(files[f"claims_at_answers_copy.{n}.csv"])) for n in ("rounds", "backups")}
    q = Quotes()
    _, layers, _ = claimed(None, None, None, facts, tables, {"rounds": 0}, q)
    text = plain(layers.sentences[0])
    assert "at the answers of examples: it carries half of A's lead up to layer" in text and "is recovered" not in text
    assert q.numbers["copy.patch.transfer_until"]["value"] == tables["rounds"].transfer_until.iloc[0]
