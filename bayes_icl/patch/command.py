"""``python -m bayes_icl.patch``: settings, curves, patch file, figures."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from bayes_icl.core.errors import DONE, StatedError, check_least
from bayes_icl.core.files import sha256
from bayes_icl.core.outputs import Output
from bayes_icl.core.run import Run, key_without
from bayes_icl.core.schemas import effects_files, names_beside
from bayes_icl.curves import newest_curves, read_curves
from bayes_icl.mechanism.recorded import check_same_model, recorded_model, recorded_tasks
from bayes_icl.mechanism.thresholds import PAIRS_LEAST
from bayes_icl.models.loading import load_model
from bayes_icl.patch.figures import patch_figures
from bayes_icl.patch.outputs import TABLES
from bayes_icl.patch.patching import patch_curves
from bayes_icl.patch.sentences import summarise_patch
from bayes_icl.patch.settings import PatchSettings
from bayes_icl.writing.style import figure_files

NAMES = 3  # of columns and facts: outputs with those of before are made again


def main(settings: PatchSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    tasks = _check(settings, dataset)
    out = settings.out or Path("data/patch") / f"{path.stem}.nc"
    inputs = [path, *([settings.ranks] if settings.ranks else [])]
    drawn = Output(settings.figures or Path("figures") / f"{path.stem}-patch", "patch", flag="--figures", inputs=inputs)
    output = Output.file(out, "patch", inputs=inputs)
    elsewhere = ("curves", "model", "tasks", "device", "ranks")
    run = Run(settings, output, inputs, drawn, names_beside(out, TABLES))

    def work(key: str) -> dict[str, bytes]:
        model = load_model(recorded_model(dataset, settings.model), settings.device)
        identity = model.provenance()
        check_same_model(dataset, identity)
        parts = run.checkpoint(key, identity)
        result = patch_curves(model, dataset, tasks, settings, parts=parts, progress=True)
        result.effects.attrs |= run.attributes(key, identity)
        return effects_files(out, TABLES, result.tables, result.facts, result.effects)

    run.carry_out(
        key_without(settings, elsewhere, inputs=[sha256(file) for file in inputs], tasks=tasks, version=NAMES),
        work,
        lambda: (figure_files(patch_figures(out)), summarise_patch(out)),
    )
    print(out)
    return DONE


def _check(settings: PatchSettings, dataset: xr.Dataset) -> list[str]:
    """The tasks wanted, if the settings make sense for the file."""
    tasks = recorded_tasks(dataset, settings.tasks, "complement")
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
