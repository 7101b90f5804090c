"""The command: models whose mechanism is known, files against one another, runs that were killed, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from handmade import (
    ANSWER,
    ANSWERED,
    BACKUP,
    BRING,
    FETCH,
    FORMED,
    FULL_ANSWER,
    HEADS,
    MOVER,
    PRESENCE,
    TASK_LAYERS,
    TRANSFER,
    TRANSFER_WITHOUT_MOVER,
    backup_model,
    class_task,
    mapping_task,
    noise_model,
    random_model,
)

from bayes_icl.collect import CollectSettings, collect_curves
from bayes_icl.collect import main as collect_main
from bayes_icl.core.errors import StatedError, exit_stating
from bayes_icl.curves import read_curves, write_netcdf
from bayes_icl.mechanism.head_names import name_of
from bayes_icl.mechanism.steps import OTHER_QUERY
from bayes_icl.models import Model
from bayes_icl.patch import PatchResult, experiment, main, patch_curves, redundancy, step_experiments
from bayes_icl.patch.outputs import DESCRIBED, TABLES
from bayes_icl.patch.settings import PatchSettings
from bayes_icl.tasks import load_tasks

KINDS = ["zero", "mean", "resample"]
BUILT: dict[str, Any] = dict(n_examples=8, n_seqs=12, before=1, placebos=2)

# ------------------------------------------------------------------------------------------------- known models


@pytest.fixture(scope="module")
def built_curves(tiny: Model) -> xr.Dataset:
    tasks = [mapping_task(), mapping_task("flipped", flipped=True)]
    return collect_curves(backup_model(tiny), tasks, n_shots=8, n_seqs=16)


@pytest.fixture(scope="module")
def built(tiny: Model, built_curves: xr.Dataset) -> PatchResult:
    """All experiments on the model that moves a task, and has one backup head."""
    return patch_curves(backup_model(tiny), built_curves, ["mapping"], PatchSettings(**BUILT))


def ablated(found: PatchResult, task: str = "mapping") -> pd.DataFrame:
    """The table of rounds, by round and kind, placebos left out."""
    own = found.tables["rounds"]
    return own[(own.task == task) & (own.set == "ablated")].set_index(["round", "kind"])


def test_the_built_transfer_layers_are_found(built: PatchResult) -> None:
    """And the answer layer; with the heads just before gone it is the backup's, and without that one there is none."""
    table = ablated(built)
    for kind in KINDS:
        for number, point in ((0, TRANSFER), (1, TRANSFER_WITHOUT_MOVER)):
            row = table.loc[(number, kind)]
            assert row.transfer_layer == row.transfer_layer_low == row.transfer_layer_high == point
            assert row.rule_layer == row.transfer_layer_kept == point and row.answer_layer == ANSWER
            assert row["shift"] == row.shift_low == row.shift_high == point - TRANSFER
            assert row.transfer_layer_reached == 1 and row.b_own == pytest.approx(0, abs=0.3)
        row = table.loc[(2, kind)]
        for name in ("transfer_layer", "answer_layer", "rule_layer", "shift"):
            assert np.isnan(row[name])
        assert not row.transfer_layer_reached > 0 and not row.rule_layer_reached > 0  # not asked without a rule
    for name in ("a_own", "peak"):
        assert table.loc[(0, "mean")][name] == pytest.approx(FULL_ANSWER, abs=0.6)
    assert table.peak_first[0, "mean"] == 1 and TRANSFER <= table.peak_layer[0, "mean"] < ANSWER
    assert table.loc[(2, "mean")].a_own == pytest.approx(0, abs=0.5)
    assert set(table.index.get_level_values("round")) == {0, 1, 2}
    facts_ = built.facts["mapping"]
    assert "nats of the rule left: too little to carry" in facts_["ended"] and facts_["taught"]
    assert facts_["transfer_layer"] == TRANSFER and facts_["n_pairs"] == 12
    assert facts_["rule_gain"]["mean"] == pytest.approx(table.rule_gain[0, "mean"])
    assert facts_["gain"]["mean"] == pytest.approx(FULL_ANSWER, abs=0.8)


def test_the_first_round_ablates_the_layers_just_before(built: PatchResult) -> None:
    layer = [(MOVER[0], head) for head in range(HEADS)]
    expected = {0: [], 1: layer, 2: [*layer, BACKUP]}
    for (number, _), row in ablated(built).iterrows():
        assert row["heads"].split() == [name_of(head) for head in expected[number]]
        assert row.n_heads == len(expected[number])
    words = ablated(built).layers_text
    assert words[1, "mean"] == f"layer {MOVER[0]}" and words[2, "mean"] == f"layer {MOVER[0]} and 1 head"
    assert built.facts["mapping"]["ablated"] == [name_of(head) for head in expected[2]]
    heads = built.tables["heads"].set_index("component")["round"]
    assert heads.dropna().to_dict() == {name_of(head): 1.0 for head in layer} | {name_of(BACKUP): 2.0}


