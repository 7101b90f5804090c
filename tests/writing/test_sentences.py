"""The text of a fit: its numbers are those of the files, whatever stands in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from simulate import simulate_curves

from bayes_icl.fit.checks import frequentist_checks
from bayes_icl.fit.outputs import COMPARISON
from bayes_icl.fit.sentences import departure_words, null_holds, risen, summarise_verdicts, verdict_line
from bayes_icl.fit.verdict import Verdict
from bayes_icl.hypotheses.law import label_of
from bayes_icl.inference.loo_pit import STATISTICS


def verdict(**own: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "task": "rising",
        "readout": "complement",
        "n_min": 1,
        "verdict": "supported",
        "reasons": ["the first reason, p = 0.51"],
        "selected": "additive",
        "delta": {"mean": 0.512, "hdi_low": 0.401, "hdi_high": 0.623},
        "departure": {"mean": 0.0081, "low": 0.005, "high": 0.0124, "margin": 0.05, "within": 1.0},
        "total": {"mean": 7.7, "low": 7.1, "high": 8.2},
        "second_half": {"mean": 0.98, "low": 0.9, "high": 1.1},
    }
    return Verdict(**fields | own).as_json()


def row(hypothesis: str, **own: Any) -> dict[str, Any]:
    numbers = {
        "elpd_diff": -12.3,
        "diff_se": 4.5,
        "lfo_diff": -6.7,
        "lfo_diff_se": 8.9,
        "ess_bulk_min": 4321.0,
        "pareto_k_max": 0.43,
        "p_worse": 0.87,
        "mcse": 0.123,
        "above_median": 12.3,
        "by_chance": 4.5,
        "coverage_ahead": 0.94,
        "refits": 0,
        "divergences": 0,
    }
    words = {"task": "rising", "readout": "complement", "n_min": 1, "engine": "fast", "hypothesis": hypothesis}
    alive = {"survivor": False, "survivor_lfo": False, "few_seqs": False, "small_diff": False}
    return dict.fromkeys(COMPARISON.names, np.nan) | words | numbers | alive | own


ENGINES = {
    "task": ["rising", "rising"],
    "mean_fast": [1.0, 1.0],
    "mean_nuts": [1.0, 1.0],
    "sd_fast": [0.1, 0.1],
    "sd_nuts": [0.1, 0.1],
    "hypothesis": ["additive", "power"],
    "parameter": ["delta", "a"],
    "shift": [0.011, -0.022],
    "shift_se": [0.03, 0.04],
    "sd_ratio": [1.01, 0.97],
}


class Folder:
    """The files of a fit, made up; `text` is what the summary says of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.verdicts: dict[str, dict] = {"rising": {**verdict(), "others": []}}
        self.dataset = dataset()
        both = {"survivor": True, "survivor_lfo": True, "elpd_diff": 0.0, "diff_se": 0.0}
        self.write(
            "comparison", pd.DataFrame([row("power"), row("additive", **both), row("freeform", lfo_diff=np.nan)])
        )
        checks = frequentist_checks(simulate_curves(12, 16, n_min=1))
        self.write("checks", checks.assign(task="rising", readout="complement", n_min=1, p_holm=checks.p))
        self.write("engines", pd.DataFrame(ENGINES))
        curve = {"task": "rising", "readout": "complement", "n_min": 1}
        pits = curve | {"hypothesis": "additive", "statistic": list(STATISTICS), "n_seqs": 12, "p": 0.4, "p_holm": 0.8}
        self.write("pit_tests", pd.DataFrame(pits))
        scaled = {"hypothesis": "additive", "parameter": ["delta"], "prior_sensitivity": 0.012}
        self.write("power_scaling", pd.DataFrame(curve | scaled | {"likelihood_sensitivity": 0.1, "diagnosis": ""}))
        sd = {"sd": 1.0, "sd_low": 0.8, "sd_high": 1.3, "expected": 1.1, "expected_low": 1.0, "expected_high": 1.2}
        self.write("noise", pd.DataFrame(curve | {"shot": range(1, 5)} | sd))

    def write(self, name: str, table: pd.DataFrame) -> None:
        table.to_csv(self.path / f"{name}.csv", index=False)

    def change(self, name: str, at: int, **values: Any) -> None:
        table = pd.read_csv(self.path / f"{name}.csv")
        for column, value in values.items():
            table[column] = table[column].astype(object)
            table.loc[at, column] = value
        self.write(name, table)

    @property
    def text(self) -> str:
        return summarise_verdicts(self.dataset, self.path, self.verdicts)

    def line(self, start: str) -> str:
        (found,) = (line for line in self.text.splitlines() if line.strip().startswith(start))
        return found

    def check(self, name: str) -> str:
        (found,) = (line for line in self.text.splitlines() if line.split()[:1] == ["rising"] and name in line)
        return found


