"""Junk for every command: one line that states what is wrong, or a right result; never a traceback or a wrong number.

Some 2800 inputs: 960 tables, specs and files of tasks, 300 tables and 190 files of curves, 90 things that are no files,
240 flags, 120 runs of fit, attribute and patch, 55 damaged outputs of other stages, and 900 questions asked of curves
once they are read. Most go as far as the reading. BAYES_ICL_JUNK=20 tries twenty times as many of what is drawn.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tyro
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bayes_icl import attribute, calibrate, collect, curves, fit, models, patch, report
from bayes_icl.attribute import command as attribute_command
from bayes_icl.collect import wanted_readouts
from bayes_icl.core.errors import exit_stating
from bayes_icl.core.files import to_netcdf
from bayes_icl.core.inputs import read_table_file
from bayes_icl.curves import null_controls, read_curves, readouts_of, select
from bayes_icl.fit import figures as fit_figures
from bayes_icl.mechanism import recorded as mechanism_recorded
from bayes_icl.models import Model
from bayes_icl.models.prompts import encode_episode
from bayes_icl.patch import command as patch_command
from bayes_icl.report import command as report_command
from bayes_icl.report import page
from bayes_icl.report.outputs import gather
from bayes_icl.tasks import Task, load_tasks

MORE = int(os.environ.get("BAYES_ICL_JUNK", "1"))
TRIED: dict[str, int] = {}
LONGEST = 2000  # characters of a line that states what is wrong


def tried(n: int) -> Callable:
    """So many inputs, the same on every machine."""
    return settings(
        max_examples=n * MORE,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture,
                               HealthCheck.data_too_large, HealthCheck.large_base_example],
    )  # fmt: skip


def outcome(run: Callable[[], Any], *, counted: str = "") -> tuple[int, str]:
    """Exit code and last line of stderr of a command's body; fails where it is neither stated nor done."""
    TRIED[counted] = TRIED.get(counted, 0) + 1
    err = io.StringIO()

    def body() -> int:
        code = run()
        return code if type(code) is int else 0

    with redirect_stderr(err), redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as ended:
        exit_stating(body)
    lines = err.getvalue().rstrip("\n").split("\n")
    code = ended.value.code
    assert code in (0, 1, 3), f"exit code {code}"
    said = [line for line in lines if line.startswith("error: ")]
    if code == 1:
        assert said == lines[-1:] and len(said) == 1, f"not one line that states it, at the end: {lines}"
        assert said[0].isprintable() and 10 < len(said[0]) <= LONGEST, f"not a clear line: {said[0][:300]!r}"
        assert not any(word in said[0] for word in VAGUE), f"Python's own words: {said[0]}"
    else:
        assert not said
    return int(code), lines[-1]


# What Python and its libraries say where nobody thought of the case.
VAGUE = ("object has no attribute", "NoneType", "KeyError", "IndexError", "out of bounds", "not supported between",
         "could not broadcast", "unhashable", "ufunc", "list index", "must be str, not", "Traceback")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to run in."""
    path = tmp_path_factory.mktemp("junk")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(path)
        yield path


@pytest.fixture(scope="module")
def in_process(tiny: Model, folder: Path) -> Iterator[Path]:
    """The random model loaded once, and a folder to run in."""
    load = models.load_model
    with pytest.MonkeyPatch.context() as patched:

        def loaded(name: str, device: str = "auto") -> Model:
            return tiny if (name, device) in (("tiny", "auto"), ("tiny", "cpu")) else load(name, device)

        for stage in ("collect", "attribute", "patch"):
            patched.setattr(f"bayes_icl.{stage}.command.load_model", loaded)
        yield folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which take most of the time."""
    for stage in ("fit", "attribute", "patch"):
        monkeypatch.setattr(f"bayes_icl.{stage}.command.{stage}_figures", lambda *_: {})
    monkeypatch.setattr(report_command, "draw", lambda _: {})


@pytest.fixture(scope="module")
def collected(in_process: Path) -> Path:
    """Curves of the random model, with all that attribute and patch read."""
    path = in_process / "collected.nc"
    collect.main(collect.CollectSettings(model="tiny", tasks=("category", "copy"), n_shots=5, n_seqs=6, out=path))
    return path


def test_the_control_what_is_not_stated_is_caught() -> None:
    """A reader with a fault, one that says two lines, one that says Python's words, one that answers all is well."""

    def broken() -> int:
        raise KeyError("task")

    with pytest.raises(KeyError):
        outcome(broken)

    def wordy() -> int:
        from bayes_icl.core.errors import StatedError

        raise StatedError("'list' object has no attribute 'get'")

    with pytest.raises(AssertionError, match="Python's own words"):
        outcome(wordy)
    assert outcome(lambda: 0) == (0, "")


# --------------------------------------------------------------------------------------------------- what is written

ODD = (
    "", " ", "a", "a b", "7", "-3", "1e999", "0x10", "1,5", '"', '""', "'", "\\", "\n", "\r", "\r\n", "\t", "\x00",
    "\x1b[31m",
    "\u0301", "e\u0301", "\u202e\u05d0\u05d1", "\u200b", "\u200d", "\ufeff", "\u2028", "\x85",
    "\U0001f468\u200d\U0001f469",
    "{query}", "{answer}", "{}", "{{", "<|endoftext|>", "<s>", "nan", "inf", "None", "null", "true", "\u0663",
    "\u00b2",
    "x" * 81, "x" * 140_000, "-> b\n", "(1, 2)\n", "=1+1", "\ud800", "..", "/", "%s", "\U0010ffff", "\ufffe",
)  # fmt: skip
cells = st.one_of(st.sampled_from(ODD), st.text(max_size=6), st.integers(-5, 10**6).map(str))
SHORT = [odd for odd in ODD if len(odd) < 100]
small_cells = st.one_of(st.sampled_from(SHORT), st.text(max_size=4), st.integers(0, 99).map(str))


def encoded(text: str, how: str) -> bytes:
    return text.encode(how, "surrogatepass") if how.startswith("utf") else text.encode(how, "replace")


