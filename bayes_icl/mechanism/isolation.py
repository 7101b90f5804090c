"""Episodes read with examples kept from one another, after every number of examples at once.

Examples stand in blocks of a few. A token of an example sees its own block and what stands before all examples; the
query that is asked sees everything before it. As an example of later shots a query sees its own block only, so it is
written twice: once among the examples, and once more behind them, at the same place of the text, to be asked. Without
a cut both see the same, so that all shots of all cuts are read in one pass each, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from bayes_icl.core.errors import StatedError
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.masked import Cut, Laid, logits_cut, logits_uncut
from bayes_icl.mechanism.answer_odds import shot_log_odds
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.models.blocks import BEFORE, in_blocks, seen_in
from bayes_icl.models.branching import gap_between
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import Prompt

KINDS = ("cut", "control")
"""Edges between examples of different blocks; as many of each token's other edges to examples."""


class LayerRange(NamedTuple):
    """Layers in which edges are cut: the first, and the one after the last."""

    begin: int
    stop: int

    @property
    def name(self) -> str:
        """As tables have it: "0-9"."""
        return f"{self.begin}-{self.stop - 1}" if self.stop - self.begin > 1 else f"{self.begin}"


def layer_ranges(n_layers: int, parts: int) -> list[LayerRange]:
    """All layers, and then so many parts of them, as even as may be.

    Parameters
    ----------
    n_layers
        Of the model.
    parts
        How many; no more than there are layers.

    Examples
    --------
    >>> from bayes_icl.mechanism.isolation import layer_ranges
    >>> [one.name for one in layer_ranges(30, 3)], [one.name for one in layer_ranges(1, 3)]
    (['0-29', '0-9', '10-19', '20-29'], ['0'])
    """
    cuts = [part for part in np.array_split(np.arange(n_layers), max(parts, 1)) if len(part)]
    found = [LayerRange(0, n_layers), *(LayerRange(int(part[0]), int(part[-1]) + 1) for part in cuts)]
    return list(dict.fromkeys(found))


def block_sizes(n_shots: int) -> list[int]:
    """Powers of 2 below the number of examples.

    Parameters
    ----------
    n_shots
        Examples shown at most.

    Examples
    --------
    >>> from bayes_icl.mechanism.isolation import block_sizes
    >>> block_sizes(16), block_sizes(6)
    ([1, 2, 4, 8], [1, 2, 4])
    """
    return [1 << i for i in range((n_shots - 1).bit_length())]


def laid_out(episode: Episode) -> tuple[Laid, Prompt]:
    """An episode with every query written once more behind it, and what is read of its answers.

    Parameters
    ----------
    episode
        As `recorded_episodes` gives it.

    Returns
    -------
    laid
        Its tokens, then those of the queries that are asked.
    prompt
        The episode, with these queries as its branches.
    """
    prompt = in_blocks(replace(episode.prompt, head=_head(episode.prompt)), 1)
    n, branches, target = len(prompt.tokens), prompt.branches, episode.target
    total = n + len(branches.tokens)
    seen = np.zeros((total, total), dtype=bool)
    seen[:n, :n] = np.tri(n, dtype=bool)
    seen[n:] = branches.visible(n)
    read = []
    for shot, position in zip(target.shot.tolist(), target.positions.tolist()):
        before = tuple(prompt.tokens[prompt.answer_start[shot] : position + 1].tolist())
        branch, at = prompt.rows[shot][before]
        read.append(n + at if branch else at)
    places = np.concatenate([np.arange(n), branches.attach + branches.depth])
    return Laid(np.concatenate([prompt.tokens, branches.tokens]), places, seen, np.array(read)), prompt


def _head(prompt: Prompt) -> int:
    """How many tokens stand before the first example, of a prompt whose tokens and places are all that is known.

    Between an example's beginning and its query all examples have as many tokens; what is more in the first is a text
    before it.
    """
    lead = prompt.query_start[1:] - prompt.answer_stop[:-1]
    return max(1, int(prompt.query_start[0] - lead.max(initial=0)))