def dataset(evidence: float = np.nan) -> xr.Dataset:
    dims = ("task", "readout", "seq", "shot")
    coords = {"task": ["rising"], "readout": ["complement"], "seq": range(2), "shot": range(3)}
    variables = {"log_odds": (dims, np.zeros((1, 1, 2, 3))), "evidence": (dims[::2] + dims[3:], np.zeros((1, 2, 3)))}
    return xr.Dataset(variables, coords=coords).assign(evidence=lambda d: d.evidence + evidence)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# --------------------------------------------------------------------------------------------- verdicts


def test_the_headline_has_its_words_and_numbers(folder: Folder) -> None:
    line = folder.line("complement, n >= 1")
    assert "additive: SUPPORTED (departs by 0.8 [0.5, 1.2] % of 7.7 nats; delta 0.512 [0.401, 0.623]" in line
    assert "nats/example); selected: additive" in " ".join(folder.text.split())
    assert folder.line("the first reason").strip() == "the first reason, p = 0.51"
    assert folder.text.startswith("rising ─")
    assert all(len(line) <= 116 for line in folder.text.splitlines())
    assert not any(line != line.rstrip() for line in folder.text.splitlines())


def test_a_change_in_the_verdict_changes_the_text(folder: Folder) -> None:
    changed = verdict(
        verdict="rejected",
        selected="power",
        delta={"mean": -0.7, "hdi_low": -0.8, "hdi_high": -0.6},
        departure={"mean": 0.2, "low": 0.15, "high": 0.25, "margin": 0.05, "within": 0.0},
        total={"mean": -9.0, "low": -9.5, "high": -8.5},
        n_min=2,
    )
    folder.verdicts = {"rising": {**changed, "others": []}}
    line = folder.line("complement, n >= 2")
    assert "REJECTED (departs by 20.0 [15.0, 25.0] % of a fall of 9.0 nats; delta -0.700 [-0.800," in line
    assert "-0.700 [-0.800, -0.600] nats/example)" in " ".join(folder.text.split())
    assert "selected: power" in folder.text


@pytest.mark.parametrize("name", ["departure", "total", "delta"])
def test_a_verdict_of_before_has_a_line_without_numbers(name: str) -> None:
    own = verdict(**{name: None})
    assert departure_words(own) == "" and departure_words({k: v for k, v in own.items() if k != name}) == ""
    assert verdict_line(own, own) == "complement, n >= 1 additive: SUPPORTED; selected: additive"


def test_what_rises_and_what_a_null_control_may_be() -> None:
    none = {"mean": 0.1, "low": -0.2, "high": 0.4}
    falls = {"mean": -2.0, "low": -3.0, "high": -1.0}
    for kind, total, up, holds in (
        ("supported", None, True, False),
        ("undecided", None, True, False),
        ("undecided", none, False, True),
        ("undecided", falls, True, False),  # surely not 0
        ("rejected", none, False, False),
        ("no_update", None, False, True),  # surely small, whatever its sign
        ("refused", none, False, False),
    ):
        own = verdict(verdict=kind, **({"total": total} if total else {}))
        assert (risen(own), null_holds(own)) == (up, holds)
    refused = {"verdict": "refused", "total": None}
    assert not risen(refused) and not null_holds(refused)


def test_settings_are_named_by_what_differs(folder: Folder) -> None:
    others = [
        verdict(n_min=0, verdict="undecided"),
        verdict(readout="rule"),
        verdict(n_min=2, verdict="rejected", reasons=["not shown"]),
        verdict(noise="student"),
    ]
    folder.verdicts["rising"]["others"] = others
    lines = [line for line in folder.text.splitlines() if "additive: " in line]
    assert [line.split("additive:")[0].strip() for line in lines] == [
        "complement, n >= 1",
        "complement, n >= 0",
        "rule, n >= 1",
        "complement, n >= 2",
        "student noise",
    ]
    assert len({line.index("additive:") for line in lines}) == 1  # one under the other
    assert "undecided" in lines[1] and "rejected" in lines[3]
    assert "not shown" not in folder.text  # reasons are the headline's
    # Of the three others of the same readout, one is the headline's.
    assert "the verdict is the same in 1 of 3 other settings of complement" in folder.text


