"""``python -m bayes_icl.collect``: settings, model, curves file."""

from __future__ import annotations

import functools
import sys
from dataclasses import asdict, replace
from typing import Any

import xarray as xr
from rich.console import Console
from rich.table import Table

from bayes_icl.collect.reading import check_designs, collect_curves, wanted_readouts
from bayes_icl.collect.settings import CollectSettings
from bayes_icl.core.errors import DONE, check_least, unknown
from bayes_icl.core.files import sha256, to_netcdf
from bayes_icl.core.outputs import Output
from bayes_icl.core.provenance import key_of
from bayes_icl.core.run import Run
from bayes_icl.models.loading import load_model
from bayes_icl.models.model import Model
from bayes_icl.models.names import ORGANISM, organisms
from bayes_icl.tasks.designs import under_designs
from bayes_icl.tasks.loading import files_of, load_tasks
from bayes_icl.tasks.task import Task


def main(settings: CollectSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    check_least(settings, n_shots=1, n_seqs=1, seed=0, batch_size=0)
    settings = replace(settings, tasks=settings.tasks or _usual_tasks(settings.model))
    files = files_of(settings.tasks)
    output = Output.file(settings.out, "collect", inputs=files)
    tasks = under_designs(load_tasks(settings.tasks), settings.design, settings.n_shots)
    check_designs(tasks, settings.n_shots, settings.n_seqs, martingale=settings.martingale)
    for task in tasks:
        task.episode(settings.n_shots, settings.seed, 0)  # too few examples: say so before a model is loaded
    wanted_readouts(tasks, settings.readouts)
    run = Run(settings, output, files, others="with other settings")
    # What decides the numbers; a file with the same key holds the same curves.
    decides = ("n_shots", "n_seqs", "seed", "readouts", "batch_size")
    chosen = {name: value for name, value in asdict(settings).items() if name in decides}
    chosen |= {"martingale": True} if settings.martingale else {}  # files of before it keep their keys
    made: list[xr.Dataset] = []

    @functools.cache
    def model() -> Model:
        return load_model(settings.model, settings.device)

    def key() -> str:
        described = [_fields(task, settings.n_shots) for task in tasks]
        decisive = {**chosen, "tasks": described, "model": model().provenance()}
        return key_of({**decisive, "files": [sha256(file) for file in files]})

    def work(key: str) -> dict[str, bytes]:
        identity = model().provenance()
        parts = run.checkpoint(key, identity)
        dataset = collect_curves(model(), tasks, **chosen, parts=parts, progress=True)
        dataset.attrs |= run.attributes(key, identity)
        made.append(dataset)
        return {output.main: to_netcdf(dataset)}

    if run.carry_out(key, work):
        _print_summary(made[0])
    print(settings.out)
    return DONE


def _usual_tasks(model: str) -> tuple[str, ...]:
    """The tasks that are read if none is named."""
    if not model.startswith(ORGANISM):
        return ("copy", "times_ten", "past_tense", "category")
    if (name := model.removeprefix(ORGANISM)) not in organisms():
        raise unknown("organism", name, organisms())
    return (f"organism_{name}",)


def _fields(task: Task, n_shots: int) -> dict[str, Any]:
    """What tells a task from others; an observer, which is a function, by what it says of the first episode."""
    fields = asdict(task)
    if task.observer is not None:
        fields["observer"] = task.evidence(task.episode(n_shots, 0, 0)).tolist()
    # Files from before these fields keep their keys.
    later = ("two_rules", "observer", "preamble", "process", "design", "base")
    fields["pool"] = [{k: v for k, v in example.items() if v or k != "shown"} for example in fields["pool"]]
    if task.design is not None:
        fields["design"] = task.design.spec
    return {name: value for name, value in fields.items() if value or name not in later}


def _print_summary(dataset: xr.Dataset) -> None:
    """Mean log-odds at some numbers of examples, and how often greedy decoding is right at the last."""
    last = int(dataset.shot[-1])
    shown = sorted({n for n in (0, 1, 2, 4, 8, 16) if n < last} | {last})
    table = Table(title="mean log-odds (nats) after n examples", title_justify="left", box=None)
    for heading in ("task", "readout", *(f"n={n}" for n in shown), f"greedy right at {last}"):
        table.add_column(heading, justify="left" if heading in ("task", "readout") else "right")
    for task in dataset.task.values:
        for readout in dataset.readout.values:
            mean = dataset.log_odds.sel(task=task, readout=readout).mean("seq")
            if mean.notnull().all():
                right = float(dataset.correct.sel(task=task, shot=last).mean())
                values = [f"{float(mean.sel(shot=n)):.2f}" for n in shown]
                table.add_row(str(task), str(readout), *values, f"{right:.0%}" if readout == "complement" else "")
    width = None if sys.stderr.isatty() else 110
    Console(stderr=True, markup=False, emoji=False, highlight=False, width=width).print(table)
