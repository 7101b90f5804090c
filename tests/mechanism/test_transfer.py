"""A task carried between prompts: which runs are paired, where they are patched, and where it is recovered."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from by_hand import by_hooks, forward, odds_by_hand, spelled_out
from handmade import class_task, mapping_task, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import StatedError
from bayes_icl.lens.sweeps import Row, base_run
from bayes_icl.mechanism.episodes import Episode, recorded_episodes
from bayes_icl.mechanism.transfer import (
    POSITIONS,
    Pair,
    cut,
    log_odds_of,
    matched,
    pairs_of,
    patched,
    permuted,
    reaching,
)
from bayes_icl.models import Model
from bayes_icl.models.prompts import ROLES, token_read
from bayes_icl.tasks import load_tasks

N, SEQS = 4, 10
KINDS = ["llama", "gpt2", "gemma3"]
TASKS = {task.name: task for task in [*load_tasks(["past_tense", "copy"]), mapping_task(), class_task()]}


@pytest.fixture(scope="module")
def model_of(tiny: Model) -> Callable[[str], Model]:
    return functools.cache(lambda name: random_model(name, tiny))


@pytest.fixture(scope="module")
def curves(model_of: Callable[[str], Model]) -> xr.Dataset:
    """Tokens are the same for all models: they share a tokenizer."""
    return collect_curves(model_of("llama"), list(TASKS.values()), n_shots=N + 1, n_seqs=SEQS, readouts=["complement"])


@pytest.fixture(scope="module")
def episodes_of(model_of: Callable[[str], Model], curves: xr.Dataset) -> Callable[[str], list[Episode]]:
    return functools.cache(lambda task: recorded_episodes(model_of("llama"), curves, task))


def text_of(model: Model, tokens: np.ndarray) -> str:
    return str(model.tokenizer.decode(tokens.tolist()))


# ------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_cut_before_a_token_of_an_answer(episodes_of: Callable[[str], list[Episode]], task: str) -> None:
    for episode in episodes_of(task):
        for shot in range(N + 2):
            for token, own in enumerate(episode.prompt.answer(shot)):
                found = cut(episode, shot, token)
                n = int(episode.prompt.answer_start[shot]) + token
                assert found.prompt.tokens.tolist() == episode.prompt.tokens.tolist()[:n]
                assert found.target.positions.tolist() == [n - 1] and found.target.correct.tolist() == [own]
                assert [len(x) for x in found.places] == [n] * 3
                assert all((x == y[:n]).all() for x, y in zip(found.places, episode.places))
                assert found.seq == episode.seq and found.places.shot.max() == shot


@pytest.mark.parametrize("queries", [False, True])
@pytest.mark.parametrize("shot", [2, 3, N])
@pytest.mark.parametrize("task", TASKS)
def test_permuted_examples_are_a_prompt_of_their_own(
    model_of: Callable[[str], Model], episodes_of: Callable[[str], list[Episode]], task: str, shot: int, queries: bool
) -> None:
    """Tokens and places are those of a prompt written down with other answers, or other queries; none keeps its own."""
    model, orders, token = model_of("llama"), set(), shot % 2
    for episode in episodes_of(task):
        examples = list(TASKS[task].episode(N + 1, 0, episode.seq))
        for seed in (0, 1):
            run = cut(episode, shot, token)
            found = permuted(run, shot, seed, queries=queries)
            moved = ROLES.index("query" if queries else "answer")
            texts = [
                [text_of(model, x.prompt.tokens[(x.places.shot == i) & (x.places.role == moved)]) for i in range(shot)]
                for x in (found, run)
            ]
            order = [texts[1].index(text) for text in texts[0]]
            if len(set(texts[1])) == shot:
                assert sorted(order) == list(range(shot))
                orders.add(tuple(order))
                at = [0]  # one cycle
                for _ in range(shot - 1):
                    at.append(order[at[-1]])
                assert sorted(at) == list(range(shot))
            assert sorted(texts[0]) == sorted(texts[1])
            field = "query" if queries else "answer"
            others = [replace(e, **{field: getattr(examples[j], field)}) for e, j in zip(examples, order)]
            expected = spelled_out(TASKS[task], [*others, *examples[shot:]], model, shot, token)
            assert found.prompt.tokens.tolist() == expected.prompt.tokens.tolist()
            for x, y in zip(found.places, expected.places):
                assert x.tolist() == y.tolist()
            assert len(found.prompt.tokens) == len(run.prompt.tokens)
            assert found.target.positions.tolist() == [len(found.prompt.tokens) - 1]
            assert found.target.correct.tolist() == run.target.correct.tolist()
            again = permuted(run, shot, seed, queries=queries)
            assert again.prompt.tokens.tolist() == found.prompt.tokens.tolist()
    assert shot < 3 or len(orders) > 1 or task in ("mapping", "classes")  # the control: they are drawn


@pytest.mark.parametrize("task", TASKS)
def test_exchanged_labels_leave_no_answer_right(
    episodes_of: Callable[[str], list[Episode]], model_of: Callable[[str], Model], task: str
) -> None:
    """Where labels repeat; the control: permuted, half of two labels are."""
    model = model_of("llama")
    right = {True: 0, False: 0}
    for episode in episodes_of(task):
        run = cut(episode, N, 0)
        for exchanged in right:
            found = permuted(run, N, 0, exchanged=exchanged)
            for i in range(N):
                own, other = (
                    text_of(model, x.prompt.tokens[(x.places.shot == i) & (x.places.role == ROLES.index("answer"))])
                    for x in (run, found)
                )
                bounds = zip(run.prompt.answer_start[:N], run.prompt.answer_stop[:N])
                others = {text_of(model, run.prompt.tokens[start:stop]) for start, stop in bounds}
                right[exchanged] += own == other and len(others) > 1
        assert found.target.positions.tolist() == [len(found.prompt.tokens) - 1]
    assert right[True] == 0 and (right[False] > 0) == (task in ("mapping", "classes"))


def test_one_example_cannot_be_permuted(episodes_of: Callable[[str], list[Episode]]) -> None:
    """It would keep its answer, and pass for one that shows no rule."""
    with pytest.raises(StatedError, match="of 1 example cannot be permuted"):
        permuted(cut(episodes_of("copy")[0], 1, 0), 1, 0)


# ------------------------------------------------------------------------------------------------- the token read


def test_the_token_read_is_the_first_that_tells_answers_apart(
    model_of: Callable[[str], Model], episodes_of: Callable[[str], list[Episode]]
) -> None:
    """Every part of the attribution is at that token unless another is asked for; a space in front is token 0."""
    expected = {"copy": 1, "past_tense": 1, "mapping": 0, "classes": 0}  # the test tokenizer has no words with a space
    for task, token in expected.items():
        episodes = episodes_of(task)
        assert token_read([e.prompt for e in episodes], task) == token
        for e in episodes:
            assert e.token == token and (e.target.positions == e.prompt.answer_start + token - 1).all()
            assert e.target.correct.tolist() == [e.prompt.answer(i)[token] for i in range(N + 2)]
    model = model_of("llama")
    assert all(model.token_texts[t].isdigit() for e in episodes_of("copy") for t in e.target.correct)
    same = collect_curves(model, load_tasks(["constant"]), n_shots=2, n_seqs=6, readouts=["complement"])
    with pytest.raises(StatedError, match="all answers of task 'constant' begin alike"):
        recorded_episodes(model, same, "constant")
    assert recorded_episodes(model, same, "constant", token=0)[0].token == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_token_read_of_two_labels_does_not_hang_on_few_sequences(tiny: Model, seed: int) -> None:
    curves = collect_curves(tiny, [mapping_task()], n_shots=8, n_seqs=4, readouts=["complement"], seed=seed)
    assert recorded_episodes(tiny, curves, "mapping")[0].token == 0


# ------------------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize("n", [1, 3, N])
@pytest.mark.parametrize("task", TASKS)
def test_pairs_have_another_answer_and_a_query_not_shown(
    model_of: Callable[[str], Model],
    curves: xr.Dataset,
    episodes_of: Callable[[str], list[Episode]],
    task: str,
    n: int,
) -> None:
    """The first such sequence after A's own, by brute force over all."""
    model, episodes = model_of("llama"), episodes_of(task)
    token = episodes[0].token
    assert token is not None
    pairs = pairs_of(model, curves, task, n_examples=n)
    text = curves.sel(task=task)
    expected = {}
    for i, a in enumerate(episodes):
        shown = text["query"].values[i, : n + 1].tolist()
        for j in range(1, SEQS):
            b = episodes[(i + j) % SEQS]
            own, other = a.prompt.answer(n)[: token + 1], b.prompt.answer(0)[: token + 1]
            if own[:-1] == other[:-1] and own != other and text["query"].values[(i + j) % SEQS, 0] not in shown:
                expected[a.seq] = b.seq
                break
    assert {pair.a.seq: pair.b.seq for pair in pairs} == expected and len(expected) >= 4
    for pair in pairs:
        assert pair.tokens[0] != pair.tokens[1]
        a, b = (episodes[run.seq].prompt for run in pair)
        assert pair.a.prompt.tokens.tolist() == a.tokens[: a.answer_start[n] + token].tolist()
        assert pair.b.prompt.tokens.tolist() == b.tokens[: b.answer_start[0] + token].tolist()
        assert pair.tokens == (b.answer(0)[token], a.answer(n)[token])


