"""Third stage: the experiments on the three steps, on attention, on heads and on MLPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.curves import readouts_of
from bayes_icl.mechanism.ablation_values import AblationValues
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.halves import chosen_on, measured_on
from bayes_icl.mechanism.head_names import Heads, name_of
from bayes_icl.mechanism.placebos import placebo_sets
from bayes_icl.mechanism.redundancy import ablate_sets
from bayes_icl.mechanism.steps import (
    KNOCKOUTS,
    OTHER_QUERY,
    Form,
    ablate_mlps,
    after_queries,
    attending,
    attention_by_role,
    form_of,
    induction_scores,
    knocked_out,
)
from bayes_icl.mechanism.transfer import Pair, permuted
from bayes_icl.patch.experiment import Arrays, PatchExperiment, last_of
from bayes_icl.patch.rounds import Baseline, Row
from bayes_icl.patch.steps import STEPS, experiment_row, judge

SETS_OF_FEW = 20  # placebo sets for the heads of steps 1 and 3

MOST_IN_STEP = 8  # heads that steps 1 and 3 ablate; at most a quarter, so that there are placebo sets

CONTROLS = {"bring_any": ["bring_any_other"], "read_answers": ["read_before", "read_queries"]}
"""What each knockout of attention that decides is compared with."""


class HeadStep(NamedTuple):
    """A step that heads take, and where they are ablated."""

    number: int
    place: str
    words: str
    positions: Callable[[Episode], np.ndarray]


HEAD_STEPS = (
    HeadStep(1, "after_queries", "separators and answers", after_queries),
    HeadStep(3, "last", "last position", last_of),
)


@dataclass(frozen=True)
class Steps:
    """The experiments on the three steps.

    Attributes
    ----------
    steps, mlps
        Rows of the tables of these names.
    roles
        Attention of every head by role, shape (pair, layer, head), and its induction scores, shape (1, layer, head).
    heads
        By step: the heads that attend as it says.
    mlp_layers
        First and last of the layers between them.
    verdicts
        By step.
    """

    steps: list[Row]
    mlps: list[Row]
    roles: Arrays
    heads: Mapping[int, Heads]
    mlp_layers: tuple[int, int]
    verdicts: dict[int, str]

    def facts(self) -> dict[str, Any]:
        """What was told of the steps."""
        heads = {f"heads_of_step_{step}": [name_of(head) for head in heads] for step, heads in self.heads.items()}
        verdicts = {str(step): verdict for step, verdict in self.verdicts.items()}
        return {**heads, "mlp_layers": list(self.mlp_layers), "steps": verdicts}


class _AblatedTo(NamedTuple):
    """What heads are ablated to, by which kind, and the norms that this removes, by ``"kind place"``."""

    values: AblationValues
    kind: str
    norms: Arrays


def run_steps(experiment: PatchExperiment, baseline: Baseline, transfer_layer: int | None) -> Steps:
    """Knock out attention, ablate the heads that attend so, ablate the MLPs between them; judge each step.

    Parameters
    ----------
    experiment
        The pairs of one task.
    baseline
        What runs without ablation give.
    transfer_layer
        Where the task is recovered, at which MLPs are read in transfer as well; None where it is not.
    """
    roles = experiment.each("attention by role", lambda pair: attention_by_role(experiment.anatomy, pair.a))
    rows = _knockouts(experiment, baseline)
    # Where answers are permuted, queries are not: a head that brings an answer its query hands on the same.
    n_examples, seed = experiment.settings.n_examples, experiment.settings.seed
    twins = [permuted(run, n_examples, seed, queries=True) for run in experiment.runs]
    values = AblationValues(experiment.anatomy, experiment.runs, twins)
    norms = experiment.norms("norms, other queries", values, ("resample",), {"after_queries": after_queries})
    other_queries = _AblatedTo(values, "resample", norms)
    most = min(MOST_IN_STEP, max(experiment.n_heads_all // 4, 1))
    # Early heads may look at answers too: of those of step 3, it is the ones that cost most at the last position.
    cost = chosen_on(baseline.alone.lost).mean(0)
    readers = attending(roles, "to_answers", experiment.n_heads_all)
    heads: dict[int, Heads] = {1: attending(roles, "bring", most)}
    heads[3] = sorted(readers, key=lambda head: -cost[head])[:most]
    for step in HEAD_STEPS:
        rows += _heads_ablated(experiment, baseline, step, heads[step.number], other_queries)
    forms = forms_of(experiment, experiment.measuring)
    mlps = _mlps_by_layer(experiment, forms, transfer_layer)
    layers = _layers_between(heads, experiment.anatomy.n_layers)
    rows += _mlps_together(experiment, baseline, forms, layers, other_queries)
    if not baseline.taught:
        # Where there is no rule gain, shares of it mean nothing.
        ends = [f"{name}{end}" for name in ("share", "beyond") for end in ("", "_low", "_high")]
        rows = [row | dict.fromkeys(ends, np.nan) for row in rows]
    verdicts = judge(pd.DataFrame(rows)) if baseline.taught else dict.fromkeys(STEPS, "nothing to explain")
    rows = [{"task": experiment.task, "verdict": verdicts[row["step"]], **row} for row in rows]
    scores = experiment.stage("induction", lambda _: induction_scores(experiment.anatomy, seed), 1)
    roles = roles | {name: x[None] for name, x in scores.items()}
    return Steps(rows, mlps, roles, heads, (layers[0], layers[-1]), verdicts)


def _knockouts(experiment: PatchExperiment, baseline: Baseline) -> list[Row]:
    """What keeping attention from some tokens costs."""
    log_odds = experiment.each("attention knockout", lambda pair: knocked_out(experiment.anatomy, pair.a))
    lost = {name: log_odds["clean"] - log_odds[name] for name in KNOCKOUTS}
    return [
        experiment_row(
            lost[name], baseline.rule, [lost[other] for other in CONTROLS.get(name, ())], **about._asdict(),
            kind="attention knockout",
        )
        for name, about in KNOCKOUTS.items()
    ]  # fmt: skip


def _heads_ablated(
    experiment: PatchExperiment, baseline: Baseline, step: HeadStep, heads: Heads, other_queries: _AblatedTo
) -> list[Row]:
    """What ablating the heads of a step costs, beside placebo sets; none where no head attends so."""
    if not heads:
        return []
    ablated_to = {
        kind: _AblatedTo(experiment.values, kind, baseline.norms) for kind in (experiment.kind, experiment.other_kind)
    }
    if step.number == 1:
        mean = "mean" if experiment.kind == "resample" else experiment.kind
        ablated_to = {mean: ablated_to[mean], OTHER_QUERY: other_queries}
    rows = []
    for words, (values, kind, norms) in ablated_to.items():
        size = norms[f"{kind} {step.place}"]
        placebos = []
        if experiment.has_placebos(heads):
            placebos = placebo_sets(size, heads, SETS_OF_FEW, experiment.settings.seed)
        one = _without(experiment, values, kind, [heads, *placebos], step)
        left = experiment.each(f"heads of step {step.number}, {words}", one, experiment.measuring)["left"]
        gone = measured_on(baseline.clean["a"])[:, None] - left
        rows.append(
            experiment_row(
                gone[:, 0], measured_on(baseline.rule), list(gone[:, 1:].T),
                step=step.number, what=f"{len(heads)} heads that attend so, at the {step.words}", decides="heads",
                kind=words, heads=" ".join(map(name_of, heads)),
            )
        )  # fmt: skip
    return rows


def _without(
    experiment: PatchExperiment, values: AblationValues, kind: str, sets: list[Heads], step: HeadStep
) -> Callable[[Pair], Arrays]:
    """Log-odds of A without each set of heads, where a step has them."""

    def left(pair: Pair) -> Arrays:
        z = values.of(pair.a.seq, kind)[0]
        return {"left": ablate_sets(experiment.anatomy, pair.a, z, sets, step.positions(pair.a))}

    return left


def forms_of(experiment: PatchExperiment, pairs: Sequence[Pair]) -> dict[int, Form]:
    """What `format`, `rule` and `parity` mean for the token read, by sequence."""
    curves, task, token = experiment.curves, experiment.task, experiment.token
    answers, tokens = curves.answer.sel(task=task), curves.tokens.sel(task=task)
    starts, stops = curves.answer_start.sel(task=task), curves.answer_stop.sel(task=task)
    known = readouts_of(curves, task)
    labelled = "format" in known and not all(str(text).isdigit() for text in answers.values.ravel())
    labels: frozenset[int] = frozenset()
    if labelled:
        at = (starts + token).values.astype(int)
        labels = frozenset(np.take_along_axis(tokens.values, at, axis=1).ravel().astype(int).tolist())
    forms = {}
    for pair in pairs:
        seq, shot = pair.a.seq, experiment.settings.n_examples
        start, stop = int(starts.sel(seq=seq)[shot]) + token, int(stops.sel(seq=seq)[shot])
        whole = tokens.sel(seq=seq).values[start:stop].astype(np.int64)
        forms[seq] = form_of(pair.a, whole, experiment.model.token_texts, labels, "parity" in known)
    return forms


def _mlps_by_layer(experiment: PatchExperiment, forms: Mapping[int, Form], transfer_layer: int | None) -> list[Row]:
    """Rows of the table of MLPs: what ablating one layer's costs, by place and readout."""
    kind = experiment.kind
    patched = transfer_layer if experiment.settings.position == "last" else None

    def each(pair: Pair) -> dict[str, np.ndarray]:
        mlps = experiment.values.of(pair.a.seq, kind)[1]
        lost = ablate_mlps(experiment.anatomy, pair, mlps, forms[pair.a.seq], patched)
        return {" ".join(name): x for name, x in lost.items()}

    rows = []
    for name, x in experiment.each("MLPs", each, experiment.measuring).items():
        place, readout = name.split(" ")
        for layer, three in enumerate(zip(*t_interval(x))):
            about = {"task": experiment.task, "layer": layer, "place": place, "readout": readout}
            rows.append({**about, "kind": kind, **flat({"lost": three})})
    return rows