def test_the_backup_is_found_and_no_other_head(built: PatchResult) -> None:
    """Its ablation costs nothing before and everything after; it attends to examples then, so it is active."""
    (row,) = built.tables["backups"].itertuples()
    assert (row.layer, row.head, row.component, row.round) == (*BACKUP, name_of(BACKUP), 1)
    assert row.backup and row.mode == "active" and row.n_seqs == 6 and row.p_holm < 1e-6
    assert row.beyond_low > 0.8 * FULL_ANSWER and row.growth_other_kind_low > 1
    assert abs(row.effect_before) < 0.3 and row.effect_after > 0.8 * FULL_ANSWER
    assert row.growth_low > 0.8 * FULL_ANSWER and row.growth_placebo < 0.3
    assert row.attention_rise_low > 0.4 and row.direct_rise_low < 0 < row.direct_rise_high


def test_placebo_sets_do_not_move_the_transfer(built: PatchResult) -> None:
    """Where the model gives its answer still: some sets have the head that fetches the query."""
    table = built.tables["rounds"]
    placebos = table[table.set.str.startswith("placebo")]
    assert len(placebos) == 8 and set(placebos.kind) == {"zero", "mean"}  # both are headlines
    for row in placebos.itertuples():
        heads = set(row.heads.split())
        assert len(heads) == row.n_heads and not heads & set(ablated(built).loc[(row.round, "mean")]["heads"].split())
        if not heads & {name_of(BRING), name_of(FETCH)}:
            assert row.transfer_layer == TRANSFER
    assert any(placebos.transfer_layer == TRANSFER)


def test_the_steps_of_the_built_model_are_its_own(built: PatchResult) -> None:
    """Attention to own queries and to earlier answers is needed, and its controls are not; evidence is formed there."""
    table = built.tables["steps"]
    shut = table[table.kind == "attention knockout"].set_index("what").share
    for what in (
        "separators and answers cannot attend to their own query",
        "directly: answers cannot attend to their own query",
        "query and all after it cannot attend to earlier answers",
        "directly: last position cannot attend to earlier answers",
    ):
        assert shut[what] > 0.6
    for what in (
        "separators and answers cannot attend to the query before",
        "indirectly: separators cannot attend to their own query",
        "query and all after it cannot attend to tokens before them",
        "query and all after it cannot attend to earlier queries",
        "indirectly: later examples cannot attend to earlier answers",
    ):
        assert abs(shut[what]) < 0.05
    # Of step 3 the way is needed, and its heads cannot be told: without the mover, its backup does as well.
    assert built.facts["mapping"]["steps"] == {"1": "supported", "2": "supported", "3": "not seen"}
    assert table.decides[table.kind == "attention knockout"].tolist() == [
        *("path", "", "", "", "path", "", "", "", "detour", ""),
    ]
    heads = table[table.decides == "heads"].set_index(["step", "kind"])
    # Answers permuted leave every query in place, and what is brought the same: queries are permuted for that.
    assert heads.index.tolist() == [(1, "mean"), (1, OTHER_QUERY), (3, "mean"), (3, "resample")]
    assert (heads.n_controls == 20).all() and (heads.loc[1].share > 0.6).all() and (heads.loc[1].n_as_much == 0).all()
    assert heads.share[3, "mean"] < 0.1
    assert name_of(BRING) == built.facts["mapping"]["heads_of_step_1"][0]
    assert name_of(MOVER) in built.facts["mapping"]["heads_of_step_3"]
    mlps = built.tables["mlps"].set_index(["readout", "place", "layer"]).lost
    for readout in ("complement", "rule"):
        needed = {("answers", FORMED), ("last", ANSWERED)}  # and whether the task is there, a little
        for place in ("answers", "others", "last"):
            for layer in range(TASK_LAYERS):
                own = mlps[readout, place, layer]
                if (place, layer) == ("last", PRESENCE):
                    assert abs(own) < 1
                else:
                    assert own > 0.6 * FULL_ANSWER if (place, layer) in needed else abs(own) < 0.3, (place, layer)
    assert mlps["transfer", "answers", FORMED] > 0.6 * FULL_ANSWER and abs(mlps["transfer", "last", ANSWERED]) < 0.1


def test_the_heads_of_the_built_model_are_told_apart(built: PatchResult) -> None:
    heads = built.tables["heads"].set_index("component")
    assert len(heads) == TASK_LAYERS * HEADS
    assert heads.bring.idxmax() == name_of(BRING) and heads.bring[name_of(BRING)] > 0.95
    for head in (BRING, FETCH):  # at the last position, the one that brings at answers does nothing
        assert (heads.lost[name_of(head)] > 0.8 * FULL_ANSWER) == (head == FETCH)
    others = heads.drop(index=[name_of(FETCH)])
    assert others.lost.abs().max() < 0.3
    # In one run without a rule the mover may say the opposite.
    assert others.lost_resample.idxmax() == name_of(MOVER)
    assert others.drop(index=[name_of(MOVER)]).lost_resample.abs().max() < 1
    assert heads.to_answers[name_of(MOVER)] == pytest.approx(2 / 3, abs=0.1)


