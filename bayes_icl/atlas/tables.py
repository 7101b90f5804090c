"""The tables of `atlas` as a paper shows them."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from bayes_icl.atlas.outputs import LESIONS, SCORES, wide
from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL_WORDS
from bayes_icl.mechanism.head_names import name_of
from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.writing import columns
from bayes_icl.writing.tables import SEVERAL, PaperTable


def largest_heads(atlas: pd.DataFrame, task: str, most: int) -> list[tuple[int, int]]:
    """Heads of one task that come first by any of its scores of effects, in order of layers.

    Parameters
    ----------
    atlas
        atlas.csv.
    task
        Which task.
    most
        How many at most, those first that come first by more.
    """
    table = wide(atlas, task)
    effects = [name for name in table if SCORES[str(name)].whole]
    best = table[effects].abs().rank(ascending=False, method="first").min(axis=1)
    return sorted((int(layer), int(head)) for layer, head in best.nsmallest(most, keep="first").index)


def atlas_table(atlas: pd.DataFrame, task: str, most: int = 2 * SEVERAL) -> PaperTable:
    """The heads of one task that come first by any score of effects, with all their scores.

    Parameters
    ----------
    atlas
        atlas.csv.
    task
        Which task.
    most
        How many heads.
    """
    values = wide(atlas, task)
    own = atlas[atlas.task == task]
    named = own[own.named].groupby(["layer", "head"]).score.agg(lambda names: set(names))
    kinds = own.groupby(["layer", "head"]).kind.first()
    rows = []
    for at in largest_heads(atlas, task, most):
        kind = kinds.get(at)
        about: dict[str, Any] = {"name": name_of(at), "kind": "" if pd.isna(kind) else kind}
        marked = named.get(at, set())
        cells = {}
        for score in values:
            x = values.loc[at, score]
            starred = "*" if score in marked else ""
            cells[str(score)] = columns.NOTHING if np.isnan(x) else f"{columns.number_cell(x, '.3f')}{starred}"
        rows.append({**about, **cells})
    shown = [columns.Column(SCORES[score].words, attrgetter(score)) for score in map(str, values)]
    return PaperTable(
        f"atlas_{file_name(task)}",
        f"Atlas of heads on {task}",
        "Direct and total effects and backup growth in nats per example of delta; recognition and learning in those of "
        "format and rule; function vectors in nats; the others are attention. Asterisk: named (more than 95 % of the "
        "posterior beyond 5 % of the whole). Heads that come first by any effect; the CSV has all, with intervals.",
        "atlas.csv",
        own,
        (columns.text("head", "name"), columns.text("kind", "kind"), *shown),
        pd.DataFrame(rows),
    )


def lesions_table(lesions: pd.DataFrame) -> PaperTable:
    """Groups of heads ablated, beside their placebo groups; the CSV has each of these."""
    rows = []
    for (task, group), own in lesions.groupby(["task", "group"], sort=False):
        placebo = own[are_placebos(own["set"])].share
        row = own[own["set"] == "top"].iloc[0].to_dict()
        rows.append(row | {"task": task, "group": str(group).replace("_", " "), "placebo": placebo.mean()})
    return PaperTable(
        "lesions",
        "Groups of heads ablated",
        f"Share of delta lost with each group mean-ablated over shots, {LEVEL_WORDS} intervals over the sequences that "
        "no head was chosen on; placebos: the mean over random groups of the same number and norm; beyond: lost, less "
        "that of placebos, nats per example.",
        "lesions.csv",
        lesions,
        (
            *columns.shown(LESIONS, "task; group; heads = n_heads; share lost = share .0%"),
            columns.number("placebos", "placebo", ".0%"),
            *columns.shown(LESIONS, "beyond .4f"),
        ),
        pd.DataFrame(rows, columns=None if rows else [*LESIONS.names, "placebo"]),
    )
