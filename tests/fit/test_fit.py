"""The fit command: what it says when it cannot, what it writes when it can."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from simulate import power_law, simulate_curves

from bayes_icl import fit, report
from bayes_icl.core.errors import StatedError, exit_stating
from bayes_icl.core.files import read_table
from bayes_icl.curves import Curves, read_curves, write_netcdf
from bayes_icl.fit import Case, FitSettings, fit_curves, fit_file, judge_cases, main, outputs, plan_cases
from bayes_icl.hypotheses import HISTORY_LAWS, HYPOTHESES, LogNormal, hypothesis, law
from bayes_icl.inference import importance as inference_importance
from bayes_icl.inference import posterior as inference_posterior
from bayes_icl.inference.nuts import SamplerSettings

COLUMNS = (
    "task readout n_min hypothesis elpd_logo se elpd_diff diff_se elpd_lfo survivor pareto_k_max rhat_max "
    "ess_bulk_min divergences"
).split()
THREE = ("constant", "additive", "power")
TABLES = tuple(f"{name}.csv" for name in outputs.TABLES)
# As little as a run can be: real fits, in this process, and no figures unless asked for.
LITTLE: dict[str, Any] = {
    "hypotheses": THREE,
    "engine": "fast",
    "workers": 1,
    "n_min": (1,),
    "readout": ("complement",),
    "sensitivity": False,
}


def write_csv(path: Path, *all_curves: Curves) -> Path:
    rows = [
        {"task": c.task, "readout": c.readout, "seq": s, "shot": int(n), "log_odds": c.log_odds[s, i]}
        for c in all_curves
        for s in range(len(c.log_odds))
        for i, n in enumerate(c.shots)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def write_nc(path: Path, *all_curves: Curves) -> Path:
    """Tasks of the same shape; evidence, history and observer where a task has some."""
    tasks, readouts = (list(dict.fromkeys(getattr(c, k) for c in all_curves)) for k in ("task", "readout"))
    shape = all_curves[0].log_odds.shape
    odds = np.full((len(tasks), len(readouts), *shape), np.nan)
    known = {name: np.full((len(tasks), *shape), np.nan) for name in ("evidence", "history", "observer")}
    for c in all_curves:
        odds[tasks.index(c.task), readouts.index(c.readout)] = c.log_odds
        for name, values in known.items():
            if (own := getattr(c, name)) is not None:
                values[tasks.index(c.task), :, : own.shape[1]] = own
    coords = {"task": tasks, "readout": readouts, "seq": range(shape[0]), "shot": all_curves[0].shots.astype(int)}
    variables = {
        "log_odds": (("task", "readout", "seq", "shot"), odds),
        **{name: (("task", "seq", "shot"), values) for name, values in known.items()},
    }
    write_netcdf(xr.Dataset(variables, coords=coords), path)
    return path


def observed(task: str, weight: float, n_seqs: int = 32, n_shots: int = 16) -> Curves:
    """Sequences of examples that disagree, whose log-odds are `weight` times the ideal observer's."""
    curves = simulate_curves(n_seqs, n_shots, gain=0, gain_sd=0.2, level=0.3, walk=0.05, task=task)
    shown = np.random.default_rng(4).choice([1.0, -1.0], p=[0.6, 0.4], size=(n_seqs, n_shots))
    belief = 0.9 * np.pad(shown, ((0, 0), (1, 0))).cumsum(1)
    return curves._replace(log_odds=curves.log_odds + weight * belief, history=shown, observer=belief)


def flat(n_seqs: int = 12, n_shots: int = 16, readout: str = "complement") -> Curves:
    """A task without variation."""
    shots = np.arange(n_shots + 1.0)
    return Curves("flat", readout, shots, np.full((n_seqs, len(shots)), -2.5))


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bayes_icl.fit", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500)


def ended(settings: FitSettings) -> int:
    """The exit code of the command, in this process."""
    with pytest.raises(SystemExit) as stopped:
        exit_stating(lambda: main(settings))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


