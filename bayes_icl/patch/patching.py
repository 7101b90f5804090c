"""The experiments of `patch` on the tasks of a curves file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.mechanism.recorded import check_same_numbers
from bayes_icl.models.model import Model
from bayes_icl.patch.experiments import OneTask
from bayes_icl.patch.outputs import PATCH_COLUMNS, PATCH_TABLES
from bayes_icl.patch.settings import PatchSettings


@dataclass(frozen=True)
class PatchResult:
    """What `patch_curves` finds.

    Attributes
    ----------
    effects
        The effects format, at one shot, with the transfer of every pair and the ablation of every head.
    tables
        By name, as in `TABLES`.
    facts
        By task.
    """

    effects: xr.Dataset
    tables: dict[str, pd.DataFrame]
    facts: dict[str, dict[str, Any]]


def patch_curves(
    model: Model,
    curves: xr.Dataset,
    tasks: Sequence[str] = (),
    settings: PatchSettings | None = None,
    *,
    parts: Checkpoint | None = None,
    progress: bool = False,
) -> PatchResult:
    """Run the experiments on some tasks of a curves file.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    curves
        As `collect_curves` gives them.
    tasks
        All, if empty.
    settings
        Those of the command; its paths are not read, but for `ranks`.
    parts
        Keeps what is finished on disk, so that a killed run goes on where it stopped.

    Raises
    ------
    StatedError
        The curves lack what is needed, or the model is of an unknown kind.
    """
    settings = settings or PatchSettings()
    tasks = list(tasks) or [str(name) for name in curves.task.values]
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in PATCH_TABLES}
    facts, found = {}, []
    for task in tasks:
        check_same_numbers(model, curves, task, recorded_episodes(model, curves.isel(seq=[0]), task, token=0)[0])
    for task in tasks:
        one = OneTask(model, curves, task, settings, parts, progress)
        one.run()
        for name in PATCH_TABLES:
            tables[name] += one.rows[name]
        facts[task] = one.facts
        found.append(one.dataset)
    effects = xr.concat(found, dim="task", combine_attrs="drop_conflicts", join="outer")
    effects.attrs["completeness"] = max(part.attrs["completeness"] for part in found)
    frames = {name: pd.DataFrame(rows, columns=None if rows else PATCH_COLUMNS[name]) for name, rows in tables.items()}
    return PatchResult(effects, frames, facts)
