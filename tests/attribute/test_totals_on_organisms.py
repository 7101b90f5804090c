"""Total effects on networks that were trained on a known law: what heads carry there is known."""

from __future__ import annotations

from typing import Any

import pytest

from bayes_icl.attribute import attribute_curves
from bayes_icl.attribute.attribution import Attribution
from bayes_icl.collect import collect_curves
from bayes_icl.models import load_model
from bayes_icl.tasks import load_tasks


def attributed(organism: str) -> tuple[Attribution, dict[str, Any]]:
    """An organism's own task, its two labels against one another."""
    model, task = load_model(f"organism:{organism}", "cpu"), f"organism_{organism}"
    curves = collect_curves(model, load_tasks([task]), n_shots=12, n_seqs=8, readouts=("foil", "complement"))
    found = attribute_curves(model, curves, readout="foil", placebos=0, by_source=False, workers=1)
    return found, found.facts[task]


def test_heads_of_coin_carry_an_update_that_mlps_write_in_part() -> None:
    """Its law is additive, 0.25 nats an example; all that it knows of examples comes through heads."""
    _, facts = attributed("coin")
    total = facts["total"]
    assert facts["delta"]["mean"] == pytest.approx(0.25, abs=0.02)
    assert facts["share_mlp"] > 0.2 and facts["share_head"] < 0.8
    assert total["share_head"]["low"] > 0.9 and total["share_head"]["high"] < 1.1
    # Sharing with MLPs, heads have less than in total and more than what they write themselves.
    assert facts["share_head"] < total["joint_share_head"]["mean"] < total["share_head"]["mean"]
    assert total["error"]["beyond"] == total["joint_error"]["beyond"] == 0


def test_in_pooled_total_is_direct() -> None:
    """It has attention alone, one layer: heads carry what they write, but for the final norm."""
    found, facts = attributed("pooled")
    total = facts["total"]
    assert facts["share_head"] == pytest.approx(1, abs=0.05)
    assert total["share_head"]["mean"] == pytest.approx(facts["share_head"], abs=0.03)
    assert total["joint_share_mlp"]["mean"] == pytest.approx(0, abs=1e-6)
    heads = found.heads[found.heads.kind == "head"]
    # The final norm's scale and the reference move shares between heads, not into or out of them.
    assert (heads.total_share - heads.share).abs().max() < 0.15
