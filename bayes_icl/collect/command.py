"""``python -m bayes_icl.collect``: settings, model, curves file."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import xarray as xr
from rich.console import Console
from rich.table import Table

from bayes_icl.collect.reading import collect_curves, wanted_readouts
from bayes_icl.collect.settings import CollectSettings
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import DONE, check_least
from bayes_icl.core.files import sha256, to_netcdf
from bayes_icl.core.outputs import Output
from bayes_icl.core.provenance import key_of, provenance, resume_key, to_attribute
from bayes_icl.models.loading import load_model
from bayes_icl.tasks.loading import FILES, load_tasks


def main(settings: CollectSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    started = datetime.now(UTC)
    check_least(settings, n_shots=1, n_seqs=1, seed=0, batch_size=0)
    files = [Path(spec) for spec in settings.tasks if Path(spec).suffix.lower() in FILES]
    output = Output.file(settings.out, "collect", inputs=files)
    tasks = load_tasks(settings.tasks)
    for task in tasks:
        task.episode(settings.n_shots, settings.seed, 0)  # too few examples: say so before a model is loaded
    wanted_readouts(tasks, settings.readouts)
    with output.held(force=settings.force):
        model = load_model(settings.model, settings.device)
        identity = model.provenance()
        # What decides the numbers; a file with the same key holds the same curves.
        decides = ("n_shots", "n_seqs", "seed", "readouts", "batch_size")
        chosen = asdict(settings)
        decisive = {**{k: chosen[k] for k in decides}, "tasks": [asdict(t) for t in tasks], "model": identity}
        key = key_of({**decisive, "files": [sha256(file) for file in files]})
        if output.holds(key, "with other settings", force=settings.force):
            print(f"nothing to do: {settings.out} was made with these settings", file=sys.stderr)
            print(settings.out)
            return DONE
        parts = Checkpoint(settings.out.with_name(settings.out.name + ".part"), resume_key(key, settings, identity))
        dataset = collect_curves(
            model,
            tasks,
            n_shots=settings.n_shots,
            n_seqs=settings.n_seqs,
            seed=settings.seed,
            readouts=settings.readouts,
            batch_size=settings.batch_size,
            parts=parts,
            progress=True,
        )
        dataset.attrs["key"] = key
        dataset.attrs["provenance"] = to_attribute(provenance(settings, started=started, model=identity, inputs=files))
        output.write({output.main: to_netcdf(dataset)}, key)
        parts.drop()
    _print_summary(dataset)
    print(settings.out)
    return DONE


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
