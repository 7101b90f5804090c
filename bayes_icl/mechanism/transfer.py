"""A task carried from one prompt to another: runs with examples, runs without, and patches between them.

Run A has n examples and a query, run B the bare query of another episode. A's residual stream at one position is put
into B, at one layer after the other: at first B does nothing with it, then it gives the rule's answer to its *own*
query (the task was recovered), and last A's answer (the answer itself did). Positions are matched by role and distance
from the answer, never by index. After Hendel et al. 2023 (arXiv 2310.15916).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from bayes_icl.core.errors import StatedError
from bayes_icl.core.intervals import TAILS
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.sweeps import Base, Row, sweep
from bayes_icl.mechanism.answer_odds import token_log_odds
from bayes_icl.mechanism.episodes import Episode, Target, recorded_episodes
from bayes_icl.mechanism.thresholds import PAIRS_LEAST
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import ROLES, Places

POSITIONS = ("last", "query", "separator", "answers")
"""Where A's stream is put into B: the last position, the last token of the query, the tokens between query and answer,
or the answers of earlier examples."""

DRAWS = 200  # permutations among which one is chosen

QUERY, SEPARATOR, ANSWER = (ROLES.index(role) for role in ("query", "separator", "answer"))


class Pair(NamedTuple):
    """Two runs, each cut before the token that is read.

    Attributes
    ----------
    a
        With examples.
    b
        Without; for the position ``answers`` with A's examples, their answers permuted.
    """

    a: Episode
    b: Episode

    @property
    def tokens(self) -> tuple[int, int]:
        """The right answer's token of B, and of A."""
        return int(self.b.target.correct[0]), int(self.a.target.correct[0])


def cut(episode: Episode, shot: int, token: int) -> Episode:
    """An episode that ends before one token of the answer to its query number `shot`.

    Returns
    -------
    Episode
        Its one position read is its last, and its places are those of the tokens it has left.
    """
    stop = int(episode.prompt.answer_start[shot]) + token
    tokens = episode.prompt.tokens
    target = Target(np.array([stop - 1]), tokens[stop : stop + 1], None)
    return replace(
        episode,
        prompt=replace(episode.prompt, tokens=tokens[:stop]),
        places=Places(*(x[:stop] for x in episode.places)),
        target=target,
        token=token,
    )


def labels_shown(episode: Episode, shot: int) -> int:
    """How many different answers the examples of a cut episode show, if some of them repeat; else 0."""
    answers = _answers(episode, shot)
    return len(set(answers)) if len(set(answers)) < shot else 0


def _answers(episode: Episode, shot: int) -> list[tuple[int, ...]]:
    bounds = zip(episode.prompt.answer_start[:shot].tolist(), episode.prompt.answer_stop[:shot].tolist())
    return [tuple(episode.prompt.tokens[start:stop].tolist()) for start, stop in bounds]


def permuted(episode: Episode, shot: int, seed: int, *, queries: bool = False, exchanged: bool = False) -> Episode:
    """A cut episode with its examples' answers permuted among them, so that they show the form and no rule.

    Every answer moves. Where answers repeat (labels), some examples keep a right one: of `DRAWS` permutations that is
    taken which keeps about as many as chance would.

    Parameters
    ----------
    episode
        As `cut` gives it.
    shot
        Number of its query, and so of its examples.
    seed
        Of the permutation, beside the number of the sequence.
    queries
        Permute what stands before the answers instead, so that every answer keeps its place and has another's query.
    exchanged
        Leave no answer right: where labels repeat, each example gets another label than its own.

    Raises
    ------
    StatedError
        There is one example only.
    """
    if shot < 2:
        raise StatedError(f"the answers of {shot} example cannot be permuted: give --n-examples 2 or more")
    tokens, places = episode.prompt.tokens, episode.places
    starts, stops = (x[:shot].tolist() for x in (episode.prompt.answer_start, episode.prompt.answer_stop))
    rng = np.random.default_rng([seed, 13, episode.seq])
    answers = _answers(episode, shot)
    by_chance = sum(answers.count(answer) for answer in answers) / shot
    goal = by_chance if by_chance > 1 and not exchanged else 0
    nearest, other = np.inf, np.arange(shot)
    for _ in range(DRAWS):
        order = rng.permutation(shot)
        drawn = np.empty(shot, dtype=int)
        drawn[order] = np.roll(order, 1)  # one cycle: every answer moves
        off = abs(sum(answers[i] == answers[j] for i, j in enumerate(drawn)) - goal)
        if off < nearest:
            nearest, other = off, drawn
        if off < 0.5:
            break
    for i in range(shot) if exchanged else ():
        others = [j for j in range(shot) if answers[j] != answers[i]]
        if answers[other[i]] == answers[i] and others:
            other[i] = rng.choice(others)
    parts: list[np.ndarray] = []
    where: list[np.ndarray] = []
    begin = 0
    for i, (start, stop) in enumerate(zip(starts, stops)):
        kept, moved_ = slice(begin, start), slice(starts[other[i]], stops[other[i]])
        if queries:
            kept, moved_ = slice(stops[other[i] - 1] if other[i] else 1, starts[other[i]]), slice(start, stop)
            if not i:
                parts.append(tokens[:1])
                where.append(np.stack([x[:1] for x in places]))
        for piece in (kept, moved_):
            placed = np.stack([x[piece] for x in places])
            placed[0] = np.where(placed[0] < 0, -1, i)
            parts.append(tokens[piece])
            where.append(placed)
        begin = stop
    moved = np.concatenate([*parts, tokens[begin:]])
    placed = np.concatenate([*where, np.stack([x[begin:] for x in places])], axis=1)
    return replace(
        episode,
        prompt=replace(episode.prompt, tokens=moved),
        places=Places(*placed),
        target=episode.target._replace(positions=np.array([len(moved) - 1])),
    )


