"""From examples to tokens: where each answer stands, and the other answers that branch off there.

Every off-by-one of the project is decided here. The text of an episode is tokenised once; an answer's tokens are
``tokens[start:stop]``, its terminator included, and a word-boundary space belongs to the answer, not to the query
(so ``(28, 59)`` has the answer " 59" and the terminator ")" + newline). The distribution of the token at position i
is read at position i - 1. Where an example shows something else than its answer, that stands in the episode, and the
answer is one of those that branch off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from bayes_icl.core.errors import StatedError
from bayes_icl.models.tokenising import covering, locate
from bayes_icl.tasks.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that separate documents in the training data of models whose tokenizer adds no BOS.
DOCUMENT_SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>")

TokenPath = tuple[int, ...]  # tokens of a continuation, terminator included


@dataclass(frozen=True)
class Branches:
    """Tokens of other answers, appended to an episode in a second pass over its cached prefix.

    A branch token sees the first `attach` tokens of the episode and its own ancestors, nothing else.

    Attributes
    ----------
    tokens, parent, attach, depth
        One entry a branch token; `parent` is the index of the branch token before it, or -1 where it follows the
        episode itself; it stands at position ``attach + depth``.
    """

    tokens: Int[np.ndarray, " branch"]
    parent: Int[np.ndarray, " branch"]
    attach: Int[np.ndarray, " branch"]
    depth: Int[np.ndarray, " branch"]

    def path(self, i: int) -> list[int]:
        """A branch token's ancestors, from the episode on, and itself."""
        path = [i]
        while self.parent[path[0]] >= 0:
            path.insert(0, int(self.parent[path[0]]))
        return path

    def visible(self, n_tokens: int) -> Bool[np.ndarray, "branch seen"]:
        """What each branch token may attend to: `n_tokens` of the episode, then the branch tokens."""
        n = len(self.tokens)
        seen = np.zeros((n, n_tokens + n), dtype=bool)
        for i in range(n):
            if self.parent[i] >= 0:
                seen[i, n_tokens:] = seen[self.parent[i], n_tokens:]
            seen[i, : self.attach[i]] = True
            seen[i, n_tokens + i] = True
        return seen


@dataclass(frozen=True)
class Prompt:
    """An episode as one model reads it.

    Attributes
    ----------
    tokens
        The whole episode, BOS included.
    answer_start, answer_stop
        Per shot: what is shown as answer, with its terminator, is ``tokens[start:stop]``.
    foils
        Per shot: the tokens of the foil with its terminator, empty where there is none.
    labels
        Per shot: the tokens of every label with its terminator, in the task's order; empty for tasks without.
    branches
        The tokens that `foils`, `labels` and `answers` need beyond the episode's own.
    rows
        Per shot, the row of logits that predicts what follows a prefix of a continuation: ``(False, position)`` in the
        episode, ``(True, index)`` among the branch tokens.
    query_start, query_stop
        Per shot: ``tokens[start:stop]`` are those that hold some of the query's text.
    digits
        Per shot of a task of numbers: which of the answer's tokens hold its digits, counted from its first;
        a terminator's digits are none of them.
    answers
        Per shot: the tokens of the answer with its terminator; empty where every example shows its answer.
    head
        How many tokens stand before the first example.
    blocks
        Per token the block that it sees (`bayes_icl.models.blocks`); None where all see all that is before them.

    Examples
    --------
    >>> from bayes_icl.models import load_model
    >>> from bayes_icl.models.prompts import encode_episode
    >>> from bayes_icl.tasks import load_tasks
    >>> (task,) = load_tasks(["capital"])
    >>> episode, tokenizer = task.episode(2, seed=0, seq=0), load_model("tiny", "cpu").tokenizer
    >>> prompt = encode_episode(task, episode, tokenizer)
    >>> tokenizer.decode(prompt.answer(1)).strip() == episode[1].answer
    True
    """

    tokens: Int[np.ndarray, " pos"]
    answer_start: Int[np.ndarray, " shot"]
    answer_stop: Int[np.ndarray, " shot"]
    foils: tuple[TokenPath, ...]
    labels: tuple[tuple[TokenPath, ...], ...]
    branches: Branches
    rows: tuple[dict[TokenPath, tuple[bool, int]], ...]
    query_start: Int[np.ndarray, " shot"]
    query_stop: Int[np.ndarray, " shot"]
    digits: tuple[tuple[int, ...], ...] = ()
    answers: tuple[TokenPath, ...] = ()
    head: int = 1
    blocks: Int[np.ndarray, " pos"] | None = None

    def answer(self, shot: int) -> TokenPath:
        """Tokens of the true answer, terminator included, whatever is shown."""
        return self.answers[shot] if self.answers else self.shown(shot)

    def shown(self, shot: int) -> TokenPath:
        """Tokens of what stands in the episode as answer, terminator included."""
        return tuple(self.tokens[self.answer_start[shot] : self.answer_stop[shot]].tolist())


