"""Shots that are not consecutive: the likelihood against dense densities, verdicts on known truths."""

from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from simulate import covariance_by_hand, power_law, prior_draws, simulate_curves

from bayes_icl.curves import Curves
from bayes_icl.fit.verdict import Verdict, judge
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference import noise
from bayes_icl.inference.departure import MeanCurve
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.loo_pit import loo_pits, uniform_p
from bayes_icl.inference.noise import Statistics, summarise
from bayes_icl.inference.noise_shape import N_BENDS, PLAIN, Shape, deviations, estimate, spectrum
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import go_on, replicate
from bayes_icl.inference.residuals import expected_sd, residual_sd
from bayes_icl.inference.scores import score_curves
from bayes_icl.inference.survival import few_shots

GRIDS = {
    "doubling": (0.0, 1, 2, 4, 8, 16, 32, 64),
    "as many do": (1.0, 3, 5, 10, 20, 100),
    "every fourth": tuple(np.arange(0.0, 33, 4)),
}
NOISES = {"plain": PLAIN, "falling, carried": Shape(trend=0.7, carry=0.6, corr=0.4)}
both = pytest.mark.parametrize("noise", NOISES)
grids = pytest.mark.parametrize("grid", GRIDS)


def curves_of(grid: str, n_seqs: int = 5, seed: int = 0) -> Curves:
    return simulate_curves(n_seqs, 0, shots=GRIDS[grid], gain=6.0, walk=0.5, seed=seed)


def params_of(name: str, stats: Statistics, n: int = 3) -> dict[str, np.ndarray]:
    """Draws of the prior, with sds away from 0, where the jitter would count."""
    params = prior_draws(HYPOTHESES[name], stats, n)
    return params | {sd: params[sd] + 0.3 for sd in ("gain_sd", "early_sd", "level", "walk")}


def dense(curves: Curves, one: dict[str, np.ndarray], stats: Statistics, shape: Shape, mean: np.ndarray) -> np.ndarray:
    """Log density of the updates of each sequence about their mean, shape (seq,)."""
    cov = covariance_by_hand(curves.shots, one, stats.scale, shape=shape)
    off = np.diff(curves.log_odds, axis=1) - mean
    return multivariate_normal.logpdf(off, cov=cov)


def at(params: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: x[i] for name, x in params.items()}


# --------------------------------------------------------------------------------------------- likelihood


@both
@grids
def test_the_transform_makes_level_noise_and_walk_diagonal(grid: str, noise: str) -> None:
    """V'BV = I and V'AV = diag(eigenvalues) to 1e-12, A and B written out shot by shot; V'B is the inverse of V."""
    shots, shape = np.array(GRIDS[grid]), NOISES[noise]
    values, vectors = spectrum(shots, shots[0], shots[-1], shape)
    sds = {name: np.zeros(1) for name in ("level", "walk", "gain_sd", "early_sd")}
    levels, walks = (
        covariance_by_hand(shots, sds | {name: np.ones(1)}, 0.0, shape=shape) for name in ("level", "walk")
    )
    np.testing.assert_allclose(vectors.T @ walks @ vectors, np.eye(len(values)), atol=1e-12)
    np.testing.assert_allclose(vectors.T @ levels @ vectors, np.diag(values), atol=1e-12)
    stats = summarise(curves_of(grid), shape=shape)
    np.testing.assert_allclose(stats.transform @ stats.inverse_transform, np.eye(len(values)), atol=1e-12)
    assert abs(stats.transform @ stats.transform.T - np.eye(len(values))).max() > 0.1  # the control: no transpose


