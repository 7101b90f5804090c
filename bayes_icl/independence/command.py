"""``python -m bayes_icl.independence``: settings, curves, file of log-odds, figures."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from bayes_icl.core.errors import DONE, StatedError, check_least
from bayes_icl.core.files import sha256
from bayes_icl.core.outputs import Output
from bayes_icl.core.run import Run, key_without
from bayes_icl.core.schemas import effects_files, names_beside
from bayes_icl.curves import newest_curves, read_curves, readouts_of
from bayes_icl.independence.figures import independence_figures
from bayes_icl.independence.outputs import TABLES
from bayes_icl.independence.sentences import summarise_independence
from bayes_icl.independence.separating import independence_curves
from bayes_icl.independence.settings import IndependenceSettings
from bayes_icl.mechanism.recorded import check_same_model, recorded_model, recorded_tasks
from bayes_icl.models.loading import load_model
from bayes_icl.writing.style import figure_files


def main(settings: IndependenceSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    tasks = _check(settings, dataset)
    out = settings.out or Path("data/independence") / f"{path.stem}.nc"
    figures = settings.figures or Path("figures") / f"{path.stem}-independence"
    drawn = Output(figures, "independence", flag="--figures", inputs=[path])
    run = Run(settings, Output.file(out, "independence", inputs=[path]), [path], drawn, names_beside(out, TABLES))

    def work(key: str) -> dict[str, bytes]:
        model = load_model(recorded_model(dataset, settings.model), settings.device)
        identity = model.provenance()
        check_same_model(dataset, identity)
        result = independence_curves(
            model, dataset, tasks, settings, parts=run.checkpoint(key, identity), progress=True
        )  # fmt: skip
        result.effects.attrs |= run.attributes(key, identity)
        return effects_files(out, TABLES, result.tables, result.facts, result.effects)

    run.carry_out(
        key_without(settings, ("curves", "model", "tasks", "device"), inputs=[sha256(path)], tasks=tasks),
        work,
        lambda: (figure_files(independence_figures(out)), summarise_independence(out)),
    )
    print(out)
    return DONE


def _check(settings: IndependenceSettings, dataset: xr.Dataset) -> list[str]:
    """The tasks wanted, if the settings make sense for the file."""
    tasks = recorded_tasks(dataset, settings.tasks)
    for task in tasks:
        if settings.readout not in (own := readouts_of(dataset, task)):
            raise StatedError(
                f"task {task!r} has no readout {settings.readout!r} in this file, which has {', '.join(own)}: give "
                "another --readout, or leave the task out with --tasks"
            )
    check_least(settings, n_min=0, n_seqs=0, parts=1, resamples=100, seed=0)
    return tasks
