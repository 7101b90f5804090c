"""The report's sentences: what was asked and what was found, every number quoted from the files of the stages.

Functions take what the stages wrote and a `Quotes`, and return text that holds the quoted numbers' keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from bayes_icl.quotes import Quotes, listed
from bayes_icl.summary import agreement, came_across, readings

SURE = 0.01  # p of the quadratic contrast below which updates are said to change


class Claim(NamedTuple):
    """One claim of the post that started this project, and what was found of it.

    Attributes
    ----------
    title
        The claim in a few words.
    sentences
        What was found; empty if the stage that asks was not run.
    stage
        That stage.
    """

    title: str
    sentences: list[str]
    stage: str


def null_controls(dataset: xr.Dataset) -> list[str]:
    """Tasks that have nothing to learn: an ideal observer's evidence is known, and none."""
    if "evidence" not in dataset:
        return []
    nothing = (dataset.evidence == 0).all([dim for dim in dataset.evidence.dims if dim != "task"])
    return [str(task) for task in dataset.task.values[nothing.values]]


def answer(
    dataset: xr.Dataset, verdicts: Mapping[str, dict], checks: pd.DataFrame, quotes: Quotes
) -> tuple[str, list[str]]:
    """The answer to "does every example add the same?": in a word or two, and in sentences.

    Parameters
    ----------
    verdicts
        verdict.json.
    checks
        checks.csv; may be empty.
    """
    q = quotes.under("answer")
    nulls = null_controls(dataset)
    asked = {task: v["verdict"] for task, v in verdicts.items() if task not in nulls}
    by_verdict = {kind: [task for task, v in asked.items() if v == kind] for kind in dict.fromkeys(asked.values())}
    n_tasks, n_supported = len(asked), len(by_verdict.get("supported", []))
    n_rejected = len(by_verdict.get("rejected", []))
    if not asked:
        word = "Nothing was asked."
    elif n_supported == n_tasks:
        word = "Yes."
    elif n_supported:
        word = "On some tasks."
    elif n_rejected == n_tasks:
        word = "No."
    elif n_rejected:
        word = "No, where it can be told."
    elif set(by_verdict) == {"no_update"}:
        word = "Nothing is learned."
    else:
        word = "It cannot be told."
    sentences = []
    if asked:
        kinds = "; ".join(
            f"{VERDICTS[kind]} on {_tasks(tasks)} ({q.count(kind, len(tasks))} of {q.count('tasks', n_tasks)} "
            f"task{'s' * (n_tasks > 1)})"
            for kind, tasks in by_verdict.items()
        )
        sentences.append(f"That every example adds the same amount is {kinds}.")
    slowing = [
        row.task
        for row in checks.itertuples()
        if row.check == "quadratic contrast" and row.p < SURE and row.estimate < 0 and row.task in asked
    ]
    if slowing:
        sentences.append(
            f"Further examples add less and less on {_tasks(slowing)} (quadratic contrast below zero, p below "
            f"{q.number('slowing_p', SURE, 'g')})."
        )
    for task in nulls:
        if task in verdicts:
            for sentence in readings(dataset, task, verdicts[task])[-1:]:
                sentences.append(f"`{task}`: {sentence}.")
    return word, sentences


VERDICTS = {
    "supported": "supported",
    "rejected": "rejected",
    "no_update": "beside the point, since nothing is learned,",
    "undecided": "undecided",
    "refused": "refused a verdict",
}


def verdict_sentence(task: str, verdict: Mapping[str, Any], quotes: Quotes) -> str:
    """The verdict on a task with its reasons, its delta and the law that is named."""
    q = quotes.under(task, "verdict", unit="nats/example")
    parts = [q.all_in(f"reasons.{i}", reason) for i, reason in enumerate(verdict["reasons"])]
    sentence = f"`{task}`: {verdict['verdict']} ({verdict['readout']}, n \u2265 {q.count('n_min', verdict['n_min'])})"
    sentence += f". {'; '.join(parts)}." if parts else "."
    if (delta := verdict["delta"]) is not None:
        numbers = (delta["mean"], delta["hdi_low"], delta["hdi_high"])
        sentence += f" Delta under `additive` is {q.three('delta', numbers)} nats per example."
    if verdict["named"]:
        sentence += f" The simplest law that survives is `{verdict['named']}`."
    if verdict.get("seqs_needed"):
        sentence += f" About {q.count('seqs_needed', verdict['seqs_needed'])} sequences would decide it."
    return sentence


