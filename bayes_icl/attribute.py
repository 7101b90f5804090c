"""Which heads write the update: direct effects, their slopes, and what goes when the largest are taken away.

``python -m bayes_icl.attribute --curves data/curves/demo.nc``
"""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bayes_icl.errors import DONE, StatedError, check_least, exit_stating, unknown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import xarray as xr
    from jaxtyping import Float
    from matplotlib.figure import Figure

    from bayes_icl.ablate import Heads
    from bayes_icl.effects import Episode, MeanOutputs
    from bayes_icl.models import Model
    from bayes_icl.outputs import Checkpoint


@dataclass(frozen=True)
class AttributeSettings:
    """Say how much of the log-odds, and of their growth with examples, each attention head writes, from which
    examples, and whether taking those heads away takes the update away."""

    curves: Path | None = None
    """A curves file of `collect` (.nc), whose very episodes are run again; the newest in data/curves, if none is
    named."""
    tasks: tuple[str, ...] = ()
    """Tasks of the file; all, if none is named."""
    readout: Literal["complement", "foil"] = "complement"
    """complement: log-odds of one token of the answer against all others, with the entropy of the others apart. foil:
    answer against foil, where the two fork."""
    token: int | None = None
    """For complement: which token of the answer, counted from 0 (its terminator counts too), those before it standing;
    else the first that tells the task's answers apart, of a number its first digit."""
    n_min: int = 1
    """Examples from which on slopes are taken."""
    model: str = ""
    """The model that the curves were collected from, if it is now somewhere else; its weights must be the same."""
    top: int = 0
    """How many heads the intervention takes away; 0 takes as many as write half of what all heads write."""
    placebos: int = 20
    """Random sets of heads of the same number and norm, taken away for comparison."""
    ablate: bool = True
    """Take heads away and collect again: most of the time."""
    by_source: bool = True
    """Split heads over the examples they attend to: most of the file."""
    batch_size: int = 0
    """Episodes a forward pass; 0 takes 1 on a CPU and 16 on a GPU. Results do not depend on it."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    seed: int = 0
    """Decides the fits' draws and the placebo sets."""
    workers: int = 0
    """Processes for the fits of heads; 0 takes one a core, 4 at most."""
    out: Path | None = None
    """The effects file to write (netCDF), with tables beside it; data/effects/NAME.nc of the curves, if none is
    named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME-heads of the curves if none is named."""
    force: bool = False
    """Replace an output that was made from other curves or settings."""


SAME = 1e-3  # nats by which an episode read again may differ from the curves file
SINGLES = 12  # heads of the top set that are also taken away one by one
PLACEBOS_LEAST = 2
TABLES = ("heads", "ablation", "repair")


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


