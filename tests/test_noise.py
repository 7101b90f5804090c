"""The likelihood with everything latent integrated out, against dense normal densities and plain simulation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from bayes_icl import noise
from bayes_icl.noise import JITTER, Statistics, summarise

SIZES = [(1, 1), (1, 2), (2, 3), (5, 8), (40, 5), (7, 31)]  # (sequences, updates)


class Case(NamedTuple):
    """Random curves and one value of every parameter, with no relation to each other."""

    log_odds: np.ndarray
    stats: Statistics
    f: np.ndarray
    gain: float
    gain_sd: float
    level: float
    walk: float

    @property
    def u(self) -> np.ndarray:
        return self.f @ self.stats.transform

    @property
    def v(self) -> np.ndarray:
        return noise.variances(self.stats, self.level, self.walk)


def case(n_seqs: int, n_updates: int, seed: int, spread: float = 3.0) -> Case:
    rng = np.random.default_rng([seed, n_seqs, n_updates])
    log_odds = rng.normal(0, 20, size=(n_seqs, 1)) + rng.normal(0, spread, size=(n_seqs, n_updates + 1))
    f = rng.dirichlet(np.ones(n_updates)) if n_updates > 1 else np.ones(1)
    gain, (gain_sd, level, walk) = rng.normal(0, 5), rng.uniform(0.05, 3, size=3)
    return Case(log_odds, summarise(log_odds, np.arange(n_updates + 1.0)), f, gain, gain_sd, level, walk)


def dense(c: Case, f: np.ndarray | None = None) -> Any:
    """The distribution of a sequence's differences, from the covariance of its curve written out shot by shot."""
    f = c.f if f is None else f
    shot = np.arange(len(f) + 1)
    law = np.concatenate([[0], np.cumsum(f)])
    curve = (
        c.level**2 * np.eye(len(shot)) + c.walk**2 * np.minimum.outer(shot, shot) + c.gain_sd**2 * np.outer(law, law)
    )
    d = np.diff(np.eye(len(shot)), axis=0)
    jitter = JITTER * c.stats.scale**2 * np.eye(len(f))
    return multivariate_normal(c.gain * f, d @ curve @ d.T + jitter)


def densities(c: Case, f: np.ndarray | None = None) -> np.ndarray:
    return np.atleast_1d(dense(c, f).logpdf(np.diff(c.log_odds, axis=1)))


def steps_by_brute_force(c: Case, log_weights: np.ndarray) -> np.ndarray:
    """Per sequence: a mixture over where f jumps from 0 to 1, the last component not at all."""
    directions = np.vstack([np.eye(len(c.f)), np.zeros(len(c.f))])
    return logsumexp(np.stack([densities(c, f) for f in directions]) + log_weights[:, None], axis=0)


def log_weights_of(n_updates: int, seed: int) -> np.ndarray:
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(n_updates + 1)))


# --------------------------------------------------------------------------------------------- the sine transform


@given(st.integers(1, 70))
@settings(deadline=None, max_examples=40)
def test_sine_transform_is_orthogonal_and_diagonalises_differenced_level_noise(k: int) -> None:
    v, eigenvalues = noise.sine_transform(k)
    tridiagonal = 2 * np.eye(k) - np.eye(k, k=1) - np.eye(k, k=-1)
    np.testing.assert_allclose(v @ v.T, np.eye(k), atol=1e-12)
    np.testing.assert_allclose(v, v.T, atol=1e-12)  # that step hypotheses may take its rows for its columns
    np.testing.assert_allclose(v @ tridiagonal @ v, np.diag(eigenvalues), atol=1e-12)


# --------------------------------------------------------------------------------------------- likelihoods


