"""Tasks: what an episode draws, the built-in rules, and tasks of the user's own."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_icl.core.errors import StatedError
from bayes_icl.tasks import BUILT_IN, Example, Task, load_tasks, task_of_examples

TASKS = {task.name: task for task in load_tasks(list(BUILT_IN))}
names = st.sampled_from(sorted(TASKS))
seeds = st.integers(0, 2**32 - 1)


# ------------------------------------------------------------------------------------------------- episodes


@settings(deadline=None, max_examples=60)
@given(names, seeds, st.integers(0, 200), st.integers(1, 48))
def test_an_episode_never_repeats_an_example(name: str, seed: int, seq: int, n_shots: int) -> None:
    queries = [e.query for e in TASKS[name].episode(n_shots, seed, seq)]
    assert len(queries) == n_shots + 1
    assert len(set(queries)) == len(queries)


@pytest.mark.parametrize("repeats", [False, True])
@settings(deadline=None, max_examples=60)
@given(name=names, seed=seeds, short=st.integers(1, 24), more=st.integers(1, 24))
def test_a_longer_episode_begins_with_the_shorter_one(
    repeats: bool, name: str, seed: int, short: int, more: int
) -> None:
    """Foils and random labels too: what is drawn for shot i must not depend on how many shots follow."""
    task = dataclasses.replace(TASKS[name], repeats=repeats)
    assert task.episode(short + more, seed, 3)[: short + 1] == task.episode(short, seed, 3)


def test_episodes_differ_by_seed_and_by_sequence() -> None:
    """The control of the two tests above: a draw that ignored its seed would pass them."""
    task = TASKS["copy"]
    drawn = {task.episode(20, seed, seq) for seed in range(5) for seq in range(5)}
    assert len(drawn) == 25


def test_an_episode_is_unaffected_by_the_tasks_beside_it() -> None:
    alone = load_tasks(["past_tense"])[0].episode(30, 7, 2)
    beside = {t.name: t.episode(30, 7, 2) for t in load_tasks(["copy", "past_tense", "antonym"])}
    assert beside["past_tense"] == alone
    # Control: the name is what seeds a draw, so two tasks over one pool do not walk through it in the same order.
    assert [e.query for e in TASKS["copy"].episode(30, 7, 2)] != [e.query for e in TASKS["successor"].episode(30, 7, 2)]


def test_repeats_are_drawn_when_allowed_and_only_then() -> None:
    spec = "copy:low=10,high=19,repeats=true"
    task = load_tasks([spec])[0]
    queries = [e.query for e in task.episode(40, 0, 0)]  # 41 draws of 10: a repeat is certain
    assert len(queries) == 41 and set(queries) <= {str(x) for x in range(10, 20)}
    with pytest.raises(StatedError, match="at most 9 shots"):
        load_tasks(["copy:low=10,high=19"])[0].episode(40, 0, 0)


def test_too_many_shots_says_how_many_there_are() -> None:
    with pytest.raises(StatedError, match=r"'copy' has 90 examples, so at most 89 shots .* 90 were asked for"):
        TASKS["copy"].episode(90, 0, 0)
    assert len(TASKS["copy"].episode(89, 0, 0)) == 90  # the most that there are, to the last one


# ------------------------------------------------------------------------------------------------- the rules

RULES = {
    "affine": lambda x: 2 * x + 3,
    "copy": lambda x: x,
    "times_ten": lambda x: 10 * x,
    "successor": lambda x: x + 1,
    "double": lambda x: 2 * x,
}


@pytest.mark.parametrize("name", RULES)
def test_number_tasks_follow_their_rule(name: str) -> None:
    assert {int(e.query): int(e.answer) for e in TASKS[name].pool} == {x: RULES[name](x) for x in range(10, 100)}


@settings(max_examples=40)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 60))
def test_affine_settings_stand_in_the_name(slope: int, intercept: int, low: int, span: int) -> None:
    spec = f"affine:slope={slope},intercept={intercept},low={low},high={low + span}"
    task = load_tasks([spec])[0]
    assert task.name == spec
    assert [(int(e.query), int(e.answer)) for e in task.pool] == [
        (x, slope * x + intercept) for x in range(low, low + span + 1)
    ]


def test_a_task_with_settings_is_another_task_than_the_plain_one() -> None:
    specs = ["affine", "affine:slope=3,intercept=1,low=10,high=49"]
    plain, other = load_tasks(specs)
    assert [plain.name, other.name] == specs
    assert (len(plain.pool), len(other.pool)) == (90, 40)


def test_label_tasks_follow_their_rule() -> None:
    assert all(e.answer == ("odd" if int(e.query) % 2 else "even") for e in TASKS["parity"].pool)
    assert all(e.answer == ("big" if int(e.query) >= 55 else "small") for e in TASKS["threshold"].pool)
    true = {e.query: e.answer for e in TASKS["category"].pool}
    swapped = {"fruit": "animal", "animal": "fruit"}
    assert {e.query: e.answer for e in TASKS["category_flipped"].pool} == {q: swapped[a] for q, a in true.items()}
    foo = {"fruit": "foo", "animal": "bar"}
    assert {e.query: e.answer for e in TASKS["category_arbitrary"].pool} == {q: foo[a] for q, a in true.items()}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_built_in_tasks_are_large_enough_and_have_no_twins(name: str) -> None:
    """49 examples: 48 shots without a repeat. A query that stands in the pool twice could be looked up."""
    queries = [e.query for e in TASKS[name].pool]
    assert len(queries) >= 49
    assert len(set(queries)) == len(queries)
    assert all(text == text.strip() for e in TASKS[name].pool for text in (e.query, e.answer))


def test_readouts_of_the_built_in_tasks() -> None:
    closed = ("complement", "foil", "format", "rule")
    assert TASKS["copy"].readouts == (*closed, "parity")
    assert TASKS["category"].readouts == closed
    assert TASKS["past_tense"].readouts == ("complement", "foil")


# ------------------------------------------------------------------------------------------------- foils


@settings(deadline=None, max_examples=80)
@given(names, seeds, st.integers(1, 30))
def test_a_foil_is_wrong_and_of_the_same_form(name: str, seed: int, n_shots: int) -> None:
    task = TASKS[name]
    answers = {e.answer for e in task.pool}
    for i, e in enumerate(episode := task.episode(n_shots, seed, 0)):
        assert e.foil and e.foil != e.answer
        if task.form == "number":
            assert e.foil.isdigit() and e.foil in answers
        elif task.form == "label":
            assert e.foil in task.labels
        elif name != "constant":  # whose pool names its own foil
            assert e.foil in answers
        if not task.labels and name != "constant":
            # An answer that was shown could be copied; the pools are larger than any episode here, so none is needed.
            assert e.foil not in {shown.answer for shown in episode[: i + 1]}


def test_a_foil_of_the_pool_is_kept_and_foils_can_be_left_out() -> None:
    pool = tuple(Example(f"q{i}", f"a{i}", f"f{i}") for i in range(9))
    assert all(e.foil == f"f{e.query[1:]}" for e in Task("t", pool).episode(8, 0, 0))
    bare = tuple(dataclasses.replace(e, foil="") for e in pool)
    assert all(e.foil == "" for e in Task("t", bare, foils=False).episode(8, 0, 0))
    assert "foil" in Task("t", pool, foils=False).readouts and "foil" not in Task("t", bare, foils=False).readouts


@pytest.mark.parametrize(
    "task",
    [
        Task("one", tuple(Example(f"q{i}", "same") for i in range(9))),
        Task("one", tuple(Example(f"q{i}", "same") for i in range(9)), form="label", labels=("same",)),
    ],
    ids=["free", "label"],
)
def test_no_foil_to_be_had_is_stated(task: Task) -> None:
    with pytest.raises(StatedError, match="'one' has one"):
        task.episode(4, 0, 0)


# ------------------------------------------------------------------------------------------------- the null task


def _label_counts(task: Task, n_seqs: int = 64, n_shots: int = 49) -> dict[str, np.ndarray]:
    """For each true category of the query: [times the label was foo, times it was asked]."""
    category = {e.query: e.answer for e in TASKS["category"].pool}
    counts = {"fruit": np.zeros(2), "animal": np.zeros(2)}
    for seq in range(n_seqs):
        for e in task.episode(n_shots, 0, seq):
            counts[category[e.query]] += [e.answer == "foo", 1]
    return counts


def _independent(counts: dict[str, np.ndarray]) -> bool:
    """Whether P(foo) is within 4.5 standard deviations of 1/2 for both kinds of query.

    A fair coin fails this once in 74,000 (two-sided, two counts); 3,200 draws put 4.5 sd at about 0.056.
    """
    return all(abs(foo - n / 2) < 4.5 * np.sqrt(n / 4) for foo, n in counts.values())


def test_random_labels_do_not_depend_on_the_query() -> None:
    assert _independent(_label_counts(TASKS["random_labels"]))
    # Control: the same check sees a task whose labels follow the query.
    assert not _independent(_label_counts(TASKS["category_arbitrary"]))


def test_random_labels_do_not_depend_on_the_label_before() -> None:
    episodes = [TASKS["random_labels"].episode(49, 1, seq) for seq in range(64)]
    pairs = [(a.answer, b.answer) for episode in episodes for a, b in itertools.pairwise(episode)]
    same = sum(a == b for a, b in pairs)
    assert abs(same - len(pairs) / 2) < 4.5 * np.sqrt(len(pairs) / 4)  # 3,136 pairs; a false alarm in 147,000
    # And one query has both labels in different sequences: the label is drawn anew, not once for the pool.
    apple = {e.answer for episode in episodes for e in episode if e.query == "apple"}
    assert apple == {"foo", "bar"}


def test_evidence_is_zero_for_the_null_task_and_unknown_elsewhere() -> None:
    null, copy = TASKS["random_labels"], TASKS["copy"]
    assert np.array_equal(null.evidence(null.episode(5, 0, 0)), np.zeros(6))
    assert np.isnan(copy.evidence(copy.episode(5, 0, 0))).all()


# ------------------------------------------------------------------------------------------------- names and settings


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        (["past_tens"], r"unknown task 'past_tens': did you mean past_tense"),
        (["zzz"], r"unknown task 'zzz': known: affine, .*random_labels"),
        (["affine:slop=3"], r"unknown setting of task 'affine'.*did you mean slope"),
        (["affine:slope"], r"slope must be a whole number"),
        (["affine:slope=1.5"], r"slope must be a whole number, not '1\.5'"),
        (["affine:slope=-1"], r"whole numbers of 0 or more"),
        (["affine:slope=1_0"], r"slope must be a whole number, not '1_0'"),
        (["affine:slope=true"], r"slope must be a whole number, not 'true'"),
        (["copy:repeats=2"], r"repeats must be true or false, not '2'"),
        (["copy:low=20,low=30"], r"low is given twice"),
        (["copy:low=0,high=1000000000000"], r"are more than 1000000 numbers"),
        (["affine:slope=" + "9" * 4299], r"a task must have a name of 1 to 80"),
        (["antonym:low=3"], r"'antonym' has no settings"),
        (["copy:low=9,high=3"], r"has no examples"),
        (["copy", "antonym", "copy"], r"two tasks are called 'copy'"),
        (["no_such.csv"], r"no task file 'no_such.csv'"),
        (["no_such.JSONL"], r"no task file 'no_such.JSONL'"),
    ],
)
def test_wrong_names_and_settings_are_stated(specs: list[str], says: str) -> None:
    with pytest.raises(StatedError, match=says) as error:
        load_tasks(specs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(pool=()), "has no examples"),
        (dict(template="{query} {answer}"), "terminator"),
        (dict(template="{answer} -> {query}\n"), "terminator"),
        (dict(template="{query}\n"), "terminator"),
        (dict(pool=(Example("q", ""),)), "empty query or answer"),
        (dict(pool=(Example("q", "a", "a"),)), "foil of 'q' is its answer"),
        (dict(form="number"), "whole numbers"),
        # str.isdigit holds for it, but no digit token spells it and int() fails on it.
        (dict(form="number", pool=(Example("q", "²"),)), "whole numbers"),
        (dict(form="label", labels=("b", "c")), "unknown label"),
        (dict(template="{query} -> {answer} (of {query})\n"), "{query} once, then {answer} once"),
        (dict(template="{query} -> {answer} {answer}\n"), "{query} once, then {answer} once"),
        (dict(template="{query} {query} -> {answer}\n"), "{query} once, then {answer} once"),
        (dict(form="lable"), "unknown form of task 't': 'lable': did you mean label"),
        (dict(features=("Parity",)), "unknown feature of task 't': 'Parity': did you mean parity"),
        (dict(features="parity"), "features must be several"),
        (dict(features=("parity",)), "give form='number'"),
        (dict(labels=("a", "b")), "need form='label', not 'free'"),
        (dict(form="label", labels=("a", "b", "a")), "labels must be distinct"),
        (dict(form="label", labels=("a", "")), "labels must be distinct and not empty"),
        (dict(pool=(Example("q", 1),)), "must be text"),
        (
            dict(pool=(Example("q", "a"), Example("q", "a"))),
            r"1 queries stand in the pool more than once \('q' 2 times\)",
        ),
        (dict(name=""), "must have a name of 1 to 80 printable"),
        (dict(name="\x1b[31mred"), "must have a name of 1 to 80 printable"),
        (dict(name=7), "must have a name of 1 to 80 printable"),
    ],
)
def test_a_task_that_cannot_be_is_stated(fields: dict, says: str) -> None:
    with pytest.raises(StatedError, match=says.replace("{", r"\{")) as error:
        Task(**{"name": "t", "pool": (Example("q", "a"),)} | fields)
    assert str(error.value).isprintable()


# ------------------------------------------------------------------------------------------------- the user's own


def test_a_csv_task(tmp_path: Path) -> None:
    path = tmp_path / "colours.csv"
    # With a byte-order mark, as Excel writes it, and an accent, a comma inside quotes and stray spaces.
    text = '\ufeffquery,answer,foil\nciel, bleu ,vert\n"herbe, verte",vert,\nété,jaune,bleu\n'
    path.write_text(text, encoding="utf-8")
    (task,) = load_tasks([str(path)])
    assert task.name == "colours" and task.form == "free"
    assert task.pool == (
        Example("ciel", "bleu", "vert"),
        Example("herbe, verte", "vert", ""),
        Example("été", "jaune", "bleu"),
    )


def test_a_jsonl_task_may_hold_numbers(tmp_path: Path) -> None:
    path = tmp_path / "squares.jsonl"
    path.write_text("".join(json.dumps({"query": x, "answer": x * x}) + "\n\n" for x in range(12)))
    (task,) = load_tasks([str(path)])
    assert task.form == "number"
    assert [(e.query, e.answer) for e in task.pool] == [(str(x), str(x * x)) for x in range(12)]


def test_a_python_task(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from bayes_icl.tasks import Example, Task\n"
        "one = Task('one', tuple(Example(str(i), 'ab'[i % 2]) for i in range(9)), form='label', labels=('a', 'b'))\n"
        "two = Task('two', tuple(Example(str(i), f'a{i}') for i in range(9)))\n"
    )
    assert [task.name for task in load_tasks([str(path)])] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"query,reply\nx,y\n", r"t\.csv: expected the columns .*missing: answer; found: 'query, reply'$"),
        ("t.csv", b"", r"t\.csv is empty: expected the columns query, answer and perhaps foil"),
        ("t.csv", b"\n\n", r"t\.csv is empty"),
        ("t.csv", b"query,answer\n", r"no rows"),
        ("t.csv", b"query;answer\nx;y\n", r"columns are separated by commas"),
        ("t.csv", b"query,query,answer\nx,y,z\n", r"line 1: the column query stands there twice"),
        ("t.csv", b"query,,answer\nx,y,z\n", r"line 1: column 2 of the header has no name"),
        ("t.csv", b"query,answer\nx,y\n\nx,\n", r"t\.csv line 4: the answer is empty"),
        ("t.csv", b"query,answer\n ,y\n", r"t\.csv line 2: the query is empty"),
        ("t.csv", b"query,answer\nx\n", r"t\.csv line 2 has 1 cell, the header 2"),
        (
            "t.csv",
            b"query,answer,foil\nGood, not great,positive,negative\n",
            r"t\.csv line 2 has 4 cells, the header 3",
        ),
        ("t.csv", b"query,answer\nx,y\nfrance,Land 18, Europe\n", r"line 3 has 3 cells, the header 2: quote cells"),
        ("t.csv", b'query,answer\n"x\n1",y\nz,w,v\n', r"line 4 has 3 cells"),
        ("t.csv", b'query,answer\nx,"y\nz,w\n', r"line 2 is not readable as CSV: .*quote"),
        (
            "t.csv",
            b"query,answer\nx,y\nx,z\nv,w\n",
            r"1 queries .* different answers .*'x' 2 times \(lines 2, 3: 'y', 'z'\)",
        ),
        ("t.csv", "query,answer\nété,summer\n".encode("latin-1"), r"line 2: byte 0xe9 is not UTF-8"),
        ("t.csv", "query,answer\nx,y\n".encode("utf-16"), r"is UTF-16 text: save it as UTF-8"),
        ("t.csv", b"query,answer\nx,y\0\n", r"line 2: a NUL byte"),
        ("t.jsonl", b"", r"t\.jsonl is empty"),
        ("t.jsonl", b'{"query": "x"}\n', r"missing: answer"),
        (
            "t.jsonl",
            b'{"query": "x", "answer": "y"}\n{"query": "x", "reply": "y"}\n',
            r"line 2 lacks answer; it has qu",
        ),
        ("t.jsonl", b'{"query": "x", "answer": "y", "answer": "z"}\n', r"line 1: the column answer stands there twice"),
        ("t.jsonl", b'{"query": "x", "answer": ["y", "z"]}\n', r"line 1: answer must be text or a number, not"),
        ("t.jsonl", b'{"query": "x", "answer": true}\n', r"line 1: answer must be text or a number, not true"),
        ("t.jsonl", b'\n{"query": "x", "answer": null}\n', r"line 2: the answer is empty"),
        ("t.jsonl", b'{"query": "x", "answer": "y"\n', r"line 1 is not readable as JSONL"),
        ("t.jsonl", b'{"query": "x", "answer": "y"}\n["x", "y"]\n', r"every line must be an object"),
        ("t.jsonl", b'["query", "answer"]\n', r"every line must be an object"),
        ("t.jsonl", b"[" * 100_000, r"line 1 is not readable as JSONL: too many brackets"),
        ("t.jsonl", b'{"query": "\\ud800", "answer": "y"}\n', r"line 1: query holds half a surrogate pair"),
        ("t.jsonl", b"5\n", r"every line must be an object"),
        ("t.jsonl", b"\xff\xfe", r"UTF-16"),
        ("t.jsonl", b"\xc3", r"line 1: byte 0xc3 is not UTF-8"),
        ("t.py", b"x = 1\n", r"defines no Task"),
        ("t.py", b"import nothing_of_that_name\n", r"does not run: ModuleNotFoundError"),
        ("t.py", b"def f(:\n", r"does not run: SyntaxError"),
        ("t.py", b"import sys; sys.exit('bye')\n", r"does not run: SystemExit: bye"),
        ("t.py", b"raise ValueError('one\\ntwo')\n", r"does not run: ValueError: one$"),
        ("t.py", b"class E(BaseException): pass\nraise E('own')\n", r"does not run: E: own$"),
        ("t.py", b"class E(Exception):\n def __str__(self): return 1\nraise E\n", r"does not run: E: no more is said$"),
        (
            "t.py",
            b"from bayes_icl.tasks import *\nt = Task('t', (Example('q', 'a'),), shuffled=True)\n",
            r"shuffled draws among labels",
        ),
        ("t.py", b"from bayes_icl.tasks import *\nt = Task('t', (1, 2))\n", r"the pool holds examples"),
        ("t.py", b"from bayes_icl.tasks import *\nt = Task('t', ())\n", r"t\.py: task 't' has no examples"),
    ],
)
def test_a_bad_task_file_is_stated_in_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StatedError, match=says) as error:
        load_tasks([str(path)])
    assert "\n" not in str(error.value)


def test_two_files_of_one_name_are_stated(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "t.csv" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("query,answer\nx,y\nz,w\n")
    with pytest.raises(StatedError, match="two tasks are called 't'"):
        load_tasks([str(path) for path in paths])


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["a", "b", "c", "1", "22", "333"]), min_size=1, max_size=30))
def test_the_form_follows_from_the_answers(answers: list[str]) -> None:
    task = task_of_examples("t", [Example(f"q{i}", a) for i, a in enumerate(answers)])
    distinct = sorted(set(answers))
    if len(distinct) > 1 and 4 * len(distinct) <= len(answers):
        assert task.form == "label" and task.labels == tuple(distinct)
    elif all(re.fullmatch("[0-9]+", a) for a in distinct):
        assert task.form == "number" and task.template == "({query}, {answer})\n"
    else:
        assert task.form == "free" and ("foil" in task.readouts) == (len(distinct) > 1)


def test_labels_may_be_written_as_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two answers for 80 rows are labels, as words or digits, and read alike; numbers that differ stay numbers."""
    forms = {}
    for name, answers in {"coin": "01", "words": ("foo", "bar"), "double": [str(2 * i) for i in range(80)]}.items():
        path = tmp_path / f"{name}.csv"
        path.write_text("query,answer\n" + "".join(f"{i},{answers[i % len(answers)]}\n" for i in range(80)))
        (task,) = load_tasks([str(path)])
        forms[name] = (task.form, task.labels, task.template)
    said = capsys.readouterr().err
    assert forms["coin"] == ("label", ("0", "1"), "{query} -> {answer}\n")
    assert forms["words"] == ("label", ("bar", "foo"), "{query} -> {answer}\n")
    assert forms["double"] == ("number", (), "({query}, {answer})\n")
    assert "coin.csv: 80 examples" in said and "answers read as labels ('0', '1')" in said
    assert "answers read as numbers, on which `rule` rises with the form too" in said