encodings = st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
headers = st.one_of(
    st.just(["query", "answer"]),
    st.sampled_from(
        [["query", "answer", "foil"], ["Query", " ANSWER"], ["query", "query"], ["query"], [], ["query", "answer", ""],
         ["", ""], ["query", "answer", "x" * 500], ["query;answer"], ["\ufeffquery", "answer"], ["query", "answer",
         "foil", "foil"]]
    ),
    st.lists(small_cells, max_size=4),
)  # fmt: skip


@st.composite
def csv_tables(draw: st.DrawFn, header: st.SearchStrategy[list[str]] = headers) -> bytes:
    """Bytes of a table that is more or less one."""
    names = draw(header)
    rows = draw(
        st.lists(
            st.one_of(
                st.lists(cells, min_size=len(names), max_size=len(names)),
                st.lists(cells, max_size=5),
            ),
            max_size=6,
        )
    )
    end = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n", ",\n"]))
    if draw(st.booleans()):
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator=end).writerows([names, *rows])
        text = buffer.getvalue()
    else:
        text = end.join(draw(st.sampled_from([",", ", ", ";", "\t"])).join(row) for row in [names, *rows])
    content = encoded(text, draw(encodings))
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 9)) == 0 else content


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), cells,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(small_cells, inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip


@st.composite
def jsonl_tables(draw: st.DrawFn) -> bytes:
    """Bytes of a JSONL file that is more or less one."""
    lines = []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.integers(0, 6))
        if kind == 0:
            lines.append(draw(st.sampled_from(["[" * 100_000, '{"query": ' * 50_000, "{", "[]", "7", "nan", '"q"',
            '{"query": 1e999,}',
                '{"query": "a", "query": "b", "answer": 1}', '{"query": NaN, "answer": -Infinity}', 
                '{"query": 1e5, "answer": 1E5}',
                '{"query": "\\ud800", "answer": "b"}', '{"query": "\\u0000", "answer": "b"}', '{"": 1}',
                "\u2028"])))  # fmt: skip
            continue
        row: dict[str, Any] = {"query": draw(json_values), "answer": draw(json_values)}
        if kind == 1:
            row[draw(small_cells)] = draw(json_values)
        lines.append(json.dumps(row, ensure_ascii=draw(st.booleans())))
    return encoded(draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines), draw(encodings))


def right_tasks(tasks: list[Task], tiny: Model, n_shots: int = 2) -> None:
    """As far as `collect` reads tasks before the model does: every answer stands where it is said to."""
    wanted_readouts(tasks)
    for task in tasks:
        episode = task.episode(n_shots, 0, 0)
        prompt = encode_episode(task, episode, tiny.tokenizer, branch="foil" in task.readouts or bool(task.labels))
        _, _, terminator = task.template.partition("{answer}")
        for shot, example in enumerate(episode):
            read = tiny.tokenizer.decode(list(prompt.answer(shot)), clean_up_tokenization_spaces=False)
            assert read.strip(" ") == (example.answer + terminator).strip(" "), (read, example)


@tried(140)
@given(content=csv_tables())
def test_tables_of_tasks(folder: Path, tiny: Model, content: bytes) -> None:
    path = folder / "t.csv"
    path.write_bytes(content)

    def run() -> None:
        table = read_table_file(path, ("query", "answer"), ("foil",))
        # Read again the plain way: the cells are those of the file.
        rows = [
            row
            for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), skipinitialspace=True)
            if row
        ]
        names = [name.strip().lower() for name in rows[0]]
        for name, column in table.columns.items():
            assert column == [row[names.index(name)].strip() for row in rows[1:]]
        tasks = load_tasks([str(path)])
        pairs = set(zip(table.columns["query"], table.columns["answer"]))
        assert {(e.query, e.answer) for e in tasks[0].pool} == pairs
        right_tasks(tasks, tiny)

    outcome(run, counted="tables of tasks")


@tried(120)
@given(content=jsonl_tables())
def test_jsonl_of_tasks(folder: Path, tiny: Model, content: bytes) -> None:
    path = folder / "t.jsonl"
    path.write_bytes(content)
    outcome(lambda: right_tasks(load_tasks([str(path)]), tiny), counted="JSONL of tasks")


numbers = st.one_of(
    st.integers(-200, 200).map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(["", "nan", "inf", "-inf", "1e9", "1.5", "true", "FALSE", "1_0", "\u0663", " 1", "9" * 5000,
    "0x10", "--1", "+3", "-0",
                     str(10**9), str(10**12), "\u200b1", "\u2212\u0031", "1=2", "\x00"]),
)  # fmt: skip
SETTINGS = ("slope", "intercept", "low", "high", "repeats", "cut", "name", "", "Slope")


@st.composite
def specs(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(["affine", "copy", "parity", "threshold", "times_ten", "category", "double"]))
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.one_of(
                small_cells,
                st.text(max_size=90),
                st.sampled_from(
                    ["a\x00.csv", "x" * 300 + ".csv", ".csv", ".", "/dev/null", "a.py", "copy:", ":", "copy::"]
                ),
            )
        )
    own = draw(st.lists(st.tuples(st.sampled_from(SETTINGS), numbers), max_size=3))
    return name + ":" + ",".join(f"{key}={value}" for key, value in own)


@tried(300)
@given(spec=specs())
def test_specs_of_tasks(folder: Path, tiny: Model, spec: str) -> None:
    def run() -> None:
        (task,) = load_tasks([spec])
        kind, _, given = spec.partition(":")
        own = dict(part.split("=") for part in given.split(",") if part)
        if kind == "affine":  # the rule, again
            slope, intercept = int(own.get("slope", 2)), int(own.get("intercept", 3))
            low, high = int(own.get("low", 10)), int(own.get("high", 99))
            assert [(e.query, e.answer) for e in task.pool] == [
                (str(x), str(slope * x + intercept)) for x in range(low, high + 1)
            ]
        assert task.repeats == (own.get("repeats", "false").lower() == "true")
        right_tasks([task], tiny)

    outcome(run, counted="specs of tasks")


