"""Read P(correct) against P(incorrect) after every number of examples, in one forward pass an episode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

from bayes_icl.collect.martingale import has_gap, read_gaps, shots_of, with_one_more
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError, unknown
from bayes_icl.curves import READOUTS, VARIABLES, check
from bayes_icl.models.blocks import in_blocks, logits_in_blocks
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import Prompt, encode_episode
from bayes_icl.models.readouts import EpisodeReading, Vocabulary
from bayes_icl.tasks.designs import PLAIN
from bayes_icl.tasks.task import Example, Task

IN_NATS = ("log_p_correct", "log_p_incorrect", "log_odds", "evidence", "observer", "martingale_gap")


def collect_curves(
    model: Model,
    tasks: Sequence[Task],
    *,
    n_shots: int = 32,
    n_seqs: int = 64,
    seed: int = 0,
    readouts: Sequence[str] = (),
    martingale: bool = False,
    batch_size: int = 0,
    parts: Checkpoint | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Read curves from a model.

    Parameters
    ----------
    model
        As `load_model` returns it, or `Model.from_bridge` of your own TransformerBridge.
    tasks
        As `load_tasks` returns them, or your own.
    n_shots, n_seqs, seed
        Examples shown at most; sequences a task; which examples are drawn.
    readouts
        Readouts to record; all that each task has, if empty.
    martingale
        Record the martingale gap of tasks with labels (`bayes_icl.collect.martingale`).
    batch_size
        Episodes a pass; 0 chooses by device.
    parts
        Keeps finished batches on disk, so that a killed run goes on where it stopped.
    progress
        Show a bar on stderr.

    Returns
    -------
    xr.Dataset
        In the curves format (`bayes_icl.curves`).

    Raises
    ------
    StatedError
        More shots than a task has examples, sequences or shots that its design cannot have, an answer off the token
        boundaries, an unknown readout, a model that sees what follows or cannot keep blocks apart, an episode longer
        than its context.

    Examples
    --------
    >>> from bayes_icl.collect import collect_curves
    >>> from bayes_icl.models import load_model
    >>> from bayes_icl.tasks import load_tasks
    >>> curves = collect_curves(load_model("tiny", "cpu"), load_tasks(["capital", "parity"]), n_shots=4, n_seqs=2)
    >>> dict(curves.log_odds.sizes)
    {'task': 2, 'readout': 4, 'seq': 2, 'shot': 5}
    """
    wanted = wanted_readouts(tasks, readouts)
    if n_shots < 1 or n_seqs < 1:
        raise StatedError(f"n_shots and n_seqs must be 1 or more, got {n_shots} and {n_seqs}")
    check_designs(tasks, n_shots, n_seqs, martingale=martingale)
    batch_size = batch_size or (1 if model.device.type == "cpu" else 16)
    batches = [*_batches(model, tasks, wanted, range(n_seqs), n_shots, seed, batch_size)]
    names = [f"{task.name}/{first}" for task, first, *_ in batches]
    if parts is None or any(name not in parts for name in names):
        model.check_causal(batches[0][3][0].tokens)
    records: dict[tuple[str, int], Record] = {}
    with tqdm(total=len(tasks) * n_seqs, unit="seq", disable=not progress, dynamic_ncols=True) as bar:
        for name, (task, first, episodes, prompts, readings) in zip(names, batches):
            bar.set_description(task.name)
            # Batches are cut from the whole list, never from what is left: the numbers of a run that was killed
            # and went on are then those of one that was not.
            kept = parts.get(name) if parts else None
            if kept is None:
                values = _read(model, prompts, readings)
                if martingale and has_gap(task, n_shots):
                    _add_gaps(model, task, episodes, values)
                if parts:
                    parts.put(name, json.dumps(values).encode())  # which keeps float64 exactly
            else:
                values = json.loads(kept)
            for seq, (episode, prompt, value) in enumerate(zip(episodes, prompts, values), first):
                records[task.name, seq] = Record(task, episode, prompt, wanted[task.name], value)
            bar.update(len(episodes))
    return _assemble(tasks, records, n_shots, n_seqs)


