"""What commands leave: nothing of the user's is lost, nothing half written, and nothing altered passes for whole."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import inference_to_netcdf, to_netcdf, within
from bayes_icl.core.outputs import Output, problem_of

TWO = {"a.csv": b"first", "b.csv": b"second"}


def folder_of(path: Path, **more: Any) -> Output:
    return Output(path / "out", "fit", alone=".", **more)


def written(path: Path, files: dict[str, bytes] | None = None, key: str = "k") -> Output:
    output = folder_of(path)
    with output.held():
        output.write(TWO if files is None else files, key)
    return output


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def shown(folder: Path) -> dict[str, bytes]:
    """What stands in a folder, but for records and what waits."""
    return {name: x for name, x in content(folder).items() if not any(p.startswith(".") for p in name.split("/"))}


# ------------------------------------------------------------------------------------------------- the user's files


def test_a_run_replaces_and_removes_what_its_record_lists_and_nothing_else(tmp_path: Path) -> None:
    output = written(tmp_path)
    assert shown(output.folder) == TWO and output.holds("k", "otherwise")
    with output.held(force=True):
        output.write({"b.csv": b"new", "sub/c.csv": b"third"}, "other")
    assert shown(output.folder) == {"b.csv": b"new", "sub/c.csv": b"third"}
    names = {p.name for p in output.folder.iterdir()}
    assert names == {".fit.json", "b.csv", "sub"}  # neither lock nor what waited to be swapped in


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["thesis.csv", "mine__model.nc", "sub/pooled.json"])
def test_a_folder_with_something_of_the_users_in_it_is_refused(tmp_path: Path, name: str, force: bool) -> None:
    own = tmp_path / "out" / name
    own.parent.mkdir(parents=True)
    own.write_text("years of work")
    with pytest.raises(StatedError, match=f"out holds {name}, which no record says that fit wrote"):
        with folder_of(tmp_path).held(force=force):
            pass
    assert shown(tmp_path) == {f"out/{name}": b"years of work"}
    own.unlink()
    written(tmp_path)  # the control: without it


def test_what_the_user_put_beside_earlier_files_is_kept_too(tmp_path: Path) -> None:
    output = written(tmp_path)
    (output.folder / "notes.txt").write_text("mine")
    with pytest.raises(StatedError, match=r"out holds notes\.txt"):
        with output.held(force=True):
            pass
    assert shown(output.folder) == {**TWO, "notes.txt": b"mine"}


def test_a_shared_folder_takes_others_files_but_not_in_their_place(tmp_path: Path) -> None:
    figures = Output(tmp_path, "fit", flag="--figures")
    (tmp_path / "mine.png").write_bytes(b"drawn by hand")
    with figures.held():
        figures.write({"curves.png": b"x"})
    with pytest.raises(StatedError, match=r"mine\.png is in the way.*another --figures"):
        with figures.held(force=True):
            figures.write({"mine.png": b"y", "curves.png": b"y"})
    assert shown(tmp_path)["mine.png"] == b"drawn by hand"


def test_what_was_made_in_vain_is_kept_and_moved_when_the_way_is_free(tmp_path: Path) -> None:
    """Something came into the way while the work was done."""
    output = Output(tmp_path, "fit", flag="--figures")
    with pytest.raises(
        StatedError, match=r"b\.csv is in the way.*kept in .*\.fit\.whole, and moved when you run again"
    ):
        with output.held():
            (tmp_path / "b.csv").write_text("mine")
            output.write(TWO, "k")
    assert shown(tmp_path)["b.csv"] == b"mine" and "a.csv" not in shown(tmp_path)
    (tmp_path / "b.csv").unlink()
    with output.held():
        assert shown(tmp_path) == TWO and output.holds("k", "otherwise")


def test_files_of_other_runs_of_the_command_stay(tmp_path: Path) -> None:
    """Figures of two fits in one folder; those of one that are not drawn any more go."""
    figures = Output(tmp_path, "fit", flag="--figures")
    for of, files in (
        (Path("f1"), {"one.png": b"1", "both.png": b"1"}),
        (Path("f2"), {"two.png": b"2", "both.png": b"2"}),
    ):
        with figures.held():
            figures.write(files, of=of)
    with figures.held():
        figures.write({"one_b.png": b"1"}, of=Path("f1"))
    assert shown(tmp_path) == {"one_b.png": b"1", "two.png": b"2", "both.png": b"2"}


def test_commands_that_share_a_folder_may_take_each_others_place(tmp_path: Path) -> None:
    fit, attribute = (Output(tmp_path, name, flag="--figures") for name in ("fit", "attribute"))
    for text, output in ((b"1", fit), (b"2", attribute), (b"3", fit)):
        with output.held():
            output.write({"summary.txt": text})
    (tmp_path / "summary.txt").write_text("rewritten for the paper")
    with pytest.raises(StatedError, match=r"summary\.txt is not as attribute wrote it|summary\.txt is in the way"):
        with attribute.held():
            attribute.write({"summary.txt": b"4"})
    assert shown(tmp_path) == {"summary.txt": b"rewritten for the paper"}


def test_a_file_that_was_named_is_replaced_by_force_and_what_belongs_to_it_is_not(tmp_path: Path) -> None:
    output = Output.file(tmp_path / "c.nc", "collect")
    for name in ("c.nc", "c.heads.csv"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(StatedError, match=r"c\.nc exists, and no record says that collect wrote it: .*--force"):
        with output.held():
            pass
    with pytest.raises(StatedError, match=r"c\.heads\.csv is in the way"):
        with output.held(force=True, beside=["c.heads.csv"]):
            pass
    with output.held(force=True):
        output.write({"c.nc": b"new"}, "k")
    assert shown(tmp_path) == {"c.nc": b"new", "c.heads.csv": b"mine"}


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    curves = tmp_path / "c.nc"
    curves.write_text("curves")
    (tmp_path / "link.nc").hardlink_to(curves)
    for name in ("c.nc", "link.nc"):
        with pytest.raises(StatedError, match=f"{name} is an input of this run"):
            with Output.file(tmp_path / name, "attribute", inputs=[curves]).held(force=True):
                pass
    assert curves.read_text() == "curves"


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "link", "dangling link"])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "c.nc"
    if kind == "folder":
        out.mkdir()
    elif kind == "fifo":
        os.mkfifo(out)
    elif kind == "device":
        out = Path("/dev/null")
    else:
        (tmp_path / "elsewhere").write_text("mine") if kind == "link" else None
        out.symlink_to(tmp_path / "elsewhere")
    before = out.lstat().st_mode
    with pytest.raises(StatedError, match=r"is no plain file|give a name that ends in \.nc"):
        with Output.file(out, "collect").held(force=True):
            pass
    assert out.lstat().st_mode == before


def test_a_link_to_a_folder_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StatedError, match="out holds sub, which no record"):
        with folder_of(tmp_path).held(force=True):
            pass


def test_figures_do_not_go_where_fits_stand_alone(tmp_path: Path) -> None:
    output = written(tmp_path)
    with pytest.raises(StatedError, match="is the folder of another command alone"):
        with Output(output.folder, "report", flag="--figures").held(force=True):
            pass
    with Output(output.folder, "fit", flag="--figures").held():  # the control: its own figures may
        pass
    assert within(output.folder / "a", output.folder) and not within(output.folder, output.folder)


# ------------------------------------------------------------------------------------------------- changed, missing


def test_changed_files_need_force_and_missing_ones_are_made_again(tmp_path: Path, capsys: Any) -> None:
    output = written(tmp_path)
    (output.folder / "a.csv").write_bytes(b"first, by hand")
    with pytest.raises(StatedError, match=r"a\.csv is not as fit wrote it, but changed or damaged since"):
        with output.held():
            pass
    assert problem_of(output.folder, "fit") == "a.csv is changed"
    with output.held(force=True):
        assert not output.holds("k", "otherwise", force=True)
    (output.folder / "a.csv").unlink()
    with output.held():
        assert not output.holds("k", "otherwise")
    assert "a.csv is missing: made again" in capsys.readouterr().err
    assert problem_of(output.folder, "fit") == "a.csv is missing"
    with output.held():
        output.write(TWO, "k")
        assert output.holds("k", "otherwise")
    assert problem_of(output.folder, "fit") == ""


def test_files_of_another_run_need_force(tmp_path: Path) -> None:
    output = written(tmp_path)
    with output.held(), pytest.raises(StatedError, match=r"out was made with other settings: .*--force"):
        output.holds("other", "with other settings")
    with output.held(force=True):
        assert not output.holds("other", "with other settings", force=True)


@pytest.mark.parametrize("record", ["", "[]", "null", '{"written_by": "bayes_icl"}', '{"written_by": 3, "runs": {}}'])
def test_a_record_that_is_damaged_lists_nothing(tmp_path: Path, record: str) -> None:
    output = written(tmp_path)
    (output.folder / ".fit.json").write_text(record)
    with pytest.raises(StatedError, match=r"out holds a\.csv, b\.csv, which no record"):
        with output.held(force=True):
            pass
    assert shown(output.folder) == TWO


# ------------------------------------------------------------------------------------------------- kills, disks, two


@pytest.mark.parametrize("dies_at", range(1, 14))
def test_a_write_that_is_killed_anywhere_leaves_the_old_or_becomes_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Every call that changes the disk in turn is the last: a child process is killed there."""
    output = written(tmp_path)
    new = {"a.csv": b"new", "c.csv": b"third", "d.csv": b"fourth"}

    def run() -> None:
        calls = [0]

        def dying(real: Any) -> Any:
            def call(*args: Any, **more: Any) -> Any:
                calls[0] += 1
                if calls[0] == dies_at:
                    os._exit(9)
                return real(*args, **more)

            return call

        for owner, name in (
            *((os, name) for name in ("replace", "unlink", "rmdir")),
            *((Path, name) for name in ("write_bytes", "rename", "unlink")),
        ):
            setattr(owner, name, dying(getattr(owner, name)))
        with output.held(force=True):
            output.write(new, "new")
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    found = shown(output.folder)
    assert all(name not in found or found[name] in (x, new.get(name)) for name, x in TWO.items())
    with output.held():  # the next run
        left = shown(output.folder)
        assert left in (TWO, new)
        assert output.holds("new" if left == new else "k", "otherwise")
    if child.exitcode == 0:
        assert left == new
    assert {p.name for p in output.folder.iterdir()} == {".fit.json", *left}