def main(settings: AttributeSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    from dataclasses import asdict
    from datetime import UTC, datetime

    from bayes_icl.curves import newest_curves, read_curves
    from bayes_icl.models import load_model
    from bayes_icl.outputs import Checkpoint, Output, sha256
    from bayes_icl.plots import figure_files
    from bayes_icl.provenance import key_of, provenance, resume_key, to_attribute
    from bayes_icl.summary import summarise_heads

    started = datetime.now(UTC)
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    tasks = _check(settings, dataset)
    out = settings.out or Path("data/effects") / f"{path.stem}.nc"
    drawn = Output(
        settings.figures or Path("figures") / f"{path.stem}-heads", "attribute", flag="--figures", inputs=[path]
    )
    output = Output.file(out, "attribute", inputs=[path])
    elsewhere = ("curves", "model", "tasks", "batch_size", "device", "workers", "out", "figures", "force")
    decisive = {k: v for k, v in asdict(settings).items() if k not in elsewhere}
    key = key_of(decisive | {"curves": sha256(path), "tasks": tasks})
    drawn.check(force=settings.force, beside=["summary.txt"])
    with output.held(force=settings.force, beside=names_beside(out, TABLES)):
        if output.holds(key, "from other curves or settings", force=settings.force):
            print(f"{out} was made from these curves with these settings; drawn and printed again", file=sys.stderr)
        else:
            model = load_model(recorded_model(dataset, settings.model), settings.device)
            identity = model.provenance()
            check_same_model(dataset, identity)
            parts = Checkpoint(out.with_name(out.name + ".part"), resume_key(key, settings, identity))
            result = attribute_curves(
                model,
                dataset,
                tasks,
                readout=settings.readout,
                token=settings.token,
                n_min=settings.n_min,
                top=settings.top,
                placebos=settings.placebos if settings.ablate else 0,
                by_source=settings.by_source,
                batch_size=settings.batch_size,
                seed=settings.seed,
                workers=settings.workers,
                parts=parts,
                progress=True,
            )
            record = provenance(settings, started=started, model=identity, inputs=[path])
            result.effects.attrs |= {"key": key, "provenance": to_attribute(record)}
            tables = {name: getattr(result, name) for name in TABLES}
            output.write(effects_files(out, tables, result.facts, result.effects), key)
            parts.drop()
        files = figure_files(figures_of(out)) | {"summary.txt": (summary := summarise_heads(out)).encode()}
    with drawn.held(force=settings.force):
        drawn.write(files, of=out)
    print(summary, file=sys.stderr)
    print(drawn.folder)
    print(out)
    return DONE


def names_beside(out: Path, tables: Sequence[str]) -> list[str]:
    """Names of the files that belong to an effects file."""
    from bayes_icl.curves import beside

    return [beside(out, end).name for end in (*(f"{name}.csv" for name in tables), "json")]


def effects_files(
    out: Path, tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Any], effects: xr.Dataset
) -> dict[str, bytes]:
    """An effects file and what belongs to it, by name."""
    from bayes_icl.curves import beside
    from bayes_icl.outputs import to_csv, to_json, to_netcdf

    files = {beside(out, f"{name}.csv").name: to_csv(table) for name, table in tables.items()}
    return files | {beside(out, "json").name: to_json(facts), out.name: to_netcdf(effects)}


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
    import pandas as pd
    import xarray as xr
    from tqdm import tqdm

    from bayes_icl.effects import VARIABLES, MeanOutputs, attribute_task, recorded_episodes
    from bayes_icl.heads import head_table
    from bayes_icl.prompts import differing

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
        effects, heads, pd.DataFrame(ablation, columns=ABLATION), pd.DataFrame(repair, columns=REPAIR), facts
    )


NUMBERS = ("delta", "lost", "delta_curve", "lost_curve", "direct", "predicted")
ABLATION = [
    *("task", "way", "set", "heads", "n_heads", "norm", "n_seqs"),
    *(f"{name}{end}" for name in NUMBERS for end in ("", "_low", "_high")),
]
REPAIRED = ("predicted", "other_heads", "mlps", "norm", "lost")
REPAIR = ["task", "way", *(f"{name}{end}" for name in REPAIRED for end in ("", "_low", "_high"))]


def _curves(effects: xr.Dataset, log_odds: np.ndarray, n_min: int) -> Any:
    from bayes_icl.curves import Curves

    shots = effects.shot.values.astype(float)
    return Curves(str(effects.task.item()), str(effects.attrs.get("readout", "")), shots, log_odds).since(n_min)


def _facts(effects: xr.Dataset, heads: pd.DataFrame, n_min: int, seed: int) -> dict[str, Any]:
    """Delta of one task, of the token attributed and of the whole answer, and the shares that add up to it.

    Fills `slope_examples` of the rows: the part of a head's slope that it writes from earlier examples.
    """
    import numpy as np

    from bayes_icl.heads import delta_weights, fit_delta, t_interval
    from bayes_icl.noise import summarise

    facts: dict[str, Any] = {"n_min": n_min, "readout": effects.attrs["readout"]}
    facts |= {"token": int(effects.token), "token_text": str(effects.token_text.item())}
    for name, variable in (("delta", "log_odds"), ("delta_curve", "curve")):
        log_odds = effects[variable].transpose("seq", "shot").values.astype(float)
        fitted = _curves(effects, log_odds, n_min)
        posterior, interval = fit_delta(fitted, seed)
        if name == "delta":
            weights = delta_weights(posterior, summarise(fitted))
            facts["weights"] = weights.tolist()
        facts[name] = dict(zip(("mean", "hdi_low", "hdi_high"), interval))
    since = effects.shot.values >= n_min

    def slope(part: xr.DataArray) -> dict[str, float]:
        """Slope of what some components add, with its interval; dims seq and shot."""
        return _three(t_interval(np.diff(part.transpose("seq", "shot").values[:, since], axis=1) @ weights))

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
            f"{a} to {b}": _three(t_interval((written[:, b] - written[:, a]) / (b - a)))
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


