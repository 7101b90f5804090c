"""The experiments of `patch` on the tasks of a curves file, and what they find put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.curves import learning_of
from bayes_icl.lens.sweeps import check_starts
from bayes_icl.mechanism.ablation_values import REFERENCE_KINDS
from bayes_icl.mechanism.direct_effects import attribute_task
from bayes_icl.mechanism.episodes import recorded_episodes, token_text
from bayes_icl.mechanism.head_names import name_of
from bayes_icl.mechanism.recorded import check_same_numbers
from bayes_icl.models.model import Model
from bayes_icl.patch.experiment import Arrays, PatchExperiment
from bayes_icl.patch.ladder import run_ladder
from bayes_icl.patch.outputs import DESCRIBED, TABLES
from bayes_icl.patch.redundancy import measure_redundancy
from bayes_icl.patch.rounds import Baseline, Rounds, Row, measure_baseline, run_rounds
from bayes_icl.patch.settings import PatchSettings
from bayes_icl.patch.step_experiments import run_steps

LADDER_TABLES = ("ladder", "ladder_transfer", "ladder_heads", "ladder_patterns", "features")


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
    progress
        Show a bar on stderr.

    Raises
    ------
    StatedError
        The curves lack what is needed, or the model is of an unknown kind.

    Examples
    --------
    >>> from bayes_icl.collect import collect_curves
    >>> from bayes_icl.models import load_model
    >>> from bayes_icl.patch import PatchSettings, patch_curves
    >>> from bayes_icl.tasks import load_tasks
    >>> model = load_model("tiny", "cpu")  # random weights, so that examples teach it no rule
    >>> curves = collect_curves(model, load_tasks(["capital"]), n_shots=2, n_seqs=4)
    >>> patched = patch_curves(model, curves, settings=PatchSettings(n_examples=2, rounds=1, steps=False))
    >>> patched.facts["capital"]["ended"], len(patched.tables["heads"])
    ('the examples teach no rule', 12)
    """
    settings = settings or PatchSettings()
    tasks = list(tasks) or [str(name) for name in curves.task.values]
    for task in tasks:
        check_same_numbers(model, curves, task, recorded_episodes(model, curves.isel(seq=[0]), task, token=0)[0])
    by_task = {task: _patch_task(PatchExperiment.of(model, curves, task, settings, parts, progress)) for task in tasks}
    each = list(by_task.values())
    effects = xr.concat([one.effects for one in each], dim="task", combine_attrs="drop_conflicts", join="outer")
    effects.attrs["completeness"] = max(one.effects.attrs["completeness"] for one in each)
    tables = {}
    for name in TABLES:
        rows = [row for one in each for row in one.rows.get(name, ())]
        tables[name] = TABLES[name].frame(rows)
    return PatchResult(effects, tables, {task: one.facts for task, one in by_task.items()})


@dataclass(frozen=True)
class _TaskResult:
    """What the stages find on one task: rows by table, facts, and its part of the effects file."""

    rows: dict[str, list[Row]]
    facts: dict[str, Any]
    effects: xr.Dataset


def _patch_task(experiment: PatchExperiment) -> _TaskResult:
    """Run the stages on one task, and put together what they find; first, a sequence tells whether that can be done."""
    _check_parts(experiment)
    baseline = measure_baseline(experiment)
    rounds = run_rounds(experiment, baseline)
    redundancy = measure_redundancy(experiment, baseline)
    rows = {
        "transfer": rounds.transfer,
        "rounds": rounds.rounds,
        "backups": rounds.backups,
        "redundancy": redundancy.redundancy,
        "halves": redundancy.halves,
    }
    facts = _facts_of(experiment, baseline) | rounds.facts()
    roles: Arrays = {}
    if experiment.settings.steps:
        steps = run_steps(experiment, baseline, rounds.transfer_layer)
        rows |= {"mlps": steps.mlps, "steps": steps.steps}
        facts |= steps.facts()
        roles = steps.roles
    if experiment.settings.ladder:
        ladder = run_ladder(experiment, baseline)
        rows |= {name: getattr(ladder, name) for name in LADDER_TABLES}
        facts["ladder_ended"] = ladder.ended
    rows["heads"] = _head_rows(experiment, baseline, rounds, roles)
    return _TaskResult(rows, facts, _effects_of(experiment, baseline, rounds))