def first_token(tokenizer: PreTrainedTokenizerBase) -> tuple[int | None, str]:
    """The token put before every episode, and the policy that chose it, for the provenance.

    The tokenizer's own BOS where it adds one, else its document separator where it has one, else none.
    """
    added = tokenizer("a").input_ids
    bare = tokenizer("a", add_special_tokens=False).input_ids
    if len(added) > len(bare) and added[0] == tokenizer.bos_token_id:
        return added[0], f"tokenizer's BOS {tokenizer.bos_token}"
    for separator in DOCUMENT_SEPARATORS:
        token = tokenizer.backend_tokenizer.token_to_id(separator)
        if token is not None:
            return token, f"document separator {separator}"
    return None, "none"


def example_parts(template: str, example: Example, answer: str | None = None) -> tuple[str, str, str]:
    """Text of an example in three parts: up to the answer, the answer, and its terminator.

    Parameters
    ----------
    template
        How an example is written, as in `Task`.
    example
        Its query and what it shows.
    answer
        Written in place of what it shows, for foils and labels.
    """
    before, _, terminator = template.partition("{answer}")
    bare = before.rstrip(" ")  # a space before the answer belongs to the answer
    return (
        bare.replace("{query}", example.query),
        before[len(bare) :] + (example.written if answer is None else answer),
        terminator,
    )


def encode_episode(
    task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, branch: bool = True
) -> Prompt:
    """Tokenise an episode and find its answers by character offsets.

    The last example is tokenised as if another one followed, and cut after its answer: some tokenizers join blank lines
    at the end of a text and not within it, and an episode's tokens must not depend on how many examples come later.

    Parameters
    ----------
    task
        Whose template and form the episode has.
    examples
        In order.
    tokenizer
        The model's own.
    branch
        Lay out the branches for foils and labels too.

    Raises
    ------
    StatedError
        An answer (or foil) that does not begin and end on a token boundary, or text that the tokenizer reads as a
        control token or does not know; the error names the example.
    """
    text, spans, asked, digits = task.preamble, [], [], []
    in_front, _, _ = task.template.partition("{query}")
    for example in examples:
        before, answer, terminator = example_parts(task.template, example)
        asked.append((len(text) + len(in_front), len(text) + len(in_front) + len(example.query)))
        start = len(text) + len(before)
        text += before + answer + terminator
        if task.form == "number":
            digits.append([(i, i + 1) for i in range(start, start + len(answer)) if text[i] in "0123456789"])
        spans.append((start, start + len(answer) + len(terminator)))
    # What follows each answer: the example after it, and after the last the first again.
    after = [example_parts(task.template, example)[0] for example in (*examples[1:], examples[0])]
    tokens, starts, stops, offsets = locate(text, after[-1], spans, tokenizer, task, examples)
    if starts[0] == 0 and first_token(tokenizer)[0] is None:
        raise StatedError(
            f"task {task.name!r}: nothing stands before the first answer, and the tokenizer has no token that begins a "
            "text: give the task a preamble, or a query"
        )
    query = covering(asked, offsets) if "{query}" in task.template else np.stack([starts, starts], axis=1)
    in_digits = tuple(
        tuple(sorted({int(i) - int(start) for i in covering(places, offsets)[:, 0]}))
        for start, places in zip(starts, digits)
    )

    bos, _ = first_token(tokenizer)
    offset = 0 if bos is None else 1
    tokens = np.concatenate([np.array([] if bos is None else [bos], dtype=np.int64), tokens])
    starts, stops, query = starts + offset, stops + offset, query + offset

    other = _others(task, examples, after, [tokens[i:j] for i, j in zip(starts, stops)], tokenizer, branch=branch)
    alternatives = [(*own, foil, *labels) for own, foil, labels in zip(other.answers, other.foils, other.labels)]
    branches, rows = _lay_out(tokens, starts, stops, alternatives)
    in_digits = tuple(own or digits for own, digits in zip(other.digits, in_digits))
    prompt = Prompt(
        tokens, starts, stops, other.foils, other.labels, branches, rows, query[:, 0], query[:, 1], in_digits,
        head=offset + sum(end <= len(task.preamble) for _, end in offsets),
    )  # fmt: skip
    if not any(other.answers):
        return prompt
    return replace(prompt, answers=tuple(own[0] if own else prompt.shown(i) for i, own in enumerate(other.answers)))