@pytest.mark.parametrize("task", ["past_tense", "mapping"])
def test_among_permuted_examples_only_the_query_is_another(
    model_of: Callable[[str], Model], curves: xr.Dataset, episodes_of: Callable[[str], list[Episode]], task: str
) -> None:
    model, token = model_of("llama"), episodes_of(task)[0].token
    pairs = pairs_of(model, curves, task, n_examples=N, position="answers", seed=5)
    for pair in pairs:
        queries = curves["query"].sel(task=task)
        asked = str(queries.values[pair.b.seq, N])
        assert asked not in queries.values[pair.a.seq, : N + 1].tolist()
        examples = permuted(pair.a, N, 5)
        shown = examples.places.shot < N
        other = cut(episodes_of(task)[pair.b.seq], N, token)
        expected = [*examples.prompt.tokens[shown], *other.prompt.tokens[other.places.shot == N]]
        assert pair.b.prompt.tokens.tolist() == expected
        assert asked in text_of(model, pair.b.prompt.tokens) and pair.tokens[0] != pair.tokens[1]
        assert pair.b.target.positions.tolist() == [len(expected) - 1]
        for x, y, z in zip(pair.b.places, examples.places, other.places):
            assert x.tolist() == [*y[shown], *z[other.places.shot == N]]
    with pytest.raises(StatedError, match="cannot be permuted"):
        pairs_of(model, curves, task, n_examples=1, position="answers")


