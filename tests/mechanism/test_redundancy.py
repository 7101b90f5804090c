"""How redundant heads are: each ablated alone, who takes over, how many can go."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import xarray as xr
from by_hand import by_hooks, forward, odds_by_hand
from handmade import random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom
from scipy.stats import t as student

from bayes_icl.collect import collect_curves
from bayes_icl.lens.edits import Edits, heads_replaced
from bayes_icl.lens.sweeps import Row
from bayes_icl.mechanism.ablation_values import AblationValues, edits_from
from bayes_icl.mechanism.direct_effects import direct_effects
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.head_names import Heads, by_layer
from bayes_icl.mechanism.redundancy import (
    SingleAblations,
    ablate_each,
    ablate_sets,
    counts_ablated,
    half_gone,
    name_backups,
    orders,
    stack,
)
from bayes_icl.mechanism.thresholds import BACKUP_ALPHA, BACKUP_LEAST
from bayes_icl.mechanism.transfer import pairs_of, permuted
from bayes_icl.models import Model
from bayes_icl.tasks import load_tasks

N = 3
FAMILIES = ["llama", "gpt2"]  # no norm after attention, whose scale the direct effects below would have in them
GONE: Heads = [(0, 2), (1, 1)]
ALL = [(layer, head) for layer in range(2) for head in range(4)]


@pytest.fixture(scope="module")
def model_of(tiny: Model) -> Callable[[str], Model]:
    return functools.cache(lambda name: random_model(name, tiny))


@pytest.fixture(scope="module")
def curves(model_of: Callable[[str], Model]) -> xr.Dataset:
    return collect_curves(model_of("llama"), load_tasks(["past_tense"]), n_shots=N, n_seqs=6)


@pytest.fixture(scope="module")
def runs(model_of: Callable[[str], Model], curves: xr.Dataset) -> list[Episode]:
    return [pair.a for pair in pairs_of(model_of("llama"), curves, "past_tense", n_examples=N)]


def given_in(model: Model, runs: list[Episode], kind: str = "mean") -> torch.Tensor:
    """What replaces the first run's heads, shape (layer, pos, head, d_head)."""
    return AblationValues(model.anatomy, runs, [permuted(run, N, 0) for run in runs]).of(runs[0].seq, kind)[0]


def everywhere(run: Episode) -> np.ndarray:
    """But at the first token."""
    return np.arange(len(run.prompt.tokens)) > 0


def last(run: Episode) -> np.ndarray:
    return np.arange(len(run.prompt.tokens)) == len(run.prompt.tokens) - 1


def both(one: Edits, other: Edits) -> Edits:
    """Edits of two sets of heads."""
    found = dict(one)
    for layer, (heads, values) in other.items():
        own, before = one.get(layer, ([], values[:, :, :0]))
        found[layer] = ([*own, *heads], torch.cat([before, values], 2))
    return found


# ------------------------------------------------------------------------------------------------- one by one


