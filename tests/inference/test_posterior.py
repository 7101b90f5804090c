"""Draws with weights: intervals, resampling, numbers, and what makes a fit unreliable."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions
from simulate import prior_draws, simulate_curves

from bayes_icl.core.intervals import mean_and_interval
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.posterior import Posterior


def posterior_of(name: str, n: int = 200, seed: int = 0, **fields: float) -> Posterior:
    rng = np.random.default_rng(seed)
    h, stats = HYPOTHESES[name], summarise(simulate_curves(6, 12))
    log_weights = rng.normal(size=n)
    log_weights -= np.log(np.exp(log_weights).sum())
    return Posterior(h, prior_draws(h, stats, n, seed), log_weights, "fast", **({"ess": 1000.0} | fields))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- intervals


def by_search(x: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Width of the narrowest interval between two draws that holds the share of the weight."""
    order = np.argsort(x)
    x, weights = x[order], weights[order] / weights.sum()
    widths = [x[j] - x[i] for i in range(len(x)) for j in range(i, len(x)) if weights[i : j + 1].sum() >= share - 1e-12]
    return min(widths)


@given(st.integers(0, 200), st.integers(1, 40), st.sampled_from([0.5, 0.9, 0.95]))
@settings(deadline=None, max_examples=60)
def test_the_interval_is_the_narrowest_that_holds_its_share(seed: int, n: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    x, log_weights = rng.normal(size=n), rng.normal(size=n)
    mean, low, high = mean_and_interval(x, log_weights, share)
    weights = np.exp(log_weights)
    assert mean == pytest.approx((weights * x).sum() / weights.sum())
    inside = weights[(low <= x) & (x <= high)].sum() / weights.sum()
    assert inside >= share - 1e-9
    assert high - low == pytest.approx(by_search(x, weights, share), abs=1e-12)


def test_the_interval_of_equal_weights_is_that_of_arviz_and_of_weighted_draws_that_of_the_target() -> None:
    """20000 draws; the ends of a 95 % interval of a gamma within 0.1, the control an equal-tailed one."""
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, size=20_000)
    _, low, high = mean_and_interval(x, np.zeros(len(x)))
    np.testing.assert_allclose((low, high), az.hdi(x, hdi_prob=0.95), atol=0.01)
    wide = rng.gamma(2.0, 2.0, size=200_000)
    log_weights = distributions.gamma(2).logpdf(wide) - distributions.gamma(2, scale=2).logpdf(wide)
    mean, *ends = mean_and_interval(wide, log_weights)
    assert mean == pytest.approx(2, abs=0.05)
    np.testing.assert_allclose(ends, (low, high), atol=0.1)
    assert abs(np.quantile(x, [0.025, 0.975]) - (low, high)).min() > 0.15


# --------------------------------------------------------------------------------------------- resampling


def test_resampling_is_systematic() -> None:
    """Every draw is there as often as its weight says, to within one."""
    posterior = posterior_of("power", 200)
    equal = posterior.equal(5000)
    assert len(equal.log_weights) == 5000 and np.exp(equal.log_weights).sum() == pytest.approx(1)
    assert np.ptp(equal.log_weights) == 0
    values, counts = np.unique(equal.params["a"][:, 0], return_counts=True)
    expected = dict(zip(posterior.params["a"][:, 0], 5000 * np.exp(posterior.log_weights)))
    assert all(abs(count - expected[value]) < 1 for value, count in zip(values, counts))
    # Parameters stay together.
    where = {a: i for i, a in enumerate(posterior.params["a"][:, 0])}
    at = [where[a] for a in equal.params["a"][:, 0]]
    np.testing.assert_array_equal(equal.params["gain"], posterior.params["gain"][at])
    # In random order, so that any part of them stands for all.
    assert abs(np.corrcoef(np.arange(5000), at)[0, 1]) < 0.06
    np.testing.assert_array_equal(posterior.equal(50).params["a"], posterior.equal(50).params["a"])
    assert not np.array_equal(posterior.equal(50).params["a"], posterior.equal(50, seed=1).params["a"])


def test_equal_weights_are_thinned_in_order() -> None:
    """Chains stay chains."""
    flat = posterior_of("power", 200).at(np.arange(200))
    assert np.exp(flat.log_weights).sum() == pytest.approx(1)
    np.testing.assert_array_equal(flat.equal(200).params["a"], flat.params["a"])
    few = flat.equal(20).params["a"][:, 0]
    at = [int(np.flatnonzero(flat.params["a"][:, 0] == a)[0]) for a in few]
    assert at == sorted(set(at))


# --------------------------------------------------------------------------------------------- numbers and faults


@pytest.mark.parametrize("name", HYPOTHESES)
def test_numbers_are_those_of_the_parameters_with_gain_and_delta(name: str) -> None:
    posterior = posterior_of(name)
    h, curves = posterior.hypothesis, simulate_curves(6, 12, n_min=2)
    stats = summarise(curves)
    numbers = posterior.numbers(stats)
    vectors = {p for p, prior in h.all_priors.items() if prior.length}
    assert set(numbers) == (set(h.parameters) - vectors) | ({"gain", "delta"} if h.has_gain else set())
    assert all(x.shape == (200,) for x in numbers.values())
    if h.has_gain:
        np.testing.assert_allclose(numbers["delta"], numbers["gain"] / 10)
    if h.in_nats:
        g = h.curve(np, np.array([2.0, 12.0]), **{p: posterior.params[p] for p in h.priors})
        np.testing.assert_allclose(numbers["gain"], g[:, 1] - g[:, 0])
    elif h.has_gain:
        np.testing.assert_array_equal(numbers["gain"], posterior.params["gain"][:, 0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rhat_max": 1.02}, "R-hat 1.020"),
        ({"ess": 399.0}, "ESS 399"),
        ({"ess": np.nan}, "ESS nan"),
        ({"divergences": 3}, "3 divergences"),
        ({"k_hat": 0.71}, "Pareto k 0.71"),
        ({"k_hat": np.inf}, "Pareto k inf"),
    ],
)
def test_a_fit_that_cannot_be_relied_on_says_why(fields: dict[str, float], said: str) -> None:
    (fault,) = posterior_of("additive", 4000, **fields).faults
    assert said in fault
    # The control: at the limit nothing is wrong.
    assert not posterior_of("additive", 4000, rhat_max=1.01, ess=400.0, k_hat=0.7).faults
    # Where most draws count, weights are all but equal, and the shape of their tail says nothing.
    assert not posterior_of("additive", 4000, ess=2001.0, k_hat=0.9).faults
    assert not posterior_of("additive", rhat_max=np.nan, k_hat=np.nan).faults
