"""``python -m bayes_icl.addition``: settings, curves, file of amounts, figures."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from bayes_icl.addition.adding import addition_curves
from bayes_icl.addition.figures import addition_figures
from bayes_icl.addition.outputs import TABLES
from bayes_icl.addition.sentences import summarise_addition
from bayes_icl.addition.settings import AdditionSettings
from bayes_icl.core.errors import DONE, StatedError, check_least
from bayes_icl.core.files import sha256
from bayes_icl.core.outputs import Output
from bayes_icl.core.run import Run, key_without
from bayes_icl.core.schemas import effects_files, names_beside
from bayes_icl.curves import newest_curves, read_curves
from bayes_icl.mechanism.recorded import check_same_model, recorded_model, recorded_tasks
from bayes_icl.models.loading import load_model
from bayes_icl.writing.style import figure_files


def main(settings: AdditionSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    tasks = _check(settings, dataset)
    out = settings.out or Path("data/addition") / f"{path.stem}.nc"
    figures = settings.figures or Path("figures") / f"{path.stem}-addition"
    drawn = Output(figures, "addition", flag="--figures", inputs=[path])
    run = Run(settings, Output.file(out, "addition", inputs=[path]), [path], drawn, names_beside(out, TABLES))

    def work(key: str) -> dict[str, bytes]:
        model = load_model(recorded_model(dataset, settings.model), settings.device)
        identity = model.provenance()
        check_same_model(dataset, identity)
        result = addition_curves(
            model, dataset, tasks, settings, parts=run.checkpoint(key, identity), progress=True
        )  # fmt: skip
        result.effects.attrs |= run.attributes(key, identity)
        return effects_files(out, TABLES, result.tables, result.facts, result.effects)

    run.carry_out(
        key_without(settings, ("curves", "model", "tasks", "device"), inputs=[sha256(path)], tasks=tasks),
        work,
        lambda: (figure_files(addition_figures(out)), summarise_addition(out)),
    )
    print(out)
    return DONE


def _check(settings: AdditionSettings, dataset: xr.Dataset) -> list[str]:
    """The tasks wanted, if the settings make sense for the file."""
    tasks = recorded_tasks(dataset, settings.tasks, "complement")
    check_least(settings, few=1, resamples=20, seed=0)
    if min(settings.doses, default=0) < 1:
        raise StatedError(f"--doses must be 1 or more, got {' '.join(map(str, settings.doses)) or 'none'}")
    return tasks