@pytest.mark.parametrize("gone", [[], GONE])
@pytest.mark.parametrize("at_all", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_head_is_a_run_of_its_own_without_it(
    model_of: Callable[[str], Model], runs: list[Episode], name: str, at_all: bool, gone: Heads
) -> None:
    """A whole pass with its output replaced, along the direction of the run before; what is lost is taken apart."""
    model, run = model_of(name), runs[0]
    z = given_in(model, runs)
    z[:, 0] += 1  # the first token is left alone
    edits = edits_from(gone, z, everywhere(run))
    found = ablate_each(model.anatomy, run, z, edits=edits or None, everywhere=at_all)
    along = direct_effects(model.anatomy, [run]).direction  # with all heads
    with heads_replaced(model.anatomy, edits):
        clean = direct_effects(model.anatomy, [run])
        whole = direct_effects(model.anatomy, [run], along=along)
    for layer, head in ALL:
        own = SingleAblations(*(float(x[layer, head]) for x in found))  # type: ignore[arg-type]
        assert own.direct == pytest.approx(float(whole.head[0, layer, head]), abs=1e-5)
        if (layer, head) in gone:
            assert np.isnan([own.lost, own.taken, own.other_heads, own.mlps, own.norm]).all()
            continue
        without = both(edits, edits_from([(layer, head)], z, everywhere(run) if at_all else last(run)))
        with heads_replaced(model.anatomy, without):
            after = direct_effects(model.anatomy, [run], along=clean.direction)
        with by_hooks(model, 0, Row(0), without):
            odds = odds_by_hand(forward(model, run.prompt.tokens)[-1], int(run.target.correct[0]))
        change = (after.head - clean.head)[0].astype(float)
        expected = {
            "lost": clean.log_odds[0] - odds,
            "taken": -change[layer, head],
            "other_heads": change.sum() - change[layer, head],
            "mlps": float((after.mlp - clean.mlp).sum()),
        }
        for part, x in expected.items():
            assert getattr(own, part) == pytest.approx(x, abs=5e-5), part
        assert own.lost == pytest.approx(own.taken - own.other_heads - own.mlps - own.norm, abs=1e-9)
        if layer == 1 and not at_all:  # nothing after it but an MLP: heads beside it cannot make up
            assert own.other_heads == pytest.approx(0, abs=1e-5)
    assert np.allclose(clean.head, whole.head, atol=1e-5) == (not gone)  # the control: the direction has moved
    moved = np.abs(found.lost[~np.isnan(found.lost)])
    assert (moved > 1e-4).all() and np.nanmax(np.abs(found.norm)) > 1e-3  # the control


@pytest.mark.parametrize("name", FAMILIES)
def test_ablating_everywhere_is_another_thing(model_of: Callable[[str], Model], runs: list[Episode], name: str) -> None:
    """But for what a head removes itself, in the last layer, and there all else too."""
    model, z = model_of(name), given_in(model_of(name), runs)
    here, all_over = (ablate_each(model.anatomy, runs[0], z, everywhere=x) for x in (False, True))
    for one, other in zip(here[:5], all_over[:5]):
        np.testing.assert_allclose(one[1], other[1], atol=2e-5)
    np.testing.assert_allclose(here.taken, all_over.taken, atol=2e-5)
    assert np.abs(here.lost[0] - all_over.lost[0]).max() > 1e-3


def test_heads_that_were_not_asked_for_are_nan(model_of: Callable[[str], Model], runs: list[Episode]) -> None:
    model, z = model_of("llama"), given_in(model_of("llama"), runs)
    whole, some = ablate_each(model.anatomy, runs[0], z), ablate_each(model.anatomy, runs[0], z, heads=[(1, 3), (0, 1)])
    for x, y in zip(whole[:5], some[:5]):
        asked = np.zeros((2, 4), bool)
        asked[1, 3] = asked[0, 1] = True
        np.testing.assert_allclose(y[asked], x[asked], atol=1e-6)
        assert np.isnan(y[~asked]).all()
    edits = edits_from(GONE, z, everywhere(runs[0]))
    none = ablate_each(model.anatomy, runs[0], z, edits=edits, heads=[GONE[0]])
    assert np.isnan(none.lost).all() and np.isfinite(none.direct).all()
    stacked = stack([whole, some])
    assert all(x.shape == (2, 2, 4) for x in stacked)
    np.testing.assert_array_equal(stacked.lost[0], whole.lost)


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_is_on_the_examples_from_the_last_token(
    model_of: Callable[[str], Model], runs: list[Episode], name: str
) -> None:
    """As an eager run outputs it, summed over the tokens before the query's, but for the first."""
    model, run = model_of(name), runs[0]
    z = given_in(model, runs)
    for edits in ({}, edits_from(GONE, z, everywhere(run))):
        found = ablate_each(model.anatomy, run, z, edits=edits).attention
        model.hf.set_attn_implementation("eager")
        try:
            with by_hooks(model, 0, Row(0), edits), torch.inference_mode():
                patterns = model.hf(torch.from_numpy(run.prompt.tokens)[None], output_attentions=True).attentions
        finally:
            model.hf.set_attn_implementation("sdpa")
        shown = torch.from_numpy((run.places.shot >= 0) & (run.places.shot < N))
        expected = np.stack([pattern[0, :, -1, shown].sum(-1).numpy() for pattern in patterns])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert (found > 0.01).all() and (found < 0.99).any()


# ------------------------------------------------------------------------------------------------- in sets


@pytest.mark.parametrize("where", ["everywhere", "last", "answers"])
@pytest.mark.parametrize("name", [*FAMILIES, "gemma3"])
def test_sets_of_heads_are_hooked_runs(
    model_of: Callable[[str], Model], runs: list[Episode], name: str, where: str
) -> None:
    model, run = model_of(name), runs[0]
    z = given_in(model, runs, "resample")
    z[:, 0] += 1  # the first token is left alone
    answers = (run.places.role == 2) & (run.places.shot >= 0) & (run.places.shot < N)
    at = {"everywhere": None, "last": last(run), "answers": answers}[where]
    sets: list[Heads] = [[(1, 2)], [(0, 1), (1, 0), (0, 3)], ALL, [(0, 0)]]
    found = ablate_sets(model.anatomy, run, z, sets, at)
    correct = int(run.target.correct[0])
    plain = odds_by_hand(forward(model, run.prompt.tokens)[-1], correct)
    for heads, odds in zip(sets, found):
        assert set(by_layer(heads)) == {layer for layer, _ in heads}
        with by_hooks(model, 0, Row(0), edits_from(heads, z, everywhere(run) if at is None else at)):
            expected = odds_by_hand(forward(model, run.prompt.tokens)[-1], correct)
        assert odds == pytest.approx(expected, abs=3e-5)
    moves = [abs(odds - plain) > 1e-4 for odds in found]
    # In the last layer, what examples' answers are told reaches no other token.
    assert moves == [where != "answers", True, True, True]


def test_heads_are_ablated_in_powers_of_two() -> None:
    assert counts_ablated(1) == [1] and counts_ablated(8) == [1, 2, 4, 8]
    assert counts_ablated(9) == [1, 2, 4, 8, 9] and counts_ablated(270) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 270]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 2000))