def test_redundancy_counts_heads(built: PatchResult) -> None:
    """Fetching is needed most: one head of 32 takes all; at random, more."""
    table = built.tables["redundancy"]
    assert set(table.order) == {"best first", "random 1", "random 2"}
    for _, own in table.groupby("order"):
        assert own.n_heads.tolist() == [0, 1, 2, 4, 8, 16, 32]
        np.testing.assert_allclose(own.share, own.n_heads / 32)
        assert own.log_odds.iloc[0] == pytest.approx(FULL_ANSWER, abs=0.6) and abs(own.log_odds.iloc[-1]) < 1
    halves = built.tables["halves"].set_index("order")
    assert 0 < halves.share["best first"] < 1 / 32 and halves.share["best first"] < halves.share["random"]
    np.testing.assert_allclose(halves.left_without_heads, table.log_odds[table.n_heads == 32].mean(), atol=1e-6)
    assert (halves.share_low <= halves.share).all() and (halves.share <= halves.share_high).all()


def test_the_other_mapping_is_carried_as_well(tiny: Model, built_curves: xr.Dataset) -> None:
    settings = PatchSettings(**BUILT | dict(steps=False, placebos=1))
    found = patch_curves(backup_model(tiny), built_curves, ["flipped"], settings)
    table = ablated(found, "flipped")
    assert table.transfer_layer[0, "mean"] == TRANSFER and table.answer_layer[0, "mean"] == ANSWER
    assert table.transfer_layer[1, "mean"] == TRANSFER_WITHOUT_MOVER and np.isnan(table.transfer_layer[2, "mean"])
    assert found.tables["backups"].component.tolist() == [name_of(BACKUP)]


def test_without_a_backup_the_first_round_ends_it(tiny: Model, built_curves: xr.Dataset) -> None:
    """The control: the same model, that head being one of those that write noise."""
    settings = PatchSettings(**BUILT | dict(steps=False))
    found = patch_curves(backup_model(tiny, backup=False), curves_as(tiny, built_curves), ["mapping"], settings)
    table = ablated(found)
    assert table.transfer_layer[0, "mean"] == TRANSFER
    assert table.transfer_layer.loc[1].isna().all() and table.rule_layer.loc[1].isna().all()
    assert found.tables["backups"].empty and list(found.tables["backups"]) and table.index[-1][0] == 1
    assert "nats of the rule left: too little to carry" in found.facts["mapping"]["ended"]


def curves_as(tiny: Model, curves: xr.Dataset) -> xr.Dataset:
    """The same episodes read by the model without a backup."""
    n_seqs = curves.sizes["seq"]
    return collect_curves(backup_model(tiny, backup=False), [mapping_task()], n_shots=8, n_seqs=n_seqs)


@pytest.mark.parametrize("chosen", [(), ("0",)])
@pytest.mark.parametrize("which", ["noise", "random", "random numbers"])
def test_a_model_that_learns_nothing_has_no_layer_and_no_backup(tiny: Model, which: str, chosen: tuple) -> None:
    """And no round, whatever is to be ablated."""
    model = noise_model(tiny) if which == "noise" else random_model("llama", tiny)
    (task,) = {"noise": [mapping_task()], "random": [class_task()], "random numbers": load_tasks(["copy"])}[which]
    curves = collect_curves(model, [task], n_shots=4, n_seqs=12, readouts=["complement"])
    settings = PatchSettings(n_examples=4, placebos=1, steps=False, ablate=chosen)
    found = patch_curves(model, curves, (), settings)
    table = found.tables["rounds"]
    for name in ("transfer_layer", "answer_layer", "rule_layer"):
        assert table[name].isna().all() and table[f"{name}_reached"].isna().all()  # not asked
    assert found.tables["backups"].empty and found.tables["halves"].share.isna().all()
    assert found.facts[task.name]["ended"] == "the examples teach no rule" and not found.facts[task.name]["taught"]
    assert table["round"].max() == 0


def test_where_no_rule_is_taught_no_step_is_judged(tiny: Model) -> None:
    """Shares of nothing would be of any size."""
    curves = collect_curves(noise_model(tiny), [mapping_task()], n_shots=4, n_seqs=8)
    found = patch_curves(noise_model(tiny), curves, (), PatchSettings(n_examples=4, placebos=1))
    assert found.facts["mapping"]["steps"] == dict.fromkeys("123", "nothing to explain")
    table = found.tables["steps"]
    assert table.share.isna().all() and table.beyond_low.isna().all() and (table.decides != "").any()


# ------------------------------------------------------------------------------------------------- settings