def beside_verdict(dataset: xr.Dataset, task: str, verdict: dict, quotes: Quotes) -> list[str]:
    """What else is to be said of it: other settings, other readouts, notes."""
    q = quotes.under(task, "verdict")
    sentences = [agreement(verdict)] if verdict["others"] else []
    sentences += [*readings(dataset, task, verdict), *(f"note: {note}" for note in verdict["notes"])]
    return [q.all_in(f"beside.{i}", sentence) for i, sentence in enumerate(sentences)]


def claims(
    heads: Mapping[str, Mapping[str, Any]] | None,
    standing: pd.DataFrame | None,
    ablation: pd.DataFrame | None,
    patch: Mapping[str, Mapping[str, Any]] | None,
    tables: Mapping[str, pd.DataFrame] | None,
    quotes: Quotes,
) -> list[Claim]:
    """The post's claims about heads, layers and steps, and what was found of each.

    Parameters
    ----------
    heads, standing, ablation
        Facts, heads.csv and ablation.csv of `attribute`; None if it was not run.
    patch, tables
        Facts and tables of `patch`; None if it was not run.
    """
    found = [
        Claim(
            "Heads that attend to examples write the update",
            []
            if heads is None or standing is None or ablation is None
            else [_writers(task, own, standing, ablation, quotes.under(task, "heads")) for task, own in heads.items()],
            "attribute",
        )
    ]
    taught = {task: own for task, own in (patch or {}).items() if own["taught"]}
    untaught = [task for task in patch or {} if task not in taught]
    nothing = [f"On {_tasks(untaught)} the examples teach no rule that could be patched."] if untaught else []
    layers, steps = [], []
    if patch is not None and tables is not None:
        layers = [_layers(task, own, tables, quotes.under(task, "patch")) for task, own in taught.items()] + nothing
        words = {"1": "heads bring the query to the answers", "2": "MLPs make features of the pair"}
        words["3"] = "later heads bring them to the last position"
        for step, what in words.items():
            by_verdict: dict[str, list[str]] = {}
            for task, own in taught.items():
                if step in own.get("steps", {}):
                    by_verdict.setdefault(own["steps"][step], []).append(task)
            if by_verdict:
                kinds = listed([f"{kind} on {_tasks(tasks)}" for kind, tasks in by_verdict.items()])
                steps.append(f"Step {quotes.count(f'step.{step}', int(step))}, {what}: {kinds}.")
    found.append(Claim("The task forms at one layer, and backup heads take over", layers, "patch"))
    found.append(Claim("Heads bring, MLPs make features, later heads add them", steps, "patch"))
    return found


def _writers(task: str, facts: Mapping[str, Any], table: pd.DataFrame, ablation: pd.DataFrame, quotes: Quotes) -> str:
    """Who writes delta of one task, and what goes with them; keys are those of `summary.head_sentences`."""
    from bayes_icl.heads import placebo_rank

    q, delta = quotes.under(unit="nats/example"), facts["delta"]
    if delta["hdi_low"] <= 0 <= delta["hdi_high"]:
        return f"`{task}`: delta's interval has zero in it ({q.three('delta', delta.values())}): nothing to share out."
    own = table[(table.task == task) & (table.kind == "head")]
    sentence = (
        f"`{task}`: heads write {q.three('slope_head', facts['slope_head'].values())} of the first token's "
        f"{q.three('delta', delta.values())} nats per example ({q.percent('share_head', facts['share_head'])})"
    )
    if "slope_examples" in facts:
        sentence += f", {q.three('slope_examples', facts['slope_examples'].values())} from examples they attend to"
    standing = int(own.stands_out.astype(bool).sum())
    sentence += f"; {q.count('standing', standing)} of {q.count('n_heads', len(own))} stand out"
    taken = ablation[(ablation.task == task) & (ablation.way == "held")]
    if len(taken):
        t, here = q.under("taken", "held"), facts["delta_measured"]["mean"]
        top = taken[taken.set == "top"].iloc[0]
        beyond, n_sets = placebo_rank(taken, "held", here)
        sentence += (
            f"; without the {q.under('taken').count('n_heads', top.n_heads)} that write most, "
            f"{t.percent('share_lost', top.lost / here)} of delta goes, which {t.count('placebos_beyond', beyond)} of "
            f"{t.count('placebos', n_sets)} placebo sets reach"
        )
    return sentence + "."


