"""Episodes of a curves file as they are run again: tokens, positions read, the target of each shot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from bayes_icl.core.errors import StatedError, shown, unknown
from bayes_icl.curves import consecutive
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import (
    Places,
    Prompt,
    TokenPath,
    encode_episode,
    recorded_prompt,
    token_places,
    token_read,
)
from bayes_icl.models.readouts import Vocabulary
from bayes_icl.tasks.task import Example, Task

ATTRIBUTED_READOUTS = ("complement", "foil", "format", "rule", "parity")

OWN, WHOLE, FORK, PARTING = "token", "whole answer", "fork", "parting"
"""What is read of an answer: one token, all of them, where it leaves its foil, or where labels part."""

Sets = tuple[frozenset[int], frozenset[int] | None]
"""Tokens that count as right at a step, and as wrong (all others, if None)."""


class Target(NamedTuple):
    """Where the log-odds of an episode are read, and between which tokens.

    Attributes
    ----------
    positions, correct
        Shape (step,): the position whose logits are read, and the correct token.
    foil
        The wrong token, shape (step,), or None for all others.
    of_shot
        Shape (step,): the shot whose answer a step belongs to, in order; None where every shot has one step.
    sets
        By step, where more than one token counts as right, or some but not all others as wrong; else None.
    reference
        Log-odds of the first, second, ... step, from which the weights of several steps are taken
        (`answer_odds.mean_weights`); None where there is none.
    """

    positions: Int[np.ndarray, " step"]
    correct: Int[np.ndarray, " step"]
    foil: Int[np.ndarray, " step"] | None
    of_shot: Int[np.ndarray, " step"] | None = None
    sets: tuple[Sets, ...] | None = None
    reference: Float[np.ndarray, " token"] | None = None

    @property
    def shot(self) -> Int[np.ndarray, " step"]:
        """The shot that a step belongs to."""
        return np.arange(len(self.positions)) if self.of_shot is None else self.of_shot

    @property
    def n_shots(self) -> int:
        """Number of answers."""
        return int(self.shot[-1]) + 1

    @property
    def token(self) -> Int[np.ndarray, " step"]:
        """Which step of its answer a step is, counted from 0."""
        return np.arange(len(self.shot)) - np.searchsorted(self.shot, self.shot)


@dataclass(frozen=True)
class Episode:
    """A sequence of a curves file, to be run again.

    Attributes
    ----------
    token
        Which token of the answers is read, counted from 0; None where it is not the same of all, or several.
    read
        What is read of an answer: `OWN`, `WHOLE`, `FORK` or `PARTING`.
    """

    seq: int
    prompt: Prompt
    places: Places
    target: Target
    token: int | None = None
    read: str = OWN


def recorded_episodes(
    model: Model,
    curves: xr.Dataset,
    task: str,
    *,
    readout: str = "complement",
    token: int | None = None,
    whole: bool = False,
) -> list[Episode]:
    """The sequences of a task in a curves file.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    curves
        As `collect_curves` gives them.
    task
        Its name in the file.
    readout
        One of `ATTRIBUTED_READOUTS`. Of the steps on an answer's own way, exactly, but: ``foil`` where the two fork,
        and ``rule`` and ``format`` of labels as far as the token at which labels part, since how a label that does not
        stand in the episode goes on is not seen there.
    token
        For `complement`: which token of the answer, counted from 0 (its terminator counts too), the true ones standing
        before it; None for the first that tells the task's answers apart (`prompts.token_read`).
    whole
        For `complement`: all tokens of the answer, its terminator too, in place of one.

    Raises
    ------
    StatedError
        The file has no tokens, or no foils; an answer has no such token; labels part at several tokens; examples show
        something else than their answers, or a text stands before them.
    """
    if readout not in ATTRIBUTED_READOUTS:
        raise unknown("readout to attribute", readout, ATTRIBUTED_READOUTS)
    needed = ("tokens", "answer_start", "answer_stop", "query", *(("fork", "foil_token") if readout == "foil" else ()))
    if missing := [name for name in needed if name not in curves]:
        raise StatedError(f"the curves have no {', '.join(missing)}, which attribution needs: collect them again")
    own = curves.sel(task=task)
    _check_design(own)
    _check_places(model, own, [name for name in (*needed, "query_start", "query_stop") if name in own])
    every = [own.sel(seq=seq) for seq in own.seq.values.tolist()]
    prompts = [
        recorded_prompt(one.tokens.values, *(one[name].values.astype(np.int64) for name in needed[1:3]), *asked)
        for one, *asked in zip(every, *_query_places(model, own))
    ]
    if readout == "complement" and not whole:
        token = token_read(prompts, task) if token is None else token
        short = min(int((p.answer_stop - p.answer_start).min()) for p in prompts)
        if not 0 <= token < short:
            raise StatedError(f"--token {token}: an answer of {task!r} has the tokens 0 to {short - 1} only")
        targets, read = [_of_one(p, np.full(len(p.answer_start), token)) for p in prompts], OWN
    elif readout == "complement":
        targets, read, token = [_of_steps(p, _whole_answer(p)) for p in prompts], WHOLE, None
    elif readout == "foil":
        token, read, targets = None, FORK, []
        for one, prompt in zip(every, prompts):
            ahead, foil = (one[name].values.astype(np.int64) for name in ("fork", "foil_token"))
            if (ahead < 0).any():
                raise StatedError(f"task {task!r} was collected without foils: attribute --readout complement")
            targets.append(_of_one(prompt, ahead, foil))
    else:
        token = None
        read, steps = _of_form(model, own, prompts, task, readout)
        targets = [_of_steps(p, some) for p, some in zip(prompts, steps)]
    return [
        Episode(int(one.seq), prompt, token_places(prompt), target, token, read)
        for one, prompt, target in zip(every, prompts, targets)
    ]


Steps = list[list[tuple[int, Sets]]]
"""By shot: which tokens of the answer are read, counted from 0, and what they are set against."""


def _of_one(prompt: Prompt, ahead: Int[np.ndarray, " shot"], foil: Int[np.ndarray, " shot"] | None = None) -> Target:
    """One token of each answer, `ahead` from its first."""
    at = prompt.answer_start + ahead
    return Target(at - 1, prompt.tokens[at], foil)


def _of_steps(prompt: Prompt, steps: Steps) -> Target:
    """Several tokens of each answer."""
    at = np.array([prompt.answer_start[shot] + i for shot, some in enumerate(steps) for i, _ in some])
    shots = np.array([shot for shot, some in enumerate(steps) for _ in some])
    sets = tuple(one for some in steps for _, one in some)
    correct = prompt.tokens[at]
    plain = all(right == {token} and wrong is None for (right, wrong), token in zip(sets, correct.tolist()))
    return Target(at - 1, correct, None, shots, None if plain else sets)


def _whole_answer(prompt: Prompt) -> Steps:
    """Every token of each answer against all others."""
    return [[(i, (frozenset([t]), None)) for i, t in enumerate(prompt.answer(n))] for n in range(len(prompt.rows))]


def _of_form(
    model: Model, own: xr.Dataset, prompts: Sequence[Prompt], task: str, readout: str
) -> tuple[str, list[Steps]]:
    """Steps of a readout that knows the form of answers: numbers, if all are digits; else labels."""
    texts = own["answer"].values.ravel() if "answer" in own else np.array([""])
    if all(str(text).isascii() and str(text).isdigit() for text in texts):
        return WHOLE, [_number_steps(Vocabulary(model.token_texts), p, task, readout) for p in prompts]
    if readout == "parity":
        raise StatedError(f"task {task!r}: parity is of numbers; attribute --readout complement")
    paths = [[p.answer(n) for n in range(len(p.rows))] for p in prompts]
    part, labels = _labels(own, paths, task, readout)
    steps: list[Steps] = []
    for answers in paths:
        among = [(part, (frozenset([answer[part]]), labels - {answer[part]})) for answer in answers]
        lead = [[(i, (frozenset([t]), None)) for i, t in enumerate(answer[:part])] for answer in answers]
        form = [[*before, (part, (labels, None))] for before in lead]
        steps.append([[one] for one in among] if readout == "rule" else form)  # type: ignore[arg-type]
    return PARTING, steps


def _number_steps(vocabulary: Vocabulary, prompt: Prompt, task: str, readout: str) -> Steps:
    """Steps of numbers, as `readouts` has them; what stands before the first digit is no matter of `rule`."""
    steps: Steps = []
    for shot in range(len(prompt.rows)):
        answer = prompt.answer(shot)
        digits = [i for i, token in enumerate(answer) if token in vocabulary.digits_like(token)]
        if not digits:
            raise StatedError(
                f"task {task!r}: no token of the answer of example {shot + 1} is all digits, so {readout} cannot be "
                "told there; attribute --readout complement"
            )
        at = digits[0]
        if readout == "parity":  # of the last digit of the number; digits of a terminator are after other text
            at = next((i for i in digits if i + 1 not in digits), digits[-1])
        form, own = vocabulary.digits_like(answer[at]), answer[at]
        plain: list[tuple[int, Sets]] = [(i, (frozenset([t]), None)) for i, t in enumerate(answer)]
        if readout == "format":
            steps.append([*plain[:at], (at, (form, None))])
        elif readout == "rule":
            steps.append([(at, (frozenset([own]), form - {own})), *plain[at + 1 :]])
        else:
            last = int(vocabulary.texts[own][-1])
            same = frozenset(t for t in form if (int(vocabulary.texts[t][-1]) - last) % 2 == 0)
            steps.append([(at, (same, form - same))])
    return steps


def _labels(
    own: xr.Dataset, paths: Sequence[Sequence[TokenPath]], task: str, readout: str
) -> tuple[int, frozenset[int]]:
    """Where the labels of a task part, counted from the answer's first token, and what they are there.

    Raises
    ------
    StatedError
        There is one label only, or some part elsewhere.
    """
    labels = {path for answers in paths for path in answers}
    part = next((i for i, tokens in enumerate(zip(*labels)) if len(set(tokens)) > 1), -1) if len(labels) > 1 else -1
    found = {path[part] for path in labels}
    if "foil_token" in own:  # a label that is no answer of these sequences
        found |= set(own.foil_token.values[own.fork.values == part].astype(int).tolist())
        apart = bool(((own.fork.values != part) & (own.fork.values >= 0)).any())
    else:
        apart = False
    if part < 0 or apart or len({path[part] for path in labels}) < len(labels):
        raise StatedError(
            f"task {task!r}: {readout} cannot be attributed: its {len(labels)} labels do not all part at the same "
            "token, and how those that are not in the episode go on is not read; attribute --readout complement or foil"
        )
    return part, frozenset(found)


def _check_design(own: xr.Dataset) -> None:
    """Refuse what is not an episode of queries, each with its answer after it.

    Raises
    ------
    StatedError
        Names the task, and what of it cannot be run.
    """
    design = str(own["design"].values) if "design" in own else "plain"
    shows_else = "shown" in own and "answer" in own and bool((own["shown"] != own["answer"]).any())
    no_query = "query" in own and own["query"].dtype.kind in "OU" and bool((own["query"] == "").any())
    kind = design.split(":")[0]
    if shows_else or no_query or kind in ("prior", "blocks"):
        why = "its examples show other answers than those asked" if shows_else else "a text stands before its examples"
        why = "it has no queries" if no_query else "its examples do not see one another" if kind == "blocks" else why
        raise StatedError(
            f"task {str(own.task.values)!r} has no heads and patches of its own: {why}; leave it out with --tasks, and "
            "take the task under --design plain"
        )


def _check_places(model: Model, own: xr.Dataset, names: Sequence[str]) -> None:
    """State tokens and places of a file that do not fit together: another tool's, or altered ones, may be anything."""

    def need(holds: bool, what: str) -> None:
        if not holds:
            raise StatedError(
                f"task {str(own.task.values)!r}: the curves cannot be run again ({what}): collect them again"
            )

    need(own.seq.dtype.kind in "iu", "sequences are not numbered")
    need(int(own.shot[0]) == 0, f"they begin at n = {int(own.shot[0])}, and all from 0 on are needed")
    need(consecutive(own.shot.values), "they skip numbers of examples, and all are needed")
    table = {}
    for name in names:
        dims = ("seq", "pos" if name == "tokens" else "shot")
        need(set(own[name].dims) == set(dims), f"{name} has the dimensions {', '.join(map(str, own[name].dims))}")
        table[name] = own[name].transpose(*dims).values
        kinds, words = ("OUT", "text") if name == "query" else ("iu", "whole numbers")
        need(table[name].dtype.kind in kinds, f"{name} is {table[name].dtype}, not {words}")
    tokens, start, stop = (table[name].astype(np.int64) for name in ("tokens", "answer_start", "answer_stop"))
    shown = tokens >= 0
    length = shown.sum(1)[:, None]
    need(bool((np.diff(shown.astype(int), axis=1) <= 0).all()), "there are gaps in them")
    need(bool((tokens < len(model.token_texts)).all()), f"{model.name!r} has no such tokens")
    need(bool(((start >= 1) & (start < stop) & (stop <= length)).all()), "answers stand outside of them")
    need(bool((start[:, 1:] >= stop[:, :-1]).all()), "answers overlap")
    if "query_start" in table and "query_stop" in table:
        asked, told = table["query_start"].astype(np.int64), table["query_stop"].astype(np.int64)
        need(bool(((asked >= 0) & (asked < told) & (told <= start + 1)).all()), "queries stand outside of their shot")
    if "fork" in table:
        fork, foil = table["fork"].astype(np.int64), table["foil_token"].astype(np.int64)
        need(bool(((fork < stop - start) & (foil < len(model.token_texts))).all()), "foils do not fit their answers")
        need(bool(((fork < 0) == (foil < 0)).all()), "foils do not fit their answers")


