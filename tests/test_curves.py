"""The curves format: what is read back is what was written, and what is wrong is named."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import MOST_NAME, StatedError
from bayes_icl.core.files import file_name
from bayes_icl.curves import check, learning_of, read_curves, readouts_of, select, write_netcdf
from bayes_icl.models import Model
from bayes_icl.tasks import load_tasks

DIMS = ("task", "readout", "seq", "shot")


def made(values: np.ndarray | None = None) -> xr.Dataset:
    """Two tasks, two readouts, three sequences, five shots."""
    odds = np.random.default_rng(0).normal(size=(2, 2, 3, 5)) if values is None else values
    coords = {"task": ["copy", "antonym"], "readout": ["complement", "format"], "seq": range(3), "shot": range(5)}
    return xr.Dataset({"log_odds": (DIMS, odds)}, coords=coords)


@pytest.fixture(scope="module")
def collected(tiny: Model) -> xr.Dataset:
    return collect_curves(tiny, load_tasks(["affine", "past_tense"]), n_shots=3, n_seqs=2)


# ------------------------------------------------------------------------------------------------- netCDF


def test_a_round_trip_is_identical(collected: xr.Dataset, tmp_path: Path) -> None:
    """Every variable, coordinate and attribute; float64 to the bit; text with accents."""
    collected = collected.assign_attrs(key="k", provenance='{"model": "é"}')
    write_netcdf(collected, tmp_path / "new folder" / "c.nc")
    back = read_curves(tmp_path / "new folder" / "c.nc")
    xr.testing.assert_identical(back, collected)
    for name, variable in collected.data_vars.items():
        if variable.dtype != object:
            assert back[name].dtype == variable.dtype, name
    assert (tmp_path / "new folder" / "c.nc").stat().st_mode & 0o777 == 0o644


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(-700, 700), min_size=60, max_size=60))
def test_any_float64_survives(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("curves") / "c.nc"
    write_netcdf(dataset := made(np.reshape(values, (2, 2, 3, 5))), path)
    assert np.array_equal(read_curves(path).log_odds.values, dataset.log_odds.values)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no curves file"), (b"", "not a readable netCDF"), (b"task,seq\n" * 99, "not a readable netCDF")],
    ids=["absent", "empty", "text"],
)
def test_a_file_that_is_not_netcdf_is_stated(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "c.nc"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StatedError, match=says):
        read_curves(path)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_stated(collected: xr.Dataset, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "c.nc"
    write_netcdf(collected, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(StatedError, match=r"c\.nc is not a readable netCDF file \(damaged or cut short\?\)"):
        read_curves(path)
    path.write_bytes(whole)  # the control: it was the cut
    read_curves(path)


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (made().rename(log_odds="odds"), r"c\.nc is not a curves file: it lacks log_odds"),
        (made().isel(readout=0, drop=True), r"lacks dimension readout"),
        (made().drop_vars("seq"), r"dimensions seq have no coordinates"),
        (made().assign_coords(shot=[0, 1, 3, 2, 5]), r"shots must be whole .* that rise, .*\[0, 1, 3, 2, 5\]"),
        (made().isel(shot=[]), r"c\.nc"),
    ],
    ids=["no log_odds", "no readout", "no coordinate", "shots that fall", "no shots"],
)
def test_what_is_missing_is_named(tmp_path: Path, dataset: xr.Dataset, says: str) -> None:
    path = tmp_path / "c.nc"
    dataset.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(StatedError, match=says):
        read_curves(path)


# ------------------------------------------------------------------------------------------------- finite values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_cell_that_is_not_finite_is_named(value: float) -> None:
    dataset = made()
    dataset.log_odds[1, 0, 2, 3] = value
    with pytest.raises(StatedError, match=rf"task antonym, readout complement, seq 2, shot 3 is {value}"):
        check(dataset)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_a_whole_sequence_of_infinities_is_named_too(value: float) -> None:
    """It must not pass for an absent one."""
    dataset = made()
    dataset.log_odds[1, 0, 2] = value
    with pytest.raises(StatedError, match=r"seq 2, shot 0 is .* and 2 more; infinite values come from"):
        check(dataset)


def test_a_readout_that_a_task_does_not_have_is_allowed() -> None:
    dataset = made()
    dataset.log_odds[1, 1] = np.nan
    assert check(dataset) is dataset
    assert readouts_of(dataset, "copy") == ["complement", "format"]
    assert readouts_of(dataset, "antonym") == ["complement"]
    with pytest.raises(StatedError, match=r"unknown readout of task 'antonym': 'format': known: complement"):
        select(dataset, "antonym", "format")
    dataset.log_odds[1] = np.nan
    with pytest.raises(StatedError, match="no values for task antonym"):
        check(dataset)


def test_select_takes_one_curve_in_any_order_of_dimensions() -> None:
    dataset = made()
    for order in (DIMS, DIMS[::-1]):
        curves = select(dataset.transpose(*order), "antonym", "format")
        assert np.array_equal(curves.log_odds, dataset.log_odds.values[1, 1])
        assert curves.shots.tolist() == [0, 1, 2, 3, 4]
    late = curves.since(2)
    assert late.shots.tolist() == [2, 3, 4] and np.array_equal(late.log_odds, dataset.log_odds.values[1, 1, :, 2:])
    with pytest.raises(StatedError, match="unknown task 'copi': did you mean copy"):
        select(dataset, "copi", "format")


# ------------------------------------------------------------------------------------------------- CSV


def _table(dataset: xr.Dataset, columns: tuple[str, ...] = (*DIMS, "log_odds")) -> str:
    rows = dataset.log_odds.to_dataframe().reset_index().sample(frac=1, random_state=0)  # rows in any order
    return rows[list(columns)].to_csv(index=False, float_format="%.17g")


def test_a_long_table_is_the_same_curves(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(_table(made()))
    back, dataset = read_curves(tmp_path / "c.csv"), made()
    for task in ("copy", "antonym"):
        for readout in ("complement", "format"):
            assert np.array_equal(select(back, task, readout).log_odds, select(dataset, task, readout).log_odds)


def test_a_table_without_a_readout_is_the_complement(tmp_path: Path) -> None:
    dataset = made().sel(readout=["complement"])
    (tmp_path / "c.csv").write_text(_table(dataset, ("task", "seq", "shot", "log_odds")))
    back = read_curves(tmp_path / "c.csv")
    assert back.readout.values.tolist() == ["complement"]
    assert np.array_equal(select(back, "copy", "complement").log_odds, dataset.log_odds.values[0, 0])


def test_tasks_of_a_table_may_differ_in_sequences_but_not_in_shots(tmp_path: Path) -> None:
    rows = "task,seq,shot,log_odds\n" + "".join(f"{t},{s},{n},{n}\n" for t, s in ("a0", "a1", "b0") for n in range(3))
    path = tmp_path / "c.csv"
    path.write_text(rows)
    assert select(read_curves(path), "a", "complement").log_odds.shape == (2, 3)
    assert select(read_curves(path), "b", "complement").log_odds.shape == (1, 3)
    path.write_text(rows.replace("b,0,2,2\n", ""))
    with pytest.raises(StatedError, match=r"task b, readout complement, seq 0 has no row for shot 2; 1 of 3 seq"):
        read_curves(path)


GOOD = "task,seq,shot,log_odds\na,0,0,1.5\na,0,1,2.5\n"
EVIDENCE = "task,seq,shot,log_odds,evidence\na,0,0,1.5,0.5\na,0,1,2.5,NA\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"c\.csv is empty"),
        ("task,seq,shot,log_odds\n", r"c\.csv has no rows"),
        ("task,seq,log_odds\na,0,1\n", r"c\.csv: expected .*; missing: shot; found: 'task, seq, log_odds'"),
        (GOOD + "a,0,1,2.5\n", r"task a, seq 0, shot 1, complement stands there twice \(lines 3 and 4\)"),
        (GOOD + "a,0,2,much\n", r"c\.csv line 4: log_odds must be a number, got 'much'"),
        (GOOD + "a,0,2,\n", r"c\.csv line 4: log_odds must be a number"),
        (GOOD + "a,0,2,inf\n", r"line 4: log_odds is inf; infinite values come from"),
        (GOOD.replace("2.5", "9.96921e36"), r"log_odds goes to 9\.97e\+36 nats, .*missing value"),
        (GOOD.replace("2.5", "-1e20"), r"log_odds goes to 1e\+20 nats"),
        (GOOD + f"a,0,{10**18},1.0\n", r"line 4: a shot is a whole number of examples, 1000000 or less"),
        (GOOD + "a,0,3,1.0\na,1,0,1.0\na,1,1,1.0\n", r"seq 1 has no row for shot 3; 1 of 2"),
        (GOOD + "a,0,two,1.0\n", r"c\.csv.*shot"),
        (GOOD + "a,0,,1.0\n", r"c\.csv.*shot"),
        (GOOD + 'a,0,"2,1.0\n', r"line 4 is not readable as CSV"),
        (GOOD + "a,0,2,1.0,\n", r"line 4 has 5 cells, the header 4"),
        (GOOD + "a,0,2\n", r"line 4 has 3 cells, the header 4"),
        (GOOD + "b,0,0,1.0\n", r"task b, readout complement, seq 0 has no row for shot 1; 1 of 2"),
        (GOOD.replace("0,1", "0,1.5"), r"line 3: a shot is a whole number of examples, 0 or more, not 1\.5"),
        (GOOD.replace("a,0,0", "a,0,-1"), r"line 2: a shot is a whole number of examples, 0 or more, not -1"),
        (GOOD.replace("a,0,1", ",0,1"), r"line 3: the task is empty"),
        (GOOD.replace("a,", "\x1b[31ma,"), r"must have a name of .*'\\x1b\[31ma'"),
        (GOOD.replace("shot", "seq"), r"line 1: the column seq stands there twice"),
        (GOOD.replace(",", ";"), r"columns are separated by commas"),
        (GOOD.replace("2.5", "2_5"), r"line 3: log_odds must be a number, got '2_5'"),
        (EVIDENCE.replace("0.5", "0,5"), r"line 2 has 6 cells, the header 5"),
        (EVIDENCE.replace("0.5", "much"), r"line 2: evidence must be a number, got 'much'"),
        (EVIDENCE.replace("0.5", "inf"), r"line 2: evidence is inf"),
    ],
    ids=[
        *(
            "empty",
            "header only",
            "no shot",
            "twice",
            "text",
            "blank",
            "inf",
            "fill value",
            "another fill value",
            "huge shot",
            "gap",
            "shot text",
            "shot blank",
            "quote",
        ),
        *("surplus", "short", "uneven", "half a shot", "below 0", "no task", "control characters", "two columns"),
        *("semicolons", "underscore", "decimal comma", "evidence text", "evidence inf"),
    ],
)
def test_a_bad_table_is_stated(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(GOOD)
    read_curves(path)  # the control: without the fault it is read
    path.write_text(text)
    with pytest.raises(StatedError, match=says):
        read_curves(path)


def test_a_table_that_is_not_utf8_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(GOOD.replace("a,", "é,").encode("latin-1"))
    with pytest.raises(StatedError, match="line 2: byte 0xe9 is not UTF-8 text"):
        read_curves(path)
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(StatedError, match="is UTF-16 text: save it as UTF-8"):
        read_curves(path)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", ",\n"),
        GOOD.replace("\n", ",\n").replace("log_odds,", "log_odds"),
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD.replace("task", '"Task"').replace(",", ", "),
    ],
    ids=["a comma ends every line", "a comma ends every row", "Windows", "byte-order mark, quotes and spaces"],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    for name in ("c.csv", "C.CSV"):
        (tmp_path / name).write_bytes(text.encode())
        read = read_curves(tmp_path / name)
        assert select(read, "a", "complement").log_odds.tolist() == [[1.5, 2.5]]
        assert read.seq.values.tolist() == [0]


def test_families_of_a_table(tmp_path: Path) -> None:
    table = made().log_odds.to_dataframe().reset_index()
    families = table.task.map({"copy": "numbers", "antonym": "words"})
    table.assign(family=families).to_csv(path := tmp_path / "c.csv", index=False)
    assert dict(zip((d := read_curves(path)).task.values.tolist(), d.family.values)) == {
        "antonym": "words",
        "copy": "numbers",
    }
    assert "family" not in made()
    for wrong in ("", "other"):
        families.iloc[7] = wrong
        table.assign(family=families).to_csv(path, index=False)
        with pytest.raises(StatedError, match=r"task copy is of the families .* give it one, in all its rows"):
            read_curves(path)


def test_evidence_of_a_table(tmp_path: Path) -> None:
    """Per example, so the same in all readouts; what is empty or NA is not known."""
    path = tmp_path / "c.csv"
    rows = [(r, n, e) for r in ("complement", "rule") for n, e in enumerate(("", "0.5", "-0.25"))]
    text = "task,readout,seq,shot,log_odds,evidence\n" + "".join(f"a,{r},s1,{n},{n},{e}\n" for r, n, e in rows)
    path.write_text(text)
    curves = select(read_curves(path), "a", "rule")
    assert curves.evidence is not None and curves.observed is not None
    assert np.isnan(curves.evidence[0, 0]) and curves.observed.tolist() == [[0.5, -0.25]]
    # From n = 2 on no update is left, and that before it is nobody's; one that is not known is none at all.
    assert curves.since(1).observed is not None
    path.write_text(text.replace("-0.25", "NA"))
    assert select(read_curves(path), "a", "rule").observed is None
    path.write_text(text.replace("-0.25", "0.3", 1))
    with pytest.raises(StatedError, match="task a, seq s1, shot 2 has another evidence in another readout"):
        read_curves(path)


@pytest.mark.parametrize("shots", [[-2, -1, 0, 1, 2], [0.5, 1.5, 2.5, 3.5, 4.5], [0, 1, 2, 4, 3]])
def test_shots_are_numbers_of_examples(shots: list[float]) -> None:
    for rising in ([1, 2, 3, 4, 5], [0, 1, 2, 4, 64], [1.0, 3.0, 5.0, 10.0, 100.0]):  # the controls
        check(made().assign_coords(shot=rising))
    with pytest.raises(StatedError, match="shots must be whole numbers of examples that rise, 0 or more"):
        check(made().assign_coords(shot=shots))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[31mred", "\u202eback", "n" * (MOST_NAME + 1)])
def test_a_name_that_cannot_be_printed_is_stated(name: str) -> None:
    check(made().assign_coords(task=["[/x] red", "cost $\\frac{$"]))  # the control: printed as it is
    for coordinate in ("task", "readout"):
        with pytest.raises(StatedError, match="must have a name of 1 to 80 printable") as error:
            check(made().assign_coords({coordinate: ["copy", name]}))
        assert str(error.value).isprintable()


def test_names_of_files_tell_tasks_apart_and_fit() -> None:
    long = ["n" * MOST_NAME, "ä" * MOST_NAME, "/" * MOST_NAME]
    check(made().isel(task=[0, 0, 0]).assign_coords(task=long))
    assert len({file_name(name) for name in long}) == 3
    assert all(len(f".curves_{file_name(name)}__bounded_power.nc.abcdefgh.nc".encode()) < 255 for name in long)
    assert file_name("affine:slope=3") != file_name("affine-slope=3") == "affine-slope=3"


# ------------------------------------------------------------------------------------------------- atomic writes


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "c.nc"
    write_netcdf(made(), path)
    before = path.read_bytes()
    written = []

    real = Path.write_bytes

    def fails(target: Path, content: bytes) -> None:
        real(target, content[:100])
        written.append(target)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fails)
        with pytest.raises(type(error)):
            write_netcdf(made() * 2, path)
    assert written and written[0].parent == tmp_path  # beside the file, so that the rename cannot cross disks
    assert [p.name for p in tmp_path.iterdir()] == ["c.nc"]
    assert path.read_bytes() == before
    write_netcdf(made() * 2, path)  # the control: a write that does not fail replaces it
    assert np.array_equal(read_curves(path).log_odds, made().log_odds * 2)
    assert [p.name for p in tmp_path.iterdir()] == ["c.nc"]


@pytest.mark.parametrize(
    ("right", "foil", "learnt"),
    [
        ([0, 0, 1, 1, 1, 1], 2.0, True),
        ([0, 0, 0, 0, 0, 0], 2.0, False),  # the form only
        ([0, 0, 1, 1, 1, 1], 0.0, False),  # labels guessed in the right form
        ([1, 1, 1, 1, 1, 1], 2.0, True),  # greedy answers cannot tell
        ([1, 1, 1, 1, 1, 1], 0.0, False),
        ([0, 0, 1, 1, 1, 1], None, True),  # no foil
    ],
)
def test_a_task_is_learnt_if_greedy_answers_and_the_foil_rise(
    right: list[int], foil: float | None, learnt: bool
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, size=(12, 6)) - 0.1 * np.linspace(0, 1, 6)
    odds = np.full((1, 2, 12, 6), np.nan)
    odds[0, 0] = noise
    if foil is not None:
        odds[0, 1] = noise + foil * np.linspace(0, 1, 6)
    dims = ("task", "readout", "seq", "shot")
    variables = {
        "log_odds": (dims, odds),
        "correct": (("task", "seq", "shot"), np.array(right, bool)[None, None].repeat(12, 1)),
    }
    coords = {"task": ["t"], "readout": ["complement", "foil"], "seq": range(12), "shot": range(6)}
    dataset = xr.Dataset(variables, coords)
    found = learning_of(dataset, "t")
    assert found is not None and found.learnt == learnt and found.shot == 5
    assert np.isnan(found.foil) == (foil is None) and found.right == right[-1]
    assert learning_of(dataset.drop_vars("correct"), "t") is None
    early = learning_of(dataset, "t", shot=2)
    assert early is not None and early.shot == 2
