"""What goes of delta when the top heads are ablated, beside placebo sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float
from tqdm import tqdm

from bayes_icl.attribute.slopes import choose_top, delta_of, slope_table
from bayes_icl.attribute.update import Update, curves_of, three
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.mechanism.ablation import ablate_episode
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.halves import CHOOSING, measured_on
from bayes_icl.mechanism.head_names import Head, Heads, name_of
from bayes_icl.mechanism.mean_outputs import TASK_MEANS, MeanOutputs
from bayes_icl.mechanism.placebos import placebo_name, placebo_sets
from bayes_icl.models.model import Model
from bayes_icl.models.readouts import Vocabulary

SINGLES = 12  # heads of the top set that are also ablated one by one

MEASURING_LEAST = 2  # sequences to measure on

LOST = {"mean": "lost", "mean_over_shots": "lost_over_shots"}
"""The column of heads.csv for a head ablated by itself, by way."""


@dataclass(frozen=True)
class Intervention:
    """What goes with heads of one task.

    Attributes
    ----------
    facts
        As in the JSON file: the heads chosen, delta on the sequences that measure, or why nothing was ablated.
    ablation, repair
        Rows of the tables of these names.
    columns
        Of heads.csv, by row of the task: `top` and what is lost without a head.
    log_odds
        Dims task, way, set, seq, shot; nats. None where nothing was ablated.
    """

    facts: dict[str, Any]
    ablation: list[dict[str, Any]] = field(default_factory=list)
    repair: list[dict[str, Any]] = field(default_factory=list)
    columns: pd.DataFrame = field(default_factory=pd.DataFrame)
    log_odds: xr.DataArray | None = None


def intervene(
    model: Model,
    curves: xr.Dataset,
    effects: xr.Dataset,
    update: Update,
    means: MeanOutputs,
    episodes: Sequence[Episode],
    *,
    n_min: int,
    top: int,
    placebos: int,
    seed: int,
    parts: Checkpoint | None,
    progress: bool,
) -> Intervention:
    """Take the top heads of a task away, placebo sets of other heads, and the top heads one by one.

    The heads are chosen on every other sequence, and what goes with them is measured on the others, so that no head is
    judged by the luck that it was chosen for. Nothing is done where delta's interval has 0 in it, or where no head
    writes in its direction.
    """
    mean, low, high = update.delta
    if low <= 0 <= high:
        return Intervention({"top": []})
    task, measuring = str(effects.task.item()), measured_on(episodes)
    chosen: list[Head] = []
    if len(measuring) >= MEASURING_LEAST:
        chosen = choose_top(slope_table(effects.isel(seq=CHOOSING), task, n_min)[0], top, mean)
    norms = means.taken_norm(model.anatomy, episodes, effects["norm"].transpose("layer", "head").values.astype(float))
    if not chosen or 2 * len(chosen) > np.isfinite(norms).sum():
        note = "nothing is ablated: it needs heads that write the update, as many others, and 4 sequences"
        return Intervention({"top": [], "note": note})
    sets: dict[str, Heads] = {"top": chosen}
    sets |= {placebo_name(i): heads for i, heads in enumerate(placebo_sets(norms, chosen, placebos, seed), 1)}
    if len(chosen) > 1:
        sets |= {name_of(head): [head] for head in chosen[:SINGLES]}
    by_episode = _read_without(model, task, measuring, sets, means, parts, progress)
    measured = _Measured.of(curves, effects, update, [episode.seq for episode in measuring], n_min)
    facts = {"top": [name_of(head) for head in chosen], "delta_measured": measured.delta()}
    ablation = _ablation_rows(measured, sets, by_episode, norms)
    repair = [_repair_row(measured, way, by_episode) for way in TASK_MEANS]
    columns = _head_columns(measured, chosen, sets, by_episode)
    return Intervention(facts, ablation, repair, columns, _log_odds_read(measured, sets, by_episode))


Readings = list[dict[str, Any]]
"""By episode: what `ablate_episode` reads, by way and set."""


def _read_without(
    model: Model,
    task: str,
    episodes: Sequence[Episode],
    sets: Mapping[str, Heads],
    means: MeanOutputs,
    parts: Checkpoint | None,
    progress: bool,
) -> Readings:
    """Read every episode without each set of heads, or take it from an unfinished run."""
    vocabulary = Vocabulary(model.token_texts)
    wanted = {name: [list(head) for head in heads] for name, heads in sets.items()}
    by_episode: Readings = []
    with tqdm(episodes, unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        bar.set_description(f"{task}: {len(sets)} sets of heads ablated in {len(TASK_MEANS)} ways")
        for episode in bar:
            name = f"ablation {episode.seq}/{task}"
            kept = parts.get(name) if parts else None
            values = json.loads(kept) if kept else {}
            if values.get("sets") != wanted:
                read = ablate_episode(model, episode, sets, means, vocabulary, apart=["top"])
                values = {"sets": wanted, **read}
                if parts:
                    parts.put(name, json.dumps(values).encode())
            by_episode.append(values)
    return by_episode


@dataclass(frozen=True)
class _Measured:
    """The sequences that measure, and how slopes are taken of them.

    Attributes
    ----------
    log_odds, answers
        Of the token attributed and of whole answers, with all heads; shape (seq, shot), nats.
    effect
        Direct effects, shape (layer, head, seq, shot).
    since
        Shots that count.
    weights, answer_weights
        Which make delta of the token, and of whole answers.
    """

    effects: xr.Dataset
    seqs: list[int]
    log_odds: Float[np.ndarray, "seq shot"]
    answers: Float[np.ndarray, "seq shot"]
    effect: Float[np.ndarray, "layer head seq shot"]
    since: Bool[np.ndarray, " shot"]
    weights: Float[np.ndarray, " update"]
    n_min: int

    @classmethod
    def of(cls, curves: xr.Dataset, effects: xr.Dataset, update: Update, seqs: list[int], n_min: int) -> _Measured:
        """Of some sequences of one task."""
        clean = effects.log_odds.transpose("seq", "shot")
        whole = curves.log_odds.sel(task=str(effects.task.item()), readout="complement").transpose("seq", "shot")
        log_odds, answers = (x.sel(seq=seqs).values.astype(float) for x in (clean, whole))
        effect = effects.effect.sel(seq=seqs).transpose("layer", "head", "seq", "shot").values.astype(float)
        since = effects.shot.values >= n_min
        return cls(effects, seqs, log_odds, answers, effect, since, update.weights, n_min)

    @property
    def task(self) -> str:
        """Its name."""
        return str(self.effects.task.item())

    def slope(self, x: Any) -> Float[np.ndarray, " seq"]:
        """Slope in each sequence, nats per example."""
        return np.diff(np.asarray(x, float)[:, self.since], axis=1) @ self.weights

    def delta(self) -> dict[str, float]:
        """Mean slope of the log-odds with all heads, and its interval."""
        return three(t_interval(self.slope(self.log_odds)))

    def numbers(self, heads: Heads, log_odds: Any, answers: Any, taken: Any) -> dict[str, float]:
        """Columns of ablation.csv: what goes without some heads, given what is read then."""

        def delta(x: Any) -> Any:
            return delta_of(curves_of(self.effects, np.asarray(x, float), self.n_min))

        numbers = {
            "direct": t_interval(self.slope(sum((self.effect[head] for head in heads), 0 * self.log_odds))),
            "delta": delta(log_odds),
            "lost": t_interval(self.slope(self.log_odds - log_odds)),
            "delta_curve": delta(answers),
            "lost_curve": t_interval(self.slope(self.answers - answers)),
            "predicted": t_interval(self.slope(taken)),
        }
        return flat(numbers)


def _ablation_rows(
    measured: _Measured, sets: Mapping[str, Heads], by_episode: Readings, norms: Float[np.ndarray, "layer head"]
) -> list[dict[str, Any]]:
    """Rows of ablation.csv: by way, without any ablation and then without each set."""

    def row(way: str, name: str, heads: Heads, *read: Any) -> dict[str, Any]:
        about = {"task": measured.task, "value": way, "set": name, "heads": " ".join(map(name_of, heads))}
        size = {"n_heads": len(heads), "norm": float(sum(norms[head] for head in heads)), "n_seqs": len(by_episode)}
        return {**about, **size, **measured.numbers(heads, *read)}

    rows = []
    for way in TASK_MEANS:
        rows.append(row(way, "none", [], measured.log_odds, measured.answers, 0 * measured.log_odds))
        for name, heads in sets.items():
            read = ([one[way][name][key] for one in by_episode] for key in ("log_odds", "curve", "taken"))
            rows.append(row(way, name, heads, *read))
    return rows


def _repair_row(measured: _Measured, way: str, by_episode: Readings) -> dict[str, Any]:
    """The row of repair.csv: what becomes of the direct effect that goes with the top heads."""
    keys = ("taken", "other_heads", "mlps", "norm")
    slopes = {key: measured.slope([one[way]["top"][key] for one in by_episode]) for key in keys}
    moves = {"predicted": slopes.pop("taken"), **slopes}
    moves["lost"] = measured.slope(measured.log_odds - [one[way]["top"]["log_odds"] for one in by_episode])
    return {"task": measured.task, "value": way, **flat({name: t_interval(x) for name, x in moves.items()})}


def _head_columns(
    measured: _Measured, chosen: Sequence[Head], sets: Mapping[str, Heads], by_episode: Readings
) -> pd.DataFrame:
    """Columns of heads.csv: which heads are the top ones, and what is lost without each by itself."""
    n_heads = measured.effect.shape[1]
    rows: dict[int, dict[str, Any]] = {layer * n_heads + head: {"top": True} for layer, head in chosen}
    for layer, head in chosen:
        name = "top" if len(chosen) == 1 else name_of((layer, head))
        for way in TASK_MEANS if name in sets else ():
            without = [one[way][name]["log_odds"] for one in by_episode]
            lost = t_interval(measured.slope(measured.log_odds - without))
            rows[layer * n_heads + head] |= flat({LOST[way]: lost})
    return pd.DataFrame.from_dict(rows, orient="index")


def _log_odds_read(measured: _Measured, sets: Mapping[str, Heads], by_episode: Readings) -> xr.DataArray:
    """What was read, dims task, way, set, seq, shot."""
    read = [[[one[way][name]["log_odds"] for one in by_episode] for name in sets] for way in TASK_MEANS]
    shots = measured.effects.shot.values
    coords = {"value": list(TASK_MEANS), "set": list(sets), "seq": measured.seqs, "shot": shots}
    return xr.DataArray(read, coords, ("value", "set", "seq", "shot")).expand_dims(task=[measured.task])
