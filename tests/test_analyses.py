"""Scripts of analyses/: pages say what the data say, minutes outlive a stop, the notebook runs."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jupytext
import matplotlib
import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats

from bayes_icl.core.files import read_table
from bayes_icl.curves import read_curves, select, write_netcdf
from bayes_icl.fit import Case, FitSettings, fit_curves, judge_cases
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.patch.outputs import TABLES
from bayes_icl.tasks import BUILT_IN
from bayes_icl.writing import style
from bayes_icl.writing.style import colour_of

ROOT = Path(__file__).parent.parent
ANALYSES = ROOT / "analyses"


@pytest.fixture(scope="module")
def scripts() -> Any:
    """Imports a script by its name, as `python analyses/NAME.py` finds the others beside it."""
    sys.path.insert(0, str(ANALYSES))
    yield importlib.import_module
    sys.path.remove(str(ANALYSES))


# ------------------------------------------------------------------------------------------ across tasks


class Made(NamedTuple):
    """A task as the stages would have found it; names are built-in ones, whose answers have a form."""

    delta: float
    half: float  # of delta's interval
    verdict: str
    selected: str
    alive: tuple[str, ...]  # survivors of both scores
    complement: float  # jumps
    format: float = math.nan
    rule: float = math.nan
    verdict_rule: str = ""
    named_rule: str = ""
    alive_rule: tuple[str, ...] = ()
    lead: float = 1.5  # of the law selected, over every other survivor
    second: float = 0.5  # the second update, of the first
    rise: float = 1.7  # what `rule` gains in all, of its first update
    a: float = 0.9
    later: tuple[str, ...] = ()  # survivors of a left-out sequence only


BOTH = ("power", "pooling")
MADE = {
    "copy": Made(0.05, 0.02, "supported", "additive", ("additive",), 2.0, 1.5, 1.8, "supported", "additive", BOTH),
    "times_ten": Made(0.50, 0.05, "rejected", "pooling", ("pooling",), 9.0, 1.0, 8.8, "rejected", "pooling", BOTH),
    "category": Made(
        0.20, 0.02, "rejected", "power", ("pooling",), 6.0, 5.0, 1.0, "undecided", "additive", ("additive",), rise=4.0
    ),
    "threshold": Made(
        0.10, 0.08, "undecided", "additive", ("additive",), 3.0, 2.9, 0.3, "no_update", "constant", (), rise=9.0
    ),
    "antonym": Made(0.30, 0.03, "rejected", "pooling", BOTH, 7.0, second=1.1),
    "random_labels": Made(
        0.15, 0.02, "rejected", "pooling", ("pooling",), 4.0, 4.5, 0.0, "no_update", "constant", ("constant",)
    ),
    "double": Made(math.nan, math.nan, "refused", "power", BOTH, 1.5, 1.2, 1.4, "refused", "power", BOTH),
}
LAWS = ("constant", "additive", "power", "pooling")


def make(folder: Path, made: dict[str, Made], rule_delta: float = 0.0) -> tuple[Path, Path]:
    """A curves file and a folder of fits that say exactly this; every sequence jumps by as much."""
    folder.mkdir(exist_ok=True)
    odds = np.full((len(made), 3, 8, 4), np.nan)
    evidence = np.full((len(made), 8, 4), np.nan)
    verdicts, rows = {}, []
    spread = np.linspace(-1, 1, 8)[:, None]  # of the jump over sequences: its mean stays
    for i, (task, one) in enumerate(made.items()):
        for j, gain in enumerate((one.complement, one.format, one.rule)):
            odds[i, j] = (gain + spread) * np.array([0.0, 1.0, 1.0 + one.second, one.rise])
        if task == "random_labels":
            evidence[i] = 0.0
        half = one.half
        delta = {"mean": one.delta, "hdi_low": one.delta - half, "hdi_high": one.delta + half}
        common = {"n_min": 1, "reasons": ["too odd"]}
        low = {"mean": rule_delta, "hdi_low": rule_delta - 0.01, "hdi_high": rule_delta + 0.01}
        rule = {"readout": "rule", "verdict": one.verdict_rule, "delta": low, "selected": one.named_rule}
        others = [common | rule] if one.verdict_rule else []
        verdicts[task] = common | {"readout": "complement", "verdict": one.verdict, "selected": one.selected or None}
        verdicts[task] |= {"delta": None if math.isnan(one.delta) else delta, "others": others}
        for readout, named, alive in (
            ("complement", one.selected, one.alive),
            ("rule", one.named_rule, one.alive_rule),
        ):
            rows += [
                {"task": task, "readout": readout, "n_min": 1, "hypothesis": law}
                | {"survivor": law in (*alive, *one.later, named), "survivor_lfo": law in alive}
                | {"elpd_diff": -2.5 - (0 if law == named else one.lead), "diff_se": 1.2}
                | {"a_mean": one.a, "a_hdi_low": one.a - 0.1, "a_hdi_high": one.a + 0.095}
                for law in LAWS
            ]
    dataset = xr.Dataset(
        {
            "log_odds": (("task", "readout", "seq", "shot"), odds),
            "evidence": (("task", "seq", "shot"), evidence),
        },
        coords={"task": list(made), "readout": ["complement", "format", "rule"], "seq": range(8), "shot": range(4)},
        attrs={"provenance": json.dumps({"model": {"model": "smollm2"}})},
    )
    write_netcdf(dataset, folder / "made.nc")
    (folder / "verdict.json").write_text(json.dumps(verdicts))
    pd.DataFrame(rows).to_csv(folder / "comparison.csv", index=False)
    three = {"mu": [0.2, 0.1, 0.3], "tau": [0.1, 0.05, 0.2], "new_task": [0.2, -0.1, 0.5]}
    deltas = {task: [one.delta] * 3 for task, one in made.items() if one.verdict != "refused"}
    deltas.pop("random_labels", None)
    (folder / "pooled.json").write_text(json.dumps(three | {"deltas": deltas}))
    return folder / "made.nc", folder


ORDER = ["times_ten", "antonym", "category", "random_labels", "threshold", "copy", "double"]


def test_the_table_across_tasks_holds_what_the_stages_wrote(tmp_path: Path, scripts: Callable) -> None:
    rows = scripts("across_tasks").table(*make(tmp_path, MADE))
    assert rows.task.tolist() == ORDER
    own = rows.set_index("task")
    for task, one in MADE.items():
        row = own.loc[task]
        assert (row.verdict, row.verdict_rule, row.n_seqs) == (one.verdict, one.verdict_rule, 8)
        sound = one.verdict != "refused"  # of a refused curve no law is told
        assert (row.selected, row.survivors) == ((one.selected, " ".join(one.alive)) if sound else ("", ""))
        assert (row.selected_rule, row.survivors_rule) == (
            (one.named_rule, " ".join(one.alive_rule)) if sound else ("", "")
        )
        np.testing.assert_allclose(
            [row.delta, row.delta_low, row.delta_high], [one.delta, one.delta - one.half, one.delta + one.half]
        )
        jumps = [row.jump_complement, row.jump_format, row.jump_rule]
        np.testing.assert_allclose(jumps, [one.complement, one.format, one.rule], atol=1e-12)
        np.testing.assert_allclose(row.first_over_second, (1 - one.second) * one.complement)
        np.testing.assert_allclose(row.rise_rule, one.rise * one.rule, atol=1e-12)
        np.testing.assert_allclose([row.behind, row.behind_se, row.a], [2.5, 1.2, one.a] if sound else [math.nan] * 3)
    # What an answer looks like is the task's own.
    expected = {"copy": "number", "category": "label", "antonym": "free", "random_labels": "label", "double": "number"}
    assert own.form[list(expected)].to_dict() == expected
    # As simple as power is pooling, as additive no other law.
    assert own.as_simple[["category", "antonym", "copy"]].tolist() == ["pooling", "power", ""]
    np.testing.assert_allclose(own.lead[["category", "antonym", "copy"]].to_numpy(), [1.5, 1.5, math.nan])
    assert own.null_control.sum() == 1 and own.null_control["random_labels"]
    # t-intervals over sequences, by scipy; the second is paired.
    jumps = 9.0 + np.linspace(-1, 1, 8)
    row = own.loc["times_ten"]
    for low, high, x in (
        (row.jump_complement_low, row.jump_complement_high, jumps),
        (row.first_over_second_low, row.first_over_second_high, jumps - 0.5 * jumps),
    ):
        np.testing.assert_allclose([low, high], stats.ttest_1samp(x, 0).confidence_interval(0.95))
    assert math.isnan(own.delta_pooled["random_labels"]) and own.delta_pooled["copy"] == 0.05


def test_the_page_across_tasks_says_what_the_table_holds(tmp_path: Path, scripts: Callable) -> None:
    page = scripts("across_tasks").page(*make(tmp_path, MADE))
    text = " ".join(page.split())
    for words in (
        "SmolLM2-135M-Instruct, 7 tasks, 8 sequences of 3 examples",
        "(`format` rises, 95 % interval above 0, on all 5 tasks that have it) and, on all 3 number tasks and on none "
        "of 2 label tasks, most ",
        # 9 / 0.5, and 2 / 0.05.
        "worth many later examples, 18 to 40 of average size",
        "so the laws are fitted to n >= 1. 1. *Is",
        "`additive` is rejected on 4, undecided on 1, supported on 1 and refused on 1 of 7 tasks.",
        "(`rule`, 6 tasks), it is rejected on 1, supported on 1 and refused on 1 of 3 number tasks; no_update on 2 and "
        "undecided on 1 of 3 label tasks.",
        "Under `complement` the law selected is `pooling` on 3, `additive` on 2 and `power` on 1 of 6 tasks "
        "(`additive`: threshold and copy).",
        "Both scores are survived by `pooling` on 4, `power` on 1 and `additive` on 2; the law selected does not "
        "survive both (*) on 1 of 6 tasks.",
        "survive a left-out sequence too on 2 of 6 tasks, the nearest 1.5 nats behind it.",
        "Under `rule` the law selected is `additive` on 2, `constant` on 2 and `pooling` on 1 of 5 tasks "
        "(`additive`: category "
        "and copy*).",
        "survived by `pooling` on 2, `power` on 2 and `additive` on 1; the law selected does not survive both (*) "
        "on 2 of 5",
        "touches the upper bound of its prior, 1.00, on all 6 tasks under `complement` (its lower end is 0.80 or more)",
        "Delta falls from 0.500 [0.450, 0.550] nats per example on times_ten to 0.050 [0.030, 0.070] on copy.",
        "Pooled over 5 of 7 tasks (left out: random_labels (null control) and double) its mean is 0.200 [0.100, 0.300]",
        # double is refused, random_labels a control.
        "`complement` gains 1.50 to 9.00 nats: more (95 % interval) than delta, the average later example, on all "
        "5 tasks, and more than the second example, by the paired interval of L(1) - L(0) less L(2) - L(1), on 5 of 6 "
        "tasks (not on antonym -0.70 [-0.76, -0.64]).",
        "On the 3 number tasks, where `format` is the first digit only, and `rule` counts as wrong also what "
        "departs later, "
        "a missing bracket or newline too, `format` gains 1.00 to 1.50 nats, 11 to 80 % of `complement`'s, and "
        "`rule` gains "
        "1.40 to 8.80 nats, 90 to 98 % of `complement`'s.",
        "On the 2 label tasks, where `format` is the whole label with its terminator, and `rule` the right "
        "label among the "
        "labels, `format` gains 2.90 to 5.00 nats, 83 to 97 % of `complement`'s, and `rule` gains 0.30 to 1.00 "
        "nats, 10 to "
        "17 % of `complement`'s.",
        "`format` is not read on 1 of 6 tasks, those with a - in the table.",
        "n = 5",
        "it has delta 0.000 [-0.010, 0.010], no_update, as it should.",
        "Refused: double (too odd).",
        "A law *survives* a score if it is within 4 nats or 2 standard errors of the best",
        "it is the best by that score, however little it is ahead. An asterisk marks",
        "| category | 0.200 [0.180, 0.220] | rejected | power* | 2.5 (1.2) | pooling |",
        "| category | 0.000 [-0.010, 0.010] | undecided | additive | 2.5 (1.2) | additive |",
        "| random_labels (null control) | 0.150 [0.130, 0.170] | rejected | pooling | 2.5 (1.2) | pooling |",
        "| threshold | 0.000 [-0.010, 0.010] | no_update | constant* | 2.5 (1.2) | - |",
        "| double | - | refused | - | - | - |",
        "| antonym | free | 7.00 [6.41, 7.59] | - | - | -0.70 [-0.76, -0.64] |",
    ):
        assert words in text, words
    assert "Built-in tasks that were not read: affine, successor," in page
    laws, rule, jumps = (
        [line.split(" |")[0][2:] for line in part.splitlines() if line.startswith("| ")][2:]
        for part in page.split("\n## ")[1:]
    )
    marked = [f"{task} (null control)" if task == "random_labels" else task for task in ORDER]
    assert laws == marked and rule == [task for task in marked if task != "antonym"]
    kinds = {"times_ten": 0, "copy": 0, "double": 0, "antonym": 2}  # number tasks, label tasks, others
    assert jumps == sorted(marked, key=lambda task: kinds.get(task, 1))


def test_a_changed_number_changes_its_sentence(tmp_path: Path, scripts: Callable) -> None:
    script = scripts("across_tasks")
    before = script.page(*make(tmp_path / "a", MADE)).splitlines()

    def changed(made: dict[str, Made], **settings: float) -> str:
        lines = script.page(*make(tmp_path / "b", made, **settings)).splitlines()
        return "\n".join(line for line in lines if line not in before)

    def altered(task: str, **fields: Any) -> str:
        return changed(MADE | {task: MADE[task]._replace(**fields)})

    assert changed(MADE) == ""  # the control
    larger = altered("copy", delta=0.90)
    assert (
        "Delta falls from 0.900 [0.880, 0.920] nats per example on copy to 0.100 [0.020, 0.180] on threshold" in larger
    )
    assert "\n| copy | 0.900" in larger
    assert "rejected on 3, supported on 2, undecided on 1 and refused" in altered("times_ten", verdict="supported")
    same = changed({task: one._replace(verdict="rejected") for task, one in MADE.items() if task != "double"})
    assert "`additive` is rejected on all 6 tasks." in same
    # The law selected, its asterisk, and its ties.
    assert "| category | 0.200 [0.180, 0.220] | rejected | power |" in altered("category", alive=BOTH)
    assert "`pooling` on 3, `power` on 2 and `additive` on 2; the law" in (
        text := altered("category", alive=("power",))
    )
    assert "does not survive both (*) on none of 6 tasks" in text and "too on 1 of 6 tasks" in text
    assert "the nearest 0.2 nats behind it" in altered("category", lead=0.2)
    assert "too on 3 of 6 tasks" in altered("times_ten", later=("power",))
    assert "(`additive`: category* and copy*)" in altered("category", alive_rule=())
    assert "(`additive`: category, threshold* and copy*)" in altered("threshold", named_rule="additive")
    # a is 0.045 below the bound of its prior.
    assert "1.00, on 5 of 6 tasks under" in altered("copy", a=0.86)
    assert "upper bound of its prior" not in changed({task: one._replace(a=0.5) for task, one in MADE.items()})
    # Jumps.
    assert "`complement` gains 0.50 to 9.00 nats" in altered("copy", complement=0.5)
    assert "on 4 of 5 tasks, and more than the second" in altered("copy", complement=0.5)
    second = altered("category", second=1.2)
    assert "on 4 of 6 tasks (not on antonym -0.70 [-0.76, -0.64] and category -1.20 [-1.32, -1.08])" in second
    none = altered("antonym", second=0.5)
    assert "on all 6 tasks. On the 3 number tasks" in none and "(not on" not in none
    assert "on 2 of 3 number tasks and on none of 2 label tasks, most of what `rule` gains" in altered("copy", rise=2.1)
    assert "`format` rises, 95 % interval above 0, on 4 of 5 tasks" in altered("threshold", format=0.1)
    assert "15 to 40 of average size" in altered("times_ten", delta=0.6)
    assert "`rule` gains 0.30 to 4.50 nats, 10 to 75 % of" in altered("category", rule=4.5)
    fails = changed(MADE | {"random_labels": MADE["random_labels"]._replace(verdict_rule="rejected")}, rule_delta=0.2)
    assert "WHICH IT SHOULD NOT: the control fails" in fails and "as it should" not in fails
    few = changed({task: MADE[task] for task in ("copy", "times_ten", "category")})
    assert "3 tasks are too few to say" in few and "There is none among these tasks" in few and "All could" in few
    assert "Pooled over 3 of 3 tasks its mean" in few and "is not read on" not in few


def test_no_answer_names_a_task_twice(tmp_path: Path, scripts: Callable) -> None:
    page = scripts("across_tasks").page(*make(tmp_path, MADE))
    answers = [line for line in page.splitlines() if line[:1].isdigit()]
    assert len(answers) == 7
    for answer in answers:
        if "null control hold" not in answer and "Which law" not in answer:
            assert all(answer.count(f" {task}") <= 1 for task in MADE), answer
    assert all(part.count(task) <= 1 for part in answers[1].split("Under ") for task in MADE)


def test_rank_correlation_against_scipy_and_by_hand(scripts: Callable) -> None:
    together = scripts("across_tasks").together
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=15), rng.normal(size=15)
    y = y + x  # they go together
    found, reference = together(x, y), stats.spearmanr(x, y)
    assert found["rho"] == pytest.approx(reference.statistic, abs=1e-12) and found["n"] == 15
    assert found["p"] == pytest.approx(reference.pvalue, abs=0.01)
    assert found["low"] < found["rho"] < found["high"] <= 1
    backwards = together(x, -y)
    assert backwards["rho"] == pytest.approx(-found["rho"]) and backwards["p"] == pytest.approx(found["p"], abs=0.005)
    # In order, 5 of them: both of 120 orders that are as far from chance count, and no other.
    assert together(range(5), np.exp(range(5)))["p"] == pytest.approx(2 / 120)
    assert math.isnan(together(range(4), range(4))["rho"])
    ties = together([1, 1, 2, 3, 3, 4], [2, 2, 1, 5, 5, 6])
    assert ties["rho"] == pytest.approx(stats.spearmanr([1, 1, 2, 3, 3, 4], [2, 2, 1, 5, 5, 6]).statistic)


def test_p_of_unrelated_tasks_is_even(scripts: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that of related ones is not: the control."""
    script = scripts("across_tasks")
    monkeypatch.setattr(script, "RESAMPLES", 499)
    rng = np.random.default_rng(2)
    draws = [rng.normal(size=(2, 12)) for _ in range(200)]
    p = np.array([script.together(x, y)["p"] for x, y in draws])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    related = np.array([script.together(x, y + 0.7 * x)["p"] for x, y in draws])
    assert stats.kstest(related, "uniform").pvalue < 1e-6