def test_pairs_that_cannot_be_are_stated(model_of: Callable[[str], Model], curves: xr.Dataset) -> None:
    model = model_of("llama")
    for n in (0, N + 2):
        with pytest.raises(StatedError, match=f"--n-examples {n}: the curves have 1 to {N + 1} examples"):
            pairs_of(model, curves, "copy", n_examples=n)
    with pytest.raises(StatedError, match=r"3 of 3 sequences find another.*at least 4 are needed"):
        pairs_of(model, curves.isel(seq=[0, 1, 2]), "copy", n_examples=N)
    with pytest.raises(StatedError, match="0 of 10 sequences find another"):
        pairs_of(model, curves, "copy", n_examples=N, token=0)  # a space in all of them
    assert len(pairs_of(model, curves.isel(seq=[0, 1, 2, 3]), "copy", n_examples=N)) == 4  # the control


# ------------------------------------------------------------------------------------------------- positions


@pytest.fixture(scope="module")
def unequal(model_of: Callable[[str], Model], curves: xr.Dataset) -> Callable[[str], list[Pair]]:
    """Pairs whose prompts, queries and answers are of unequal length."""

    def make(position: str) -> list[Pair]:
        pairs = pairs_of(model_of("llama"), curves, "past_tense", n_examples=N, position=position)
        assert len({len(run.prompt.tokens) for pair in pairs for run in pair}) > 4
        return pairs

    return functools.cache(make)


