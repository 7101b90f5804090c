"""``python -m bayes_icl.attribute``: settings, curves, effects file, figures."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from bayes_icl.attribute.attribution import attribute_curves
from bayes_icl.attribute.figures import attribute_figures
from bayes_icl.attribute.outputs import TABLES
from bayes_icl.attribute.sentences import summarise_heads
from bayes_icl.attribute.settings import AttributeSettings
from bayes_icl.core.errors import DONE, StatedError, check_least
from bayes_icl.core.files import sha256
from bayes_icl.core.outputs import Output
from bayes_icl.core.run import Run, key_without
from bayes_icl.core.schemas import effects_files, names_beside
from bayes_icl.curves import newest_curves, read_curves, readouts_of
from bayes_icl.mechanism.recorded import check_same_model, recorded_model, recorded_tasks
from bayes_icl.models.loading import load_model
from bayes_icl.writing.style import figure_files

PLACEBOS_LEAST = 2
NAMES = 4  # of columns and values: outputs with those of before are made again


def main(settings: AttributeSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    tasks = _check(settings, dataset)
    out = settings.out or Path("data/effects") / f"{path.stem}.nc"
    drawn = Output(
        settings.figures or Path("figures") / f"{path.stem}-heads", "attribute", flag="--figures", inputs=[path]
    )
    output = Output.file(out, "attribute", inputs=[path])
    elsewhere = ("curves", "model", "tasks", "batch_size", "device", "workers")
    run = Run(settings, output, [path], drawn, names_beside(out, TABLES))

    def work(key: str) -> dict[str, bytes]:
        model = load_model(recorded_model(dataset, settings.model), settings.device)
        identity = model.provenance()
        check_same_model(dataset, identity)
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
            total_steps=settings.total_steps,
            batch_size=settings.batch_size,
            seed=settings.seed,
            workers=settings.workers,
            parts=run.checkpoint(key, identity),
            progress=True,
        )
        result.effects.attrs |= run.attributes(key, identity)
        tables = {name: getattr(result, name) for name in TABLES}
        return effects_files(out, TABLES, tables, result.facts, result.effects)

    run.carry_out(
        key_without(settings, elsewhere, curves=sha256(path), tasks=tasks, version=NAMES),
        work,
        lambda: (figure_files(attribute_figures(out)), summarise_heads(out)),
    )
    print(out)
    return DONE


def _check(settings: AttributeSettings, dataset: xr.Dataset) -> list[str]:
    """The tasks wanted, if the settings make sense for the file."""
    tasks = recorded_tasks(dataset, settings.tasks, settings.readout)
    for task in tasks:
        if settings.ablate and "complement" not in readouts_of(dataset, task):
            raise StatedError(
                f"the intervention reads the complement of whole answers, which task {task!r} lacks here: collect it "
                "too, or give --no-ablate"
            )
    if settings.token is not None:
        if settings.readout != "complement":
            raise StatedError(
                f"--token is for --readout complement: {settings.readout} says itself which tokens it reads"
            )
        check_least(settings, token=0)
    check_least(settings, n_min=0, top=0, placebos=0, batch_size=0, total_steps=0, seed=0, workers=0)
    if settings.ablate and settings.placebos < PLACEBOS_LEAST:
        raise StatedError(f"--placebos must be {PLACEBOS_LEAST} or more, got {settings.placebos}; or give --no-ablate")
    return tasks
