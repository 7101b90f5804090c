"""The likelihood with everything latent integrated out, against dense densities of scipy.

Written out shot by shot: the covariance of a curve, differenced; a latent step by enumeration of its places; heavy
tails as scipy's multivariate t. One hypothesis of every kind: shared curve, no mean (`constant`), curve in nats
(`lapse`), latent step (`changepoint`), a free mean (`freeform`); and noise of
every shape: plain, changing with n, carried over, with a correlation of how sequences differ.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, multivariate_t
from simulate import covariance_by_hand, early_by_hand, prior_draws, simulate_curves, wider

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES, Hypothesis
from bayes_icl.hypotheses.kinds import LEAST_TOTAL
from bayes_icl.inference import noise as inference_noise
from bayes_icl.inference import noise_shape
from bayes_icl.inference.noise import Statistics, summarise
from bayes_icl.inference.noise_shape import PLAIN, Shape, spectrum

SIZES = [(1, 1), (1, 2), (2, 3), (5, 8), (40, 5), (7, 31)]  # (sequences, updates)
KINDS = ["constant", "additive", "power", "lapse", "changepoint", "freeform"]
NOISES = {
    "plain": PLAIN,
    "differing": Shape(corr=-0.6),
    "falling": Shape(trend=0.7),
    "carried": Shape(carry=0.3, corr=0.4),
    "both": Shape(trend=-0.5, carry=0.8, corr=0.4, shared=True),
}
IN_NATS = ("gain", "gain_sd", "early_sd", "level", "walk", "bend", "shot_sd")
DRAWS = 4


def varied(name: str, student: bool = False, noise: Shape = PLAIN) -> Hypothesis:
    return HYPOTHESES[name].varied(student=student, shared=noise.shared)


def curves_of(n_seqs: int, n_updates: int, seed: int = 0) -> Curves:
    return simulate_curves(n_seqs, n_updates + 1, n_min=1, gain=6.0, walk=0.5, seed=seed)


def params_of(h: Hypothesis, stats: Statistics, seed: int = 0, n: int = DRAWS) -> dict[str, np.ndarray]:
    """Draws of the prior, with sds away from 0, where the jitter would count."""
    params = prior_draws(h, stats, n, seed)
    return params | {name: params[name] + 0.3 for name in ("gain_sd", "early_sd", "level", "walk")}


def means_of(
    h: Hypothesis, curves: Curves, stats: Statistics, one: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each sequence's updates, nats, shape (component, seq, update), and the log weight of each component (the
    place of a step)."""
    k, s = len(curves.shots) - 1, len(curves.log_odds)
    everyone = np.ones((s, 1))
    if h.latent_step:
        f = np.vstack([np.eye(k), np.zeros(k)])[:, None, :] * everyone
        return one["gain"] * f, h.step_log_weights(np, stats, one)
    if h.ceiling:
        mean = one["gain"] / k + one["bend"] * one["shape"] @ stats.bends
        if h.shared:
            mean = mean + one["shot_sd"] * np.diff(one["at_shot"])
        return mean * everyone[None], np.zeros(1)
    g = np.broadcast_to(h.curve(np, curves.shots, **{name: one[name] for name in h.priors}), (k + 1,))
    rise = g[-1] - g[0]
    total = 1.0 if h.in_nats else one.get("gain", 0.0) / (rise if abs(rise) > LEAST_TOTAL else LEAST_TOTAL)
    return total * np.diff(g) * everyone[None], np.zeros(1)


def dense(
    h: Hypothesis, curves: Curves, stats: Statistics, one: dict[str, np.ndarray], noise: Shape = PLAIN
) -> np.ndarray:
    """Log density of each sequence at one value of the parameters."""
    cov = covariance_by_hand(curves.shots, one, stats.scale, shape=noise)
    means, log_weights = means_of(h, curves, stats, one)
    out = np.empty((len(means), len(curves.log_odds)))
    for i, mean in enumerate(means):
        for s, d in enumerate(np.diff(curves.log_odds, axis=1)):
            if h.student:
                out[i, s] = multivariate_t(mean[s], cov, df=float(one["dof"][0])).logpdf(d)
            else:
                out[i, s] = multivariate_normal(mean[s], cov).logpdf(d)
    return logsumexp(out + log_weights[:, None], axis=0)


