"""The built-in tasks."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from importlib import resources

from bayes_icl.tasks.task import NUMBERS, Example, Task


def _word_list(name: str) -> tuple[Example, ...]:
    text = resources.files("bayes_icl.tasks").joinpath("words", f"{name}.csv").read_text(encoding="utf-8")
    return tuple(Example(row["query"], row["answer"]) for row in csv.DictReader(io.StringIO(text)))


def _words(name: str, **settings: object) -> Task:
    return Task(name, _word_list(name), **settings)  # type: ignore[arg-type]


def _numbers(rule: Callable[[int], int], low: int, high: int, repeats: bool) -> dict:
    """The fields that the number tasks share: pool, template, form and the parity readout."""
    pool = tuple(Example(str(x), str(rule(x))) for x in range(low, high + 1))
    return dict(pool=pool, template=NUMBERS, form="number", features=("parity",), repeats=repeats)


def _affine(
    name: str, slope: int = 2, intercept: int = 3, low: int = 10, high: int = 99, repeats: bool = False
) -> Task:
    return Task(name, **_numbers(lambda x: slope * x + intercept, low, high, repeats))


def _copy(name: str, low: int = 10, high: int = 99, repeats: bool = False) -> Task:
    return Task(name, **_numbers(lambda x: x, low, high, repeats))


def _times_ten(name: str, low: int = 10, high: int = 99, repeats: bool = False) -> Task:
    return Task(name, **_numbers(lambda x: 10 * x, low, high, repeats))


def _successor(name: str, low: int = 10, high: int = 99, repeats: bool = False) -> Task:
    return Task(name, **_numbers(lambda x: x + 1, low, high, repeats))


def _double(name: str, low: int = 10, high: int = 99, repeats: bool = False) -> Task:
    return Task(name, **_numbers(lambda x: 2 * x, low, high, repeats))


def _labelled(name: str, rename: dict[str, str], shuffled: bool = False) -> Task:
    """The fruit or animal list with other labels."""
    pool = tuple(Example(e.query, rename[e.answer]) for e in _word_list("category"))
    return Task(name, pool, form="label", labels=tuple(rename.values()), shuffled=shuffled)


def _split_numbers(name: str, label: Callable[[int], str], labels: tuple[str, str], low: int, high: int) -> Task:
    pool = tuple(Example(str(x), label(x)) for x in range(low, high + 1))
    return Task(name, pool, form="label", labels=labels)


def _parity(name: str, low: int = 10, high: int = 99) -> Task:
    return _split_numbers(name, lambda x: "odd" if x % 2 else "even", ("even", "odd"), low, high)


def _threshold(name: str, cut: int = 55, low: int = 10, high: int = 99) -> Task:
    return _split_numbers(name, lambda x: "big" if x >= cut else "small", ("small", "big"), low, high)


def _constant(name: str) -> Task:
    return Task(name, tuple(Example(e.query, "foo", "bar") for e in _word_list("capitalise")))


BUILT_IN: dict[str, Callable[..., Task]] = {
    "affine": _affine,
    "copy": _copy,
    "times_ten": _times_ten,
    "successor": _successor,
    "double": _double,
    "antonym": _words,
    "capital": _words,
    "past_tense": _words,
    "capitalise": _words,
    "category": lambda name: _labelled(name, {"fruit": "fruit", "animal": "animal"}),
    "category_flipped": lambda name: _labelled(name, {"fruit": "animal", "animal": "fruit"}),
    "category_arbitrary": lambda name: _labelled(name, {"fruit": "foo", "animal": "bar"}),
    "parity": _parity,
    "threshold": _threshold,
    "constant": _constant,
    "random_labels": lambda name: _labelled(name, {"fruit": "foo", "animal": "bar"}, shuffled=True),
}
