"""Smoothed weights against ArviZ, and a tail whose shape is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bayes_icl.inference.psis import pareto_k, smooth


def with_ties(rng: np.random.Generator) -> np.ndarray:
    """Weights in few steps, so that tails of different lengths lie above the cut."""
    return np.round(rng.normal(size=(1000, 12)) * np.arange(1, 13)) / 4


def with_minus_inf(rng: np.random.Generator) -> np.ndarray:
    """From a few draws without weight to all but a few."""
    x = rng.normal(size=(1000, 10)) * 3
    for column, share in enumerate([0.001, 0.1, 0.5, 0.75, 0.8, 0.9, 0.99, 0.994, 0.995, 0.999]):
        x[rng.permutation(1000)[: int(1000 * share)], column] = -np.inf
    return x


CASES = {
    "normal": lambda rng: rng.normal(size=(1000, 20)),
    "shifted": lambda rng: rng.normal(size=(1000, 5)) + 1e4 * np.arange(5),
    "student": lambda rng: rng.standard_t(3, size=(1000, 20)),
    "heavy": lambda rng: rng.standard_cauchy(size=(1000, 20)) * 10,
    "narrow": lambda rng: rng.normal(size=(1000, 10)) * 1e-6,
    "bounded": lambda rng: np.log(rng.uniform(size=(1000, 10))),
    "steep": lambda rng: -(np.arange(1, 1001.0)[:, None] ** np.array([0.5, 1, 2, 3])),
    "constant": lambda rng: np.full((1000, 3), [0.0, 7.0, -800.0]),
    "one other": lambda rng: np.where(np.arange(1000)[:, None] == 5, 3.0, np.zeros((1000, 2))),
    "a tail of equals": lambda rng: np.where(np.arange(1000)[:, None] % 20 == 0, 3.0, np.zeros((1000, 2))),
    "tied": with_ties,
    "minus inf": with_minus_inf,
    **{f"{n} draws": lambda rng, n=n: rng.normal(size=(n, 6)) * 2 for n in (2, 5, 20, 21, 24, 25, 26, 100, 225, 4000)},
}


def by_arviz(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import arviz as az

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        smoothed, k = az.psislw(log_weights.T.copy())
    return smoothed.T, k


@pytest.mark.parametrize("case", CASES)
def test_equals_arviz(case: str) -> None:
    log_weights = CASES[case](np.random.default_rng(0))
    before = log_weights.copy()
    smoothed, k = smooth(log_weights)
    expected, expected_k = by_arviz(log_weights)
    np.testing.assert_array_equal(log_weights, before)
    np.testing.assert_allclose(k, expected_k, rtol=0, atol=1e-10)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.exp(smoothed).sum(0), 1)


def test_the_cases_hold_what_they_are_named_for() -> None:
    rng = np.random.default_rng(0)
    assert np.isinf(smooth(CASES["constant"](rng))[1]).all()
    assert np.isfinite(smooth(CASES["tied"](rng))[1]).sum() > 6
    k = smooth(CASES["minus inf"](rng))[1]
    assert np.isinf(k).any() and np.isfinite(k).sum() > 5


@pytest.mark.parametrize("k", [0.2, 0.5, 0.7, 1.0])
def test_recovers_a_known_shape(k: float) -> None:
    # exp(k E) with E exponential is exactly Pareto with shape k. The tail of 20000 draws is 425 of them, so the sd of
    # an estimate is about (1 + k) / sqrt(425); the mean of 64 columns is within 4 of its own.
    draws = k * np.random.default_rng(1).exponential(size=(20_000, 64))
    estimates = smooth(draws)[1]
    prior_pull = 10 * (0.5 - k) / (425 + 10)
    assert abs(estimates.mean() - k - prior_pull) < 4 * (1 + k) / np.sqrt(425 * 64)
    assert 0.7 < estimates.std(ddof=1) / ((1 + k) / np.sqrt(425)) < 1.3


def test_one_column_is_the_same() -> None:
    log_weights = np.random.default_rng(2).normal(size=(500, 3)) * 2
    assert [pareto_k(column) for column in log_weights.T] == pytest.approx(smooth(log_weights)[1], abs=1e-12)
    assert isinstance(pareto_k(log_weights[:, 0]), float)


@pytest.mark.parametrize("above", [[1e-17] * 50, [1e-17] * 40 + [2e-17] * 10])
def test_equal_but_for_rounding_is_left_raw(above: list[float]) -> None:
    """Some lie above the cut, by nothing once they are exponentiated; ArviZ 0.23 gives k = 0.08 and NaN weights."""
    log_weights = np.array([above + [0.0] * 950] * 3).T
    smoothed, k = smooth(log_weights)
    np.testing.assert_allclose(smoothed, -np.log(1000))
    assert np.isinf(k).all()
    assert np.isnan(by_arviz(log_weights)[0]).all()


def test_one_draw_and_no_columns() -> None:
    smoothed, k = smooth(np.array([[3.0]]))
    assert smoothed.tolist() == [[0.0]] and np.isinf(k).all()
    assert smooth(np.zeros((10, 0)))[0].shape == (10, 0)
