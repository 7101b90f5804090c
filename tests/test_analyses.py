"""Scripts of analyses/: pages say what the data say, minutes outlive a stop, the notebook runs."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

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

from bayes_icl import plots
from bayes_icl.compare import read_table
from bayes_icl.curves import read_curves, select, write_netcdf
from bayes_icl.fit import Case, FitSettings, fit_curves, judge_cases
from bayes_icl.plots import colour_of
from bayes_icl.tasks import BUILT_IN

ROOT = Path(__file__).parent.parent
ANALYSES = ROOT / "analyses"


@pytest.fixture(scope="module")
def scripts() -> Any:
    """Imports a script by its name, as `python analyses/NAME.py` finds the others beside it."""
    sys.path.insert(0, str(ANALYSES))
    yield importlib.import_module
    sys.path.remove(str(ANALYSES))


# ------------------------------------------------------------------------------------------ across tasks

# task: delta and half its interval, verdict, named, survivors of both scores, verdict under rule, jump of complement,
# of format
MADE: dict[str, tuple] = {
    "low": (0.05, 0.02, "supported", "additive", ("additive", "power"), "supported", 2.0, 1.5),
    "high": (0.50, 0.05, "rejected", "pooling", ("pooling",), "rejected", 9.0, 1.0),
    "middle": (0.20, 0.02, "rejected", "power", ("power", "pooling"), "undecided", 6.0, 5.0),
    "open": (0.10, 0.08, "undecided", "additive", ("additive",), "no_update", 3.0, 2.5),
    "words": (0.30, 0.03, "rejected", "pooling", (), "", 7.0, math.nan),
    "coins": (0.15, 0.02, "rejected", "pooling", ("pooling",), "no_update", 4.0, 4.5),
    "broken": (math.nan, math.nan, "refused", "", ("additive", "pooling"), "refused", 1.0, 1.0),
}
LAWS = ("constant", "additive", "power", "pooling")


def make(folder: Path, made: dict[str, tuple], rule_delta: float = 0.0) -> tuple[Path, Path]:
    """A curves file and a folder of fits that say exactly this; every sequence jumps by as much."""
    folder.mkdir(exist_ok=True)
    odds = np.full((len(made), 3, 8, 4), np.nan)
    evidence = np.full((len(made), 8, 4), np.nan)
    verdicts, rows = {}, []
    learned = np.array([0.0, 1.0, 1.5, 1.7])
    spread = np.linspace(-1, 1, 8)[:, None]  # of the jump over sequences: its mean stays
    for i, (task, (mean, half, kind, named, alive, rule, complement, form)) in enumerate(made.items()):
        odds[i, 0] = (complement + spread) * learned
        if not math.isnan(form):
            odds[i, 1], odds[i, 2] = (form + spread) * learned, 0.0
        if task == "coins":
            evidence[i] = 0.0
        delta = None if math.isnan(mean) else {"mean": mean, "hdi_low": mean - half, "hdi_high": mean + half}
        common = {"n_min": 1, "reasons": ["too odd"], "named": named or None}
        low = {"mean": rule_delta, "hdi_low": rule_delta - 0.01, "hdi_high": rule_delta + 0.01}
        others = [common | {"readout": "rule", "verdict": rule, "delta": low}] if rule else []
        verdicts[task] = common | {"readout": "complement", "verdict": kind, "delta": delta, "others": others}
        rows += [
            {"task": task, "readout": readout, "n_min": 1, "hypothesis": law, "survivor": law in alive or law == named}
            | {"survivor_lfo": law in alive}
            for law in LAWS
            for readout in ("complement", "rule")
        ]
    dataset = xr.Dataset(
        {
            "log_odds": (("task", "readout", "seq", "shot"), odds),
            "evidence": (("task", "seq", "shot"), evidence),
        },
        coords={"task": list(made), "readout": ["complement", "format", "rule"], "seq": range(8), "shot": range(4)},
        attrs={"provenance": json.dumps({"model": {"model": "a_model"}})},
    )
    write_netcdf(dataset, folder / "made.nc")
    (folder / "verdict.json").write_text(json.dumps(verdicts))
    pd.DataFrame(rows).to_csv(folder / "comparison.csv", index=False)
    three = {"mu": [0.2, 0.1, 0.3], "tau": [0.1, 0.05, 0.2], "new_task": [0.2, -0.1, 0.5]}
    deltas = {task: [one[0]] * 3 for task, one in made.items() if one[2] != "refused" and task != "coins"}
    (folder / "pooled.json").write_text(json.dumps(three | {"deltas": deltas}))
    return folder / "made.nc", folder


def test_the_table_across_tasks_holds_what_the_stages_wrote(tmp_path: Path, scripts: Callable) -> None:
    rows = scripts("across_tasks").table(*make(tmp_path, MADE))
    assert rows.task.tolist() == ["high", "words", "middle", "coins", "open", "low", "broken"]
    own = rows.set_index("task")
    for task, (mean, half, kind, named, alive, rule, complement, form) in MADE.items():
        row = own.loc[task]
        assert (row.verdict, row.named, row.verdict_rule, row.n_seqs) == (kind, named, rule, 8)
        sound = kind != "refused"
        assert row.survivors.split() == [law for law in LAWS if law in alive and sound]
        assert [row[f"survives_{law}"] for law in ("additive", "power", "pooling")] == [
            law in alive and sound for law in ("additive", "power", "pooling")
        ]
        expected = (mean, mean - half, mean + half)
        np.testing.assert_allclose([row.delta, row.delta_low, row.delta_high], expected)
        np.testing.assert_allclose((row.jump_complement, row.jump_format), (complement, form))
        np.testing.assert_allclose(row.jump, complement if math.isnan(form) else form)
        assert row.jump_readout == ("complement" if math.isnan(form) else "format")
    assert own.null_control.sum() == 1 and own.null_control["coins"]
    # A t-interval over sequences, by scipy.
    jumps = 9.0 + np.linspace(-1, 1, 8)
    interval = stats.ttest_1samp(jumps, 0).confidence_interval(0.95)
    np.testing.assert_allclose([own.jump_complement_low["high"], own.jump_complement_high["high"]], interval)
    assert math.isnan(own.delta_pooled["coins"]) and own.delta_pooled["low"] == 0.05


def test_the_page_across_tasks_says_what_the_table_holds(tmp_path: Path, scripts: Callable) -> None:
    page = scripts("across_tasks").page(*make(tmp_path, MADE))
    for words in (
        "a_model, 7 tasks, 8 sequences of\n3 examples",
        "`additive` is rejected on high, words, middle and coins (null control); undecided on open; supported on low; ",
        "(`rule`, 6 tasks), it is no_update on coins (null control) and open; ",
        "`additive` is named on open and low and survives both scores on 2 of 6 tasks: open and low;",
        "`power` is named on middle and survives both scores on 2 of 6 tasks: middle and low;",
        "`pooling` is named on high, words and coins (null control) and survives both scores on 3 of 6 tasks: high, ",
        "Delta falls from 0.500 [0.450, 0.550] nats per example on high to 0.050 [0.030, 0.070] on low.",
        "Pooled over 5 tasks its mean is 0.200 [0.100, 0.300]",
        "surely more than a further example (delta) on 5 of 5 tasks.",  # broken is refused, coins a control
        "it is more than half of what `complement` gains on 4 of 5. Answers have no closed form on words.",
        "n = 5",
        "it has delta 0.000 [-0.010, 0.010], no_update, as it should.",
        "Refused: broken (too odd).",
        "| coins (null control) | 0.150 [0.130, 0.170] | rejected | pooling | pooling | no_update |",
        "| words | 0.300 [0.270, 0.330] | rejected | pooling | - | - | - | 7.00 [6.41, 7.59] | - |",
        "| broken | - | refused | - | - | refused |",
    ):
        assert words in page, words
    assert "Built-in tasks that were not read: affine, copy," in page
    order = [line.split(" |")[0][2:] for line in page.splitlines() if line.startswith("| ")][1:]
    assert order == ["high", "words", "middle", "coins (null control)", "open", "low", "broken"]


def test_a_changed_number_changes_its_sentence(tmp_path: Path, scripts: Callable) -> None:
    script = scripts("across_tasks")
    before = script.page(*make(tmp_path / "a", MADE)).splitlines()

    def changed(made: dict[str, tuple], **settings: float) -> str:
        lines = script.page(*make(tmp_path / "b", made, **settings)).splitlines()
        return "\n".join(line for line in lines if line not in before)

    assert changed(MADE) == ""  # the control
    larger = changed(MADE | {"low": (0.90, *MADE["low"][1:])})
    assert "Delta falls from 0.900 [0.880, 0.920] nats per example on low to 0.100 [0.020, 0.180] on open" in larger
    assert larger.splitlines()[-1].startswith("| low | 0.900")
    assert "supported on high and low" in changed(MADE | {"high": (*MADE["high"][:2], "supported", *MADE["high"][3:])})
    assert "gains 0.50 [-0.09, 1.09] nats on low" in changed(MADE | {"low": (*MADE["low"][:6], 0.5, 1.5)})
    fails = changed(MADE | {"coins": (*MADE["coins"][:5], "rejected", 4.0, 4.5)}, rule_delta=0.2)
    assert "WHICH IT SHOULD NOT: the control fails" in fails and "as it should" not in fails
    few = changed({task: MADE[task] for task in ("low", "high", "middle")})
    assert "3 tasks are too few to say" in few and "There is none among these tasks" in few and "All could" in few


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
            f"task{i}": (0.1 * i, 0.01, "rejected", "power", ("power",), "rejected", 5 + j / 2, 3 + j / 3)
            for i, j in enumerate(order, 1)
        }
        page = script.page(*make(tmp_path / str(order), made))
        return next(line for line in page.splitlines() if "go together?" in line)

    assert "They go together." in (text := said([1, 2, 3, 4, 5, 6, 7])) and "+1.00 [+1.00, +1.00]" in text
    assert text.count("n = 7") == 3
    assert "Where the jump is large, delta is small." in said([7, 6, 5, 4, 3, 2, 1])
    # 0.43 on 7 tasks happens by chance.
    assert "That cannot be said." in (text := said([4, 1, 6, 2, 3, 7, 5])) and "p = 0.0" not in text


def test_the_figure_shows_every_task_in_its_place_and_colour(tmp_path: Path, scripts: Callable) -> None:
    script = scripts("across_tasks")
    curves, fits = make(tmp_path, MADE)
    rows, pooled = script.table(curves, fits), script.read_pooled(fits)
    figure = script.figure(rows, pooled)
    assert figure.get_size_inches()[0] <= 7
    left, right = figure.axes[:2]
    labels = [tick.get_text() for tick in left.get_yticklabels()]
    assert labels[:7] == ["high", "words", "middle", "coins (null control)", "open", "low", "broken"]
    points = {-round(line.get_ydata()[0]): line for line in left.lines if line.get_marker() == "o"}
    assert sorted(points) == [0, 1, 2, 3, 4, 5]  # none for the one without delta
    for y, line in points.items():
        row = rows.loc[y]
        assert line.get_xdata()[0] == row.delta and line.get_color() == colour_of(row.named)
        assert (line.get_markerfacecolor() == "w") == (row.verdict == "undecided")
    jumps = [line for line in right.lines if line.get_marker() == "s"]
    assert len(jumps) == 7 + 6
    assert {float(line.get_xdata()[0]) for line in jumps} == set(rows.jump_complement) | set(rows.jump_format.dropna())
    # Nothing is cut off: all text lies inside the figure.
    FigureCanvasAgg(figure).draw()
    box = figure.bbox
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text() and text.get_visible():
            own = text.get_window_extent()
            assert box.x0 <= own.x0 and own.x1 <= box.x1 and box.y0 <= own.y0 and own.y1 <= box.y1, text.get_text()


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
    monkeypatch.setattr(plots, "save_figures", lambda *_: None)  # those of single tasks
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
    process = start(faked)
    part, record = faked / "minutes.json.part", {}
    for _ in range(600):
        time.sleep(0.05)
        record = json.loads(part.read_text()) if part.exists() else {}
        if record and record["two"]["seconds"] > 1:
            break
    process.kill()
    process.wait()
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


@pytest.fixture
def claims_of(tmp_path: Path, scripts: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Makes a claim's page of the kept tables: ``claims_of("claim1", {file: change of its table})``."""

    def page(name: str, changes: dict[str, Callable] | None = None) -> str:
        for file, text in KEPT.items():
            (tmp_path / file).write_text(text)
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
        return script.Found().page()

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
    assert "It surely moves up on copy" in moved and "It surely moves up on copy" not in before
    said = changed(rounds=lambda t: at(t, 17.0, "transfer_layer", **where(round=0)))
    assert "the task comes across at point 17 [" in said.splitlines()[0]
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
    assert "on copy A keeps 0% of what the rule adds" in differing(before, other)