def test_ablating_at_a_role_is_less(tiny: Model, built_curves: xr.Dataset) -> None:
    """The mover acts at the last position: at answers it can be ablated for nothing; named alone it is enough."""
    model = backup_model(tiny)
    few = PatchSettings(**BUILT | dict(n_seqs=6, steps=False, rounds=1, ablate=(name_of(MOVER),)))
    expected = {"last": TRANSFER_WITHOUT_MOVER, "separator": TRANSFER_WITHOUT_MOVER, "answer": TRANSFER}
    for where, point in expected.items():
        found = patch_curves(model, built_curves, ["mapping"], dataclasses.replace(few, ablate_at=where))
        assert ablated(found).transfer_layer[1, "mean"] == point, where
        assert found.facts["mapping"]["ended"] == "1 rounds were asked for" and found.tables["backups"].empty


def test_the_mean_of_the_task_holds_the_task(tiny: Model, built_curves: xr.Dataset) -> None:
    """Taken over other episodes of the task, the mover's mean is as good as the mover; over shuffled ones it is not."""
    few = PatchSettings(**BUILT | dict(n_seqs=8, steps=False, rounds=1, ablate=(name_of(MOVER), name_of(BACKUP))))
    found = {
        name: patch_curves(backup_model(tiny), built_curves, ["mapping"], dataclasses.replace(few, reference=name))
        for name in ("task", "shuffled")
    }
    assert ablated(found["task"]).a_own[1, "mean"] == pytest.approx(FULL_ANSWER, abs=0.6)
    assert ablated(found["shuffled"]).a_own[1, "mean"] < 1
    for one in found.values():
        assert ablated(one).a_own[1, "zero"] == pytest.approx(0, abs=0.3)


def test_at_the_answers_the_task_is_carried_until_it_is_read(tiny: Model, built_curves: xr.Dataset) -> None:
    """B has the same examples with their answers permuted."""
    settings = PatchSettings(**BUILT | dict(steps=False, rounds=0, position="answers"))
    found = patch_curves(backup_model(tiny), built_curves, ["mapping"], settings)
    row = ablated(found).loc[(0, "mean")]
    own = found.tables["transfer"]
    own = own[(own.kind == "mean") & (own.set == "ablated")].own.values
    assert row.transfer_layer == 0  # A's answers themselves, put in as they are embedded, make B's examples A's
    # Where the mover found nothing, the backup reads them last.
    assert (own[: BACKUP[0] + 1] > 0.9 * FULL_ANSWER).all() and row.transfer_until == BACKUP[0]
    np.testing.assert_allclose(own[BACKUP[0] + 1 :], row.b_own, atol=0.1)
    assert row.b_own < 0.5 * FULL_ANSWER


def test_positions_that_hold_no_task_carry_none(tiny: Model, built_curves: xr.Dataset) -> None:
    settings = PatchSettings(**BUILT | dict(steps=False, rounds=0, position="query", n_seqs=6))
    found = patch_curves(backup_model(tiny), built_curves, ["mapping"], settings)
    assert ablated(found).transfer_layer.isna().all()
    # The separator is the last position here.
    found = patch_curves(
        backup_model(tiny), built_curves, ["mapping"], dataclasses.replace(settings, position="separator")
    )
    assert ablated(found).transfer_layer[0, "mean"] == TRANSFER


# ------------------------------------------------------------------------------------------------- what is written

LITTLE: dict[str, Any] = dict(n_examples=4, ablate=("L0H1", "L1H4"), rounds=1, placebos=2)
TAUGHT: tuple[str, ...] = ()  # tasks whose rule the random model happens to follow
LAYERS = ("transfer_layer", "answer_layer", "transfer_layer_kept", "rule_layer")
COLUMNS = {
    "transfer": "task round kind set layer own own_low own_high other other_low other_high own_first other_first",
    "rounds": "task round kind set n_heads heads layers_text shift shift_low shift_high peak peak_low peak_high "
    "peak_layer peak_first a_own a_own_low a_own_high b_own b_own_low b_own_high gain rule_gain rule_gain_low "
    "rule_gain_high n_pairs "
    + " ".join(f"{name}{end}" for name in LAYERS for end in ("", "_low", "_high", "_reached")),
    "redundancy": "task order n_heads share log_odds log_odds_low log_odds_high",
    "halves": "task order share share_low share_high n_heads_all left_without_heads",
    "heads": "task component layer head bring to_answers to_before to_queries to_sink previous_token induction direct "
    "direct_low direct_high lost lost_low lost_high lost_resample lost_resample_low lost_resample_high taken taken_low "
    "other_heads other_heads_high mlps mlps_low norm norm_high round",
    "mlps": "task layer place readout kind lost lost_low lost_high",
    "steps": "task step verdict what kind share share_low share_high beyond beyond_low beyond_high decides n_controls "
    "n_as_much heads",
}
BACKUPS = (
    "task round component layer head effect_before effect_before_low effect_before_high effect_after growth growth_low "
    "growth_high growth_placebo beyond beyond_low growth_other_kind direct_rise direct_rise_low attention_rise "
    "attention_rise_high p_holm backup mode n_seqs"
)


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("patch") / "curves.nc"
    collect_main(CollectSettings(model="tiny", tasks=("category", "copy"), n_shots=4, n_seqs=8, out=path))
    return path


