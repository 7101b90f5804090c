"""Whether a model is the one that a curves file was collected from, and gives the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from bayes_icl.core.errors import StatedError, unknown
from bayes_icl.core.provenance import record_of
from bayes_icl.curves import readouts_of
from bayes_icl.mechanism.ablation import read_answers, read_targets
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.models.model import Model
from bayes_icl.models.readouts import EpisodeReading, Vocabulary

SAME = 1e-3  # nats by which an episode read again may differ from the curves file


def check_same_numbers(
    model: Model, curves: xr.Dataset, task: str, episode: Episode
) -> Float[np.ndarray, " shot"] | None:
    """Read one episode again: the model must give what the file has, where it has whole answers against all else.

    Returns
    -------
    array or None
        Log-odds of the token that is attributed, nats, read as `collect` reads answers; None where the file has no such
        readout.
    """
    if "complement" not in readouts_of(curves, task):
        return None
    reading = EpisodeReading(None, episode.prompt, ("complement",), Vocabulary(model.token_texts))
    logits, found = read_answers(model, episode.prompt, reading)
    recorded = curves.log_odds.sel(task=task, readout="complement", seq=episode.seq).values
    gap = np.abs(found - recorded).max()
    if not gap <= SAME:
        raise StatedError(
            f"{model.name!r} does not give what the curves have: sequence {episode.seq} of {task!r} is off by {gap:.2g}"
            " nats; give the model that they were collected from"
        )
    return read_targets(logits, reading, episode)


def recorded_tasks(dataset: xr.Dataset, wanted: Sequence[str], readout: str = "") -> list[str]:
    """The tasks wanted of a curves file, all if none is named; each must be there, and have the readout if given.

    Raises
    ------
    StatedError
        Names the task, and what the file has.
    """
    known = [str(name) for name in dataset.task.values]
    tasks = list(dict.fromkeys(wanted)) or known
    for task in tasks:
        if task not in known:
            raise unknown("task", task, known)
        if readout and readout not in readouts_of(dataset, task):
            raise StatedError(f"task {task!r} has no readout {readout!r} in this file: leave it out with --tasks")
    return tasks


def recorded_model(dataset: xr.Dataset, given: str) -> str:
    """Name of the model that curves were collected from; `given`, if the user gives one."""
    name = given or record_of(dataset).get("settings", {}).get("model", "")
    if name and isinstance(name, str):
        return name
    raise StatedError("the curves do not say which model they are of: give --model")


def check_same_model(dataset: xr.Dataset, identity: Mapping[str, str]) -> None:
    """The weights and the tokenizer must be those that the curves were collected from."""
    recorded = record_of(dataset).get("model", {})
    for part, words in (("weights_sha256", "weights"), ("tokenizer_sha256", "tokenizer")):
        if part in recorded and recorded[part] != identity[part]:
            raise StatedError(
                f"the curves were collected from {recorded.get('model', 'a model')!r}, whose {words} are not those of "
                f"{identity['model']!r}: give the same model, or collect again"
            )
