"""Whether examples add to the residual stream: movement by layer, amounts and their laws, doses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from bayes_icl.addition.amounts import STILL, judge_amounts
from bayes_icl.addition.dose import dose_response, dose_tables, vectors_by_half
from bayes_icl.addition.outputs import TABLES
from bayes_icl.addition.settings import AdditionSettings
from bayes_icl.addition.trajectories import (
    ALPHA,
    PARTS,
    amounts_along,
    bootstrap_weights,
    movement_of,
    signs_of,
    turned,
)
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.curves import Curves
from bayes_icl.mechanism.episodes import Episode, recorded_episodes, token_text
from bayes_icl.mechanism.recorded import check_same_numbers
from bayes_icl.mechanism.stream_states import permuted_throughout, states_of
from bayes_icl.models.model import Model

LEAST_SEQS, LEAST_SHOTS = 8, 5


@dataclass(frozen=True)
class AdditionResult:
    """What `addition_curves` finds.

    Attributes
    ----------
    effects
        Amounts by task, part, sequence, layer and shot.
    tables
        By name, as in `TABLES`.
    facts
        By task.
    """

    effects: xr.Dataset
    tables: dict[str, pd.DataFrame]
    facts: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Read:
    """Of one task: its episodes, what was read of them, and the stream as it is averaged, by part."""

    episodes: list[Episode]
    stream: np.ndarray
    log_odds: np.ndarray
    signs: np.ndarray | None
    turned: dict[str, np.ndarray]


def addition_curves(
    model: Model,
    curves: xr.Dataset,
    tasks: Sequence[str] = (),
    settings: AdditionSettings | None = None,
    *,
    parts: Checkpoint | None = None,
    progress: bool = False,
) -> AdditionResult:
    """Ask of some tasks of a curves file whether examples add to the residual stream.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    curves
        As `collect_curves` gives them.
    tasks
        All, if empty.
    settings
        Those of the command; its paths are not read.
    parts
        Keeps what is finished on disk, so that a killed run goes on where it stopped.
    progress
        Show a bar on stderr.

    Raises
    ------
    StatedError
        There are too few sequences or shots, or the curves lack what is needed.

    Examples
    --------
    >>> from bayes_icl.addition import AdditionSettings, addition_curves
    >>> from bayes_icl.collect import collect_curves
    >>> from bayes_icl.models import load_model
    >>> from bayes_icl.tasks import load_tasks
    >>> model = load_model("tiny", "cpu")  # random weights, so that no rule is learned
    >>> curves = collect_curves(model, load_tasks(["capital"]), n_shots=6, n_seqs=8)
    >>> found = addition_curves(model, curves, settings=AdditionSettings(fits=False, resamples=20))
    >>> layers = found.tables["layers"]
    >>> layers[layers.part == "rule"].moves.any().item()
    False
    """
    settings = settings or AdditionSettings()
    tasks = list(tasks) or [str(name) for name in curves.task.values]
    n_shots = curves.sizes["shot"] - 1
    if curves.sizes["seq"] < LEAST_SEQS or n_shots < max(LEAST_SHOTS, settings.few + 1):
        raise StatedError(
            f"addition needs {LEAST_SEQS} sequences and {max(LEAST_SHOTS, settings.few + 1)} examples or more, got "
            f"{curves.sizes['seq']} and {n_shots}: collect more"
        )
    doses = np.array([k for k in dict.fromkeys(sorted(settings.doses)) if settings.few + k <= n_shots])
    if not len(doses):
        raise StatedError(
            f"--doses {' '.join(map(str, settings.doses))}: the curves have {n_shots - settings.few} more than "
            f"--few {settings.few}; give a dose of at most that"
        )
    for task in tasks:
        check_same_numbers(model, curves, task, recorded_episodes(model, curves.isel(seq=[0]), task, token=0)[0])

    def part(name: str, compute: Callable[[Any], Mapping[str, np.ndarray]], total: int) -> dict[str, np.ndarray]:
        def run() -> dict[str, np.ndarray]:
            with tqdm(total=total, unit="seq", disable=not progress, dynamic_ncols=True, desc=name) as bar:
                return dict(compute(bar.update))

        return parts.arrays(name, run) if parts else run()

    read = {task: _read(model, curves, task, settings, part) for task in tasks}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    facts, amounts = {}, []
    for i, task in enumerate(tasks):
        one = read[task]
        layers, along = _layers(task, one, settings, parts)
        rows["layers"] += layers
        rows["amounts"] += _amount_rows(task, layers, along)
        amounts.append(along)
        other = read[tasks[(i + 1) % len(tasks)]].turned["task"] if len(tasks) > 1 else None
        found = part(f"dose/{task}", partial(_dosed, model, one, other, doses, settings), len(one.episodes))
        few = settings.few
        by_dose, slopes, best = dose_tables(
            task, found, one.log_odds[:, few + doses], doses, resamples=settings.resamples, seed=settings.seed
        )
        rows["doses"] += by_dose
        rows["slopes"] += slopes
        facts[task] = {
            "n_seqs": len(one.episodes),
            "n_shots": n_shots,
            "token": one.episodes[0].token,
            "token_text": token_text(model, one.episodes),
            "two_answers": one.signs is not None,
            "few": few,
            "other": tasks[(i + 1) % len(tasks)] if len(tasks) > 1 else "",
            "best": best,
            "moving": {name: [r["layer"] for r in layers if r["part"] == name and r["moves"]] for name in PARTS},
        }
    effects = xr.Dataset(
        {"amount": (("task", "part", "seq", "resid_pre", "shot"), np.stack(amounts))},
        {"task": tasks, "part": list(PARTS), "seq": curves.seq.values, "shot": curves.shot.values[1:]},
    )
    effects["amount"].attrs = {"description": "along what an example adds on average, in units of it", "units": "1"}
    return AdditionResult(effects, {name: TABLES[name].frame(rows[name]) for name in TABLES}, facts)


def _read(model: Model, curves: xr.Dataset, task: str, settings: AdditionSettings, part: Any) -> _Read:
    """Read the stream of a task's episodes, and of those with permuted answers: a forward pass each."""
    episodes = recorded_episodes(model, curves, task, token=settings.token)
    permuted = [permuted_throughout(episode, settings.seed) for episode in episodes]
    found = part(
        f"stream/{task}",
        lambda step: {
            **states_of(model.anatomy, episodes, step)._asdict(),
            "permuted": states_of(model.anatomy, permuted, step).stream,
        },
        2 * len(episodes),
    )
    signs = signs_of(found["correct"])
    each = {}
    for name, stream in (("task", found["stream"]), ("permuted", found["permuted"])):
        own = None if signs is None else signs[:, 1:]
        each[name] = np.stack([turned(stream[:, 1:, p], own) for p in range(stream.shape[2])], axis=2)
    each["rule"] = each["task"] - each["permuted"]
    return _Read(episodes, found["stream"], found["log_odds"], signs, each)


