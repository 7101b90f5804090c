"""Total effects on networks that were trained on a known law: what heads carry there is known."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from bayes_icl.attribute.effects import joined, measure_effects
from bayes_icl.attribute.slopes import slope_table
from bayes_icl.attribute.totals import measure_totals
from bayes_icl.attribute.update import update_of
from bayes_icl.collect import collect_curves
from bayes_icl.models import load_model
from bayes_icl.tasks import load_tasks


def attributed(organism: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """An organism's own task, its two labels against one another: rows of its components, and the facts."""
    model, task = load_model(f"organism:{organism}", "cpu"), f"organism_{organism}"
    curves = collect_curves(model, load_tasks([task]), n_shots=12, n_seqs=8, readouts=("foil",))
    measured = measure_effects(
        model, curves, [task], readout="foil", token=None, by_source=False, with_means=False,
        batch_size=0, parts=None, progress=False,
    )  # fmt: skip
    effects = joined(measured, 1).sel(task=task)
    update = update_of(effects, 1)
    totals = measure_totals(
        model, effects, update, measured[task], steps=8, by_source=False, batch_size=4, seed=0, parts=None,
        progress=False,
    )  # fmt: skip
    table, _ = slope_table(effects, task, 1)
    return pd.concat([table, totals.columns], axis=1), {**update.facts, "total": totals.facts}


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
    table, facts = attributed("pooled")
    total = facts["total"]
    assert facts["share_head"] == pytest.approx(1, abs=0.05)
    assert total["share_head"]["mean"] == pytest.approx(facts["share_head"], abs=0.03)
    assert total["joint_share_mlp"]["mean"] == pytest.approx(0, abs=1e-6)
    heads = table[table.kind == "head"]
    # The final norm's scale and the reference move shares between heads, not into or out of them.
    assert (heads.total_share - heads.share).abs().max() < 0.15
