"""First stage: what the examples add, and round after round of ablation with the transfer read anew."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.mechanism.ablation_values import REFERENCE_KINDS, places_ablated
from bayes_icl.mechanism.halves import measured_on
from bayes_icl.mechanism.head_names import Head, Heads, by_layer, name_of
from bayes_icl.mechanism.placebos import placebo_name, placebo_sets
from bayes_icl.mechanism.redundancy import SingleAblations, name_backups
from bayes_icl.mechanism.rounds import backup_rows, describe, has_rule
from bayes_icl.mechanism.steps import after_queries
from bayes_icl.mechanism.thresholds import LEFT_LEAST
from bayes_icl.patch.experiment import Arrays, PatchExperiment, last_of

Row = dict[str, Any]
"""Of a table."""


@dataclass(frozen=True)
class Baseline:
    """Every run before any head is gone.

    Attributes
    ----------
    clean, no_rule
        Transfer from A, and from A with its answers permuted (or its labels exchanged); as `rounds.carried` gives it.
    exchanged
        Whether the labels of the run without a rule are exchanged, as A knows them though they are permuted.
    norms
        Of what ablating a head removes, by ``"kind place"``, each of shape (layer, head).
    alone, alone_other
        Heads ablated one by one, by the kind that leads and by the other.
    """

    clean: Arrays
    no_rule: Arrays
    norms: Arrays
    alone: SingleAblations
    alone_other: SingleAblations
    exchanged: bool

    @property
    def rule(self) -> Float[np.ndarray, " pair"]:
        """The rule gain in A's log-odds, nats."""
        return self.clean["a"] - self.no_rule["a"]

    @property
    def taught(self) -> bool:
        """Whether the examples teach a rule."""
        return has_rule(self.rule)

    def facts(self) -> dict[str, Any]:
        """Numbers of the task."""
        numbers = {"gain": self.clean["a"] - self.clean["b"], "rule_gain": self.rule, "no_rule": self.no_rule["a"]}
        three = {name: dict(zip(("mean", "low", "high"), map(float, t_interval(x)))) for name, x in numbers.items()}
        return {"rule_gain_measured": float(measured_on(self.rule).mean()), "exchanged": self.exchanged, **three}


@dataclass(frozen=True)
class Rounds:
    """The sequence of rounds on one task.

    Attributes
    ----------
    transfers
        By run (``no rule``, then ``round 1, mean`` and the like): transfer as `rounds.carried` gives it.
    rounds, transfer, backups
        Rows of the tables of these names.
    transfer_layer
        Where the task is recovered before any head is gone; None where it is not.
    ablated
        Heads that are gone in the last round.
    round_of
        The round in which each of them went.
    sought
        Rounds after which backup heads were sought.
    ended
        Why there was no further round.
    """

    transfers: dict[str, Arrays]
    rounds: list[Row]
    transfer: list[Row]
    backups: list[Row]
    transfer_layer: int | None
    ablated: list[Head]
    round_of: dict[Head, int]
    sought: list[int]
    ended: str

    def facts(self) -> dict[str, Any]:
        """How the rounds went."""
        return {
            "ended": self.ended,
            "ablated": [name_of(head) for head in self.ablated],
            "transfer_layer": self.transfer_layer,
            "backups_sought": self.sought,
        }


def measure_baseline(experiment: PatchExperiment) -> Baseline:
    """Transfer with and without the rule, and what each head costs by itself."""
    kind, other, where = experiment.kind, experiment.other_kind, experiment.settings.ablate_at
    places = {"rounds": lambda run: places_ablated(run, where), "after_queries": after_queries, "last": last_of}
    norms = experiment.norms("norms", experiment.values, REFERENCE_KINDS, places)
    clean = experiment.transfer("round 0", [], kind)
    no_rule = experiment.transfer_without_rule("round 0, no rule")
    # Permuted labels are half right: where that is enough for the model, they show the rule still.
    n_labels = experiment.n_labels
    exchanged = bool(n_labels > 1 and no_rule["a_first"].mean() > (1 + 1 / n_labels) / 2)
    if exchanged:
        no_rule = experiment.transfer_without_rule("round 0, labels exchanged", exchanged=True)
    alone = experiment.single_ablations("alone", kind, [])
    return Baseline(clean, no_rule, norms, alone, experiment.single_ablations(f"alone {other}", other, []), exchanged)