values = st.one_of(
    st.sampled_from(SHORT).map(repr),
    st.sampled_from(["1", "None", "()", "('a', 'a')", "(1, 2)", "[]", "'x'", "True", "b'a'", "float('nan')",
    "object()", "{}", "{1: 2}",
                     "('a', 'b')", "'number'", "'label'", "'free'", "('parity',)", "iter(())"]),
)  # fmt: skip
templates = st.one_of(
    st.sampled_from(["{query} -> {answer}\n", "{query}{answer}", "{answer}{query}\n", "{query}", "", "{answer}\n",
    "{query}{query}{answer}\n",
                     "{query} {answer} ", "{query} {answer} {answer}\n", "{{query}} {answer}\n",
                     "{query!r} {answer}\n", "{query} {answer}{x}\n",
                     "{}\n{query} {answer}\n", "{query}{answer}\n", "\x00{query} {answer}\n",
                     "{query}\ud800{answer}\n", "{query} {answer}<|endoftext|>",
                     "{query} {answer}\u0301", "{query}\u200b{answer}\n\n", "7{query} {answer}7",
                     "{query}  {answer}\r\n"]),
    st.builds(lambda a, b, c: a + "{query}" + b + "{answer}" + c, small_cells, small_cells, small_cells),
)  # fmt: skip


@st.composite
def python_files(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 4)) == 0:
        return draw(
            st.sampled_from([b"", b"\x00", b"\xff\xfe", b"raise SystemExit", b"raise SystemExit(0)",
            b"import nothing_there", b"1/0", b"x = (", b"\tx",
                b"(" * 5000, b"raise KeyboardInterrupt", b"# coding: nothing\n",
                b"raise RecursionError('\xc3\xa9\\n\\nb')",
                b"class E(BaseException): pass\nraise E('x')", b"raise Exception('\\ud800')", b"def f(): f()\nf()",
                b"import os; os.chdir('/nowhere')",
                b"class E(Exception):\n    def __str__(self): return 1\nraise E",
                b"from bayes_icl.tasks import Task", b"T = 'Task'",
                b"from bayes_icl.tasks import *\nfrom bayes_icl.tasks import _copy\na = b = _copy('twice')"])
        )  # fmt: skip
    pool = ", ".join(
        draw(
            st.lists(
                st.builds(
                    "Example({}, {}, {})".format, values, values, st.sampled_from(["''", "'f'", "None", "'\\ud800'"])
                ),
                max_size=3,
            )
        )
        + [f"Example('q{i}', {i % 2!r} and 'a' or 'b')" for i in range(draw(st.sampled_from([0, 4])))]
    )
    own = draw(
        st.dictionaries(
            st.sampled_from(["form", "labels", "features", "foils", "shuffled", "repeats"]), values, max_size=3
        )
    )
    if draw(st.booleans()):
        own["template"] = repr(draw(templates))
    words = "".join(f", {key}={value}" for key, value in own.items())
    name = draw(st.one_of(st.just("'own'"), values))
    text = f"from bayes_icl.tasks import Example, Task\nT = Task({name}, [{pool}]{words})\n"
    return text.encode("utf-8", "backslashreplace")


@tried(200)
@given(content=python_files())
def test_python_files_of_tasks(folder: Path, tiny: Model, content: bytes) -> None:
    path = folder / "own.py"
    path.write_bytes(content)
    if content == b"raise KeyboardInterrupt":  # that is Control-C
        return
    outcome(lambda: right_tasks(load_tasks([str(path)]), tiny), counted="Python files of tasks")


@tried(200)
@given(template=templates, query=small_cells, answer=small_cells, other=small_cells)
def test_templates_and_texts(tiny: Model, template: str, query: str, answer: str, other: str) -> None:
    from bayes_icl.tasks import Example

    def run() -> None:
        pool = (Example(query, answer), Example("q", other), Example("r", "a"), Example("s", "b"))
        right_tasks([Task("own", pool, template)], tiny)

    outcome(run, counted="templates and texts")


# --------------------------------------------------------------------------------------------------- tables of curves

curve_numbers = st.one_of(
    st.integers(0, 5).map(str),
    st.floats(-9, 9).map(str),
    st.sampled_from(["1e999", "-1e999", "0x10", "", "1,5", "1.5.2", "nan", "NA", "inf", "1e300", "-1e308", "1e-310",
    "5e-324", "1_0", "\u0663", "None",
                     str(10**18), str(10**18 + 1), str(10**40), "-1", "0.5", "1e0", "+1", "True", "01", " 2 ",
                     "\u22122"]),
)  # fmt: skip


@st.composite
def curve_tables(draw: st.DrawFn) -> tuple[bytes, list[list[str]]]:
    """A table of curves: a grid that is whole, with some cells of junk."""
    names = ["task", "seq", "shot", "log_odds"]
    extra = draw(st.sampled_from([[], [], ["readout"], ["evidence"], ["readout", "evidence"], ["log_odds"], ["note"]]))
    first = draw(st.sampled_from([0, 0, 0, 1, 7, 10**18, 2**53 - 1]))
    n_seqs, n_shots = draw(st.sampled_from([(2, 3), (1, 1), (1, 4), (3, 2)]))
    constant = draw(st.booleans())
    rows = [
        [
            task,
            str(seq),
            str(shot),
            "2" if constant else f"{np.sin(3 * seq + shot):.3f}",
            *("rule" if e == "readout" else "0.5" for e in extra),
        ]
        for task in draw(st.sampled_from([["t"], ["t", "u"]]))
        for seq in range(n_seqs)
        for shot in range(first, first + n_shots)
    ]
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, len(rows[0]) - 1))
        rows[row][column] = draw(st.one_of(curve_numbers, small_cells))
    change = draw(st.sampled_from(["", "", "", "drop", "twice", "shuffle", "one"]))
    if change == "drop":
        rows.pop(draw(st.integers(0, len(rows) - 1)))
    elif change == "twice":
        rows.append(rows[0])
    elif change == "shuffle":
        rows = draw(st.permutations(rows))
    elif change == "one":
        rows = rows[:1]
    header = [*names, *extra] if draw(st.integers(0, 9)) else draw(st.lists(small_cells, max_size=5))
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"]))).writerows([header, *rows])
    return encoded(buffer.getvalue(), draw(encodings)), [header, *rows]


