"""Episodes of a curves file as they are run again: tokens, positions read, the target of each shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Int

from bayes_icl.core.errors import StatedError, shown, unknown
from bayes_icl.curves import consecutive
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import Places, Prompt, encode_episode, recorded_prompt, token_places, token_read
from bayes_icl.tasks.task import Example, Task

ATTRIBUTED_READOUTS = ("complement", "foil")


class Target(NamedTuple):
    """Where the log-odds of an episode are read, and between which tokens.

    Attributes
    ----------
    positions, correct
        Shape (shot,): the position whose logits are read, and the correct token.
    foil
        The wrong token, shape (shot,), or None for all others.
    """

    positions: Int[np.ndarray, " shot"]
    correct: Int[np.ndarray, " shot"]
    foil: Int[np.ndarray, " shot"] | None


@dataclass(frozen=True)
class Episode:
    """A sequence of a curves file, to be run again.

    Attributes
    ----------
    token
        Which token of the answers is read, counted from 0; None where it is that at which answer and foil fork.
    """

    seq: int
    prompt: Prompt
    places: Places
    target: Target
    token: int | None = None


def recorded_episodes(
    model: Model, curves: xr.Dataset, task: str, *, readout: str = "complement", token: int | None = None
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
        ``complement`` or ``foil``.
    token
        For `complement`: which token of the answer, counted from 0 (its terminator counts too), the true ones standing
        before it; None for the first that tells the task's answers apart (`prompts.token_read`).

    Raises
    ------
    StatedError
        The file has no tokens, or no foils; an answer has no such token; examples show something else than their
        answers, or a text stands before them.
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
    if readout == "foil":
        token = None
    else:
        token = token_read(prompts, task) if token is None else token
        short = min(int((p.answer_stop - p.answer_start).min()) for p in prompts)
        if not 0 <= token < short:
            raise StatedError(f"--token {token}: an answer of {task!r} has the tokens 0 to {short - 1} only")
    episodes = []
    for one, prompt in zip(every, prompts):
        ahead, foil = np.full(len(prompt.answer_start), token or 0), None
        if readout == "foil":
            ahead, foil = (one[name].values.astype(np.int64) for name in ("fork", "foil_token"))
            if (ahead < 0).any():
                raise StatedError(f"task {task!r} was collected without foils: attribute --readout complement")
        at = prompt.answer_start + ahead
        episodes.append(
            Episode(int(one.seq), prompt, token_places(prompt), Target(at - 1, prompt.tokens[at], foil), token)
        )
    return episodes


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
    """What the token read says, in quotation marks: the most frequent texts of it, most frequent first.

    An ellipsis says that there are others; a lone text, that it is the same in all answers.
    """
    tokens, counts = np.unique(np.concatenate([e.target.correct for e in episodes]), return_counts=True)
    texts = [model.token_texts[token] for token in tokens.tolist()]
    in_order = [shown(text) for _, text in sorted(zip((-counts).tolist(), texts))]
    quoted = [f"\u201c{text}\u201d" for text in in_order[:TEXTS]]
    while len(quoted) > 1 and sum(map(len, quoted)) > LETTERS:
        quoted.pop()
    return ", ".join([*quoted, *(["\u2026"] if len(quoted) < len(texts) else [])])
