"""Examples in blocks that do not see one another: one masked pass for all examples, queries over its cache.

A token of an example sees its own block and what stands before all examples (the first token, a preamble). The query
of a shot sees everything before it, so it cannot be read in that pass: queries are branches here, with the answers
behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayes_icl.core.errors import StatedError
from bayes_icl.models.branching import gap_between
from bayes_icl.models.model import Model, first_line
from bayes_icl.models.prompts import Chain, Prompt, lay_out_chains

BEFORE = -1  # the block of what all examples see


def in_blocks(prompt: Prompt, size: int) -> Prompt:
    """The prompt with its examples in blocks, and every query among its branches.

    Parameters
    ----------
    prompt
        As `encode_episode` makes it.
    size
        Examples a block.
    """
    begins = np.concatenate([[prompt.head], prompt.answer_stop[:-1]])
    blocks = np.full(len(prompt.tokens), BEFORE)
    for shot, (begin, stop) in enumerate(zip(begins, prompt.answer_stop)):
        blocks[max(begin, 1) : stop] = shot // size
    # Of an answer without a query in front of it, the token before is asked again: in the cache it has seen its own
    # block only.
    begins = np.minimum(begins, prompt.answer_start - 1)
    branches, rows = lay_out_chains(
        [
            Chain(
                int(begin),
                tuple(prompt.tokens[begin:start].tolist()),
                (prompt.shown(i), prompt.answer(i), foil, *labels),
            )
            for i, (begin, start, foil, labels) in enumerate(
                zip(begins, prompt.answer_start, prompt.foils, prompt.labels)
            )
        ]
    )
    return replace(prompt, branches=branches, rows=rows, blocks=blocks)


def seen_in(blocks: Int[np.ndarray, " pos"]) -> Bool[np.ndarray, "pos pos"]:
    """What each token may attend to: its own block and what stands before all, as far as it precedes it."""
    return np.tri(len(blocks), dtype=bool) & ((blocks[:, None] == blocks) | (blocks == BEFORE))


def logits_in_blocks(
    model: Model, prompts: Sequence[Prompt], branch_positions: Sequence[Sequence[int]]
) -> Float[Tensor, "branch_read vocab"]:
    """Logits at chosen branch tokens of prompts whose examples are in blocks.

    The first time, and whenever episodes outgrow a power of two, it is checked that the model honours the mask.

    Parameters
    ----------
    model
        Its attention must take a mask of any form.
    prompts
        As `in_blocks` makes them.
    branch_positions
        Of each prompt, the branch tokens to read, by index.

    Raises
    ------
    StatedError
        The model does not honour the mask: a window, a state, an attention of its own.
    """
    longest = max(prompts, key=lambda prompt: len(prompt.tokens))
    with torch.inference_mode():
        try:
            if len(longest.tokens) > model.branching.checked_blocks:
                why = _fault(model, longest)
                if not why and _blocks(longest).max() > 0:  # one block alone says nothing of what others see
                    model.branching.checked_blocks = 1 << (len(longest.tokens) - 1).bit_length()
            else:
                why = ""
            found = None if why else _read(model, prompts, branch_positions, [_blocks(p) for p in prompts])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of many kinds, where attention or a cache is not made for this
            why, found = first_line(error), None
    if found is None:
        raise StatedError(
            f"model {model.name!r} ({type(model.hf).__name__}) cannot keep examples in blocks apart ({why}): leave out "
            "--design blocks, or take a model whose attention takes any mask"
        )
    model.branching.last = "over the cached blocks"
    return found


def _blocks(prompt: Prompt) -> Int[np.ndarray, " pos"]:
    assert prompt.blocks is not None
    return prompt.blocks


def _read(
    model: Model,
    prompts: Sequence[Prompt],
    branch_positions: Sequence[Sequence[int]],
    blocks: Sequence[Int[np.ndarray, " _pos"]],
) -> Float[Tensor, "branch_read vocab"]:
    tokens, seen = [p.tokens for p in prompts], [seen_in(own) for own in blocks]
    return model.over_cache(tokens, [[] for _ in prompts], [p.branches for p in prompts], branch_positions, seen)[1]


def _fault(model: Model, prompt: Prompt) -> str:
    """How the model fails to read blocks; empty if it does not.

    With everything in one block, what is read must be what a plain pass reads; with other tokens in the first block,
    what is read within the others must stay.
    """
    blocks = _blocks(prompt)
    shots = range(len(prompt.answer_start))
    own = [
        (prompt.rows[shot][prompt.shown(shot)[:j]][1], int(prompt.answer_start[shot]) + j - 1)
        for shot in shots
        for j in range(len(prompt.shown(shot)))
    ]
    together = _read(model, [prompt], [[branch for branch, _ in own]], [np.minimum(blocks, 0)])
    plain = model.plain_pass([prompt.tokens], [[position for _, position in own]])
    if gap := gap_between(together, plain, model.hf.dtype):
        return f"with all examples in one block it is {gap:.2g} nats off a plain pass"
    apart = [int(prompt.answer_start[shot]) for shot in shots if blocks[prompt.answer_start[shot]] > 0]
    if not apart:
        return ""
    known, changed = np.unique(prompt.tokens), prompt.tokens.copy()
    first = blocks == 0
    changed[first] = known[(np.searchsorted(known, changed[first]) + 1) % len(known)]
    before, after = (
        model.over_cache([text], [apart], [prompt.branches], [[]], [seen_in(blocks)])[0]
        for text in (prompt.tokens, changed)
    )
    gap = gap_between(before, after, model.hf.dtype)
    return f"another first block changes the others by {gap:.2g} nats" if gap else ""