def test_counts_double_and_end_with_all(n: int) -> None:
    found = counts_ablated(n)
    assert found[0] == 1 and found[-1] == n and found == sorted(set(found))
    assert all(b <= 2 * a for a, b in itertools.pairwise(found))


def test_orders_have_every_head_once_and_the_costly_first() -> None:
    """By the even pairs alone, since the odd ones are measured."""
    rng = np.random.default_rng(0)
    lost = rng.normal(size=(9, 3, 4))
    found = orders(lost, 2, 7)
    heads = [(i, j) for i in range(3) for j in range(4)]
    assert list(found) == ["best first", "random 1", "random 2"]
    assert all(sorted(order) == heads for order in found.values())
    mean = lost[[0, 2, 4, 6, 8]].mean(0)
    costs = [mean[head] for head in found["best first"]]
    assert costs == sorted(costs, reverse=True)
    other = lost.copy()
    other[1::2] = rng.normal(size=other[1::2].shape)
    assert orders(other, 2, 7) == found and orders(other[1:], 2, 7)["best first"] != found["best first"]
    assert found["random 1"] != found["random 2"] and orders(lost, 2, 8)["random 1"] != found["random 1"]
    assert list(orders(lost, 0, 7)) == ["best first"]


# ------------------------------------------------------------------------------------------------- how many can go


def test_half_is_gone_where_a_known_curve_crosses_it() -> None:
    """In a straight line between the counts; from all heads to the first count too."""
    full, without = np.full(4, 10.0), np.zeros(4)
    curve = np.tile([8.0, 4.0, 1.0], (4, 1))
    assert half_gone(curve, [1, 2, 4], without, full) == pytest.approx((1.75, 1.75, 1.75))
    assert half_gone(curve - 4, [1, 2, 4], without, full)[0] == pytest.approx(5 / 6)  # 10 to 4 at 1: 5 at 5/6
    assert half_gone(curve + 3, [1, 2, 4], without, full)[0] == pytest.approx(2 + 2 * 2 / 3)  # 7 to 4 between 2 and 4
    assert half_gone(curve + 7, [1, 2, 4], without + 7, full + 7)[0] == pytest.approx(1.75)