def pairs_of(
    model: Model,
    curves: xr.Dataset,
    task: str,
    *,
    n_examples: int,
    token: int | None = None,
    position: str = "last",
    seed: int = 0,
) -> list[Pair]:
    """A pair for every sequence of a task: it, and the query of another with another answer.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    curves
        As `collect_curves` gives them.
    task
        Its name in the file.
    n_examples
        Examples that A shows.
    token
        Token of the answer that is read, as in `recorded_episodes`. The answers of a pair are alike before it.
    position
        One of `POSITIONS`.
    seed
        Of the permutation of B's examples, where `position` is ``answers``.

    Raises
    ------
    StatedError
        There are not so many shots, or a sequence finds no other with another answer.
    """
    if not 1 <= n_examples <= curves.sizes["shot"] - 1:
        raise StatedError(
            f"--n-examples {n_examples}: the curves have 1 to {curves.sizes['shot'] - 1} examples before a query"
        )
    episodes = recorded_episodes(model, curves, task, token=token)
    token = episodes[0].token
    assert token is not None
    shot = n_examples if position == "answers" else 0
    pairs = []
    for i, episode in enumerate(episodes):
        a, answer = cut(episode, n_examples, token), episode.prompt.answer(n_examples)
        shown = set(curves["query"].sel(task=task, seq=episode.seq).values[: n_examples + 1].tolist())
        for other in episodes[i + 1 :] + episodes[:i]:
            theirs = other.prompt.answer(shot)
            asked = str(curves["query"].sel(task=task, seq=other.seq).values[shot])
            differ = len(theirs) > token and len(answer) > token and theirs[token] != answer[token]
            if differ and theirs[:token] == answer[:token] and asked not in shown:
                b = cut(other, shot, token)
                pairs.append(Pair(a, _among_permuted(a, b, n_examples, seed) if shot else b))
                break
    if len(pairs) < PAIRS_LEAST:
        raise StatedError(
            f"task {task!r}: {len(pairs)} of {len(episodes)} sequences find another with another answer and a query "
            f"that they do not show; at least {PAIRS_LEAST} are needed: collect more sequences"
        )
    return pairs


def _among_permuted(a: Episode, b: Episode, shot: int, seed: int) -> Episode:
    """B's query after A's examples, whose answers are permuted."""
    examples = permuted(a, shot, seed)
    mine, theirs = examples.places.shot < shot, b.places.shot == shot
    tokens = np.concatenate([examples.prompt.tokens[mine], b.prompt.tokens[theirs]])
    places = Places(*(np.concatenate([x[mine], y[theirs]]) for x, y in zip(examples.places, b.places)))
    target = b.target._replace(positions=np.array([len(tokens) - 1]))
    return replace(b, prompt=replace(b.prompt, tokens=tokens), places=places, target=target)


