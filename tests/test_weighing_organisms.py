"""The second verdict on networks whose law is known: the committed organisms, shown examples that disagree."""

from __future__ import annotations

import pytest

from bayes_icl.collect import collect_curves
from bayes_icl.curves import Curves, select
from bayes_icl.fit.weighing import weigh
from bayes_icl.hypotheses import HISTORY_LAWS
from bayes_icl.inference.history_scores import score_history
from bayes_icl.models import load_model
from bayes_icl.tasks import load_tasks, under_designs


def read(name: str, n_seqs: int) -> Curves:
    """Half of 16 examples of each rule, in any order."""
    tasks = under_designs(load_tasks([f"organism_{name}"]), ["mixed"], 16)
    dataset = collect_curves(load_model(f"organism:{name}", "cpu"), tasks, n_shots=16, n_seqs=n_seqs, readouts=["foil"])
    return select(dataset, str(dataset.task.values[0]), "foil").since(1)


def test_a_coin_is_weighed_as_by_its_observer() -> None:
    curves = read("coin", 16)
    scores = [score_history(HISTORY_LAWS[law], curves)[0] for law in ("trend", "observer", "leaky", "per_lag")]
    found = weigh(curves, scores)
    assert found.verdict == "bayesian", found.reasons
    assert found.weight is not None and found.weight["low"] > 0.97 and found.weight["high"] < 1.03


@pytest.mark.parametrize(("name", "law", "parameter", "truth"), [
    ("leaky", "leaky", "leak", 0.8),
    ("switch", "hazard", "rate", 0.1),
])  # fmt: skip
def test_what_an_organism_was_trained_with_is_recovered(name: str, law: str, parameter: str, truth: float) -> None:
    score, _ = score_history(HISTORY_LAWS[law], read(name, 16), future=False)
    assert score.intervals[parameter].mean == pytest.approx(truth, abs=0.02)
