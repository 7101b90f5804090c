"""What a model is known by: a hash of its weights."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def hash_weights(hf: PreTrainedModel) -> str:
    """SHA-256 over the parameters, whatever their names and order; the same for any file they came from."""
    parameters = dict(hf.named_parameters())
    digests = []
    for name, parameter in parameters.items():
        # A bridge renames modules and adds split copies of a joint query-key-value projection.
        joint = re.sub(r"\.[qkv]\._original_component\.", ".qkv._original_component.", name)
        if joint != name and joint in parameters:
            continue
        digest = hashlib.sha256(str(tuple(parameter.shape)).encode())
        digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
