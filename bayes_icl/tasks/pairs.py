"""Pairs of tasks over the same queries: the answers of one are the foils of the other."""

from __future__ import annotations

import sys

from bayes_icl.core.errors import StatedError, shown
from bayes_icl.tasks.task import Example, Task

BETWEEN = "~"


def pair_of_tasks(name: str, a: Task, b: Task) -> Task:
    """The task whose rule A is that of `a` and whose rule B that of `b`, over the queries that tell them apart.

    What is left out is said on stderr.

    Parameters
    ----------
    name
        Of the pair.
    a, b
        Two tasks with one template, each of one answer a query.

    Raises
    ------
    StatedError
        Other templates, fewer than two queries in common with different answers, or a task that draws its answers.

    Examples
    --------
    >>> from bayes_icl.tasks import load_tasks
    >>> (pair,) = load_tasks(["affine~affine:intercept=5"])
    >>> pair.pool[0]
    Example(query='10', answer='23', foil='25', shown='')
    """
    for task in (a, b):
        if task.shuffled or task.two_rules or task.process is not None:
            raise StatedError(
                f"a pair of tasks needs two rules with one answer a query, and {task.name!r} draws its own"
            )
    if a.template != b.template:
        raise StatedError(
            f"{a.name!r} and {b.name!r} cannot be a pair: they are written {a.template!r} and {b.template!r}, and what "
            "tells the rules apart must be the answers alone"
        )
    of_b = {example.query: example.answer for example in b.pool}
    both = [example for example in a.pool if example.query in of_b]
    pool = tuple(Example(e.query, e.answer, of_b[e.query]) for e in both if e.answer != of_b[e.query])
    if len(pool) < 2:
        raise StatedError(
            f"{a.name!r} and {b.name!r} cannot be a pair: of {len(a.pool)} and {len(b.pool)} queries {len(both)} are "
            f"the same, and {len(pool)} of these have different answers; 2 are needed"
        )
    lacking = len({e.query for e in (*a.pool, *b.pool)}) - len({e.query for e in both})
    left = [f"{lacking} of one task only"] if lacking else []
    left += [f"{len(both) - len(pool)} on which they agree"] if len(both) > len(pool) else []
    if left:
        print(shown(f"{name}: {len(pool)} queries, without {' and '.join(left)}"), file=sys.stderr)
    closed = a.form == b.form == "label"
    form = "label" if closed else "number" if a.form == b.form == "number" else "free"
    return Task(
        name,
        pool,
        template=a.template,
        form=form,  # type: ignore[arg-type]
        labels=tuple(dict.fromkeys((*a.labels, *b.labels))) if closed else (),
        features=tuple(feature for feature in a.features if feature in b.features) if form == "number" else (),
        repeats=a.repeats or b.repeats,
    )