@both
@grids
@pytest.mark.parametrize("name", ["constant", "additive", "power", "freeform"])
def test_the_likelihood_is_a_dense_normal(name: str, grid: str, noise: str) -> None:
    """Up to the Jacobian, which is the same for all laws."""
    curves, shape = curves_of(grid), NOISES[noise]
    stats, n = summarise(curves, shape=shape), np.array(GRIDS[grid])
    params = params_of(name, stats)
    found = noise_of(name, stats, params)
    for i in range(3):
        one = at(params, i)
        straight = np.diff(n) / (n[-1] - n[0])
        if name == "power":
            g = n ** (1 - one["a"]) * np.sign(1 - one["a"])
            mean = one["gain"] * np.diff(g) / (g[-1] - g[0])
        elif name == "freeform":
            mean = one["gain"] * straight + one["bend"] * one["shape"] @ np.diff(deviations(n), axis=1)
        else:
            mean = (one["gain"] if name == "additive" else 0.0) * straight
        expected = dense(curves, one, stats, shape, mean) + 0.5 * np.log(np.diff(n)).sum()
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-8)


def noise_of(name: str, stats: Statistics, params: dict[str, np.ndarray]) -> np.ndarray:
    return noise.log_likelihood(np, HYPOTHESES[name], stats, params)


@grids
def test_a_latent_step_is_summed_over_every_example(grid: str) -> None:
    """Places half an example after each whole n, whichever shots are read: at most a place each up to 2 n_max."""
    curves, n = curves_of(grid), np.array(GRIDS[grid])
    stats = summarise(curves, shape=PLAIN)
    params = params_of("changepoint", stats)
    found, span = noise_of("changepoint", stats, params), n[-1] - n[0]
    for i in range(3):
        one = at(params, i)
        places = np.arange(0.5, 2 * span)
        log_weights = norm.logpdf(places / span, one["tau"], np.hypot(one["spread"], 0.4 / span))
        log_weights -= logsumexp(log_weights)
        means = [one["gain"] * ((n[:-1] < n[0] + p) & (n[0] + p < n[1:])) for p in places]
        each = [dense(curves, one, stats, PLAIN, mean) for mean in means]
        expected = logsumexp(np.array(each) + log_weights[:, None], axis=0) + 0.5 * np.log(np.diff(n)).sum()
        np.testing.assert_allclose(found[i], expected, rtol=1e-6, atol=1e-6)


def test_places_of_a_step_do_not_grow_with_the_number_of_examples() -> None:
    shots = np.array([0.0, 1, 10, 100, 1000, 100_000])
    stats = summarise(simulate_curves(4, 0, shots=shots), shape=PLAIN)
    assert len(stats.step_positions) < 1100 and (np.diff(stats.step_positions) > 0).all()
    np.testing.assert_allclose(stats.step_sums.sum(0), [*np.diff(shots), 100_000])


@pytest.mark.parametrize("name", ["additive", "changepoint", "freeform"])
def test_the_pymc_model_has_the_same_likelihood(name: str) -> None:
    stats = summarise(curves_of("doubling"), shape=NOISES["falling, carried"])
    h, params = HYPOTHESES[name], params_of(name, stats)
    vectors = {p: pt.vector(p) if prior.length else pt.scalar(p) for p, prior in h.all_priors.items()}
    total = noise.total_log_likelihood(pt, h, stats, vectors)
    function = pytensor.function([*vectors.values()], total, mode="FAST_COMPILE")
    expected = noise.total_log_likelihood(np, h, stats, params)
    for i in range(3):
        point = [params[p][i] if prior.length else params[p][i, 0] for p, prior in h.all_priors.items()]
        np.testing.assert_allclose(function(*point), expected[i], rtol=1e-8)


@both
def test_the_future_given_the_first_half_is_a_conditional_density(noise: str) -> None:
    """What LFO takes: whole less half, against the dense normal's two densities."""
    curves, shape = curves_of("doubling"), NOISES[noise]
    whole = summarise(curves, shape=shape)
    half = summarise(curves, until=16.0, scale=whole.scale, shape=shape)
    params = params_of("additive", whole)
    found = noise_of("additive", whole, params) - noise_of("additive", half, params)
    n = curves.shots
    for i in range(3):
        one = at(params, i)
        cov = covariance_by_hand(n, one, whole.scale, shape=shape)
        off = np.diff(curves.log_odds, axis=1) - one["gain"] * np.diff(n) / 64
        expected = multivariate_normal.logpdf(off, cov=cov) - multivariate_normal.logpdf(off[:, :5], cov=cov[:5, :5])
        np.testing.assert_allclose(found[i], expected + 0.5 * np.log(16 * 32), rtol=1e-9, atol=1e-8)