def edges_cut(
    prompt: Prompt, size: int, kind: str, rng: np.random.Generator, total: int
) -> Bool[np.ndarray, "total total"]:
    """Which edges are cut: those between examples of different blocks, or as many others.

    The control cuts as many edges of every token: to tokens of its own block first, drawn at random, and where these
    are too few, to tokens of other blocks. So a token keeps the first token of the episode and itself, and sees as many
    tokens of other examples as the cut leaves it of its own. Queries that are asked lose nothing in either.

    Parameters
    ----------
    prompt
        As `laid_out` gives it.
    size
        Examples a block.
    kind
        One of `KINDS`.
    rng
        Draws the control's.
    total
        Tokens, those of the queries that are asked too.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.mechanism.isolation import edges_cut
    >>> from bayes_icl.models import load_model
    >>> from bayes_icl.models.blocks import in_blocks
    >>> from bayes_icl.models.prompts import encode_episode
    >>> from bayes_icl.tasks import load_tasks
    >>> (task,), model, rng = load_tasks(["capital"]), load_model("tiny", "cpu"), np.random.default_rng(0)
    >>> prompt = in_blocks(encode_episode(task, task.episode(4, 0, 0), model.tokenizer), 1)
    >>> len({int(edges_cut(prompt, 2, kind, rng, len(prompt.tokens)).sum()) for kind in ("cut", "control")})
    1
    """
    assert prompt.blocks is not None
    blocks = np.where(prompt.blocks == BEFORE, BEFORE, prompt.blocks // size)
    n = len(blocks)
    edges = np.zeros((total, total), dtype=bool)
    edges[:n, :n] = np.tri(n, dtype=bool) & ~seen_in(blocks)
    if kind == "control":
        others = np.tri(n, k=-1, dtype=bool) & (blocks != BEFORE) & (blocks[:, None] != BEFORE)
        elsewhere = others & ~edges[:n, :n]
        # In a random order, those elsewhere first; each token's first are cut, as many as it loses in the cut.
        order = np.where(elsewhere, 0.0, 1.0) + rng.random((n, n))
        rank = np.where(others, order, np.inf).argsort(1).argsort(1)
        edges[:n, :n] = rank < edges[:n, :n].sum(1, keepdims=True)
    return edges


class Isolated(NamedTuple):
    """One episode, read with examples kept from one another.

    Attributes
    ----------
    plain
        Log-odds of its answers without a cut, nats.
    cut
        With each, by kind (`KINDS`), nats.
    edges
        Share of the attention edges among tokens of examples that is cut, the same of both kinds.
    """

    plain: Float[np.ndarray, " shot"]
    cut: Float[np.ndarray, "size range kind shot"]
    edges: Float[np.ndarray, " size"]


def isolated(
    anatomy: Anatomy, episode: Episode, sizes: Sequence[int], ranges: Sequence[LayerRange], seed: int
) -> Isolated:
    """Read an episode's answers after every number of examples, without a cut and with each.

    Parameters
    ----------
    anatomy
        The model's parts.
    episode
        As `recorded_episodes` gives it.
    sizes
        Examples a block.
    ranges
        Layers in which edges are cut.
    seed
        Draws the controls' edges, with the episode's number; the same in all layers.
    """
    laid, prompt = laid_out(episode)
    assert prompt.blocks is not None
    n = int((prompt.blocks != BEFORE).sum())
    cuts, shares = [], []
    for size in sizes:
        rng = np.random.default_rng([seed, episode.seq, size])
        edges = {kind: edges_cut(prompt, size, kind, rng, len(laid.tokens)) for kind in KINDS}
        cuts += [Cut(edges[kind], *one) for one in ranges for kind in KINDS]
        shares.append(edges["cut"].sum() / (n * (n + 1) / 2))
    logits, kept = logits_uncut(anatomy, laid, [one.begin for one in ranges])
    plain = shot_log_odds(logits, episode.target)
    found = np.empty((len(cuts), len(plain)))
    for i, logits in logits_cut(anatomy, laid, cuts, kept):
        found[i] = shot_log_odds(logits, episode.target)
    return Isolated(plain, found.reshape(len(sizes), len(ranges), len(KINDS), -1), np.array(shares))


def check_layout(model: Model, episodes: Sequence[Episode]) -> None:
    """Refuse a model that reads queries behind an episode otherwise than within it: a window, a state, places.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    episodes
        Of a task; the longest is read.

    Raises
    ------
    StatedError
        How far the two are apart.
    """
    longest = max(episodes, key=lambda episode: len(episode.prompt.tokens))
    found, _ = logits_uncut(model.anatomy, laid_out(longest)[0])
    plain = replace(model, hf=model.plain)
    with torch.inference_mode():
        expected = plain.plain_pass([longest.prompt.tokens], [longest.target.positions.tolist()])
    if gap := gap_between(found, expected, plain.hf.dtype):
        raise StatedError(
            f"model {model.name!r} ({type(plain.hf).__name__}) cannot keep examples apart: a query read behind its "
            f"episode is {gap:.2g} nats off the one within it; take a model whose attention takes any mask, or shorter "
            "episodes than its window"
        )