def matched(pair: Pair, position: str) -> list[tuple[int, int]]:
    """Positions of A and of B that play the same part.

    Raises
    ------
    StatedError
        A and B have no such position in common.
    """
    if position == "last":
        return [(len(pair.a.prompt.tokens) - 1, len(pair.b.prompt.tokens) - 1)]
    found: list[dict[Any, int]] = []
    for run in pair:
        shot, role, offset = run.places
        at_query = np.flatnonzero((shot == shot.max()) & (role == QUERY))
        if position == "query":
            found.append({"query": int(at_query[-1])} if len(at_query) else {})
        elif position == "separator":
            begin = at_query[-1] if len(at_query) else len(shot)
            after = np.flatnonzero((role == SEPARATOR) & (np.arange(len(shot)) > begin))
            found.append({int(offset[i]): int(i) for i in after})
        else:
            of_examples = np.flatnonzero((role == ANSWER) & (shot < shot.max()) & (shot >= 0))
            found.append({(int(shot[i]), int(offset[i])): int(i) for i in of_examples})
    both = [(found[0][key], found[1][key]) for key in found[0] if key in found[1]]
    if not both:
        raise StatedError(f"--position {position}: the prompts have no such token; give another of {POSITIONS}")
    return both


def patched(
    anatomy: Anatomy,
    a: Base,
    b: Base,
    positions: Sequence[tuple[int, int]],
    tokens: Sequence[int],
    layers: Sequence[int] | None = None,
) -> tuple[Float[np.ndarray, "layer token"], Bool[np.ndarray, "layer token"]]:
    """Log-odds of some tokens after B, A's residual stream being put into it at each layer; and which come first.

    Parameters
    ----------
    anatomy
        The model's parts.
    a, b
        The runs.
    positions
        Of A and B, as `matched` gives them.
    tokens
        Whose log-odds are read.
    layers
        What goes into these blocks, the number of layers being what goes into the final norm; all if None.
    """
    layers = range(anatomy.n_layers + 1) if layers is None else layers
    rows = [Row(i, patch={q - b.first: a.residual[i][0, p - a.first] for p, q in positions}) for i in layers]
    found = np.zeros((len(rows), len(tokens)))
    first = np.zeros(found.shape, bool)
    for some in sweep(anatomy, b, rows, [len(b.tokens) - 1 - b.first]):
        found[some.rows] = log_odds_of(some.logits[:, 0], tokens)
        first[some.rows] = some.logits[:, 0].argmax(-1).cpu().numpy()[:, None] == np.array(tokens)
    return found, first


def log_odds_of(logits: Float[Tensor, "row vocab"], tokens: Sequence[int]) -> Float[np.ndarray, "row token"]:
    """Log-odds of each token against all others, nats."""
    columns = [token_log_odds(logits, torch.full((len(logits),), t, device=logits.device), None) for t in tokens]
    return torch.stack(columns, -1).cpu().numpy()


class TransferLayer(NamedTuple):
    """Where a mean curve over layers reaches its goal.

    Attributes
    ----------
    layer
        The first such layer; NaN if there is none.
    low, high
        95 % of the bootstrap resamples that reach it lie between.
    share
        How many of them do.
    draws
        The layer in each resample, NaN where it is not reached; the same resamples for the same pairs and seed.
    """

    layer: float
    low: float
    high: float
    share: float
    draws: np.ndarray


def reaching(
    curves: Float[np.ndarray, "pair layer"],
    without: Float[np.ndarray, " pair"],
    full: Float[np.ndarray, " pair"],
    *,
    seed: int = 0,
    n_resamples: int = 2000,
) -> TransferLayer:
    """The first layer at which the mean over pairs comes half of the way from `without` to `full`.

    Pairs are resampled together with what they have without patch and in full. A task that A does not know better than
    B (the mean of `full` not above that of `without`) is never carried over.
    """
    n = len(curves)
    draws = np.random.default_rng([seed, 17]).integers(n, size=(n_resamples, n))
    weights = np.stack([np.bincount(draw, minlength=n) for draw in draws]) / n
    first = [_first(np.ones((1, n)) / n, curves, without, full)[0], *_first(weights, curves, without, full)]
    found = np.array(first[1:])
    some = found[~np.isnan(found)]
    low, high = np.quantile(some, TAILS, method="inverted_cdf") if len(some) else (np.nan, np.nan)
    return TransferLayer(float(first[0]), float(low), float(high), len(some) / n_resamples, found)


def _first(
    weights: np.ndarray, curves: np.ndarray, without: np.ndarray, full: np.ndarray
) -> Float[np.ndarray, " draw"]:
    low, high = weights @ without, weights @ full
    there = (weights @ curves >= ((low + high) / 2)[:, None]) & (high > low)[:, None]
    return np.where(there.any(1), there.argmax(1), np.nan)