def test_positions_are_matched_by_what_stands_there(
    model_of: Callable[[str], Model], curves: xr.Dataset, unequal: Callable[[str], list[Pair]]
) -> None:
    """Against the text: one byte is one token here, after the first."""
    model = model_of("llama")
    for pair in unequal("last"):
        texts = [text_of(model, run.prompt.tokens[1:]) for run in pair]
        queries = [str(curves["query"].sel(task="past_tense", seq=run.seq).values[n]) for run, n in zip(pair, (N, 0))]
        lengths = [len(text) for text in texts]
        assert [len(run.prompt.tokens) - 1 for run in pair] == lengths
        ends = [text.rindex(query) + len(query) for text, query in zip(texts, queries)]
        # The token at i is the byte at i - 1; the answer's space stands last, and is read at.
        assert matched(pair, "last") == [(lengths[0], lengths[1])]
        assert matched(pair, "query") == [(ends[0], ends[1])]
        between = matched(pair, "separator")
        assert [a for a, _ in between] == list(range(ends[0] + 1, ends[0] + 4))
        for a, b in between:
            assert texts[0][a - 1] == texts[1][b - 1] and b - ends[1] == a - ends[0]
        assert "".join(texts[0][a - 1] for a, _ in between) == " ->"


def test_answers_are_matched_by_shot_and_distance(
    model_of: Callable[[str], Model], curves: xr.Dataset, unequal: Callable[[str], list[Pair]]
) -> None:
    """A longer answer meets as much of a shorter one as there is."""
    model, shorter = model_of("llama"), 0
    for pair in unequal("answers"):
        at = dict(matched(pair, "answers"))
        expected = {}
        starts = []
        for run in pair:  # by the text: each example is a line
            text, begin, own = text_of(model, run.prompt.tokens[1:]), 0, []
            for line in text.split("\n")[:N]:
                arrow = begin + line.index("->") + 2
                own.append((arrow + 1, begin + len(line) + 2))
                begin += len(line) + 1
            starts.append(own)
        for (start_a, stop_a), (start_b, stop_b) in zip(*starts):
            n = min(stop_a - start_a, stop_b - start_b)
            shorter += stop_a - start_a != stop_b - start_b
            expected |= {start_a + k: start_b + k for k in range(n)}
        assert at == expected
        a, b = (text_of(model, run.prompt.tokens[1:]) for run in pair)
        assert all(a[p - 1] == b[q - 1] == " " for p, q in at.items() if a[p - 1] == " ")
    assert shorter > 0


def test_a_position_that_prompts_lack_is_stated(
    model_of: Callable[[str], Model], curves: xr.Dataset, unequal: Callable[[str], list[Pair]]
) -> None:
    (pair, *_) = pairs_of(model_of("llama"), curves, "classes", n_examples=N)  # has no separator
    with pytest.raises(StatedError, match="--position separator: the prompts have no such token"):
        matched(pair, "separator")
    with pytest.raises(StatedError, match="--position answers"):
        matched(unequal("last")[0], "answers")  # a bare query
    assert all(matched(unequal("answers")[0], position) for position in POSITIONS)  # the control


# ------------------------------------------------------------------------------------------------- patches


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", KINDS)
def test_a_patch_is_a_plain_run_with_a_hook(
    model_of: Callable[[str], Model], unequal: Callable[[str], list[Pair]], name: str, position: str
) -> None:
    """A's stream from one plain run, put into another by a hook at the same point; the control: something moves."""
    model = model_of(name)
    for pair in unequal(position)[:2]:
        at = matched(pair, position)
        a = base_run(model.anatomy, pair.a.prompt.tokens, min(p for p, _ in at))
        b = base_run(model.anatomy, pair.b.prompt.tokens, min(q for _, q in at))
        found, first = patched(model.anatomy, a, b, at, pair.tokens)
        assert found.shape == first.shape == (model.anatomy.n_layers + 1, 2)
        plain = [odds_by_hand(forward(model, pair.b.prompt.tokens)[-1], token) for token in pair.tokens]
        for point, odds in enumerate(found):
            kept: list[torch.Tensor] = []
            keep = lambda _, args, kwargs, kept=kept: kept.append((*args, *kwargs.values())[0][0].clone())  # noqa: E731
            module = [*model.anatomy.blocks, model.anatomy.final_norm.module][point]
            handle = module.register_forward_pre_hook(keep, with_kwargs=True)
            forward(model, pair.a.prompt.tokens)
            handle.remove()
            with by_hooks(model, 0, Row(point, {q: kept[0][p] for p, q in at})):
                logits = forward(model, pair.b.prompt.tokens)[-1]
            np.testing.assert_allclose(odds, [odds_by_hand(logits, t) for t in pair.tokens], atol=2e-5)
            assert first[point].tolist() == [int(logits.argmax()) == token for token in pair.tokens]
            other = int(logits.argmax()), pair.tokens[0]
            assert patched(model.anatomy, a, b, at, other, [point])[1].tolist() == [[True, other[0] == other[1]]]
        same_tokens = all(pair.a.prompt.tokens[p] == pair.b.prompt.tokens[q] for p, q in at)
        moved = np.abs(found - plain).max(1) > 1e-3
        assert moved[1] and (moved[0] or same_tokens)
        assert moved[-1] == any(q == len(b.tokens) - 1 for _, q in at)  # what is patched last counts where it is read
        some, _ = patched(model.anatomy, a, b, at, pair.tokens, [2, 0])
        np.testing.assert_allclose(some, found[[2, 0]], atol=1e-6)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", KINDS)