def read_as_commands(path: Path) -> xr.Dataset:
    """As far as fit, attribute, patch and report read curves before they compute."""
    dataset = read_curves(path)
    null_controls(dataset)
    for task in dataset.task.values.tolist():
        assert readouts_of(dataset, task)
        for readout in readouts_of(dataset, task):
            found = select(dataset, task, readout)
            assert found.log_odds.shape[1:] == found.shots.shape and found.log_odds.ndim == 2
            assert found.log_odds.dtype == np.float64 and np.isfinite(found.log_odds).all()
            assert (np.diff(found.shots) >= 1).all() and found.shots[0] >= 0
            assert found.evidence is None or found.evidence.shape == found.log_odds.shape
    return dataset


def planned(dataset: xr.Dataset) -> None:
    for own in (
        fit.FitSettings(),
        fit.FitSettings(readout=(str(dataset.readout.values[0]),), n_min=(int(dataset.shot[0]),)),
    ):
        outcome(lambda own=own: fit.plan_cases(dataset, own))
    outcome(lambda: attribute_command._check(attribute.AttributeSettings(), dataset))
    outcome(lambda: patch_command._check(patch.PatchSettings(), dataset))
    outcome(lambda: mechanism_recorded.recorded_model(dataset, ""))
    outcome(
        lambda: mechanism_recorded.check_same_model(
            dataset, {"model": "tiny", "weights_sha256": "", "tokenizer_sha256": ""}
        )
    )


@tried(300)
@given(table=curve_tables())
def test_tables_of_curves(folder: Path, table: tuple[bytes, list[list[str]]]) -> None:
    content, (header, *rows) = table
    path = folder / "c.csv"
    path.write_bytes(content)

    def run() -> None:
        dataset = read_as_commands(path)
        names = [name.strip().lower() for name in header]
        for row in rows:
            own = dict(zip(names, (cell.strip() for cell in row)))
            readout = own.get("readout", "complement")
            where = {"task": own["task"], "readout": readout, "shot": int(float(own["shot"]))}
            seqs = dataset.seq.values
            seq = own["seq"] if seqs.dtype.kind not in "iu" and isinstance(seqs[0], str) else int(own["seq"])
            assert float(dataset.log_odds.sel(**where, seq=seq)) == float(own["log_odds"])
        planned(dataset)

    outcome(run, counted="tables of curves")


# ---------------------------------------------------------------------------------------------------- files of curves


def made() -> xr.Dataset:
    """Curves as a command would read them, without a model's tokens."""
    n_seqs, n_shots = 3, 5
    rng = np.random.default_rng(0)
    coords = {
        "task": ["t", "u"],
        "readout": ["complement", "rule"],
        "seq": np.arange(n_seqs),
        "shot": np.arange(n_shots),
    }
    odds = rng.normal(size=(2, 2, n_seqs, n_shots))
    odds[1, 1] = np.nan
    dims = ("task", "readout", "seq", "shot")
    evidence = rng.normal(size=(2, n_seqs, n_shots))
    record = {"settings": {"model": "tiny"}, "model": {"model": "tiny"}, "inputs": {}}
    return xr.Dataset(
        {"log_odds": (dims, odds), "evidence": (("task", "seq", "shot"), evidence)},
        coords,
        {"provenance": json.dumps(record), "key": "0"},
    )


ATTRIBUTES: list[Any] = [
    5, 1.5, np.array([1, 2]), np.array(["a", "b"], dtype=object), b"\xff\xfe", b"{}", "", "[]", "null", "{", "7",
    '"x"', "[" * 9000,
    '{"settings": []}', '{"settings": null}', '{"settings": {"model": 5}}', '{"settings": {"model": []}}',
    '{"model": "x"}', '{"model": {"model": 5}}',
    '{"model": {"weights_sha256": []}}', '{"inputs": []}', '{"settings": {"": {}}, "model": {}}',
    '{"settings": {"n_shots": {"a": NaN}}}', "\u0301\u202e",
]  # fmt: skip

