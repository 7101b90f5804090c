"""Which heads write the update: direct effects, their slopes, total effects, and what goes with the largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from bayes_icl.attribute.effects import joined, measure_effects
from bayes_icl.attribute.intervention import Intervention, intervene
from bayes_icl.attribute.outputs import ABLATION, REPAIR
from bayes_icl.attribute.slopes import accumulation_columns, join_columns, slope_table
from bayes_icl.attribute.totals import Totals, measure_totals
from bayes_icl.attribute.update import update_of
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.mechanism.direct_effects import VARIABLES
from bayes_icl.models.model import Model


@dataclass(frozen=True)
class Attribution:
    """What `attribute_curves` finds.

    Attributes
    ----------
    effects
        The effects format.
    heads, ablation, repair
        Tables: a row for every component, every set of heads ablated, every task. The last two are empty without
        ablation, or where there is no update to remove.
    facts
        By task: delta of the token attributed and of the whole answer (as `fit` gives it), and what adds up to it.

    Examples
    --------
    >>> from bayes_icl.attribute import attribute_curves
    >>> from bayes_icl.collect import collect_curves
    >>> from bayes_icl.models import load_model
    >>> from bayes_icl.tasks import load_tasks
    >>> model = load_model("tiny", "cpu")  # random weights
    >>> curves = collect_curves(model, load_tasks(["capital"]), n_shots=4, n_seqs=4)
    >>> attribution = attribute_curves(model, curves, placebos=0)
    >>> attribution.heads.component[:3].tolist(), attribution.effects.attrs["completeness"] < 1e-5
    (['L0H0', 'L0H1', 'L0H2'], True)
    """

    effects: xr.Dataset
    heads: pd.DataFrame
    ablation: pd.DataFrame
    repair: pd.DataFrame
    facts: dict[str, dict[str, Any]]


def attribute_curves(
    model: Model,
    curves: xr.Dataset,
    tasks: Sequence[str] = (),
    *,
    readout: str = "complement",
    token: int | None = None,
    n_min: int = 1,
    top: int = 0,
    placebos: int = 20,
    by_source: bool = True,
    total_steps: int = 8,
    batch_size: int = 0,
    seed: int = 0,
    workers: int = 1,
    parts: Checkpoint | None = None,
    progress: bool = False,
) -> Attribution:
    """Attribute the log-odds of a curves file to heads, and intervene on those that write most of the update.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    curves
        As `collect_curves` gives them.
    tasks
        All, if empty.
    readout, token, n_min, top
        As in `AttributeSettings`.
    placebos
        Random sets to compare with; 0 leaves the intervention out.
    by_source, total_steps, batch_size, seed, workers
        As in `AttributeSettings`.
    parts
        Keeps what is finished on disk, so that a killed run goes on where it stopped.
    progress
        Show a bar on stderr.

    Raises
    ------
    StatedError
        The parts do not add up, the curves lack what is needed, or the model is of an unknown kind.
    """
    tasks = list(tasks) or [str(name) for name in curves.task.values]
    n_all = len(model.anatomy.heads)
    if placebos and top > n_all // 2:
        raise StatedError(
            f"--top {top}: at most {n_all // 2} of the model's {n_all} heads, as many others being needed beside them"
        )
    measured = measure_effects(
        model, curves, tasks, readout=readout, token=token, n_min=n_min, by_source=by_source, with_means=placebos > 0,
        batch_size=batch_size, parts=parts, progress=progress,
    )  # fmt: skip
    effects = joined(measured, n_min)
    slopes, heads_curves = zip(*(slope_table(effects.sel(task=task), task, n_min) for task in tasks))
    accumulations = accumulation_columns(heads_curves, seed=seed, workers=workers, progress=progress)
    updates = {task: update_of(effects.sel(task=task), n_min) for task in tasks}
    totals = {
        task: measure_totals(
            model, effects.sel(task=task), updates[task], one, steps=total_steps, by_source=by_source,
            batch_size=batch_size, seed=seed, parts=parts, progress=progress,
        )
        for task, one in measured.items() if total_steps
    }  # fmt: skip
    interventions: dict[str, Intervention] = {}
    for task, one in measured.items():
        if one.means is not None:
            interventions[task] = intervene(
                model, curves, effects.sel(task=task), updates[task], one.means, one.episodes,
                n_min=n_min, top=top, placebos=placebos, seed=seed, parts=parts, progress=progress,
            )  # fmt: skip
    facts = {}
    for task, table in zip(tasks, slopes):
        facts[task] = {**updates[task].facts, "stands_out": table.component[table.stands_out].tolist()}
        facts[task] |= measured[task].facts() | (interventions[task].facts if task in interventions else {})
        facts[task] |= {"total": totals[task].facts} if totals else {}
    each = list(interventions.values())
    heads = join_columns(
        slopes,
        accumulations,
        [update.columns for update in updates.values()],
        [one.columns for one in totals.values()],
        [_lost(interventions.get(task), totals.get(task)) for task in tasks],
    )
    if ablated := [one.log_odds for one in each if one.log_odds is not None]:
        effects["ablated_log_odds"] = xr.concat(ablated, dim="task", join="outer")
        effects["ablated_log_odds"].attrs = {"description": VARIABLES["ablated_log_odds"], "units": "nats"}
    ablation = pd.DataFrame([row for one in each for row in one.ablation], columns=ABLATION.names)
    repair = pd.DataFrame([row for one in each for row in one.repair], columns=REPAIR.names)
    return Attribution(effects, heads, ablation, repair, facts)


def _lost(intervention: Intervention | None, totals: Totals | None) -> pd.DataFrame:
    """What goes without single heads, of those that the intervention ablated and of those beside total effects."""
    own = intervention.columns if intervention else pd.DataFrame()
    return own.combine_first(totals.exact) if totals else own