def _batches(
    model: Model,
    tasks: Sequence[Task],
    wanted: Mapping[str, Sequence[str]],
    seqs: range,
    n_shots: int,
    seed: int,
    size: int,
) -> Iterator[tuple[Task, int, list[tuple[Example, ...]], list[Prompt], list[EpisodeReading]]]:
    """Task, first sequence, episodes, their prompts and what is read there, of every pass."""
    vocabulary = Vocabulary(model.token_texts)
    for task in tasks:
        branch = bool({"foil", "format", "rule"} & set(wanted[task.name]))
        for batch in (seqs[i : i + size] for i in range(0, len(seqs), size)):
            episodes = [task.episode(n_shots, seed, seq) for seq in batch]
            prompts = [encode_episode(task, episode, model.tokenizer, branch=branch) for episode in episodes]
            if task.design is not None and task.design.block:
                prompts = [in_blocks(prompt, task.design.block) for prompt in prompts]
            readings = [EpisodeReading(task, p, wanted[task.name], vocabulary) for p in prompts]
            _check_context(model, task, prompts)
            yield task, batch[0], episodes, prompts, readings


def wanted_readouts(tasks: Sequence[Task], readouts: Sequence[str] = ()) -> dict[str, list[str]]:
    """By task the readouts to record: those asked for that it has, or all that it has.

    Parameters
    ----------
    tasks
        Those to be read.
    readouts
        Those asked for; all, if empty.

    Raises
    ------
    StatedError
        No task, two of one name, an unknown readout, or a task that has none of those asked for.

    Examples
    --------
    >>> from bayes_icl.collect import wanted_readouts
    >>> from bayes_icl.tasks import load_tasks
    >>> wanted_readouts(load_tasks(["capital", "parity"]), ["complement", "rule"])
    {'capital': ['complement'], 'parity': ['complement', 'rule']}
    """
    if not tasks:
        raise StatedError("no tasks: name at least one")
    for name in readouts:
        if name not in READOUTS:
            raise unknown("readout", name, READOUTS)
    wanted: dict[str, list[str]] = {}
    for task in tasks:
        if task.name in wanted:
            raise StatedError(f"two tasks are called {task.name!r}: rename one")
        wanted[task.name] = [r for r in READOUTS if r in task.readouts and (not readouts or r in readouts)]
        if not wanted[task.name]:
            raise StatedError(
                f"task {task.name!r} has no readout {' or '.join(readouts)}; it has {', '.join(task.readouts)}: name "
                "one of these too, or leave the task out"
            )
    return wanted


def check_designs(tasks: Sequence[Task], n_shots: int, n_seqs: int, *, martingale: bool = False) -> None:
    """State the first task that its design does not go with, at these numbers of shots and sequences.

    With `martingale`, some task must have the gap.
    """
    if martingale and not any(has_gap(task, n_shots) for task in tasks):
        raise StatedError(
            "--martingale needs a task with labels, of which examples see one another, and 2 shots: name one with "
            "--tasks, as category"
        )
    for task in tasks:
        if task.design is not None:
            task.design.check(task, n_shots, n_seqs)


def _check_context(model: Model, task: Task, prompts: Sequence[Prompt]) -> None:
    """Refuse episodes with more tokens than the model takes; branches stand at positions of their own."""
    if model.context is None:
        return
    for prompt in prompts:
        b = prompt.branches
        used = max([len(prompt.tokens), *(b.attach + b.depth + 1).tolist()])
        if used > model.context:
            fits = sum(stop <= model.context for stop in prompt.answer_stop.tolist()) - 1
            hint = f"to about {fits}" if fits > 0 else "or take another model: not even one example fits"
            raise StatedError(
                f"an episode of task {task.name!r} has {used} tokens, but {model.name!r} takes {model.context}: lower "
                f"--n-shots {hint}"
            )


def _read(model: Model, prompts: Sequence[Prompt], readings: Sequence[Any]) -> list[dict[str, Any]]:
    """Read one batch: ``buckets`` (readout, shot, 2), ``correct`` (shot) and how branches were read, an episode."""
    wanted, of_branches = [r.positions for r in readings], [r.branch_positions for r in readings]
    if prompts[0].blocks is not None:  # every query is a branch then
        branch_logits = logits_in_blocks(model, prompts, of_branches)
        logits = branch_logits[:0]
    else:
        logits, branch_logits = model.logits_at(
            [p.tokens for p in prompts], wanted, [p.branches for p in prompts], of_branches
        )
    values, at, branch_at = [], 0, 0
    for reading in readings:
        n, m = len(reading.positions), len(reading.branch_positions)
        own = logits[at : at + n]
        if m:
            own = torch.cat([own, branch_logits[branch_at : branch_at + m]])
        at, branch_at = at + n, branch_at + m
        buckets, correct = reading.read(own)
        values.append({"buckets": buckets.tolist(), "correct": correct.tolist(), "branches": model.branching.last})
    return values