def _dosed(
    model: Model, one: _Read, other: np.ndarray | None, doses: np.ndarray, settings: AdditionSettings, step: Any
) -> dict[str, np.ndarray]:
    """Add vectors to the stream of a task's episodes after a few examples."""
    few = settings.few
    signs = None if one.signs is None else one.signs[:, few]
    return dose_response(
        model.anatomy, one.episodes, vectors_by_half(one.turned, other), one.stream[:, few], signs,
        few=few, doses=doses, seed=settings.seed, step=step,
    )  # fmt: skip


def _layers(
    task: str, one: _Read, settings: AdditionSettings, parts: Checkpoint | None
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows of layers.csv with what was fitted to the amounts, and the amounts, shape (part, seq, layer, shot)."""
    n_layers = one.stream.shape[2]
    weights = bootstrap_weights(len(one.stream), settings.resamples, settings.seed)
    rows, along, moving = [], np.full((len(PARTS), len(one.stream), n_layers, one.stream.shape[1] - 1), np.nan), []
    for i, name in enumerate(PARTS):
        for layer in range(n_layers):
            stream = one.turned[name][:, :, layer]
            scale = float(np.sqrt((one.stream[:, -1, layer].astype(float) ** 2).sum(-1).mean()))
            movement = movement_of(stream, scale, weights)
            along[i, :, layer] = amounts_along(stream)
            moves = bool(movement.p < ALPHA / n_layers and np.isfinite(along[i, :, layer]).all())
            numbers = movement.row()
            if not moves:  # shares of nothing
                numbers |= {column: np.nan for column in numbers if column != "p"}
            row = {"task": task, "part": name, "layer": layer, **numbers, "moves": moves}
            rows.append(row | {"verdict": "not_fitted" if moves else STILL})
            if moves:
                moving.append((len(rows) - 1, along[i, :, layer]))
    shots = np.arange(1.0, one.stream.shape[1])
    each = [Curves(task, str(rows[j]["part"]), shots, amounts) for j, amounts in moving] if settings.fits else []
    kept = parts.get(f"fits/{task}") if parts else None
    judged = json.loads(kept) if kept else judge_amounts(each, settings.seed)
    if parts and not kept:
        parts.put(f"fits/{task}", json.dumps(judged).encode())
    for (j, _), found in zip(moving, judged):
        rows[j] |= {name: found[name] for name in ("verdict", "selected", "survivors", "mean_curve")}
        rows[j] |= flat({name: found[name] for name in ("departure", "second_half")})
    unknown = flat({name: [np.nan] * 3 for name in ("departure", "second_half")})
    return [{"selected": "", "survivors": "", **unknown, **row} for row in rows], along


def _amount_rows(task: str, layers: list[dict[str, Any]], along: np.ndarray) -> list[dict[str, Any]]:
    """Rows of amounts.csv, of the layers that move; takes the fitted mean curve out of their rows."""
    rows = []
    for layer in layers:
        fitted = np.array(layer.pop("mean_curve", []))
        if not layer["moves"]:
            continue
        three = t_interval(along[PARTS.index(layer["part"]), :, layer["layer"]])
        if len(fitted):
            fitted = fitted - fitted.mean() + three[0].mean()
        for j in range(len(three[0])):
            rows.append(
                {name: layer[name] for name in ("task", "part", "layer")}
                | {"n": j + 1}
                | flat({"amount": [x[j] for x in three]})
                | {"fitted": float(fitted[j]) if len(fitted) else np.nan}
            )
    return rows