def test_half_that_is_never_gone_is_nan() -> None:
    full, without = np.full(4, 10.0), np.zeros(4)
    assert np.isnan(half_gone(np.full((4, 2), 6.0), [1, 2], without, full)).all()
    assert np.isnan(half_gone(np.full((4, 2), -1.0), [1, 2], full, without)).all()  # nothing was there
    half = np.where(np.arange(4) < 2, 9.0, 0.5)[:, None] * np.ones(2)  # 4.75 on average, and 9 in some resamples
    found = half_gone(half, [1, 2], without, full)
    assert 0 < found[1] < found[0] <= found[2] <= 1


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(float, 5, elements=st.floats(0, 5, allow_nan=False), unique=True),
    st.floats(0.1, 5),
    st.integers(0, 3),
)
def test_half_gone_is_the_inverse_of_a_falling_curve(steps: np.ndarray, gain: float, shift: int) -> None:
    """By numpy's own interpolation."""
    counts = [1, 2, 4, 8, 11]
    curve = gain - np.cumsum(np.sort(steps) + 1e-3) + shift
    full, without = np.full(2, gain + shift), np.full(2, float(shift))
    found = half_gone(np.tile(curve, (2, 1)), counts, without, full, n_resamples=5)
    goal = shift + gain / 2
    if curve[-1] > goal + 1e-9:
        assert np.isnan(found).all()
    elif curve[-1] < goal - 1e-9:
        at = np.interp(-goal, -np.array([gain + shift, *curve]), [0, *counts])
        assert found == pytest.approx((at, at, at), abs=1e-6)


def test_the_interval_of_half_gone_has_the_truth() -> None:
    """In 95 of 100 simulations, or not so few that it cannot be; the control: not twice that number."""
    rng, counts, n_sims = np.random.default_rng(0), [1, 2, 4, 8, 16], 200
    mean = 10 - 0.8 * np.array(counts, float)  # half of 10 is gone at 6.25
    held = elsewhere = 0
    for seed in range(n_sims):
        own = rng.normal(size=(16, 1))
        curves = mean + own + 0.7 * rng.normal(size=(16, 5))
        full, without = 10 + own[:, 0] + 0.3 * rng.normal(size=16), own[:, 0] + 0.3 * rng.normal(size=16)
        _, low, high = half_gone(curves, counts, without, full, seed=seed, n_resamples=200)
        held += low <= 6.25 <= high
        elsewhere += low <= 12.5 <= high
    # A percentile bootstrap of 16 pairs covers some 92 %.
    assert binom.ppf(0.001, n_sims, 0.92) <= held <= binom.ppf(0.9999, n_sims, 0.97) and elsewhere == 0


# ------------------------------------------------------------------------------------------------- who takes over


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """`multipletests` collects garbage, which takes 100 times as long as the rest."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


def noise(seed: int, n: int = 24, shape: tuple[int, int] = (6, 5)) -> tuple[np.ndarray, np.ndarray]:
    """What heads cost before and after, where none of them takes over; the cost differs by head and by pair."""
    rng = np.random.default_rng(seed)
    before = rng.normal(size=(1, *shape)) + 0.3 * rng.normal(size=(n, *shape))
    return before, before + 0.2 * rng.standard_t(8, size=(n, *shape))


def growths(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean growth on the even pairs, and p of a one-sided t-test, by hand."""
    x = (after - before)[::2]
    t = x.mean(0) / (x.std(0, ddof=1) / len(x) ** 0.5)
    return x.mean(0), student.sf(t, len(x) - 1)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction by hand."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected[np.argsort(order)]


