"""Whether examples need to see one another: curves with examples in blocks, and what of the update is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.core.intervals import UNKNOWN_INTERVAL, Interval, flat, t_interval
from bayes_icl.independence.kept import (
    interval_of,
    linear_forms,
    resampled_means,
    shares_kept,
    update_of,
    verdict_of,
)
from bayes_icl.independence.outputs import INDEPENDENT, TABLES
from bayes_icl.independence.settings import IndependenceSettings
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.mechanism.isolation import KINDS, Isolated, LayerRange, block_sizes, check_layout, isolated, layer_ranges
from bayes_icl.mechanism.recorded import check_same_numbers
from bayes_icl.models.model import Model

LEAST_SEQS, LEAST_SHOTS = 4, 2  # sequences, and examples after n_min


@dataclass(frozen=True)
class IndependenceResult:
    """What `independence_curves` finds.

    Attributes
    ----------
    effects
        Log-odds by task, sequence and shot, without a cut (`plain`), and by size, layers and edges (`log_odds`).
    tables
        By name, as in `TABLES`.
    facts
        By task.
    """

    effects: xr.Dataset
    tables: dict[str, pd.DataFrame]
    facts: dict[str, dict[str, Any]]


def independence_curves(
    model: Model,
    curves: xr.Dataset,
    tasks: Sequence[str] = (),
    settings: IndependenceSettings | None = None,
    *,
    parts: Checkpoint | None = None,
    progress: bool = False,
) -> IndependenceResult:
    """Ask of some tasks of a curves file whether examples need to see one another.

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
        There are too few sequences or shots, the curves lack what is needed, or the model's attention takes no mask.

    Examples
    --------
    >>> from bayes_icl.collect import collect_curves
    >>> from bayes_icl.independence import independence_curves
    >>> from bayes_icl.models import load_model
    >>> from bayes_icl.tasks import load_tasks
    >>> coin = load_model("organism:coin", "cpu")  # counts labels, each where it stands
    >>> curves = collect_curves(coin, load_tasks(["organism_coin"]), n_shots=6, n_seqs=6)
    >>> independence_curves(coin, curves).facts["organism_coin"]["verdict"]
    'independent'
    """
    settings = settings or IndependenceSettings()
    tasks = list(tasks) or [str(name) for name in curves.task.values]
    n_shots = curves.sizes["shot"] - 1
    n_seqs = min(curves.sizes["seq"], settings.n_seqs or curves.sizes["seq"])
    if n_seqs < LEAST_SEQS or n_shots < settings.n_min + LEAST_SHOTS:
        raise StatedError(
            f"independence needs {LEAST_SEQS} sequences and {settings.n_min + LEAST_SHOTS} examples or more, got "
            f"{n_seqs} and {n_shots}: collect more, or give more --n-seqs"
        )
    curves = curves.isel(seq=slice(n_seqs))
    sizes, ranges = block_sizes(n_shots), layer_ranges(model.anatomy.n_layers, settings.parts)
    episodes = {task: recorded_episodes(model, curves, task, readout=settings.readout, whole=True) for task in tasks}
    for own in episodes.values():
        check_layout(model, own)
    for task, own in episodes.items():
        check_same_numbers(model, curves, task, own[0])
    found: dict[str, Isolated] = {}
    with tqdm(total=sum(map(len, episodes.values())), unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        for task, own in episodes.items():
            bar.set_description(task)
            each = []
            for episode in own:

                def read(episode: Any = episode) -> dict[str, np.ndarray]:
                    return isolated(model.anatomy, episode, sizes, ranges, settings.seed)._asdict()

                each.append(parts.arrays(f"{task}/{episode.seq}", read) if parts else read())
                bar.update()
            found[task] = Isolated(*(np.stack([one[name] for one in each]) for name in Isolated._fields))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    facts = {}
    for task, one in found.items():
        rows["curves"] += _curve_rows(task, one, sizes, ranges)
        kept, verdict = _kept_rows(task, one, sizes, ranges, settings)
        rows["kept"] += kept
        rows["verdicts"].append(verdict)
        facts[task] = {
            "n_seqs": len(one.plain),
            "n_shots": n_shots,
            "n_min": settings.n_min,
            "readout": settings.readout,
            "sizes": sizes,
            "layers": [own.name for own in ranges],
            "verdict": verdict["verdict"],
        }
    return IndependenceResult(
        _effects(found, curves, sizes, ranges), {name: TABLES[name].frame(rows[name]) for name in TABLES}, facts
    )


def _effects(found: dict[str, Isolated], curves: xr.Dataset, sizes: list[int], ranges: list[LayerRange]) -> xr.Dataset:
    effects = xr.Dataset(
        {
            "plain": (("task", "seq", "shot"), np.stack([one.plain for one in found.values()])),
            "log_odds": (
                ("task", "seq", "size", "layers", "edges", "shot"),
                np.stack([one.cut for one in found.values()]),
            ),
        },
        {
            "task": list(found),
            "seq": curves.seq.values,
            "shot": curves.shot.values,
            "size": sizes,
            "layers": [own.name for own in ranges],
            "edges": list(KINDS),
        },
    )
    for name, words in (("plain", "no attention edge cut"), ("log_odds", "attention edges cut in some layers")):
        effects[name].attrs = {"description": f"log-odds of the answers, {words}", "units": "nats"}
    return effects


def _curve_rows(task: str, one: Isolated, sizes: list[int], ranges: list[LayerRange]) -> list[dict[str, Any]]:
    """Rows of curves.csv."""
    kinds: list[tuple[str, str, float, np.ndarray]] = [("", "plain", np.nan, one.plain)]
    for j, layers in enumerate(ranges):
        for k, kind in enumerate(KINDS):
            kinds += [(layers.name, kind, size, one.cut[:, i, j, k]) for i, size in enumerate(sizes)]
    return [
        {"task": task, "layers": layers, "edges": edges, "size": size, "n": n}
        | flat({"log_odds": (mean[n], low[n], high[n])})
        for layers, edges, size, log_odds in kinds
        for mean, low, high in [t_interval(log_odds)]
        for n in range(len(mean))
    ]


def _kept_rows(
    task: str, one: Isolated, sizes: list[int], ranges: list[LayerRange], settings: IndependenceSettings
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of kept.csv, and that of verdicts.csv."""
    shots = np.arange(settings.n_min, one.plain.shape[1], dtype=float)
    forms = linear_forms(shots)
    whole, left = (x[..., settings.n_min :] @ forms.T for x in (one.plain, one.cut))  # (seq, ..., form)
    update, there = update_of(whole[:, 0])
    means = resampled_means(len(whole), settings.resamples, settings.seed)
    rows = []
    for j, layers in enumerate(ranges):
        for i, size in enumerate(sizes):
            row: dict[str, Any] = {
                "task": task,
                "begin": layers.begin,
                "stop": layers.stop,
                "layers": layers.name,
                "size": size,
            }
            row["cut_edges"] = float(one.edges[:, i].mean())
            for form, end in enumerate(("", "_delta")):
                numbers = dict.fromkeys(("kept", "control", "beyond"), UNKNOWN_INTERVAL)
                if there:
                    cut, control = (shares_kept(whole[:, form], left[:, i, j, k, form], means) for k in range(2))
                    draws = {"kept": cut, "control": control, "beyond": cut - control}
                    numbers = {name: interval_of(x) for name, x in draws.items()}
                row |= flat({name + end: x for name, x in numbers.items()})
            rows.append(row)
    of_all = [row for row in rows if row["layers"] == ranges[0].name]
    enough = [row["size"] for row in of_all if verdict_of(Interval.of(row, "kept")) == INDEPENDENT]
    first = {name: Interval.of(of_all[0], name) for name in ("kept", "control")}
    verdict = {"task": task, "verdict": verdict_of(first["kept"]), "enough": float(min(enough, default=np.nan))}
    return rows, verdict | flat({"update": update, **first})
