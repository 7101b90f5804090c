"""The verdict on networks whose law is known: the committed organisms, read and judged."""

from __future__ import annotations

import pytest

from bayes_icl.collect import collect_curves
from bayes_icl.curves import select
from bayes_icl.fit.verdict import judge
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.scores import score_curves
from bayes_icl.models import load_model
from bayes_icl.tasks import load_tasks

LAWS = ("constant", "additive", "logarithmic", "saturating", "pooling", "freeform")


@pytest.mark.parametrize(
    ("name", "verdict", "law"),
    [
        ("coin", "supported", "additive"),
        ("rule", "supported", "additive"),
        ("redundant", "supported", "additive"),
        ("count", "rejected", "logarithmic"),
        ("leaky", "rejected", "saturating"),
        ("pooled", "rejected", "pooling"),
        ("constant", "no_update", "constant"),
    ],
)
def test_the_verdict_on_an_organism_is_its_law(name: str, verdict: str, law: str) -> None:
    dataset = collect_curves(
        load_model(f"organism:{name}", "cpu"),
        load_tasks([f"organism_{name}"]),
        n_shots=32,
        n_seqs=12,
        readouts=["rule"],
    )
    curves = select(dataset, f"organism_{name}", "rule").since(1)
    found = judge(curves, [score_curves(HYPOTHESES[one], curves, future=False, checks=False)[0] for one in LAWS])
    assert found.verdict == verdict
    assert law in found.survivors
    if verdict == "supported":
        assert found.selected == "additive"
        assert abs(found.delta["mean"] - 0.25) < 0.01  # nats per example, as trained
    if verdict == "rejected":
        assert found.selected not in ("additive", "constant")