# --------------------------------------------------------------------------------------------- stated errors


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "c.csv", simulate_curves(12, 16, task="rising"), flat())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"curves": Path("absent.nc")}, ["no curves file 'absent.nc'", "bayes_icl.collect"]),
        ({"curves": None}, ["no curves file in data/curves", "bayes_icl.collect"]),
        ({"tasks": ("risng",)}, ["unknown task 'risng'", "did you mean rising?", "flat"]),
        ({"readout": ("complemnt",)}, ["unknown readout 'complemnt'", "did you mean complement?"]),
        ({"hypotheses": ("constant", "addtive")}, ["unknown hypothesis 'addtive'", "did you mean additive?", "power"]),
        ({"n_min": (40,)}, ["--n-min 40", "n = 0 to 16"]),
        ({"n_min": (16,)}, ["--n-min 16", "update"]),
        ({"n_min": ()}, ["--n-min", "at least one value"]),
        ({"draws": 5}, ["--draws must be 100 or more, got 5"]),
        ({"chains": 1}, ["--chains must be 2 or more, got 1"]),
        ({"seed": -1}, ["--seed must be 0 or more, got -1"]),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_what_cannot_be_done_is_said_in_one_line(
    csv: Path,
    given: dict[str, Any],
    says: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(csv.parent)
    assert ended(FitSettings(**{"curves": csv, **given})) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    for part in says:
        assert part in captured.err
    assert {path.name for path in csv.parent.iterdir()} == {"c.csv"}  # nothing was begun


@pytest.mark.parametrize(
    ("cell", "says"), [("", "got ''"), ("NaN", "got 'NaN'"), ("high", "got 'high'"), ("inf", "is inf")]
)
def test_a_cell_that_is_not_a_number_is_named(csv: Path, cell: str, says: str, capsys: Any) -> None:
    lines = csv.read_text().splitlines()
    lines[20] = ",".join([*lines[20].split(",")[:-1], cell])
    csv.write_text("\n".join(lines))
    assert ended(FitSettings(curves=csv, out=csv.parent / "out")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error
    assert "line 21" in error or "seq 1, shot 2" in error  # line 21 of the file is sequence 1 after 2 examples


def test_the_shell_sees_the_same(tmp_path: Path) -> None:
    done = run("--curves", "absent.nc", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no curves file 'absent.nc'") and done.stderr.count("\n") == 1
    assert run("--draws", "many", cwd=tmp_path).returncode == 2  # bad arguments are tyro's


# --------------------------------------------------------------------------------------------- files


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take half the time of a run and more."""
    monkeypatch.setattr("bayes_icl.fit.command.fit_figures", lambda *_: {})


@pytest.fixture
def fits_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of cases of every call of `fit_curves`."""
    calls: list[int] = []
    real = fit.fit_curves

    def counted(cases: list[Case], *arguments: Any, **named: Any) -> Any:
        calls.append(len(cases))
        return real(cases, *arguments, **named)

    monkeypatch.setattr("bayes_icl.fit.command.fit_curves", counted)
    return calls


def settings_for(curves: Path, **given: Any) -> FitSettings:
    folder = curves.parent
    return FitSettings(**{"curves": curves, "out": folder / "out", "figures": folder / "figures", **LITTLE} | given)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def verdict_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "verdict.json").read_text())


def test_the_newest_curves_are_the_default(
    tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("newer", "older")):
        path = write_nc(tmp_path / "data" / "curves" / f"{name}.nc", simulate_curves(8, 9, task=name, seed=age))
        os.utime(path, (1e9 - age, 1e9 - age))
    assert ended(FitSettings(**LITTLE)) in (0, 3)
    assert list(json.loads(Path("data/fits/newer/verdict.json").read_text())) == ["newer"]
    assert capsys.readouterr().out.split() == ["figures/newer", "data/fits/newer"]


def test_the_files_of_a_run(csv: Path, capsys: Any) -> None:
    """Those of the design, from a CSV: headline first, other settings after it, refused tasks beside the others."""
    write_csv(
        csv,
        simulate_curves(12, 16, task="rising"),
        simulate_curves(12, 16, task="rising", readout="rule"),
        flat(),
    )
    settings = settings_for(csv, n_min=(1, 0), readout=("complement", "rule"), sensitivity=True)
    assert ended(settings) == 3  # finished, and refused for one task
    out, figures = csv.parent / "out", csv.parent / "figures"
    printed = capsys.readouterr()
    assert printed.out.split() == [str(figures), str(out)]
    assert "UNDECIDED" in printed.err and "REFUSED" in printed.err
    assert (figures / "summary.txt").read_text() in printed.err
    assert {path.name for path in out.iterdir()} == {
        *(f"rising__{name}.nc" for name in (*THREE, "freeform")),
        *TABLES,
        "verdict.json",
        "provenance.json",
        ".fit.json",
    }
    for name in ("curves_rising", "updates", "departure", "comparison", "delta", "sensitivity"):
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")

    rising = verdict_of(csv.parent)["rising"]
    assert set(rising) >= {"verdict", "reasons", "selected", "delta", "n_min", "readout", "others"}
    assert (rising["readout"], rising["n_min"], rising["noise"]) == ("complement", 1, "normal")
    assert rising["verdict"] in ("supported", "rejected", "no_update", "undecided")
    assert set(rising["delta"]) == {"mean", "hdi_low", "hdi_high"}
    assert rising["delta"]["hdi_low"] < 9.6 / 16 < rising["delta"]["hdi_high"]  # of a line, from any n
    assert all(isinstance(reason, str) for reason in rising["reasons"])
    others = [tuple(v[k] for k in ("readout", "n_min", "noise")) for v in rising["others"]]
    assert others == [("complement", 0, "normal"), ("rule", 1, "normal"), ("complement", 1, "student")]
    assert all(set(v) == set(rising) - {"others", "left_out"} for v in rising["others"])
    refused = verdict_of(csv.parent)["flat"]
    assert (refused["verdict"], refused["delta"], refused["selected"]) == ("refused", None, None)
    assert "no variation" in refused["reasons"][0]

    table = pd.read_csv(out / "comparison.csv")
    assert set(COLUMNS) <= set(table.columns) and set(table.task) == {"rising"}
    assert len(table) == 3 * 4  # other noise is in sensitivity.csv only; freeform is always fitted
    assert (table.groupby(["readout", "n_min"]).elpd_diff.max() == 0).all()
    assert list(pd.read_csv(out / "sensitivity.csv").task) == ["flat"] * 3 + ["rising"] * 4
    assert len(pd.read_csv(out / "checks.csv")) == 3 and len(pd.read_csv(out / "engines.csv")) == 0

    inference = az.from_netcdf(str(out / "rising__additive.nc"))
    assert inference.log_likelihood["log_odds"].dims == ("chain", "draw", "seq")
    assert {"posterior", "sample_stats", "prior", "posterior_predictive", "observed_data"} <= set(inference.groups())
    assert inference.observed_data["log_odds"].shape == (12, 16)
    assert {k: inference.attrs[k] for k in ("readout", "n_min", "engine")} == {
        "readout": "complement",
        "n_min": 1,
        "engine": "fast",
    }
    record = json.loads(inference.attrs["provenance"])
    assert list(record["inputs"]) == ["c.csv"] and record["settings"]["seed"] == 0
    assert record == json.loads((out / "provenance.json").read_text())


@pytest.mark.parametrize("task", ["7", "null", "[b]"])
def test_a_task_of_a_table_may_have_any_name(csv: Path, task: str) -> None:
    """A number, and what pandas takes for a missing value, are names too."""
    write_csv(csv, simulate_curves(12, 16, task=task))
    assert ended(settings_for(csv, sensitivity=True)) in (0, 3)
    assert list(verdict_of(csv.parent)) == [task]
    assert "slope by sequence" in (csv.parent / "figures" / "summary.txt").read_text()
    assert {"comparison.png", "sensitivity.png"} <= {path.name for path in (csv.parent / "figures").iterdir()}


def test_netcdf_gives_what_a_table_of_the_same_numbers_gives(tmp_path: Path, undrawn: None) -> None:
    curves = simulate_curves(12, 16, task="rising")
    tables = []
    for i, path in enumerate((write_csv(tmp_path / "c.csv", curves), write_nc(tmp_path / "c.nc", curves))):
        assert ended(settings_for(path, out=tmp_path / f"out{i}")) in (0, 3)
        tables.append(pd.read_csv(tmp_path / f"out{i}" / "comparison.csv"))
    # CSV holds each number to the last digit.
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)