def _three(numbers: Sequence[Any]) -> dict[str, float]:
    """A mean and its 95 % interval, by name."""
    return dict(zip(("mean", "low", "high"), map(float, numbers)))


def check_same_numbers(
    model: Model, curves: xr.Dataset, task: str, episode: Episode
) -> Float[np.ndarray, " shot"] | None:
    """Read one episode again: the model must give what the file has, where it has whole answers against all else.

    Returns
    -------
    Log-odds of the token that is attributed, read as `collect` reads answers; None where the file has no such readout.
    """
    import numpy as np

    from bayes_icl.ablate import read_answers, read_targets
    from bayes_icl.curves import readouts_of
    from bayes_icl.readouts import EpisodeReading, Vocabulary

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


def _check_token(effects: xr.Dataset, again: Float[np.ndarray, " shot"] | None) -> None:
    """The token attributed must be one of the answer's: as read again in one sequence, and likelier than all of it."""
    import numpy as np

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
    import numpy as np
    import xarray as xr
    from tqdm import tqdm

    from bayes_icl.ablate import ablate_episode, name_of
    from bayes_icl.effects import WAYS
    from bayes_icl.heads import choose_top, delta_weights, fit_delta, flat, placebo_sets, slope_table, t_interval
    from bayes_icl.noise import summarise
    from bayes_icl.readouts import Vocabulary

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
    sets |= {f"placebo {i + 1}": heads for i, heads in enumerate(placebo_sets(norms, chosen, placebos, seed))}
    if len(chosen) > 1:
        sets |= {name_of(head): [head] for head in chosen[:SINGLES]}
    vocabulary = Vocabulary(model.token_texts)
    wanted = {name: [list(head) for head in heads] for name, heads in sets.items()}
    read: list[dict[str, Any]] = []
    with tqdm(measured, unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        bar.set_description(f"{task}: {len(sets)} sets of heads taken away in {len(WAYS)} ways")
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
    fitted = _curves(effects, whole.values.astype(float), n_min)
    weights_whole = delta_weights(fit_delta(fitted, seed)[0], summarise(fitted))
    clean_here, whole_here = clean.sel(seq=seqs).values.astype(float), whole.sel(seq=seqs).values.astype(float)

    def slope(x: Any, by: np.ndarray = weights) -> np.ndarray:
        return np.diff(np.asarray(x, float)[:, since], axis=1) @ by

    facts["delta_measured"] = _three(t_interval(slope(clean_here)))
    effect = effects.effect.sel(seq=seqs).transpose("layer", "head", "seq", "shot").values.astype(float)

    def row(way: str, name: str, heads: Heads, odds: Any, answer: Any, taken: Any) -> dict[str, Any]:
        numbers = {
            "direct": t_interval(slope(sum((effect[head] for head in heads), 0 * clean_here))),
            "delta": fit_delta(_curves(effects, np.asarray(odds, float), n_min), seed)[1],
            "lost": t_interval(slope(clean_here - odds)),
            "delta_curve": fit_delta(_curves(effects, np.asarray(answer, float), n_min), seed)[1],
            "lost_curve": t_interval(slope(whole_here - answer, weights_whole)),
            "predicted": t_interval(slope(taken)),
        }
        about = {"task": task, "way": way, "set": name, "heads": " ".join(map(name_of, heads)), "n_heads": len(heads)}
        return {**about, "norm": float(sum(norms[head] for head in heads)), "n_seqs": len(read), **flat(numbers)}

    rows, repairs, odds = [], [], []
    for way in WAYS:
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
    numbers = np.reshape(odds, (len(WAYS), len(sets), len(read), len(since)))
    coords = {"way": list(WAYS), "set": list(sets), "seq": seqs, "shot": effects.shot.values}
    return rows, repairs, xr.DataArray(numbers, coords, ("way", "set", "seq", "shot")).expand_dims(task=[task])


def _kept_effects(parts: Checkpoint | None, task: str, means: MeanOutputs | None) -> xr.Dataset | None:
    """A task's effects from an unfinished run, if they are finished; its mean outputs go into `means`."""
    import numpy as np
    import xarray as xr

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
    import numpy as np

    from bayes_icl.outputs import to_netcdf

    if means is not None:
        buffer = io.BytesIO()
        np.save(buffer, means.sums.numpy())
        parts.put(f"sums/{task}", buffer.getvalue())
    parts.put(f"effects/{task}", to_netcdf(effects))
    found = _kept_effects(parts, task, means)
    assert found is not None
    return found


def _check(settings: AttributeSettings, dataset: xr.Dataset) -> list[str]:
    """The tasks wanted, if the settings make sense for the file."""
    from bayes_icl.curves import readouts_of

    known = [str(name) for name in dataset.task.values]
    tasks = list(dict.fromkeys(settings.tasks)) or known
    for task in tasks:
        if task not in known:
            raise unknown("task", task, known)
        if settings.readout not in readouts_of(dataset, task):
            raise StatedError(
                f"task {task!r} has no readout {settings.readout!r} in this file: leave it out with --tasks"
            )
        if settings.ablate and "complement" not in readouts_of(dataset, task):
            raise StatedError(
                f"the intervention reads the complement of whole answers, which task {task!r} lacks here: collect it "
                "too, or give --no-ablate"
            )
    if settings.token is not None:
        if settings.readout == "foil":
            raise StatedError("--token is for --readout complement: answer and foil are compared where they fork")
        check_least(settings, token=0)
    check_least(settings, n_min=0, top=0, placebos=0, batch_size=0, seed=0, workers=0)
    if settings.ablate and settings.placebos < PLACEBOS_LEAST:
        raise StatedError(f"--placebos must be {PLACEBOS_LEAST} or more, got {settings.placebos}; or give --no-ablate")
    return tasks


def recorded_model(dataset: xr.Dataset, given: str) -> str:
    """Name of the model that curves were collected from; `given`, if the user gives one."""
    from bayes_icl.provenance import record_of

    name = given or record_of(dataset).get("settings", {}).get("model", "")
    if name and isinstance(name, str):
        return name
    raise StatedError("the curves do not say which model they are of: give --model")


def check_same_model(dataset: xr.Dataset, identity: Mapping[str, str]) -> None:
    """The weights and the tokenizer must be those that the curves were collected from."""
    from bayes_icl.provenance import record_of

    recorded = record_of(dataset).get("model", {})
    for part, words in (("weights_sha256", "weights"), ("tokenizer_sha256", "tokenizer")):
        if part in recorded and recorded[part] != identity[part]:
            raise StatedError(
                f"the curves were collected from {recorded.get('model', 'a model')!r}, whose {words} are not those of "
                f"{identity['model']!r}: give the same model, or collect again"
            )


def figures_of(out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the effects file and the tables beside it."""
    import xarray as xr

    from bayes_icl import head_plots
    from bayes_icl.compare import read_table
    from bayes_icl.curves import beside, file_name
    from bayes_icl.summary import token_label

    table, ablation, repair = (read_table(beside(out, f"{name}.csv")) for name in TABLES)
    table["accumulation"] = table.accumulation.fillna("")
    facts = json.loads(beside(out, "json").read_text())
    deltas = {task: tuple(own["delta"].values()) for task, own in facts.items()}
    first = next(iter(facts.values()))
    measured = {task: own["delta_measured"]["mean"] for task, own in facts.items() if "delta_measured" in own}
    table.attrs["delta_measured"] = measured
    tokens = {task: token_label(own) for task, own in facts.items()}
    for one in (table, repair):
        one.attrs |= {"readout": first["readout"], "n_min": first["n_min"], "tokens": tokens}
    drawn = {
        "share_map": head_plots.share_map_figure(table, deltas),
        "cumulative": head_plots.cumulative_figure(table, deltas),
    }
    with xr.open_dataset(out, engine="h5netcdf") as effects:
        n_min = int(effects.attrs["n_min"])
        for task in effects.task.values.tolist():
            drawn[file_name(f"effects_{task}")] = head_plots.effect_curves_figure(effects, table, task, n_min)
            if "effect_by_source" in effects:
                drawn[file_name(f"sources_{task}")] = head_plots.source_map_figure(effects, table, task)
    for way in dict.fromkeys(ablation.way):
        table.attrs["way"] = repair.attrs["way"] = way
        drawn[f"ablation_{way}"] = head_plots.ablation_figure(ablation[ablation.way == way], table, deltas)
        drawn[f"repair_{way}"] = head_plots.repair_figure(repair[repair.way == way])
    return drawn


if __name__ == "__main__":
    import tyro

    # Under its own name, as in fit.
    from bayes_icl.attribute import AttributeSettings, main

    settings = tyro.cli(AttributeSettings, prog="python -m bayes_icl.attribute")
    exit_stating(lambda: main(settings))