def test_normal_noise_beside_a_heavy_tailed_headline(folder: Folder) -> None:
    folder.verdicts = {"rising": {**verdict(noise="student"), "others": [verdict()]}}
    assert "normal noise" in folder.text and "student noise" not in folder.text


def test_notes_and_pulls_appear(folder: Folder) -> None:
    assert "note:" not in folder.text and "sequences that pull" not in folder.text  # the control
    pulls = [{"seq": i, "delta_without": 0.1 * i, "pareto_k": 0.2} for i in (3, 7)]
    folder.verdicts["rising"] |= {"notes": ["left aside: [odd] law"], "pulls": pulls}
    assert folder.line("note:").strip() == "note: left aside: [odd] law"
    expected = "sequences that pull: 3 (delta 0.300 without it), 7 (delta 0.700 without it)"
    assert folder.line("sequences that pull").strip() == expected
    folder.verdicts["rising"]["pulls"] = pulls * 4
    assert "and 3 more" in folder.text


def test_a_long_note_stays_indented(folder: Folder) -> None:
    folder.verdicts["rising"]["notes"] = ["word " * 60]
    lines = [line for line in folder.text.splitlines() if "word" in line]
    assert len(lines) > 1 and all(line.startswith("    ") for line in lines)


def test_what_was_refused_without_a_fit_needs_no_tables(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("selected", "delta", "departure", "total", "second_half"))
    refused = verdict(verdict="refused", reasons=["no variation"], **nothing)
    (tmp_path / "comparison.csv").write_bytes(COMPARISON.to_csv(COMPARISON.frame([])))
    text = summarise_verdicts(dataset(), tmp_path, {"rising": {**refused, "others": []}})
    assert "REFUSED" in text and "no variation" in text
    assert "delta" not in text and "selected" not in text and "engines" not in text


# --------------------------------------------------------------------------------------------- readouts together


def with_rule(headline: str, rule: str, **own: Any) -> dict[str, dict]:
    total = {"mean": 0.1, "low": -0.2, "high": 0.4} if rule == "no_update" else {"mean": 7.0, "low": 6.0, "high": 8.0}
    beside = verdict(readout="rule", verdict=rule, total=total)
    return {"rising": {**verdict(verdict=headline, **own), "others": [beside]}}


@pytest.mark.parametrize(
    ("headline", "rule", "said"),
    [("rejected", "no_update", True), ("rejected", "rejected", False), ("no_update", "no_update", False)],
)
def test_a_form_learned_without_the_rule_is_told(folder: Folder, headline: str, rule: str, said: bool) -> None:
    folder.verdicts = with_rule(headline, rule)
    assert ("the form of an answer, not the rule" in folder.text) == said
    assert "null control" not in folder.text


@pytest.mark.parametrize(("rule", "outcome"), [("no_update", "passes"), ("undecided", "FAILS")])
def test_a_null_control_passes_or_fails(folder: Folder, rule: str, outcome: str) -> None:
    folder.verdicts, folder.dataset = with_rule("rejected", rule), dataset(0.0)
    said = f"rule must be no_update, or undecided about a total that may be 0, and is {rule}: {outcome}"
    assert said in " ".join(folder.text.split())
    folder.dataset = dataset(0.1)  # the control
    assert "null control" not in folder.text


# --------------------------------------------------------------------------------------------- tables


def test_the_table_of_hypotheses_is_that_of_the_file_best_first(folder: Folder) -> None:
    # One line each, none wrapped.
    expected = {
        "additive": "additive 0.0 0.0 -6.7 8.9 both 0.87 0.12 fast 4321 0.43 0.94",
        "power": "power -12.3 4.5 -6.7 8.9 \u2013 0.87 0.12 fast 4321 0.43 0.94",
        "freeform": f"{label_of('freeform')} -12.3 4.5 \u2013 8.9 \u2013 0.87 0.12 fast 4321 0.43 0.94",
    }
    for name, words in expected.items():
        assert " ".join(folder.line(name).split()) == words
    text = folder.text
    assert text.index("\nadditive") < text.index("\npower")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"elpd_diff": -77.77}, "-77.8"),
        ({"diff_se": 33.33}, "33.3"),
        ({"lfo_diff": -55.55}, "-55.5"),
        ({"lfo_diff_se": 22.22}, "22.2"),
        ({"ess_bulk_min": 999.0}, "999"),
        ({"pareto_k_max": 0.69}, "0.69"),
        ({"p_worse": 0.77}, "0.77"),
        ({"small_diff": True}, " yes "),
        ({"mcse": 0.88}, "0.88"),
        ({"coverage_ahead": 0.55}, "0.55"),
        ({"engine": "nuts"}, "nuts"),
        ({"survivor": True, "survivor_lfo": False}, " seq "),
        ({"survivor": False, "survivor_lfo": True}, " future "),
        ({"survivor": True, "survivor_lfo": True}, " both "),
    ],
)
def test_a_change_in_comparison_csv_changes_its_cell(folder: Folder, values: dict[str, Any], shown: str) -> None:
    assert shown not in folder.line("power")
    folder.change("comparison", 0, **values)
    assert shown in folder.line("power")


