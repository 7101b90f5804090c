"""Tasks without a query: coins, urns and Markov chains, whose next symbol is asked at every position.

The answer is the first symbol throughout, whatever is drawn, so that log-odds have one orientation in a sequence:
log P(the first symbol) - log P(the others), which is the readout `rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bayes_icl.core.errors import StatedError
from bayes_icl.tasks.task import Example, Task

SIDES = ("heads", "tails")

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")

STATES = ("sun", "rain", "snow", "wind", "cloud", "storm")

TEMPLATE = " {answer},"  # a word in the middle of a line is one token for most tokenizers


@dataclass(frozen=True)
class Process:
    """Symbols drawn one after the other, with probabilities of each sequence's own.

    Attributes
    ----------
    symbols
        As they are written; the first is the one that is asked.
    alpha
        Probabilities are drawn from Dirichlet(alpha, ..., alpha), once a sequence; the observer's prior.
    bias
        Probability of the first of two symbols, the same in all sequences; None where it is drawn. The observer does
        not know it.
    chain
        Draw by the symbol before: a row of probabilities for each.

    Examples
    --------
    >>> from bayes_icl.tasks import load_tasks
    >>> (coin,) = load_tasks(["coin:bias=0.75"])
    >>> flips = coin.episode(4, seed=0, seq=2)
    >>> [flip.written for flip in flips]
    ['heads', 'heads', 'tails', 'heads', 'heads']
    >>> coin.ideal_log_odds(flips).round(2)
    array([0.  , 0.69, 1.1 , 0.41, 0.69])
    """

    symbols: tuple[str, ...]
    alpha: float = 1.0
    bias: float | None = None
    chain: bool = False

    def draw(self, task: Task, n: int, seed: int, seq: int) -> tuple[Example, ...]:
        """Draw the first `n` symbols of a sequence.

        Parameters
        ----------
        task
            Whose generator is used.
        n
            How many; more begin with fewer.
        seed, seq
            As in `Task.episode`.
        """
        k = len(self.symbols)
        rows = task.generator(seed, seq).dirichlet([self.alpha] * k, size=k if self.chain else 1)
        if self.bias is not None:
            rows = np.array([[self.bias, 1 - self.bias]])
        found = [int(task.generator(seed, seq, 0, 4).integers(k)) if self.chain else 0]  # where a chain comes from
        for i in range(n):
            row = rows[found[-1] if self.chain else 0]
            found.append(min(int(np.searchsorted(np.cumsum(row), task.generator(seed, seq, i).random())), k - 1))
        asked, other = self.symbols[0], self.symbols[1] if k == 2 else ""
        return tuple(Example("", asked, other, shown=self.symbols[i] if i else "") for i in found[1:])

    def log_odds(self, examples: Sequence[Example]) -> np.ndarray:
        """Dirichlet counting: log-odds of the first symbol against the others, shape (example,), nats.

        Parameters
        ----------
        examples
            An episode; each is judged by what those before it show.
        """
        k, shown = len(self.symbols), [self.symbols.index(example.written) for example in examples]
        # What came before the first symbol of a chain is not known, and tells nothing.
        counts, now, odds = np.full((k + 1, k), self.alpha), k, []
        for symbol in shown:
            row = counts[now if self.chain else 0]
            odds.append(np.log(row[0]) - np.log(row[1:].sum()))
            row[symbol] += 1
            now = symbol
        return np.array(odds)


def _task(name: str, preamble: str, process: Process) -> Task:
    pool, pair = tuple(Example("", symbol) for symbol in process.symbols), len(process.symbols) == 2
    own = dict(template=TEMPLATE, form="label", labels=process.symbols, repeats=True, foils=pair, preamble=preamble)
    return Task(name, pool, **own, process=process)  # type: ignore[arg-type]


def _coin(name: str, bias: float = 0.75) -> Task:
    if not 0 < bias < 1:
        raise StatedError(f"task 'coin': bias must be between 0 and 1, got {bias:g}")
    return _task(name, "Flips:", Process(SIDES, bias=bias))


def _urn(name: str, colours: int = 3, alpha: float = 1.0) -> Task:
    return _task(name, "Drawn:", Process(_some("urn", "colours", COLOURS, colours), _positive("urn", alpha)))


def _markov(name: str, states: int = 3, alpha: float = 1.0) -> Task:
    of = _some("markov", "states", STATES, states)
    return _task(name, "Weather:", Process(of, _positive("markov", alpha), chain=True))


def _some(task: str, setting: str, words: tuple[str, ...], n: int) -> tuple[str, ...]:
    if not 2 <= n <= len(words):
        raise StatedError(f"task {task!r}: {setting} must be from 2 to {len(words)}, got {n}")
    return words[:n]


def _positive(task: str, alpha: float) -> float:
    if not 0 < alpha <= 1e6:
        raise StatedError(f"task {task!r}: alpha must be above 0, and 1e6 at most, got {alpha:g}")
    return alpha


PROCESS_TASKS: dict[str, Callable[..., Task]] = {"coin": _coin, "urn": _urn, "markov": _markov}