@pytest.mark.parametrize(("n_seqs", "n_updates"), SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_total_log_likelihood_is_the_sum_of_dense_densities(n_seqs: int, n_updates: int, seed: int) -> None:
    c = case(n_seqs, n_updates, seed)
    total = noise.total_log_likelihood(np, c.stats, c.gain * c.u, c.u, c.v, c.gain_sd)
    assert total == pytest.approx(densities(c).sum(), rel=1e-7)
    # The control: that much agreement is not to be had with any parameter 2 % off.
    for name in ("gain", "gain_sd", "level", "walk"):
        off = c._replace(**{name: getattr(c, name) * 1.02})
        assert densities(off).sum() != pytest.approx(total, rel=1e-7), name


def test_mean_and_direction_of_random_gains_are_separate() -> None:
    """As `constant` (mean 0) and `freeform` (mean of another shape) need it."""
    c = case(6, 9, 0)
    other = np.random.default_rng(1).normal(size=9)
    d = dense(c)
    expected = multivariate_normal(other, d.cov).logpdf(np.diff(c.log_odds, axis=1)).sum()
    total = noise.total_log_likelihood(np, c.stats, other @ c.stats.transform, c.u, c.v, c.gain_sd)
    assert total == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n_seqs", "n_updates"), SIZES)
def test_log_likelihood_of_each_sequence_under_each_draw(n_seqs: int, n_updates: int) -> None:
    base = case(n_seqs, n_updates, 0)
    draws = [base._replace(**case(n_seqs, n_updates, seed)._asdict() | {"log_odds": base.log_odds, "stats": base.stats})
             for seed in range(1, 6)]  # fmt: skip
    u, v = np.stack([d.u for d in draws]), np.stack([d.v for d in draws])
    gain, gain_sd = np.array([d.gain for d in draws]), np.array([d.gain_sd for d in draws])
    found = noise.log_likelihood(base.stats, gain[:, None] * u, u, v, gain_sd)
    assert found.shape == (5, n_seqs)
    np.testing.assert_allclose(found, [densities(d) for d in draws], rtol=1e-9, atol=1e-9)
    totals = [noise.total_log_likelihood(np, d.stats, d.gain * d.u, d.u, d.v, d.gain_sd) for d in draws]
    np.testing.assert_allclose(found.sum(1), totals, rtol=1e-10)


@pytest.mark.parametrize(("n_seqs", "n_updates"), SIZES)
def test_steps_are_a_mixture_of_dense_densities(n_seqs: int, n_updates: int) -> None:
    c, log_weights = case(n_seqs, n_updates, 0), log_weights_of(n_updates, 3)
    expected = steps_by_brute_force(c, log_weights)
    total = noise.total_log_likelihood_of_steps(np, c.stats, log_weights, c.v, c.gain, c.gain_sd)
    assert total == pytest.approx(expected.sum(), rel=1e-7)
    # Two draws with parameters of their own, so that a wrong broadcast shows.
    d = c._replace(gain=-c.gain, gain_sd=2 * c.gain_sd, level=0.5 * c.level)
    other = log_weights_of(n_updates, 4)
    found = noise.log_likelihood_of_steps(
        c.stats,
        np.stack([log_weights, other]),
        np.stack([c.v, d.v]),
        np.array([c.gain, d.gain]),
        np.array([c.gain_sd, d.gain_sd]),
    )
    np.testing.assert_allclose(found, [expected, steps_by_brute_force(d, other)], rtol=1e-9, atol=1e-9)


def test_the_later_component_counts() -> None:
    """The control of the mixture: without `later`, or with its weight given to the last update, the number differs."""
    c, log_weights = case(8, 6, 0), log_weights_of(6, 3)
    total = noise.total_log_likelihood_of_steps(np, c.stats, log_weights, c.v, c.gain, c.gain_sd)
    without = log_weights.copy()
    without[-1] = -1e9
    moved = np.append(np.append(log_weights[:-2], logsumexp(log_weights[-2:])), -1e9)
    for changed in (without, moved):
        found = noise.total_log_likelihood_of_steps(np, c.stats, changed, c.v, c.gain, c.gain_sd)
        assert found == pytest.approx(steps_by_brute_force(c, changed).sum(), rel=1e-7)
        assert abs(found - total) > 0.1


def test_a_step_far_beyond_the_noise_does_not_overflow() -> None:
    """A thousand noise sds: the exponentials must be taken after the largest is subtracted."""
    c = case(3, 8, 0)._replace(level=0.01, walk=0.01, gain=300.0)
    curves = np.where(np.arange(9) >= 4, 300.0, 0.0) + np.random.default_rng(0).normal(0, 0.01, size=(3, 9))
    c = c._replace(log_odds=curves, stats=summarise(curves, np.arange(9.0)))
    log_weights = log_weights_of(8, 0)
    total = noise.total_log_likelihood_of_steps(np, c.stats, log_weights, c.v, c.gain, c.gain_sd)
    assert np.isfinite(total)
    assert total == pytest.approx(steps_by_brute_force(c, log_weights).sum(), rel=1e-7)


def test_pytensor_gives_the_numbers_of_numpy() -> None:
    c, log_weights = case(7, 10, 0), log_weights_of(10, 3)
    tensors = SimpleNamespace(
        **{name: pt.as_tensor(np.asarray(getattr(c.stats, name), float)) for name in Statistics.__dataclass_fields__}
    )
    level, walk, gain, gain_sd = (pt.dscalar(name) for name in ("level", "walk", "gain", "gain_sd"))
    v = noise.variances(tensors, level, walk)
    u = pt.as_tensor(c.u)
    outputs = [
        noise.total_log_likelihood(pt, tensors, gain * u, u, v, gain_sd),
        noise.total_log_likelihood_of_steps(pt, tensors, pt.as_tensor(log_weights), v, gain, gain_sd),
    ]
    call = pytensor.function([level, walk, gain, gain_sd], outputs, mode="FAST_COMPILE")
    for d in (c, c._replace(level=0.3, walk=2.0, gain=-4.0, gain_sd=0.01)):
        expected = [
            noise.total_log_likelihood(np, d.stats, d.gain * d.u, d.u, d.v, d.gain_sd),
            noise.total_log_likelihood_of_steps(np, d.stats, log_weights, d.v, d.gain, d.gain_sd),
        ]
        np.testing.assert_allclose(call(d.level, d.walk, d.gain, d.gain_sd), expected, rtol=1e-11)


# --------------------------------------------------------------------------------------------- invariances


@given(st.lists(st.floats(-500, 500), min_size=6, max_size=6), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_the_intercept_of_a_sequence_does_not_matter(constants: list[float], seed: int) -> None:
    c, log_weights = case(6, 7, seed), log_weights_of(7, seed)
    moved = summarise(c.log_odds + np.array(constants)[:, None], c.stats.shots)
    for of in (
        lambda s: noise.total_log_likelihood(np, s, c.gain * c.u, c.u, noise.variances(s, c.level, c.walk), c.gain_sd),
        lambda s: noise.total_log_likelihood_of_steps(
            np, s, log_weights, noise.variances(s, c.level, c.walk), c.gain, c.gain_sd
        ),
    ):
        assert of(moved) == pytest.approx(of(c.stats), rel=1e-9)
    # The control: something else than a constant does matter.
    tilted = summarise(c.log_odds + np.arange(8) * 0.01, c.stats.shots)
    assert abs(tilted.x_mean - c.stats.x_mean).max() > 1e-3


@given(st.floats(1e-3, 1e3), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_other_units_change_the_log_likelihood_by_the_jacobian(unit: float, seed: int) -> None:
    """Nats or bits: densities of S K differences scale by unit^(-S K); the jitter is in the curves' unit too."""
    c, log_weights = case(6, 7, seed), log_weights_of(7, seed)
    c2 = c._replace(
        log_odds=unit * c.log_odds,
        stats=summarise(unit * c.log_odds, c.stats.shots),
        **{name: unit * getattr(c, name) for name in ("gain", "gain_sd", "level", "walk")},
    )
    jacobian = -6 * 7 * np.log(unit)
    one, other = (noise.total_log_likelihood(np, d.stats, d.gain * d.u, d.u, d.v, d.gain_sd) for d in (c, c2))
    assert other - one == pytest.approx(jacobian, rel=1e-7, abs=1e-6)
    one, other = (
        noise.total_log_likelihood_of_steps(np, d.stats, log_weights, d.v, d.gain, d.gain_sd) for d in (c, c2)
    )
    assert other - one == pytest.approx(jacobian, rel=1e-7, abs=1e-6)


def test_no_noise_at_all_stays_finite() -> None:
    """The jitter: both sds 0, as at the edge of their priors."""
    c = case(6, 7, 0)._replace(level=0.0, walk=0.0)
    assert np.isfinite(noise.total_log_likelihood(np, c.stats, c.gain * c.u, c.u, c.v, c.gain_sd))
    assert np.isfinite(noise.total_log_likelihood_of_steps(np, c.stats, log_weights_of(7, 0), c.v, c.gain, c.gain_sd))


# --------------------------------------------------------------------------------------------- drawing


def test_replicates_have_the_mean_and_covariance_of_the_model() -> None:
    """20000 replicates; every entry of mean and covariance within 5 of its standard errors.

    28 covariances and 7 means of normal errors: a false alarm has probability below 35 * 6e-7 = 2e-5.
    """
    c, size = case(1, 7, 0)._replace(gain_sd=4.0, level=1.0, walk=0.6), 20_000
    shape = (4, size // 4, 7)
    means, directions = np.broadcast_to(c.gain * c.f, shape), np.broadcast_to(c.f, shape)
    drawn = noise.replicate(
        c.stats, means, directions, np.tile(c.v, (4, 1)), np.full(4, c.gain_sd), np.random.default_rng(0)
    )
    assert drawn.shape == (4, size // 4, 8)
    np.testing.assert_allclose(drawn.mean(-1), 0, atol=1e-12)
    x = np.diff(drawn.reshape(-1, 8), axis=1)
    covariance = dense(c).cov

    def worst(mean: np.ndarray, cov: np.ndarray) -> float:
        off_mean = (x.mean(0) - mean) / np.sqrt(np.diag(covariance) / size)
        entry_sd = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / size)
        return max(abs(off_mean).max(), abs((np.cov(x.T) - cov) / entry_sd).max())

    assert worst(c.gain * c.f, covariance) < 5
    # The controls: without the rank-one part, with 5 % more level noise, and with another mean.
    assert worst(c.gain * c.f, covariance - c.gain_sd**2 * np.outer(c.f, c.f)) > 5
    assert worst(c.gain * c.f, dense(c._replace(level=1.05 * c.level)).cov) > 5
    assert worst(1.05 * c.gain * c.f, covariance) > 5


def test_each_draw_of_replicates_has_its_own_parameters() -> None:
    stats = case(1, 5, 0).stats
    shape = (2, 4000, 5)
    v = np.stack([noise.variances(stats, 1.0, 0.0), noise.variances(stats, 0.1, 0.0)])
    drawn = noise.replicate(stats, np.zeros(shape), np.zeros(shape), v, np.zeros(2), np.random.default_rng(0))
    sds = np.diff(drawn, axis=-1).std((1, 2))
    np.testing.assert_allclose(sds, np.sqrt(2) * np.array([1.0, 0.1]), rtol=0.05)


def test_steps_are_drawn_as_often_as_their_weights_say() -> None:
    """40000 steps of two draws; each frequency within 5 standard errors (false alarm below 12 * 6e-7)."""
    log_weights = np.stack([log_weights_of(5, 0), log_weights_of(5, 1)])
    size = 40_000
    steps = noise.draw_steps(log_weights, size, np.random.default_rng(0))
    assert steps.shape == (2, size, 5)
    assert set(np.unique(steps.sum(-1))) <= {0.0, 1.0}
    found = np.concatenate([steps.mean(1), 1 - steps.sum(-1).mean(1, keepdims=True)], axis=1)

    def worst(weights: np.ndarray) -> float:
        return float(abs((found - weights) / np.sqrt(weights * (1 - weights) / size)).max())

    assert worst(np.exp(log_weights)) < 5
    assert worst(np.exp(log_weights)[::-1]) > 5  # the control: the weights of the other draw


# --------------------------------------------------------------------------------------------- statistics


def test_statistics_are_what_they_are_called() -> None:
    c = case(9, 6, 0)
    x = np.diff(c.log_odds, axis=1) @ noise.sine_transform(6)[0]
    np.testing.assert_allclose(c.stats.x, x)
    np.testing.assert_allclose(c.stats.x_scatter, np.cov(x.T) * 8)
    assert (c.stats.n_seqs, c.stats.n_max) == (9.0, 6.0)
    assert c.stats.scale == pytest.approx(np.median([row.std() for row in c.log_odds]))


def test_step_positions_lie_between_shots_on_a_scale_of_the_whole_curve() -> None:
    """At every update and as many again beyond n_max; the first half of a curve has the positions of the whole."""
    odds = case(3, 8, 0).log_odds
    whole = summarise(odds, np.arange(1.0, 10))
    half = summarise(odds[:, :4], np.arange(1.0, 5), n_max=9)
    np.testing.assert_allclose(whole.step_positions[:8], (np.arange(1, 9) - 0.5) / 8)
    assert len(whole.step_positions) == 16
    np.testing.assert_allclose(half.step_positions, whole.step_positions)
