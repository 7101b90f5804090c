r"""Log-odds of an answer from those of its steps, one a token; how much of them each step has.

An answer is right if every step of it is: P = prod_j p_j, with p_j the chance of step j given those before it. With
l_j = log p_j - log(1 - p_j) the log-odds of a step, those of the answer are L = log P - log(1 - P), and::

    dL = sum_j w_j dl_j,    w_j = (1 - p_j) / (1 - P).

Between two points of the l_j, L changes by sum_j a_j (change of l_j) exactly, a_j being the mean of w_j along the
straight line between them. So what is known of every token adds up to the log-odds of the answer, which `fit` judges.

A step sets some tokens against some others: the right token against all others, a label against the other labels, a
digit against all that is none. Readouts are steps of different sets (`episodes.recorded_episodes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayes_icl.mechanism.episodes import Episode, Target

NODES = 64
"""Gauss-Legendre nodes of the mean weights, which are of a handful of numbers."""


def answer_log_odds(steps: Float[Tensor, "shot token"], real: Bool[Tensor, "shot token"]) -> Float[Tensor, " shot"]:
    """Log-odds of answers from those of their steps, nats; steps that are not real count as certain.

    Examples
    --------
    >>> import torch
    >>> from bayes_icl.mechanism.answer_odds import answer_log_odds
    >>> steps = torch.tensor([[0.5, 0.8]], dtype=torch.float64).logit()
    >>> f"{answer_log_odds(steps, torch.ones(1, 2, dtype=torch.bool)).sigmoid().item():.3f}"
    '0.400'
    """
    steps = torch.where(real, steps, 0.0)
    right = torch.where(real, torch.nn.functional.logsigmoid(steps), 0.0)
    wrong = torch.where(real, torch.nn.functional.logsigmoid(-steps), -torch.inf)
    before = right.cumsum(1) - right
    # 1 - P is the sum of the ways to leave the answer, each positive: nothing cancels.
    return right.sum(1) - (before + wrong).logsumexp(1)


def step_weights(steps: Float[Tensor, "shot token"], real: Bool[Tensor, "shot token"]) -> Float[Tensor, "shot token"]:
    """The slope of an answer's log-odds in those of each step; 0 where a step is not real."""
    right = torch.where(real, torch.nn.functional.logsigmoid(steps), 0.0).sum(1, keepdim=True)
    wrong = right - answer_log_odds(steps, real)[:, None]  # log(1 - P)
    return torch.where(real, (torch.nn.functional.logsigmoid(-steps) - wrong).exp(), 0.0)


def mean_weights(
    start: Float[Tensor, "shot token"], end: Float[Tensor, "shot token"], real: Bool[Tensor, "shot token"]
) -> Float[Tensor, "shot token"]:
    """Means of `step_weights` along the straight line between two points.

    Examples
    --------
    >>> import torch
    >>> from bayes_icl.mechanism.answer_odds import answer_log_odds, mean_weights
    >>> start, end = torch.tensor([[[-3.0, 1.0]], [[4.0, 2.0]]], dtype=torch.float64)
    >>> real = torch.ones(1, 2, dtype=torch.bool)
    >>> moved = answer_log_odds(end, real) - answer_log_odds(start, real)
    >>> bool((mean_weights(start, end, real) @ (end - start).T - moved).abs() < 1e-8)
    True
    """
    nodes, shares = np.polynomial.legendre.leggauss(NODES)
    found = torch.zeros_like(end)
    for node, share in zip((nodes + 1) / 2, shares / 2):
        found += share * step_weights(start + node * (end - start), real)
    return found


