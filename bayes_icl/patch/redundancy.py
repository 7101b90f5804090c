"""Second stage: how many heads can go before half of the rule gain has gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.mechanism.halves import measured_on
from bayes_icl.mechanism.redundancy import ablate_sets, counts_ablated, half_gone, orders
from bayes_icl.mechanism.transfer import Pair
from bayes_icl.patch.experiment import PatchExperiment
from bayes_icl.patch.rounds import Baseline


@dataclass(frozen=True)
class Redundancy:
    """How many heads can go.

    Attributes
    ----------
    redundancy, halves
        Rows of the tables of these names: log-odds after so many heads in some order; at how many half is gone.
    """

    redundancy: list[dict[str, Any]]
    halves: list[dict[str, Any]]


def measure_redundancy(experiment: PatchExperiment, baseline: Baseline) -> Redundancy:
    """Ablate more and more heads: the most costly first, and in random orders."""
    settings, n_heads = experiment.settings, experiment.n_heads_all
    counts = counts_ablated(n_heads)
    in_turn = orders(baseline.alone.lost, settings.placebos, settings.seed)
    sets = [order[:n] for order in in_turn.values() for n in counts]

    def ablated(pair: Pair) -> dict[str, np.ndarray]:
        z = experiment.values.of(pair.a.seq, settings.kind)[0]
        return {"left": ablate_sets(experiment.anatomy, pair.a, z, sets).reshape(len(in_turn), len(counts))}

    curves = experiment.each("heads gone", ablated, experiment.measuring)["left"]  # (pair, order, count)
    full, without = measured_on(baseline.clean["a"]), measured_on(baseline.no_rule["a"])
    rows = []
    for i, name in enumerate(in_turn):
        for count, x in zip([0, *counts], [full, *curves[:, i].T]):
            about = {"task": experiment.task, "order": name, "n_heads": count, "share": count / n_heads}
            rows.append(about | flat({"log_odds": t_interval(x)}))
    kinds = {"best first": curves[:, 0]}
    if settings.placebos:
        kinds["random"] = curves[:, 1:].mean(1)
    halves = []
    for name, x in kinds.items():
        gone = half_gone(x, counts, without, full, seed=settings.seed) if baseline.taught else (np.nan,) * 3
        row = flat({"share": [k / n_heads for k in gone]})
        left = float(x[:, -1].mean())
        halves.append(
            {"task": experiment.task, "order": name, **row, "n_heads_all": n_heads, "left_without_heads": left}
        )
    return Redundancy(rows, halves)
