"""Tasks from a command line: built-in names with settings, tables of examples, Python files."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bayes_icl.core.errors import MOST, StatedError, check_name, shown, unknown
from bayes_icl.core.inputs import read_table_file, run_python
from bayes_icl.tasks.builtin import BUILT_IN
from bayes_icl.tasks.organism_tasks import ORGANISM_TASKS
from bayes_icl.tasks.pairs import BETWEEN, pair_of_tasks
from bayes_icl.tasks.processes import PROCESS_TASKS
from bayes_icl.tasks.task import NUMBERS, Example, Task, _again

TABLES = (".csv", ".jsonl")

FILES = (*TABLES, ".py")

NAMED = BUILT_IN | PROCESS_TASKS | ORGANISM_TASKS


def load_tasks(specs: Sequence[str]) -> list[Task]:
    """The tasks that a command line names.

    Parameters
    ----------
    specs
        Each a built-in name, with settings after a colon if wanted; a CSV or JSONL file of examples; a Python file,
        all of whose module-level `Task` objects are taken; or two of these with ``~`` between them, one task each: the
        answers of the second are then the foils of the first.

    Raises
    ------
    StatedError
        An unknown name or setting, an unreadable file, two tasks of one name, or a pair that is none.

    Examples
    --------
    >>> from bayes_icl.tasks import load_tasks
    >>> capital, affine = load_tasks(["capital", "affine:slope=3,intercept=1"])
    >>> affine.name, affine.pool[0]
    ('affine:slope=3,intercept=1', Example(query='10', answer='31', foil='', shown=''))
    """
    tasks = [task for spec in specs for task in _load(spec)]
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise StatedError(f"two tasks are called {name!r}: rename one")
    return tasks


def files_of(specs: Sequence[str]) -> list[Path]:
    """The files that tasks of a command line are read from."""
    parts = [part for spec in specs for part in _halves(spec)]
    return [Path(part) for part in dict.fromkeys(parts) if Path(part).suffix.lower() in FILES]


def _halves(spec: str) -> list[str]:
    """The two tasks of a pair; a file may have a tilde in its path, as that of a home folder."""
    a, between, b = spec.partition(BETWEEN)
    return [a, b] if a and between and b and not Path(spec).is_file() else [spec]


def _load(spec: str) -> list[Task]:
    if len(halves := _halves(spec)) == 2:
        check_name("a task", spec)
        pair = [_load(half) for half in halves]
        for half, tasks in zip(halves, pair):
            if len(tasks) > 1:
                raise StatedError(f"a pair is of two tasks, and {half!r} holds {len(tasks)}")
        return [pair_of_tasks(spec, *(tasks[0] for tasks in pair))]
    path = Path(spec)
    if path.suffix.lower() in FILES:
        if not path.is_file():
            raise StatedError(f"no task file {spec!r}: give an existing CSV, JSONL or Python file")
        return _tasks_of_module(path) if path.suffix.lower() == ".py" else [_task_of_table(path)]
    name, _, settings = spec.partition(":")
    if name not in NAMED:
        raise unknown("task", name, NAMED)
    check_name("a task", spec)
    return [NAMED[name](spec, **_parse_settings(name, settings))] if settings else [NAMED[name](name)]


# How a setting of each type is written, and what an error calls it.
WRITTEN = {
    "int": ("[+-]?[0-9]+", "a whole number"),
    "bool": ("(?i:true|false)", "true or false"),
    "float": (r"[0-9]*\.?[0-9]+", "a number of 0 or more"),
}


def _parse_settings(name: str, text: str) -> dict[str, int | bool | float]:
    parameters = inspect.signature(NAMED[name]).parameters
    known = [p.name for p in parameters.values() if p.annotation in WRITTEN]
    settings: dict[str, int | bool | float] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in known:
            if not known:
                raise StatedError(f"task {name!r} has no settings; got {part!r}")
            raise unknown(f"setting of task {name!r}:", key, known)
        if key in settings:
            raise StatedError(f"task {name!r}: {key} is given twice")
        kind = parameters[key].annotation
        pattern, wanted = WRITTEN[kind]
        if not re.fullmatch(pattern, value):
            raise StatedError(f"task {name!r}: {key} must be {wanted}, not {value!r}")
        settings[key] = value.lower() == "true" if kind == "bool" else int(value) if kind == "int" else float(value)
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

    Parameters
    ----------
    name
        Of the task.
    pool
        All examples, each query once.

    Examples
    --------
    >>> from bayes_icl.tasks import Example, task_of_examples
    >>> squares = task_of_examples("squares", [Example(str(x), str(x * x)) for x in range(10, 40)])
    >>> squares.form, squares.template
    ('number', '({query}, {answer})\\n')
    >>> parity = task_of_examples("parity", [Example(str(x), "odd" if x % 2 else "even") for x in range(10, 40)])
    >>> parity.form, parity.labels
    ('label', ('even', 'odd'))
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
