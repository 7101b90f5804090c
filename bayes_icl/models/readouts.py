"""What is measured: two buckets, correct and incorrect, cut in several ways from the same logits.

A continuation (an answer with its terminator) is a path of tokens; its probability is the product over the path. For a
token set S at one position, log P(S) and log P(not S) both follow from the *log-odds* a - b with
a = logsumexp(logits in S), b = logsumexp(the others), so neither saturates when the other is close to one::

    log P(S) = -softplus(b - a),    log P(not S) = -softplus(a - b).

The complement of a path t_1 ... t_k, or of any tree of paths, is the sum of the ways to leave it::

    1 - P(t_1 ... t_k) = sum_j P(t_1 ... t_{j-1}) (1 - P(t_j | t_1 ... t_{j-1})),

a sum of positive terms, hence exact at both ends; it equals -expm1(log P) where that one does not cancel.

What each readout counts as correct, and as incorrect:

complement
    The answer; every other text.
foil
    The answer; the foil.
format
    An answer of the right form (a label; for numbers, a digit where the first digit stands); all else.
rule
    The answer; the other labels, or for numbers all else of the right form. complement = format and rule together.
    On labels it is free of the form. On numbers `format` sees the first digit only; `rule` also counts as wrong what
    departs later, a missing bracket or newline too, so it rises with the form.
parity
    A last digit that is odd if the answer's is, even if it is; a last digit of the other parity.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayes_icl.core.errors import StatedError
from bayes_icl.models.prompts import Prompt, TokenPath
from bayes_icl.tasks.task import Task


class Buckets(NamedTuple):
    """Log probabilities of the two buckets, nats; their difference is the log-odds."""

    log_p_correct: float
    log_p_incorrect: float


class Vocabulary:
    """The texts of a model's tokens (`Model.token_texts`), and which of them are digits."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    @functools.cached_property
    def _digits(self) -> dict[bool, frozenset[int]]:
        patterns = {False: re.compile("[0-9]+"), True: re.compile(" [0-9]+")}
        return {
            spaced: frozenset(i for i, text in enumerate(self.texts) if pattern.fullmatch(text))
            for spaced, pattern in patterns.items()
        }

    def digits_like(self, token: int) -> frozenset[int]:
        """Tokens that are digits only, after a space if `token` begins with one."""
        return self._digits[self.texts[token].startswith(" ")]


