"""Text to tokens by character offsets: which tokens hold a span of text, and text that no token may hold."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from bayes_icl.core.errors import StatedError
from bayes_icl.tasks.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@functools.lru_cache(maxsize=8)
def _set_apart(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Tokens that are no text, with what they are written as: control tokens and the one for what is not known."""
    special = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return special | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens))


def _check_text(
    text: str,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    examples: Sequence[Example],
) -> None:
    """Refuse text that would be read as something other than text."""
    apart = _set_apart(tokenizer)
    if apart.keys().isdisjoint(ids):
        return
    for token, (begin, end) in zip(ids, offsets):
        if token not in apart or end <= begin or begin >= spans[-1][1]:
            continue
        shot = next(i for i, (_, stop) in enumerate(spans) if begin < stop)
        example = examples[shot]
        where = f"task {task.name!r}: example {shot + 1} ({example.query!r}, {example.answer!r})"
        written = text[begin:end].strip()
        if written == apart[token].strip():
            raise StatedError(
                f"{where} holds {written!r}, which the tokenizer reads as a control token, not as text: take it out of "
                "the queries, the answers or the template"
            )
        raise StatedError(
            f"{where} holds {written!r}, which the tokenizer does not know and reads as {apart[token]!r}: write it "
            "otherwise, or take another model"
        )


def locate(
    text: str,
    after: str,
    spans: Sequence[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    examples: Sequence[Example],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Tokens of `text`; for each character span, the first token in it and the first after it; all offsets.

    The last span ends the text; `after` follows it when it is tokenised, and its tokens are cut off.
    """
    text += after
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded.offset_mapping
    _check_text(text, encoded.input_ids, offsets, spans, tokenizer, task, examples)
    # Some tokenizers (GPT-NeoX, RoBERTa) leave the space in front of a token out of its offsets: a token begins where
    # the one before it ends, if there are only spaces between.
    offsets = [
        (last, end) if last < begin and not text[last:begin].strip(" ") else (begin, end)
        for (_, last), (begin, end) in zip([(0, 0), *offsets], offsets)
    ]
    begins = {begin: i for i, (begin, end) in reversed(list(enumerate(offsets))) if end > begin}
    ends = {end: i + 1 for i, (begin, end) in enumerate(offsets) if end > begin}
    for shot, (start, stop) in enumerate(spans):
        if start not in begins or stop not in ends:
            crossing = next((text[b:e] for b, e in offsets if b < start < e or b < stop < e), text[start:stop])
            raise StatedError(
                f"task {task.name!r}: the answer {text[start:stop]!r} of example {shot + 1} "
                f"({examples[shot].query!r}) does not begin and end on a token boundary: the tokenizer joins "
                f"{crossing!r}; change the template so that the answer stands apart"
            )
    stops = np.array([ends[stop] for _, stop in spans])
    return (
        np.array(encoded.input_ids[: stops[-1]], dtype=np.int64),
        np.array([begins[start] for start, _ in spans]),
        stops,
        offsets[: stops[-1]],
    )


def covering(spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> Int[np.ndarray, "span 2"]:
    """The first token with text of each span, and the first after its last; spans need not keep to tokens."""
    begins, ends = np.array(offsets).T
    kept = np.flatnonzero(ends > begins)  # tokens without text of their own are at no place
    first = kept[np.searchsorted(ends[kept], [start for start, _ in spans], side="right")]
    after = kept[np.searchsorted(begins[kept], [stop for _, stop in spans], side="left") - 1] + 1
    return np.stack([first, after], axis=1)
