"""Tasks: a rule, the pool of examples that an episode draws from, and how an example is written.

A user's own task is a CSV or JSONL file with the columns ``query``, ``answer`` and, if wanted, ``foil``, or a
`Task` built in Python. Built-in tasks take settings in their name: ``affine:slope=3,intercept=1,low=10,high=49``.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from bayes_icl.core.errors import StatedError, check_name, is_text, unknown

if TYPE_CHECKING:
    from bayes_icl.tasks.designs import Design
    from bayes_icl.tasks.processes import Process

WORDS = "{query} -> {answer}\n"

NUMBERS = "({query}, {answer})\n"

FORMS = ("label", "number", "free")

FEATURES = ("parity",)


@dataclass(frozen=True)
class Example:
    """One (query, answer) pair and, where the task has one, a foil: a named wrong answer of the same form.

    Attributes
    ----------
    query, answer
        As the template writes them.
    foil
        The wrong answer; empty where there is none. Of two rules, `answer` is what the first says and `foil` what the
        second does.
    shown
        What stands in the text; empty where that is the answer.

    Examples
    --------
    >>> from bayes_icl.tasks import Example
    >>> Example("go", "went", foil="goed")
    Example(query='go', answer='went', foil='goed', shown='')
    >>> Example("go", "went", foil="goed", shown="goed").written
    'goed'
    """

    query: str
    answer: str
    foil: str = ""
    shown: str = ""

    @property
    def written(self) -> str:
        """What stands in the text as its answer."""
        return self.shown or self.answer


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
    two_rules
        Let half of the episodes, drawn by the seed, follow the rule of the foils: answers and foils change places.
    observer
        An ideal observer: from an episode's examples to the log-odds of each answer against its foil, nats, shape
        (example,), given what the examples before it showed.
    preamble
        Text in front of the first example.
    process
        Draws the symbols of a task without a query (`bayes_icl.tasks.processes`), whose template has no ``{query}``.
    design, base
        What the examples show (`bayes_icl.tasks.designs`), and the task's name without it, by which episodes are drawn;
        None and empty where examples show their answers.

    Examples
    --------
    >>> from bayes_icl.tasks import Example, Task
    >>> pool = Example("sky", "blue"), Example("grass", "green"), Example("snow", "white")
    >>> Task("colours", pool).readouts
    ('complement', 'foil')
    >>> Task("bright", (Example("snow", "yes"), Example("coal", "no")), form="label", labels=("yes", "no")).readouts
    ('complement', 'foil', 'format', 'rule')
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
    two_rules: bool = False
    observer: Callable[[Sequence[Example]], np.ndarray] | None = None
    preamble: str = ""
    process: Process | None = None
    design: Design | None = None
    base: str = ""

    def __post_init__(self) -> None:
        check_name("a task", self.name)
        for name in ("pool", "labels", "features"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise StatedError(f"task {self.name!r}: {name} must be several, as in ({given!r},), not one")
            object.__setattr__(self, name, tuple(given))
        if not self.pool:
            raise StatedError(f"task {self.name!r} has no examples")
        for text in (self.template, self.preamble, *self.labels):
            if not is_text(text):
                raise StatedError(f"task {self.name!r}: template, preamble and labels must be text, got {text!r}")
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
        if self.two_rules and not all(getattr(example, "foil", "") for example in self.pool):
            raise StatedError(f"task {self.name!r}: two_rules needs a foil for every example: the other rule's answer")
        for example in self.pool:
            if not isinstance(example, Example):
                raise StatedError(f"task {self.name!r}: the pool holds examples, as Example('2', '5'), not {example!r}")
            if not all(is_text(text) for text in (example.query, example.answer, example.foil, example.shown)):
                raise StatedError(f"task {self.name!r}: query, answer, foil and shown must be text: {example}")
            if not (example.query or self.process) or not example.answer:
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
        if parts[1::2] != ["{query}", "{answer}"][self.process is not None :] or not parts[-1].strip(" "):
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

    @property
    def two_known_rules(self) -> bool:
        """Whether foils are what another rule says: the pool names them all, or there are two labels."""
        return all(example.foil for example in self.pool) or (self.foils and len(self.labels) == 2)

    def generator(self, seed: int, seq: int, *stream: int) -> np.random.Generator:
        """Random numbers of a sequence; the same under every design of a task."""
        return np.random.default_rng([seed, zlib.crc32((self.base or self.name).encode()), seq, *stream])

    def episode(self, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Draw the ``n_shots + 1`` examples of sequence `seq`, under the task's design.

        A longer episode of the same seed begins with the shorter one (but where a design says otherwise), and what
        other tasks are read beside it changes nothing.

        Parameters
        ----------
        n_shots
            Examples shown before the last query.
        seed
            Of the whole collection.
        seq
            Number of the sequence, from 0.

        Examples
        --------
        >>> from bayes_icl.tasks import load_tasks
        >>> (task,) = load_tasks(["capital"])
        >>> long, short = task.episode(8, seed=0, seq=3), task.episode(4, seed=0, seq=3)
        >>> len(long), long[:5] == short
        (9, True)
        """
        if self.design is None:
            return self.drawn(n_shots, seed, seq)
        return self.design.episode(self, n_shots, seed, seq)

    def drawn(self, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Draw the examples of sequence `seq` as they are without a design.

        Parameters
        ----------
        n_shots, seed, seq
            As in `episode`.
        """
        n = n_shots + 1
        if self.process is not None:
            return self.process.draw(self, n, seed, seq)
        if n > len(self.pool) and not self.repeats:
            raise StatedError(
                f"task {self.name!r} has {len(self.pool)} examples, so at most {len(self.pool) - 1} shots without a "
                f"repeat; {n_shots} were asked for: lower --n-shots or give it more examples"
            )
        rng = self.generator(seed, seq)
        order = rng.integers(len(self.pool), size=n) if self.repeats else rng.permutation(len(self.pool))
        drawn = [self.pool[i] for i in order[:n]]
        # A generator per shot keeps the draws of shot i the same however many follow.
        per_shot = [self.generator(seed, seq, i) for i in range(n)]
        if self.shuffled:
            drawn = [replace(e, answer=str(r.choice(self.labels)), foil="") for e, r in zip(drawn, per_shot)]
        if self.two_rules and self.generator(seed, seq, 0).integers(2):
            drawn = [replace(e, answer=e.foil, foil=e.answer) for e in drawn]
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

        It is the difference of the observer's log-odds from the shot before, 0 at the first. Random labels carry no
        evidence about the next one, so the update is 0 at every shot. The rules of most built-in tasks are
        deterministic: one example settles them, and the evidence is not finite.

        Parameters
        ----------
        examples
            An episode, as `episode` draws it.

        Examples
        --------
        >>> from bayes_icl.tasks import load_tasks
        >>> null, capital = load_tasks(["random_labels", "capital"])
        >>> null.evidence(null.episode(2, seed=0, seq=0))
        array([0., 0., 0.])
        >>> capital.evidence(capital.episode(2, seed=0, seq=0))
        array([nan, nan, nan])
        """
        known = self.ideal_log_odds(examples)
        return np.diff(known, prepend=known[:1])

    def ideal_log_odds(self, examples: Sequence[Example]) -> np.ndarray:
        """The ideal observer's log-odds of each answer against its foil, shape (len(examples),), nats.

        NaN where there is no observer: the task has none of its own, and its design none for two known rules.

        Parameters
        ----------
        examples
            An episode, as `episode` draws it; each is judged by what those before it show.

        Examples
        --------
        >>> from bayes_icl.tasks import load_tasks, under_designs
        >>> (task,) = under_designs(load_tasks(["category"]), ["noise:p=0.2"], n_shots=4)
        >>> episode = task.episode(4, seed=0, seq=0)
        >>> task.history(episode), task.ideal_log_odds(episode).round(2)
        (array([ 1., -1.,  1.,  1.,  1.]), array([0.  , 0.75, 0.  , 0.75, 1.18]))
        """
        if self.process is not None:
            return self.process.log_odds(examples)
        if self.observer is not None:
            return np.asarray(self.observer(examples), float)
        if self.shuffled:
            return np.zeros(len(examples))
        if self.design is not None and self.two_known_rules:
            ideal = self.design.observer(self.history(examples)[None, :-1])
            if ideal is not None:
                return ideal[0]
        return np.full(len(examples), np.nan)

    def history(self, examples: Sequence[Example]) -> np.ndarray:
        """What each example shows, shape (len(examples),): 1 its answer, -1 its foil, 0 neither; NaN without a foil.

        Of a task without a query: 1 the symbol that is asked, -1 another.

        Parameters
        ----------
        examples
            An episode, as `episode` draws it.
        """
        if self.process is not None:
            return np.array([1.0 if e.written == e.answer else -1.0 for e in examples])
        if not all(example.foil for example in examples):
            return np.full(len(examples), np.nan)
        return np.array([float(e.written == e.answer) - float(e.written == e.foil) for e in examples])


def _again(pool: Sequence[Example]) -> dict[str, int]:
    """Queries that stand in a pool more than once, and how often."""
    return {query: n for query, n in Counter(e.query for e in pool).items() if n > 1}