# --------------------------------------------------------------------------------------------- shape


@grids
def test_deviations_are_smooth_in_n(grid: str) -> None:
    """Their covariance is that of twice summed noise over all whole n, at the shots read, less its best lines there."""
    shots = np.array(GRIDS[grid])
    whole = np.arange(shots[0], shots[-1] + 1)
    impulses = np.cumsum(np.cumsum(np.eye(len(whole)), axis=0), axis=0)[np.isin(whole, shots)]
    off = impulses - np.stack([np.polyval(np.polyfit(shots, one, 1), shots) for one in impulses.T], axis=1)
    rows = deviations(shots)
    assert ((rows**2).sum(1) > 0).sum() == min(N_BENDS, len(shots) - 2)
    expected = off @ off.T
    np.testing.assert_allclose(rows.T @ rows, expected * len(shots) / np.trace(expected), atol=1e-7)


def test_deviations_of_very_many_examples() -> None:
    shots = np.array([0.0, 1, 2, 500, 10_000, 100_000, 100_001, 1_000_000])
    rows = deviations(shots)
    assert np.isfinite(rows).all() and (rows**2).sum() == pytest.approx(8)
    np.testing.assert_allclose(rows @ np.stack([np.ones(8), shots / 1e6], axis=1), 0, atol=1e-7)


def test_what_noise_does_is_found() -> None:
    """sd that falls threefold over 64 examples, an AR(1) of 0.8 an example, seen at every other."""
    falling = estimate(simulate_curves(128, 0, shots=GRIDS["doubling"], trend=np.log(3), f=power_law(0.7), seed=1))
    assert falling.trend == pytest.approx(np.log(3), abs=0.3) and falling.carry == 0
    carried = estimate(simulate_curves(128, 0, shots=np.arange(0.0, 41, 2), carry=0.8, seed=1))
    assert carried.carry == pytest.approx(0.8, abs=0.06) and carried.trend == 0


# --------------------------------------------------------------------------------------------- predictions


def fixed(name: str, stats: Statistics, params: dict[str, np.ndarray], n: int) -> Posterior:
    one = {p: np.repeat(x[:1], n, axis=0) for p, x in params.items()}
    return Posterior(HYPOTHESES[name], one, np.full(n, -np.log(n)), "prior", ess=float(n))


@both
def test_replicates_have_the_covariance_of_the_model(noise: str) -> None:
    shape = NOISES[noise]
    stats = summarise(curves_of("doubling", 100), shape=shape)
    params = params_of("additive", stats)
    new = replicate(fixed("additive", stats, params, 400), stats, np.random.default_rng(0))
    updates = np.diff(new, axis=-1).reshape(-1, 7)
    expected = covariance_by_hand(stats.shots, at(params, 0), stats.scale, shape=shape)
    sd = np.sqrt(np.diagonal(expected))
    np.testing.assert_allclose(np.cov(updates.T) / np.outer(sd, sd), expected / np.outer(sd, sd), atol=0.03)
    np.testing.assert_allclose(updates.mean(0), params["gain"][0] * np.diff(stats.shots) / 64, atol=0.03 * sd.max())


