"""The rounds as Skunnavakkam (2024) has them: whole layers below each new transfer layer, while A's answer holds.

A ladder a kind of ablation: each step ablates all heads of the `--before` layers below the layer at which the task was
recovered last, and what is gone stays gone. Beside them the features of the answer, layer by layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.mechanism.ablation_values import REFERENCE_KINDS
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.head_names import Heads, name_of
from bayes_icl.mechanism.ladder import Fork, head_states, lens_on_classes
from bayes_icl.mechanism.rounds import describe, edits_of_pair, has_rule
from bayes_icl.mechanism.steps import Form
from bayes_icl.mechanism.thresholds import ATTENDING_LEAST, BACKUP_ALPHA, BACKUP_LEAST
from bayes_icl.mechanism.transfer import Pair
from bayes_icl.models.prompts import ROLES
from bayes_icl.patch.experiment import Arrays, PatchExperiment
from bayes_icl.patch.rounds import Baseline, Row, followed, layers_text, placebos_for, transfer_rows
from bayes_icl.patch.step_experiments import forms_of

LIT_DRAWN = 4
"""Heads whose attention patterns are kept, a step."""


@dataclass(frozen=True)
class Ladder:
    """The ladders of one task.

    Attributes
    ----------
    ladder, ladder_transfer, ladder_heads, ladder_patterns, features
        Rows of the tables of these names.
    ended
        By kind of ablation: why there was no further step.
    """

    ladder: list[Row]
    ladder_transfer: list[Row]
    ladder_heads: list[Row]
    ladder_patterns: list[Row]
    features: list[Row]
    ended: dict[str, str]


def run_ladder(experiment: PatchExperiment, baseline: Baseline) -> Ladder:
    """Climb one ladder a kind of ablation, and decode features of the answer in the runs with and without the rule."""
    result = Ladder([], [], [], [], _features(experiment, baseline), {})
    clean_states = _states(experiment, "clean", [], experiment.kind)
    for kind in REFERENCE_KINDS:
        result.ended[kind] = _climb(experiment, baseline, kind, clean_states, result)
    return result


def _climb(experiment: PatchExperiment, baseline: Baseline, kind: str, clean_states: Arrays, result: Ladder) -> str:
    """Steps of one kind of ablation, added to the rows of `result`; why they ended."""
    gone: Heads = []
    layer = float("nan")
    for step in itertools.count():
        arrays = experiment.transfer(f"ladder {kind} {step}", gone, kind) if step else baseline.clean
        row = _measured(experiment, baseline, kind, step, "ablated", gone, arrays, result)
        about = {"task": experiment.task, "kind": kind, "step": step}
        result.ladder_transfer.extend(transfer_rows(about, arrays))
        if step:
            for name, heads in placebos_for(experiment, baseline, kind, gone).items():
                beside = experiment.transfer(f"ladder {kind} {step}, {name}", heads, kind)
                _measured(experiment, baseline, kind, step, name, heads, beside, result)
            states = _states(experiment, f"{kind} {step}", gone, kind)
            _add_heads(experiment, about, clean_states, states, gone, baseline, result)
        if not baseline.taught:
            return "the examples teach no rule"
        half = (baseline.clean["a_first"].mean() + baseline.no_rule["a_first"].mean()) / 2
        if baseline.clean["a_first"].mean() == 0 or (step and row["a_first"] < half):
            return f"A's own answer does not hold: its right token comes first in {row['a_first']:.0%} of pairs"
        if not has_rule(arrays["a"] - baseline.no_rule["a"]):
            return f"A has {row['rule_gain']:.2f} nats of the rule left: nothing is left to carry"
        layer = followed(experiment, row)
        if np.isnan(layer):
            return "no layer carries the task, though A's own answer holds"
        below = range(max(int(layer) - experiment.settings.before, 0), int(layer))
        new = [head for head in experiment.anatomy.heads if head[0] in below and head not in gone]
        if not new:
            return f"the layers below layer {int(layer)} are gone already, and the task is recovered there still"
        gone = [*gone, *new]
    raise AssertionError("a ladder ends when all layers are gone")


def _measured(
    experiment: PatchExperiment, baseline: Baseline, kind: str, step: int, name: str, heads: Heads, arrays: Arrays,
    result: Ladder,
) -> dict[str, float]:  # fmt: skip
    """Add a row of the table of the ladder."""
    described = describe(arrays, baseline.clean, baseline.no_rule, experiment.settings.seed)
    row = {
        "task": experiment.task, "kind": kind, "step": step, "set": name, "n_heads": len(heads),
        "layers_text": layers_text(heads, experiment.anatomy.n_heads),
        "left": described["rule_gain"] / baseline.rule.mean() if baseline.taught else np.nan,
        "own_first": float(arrays["own_first"].mean(0).max()),
        "copied_first": float(arrays["other_first"].mean(0).max()),
    }  # fmt: skip
    kept = ("transfer_layer", "answer_layer", "a_own", "rule_gain", "a_first")
    result.ladder.append(row | {key: x for key, x in described.items() if key.startswith(kept) and "kept" not in key})
    return described


def _states(experiment: PatchExperiment, name: str, gone: Heads, kind: str) -> Arrays:
    """A stage: what every head does at the last position with some heads gone; mean over equal shapes."""

    def one(pair: Pair) -> Arrays:
        edits = edits_of_pair(pair, gone, experiment.values, kind, experiment.settings.ablate_at)
        return head_states(experiment.anatomy, pair.a, edits)

    return experiment.each(f"ladder, heads, {name}", one)


def _add_heads(
    experiment: PatchExperiment,
    about: Row,
    before: Arrays,
    after: Arrays,
    gone: Heads,
    baseline: Baseline,
    result: Ladder,
) -> None:
    """Rows on every head before and after, and the attention patterns of those that light up most."""
    from statsmodels.stats.multitest import multipletests

    lost = ~experiment.anatomy.exists()
    for head in gone:
        lost[head] = True
    rise = after["direct"] - before["direct"]  # (pair, layer, head)
    looks = (after["attention"] - before["attention"]).sum((-2, -1))
    rises = np.stack([rise, looks], 1)[:, :, ~lost]  # (pair, what, head that is left)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.nan_to_num(ttest_1samp(rises, 0.0, alternative="greater").pvalue, nan=1.0)
    if p.size:
        p = multipletests(p.ravel(), BACKUP_ALPHA, method="holm")[1].reshape(p.shape)
    least = np.array([BACKUP_LEAST * baseline.rule.mean(), ATTENDING_LEAST])
    sure = (p < BACKUP_ALPHA) & (rises.mean(0) >= least[:, None]) & baseline.taught
    corrected, lights = np.ones(lost.shape), np.zeros(lost.shape, bool)
    corrected[~lost], lights[~lost] = p.min(0), sure.any(0)
    numbers: Arrays = {}
    for when, states in (("before", before), ("after", after)):
        numbers |= {f"direct_{when}": states["direct"], f"norm_{when}": states["norm"]}
        numbers[f"attention_{when}"] = states["attention"].sum((-2, -1))
        numbers[f"to_answers_{when}"] = states["attention"][..., ROLES.index("answer")].sum(-1)
    means = {name: x.mean(0) for name, x in numbers.items()}
    three = {"direct_rise": t_interval(rise), "attention_rise": t_interval(looks)}
    for head in experiment.anatomy.heads:
        row: Row = {**about, "component": name_of(head), "layer": head[0], "head": head[1]}
        row |= {name: float(x[head]) for name, x in means.items()} | flat(
            {name: [x[head] for x in three_] for name, three_ in three.items()}
        )
        row |= {"p_holm": float(corrected[head]), "gone": bool(lost[head]), "lights": bool(lights[head])}
        result.ladder_heads.append(row)
    # Those that light up first, then those whose direct effect rises most.
    most = np.lexsort((-rise.mean(0).ravel(), ~lights.ravel(), lost.ravel()))[: min(LIT_DRAWN, int((~lost).sum()))]
    for index in most:
        head = np.unravel_index(index, lost.shape)
        for (shot, role), x in np.ndenumerate(after["attention"][:, *head].mean(0)):
            result.ladder_patterns.append(
                {
                    **about, "component": name_of((int(head[0]), int(head[1]))), "shot": shot, "role": ROLES[role],
                    "attention_before": float(before["attention"][:, *head, shot, role].mean()),
                    "attention_after": float(x),
                }
            )  # fmt: skip


def _features(experiment: PatchExperiment, baseline: Baseline) -> list[Row]:
    """Rows of the table of features: what a logit lens reads of the answer's class, with the rule and without."""
    forms = forms_of(experiment, experiment.pairs)
    rows: list[Row] = []
    without = experiment.without_rule(exchanged=baseline.exchanged)
    runs: dict[str, list[Episode]] = {"A": experiment.runs, "no rule": without}
    decoded = {}
    for name, episodes in runs.items():
        one = _decoded(experiment, forms, {run.seq: run for run in episodes})
        decoded[name] = experiment.each(f"features, {name}", one)
    decoded["difference"] = {name: x - decoded["no rule"][name] for name, x in decoded["A"].items()}
    for name, by_readout in decoded.items():
        for readout, x in by_readout.items():
            for layer, three in enumerate(zip(*t_interval(x))):
                about = {"task": experiment.task, "run": name, "readout": readout, "layer": layer}
                rows.append(about | flat({"log_odds": three}))
    return rows


def _decoded(
    experiment: PatchExperiment, forms: dict[int, Form], by_seq: dict[int, Episode]
) -> Callable[[Pair], dict[str, Any]]:
    """What the lens reads of each run."""

    def one(pair: Pair) -> dict[str, Any]:
        seq = pair.a.seq
        return lens_on_classes(experiment.anatomy, by_seq[seq], forms[seq], _fork(experiment, seq))

    return one


def _fork(experiment: PatchExperiment, seq: int) -> Fork | None:
    """Where the answer to A's query and its foil differ; None where no foil was read, or before the token read."""
    if "fork" not in experiment.curves:
        return None
    own = experiment.curves.sel(task=experiment.task, seq=seq, shot=experiment.settings.n_examples)
    fork, start = int(own.fork), int(own.answer_start)
    if fork < experiment.token:
        return None
    answer = own.tokens.values[start : start + fork + 1].astype(np.int64)
    return Fork(answer[experiment.token : fork], int(answer[fork]), int(own.foil_token))
