"""Groups of heads, and what goes of delta without them, beside placebo groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bayes_icl.atlas.outputs import GROUPS
from bayes_icl.atlas.scores import TaskScores
from bayes_icl.atlas.summaries import share_of
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.intervals import UNKNOWN_INTERVAL, flat, t_interval
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.mechanism.halves import chosen_on
from bayes_icl.mechanism.head_names import Head, Heads, name_of
from bayes_icl.mechanism.placebos import placebo_name, placebo_sets
from bayes_icl.mechanism.total_effects import read_without_sets


def choose_groups(scores: TaskScores, most: int) -> dict[str, list[Head]]:
    """Heads of each group, chosen on every other sequence; a group that nothing speaks for is missing.

    Parameters
    ----------
    scores
        Of one task.
    most
        Heads of a group; a quarter of all at most.
    """
    if not scores.update.delta.excludes(0):
        return {}
    most = min(most, int(np.isfinite(scores.norms).sum()) // 4)

    def largest(name: str, sign: float) -> list[Head]:
        mean = sign * chosen_on(scores.values[name]).mean(0)
        order = np.argsort(-mean, axis=None, kind="stable")[:most]
        at = [(int(layer), int(head)) for layer, head in zip(*np.unravel_index(order, mean.shape))]
        return [head for head in at if mean[head] > 0]

    found = {
        "carriers": largest("total", scores.toward),
        "writers": largest("direct", scores.toward),
        "cancellers": largest("direct", -scores.toward),
    }
    found["both"] = [*found["writers"], *found["cancellers"]]
    if scores.wholes["rule_gain"].low > 0:
        found["function_vector"] = largest("function_vector", 1.0)
    return {name: found[name] for name in GROUPS if found.get(name)}


def ablate_groups(
    anatomy: Anatomy,
    scores: TaskScores,
    groups: Mapping[str, Sequence[Head]],
    episodes: Sequence[int],
    n_placebos: int,
    seed: int,
    parts: Checkpoint | None,
) -> list[dict[str, Any]]:
    """Rows of lesions.csv for one task: every group mean-ablated over shots at every token, on the other sequences.

    Parameters
    ----------
    anatomy, scores
        The model's parts, and its scores on the task.
    groups
        As `choose_groups` gives them.
    episodes
        Numbers of the sequences that measure.
    n_placebos
        Random groups of the same number and norm, beside each.
    seed
        Of these.
    parts
        Keeps what is finished, sequence by sequence.
    """
    sets: dict[tuple[str, str], Heads] = {}
    for name, heads in groups.items():
        sets[name, "top"] = heads
        for i, placebo in enumerate(placebo_sets(scores.norms, heads, n_placebos, seed), 1):
            sets[name, placebo_name(i)] = placebo
    task = scores.facts["task"]
    lost: dict[tuple[str, str], list[float]] = {key: [] for key in sets}
    for episode in (scores.episodes[i] for i in episodes):

        def read(episode: Any = episode) -> Mapping[str, np.ndarray]:
            named = {" ".join(key): heads for key, heads in sets.items()}
            return read_without_sets(anatomy, episode, named, scores.means)

        name = f"lesions {episode.seq}/{task}"
        found = parts.arrays(name, read) if parts else dict(read())
        for key in sets:
            lost[key].append(float(scores.weights @ (found["none"] - found[" ".join(key)])))
    return [_row(scores, key, heads, {k: np.array(x) for k, x in lost.items()}) for key, heads in sets.items()]


def _row(
    scores: TaskScores, key: tuple[str, str], heads: Heads, lost: Mapping[tuple[str, str], Float[np.ndarray, " seq"]]
) -> dict[str, Any]:
    group, name = key
    own = lost[key]
    placebos = [x for (other, set_), x in lost.items() if other == group and set_ != "top"]
    beyond = t_interval(own - np.mean(placebos, axis=0)) if name == "top" and placebos else UNKNOWN_INTERVAL
    numbers = {"lost": t_interval(own), "share": share_of(own, scores.update.delta), "beyond": beyond}
    about = {"task": scores.facts["task"], "group": group, "set": name, "heads": " ".join(map(name_of, heads))}
    norm = float(sum(scores.norms[head] for head in heads))
    return {**about, "n_heads": len(heads), "norm": norm, "n_seqs": len(own), **flat(numbers)}
