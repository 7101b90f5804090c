"""The ladder: whole layers ablated while A's answer holds, on a model whose mover and backup are known, and without."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from by_hand import forward
from handmade import (
    ANSWER,
    BACKUP,
    HEADS,
    MOVER,
    TASK_LAYERS,
    TRANSFER,
    TRANSFER_WITHOUT_MOVER,
    backup_model,
    mapping_task,
    noise_model,
)

from bayes_icl.collect import collect_curves
from bayes_icl.mechanism.head_names import name_of
from bayes_icl.mechanism.ladder import Fork, head_states, lens_on_classes
from bayes_icl.mechanism.steps import Form
from bayes_icl.mechanism.transfer import pairs_of
from bayes_icl.models import Model
from bayes_icl.patch import PatchResult, patch_curves
from bayes_icl.patch.ladder_figures import (
    features_figure,
    ladder_figure,
    ladder_transfer_figure,
    lit_figure,
    patterns_figure,
)
from bayes_icl.patch.ladder_sentences import ladder_sentences
from bayes_icl.patch.settings import PatchSettings
from bayes_icl.writing.numbers import Quotes, plain

SETTINGS = PatchSettings(n_examples=8, n_seqs=6, before=1, placebos=1, rounds=0, steps=False, ladder=True)


@pytest.fixture(scope="module")
def curves(tiny: Model) -> xr.Dataset:
    return collect_curves(backup_model(tiny), [mapping_task()], n_shots=8, n_seqs=8)


@pytest.fixture(scope="module")
def built(tiny: Model, curves: xr.Dataset) -> PatchResult:
    return patch_curves(backup_model(tiny), curves, ["mapping"], SETTINGS)


def test_the_ladder_climbs_from_the_mover_to_its_backup_and_ends(built: PatchResult) -> None:
    """By each kind of ablation: the mover's layer, then the backup's; then nothing of the rule is left."""
    ladder = built.tables["ladder"]
    own = ladder[ladder.set == "ablated"].set_index(["kind", "step"])
    for kind in ("zero", "mean", "resample"):
        assert own.transfer_layer[kind, 0] == TRANSFER and own.transfer_layer[kind, 1] == TRANSFER_WITHOUT_MOVER
        assert own.answer_layer[kind, 1] == ANSWER and np.isnan(own.transfer_layer[kind, 2])
        assert own.layers_text[kind, 1] == f"layer {MOVER[0]}" and own.n_heads[kind, 2] == 2 * HEADS
        assert own.a_first[kind, 1] == 1 and own.left[kind, 1] > 0.9 > 0.3 > own.left[kind, 2]
        assert own.copied_first[kind, 1] == 1
        ended = built.facts["mapping"]["ladder_ended"][kind]
        assert "does not hold" in ended or "nothing is left to carry" in ended
    placebos = ladder[ladder.set == "placebo 1"]
    assert set(placebos.kind) == {"zero", "mean", "resample"} and set(placebos.step) == {1, 2}


def test_the_backup_lights_up_and_no_other_head(built: PatchResult) -> None:
    heads = built.tables["ladder_heads"]
    first = heads[(heads.step == 1) & (heads.kind == "zero")].set_index("component")
    assert first.index[first.lights].tolist() == [name_of(BACKUP)]
    row = first.loc[name_of(BACKUP)]
    assert (
        row.attention_after > row.attention_before + 0.4
        and row.direct_rise_low < row.direct_rise < row.direct_rise_high
    )
    assert first.index[first.gone].tolist() == [name_of((MOVER[0], head)) for head in range(HEADS)]
    patterns = built.tables["ladder_patterns"]
    shown = patterns[(patterns.step == 1) & (patterns.kind == "zero")]
    assert shown.component.iloc[0] == name_of(BACKUP) and set(shown.shot) == set(range(8))
    by_head = shown.groupby("component").attention_after.sum()
    assert by_head[name_of(BACKUP)] == pytest.approx(row.attention_after, abs=1e-5)


def test_features_are_those_of_the_rule_once_the_answer_is_written(built: PatchResult) -> None:
    """Before the last layer's answer none beyond a run without the rule; the end is the model's own log-odds."""
    features = built.tables["features"].set_index(["run", "readout", "layer"])
    whole = built.tables["ladder"].set_index(["kind", "step", "set"]).a_own["zero", 0, "ablated"]
    assert features.log_odds["A", "complement", TASK_LAYERS] == pytest.approx(whole, abs=1e-4)
    for layer in range(TASK_LAYERS + 1):
        sure = features.log_odds_low["difference", "rule", layer] > 1
        assert sure == (layer >= ANSWER)


def test_a_model_that_learns_nothing_climbs_nothing(tiny: Model) -> None:
    curves = collect_curves(noise_model(tiny), [mapping_task()], n_shots=8, n_seqs=8)
    found = patch_curves(noise_model(tiny), curves, ["mapping"], SETTINGS)
    ladder = found.tables["ladder"]
    assert set(ladder.step) == {0} and ladder.transfer_layer.isna().all() and found.tables["ladder_heads"].empty
    assert set(found.facts["mapping"]["ladder_ended"].values()) == {"the examples teach no rule"}
    assert not found.facts["mapping"]["learning"]["learnt"]
    features = found.tables["features"]
    assert (features[(features.run == "difference") & (features.readout == "rule")].log_odds.abs() < 1).all()


def test_sentences_and_figures_say_what_the_tables_do(built: PatchResult) -> None:
    facts, tables = built.facts["mapping"], built.tables
    lines = [plain(line) for line in ladder_sentences(facts, tables, Quotes())]
    assert f"at layer {TRANSFER}" in lines[0] and f"at {TRANSFER_WITHOUT_MOVER}" in lines[0]
    assert any(name_of(BACKUP) in line for line in lines) and "logit lens" in lines[-1]
    assert ladder_sentences({}, tables, Quotes()) == []
    for figure in (
        ladder_figure(tables["ladder"], "mapping"),
        ladder_transfer_figure(tables["ladder_transfer"], "mapping"),
        lit_figure(tables["ladder_heads"], "mapping", "zero"),
        patterns_figure(tables["ladder_patterns"], "mapping", "zero"),
        features_figure(tables["features"]),
    ):
        assert figure.axes


def test_the_lens_is_norm_and_unembedding_of_each_layer(tiny: Model, curves: xr.Dataset) -> None:
    """The last layer is the run itself, and a fork is read after the tokens that answer and foil share."""
    model = backup_model(tiny)
    run = pairs_of(model, curves, "mapping", n_examples=8)[0].a
    correct = int(run.target.correct[0])
    (other,) = {t for t in tiny.tokenizer.encode("xy") if t != correct and tiny.token_texts[t] in ("x", "y")}
    form = Form(frozenset([correct, other]))
    found = lens_on_classes(model.anatomy, run, form, Fork(np.array([], np.int64), correct, other))
    logits = forward(model, run.prompt.tokens)[-1]
    assert found["foil"][-1] == pytest.approx(float(logits[correct] - logits[other]), abs=1e-4)
    np.testing.assert_allclose(found["foil"], found["rule"], atol=1e-4)  # of two labels they are the same
    assert all(len(x) == TASK_LAYERS + 1 for x in found.values())
    states = head_states(model.anatomy, run, {})
    assert states["attention"].shape[:3] == (TASK_LAYERS, HEADS, 8) and (states["norm"] >= 0).all()