def run_rounds(experiment: PatchExperiment, baseline: Baseline) -> Rounds:
    """Ablate the heads just before the transfer layer, then those that take over, while a rule is left to carry."""
    transfers = {"no rule": baseline.no_rule}
    rounds, transfer, backups = list[Row](), list[Row](), list[Row]()
    gone: list[Head] = []
    sought: list[int] = []
    round_of: dict[Head, int] = {}
    transfer_layer: int | None = None
    for number in itertools.count():
        one = _measure_round(experiment, baseline, number, gone)
        transfers |= one.transfers
        rounds += one.rounds
        transfer += one.transfer
        layer = followed(experiment, one.row)
        if number == 0:
            transfer_layer = None if np.isnan(layer) else int(layer)
        if ended := _why_ended(experiment, baseline, number, one):
            break
        if number == 0:
            new, ended = _first_heads(experiment, layer), NO_LAYER
        else:
            sought.append(number)
            rows = _backups(experiment, baseline, number, gone)
            backups += rows
            new, ended = [(row["layer"], row["head"]) for row in rows if row["grows"]], NO_BACKUP
        if not new:
            break
        for head in new:
            round_of.setdefault(head, number + 1)
        gone = [*gone, *(head for head in new if head not in gone)]
    return Rounds(transfers, rounds, transfer, backups, transfer_layer, gone, round_of, sought, ended)


NO_LAYER = "the task is recovered from the embedding on: there is no layer before it"

NO_BACKUP = "no head could be named whose ablation costs more than before"


@dataclass(frozen=True)
class _Round:
    """One round, by every kind of ablation and with placebo sets.

    Attributes
    ----------
    transfers
        By kind of ablation, as in `Rounds`.
    rounds, transfer
        Rows of the tables of these names.
    left
        What the rule still adds by the kind that leads, nats, shape (pair,).
    row
        Of the kind that leads, as `rounds.describe` gives it.
    """

    transfers: dict[str, Arrays]
    rounds: list[Row]
    transfer: list[Row]
    left: Float[np.ndarray, " pair"]
    row: dict[str, float]


def _measure_round(experiment: PatchExperiment, baseline: Baseline, number: int, gone: Heads) -> _Round:
    """Transfer with some heads gone, by every kind of ablation, and with placebo sets gone, by two or three."""
    settings, task = experiment.settings, experiment.task
    sets = [(kind, "ablated", gone, f"round {number}, {kind}") for kind in REFERENCE_KINDS]
    if number:
        for kind in experiment.headlines:
            drawn = placebos_for(experiment, baseline, kind, gone)
            sets += [(kind, name, heads, f"round {number}, {kind}, {name}") for name, heads in drawn.items()]
    transfers, described = dict[str, Arrays](), dict[str, dict[str, float]]()
    rounds, transfer = list[Row](), list[Row]()
    for kind, name, heads, stage in sets:
        arrays = experiment.transfer(stage, heads, kind) if number else baseline.clean
        row = described[stage] = describe(arrays, baseline.clean, baseline.no_rule, settings.seed)
        about = {"task": task, "round": number, "kind": kind, "set": name}
        words = layers_text(heads, experiment.anatomy.n_heads)
        names_ = " ".join(map(name_of, heads))
        rounds.append({**about, "n_heads": len(heads), "heads": names_, "layers_text": words, **row})
        transfer += transfer_rows(about, arrays)
        if name == "ablated":
            transfers[stage] = arrays
    if not number:
        transfer += transfer_rows({"task": task, "round": 0, "kind": "", "set": "no rule"}, baseline.no_rule)
    leading = f"round {number}, {settings.kind}"
    left = transfers[leading]["a"] - baseline.no_rule["a"]
    return _Round(transfers, rounds, transfer, left, described[leading])


def placebos_for(experiment: PatchExperiment, baseline: Baseline, kind: str, gone: Heads) -> dict[str, Heads]:
    """Placebo sets for some heads by their names; none where there are too few other heads."""
    settings = experiment.settings
    if not settings.placebos or not experiment.has_placebos(gone):
        return {}
    drawn = placebo_sets(baseline.norms[f"{kind} rounds"], gone, settings.placebos, settings.seed)
    return {placebo_name(i): heads for i, heads in enumerate(drawn, 1)}


