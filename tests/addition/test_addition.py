"""Addition in the stream on models whose answer is known: a hand-built adder, organisms, random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import handmade
import numpy as np
import pandas as pd
import pytest

from bayes_icl.addition import AdditionResult, AdditionSettings, addition_curves
from bayes_icl.addition.command import main
from bayes_icl.addition.trajectories import ALPHA, bootstrap_weights, movement_of
from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import write_netcdf
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.mechanism.stream_states import log_odds_with, permuted_throughout, states_of
from bayes_icl.mechanism.transfer import cut, permuted
from bayes_icl.models import load_model
from bayes_icl.models.model import Model
from bayes_icl.tasks import load_tasks

SETTINGS = AdditionSettings(fits=False, resamples=50)


def of_organism(name: str, **more: object) -> AdditionResult:
    """An organism on its own task."""
    curves = collect_curves(
        load_model(f"organism:{name}", "cpu"), load_tasks([f"organism_{name}"]), n_shots=12, n_seqs=12
    )
    return addition_curves(
        load_model(f"organism:{name}", "cpu"), curves, settings=AdditionSettings(resamples=50, **more)
    )


def rows(result: AdditionResult, part: str) -> pd.DataFrame:
    """Rows of layers.csv of one part, layers as index."""
    layers = result.tables["layers"]
    return layers[layers.part == part].set_index("layer")


@pytest.fixture(scope="module")
def adder(tiny: Model) -> AdditionResult:
    """The hand-built adder, laws and all."""
    model = handmade.adding_model(tiny)
    task = replace(handmade.class_task(), pool=tuple(e for e in handmade.class_task().pool if e.answer == "x"))
    curves = collect_curves(model, [task], n_shots=12, n_seqs=12)  # all examples are of the query's class
    return addition_curves(model, curves, settings=AdditionSettings(resamples=50, token=0))


def test_the_line_of_an_adder_is_exact_in_every_layer(adder: AdditionResult) -> None:
    task = rows(adder, "task")
    after = task[task.index > 0]  # the embedding knows no example
    assert after.moves.all() and not task.moves[0]
    for name in ("line", "rank1", "cosine", "late_over_early"):
        assert after[name].to_numpy() == pytest.approx(1, abs=0.02)
    assert set(after.verdict) == {"supported"}
    assert not rows(adder, "rule").moves.any()  # permuting equal answers changes nothing


def test_the_vector_of_an_adder_stands_in_for_examples(adder: AdditionResult) -> None:
    best = next(iter(adder.facts.values()))["best"]
    assert best["named"] and best["missed"] < 0.2


def test_rule_moves_along_its_direction_and_permuted_answers_do_not() -> None:
    result = of_organism("rule", fits=False)
    rule = rows(result, "rule")
    last = rule.index.max()
    assert rule.moves[last] and rule.line[last] > 0.95 > 0.9 > 0 and rule.rank1[last] > 0.97
    assert not rows(result, "permuted").moves.any()
    slopes = result.tables["slopes"].set_index(["vector", "layer"])
    assert slopes.beyond["task", last] and not slopes.beyond["permuted", last]


def test_nothing_is_named_where_nothing_is_learnt() -> None:
    result = of_organism("constant", fits=True)
    assert not rows(result, "rule").moves.any()
    assert set(rows(result, "rule").verdict) == {"no_movement"}
    assert not result.facts["organism_constant"]["best"]["named"]


def test_pure_noise_is_said_to_move_no_more_often_than_stated() -> None:
    rng, weights = np.random.default_rng(0), bootstrap_weights(12, 2, 0)
    ps = [movement_of(rng.normal(size=(12, 9, 30)), 1.0, weights).p for _ in range(200)]
    assert np.mean(np.array(ps) < ALPHA) < 2 * ALPHA


def test_a_pass_reads_what_runs_of_their_own_read(tiny: Model) -> None:
    curves = collect_curves(tiny, load_tasks(["capital"]), n_shots=5, n_seqs=2)
    episode = recorded_episodes(tiny, curves, "capital")[0]
    shuffled = permuted_throughout(episode, 0)
    for whole, run in (
        (episode, cut(episode, 5, episode.token or 0)),
        (shuffled, permuted(cut(episode, 5, episode.token or 0), 5, 0)),
    ):
        at_once, alone = states_of(tiny.anatomy, [whole]), states_of(tiny.anatomy, [run])
        np.testing.assert_allclose(at_once.stream[0, -1], alone.stream[0, -1], atol=1e-4)
        assert at_once.log_odds[0, -1] == pytest.approx(alone.log_odds[0, -1], abs=1e-3)
    few = cut(episode, 2, episode.token or 0)
    own = states_of(tiny.anatomy, [episode])
    difference = own.stream[0, 4, -1] - own.stream[0, 2, -1]
    plain, added = log_odds_with(
        tiny.anatomy, few, np.array([tiny.anatomy.n_layers] * 2), np.stack([0 * difference, difference])
    )
    assert plain == pytest.approx(added[0], abs=1e-3) == pytest.approx(own.log_odds[0, 2], abs=1e-3)
    assert abs(added[1] - plain) > 1e-3


def test_too_few_sequences_are_refused(tiny: Model) -> None:
    curves = collect_curves(tiny, load_tasks(["capital"]), n_shots=5, n_seqs=3)
    with pytest.raises(StatedError, match="8 sequences"):
        addition_curves(tiny, curves)


@pytest.mark.slow
def test_the_command_writes_what_it_says_and_does_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "c.nc", tmp_path / "a.nc"
    write_netcdf(collect_curves(load_model("tiny", "cpu"), load_tasks(["capital"]), n_shots=6, n_seqs=8), path)
    settings = AdditionSettings(
        curves=path, model="tiny", out=out, figures=tmp_path / "f", fits=False, resamples=20, doses=(2, 4)
    )
    assert main(settings) == 0
    assert str(out) in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "f").glob("*.png")} >= {
        "shares_capital.png",
        "amounts_capital.png",
        "doses_capital.png",
    }
    assert main(settings) == 0
    assert "drawn and printed again" in capsys.readouterr().err