def test_the_kills_above_reach_from_the_first_write_to_the_last(tmp_path: Path) -> None:
    for dies_at, old in ((1, True), (13, False)):
        folder = tmp_path / str(dies_at)
        folder.mkdir()
        test_a_write_that_is_killed_anywhere_leaves_the_old_or_becomes_the_new(folder, pytest.MonkeyPatch(), dies_at)
        assert (shown(folder / "out") == TWO) == old


def test_a_disk_that_fills_up_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = written(tmp_path)
    before, write = content(output.folder), Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "b.csv":
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"), output.held(force=True):
        output.write({"a.csv": b"new", "b.csv": b"new"}, "new")
    assert content(output.folder) == before


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk, which needs root")
def test_netcdf_on_a_real_full_disk_is_a_line(tmp_path: Path) -> None:
    """HDF5 of its own would end in a segmentation fault."""
    import subprocess

    (disk := tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        output = Output.file(disk / "c.nc", "collect")
        big = to_netcdf(xr.Dataset({"x": ("i", np.random.default_rng(0).normal(size=400_000))}))
        with output.held():
            output.write({"c.nc": b"old"}, "old")
        with pytest.raises(OSError, match="No space left"), output.held(force=True):
            output.write({"c.nc": big}, "new")
        assert shown(disk) == {"c.nc": b"old"}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    output = written(tmp_path)
    with output.held():
        with pytest.raises(StatedError, match="out is being written by another run: wait"):
            with folder_of(tmp_path).held():
                pass
        assert shown(output.folder) == TWO
    with folder_of(tmp_path).held():  # the control: after it
        pass


@pytest.mark.parametrize("out", ["a_file/c.nc", "n" * 260 + "/c.nc", "n" * 250 + ".nc"])
def test_a_place_that_cannot_be_written_is_stated_before_the_work(tmp_path: Path, out: str) -> None:
    (tmp_path / "a_file").write_text("in the way")
    with pytest.raises(StatedError, match=r"cannot write .*give another --out"):
        with Output.file(tmp_path / out, "collect").held():
            raise AssertionError("the work began")


# ------------------------------------------------------------------------------------------------- parts


def test_parts_come_back_as_they_were_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.nc.part"
    parts = Checkpoint(path, "key")
    kept = {"a b/\u00e4": b"", "b": os.urandom(5000), "c": b"line\nline\n"}
    for name, data in kept.items():
        parts.put(name, data)
    again = Checkpoint(path, "key")
    assert {name: again.get(name) for name in kept} == kept and again.get("d") is None
    arrays = again.arrays("d", lambda: {"x": np.arange(3.0), "n": np.array("text")})
    later = Checkpoint(path, "key").arrays("d", lambda: pytest.fail("was kept"))
    assert {name: x.tolist() for name, x in later.items()} == {name: x.tolist() for name, x in arrays.items()}
    again.drop()
    assert not path.exists()


@pytest.mark.parametrize("how", ["cut", "altered"])
def test_parts_are_good_up_to_the_first_damage(tmp_path: Path, how: str) -> None:
    """Wherever it is: no byte of a part that comes back is another one, and what is made again fits in."""
    path = tmp_path / "c.part"
    parts = Checkpoint(path, "key")
    kept = {str(i): f"{i} of this".encode() * 3 for i in range(4)}
    for name, data in kept.items():
        parts.put(name, data)
    whole = path.read_bytes()
    for at in range(len(b"bayes_icl parts key\n"), len(whole)):
        path.write_bytes(whole[:at] if how == "cut" else whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
        again = Checkpoint(path, "key")
        have = [name for name in kept if name in again]
        assert have == list(kept)[: len(have)] and len(have) < 4
        assert all(again.get(name) == kept[name] for name in have)
        for name in list(kept)[len(have) :]:
            again.put(name, kept[name])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("begun", [b"", b"bayes", b"bayes_icl parts key"])
def test_parts_of_which_a_kill_left_the_beginning(tmp_path: Path, begun: bytes) -> None:
    path = tmp_path / "c.part"
    path.write_bytes(begun)
    Checkpoint(path, "key").put("a", b"1")
    assert Checkpoint(path, "key").get("a") == b"1"


def test_parts_of_another_key_are_put_aside_and_taken_up_again(tmp_path: Path, capsys: Any) -> None:
    """Hours of work are not lost to a command with a slip in it."""
    path = tmp_path / "c.part"
    Checkpoint(path, "one").put("a", b"1")
    Checkpoint(path, "two").put("a", b"2")
    assert ": kept as c.part." in capsys.readouterr().err
    assert Checkpoint(path, "one").get("a") == b"1" and Checkpoint(path, "two").get("a") == b"2"
    Checkpoint(path, "two").drop()
    assert Checkpoint(path, "one").get("a") == b"1"
    Checkpoint(path, "one").drop()
    assert list(tmp_path.iterdir()) == []
    Checkpoint(path, "three")  # with nothing in it: not kept
    Checkpoint(path, "four").drop()
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_key_are_not_used_and_other_files_are_left(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "c.part"
    Checkpoint(path, "key").put("a", b"1")
    assert Checkpoint(path, "other").get("a") is None and "of other settings, inputs or code" in capsys.readouterr().err
    path.write_text("my notes\n")
    with pytest.raises(StatedError, match="in the way of what a run keeps"):
        Checkpoint(path, "key")
    assert path.read_text() == "my notes\n"
    path.unlink()
    path.mkdir()
    with pytest.raises(StatedError, match="in the way of what a run keeps"):
        Checkpoint(path, "key")


# ------------------------------------------------------------------------------------------------- content


def test_inference_data_is_what_arviz_writes(tmp_path: Path) -> None:
    import arviz as az

    rng = np.random.default_rng(0)
    data = az.from_dict(posterior={"a": rng.normal(size=(2, 50))}, log_likelihood={"y": rng.normal(size=(2, 50, 3))})
    data.attrs["provenance"] = json.dumps({"a": 1})
    (tmp_path / "ours.nc").write_bytes(inference_to_netcdf(data))
    data.to_netcdf(str(tmp_path / "theirs.nc"))
    ours, theirs = (az.from_netcdf(str(tmp_path / f"{name}.nc")) for name in ("ours", "theirs"))
    assert ours.groups() == theirs.groups() and ours.attrs["provenance"] == theirs.attrs["provenance"]
    for group in theirs.groups():
        xr.testing.assert_identical(ours[group].load(), theirs[group].load())
    assert (tmp_path / "ours.nc").stat().st_size < 1.2 * (tmp_path / "theirs.nc").stat().st_size


def test_a_copy_of_a_folder_is_as_good_as_the_folder(tmp_path: Path) -> None:
    output = written(tmp_path)
    shutil.copytree(output.folder, tmp_path / "copy")
    copy = Output(tmp_path / "copy", "fit", alone=".")
    with copy.held():
        assert copy.holds("k", "otherwise")
