"""How a model reads branches of a prompt, and when two ways of reading agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class Branching:
    """How a model's branches are read, as far as it was found out by spelling some of them out.

    Attributes
    ----------
    checked
        Tokens of the longest row for which reading over the cached prefix was found to be right.
    why
        Why branches are read one by one; empty if they need not be.
    told
        Whether a line on stderr said so.
    checked_blocks
        The same for reading in blocks.
    last
        What the last read did; empty if it had no branches.
    """

    checked: int = 0
    why: str = ""
    told: bool = False
    checked_blocks: int = 0
    last: str = ""


# How far log probabilities of two ways to the same number may lie apart, nats; dtypes of 16 bits: COARSE.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}

COARSE = 0.5


def gap_between(found: Float[Tensor, "row vocab"], expected: Float[Tensor, "row vocab"], dtype: torch.dtype) -> float:
    """Largest difference of log probabilities, nats; 0 where it is within the tolerance of the dtype."""
    if found.shape != expected.shape:
        return float("inf")
    a, b = (logits.float().log_softmax(-1) for logits in (found, expected))
    tolerance = TOLERANCE.get(dtype, COARSE)
    if torch.allclose(a, b, atol=tolerance, rtol=tolerance / 100):
        return 0.0
    return float((a - b).abs().nan_to_num(float("inf")).max())