def _query_places(model: Model, own: xr.Dataset) -> tuple[Int[np.ndarray, "seq shot"], Int[np.ndarray, "seq shot"]]:
    """Where the tokens of each query begin and end, of the sequences of one task.

    A file of version 1 does not say. Its template is then read off the tokens, and stands if the episodes written with
    it have the very tokens of the file.

    Raises
    ------
    StatedError
        No template does.
    """
    if "query_start" in own and "query_stop" in own:
        return own.query_start.values.astype(np.int64), own.query_stop.values.astype(np.int64)
    found = {}
    for template in _likely_templates(model, own):
        places = []
        for seq in own.seq.values:
            one = own.sel(seq=seq)
            examples = tuple(Example(str(q), str(a)) for q, a in zip(one["query"].values, one["answer"].values))
            try:
                task = Task("recorded", examples, template, foils=False, repeats=True)
                prompt = encode_episode(task, examples, model.tokenizer, branch=False)
            except StatedError:
                break
            if not np.array_equal(prompt.tokens, one.tokens.values[one.tokens.values >= 0]):
                break
            places.append(np.stack([prompt.query_start, prompt.query_stop]))
        else:
            found[np.array(places).tobytes()] = np.array(places)
    if len(found) != 1:
        raise StatedError(
            f"task {str(own.task.values)!r}: the curves are of before files said where the tokens of queries stand, "
            "and their tokens do not tell: collect them again"
        )
    (places_,) = found.values()
    return places_[:, 0], places_[:, 1]


