"""Designs: what the examples of an episode show, and in which order they stand.

Of a task and its foils, rule A gives the answers and rule B the foils. What is read at every shot is A's answer
against B's, whatever stands in the text. A design leaves queries as they are drawn, so that episodes of one seed and
sequence ask the same under every design, but for `orders` and `repeat`, which are about which examples there are.

On a command line: ``noise:p=0.2``, ``switch:at=16``, ``mixed:share=0.5``, ``orders:k=8``, ``repeat:times=4``,
``prior:text=Pay attention.``, ``blocks:size=1``, and ``plain``.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from bayes_icl.core.errors import MOST, MOST_NAME, StatedError, is_text, shown, unknown
from bayes_icl.tasks import observers
from bayes_icl.tasks.task import Example, Task

PLAIN = "plain"


@dataclass(frozen=True)
class Design:
    """What the examples of an episode show; the classes below are the designs, by their `kind`."""

    kind: ClassVar[str]
    needs_foils: ClassVar[bool] = False
    takes_processes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """State a setting that is out of its bounds."""

    @property
    def spec(self) -> str:
        """The design as a command line gives it, with all that was given or follows from the number of shots."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return f"{self.kind}:" + ",".join(
            f"{key}={_written(value)}" for key, value in given.items() if value is not None
        )

    def name(self, room: int) -> str:
        """What is added to a task's name: its first setting, and those that are not the usual ones.

        Parameters
        ----------
        room
            Characters that there are for it.
        """
        first, *others = dataclasses.fields(self)
        said = [first, *(f for f in others if getattr(self, f.name) != f.default)]
        return f"{self.kind}({','.join(f'{f.name}={_written(getattr(self, f.name))}' for f in said)})"

    def settled(self, n_shots: int) -> Design:
        """The design with the settings that follow from the number of shots."""
        return self

    def check(self, task: Task, n_shots: int, n_seqs: int) -> None:
        """State what of a task or collection does not go with the design."""
        if task.process is not None:
            if not self.takes_processes:
                raise StatedError(
                    f"task {task.base!r} draws its symbols itself, so that `{self.kind}` has nothing to show in their "
                    f"place: leave it out of --design {self.kind}"
                )
        elif self.needs_foils and "foil" not in task.readouts:
            raise StatedError(
                f"task {task.base!r} has no foils, and the examples of `{self.kind}` show them: give it a foil column, "
                f"or leave it out of --design {self.kind}"
            )

    def episode(self, task: Task, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Examples of a sequence under this design, as `Task.episode` gives them."""
        return task.drawn(n_shots, seed, seq)

    def observer(self, history: observers.History) -> np.ndarray | None:
        """Log-odds of A's answer against B's, nats, shape (seq, shot + 1), of one who knows both rules and the design.

        Parameters
        ----------
        history
            What the examples showed, as in `observers`; None is returned where the design leaves nothing to weigh.
        """
        return None

    def set_of(self, seq: int) -> int:
        """Which sequences have the same examples; -1 where none do."""
        return -1

    @property
    def preamble(self) -> str:
        """Text in front of the first example."""
        return ""

    @property
    def block(self) -> int:
        """How many examples see one another; 0 where all do."""
        return 0

    def _bound(self, name: str, low: float, high: float, within: bool = False) -> None:
        """State a setting that is not between two bounds; `within` leaves the bounds themselves out."""
        given = getattr(self, name)
        if not (low < given < high if within else low <= given <= high):
            more = f"{low:g} or more" if high == MOST else f"{'between' if within else 'from'} {low:g} "
            more += "" if high == MOST else f"{'and' if within else 'to'} {high:g}"
            raise StatedError(f"design {self.kind!r}: {name} must be {more}, got {given:g}")


@dataclass(frozen=True)
class Noise(Design):
    """Every example shows B with probability `p`."""

    kind = "noise"
    needs_foils, takes_processes = True, False
    p: float = 0.2

    def __post_init__(self) -> None:
        """State a p that leaves nothing to weigh."""
        self._bound("p", 0, 1, within=True)

    def episode(self, task: Task, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Examples of a sequence: the numbers that decide are the same for every `p`."""
        drawn = task.drawn(n_shots, seed, seq)
        return tuple(_shows(e, task.generator(seed, seq, i, 1).random() < self.p) for i, e in enumerate(drawn))

    def observer(self, history: observers.History) -> np.ndarray:
        """Log-odds of what the next example shows, where one rule holds throughout and `p` is known."""
        delta = math.log1p(-self.p) - math.log(self.p)
        return observers.predictive(observers.two_rules(history, delta), self.p)


@dataclass(frozen=True)
class Switch(Design):
    """The first `at` examples show A (half of all, if not given), those after them B."""

    kind = "switch"
    needs_foils, takes_processes = True, False
    at: int | None = None
    p: float = 0.05  # of the observer: share of examples that show the rule that does not hold
    hazard: float | None = None  # of the observer: 1 / (n_shots + 1), if not given

    def __post_init__(self) -> None:
        """State settings with which nothing can be weighed."""
        self._bound("p", 0, 1, within=True)
        if self.at is not None:
            self._bound("at", 1, MOST)
        if self.hazard is not None:
            self._bound("hazard", 0, 1, within=True)

    def settled(self, n_shots: int) -> Switch:
        """The design with the number of examples that show A."""
        return self if self.at is not None else replace(self, at=max(n_shots // 2, 1))

    def check(self, task: Task, n_shots: int, n_seqs: int) -> None:
        """State a switch that would come after the last example."""
        super().check(task, n_shots, n_seqs)
        if self.at is not None and self.at >= n_shots:
            raise StatedError(
                f"design 'switch': at must be below --n-shots {n_shots}, got {self.at}: nothing would change"
            )

    def episode(self, task: Task, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Examples of a sequence."""
        at = self.settled(n_shots).at or 1
        return tuple(_shows(e, i >= at) for i, e in enumerate(task.drawn(n_shots, seed, seq)))

    def observer(self, history: observers.History) -> np.ndarray:
        """Log-odds of what the next example shows, where the rule may change before each with probability `hazard`."""
        hazard = self.hazard or 1 / (history.shape[1] + 1)
        delta = math.log1p(-self.p) - math.log(self.p)
        return observers.predictive(observers.switching(history, delta, hazard), self.p)


@dataclass(frozen=True)
class Mixed(Design):
    """A `share` of the examples shows B, exactly, at places drawn by the seed; which depend on how many there are."""

    kind = "mixed"
    needs_foils, takes_processes = True, False
    share: float = 0.5

    def __post_init__(self) -> None:
        """State a share that is none."""
        self._bound("share", 0, 1)

    def episode(self, task: Task, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Examples of a sequence; the last, which none follows, shows A."""
        order = task.generator(seed, seq, 0, 2).permutation(n_shots)
        of_b = set(order[: math.floor(self.share * n_shots + 0.5)].tolist())
        return tuple(_shows(e, i in of_b) for i, e in enumerate(task.drawn(n_shots, seed, seq)))

    def observer(self, history: observers.History) -> np.ndarray:
        """Log-odds of what the next example shows, where the share of A is unknown: counting from Beta(1, 1)."""
        return observers.counting(history)


@dataclass(frozen=True)
class Orders(Design):
    """Sets of `k` sequences with the same examples, of which the `first` ones (half, if not given) change places.

    Each example shows B with probability `p`; symbols of a task without a query stay as drawn. All that stands after
    the first ones is in the same place, so that from shot `first` on the queries of a set have the same examples before
    them, in `k` orders.
    """

    kind = "orders"
    needs_foils = True
    k: int = 8
    first: int | None = None
    p: float = 0.5

    def __post_init__(self) -> None:
        """State settings that give no orders."""
        self._bound("k", 2, MOST)
        self._bound("p", 0, 1)
        if self.first is not None:
            self._bound("first", 2, MOST)

    def check(self, task: Task, n_shots: int, n_seqs: int) -> None:
        """State sequences that are no whole number of sets, and too few examples for `k` orders."""
        super().check(task, n_shots, n_seqs)
        first = self.first or n_shots // 2
        if n_seqs % self.k:
            near = max(n_seqs // self.k, 1) * self.k
            raise StatedError(
                f"design 'orders' reads sets of k={self.k} sequences, and {n_seqs} are no multiple of it: give --n-seqs"
                f" {near}, or {near + self.k}"
            )
        if first > n_shots or math.factorial(min(first, 20)) < self.k:
            raise StatedError(
                f"design 'orders': the first {first} of {n_shots} examples do not have {self.k} orders: give another "
                "first, a smaller k or more --n-shots"
            )

    def episode(self, task: Task, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Examples of a sequence; the first of a set has them as they were drawn."""
        which, member = divmod(seq, self.k)
        first = self.first or n_shots // 2
        shows = [
            _shows(e, task.process is None and task.generator(seed, which, i, 1).random() < self.p)
            for i, e in enumerate(task.drawn(n_shots, seed, which))
        ]
        rng, orders = task.generator(seed, which, first, 3), [tuple(range(first))]
        while len(orders) <= member:
            if (order := tuple(rng.permutation(first).tolist())) not in orders:
                orders.append(order)
        return (*(shows[i] for i in orders[member]), *shows[first:])

    def observer(self, history: observers.History) -> np.ndarray:
        """Log-odds of what the next example shows, where the share of A is unknown: counting from Beta(1, 1)."""
        return observers.counting(history)

    def set_of(self, seq: int) -> int:
        """Sequences of a set have the same examples in other orders."""
        return seq // self.k


@dataclass(frozen=True)
class Repeat(Design):
    """Few examples, each standing `times` times, in cycles; the last query is a new one."""

    kind = "repeat"
    times: int = 4

    def __post_init__(self) -> None:
        """State a number of times that is no repeat."""
        self._bound("times", 2, MOST)

    def check(self, task: Task, n_shots: int, n_seqs: int) -> None:
        """State examples that are no whole number of cycles."""
        super().check(task, n_shots, n_seqs)
        if n_shots % self.times:
            near = max(n_shots // self.times, 1) * self.times
            raise StatedError(
                f"design 'repeat' shows every example {self.times} times, and --n-shots {n_shots} is no multiple of "
                f"it: give {near}, or {near + self.times}"
            )

    def episode(self, task: Task, n_shots: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Examples of a sequence: those of the shorter plain one, in cycles, then its last."""
        *examples, last = task.drawn(n_shots // self.times, seed, seq)
        return (*examples * self.times, last)


@dataclass(frozen=True)
class Prior(Design):
    """A text of its own in front of the examples, on a line of its own: an instruction, a persona, a hint."""

    kind = "prior"
    text: str = ""

    def __post_init__(self) -> None:
        """State a text that says nothing."""
        if not is_text(self.text) or not self.text.strip():
            raise StatedError(
                "design 'prior' needs a text, as in --design 'prior:text=Sort the words into two groups.'"
            )

    def name(self, room: int) -> str:
        """What is added to a task's name: the text, or its first words and a hash of it."""
        text, room = shown(self.text), room - len("prior(text=)")
        if len(text) > min(room, 30):
            mark = f"...#{zlib.crc32(self.text.encode()):08x}"
            cut = text[: max(min(room, 30) - len(mark), 0)]
            text = (cut.rsplit(" ", 1)[0] if " " in cut.strip() else cut) + mark
        return f"prior(text={text})"

    @property
    def preamble(self) -> str:
        """The text and the end of its line."""
        return self.text.rstrip("\n") + "\n"


@dataclass(frozen=True)
class Blocks(Design):
    """Plain examples that attend within blocks of `size` only, and to the first token; queries attend to all."""

    kind = "blocks"
    size: int = 1

    def __post_init__(self) -> None:
        """State a size that holds no example."""
        self._bound("size", 1, MOST)

    @property
    def block(self) -> int:
        """How many examples see one another."""
        return self.size


DESIGNS: dict[str, type[Design]] = {
    design.kind: design for design in (Noise, Switch, Mixed, Orders, Repeat, Prior, Blocks)
}


def parse_design(spec: str) -> Design | None:
    """A design as a command line gives it; None for ``plain``.

    Parameters
    ----------
    spec
        Its name, with settings after a colon if wanted. The text of `prior` goes on to the end; quotation marks around
        it are left out.

    Raises
    ------
    StatedError
        An unknown design or setting, or one that is out of its bounds.
    """
    kind, _, text = spec.partition(":")
    if kind == PLAIN and not text:
        return None
    if kind not in DESIGNS:
        raise unknown("design", kind, (PLAIN, *DESIGNS))
    made, fields = DESIGNS[kind], {f.name: str(f.type).split(" ")[0] for f in dataclasses.fields(DESIGNS[kind])}
    if kind == Prior.kind:
        key, _, value = text.partition("=")
        if text and key != "text":
            raise unknown("setting of design 'prior':", key, fields)
        quoted = len(value) > 1 and value[0] == value[-1] in "\"'"
        return Prior(value[1:-1] if quoted else value)
    settings: dict[str, int | float] = {}
    for part in text.split(",") if text else ():
        key, _, value = part.partition("=")
        if key not in fields:
            raise unknown(f"setting of design {kind!r}:", key, fields)
        if key in settings:
            raise StatedError(f"design {kind!r}: {key} is given twice")
        settings[key] = _number(kind, key, value, whole=fields[key] == "int")
    return made(**settings)


def under_designs(tasks: Sequence[Task], designs: Iterable[str | Design], n_shots: int) -> list[Task]:
    """Every task under every design, each a task of its own.

    Parameters
    ----------
    tasks
        As `load_tasks` returns them, or your own.
    designs
        As on a command line, or objects of `bayes_icl.tasks.designs`.
    n_shots
        Examples shown at most, from which some settings follow.

    Raises
    ------
    StatedError
        An unknown design or setting, a design given twice, or a task that it does not go with.

    Examples
    --------
    >>> from bayes_icl.tasks import load_tasks, under_designs
    >>> plain, switched = under_designs(load_tasks(["category"]), ["plain", "switch"], n_shots=4)
    >>> plain.name, switched.name
    ('category', 'category+switch(at=2)')
    >>> [example.written == example.answer for example in switched.episode(4, seed=0, seq=0)]
    [True, True, False, False, False]
    """
    parsed = [parse_design(design) if isinstance(design, str) else design for design in designs]
    if not parsed:
        raise StatedError("no designs: name at least one, as in --design plain")
    for design in parsed:
        if parsed.count(design) > 1:
            raise StatedError(f"design {design.spec if design else PLAIN!r} is given twice")
    return [_under(task, design, n_shots) for task in tasks for design in parsed]


def _under(task: Task, design: Design | None, n_shots: int) -> Task:
    if design is None:
        return task
    design = design.settled(n_shots)
    name = f"{task.name}+{design.name(MOST_NAME - len(task.name) - 1)}"
    return replace(task, name=name, base=task.name, design=design, preamble=design.preamble + task.preamble)


def _shows(example: Example, of_b: bool) -> Example:
    """The example, with B's answer in its place where that is to be shown."""
    return replace(example, shown=example.foil) if of_b else example


def _written(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _number(kind: str, key: str, text: str, *, whole: bool) -> int | float:
    """A setting's number as it is written."""
    if not re.fullmatch("[0-9]{1,9}" if whole else r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?", text):
        wanted = "a whole number" if whole else "a number"
        raise StatedError(f"design {kind!r}: {key} must be {wanted} of 0 or more, not {text!r}")
    return int(text) if whole else float(text)