Change = Callable[[xr.Dataset], xr.Dataset]
SAME: dict[str, Change] = {  # that leave the numbers what they are
    "nothing": lambda d: d,
    "transposed": lambda d: d.transpose("shot", "seq", "readout", "task"),
    "float shots": lambda d: d.assign_coords(shot=d.shot.astype(float)),
    "text seqs": lambda d: d.assign_coords(seq=["a", "b", "c"]),
    "later shots": lambda d: d.assign_coords(shot=d.shot + 3),
    "no evidence": lambda d: d.drop_vars("evidence"),
    "null evidence": lambda d: d.assign(evidence=0 * d.evidence),
    "integer evidence": lambda d: d.assign(evidence=(0 * d.evidence).astype(int)),
    "another variable": lambda d: d.assign(note=("x", ["a"])),
    "no attributes": lambda d: d.drop_attrs(),
    "long name": lambda d: d.assign_coords(task=["x" * 80, "u"]),
}
OTHER: dict[str, Change] = {
    "integers": lambda d: d.fillna(0).round().astype(int),
    "float32": lambda d: d.astype("float32"),
    "float16": lambda d: d.astype("float32").assign(log_odds=d.log_odds.astype("float32") * 1e30),
    "booleans": lambda d: d.assign(log_odds=d.log_odds > 0),
    "complex": lambda d: d.assign(log_odds=d.log_odds + 1j),
    "text": lambda d: d.assign(log_odds=d.log_odds.astype(str)),
    "times": lambda d: d.assign(log_odds=(d.log_odds.dims, np.full(d.log_odds.shape, np.datetime64("2020-01-01",
    "ns")))),
    "units of time": lambda d: d.assign(log_odds=d.log_odds.assign_attrs(units="days since 2000-01-01")),
    "durations": lambda d: d.assign(log_odds=d.log_odds.assign_attrs(units="days")),
    "no log-odds": lambda d: d.drop_vars("log_odds"),
    "log-odds a coordinate": lambda d: d.set_coords("log_odds"),
    "a dimension less": lambda d: d.assign(log_odds=d.log_odds.isel(seq=0, drop=True)),
    "a dimension more": lambda d: d.assign(log_odds=d.log_odds.expand_dims(x=2)),
    "no task": lambda d: d.isel(task=0),
    "evidence without seq": lambda d: d.assign(evidence=d.evidence.isel(seq=0, drop=True)),
    "evidence of readouts": lambda d: d.assign(evidence=d.log_odds),
    "evidence in words": lambda d: d.assign(evidence=d.evidence.astype(str)),
    "infinite evidence": lambda d: d.assign(evidence=d.evidence * np.inf),
    "huge evidence": lambda d: d.assign(evidence=d.evidence * 1e300),
    "unsorted shots": lambda d: d.isel(shot=[0, 2, 1, 3, 4]),
    "shots backwards": lambda d: d.isel(shot=slice(None, None, -1)),
    "shots twice": lambda d: d.isel(shot=[0, 1, 1, 2]),
    "huge shots": lambda d: d.assign_coords(shot=d.shot + 10**18),
    "negative shots": lambda d: d.assign_coords(shot=d.shot - 2),
    "half shots": lambda d: d.assign_coords(shot=d.shot / 2),
    "shots in words": lambda d: d.assign_coords(shot=list("abcde")),
    "shots of NaN": lambda d: d.assign_coords(shot=[0, 1, np.nan, 3, 4]),
    "infinite shots": lambda d: d.assign_coords(shot=[0, 1, np.inf, 3, 4]),
    "dates of shots": lambda d: d.assign_coords(shot=np.arange(5).astype("datetime64[ns]")),
    "tasks twice": lambda d: d.assign_coords(task=["t", "t"]),
    "readouts twice": lambda d: d.assign_coords(readout=["rule", "rule"]),
    "seqs twice": lambda d: d.assign_coords(seq=[0, 0, 1]),
    "seqs of NaN": lambda d: d.assign_coords(seq=[0, np.nan, 1]),
    "huge seqs": lambda d: d.assign_coords(seq=[0, 10**18, -(10**18)]),
    "numbers for tasks": lambda d: d.assign_coords(task=[1, 2]),
    "odd tasks": lambda d: d.assign_coords(task=["", "\u202e"]),
    "control in a task": lambda d: d.assign_coords(task=["a\nb", "u"]),
    "no coordinates": lambda d: d.drop_vars(["seq", "shot"]),
    "one seq": lambda d: d.isel(seq=[0]),
    "one shot": lambda d: d.isel(shot=[0]),
    "nothing of seq": lambda d: d.isel(seq=[]),
    "nothing of shot": lambda d: d.isel(shot=[]),
    "nothing of task": lambda d: d.isel(task=[]),
    "nothing of readout": lambda d: d.isel(readout=[]),
    "all NaN": lambda d: d.assign(log_odds=d.log_odds * np.nan),
    "a hole": lambda d: d.assign(log_odds=d.log_odds.where(d.shot != 2)),
    "infinite": lambda d: d.assign(log_odds=d.log_odds * np.inf),
    "constant": lambda d: d.assign(log_odds=0 * d.log_odds + 2),
    "huge": lambda d: d.assign(log_odds=d.log_odds * 1e300),
    "subnormal": lambda d: d.assign(log_odds=d.log_odds * 1e-310),
}  # fmt: skip
unreadable = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 10**6)),
    st.tuples(st.just("flip"), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)),
    st.tuples(st.just("bytes"), st.binary(max_size=40)),
)


@pytest.fixture(scope="module")
def whole(folder: Path) -> bytes:
    (folder / "whole.nc").write_bytes(to_netcdf(made()))
    return (folder / "whole.nc").read_bytes()


def read_it_all(path: Path) -> xr.Dataset:
    dataset = read_as_commands(path)
    planned(dataset)
    outcome(lambda: page.commands_of(gather(path, dataset)))
    assert isinstance(gather(path, dataset).model, str)
    return dataset


@pytest.mark.filterwarnings("ignore:You are writing invalid netcdf:UserWarning")  # which is what it is to do
@tried(80)
@given(
    first=st.sampled_from(sorted(OTHER)),
    second=st.sampled_from([*SAME, *OTHER]),
    name=st.sampled_from(["provenance", "key"]),
    attribute=st.one_of(st.none(), st.sampled_from(ATTRIBUTES), st.text(max_size=5)),
)
def test_files_of_curves(folder: Path, first: str, second: str, name: str, attribute: Any) -> None:
    path = folder / "other.nc"
    dataset = made()
    try:
        for change in (first, second):
            dataset = (SAME | OTHER)[change](dataset)
        if attribute is not None:
            dataset.attrs[name] = attribute
        dataset.to_netcdf(path, engine="h5netcdf", invalid_netcdf=True)
    except Exception:  # the second change is none of what the first left, or cannot be written
        assume(False)
    outcome(lambda: read_it_all(path), counted="files of curves")


@tried(30)
@given(
    change=st.sampled_from(sorted(SAME)),
    name=st.sampled_from(["provenance", "key", "branches"]),
    attribute=st.one_of(st.none(), st.sampled_from(ATTRIBUTES)),
)
def test_files_that_are_curves_are_read_rightly(folder: Path, change: str, name: str, attribute: Any) -> None:
    path = folder / "same.nc"
    dataset = SAME[change](made())
    dataset.to_netcdf(path, engine="h5netcdf")
    if attribute is not None:
        with h5py.File(path, "r+") as file:  # which takes what xarray does not
            file.attrs[name] = np.bytes_(attribute) if isinstance(attribute, bytes) else attribute

    def run() -> None:
        found = read_it_all(path)
        expected = made().log_odds.transpose("task", "readout", "seq", "shot").values
        np.testing.assert_array_equal(found.log_odds.transpose("task", "readout", "seq", "shot").values, expected)

    code, said = outcome(run, counted="files of curves")
    assert code == 0, said


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=range(len(ATTRIBUTES)))
def test_records_of_another_kind(folder: Path, attribute: Any) -> None:
    test_files_that_are_curves_are_read_rightly.hypothesis.inner_test(folder, "nothing", "provenance", attribute)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf's, of files it cannot open