def test_the_sentence_follows_the_correlation(tmp_path: Path, scripts: Callable) -> None:
    script = scripts("across_tasks")

    def said(order: list[int]) -> str:
        """Of tasks whose delta grows with their place in the list, and whose jumps grow with the number there."""
        made = {
            # The jump of `format` goes the other way: it does not count.
            task: Made(0.1 * i, 0.01, "rejected", "power", ("power",), 5 + j / 2, 9 - j / 3, 2.0, "rejected", "power")
            for i, (task, j) in enumerate(zip(BUILT_IN, order), 1)
        }
        page = script.page(*make(tmp_path / "".join(map(str, order)), made))
        return next(line for line in page.splitlines() if "go together?" in line)

    assert "together?* They do." in (text := said([1, 2, 3, 4, 5, 6, 7])) and "is +1.00 [+1.00, +1.00]" in text
    assert text.count("n = 7") == 1 and "wide" not in text
    assert "Where the jump is large, delta is small." in said([7, 6, 5, 4, 3, 2, 1])
    # 0.43 on 7 tasks happens by chance.
    text = said([4, 1, 6, 2, 3, 7, 5])
    assert "No sign that they do, but 7 tasks leave a wide interval, from -" in text and "p = 0.0" not in text


def test_the_figure_shows_every_task_in_its_place_and_colour(tmp_path: Path, scripts: Callable) -> None:
    script = scripts("across_tasks")
    curves, fits = make(tmp_path, MADE)
    rows, pooled = script.table(curves, fits), script.read_pooled(fits)
    figure = script.figure(rows, pooled)
    assert figure.get_size_inches()[0] <= 7
    left, right = figure.axes[:2]
    assert [tick.get_text() for tick in left.get_yticklabels()][:7] == script.called(rows)
    points = {-round(line.get_ydata()[0]): line for line in left.lines if line.get_marker() not in ("None", "|")}
    assert sorted(points) == [0, 1, 2, 3, 4, 5]  # none for the one without delta
    shapes = {}
    for y, line in points.items():
        row = rows.loc[y]
        assert line.get_xdata()[0] == row.delta and line.get_color() == colour_of(row.selected)
        assert (line.get_markerfacecolor() == "w") == (row.verdict == "undecided")
        assert shapes.setdefault(row.selected, line.get_marker()) == line.get_marker()
    assert len(set(shapes.values())) == len(shapes) == 3  # each law has a shape of its own
    assert len({script.shape_of(law) for law in HYPOTHESES}) == min(len(HYPOTHESES), len(script.SHAPES))
    jumps = [line for line in right.lines if line.get_marker() != "None"]
    assert len(jumps) == 7 + 6 + 6 and len({line.get_marker() for line in jumps}) == 3
    for name, (shape, *_) in script.JUMPS.items():
        drawn = {float(line.get_xdata()[0]) for line in jumps if line.get_marker() == shape}
        assert drawn == set(rows[f"jump_{name}"].dropna())
    # The legend has a hollow mark only where the panel has one.
    words = [text.get_text() for text in left.get_legend().get_texts()]
    assert words == ["pooling", "power", "additive", "hollow: no verdict"]
    closed = script.figure(rows[rows.verdict != "undecided"].reset_index(drop=True), pooled)
    assert [text.get_text() for text in closed.axes[0].get_legend().get_texts()] == ["pooling", "power", "additive"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["complement", "format", "rule"]
    FigureCanvasAgg(figure).draw()
    all_text = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]
    said = {text.get_text() for text in all_text}
    assert {"rejected; power*", "undecided; additive", "refused; -"} <= said
    assert any(text.startswith("verdict on additive;\nlaw selected") for text in said)
    # Nothing is cut off: all text lies inside the figure; and the words above the panels do not meet.
    box = figure.bbox
    for text in all_text:
        own = text.get_window_extent()
        assert box.x0 <= own.x0 and own.x1 <= box.x1 and box.y0 <= own.y0 and own.y1 <= box.y1, text.get_text()
    heads = [left.get_legend(), right.get_legend(), *(text for text in all_text if "verdict on" in text.get_text())]
    extents = [artist.get_window_extent() for artist in heads]
    assert len(extents) == 3 and all(one.x1 <= other.x0 for one, other in itertools.pairwise(extents))


