"""Partial pooling over heads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions

from bayes_icl.attribute.shrinkage import _widths_of_t, pool_heads, stands_out


def sparse(seed: int, n: int = 300, null: float = 0.7, sd: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True values, most of them 0, estimates, and standard errors of several sizes."""
    rng = np.random.default_rng([seed, 21])
    truth = np.where(rng.uniform(size=n) < null, 0.0, rng.normal(0, sd, n))
    se = rng.uniform(0.5, 1.5, n)
    return truth, truth + rng.normal(0, se), se


def test_posterior_agrees_with_brute_force() -> None:
    _, x, se = sparse(0)
    pooled = pool_heads(x, se)
    assert pooled.weights.sum() == pytest.approx(1)
    assert pooled.sds[0] == 0
    for h in np.argsort(-np.abs(x))[[0, 20, 60, 100, 250]]:
        grid = np.linspace(-30, 30, 600_001)
        step = grid[1] - grid[0]
        seen = distributions.norm.pdf(x[h], grid, se[h])
        smooth = sum(
            p * distributions.norm.pdf(grid, 0, sd)
            for p, sd in zip(pooled.weights[1:], pooled.sds[1:])
            if sd > 20 * step
        )
        narrow = pooled.weights[pooled.sds <= 20 * step].sum()  # none but the atom, or as good as one
        atom = narrow * distributions.norm.pdf(x[h], 0, se[h])
        mass = smooth * seen * step
        total = mass.sum() + atom
        mass, atom = mass / total, atom / total
        assert pooled.mean[h] == pytest.approx(mass @ grid, abs=1e-4)
        under, over = mass[grid < 0].sum(), mass[grid > 0].sum()
        assert pooled.false_sign[h] == pytest.approx(atom + min(under, over), abs=1e-3)
        cdf = np.cumsum(mass) + atom * (grid >= 0)
        for found, p in ((pooled.low[h], 0.025), (pooled.high[h], 0.975)):
            assert found == pytest.approx(grid[np.searchsorted(cdf, p)], abs=2e-3)


def test_null_heads_do_not_raise_alarms() -> None:
    alarms, plain, largest = [], [], []
    for seed in range(60):
        _, x, se = sparse(seed, n=200, null=1.0)
        pooled = pool_heads(x, se)
        alarms.append((pooled.false_sign < 0.05).sum())
        plain.append((np.abs(x) > 1.96 * se).mean())
        largest.append(np.abs(pooled.mean).max())
    assert np.mean(np.array(alarms) == 0) >= 0.95
    assert np.median(largest) < 0.15
    # The control: heads tested one by one.
    assert 0.04 < np.mean(plain) < 0.06
    assert np.mean(alarms) < 0.01 * 200 * np.mean(plain)


def test_strong_heads_keep_sign_and_size() -> None:
    rng = np.random.default_rng(5)
    truth = np.zeros(270)
    truth[:6] = [9, -8, 10, 12, -11, 8]
    x = truth + rng.normal(size=270)
    pooled = pool_heads(x, np.ones(270))
    assert (pooled.false_sign[:6] < 1e-3).all()
    assert (np.sign(pooled.mean[:6]) == np.sign(truth[:6])).all()
    np.testing.assert_allclose(pooled.mean[:6], x[:6], rtol=0.1)
    rest = np.abs(pooled.mean[6:]) / np.abs(x[6:])
    assert np.median(rest) < 0.15
    # The control: among heads that are all as strong, a weak estimate is hardly shrunk.
    strong = pool_heads(np.concatenate([x[6:56], rng.normal(0, 10, 220)]), np.ones(270))
    assert np.median(np.abs(strong.mean[:50]) / np.abs(x[6:56])) > 0.3


def coverage(pool: bool, widen: float = 1.0) -> float:
    inside = []
    for seed in range(25):
        truth, x, se = sparse(seed, n=270, null=0.5)
        if pool:
            pooled = pool_heads(x, se * widen)
            inside.append((pooled.low <= truth) & (truth <= pooled.high))
        else:
            inside.append(np.abs(x - truth) < 1.96 * se * widen)
    return float(np.mean(inside))


def test_intervals_cover() -> None:
    assert 0.93 < coverage(True) < 0.97
    assert coverage(True, widen=0.7) < 0.93  # the control: standard errors that are too small


def test_few_sequences_have_the_tails_of_t() -> None:
    """Estimates of 6 sequences raise alarms where they are taken for normal ones, and not otherwise."""
    naive, right = 0, 0
    for seed in range(10):
        x = np.random.default_rng([seed, 22]).normal(size=(6, 200))
        se = x.std(0, ddof=1) / np.sqrt(6)
        naive += (pool_heads(x.mean(0), se).false_sign < 0.05).sum()
        right += (pool_heads(x.mean(0), se, dof=5).false_sign < 0.05).sum()
    assert right <= 2
    assert naive > 10


