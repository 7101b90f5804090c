"""Tasks: a rule, the pool of examples that an episode draws from, and how an example is written.

A user's own task is a CSV or JSONL file with the columns ``query``, ``answer`` and, if wanted, ``foil``, or a
`Task` built in Python. Built-in tasks take settings in their name: ``affine:slope=3,intercept=1,low=10,high=49``.
"""

from __future__ import annotations

import csv
import inspect
import io
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from bayes_icl.errors import MOST, StatedError, check_name, is_text, shown, unknown
from bayes_icl.inputs import read_table_file, run_python

WORDS = "{query} -> {answer}\n"
NUMBERS = "({query}, {answer})\n"
FORMS = ("label", "number", "free")
FEATURES = ("parity",)
TABLES = (".csv", ".jsonl")
FILES = (*TABLES, ".py")


@dataclass(frozen=True)
class Example:
    """One (query, answer) pair and, where the task has one, a foil: a named wrong answer of the same form."""

    query: str
    answer: str
    foil: str = ""


@dataclass(frozen=True)
class Task:
    """A rule and how it is written.

    Attributes
    ----------
    name
        Coordinate value in files; also names the files of its fits.
    pool
        All examples; an episode draws from them without repeating one. No query stands there twice, unless `repeats`.
    template
        Text of one example, with ``{query}`` and then ``{answer}``, once each; what follows ``{answer}`` is the
        terminator, which is scored with the answer.
    form
        What an answer looks like, which decides the readouts `format` and `rule`: ``"label"`` (the closed set
        `labels`), ``"number"`` (digits) or ``"free"`` (neither readout is defined).
    labels
        The closed set of answers of a ``"label"`` task.
    features
        Features of a number with a readout of their own; ``"parity"`` (of the last digit) is known.
    foils
        Draw the answer of another example as foil where the pool names none.
    shuffled
        Give every example of an episode a random label: the null task, which has nothing to learn.
    repeats
        Draw with replacement, so that a query can stand in an episode twice, and in the pool.
    """

    name: str
    pool: tuple[Example, ...]
    template: str = WORDS
    form: Literal["label", "number", "free"] = "free"
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    foils: bool = True
    shuffled: bool = False
    repeats: bool = False

    def __post_init__(self) -> None:
        check_name("a task", self.name)
        for name in ("pool", "labels", "features"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise StatedError(f"task {self.name!r}: {name} must be several, as in ({given!r},), not one")
            object.__setattr__(self, name, tuple(given))
        if not self.pool:
            raise StatedError(f"task {self.name!r} has no examples")
        for text in (self.template, *self.labels):
            if not is_text(text):
                raise StatedError(f"task {self.name!r}: template and labels must be text, got {text!r}")
        self._check_template()
        if self.form not in FORMS:
            raise unknown(f"form of task {self.name!r}:", self.form, FORMS)
        for feature in self.features:
            if feature not in FEATURES:
                raise unknown(f"feature of task {self.name!r}:", feature, FEATURES)
        if self.features and self.form != "number":
            raise StatedError(f"task {self.name!r}: {self.features[0]} is a feature of numbers: give form='number'")
        if self.form != "label" and self.labels:
            raise StatedError(f"task {self.name!r}: labels {self.labels} need form='label', not {self.form!r}")
        if len(set(self.labels)) < len(self.labels) or "" in self.labels:
            raise StatedError(f"task {self.name!r}: labels must be distinct and not empty, got {self.labels}")
        if self.shuffled and len(self.labels) < 2:
            raise StatedError(f"task {self.name!r}: shuffled draws among labels: give two or more, got {self.labels}")
        for example in self.pool:
            if not isinstance(example, Example):
                raise StatedError(f"task {self.name!r}: the pool holds examples, as Example('2', '5'), not {example!r}")
            if not all(is_text(text) for text in (example.query, example.answer, example.foil)):
                raise StatedError(f"task {self.name!r}: query, answer and foil must be text: {example}")
            if not example.query or not example.answer:
                raise StatedError(f"task {self.name!r}: an example has an empty query or answer: {example}")
            if example.foil == example.answer:
                raise StatedError(f"task {self.name!r}: the foil of {example.query!r} is its answer")
            if self.form == "number" and not (example.answer.isascii() and example.answer.isdigit()):
                raise StatedError(
                    f"task {self.name!r}: answers must be whole numbers of 0 or more, not {example.answer!r}"
                )
            if self.form == "label" and example.answer not in self.labels:
                raise unknown(f"label in task {self.name!r}:", example.answer, self.labels)
        if not self.repeats and (again := _again(self.pool)):
            query, times = next(iter(again.items()))
            raise StatedError(
                f"task {self.name!r}: {len(again)} queries stand in the pool more than once ({query!r} {times} times), "
                "so their answers could be looked up: keep one example each, or repeats=True"
            )

    def _check_template(self) -> None:
        """One query, then one answer, then a terminator: a placeholder more would reach the model with its braces."""
        parts = re.split("({query}|{answer})", self.template)
        if parts[1::2] != ["{query}", "{answer}"] or not parts[-1].strip(" "):
            raise StatedError(
                f"task {self.name!r}: a template is text with {{query}} once, then {{answer}} once, then a terminator, "
                f"as in {WORDS!r}; got {self.template!r}"
            )

    @property
    def readouts(self) -> tuple[str, ...]:
        """The readouts that are defined for this task, in the order of the design."""
        has_foil = self.foils or all(example.foil for example in self.pool)
        closed = self.form == "number" or len(self.labels) > 1
        return (
            "complement",
            *(["foil"] if has_foil else []),
            *(["format", "rule"] if closed else []),
            *self.features,
        )

    def episode(self, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Draw the ``n_shots + 1`` examples of sequence `seq`.

        A longer episode of the same seed begins with the shorter one, and what other tasks are read beside it
        changes nothing.
        """
        n = n_shots + 1
        if n > len(self.pool) and not self.repeats:
            raise StatedError(
                f"task {self.name!r} has {len(self.pool)} examples, so at most {len(self.pool) - 1} shots without a "
                f"repeat; {n_shots} were asked for: lower --n-shots or give it more examples"
            )
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), seq])
        order = rng.integers(len(self.pool), size=n) if self.repeats else rng.permutation(len(self.pool))
        drawn = [self.pool[i] for i in order[:n]]
        # A generator per shot keeps the draws of shot i the same however many follow.
        per_shot = [np.random.default_rng([seed, zlib.crc32(self.name.encode()), seq, i]) for i in range(n)]
        if self.shuffled:
            drawn = [replace(e, answer=str(r.choice(self.labels)), foil="") for e, r in zip(drawn, per_shot)]
        if not self.foils:
            return tuple(drawn)
        return tuple(
            e if e.foil else replace(e, foil=self._foil(e, drawn[: i + 1], per_shot[i])) for i, e in enumerate(drawn)
        )

    def _foil(self, example: Example, shown: Sequence[Example], rng: np.random.Generator) -> str:
        """An answer of the same form that is wrong here: another label, or another example's answer.

        Answers not yet shown come before shown ones (which could be copied), and equally long ones before others.
        """
        if len(self.labels) > 1:
            return str(rng.choice([label for label in self.labels if label != example.answer]))
        seen = {e.answer for e in shown}
        others = sorted({e.answer for e in self.pool} - {example.answer})
        if not others:
            raise StatedError(f"task {self.name!r} has one answer only, so no foil: give a foil column or foils=False")
        for wanted in (
            [a for a in others if a not in seen and len(a) == len(example.answer)],
            [a for a in others if a not in seen],
            others,
        ):
            if wanted:
                return str(rng.choice(wanted))
        raise AssertionError("unreachable: `others` is not empty")

    def evidence(self, examples: Sequence[Example]) -> np.ndarray:
        """The ideal observer's update at each shot, shape (len(examples),), nats; NaN where the task has none.

        Random labels carry no evidence about the next one, so the observer's update is 0 at every shot. The rules of
        the other built-in tasks are deterministic: one example settles them, and the evidence is not finite.
        """
        return np.full(len(examples), 0.0 if self.shuffled else np.nan)


def _again(pool: Sequence[Example]) -> dict[str, int]:
    """Queries that stand in a pool more than once, and how often."""
    return {query: n for query, n in Counter(e.query for e in pool).items() if n > 1}


def _word_list(name: str) -> tuple[Example, ...]:
    text = resources.files("bayes_icl").joinpath("words", f"{name}.csv").read_text(encoding="utf-8")
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


def load_tasks(specs: Sequence[str]) -> list[Task]:
    """The tasks that a command line names.

    Parameters
    ----------
    specs
        Each a built-in name, with settings after a colon if wanted; a CSV or JSONL file of examples; or a Python file,
        all of whose module-level `Task` objects are taken.

    Raises
    ------
    StatedError
        An unknown name or setting, an unreadable file, or two tasks of one name.
    """
    tasks = [task for spec in specs for task in _load(spec)]
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise StatedError(f"two tasks are called {name!r}: rename one")
    return tasks


def _load(spec: str) -> list[Task]:
    path = Path(spec)
    if path.suffix.lower() in FILES:
        if not path.is_file():
            raise StatedError(f"no task file {spec!r}: give an existing CSV, JSONL or Python file")
        return _tasks_of_module(path) if path.suffix.lower() == ".py" else [_task_of_table(path)]
    name, _, settings = spec.partition(":")
    if name not in BUILT_IN:
        raise unknown("task", name, BUILT_IN)
    check_name("a task", spec)
    return [BUILT_IN[name](spec, **_parse_settings(name, settings))] if settings else [BUILT_IN[name](name)]


def _parse_settings(name: str, text: str) -> dict[str, int | bool]:
    parameters = inspect.signature(BUILT_IN[name]).parameters
    known = [p.name for p in parameters.values() if p.annotation in ("int", "bool")]
    settings: dict[str, int | bool] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in known:
            if not known:
                raise StatedError(f"task {name!r} has no settings; got {part!r}")
            raise unknown(f"setting of task {name!r}:", key, known)
        if key in settings:
            raise StatedError(f"task {name!r}: {key} is given twice")
        whole = parameters[key].annotation == "int"
        if not re.fullmatch("[+-]?[0-9]+" if whole else "(?i:true|false)", value):
            wanted = "a whole number" if whole else "true or false"
            raise StatedError(f"task {name!r}: {key} must be {wanted}, not {value!r}")
        settings[key] = int(value) if whole else value.lower() == "true"
    if "low" in known:
        low, high = (settings.get(end, parameters[end].default) for end in ("low", "high"))
        if high - low >= MOST:
            raise StatedError(f"task {name!r}: from low={low} to high={high} are more than {MOST} numbers")
    return settings


def _task_of_table(path: Path) -> Task:
    """A table's task; what was made of the table is said on stderr."""
    known = ("query", "answer", "foil")
    lines, columns = read_table_file(path, known[:2], known[2:])
    pool: dict[Example, int] = {}
    for line, query, answer, foil in zip(lines, *(columns.get(name, [""] * len(lines)) for name in known)):
        if not query or not answer:
            raise StatedError(f"{path} line {line}: the {'answer' if query else 'query'} is empty")
        pool.setdefault(Example(query, answer, foil), line)
    if again := _again(list(pool)):
        query, times = next(iter(again.items()))
        where = [(str(line), e) for e, line in pool.items() if e.query == query]
        raise StatedError(
            f"{path}: {len(again)} queries stand there with different answers or foils, {query!r} {times} times (lines "
            f"{', '.join(line for line, _ in where)}: {', '.join(repr(e.answer) for _, e in where)}), so that what is "
            "right could be looked up, or is not known: keep one row each"
        )
    task = task_of_examples(path.stem, list(pool))
    form = {
        "label": f"labels ({', '.join(map(repr, task.labels[:6]))}{', ...' if len(task.labels) > 6 else ''})",
        "number": "numbers, on which `rule` rises with the form too",
        "free": "free text",
    }[task.form]
    notes = [f"{path}: {len(pool)} examples, written {task.template!r}, answers read as {form}"]
    if n := len(lines) - len(pool):
        notes.append(
            f"{n} of {len(lines)} rows repeat another and are left out: a query asked twice could be looked up"
        )
    if other := [name for name in columns if name not in known]:
        notes.append(f"not read: {', '.join(map(repr, other))}")
    print(shown("; ".join(notes)), file=sys.stderr)
    return task


def task_of_examples(name: str, pool: Sequence[Example]) -> Task:
    """A task from examples alone: its template, form and foils follow from the answers.

    More than one distinct answer, and at most one for every four examples, makes a closed set of labels, be they words
    or numbers. Else whole numbers are written ``(query, answer)`` and have form ``"number"``; the rest is ``"free"``.
    """
    pool = tuple(pool)
    answers = sorted({e.answer for e in pool})
    if 1 < len(answers) <= len(pool) / 4:
        return Task(name, pool, form="label", labels=tuple(answers))
    if all(a.isascii() and a.isdigit() for a in answers):
        return Task(name, pool, template=NUMBERS, form="number")
    return Task(name, pool, foils=len(answers) > 1)


def _tasks_of_module(path: Path) -> list[Task]:
    tasks = [value for value in vars(run_python(path)).values() if isinstance(value, Task)]
    if not tasks:
        raise StatedError(f"{path} defines no Task at module level")
    return tasks
