"""Independence on models whose answer is known: hand-built ones, organisms, random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import handmade
import numpy as np
import pandas as pd
import pytest
import torch

from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import write_netcdf
from bayes_icl.independence import IndependenceResult, IndependenceSettings, independence_curves
from bayes_icl.independence.command import main
from bayes_icl.lens.sweeps import Row, base_run, sweep
from bayes_icl.mechanism.answer_odds import token_log_odds
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.mechanism.isolation import KINDS, LayerRange, block_sizes, check_layout, edges_cut, isolated, laid_out
from bayes_icl.mechanism.transfer import cut
from bayes_icl.models import load_model
from bayes_icl.models.blocks import BEFORE
from bayes_icl.models.model import Model
from bayes_icl.tasks import load_tasks
from bayes_icl.tasks.designs import under_designs
from bayes_icl.tasks.task import Task

SETTINGS = IndependenceSettings(resamples=200)

SHOTS = 8


def of_one_class() -> Task:
    """The task of the hand-built models, all examples of one class."""
    task = handmade.class_task()
    return replace(task, pool=tuple(e for e in task.pool if e.answer == "x"))


def of_organism(name: str) -> IndependenceResult:
    """An organism on its own task."""
    model = load_model(f"organism:{name}", "cpu")
    curves = collect_curves(model, load_tasks([f"organism_{name}"]), n_shots=SHOTS, n_seqs=8)
    return independence_curves(model, curves, settings=SETTINGS)


def kept(result: IndependenceResult, layers: str) -> pd.DataFrame:
    """Rows of kept.csv of some layers, sizes as index."""
    table = result.tables["kept"]
    return table[table.layers == layers].set_index("size")


@pytest.fixture(scope="module")
def chained(tiny: Model) -> IndependenceResult:
    """Examples that count only after another, read as the label against the other."""
    model = handmade.chained_model(tiny)
    curves = collect_curves(model, [of_one_class()], n_shots=SHOTS, n_seqs=6)
    return independence_curves(model, curves, settings=replace(SETTINGS, readout="foil"))


def test_examples_that_count_only_after_another_are_not_independent(chained: IndependenceResult) -> None:
    assert chained.facts["classes"]["verdict"] == "not_independent"
    # After n examples, those with another before them in their block count, and the query itself.
    counted = [SHOTS - np.ceil(SHOTS / size) for size in block_sizes(SHOTS)]
    expected = np.array(counted) / (SHOTS - 1)
    assert kept(chained, "0-1").kept.to_numpy() == pytest.approx(expected, abs=0.02)
    assert kept(chained, "0").kept.to_numpy() == pytest.approx(expected, abs=0.02)
    # Above the block in which an example reads the one before it, nothing is lost.
    assert kept(chained, "1").kept.to_numpy() == pytest.approx(1, abs=0.02)


def test_what_is_left_is_told_in_nats_too(chained: IndependenceResult) -> None:
    one = chained.effects.log_odds.sel(task="classes", size=1, layers="0-1", edges="cut").mean("seq")
    plain = chained.effects.plain.sel(task="classes").mean("seq")
    np.testing.assert_allclose(one[1:], handmade.AMOUNT * np.ones(SHOTS), atol=0.05)
    np.testing.assert_allclose(plain, handmade.AMOUNT * np.arange(SHOTS + 1), atol=0.05)


def test_an_adder_keeps_everything(tiny: Model) -> None:
    model = handmade.adding_model(tiny)
    curves = collect_curves(model, [of_one_class()], n_shots=SHOTS, n_seqs=6)
    result = independence_curves(model, curves, settings=replace(SETTINGS, readout="foil"))
    assert result.facts["classes"]["verdict"] == "independent"
    assert result.tables["kept"].kept.to_numpy() == pytest.approx(1, abs=0.02)


def test_the_coin_keeps_everything() -> None:
    result = of_organism("coin")
    (row,) = result.tables["verdicts"].itertuples()
    assert row.verdict == "independent" and row.kept == pytest.approx(1, abs=0.02) and row.enough == 1


def test_nothing_is_said_where_there_is_no_update(tiny: Model) -> None:
    curves = collect_curves(tiny, load_tasks(["capital"]), n_shots=4, n_seqs=6)
    for result in (of_organism("constant"), independence_curves(tiny, curves, settings=SETTINGS)):
        (row,) = result.tables["verdicts"].itertuples()
        assert row.verdict == "no_update" and np.isnan([row.kept, row.control, row.enough]).all()
        assert result.tables["kept"][["kept", "control", "beyond"]].isna().all(axis=None)


def test_the_control_cuts_as_many_edges_of_every_token(tiny: Model) -> None:
    curves = collect_curves(tiny, load_tasks(["past_tense"]), n_shots=5, n_seqs=1)
    laid, prompt = laid_out(recorded_episodes(tiny, curves, "past_tense", whole=True)[0])
    blocks, n = prompt.blocks, len(prompt.tokens)
    assert blocks is not None
    own, rng = (blocks[:, None] == blocks) & (blocks != BEFORE), np.random.default_rng(0)
    for size in block_sizes(5):
        between, elsewhere = (edges_cut(prompt, size, kind, rng, len(laid.tokens)) for kind in KINDS)
        np.testing.assert_array_equal(between.sum(1), elsewhere.sum(1))
        for edges in (between, elsewhere):
            assert not edges[n:].any() and not edges[:, n:].any()  # queries that are asked lose nothing
            assert not edges[:n, :n][:, blocks == BEFORE].any() and not edges.diagonal().any()
            assert not (edges & ~laid.seen).any()
        assert not (between[:n, :n] & own).any()
    least = edges_cut(prompt, 4, "control", rng, len(laid.tokens))[:n, :n]
    assert (least & (blocks[:, None] // 4 == blocks // 4)).sum() > 0  # those of its own block first


def test_all_shots_at_once_are_what_runs_of_their_own_give(tiny: Model) -> None:
    n = 5
    curves = collect_curves(tiny, load_tasks(["capital"]), n_shots=n, n_seqs=1)
    episode = recorded_episodes(tiny, curves, "capital")[0]
    ranges = [LayerRange(0, tiny.anatomy.n_layers), LayerRange(1, 2)]
    found = isolated(tiny.anatomy, episode, block_sizes(n), ranges, 0)
    run = cut(episode, n, episode.token or 0)
    # The last shot spelled out: its query once, within the episode, and the mask of each token written by hand.
    width, starts = len(run.prompt.tokens), [1, *episode.prompt.answer_stop[: n - 1], episode.prompt.answer_stop[n - 1]]
    base = base_run(tiny.anatomy, run.prompt.tokens, 0)
    correct = torch.from_numpy(run.target.correct.astype(np.int64))
    assert found.plain[n] == pytest.approx(token_log_odds(base.logits, correct, None).item(), abs=1e-4)
    for i, size in enumerate(block_sizes(n)):
        blocked = torch.zeros(width, width, dtype=torch.bool)
        for example in range(n):
            begin = (example // size) * size
            blocked[starts[example] : starts[example + 1], 1 : starts[begin]] = True
        rows = [Row(one.begin, blocked=blocked, until=one.stop) for one in ranges]
        for part in sweep(tiny.anatomy, base, rows, [width - 1]):
            log_odds = token_log_odds(part.logits[:, 0], correct.expand(len(part.rows)), None)
            np.testing.assert_allclose(found.cut[i, part.rows, 0, n], log_odds, atol=1e-4)


def test_collecting_in_blocks_gives_the_same(tiny: Model) -> None:
    tasks = load_tasks(["capital"])
    plain = collect_curves(tiny, tasks, n_shots=5, n_seqs=4)
    result = independence_curves(tiny, plain, settings=replace(SETTINGS, parts=1))
    blocks = under_designs(tasks, ["blocks:size=2"], 5)
    expected = collect_curves(tiny, blocks, n_shots=5, n_seqs=4).log_odds.sel(readout="complement")
    found = result.effects.log_odds.sel(size=2, layers=f"0-{tiny.anatomy.n_layers - 1}", edges="cut")
    np.testing.assert_allclose(found.values[0], expected.values[0], atol=1e-3)


def test_a_window_is_refused(tiny: Model) -> None:
    curves = collect_curves(tiny, load_tasks(["capital"]), n_shots=5, n_seqs=4)
    windowed = handmade.random_model("gemma3", tiny)
    episodes = recorded_episodes(tiny, curves, "capital", whole=True)
    with pytest.raises(StatedError, match="cannot keep examples apart"):
        check_layout(windowed, episodes)


def test_too_few_examples_are_refused(tiny: Model) -> None:
    curves = collect_curves(tiny, load_tasks(["capital"]), n_shots=2, n_seqs=4)
    with pytest.raises(StatedError, match="3 examples"):
        independence_curves(tiny, curves)


@pytest.mark.slow
def test_the_command_writes_what_it_says_and_does_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "c.nc", tmp_path / "i.nc"
    coin = load_model("organism:coin", "cpu")
    write_netcdf(collect_curves(coin, load_tasks(["organism_coin"]), n_shots=6, n_seqs=6), path)
    settings = IndependenceSettings(
        curves=path, model="organism:coin", out=out, figures=tmp_path / "f", readout="rule", parts=1, resamples=200
    )
    assert main(settings) == 0
    assert str(out) in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "f").glob("*.png")} == {"curves_organism_coin.png", "kept_organism_coin.png"}
    assert "independent" in (tmp_path / "f" / "summary.txt").read_text()
    assert main(settings) == 0
    assert "drawn and printed again" in capsys.readouterr().err
