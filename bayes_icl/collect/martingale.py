"""The martingale gap: what a model expects to say after one more example, less what it says now.

Whoever learns from exchangeable examples by Bayes' rule expects, before an example is seen, to believe after it what is
believed now. With D the first n examples, x' the query asked after them and x the one after that, the gap is

    log-odds of  sum over labels y' of P(y' | x', D) P(y | x, D, (x', y'))    less    log-odds of  P(y | x, D),

in nats, y the answer of x against the other labels, probabilities among labels. 0 for an exact observer of exchangeable
examples; a rule that may change in between has another expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from bayes_icl.models.model import Model
from bayes_icl.models.prompts import Chain, Prompt, lay_out_chains
from bayes_icl.models.readouts import EpisodeReading, Vocabulary
from bayes_icl.tasks.task import Task

SHOTS = (1, 2, 4, 8, 16, 32)  # where the gap is taken, of those that have an example after them


def has_gap(task: Task, n_shots: int) -> bool:
    """Whether a task has labels to sum over, and examples that are seen by those after them."""
    return len(task.labels) > 1 and n_shots > min(SHOTS) and not (task.design and task.design.block)


def shots_of(n_shots: int) -> list[int]:
    """The shots at which the gap is taken."""
    return [n for n in SHOTS if n < n_shots]


def with_one_more(prompt: Prompt, n_shots: int) -> Prompt:
    """The prompt with branches that show one more example, each of its labels in turn.

    Parameters
    ----------
    prompt
        As `encode_episode` makes it, with its labels.
    n_shots
        Examples shown at most.

    Returns
    -------
    Prompt
        In place of shots, for each of `shots_of` with K labels 2 K + 1 questions: each label of x', the answer of x,
        and the answer of x after each label of x'.
    """
    chains, answers, labels = [], [], []
    for n in shots_of(n_shots):
        attach, of_next = int(prompt.answer_stop[n - 1]), prompt.labels[n + 1]
        own, asked = (
            tuple(prompt.tokens[prompt.answer_stop[i - 1] : prompt.answer_start[i]].tolist()) for i in (n, n + 1)
        )
        for label in prompt.labels[n]:
            chains.append(Chain(attach, own, prompt.labels[n]))
            answers.append(label)
            labels.append(prompt.labels[n])
        for between in ((), *((*own, *label) for label in prompt.labels[n])):
            chains.append(Chain(attach, (*between, *asked), of_next))
            answers.append(prompt.answer(n + 1))
            labels.append(of_next)
    branches, rows = lay_out_chains(chains)
    nothing = ((),) * len(chains)
    return replace(
        prompt,
        branches=branches,
        rows=rows,
        answers=tuple(answers),
        labels=tuple(labels),
        foils=nothing,
        digits=nothing,
    )


def read_gaps(
    model: Model, task: Task, prompts: Sequence[Prompt], n_shots: int, vocabulary: Vocabulary
) -> list[list[float]]:
    """The gap of every prompt at every one of `shots_of`, nats.

    Parameters
    ----------
    model
        As `collect_curves` takes it.
    task
        With labels.
    prompts
        As `with_one_more` makes them.
    n_shots
        Examples shown at most.
    vocabulary
        What the tokens are.
    """
    readings = [EpisodeReading(task, prompt, ["rule"], vocabulary) for prompt in prompts]
    own, branched = model.logits_at(
        [p.tokens for p in prompts],
        [r.positions for r in readings],
        [p.branches for p in prompts],
        [r.branch_positions for r in readings],
    )
    gaps, at, branch_at, k = [], 0, 0, len(task.labels)
    for reading in readings:
        n, m = len(reading.positions), len(reading.branch_positions)
        buckets, _ = reading.read(torch.cat([own[at : at + n], branched[branch_at : branch_at + m]]))
        at, branch_at = at + n, branch_at + m
        asked = (buckets[0, :, 0] - buckets[0, :, 1]).reshape(len(shots_of(n_shots)), 2 * k + 1)
        of_label, now, then = asked[:, :k], asked[:, k], asked[:, k + 1 :]
        share = -np.logaddexp(0, -of_label)  # log P of each label
        holds, fails = (np.logaddexp.reduce(share - np.logaddexp(0, sign * then), axis=1) for sign in (-1, 1))
        gaps.append((holds - fails - now).tolist())
    return gaps
