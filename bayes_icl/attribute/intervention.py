"""What goes of delta when the top heads are ablated, beside placebo sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from bayes_icl.attribute.slopes import choose_top, delta_weights, fit_delta, slope_table
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.curves import Curves
from bayes_icl.inference.noise import summarise
from bayes_icl.mechanism.ablation import ablate_episode
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.head_names import Heads, name_of
from bayes_icl.mechanism.mean_outputs import TASK_MEANS, MeanOutputs
from bayes_icl.mechanism.placebos import placebo_name, placebo_sets
from bayes_icl.models.model import Model
from bayes_icl.models.readouts import Vocabulary

SINGLES = 12  # heads of the top set that are also taken away one by one


def curves_of(effects: xr.Dataset, log_odds: np.ndarray, n_min: int) -> Any:
    shots = effects.shot.values.astype(float)
    return Curves(str(effects.task.item()), str(effects.attrs.get("readout", "")), shots, log_odds).since(n_min)


def three(numbers: Sequence[Any]) -> dict[str, float]:
    """A mean and its 95 % interval, by name."""
    return dict(zip(("mean", "low", "high"), map(float, numbers)))


def _intervene(
    model: Model,
    curves: xr.Dataset,
    effects: xr.Dataset,
    table: pd.DataFrame,
    facts: dict[str, Any],
    means: MeanOutputs,
    episodes: Sequence[Episode],
    *,
    n_min: int,
    top: int,
    placebos: int,
    seed: int,
    parts: Checkpoint | None,
    progress: bool,
) -> tuple[list[dict], list[dict], xr.DataArray | None]:
    """Take the top heads of a task away, placebo sets of other heads, and the top heads one by one.

    The heads are chosen on every other sequence, and what goes with them is measured on the others, so that no head is
    judged by the luck that it was chosen for. Fills `top`, `lost` and `lost_held` of the table. Nothing is done where
    delta's interval has 0 in it, or where no head writes in its direction.

    Returns
    -------
    Rows of the ablation table and of the repair table, and the log-odds read, dims way, set, seq, shot.
    """
    task, delta = str(effects.task.item()), facts["delta"]
    facts["top"] = []
    if delta["hdi_low"] <= 0 <= delta["hdi_high"]:
        return [], [], None
    measured, chosen = episodes[1::2], []
    if len(measured) >= 2:
        chosen = choose_top(slope_table(effects.isel(seq=slice(0, None, 2)), task, n_min, seed)[0], top, delta["mean"])
    norms = means.taken_norm(model.anatomy, episodes, effects["norm"].transpose("layer", "head").values.astype(float))
    if not chosen or 2 * len(chosen) > norms.size or len(measured) < 2:
        facts["note"] = "nothing is taken away: it needs heads that write the update, as many others, and 4 sequences"
        return [], [], None
    facts["top"] = [name_of(head) for head in chosen]
    sets: dict[str, Heads] = {"top": chosen}
    sets |= {placebo_name(i): heads for i, heads in enumerate(placebo_sets(norms, chosen, placebos, seed), 1)}
    if len(chosen) > 1:
        sets |= {name_of(head): [head] for head in chosen[:SINGLES]}
    vocabulary = Vocabulary(model.token_texts)
    wanted = {name: [list(head) for head in heads] for name, heads in sets.items()}
    read: list[dict[str, Any]] = []
    with tqdm(measured, unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        bar.set_description(f"{task}: {len(sets)} sets of heads taken away in {len(TASK_MEANS)} ways")
        for episode in bar:
            name = f"ablation {episode.seq}/{task}"
            kept = parts.get(name) if parts else None
            values = json.loads(kept) if kept else {}
            if values.get("sets") != wanted:
                found = ablate_episode(model, episode, sets, means, vocabulary, apart=["top"])
                values = {"sets": wanted, **found}
                if parts:
                    parts.put(name, json.dumps(values).encode())
            read.append(values)

    since = effects.shot.values >= n_min
    seqs = [episode.seq for episode in measured]
    clean = effects.log_odds.transpose("seq", "shot")
    whole = curves.log_odds.sel(task=task, readout="complement").transpose("seq", "shot")
    weights = np.array(facts["weights"])
    fitted = curves_of(effects, whole.values.astype(float), n_min)
    weights_whole = delta_weights(fit_delta(fitted, seed)[0], summarise(fitted))
    clean_here, whole_here = clean.sel(seq=seqs).values.astype(float), whole.sel(seq=seqs).values.astype(float)

    def slope(x: Any, by: np.ndarray = weights) -> np.ndarray:
        return np.diff(np.asarray(x, float)[:, since], axis=1) @ by

    facts["delta_measured"] = three(t_interval(slope(clean_here)))
    effect = effects.effect.sel(seq=seqs).transpose("layer", "head", "seq", "shot").values.astype(float)

    def row(way: str, name: str, heads: Heads, odds: Any, answer: Any, taken: Any) -> dict[str, Any]:
        numbers = {
            "direct": t_interval(slope(sum((effect[head] for head in heads), 0 * clean_here))),
            "delta": fit_delta(curves_of(effects, np.asarray(odds, float), n_min), seed)[1],
            "lost": t_interval(slope(clean_here - odds)),
            "delta_curve": fit_delta(curves_of(effects, np.asarray(answer, float), n_min), seed)[1],
            "lost_curve": t_interval(slope(whole_here - answer, weights_whole)),
            "predicted": t_interval(slope(taken)),
        }
        about = {"task": task, "way": way, "set": name, "heads": " ".join(map(name_of, heads)), "n_heads": len(heads)}
        return {**about, "norm": float(sum(norms[head] for head in heads)), "n_seqs": len(read), **flat(numbers)}

    rows, repairs, odds = [], [], []
    for way in TASK_MEANS:
        rows.append(row(way, "none", [], clean_here, whole_here, 0 * clean_here))
        for name, heads in sets.items():
            ablated, answer, taken = ([one[way][name][key] for one in read] for key in ("log_odds", "curve", "taken"))
            rows.append(row(way, name, heads, ablated, answer, taken))
            odds.append(ablated)
            if name in facts["top"] or (name == "top" and len(heads) == 1):
                layer, head = heads[0]
                at = (table.task == task) & (table.layer == layer) & (table["head"] == head)
                column = {"mean": "lost", "held": "lost_held"}[way]
                table.loc[at, [column, f"{column}_low", f"{column}_high"]] = t_interval(slope(clean_here - ablated))
        pieces = {
            key: slope([one[way]["top"][key] for one in read]) for key in ("taken", "other_heads", "mlps", "norm")
        }
        moves = {"predicted": pieces.pop("taken"), **pieces}
        moves["lost"] = slope(clean_here - [one[way]["top"]["log_odds"] for one in read])
        repairs.append({"task": task, "way": way, **flat({name: t_interval(x) for name, x in moves.items()})})
    for layer, head in chosen:
        table.loc[(table.task == task) & (table.layer == layer) & (table["head"] == head), "top"] = True
    numbers = np.reshape(odds, (len(TASK_MEANS), len(sets), len(read), len(since)))
    coords = {"way": list(TASK_MEANS), "set": list(sets), "seq": seqs, "shot": effects.shot.values}
    return rows, repairs, xr.DataArray(numbers, coords, ("way", "set", "seq", "shot")).expand_dims(task=[task])