def _add_gaps(
    model: Model, task: Task, episodes: Sequence[tuple[Example, ...]], values: Sequence[dict[str, Any]]
) -> None:
    """Read the martingale gaps of a batch, and put them beside what was read of it."""
    n_shots = len(episodes[0]) - 1
    prompts = [with_one_more(encode_episode(task, e, model.tokenizer), n_shots) for e in episodes]
    _check_context(model, task, prompts)
    for value, gaps in zip(values, read_gaps(model, task, prompts, n_shots, Vocabulary(model.token_texts))):
        value["martingale"] = gaps


@dataclass(frozen=True)
class Record:
    """One sequence as collected."""

    task: Task
    examples: tuple[Example, ...]
    prompt: Prompt
    readouts: list[str]
    values: dict[str, Any]


def _assemble(tasks: Sequence[Task], records: dict[tuple[str, int], Record], n_shots: int, n_seqs: int) -> xr.Dataset:
    names = [task.name for task in tasks]
    used = [r for r in READOUTS if any(r in record.readouts for record in records.values())]
    shape = (len(tasks), n_seqs, n_shots + 1)
    buckets = np.full((len(tasks), len(used), n_seqs, n_shots + 1, 2), np.nan)
    correct, seen = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    known = {name: np.full(shape, np.nan) for name in ("evidence", "observer", "history")}
    gaps = np.full(shape, np.nan)
    sets = np.full(shape[:2], -1, dtype=np.int32)
    text = {name: np.full(shape, "", dtype=object) for name in ("query", "answer", "foil", "shown")}
    width = max(len(record.prompt.tokens) for record in records.values())
    tokens = np.full((len(tasks), n_seqs, width), -1, dtype=np.int32)
    places = ("answer_start", "answer_stop", "query_start", "query_stop")
    positions = {name: np.zeros(shape, dtype=np.int32) for name in places}
    forks, foil_tokens = np.full(shape, -1, dtype=np.int32), np.full(shape, -1, dtype=np.int32)
    for (name, seq), record in records.items():
        at = names.index(name), seq
        for i, readout in enumerate(record.readouts):
            buckets[at[0], used.index(readout), seq] = record.values["buckets"][i]
        correct[at] = record.values["correct"]
        queries = [e.query for e in record.examples]
        seen[at] = [query != "" and query in queries[:i] for i, query in enumerate(queries)]
        known["evidence"][at] = record.task.evidence(record.examples)
        known["observer"][at] = record.task.ideal_log_odds(record.examples)
        known["history"][at] = record.task.history(record.examples)
        if "martingale" in record.values:
            gaps[at][shots_of(n_shots)] = record.values["martingale"]
        sets[at] = record.task.design.set_of(seq) if record.task.design else -1
        for field, of in ({name: name for name in text} | {"shown": "written"}).items():
            text[field][at] = [getattr(e, of) for e in record.examples]
        tokens[at][: len(record.prompt.tokens)] = record.prompt.tokens
        for place in places:
            positions[place][at] = getattr(record.prompt, place)
        for shot, foil in enumerate(record.prompt.foils):
            if foil:
                own = record.prompt.answer(shot)
                forks[at][shot] = fork = next(j for j, (a, b) in enumerate(zip(own, foil)) if a != b)
                foil_tokens[at][shot] = foil[fork]
    per_shot = ("task", "seq", "shot")
    dataset = xr.Dataset(
        {
            "log_p_correct": (("task", "readout", "seq", "shot"), buckets[..., 0]),
            "log_p_incorrect": (("task", "readout", "seq", "shot"), buckets[..., 1]),
            "log_odds": (("task", "readout", "seq", "shot"), buckets[..., 0] - buckets[..., 1]),
            "correct": (per_shot, correct),
            **{name: (per_shot, values) for name, values in text.items()},
            "tokens": (("task", "seq", "pos"), tokens),
            **{name: (per_shot, values) for name, values in positions.items()},
            "fork": (per_shot, forks),
            "foil_token": (per_shot, foil_tokens),
            "query_seen": (per_shot, seen),
            **{name: (per_shot, values) for name, values in known.items()},
            "set": (("task", "seq"), sets),
            "design": ("task", [task.design.spec if task.design else PLAIN for task in tasks]),
            "base": ("task", [task.base or task.name for task in tasks]),
        },
        coords={"task": names, "readout": used, "seq": np.arange(n_seqs), "shot": np.arange(n_shots + 1)},
    )
    if np.isfinite(gaps).any():
        dataset["martingale_gap"] = (per_shot, gaps)
    ways = {record.values.get("branches", "") for record in records.values()} - {""}
    dataset.attrs["branches"] = "; ".join(sorted(ways)) or "none read"
    for name in map(str, dataset.data_vars):
        dataset[name].attrs["description"] = VARIABLES[name]
        if name in IN_NATS:
            dataset[name].attrs["units"] = "nats"
    return check(dataset, "what the model gave")
