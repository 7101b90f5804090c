"""The atlas of heads: scores of every head on every task, groups ablated, scores compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from bayes_icl.atlas.circuit import circuit_of
from bayes_icl.atlas.lesions import ablate_groups, choose_groups
from bayes_icl.atlas.outputs import AGREEMENT, ATLAS, LESIONS
from bayes_icl.atlas.scores import TaskScores, backup_growth, measure_scores, text_scores
from bayes_icl.atlas.settings import AtlasSettings
from bayes_icl.atlas.summaries import agreement_rows, atlas_rows, named_heads
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.mechanism.halves import measured_on
from bayes_icl.mechanism.head_names import name_of
from bayes_icl.models.model import Model


@dataclass(frozen=True)
class Atlas:
    """What `atlas_curves` finds.

    Attributes
    ----------
    atlas, lesions, agreement
        Tables (`outputs.TABLES`).
    facts
        By task: what scores are parts of, groups of heads, and which scores are missing and why.
    circuits
        By task, heads and their total effects in the form of the Mechanistic Interpretability Benchmark.

    Examples
    --------
    >>> from bayes_icl.atlas import AtlasSettings, atlas_curves
    >>> from bayes_icl.collect import collect_curves
    >>> from bayes_icl.models import load_model
    >>> from bayes_icl.tasks import load_tasks
    >>> model = load_model("tiny", "cpu")  # random weights
    >>> curves = collect_curves(model, load_tasks(["capital"]), n_shots=5, n_seqs=4)
    >>> found = atlas_curves(model, curves, settings=AtlasSettings(placebos=0))
    >>> found.atlas.score.unique()[:3].tolist(), found.circuits["capital"]["nodes"]["a1.h3"]["in_graph"]
    (['direct', 'total', 'function_vector'], False)
    """

    atlas: pd.DataFrame
    lesions: pd.DataFrame
    agreement: pd.DataFrame
    facts: dict[str, dict[str, Any]]
    circuits: dict[str, dict[str, Any]]


def atlas_curves(
    model: Model,
    curves: xr.Dataset,
    tasks: Sequence[str] = (),
    settings: AtlasSettings | None = None,
    *,
    parts: Checkpoint | None = None,
    progress: bool = False,
) -> Atlas:
    """Map every head of a model on the tasks of a curves file.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    curves
        As `collect_curves` gives them.
    tasks
        All, if empty.
    settings
        Those of the command that are not about files.
    parts
        Keeps what is finished on disk, so that a killed run goes on where it stopped.
    progress
        Show bars on stderr.

    Raises
    ------
    StatedError
        There are too few sequences, the curves lack what is needed, or the model is of an unknown kind.
    """
    settings = settings or AtlasSettings()
    tasks = list(tasks) or [str(name) for name in curves.task.values]
    if settings.n_seqs:
        curves = curves.isel(seq=slice(settings.n_seqs))
    anatomy = model.anatomy
    texts = text_scores(anatomy, settings.seed)
    atlas, lesions, agreement = [], [], []
    facts: dict[str, dict[str, Any]] = {}
    circuits: dict[str, dict[str, Any]] = {}
    for task in tqdm(tasks, unit="task", disable=not progress, dynamic_ncols=True):
        scores = measure_scores(model, curves, task, settings, texts, parts, progress)
        scores.facts["task"] = task
        lesions += _lesions(model, scores, settings, parts)
        atlas += atlas_rows(task, scores.values, scores.wholes, scores.toward)
        agreement += agreement_rows(task, scores.values, settings.seed)
        facts[task] = scores.facts
        total = scores.values["total"]
        circuits[task] = circuit_of(anatomy, total.mean(0), named_heads(total, scores.wholes["delta"]))
    tables = ATLAS.frame(atlas), LESIONS.frame(lesions), AGREEMENT.frame(agreement)
    return Atlas(*tables, facts, circuits)


def _lesions(
    model: Model, scores: TaskScores, settings: AtlasSettings, parts: Checkpoint | None
) -> list[dict[str, Any]]:
    """Groups of one task ablated, and what others add then, which becomes one more score."""
    anatomy = model.anatomy
    groups = choose_groups(scores, settings.group) if settings.placebos else {}
    scores.facts["groups"] = {name: [name_of(head) for head in heads] for name, heads in groups.items()}
    if not groups:
        return []
    measuring = measured_on(range(len(scores.episodes)))
    if "writers" in groups:
        growth = backup_growth(anatomy, scores, measuring, groups["writers"], settings.total_steps, parts)
        scores.values["backup"] = np.where(anatomy.exists(), growth, np.nan)
    return ablate_groups(anatomy, scores, groups, measuring, settings.placebos, settings.seed, parts)