class _Others(NamedTuple):
    """Per shot, what branches off: foil, labels, and the answer with the place of its digits where another is shown."""

    foils: tuple[TokenPath, ...]
    labels: tuple[tuple[TokenPath, ...], ...]
    answers: tuple[tuple[TokenPath, ...], ...]
    digits: tuple[tuple[int, ...], ...]


def _others(
    task: Task,
    examples: Sequence[Example],
    after: Sequence[str],
    shown: Sequence[Int[np.ndarray, " _pos"]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    branch: bool,
) -> _Others:
    """Tokenise the answers that do not stand in the episode."""
    foils, labels, answers, digits = [], [], [], []
    for shot, example in enumerate(examples):

        def path(text: str, shot: int = shot, example: Example = example) -> TokenPath:
            return _alternative(task, example, text, after[shot], tokenizer)[0]

        apart = example.written != example.answer
        # Alternatives are tokenised within their own example; what is shown, treated likewise, must come out as in
        # the episode, or the two would not be comparable.
        if ((branch and (example.foil or task.labels)) or apart) and path(example.written) != tuple(
            shown[shot].tolist()
        ):
            raise StatedError(
                f"task {task.name!r}: the answer of example {shot + 1} ({example.query!r}, {example.written!r}) is "
                "tokenised differently by itself and in the episode, so foils and labels cannot be compared with "
                f"it: change the template{'' if apart else ', or collect --readouts complement'}"
            )
        foils.append(path(example.foil) if branch and example.foil else ())
        labels.append(tuple(map(path, task.labels)) if branch else ())
        own, in_own = _alternative(task, example, example.answer, after[shot], tokenizer) if apart else ((), ())
        answers.append((own,) if apart else ())
        digits.append(in_own)
    return _Others(tuple(foils), tuple(labels), tuple(answers), tuple(digits))


def recorded_prompt(
    tokens: Int[np.ndarray, " pos"],
    answer_start: Int[np.ndarray, " shot"],
    answer_stop: Int[np.ndarray, " shot"],
    query_start: Int[np.ndarray, " shot"],
    query_stop: Int[np.ndarray, " shot"],
) -> Prompt:
    """The prompt of an episode in a curves file whose examples show their answers, without foils and labels."""
    tokens = tokens[tokens >= 0].astype(np.int64)
    nothing: list[tuple[()]] = [()] * len(answer_start)
    branches, rows = _lay_out(tokens, answer_start, answer_stop, nothing)
    lacks = tuple(nothing), tuple(nothing)
    return Prompt(tokens, answer_start, answer_stop, *lacks, branches, rows, query_start, query_stop)


OFTEN = 0.4  # of two answers drawn at random, the share that differs in a token which tells them apart


def differing(prompts: Sequence[Prompt], token: int) -> float:
    """How often two answers of a task, drawn at random, differ in one token of theirs; 0 to 1."""
    answers = [p.answer(shot)[token] for p in prompts for shot in range(len(p.answer_start))]
    _, counts = np.unique(answers, return_counts=True)
    return float(1 - ((counts / len(answers)) ** 2).sum())


def token_read(prompts: Sequence[Prompt], task: str) -> int:
    """The token of the answer, counted from 0, that is read of a task: the first that tells its answers apart.

    That is the first in which two answers `OFTEN` differ: of numbers the first digit, where a lone space stands before
    it. Where no token does (one label is rare), it is the one in which they differ most.

    Raises
    ------
    StatedError
        All answers are alike as far as the shortest goes.
    """
    shortest = min(int((p.answer_stop - p.answer_start).min()) for p in prompts)
    differ = [differing(prompts, token) for token in range(shortest)]
    if not any(differ):
        raise StatedError(
            f"all answers of task {task!r} begin alike: no token tells them apart; leave the task out with --tasks, or "
            "say with --token which one to read"
        )
    return next((token for token, share in enumerate(differ) if share >= OFTEN), int(np.argmax(differ)))


ROLES = ("query", "separator", "answer")


class Places(NamedTuple):
    """What each token of an episode is.

    Attributes
    ----------
    shot
        The shot whose query, answer or separator it belongs to, shape (pos,); -1 for the first token, the sink.
    role
        Index in `ROLES`, shape (pos,): terminators belong to answers, and what is neither query nor answer separates.
    offset
        Tokens from the first of that shot's answer, negative before it, shape (pos,): aligned between episodes.
    """

    shot: Int[np.ndarray, " pos"]
    role: Int[np.ndarray, " pos"]
    offset: Int[np.ndarray, " pos"]


def token_places(prompt: Prompt) -> Places:
    """Tell an episode's tokens apart, by the places of its queries and answers."""
    n = len(prompt.tokens)
    shot, role, offset = np.full(n, -1), np.full(n, ROLES.index("separator")), np.zeros(n, dtype=int)
    begin = 0
    for i, (start, stop) in enumerate(zip(prompt.answer_start.tolist(), prompt.answer_stop.tolist())):
        shot[begin:stop], offset[begin:stop] = i, np.arange(begin, stop) - start
        role[prompt.query_start[i] : prompt.query_stop[i]] = ROLES.index("query")
        role[start:stop] = ROLES.index("answer")
        begin = stop
    shot[0], role[0], offset[0] = -1, ROLES.index("separator"), 0
    return Places(shot, role, offset)


def _alternative(
    task: Task, example: Example, answer: str, after: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[TokenPath, tuple[int, ...]]:
    """Tokens of another answer to an example, terminator included; `after` is the text that follows.

    With it come those tokens of a number that hold its digits, counted from its first.
    """
    before, other, terminator = example_parts(task.template, example, answer)
    # A newline in front stands for the example before it, so that nothing is tokenised as the start of a text.
    span = (1 + len(before), 1 + len(before) + len(other) + len(terminator))
    alone = Example(example.query, answer)
    text = "\n" + before + other + terminator
    tokens, start, stop, offsets = locate(text, after, [span], tokenizer, task, [alone])
    path = tuple(tokens[start[0] : stop[0]].tolist())
    places = [(i, i + 1) for i in range(span[0], span[0] + len(other)) if text[i] in "0123456789"]
    if task.form != "number" or not places:
        return path, ()
    return path, tuple(sorted({int(i) - int(start[0]) for i in covering(places, offsets)[:, 0]}))


def _lay_out(
    tokens: np.ndarray, starts: np.ndarray, stops: np.ndarray, alternatives: Sequence[Sequence[TokenPath]]
) -> tuple[Branches, tuple[dict[TokenPath, tuple[bool, int]], ...]]:
    """Lay the alternatives of every shot out as trees that grow from the episode, sharing every common prefix."""
    branch: list[tuple[int, int, int, int]] = []
    rows = []
    for start, stop, paths in zip(starts.tolist(), stops.tolist(), alternatives):
        own = tuple(tokens[start:stop].tolist())
        row = {own[:j]: (False, start + j - 1) for j in range(len(own))}
        _grow(branch, row, paths)
        rows.append(row)
    columns = np.array(branch, dtype=np.int64).reshape(-1, 4).T
    return Branches(*columns), tuple(rows)


class Chain(NamedTuple):
    """Tokens that follow the first `attach` of an episode, and the continuations that branch off behind them."""

    attach: int
    tokens: TokenPath
    paths: Sequence[TokenPath]


def lay_out_chains(chains: Sequence[Chain]) -> tuple[Branches, tuple[dict[TokenPath, tuple[bool, int]], ...]]:
    """Lay chains out as branches, and for each the rows that predict what follows a prefix of its continuations."""
    branch: list[tuple[int, int, int, int]] = []
    rows = []
    for attach, chain, paths in chains:
        for depth, token in enumerate(chain):
            branch.append((token, len(branch) - 1 if depth else -1, attach, depth))
        row: dict[TokenPath, tuple[bool, int]] = {(): (True, len(branch) - 1) if chain else (False, attach - 1)}
        _grow(branch, row, paths)
        rows.append(row)
    columns = np.array(branch, dtype=np.int64).reshape(-1, 4).T
    return Branches(*columns), tuple(rows)


def _grow(
    branch: list[tuple[int, int, int, int]], row: dict[TokenPath, tuple[bool, int]], paths: Sequence[TokenPath]
) -> None:
    """Add the tokens of some paths to the branches of a shot, sharing every common prefix."""
    for path in paths:
        for j in range(1, len(path)):
            if path[:j] in row:
                continue
            before_branch, parent = row[path[: j - 1]]
            if before_branch:
                _, _, attach, depth = branch[parent]
                branch.append((path[j - 1], parent, attach, depth + 1))
            else:
                branch.append((path[j - 1], -1, parent + 1, 0))
            row[path[:j]] = (True, len(branch) - 1)