@both
def test_sequences_go_on_as_the_dense_normal_does(noise: str) -> None:
    """Mean and covariance of later updates given the first four, over 20000 draws."""
    curves, shape = curves_of("doubling", 3), NOISES[noise]
    stats = summarise(curves, shape=shape)
    params = params_of("additive", stats)
    later = go_on(fixed("additive", stats, params, 20_000), stats, 4, np.random.default_rng(0))
    cov = covariance_by_hand(stats.shots, at(params, 0), stats.scale, shape=shape)
    mean = params["gain"][0] * np.diff(stats.shots) / 64
    carry = np.linalg.solve(cov[:4, :4], cov[:4, 4:])
    expected = mean[4:] + (np.diff(curves.log_odds, axis=1) - mean)[:, :4] @ carry
    left = cov[4:, 4:] - cov[4:, :4] @ carry
    updates = np.diff(later, axis=-1, prepend=0)
    sd = np.sqrt(np.diagonal(left))
    np.testing.assert_allclose(updates.mean(0) / sd, expected / sd, atol=0.03)
    np.testing.assert_allclose(np.cov(updates[:, 0].T) / np.outer(sd, sd), left / np.outer(sd, sd), atol=0.04)


def test_checks_of_a_law_that_holds_find_nothing() -> None:
    """PITs of left-out sequences, the noise of each shot; the control: a bend that the law lacks."""
    for f, holds in ((power_law(0.0), True), (power_law(0.7), False)):
        curves = simulate_curves(96, 0, shots=GRIDS["doubling"], f=f, seed=2)
        stats = summarise(curves)
        posterior = sample_fast(HYPOTHESES["additive"], stats)
        pits, _ = loo_pits(posterior, stats)
        assert all((uniform_p(own) > 0.01) == (holds or name == "slope") for name, own in pits.items()) or not holds
        assert (uniform_p(pits["contrast"]) > 0.01) == holds
        if holds:
            (_, low, high), (expected, _, _) = residual_sd(curves), expected_sd(posterior, stats)
            assert ((low < expected) & (expected < high)).sum() >= 7  # of 8 intervals of 95 %


# --------------------------------------------------------------------------------------------- verdicts


def verdict_on(curves: Curves) -> Verdict:
    laws = ("additive", "logarithmic", "freeform")
    return judge(curves, [score_curves(HYPOTHESES[law], curves, future=False, checks=False)[0] for law in laws])


@pytest.mark.parametrize("grid", ["doubling", "even", "twenty"])
def test_lines_are_supported_and_bends_rejected(grid: str) -> None:
    """On uneven shots as on even ones; delta is found to 3 of its sds."""
    shots = {"even": np.arange(0.0, 33), "twenty": np.array([1.0, 3, 5, 10, 20, 40, 70, 100])}
    n = shots.get(grid, np.array(GRIDS.get(grid, ())))
    straight = simulate_curves(96, 0, shots=n, level=1.0, seed=3)
    verdict = verdict_on(straight)
    assert (verdict.verdict, verdict.selected) == ("supported", "additive")
    assert verdict.delta is not None
    sd = (verdict.delta["hdi_high"] - verdict.delta["hdi_low"]) / (2 * 1.96)
    assert abs(verdict.delta["mean"] - 9.6 / (n[-1] - n[0])) < 3 * sd < 0.15 * 9.6 / (n[-1] - n[0])
    bent = simulate_curves(96, 0, shots=n, level=1.0, f=lambda n: np.log1p(n / 3), seed=3)
    verdict = verdict_on(bent)
    assert (verdict.verdict, verdict.selected) == ("rejected", "logarithmic")


def test_the_second_half_is_of_the_examples_and_not_of_the_shots() -> None:
    curves = simulate_curves(96, 0, shots=GRIDS["doubling"], level=0.5, seed=3)
    stats = summarise(curves)
    mean = MeanCurve.of(sample_fast(HYPOTHESES["freeform"], stats), stats)
    assert mean.second_half.mean == pytest.approx(1, abs=0.1)


def test_what_is_too_little_for_a_verdict() -> None:
    assert few_shots(np.arange(9.0)) is None and few_shots(np.array([0.0, 1, 2, 4, 8])) is None
    assert few_shots(np.arange(8.0)) == "7 updates from n = 0 on, at least 8 are needed"
    few = "{} shots from n = {} to {}, at least 5 over 8 examples are needed"
    assert few_shots(np.array([0.0, 1, 2, 4, 7])) == few.format(5, 0, 7)
    assert few_shots(np.array([1.0, 10, 20, 100])) == few.format(4, 1, 100)
