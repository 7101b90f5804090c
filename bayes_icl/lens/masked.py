"""Many runs of one prompt under masks of what may be attended to, each mask in some of the layers.

A mask is added in some layers; below them the run is the one without a mask, and is not computed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.attention import Attention, attention_through, weighed
from bayes_icl.lens.edits import blocks_kept, starting_at, unembedding
from bayes_icl.lens.sweeps import TOKENS_AT_ONCE


class Cut(NamedTuple):
    """Attention edges that are cut in some layers.

    Attributes
    ----------
    edges
        What may not be attended to, shape (pos, seen).
    begin, stop
        The first layer, and the one after the last.
    """

    edges: Bool[np.ndarray, "pos pos"]
    begin: int
    stop: int


class Laid(NamedTuple):
    """Tokens as they are run, more than one of which may stand at the same place of the text.

    Attributes
    ----------
    tokens
        The tokens.
    places
        Where each stands in the text.
    seen
        What each attends to without a cut.
    read
        Which are read.
    """

    tokens: Int[np.ndarray, " pos"]
    places: Int[np.ndarray, " pos"]
    seen: Bool[np.ndarray, "pos pos"]
    read: Int[np.ndarray, " read"]


def logits_uncut(
    anatomy: Anatomy, laid: Laid, begins: Iterable[int] = ()
) -> tuple[Float[Tensor, "read vocab"], dict[int, Float[Tensor, "1 pos d_model"]]]:
    """Run tokens as they are laid out.

    Parameters
    ----------
    anatomy
        The model's parts.
    laid
        The tokens.
    begins
        First layers of the cuts that are to follow.

    Returns
    -------
    logits
        Where they are read.
    kept
        What goes into the block from which each of them is run.
    """
    seen = torch.from_numpy(laid.seen).to(anatomy.unembedding.device)
    with torch.inference_mode(), blocks_kept(anatomy, sorted({_start(anatomy, i) for i in begins})) as kept:
        logits = _run(anatomy, laid, lambda _: seen)
    return logits, dict(kept)


def logits_cut(
    anatomy: Anatomy,
    laid: Laid,
    cuts: Sequence[Cut],
    kept: Mapping[int, Float[Tensor, "1 pos d_model"]],
    at_once: int = TOKENS_AT_ONCE,
) -> Iterator[tuple[int, Float[Tensor, "read vocab"]]]:
    """Run tokens with attention edges cut.

    Parameters
    ----------
    anatomy
        The model's parts.
    laid
        The tokens.
    cuts
        A run each.
    kept
        What goes into the blocks from which cuts are run, as `logits_uncut` gives it.
    at_once
        Runs times tokens in one pass, which bounds the memory.

    Yields
    ------
    The number of a cut, and logits where tokens are read.
    """
    seen = torch.from_numpy(laid.seen).to(anatomy.unembedding.device)
    rows = max(at_once // len(laid.tokens), 1)
    for start in kept:
        own = [i for i, cut in enumerate(cuts) if _start(anatomy, cut.begin) == start]
        for at in range(0, len(own), rows):
            some = [cuts[i] for i in own[at : at + rows]]
            left = torch.stack([seen & ~torch.from_numpy(cut.edges).to(seen.device) for cut in some])

            def seen_in(layer: int, some: Sequence[Cut] = some, left: Tensor = left) -> Tensor:
                cut = torch.tensor([one.begin <= layer < one.stop for one in some], device=seen.device)
                return torch.where(cut[:, None, None], left, seen)[:, None]

            with torch.inference_mode(), _rows_from(anatomy, start, kept[start], len(some)):
                logits = _run(anatomy, laid, seen_in)
            yield from zip(own[at : at + rows], logits.view(len(some), len(laid.read), -1))


def _start(anatomy: Anatomy, begin: int) -> int:
    """The block from which a cut that begins there is run: none above those whose keys later layers share."""
    return min(begin, anatomy.shared_from)


@contextlib.contextmanager
def _rows_from(anatomy: Anatomy, layer: int, residual: Tensor, n: int) -> Iterator[None]:
    """Run `n` rows from a block on, each with what went into it in a run before."""

    def join(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        x = residual.repeat(n, 1, 1)
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {next(iter(kwargs)): x})

    with starting_at(anatomy, layer, residual), contextlib.ExitStack() as stack:
        stack.enter_context(anatomy.blocks[layer].register_forward_pre_hook(join, with_kwargs=True))
        yield


def _run(anatomy: Anatomy, laid: Laid, seen_in: Callable[[int], Tensor]) -> Float[Tensor, "row_read vocab"]:
    """Logits where tokens are read, row after row; `seen_in` gives what is seen in a layer."""

    def attend(one: Attention) -> Tensor:
        return weighed(one.weights(one.scores(one.query, one.key), seen_in(one.layer)), one.value)

    device = anatomy.unembedding.device
    with attention_through(anatomy, attend), unembedding(anatomy, laid.read.tolist()):
        return anatomy.hf(
            input_ids=torch.from_numpy(laid.tokens)[None].to(device),
            position_ids=torch.from_numpy(laid.places)[None].to(device),
            use_cache=False,
        ).logits[0]