def test_a_planted_backup_is_named(quickly: None) -> None:
    """All of several, the largest first, with the p that a test by hand gives."""
    before, after = noise(0)
    after[:, 2, 3] += 1.0
    after[:, 4, 0] += 2.0
    found = name_backups(before, after, np.full(24, 3.0))
    assert [one.head for one in found] == [(4, 0), (2, 3)]
    _, p = growths(before, after)
    expected = holm(p.ravel()).reshape(p.shape)
    assert [one.p_holm for one in found] == pytest.approx([expected[one.head] for one in found], rel=1e-6)
    assert [one.head for one in name_backups(before, after, np.full(24, 3.0), most=1)] == [(4, 0)]
    # A head that is gone is none, and is not counted among those corrected for.
    after[:, 4, 0] = np.nan
    (one,) = name_backups(before, after, np.full(24, 3.0))
    p = np.delete(p.ravel(), 20)
    assert one.head == (2, 3) and one.p_holm == pytest.approx(holm(p)[13], rel=1e-6)


def test_a_growth_that_does_not_matter_names_nobody(quickly: None) -> None:
    before, after = noise(1)
    after[:, 1, 1] += 1.0
    mean = growths(before, after)[0][1, 1]
    assert name_backups(before, after, np.full(24, 0.999 * mean / BACKUP_LEAST))
    assert not name_backups(before, after, np.full(24, 1.001 * mean / BACKUP_LEAST))
    assert not name_backups(before, after, np.zeros(24)) and not name_backups(before, after, np.full(24, -1.0))
    assert not name_backups(before[:2], after[:2], np.ones(2))  # one pair to choose on
    assert not name_backups(before, after - 3, np.full(24, 1.0))  # costs less than before


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.15, 0.3, 1.0]))
def test_backups_are_those_of_the_definition(seed: int, planted: float) -> None:
    """By hand, over the even pairs; whatever the odd ones, on which growth is measured, are."""
    before, after = noise(seed, n=16, shape=(3, 4))
    rng = np.random.default_rng(seed)
    after[:, rng.integers(3), rng.integers(4)] += planted
    rule = np.abs(rng.normal(size=16)) + 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda *_: 0)
        found = name_backups(before, after, rule)
        odd = after.copy()
        odd[1::2] = rng.normal(size=odd[1::2].shape)
        other = rule.copy()
        other[1::2] = 50.0
        assert name_backups(before, odd, other) == found
    mean, p = growths(before, after)
    sure = holm(p.ravel()).reshape(p.shape) <= BACKUP_ALPHA
    expected = np.argwhere(sure & (mean >= BACKUP_LEAST * rule[::2].mean()))
    assert {one.head for one in found} == {tuple(head) for head in expected.tolist()}
    means = [mean[one.head] for one in found]
    assert means == sorted(means, reverse=True)


def test_noise_names_a_head_in_one_simulation_of_twenty(quickly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 simulations of 30 heads: no more than 99.9 % of draws at 5 % have; without the correction, most do."""
    n_sims, bound = 400, int(binom.ppf(0.999, 400, BACKUP_ALPHA))
    rule = np.full(24, 1e-9)  # so that any growth is large enough
    named = sum(bool(name_backups(*noise(seed), rule)) for seed in range(n_sims))
    assert 0 < named <= bound < 0.1 * n_sims
    plain: Callable[..., tuple] = lambda p, alpha, method: (p < alpha, p)  # noqa: E731
    monkeypatch.setattr("statsmodels.stats.multitest.multipletests", plain)
    uncorrected = sum(bool(name_backups(*noise(seed), rule)) for seed in range(n_sims))
    assert uncorrected > 0.6 * n_sims


def test_a_real_backup_is_hardly_ever_missed(quickly: None) -> None:
    """Growth of a nat, where its spread over pairs is a third of that: the control of the bound above."""
    found = 0
    for seed in range(100):
        before, after = noise(seed)
        after[:, 3, 2] += 1.0 + 0.3 * np.random.default_rng(seed).normal(size=24)
        heads: Sequence = [one.head for one in name_backups(before, after, np.full(24, 2.0))]
        found += (3, 2) in heads
    assert found >= 99
