"""``python -m bayes_icl.atlas``: settings, curves, tables, circuits, figures."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from bayes_icl.atlas.figures import atlas_figures
from bayes_icl.atlas.mapping import atlas_curves
from bayes_icl.atlas.outputs import FACTS, TABLES, circuit_file
from bayes_icl.atlas.sentences import summarise_atlas
from bayes_icl.atlas.settings import AtlasSettings
from bayes_icl.core.errors import DONE, StatedError, check_least
from bayes_icl.core.files import sha256, to_json, within
from bayes_icl.core.outputs import Output
from bayes_icl.core.run import Run, key_without
from bayes_icl.curves import newest_curves, read_curves
from bayes_icl.mechanism.recorded import check_same_model, recorded_model, recorded_tasks
from bayes_icl.models.loading import load_model
from bayes_icl.writing.style import figure_files


def main(settings: AtlasSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    tasks = _check(settings, dataset)
    out = settings.out or Path("data/atlas") / path.stem
    drawn = Output(settings.figures or Path("figures") / f"{path.stem}-atlas", "atlas", flag="--figures", inputs=[path])
    if within(drawn.folder, out):
        raise StatedError(
            f"--figures {drawn.folder} lies within --out {out}, where the atlas stands alone: give another"
        )
    run = Run(settings, Output(out, "atlas", alone=".", inputs=[path]), [path], drawn)

    def work(key: str) -> dict[str, bytes]:
        model = load_model(recorded_model(dataset, settings.model), settings.device)
        identity = model.provenance()
        check_same_model(dataset, identity)
        found = atlas_curves(model, dataset, tasks, settings, parts=run.checkpoint(key, identity), progress=True)
        files = {f"{name}.csv": table.to_csv(getattr(found, name)) for name, table in TABLES.items()}
        files |= {circuit_file(task): to_json(circuit) for task, circuit in found.circuits.items()}
        return files | {FACTS: to_json(found.facts), "provenance.json": to_json({"key": key, **run.record(identity)})}

    elsewhere = ("curves", "model", "tasks", "batch_size", "device")
    run.carry_out(
        key_without(settings, elsewhere, curves=sha256(path), tasks=tasks),
        work,
        lambda: (figure_files(atlas_figures(out)), summarise_atlas(out)),
    )
    print(out)
    return DONE


def _check(settings: AtlasSettings, dataset: xr.Dataset) -> list[str]:
    """The tasks wanted, if the settings make sense for the file."""
    tasks = recorded_tasks(dataset, settings.tasks, settings.readout)
    if settings.token is not None and settings.readout == "foil":
        raise StatedError("--token is for --readout complement: answer and foil are compared where they fork")
    check_least(
        settings, n_min=0, n_seqs=0, n_examples=2, total_steps=1, group=1, placebos=0, batch_size=0, seed=0,
        **({} if settings.token is None else {"token": 0}),
    )  # fmt: skip
    return tasks