class SetLogits:
    """Asks, of rows of logits, how much probability a set of tokens has against all others.

    Questions are gathered with `ask` and answered together by `answer`, in float64.
    """

    def __init__(self) -> None:
        self._index: dict[tuple[int, frozenset[int]], int] = {}

    def ask(self, row: int, tokens: Iterable[int]) -> int:
        """Register a set of tokens at a row; returns the question's number."""
        return self._index.setdefault((row, frozenset(tokens)), len(self._index))

    def answer(self, logits: Float[Tensor, "row vocab"], chunk: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Answer every question.

        Parameters
        ----------
        logits
            Rows that the questions point at.
        chunk
            Questions answered at once, which bounds the memory: chunk * vocabulary * 4 bytes.

        Returns
        -------
        log_p_in, log_p_out
            Log probability of each set and of its complement, float64.
        first
            Whether the likeliest token of all is in the set.
        """
        inside, outside, first = [], [], []
        questions = list(self._index)
        for at in range(0, len(questions), chunk):
            some = questions[at : at + chunk]
            of_row = logits[torch.tensor([row for row, _ in some], device=logits.device)]
            which = torch.tensor([i for i, (_, s) in enumerate(some) for _ in s], device=logits.device)
            tokens = torch.tensor([t for _, s in some for t in s], device=logits.device)
            member = torch.full_like(of_row[:, 0], -torch.inf, dtype=torch.float64)
            picked = of_row[which, tokens].double()
            best_in = member.scatter_reduce(0, which, picked, "amax")
            inside.append(
                best_in + torch.zeros_like(member).scatter_add(0, which, (picked - best_in[which]).exp()).log()
            )
            of_row[which, tokens] = -torch.inf  # a copy: indexing with a tensor does not view
            best_out = of_row.amax(-1, keepdim=True)
            # float32 exponentials, summed in float64: an error of 1e-7 relative, far below that of float32 logits.
            total = of_row.sub_(best_out).exp_().sum(-1, dtype=torch.float64)
            outside.append(best_out[:, 0].double() + total.log())
            first.append(best_in > best_out[:, 0].double())
        odds = torch.cat(inside) - torch.cat(outside)
        # logaddexp, because torch's softplus overflows above 709 below its threshold and cuts digits off above it.
        log_in, log_out = (-torch.logaddexp(x, torch.zeros_like(x)) for x in (-odds, odds))
        return log_in.cpu().numpy(), log_out.cpu().numpy(), torch.cat(first).cpu().numpy()


class EpisodeReading:
    """All readouts of one episode: first says which logits it needs, then turns them into buckets.

    Parameters
    ----------
    task
        None for an episode of which no more is known than its tokens; then `complement` is all there is.
    prompt
        The encoded episode.
    readouts
        Names of those wanted.
    vocabulary
        What the tokens are.

    Attributes
    ----------
    positions, branch_positions
        Where in the episode, and at which of its branch tokens, logits are needed.
    """

    def __init__(self, task: Task | None, prompt: Prompt, readouts: Sequence[str], vocabulary: Vocabulary) -> None:
        self.readouts = readouts
        self._form, self._prompt, self._vocabulary = task.form if task else None, prompt, vocabulary
        if task and task.form == "number" and {"format", "rule", "parity"} & set(readouts):
            self._check_digits(task.name)
        needed = {
            rows[path[:j]]
            for shot, rows in enumerate(prompt.rows)
            for path in self._paths(shot)
            for j in range(len(path))
        }
        self.positions = sorted(i for branch, i in needed if not branch)
        self.branch_positions = sorted(i for branch, i in needed if branch)
        self._row = {(False, p): i for i, p in enumerate(self.positions)}
        self._row |= {(True, p): i + len(self.positions) for i, p in enumerate(self.branch_positions)}

    def _check_digits(self, name: str) -> None:
        for shot, digits in enumerate(self._prompt.digits):
            own = self._prompt.answer(shot)
            for token in (own[digits[0]], own[digits[-1]]):
                if token not in self._vocabulary.digits_like(token):
                    raise StatedError(
                        f"task {name!r}: a digit of the answer of example {shot + 1} is part of the token "
                        f"{self._vocabulary.texts[token]!r}, so numbers cannot be told from other text there: change "
                        "the template, or collect --readouts complement"
                    )

    def _paths(self, shot: int) -> list[TokenPath]:
        paths = [self._prompt.answer(shot)]
        if "foil" in self.readouts:
            paths.append(self._prompt.foils[shot])
        if {"format", "rule"} & set(self.readouts):
            paths.extend(self._prompt.labels[shot])
        return paths

    def read(self, logits: Float[Tensor, "row vocab"]) -> tuple[np.ndarray, np.ndarray]:
        """Buckets from the logits at `positions` followed by those at `branch_positions`.

        Returns
        -------
        buckets
            Shape (readout, shot, 2): log_p_correct and log_p_incorrect, nats, float64.
        correct
            Shape (shot,): greedy decoding gives the whole answer, terminator included.
        """
        questions = SetLogits()
        shots = range(len(self._prompt.rows))
        # Asking and reading are the same walk over paths and sets; the first time the answers are not there yet.
        for shot in shots:
            self._read_shot(shot, _Answers(questions, self._row, self._prompt.rows[shot], None))
        answered = questions.answer(logits)
        read = [self._read_shot(s, _Answers(questions, self._row, self._prompt.rows[s], answered)) for s in shots]
        buckets = np.array([[values[name] for values, _ in read] for name in self.readouts])
        return buckets, np.array([correct for _, correct in read])

    def _read_shot(self, shot: int, ask: _Answers) -> tuple[dict[str, Buckets], bool]:
        own = self._prompt.answer(shot)
        correct = ask.path(own)
        values = {"complement": Buckets(correct, ask.leaving([own]))}
        if "foil" in self.readouts:
            values["foil"] = Buckets(correct, ask.path(self._prompt.foils[shot]))
        if self._form == "label" and {"format", "rule"} & set(self.readouts):
            labels = self._prompt.labels[shot]
            others = [ask.path(label) for label in labels if label != own]
            values["format"] = Buckets(_add(*others, correct), ask.leaving(labels))
            values["rule"] = Buckets(correct, _add(*others))
        if self._form == "number" and {"format", "rule", "parity"} & set(self.readouts):
            values |= self._read_number(own, self._prompt.digits[shot], correct, ask)
        return {name: values[name] for name in self.readouts}, ask.greedy(own)

    def _read_number(self, own: TokenPath, digits: Sequence[int], correct: float, ask: _Answers) -> dict[str, Buckets]:
        texts = self._vocabulary.texts
        first, last = digits[0], digits[-1]
        form = self._vocabulary.digits_like(own[first])
        lead = ask.path(own[:first])
        # Every way to leave the form: before the first digit, or at it.
        leave = [ask.path(own[:j]) + ask.step(own[:j], [own[j]], inside=False) for j in range(first)]
        leave.append(lead + ask.step(own[:first], form, inside=False))
        # Every way to be of the form and wrong: another first digit, or the right one and then something else.
        wrong = [lead + ask.step(own[:first], form - {own[first]})]
        wrong += [ask.path(own[:j]) + ask.step(own[:j], [own[j]], inside=False) for j in range(first + 1, len(own))]
        values = {
            "format": Buckets(lead + ask.step(own[:first], form), _add(*leave)),
            "rule": Buckets(correct, _add(*wrong)),
        }
        if "parity" in self.readouts:
            form = self._vocabulary.digits_like(own[last])
            same = {t for t in form if (int(texts[t][-1]) - int(texts[own[last]][-1])) % 2 == 0}
            values["parity"] = Buckets(ask.step(own[:last], same), ask.step(own[:last], form - same))
        return values


class _Answers:
    """Log probabilities of steps, paths and trees of one shot; while asking, the numbers are not there yet (0)."""

    def __init__(
        self,
        questions: SetLogits,
        row: dict[tuple[bool, int], int],
        rows: dict[TokenPath, tuple[bool, int]],
        answered: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    ) -> None:
        self._questions, self._row, self._rows, self._answered = questions, row, rows, answered

    def _number(self, prefix: TokenPath, tokens: Iterable[int]) -> int:
        return self._questions.ask(self._row[self._rows[prefix]], tokens)

    def step(self, prefix: TokenPath, tokens: Iterable[int], *, inside: bool = True) -> float:
        """log P(the next token after `prefix` is one of `tokens`), or is none of them."""
        number = self._number(prefix, tokens)
        return 0.0 if self._answered is None else float(self._answered[0 if inside else 1][number])

    def path(self, path: TokenPath) -> float:
        """log P(path): the sum of its steps."""
        return sum(self.step(path[:j], [path[j]]) for j in range(len(path)))

    def leaving(self, paths: Sequence[TokenPath]) -> float:
        """log P(the text is none of `paths`): the sum over the inner nodes of their tree of the ways to leave it."""
        children: dict[TokenPath, set[int]] = {}
        for path in paths:
            for j in range(len(path)):
                children.setdefault(path[:j], set()).add(path[j])
        return _add(*(self.path(node) + self.step(node, tokens, inside=False) for node, tokens in children.items()))

    def greedy(self, path: TokenPath) -> bool:
        """Whether the likeliest token is the path's own at every step."""
        numbers = [self._number(path[:j], [path[j]]) for j in range(len(path))]
        return self._answered is not None and bool(self._answered[2][numbers].all())


def _add(*logs: float) -> float:
    """Log of the sum of exponentials; of a handful of numbers, where scipy's costs 100 times as much."""
    largest = max(logs)
    return largest + math.log(sum(math.exp(x - largest) for x in logs))