@pytest.fixture(scope="module")
def finished(curves: Path) -> Path:
    """The output of a whole run."""
    out = curves.parent / "whole" / "p.nc"
    assert main(PatchSettings(curves=curves, out=out, figures=out.parent / "figures", **LITTLE)) == 0
    return out


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(out.with_name(f"{out.stem}.{name}.csv")) for name in TABLES}


def facts(out: Path) -> dict[str, Any]:
    return json.loads(out.with_name(f"{out.stem}.json").read_text())


def assert_same(out: Path, other: Path) -> None:
    """Every number, bit for bit."""
    for name in TABLES:
        one, two = (path.with_name(f"{path.stem}.{name}.csv").read_bytes() for path in (out, other))
        assert one == two, name
    assert facts(out) == facts(other)
    with xr.open_dataset(out, engine="h5netcdf") as one, xr.open_dataset(other, engine="h5netcdf") as two:
        xr.testing.assert_equal(one.load(), two.load())


def test_tables_have_their_columns(finished: Path, built: PatchResult) -> None:
    found = tables(finished)
    for name, columns in COLUMNS.items():
        assert set(columns.split()) <= set(found[name]), name
        assert set(found[name].task) == {"category", "copy"}
        assert set(columns.split()) <= set(built.tables[name])
    assert set(BACKUPS.split()) <= set(built.tables["backups"])
    assert found["backups"].empty and {"task", "round", "component"} <= set(found["backups"])
    for name, table in found.items():
        for mean in [column for column in table if f"{column}_low" in table and len(table)]:
            low, high = table[f"{mean}_low"], table[f"{mean}_high"]
            there = low.notna() & table[mean].notna()
            assert (low[there] <= table[mean][there] + 1e-9).all() and (table[mean] <= high + 1e-9)[there].all(), name
    assert set(found["mlps"].readout) == {"complement", "format", "rule", "parity"}  # nothing is recovered
    assert set(built.tables["mlps"].readout) == {"complement", "format", "rule", "transfer"}
    assert set(found["steps"].step) == {1, 2, 3}
    assert set(found["steps"].verdict) <= {"supported", "rejected", "not seen", "nothing to explain"}


def test_tables_say_the_same(finished: Path) -> None:
    """Between them, and with the effects file and the facts."""
    found, own = tables(finished), facts(finished)
    with xr.open_dataset(finished, engine="h5netcdf") as effects:
        effects.load()
    heads, rows = found["heads"], found["rounds"]
    np.testing.assert_allclose(heads.lost, heads.taken - heads.other_heads - heads.mlps - heads.norm, atol=1e-6)
    for task, fact in own.items():
        effect = effects.sel(task=task)
        own_heads = heads[heads.task == task]
        assert len(own_heads) == 12 and fact["n_pairs"] == 8 and fact["n_examples"] == 4
        np.testing.assert_allclose(own_heads.lost, effect.lost_alone[0].mean("seq").values.ravel())
        np.testing.assert_allclose(own_heads.lost_resample, effect.lost_alone[1].mean("seq").values.ravel())
        np.testing.assert_allclose(own_heads.direct, effect.effect[:, 0].mean("seq").values.ravel(), atol=1e-5)
        first = rows[(rows.task == task) & (rows["round"] == 0)]
        assert first.kind.tolist() == KINDS and first.n_heads.tolist() == [0] * 3
        assert first.drop(columns="kind").drop_duplicates().shape[0] == 1
        gain = fact["gain"]["mean"]
        assert first.a_own.iloc[0] - first.b_own.iloc[0] == pytest.approx(gain) == first.gain.iloc[0]
        assert fact["rule_gain"]["mean"] == pytest.approx(first.rule_gain.iloc[0])
        no_rule = float(effect.log_odds_a.sel(run="no rule").mean())
        assert first.a_own.iloc[0] - no_rule == pytest.approx(first.rule_gain.iloc[0])
        later = rows[(rows.task == task) & (rows["round"] == 1)]
        ours = own_heads.set_index("component")["round"].dropna()
        assert fact["taught"] == (task in TAUGHT) == (fact["rule_gain"]["low"] > 0 and fact["rule_gain"]["mean"] >= 0.5)
        if fact["taught"]:
            assert later.set.tolist() == ["ablated"] * 3 + ["placebo 1", "placebo 2"] * 2 and (later.n_heads == 2).all()
            assert (later["heads"][later.set == "ablated"] == "L0H1 L1H4").all()
            assert ours.to_dict() == {"L0H1": 1, "L1H4": 1}
        else:
            assert not len(later) and not len(ours)
        curve = found["transfer"][(found["transfer"].task == task) & (found["transfer"].set == "ablated")]
        for (number, kind), part in curve.groupby(["round", "kind"]):
            run = effect.sel(run=f"round {number}, {kind}")
            np.testing.assert_allclose(part.own, run.transfer_own.mean("seq"))
            np.testing.assert_allclose(part.other, run.transfer_other.mean("seq"))
            row = rows[(rows.task == task) & (rows["round"] == number) & (rows.kind == kind)].iloc[0]
            assert row.peak_layer == run.transfer_own[::2].mean("seq").values.argmax()  # and measured on the odd pairs
            assert row.peak == pytest.approx(float(run.transfer_own[1::2, int(row.peak_layer)].mean()))
            assert row.a_own == pytest.approx(float(run.log_odds_a.mean()))
        form = found["transfer"][(found["transfer"].task == task) & (found["transfer"].set == "no rule")]
        np.testing.assert_allclose(form.own, effect.transfer_own.sel(run="no rule").mean("seq"))
        all_gone = found["redundancy"][(found["redundancy"].task == task) & (found["redundancy"].n_heads == 12)]
        assert all_gone.log_odds.std() == pytest.approx(0, abs=1e-4)  # all are gone, in whatever order
        verdicts = found["steps"][found["steps"].task == task].groupby("step").verdict.unique()
        assert {str(step): list(x) for step, x in verdicts.items()} == {k: [v] for k, v in fact["steps"].items()}