def test_nothing_is_fitted_again_unless_it_must(
    csv: Path, undrawn: None, fits_made: list[int], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ended(settings_for(csv))
    out = csv.parent / "out"
    before = snapshot(out)
    drawn: list[Any] = []
    monkeypatch.setattr("bayes_icl.fit.command.fit_figures", lambda *arguments: drawn.append(arguments) or {})
    capsys.readouterr()
    assert ended(settings_for(csv)) == first
    assert "was made from these curves" in capsys.readouterr().err
    assert len(drawn) == 1
    for other in ({"seed": 1}, {"noise": "student"}, {"sensitivity": True}, {"pool": True}, {"n_min": (0,)}):
        assert ended(settings_for(csv, **other)) == 1
        error = capsys.readouterr().err
        assert "other curves or settings" in error and "--force" in error and error.count("\n") == 1
    # What changes no number is no other setting.
    assert ended(settings_for(csv, workers=2, figures=csv.parent / "elsewhere")) == first
    write_csv(csv, simulate_curves(12, 16, task="rising", seed=9), flat())
    assert ended(settings_for(csv)) == 1  # other curves
    assert (len(fits_made), len(drawn)) == (1, 2)
    assert snapshot(out) == before
    assert ended(settings_for(csv, seed=1, force=True)) == first  # the control
    assert len(fits_made) == 2
    assert snapshot(out) != before


def test_a_run_stopped_while_it_fits_leaves_what_there_was(
    csv: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(settings_for(csv)) == 3
    before = snapshot(csv.parent / "out")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bayes_icl.fit.fitting.sample_fast", stop)
    assert ended(settings_for(csv, seed=1, force=True)) == 130
    assert snapshot(csv.parent / "out") == before
    assert ended(settings_for(csv, out=csv.parent / "new")) == 130
    assert list((csv.parent / "new").iterdir()) == []


def test_force_leaves_no_fit_of_another_run(csv: Path, undrawn: None) -> None:
    """Or figures would show hypotheses, and tasks, of other curves and settings beside the new ones."""
    write_csv(csv, simulate_curves(12, 16, task="rising"), simulate_curves(12, 16, task="second"))
    assert ended(settings_for(csv, pool=True)) == 0
    out = csv.parent / "out"
    assert (out / "rising__power.nc").exists() and (out / "pooled.json").exists()
    assert ended(settings_for(csv, tasks=("rising",), hypotheses=("constant", "additive"), force=True)) == 0
    # freeform, on which the verdict rests, is fitted whatever is asked for
    assert {p.name for p in out.glob("*.nc")} == {f"rising__{name}.nc" for name in ("constant", "additive", "freeform")}
    assert not (out / "pooled.json").exists()
    # And where the new curves cannot be fitted at all:
    write_csv(csv, flat()._replace(task="rising"))
    assert ended(settings_for(csv, force=True)) == 3
    assert not list(out.glob("*.nc"))


def test_a_refused_headline_is_not_shown_with_the_fit_of_another_n_min(csv: Path) -> None:
    """Curves of three shots from n = 1 on are too few, and four from n = 0 on are just enough."""
    write_csv(csv, simulate_curves(12, 3, task="short"))
    assert ended(settings_for(csv, n_min=(1, 0))) == 3
    verdict = verdict_of(csv.parent)["short"]
    assert (verdict["verdict"], verdict["n_min"]) == ("refused", 1)
    assert not (csv.parent / "out" / "short__additive.nc").exists()


def test_a_refused_headline_is_not_shown_with_the_fit_of_another_readout(csv: Path, undrawn: None) -> None:
    write_csv(csv, flat(), simulate_curves(12, 16, task="flat", readout="rule"))
    assert ended(settings_for(csv, readout=("complement", "rule"))) == 3
    verdict = verdict_of(csv.parent)["flat"]
    assert (verdict["verdict"], verdict["readout"], verdict["others"][0]["readout"]) == (
        *("refused", "complement", "rule"),
    )
    assert verdict["others"][0]["delta"] is not None
    assert not list((csv.parent / "out").glob("flat__*.nc"))


def test_everything_refused_is_still_written(csv: Path, capsys: Any) -> None:
    write_csv(csv, flat())
    assert ended(settings_for(csv, sensitivity=True, pool=True)) == 3
    assert "no variation" in capsys.readouterr().err
    table = pd.read_csv(csv.parent / "out" / "comparison.csv")
    assert len(table) == 0 and set(COLUMNS) <= set(table.columns)
    assert ended(settings_for(csv, sensitivity=True, pool=True)) == 3  # and drawn again


def test_too_few_sequences_are_fitted_and_refused(csv: Path, undrawn: None) -> None:
    write_csv(csv, simulate_curves(7, 16, task="few"))
    assert ended(settings_for(csv)) == 3
    verdict = verdict_of(csv.parent)["few"]
    assert "7 sequences, at least 8" in verdict["reasons"][0]
    assert verdict["delta"] is not None and (csv.parent / "out" / "few__additive.nc").exists()


@pytest.mark.parametrize("names", [("constant", "power"), ("additive",), ("freeform",), ("nll_power",)])
def test_any_choice_of_hypotheses_is_drawn(csv: Path, names: tuple[str, ...]) -> None:
    assert ended(settings_for(csv, hypotheses=names, sensitivity=True)) == 3  # the verdict needs three
    assert (csv.parent / "figures" / "comparison.pdf").stat().st_size > 1000


def test_tasks_do_not_share_files() -> None:
    """A table's tasks may have any names; two of them must not overwrite each other."""
    names = ["a b", "a-b", "a/b", "../a", "x = 2y", "été"]
    files = {fit_file(name, "power") for name in names}
    assert len(files) == len(names)
    assert all(Path(name).name == name and name.endswith("__power.nc") for name in files)
    assert fit_file("past_tense", "power") == "past_tense__power.nc"


# --------------------------------------------------------------------------------------------- same numbers


def test_the_same_seed_gives_the_same_tables_whatever_the_workers(csv: Path, undrawn: None) -> None:
    """Bit by bit."""
    runs = {}
    for name, given in {"one": {}, "again": {}, "two": {"workers": 2}, "seed": {"seed": 1}}.items():
        out = csv.parent / name
        assert ended(settings_for(csv, out=out, n_min=(1, 0), sensitivity=True, **given)) == 3
        runs[name] = {table: (out / table).read_bytes() for table in (*TABLES, "verdict.json")}
        runs[name]["draws"] = az.from_netcdf(str(out / "rising__power.nc")).posterior["a"].values.tobytes()
    assert runs["one"] == runs["again"] == runs["two"]
    different = {name for name in runs["one"] if runs["seed"][name] != runs["one"][name]}  # the control
    assert different >= {"comparison.csv", "sensitivity.csv", "verdict.json", "draws"}


# --------------------------------------------------------------------------------------------- cases


def test_plan_cases(csv: Path) -> None:
    dataset = read_curves(
        write_csv(csv, simulate_curves(8, 9, task="a"), simulate_curves(8, 9, task="a", readout="rule"))
    )
    plain = plan_cases(dataset, FitSettings(sensitivity=False))
    assert [(c.curves.readout, c.curves.shots[0]) for c in plain] == [
        *[("complement", 1), ("complement", 0), ("complement", 2), ("rule", 1)]
    ]
    assert [c.headline for c in plain] == [True, False, False, False]
    more = plan_cases(dataset, FitSettings(noise="student"))
    assert [c.noise for c in more[3:]] == ["student", "normal"]
    # A task without the first readout is judged by the next it has; repeated words count once.
    rule = read_curves(write_csv(csv, simulate_curves(8, 9, task="b", readout="rule")))
    assert [c.curves.readout for c in plan_cases(rule, FitSettings(n_min=(1, 1), sensitivity=False))] == ["rule"]
    with pytest.raises(StatedError, match="unknown task"):
        plan_cases(dataset, FitSettings(tasks=("z",)))
    # A name that is misspelt must not make another readout the headline; one that this file lacks may.
    with pytest.raises(StatedError, match="unknown readout 'complment': did you mean complement"):
        plan_cases(dataset, FitSettings(readout=("complment", "rule")))
    assert plan_cases(dataset, FitSettings(readout=("foil", "rule")))[0].curves.readout == "rule"


def test_cases_begin_at_the_first_shot_from_n_min_on(tmp_path: Path) -> None:
    """Where shots are not consecutive several n_min may mean the same curve, which is fitted once."""
    uneven = read_curves(write_csv(tmp_path / "c.csv", simulate_curves(8, 0, shots=(2, 4, 8, 16, 32))))
    for n_min, begins in {(1, 0, 2): [2], (1, 3, 16): [2, 4, 16], (4,): [4]}.items():
        cases = plan_cases(uneven, FitSettings(n_min=n_min, sensitivity=False))
        assert [case.curves.shots[0] for case in cases] == begins
    with pytest.raises(StatedError, match=r"--n-min 17: the curves run from n = 2 to 32, and one update at least"):
        plan_cases(uneven, FitSettings(n_min=(17,)))


def test_shots_that_are_not_consecutive_go_through_a_run(
    tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table as people have them: fitted and reported, figures too; what is too little is refused."""
    monkeypatch.chdir(tmp_path)
    shots = [0, 1, 2, 4, 8, 16, 32, 64]
    csv = write_csv(tmp_path / "c.csv", simulate_curves(48, 0, shots=shots, level=1.0, task="line"))
    assert ended(settings_for(csv, n_min=(0, 16), hypotheses=("additive",))) == 0
    verdict = verdict_of(tmp_path)["line"]
    assert verdict["verdict"] == "supported" and verdict["mean_curve"]["shots"] == shots
    assert verdict["delta"]["hdi_low"] < 9.6 / 64 < verdict["delta"]["hdi_high"]
    (late,) = verdict["others"]
    assert (late["n_min"], late["verdict"]) == (16, "refused") and "3 shots from n = 16" in late["reasons"][0]
    assert pd.read_csv("out/noise.csv").shot.tolist() == shots
    assert report.main(report.ReportSettings(curves=csv, fits=Path("out"), out=Path("page.html"))) == 0
    assert json.loads(Path("page/numbers.json").read_text())["numbers"]["answer.n_shots"]["value"] == 64
    assert Path("page/figures/updates.svg").exists()


def test_which_hypotheses_a_case_is_fitted_with() -> None:
    plain = simulate_curves(8, 9)

    def names(case: Case) -> set[str]:
        return {name for name in (*HYPOTHESES, *HISTORY_LAWS) if case.fits(name)}

    everything = set(HYPOTHESES)
    assert names(Case(plain, headline=True)) == everything
    # The law of most parameters is for headlines.
    assert names(Case(plain)) == everything - {"scaling_law"}
    # Where the setting is varied not the laws of most parameters; the mean curve always.
    assert names(Case(plain, "student", base=False)) == everything - {"scaling_law"}
    assert names(Case(plain, "student", headline=True)) == everything
    assert Case(plain, "student").hypothesis("power").student


def test_which_laws_of_history_a_case_is_fitted_with() -> None:
    """What was shown, what the observer says: each law has what it asks for."""
    both = observed("t", 1.0, 8, 9)
    single = both._replace(log_odds=both.log_odds[:, -1:], observer=None, single=np.full(8, 9))

    def names(curves: Curves) -> set[str]:
        return {name for name in (*HYPOTHESES, *HISTORY_LAWS) if Case(curves, weighs=True).fits(name)}

    assert names(both) == set(HISTORY_LAWS)
    assert names(both._replace(observer=None)) == names(single) == set(HISTORY_LAWS) - {"observer"}
    assert names(both._replace(history=None)) == {"trend", "observer"}
    assert names(both._replace(history=None, observer=None)) == {"trend"}
    case = Case(single, "student", weighs=True)
    assert case.hypothesis("leaky").single and case.hypothesis("leaky").student
    assert not case.hypothesis("per_lag").student  # it is integrated out under normal noise only
    assert not Case(both, weighs=True).hypothesis("leaky").single


def test_curves_can_be_fitted_without_files() -> None:
    curves = simulate_curves(12, 16)
    cases = [Case(curves, headline=True), Case(curves.since(2))]
    fits = fit_curves(cases, THREE, engine="fast", workers=1)
    assert [[s.hypothesis for s in own] for own in fits.scores] == [[*THREE, "freeform"]] * 2
    assert set(fits.posteriors) == {(0, name) for name in (*THREE, "freeform")}  # of headlines only
    verdicts = judge_cases(cases, fits.scores)
    assert list(verdicts) == ["made"] and len(verdicts["made"]["others"]) == 1
    assert fit_curves([], THREE, engine="fast", workers=1).scores == []


def test_words_that_mean_nothing_are_stated_in_python_too() -> None:
    curves = simulate_curves(8, 9)
    with pytest.raises(StatedError, match="unknown noise 'cauchy': known: normal, student"):
        Case(curves, noise="cauchy")
    with pytest.raises(StatedError, match="unknown hypothesis 'powr': did you mean power"):
        fit_curves([Case(curves)], ["powr"], engine="fast")
    with pytest.raises(StatedError, match="unknown engine 'quick': known: auto, fast, nuts"):
        fit_curves([Case(curves)], THREE, engine="quick")  # type: ignore[arg-type]


def test_a_law_of_a_notebook_is_known_to_workers(own_registry: None) -> None:
    """Registered here and in no file: a function that no module holds."""

    @hypothesis(
        "halves",
        complexity=2,
        priors={"half": LogNormal(2.0, 0.7)},
        meanings={"half": "examples"},
        reference="",
        predicts="",
    )
    def halves(xp: Any, n: Any, half: Any) -> Any:
        return 1 - 0.5 ** (n / half)

    cases = [Case(simulate_curves(8, 10, seed=seed), headline=True) for seed in range(2)]
    one, two = (fit_curves(cases, ["additive", "halves"], engine="fast", workers=n) for n in (1, 2))
    for i in range(2):
        assert [s.hypothesis for s in two.scores[i]] == ["additive", "halves", "freeform"]
        for a, b in zip(one.scores[i], two.scores[i]):
            np.testing.assert_allclose(a.elpd_logo, b.elpd_logo)
        assert two.posteriors[i, "halves"].hypothesis == HYPOTHESES["halves"]


# --------------------------------------------------------------------------------------------- the flags


def test_heavy_tailed_noise(csv: Path, undrawn: None) -> None:
    """One sequence times 50 sways the normal delta, and the heavy-tailed one hardly."""
    curves = simulate_curves(16, 16, task="rising")
    odd = curves.log_odds.copy()
    odd[3] = odd[3].mean() + 50 * (odd[3] - odd[3].mean())
    deltas = {}
    for noise in ("normal", "student"):
        for name, values in (("clean", curves.log_odds), ("odd", odd)):
            write_csv(csv, curves._replace(log_odds=values))
            assert ended(settings_for(csv, noise=noise, force=True)) in (0, 3)
            verdict = verdict_of(csv.parent)["rising"]
            assert verdict["noise"] == noise
            deltas[noise, name] = verdict["delta"]["mean"]
    inference = az.from_netcdf(str(csv.parent / "out" / "rising__additive.nc"))
    assert inference.attrs["noise"] == "student" and "dof" in inference.posterior
    assert abs(deltas["student", "odd"] / deltas["student", "clean"] - 1) < 0.05
    assert abs(deltas["normal", "odd"] / deltas["normal", "clean"] - 1) > 0.2  # the control
    assert deltas["student", "clean"] == pytest.approx(deltas["normal", "clean"], abs=0.05)


def test_heavy_tailed_noise_has_normal_noise_beside_it(csv: Path) -> None:
    """The whole command, figures too: the sensitivity table has the other noise."""
    assert ended(settings_for(csv, noise="student", sensitivity=True, hypotheses=(*THREE, "freeform"))) == 3
    table = pd.read_csv(csv.parent / "out" / "sensitivity.csv").query("task == 'rising'")
    assert list(table.noise) == ["student", "normal"]
    assert "normal noise" in (csv.parent / "figures" / "summary.txt").read_text()


def test_pooling(csv: Path, capsys: Any) -> None:
    deltas = {"a": 0.5, "b": 0.6, "c": 0.7}
    write_csv(csv, *(simulate_curves(16, 16, gain=16 * d, task=t, seed=i) for i, (t, d) in enumerate(deltas.items())))
    assert ended(settings_for(csv, pool=True)) == 0
    pooled = json.loads((csv.parent / "out" / "pooled.json").read_text())
    assert set(pooled) == {"alone", "mu", "tau", "new_task", "deltas", "tau_family", "families"}
    assert pooled["families"] is None  # no one has named any, and the tasks are no built-in ones
    checks = pd.read_csv(csv.parent / "out" / "checks.csv").query("check == 'slope by sequence'").set_index("task")
    for task in deltas:
        mean, low, high = pooled["deltas"][task]
        alone = pooled["alone"][task]
        assert (alone["mean"], alone["sd"]) == pytest.approx((checks.estimate[task], checks.se[task]), rel=1e-9)
        assert alone["family"] == "other"
        # Drawn towards the others, and surer.
        assert abs(mean - pooled["mu"][0]) < abs(pooled["alone"][task]["mean"] - pooled["mu"][0]) + 0.01
        assert high - low < 4.2 * pooled["alone"][task]["sd"]
    assert pooled["mu"][1] < 0.6 < pooled["mu"][2]
    assert pooled["new_task"][1] < pooled["mu"][1]
    assert f"mean over tasks like these: {pooled['mu'][0]:.3f}" in capsys.readouterr().err


def test_pooling_by_families_of_a_table(csv: Path, undrawn: None, capsys: Any) -> None:
    tasks = {"a": 0.5, "b": 0.52, "c": 0.7, "d": 0.72}
    write_csv(csv, *(simulate_curves(16, 16, gain=16 * d, task=t, seed=i) for i, (t, d) in enumerate(tasks.items())))
    table = pd.read_csv(csv)
    table.assign(family=table.task.map({"a": "low", "b": "low", "c": "high", "d": "high"})).to_csv(csv, index=False)
    assert ended(settings_for(csv, pool=True)) == 0
    pooled = json.loads((csv.parent / "out" / "pooled.json").read_text())
    assert pooled["families"]["low"][0] < 0.58 < 0.63 < pooled["families"]["high"][0]
    assert pooled["tau_family"][0] > pooled["tau"][0]
    words = " ".join(capsys.readouterr().err.split())
    assert "the mean's interval is wide because there are 2 families of tasks" in words and "mean of low: 0.5" in words


def test_what_a_reviewer_asks_for_is_there(tmp_path: Path, undrawn: None, capsys: Any) -> None:
    """A line and a bent curve: tables on the headlines, and what is said of them."""
    straight = simulate_curves(40, 16, task="straight", seed=3)
    bent = simulate_curves(40, 16, task="bent", f=power_law(0.6), level=1.0, seed=1)
    path = write_nc(tmp_path / "c.nc", straight, bent)
    assert ended(settings_for(path, hypotheses=(*THREE, "logarithmic"))) == 0
    out, words = tmp_path / "out", " ".join(capsys.readouterr().err.split())
    tests = read_table(out / "pit_tests.csv")
    p = tests[tests.hypothesis == "additive"].set_index(["task", "statistic"]).p_holm.sort_index()
    assert p["bent", "contrast"] < 0.01 < 0.05 < p["straight", "contrast"]
    pit = read_table(out / "pit.csv")
    assert pit.groupby(["task", "hypothesis", "statistic"]).size().eq(40).all()
    assert "`additive`, contrast: `bent`" in words
    checks = read_table(out / "checks.csv").query("check == 'quadratic contrast'").set_index("task")
    # Holm's method on two: the least of them doubled.
    assert checks.p_holm["bent"] == pytest.approx(2 * checks.p["bent"])
    assert checks.p_holm["straight"] == pytest.approx(checks.p["straight"])
    assert "corrected over 2 tasks (Holm): 1 of 2 bend at 0.05: `bent`" in words
    scaling = read_table(out / "power_scaling.csv").set_index(["task", "hypothesis", "parameter"]).sort_index()
    own = scaling.loc["straight", "additive", "delta"]
    assert own.prior_sensitivity < 0.05 < own.likelihood_sensitivity
    assert {"total", "departure", "second_half"} <= set(scaling.loc["bent", "freeform"].index)
    noise = read_table(out / "noise.csv").query("task == 'straight'")
    assert list(noise["shot"]) == list(range(1, 17))
    assert ((noise.sd_low < noise.expected) & (noise.expected < noise.sd_high)).mean() > 0.8
    table = read_table(out / "comparison.csv").query("task == 'bent' and n_min == 1").set_index("hypothesis")
    assert table.few_seqs.all() and 0 < table.mcse.max() < 0.5
    assert table.p_worse["constant"] > 0.99 and np.isnan(table.p_worse[table.elpd_diff == 0]).all()
    assert "predicts best of 4 laws" in words and "fewer than 100 sequences (2 of 2 tasks)" in words


def test_pooling_needs_two_tasks_with_something_to_learn(tmp_path: Path, undrawn: None, capsys: Any) -> None:
    """One task is no spread, and neither a null task (whose name is no missing value) nor a refused one counts."""
    null = simulate_curves(12, 16, gain=0, task="null")
    null = null._replace(evidence=np.zeros_like(null.log_odds))
    path = write_nc(tmp_path / "c.nc", simulate_curves(12, 16, task="rising"), null, flat())
    assert ended(settings_for(path, pool=True)) == 3
    pooled = json.loads((tmp_path / "out" / "pooled.json").read_text())
    assert pooled == {"refused": "--pool needs 2 tasks or more with a fit and something to learn, got 1"}
    assert pooled["refused"] in capsys.readouterr().err


def test_the_observer_is_fitted_where_it_is_known(tmp_path: Path, undrawn: None) -> None:
    """Whose examples disagree has the second verdict, and is not asked for the first; all others the first alone."""
    plain = simulate_curves(32, 16, task="plain")
    null = simulate_curves(32, 16, gain=0, task="null", seed=3)
    null = null._replace(evidence=np.zeros_like(null.log_odds))
    path = write_nc(tmp_path / "c.nc", observed("known", 0.5), plain, null)
    assert ended(settings_for(path, hypotheses=(*THREE, "trend", "observer", "leaky"))) in (0, 3)
    table, weighed = (read_table(tmp_path / "out" / f"{name}.csv") for name in ("comparison", "history"))
    assert {task: set(own.hypothesis) for task, own in table.groupby("task")} == {
        "plain": {*THREE, "freeform"},
        "null": {*THREE, "freeform"},
    }
    assert set(weighed.task) == {"known"} and set(weighed.hypothesis) == {"trend", "observer", "leaky", "per_lag"}
    summary = (tmp_path / "figures" / "summary.txt").read_text().split("null ─")[1]
    assert "left-out seq" in summary and "slope by sequence" in summary  # a task of that name is no missing value
    known, of_plain, of_null = (verdict_of(tmp_path)[name] for name in ("known", "plain", "null"))
    assert known["left_out"] == of_plain["left_out"] == of_null["left_out"] == {}
    assert known["verdict"] == "not_asked" and "examples disagree" in known["reasons"][0]
    assert known["bayesian"]["verdict"] == "conservative"
    weight = known["bayesian"]["weight"]
    assert weight["mean"] == pytest.approx(0.5, abs=0.05) and weight["high"] - weight["low"] < 0.1  # 4 SE, and 8
    row = weighed[weighed.hypothesis == "observer"].iloc[0]
    assert row.survivor and row.w_mean == pytest.approx(weight["mean"], rel=1e-6)
    assert of_plain["bayesian"] is of_null["bayesian"] is None
    assert of_null["verdict"] in ("no_update", "undecided")  # 32 sequences may not tell


def test_a_table_can_bring_an_observer(csv: Path, undrawn: None, capsys: Any) -> None:
    write_csv(csv, simulate_curves(12, 16, task="rising"))
    table = pd.read_csv(csv)
    table = table.assign(observer=0.5 * table.shot)
    table.to_csv(csv, index=False)
    laws = (*THREE, "trend", "observer", "leaky")
    assert ended(settings_for(csv, hypotheses=laws)) in (0, 3)
    out = csv.parent / "out"
    assert set(pd.read_csv(out / "comparison.csv").hypothesis) == {*THREE, "freeform"}
    assert set(pd.read_csv(out / "history.csv").hypothesis) == {"trend", "observer"}
    # What the observer would say is known, what each example showed is not; and all examples agree.
    verdict = json.loads((out / "verdict.json").read_text())["rising"]
    assert verdict["verdict"] != "not_asked" and verdict["bayesian"]["verdict"] == "not separable"
    assert "leaky" in verdict["left_out"] and "not known" in verdict["left_out"]["leaky"]
    # Where it is not known it is asked from the shot after; at the last shot there is none after.
    for shot, begins in ((5, 6), (16, None)):
        table.assign(observer=table.observer.where((table.shot != shot) | (table.seq != 3))).to_csv(csv, index=False)
        assert ended(settings_for(csv, hypotheses=laws, force=True)) in (0, 3)
        found = json.loads((out / "verdict.json").read_text())["rising"]["bayesian"]
        assert begins is None if found is None else found["n_min"] == begins
        assert pd.read_csv(out / "history.csv").empty == (begins is None)


# --------------------------------------------------------------------------------------------- a user's hypothesis

THEIRS = """
from bayes_icl.hypotheses import LogNormal, hypothesis

@hypothesis(
    "{name}",
    complexity=2,
    priors={{"half": LogNormal(2.0, 0.7)}},
    meanings={{"half": "examples until half of the rise"}},
    reference="made up",
    predicts="a sigmoid of log n",
)
def theirs(xp, n, half):
    return n**2 / (n**2 + half**2)
"""


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(HYPOTHESES)
    monkeypatch.setattr(law, "_LOADED", {})
    yield
    HYPOTHESES.clear()
    HYPOTHESES.update(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_users_hypothesis_is_compared_beside_the_others(csv: Path, own_registry: None, workers: int) -> None:
    """From ten lines of their own, in this process and in workers, which must know it too."""
    own = csv.parent / "my_laws.py"
    own.write_text(THEIRS.format(name="sigmoid"))
    assert len(THEIRS.strip().splitlines()) - 3 <= 10  # its import aside
    write_csv(
        csv,
        simulate_curves(16, 16, n_min=0, f=lambda n: n**2 / (n**2 + 64), level=0.3, gain_sd=0.5, task="sigmoidal"),
    )
    assert ended(settings_for(csv, hypotheses_from=own, workers=workers)) in (0, 3)
    table = pd.read_csv(csv.parent / "out" / "comparison.csv").set_index("hypothesis")
    assert list(table.index) == [*THREE, "sigmoid", "freeform"]
    assert table.survivor["sigmoid"] and not table.survivor[list(THREE)].any()
    assert table.half_hdi_low["sigmoid"] < 8 < table.half_hdi_high["sigmoid"]
    assert verdict_of(csv.parent)["sigmoidal"]["selected"] == "sigmoid"
    assert (csv.parent / "out" / "sigmoidal__sigmoid.nc").exists()
    record = json.loads((csv.parent / "out" / "provenance.json").read_text())
    assert set(record["inputs"]) == {"c.csv", "my_laws.py"}


def test_another_law_in_the_same_file_is_another_setting(
    csv: Path, own_registry: None, undrawn: None, capsys: Any
) -> None:
    own = csv.parent / "my_laws.py"
    own.write_text(THEIRS.format(name="sigmoid"))
    assert ended(settings_for(csv, hypotheses_from=own)) == 3
    own.write_text(THEIRS.format(name="sigmoid").replace("**2", "**3"))
    assert ended(settings_for(csv, hypotheses_from=own)) == 1
    assert "other curves or settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def theirs(:", "SyntaxError"),
        ("import absent_module", "ModuleNotFoundError: No module named 'absent_module'"),
        ("x = 1", "nothing in it is registered"),
        (THEIRS.format(name="power"), "'power' is registered already"),
        (None, "no such file"),
    ],
    ids=["syntax", "import", "nothing", "name taken", "absent"],
)
def test_a_bad_file_of_hypotheses_is_said_in_one_line(
    csv: Path, own_registry: None, text: str | None, says: str, capsys: Any
) -> None:
    own = csv.parent / "my_laws.py"
    if text is not None:
        own.write_text(text)
    before = list(HYPOTHESES)
    assert ended(settings_for(csv, hypotheses_from=own)) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "my_laws.py" in captured.err and says in captured.err
    assert list(HYPOTHESES) == before and not (csv.parent / "out").exists()


# --------------------------------------------------------------------------------------------- NUTS

SHORT: dict[str, Any] = {"draws": 500, "tune": 500, "chains": 4}


@pytest.mark.sampling
def test_auto_scores_fast_and_samples_what_is_shown(tmp_path: Path) -> None:
    """In a shell, with worker processes, on a task that rises and one without variation."""
    write_csv(tmp_path / "made.csv", simulate_curves(12, 16, gain_sd=1.0, level=1.0, task="rising"), flat())
    flags = "--curves made.csv --n-min 1 --out out --figures figures --workers 2 --no-sensitivity"
    flags += " --draws 500 --tune 500"
    done = run(*flags.split(), "--hypotheses", *THREE, cwd=tmp_path)
    assert done.returncode == 3, done.stderr  # refused for one task
    assert done.stdout.split() == ["figures", "out"]
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert set(table.engine) == {"fast"}
    shown = {p.name: az.from_netcdf(str(p)).attrs["engine"] for p in (tmp_path / "out").glob("*.nc")}
    # additive, and the mean curve on which the verdict rests, if NUTS has no fault in so short a run
    assert shown.pop("rising__freeform.nc") in ("fast", "nuts")
    assert shown == {"rising__constant.nc": "fast", "rising__additive.nc": "nuts", "rising__power.nc": "fast"}
    engines = pd.read_csv(tmp_path / "out" / "engines.csv")
    assert set(engines.hypothesis) == {"additive", "freeform"} and set(engines.task) == {"rising"}
    shared = {"gain", "delta", "level", "walk", "gain_sd", "early_sd"}
    assert set(engines.parameter) >= shared | {"bend", "total", "departure"}
    assert (engines["shift"].abs() < 0.1 + 4 * engines.shift_se).all()
    additive = engines[engines.hypothesis == "additive"]
    assert set(additive.parameter) == shared and (additive.sd_ratio - 1).abs().max() < 0.15  # 500 draws a chain
    assert "fast engine beside NUTS" in done.stderr and "of 2 fits" in done.stderr
    record = json.loads(az.from_netcdf(str(tmp_path / "out" / "rising__additive.nc")).attrs["provenance"])
    assert list(record["inputs"]) == ["made.csv"] and record["packages"]["pymc"]
    # Again from a shell: drawn and printed, not sampled.
    before = snapshot(tmp_path / "out")
    again = run(*flags.split(), "--hypotheses", *THREE, cwd=tmp_path)
    assert again.returncode == 3 and "was made from these curves with these settings" in again.stderr
    assert snapshot(tmp_path / "out") == before


@pytest.mark.sampling
@pytest.mark.long
def test_auto_samples_the_named_law_too(csv: Path, undrawn: None) -> None:
    curves = simulate_curves(16, 16, f=power_law(0.5), gain=10, level=0.4, gain_sd=0.5, task="bent")
    write_csv(csv, curves)
    assert ended(settings_for(csv, engine="auto", draws=1500, tune=1000)) in (0, 3)
    assert verdict_of(csv.parent)["bent"]["selected"] == "power"
    engines = {p.stem: az.from_netcdf(str(p)).attrs["engine"] for p in (csv.parent / "out").glob("*.nc")}
    assert engines.pop("bent__freeform") in ("fast", "nuts")  # of so few draws NUTS may have a fault
    assert engines == {"bent__constant": "fast", "bent__additive": "nuts", "bent__power": "nuts"}
    assert set(pd.read_csv(csv.parent / "out" / "engines.csv").hypothesis) == {"additive", "power", "freeform"}


@pytest.mark.sampling
@pytest.mark.long
def test_nuts_for_everything_gives_the_same_verdict(csv: Path, undrawn: None) -> None:
    """The PyMC models for every score but the sensitivity table; both engines give the same scores."""
    tables, verdicts = {}, {}
    for engine in ("nuts", "fast"):
        assert ended(settings_for(csv, engine=engine, sensitivity=True, force=True, draws=1500, tune=1000)) == 3
        tables[engine] = pd.read_csv(csv.parent / "out" / "comparison.csv").set_index("hypothesis")
        verdicts[engine] = verdict_of(csv.parent)["rising"]
    assert set(tables["nuts"].engine) == {"nuts"} and set(tables["fast"].engine) == {"fast"}
    # 1500 draws a chain: R-hat scatters about 1.003, and the sampler's draws are not those of another machine.
    assert (tables["nuts"].rhat_max < 1.05).all() and tables["fast"].rhat_max.isna().all()
    # Of 6000 draws few carry the score of a whole second half.
    for column, most in {"elpd_logo": 0.3, "elpd_lfo": 1.5, "delta_mean": 0.02, "a_mean": 0.05}.items():
        assert tables["nuts"][column].to_dict() == pytest.approx(
            tables["fast"][column].to_dict(), abs=most, nan_ok=True
        )
    assert verdicts["nuts"]["verdict"] == verdicts["fast"]["verdict"]
    assert verdicts["nuts"]["others"] == verdicts["fast"]["others"]


@pytest.mark.sampling
def test_what_the_fast_engine_cannot_fit_nuts_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing small fails by nature, so the fast engine's account of one law is spoilt after the fact."""
    curves = simulate_curves(12, 16, task="rising").since(1)
    real = inference_importance.sample_fast

    def spoilt(hypothesis: Any, *arguments: Any, **named: Any) -> Any:
        fitted = real(hypothesis, *arguments, **named)
        return dataclasses.replace(fitted, k_hat=0.9, ess=100.0) if hypothesis.name == "power" else fitted

    monkeypatch.setattr("bayes_icl.fit.fitting.sample_fast", spoilt)
    cases = [Case(curves, headline=True)]
    sampler = SamplerSettings(**SHORT)
    fast = fit_curves(cases, THREE, engine="auto", sampler=sampler, workers=1)
    by_name = {s.hypothesis: s for s in fast.scores[0]}
    assert {name: s.engine for name, s in by_name.items()} == {
        "constant": "fast", "additive": "fast", "power": "nuts", "freeform": "fast",
    }  # fmt: skip
    assert by_name["power"].faults == ()
    assert fast.posteriors[0, "power"].engine == "nuts"
    assert "power" not in set(fast.agreement.hypothesis)  # a fit that is no good is compared with nothing
    assert judge_cases(cases, fast.scores)["rising"]["verdict"] != "refused"


@pytest.mark.sampling
def test_what_neither_engine_can_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bound on ESS that no run meets; the fast engine's account stays."""
    monkeypatch.setattr(inference_posterior, "ESS_LEAST", 10**6)
    cases = [Case(simulate_curves(12, 16, task="rising").since(1), headline=True)]
    fits = fit_curves(cases, THREE, engine="auto", sampler=SamplerSettings(200, 200, 2), workers=1)
    assert {s.engine for s in fits.scores[0]} == {"fast"}
    verdict = judge_cases(cases, fits.scores)["rising"]
    assert verdict["verdict"] == "refused"
    assert all(f"below {10**6}" in reason for reason in verdict["reasons"])


@pytest.mark.sampling
@pytest.mark.long
def test_a_users_hypothesis_is_sampled_in_a_worker(csv: Path, own_registry: None, undrawn: None) -> None:
    own = csv.parent / "my_laws.py"
    own.write_text(THEIRS.format(name="sigmoid"))
    write_csv(csv, simulate_curves(16, 16, f=lambda n: n**2 / (n**2 + 64), level=0.3, gain_sd=0.5, task="sigmoidal"))
    assert ended(settings_for(csv, hypotheses_from=own, engine="auto", workers=2, **SHORT)) in (0, 3)
    assert set(pd.read_csv(csv.parent / "out" / "engines.csv").hypothesis) == {"additive", "sigmoid", "freeform"}
    inference = az.from_netcdf(str(csv.parent / "out" / "sigmoidal__sigmoid.nc"))
    assert inference.attrs["engine"] == "nuts" and "half" in inference.posterior
