"""One forward pass that keeps the residual stream at the positions read, before every block and the final norm."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.edits import unembedding


def residuals_at(
    anatomy: Anatomy, tokens: Int[np.ndarray, " pos"], positions: Int[np.ndarray, " read"]
) -> tuple[Float[Tensor, "read point d_model"], Float[Tensor, "read vocab"]]:
    """Run one episode and keep its residual stream at some positions.

    Parameters
    ----------
    anatomy
        The model's parts.
    tokens
        Of the episode.
    positions
        Those to read.

    Returns
    -------
    stream
        What goes into each block, and into the final norm last.
    logits
        At the positions read.
    """
    kept: list[Tensor] = []
    at = torch.from_numpy(np.asarray(positions, dtype=np.int64)).to(anatomy.unembedding.device)

    def keep(_: Any, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        kept.append(x[0, at].float())

    with contextlib.ExitStack() as stack:
        for block in anatomy.blocks:
            stack.enter_context(block.register_forward_pre_hook(keep, with_kwargs=True))
        stack.enter_context(anatomy.before_final_norm(keep))
        stack.enter_context(unembedding(anatomy, at.tolist()))
        stack.enter_context(torch.inference_mode())
        ids = torch.from_numpy(tokens)[None].to(at.device)
        logits = anatomy.hf(input_ids=ids, use_cache=False).logits[0]
    return torch.stack(kept, 1), logits