def _layers(task: str, facts: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], quotes: Quotes) -> str:
    """Where a task comes across and who takes over; keys are those of `summary.patch_sentences`."""
    rounds, backups = tables["rounds"], tables["backups"]
    first = rounds[(rounds.task == task) & (rounds["round"] == 0) & (rounds.kind == facts["kind"])].iloc[0]
    sentence = f"`{task}`: {came_across(first, quotes.under(unit='nats'))}"
    own = backups[backups.task == task]
    named = [row.component for row in own.itertuples() if row.backup]
    if named:
        sentence += f"; {listed(list(dict.fromkeys(named)))} take over once the layers before it are ablated"
    elif facts["backups_sought"]:
        sentence += "; no head is shown to take over once the layers before it are ablated"
    return sentence + "."


def calibration_sentences(
    outcomes: pd.DataFrame, settings: Mapping[str, Any], sizes: tuple[int, int], quotes: Quotes
) -> list[str]:
    """What was calibrated, whether it is of the curves' size, and whether it held.

    Parameters
    ----------
    outcomes, settings
        outcomes.csv and the settings of `calibrate`.
    sizes
        Sequences and most examples of the curves.
    """
    q = quotes.under("calibration")
    n_seqs, n_shots = settings["n_seqs"], settings["n_shots"]
    of = f"{q.count('n_seqs', n_seqs)} sequences of {q.count('n_shots', n_shots)} examples"
    held, sentences = int(outcomes.holds.astype(bool).sum()), []
    if (n_seqs, n_shots) == tuple(sizes):
        sentences.append(f"Simulated truths of these very sizes, {of}.")
    else:
        own = f"{q.count('curves_n_seqs', sizes[0])} of {q.count('curves_n_shots', sizes[1])}"
        sentences.append(f"Simulated truths of {of}; the curves here have {own}, for which it was not run.")
    sentences.append(
        f"{q.count('held', held)} of {q.count('checks', len(outcomes))} checks hold, those of controls that must fail "
        "among them."
    )
    for i, row in enumerate(outcomes.itertuples()):
        if not row.holds:
            sentences.append(q.all_in(f"failed.{i}", f"Fails: {row.what}: {row.value:.4g} ({row.bound})."))
    return sentences


def left_aside(verdicts: Mapping[str, dict], quotes: Quotes) -> list[str]:
    """What was refused, and which fits were not relied on, with the reason; of all settings."""
    sentences = []
    for task, headline in verdicts.items():
        for i, verdict in enumerate((headline, *headline["others"])):
            reasons = list(verdict["reasons"]) if verdict["verdict"] == "refused" else []
            words = [f"refused: {reason}" for reason in reasons]
            words += [note for note in verdict["notes"] if note.startswith("left aside")]
            if not words:
                continue
            q = quotes.under(task, "refused", i)
            setting = f"{verdict['readout']}, n \u2265 {q.count('n_min', verdict['n_min'])}"
            if verdict["priors"] != "stated":
                setting += f", priors {verdict['priors']}"
            if verdict["noise"] != headline["noise"]:
                setting += f", {verdict['noise']} noise"
            sentences += [f"`{task}` ({setting}): {q.all_in(str(j), text)}." for j, text in enumerate(words)]
    return sentences


def _tasks(names: Sequence[str]) -> str:
    return listed([f"`{name}`" for name in names])
