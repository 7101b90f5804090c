"""First step: the direct effects of every task, with the mean outputs that its heads are ablated to."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from tqdm import tqdm

from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import to_netcdf
from bayes_icl.mechanism.direct_effects import attribute_task, start_at, with_reference
from bayes_icl.mechanism.episodes import WHOLE, Episode, recorded_episodes
from bayes_icl.mechanism.mean_outputs import MeanOutputs
from bayes_icl.mechanism.recorded import SAME, check_same_numbers
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import differing


@dataclass(frozen=True)
class TaskEffects:
    """Direct effects on one task.

    Attributes
    ----------
    effects
        The effects format.
    episodes
        The sequences of the task, as they were run.
    means
        Mean outputs of heads over them; None where nothing is to be ablated.
    completeness, split
        The largest errors of what adds up to the log-odds, and of a head's split over sources, both relative.
    """

    effects: xr.Dataset
    episodes: list[Episode]
    means: MeanOutputs | None
    completeness: float
    split: float

    def facts(self) -> dict[str, Any]:
        """How far parts add up, and how many sequences have which token before the one read."""
        facts: dict[str, Any] = {"completeness": self.completeness, "split": self.split}
        if (number := self.episodes[0].token) is not None:
            facts["token_differs"] = differing([e.prompt for e in self.episodes], number)
        return facts


def measure_effects(
    model: Model,
    curves: xr.Dataset,
    tasks: Sequence[str],
    *,
    readout: str,
    token: int | None,
    n_min: int = 1,
    by_source: bool,
    with_means: bool,
    batch_size: int,
    parts: Checkpoint | None,
    progress: bool,
) -> dict[str, TaskEffects]:
    """Direct effects of each task; `with_means` takes the mean outputs of heads in the same passes.

    Of complements the whole answer is taken apart, if no `token` of it is named; lines begin at the mean stream after
    `n_min` examples.

    Raises
    ------
    StatedError
        The curves lack what is needed, the model is another, or the parts do not add up.
    """
    whole = readout == "complement" and token is None
    of_task = {
        task: recorded_episodes(model, curves, task, readout=readout, token=token, whole=whole) for task in tasks
    }
    again = {task: check_same_numbers(model, curves, task, of_task[task][0]) for task in tasks}
    measured = {}
    n_seqs = curves.sizes["seq"]
    with tqdm(total=len(tasks) * n_seqs, unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        for task, episodes in of_task.items():
            bar.set_description(f"{task}: effects")
            start = start_at(model.anatomy, episodes, min(n_min, curves.sizes["shot"] - 1))
            episodes = with_reference(episodes, start)
            means = MeanOutputs(model.anatomy, episodes) if with_means else None
            effects = _kept_effects(parts, task, means)
            if effects is None:
                effects = attribute_task(
                    model, curves, task, readout=readout, start=start, by_source=by_source, batch_size=batch_size,
                    on_batch=bar.update, means=means, episodes=episodes,
                )  # fmt: skip
                if parts:
                    effects = _keep_effects(parts, task, effects, means)
            else:
                bar.update(n_seqs)
            _check_read(effects, again[task])
            worst, split = effects.attrs.pop("completeness"), effects.attrs.pop("split")
            measured[task] = TaskEffects(effects, episodes, means, worst, split)
    return measured


def joined(measured: Mapping[str, TaskEffects], n_min: int) -> xr.Dataset:
    """The tasks' effects in one dataset; what a task is read by stands with it, in `read`."""
    each = [one.effects for one in measured.values()]
    effects = xr.concat(
        each, dim="task", combine_attrs="drop_conflicts", join="outer", data_vars="minimal", coords="minimal"
    )
    # Under `rule` numbers and labels are read by two methods.
    effects.attrs["method"] = "; or ".join(dict.fromkeys(str(one.attrs["method"]) for one in each))
    worst = {name: max(getattr(one, name) for one in measured.values()) for name in ("completeness", "split")}
    effects.attrs |= {**worst, "n_min": n_min}
    return effects


def _check_read(effects: xr.Dataset, again: Float[np.ndarray, " shot"] | None) -> None:
    """What is attributed must be what the curves have.

    A whole answer's log-odds are theirs in every sequence, and a token's are as read again in one sequence and no less
    than those of all the answer.
    """
    own = effects.isel(task=0)
    log_odds, curve = (own[name].transpose("seq", "shot").values for name in ("log_odds", "curve"))
    gap = 0.0 if again is None else float(np.abs(log_odds[0] - again).max())
    if own["read"].item() == WHOLE:
        gap = max(gap, float(np.abs(curve - log_odds).max()))
    elif again is not None and effects.attrs["readout"] == "complement":
        gap = max(gap, float((curve - log_odds).max()))
    if not gap <= SAME:
        raise StatedError(
            f"what is attributed is not what the curves have: task {own.task.item()!r}, {effects.attrs['readout']}, is "
            f"off by {gap:.2g} nats; please report it, with the model and the task"
        )


def _kept_effects(parts: Checkpoint | None, task: str, means: MeanOutputs | None) -> xr.Dataset | None:
    """A task's effects from an unfinished run, if they are finished; its mean outputs go into `means`."""
    if not parts or (kept := parts.get(f"effects/{task}")) is None:
        return None
    if means is not None:
        if (sums := parts.get(f"sums/{task}")) is None:
            return None
        means.restore(np.load(io.BytesIO(sums), allow_pickle=False))
    # Without its encoding, whose width of text would cut other tasks' names.
    return xr.load_dataset(io.BytesIO(kept), engine="h5netcdf").drop_encoding()


def _keep_effects(parts: Checkpoint, task: str, effects: xr.Dataset, means: MeanOutputs | None) -> xr.Dataset:
    """Keep a finished task; what a later run would find there."""
    if means is not None:
        buffer = io.BytesIO()
        np.save(buffer, means.sums.numpy())
        parts.put(f"sums/{task}", buffer.getvalue())
    parts.put(f"effects/{task}", to_netcdf(effects))
    found = _kept_effects(parts, task, means)
    assert found is not None
    return found