def test_a_run_patched_with_its_own_stream_is_itself(
    model_of: Callable[[str], Model], unequal: Callable[[str], list[Pair]], name: str, position: str
) -> None:
    model, pair = model_of(name), unequal(position)[0]
    at = matched(pair, position)
    b = base_run(model.anatomy, pair.b.prompt.tokens, min(q for _, q in at))
    plain = [odds_by_hand(forward(model, pair.b.prompt.tokens)[-1], token) for token in pair.tokens]
    found, _ = patched(model.anatomy, b, b, [(q, q) for _, q in at], pair.tokens)
    np.testing.assert_allclose(found, np.tile(plain, (len(found), 1)), atol=2e-5)
    a = base_run(model.anatomy, pair.a.prompt.tokens, min(p for p, _ in at))
    assert np.abs(patched(model.anatomy, a, b, at, pair.tokens)[0] - plain).max() > 0.01  # the control


@pytest.mark.parametrize("name", KINDS)
def test_at_the_last_point_b_gives_what_a_does(
    model_of: Callable[[str], Model], unequal: Callable[[str], list[Pair]], name: str
) -> None:
    model, pair = model_of(name), unequal("last")[1]
    ((p, q),) = at = matched(pair, "last")
    a, b = base_run(model.anatomy, pair.a.prompt.tokens, p), base_run(model.anatomy, pair.b.prompt.tokens, q)
    own = [odds_by_hand(forward(model, pair.a.prompt.tokens)[-1], token) for token in pair.tokens]
    np.testing.assert_allclose(patched(model.anatomy, a, b, at, pair.tokens)[0][-1], own, atol=2e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 30.0, 300.0]))
def test_log_odds_are_of_a_token_against_all_others(seed: int, size: float) -> None:
    """Where they saturate in float32 too."""
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 20)).astype(np.float32)) * size
    found = log_odds_of(logits, [4, 0])
    for i, row in enumerate(logits.double()):
        for j, token in enumerate((4, 0)):
            others = torch.cat([row[:token], row[token + 1 :]]).logsumexp(0)
            assert found[i, j] == pytest.approx(float(row[token] - others), abs=1e-4, rel=1e-6)


# ------------------------------------------------------------------------------------------------- where it arrives


def test_half_is_reached_where_a_known_curve_crosses_it() -> None:
    n = 5
    curve = np.array([0.0, 1.0, 4.9, 5.1, 9.0, 10.0])
    found = reaching(np.tile(curve, (n, 1)), np.zeros(n), np.full(n, 10.0))
    assert found[:4] == (3.0, 3.0, 3.0, 1.0)  # 5 is half; resamples of one curve are that curve
    assert (found.draws == 3).all() and len(found.draws) == 2000
    assert reaching(np.tile(curve, (n, 1)) + 2, np.zeros(n) + 2, np.full(n, 12.0))[:4] == found[:4]
    # The first point counts, whatever comes after.
    assert reaching(np.tile(curve[::-1], (n, 1)), np.zeros(n), np.full(n, 10.0)).layer == 0


def test_what_is_never_reached_or_not_there_is_nan() -> None:
    n = 6
    low = np.full((n, 4), 1.0)
    for without, full in ((0.0, 10.0), (0.0, 0.0), (3.0, -5.0)):  # not reached; nothing to carry; less than nothing
        found = reaching(low, np.full(n, without), np.full(n, full))
        assert np.isnan([found.layer, found.low, found.high]).all() and found.share == 0
    # Half of the pairs have it: the mean of the resamples that drew enough of them reaches it.
    some = np.where(np.arange(n) < 3, 10.0, 0.0)[:, None] * np.ones(4)
    found = reaching(some, np.zeros(n), np.full(n, 10.0 - 1e-9))
    assert found.layer == 0 and 0.5 < found.share < 0.8
    # Shares count all resamples; the interval is of those that reach it.
    found = reaching(some * 0.9, np.zeros(n), np.full(n, 10.0))
    assert np.isnan(found.layer) and 0.2 < found.share < 0.5 and found.low == found.high == 0