def test_the_effects_file_keeps_its_format(finished: Path, curves: Path) -> None:
    with xr.open_dataset(finished, engine="h5netcdf") as found, xr.open_dataset(curves, engine="h5netcdf") as read:
        dims = {
            "effect": ("task", "seq", "shot", "layer", "head"),
            "mlp": ("task", "seq", "shot", "layer"),
            "rest": ("task", "seq", "shot"),
            "log_odds": ("task", "seq", "shot"),
            "transfer_own": ("task", "run", "seq", "resid_pre"),
            "lost_alone": ("task", "ablation", "seq", "layer", "head"),
        }
        for name, expected in dims.items():
            assert set(found[name].dims) == set(expected), name
        assert found.shot.values.tolist() == [4] and found.resid_pre.values.tolist() == [0, 1, 2]
        parts = found.effect.sum(("layer", "head"), dtype=float) + found.mlp.sum("layer") + found.rest
        np.testing.assert_allclose(parts, found.log_odds, atol=1e-4)
        worst = float((abs(parts - found.log_odds) / abs(found.log_odds).clip(min=1)).max())
        assert worst <= found.attrs["completeness"] + 1e-6 < 1e-4
        first = found.transfer_own.run.values.tolist().index("round 0, mean")
        np.testing.assert_allclose(found.log_odds_a[:, first], found.log_odds[..., 0], atol=1e-4)  # the run itself
        np.testing.assert_array_equal(
            found.curve.sel(task="copy")[:, 0], read.log_odds.sel(task="copy", readout="complement", shot=4)
        )
        assert found.ablation.values.tolist() == ["mean", "resample"]
        record = json.loads(found.attrs["provenance"])
        assert record["model"]["model"] == "tiny" and curves.name in record["inputs"]
        assert record["settings"]["ablate"] == ["L0H1", "L1H4"]
        assert {"method", "readout", "key"} <= set(found.attrs) and len(found.attrs["key"]) == 64
        for name in DESCRIBED:
            assert found[name].attrs["units"] == "nats" and found[name].attrs["description"]
        own = facts(finished)
        assert own["category"]["token"] == own["copy"]["token"] == 1 and found.token.values.tolist() == [1, 1]
        assert found.token_text.values.tolist() == [own[task]["token_text"] for task in found.task.values.tolist()]


def test_files_and_figures_of_a_run(finished: Path) -> None:
    assert {path.name for path in finished.parent.iterdir()} == {
        *("p.nc", "p.json", "figures", ".p.nc.json"),
        *(f"p.{name}.csv" for name in TABLES),
    }
    names = ["rounds", "redundancy", "repair", "steps", "mlps"]  # no backup heads were looked for
    names += [f"{kind}_{task}" for kind in ("transfer", "roles") for task in ("category", "copy")]
    folder = finished.parent / "figures"
    assert {path.name for path in folder.iterdir()} == {f"{name}.{end}" for name in names for end in ("png", "pdf")} | {
        *("summary.txt", ".patch.json")
    }
    assert all(path.stat().st_size > 1000 for path in folder.iterdir() if path.suffix in (".png", ".pdf"))
    text = (folder / "summary.txt").read_text()
    assert all(fact["ended"] in text.replace("\n", " ") for fact in facts(finished).values())
    assert "category" in text and "copy" in text