def test_rows_of_other_settings_and_tasks_are_not_shown(folder: Folder) -> None:
    table = pd.read_csv(folder.path / "comparison.csv")
    strangers = [row("saturating", n_min=0), row("saturating", readout="rule"), row("saturating", task="other")]
    folder.write("comparison", pd.concat([table, pd.DataFrame(strangers)]))
    assert "saturating" not in folder.text
    folder.write("comparison", pd.concat([table, pd.DataFrame([row("saturating")])]))
    assert "saturating" in folder.text  # the control


@pytest.mark.parametrize("task", ["null", "nan", "NA", "7", "[bold]x[/]"])
def test_a_task_may_have_any_name(folder: Folder, task: str) -> None:
    """What pandas takes for missing or a number, and what rich takes for markup."""
    folder.verdicts = {task: folder.verdicts["rising"]}
    folder.dataset = folder.dataset.assign_coords(task=[task])
    for name in ("comparison", "checks"):
        folder.write(name, pd.read_csv(folder.path / f"{name}.csv").assign(task=task))
    assert folder.text.startswith(f"{task} ─")
    assert "left-out seq" in folder.text and "slope by sequence" in folder.text


def test_checks_are_those_of_the_file(folder: Folder) -> None:
    checks = pd.read_csv(folder.path / "checks.csv").set_index("check")
    own = checks.loc["slope by sequence"]
    line = folder.check("slope by sequence")
    assert f"{own.estimate:.4g} [{own.low:.4g}, {own.high:.4g}]" in line and f"{own.p:.2g}" in line
    folder.change("checks", 0, estimate=0.98765)
    assert "0.9877" in folder.check("slope by sequence")


def test_a_check_without_an_answer_says_why_in_one_line(folder: Folder) -> None:
    nothing = dict.fromkeys(("estimate", "se", "low", "high", "p"), np.nan)
    folder.change("checks", 1, **nothing, p_holm=np.nan, note="singular: [slopes] do not differ")
    said = "rising: no quadratic contrast: singular: [slopes] do not differ"
    assert folder.line("rising: no quadratic") == said
    assert "nan" not in folder.text


# --------------------------------------------------------------------------------------------- engines and pooling


def test_the_engines_agreement_is_told_by_its_worst(folder: Folder) -> None:
    text = " ".join(folder.text.split())
    assert "fast engine beside NUTS, 2 parameters of 2 fits" in text
    assert "means at most 0.022 sd apart, Monte Carlo error 0.040 (power a, rising)" in text
    assert "sds at most 3.0 % apart (power a, rising)" in text
    assert "all scores are the fast engine's" in text
    folder.change("engines", 0, shift=-0.5, sd_ratio=1.2)
    text = " ".join(folder.text.split())
    assert "0.500 sd apart, Monte Carlo error 0.030 (additive delta, rising)" in text
    assert "20.0 % apart (additive delta, rising)" in text


def test_what_nuts_scored_is_named(folder: Folder) -> None:
    folder.change("comparison", 0, engine="nuts")
    assert "scored by NUTS: power" in folder.text and "all scores are" not in folder.text


def test_without_nuts_there_is_no_agreement(folder: Folder) -> None:
    folder.write("engines", pd.DataFrame(columns=list(ENGINES)))
    assert "beside NUTS" not in folder.text and "all scores are the fast engine's" in folder.text


