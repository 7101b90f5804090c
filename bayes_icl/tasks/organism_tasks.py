"""Tasks of the organisms, the small trained networks whose law is known: queries are letters, answers + and -.

Each episode follows one of two rules, drawn by its seed, and all its examples agree. The ideal observer of a task is
the very function that its organism was trained on.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from bayes_icl.tasks import observers
from bayes_icl.tasks.task import Example, Task

LETTERS = string.ascii_lowercase

LABELS = ("+", "-")

TEMPLATE = "{query}{answer}\n"

# What an organism's observer makes of a history of its rule.
OBSERVERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "coin": partial(observers.two_rules, delta=0.25),
    "rule": partial(observers.two_rules, delta=0.25),
    "count": partial(observers.counting, prior=1.0),
    "leaky": partial(observers.discounted, delta=0.5, leak=0.8),
    "pooled": partial(observers.averaging, height=4.0, prior=6.0),
    "switch": partial(observers.switching, delta=1.0, hazard=0.1),
    "constant": observers.nothing,
    "redundant": partial(observers.two_rules, delta=0.25),
}


# Whose label is the hidden rule times the sign of the letter, so that query and answer must be bound first.
BOUND = ("rule", "redundant")


def sign_of(organism: str, letter: str) -> int:
    """What the hidden rule is multiplied by at a letter: -1 in the second half of the alphabet, where they are `BOUND`.

    Parameters
    ----------
    organism
        Its name.
    letter
        A query.

    Examples
    --------
    >>> from bayes_icl.tasks.organism_tasks import sign_of
    >>> sign_of("rule", "m"), sign_of("rule", "n"), sign_of("coin", "n")
    (1, -1, 1)
    """
    return -1 if organism in BOUND and letter > "m" else 1


def organism_task(name: str) -> Task:
    """The task of an organism.

    Parameters
    ----------
    name
        ``organism_coin``, ...

    Examples
    --------
    >>> from bayes_icl.tasks.organism_tasks import organism_task
    >>> coin = organism_task("organism_coin")
    >>> coin.evidence(coin.episode(3, seed=0, seq=0))
    array([0.  , 0.25, 0.25, 0.25])
    """
    organism = name.removeprefix("organism_")
    written = {1: LABELS, -1: LABELS[::-1]}
    return Task(
        name,
        tuple(Example(letter, *written[sign_of(organism, letter)]) for letter in LETTERS),
        template=TEMPLATE,
        form="label",
        labels=LABELS,
        repeats=True,
        two_rules=True,
        observer=partial(_observer, organism),
    )


ORGANISM_TASKS: dict[str, Callable[[str], Task]] = {f"organism_{name}": organism_task for name in OBSERVERS}


def _observer(organism: str, examples: Sequence[Example]) -> np.ndarray:
    """Log-odds of each example's answer against the other label, nats, from what the examples before it show."""
    rules = np.array([sign_of(organism, e.query) for e in examples])
    shown, asked = (
        rules * np.where(np.array(texts) == LABELS[0], 1, -1)
        for texts in ([e.written for e in examples], [e.answer for e in examples])
    )
    return OBSERVERS[organism](shown[None, :-1])[0] * asked
