"""Which heads write the update: direct effects, their slopes, and what goes with the largest."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from tqdm import tqdm

from bayes_icl.attribute.intervention import _intervene, curves_of, three
from bayes_icl.attribute.outputs import ABLATION, REPAIR
from bayes_icl.attribute.slopes import delta_weights, fit_delta, head_table
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import to_netcdf
from bayes_icl.core.intervals import t_interval
from bayes_icl.inference.noise import summarise
from bayes_icl.mechanism.direct_effects import VARIABLES, attribute_task
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.mechanism.mean_outputs import MeanOutputs
from bayes_icl.mechanism.recorded import SAME, check_same_numbers
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import differing


@dataclass(frozen=True)
class Attribution:
    """What `attribute_curves` finds.

    Attributes
    ----------
    effects
        The effects format.
    heads, ablation, repair
        Tables: a row for every component, every set of heads taken away, every task. The last two are empty without
        ablation, or where there is no update to take away.
    facts
        By task: delta of the token attributed and of the whole answer (as `fit` gives it), and what adds up to it.
    """

    effects: xr.Dataset
    heads: pd.DataFrame
    ablation: pd.DataFrame
    repair: pd.DataFrame
    facts: dict[str, dict[str, Any]]


def attribute_curves(
    model: Model,
    curves: xr.Dataset,
    tasks: Sequence[str] = (),
    *,
    readout: str = "complement",
    token: int | None = None,
    n_min: int = 1,
    top: int = 0,
    placebos: int = 20,
    by_source: bool = True,
    batch_size: int = 0,
    seed: int = 0,
    workers: int = 1,
    parts: Checkpoint | None = None,
    progress: bool = False,
) -> Attribution:
    """Attribute the log-odds of a curves file to heads, and intervene on those that write most of the update.

    Parameters
    ----------
    model
        The one that the curves were collected from.
    curves
        As `collect_curves` gives them.
    tasks
        All, if empty.
    readout, token, n_min, top, seed, workers, by_source, batch_size
        As in `AttributeSettings`.
    placebos
        Random sets to compare with; 0 leaves the intervention out.
    kept
        Keeps what is finished on disk, so that a killed run goes on where it stopped.

    Raises
    ------
    StatedError
        The parts do not add up, the curves lack what is needed, or the model is of an unknown kind.
    """
    tasks = list(tasks) or [str(name) for name in curves.task.values]
    n_all = model.anatomy.n_layers * model.anatomy.n_heads
    if placebos and top > n_all // 2:
        raise StatedError(
            f"--top {top}: at most {n_all // 2} of the model's {n_all} heads, as many others being needed beside them"
        )
    of_task = {task: recorded_episodes(model, curves, task, readout=readout, token=token) for task in tasks}
    again = {task: check_same_numbers(model, curves, task, of_task[task][0]) for task in tasks}
    found, means = [], {}
    n_seqs = curves.sizes["seq"]
    with tqdm(total=len(tasks) * n_seqs, unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        for task in tasks:
            bar.set_description(f"{task}: effects")
            own = MeanOutputs(model.anatomy, of_task[task]) if placebos else None
            means[task] = own
            before = _kept_effects(parts, task, own)
            if before is None:
                before = attribute_task(
                    model,
                    curves,
                    task,
                    readout=readout,
                    by_source=by_source,
                    batch_size=batch_size,
                    on_batch=bar.update,
                    means=own,
                    episodes=of_task[task],
                )
                if parts:
                    before = _keep_effects(parts, task, before, own)
            else:
                bar.update(n_seqs)
            _check_token(before, again[task])
            found.append(before)
    completeness = [part.attrs.pop("completeness") for part in found]
    split = [part.attrs.pop("split") for part in found]
    effects = xr.concat(
        found, dim="task", combine_attrs="no_conflicts", join="outer", data_vars="minimal", coords="minimal"
    )
    effects.attrs |= {"completeness": max(completeness), "split": max(split), "n_min": n_min}
    heads = head_table(effects, n_min=n_min, seed=seed, workers=workers, progress=progress)
    facts, tables = {}, []
    for task, worst, part in zip(tasks, completeness, split):
        own_rows = heads[heads.task == task].copy()
        facts[task] = _facts(effects.sel(task=task), own_rows, n_min, seed) | {"completeness": worst, "split": part}
        if (number := of_task[task][0].token) is not None:
            facts[task]["token_differs"] = differing([e.prompt for e in of_task[task]], number)
        tables.append(own_rows)
    heads = pd.concat(tables, ignore_index=True)
    ablation: list[dict] = []
    repair: list[dict] = []
    ablated: list[xr.DataArray] = []
    if placebos:
        for task in tasks:
            own = means[task]
            assert own is not None
            rows, repaired, read = _intervene(
                model, curves, effects.sel(task=task), heads, facts[task], own, of_task[task],
                n_min=n_min, top=top, placebos=placebos, seed=seed,
                parts=parts, progress=progress,
            )  # fmt: skip
            ablation += rows
            repair += repaired
            if read is not None:
                ablated.append(read)
    if ablated:
        effects["ablated_log_odds"] = xr.concat(ablated, dim="task", join="outer")
        effects["ablated_log_odds"].attrs = {"description": VARIABLES["ablated_log_odds"], "units": "nats"}
    return Attribution(
        effects,
        heads,
        pd.DataFrame(ablation, columns=ABLATION.names),
        pd.DataFrame(repair, columns=REPAIR.names),
        facts,
    )


def _facts(effects: xr.Dataset, heads: pd.DataFrame, n_min: int, seed: int) -> dict[str, Any]:
    """Delta of one task, of the token attributed and of the whole answer, and the shares that add up to it.

    Fills `slope_examples` of the rows: the part of a head's slope that it writes from earlier examples.
    """
    facts: dict[str, Any] = {"n_min": n_min, "readout": effects.attrs["readout"]}
    facts |= {"token": int(effects.token), "token_text": str(effects.token_text.item())}
    for name, variable in (("delta", "log_odds"), ("delta_curve", "curve")):
        log_odds = effects[variable].transpose("seq", "shot").values.astype(float)
        fitted = curves_of(effects, log_odds, n_min)
        posterior, interval = fit_delta(fitted, seed)
        if name == "delta":
            weights = delta_weights(posterior, summarise(fitted))
            facts["weights"] = weights.tolist()
        facts[name] = dict(zip(("mean", "hdi_low", "hdi_high"), interval))
    since = effects.shot.values >= n_min

    def slope(part: xr.DataArray) -> dict[str, float]:
        """Slope of what some components add, with its interval; dims seq and shot."""
        return three(t_interval(np.diff(part.transpose("seq", "shot").values[:, since], axis=1) @ weights))

    facts["delta_seqs"] = slope(effects.log_odds)
    totals = {"head": effects.effect.sum(("layer", "head"), dtype=float), "mlp": effects.mlp.sum("layer")}
    totals |= {"rest": effects.rest, "entropy": -effects.entropy}
    for kind, part in totals.items():
        facts[f"slope_{kind}"] = slope(part)
        facts[f"share_{kind}"] = facts[f"slope_{kind}"]["mean"] / (facts["delta"]["mean"] or np.nan)
    if "effect_by_source" in effects:
        examples = [name for name in effects.source.values.tolist() if name not in ("sink", "query")]
        by_source = effects.effect_by_source.sum(("layer", "head"), dtype=float)
        for name, source in (("sink", "sink"), ("examples", examples), ("query", "query")):
            part = by_source.sel(source=source)
            facts[f"slope_{name}"] = slope(part.sum("source") if name == "examples" else part)
        written = by_source.sel(source=examples).sum("source").transpose("seq", "shot").values
        last = len(since) - 1
        shown = sorted({n for n in (1, 2, 4, 8, 16) if n < last} | {last})
        ends = [n for n in shown if n >= max(n_min, 1)]
        facts["further_example"] = {
            f"{a} to {b}": three(t_interval((written[:, b] - written[:, a]) / (b - a)))
            for a, b in itertools.pairwise(ends)
        }
        roles = effects.effect_by_role.sel(source=examples).sum(("layer", "head", "source"), dtype=float)
        by_role = weights @ np.diff(roles.transpose("shot", "role").values[since], axis=0)
        facts["slope_by_role"] = dict(zip(effects.role.values.tolist(), by_role.tolist()))
        # The weights are linear, so the order of the sums is free.
        mean = effects.effect_by_source.mean("seq").transpose("shot", "layer", "head", "source").values[since]
        own = np.nansum(mean[..., 1:-1], axis=-1)
        heads.loc[heads.kind == "head", "slope_examples"] = np.einsum(
            "u,uij->ij", weights, np.diff(own, axis=0)
        ).ravel()
    facts["stands_out"] = heads.component[heads.stands_out.astype(bool)].tolist()
    return facts


def _check_token(effects: xr.Dataset, again: Float[np.ndarray, " shot"] | None) -> None:
    """The token attributed must be one of the answer's: as read again in one sequence, and likelier than all of it."""
    if again is None:
        return
    own = effects.isel(task=0)
    log_odds = own.log_odds.transpose("seq", "shot").values
    gap = np.abs(log_odds[0] - again).max()
    if effects.attrs["readout"] == "complement":  # P(answer) is at most P(one token of it | those before)
        gap = max(gap, float((own.curve.transpose("seq", "shot").values - log_odds).max()))
    if not gap <= SAME:
        raise StatedError(
            f"the token attributed is not the one that the curves have: task {own.task.item()!r} is off by {gap:.2g} "
            "nats; please report it, with the model"
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