def test_pooled_deltas_are_those_of_the_file(folder: Folder) -> None:
    assert "over tasks" not in folder.text  # the control
    deltas = {f"task_{i}": [0.1 * i, 0.0, 1.0] for i in range(3)}
    pooled = {"mu": [0.5, 0.4, 0.6], "tau": [0.2, 0.1, 0.3], "new_task": [0.51, 0.0, 1.1], "deltas": deltas}
    (folder.path / "pooled.json").write_text(json.dumps(pooled))
    assert "mean over tasks like these: 0.500 [0.400, 0.600]" in folder.text
    assert "sd over tasks: 0.200 [0.100, 0.300]" in folder.text
    assert "a further task: 0.510 [0.000, 1.100]" in folder.text
    assert "task_2: 0.200 [0.000, 1.000]" in folder.text
    assert "with 3 tasks the sd over tasks follows its prior more than the data" in folder.text
    pooled["deltas"]["task_3"] = [0.3, 0.0, 1.0]
    (folder.path / "pooled.json").write_text(json.dumps(pooled))
    assert "follows its prior" not in folder.text
    (folder.path / "pooled.json").write_text(json.dumps({"refused": "--pool needs 2 tasks"}))
    assert "--pool needs 2 tasks" in folder.text and "over tasks" not in folder.text


def test_families_are_told_and_that_they_are_few(folder: Folder) -> None:
    pooled = {"mu": [0.5, 0.4, 0.6], "tau": [0.2, 0.1, 0.3], "new_task": [0.51, 0.0, 1.1]}
    pooled |= {"deltas": {f"task_{i}": [0.1 * i, 0.0, 1.0] for i in range(5)}, "tau_family": [0.33, 0.1, 0.6]}
    pooled["families"] = {f"kind_{i}": [0.45, 0.4, 0.5] for i in range(3)}
    (folder.path / "pooled.json").write_text(json.dumps(pooled))
    for words in (
        "mean over families like these: 0.500 [0.400, 0.600]",
        "sd over families: 0.330 [0.100, 0.600]",
        "mean of kind_2: 0.450 [0.400, 0.500]",
        "wide because there are 3 families of tasks",
    ):
        assert words in folder.text
    pooled["families"] |= {f"other_{i}": [0.45, 0.4, 0.5] for i in range(2)}
    (folder.path / "pooled.json").write_text(json.dumps(pooled))
    assert "wide because" not in folder.text


# --------------------------------------------------------------------------------------------- how laws fit


def told(folder: Folder) -> str:
    return " ".join(folder.text.split())


def test_the_best_law_is_told_from_the_others_or_not(folder: Folder) -> None:
    best = "`rising`: `additive` predicts best of 2 laws"
    assert f"{best}, 12.3 nats above the median law (4.5 expected by chance)" in told(folder)
    assert "Monte Carlo error of scores: at most 0.12 nats" in told(folder)
    assert "fewer than 100 sequences" not in told(folder)
    folder.change("comparison", 0, small_diff=True)
    assert "less than 4 nats from it: `power`" in told(folder)
    for at in range(3):
        folder.change("comparison", at, by_chance=13.0, few_seqs=True)
    assert f"{best}, but not better than chance makes the best of so many" in told(folder)
    assert "fewer than 100 sequences (1 of 1 tasks)" in told(folder)


def test_how_laws_fit_is_told(folder: Folder) -> None:
    text = told(folder)
    assert "3 tests of uniform PITs, corrected by Holm: none fails at 0.05; least p 0.8" in text
    assert "lies inside the 95 % interval of what is seen at every shot" in text
    assert "1 parameters: none hangs on its prior; the most sensitive is delta of `additive` on `rising`, 0.012" in text
    assert "quadratic contrast, corrected over 1 tasks (Holm): " in text
    folder.change("pit_tests", 2, p_holm=0.001)
    folder.change("noise", 0, expected=2.0)
    folder.change("power_scaling", 0, diagnosis="potential prior-data conflict")
    text = told(folder)
    assert "1 fail at 0.05 `additive`, distance: `rising`" in text
    assert "at 25% of the shots, most on `rising` (25%)" in text
    assert "1 hang on the prior delta of `additive`: potential prior-data conflict on `rising`" in text


@pytest.mark.parametrize("name", ["[/b]x", ":smile:", "[red]x[/red]\\", "x\\", "`x`"])
def test_a_name_is_shown_as_it_is(folder: Folder, name: str) -> None:
    """Rich would take it for markup or an emoji, or double its last backslash."""
    folder.verdicts = {name: {**verdict(reasons=[f"on {name}"]), "others": []}}
    assert f"\n{name} \u2500" in f"\n{folder.text}"
    assert folder.line("on ").strip() == f"on {name}"
