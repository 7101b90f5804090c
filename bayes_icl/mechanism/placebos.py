"""Placebo sets: random heads, as many and of as large norms as those that are ablated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from bayes_icl.core.errors import StatedError
from bayes_icl.mechanism.head_names import Head

NEAREST = (5, 10, 20, 40)  # heads that a placebo is drawn from, in turn

MATCHED = 0.1  # a placebo set's sum of norms may be off by this share

TRIES = 200  # at another placebo set that differs from all before


def placebo_name(number: int) -> str:
    """A placebo set's name in tables and files; sets are counted from 1."""
    return f"placebo {number}"


def is_placebo(name: object) -> bool:
    """Whether a set of heads is a placebo set, by its name."""
    return str(name).startswith("placebo ")


def are_placebos(names: pd.Series) -> pd.Series:
    """`is_placebo` of a column of names."""
    return names.astype(str).str.startswith("placebo ")


def placebo_sets(
    norms: Float[np.ndarray, "layer head"],
    chosen: Sequence[Head],
    n_sets: int = 20,
    seed: int = 0,
    *,
    besides: Sequence[Head] = (),
) -> list[list[Head]]:
    """Random sets of other heads, as many as the chosen ones and with as large a sum of norms, within 10 %.

    Each chosen head is replaced by one of the heads near it in norm, and the set kept where the sum is near enough.
    No two are the same. A head of norm NaN is none. Where there are not enough such sets, those nearest in sum are
    taken, and there may be fewer than `n_sets`. Heads in `besides` are in none.

    Raises
    ------
    StatedError
        There are fewer other heads than chosen ones.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.mechanism.placebos import placebo_sets
    >>> norms = np.array([[1.0, 2.0, 1.0, 2.0], [1.0, 2.0, 1.0, 2.0]])  # of two layers of four heads
    >>> sorted(placebo_sets(norms, [(0, 1)], n_sets=3))
    [[(0, 3)], [(1, 1)], [(1, 3)]]
    """
    norms = np.asarray(norms, float)
    others = [
        (int(i), int(j))
        for i, j in np.ndindex(*norms.shape)
        if np.isfinite(norms[i, j]) and (i, j) not in {*chosen, *besides}
    ]
    if len(others) < len(chosen):
        raise StatedError(
            f"{len(chosen)} of {np.isfinite(norms).sum()} heads are chosen, so that {len(others)} are left to compare "
            "them with; choose at most half"
        )
    if not chosen:
        return []
    rng = np.random.default_rng([seed, 11])
    sizes = np.array([norms[head] for head in others])
    order = sorted(chosen, key=lambda head: -norms[head])
    goal = sum(norms[head] for head in chosen)
    sets: dict[frozenset[int], float] = {}
    for i in range(n_sets * TRIES):
        width = NEAREST[i % len(NEAREST)]
        free = np.full(len(others), True)
        for head in order:
            near = np.argsort(np.where(free, np.abs(sizes - norms[head]), np.inf), kind="stable")
            free[rng.choice(near[: min(width, free.sum())])] = False
        drawn = frozenset(np.flatnonzero(~free).tolist())
        sets[drawn] = abs(sizes[list(drawn)].sum() - goal)
        if sum(off <= MATCHED * goal for off in sets.values()) >= n_sets:
            break
    near_enough = [drawn for drawn, off in sets.items() if off <= MATCHED * goal]
    further = sorted((drawn for drawn in sets if drawn not in set(near_enough)), key=lambda drawn: sets[drawn])
    return [[others[i] for i in sorted(drawn)] for drawn in [*near_enough, *further][:n_sets]]


def placebo_rank(ablation: pd.DataFrame, way: str, delta: float) -> tuple[int, int]:
    """How many placebo sets lose as much of delta as the top set, and how many there are.

    Parameters
    ----------
    ablation
        Rows of one task in ablation.csv.
    way
        ``mean`` or ``mean_over_shots``.
    delta
        Its sign says which way a loss is.
    """
    own = ablation[ablation.value == way]
    lost = own.lost * (1.0 if delta >= 0 else -1.0)
    placebo = lost[are_placebos(own["set"])]
    return int((placebo >= lost[own["set"] == "top"].iloc[0]).sum()), len(placebo)