@tried(60)
@given(damage=unreadable)
def test_damaged_files_of_curves(folder: Path, whole: bytes, damage: tuple[str, Any]) -> None:
    path = folder / "damaged.nc"
    kind, how = damage
    if kind == "cut":
        content = whole[: how % len(whole)]
    elif kind == "bytes":
        content = how
    else:
        changed = bytearray(whole)
        for at, value in how:
            changed[at % len(whole)] = value
        content = bytes(changed)
    path.write_bytes(content)

    def run() -> None:
        found = read_it_all(path)
        expected = made()
        for task in found.task.values[np.isin(found.task.values, ["t", "u"])]:
            for readout in readouts_of(found, task):
                if readout in ("complement", "rule") and found.shot.values[0] == 0:
                    own = select(found, task, readout).log_odds
                    np.testing.assert_array_equal(own, expected.log_odds.sel(task=task, readout=readout).values)

    outcome(run, counted="files of curves")


def test_what_is_no_file(folder: Path, whole: bytes) -> None:
    os.mkfifo(folder / "fifo.nc")
    os.mkfifo(folder / "fifo.csv")
    os.mkfifo(folder / "fifo.py")
    (folder / "folder.nc").mkdir()
    (folder / "folder.csv").mkdir()
    (folder / "empty.nc").write_bytes(b"")
    (folder / "loop.nc").symlink_to("loop.nc")
    made().drop_vars(["task", "readout"]).to_netcdf(folder / "classic.nc", engine="scipy")
    (folder / "renamed.csv").write_bytes(whole)
    with h5py.File(folder / "plain.nc", "w") as file:
        file.create_group("log_odds")
        file["task"] = h5py.SoftLink("/nowhere")
    with h5py.File(folder / "group.nc", "w") as file:
        file.create_group("curves")["log_odds"] = np.zeros((1, 1, 2, 5))
    for name in (
        *(
            "fifo.nc",
            "fifo.csv",
            "folder.nc",
            "folder.csv",
            "empty.nc",
            "loop.nc",
            "classic.nc",
            "renamed.csv",
            "plain.nc",
        ),
        *("group.nc", "/dev/null", "/dev/zero", "nowhere.nc", "", ".", "x" * 300 + ".nc", "\udc80.nc"),
    ):
        for module, own in COMMANDS.items():
            if module in (collect, calibrate):
                continue
            run = partial(module.main, own(curves=Path(name)))
            assert outcome(run, counted="no files")[0] == 1, (name, module)
        run = partial(fit.main, fit.FitSettings(curves=folder / "whole.nc", hypotheses_from=Path(name)))
        assert outcome(run, counted="no files")[0] == 1, name
    for name in ("fifo.csv", "fifo.py", "folder.csv", "nowhere.jsonl", "/dev/null", "\udc80.csv"):
        assert outcome(partial(load_tasks, [name]), counted="no files")[0] == 1


COMMANDS: dict[Any, Any] = {
    collect: collect.CollectSettings,
    fit: fit.FitSettings,
    attribute: attribute.AttributeSettings,
    patch: patch.PatchSettings,
    report: report.ReportSettings,
    calibrate: calibrate.CalibrateSettings,
}


# --------------------------------------------------------------------------------------------------------------- flags

TINY_FIT = ("--engine", "fast", "--workers", "1", "--hypotheses", "constant", "additive", "power", "--no-sensitivity")
NUMBERS = ("-1", str(-(10**12)), str(10**12), str(10**30), "0", "1", "x", "1.5", "nan", "", "1e3", "\u0663")
FLAGS: dict[Any, dict[str, tuple[str, ...]]] = {
    collect: {
        "--model": ("tinny", "", " ", "nowhere.gguf", "/nowhere", "../x", "a\nb", "\u202e", ".", "tiny ",
        "x" * 300 + ".gguf", "a\x00b", "~"),
        "--tasks": ("", "cpoy", "copy copy", "copy:low=x", "copy.csv", "/dev/null", "random_labels:x=1", "\u0301"),
        "--n-shots": (*NUMBERS, "89", "90"),
        "--n-seqs": NUMBERS,
        "--seed": NUMBERS[:7],
        "--batch-size": NUMBERS[:5],
        "--readouts": ("", "x", "complement complement", "parity format", "Complement"),
        "--device": ("", "x", "cuda:99", "meta", "cpu:0:0", "tpu"),
        "--out": ("", ".", "/", "/dev/null", "/dev/full", "/proc/x.nc", "x" * 300 + ".nc", "collected.nc/x.nc"),
    },
    fit: {
        "--tasks": ("", "x", "category category", "category x"),
        "--readout": ("", "x", "complement complement", "x complement", "complement x", "parity"),
        "--n-min": (*NUMBERS, "1 1", "-1 1", "4", "5"),
        "--hypotheses": ("", "x", "additive additive", "Additive", "observer", "constant x", "freeform"),
        "--engine": ("", "x", "Fast"),
        "--noise": ("", "x"),
        "--draws": NUMBERS[:3],
        "--tune": NUMBERS[:3],
        "--chains": NUMBERS[:3],
        "--seed": NUMBERS[:4],
        "--workers": NUMBERS[:4],
    },
    attribute: {
        "--tasks": ("", "x", "category category x"),
        "--readout": ("", "x", "rule"),
        "--token": ("-1", "100", str(10**12), "x"),
        "--n-min": ("-1", "4", "5", "6", str(10**12)),
        "--top": ("-1", "7", str(10**12)),
        "--placebos": ("-1", "0", "1", str(10**12)),
        "--batch-size": NUMBERS[:2],
        "--seed": ("-1", str(10**12)),
        "--workers": ("-1", str(10**12)),
        "--model": ("tinny", "/nowhere"),
        "--out": ("x.txt", "collected.nc", "/proc/x.nc", "/dev/null"),
    },
    patch: {
        "--tasks": ("", "x"),
        "--n-examples": ("-1", "0", "1", "6", str(10**12)),
        "--n-seqs": ("-1", "1", "3", str(10**12)),
        "--token": ("-1", "100", str(10**12)),
        "--position": ("", "x"),
        "--kind": ("x",),
        "--ablate": ("", "x", "L9H9", "L0H99", "99", "1-0", "top", "top8", "L-1H0", "0-999999999",
        "L" + "9" * 5000 + "H0", "\u0661"),
        "--ranks": ("nowhere.csv", "/dev/null", ".", "collected.nc"),
        "--rank-by": ("x",),
        "--before": ("-1", "0", str(10**12)),
        "--rounds": ("-1", str(10**12)),
        "--backups": ("-1", "0", str(10**12)),
        "--placebos": ("-1", "0", str(10**12)),
        "--seed": ("-1", str(10**12)),
    },
    calibrate: {
        "--n-seqs": NUMBERS[:5],
        "--n-shots": NUMBERS[:5],
        "--gain": ("nan", "inf", "-1", "0", "1e999", "x"),
        "--hypotheses": ("", "x", "freeform", "additive additive x"),
        "--sims": NUMBERS[:5],
        "--coverage-sims": NUMBERS[:5],
        "--confusion-sims": NUMBERS[:5],
        "--seed": ("-1", str(10**12)),
        "--workers": ("-1", str(10**12)),
    },
    report: {
        "--fits": ("nowhere", "/dev/null", "", "collected.nc"),
        "--effects": ("nowhere", "/dev/null", "collected.nc"),
        "--patch": ("nowhere.nc", "/dev/null", "collected.nc"),
        "--calibration": ("nowhere", "/dev/null", "collected.nc"),
        "--out": ("x.txt", "", "/proc/x.html", "/dev/null", "x" * 300 + ".html"),
    },
}  # fmt: skip
EACH = [(module, flag, value) for module, flags in FLAGS.items() for flag, values in flags.items() for value in values]