# ------------------------------------------------------------------------------------------------- killed, again


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures have tests of their own."""
    monkeypatch.setattr("bayes_icl.patch.command.patch_figures", lambda *_: {})


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [(experiment, "carried", 3), (redundancy, "ablate_sets", 6), (step_experiments, "ablate_mlps", 30)],
)
def test_a_killed_run_goes_on_where_it_stopped(
    curves: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undrawn: None,
    module: Any,
    name: str,
    call: int,
) -> None:
    """In a stage, of the first task or of the second; stages before it are not computed again."""
    out = tmp_path / "p.nc"
    settings = PatchSettings(curves=curves, out=out, figures=tmp_path / "figures", **LITTLE)
    real, calls = getattr(module, name), []

    def dying(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(module, name, dying)
    norms: list[int] = []
    real_norms = experiment.norms_taken
    monkeypatch.setattr(experiment, "norms_taken", lambda *args: (norms.append(1), real_norms(*args))[1])
    with pytest.raises(KeyboardInterrupt):
        main(settings)
    assert not out.exists() and out.with_name("p.nc.part").is_file() and not list(tmp_path.glob("*.csv"))
    assert main(settings) == 0
    assert len(norms) == 4  # twice a task
    assert_same(out, finished)
    assert not out.with_name("p.nc.part").exists()


def test_damaged_parts_of_a_run_are_made_again(
    curves: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None, capsys: Any
) -> None:
    out = tmp_path / "p.nc"
    settings = PatchSettings(curves=curves, out=out, figures=tmp_path / "figures", **LITTLE)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("bayes_icl.core.outputs.Output.write", killed)
        main(settings)
    parts = out.with_name("p.nc.part")
    content = bytearray(parts.read_bytes())
    content[len(content) // 2] ^= 1
    parts.write_bytes(content)
    capsys.readouterr()
    assert main(settings) == 0
    said = capsys.readouterr().err
    assert "is damaged or cut short: what follows is made again" in said
    assert "parts of an unfinished run are kept" in said
    assert_same(out, finished)


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_finished_run_is_drawn_again_and_others_are_kept(
    finished: Path, curves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    settings = PatchSettings(curves=curves, out=finished, figures=tmp_path / "f", **LITTLE)
    before = finished.read_bytes()
    monkeypatch.setattr("bayes_icl.patch.command.load_model", killed)  # not needed for that
    assert main(settings) == 0
    said = capsys.readouterr()
    assert "drawn and printed again" in said.err and said.out.split()[-1] == str(finished)
    assert len(list((tmp_path / "f").glob("*.png"))) == 9
    for change in (dict(seed=1), dict(ablate=()), dict(n_seqs=6), dict(tasks=("copy",)), dict(kind="zero")):
        with pytest.raises(StatedError, match="other curves or settings: give another --out, or --force"):
            main(dataclasses.replace(settings, **change))  # type: ignore[arg-type]
    assert finished.read_bytes() == before


def test_another_run_replaces_it_by_force_and_a_missing_table_is_made_again(
    finished: Path, curves: Path, tmp_path: Path, undrawn: None
) -> None:
    import shutil

    for path in (*finished.parent.glob("p.*"), *finished.parent.glob(".p.*")):
        shutil.copy(path, tmp_path)
    out = tmp_path / "p.nc"
    (tmp_path / "p.backups.csv").unlink()
    settings = PatchSettings(curves=curves, out=out, figures=tmp_path / "f", **LITTLE)
    assert main(settings) == 0
    assert_same(out, finished)
    less = dataclasses.replace(settings, tasks=("copy",), n_seqs=6, steps=False, rounds=0, ablate=(), force=True)
    assert main(less) == 0
    found = tables(out)
    assert set(found["rounds"].task) == {"copy"} and set(found["rounds"].n_pairs) == {6}
    assert found["steps"].empty and found["mlps"].empty and "bring" not in found["heads"]


def test_what_is_drawn_without_steps_and_with_a_backup(
    built: PatchResult, tiny: Model, built_curves: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command on the built model, which is no file."""
    path = tmp_path / "built.nc"
    record = json.dumps({"settings": {"model": "built"}})
    write_netcdf(built_curves.assign_attrs(provenance=record), path)
    monkeypatch.setattr("bayes_icl.patch.command.load_model", lambda *_: backup_model(tiny))
    settings = PatchSettings(
        curves=path, tasks=("mapping",), out=tmp_path / "p.nc", figures=tmp_path / "f", **BUILT, steps=False
    )
    assert main(settings) == 0
    names = {"rounds", "redundancy", "repair", "backups", "transfer_mapping"}
    assert {path.stem for path in (tmp_path / "f").glob("[!.]*.p*")} == names
    assert f"{name_of(BACKUP)} takes over (active)" in (tmp_path / "f/summary.txt").read_text()
    # The same as without files; what steps add aside.
    for name, table in tables(tmp_path / "p.nc").items():
        if name in ("transfer", "rounds", "backups", "redundancy", "halves"):
            words = [key for key in ("kind", "heads", "layers_text") if key in table]
            table = table.assign(**{key: table[key].fillna("") for key in words})
            pd.testing.assert_frame_equal(table, built.tables[name], check_dtype=False, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(tasks=("copi",)), "did you mean copy"),
        (dict(n_examples=5), "--n-examples 5: the curves have 1 to 4 examples"),
        (dict(n_examples=1), "--n-examples must be 2 or more"),
        (dict(ablate=("L2H0",)), "the model has no head L2H0"),
        (dict(ablate=("L0H6",)), "no head L0H6"),
        (dict(ablate=("top2",)), "give the table to rank by with --ranks"),
        (dict(ablate=("top2",), ranks=Path("nowhere.csv")), "no table nowhere.csv"),
        (dict(ablate=("first",)), "expected a head"),
        (dict(token=-1), "--token must be 0 or more"),
        (dict(token=99), "an answer of 'category' has the tokens 0 to"),
        (dict(placebos=0), "--placebos must be 1 or more"),
        (dict(n_seqs=-1), "--n-seqs must be 0 or more"),
        (dict(n_seqs=3), "--n-seqs must be 0 or at least 4"),
        (dict(out=Path("effects")), "ends in .nc"),
        (dict(curves=Path("nowhere.nc")), "nowhere.nc"),
        (dict(model="no/such/model/here"), "model"),
    ],
)
def test_bad_settings_are_stated_in_one_line(
    curves: Path, tmp_path: Path, capsys: Any, change: dict, said: str
) -> None:
    given = {"curves": curves, "out": tmp_path / "p.nc", "figures": tmp_path / "f", **LITTLE} | change
    with pytest.raises(SystemExit) as ended:
        exit_stating(lambda: main(PatchSettings(**given)))
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert said in error and error.count("error: ") == 1 and error.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "p.nc").exists()