def test_rows_that_repeat_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lookup.csv"
    path.write_text("query,answer,note\n" + "".join(f"q{i % 12},{'ab'[i % 3 == 0]},{i}\n" for i in range(48)))
    (task,) = load_tasks([str(path)])
    assert len(task.pool) == 12
    for seq in range(20):
        queries = [e.query for e in task.episode(11, 0, seq)]
        assert len(set(queries)) == len(queries)
    said = capsys.readouterr().err
    assert "36 of 48 rows repeat another and are left out" in said and "not read: 'note'" in said
    with pytest.raises(StatedError, match="12 examples, so at most 11 shots"):
        task.episode(16, 0, 0)


def test_a_trailing_comma_is_no_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text in ("query,answer,\nx,y,\nz,w,\n", "query,answer\nx,y,\nz,w,\n", "Query, Answer,\nx,y\nz,w\n"):
        path.write_text(text)
        assert load_tasks([str(path)])[0].pool == (Example("x", "y"), Example("z", "w"))
    path.write_text("query,answer\nx,y,\nz,w\n")
    with pytest.raises(StatedError, match="line 2 has 3 cells, the header 2"):
        load_tasks([str(path)])


def test_jsonl_keeps_what_is_written(tmp_path: Path) -> None:
    """Numbers as they stand there, and separators that JSON allows within a text."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"query": "a\u2028b", "answer": 1.50}\n{"query": "c", "answer": 1e3, "foil": null}\n', "utf-8")
    assert load_tasks([str(path)])[0].pool == (Example("a\u2028b", "1.50"), Example("c", "1e3"))


DATACLASS = """
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bayes_icl.tasks import Example, Task

@dataclass(frozen=True)
class Coin(Task):
    bits: float = 0.5

    def evidence(self, examples):
        return np.full(len(examples), self.bits)

coin = Coin("coin", tuple(Example(f"q{i}", f"a{i}") for i in range(9)), bits=0.25)
"""


def test_a_task_file_may_hold_a_dataclass(tmp_path: Path) -> None:
    """Named as a module that is there already, which must stay."""
    path = tmp_path / "json.py"
    path.write_text(DATACLASS)
    (task,) = load_tasks([str(path)])
    assert task.evidence(task.pool[:3]).tolist() == [0.25] * 3
    assert sys.modules["json"] is json and not list(tmp_path.glob("__pycache__"))