@dataclass(frozen=True)
class Asked:
    """What is read of some episodes that are run as one batch.

    Rows are steps, as many an episode: those of an episode with fewer are filled up with its last one, which then
    counts for no shot. Shots of all episodes are numbered on.

    Attributes
    ----------
    positions
        Shape (episode, step): where logits are read.
    correct
        Shape (row,): the token of the answer.
    foil
        Shape (row,): the token that it is set against, or None for others.
    inside, outside
        Shape (row, vocab): what a step counts as right, and as wrong; None where that is `correct`, and all else or
        `foil`.
    row, real
        Shape (shot, token): the row of each step of an answer, and whether there is one.
    reference
        Shape (token,): log-odds of steps from which mean weights are taken; None where there is one step a shot.
    """

    positions: Int[np.ndarray, "episode step"]
    correct: Int[Tensor, " row"]
    foil: Int[Tensor, " row"] | None
    inside: Bool[Tensor, "row vocab"] | None
    outside: Bool[Tensor, "row vocab"] | None
    row: Int[Tensor, "shot token"]
    real: Bool[Tensor, "shot token"]
    reference: Float[Tensor, " token"] | None

    @classmethod
    def of(cls, episodes: Sequence[Episode], vocabulary: int, device: torch.device) -> Asked:
        """Of episodes with as many shots each; `vocabulary` is the number of tokens that logits are of."""
        targets = [e.target for e in episodes]
        width = max(len(t.positions) for t in targets)
        fill = [np.minimum(np.arange(width), len(t.positions) - 1) for t in targets]
        to = lambda x: torch.from_numpy(np.asarray(x)).to(device)  # noqa: E731
        foils = [t.foil[at] for t, at in zip(targets, fill) if t.foil is not None]
        sets = [[t.sets[i] for i in at] for t, at in zip(targets, fill) if t.sets is not None]
        inside = outside = None
        if sets:
            flat = [one for some in sets for one in some]
            inside, outside = torch.zeros(2, len(flat), vocabulary, dtype=torch.bool)
            for i, (right, wrong) in enumerate(flat):
                inside[i, list(right)] = True
                if wrong is None:
                    outside[i] = ~inside[i]
                else:
                    outside[i, list(wrong)] = True
            inside, outside = inside.to(device), outside.to(device)
        tokens = max(int(t.token.max()) + 1 for t in targets)
        shots = targets[0].n_shots
        row = np.full((len(targets) * shots, tokens), -1)
        for i, t in enumerate(targets):
            row[i * shots + t.shot, t.token] = i * width + np.arange(len(t.positions))
        reference = targets[0].reference if tokens > 1 else None
        return cls(
            np.stack([t.positions[at] for t, at in zip(targets, fill)]),
            to(np.concatenate([t.correct[at] for t, at in zip(targets, fill)])),
            to(np.concatenate(foils)) if foils else None,
            inside,
            outside,
            to(np.maximum(row, 0)),
            to(row >= 0),
            None if reference is None else to(reference[:tokens]),
        )

    def steps(self, logits: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
        """Log-odds of every step, nats, float64."""
        if self.inside is None or self.outside is None:
            return token_log_odds(logits, self.correct, self.foil)
        right, wrong = (_log_sum(logits, some) for some in (self.inside, self.outside))
        return right - wrong

    def log_odds(self, logits: Float[Tensor, "row vocab"]) -> Float[Tensor, " shot"]:
        """Log-odds of every answer, nats, float64."""
        return answer_log_odds(self.by_answer(self.steps(logits)), self.real)

    def by_answer(self, x: Float[Tensor, " row"]) -> Float[Tensor, "shot token"]:
        """Numbers of steps, by answer; 0 where there is none."""
        return torch.where(self.real, x[self.row], 0)

    def contrast(self, logits: Float[Tensor, "row vocab"]) -> tuple[Float[Tensor, " row"], Float[Tensor, "row vocab"]]:
        """Log-odds of every step, and their slopes in the logits: the chances among right tokens less among wrong."""
        log_odds = self.steps(logits)
        rows = torch.arange(len(logits), device=logits.device)
        if self.inside is None or self.outside is None:
            if self.foil is None:
                rival = logits[rows, self.correct].double() - log_odds  # log of the sum over the others
                slopes = -(logits - rival.float()[:, None]).exp_()
                slopes[rows, self.correct] = 0
                slopes /= -slopes.sum(-1, keepdim=True, dtype=torch.float64).float()
            else:
                slopes = torch.zeros_like(logits)
                slopes[rows, self.foil] = -1
            slopes[rows, self.correct] += 1
            return log_odds, slopes
        right, wrong = (logits.masked_fill(~some, -torch.inf).softmax(-1) for some in (self.inside, self.outside))
        return log_odds, right - wrong

    def weights(self, steps: Float[Tensor, "shot token"]) -> Float[Tensor, "shot token"]:
        """Mean weights of steps along the line from the reference; 1 where an answer is one step."""
        if self.reference is None:
            return step_weights(steps, self.real) if self.real.shape[1] > 1 else torch.ones_like(steps)
        return mean_weights(self.reference.expand_as(steps), steps, self.real)

    def from_reference(
        self, weights: Float[Tensor, "shot token"]
    ) -> tuple[Float[Tensor, "shot token"], Float[Tensor, " shot"]]:
        """Weights at the reference less mean weights; log-odds there less those of its steps by their weights."""
        if self.reference is None:
            return torch.zeros_like(weights), torch.zeros_like(weights[:, 0])
        there = self.reference.expand_as(weights)
        slopes = step_weights(there, self.real)
        return slopes - weights, answer_log_odds(there, self.real) - (slopes * there).sum(1)

    def of_rows(self, weights: Float[Tensor, "shot token"]) -> Float[Tensor, " row"]:
        """Weights of answers' steps, by row; 0 of rows that fill up."""
        found = torch.zeros(self.positions.size, dtype=weights.dtype, device=weights.device)
        found[self.row[self.real]] = weights[self.real]
        return found

    @property
    def token(self) -> Int[Tensor, " row"]:
        """Which token of its answer a row is, counted from 0."""
        number = torch.arange(self.row.shape[1], device=self.row.device).expand_as(self.row)
        found = torch.zeros(self.positions.size, dtype=torch.long, device=self.row.device)
        found[self.row[self.real]] = number[self.real]
        return found

    def summed(self, x: Float[Tensor, "row ..."]) -> Float[Tensor, "shot ..."]:
        """Sums over the steps of each answer."""
        shape = (-1, *[1] * (x.ndim - 1))
        found = torch.zeros(len(self.row), *x.shape[1:], dtype=x.dtype, device=x.device)
        for token in range(self.row.shape[1]):
            found += x[self.row[:, token]] * self.real[:, token].view(shape).to(x.dtype)
        return found


def token_log_odds(
    logits: Float[Tensor, "row vocab"], correct: Int[Tensor, " row"], foil: Int[Tensor, " row"] | None
) -> Float[Tensor, " row"]:
    """Log-odds of the correct token against the foil, or against all others where there is none; nats, float64."""
    rows = torch.arange(len(correct), device=logits.device)
    own = logits[rows, correct].double()
    if foil is not None:
        return own - logits[rows, foil].double()
    others = logits.clone()
    others[rows, correct] = -torch.inf
    largest = others.detach().amax(-1, keepdim=True)  # which the result does not depend on
    # float32 exponentials, summed in float64, as in `readouts`.
    return own - largest[:, 0].double() - others.sub_(largest).exp_().sum(-1, dtype=torch.float64).log()


def _log_sum(logits: Float[Tensor, "row vocab"], some: Bool[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """Log of the sum of exponentials over some tokens of each row."""
    chosen = logits.masked_fill(~some, -torch.inf)
    largest = chosen.detach().amax(-1, keepdim=True)
    return largest[:, 0].double() + (chosen - largest).exp().sum(-1, dtype=torch.float64).log()


def shot_log_odds(logits: Float[Tensor, "row vocab"], target: Target) -> Float[np.ndarray, " shot"]:
    """Log-odds of one episode's answers, from the logits at the positions of its target, nats."""
    one = Episode(0, None, None, target)  # type: ignore[arg-type]  # of which the target alone is read
    return Asked.of([one], logits.shape[1], logits.device).log_odds(logits).cpu().numpy()