def at(params: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: x[i] for name, x in params.items()}


# --------------------------------------------------------------------------------------------- likelihoods


CASES = [
    *((size, "plain") for size in SIZES),
    *((size, noise) for size in ((5, 8), (7, 31)) for noise in NOISES if noise != "plain"),
]


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize(("size", "noise"), CASES)
@pytest.mark.parametrize("name", KINDS)
def test_log_likelihood_is_a_dense_density(name: str, size: tuple[int, int], noise: str, student: bool) -> None:
    (n_seqs, n_updates), shape = size, NOISES[noise]
    h, curves = varied(name, student, shape), curves_of(n_seqs, n_updates)
    stats = summarise(curves, shape=shape)
    params = params_of(h, stats)
    found = inference_noise.log_likelihood(np, h, stats, params)
    assert found.shape == (DRAWS, n_seqs)
    expected = np.stack([dense(h, curves, stats, at(params, i), shape) for i in range(DRAWS)])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    total = inference_noise.total_log_likelihood(np, h, stats, params)
    assert total.shape == (DRAWS,)
    np.testing.assert_allclose(total, found.sum(1), rtol=1e-8)
    # The control: that much agreement is not to be had with any shared parameter 2 % off, nor with another noise.
    shared = [p for p in (*IN_NATS, "dof") if p in params]
    if n_updates > 2:
        for parameter in shared:
            off = params | {parameter: 1.02 * params[parameter]}
            assert (abs(inference_noise.log_likelihood(np, h, stats, off) / expected - 1).max(1) > 1e-7).all(), (
                parameter
            )
        for other in NOISES.values():
            if other != shape and n_updates > 3:
                off = np.stack([dense(h, curves, stats, at(params, i), other) for i in range(1)])
                assert abs(off / expected[:1] - 1).max() > 1e-5


@pytest.mark.parametrize("noise", ["plain", "both"])
@pytest.mark.parametrize("name", ["freeform", "additive"])
def test_a_sequence_of_weight_w_has_w_times_the_precision(name: str, noise: str) -> None:
    """Up to the constant of such a density, K/2 times the sum of log w, which no parameter is in."""
    curves, weights = curves_of(5, 8), (0.2, 1.3, 1.0, 0.7, 2.5)
    shape = Shape(**{**vars(NOISES[noise]), "weights": weights})
    h = varied(name, noise=shape)
    stats = summarise(curves, shape=shape)
    params = params_of(h, stats)
    found = inference_noise.total_log_likelihood(np, h, stats, params)
    for i in range(DRAWS):
        cov = covariance_by_hand(curves.shots, at(params, i), stats.scale, shape=shape)
        means, _ = means_of(h, curves, stats, at(params, i))
        each = [
            multivariate_normal(mean, cov / w).logpdf(d)
            for mean, w, d in zip(means[0], weights, np.diff(curves.log_odds, axis=1))
        ]
        constant = 4 * np.log(weights).sum()
        assert found[i] + constant == pytest.approx(sum(each), rel=1e-9)
        assert abs(found[i] + constant - dense(h, curves, stats, at(params, i), shape).sum()) > 1  # the control


@pytest.mark.parametrize("name", HYPOTHESES)
@pytest.mark.parametrize("student", [False, True])
def test_total_is_the_sum_over_sequences(name: str, student: bool) -> None:
    """In mean-and-scatter form where the noise is normal and the curve shared; at wide parameters."""
    h, stats = wider(varied(name, student), 2.0), summarise(curves_of(9, 12), shape=Shape(trend=0.4, corr=0.3))
    params = params_of(h, stats, n=50)
    total = inference_noise.total_log_likelihood(np, h, stats, params)
    each = inference_noise.log_likelihood(np, h, stats, params)
    assert np.isfinite(total).all()
    np.testing.assert_allclose(total, each.sum(1), rtol=1e-8, atol=1e-7)
    # The control: other sequences with the same mean.
    tilted = summarise(curves_of(9, 12)._replace(log_odds=2 * curves_of(9, 12).log_odds), shape=PLAIN)
    assert (abs(inference_noise.total_log_likelihood(np, h, tilted, params) / total - 1) > 1e-7).all()


