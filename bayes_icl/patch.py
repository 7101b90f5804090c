"""How a task forms and how redundant the heads are that form it: patching, ablation in rounds, the post's three steps.

``python -m bayes_icl.patch --curves data/curves/demo.nc``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_icl.errors import DONE, StatedError, check_least, exit_stating, unknown
from bayes_icl.experiments import COLUMNS, PAIRS_LEAST, TABLES, OneTask, PatchSettings

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from bayes_icl.models import Model
    from bayes_icl.outputs import Checkpoint


@dataclass(frozen=True)
class Patched:
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


def main(settings: PatchSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    from datetime import UTC, datetime

    from bayes_icl.attribute import check_same_model, effects_files, names_beside, recorded_model
    from bayes_icl.curves import newest_curves, read_curves
    from bayes_icl.models import load_model
    from bayes_icl.outputs import Checkpoint, Output, sha256
    from bayes_icl.plots import figure_files
    from bayes_icl.provenance import key_of, provenance, resume_key, to_attribute
    from bayes_icl.summary import summarise_patch

    started = datetime.now(UTC)
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    tasks = _check(settings, dataset)
    out = settings.out or Path("data/patch") / f"{path.stem}.nc"
    inputs = [path, *([settings.ranks] if settings.ranks else [])]
    drawn = Output(settings.figures or Path("figures") / f"{path.stem}-patch", "patch", flag="--figures", inputs=inputs)
    output = Output.file(out, "patch", inputs=inputs)
    elsewhere = ("curves", "model", "tasks", "device", "ranks", "out", "figures", "force")
    decisive = {k: v for k, v in asdict(settings).items() if k not in elsewhere}
    key = key_of(decisive | {"inputs": [sha256(file) for file in inputs], "tasks": tasks})
    drawn.check(force=settings.force, beside=["summary.txt"])
    with output.held(force=settings.force, beside=names_beside(out, TABLES)):
        if output.holds(key, "from other curves or settings", force=settings.force):
            print(f"{out} was made from these curves with these settings; drawn and printed again", file=sys.stderr)
        else:
            model = load_model(recorded_model(dataset, settings.model), settings.device)
            identity = model.provenance()
            check_same_model(dataset, identity)
            parts = Checkpoint(out.with_name(out.name + ".part"), resume_key(key, settings, identity))
            result = patch_curves(model, dataset, tasks, settings, parts=parts, progress=True)
            record = provenance(settings, started=started, model=identity, inputs=inputs)
            result.effects.attrs |= {"key": key, "provenance": to_attribute(record)}
            output.write(effects_files(out, result.tables, result.facts, result.effects), key)
            parts.drop()
        files = figure_files(figures_of(out)) | {"summary.txt": (summary := summarise_patch(out)).encode()}
    with drawn.held(force=settings.force):
        drawn.write(files, of=out)
    print(summary, file=sys.stderr)
    print(drawn.folder)
    print(out)
    return DONE


def patch_curves(
    model: Model,
    curves: xr.Dataset,
    tasks: Sequence[str] = (),
    settings: PatchSettings | None = None,
    *,
    parts: Checkpoint | None = None,
    progress: bool = False,
) -> Patched:
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
    import pandas as pd
    import xarray as xr

    from bayes_icl.attribute import check_same_numbers
    from bayes_icl.effects import recorded_episodes

    settings = settings or PatchSettings()
    tasks = list(tasks) or [str(name) for name in curves.task.values]
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    facts, found = {}, []
    for task in tasks:
        check_same_numbers(model, curves, task, recorded_episodes(model, curves.isel(seq=[0]), task, token=0)[0])
    for task in tasks:
        one = OneTask(model, curves, task, settings, parts, progress)
        one.run()
        for name in TABLES:
            tables[name] += one.rows[name]
        facts[task] = one.facts
        found.append(one.dataset)
    effects = xr.concat(found, dim="task", combine_attrs="drop_conflicts", join="outer")
    effects.attrs["completeness"] = max(part.attrs["completeness"] for part in found)
    frames = {name: pd.DataFrame(rows, columns=None if rows else COLUMNS[name]) for name, rows in tables.items()}
    return Patched(effects, frames, facts)


def _check(settings: PatchSettings, dataset: xr.Dataset) -> list[str]:
    """The tasks wanted, if the settings make sense for the file."""
    from bayes_icl.curves import readouts_of

    known = [str(name) for name in dataset.task.values]
    tasks = list(dict.fromkeys(settings.tasks)) or known
    for task in tasks:
        if task not in known:
            raise unknown("task", task, known)
        if "complement" not in readouts_of(dataset, task):
            raise StatedError(f"task {task!r} has no readout 'complement' in this file: leave it out with --tasks")
    if "answer" not in dataset:
        raise StatedError("the curves have no answer, which patching needs: collect them again")
    check_least(settings, n_examples=2, n_seqs=0, before=1, rounds=0, backups=1, placebos=1, seed=0)
    if 0 < settings.n_seqs < PAIRS_LEAST:
        raise StatedError(f"--n-seqs must be 0 or at least {PAIRS_LEAST}, got {settings.n_seqs}")
    if settings.token is not None and settings.token < 0:
        raise StatedError(f"--token must be 0 or more, got {settings.token}")
    if settings.ablate_at == "last" and settings.position != "last":
        raise StatedError(f"--ablate-at last comes after --position {settings.position}: nothing patched would change")
    if settings.ranks and not settings.ranks.is_file():
        raise StatedError(f"no table {settings.ranks}: give heads.csv of attribute or patch")
    return tasks


def figures_of(out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the tables beside the effects file."""
    import json

    from bayes_icl import patch_plots
    from bayes_icl.compare import read_table
    from bayes_icl.curves import beside, file_name

    table = {name: read_table(beside(out, f"{name}.csv")) for name in TABLES}
    facts = json.loads(beside(out, "json").read_text())
    rules = {task: own["rule_measured"] for task, own in facts.items() if own["taught"]}
    for one in table.values():
        one.attrs |= {name: next(iter(facts.values()))[name] for name in ("kind", "position")}
    drawn = {
        "rounds": patch_plots.rounds_figure(table["rounds"]),
        "redundancy": patch_plots.redundancy_figure(table["redundancy"], table["halves"], rules),
        "repair": patch_plots.repair_figure(table["heads"]),
    }
    if any(own["backups_sought"] for own in facts.values()):
        drawn["backups"] = patch_plots.backups_figure(table["backups"])
    for task in facts:
        drawn[file_name(f"transfer_{task}")] = patch_plots.transfer_figure(table["transfer"], table["rounds"], task)
        if "bring" in table["heads"]:
            drawn[file_name(f"roles_{task}")] = patch_plots.roles_figure(table["heads"], task)
    if len(table["steps"]):
        drawn |= {"steps": patch_plots.steps_figure(table["steps"]), "mlps": patch_plots.mlps_figure(table["mlps"])}
    return drawn


if __name__ == "__main__":
    import tyro

    # Under its own name, as in fit.
    from bayes_icl.patch import PatchSettings, main

    settings = tyro.cli(PatchSettings, prog="python -m bayes_icl.patch")
    exit_stating(lambda: main(settings))