def command(module: Any, words: list[str]) -> Callable[[], Any]:
    """A command as `python -m` would run it; words that are no settings end in 2, as ever."""
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        own = tyro.cli(COMMANDS[module], args=words)
    return lambda: module.main(own)


@pytest.mark.parametrize("module", FLAGS, ids=lambda module: module.__name__.split(".")[1])
def test_flags(collected: Path, undrawn: None, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "read_curves", cache(read_curves))  # the same file every time
    base = {
        collect: ["--model", "tiny", "--tasks", "copy", "--n-shots", "2", "--n-seqs", "1"],
        fit: ["--curves", "collected.nc", *TINY_FIT],
        attribute: ["--curves", "collected.nc", "--placebos", "2", "--workers", "1"],
        patch: ["--curves", "collected.nc", "--n-examples", "2"],
        report: ["--curves", "collected.nc"],
        calibrate: [],
    }[module]
    for i, (flag, value) in enumerate((flag, value) for own, flag, value in EACH if own is module):
        words = (
            value.split(" ") if flag in ("--tasks", "--readout", "--readouts", "--n-min", "--hypotheses") else [value]
        )
        given = [*base, "--out", f"{i}.nc"] if module is collect and flag != "--out" else base
        try:
            run = command(module, [*given, flag, *words])
        except SystemExit as ended:
            assert ended.code == 2
            continue
        print(flag, value[:50], *outcome(run, counted="flags"))


# ---------------------------------------------------------------------------------------------------------- whole runs

ROWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda x: x,
    "constant": lambda x: 0 * x + 2,
    "the same in all": lambda x: 0 * x + x[:1],
    "lines": lambda x: x[:, :1] + np.arange(x.shape[1]),
    "steep": lambda x: x + 1e4 * np.arange(x.shape[1]),
    "huge": lambda x: 1e300 * x,
    "large": lambda x: 1e150 * x,
    "far away": lambda x: x + 9e5,
    "tiny": lambda x: 1e-200 * x,
    "subnormal": lambda x: 1e-310 * x,
    "one huge cell": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, 1e200, x),
    "one odd cell": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, 1e5, x),
    "zeros but one": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, 1.0, 0.0),
    "two values": np.sign,
    "integers": np.round,
    "steps": lambda x: np.where(np.arange(x.shape[1]) < 4, -9.0, 9.0) + 1e-3 * x,
}


@pytest.mark.parametrize("n_seqs, n_shots", [(8, 10), (1, 1), (1, 10), (2, 4), (2, 3), (9, 2)])
@pytest.mark.parametrize("kind", ROWS)
def test_fits_to_odd_curves(in_process: Path, undrawn: None, kind: str, n_seqs: int, n_shots: int) -> None:
    """A verdict that holds whatever the unit of log-odds, or none."""
    if (n_seqs, n_shots) != (8, 10) and kind not in ("as they are", "constant", "huge"):
        pytest.skip("shapes are tried on a few kinds")
    rng = np.random.default_rng(5)
    plain = np.cumsum(rng.normal(0.5, 1, size=(n_seqs, n_shots)), axis=1)
    odds = ROWS[kind](plain)
    path = in_process / "odd.csv"
    rows = [f"t,{s},{n},{float(odds[s, n])!r}\n" for s in range(n_seqs) for n in range(n_shots)]
    path.write_text("task,seq,shot,log_odds\n" + "".join(rows))
    run = command(fit, ["--curves", "odd.csv", "--force", "--n-min", "0", *TINY_FIT])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, said = outcome(run, counted="whole runs")
    if code != 1:
        verdict = json.loads(Path("data/fits/odd/verdict.json").read_text())["t"]
        print(kind, n_seqs, n_shots, code, verdict["verdict"], verdict["delta"], verdict["reasons"])
        if verdict["delta"] is not None and verdict["verdict"] != "refused":
            least_squares = np.polyfit(np.arange(n_shots), odds.T, 1)[0]
            spread = least_squares.std(ddof=1) / np.sqrt(n_seqs)
            assert abs(verdict["delta"]["mean"] - least_squares.mean()) < 4 * spread + 0.05 * np.ptp(odds)
    else:
        print(kind, n_seqs, n_shots, said)


