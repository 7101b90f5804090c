"""What heads do and what the stream holds, with some heads ablated: attention, direct effects, a logit lens on classes.

The logit lens reads the residual stream at a layer with the model's own final norm and unembedding (nostalgebraist
2020), here in classes of answers: is it a number, of which parity, that of the rule or that of the foil's rule.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.edits import Edits, heads_replaced
from bayes_icl.lens.sweeps import base_run
from bayes_icl.mechanism.direct_effects import direct_effects
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.line_effects import soft_cap
from bayes_icl.mechanism.steps import Form, read_token
from bayes_icl.models.prompts import ROLES


def head_states(anatomy: Anatomy, episode: Episode, edits: Edits) -> dict[str, np.ndarray]:
    """What every head does at the last position of a cut episode with some heads ablated.

    Returns
    -------
    dict
        Of ``direct``, its direct effect along the direction of the run without ablation, nats, and ``norm``, that of
        what it writes, shape (layer, head); ``attention``, on examples, shape (layer, head, example, role).
    """
    along = direct_effects(anatomy, [episode], by_source=False).direction if edits else None
    with heads_replaced(anatomy, edits):
        found = direct_effects(anatomy, [episode], along=along)
    assert found.attention is not None
    n_examples = int(episode.places.shot.max())
    on_examples = found.attention[0][..., 1 : 1 + n_examples * len(ROLES)]
    attention = on_examples.reshape(*on_examples.shape[:2], n_examples, len(ROLES))
    return {"direct": found.head[0].astype(float), "norm": found.norm[0].astype(float), "attention": attention}


class Fork(NamedTuple):
    """Where answer and foil differ.

    Attributes
    ----------
    ahead
        The answer's tokens from the one read up to there.
    answer, foil
        The token of each there.
    """

    ahead: np.ndarray
    answer: int
    foil: int


def lens_on_classes(
    anatomy: Anatomy, episode: Episode, form: Form, fork: Fork | None = None
) -> dict[str, Float[np.ndarray, " resid"]]:
    """Log-odds of classes of answers that a logit lens reads at every layer, nats.

    Parameters
    ----------
    anatomy
        The model's parts.
    episode
        As `cut` gives it: read at its last position.
    form
        What the readouts of a form mean (`form_of`).
    fork
        Where answer and foil differ; None without a foil.

    Returns
    -------
    dict
        By readout: ``complement``, ``format``, ``rule`` and ``parity`` as far as they are known, as in `read_token`,
        and ``foil``; one number for what goes into each block, and into the final norm last.
    """
    ahead = np.array([], dtype=np.int64) if form.ahead is None else form.ahead
    found = read_token(_lens(anatomy, episode, ahead), int(episode.target.correct[0]), form)
    if fork is not None:
        logits = _lens(anatomy, episode, fork.ahead)[:, -1].double()
        found["foil"] = (logits[:, fork.answer] - logits[:, fork.foil]).cpu().numpy()
    return found


def _lens(anatomy: Anatomy, episode: Episode, ahead: np.ndarray) -> Float[torch.Tensor, "resid read vocab"]:
    """Logits of the stream of every layer at the last position and after some tokens more of the answer."""
    last = len(episode.prompt.tokens) - 1
    tokens = np.concatenate([episode.prompt.tokens, ahead])
    base = base_run(anatomy, tokens, last)
    with torch.inference_mode():
        streams = torch.stack([x[0, [0, len(ahead)]] for x in base.residual])
        logits = anatomy.unembed(anatomy.final_norm.module(streams)).float()
        if (cap := soft_cap(anatomy)) is not None:
            return cap * torch.tanh(logits / cap)
        raw = logits[-1, -1]
        # Some models multiply their logits.
        logits = logits * ((base.logits[0] @ raw) / (raw @ raw))
    return logits
