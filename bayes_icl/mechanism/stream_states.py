"""The residual stream where answers are read, after every number of examples, and runs with a vector added to it.

h(n) is the stream at the position from which the answer to the query after n examples is read. All n are read in one
forward pass of an episode; an added vector is a row of a sweep at one position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.residuals import residuals_at
from bayes_icl.lens.sweeps import Row, base_run, sweep
from bayes_icl.mechanism.answer_odds import token_log_odds
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.transfer import ANSWER, cut, permuted


class States(NamedTuple):
    """Of the episodes of a task.

    Attributes
    ----------
    stream
        h(n) into every block, and into the final norm last.
    log_odds
        Of the token read against all others, nats.
    correct
        The token read.
    """

    stream: Float[np.ndarray, "seq shot point d_model"]
    log_odds: Float[np.ndarray, "seq shot"]
    correct: Int[np.ndarray, "seq shot"]


def states_of(anatomy: Anatomy, episodes: Sequence[Episode], step: Callable[[], object] = lambda: None) -> States:
    """Read the stream of some episodes: a forward pass each.

    Parameters
    ----------
    anatomy
        The model's parts.
    episodes
        As `recorded_episodes` gives them, or `permuted_throughout`.
    step
        Called after each.
    """
    streams, odds = [], []
    for episode in episodes:
        stream, logits = residuals_at(anatomy, episode.prompt.tokens, episode.target.positions)
        correct = torch.from_numpy(episode.target.correct.astype(np.int64)).to(logits.device)
        odds.append(token_log_odds(logits.float(), correct, None).cpu().numpy())
        streams.append(stream.cpu().numpy())
        step()
    return States(np.stack(streams), np.stack(odds), np.stack([e.target.correct for e in episodes]))


def permuted_throughout(episode: Episode, seed: int) -> Episode:
    """An episode with the answers of its examples permuted among them, read at the same queries.

    The answer to the last query is not shown, and stays out. At every query the right answer is asked as before; the
    answers before it are those of other examples.

    Parameters
    ----------
    episode
        As `recorded_episodes` gives it.
    seed
        Of the permutation.
    """
    last, token = len(episode.prompt.answer_start) - 1, episode.token or 0
    moved = permuted(cut(episode, last, token), last, seed)
    places = moved.places
    starts = [int(np.flatnonzero((places.shot == i) & (places.role == ANSWER))[0]) for i in range(last)]
    at = np.array([start + token - 1 for start in starts] + [len(moved.prompt.tokens) - 1])
    return replace(moved, target=episode.target._replace(positions=at))


def log_odds_with(
    anatomy: Anatomy, run: Episode, points: Int[np.ndarray, " row"], vectors: Float[np.ndarray, "row d_model"]
) -> tuple[float, Float[np.ndarray, " row"]]:
    """Log-odds of a cut episode's answer, without and with vectors added at its last position.

    Parameters
    ----------
    anatomy
        The model's parts.
    run
        As `cut` gives it.
    points
        The block into which each vector goes; the number of layers stands for the final norm.
    vectors
        What is added to the stream there.

    Returns
    -------
    plain
        Without a vector, nats.
    added
        With each, nats.
    """
    base = base_run(anatomy, run.prompt.tokens, len(run.prompt.tokens) - 1)
    correct = int(run.target.correct[0])
    rows = [
        Row(int(point), patch={0: base.residual[point][0, 0] + torch.from_numpy(vector).to(base.logits)})
        for point, vector in zip(points.tolist(), vectors)
    ]
    added = np.empty(len(rows))
    for part in sweep(anatomy, base, rows, [0]):
        tokens = torch.full((len(part.rows),), correct, device=part.logits.device)
        added[part.rows] = token_log_odds(part.logits[:, 0].float(), tokens, None).cpu().numpy()
    plain = token_log_odds(base.logits.float(), torch.tensor([correct], device=base.logits.device), None)
    return float(plain[0]), added
