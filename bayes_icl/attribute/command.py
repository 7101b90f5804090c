"""``python -m bayes_icl.attribute``: settings, curves, effects file, figures."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import xarray as xr

from bayes_icl.attribute.attribution import attribute_curves
from bayes_icl.attribute.figures import attribute_figures
from bayes_icl.attribute.outputs import ATTRIBUTE_TABLES
from bayes_icl.attribute.sentences import summarise_heads
from bayes_icl.attribute.settings import AttributeSettings
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import DONE, StatedError, check_least, unknown
from bayes_icl.core.files import effects_files, names_beside, sha256
from bayes_icl.core.outputs import Output
from bayes_icl.core.provenance import key_of, provenance, resume_key, to_attribute
from bayes_icl.curves import newest_curves, read_curves, readouts_of
from bayes_icl.mechanism.recorded import check_same_model, recorded_model
from bayes_icl.models.loading import load_model
from bayes_icl.writing.style import figure_files

PLACEBOS_LEAST = 2


def main(settings: AttributeSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    started = datetime.now(UTC)
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    tasks = _check(settings, dataset)
    out = settings.out or Path("data/effects") / f"{path.stem}.nc"
    drawn = Output(
        settings.figures or Path("figures") / f"{path.stem}-heads", "attribute", flag="--figures", inputs=[path]
    )
    output = Output.file(out, "attribute", inputs=[path])
    elsewhere = ("curves", "model", "tasks", "batch_size", "device", "workers", "out", "figures", "force")
    decisive = {k: v for k, v in asdict(settings).items() if k not in elsewhere}
    key = key_of(decisive | {"curves": sha256(path), "tasks": tasks})
    drawn.check(force=settings.force, beside=["summary.txt"])
    with output.held(force=settings.force, beside=names_beside(out, ATTRIBUTE_TABLES)):
        if output.holds(key, "from other curves or settings", force=settings.force):
            print(f"{out} was made from these curves with these settings; drawn and printed again", file=sys.stderr)
        else:
            model = load_model(recorded_model(dataset, settings.model), settings.device)
            identity = model.provenance()
            check_same_model(dataset, identity)
            parts = Checkpoint(out.with_name(out.name + ".part"), resume_key(key, settings, identity))
            result = attribute_curves(
                model,
                dataset,
                tasks,
                readout=settings.readout,
                token=settings.token,
                n_min=settings.n_min,
                top=settings.top,
                placebos=settings.placebos if settings.ablate else 0,
                by_source=settings.by_source,
                batch_size=settings.batch_size,
                seed=settings.seed,
                workers=settings.workers,
                parts=parts,
                progress=True,
            )
            record = provenance(settings, started=started, model=identity, inputs=[path])
            result.effects.attrs |= {"key": key, "provenance": to_attribute(record)}
            tables = {name: getattr(result, name) for name in ATTRIBUTE_TABLES}
            output.write(effects_files(out, tables, result.facts, result.effects), key)
            parts.drop()
        files = figure_files(attribute_figures(out)) | {"summary.txt": (summary := summarise_heads(out)).encode()}
    with drawn.held(force=settings.force):
        drawn.write(files, of=out)
    print(summary, file=sys.stderr)
    print(drawn.folder)
    print(out)
    return DONE


def _check(settings: AttributeSettings, dataset: xr.Dataset) -> list[str]:
    """The tasks wanted, if the settings make sense for the file."""
    known = [str(name) for name in dataset.task.values]
    tasks = list(dict.fromkeys(settings.tasks)) or known
    for task in tasks:
        if task not in known:
            raise unknown("task", task, known)
        if settings.readout not in readouts_of(dataset, task):
            raise StatedError(
                f"task {task!r} has no readout {settings.readout!r} in this file: leave it out with --tasks"
            )
        if settings.ablate and "complement" not in readouts_of(dataset, task):
            raise StatedError(
                f"the intervention reads the complement of whole answers, which task {task!r} lacks here: collect it "
                "too, or give --no-ablate"
            )
    if settings.token is not None:
        if settings.readout == "foil":
            raise StatedError("--token is for --readout complement: answer and foil are compared where they fork")
        check_least(settings, token=0)
    check_least(settings, n_min=0, top=0, placebos=0, batch_size=0, seed=0, workers=0)
    if settings.ablate and settings.placebos < PLACEBOS_LEAST:
        raise StatedError(f"--placebos must be {PLACEBOS_LEAST} or more, got {settings.placebos}; or give --no-ablate")
    return tasks