def test_sentences_of_claim_3_follow_the_tables(claims_of: Callable) -> None:
    before = claims_of("claim3")

    def judged(facts: dict) -> dict:
        facts["copy"]["steps"]["2"] = "not asked"
        return facts

    said = differing(before, claims_of("claim3", {"claims.json": judged}))
    assert "not asked on copy" in said and "Step 2, not asked: " in said
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
    assert f"additive on past_tense: {verdict['verdict']}; the simplest law that survives: {verdict['named']}" in text
    assert found["delta"]["mean"] == pytest.approx(verdict["delta"]["mean"], abs=0.001)
    assert found["delta"]["hdi_2.5%"] == pytest.approx(verdict["delta"]["hdi_low"], abs=0.003)
    elpd = found["elpd"]
    assert set(elpd) == {*LAWS, "square_root"}
    for score in fits.scores[0]:  # a further law changes none of the others
        assert elpd[score.hypothesis] == pytest.approx(score.elpd_logo.sum(), abs=1e-9)
    # The root lies between a straight line and one that levels off.
    assert elpd["additive"] < elpd["square_root"] < elpd["pooling"]
    kinds, slope = found["kind"], found["slope"]
    assert sum(slope[name] for name in slope if kinds[name] != "all") == pytest.approx(slope["all"], abs=1e-6)
    assert slope["all"] == pytest.approx(found["delta of tiny"], abs=1e-6)
    assert list(kinds.values()).count("head") == found["heads"]
