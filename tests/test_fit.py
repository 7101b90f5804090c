"""The fit command: what it says when it cannot, what it writes when it can."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from simulate import made_fit, simulate_curves

from bayes_icl import fit
from bayes_icl.curves import Curves, write_netcdf
from bayes_icl.errors import exit_stating
from bayes_icl.fit import FitSettings, fit_file, main

COLUMNS = (
    "task readout n_min hypothesis elpd_logo se elpd_diff diff_se elpd_lfo survivor pareto_k_max rhat_max "
    "ess_bulk_min divergences"
).split()
THREE = ("constant", "additive", "power")


def write_csv(path: Path, *all_curves: Curves) -> Path:
    rows = [
        {"task": c.task, "readout": c.readout, "seq": s, "shot": int(n), "log_odds": c.log_odds[s, i]}
        for c in all_curves
        for s in range(len(c.log_odds))
        for i, n in enumerate(c.shots)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


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


# --------------------------------------------------------------------------------------------- help

HEAVY = """
import sys, runpy
{first}
sys.argv = ["fit", "--help"]
try:
    runpy.run_module("bayes_icl.fit", run_name="__main__")
except SystemExit:
    pass
print("IMPORTED", *sorted({{"torch", "pymc", "arviz", "nutpie", "pandas", "xarray", "matplotlib"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(("first", "expected"), [("", []), ("import arviz", ["arviz"])], ids=["help", "control"])
def test_help_imports_nothing_heavy(first: str, expected: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", HEAVY.format(first=first)], capture_output=True, text=True, check=True)
    imported = done.stdout.splitlines()[-1].split()
    assert imported[0] == "IMPORTED"
    assert set(expected) <= set(imported[1:])
    assert expected or not imported[1:]
    assert "--hypotheses" in done.stdout and "--n-min" in done.stdout


def test_help_takes_less_than_a_second(tmp_path: Path) -> None:
    """The best of three, since other programs share the machine."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = run("--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert "Fit the hypotheses to a curves file" in done.stdout
    assert min(seconds) < 1


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
    ("cell", "says"), [("", "got nan"), ("NaN", "got nan"), ("high", "got 'high'"), ("inf", "is inf")]
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


# --------------------------------------------------------------------------------------------- files, sampling faked


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`fit_curves` gives made-up fits; the list has the number of curves of every call."""
    calls: list[int] = []

    def fake(
        all_curves: Sequence[Curves], hypotheses: Sequence[str], *, keep: Iterable[int] = (), **_: Any
    ) -> tuple[list[Any], dict[tuple[int, str], az.InferenceData]]:
        calls.append(len(all_curves))
        fits = {(i, name): made_fit(c, name) for i, c in enumerate(all_curves) for name in hypotheses}
        kept = set(keep)
        return [score for score, _ in fits.values()], {key: f for key, (_, f) in fits.items() if key[0] in kept}

    monkeypatch.setattr(fit, "fit_curves", fake)
    return calls


def settings_for(curves: Path, **given: Any) -> FitSettings:
    folder = curves.parent
    return FitSettings(
        **{"curves": curves, "out": folder / "out", "figures": folder / "figures", "hypotheses": THREE} | given
    )


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_newest_curves_are_the_default(
    tmp_path: Path, no_sampling: list[int], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for age, (name, seed) in enumerate((("newer", 1), ("older", 2))):
        curves = simulate_curves(8, 9, seed=seed)
        dims = ("task", "readout", "seq", "shot")
        coords = {"task": [name], "readout": ["complement"], "seq": range(8), "shot": range(10)}
        path = tmp_path / "data" / "curves" / f"{name}.nc"
        write_netcdf(xr.Dataset({"log_odds": (dims, curves.log_odds[None, None])}, coords=coords), path)
        import os

        os.utime(path, (1e9 - age, 1e9 - age))
    assert ended(FitSettings(hypotheses=THREE)) in (0, 3)
    assert list(json.loads(Path("data/fits/newer/verdict.json").read_text())) == ["newer"]
    assert capsys.readouterr().out.split() == ["figures/newer", "data/fits/newer"]


def test_headlines_come_first_and_others_after(csv: Path, no_sampling: list[int]) -> None:
    more = write_csv(
        csv, simulate_curves(12, 16, task="rising"), simulate_curves(12, 16, task="rising", readout="rule")
    )
    assert ended(settings_for(more, n_min=(1, 0, 2))) in (0, 3)
    assert no_sampling == [4]
    verdict = json.loads((csv.parent / "out" / "verdict.json").read_text())["rising"]
    assert (verdict["readout"], verdict["n_min"]) == ("complement", 1)
    others = [(v["readout"], v["n_min"]) for v in verdict["others"]]
    assert others == [("complement", 0), ("complement", 2), ("rule", 1)]
    table = pd.read_csv(csv.parent / "out" / "comparison.csv")
    assert len(table) == 4 * 3 and set(COLUMNS) <= set(table.columns)
    for name in THREE:
        inference = az.from_netcdf(str(csv.parent / "out" / f"rising__{name}.nc"))
        assert (inference.attrs["readout"], inference.attrs["n_min"]) == ("complement", 1)
        assert json.loads(inference.attrs["provenance"])["settings"]["seed"] == 0


def test_nothing_is_fitted_again_unless_it_must(csv: Path, no_sampling: list[int], capsys: Any) -> None:
    first = ended(settings_for(csv))
    out = csv.parent / "out"
    before = snapshot(out)
    capsys.readouterr()
    assert ended(settings_for(csv)) == first
    assert "was made from these curves" in capsys.readouterr().err
    assert ended(settings_for(csv, seed=1)) == 1  # other settings
    error = capsys.readouterr().err
    assert "other curves or settings" in error and "--force" in error and error.count("\n") == 1
    write_csv(csv, simulate_curves(12, 16, task="rising", seed=9), flat())
    assert ended(settings_for(csv)) == 1  # other curves
    assert len(no_sampling) == 1
    assert snapshot(out) == before
    assert ended(settings_for(csv, seed=1, force=True)) == first  # the control
    assert len(no_sampling) == 2
    assert snapshot(out) != before


def test_force_leaves_no_fit_of_another_run(csv: Path, no_sampling: list[int]) -> None:
    """Or figures would show hypotheses, and tasks, of other curves and settings beside the new ones."""
    assert ended(settings_for(csv)) in (0, 3)
    assert (csv.parent / "out" / "rising__power.nc").exists()
    assert ended(settings_for(csv, hypotheses=("constant", "additive"), force=True)) == 3
    assert {p.name for p in (csv.parent / "out").glob("*.nc")} == {"rising__constant.nc", "rising__additive.nc"}
    # And where the new curves cannot be fitted at all:
    write_csv(csv, flat()._replace(task="rising"))
    assert ended(settings_for(csv, force=True)) == 3
    assert not list((csv.parent / "out").glob("*.nc"))


def test_a_refused_headline_is_not_shown_with_the_fit_of_another_n_min(csv: Path, no_sampling: list[int]) -> None:
    """Curves of three shots from n = 1 on are too few, and four from n = 0 on are just enough."""
    write_csv(csv, simulate_curves(12, 3, task="short"))
    assert ended(settings_for(csv, n_min=(1, 0))) == 3
    verdict = json.loads((csv.parent / "out" / "verdict.json").read_text())["short"]
    assert (verdict["verdict"], verdict["n_min"]) == ("refused", 1)
    assert not (csv.parent / "out" / "short__additive.nc").exists()


def test_a_refused_headline_is_not_shown_with_the_fit_of_another_readout(csv: Path, no_sampling: list[int]) -> None:
    write_csv(csv, flat(), simulate_curves(12, 16, task="flat", readout="rule"))
    assert ended(settings_for(csv, n_min=(1,))) == 3
    verdict = json.loads((csv.parent / "out" / "verdict.json").read_text())["flat"]
    assert (verdict["verdict"], verdict["readout"], verdict["others"][0]["readout"]) == (
        "refused",
        "complement",
        "rule",
    )
    for path in (csv.parent / "out").glob("flat__*.nc"):
        assert az.from_netcdf(str(path)).attrs["readout"] == "complement", path.name


def test_everything_refused_is_still_written(csv: Path, no_sampling: list[int], capsys: Any) -> None:
    write_csv(csv, flat())
    assert ended(settings_for(csv)) == 3
    assert "no variation" in capsys.readouterr().err
    table = pd.read_csv(csv.parent / "out" / "comparison.csv")
    assert len(table) == 0 and set(COLUMNS) <= set(table.columns)


@pytest.mark.parametrize("hypotheses", [("constant", "power"), ("additive",), ("freeform",)])
def test_any_choice_of_hypotheses_is_drawn(csv: Path, no_sampling: list[int], hypotheses: tuple[str, ...]) -> None:
    assert ended(settings_for(csv, hypotheses=hypotheses)) == 3  # the verdict needs three
    assert (csv.parent / "figures" / "comparison.pdf").stat().st_size > 1000


def test_tasks_do_not_share_files() -> None:
    """A table's tasks may have any names; two of them must not overwrite each other."""
    names = ["a b", "a-b", "a/b", "../a", "x = 2y", "été"]
    files = {fit_file(name, "power") for name in names}
    assert len(files) == len(names)
    assert all(Path(name).name == name and name.endswith("__power.nc") for name in files)
    assert fit_file("past_tense", "power") == "past_tense__power.nc"


# --------------------------------------------------------------------------------------------- the whole command


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run of everything in a shell, on a task that rises and one without variation."""
    folder = tmp_path_factory.mktemp("whole")
    write_csv(folder / "made.csv", simulate_curves(12, 16, gain_sd=1.0, level=1.0, task="rising"), flat())
    done = run(*"--curves made.csv --n-min 1 --out out --figures figures --hypotheses".split(), *THREE, cwd=folder)
    return folder, done


@pytest.mark.sampling
def test_the_whole_command(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = whole
    assert done.returncode == 3, done.stderr  # finished, and refused for one task
    assert done.stdout.split() == ["figures", "out"]
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert "RISING" not in done.stdout and "REFUSED" in done.stderr  # verdicts are for people, on stderr
    verdicts = json.loads((folder / "out" / "verdict.json").read_text())
    assert list(verdicts) == ["flat", "rising"] or list(verdicts) == ["rising", "flat"]
    assert verdicts["flat"]["verdict"] == "refused"
    assert "no variation" in verdicts["flat"]["reasons"][0]
    rising = verdicts["rising"]
    assert rising["verdict"] in ("supported", "undecided", "rejected")
    assert set(rising) >= {"verdict", "reasons", "named", "delta", "n_min", "readout"}
    assert rising["delta"]["hdi_low"] < 9.6 / 16 < rising["delta"]["hdi_high"]  # the update of a line, from any n
    table = pd.read_csv(folder / "out" / "comparison.csv")
    assert set(COLUMNS) <= set(table.columns)
    assert not [name for name in table.columns if "log__" in name or "interval__" in name]
    assert list(table.hypothesis) == list(THREE) and set(table.task) == {"rising"}
    assert (table.elpd_diff.max(), table.rhat_max.max() <= 1.01) == (0, True)


@pytest.mark.sampling
def test_the_files_of_the_whole_command(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = whole
    fits = {f"rising__{name}.nc" for name in THREE}
    assert {p.name for p in (folder / "out").iterdir()} == fits | {"comparison.csv", "verdict.json", "provenance.json"}
    figures = {p.name for p in (folder / "figures").iterdir()}
    for name in ("curves_rising", "updates", "comparison", "delta"):
        assert {f"{name}.png", f"{name}.pdf"} <= figures
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    inference = az.from_netcdf(str(folder / "out" / "rising__additive.nc"))
    assert inference.log_likelihood["log_odds"].dims == ("chain", "draw", "seq")
    assert inference.observed_data["log_odds"].shape == (12, 16)
    record = json.loads(inference.attrs["provenance"])
    assert list(record["inputs"]) == ["made.csv"]
    assert record["packages"]["pymc"] and record["settings"]["n_min"] == [1]


@pytest.mark.sampling
def test_the_whole_command_again(
    whole: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder, _ = whole
    monkeypatch.chdir(folder)
    before = snapshot(folder / "out")
    given = FitSettings(Path("made.csv"), n_min=(1,), out=Path("out"), figures=Path("figures"), hypotheses=THREE)
    assert ended(given) == 3
    assert "was made from these curves with these settings" in capsys.readouterr().err
    assert ended(FitSettings(Path("made.csv"), n_min=(0,), out=Path("out"), hypotheses=THREE)) == 1
    assert "other curves or settings" in capsys.readouterr().err
    assert snapshot(folder / "out") == before