def test_curves_that_lack_tokens_are_stated(curves: Path, tmp_path: Path) -> None:
    dataset = read_curves(curves)
    for drop, said in (("tokens", "have no tokens"), ("query", "have no query")):
        path = tmp_path / f"{drop}.nc"
        write_netcdf(dataset.drop_vars(drop), path)
        with pytest.raises(StatedError, match=said):
            main(PatchSettings(curves=path, out=tmp_path / "p.nc", figures=tmp_path / "f", **LITTLE))


def test_curves_of_another_model_are_stated(curves: Path, tmp_path: Path, tiny: Model) -> None:
    dataset = read_curves(curves)
    record = json.loads(dataset.attrs["provenance"])
    record["model"]["weights_sha256"] = "0" * 64
    path = tmp_path / "other.nc"
    write_netcdf(dataset.assign_attrs(provenance=json.dumps(record)), path)
    with pytest.raises(StatedError, match="whose weights are not those"):
        main(PatchSettings(curves=path, out=tmp_path / "p.nc", figures=tmp_path / "f", **LITTLE))
    with pytest.raises(StatedError, match="does not give what the curves have"):
        patch_curves(random_model("llama", tiny), dataset, ["copy"], PatchSettings(**LITTLE))


def test_heads_are_ranked_by_a_table(built: PatchResult, tiny: Model, built_curves: xr.Dataset, tmp_path: Path) -> None:
    """That of another run; its rows of the task, where it has them."""
    table = built.tables["heads"]
    settings = PatchSettings(**BUILT | dict(ablate=("top2",), rank_by="to_answers", steps=False, rounds=1, placebos=1))
    other = table.assign(task="flipped", to_answers=-table.to_answers)
    expected = table.nlargest(2, "to_answers").component.tolist()
    for name, ranks in (("both", pd.concat([other, table])), ("one", table.drop(columns="task"))):
        ranks.to_csv(tmp_path / f"{name}.csv", index=False)
        one = dataclasses.replace(settings, ranks=tmp_path / f"{name}.csv")
        found = patch_curves(backup_model(tiny), built_curves, ["mapping"], one)
        assert ablated(found)["heads"][1, "mean"].split() == expected and name_of(MOVER) in expected
    with pytest.raises(StatedError, match="did you mean to_answers"):
        patch_curves(backup_model(tiny), built_curves, ["mapping"], dataclasses.replace(one, rank_by="to_answer"))


# ------------------------------------------------------------------------------------------------- a real model


@pytest.mark.real_model
def test_the_past_tense_comes_across_in_smollm2(smollm2: Model) -> None:
    """Where a first look had it: the task around block 21, A's answer from there to 24."""
    curves = read_curves(Path(__file__).parents[2] / "data/example.nc").isel(seq=slice(6))
    settings = PatchSettings(n_examples=8, steps=False, rounds=0, placebos=1)
    found = patch_curves(smollm2, curves, ["past_tense"], settings)
    row = ablated(found, "past_tense").loc[(0, "mean")]
    assert 19 <= row.peak_layer <= 23 and 22 <= row.answer_layer <= 24
    assert row.peak > row.b_own + 2 and row.a_own > row.b_own + 5 and row.n_pairs == 6
    own = found.tables["transfer"]
    own = own[(own["round"] == 0) & (own.kind == "mean")].own.values
    assert (own[:14] < row.b_own + 2).all() and own[-1] < own.max() - 2  # not before, and gone where A's answer is