def test_resamples_are_of_pairs_with_all_that_is_theirs() -> None:
    """Every draw by hand."""
    rng = np.random.default_rng(3)
    n, points = 7, 6
    curves = np.cumsum(rng.exponential(size=(n, points)), axis=1) + rng.normal(size=(n, 1))
    without, full = curves[:, 0] - rng.exponential(size=n), curves[:, -1] + rng.normal(size=n)
    found = reaching(curves, without, full, seed=4, n_resamples=300)
    drawn = np.random.default_rng([4, 17]).integers(n, size=(300, n))
    first = []
    for draw in drawn:
        goal = (without[draw].mean() + full[draw].mean()) / 2
        there = [i for i in range(points) if curves[draw, i].mean() >= goal]
        first.append(there[0] if there and full[draw].mean() > without[draw].mean() else np.nan)
    np.testing.assert_array_equal(found.draws, first)
    some = sorted(x for x in first if not np.isnan(x))
    assert found.share == len(some) / 300 and len(set(some)) > 1
    assert found.low == some[max(int(np.ceil(0.025 * len(some))) - 1, 0)]
    assert found.high == some[int(np.ceil(0.975 * len(some))) - 1]
    np.testing.assert_array_equal(reaching(curves, without, full, seed=4, n_resamples=300).draws, first)
    assert not np.array_equal(reaching(curves, without, full, seed=5, n_resamples=300).draws, first, equal_nan=True)


def test_the_interval_has_the_truth() -> None:
    """A curve that steps up at a point, in noise; and the control, a truth two points further, which it has not."""
    rng = np.random.default_rng(0)
    truth, held, elsewhere, wide = 4, 0, 0, 0
    for seed in range(100):
        mean = np.where(np.arange(9) < truth, 1.0, 9.0)
        curves = mean + 3 * rng.normal(size=(12, 1)) + 3 * rng.normal(size=(12, 9))
        without, full = rng.normal(size=12), 10 + rng.normal(size=12)
        found = reaching(curves, without, full, seed=seed, n_resamples=200)
        held += found.low <= truth <= found.high
        elsewhere += found.low <= truth + 2 <= found.high
        wide += found.low < found.high
    assert held >= 93 and elsewhere <= 50 and wide > 0


numbers = st.floats(-20, 20, allow_nan=False, width=32)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(float, (4, 6), elements=numbers),
    hnp.arrays(float, 4, elements=numbers),
    hnp.arrays(float, 4, elements=numbers),
    st.integers(-8, 8),
)
def test_a_layer_moves_with_nothing_that_all_share(
    curves: np.ndarray, without: np.ndarray, full: np.ndarray, shift: int
) -> None:
    """Not with a shift nor the order of pairs; and points that lie below the goal, put in front, move it by one."""
    curves, without, full = (np.round(8 * x) / 8 for x in (curves, without, full))  # so that means of 4 are exact
    found = reaching(curves, without, full, n_resamples=20)
    moved = reaching(curves + shift, without + shift, full + shift, n_resamples=20)
    np.testing.assert_array_equal(moved.draws, found.draws)
    assert moved[:4] == pytest.approx(found[:4], nan_ok=True)
    order = np.array([2, 0, 1, 3])
    again = reaching(curves[order], without[order], full[order], n_resamples=20)
    assert again.layer == pytest.approx(found.layer, nan_ok=True)
    lowest = np.minimum(without, full)[:, None] - 1
    later = reaching(np.hstack([lowest, curves]), without, full, n_resamples=20)
    assert later.layer == pytest.approx(found.layer + 1, nan_ok=True) and later.share == found.share
    if not np.isnan(found.layer):
        goal = (without.mean() + full.mean()) / 2
        means = curves.mean(0)
        point = int(found.layer)
        assert means[point] >= goal and (means[:point] < goal).all()