TOKENS: dict[str, Change] = {
    "lengths of float": lambda d: d.assign(answer_start=d.answer_start.astype(float)),
    "tokens of float": lambda d: d.assign(tokens=d.tokens.astype(float).where(d.tokens >= 0)),
    "tokens in words": lambda d: d.assign(tokens=d.tokens.astype(str)),
    "tokens beyond the vocabulary": lambda d: d.assign(tokens=d.tokens + 10**6),
    "no tokens at all": lambda d: d.assign(tokens=0 * d.tokens - 1),
    "a gap": lambda d: d.assign(tokens=d.tokens.where(d.pos != 9, -1)),
    "answers beyond the end": lambda d: d.assign(answer_stop=d.answer_stop + 10**4),
    "answers before the start": lambda d: d.assign(answer_start=d.answer_start - 10**4),
    "answers turned round": lambda d: d.assign(answer_start=d.answer_stop, answer_stop=d.answer_start),
    "answers at 0": lambda d: d.assign(answer_start=0 * d.answer_start),
    "answers backwards": lambda d: d.assign(answer_start=d.answer_start[..., ::-1].assign_coords(shot=d.shot)),
    "answers moved": lambda d: d.assign(answer_start=d.answer_start + 1, answer_stop=d.answer_stop + 1),
    "queries beyond": lambda d: d.assign(query_stop=d.query_stop + 10**4),
    "queries empty": lambda d: d.assign(query_stop=d.query_start),
    "no queries": lambda d: d.drop_vars(["query_start", "query_stop"]),
    "queries as numbers": lambda d: d.assign(query=d.answer_start),
    "no texts": lambda d: d.drop_vars(["query", "answer", "query_start", "query_stop"]),
    "no tokens": lambda d: d.drop_vars("tokens"),
    "tokens without seq": lambda d: d.assign(tokens=d.tokens.isel(seq=0, drop=True)),
    "forks far off": lambda d: d.assign(fork=d.fork + 100),
    "foils far off": lambda d: d.assign(foil_token=d.foil_token + 10**6),
    "no forks": lambda d: d.drop_vars(["fork", "foil_token"]),
    "no foils read": lambda d: d.assign(fork=0 * d.fork - 1, foil_token=0 * d.foil_token - 1),
    "text seqs": lambda d: d.assign_coords(seq=list("abcdef")),
    "later shots": lambda d: d.assign_coords(shot=d.shot + 3),
    "one seq": lambda d: d.isel(seq=[0]),
    "one shot": lambda d: d.isel(shot=[0]),
    "shots left out": lambda d: d.isel(shot=[0, 1, 2, 3, 5]),
    "transposed": lambda d: d.transpose("shot", "seq", "readout", "pos", "task"),
    "only rule": lambda d: d.sel(readout=["rule"]),
    "other numbers": lambda d: d.assign(log_odds=d.log_odds + 1),
    "another model": lambda d: d.assign_attrs(provenance=d.attrs["provenance"].replace('256": "', '256": "x')),
    "no answers": lambda d: d.drop_vars("answer"),
    "as they are": lambda d: d,
}  # fmt: skip


@pytest.mark.parametrize("change", TOKENS)
def test_odd_tokens_are_not_run(collected: Path, undrawn: None, change: str) -> None:
    path = collected.with_name("tokens.nc")
    TOKENS[change](xr.load_dataset(collected, engine="h5netcdf")).to_netcdf(path, engine="h5netcdf")
    common: dict[str, Any] = dict(curves=path, force=True, tasks=("category",))
    little = attribute.AttributeSettings(**common, workers=1, ablate=False)
    runs = {
        "attribute": partial(attribute.main, little),
        "foil": partial(attribute.main, replace(little, readout="foil")),
        "patch": partial(patch.main, patch.PatchSettings(**common, n_examples=2, steps=False, rounds=0, placebos=1)),
    }
    # Foils concern one of them; what the others make of them is what they make of any file.
    wanted = ["foil"] if "fo" in change else ["patch"] if change == "no answers" else list(runs)
    for name in wanted:
        code, said = outcome(runs[name], counted="whole runs")
        assert code == (0 if change in ("as they are", "transposed", "no queries") else 1), (name, said)


# -------------------------------------------------------------------------------------------- outputs of other stages


def last_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": last_half,
    "cut at a line": lambda content: last_half(content).rpartition(b"\n")[0] + b"\n",
    "empty": lambda _: b"",
    "gone": lambda _: None,
    "no text": lambda _: b"\xff\xfe\x00\x81",
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "of another tool": lambda _: b'{"settings": {"n_seqs": "x"}, "inputs": [], "category": {"verdict": 7}, "key": 3}',
    "deep": lambda _: b"[" * 100_000,
    "other columns": lambda content: b"task,x\ncategory,1\n",
}


@pytest.fixture(scope="module")
def fitted(collected: Path) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit_figures, "fit_figures", lambda *_: {})
        outcome(command(fit, ["--curves", "collected.nc", "--out", "fitted", *TINY_FIT]))
    return collected.with_name("fitted")


@pytest.mark.parametrize(
    "damage, recorded",
    [*((damage, False) for damage in DAMAGE), *((damage, True) for damage in ("cut", "gone"))],
)
def test_damaged_fits_are_left_out(fitted: Path, undrawn: None, tmp_path: Path, damage: str, recorded: bool) -> None:
    """Files of an earlier version have no record of what was written; with one, nothing altered is taken."""
    names = ("verdict.json", "provenance.json", "comparison.csv", "checks.csv", "sensitivity.csv", "engines.csv")
    for name in names if damage in ("cut", "other columns") else names[:3]:
        shutil.rmtree(tmp_path / "fits", ignore_errors=True)
        shutil.copytree(fitted, tmp_path / "fits")
        if not recorded:
            (tmp_path / "fits/.fit.json").unlink()
        path = tmp_path / "fits" / name
        content = DAMAGE[damage](before := path.read_bytes())
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        own = report.ReportSettings(curves=Path("collected.nc"), fits=tmp_path / "fits", out=tmp_path / "page.html")
        code, said = outcome(partial(report.main, own), counted="outputs of other stages")
        if recorded and content != before:
            assert code == 1 and "--fits" in said, (name, said)


@pytest.mark.parametrize("damage", ["cut", "no text", "null", "of another tool", "other columns"])
def test_damaged_calibrations_are_not_reported(collected: Path, undrawn: None, tmp_path: Path, damage: str) -> None:
    for name in ("provenance.json", "outcomes.csv"):
        folder = tmp_path / name
        shutil.copytree(Path(__file__).parent.parent / "figures/calibration", folder)
        content = DAMAGE[damage]((folder / name).read_bytes())
        (folder / name).write_bytes(content or b"")
        own = report.ReportSettings(curves=collected, calibration=folder, out=tmp_path / "page.html")
        code, said = outcome(partial(report.main, own), counted="outputs of other stages")
        assert code == 1 and "--calibration" in said, (name, said)