def test_across_tasks_reads_all_tasks_and_writes_what_fit_found(
    tmp_path: Path, scripts: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fit of two tasks of the example in place of all of them on the model."""
    script = scripts("across_tasks")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(script.collect, "main", lambda settings: asked.setdefault("collect", settings))
    real = script.fit.main

    def little(settings: FitSettings) -> int:
        asked["fit"] = settings
        dataset = read_curves(ROOT / "data/example.nc").sel(task=["category", "random_labels"])
        write_netcdf(dataset, settings.curves)
        return real(replace(settings, workers=1, hypotheses=LAWS[:3]))

    monkeypatch.setattr(script.fit, "main", little)
    monkeypatch.setattr(style, "save_figures", lambda *_: None)  # those of single tasks
    curves, fits = tmp_path / "curves.nc", tmp_path / "fits"
    script.run(curves, fits)
    assert asked["collect"].tasks == tuple(BUILT_IN) and asked["collect"].n_seqs == asked["collect"].n_shots == 32
    assert asked["collect"].out == curves and asked["fit"].pool and asked["fit"].readout == ("complement", "rule")
    script.write(curves, fits, tmp_path / "figures", tmp_path / "page.md")
    for name in ("across_tasks.csv", "across_tasks.png", "across_tasks.pdf"):
        assert (tmp_path / "figures" / name).stat().st_size > 500
    table, verdicts = read_table(tmp_path / "figures/across_tasks.csv"), json.loads((fits / "verdict.json").read_text())
    assert table.delta.is_monotonic_decreasing and set(table.task) == {"category", "random_labels"}
    page = (tmp_path / "page.md").read_text()
    for row in table.itertuples():
        verdict = verdicts[row.task]
        assert row.delta == pytest.approx(verdict["delta"]["mean"]) and row.verdict == verdict["verdict"]
        assert f"{row.delta:.3f} [{row.delta_low:.3f}, {row.delta_high:.3f}]" in page
        curve = select(read_curves(curves), row.task, "format").log_odds
        assert row.jump_format == pytest.approx((curve[:, 1] - curve[:, 0]).mean())
    assert "It was not pooled (--pool needs 2 tasks or more" in page  # the null control is no task to pool


def test_a_task_with_too_few_examples_is_left_out(scripts: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    script = scripts("across_tasks")
    assert script.drawn() == tuple(BUILT_IN)
    monkeypatch.setattr(script, "N_SHOTS", 85)
    left = set(BUILT_IN) - set(script.drawn())
    assert left == {"past_tense", "category", "category_flipped", "category_arbitrary", "random_labels"}


# ------------------------------------------------------------------------------------------- the minutes

RUN_ALL = """
import sys
sys.path.insert(0, {analyses!r})
from pathlib import Path
import all as every
every.TICK = 0.05
folder = Path({folder!r})
scripts = [every.Script(folder / f"{{name}}.py", name, folder / f"{{name}}.md", (folder / f"{{made}}.out",))
           for name, made in (("one", "one"), ("two", "two"), ("three", "one"))]
every.main(scripts, folder / "minutes.json", folder / "README.md")
"""
# Sleeps as long as sleep.txt says if its output is not there, and writes it; the third finds that of the first.
FAKE = """
import time
from pathlib import Path
folder = Path(__file__).parent
if __name__ == "__main__":
    out = folder / "{made}.out"
    with (folder / "ran.txt").open("a") as file:
        file.write("{name} ")
    if not out.exists():
        time.sleep(float((folder / "sleep.txt").read_text()))
        out.write_text("made")
    (folder / "{name}.md").write_text("![a curve](../figures/{name}.png) and [numbers](../figures/{name}.csv)")
"""


@pytest.fixture
def faked(tmp_path: Path) -> Path:
    for name, made in (("one", "one"), ("two", "two"), ("three", "one")):
        (tmp_path / f"{name}.py").write_text(FAKE.format(name=name, made=made))
    (tmp_path / "sleep.txt").write_text("0.3")
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    code = RUN_ALL.format(analyses=str(ANALYSES), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def in_process(scripts: Callable, folder: Path) -> ModuleType:
    """The same run in this process."""
    every = scripts("all")
    listed = [
        every.Script(folder / f"{name}.py", name, folder / f"{name}.md", (folder / f"{made}.out",))
        for name, made in (("one", "one"), ("two", "two"), ("three", "one"))
    ]
    every.main(listed, folder / "minutes.json", folder / "README.md")
    return every


def test_minutes_are_those_of_a_run_from_nothing(
    faked: Path, scripts: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process(scripts, faked)
    minutes = json.loads((faked / "minutes.json").read_text())
    assert set(minutes) == {"one", "two", "three"} and set(minutes["one"]) == {"minutes", "cores", "date"}
    said = capsys.readouterr().err
    assert [line.split(":")[0] for line in said.splitlines()] == ["one", "two", "three"] and "from nothing" in said
    assert not (faked / "minutes.json.part").exists()
    readme = (faked / "README.md").read_text()
    for row in (
        "| [one.md](../docs/one.md) | `one.py` | `make one` |",
        "| [figures/one.png](../figures/one.png): a curve | `one.py` | `make one` |",
        "| [figures/two.csv](../figures/two.csv): numbers | `two.py` | `make two` |",
    ):
        assert row in readme
    # Another run finds everything; one without one of the outputs measures that script alone.
    kept = {name: own | {"minutes": 77.7} for name, own in minutes.items()}
    (faked / "minutes.json").write_text(json.dumps(kept))
    in_process(scripts, faked)
    assert json.loads((faked / "minutes.json").read_text()) == kept
    assert "| 77.7 |" in (faked / "README.md").read_text()
    (faked / "two.out").unlink()
    in_process(scripts, faked)
    found = json.loads((faked / "minutes.json").read_text())
    assert found["two"]["minutes"] < 1 and found["one"] == kept["one"] and found["three"] == kept["three"]


def test_minutes_outlive_a_kill(faked: Path, scripts: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    (faked / "sleep.txt").write_text("60")
    (faked / "one.out").write_text("made")  # the first is there already, and is not measured, nor is the third
    part, record = faked / "minutes.json.part", {}
    with start(faked) as process:
        for _ in range(600):
            time.sleep(0.05)
            record = json.loads(part.read_text()) if part.exists() else {}
            if record and record["two"]["seconds"] > 1:
                break
        process.kill()
    before = json.loads(part.read_text())["two"]["seconds"]
    assert before > 1 and set(record) == {"two"} and not (faked / "minutes.json").exists()
    (faked / "sleep.txt").write_text("0.5")
    every = scripts("all")
    kept: dict[str, float] = {}
    monkeypatch.setattr(every, "keep", lambda name, seconds, minutes: kept.setdefault(name, seconds))
    in_process(scripts, faked)
    assert set(kept) == {"two"} and before + 0.5 <= kept["two"] < before + 5
    assert (faked / "ran.txt").read_text().split() == ["one", "two", "one", "two", "three"]


def test_time_before_a_failure_counts_and_what_was_done_is_not_measured_twice(
    faked: Path, scripts: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = scripts("all")
    kept: list[str] = []
    monkeypatch.setattr(every, "keep", lambda name, seconds, minutes: kept.append(name))
    good = (faked / "two.py").read_text()
    (faked / "two.py").write_text("raise OSError('no room')")
    with pytest.raises(OSError, match="no room"):
        in_process(scripts, faked)
    record = json.loads((faked / "minutes.json.part").read_text())
    assert record["one"]["done"] and record["one"]["seconds"] >= 0.3 and not record["two"]["done"]
    assert kept == ["one"]
    (faked / "two.py").write_text(good)
    in_process(scripts, faked)
    assert kept == ["one", "two", "three"]


def test_the_list_of_outputs_is_what_the_pages_and_minutes_say(scripts: Callable) -> None:
    every = scripts("all")
    text = every.README.read_text(encoding="utf-8")
    assert text == every.listing()
    for script in every.SCRIPTS:
        assert script.path.is_file() and f"`{script.path.name}`" in text
    for name in ANALYSES.glob("*.py"):
        assert name.name in text, f"{name.name} is not named in analyses/README.md"


# ------------------------------------------------------------------------------------- claims 1 and 3

KEPT = json.loads((ROOT / "tests/data/claims.json").read_text())


def completed(file: str, text: str) -> str:
    """A kept table with the columns that no sentence reads, which its schema wants: zeros, or empty."""
    schema = TABLES.get(file.split(".")[-2])
    if schema is None:
        return text
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    for column in schema.columns:
        for end in column.ends:
            known = {name + end for name in (column.name, column.written, column.formerly) if name}
            if not column.optional and not known & set(table):
                table[column.name + end] = "0" if column.kind == "count" else ""
    return table.to_csv(index=False)


@pytest.fixture
def claims_of(tmp_path: Path, scripts: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Makes a claim's page of the kept tables: ``claims_of("claim1", {file: change of its table})``."""

    def page(name: str, changes: dict[str, Callable] | None = None) -> str:
        for file, text in KEPT.items():
            (tmp_path / file).write_text(completed(file, text))
        for file, change in (changes or {}).items():
            if file.endswith(".json"):
                (tmp_path / file).write_text(json.dumps(change(json.loads(KEPT[file]))))
            else:
                change(read_table(tmp_path / file)).to_csv(tmp_path / file, index=False)
        script, shared = scripts(name), scripts("claims")
        for module in (script, shared):
            monkeypatch.setattr(module, "PATCHED", tmp_path / "claims.nc")
        monkeypatch.setattr(shared, "BY_TASK", tmp_path / "claims_by_task.nc")
        for task in shared.TASKS:  # that a second run is there is seen by its netCDF file
            if f"claims_by_task_{task}.json" in KEPT:
                (tmp_path / f"claims_by_task_{task}.nc").touch()
        return script.Findings().page()

    return page


@pytest.mark.parametrize("name", ["claim1", "claim3"])
def test_a_claims_page_is_what_its_script_makes_of_the_run(name: str, claims_of: Callable) -> None:
    """If the run was made anew: `python tests/shrink_claims.py`."""
    assert claims_of(name) == (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


def at(table: pd.DataFrame, value: Any, column: str, **where: Any) -> pd.DataFrame:
    """The table with one column set where others have these values."""
    rows = np.logical_and.reduce([table[name] == wanted for name, wanted in where.items()])
    assert rows.any()
    table[column] = table[column].where(~rows, value)
    return table


def differing(one: str, other: str) -> str:
    return "\n".join(line for line in other.splitlines() if line not in one.splitlines())


def test_sentences_of_claim_1_follow_the_tables(claims_of: Callable) -> None:
    before = claims_of("claim1")

    def changed(**changes: Callable) -> str:
        return differing(before, claims_of("claim1", {f"claims.{name}.csv": f for name, f in changes.items()}))

    def where(**values: Any) -> dict[str, Any]:
        return {"task": "copy", "set": "ablated", **values}

    moved = changed(rounds=lambda t: at(t, 2.0, "shift_low", **where(round=1)))
    assert "It moves up (95 % interval) on copy" in moved and "It moves up (95 % interval) on copy" not in before
    said = changed(rounds=lambda t: at(t, 17.0, "transfer_layer", **where(round=0)))
    assert "the task is recovered at layer 17 [" in said.splitlines()[0]
    kept = changed(rounds=lambda t: at(t, 123.456, "a_own", **where(round=1)))
    assert "A has 123.46 [" in kept and "| 123.46 [" in kept
    halves = changed(halves=lambda t: at(t, 0.777, "share", task="category", order="random"))
    assert halves.count("77.7% [") == 2  # in the answer, and in its section
    costly = changed(heads=lambda t: at(t, 99.0, "lost", task="category", component=t.component.iloc[-1]))
    assert "the most costly, " in costly and "loses 99.00 [" in costly
    none = changed(backups=lambda t: t.head(0))
    assert "none could be named" in none and "backups.png" not in claims_of(
        "claim1", {"claims.backups.csv": lambda t: t.head(0)}
    )
    other = claims_of(
        "claim1", {"claims_by_task_copy.rounds.csv": lambda t: at(t, 0.0, "rule", round=1, set="ablated")}
    )
    assert "on copy A keeps 0% of the rule gain" in differing(before, other)


def test_sentences_of_claim_3_follow_the_tables(claims_of: Callable) -> None:
    before = claims_of("claim3")

    def judged(facts: dict) -> dict:
        facts["copy"]["steps"]["2"] = "not asked"
        return facts

    said = differing(before, claims_of("claim3", {"claims.json": judged}))
    assert "not asked on `copy`" in said and "Step 2, not asked: " in said
    steps = claims_of("claim3", {"claims.steps.csv": lambda t: at(t, 4.321, "share", task="past_tense", step=1)})
    assert "4.32 [" in differing(before, steps) and "4.32 [" not in before
    mlps = claims_of("claim3", {"claims.mlps.csv": lambda t: at(t, 88.0, "lost", task="copy", layer=7, place="last")})
    assert "at the last position" in differing(before, mlps) and "88.00 [" in differing(before, mlps)
    assert "at layer 7 (" in differing(before, mlps)
    leaves = claims_of("claim3", {"claims_at_answers_category.rounds.csv": lambda t: t.assign(n_pairs=5)})
    assert differing(before, leaves).count("(5 pairs)") == 1

    def untaught(facts: dict) -> dict:
        facts["category"]["taught"] = False
        return facts

    assert "The examples teach no rule here" in differing(before, claims_of("claim3", {"claims.json": untaught}))


# ------------------------------------------------------------------------------------------ the notebook


# Its last cell, put there by the test: what the names hold.
HELD = """
import json
print(json.dumps({
    "verdict": verdict,
    "delta": summary.loc["delta"].to_dict(),
    "elpd": {score.hypothesis: score.elpd_logo.sum() for score in with_own.scores[0]},
    "slope": heads.slope.to_dict(),
    "kind": heads.kind.to_dict(),
    "delta of tiny": attribution.facts["copy"]["delta"]["mean"],
    "heads": model.anatomy.n_layers * model.anatomy.n_heads,
}))
"""


def test_the_notebook_is_one_and_finds_what_the_functions_find(tmp_path: Path) -> None:
    """About ten cells of code in a form that Jupyter reads, run one by one in a kernel, from another folder."""
    book = jupytext.read(ANALYSES / "notebook.py")
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert 8 <= len(code) <= 12 and book.cells[0].cell_type == "markdown"
    assert book.cells[0].source.startswith("# ") and book.metadata["kernelspec"]["name"] == "python3"
    again = jupytext.reads(jupytext.writes(book, fmt="py:percent"), fmt="py:percent")
    assert [cell.source for cell in again.cells] == [cell.source for cell in book.cells]

    book.cells.append(nbformat.v4.new_code_cell(HELD))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources=resources).execute()
    *outputs, held = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    found = json.loads(held.text)

    curves = select(read_curves(ROOT / "data/example.nc"), "past_tense", "complement").since(1)
    case = Case(curves, headline=True)
    fits = fit_curves([case], LAWS, engine="fast", workers=1)
    verdict = judge_cases([case], fits.scores)["past_tense"]
    assert found["verdict"] == json.loads(json.dumps(verdict))
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert (
        f"additive on past_tense: {verdict['verdict']}; the simplest law that survives: {verdict['selected']}" in text
    )
    # Of the law additive; the verdict's is the slope of the best line, whatever the law.
    (additive,) = (score.intervals["delta"] for score in fits.scores[0] if score.hypothesis == "additive")
    assert found["delta"]["mean"] == pytest.approx(additive.mean, abs=0.001)
    assert found["delta"]["hdi_2.5%"] == pytest.approx(additive.low, abs=0.003)
    elpd = found["elpd"]
    assert set(elpd) == {*LAWS, "freeform", "square_root"}
    for score in fits.scores[0]:  # a further law changes none of the others
        assert elpd[score.hypothesis] == pytest.approx(score.elpd_logo.sum(), abs=1e-9)
    # The root lies between a straight line and one that levels off.
    assert elpd["additive"] < elpd["square_root"] < elpd["pooling"]
    kinds, slope = found["kind"], found["slope"]
    assert sum(slope[name] for name in slope if kinds[name] != "all") == pytest.approx(slope["all"], abs=1e-6)
    assert slope["all"] == pytest.approx(found["delta of tiny"], abs=1e-6)
    assert list(kinds.values()).count("head") == found["heads"]