def _likely_templates(model: Model, own: xr.Dataset) -> list[str]:
    """Templates that the second example of a file's first sequence may have been written with."""
    if "answer" not in own or own.sizes["shot"] < 2:
        return []
    one = own.isel(seq=0)
    query, answer = (str(one[name].values[1]) for name in ("query", "answer"))
    (begin, stop), start = one.answer_stop.values[:2], one.answer_start.values[1]
    cuts = slice(begin, start), slice(start, stop)
    before, after = (str(model.tokenizer.decode(one.tokens.values[cut])) for cut in cuts)
    rest = after.lstrip(" ")
    if not rest.startswith(answer):
        return []
    at = [i for i in range(len(before)) if before.startswith(query, i)]
    return [
        # Tokenizers of the SentencePiece kind leave out a space at the start of what they decode.
        f"{lead}{before[:i]}{{query}}{before[i + len(query) :]}{gap}{{answer}}{rest[len(answer) :]}"
        for i in at
        for lead in ("", " ")
        for gap in sorted({after[: len(after) - len(rest)], " "})
    ]


TEXTS, LETTERS = 3, 24  # most texts that stand for a token, and about how long they are together


def token_text(model: Model, episodes: Sequence[Episode]) -> str:
    """What the tokens read say, in quotation marks: the most frequent texts of them, most frequent first.

    An ellipsis says that there are others; a lone text, that it is the same in all answers.
    """
    read: Counter[str] = Counter()
    for target in (e.target for e in episodes):
        texts = [""] * target.n_shots
        for shot, token in zip(target.shot.tolist(), target.correct.tolist()):
            texts[shot] += model.token_texts[token]
        read.update(texts)
    texts = list(read)
    in_order = [shown(text) for _, text in sorted((-count, text) for text, count in read.items())]
    quoted = [f"\u201c{text}\u201d" for text in in_order[:TEXTS]]
    while len(quoted) > 1 and sum(map(len, quoted)) > LETTERS:
        quoted.pop()
    return ", ".join([*quoted, *(["\u2026"] if len(quoted) < len(texts) else [])])
