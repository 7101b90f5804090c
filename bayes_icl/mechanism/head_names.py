"""Names of heads: L12H3, a layer, a range of layers, the top of a ranking."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from bayes_icl.core.errors import StatedError, unknown

Heads = Sequence[tuple[int, int]]
"""(layer, head) of each."""


def name_of(head: tuple[int, int]) -> str:
    """A head's name in tables and figures."""
    return f"L{head[0]}H{head[1]}"


def by_layer(heads: Heads) -> dict[int, list[int]]:
    """The heads of each layer."""
    found: dict[int, list[int]] = {}
    for layer, head in heads:
        found.setdefault(layer, []).append(head)
    return found


def heads_named(
    specs: Sequence[str], exist: Bool[np.ndarray, "layer head"], ranks: pd.DataFrame | None = None, rank_by: str = ""
) -> list[tuple[int, int]]:
    """Heads that a command line names.

    Parameters
    ----------
    specs
        Each a head (``L12H3``), a layer (``12``), a range of layers (``10-11``), or ``top8``: the eight heads with the
        largest `rank_by` in a table.
    exist
        Which heads the model has.
    ranks
        A table with the columns layer, head and `rank_by`.
    rank_by
        Column that ranks them.

    Raises
    ------
    StatedError
        A name of another form, a head or layer that the model has not, or no table to rank by.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.mechanism.head_names import heads_named
    >>> heads_named(["L2H0", "0-1"], np.ones((3, 2), bool))  # of three layers of two heads
    [(2, 0), (0, 0), (0, 1), (1, 0), (1, 1)]
    """
    found: list[tuple[int, int]] = []
    n_layers, n_heads = exist.shape
    for spec in specs:
        if match := re.fullmatch("L([0-9]{1,9})H([0-9]{1,9})", spec):
            found.append((int(match[1]), int(match[2])))
        elif match := re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", spec):
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise StatedError(f"--ablate {spec}: a range of layers goes up, as in {last}-{first}")
            layers = range(first, min(last, first + n_layers) + 1)  # one too many says that there is none
            found += [(k, head) for k in layers for head in range(n_heads) if k >= n_layers or exist[k, head]]
            if not any(exist[k].any() for k in layers if k < n_layers) and last < n_layers:
                with_heads = " ".join(map(str, np.flatnonzero(exist.any(1))))
                raise StatedError(f"--ablate {spec}: no attention heads there; the layers that have some: {with_heads}")
        elif match := re.fullmatch("top([0-9]{1,9})", spec):
            if ranks is None:
                raise StatedError(f"--ablate {spec}: give the table to rank by with --ranks")
            if missing := [name for name in ("layer", "head", rank_by) if name not in ranks]:
                raise unknown("column in the table of --ranks:", missing[0], list(ranks))
            rows = ranks[ranks["head"].notna() & ranks["layer"].notna()].nlargest(int(match[1]), rank_by)
            found += [(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"])]
        else:
            raise StatedError(f"--ablate {spec}: expected a head (L12H3), a layer (12), layers (10-11) or top8")
    for layer, head in found:
        if layer >= n_layers or head >= n_heads or not exist[layer, head]:
            raise StatedError(
                f"the model has no head L{layer}H{head}: it has layers 0 to {n_layers - 1} and heads 0 to {n_heads - 1}"
                + ("" if exist.all() else ", and not in every layer")
            )
    return list(dict.fromkeys(found))


Head = tuple[int, int]  # layer, head
