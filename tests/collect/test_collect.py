"""Collecting: the file against plain transformers, runs that were killed, and the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from bayes_icl.collect import CollectSettings, collect_curves, main
from bayes_icl.collect.command import _print_summary
from bayes_icl.core import provenance as core_provenance
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import VARIABLES, read_curves, write_netcdf
from bayes_icl.models import Model, load_model
from bayes_icl.models.prompts import DOCUMENT_SEPARATORS
from bayes_icl.tasks import load_tasks

# ------------------------------------------------------------------------------------------------- the numbers


def log_p_again(dataset: xr.Dataset, hf: torch.nn.Module) -> np.ndarray:
    """log P(correct), shape (task, seq, shot), from the file's tokens alone and one plain forward a sequence."""
    found = np.zeros(dataset.answer_start.shape)
    for task in range(found.shape[0]):
        for seq in range(found.shape[1]):
            tokens = dataset.tokens.values[task, seq]
            ids = torch.tensor(tokens[tokens >= 0], dtype=torch.long)
            with torch.inference_mode():
                log_p = hf(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            for shot in range(found.shape[2]):
                start, stop = (int(dataset[f"answer_{end}"].values[task, seq, shot]) for end in ("start", "stop"))
                found[task, seq, shot] = sum(log_p[i - 1, ids[i]].item() for i in range(start, stop))
    return found


def test_the_file_can_be_recomputed_from_its_tokens(tiny: Model, tmp_path: Path) -> None:
    dataset = collect_curves(tiny, load_tasks(["copy", "past_tense", "category"]), n_shots=6, n_seqs=2)
    write_netcdf(dataset, tmp_path / "c.nc")
    dataset = read_curves(tmp_path / "c.nc")
    again = log_p_again(dataset, load_model("tiny").hf)
    np.testing.assert_allclose(dataset.log_p_correct.sel(readout="complement"), again, atol=1e-4, rtol=0)
    # The control: one token to the side, and nothing agrees.
    moved = dataset.assign(answer_start=dataset.answer_start + 1, answer_stop=dataset.answer_stop + 1).isel(shot=[0, 1])
    worst = np.abs(log_p_again(moved, tiny.hf) - again[..., :2]).min()
    assert worst > 1e-3


@pytest.mark.real_model
def test_a_real_file_can_be_recomputed_with_transformers_alone(smollm2: Model, tmp_path: Path) -> None:
    """Full logits of AutoModelForCausalLM in a model of its own, loaded from the cache's plain folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dataset = collect_curves(smollm2, load_tasks(["copy", "past_tense", "category"]), n_shots=6, n_seqs=2)
    write_netcdf(dataset, tmp_path / "c.nc")
    dataset = read_curves(tmp_path / "c.nc")
    folder = smollm2.hf.config._name_or_path
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    again = log_p_again(dataset, hf)
    assert dataset.shot.values.tolist() == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(dataset.log_p_correct.sel(readout="complement"), again, atol=1e-4, rtol=0)
    # The texts of the file are those of its tokens: the prompt is what it says it is.
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokens = dataset.tokens.sel(task="copy", seq=0).values
    one = dataset.sel(task="copy", seq=0)
    text = "".join(f"({q}, {a})\n" for q, a in zip(one["query"].values, one["answer"].values))
    assert tokenizer.decode(tokens[tokens >= 0]) == DOCUMENT_SEPARATORS[0] + text


@pytest.mark.real_model
def test_the_last_shot_before_a_blank_line_is_read_as_in_a_longer_episode(smollm2: Model) -> None:
    past = replace(load_tasks(["past_tense"])[0], name="past_blank", template="Input: {query}\nOutput: {answer}\n\n")
    dataset = collect_curves(smollm2, [past], n_shots=8, n_seqs=8)
    assert float(dataset.log_odds.sel(readout="complement", shot=8).mean()) == pytest.approx(1.475, abs=0.001)
    np.testing.assert_allclose(
        dataset.log_p_correct.sel(readout="complement"), log_p_again(dataset, smollm2.hf), atol=1e-3
    )


def test_the_dataset_holds_what_the_format_says(tiny: Model) -> None:
    tasks = load_tasks(["affine", "past_tense", "copy:low=10,high=14,repeats=true"])
    dataset = collect_curves(tiny, tasks, n_shots=9, n_seqs=2, seed=4)
    assert set(dataset.data_vars) == set(VARIABLES) - {"martingale_gap"}
    assert dataset.log_odds.dtype == np.float64 and dataset.shot.values.tolist() == list(range(10))
    assert dataset.readout.values.tolist() == ["complement", "foil", "format", "rule", "parity"]
    xr.testing.assert_equal(dataset.log_odds, dataset.log_p_correct - dataset.log_p_incorrect)
    absent = dataset.log_odds.isnull().all(("seq", "shot"))
    assert absent.sel(task="past_tense").values.tolist() == [False, False, True, True, True]
    assert not absent.sel(task="affine").any()
    for task in tasks:
        for seq in range(2):
            episode, one = task.episode(9, 4, seq), dataset.sel(task=task.name, seq=seq)
            for shot, example in enumerate(episode):
                at = slice(int(one.query_start[shot]), int(one.query_stop[shot]))
                assert tiny.tokenizer.decode(one.tokens.values[at]) == example.query
            for field in ("query", "answer", "foil"):
                assert one[field].values.tolist() == [getattr(e, field) for e in episode]
            queries = [e.query for e in episode]
            assert one.query_seen.values.tolist() == [q in queries[:i] for i, q in enumerate(queries)]
    assert dataset.query_seen.sum(("seq", "shot")).values.tolist()[:2] == [0, 0]
    assert int(dataset.query_seen.sel(task=tasks[2].name).sum()) >= 10  # 10 draws of 5, twice


@pytest.mark.parametrize("batch_size", [3, 8])
def test_batches_and_tasks_beside_it_change_nothing(tiny: Model, batch_size: int) -> None:
    names = ["past_tense", "category", "affine"]
    settings = dict(n_shots=5, n_seqs=5)
    alone = [collect_curves(tiny, load_tasks([name]), **settings, batch_size=1) for name in names]
    mixed = collect_curves(tiny, load_tasks(names), **settings, batch_size=batch_size)
    assert len({int((one.tokens[0, seq] >= 0).sum()) for one in alone for seq in range(5)}) > 3  # so there is padding
    for one, name in zip(alone, names):
        both = mixed.log_odds.sel(task=name, readout=one.readout)
        np.testing.assert_allclose(both, one.log_odds[0], atol=1e-4, rtol=0)


@pytest.mark.real_model
def test_batches_change_nothing_on_a_real_model(smollm2: Model) -> None:
    settings = dict(n_shots=4, n_seqs=3)
    one = collect_curves(smollm2, load_tasks(["category", "copy"]), **settings, batch_size=1)
    three = collect_curves(smollm2, load_tasks(["copy", "category"]), **settings, batch_size=3)
    np.testing.assert_allclose(three.log_odds.sel(task=one.task), one.log_odds, atol=1e-4, rtol=0)


@pytest.mark.parametrize("task", ["affine", "category", "past_tense"])
def test_any_choice_of_readouts_gives_the_same_numbers(tiny: Model, task: str) -> None:
    """Which readouts are asked for decides what branches are laid out, and nothing else."""
    tasks = load_tasks([task])
    everything = collect_curves(tiny, tasks, n_shots=3, n_seqs=2)
    for readout in everything.readout.values:
        one = collect_curves(tiny, tasks, n_shots=3, n_seqs=2, readouts=[str(readout)])
        assert one.readout.values.tolist() == [readout]
        np.testing.assert_allclose(one.log_odds[:, 0], everything.log_odds.sel(readout=readout), atol=1e-5)


def test_what_cannot_be_read_is_stated(tiny: Model) -> None:
    tasks = load_tasks(["past_tense"])
    with pytest.raises(StatedError, match="unknown readout 'complment': did you mean complement"):
        collect_curves(tiny, tasks, readouts=["complment"])
    with pytest.raises(StatedError, match="two tasks are called 'past_tense'"):
        collect_curves(tiny, tasks * 2)
    with pytest.raises(StatedError, match="n_shots and n_seqs must be 1 or more, got 0 and 64"):
        collect_curves(tiny, tasks, n_shots=0)


def test_a_readout_that_a_task_lacks_is_stated_before_the_model_is_read(tiny: Model, calls: list[int]) -> None:
    tasks = load_tasks(["copy", "past_tense"])
    with pytest.raises(StatedError, match="'past_tense' has no readout parity; it has complement, foil: name one"):
        collect_curves(tiny, tasks, n_shots=2, n_seqs=1, readouts=["parity"])
    assert not calls
    collect_curves(tiny, tasks, n_shots=2, n_seqs=1, readouts=["parity", "foil"])  # the control: one that it has
    assert calls


# ------------------------------------------------------------------------------------------------- killed runs

SETTINGS = dict(model="tiny", tasks=("affine", "past_tense"), n_shots=4, n_seqs=6, batch_size=2, device="cpu")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many times a model was asked for logits."""
    seen: list[int] = []
    read = Model.logits_at
    monkeypatch.setattr(Model, "logits_at", lambda *args: seen.append(1) or read(*args))
    return seen


def _kill_after(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    put, done = Checkpoint.put, []

    def dies(*args: Any) -> None:
        put(*args)
        done.append(1)
        if len(done) == n:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "put", dies)


@pytest.mark.parametrize("spoil", ["whole", "cut short", "altered"])
def test_a_killed_run_goes_on(tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    """Bit for bit what an unbroken run gives, and what was finished is not read again."""
    assert main(CollectSettings(**SETTINGS, out=tmp_path / "unbroken.nc")) == 0
    assert len(calls) == 6  # two tasks of three batches
    calls.clear()
    settings = CollectSettings(**SETTINGS, out=tmp_path / "c.nc")
    with monkeypatch.context() as patch:
        _kill_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            main(settings)
    assert len(calls) == 2 and not settings.out.exists()
    parts = tmp_path / "c.nc.part"
    content = parts.read_bytes()
    if spoil == "cut short":
        parts.write_bytes(content[:-40])
    if spoil == "altered":  # one digit of the second batch, which reads as well as before
        at = content.rindex(b"1")
        parts.write_bytes(content[:at] + b"2" + content[at + 1 :])
    calls.clear()
    assert main(settings) == 0
    assert len(calls) == (4 if spoil == "whole" else 5)
    whole, resumed = read_curves(tmp_path / "unbroken.nc"), read_curves(settings.out)
    for name in whole.data_vars:
        assert whole[name].identical(resumed[name]), name
    files = [".c.nc.json", ".unbroken.nc.json", "c.nc", "unbroken.nc"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files


@pytest.mark.parametrize("change", ["settings", "code", "input"])
def test_parts_of_another_run_are_not_used(
    tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from bayes_icl.tasks import Example, Task\n"
        "task = Task('own', tuple(Example(f'q{i}', f'a{i}') for i in range(8)))\n"
    )
    settings = CollectSettings(**{**SETTINGS, "tasks": (str(own), "past_tense")}, out=tmp_path / "c.nc")
    with monkeypatch.context() as patch:
        _kill_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            main(settings)
    calls.clear()
    if change == "settings":
        settings = replace(settings, seed=1)
    if change == "code":
        monkeypatch.setattr(core_provenance, "code_hash", lambda: "of another version")
    if change == "input":
        own.write_text(own.read_text() + "# a comment\n")
    capsys.readouterr()
    assert main(settings) == 0
    assert len(calls) == 6 and "of other settings, inputs or code" in capsys.readouterr().err
    main(replace(settings, out=tmp_path / "unbroken.nc"))
    assert read_curves(tmp_path / "c.nc").log_odds.identical(read_curves(tmp_path / "unbroken.nc").log_odds)


def test_the_same_settings_again_are_nothing_to_do(
    tmp_path: Path, calls: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = CollectSettings(**SETTINGS, out=tmp_path / "c.nc")
    main(settings)
    before = settings.out.read_bytes()
    calls.clear()
    capsys.readouterr()
    assert main(settings) == 0
    out, err = capsys.readouterr()
    assert out == f"{settings.out}\n" and "nothing to do" in err
    assert calls == [] and settings.out.read_bytes() == before


@pytest.mark.parametrize("change", [dict(seed=1), dict(n_shots=3), dict(tasks=("affine",)), dict(readouts=("foil",))])
def test_other_settings_need_force(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "c.nc"
    main(CollectSettings(**SETTINGS, out=path))
    before = path.read_bytes()
    with pytest.raises(StatedError, match=r"c\.nc was made with other settings: .*--force"):
        main(CollectSettings(**{**SETTINGS, **change}, out=path))
    assert path.read_bytes() == before
    assert main(CollectSettings(**{**SETTINGS, **change}, out=path, force=True)) == 0
    assert path.read_bytes() != before


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "c.nc"
    path.write_text("my thesis")
    with pytest.raises(StatedError, match=r"no record says that collect wrote it: .*--force"):
        main(CollectSettings(**SETTINGS, out=path))
    assert path.read_text() == "my thesis"


@pytest.mark.parametrize("n_shots", [1, 2])
def test_the_fewest_shots(tmp_path: Path, n_shots: int) -> None:
    out = tmp_path / "c.nc"
    assert main(CollectSettings(**{**SETTINGS, "n_shots": n_shots}, out=out)) == 0
    assert read_curves(out).sizes["shot"] == n_shots + 1


def test_provenance(tmp_path: Path, tiny: Model) -> None:
    own = tmp_path / "own.csv"
    own.write_text("query,answer\n" + "".join(f"q{i},a{i}\n" for i in range(8)))
    out = tmp_path / "c.nc"
    main(CollectSettings(model="tiny", tasks=(str(own),), n_shots=3, n_seqs=2, seed=9, device="cpu", out=out))
    attrs = read_curves(out).attrs
    record = json.loads(attrs["provenance"])
    assert set(record) == {"command", "settings", "model", "packages", "python", "git", "started", "finished", "inputs"}
    assert record["settings"]["seed"] == 9 and record["settings"]["n_shots"] == 3
    assert record["model"] == tiny.provenance()
    assert set(record["model"]) == {"model", "weights_sha256", "tokenizer_sha256", "bos", "dtype", "device"}
    assert {"torch", "transformers", "xarray", "numpy"} <= set(record["packages"])
    assert record["packages"]["torch"] == torch.__version__
    assert record["git"] is None or set(record["git"]) == {"commit", "dirty"}
    assert record["started"] <= record["finished"]
    sha256 = subprocess.run(["sha256sum", own], capture_output=True, text=True, check=True).stdout.split()[0]
    assert record["inputs"] == {"own.csv": sha256}  # the examples themselves stand nowhere else in whole


# ------------------------------------------------------------------------------------------------- the command


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bayes_icl.collect", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def states(done: subprocess.CompletedProcess[str], says: str) -> None:
    """Exit code 1, nothing on stdout, and one line on stderr that is no traceback."""
    assert done.returncode == 1 and done.stdout == ""
    # What was made of a table is said first.
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("german.csv: ")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0], done.stderr


def test_a_users_own_table_end_to_end(tmp_path: Path) -> None:
    words = "hund chien, katze chat, maus souris, haus maison, baum arbre, brot pain"
    pairs = [pair.split() for pair in words.split(", ")]
    (tmp_path / "german.csv").write_text("query,answer\n" + "".join(f"{q},{a}\n" for q, a in pairs))
    flags = ["--model", "tiny", "--tasks", "german.csv", "--n-shots", "4", "--n-seqs", "3", "--device", "cpu"]
    done = run(*flags, "--out", "out/c.nc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out/c.nc\n"  # the path and nothing else: progress and tables are on stderr
    assert "german" in done.stderr
    dataset = read_curves(tmp_path / "out" / "c.nc")
    assert dict(dataset.sizes) == {"task": 1, "readout": 2, "seq": 3, "shot": 5, "pos": dataset.sizes["pos"]}
    assert {(q, a) for q, a in zip(dataset["query"].values.flat, dataset["answer"].values.flat)} <= set(
        map(tuple, pairs)
    )
    states(run(*flags, "--seed", "1", "--out", "out/c.nc", cwd=tmp_path), "was made with other settings")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--tasks", "copi"], "unknown task 'copi': did you mean copy"),
        (["--n-shots", "0"], "--n-shots must be 1 or more, got 0"),
        (["--out", "a_file/c.nc"], "a_file"),
    ],
)
def test_a_stated_error_is_one_line(tmp_path: Path, flags: list[str], says: str) -> None:
    (tmp_path / "a_file").write_text("in the way")
    states(run("--model", "tiny", "--n-seqs", "1", "--n-shots", "2", *flags, cwd=tmp_path), says)


@pytest.mark.parametrize("flags", [["--n-shots", "many"], ["--no-such-flag", "1"]])
def test_bad_arguments_exit_with_2(tmp_path: Path, flags: list[str]) -> None:
    done = run(*flags, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


def test_names_are_printed_as_they_are(tiny: Model, capsys: pytest.CaptureFixture[str]) -> None:
    """Rich would take them for markup or an emoji, or double a last backslash."""
    names = ["[red]:smile:", "x\\"]
    dataset = collect_curves(tiny, load_tasks(["copy", "affine"]), n_shots=2, n_seqs=1, readouts=("complement",))
    _print_summary(dataset.assign_coords(task=names))
    lines = capsys.readouterr().err.splitlines()
    assert all(any(f" {name} " in line for line in lines) for name in names)
