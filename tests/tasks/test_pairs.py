"""Pairs of tasks: two rules over the queries that tell them apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bayes_icl.core.errors import StatedError
from bayes_icl.tasks import Example, Task, load_tasks, under_designs
from bayes_icl.tasks.loading import files_of
from bayes_icl.tasks.pairs import pair_of_tasks


def test_a_pair_has_the_answers_of_one_and_the_foils_of_the_other() -> None:
    pair, labels = load_tasks(["affine~affine:intercept=5", "category~category_flipped"])
    assert {e.query: (int(e.answer), int(e.foil)) for e in pair.pool} == {
        str(x): (2 * x + 3, 2 * x + 5) for x in range(10, 100)
    }
    assert pair.readouts == ("complement", "foil", "format", "rule", "parity") and pair.two_known_rules
    a, b = ({e.query: e.answer for e in task.pool} for task in load_tasks(["category", "category_flipped"]))
    assert {e.query: (e.answer, e.foil) for e in labels.pool} == {q: (a[q], b[q]) for q in a}
    assert labels.labels == ("fruit", "animal")
    (noisy,) = under_designs([pair], ["noise"], 8)
    assert noisy.name == "affine~affine:intercept=5+noise(p=0.2)"
    assert {e.foil for e in noisy.episode(8, 0, 0)} <= {str(2 * x + 5) for x in range(10, 100)}


def test_labels_of_both_are_answers_of_the_right_form() -> None:
    (pair,) = load_tasks(["category~category_arbitrary"])
    assert set(pair.labels) == {"fruit", "animal", "foo", "bar"} and pair.form == "label"


def test_what_is_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """n + 1 and 2n agree at 1 only; 9 queries are of the longer list."""
    spec = "successor:low=0,high=10~double:low=0,high=19"
    (pair,) = load_tasks([spec])
    assert [e.query for e in pair.pool] == [str(x) for x in range(11) if x != 1]
    assert capsys.readouterr().err == (f"{spec}: 10 queries, without 9 of one task only and 1 on which they agree\n")
    load_tasks(["copy~double"])
    assert capsys.readouterr().err == ""


def test_tables_make_pairs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, end in (("a", "x"), ("b", "y")):
        rows = "".join(f"q{i},{i}{end}\n" for i in range(12))
        (tmp_path / f"{name}.csv").write_text("query,answer\n" + rows)
    monkeypatch.chdir(tmp_path)
    assert files_of(["a.csv~b.csv", "copy~double", "~/no.csv"]) == [Path("a.csv"), Path("b.csv"), Path("~/no.csv")]
    (pair,) = load_tasks(["a.csv~b.csv"])
    assert pair.pool[3] == Example("q3", "3x", "3y") and pair.name == "a.csv~b.csv"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("copy~antonym", "they are written '({query}, {answer})\\n' and '{query} -> {answer}\\n'"),
        ("antonym~category", "of these have different answers; 2 are needed"),
        ("affine~affine:slope=2", "90 are the same, and 0 of these have different answers"),
        ("category~random_labels", "'random_labels' draws its own"),
        ("coin~category", "'coin' draws its own"),
        ("copy~doubel", "unknown task 'doubel': did you mean double"),
    ],
)
def test_a_pair_that_is_none_is_stated(spec: str, says: str) -> None:
    with pytest.raises(StatedError) as error:
        load_tasks([spec])
    assert says in str(error.value)


def test_a_file_of_several_tasks_is_no_half_of_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        "from bayes_icl.tasks import Example, Task\n"
        "pool = tuple(Example(f'q{i}', f'a{i}') for i in range(4))\n"
        "one, two = Task('one', pool), Task('two', pool)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StatedError, match=r"a pair is of two tasks, and 'own\.py' holds 2"):
        load_tasks(["own.py~copy"])


def test_foils_of_a_task_of_its_own_give_way() -> None:
    a = Task("a", (Example("p", "1", "9"), Example("q", "2", "9"), Example("r", "3", "9")), foils=False)
    b = replace(a, name="b", pool=(Example("p", "4"), Example("q", "5"), Example("r", "3")))
    assert pair_of_tasks("ab", a, b).pool == (Example("p", "1", "4"), Example("q", "2", "5"))