def _check_parts(experiment: PatchExperiment) -> None:
    """Of one sequence, add up its parts, and start a run at its last token.

    Raises
    ------
    StatedError
        The parts do not add up; or what is kept of earlier tokens is not all that a later one needs.
    """
    run = experiment.runs[0]
    here = experiment.curves.sel(seq=[run.seq]).isel(shot=[experiment.settings.n_examples])
    attribute_task(experiment.model, here, experiment.task, by_source=False, episodes=[run])
    check_starts(experiment.anatomy, run.prompt.tokens)


def _facts_of(experiment: PatchExperiment, baseline: Baseline) -> dict[str, Any]:
    """What was asked of a task, and what its examples teach."""
    settings = experiment.settings
    learning = learning_of(experiment.curves, experiment.task, settings.n_examples)
    return {
        "n_examples": settings.n_examples,
        "n_pairs": len(experiment.pairs),
        "token": experiment.token,
        "token_text": token_text(experiment.model, experiment.runs),
        "position": settings.position,
        "replaces_query": experiment.replaces_query,
        "kind": experiment.kind,
        "other_kind": experiment.other_kind,
        "kinds": list(REFERENCE_KINDS),
        "reference": settings.reference,
        "taught": baseline.taught,
        "learning": learning._asdict() if learning else None,
        "singles_everywhere": settings.singles_everywhere,
        **baseline.facts(),
    }


def _head_rows(experiment: PatchExperiment, baseline: Baseline, rounds: Rounds, roles: Arrays) -> list[Row]:
    """Rows of the table that joins the roles of heads, their effects, and what repairs their ablation."""
    alone = baseline.alone._asdict()
    with np.errstate(invalid="ignore"):
        numbers = {name: t_interval(alone[name]) for name in ("direct", "lost", "taken", "other_heads", "mlps", "norm")}
        numbers[f"lost_{experiment.other_kind}"] = t_interval(baseline.alone_other.lost)
    rows = []
    for head in experiment.anatomy.heads:
        row: Row = {"task": experiment.task, "component": name_of(head), "layer": head[0], "head": head[1]}
        row |= {name: float(x[:, *head].mean()) for name, x in roles.items()}
        row |= flat({name: [x[head] for x in three] for name, three in numbers.items()})
        rows.append(row | {"round": rounds.round_of.get(head, np.nan)})
    return rows


def _effects_of(experiment: PatchExperiment, baseline: Baseline, rounds: Rounds) -> xr.Dataset:
    """The effects format at the shot of A's query, with what was found of every pair."""
    runs, task, settings = experiment.runs, experiment.task, experiment.settings
    seqs = [run.seq for run in runs]
    here = experiment.curves.sel(seq=seqs).isel(shot=[settings.n_examples])
    dataset = attribute_task(experiment.model, here, task, by_source=False, episodes=runs, batch_size=1)
    transfers = rounds.transfers
    stacked = {key: np.stack([one[key] for one in transfers.values()]) for key in ("own", "other", "a", "b")}
    lost = np.stack([baseline.alone.lost, baseline.alone_other.lost])
    variables: dict[str, Any] = {
        "transfer_own": (("run", "seq", "resid_pre"), stacked["own"]),
        "transfer_other": (("run", "seq", "resid_pre"), stacked["other"]),
        "log_odds_a": (("run", "seq"), stacked["a"]),
        "log_odds_b": (("run", "seq"), stacked["b"]),
        "lost_alone": (("ablation", "seq", "layer", "head"), lost),
    }
    coords: dict[str, Any] = {
        "run": list(transfers),
        "seq": seqs,
        "resid_pre": np.arange(experiment.anatomy.n_layers + 1),
        "ablation": [experiment.kind, experiment.other_kind],
    }
    added = xr.Dataset(variables, coords).expand_dims(task=[task])
    for name, text in DESCRIBED.items():
        added[name].attrs |= {"description": text, "units": "nats"}
    return xr.merge([dataset, added], combine_attrs="override")