def test_a_student_of_many_degrees_of_freedom_is_normal() -> None:
    curves = curves_of(5, 8)
    stats = summarise(curves)
    for name in ("additive", "changepoint"):
        h = HYPOTHESES[name]
        params = params_of(h.varied(student=True), stats)
        heavy = [
            inference_noise.log_likelihood(
                np, h.varied(student=True), stats, params | {"dof": np.full((DRAWS, 1), dof)}
            )
            for dof in (1e9, 5.0)
        ]
        normal = inference_noise.log_likelihood(np, h, stats, params)
        np.testing.assert_allclose(heavy[0], normal, rtol=1e-5)
        assert abs(heavy[1] - normal).max() > 0.1  # the control


def test_a_step_after_the_last_shot_counts() -> None:
    """The control of the mixture: with its weight given to the last update the number differs."""
    curves = curves_of(8, 6)
    stats, h = summarise(curves), HYPOTHESES["changepoint"]
    one = {"gain": 5.0, "gain_sd": 1.0, "early_sd": 0.5, "level": 1.0, "walk": 0.3, "tau": 0.95, "spread": 0.2}
    params = {name: np.array([[x]]) for name, x in one.items()}
    log_weights = h.step_log_weights(np, stats, params)[0]
    assert log_weights[-1] > np.log(0.1)
    moved = np.append(np.append(log_weights[:-2], logsumexp(log_weights[-2:])), -500.0)

    def mixture(weights: np.ndarray) -> np.ndarray:
        each = []
        for i in range(7):
            only = np.where(np.arange(7) == i, 0.0, -500.0)
            each.append(inference_noise.log_likelihood(np, _with_weights(only), stats, params)[0])
        return logsumexp(np.stack(each) + weights[:, None], axis=0)

    found = inference_noise.log_likelihood(np, h, stats, params)[0]
    np.testing.assert_allclose(mixture(log_weights), found, rtol=1e-9)
    assert abs(mixture(moved).sum() - found.sum()) > 0.1


def _with_weights(log_weights: np.ndarray) -> Any:
    return SimpleNamespace(latent_step=True, student=False, step_log_weights=lambda *_: log_weights[None])


@pytest.mark.parametrize("student", [False, True])
def test_a_step_far_beyond_the_noise_does_not_overflow(student: bool) -> None:
    """A thousand noise sds: the exponentials must be taken after the largest is subtracted."""
    h = HYPOTHESES["changepoint"].varied(student=student)
    odds = np.where(np.arange(9) >= 4, 300.0, 0.0) + np.random.default_rng(0).normal(0, 0.01, size=(3, 9))
    curves = Curves("step", "complement", np.arange(9.0), odds)
    stats = summarise(curves)
    one = {"gain": 300.0, "gain_sd": 1.0, "early_sd": 0.5, "level": 0.01, "walk": 0.01, "dof": 5.0, "tau": 0.4}
    one["spread"] = 0.2
    params = {name: np.array([[x]]) for name, x in one.items()}
    found = inference_noise.log_likelihood(np, h, stats, params)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], dense(h, curves, stats, at(params, 0)), rtol=1e-6)


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("name", HYPOTHESES)
def test_pytensor_gives_the_numbers_of_numpy(name: str, student: bool) -> None:
    """Total and by sequence; parameters without the axis of draws."""
    shape = NOISES["both"]
    h, stats = varied(name, student, shape), summarise(curves_of(7, 10), shape=shape)
    tensors = SimpleNamespace(
        **{field: pt.as_tensor(np.asarray(getattr(stats, field), float)) for field in Statistics.__dataclass_fields__}
    )
    inputs = {p: pt.dvector(p) if prior.length else pt.dscalar(p) for p, prior in h.all_priors.items()}
    outputs = [
        inference_noise.total_log_likelihood(pt, h, tensors, inputs),
        inference_noise.log_likelihood(pt, h, tensors, inputs),
    ]
    call = pytensor.function([*inputs.values()], outputs, mode="FAST_COMPILE")
    params = params_of(h, stats)
    totals, each = (
        of(np, h, stats, params) for of in (inference_noise.total_log_likelihood, inference_noise.log_likelihood)
    )
    for i in range(DRAWS):
        total, of_each = call(*(params[p][i] if x.ndim else params[p][i, 0] for p, x in inputs.items()))
        assert total == pytest.approx(totals[i], rel=1e-9)
        np.testing.assert_allclose(np.ravel(of_each), each[i], rtol=1e-9)