def transfer_rows(about: Row, arrays: Arrays) -> list[Row]:
    """Rows of the table of transfer: a layer each, means over pairs."""
    three = {key: t_interval(arrays[key]) for key in ("own", "other")}
    firsts = {key: arrays[key].mean(0) for key in ("own_first", "other_first")}
    rows = []
    for layer in range(arrays["own"].shape[1]):
        numbers = flat({key: [x[layer] for x in t] for key, t in three.items()})
        numbers |= {key: float(x[layer]) for key, x in firsts.items()}
        rows.append({**about, "layer": layer, **numbers})
    return rows


def _why_ended(experiment: PatchExperiment, baseline: Baseline, number: int, one: _Round) -> str:
    """Why a round is the last, as far as it tells; empty if it is not."""
    if number >= experiment.settings.rounds:
        return f"{experiment.settings.rounds} rounds were asked for"
    if not baseline.taught:
        return "the examples teach no rule"
    left = one.row["rule_gain"] / baseline.rule.mean()
    if number and not has_rule(one.left):
        return f"A has {one.row['rule_gain']:.2f} nats of the rule left: too little to carry"
    if number and not left >= LEFT_LEAST:
        return f"{left:.0%} of the rule gain is left: too little to tell whether heads take over"
    if np.isnan(followed(experiment, one.row)) and not (number == 0 and experiment.named):
        return f"no layer carries the task{' any more' if number else ''}, though A has {left:.0%} of the rule"
    return ""


def followed(experiment: PatchExperiment, row: Mapping[str, float]) -> float:
    """The layer that rounds follow: where the task is recovered, or A's answer where the patch replaces B's query."""
    return row["answer_layer" if experiment.replaces_query else "transfer_layer"]


def _first_heads(experiment: PatchExperiment, layer: float) -> list[Head]:
    """The heads of round 1: those that the user names, or all of the layers just before the transfer layer."""
    if experiment.named:
        return list(experiment.named)
    layers = range(max(int(layer) - experiment.settings.before, 0), int(layer))
    return [head for head in experiment.anatomy.heads if head[0] in layers]


def _backups(experiment: PatchExperiment, baseline: Baseline, number: int, gone: Heads) -> list[Row]:
    """Heads that take over from those that are gone, beside placebo sets and by another kind of ablation."""
    settings, other = experiment.settings, experiment.other_kind
    after = experiment.single_ablations(f"round {number}, alone", settings.kind, gone)
    named = name_backups(baseline.alone.lost, after.lost, baseline.rule, settings.backups)
    if not named:
        return []
    heads = [one.head for one in named]
    placebo = None
    if settings.placebos and experiment.has_placebos(gone, len(heads)):
        norms = baseline.norms[f"{settings.kind} rounds"]
        sets = placebo_sets(norms, gone, settings.placebos, settings.seed, besides=heads)
        beside = [
            experiment.single_ablations(f"round {number}, alone, {placebo_name(i)}", settings.kind, one, heads)
            for i, one in enumerate(sets, 1)
        ]
        placebo = SingleAblations(*(np.mean(parts, axis=0) for parts in zip(*beside)))
    others = baseline.alone_other, experiment.single_ablations(f"round {number}, alone, {other}", other, gone, heads)
    rows = backup_rows(named, baseline.alone, after, placebo, others, gone, baseline.rule)
    return [{"task": experiment.task, "round": number, **row} for row in rows]


def layers_text(heads: Heads, n_heads: int) -> str:
    """Whole layers as ranges, and how many single heads beside them."""
    whole = sorted(layer for layer, own in by_layer(heads).items() if len(set(own)) == n_heads)
    runs: list[list[int]] = []
    for layer in whole:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    words = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs]
    single = len(heads) - len(whole) * n_heads
    text = (f"layer{'s' if len(whole) > 1 else ''} " + ", ".join(words)) if words else ""
    alone = f"{single} head{'s' if single > 1 else ''}" if single else ""
    return " and ".join(part for part in (text, alone) if part)
