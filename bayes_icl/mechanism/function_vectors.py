"""Function-vector scores: what a head's mean output over the task's episodes does for an episode that shows no rule.

After Todd et al. 2024 (arXiv 2310.15213). At the last position of an episode whose examples have their answers
permuted, a head's output is replaced by its mean over the task's other episodes, and the log-odds of the right answer
are read again: its causal indirect effect. An episode's own output is not in the mean that it gets, so that no head
hands on its answer. Every head is taken exactly: one position of one prompt costs a row of a sweep, and a screening by
gradients would save nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.edits import outputs_of
from bayes_icl.lens.sweeps import Row, base_run, sweep
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.transfer import log_odds_of


class FunctionVectors(NamedTuple):
    """Function-vector scores of every head, nats.

    Attributes
    ----------
    effect
        What the log-odds of the right answer gain in an episode without a rule, shape (episode, layer, head).
    clean, permuted
        Log-odds with the examples as they are, and with their answers permuted, shape (episode,).
    """

    effect: Float[np.ndarray, "episode layer head"]
    clean: Float[np.ndarray, " episode"]
    permuted: Float[np.ndarray, " episode"]


def function_vectors(anatomy: Anatomy, episodes: Sequence[Episode], references: Sequence[Episode]) -> FunctionVectors:
    """Function-vector scores of every head of a model on one task.

    Parameters
    ----------
    anatomy
        The model's parts.
    episodes
        Of the task, at least two, as `transfer.cut` gives them.
    references
        The same with their answers permuted, as `transfer.permuted` gives them.

    Examples
    --------
    >>> from bayes_icl import collect_curves, load_model, load_tasks
    >>> from bayes_icl.mechanism import episodes, transfer
    >>> from bayes_icl.mechanism.function_vectors import function_vectors
    >>> model = load_model("tiny", "cpu")  # random weights, two layers of six heads
    >>> curves = collect_curves(model, load_tasks(["capital"]), n_shots=3, n_seqs=2)
    >>> cuts = [transfer.cut(e, 3, e.token) for e in episodes.recorded_episodes(model, curves, "capital")]
    >>> function_vectors(model.anatomy, cuts, [transfer.permuted(e, 3, 0) for e in cuts]).effect.shape
    (2, 2, 6)
    """
    outputs = [outputs_of(anatomy, e.prompt.tokens)[0][:, -1] for e in episodes]  # each (layer, head, d_head)
    total = torch.stack(outputs).sum(0)
    heads = anatomy.heads
    effect = np.zeros((len(episodes), anatomy.n_layers, anatomy.n_heads))
    clean, without = np.zeros(len(episodes)), np.zeros(len(episodes))
    for i, (episode, reference) in enumerate(zip(episodes, references)):
        answer = [int(episode.target.correct[0])]
        mean = (total - outputs[i]) / (len(episodes) - 1)
        plain, base = (base_run(anatomy, e.prompt.tokens, len(e.prompt.tokens) - 1) for e in (episode, reference))
        clean[i], without[i] = (log_odds_of(one.logits, answer)[0, 0] for one in (plain, base))
        rows = [Row(layer, heads={layer: ([head], mean[layer, head][None, None])}) for layer, head in heads]
        for some in sweep(anatomy, base, rows, [0]):
            found = log_odds_of(some.logits[:, 0], answer)[:, 0] - without[i]
            for row, gained in zip(some.rows, found):
                effect[i, *heads[row]] = gained
    return FunctionVectors(effect, clean, without)