def _layers_between(heads: Mapping[int, Heads], n_layers: int) -> list[int]:
    """From the first layer with a head of step 1 to the last before those of step 3; all, if that leaves none."""
    first = min((layer for layer, _ in heads[1]), default=0)
    last = max((layer for layer, _ in heads[3]), default=n_layers)
    return list(range(first, last)) or list(range(n_layers))


def _mlps_together(
    experiment: PatchExperiment,
    baseline: Baseline,
    forms: Mapping[int, Form],
    layers: list[int],
    other_queries: _AblatedTo,
) -> list[Row]:
    """What ablating the MLPs of some layers together costs, at the answers of examples and at their other tokens."""
    # With the answers permuted the answer itself is another; with the queries permuted only what it belongs to.
    ablated_to = {
        experiment.kind: (experiment.values, experiment.kind),
        OTHER_QUERY: (other_queries.values, other_queries.kind),
    }
    rows = []
    for words, (values, kind) in ablated_to.items():
        one = _places_together(experiment, forms, layers, values, kind)
        lost = experiment.each(f"MLPs together, {words}", one, experiment.measuring)
        gone, control = (lost[f"{place} complement"][:, 0] for place in ("answers", "others"))
        what = f"MLPs {layers[0]} to {layers[-1]} at "
        controls: list[Float[np.ndarray, " pair"]]
        for name, x, controls in (("the answers", gone, [control]), ("other tokens", control, [])):
            row = experiment_row(
                x, measured_on(baseline.rule), controls,
                step=2, what=f"{what}{name} of examples", decides="path" if controls else "",
                kind=words if controls else kind,
            )  # fmt: skip
            rows.append(row)
    return rows


def _places_together(
    experiment: PatchExperiment, forms: Mapping[int, Form], layers: list[int], values: AblationValues, kind: str
) -> Callable[[Pair], dict[str, np.ndarray]]:
    """What ablating MLPs together costs by place and readout; other tokens have the values of the experiment."""

    def lost(pair: Pair) -> dict[str, np.ndarray]:
        by_name: dict[str, np.ndarray] = {}
        for place, instead in (("answers", values), ("others", experiment.values)):
            one = ablate_mlps(
                experiment.anatomy, pair, instead.of(pair.a.seq, kind)[1], forms[pair.a.seq], None,
                layers=layers, places=(place,), together=True,
            )  # fmt: skip
            by_name |= {" ".join(name): x for name, x in one.items()}
        return by_name

    return lost