# --------------------------------------------------------------------------------------------- invariances


@given(
    st.lists(st.floats(-500, 500), min_size=6, max_size=6), st.integers(0, 50), st.sampled_from(KINDS), st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_the_intercept_of_a_sequence_does_not_matter(
    constants: list[float], seed: int, name: str, student: bool
) -> None:
    h, curves = HYPOTHESES[name].varied(student=student), curves_of(6, 7, seed)
    moved = curves._replace(log_odds=curves.log_odds + np.array(constants)[:, None])
    params = params_of(h, summarise(curves), seed)
    one, other = (inference_noise.total_log_likelihood(np, h, summarise(c), params) for c in (curves, moved))
    np.testing.assert_allclose(other, one, rtol=1e-8)
    # The control: something else than a constant does matter.
    tilted = summarise(curves._replace(log_odds=curves.log_odds + np.arange(8) * 0.01), shape=PLAIN)
    assert abs(tilted.x_mean - summarise(curves).x_mean).max() > 1e-3


@given(st.floats(1e-3, 1e3), st.integers(0, 50), st.sampled_from([k for k in KINDS if k != "lapse"]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_other_units_change_the_log_likelihood_by_the_jacobian(
    unit: float, seed: int, name: str, student: bool
) -> None:
    """Nats or bits: densities of S K differences scale by unit^(-S K); the jitter is in the curves' unit too."""
    h, curves, noise = varied(name, student, NOISES["both"]), curves_of(6, 7, seed), NOISES["both"]
    stats, other = (summarise(curves._replace(log_odds=u * curves.log_odds), shape=noise) for u in (1.0, unit))
    params = params_of(h, stats, seed)
    scaled = params | {p: unit * params[p] for p in IN_NATS if p in params}
    one = inference_noise.total_log_likelihood(np, h, stats, params)
    np.testing.assert_allclose(
        inference_noise.total_log_likelihood(np, h, other, scaled) - one, -6 * 7 * np.log(unit), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("name", HYPOTHESES)
def test_no_noise_at_all_stays_finite(name: str, student: bool) -> None:
    """The jitter: both sds 0, as at the edge of their priors."""
    h, stats = HYPOTHESES[name].varied(student=student), summarise(curves_of(6, 7))
    params = params_of(h, stats)
    params |= {p: np.zeros((DRAWS, 1)) for p in ("level", "walk")}
    assert np.isfinite(inference_noise.total_log_likelihood(np, h, stats, params)).all()
    params |= {p: np.zeros((DRAWS, 1)) for p in ("gain_sd", "early_sd")}
    assert np.isfinite(inference_noise.total_log_likelihood(np, h, stats, params)).all()


# --------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("noise", NOISES)
def test_statistics_are_what_they_are_called(noise: str) -> None:
    curves, shape = curves_of(9, 6), NOISES[noise]
    stats = summarise(curves, shape=shape)
    x = np.diff(curves.log_odds, axis=1) @ spectrum(curves.shots, 1.0, 7.0, shape)[1]
    np.testing.assert_allclose(stats.x, x)
    np.testing.assert_allclose(stats.x_mean, x.mean(0))
    np.testing.assert_allclose(stats.x_scatter, np.cov(x.T) * 8)
    assert (stats.n_seqs, stats.weight, stats.n_max, stats.corr) == (9.0, 9.0, 7.0, shape.corr)
    assert stats.scale == pytest.approx(np.median([row.std() for row in curves.log_odds]))
    # Of what is transformed, before it is: a line that rises by 1 nat, and the bend that is written out by hand.
    np.testing.assert_allclose(stats.transform @ stats.line, 1 / 6)
    np.testing.assert_allclose(stats.transform @ stats.early, np.diff(early_by_hand(curves.shots)), atol=1e-12)
    items = np.concatenate([np.zeros((len(stats.items), 1)), stats.items.cumsum(1)], axis=1)
    assert len(items) == (7 if shape.shared else 0)
    np.testing.assert_array_equal(items - items[:, :1], (np.eye(7) - np.eye(7)[:, :1])[: len(items)])


def test_weights_enter_the_mean_and_the_scatter() -> None:
    """Two of weight 2 are four of weight 1, but for their number."""
    curves = curves_of(4, 6)
    stats = summarise(curves, shape=Shape(weights=(2.0, 1.0, 2.0, 1.0)))
    twice = curves._replace(log_odds=curves.log_odds[[0, 0, 1, 2, 2, 3]])
    expected = summarise(twice, shape=PLAIN)
    np.testing.assert_allclose(stats.x_mean, expected.x_mean)
    np.testing.assert_allclose(stats.x_scatter, expected.x_scatter)
    assert (stats.weight, stats.n_seqs, expected.n_seqs) == (6.0, 4.0, 6.0)
    assert stats.of(np.array([0, 1])).weight == 2.0  # unweighted again


def test_the_shape_is_that_of_the_estimate_unless_it_is_given() -> None:
    curves = simulate_curves(64, 16, trend=1.1, seed=1)
    found, plain = summarise(curves), summarise(curves, shape=PLAIN)
    np.testing.assert_array_equal(found.transform, summarise(curves, shape=noise_shape.estimate(curves)).transform)
    assert abs(found.eigenvalues - plain.eigenvalues).max() > 0.1


@pytest.mark.parametrize("noise", NOISES)
def test_the_first_half_keeps_the_units_of_the_whole(noise: str) -> None:
    """f and how sequences differ are shares of the way to n_max, whatever is fitted; the scale can be kept
    too; and the noise of the first half is the first half of the noise."""
    curves, shape = curves_of(9, 12), NOISES[noise]
    whole, half = summarise(curves, shape=shape), summarise(curves, until=6.0, shape=shape)
    assert half.n_max == whole.n_max == 13
    np.testing.assert_array_equal(half.shots, np.arange(1.0, 7))
    for name in ("x", "line", "early"):
        of_half, of_whole = (getattr(stats, name) @ stats.inverse_transform for stats in (half, whole))
        np.testing.assert_allclose(of_half, of_whole[..., :5], atol=1e-12)
    np.testing.assert_allclose(half.bends, whole.bends[:, :5])
    covs = [(stats.transform * stats.eigenvalues) @ stats.transform.T for stats in (half, whole)]
    np.testing.assert_allclose(covs[0], covs[1][:5, :5], atol=1e-12)
    np.testing.assert_allclose(whole.step_positions[:12], (np.arange(1, 13) - 0.5) / 12)
    assert len(whole.step_positions) == 24
    np.testing.assert_allclose(half.step_positions, whole.step_positions)


def test_statistics_of_some_sequences_are_those_of_their_curves() -> None:
    curves, shape = curves_of(9, 12), Shape(trend=0.5, corr=0.2)
    stats = summarise(curves, shape=shape)
    for keep in (np.arange(9) != 3, np.array([3]), np.array([8, 0, 4])):
        found = stats.of(keep)
        own = summarise(curves._replace(log_odds=curves.log_odds[keep]), shape=shape)
        same = "x x_mean x_scatter n_seqs weight shots n_max transform eigenvalues line early bends step_positions"
        for name in same.split():
            np.testing.assert_allclose(getattr(found, name), getattr(own, name), atol=1e-9, err_msg=name)
        # What the priors hang on stays, or a sequence left out would change them.
        assert found.scale == stats.scale != own.scale
    # Two parts make the whole.
    h = HYPOTHESES["additive"]
    params = params_of(h, stats)
    parts = [inference_noise.total_log_likelihood(np, h, stats.of(np.arange(9) % 2 == odd), params) for odd in (0, 1)]
    np.testing.assert_allclose(sum(parts), inference_noise.total_log_likelihood(np, h, stats, params), rtol=1e-10)