@pytest.mark.parametrize("dof", [2, 5, 31])
def test_normals_that_make_up_a_t(dof: int) -> None:
    widths, weights = _widths_of_t(dof)
    x = np.linspace(-8, 8, 201)
    density = distributions.norm.pdf(x[:, None], 0, widths) @ weights
    np.testing.assert_allclose(density, distributions.t.pdf(x, dof), atol=1e-3 if dof == 2 else 1e-6)
    # Among heads that are all large there is nothing to shrink, and the interval is that of the t.
    heads = np.random.default_rng(3).uniform(500, 1000, 300)
    pooled = pool_heads(heads, np.full(300, 1.0), dof)
    np.testing.assert_allclose(pooled.high - heads, distributions.t.ppf(0.975, dof), rtol=0.05)
    assert abs(distributions.norm.ppf(0.975) / distributions.t.ppf(0.975, 31) - 1) > 0.03  # the control


def test_heads_that_do_not_vary() -> None:
    x, se = np.array([0.0, 0.0, 1.5, -0.2, 4.0]), np.array([0.0, 0.0, 0.0, 1.0, 1.0])
    pooled = pool_heads(x, se, dof=7)
    assert pooled.mean[:3] == pytest.approx(x[:3], abs=1e-12)
    assert pooled.low[:3] == pytest.approx(x[:3], abs=1e-12)
    assert pooled.high[:3] == pytest.approx(x[:3], abs=1e-12)
    assert list(pooled.false_sign[:3]) == [1, 1, 0]
    none = pool_heads(np.zeros(4), np.zeros(4))
    assert (none.mean == 0).all() and (none.false_sign == 1).all()
    equal = pool_heads(np.zeros(4), np.ones(4))
    assert (equal.mean == 0).all() and (equal.low <= 0).all() and (equal.high >= 0).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0.01, 5)), min_size=2, max_size=20),
    st.sampled_from([1e-6, 1e-3, 1.0, 1e3]),
)
def test_pooling_has_no_unit_and_no_preferred_sign(heads: list[tuple[float, float]], unit: float) -> None:
    x, se = np.array(heads).T
    one, other = pool_heads(x, se), pool_heads(-unit * x, unit * se)
    tolerance = 1e-6 * np.abs(x).max() + 1e-9
    np.testing.assert_allclose(other.mean, -unit * one.mean, atol=unit * tolerance)
    np.testing.assert_allclose(other.false_sign, one.false_sign, atol=1e-6)
    assert (np.abs(one.mean) <= np.abs(x) + 1e-12).all()
    assert (np.sign(one.mean) * np.sign(x) >= 0).all()
    assert (one.low <= one.high).all()


def test_a_head_stands_out_when_it_surely_writes_a_twentieth() -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([[2.0, -1.5, 0.7], rng.normal(0, 0.1, 100)])
    pooled = pool_heads(x, np.full(103, 0.1))
    assert list(np.flatnonzero(stands_out(pooled, (20.0, 8.0, 32.0)))) == [0, 1]
    assert list(np.flatnonzero(stands_out(pooled, (-20.0, -32.0, -8.0)))) == [0, 1]
    # Controls: a larger delta, a smaller one, one whose interval holds 0.
    assert list(np.flatnonzero(stands_out(pooled, (35.0, 30.0, 40.0)))) == [0]
    assert list(np.flatnonzero(stands_out(pooled, (8.0, 7.0, 9.0)))) == [0, 1, 2]
    assert not stands_out(pooled, (8.0, -1.0, 17.0)).any()
    # The probability itself, against draws of the posterior of the third.
    part = rng.choice(len(pooled.sds), 200_000, p=pooled.shares[2])
    sizes = np.abs(rng.normal(pooled.centres[2, part], pooled.spreads[2, part]))
    for share, expected in ((0.04, True), (0.06, False)):
        delta = np.quantile(sizes, share) / 0.05
        assert stands_out(pooled, (delta, 0.9 * delta, 1.1 * delta))[2] == expected


# ---------------------------------------------------------------------------------------------------- accumulation


def test_pooling_by_noise_pools_what_is_in_units_of_the_errors() -> None:
    rng = np.random.default_rng(8)
    errors = rng.lognormal(0, 1, 200)
    truth = errors * np.where(rng.uniform(size=200) < 0.2, rng.normal(0, 5, 200), 0)
    estimates = truth + errors * rng.normal(size=200)
    plain, scaled = pool_heads(estimates, errors, 15), pool_heads(estimates, errors, 15, by_noise=True)
    units = pool_heads(estimates / errors, np.ones(200), 15)
    np.testing.assert_allclose(scaled.mean, units.mean * errors)
    np.testing.assert_allclose(scaled.not_above(1e-12), units.not_above(1e-12), atol=1e-6)
    assert ((scaled.mean - truth) ** 2 / errors**2).mean() < ((plain.mean - truth) ** 2 / errors**2).mean()
    # With equal errors there is no difference.
    same = pool_heads(estimates, np.ones(200), 15), pool_heads(estimates, np.ones(200), 15, by_noise=True)
    np.testing.assert_allclose(same[0].mean, same[1].mean, atol=1e-9)
