"""Every registered law: normalised, finite, the same on numpy and PyTensor, with the limits it promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions
from scipy.special import expit, logit
from simulate import prior_draws, wider

from bayes_icl.core.errors import StatedError
from bayes_icl.core.parallel import run_jobs
from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES, LogNormal, Prior, Uniform, hypothesis, law, load_hypotheses
from bayes_icl.hypotheses.law import DOF_PRIOR, SHARED_PRIORS, SHARED_SHOTS
from bayes_icl.hypotheses.laws import CURVED_LAPSE, lapse_from_scaling_law, scaling_log_odds, scaling_matrix
from bayes_icl.inference.noise import Statistics, summarise
from bayes_icl.inference.noise_shape import PLAIN, Shape

LAWS = [name for name, h in HYPOTHESES.items() if not (h.ceiling or h.latent_step)]
SHAPES = [name for name in LAWS if not HYPOTHESES[name].in_nats]  # f from 0 to 1, gain beside it
IN_NATS = [name for name in LAWS if HYPOTHESES[name].in_nats]
WITH_PARAMETER = [name for name in SHAPES if HYPOTHESES[name].priors]
# Far beyond where a posterior can be, and within what the sampler may try: LogNormal from 1e-3 to 1e4.
EXTREMES = {"Uniform": (-0.5, 0.0, 0.5, 0.99, 1 - 1e-6, 1 - 1e-12), "LogNormal": (1e-3, 0.02, 0.1, 1.0, 30.0, 1e4)}


def statistics(
    n_min: int = 0, n_last: int = 32, n_max: int | None = None, n_seqs: int = 3, shape: Shape = PLAIN
) -> Statistics:
    shots = np.arange(n_min, (n_max or n_last) + 1.0)
    odds = np.random.default_rng(0).normal(size=(n_seqs, len(shots)))
    return summarise(Curves("made", "complement", shots, odds), until=float(n_last), shape=shape)


def as_tensors(stats: Statistics) -> Any:
    return SimpleNamespace(
        **{name: pt.as_tensor(np.asarray(getattr(stats, name), float)) for name in Statistics.__dataclass_fields__}
    )


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def f_of(name: str, stats: Statistics, *values: float) -> np.ndarray:
    """Differences of f at one value of each parameter."""
    h = HYPOTHESES[name]
    params = {"gain": column(1.0), **{p: column(x) for p, x in zip(h.priors, values)}}
    return np.atleast_2d(h.updates(np, stats, params)[1])[0]


def curve_of(name: str, n: np.ndarray, **theta: float) -> np.ndarray:
    """L(n) - L(n[0]) of a law in nats."""
    g = HYPOTHESES[name].curve(np, n, **{p: column(x) for p, x in theta.items()})[0]
    return g - g[0]


def slope(values: Any, parameter: Any) -> Any:
    """The gradient of a fixed random mixture of the values: NaN if any of theirs is, and no loop to compile."""
    return pt.grad(pt.dot(values, pt.as_tensor(mixture(1000))[: values.shape[0]]), parameter)


def mixture(size: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=size)


def values_of(prior: Prior) -> st.SearchStrategy[float]:
    low, high = (-0.5, 1 - 1e-12) if prior.family == "Uniform" else (-3.0, 4.0)
    return st.floats(low, high).map(float if prior.family == "Uniform" else lambda x: 10**x)


# --------------------------------------------------------------------------------------------- f


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data(), n_min=st.sampled_from([0, 1, 2]), n_last=st.integers(4, 64))
@settings(deadline=None, max_examples=60)
def test_f_goes_from_0_to_1(name: str, data: st.DataObject, n_min: int, n_last: int) -> None:
    theta = [data.draw(values_of(prior)) for prior in HYPOTHESES[name].priors.values()]
    f = f_of(name, statistics(n_min, n_last), *theta)
    assert f.shape == (n_last - n_min,)
    assert f.sum() == pytest.approx(1, abs=1e-9)
    assert (f >= 0).all()  # all of them are monotone


@pytest.mark.parametrize("n_min", [0, 1, 2])
@pytest.mark.parametrize("name", WITH_PARAMETER)
def test_no_nan_at_extreme_parameters_and_one_code_for_two_libraries(name: str, n_min: int) -> None:
    """f and its gradient, on PyTensor, at the edges of the prior; numpy with all draws at once."""
    h, stats = HYPOTHESES[name], statistics(n_min)
    ((parameter, prior),) = h.priors.items()
    values = np.array(EXTREMES[prior.family])
    theta = pt.dscalar(parameter)
    mean, f, gain = h.updates(pt, as_tensors(stats), {parameter: theta, "gain": pt.as_tensor(2.5)})
    call = pytensor.function([theta], [mean, f, slope(f, theta)], mode="FAST_COMPILE")
    together_mean, together, gains = h.updates(
        np, stats, {parameter: values[:, None], "gain": np.full((len(values), 1), 2.5)}
    )
    assert gain.eval() == 2.5 and (gains == 2.5).all()
    for i, value in enumerate(values):
        of_mean, of_f, gradient = call(value)
        assert np.isfinite(of_f).all(), value
        assert np.isfinite(gradient).all(), value
        np.testing.assert_allclose(together[i], of_f, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(together_mean[i], of_mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(together_mean[i], 2.5 * together[i], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_min", [0, 1])
@pytest.mark.parametrize("name", IN_NATS)
def test_laws_in_nats_are_finite_and_rise(name: str, n_min: int) -> None:
    """At 2000 draws of priors three times as wide; numpy and PyTensor, with the gradient, at 40 of them."""
    h, stats = wider(HYPOTHESES[name], 3.0), statistics(n_min)
    params = prior_draws(h, stats, 2000)
    mean, f, total = h.updates(np, stats, params)
    assert np.isfinite(mean).all() and np.isfinite(f).all() and np.isfinite(total).all()
    np.testing.assert_allclose(mean.sum(1), total[:, 0], rtol=1e-9, atol=1e-8)
    sized = abs(total[:, 0]) > 1e-6
    assert sized.mean() > 0.5
    np.testing.assert_allclose(f[sized].sum(1), 1, rtol=1e-6)
    # Rounding leaves 1e-9 of the curve's own size, which may be thousands of nats at such priors.
    rounding = 1e-9 * (1 + abs(h.curve(np, stats.shots, **{p: params[p] for p in h.priors})).max(1, keepdims=True))
    rises = (mean >= -rounding).all(1)
    if name == "lapse":
        up = (params["floor_until"] < params["ceiling_from"])[:, 0]
        np.testing.assert_array_equal(rises[sized], up[sized])
        assert 0.2 < up.mean() < 0.8  # both ways round
    else:
        assert rises.all()
    inputs = {p: pt.dscalar(p) for p in h.priors}
    own_mean, own_f, own_total = h.updates(pt, as_tensors(stats), inputs)
    gradients = [slope(own_mean, x) for x in inputs.values()]
    call = pytensor.function([*inputs.values()], [own_mean, own_f, own_total.sum(), *gradients], mode="FAST_COMPILE")
    for i in range(40):
        m, g, t, *gradient = call(*(params[p][i, 0] for p in h.priors))
        size = 1e-9 * (1 + abs(t))
        np.testing.assert_allclose(m, mean[i], rtol=1e-7, atol=max(float(rounding[i, 0]), size))
        assert t == pytest.approx(total[i, 0], rel=1e-7, abs=max(float(rounding[i, 0]), size))
        if abs(t) > 1e-6:
            np.testing.assert_allclose(g, f[i], rtol=1e-5, atol=1e-6)
        assert np.isfinite(gradient).all(), {p: params[p][i, 0] for p in h.priors}


@pytest.mark.parametrize("name", WITH_PARAMETER)
def test_the_gradient_is_that_of_f(name: str) -> None:
    """Finite differences, inside the prior; a `where` may give finite but wrong gradients."""
    h, stats = HYPOTHESES[name], statistics(0)
    ((parameter, _),) = h.priors.items()
    theta = pt.dscalar(parameter)
    f = h.updates(pt, as_tensors(stats), {parameter: theta, "gain": pt.as_tensor(1.0)})[1]
    call = pytensor.function([theta], slope(f, theta), mode="FAST_COMPILE")
    for value in (0.3, 0.7):
        step = 1e-5
        expected = (f_of(name, stats, value + step) - f_of(name, stats, value - step)) / (2 * step)
        np.testing.assert_allclose(call(value), expected @ mixture(1000)[:32], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "tolerance"),
    [("power", 0.0, 1e-12), ("saturating", 1e7, 1e-5), ("pooling", 1e7, 1e-5), ("logarithmic", 1e7, 1e-5)],
)
@pytest.mark.parametrize("n_min", [0, 1, 2])
def test_curved_laws_have_the_line_as_a_limit(name: str, value: float, tolerance: float, n_min: int) -> None:
    stats = statistics(n_min)
    line = f_of("additive", stats)
    np.testing.assert_allclose(line, 1 / (32 - n_min), rtol=1e-12)
    np.testing.assert_allclose(f_of(name, stats, value), line, rtol=tolerance)
    # The control: they are no lines elsewhere.
    assert abs(f_of(name, stats, 0.9 if name == "power" else 5.0) - line).max() > 1e-2


def test_power_is_the_power_up_to_the_logarithm() -> None:
    stats = statistics(1)
    n = stats.shots
    np.testing.assert_allclose(f_of("power", stats, 1 - 1e-9), np.diff(np.log(n)) / np.log(32), rtol=1e-6)
    for a in (-0.5, 0.3, 0.9):
        for n_min in (0, 1, 2):
            stats = statistics(n_min)
            g = stats.shots ** (1 - a)
            np.testing.assert_allclose(f_of("power", stats, a), np.diff(g) / (g[-1] - g[0]), rtol=1e-9)


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data(), n_min=st.sampled_from([0, 1, 2]))
@settings(deadline=None, max_examples=40)
def test_the_first_half_has_the_updates_of_the_whole(name: str, data: st.DataObject, n_min: int) -> None:
    """Leave the future out: a fit of the first half predicts the second only if f means the same in both."""
    theta = [data.draw(values_of(prior)) for prior in HYPOTHESES[name].priors.values()]
    whole, half = f_of(name, statistics(n_min, 32), *theta), f_of(name, statistics(n_min, 16, n_max=32), *theta)
    np.testing.assert_allclose(half, whole[: 16 - n_min], rtol=1e-9, atol=1e-15)
    # The control: without n_max the half would be a curve of its own.
    assert f_of(name, statistics(n_min, 16), *theta).sum() == pytest.approx(1)


@pytest.mark.parametrize("name", IN_NATS)
def test_the_first_half_of_a_law_in_nats_is_that_of_the_whole(name: str) -> None:
    h, whole, half = HYPOTHESES[name], statistics(1, 32), statistics(1, 16, n_max=32)
    params = prior_draws(h, whole, 100)
    of_whole, of_half = h.updates(np, whole, params), h.updates(np, half, params)
    np.testing.assert_allclose(of_half[0], of_whole[0][:, :15], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(of_half[1], of_whole[1][:, :15], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(of_half[2], of_whole[2])


# --------------------------------------------------------------------------------------------- identities


def test_a_leaky_integrator_saturates() -> None:
    """L_n = leak L_{n-1} + w, run by hand, is the saturating law with tau = -1 / log(leak)."""
    for leak in (0.5, 0.9, 0.99):
        level = [0.0]
        for _ in range(32):
            level.append(leak * level[-1] + 1.7)
        expected = np.diff(level) / (level[-1] - level[0])
        np.testing.assert_allclose(f_of("saturating", statistics(0), -1 / np.log(leak)), expected, atol=1e-14)
        assert abs(f_of("saturating", statistics(0), -1.5 / np.log(leak)) - expected).max() > 1e-3


def test_beta_bernoulli_counts_are_logarithmic() -> None:
    """From Beta(a, a), n agreeing flips: odds (n + a) / a of the next; by updating flip by flip."""
    known = np.array([0.693, 1.099, 1.609, 2.197, 2.833])  # Beta(1, 1) after 1, 2, 4, 8, 16
    n = np.array([1.0, 2, 4, 8, 16])
    np.testing.assert_allclose(HYPOTHESES["logarithmic"].curve(np, n, 1.0), known, atol=5e-4)
    for a in (0.5, 1.0, 7.0):
        counts, odds = [a, a], [0.0]
        for _ in range(32):
            counts[0] += 1
            odds.append(np.log(counts[0] / counts[1]))
        np.testing.assert_allclose(f_of("logarithmic", statistics(0), a), np.diff(odds) / odds[-1], rtol=1e-9)


def test_an_averaging_head_pools() -> None:
    """A softmax over n examples of score s and a rest of weight Z, by hand: c = Z / e^s."""
    score, rest = 1.3, 11.0
    share = [n * np.exp(score) / (n * np.exp(score) + rest) for n in range(33)]
    found = f_of("pooling", statistics(0), rest / np.exp(score))
    np.testing.assert_allclose(found, np.diff(share) / share[-1], rtol=1e-9)


def test_lapse_is_the_four_parameter_logistic() -> None:
    """p = lo + (1 - lo - hi) sigma(b + slope n): the knees are where e^z = lo / (1 - hi) and (1 - lo) / hi."""
    rng, n = np.random.default_rng(0), np.arange(65.0)
    for _ in range(200):
        lo, hi = rng.uniform(0.001, 0.45, size=2)
        b, rate = rng.normal(-3, 3), rng.uniform(0.02, 1.5)
        p = lo + (1 - lo - hi) * expit(b + rate * n)
        theta = {
            "slope": rate,
            "floor_until": (np.log(lo / (1 - hi)) - b) / rate,
            "ceiling_from": (np.log((1 - lo) / hi) - b) / rate,
        }
        np.testing.assert_allclose(curve_of("lapse", n, **theta), logit(p) - logit(p[0]), atol=1e-11)
        other = theta | {"ceiling_from": theta["ceiling_from"] + 0.1}
        if p[-1] > 1 - hi - 0.01 and p[0] < 0.5:  # the control, where the ceiling is seen
            assert abs(curve_of("lapse", n, **other) - (logit(p) - logit(p[0]))).max() > 1e-4


def scaling_p(n: np.ndarray, rho: np.ndarray, p: np.ndarray, k: float) -> np.ndarray:
    """The scaling law as published: sum_m rho_m P_m^(K n + 1) / sum_m rho_m P_m^(K n), as written."""
    terms = rho[:, None] * p[:, None] ** (k * n)
    return (p[:, None] * terms).sum(0) / terms.sum(0)


def scaling_q(n: np.ndarray, rho: np.ndarray, p: np.ndarray, k: float) -> np.ndarray:
    """1 - `scaling_p`, without cancellation."""
    terms = rho[:, None] * p[:, None] ** (k * n)
    return ((1 - p)[:, None] * terms).sum(0) / terms.sum(0)


def scaling_odds(n: np.ndarray, rho: np.ndarray, p: np.ndarray, k: float) -> np.ndarray:
    return np.log(scaling_p(n, rho, p, k) / scaling_q(n, rho, p, k))


def test_scaling_law_with_shots_plus_one_reports_the_prior_of_one_step_before() -> None:
    """The code of Arora et al. adds 1 to the shots in the Bayesian law too.

    So the curve that it fits at n is the published one at n + 1, which is the published one at n with
    rho'_m = rho_m P_m^K / sum_j rho_j P_j^K: the prior it reports is rho, and that before the first example is rho'.
    """
    rng, n = np.random.default_rng(1), np.arange(33.0)
    for m in (2, 3, 5):
        for _ in range(50):
            rho, p, k = rng.dirichlet(np.ones(m)), rng.uniform(0.05, 0.95, size=m), rng.uniform(0.05, 1.0)
            later = rho * p**k / (rho @ p**k)
            np.testing.assert_allclose(scaling_odds(n + 1, rho, p, k), scaling_odds(n, later, p, k), atol=1e-12)
            off = abs(scaling_odds(n + 1, rho, p, k) - scaling_odds(n, rho, p, k)).max()
            assert off > 1e-3 or k * np.ptp(np.log(p)) < 0.1  # the control: with the prior unmoved it is another curve
    rho, p, k = 0.3, (0.9, 0.4), 0.7
    one = lapse_from_scaling_law(rho, *p, k)
    rho_later = rho * p[0] ** k / (rho * p[0] ** k + (1 - rho) * p[1] ** k)
    moved = lapse_from_scaling_law(rho_later, *p, k)
    for knee in ("floor_until", "ceiling_from"):
        assert moved[knee] == pytest.approx(one[knee] - 1)  # one example earlier


def test_scaling_log_odds_is_the_published_law() -> None:
    rng, n = np.random.default_rng(2), np.arange(33.0)
    for m in (2, 3, 6):
        for _ in range(30):
            rho, p, k = rng.dirichlet(np.ones(m)), rng.uniform(0.02, 0.98, size=m), rng.uniform(0.05, 1.5)
            found = scaling_log_odds(np, n, np.log(rho), logit(p), k)
            np.testing.assert_allclose(found, scaling_odds(n, rho, p, k), atol=1e-11)


def test_scaling_law_is_the_published_one_in_other_coordinates() -> None:
    rng, n = np.random.default_rng(3), np.arange(33.0)
    h, checked = HYPOTHESES["scaling_law"], 0
    for _ in range(200):
        p = np.sort(rng.uniform(0.05, 0.97, size=3))[::-1]
        rho, k = rng.dirichlet(np.ones(3)), rng.uniform(0.2, 1.5)
        two = lapse_from_scaling_law(rho[0] / (rho[0] + rho[1]), p[0], p[1], k)
        theta = {
            "slope": two["slope"],
            "ceiling_from": two["ceiling_from"],
            "width": two["ceiling_from"] - two["floor_until"],
            "top": logit(p[0]),
            "gap_3": logit(p[1]) - logit(p[2]),
            "odds_3": np.log(rho[2] / rho[1]),
        }
        assert set(theta) == set(h.priors)
        if theta["width"] < 1e-3 or theta["gap_3"] < 1e-3:
            continue
        checked += 1
        g = h.curve(np, n, **{name: column(x) for name, x in theta.items()})[0]
        np.testing.assert_allclose(g, scaling_odds(n, rho, p, k), atol=1e-9)  # not even an origin is free
        # Slope times width is the log-odds ratio of P_1 and P_2, as its meaning says.
        assert theta["slope"] * theta["width"] == pytest.approx(logit(p[0]) - logit(p[1]))
        # Without the third task it is lapse; the control: with it, it is not.
        none = h.curve(np, n, **{name: column(x) for name, x in (theta | {"odds_3": -800.0}).items()})[0]
        np.testing.assert_allclose(none - none[0], curve_of("lapse", n, **two), atol=1e-9)
        if rho[2] > 0.3 and theta["gap_3"] > 1:
            assert abs((g - g[0]) - curve_of("lapse", n, **two)).max() > 1e-3
    assert checked > 150


def test_scoring_is_lapse_for_any_number_of_tasks_and_sampling_is_the_original() -> None:
    rng, n = np.random.default_rng(4), np.arange(33.0)
    for m in (2, 3, 7):
        for _ in range(30):
            rho, k = rng.dirichlet(np.ones(m)), rng.uniform(0.1, 1.0)
            diagonal, off = rng.uniform(0.5, 0.95, size=m), rng.uniform(0.05, 0.45, size=m)
            scoring = scaling_matrix("scoring", diagonal, off)
            assert scoring.shape == (m, m)
            for h in range(m):
                row = scaling_odds(n, rho, scoring[h], k)
                theta = lapse_from_scaling_law(rho[h], diagonal[h], off[h], k)
                np.testing.assert_allclose(row - row[0], curve_of("lapse", n, **theta), atol=1e-11)
            # Any row of a free matrix is a row of a sampling matrix.
            wanted = rng.uniform(0.05, 0.95, size=m)
            sampling = scaling_matrix("sampling", np.append(wanted[0], diagonal[1:]), np.append(off[0], wanted[1:]))
            np.testing.assert_array_equal(sampling[0], wanted)
            # Off the diagonal the entries of a column agree; and with more than two tasks a row need be no lapse.
            assert all(np.ptp(np.delete(sampling[:, j], j)) == 0 for j in range(m))
            if m > 2:
                row = scaling_odds(n, rho, np.append(0.9, np.geomspace(0.001, 0.7, m - 1)), 1.0)
                assert not _is_a_lapse(n, row)
    with pytest.raises(ValueError, match="sampling or scoring"):
        scaling_matrix("other", diagonal, off)


def _is_a_lapse(n: np.ndarray, odds: np.ndarray) -> bool:
    """Whether p is a logistic between two asymptotes: the best fit of four parameters leaves less than 1e-6."""
    from scipy.optimize import least_squares

    p = expit(odds)
    fits = [
        least_squares(
            lambda x: expit(x[0]) + (expit(x[1]) - expit(x[0])) * expit(x[2] + np.exp(x[3]) * n) - p,
            [logit(p[0]) - 1, logit(p[-1]) + 0.5, b, -1.0],
            xtol=1e-14,
            ftol=1e-14,
            gtol=1e-14,
        )
        for b in (-4.0, 0.0)
    ]
    return min(abs(fit.fun).max() for fit in fits) < 1e-6


def test_is_a_lapse_can_say_yes() -> None:
    """The control of the control above."""
    n = np.arange(33.0)
    assert _is_a_lapse(n, scaling_odds(n, np.array([0.1, 0.9]), np.array([0.9, 0.4]), 0.5))


@pytest.mark.parametrize(
    ("name", "theta", "nll"),
    [
        ("nll_power", {"C": 3.0, "alpha": 0.7, "K": 0.2}, lambda n: 3 * (n + 1) ** -0.7 + 0.2),
        (
            "nll_bounded",
            {"C": 3.0, "n_c": 4.0, "alpha": 0.7, "K": 0.2},
            lambda n: 3 * (1 + n / 4) ** -0.7 + 0.2,
        ),
        ("nll_logistic", {"H": 3.0, "n_0": 8.0, "kappa": 1.7, "K": 0.2}, lambda n: 3 / (1 + (n / 8) ** 1.7) + 0.2),
    ],
)
def test_laws_of_log_p_are_those_of_the_papers(name: str, theta: dict[str, float], nll: Any) -> None:
    n = np.arange(33.0)
    p = np.exp(-nll(n))
    np.testing.assert_allclose(curve_of(name, n, **theta), logit(p) - logit(p[0]), atol=1e-8)
    other = theta | {"K": 0.25}
    assert abs(curve_of(name, n, **other) - (logit(p) - logit(p[0]))).max() > 1e-2


# --------------------------------------------------------------------------------------------- steps and the ceiling


def step_weights(stats: Statistics, tau: float, spread: float) -> np.ndarray:
    return np.exp(HYPOTHESES["changepoint"].step_log_weights(np, stats, {"tau": tau, "spread": spread}))


@given(tau=st.floats(0, 1), spread=st.floats(-3, 1).map(lambda x: 10**x), n_min=st.sampled_from([0, 1, 2]))
@settings(deadline=None, max_examples=60)
def test_step_weights_are_probabilities(tau: float, spread: float, n_min: int) -> None:
    weights = step_weights(statistics(n_min), tau, spread)
    assert weights.shape == (33 - n_min,)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    # What the whole says of its first half, the half says of itself.
    half = step_weights(statistics(n_min, 16, n_max=32), tau, spread)
    np.testing.assert_allclose(half[:-1], weights[: 16 - n_min], rtol=1e-6, atol=1e-10)
    assert half[-1] == pytest.approx(weights[16 - n_min :].sum(), rel=1e-6, abs=1e-9)


def test_step_weights_are_a_normal_over_updates() -> None:
    stats = statistics(0)
    weights = step_weights(stats, 0.3, 0.2)
    positions = (np.arange(64) + 0.5) / 32
    expected = distributions.norm(0.3, np.hypot(0.2, 0.4 / 32)).pdf(positions)
    expected /= expected.sum()
    np.testing.assert_allclose(weights[:-1], expected[:32], rtol=1e-8, atol=1e-11)
    assert weights[-1] == pytest.approx(expected[32:].sum(), rel=1e-6)
    assert weights[:-1].argmax() == 9  # update 9 to 10 holds 0.3 * 32 = 9.6


def test_step_weights_on_two_libraries_and_over_draws() -> None:
    h, stats = HYPOTHESES["changepoint"], statistics(1)
    tau, spread = pt.dscalars("tau", "spread")
    weights = h.step_log_weights(pt, as_tensors(stats), {"tau": tau, "spread": spread})
    gradients = [slope(weights, x) for x in (tau, spread)]
    call = pytensor.function([tau, spread], [weights, *gradients], mode="FAST_COMPILE")
    values = np.array([[0.0, 1e-3], [0.5, 0.1], [1.0, 1e-3], [0.2, 1e3], [1.0, 30.0]])
    together = h.step_log_weights(np, stats, {"tau": values[:, :1], "spread": values[:, 1:]})
    for i, (one_tau, one_spread) in enumerate(values):
        of, *gradient = call(one_tau, one_spread)
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(of, together[i], rtol=1e-9)
        np.testing.assert_allclose(h.step_log_weights(np, stats, {"tau": one_tau, "spread": one_spread}), of, rtol=1e-9)


@pytest.mark.parametrize("shared", [False, True])
def test_freeform_is_a_line_and_a_smooth_deviation(shared: bool) -> None:
    """By hand from the smooth components; and, where they move in all sequences, single shots. On two libraries."""
    h, stats = HYPOTHESES["freeform"].varied(shared=shared), statistics(2, 16, shape=Shape(shared=shared, trend=0.3))
    params = prior_draws(h, stats, 3)
    mean, f, gain = h.updates(np, stats, params)
    shots = np.arange(2.0, 17)
    deviation = np.concatenate([np.zeros((12, 1)), stats.bends.cumsum(1)], axis=1)
    for i in range(3):
        curve = params["gain"][i] * (shots - 2) / 14 + params["bend"][i] * params["shape"][i] @ deviation
        if shared:
            curve = curve + params["shot_sd"][i] * params["at_shot"][i]
        np.testing.assert_allclose(mean[i], np.diff(curve), atol=1e-12)
        if not shared:  # the gain is the rise of the best line
            assert np.polyfit(shots, curve, 1)[0] * 14 == pytest.approx(params["gain"][i, 0])
    np.testing.assert_array_equal(gain, params["gain"])
    np.testing.assert_allclose(np.broadcast_to(f, mean.shape), 1 / 14)
    tensors = {name: pt.as_tensor(x[1] if x.shape[1] > 1 else x[1, 0]) for name, x in params.items()}
    tensor_mean, tensor_f, tensor_gain = h.updates(pt, as_tensors(stats), tensors)
    np.testing.assert_allclose(tensor_mean.eval(mode="FAST_COMPILE"), mean[1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(tensor_f.eval(mode="FAST_COMPILE"), 1 / 14)
    assert tensor_gain.eval() == params["gain"][1, 0]


@pytest.mark.parametrize(("truth", "most"), [("power", 0.01), ("saturating", 0.01), ("pooling", 0.02), ("lapse", 0.03)])
def test_freeform_comes_near_every_smooth_law(truth: str, most: float) -> None:
    """What its components leave of a law's curve is a small share of the rise; a line leaves more."""
    stats, values = statistics(1), {"lapse": (0.5, 4.0, 20.0), "power": (0.5,)}
    f = f_of(truth, stats, *values.get(truth, (8.0,)))
    curve = np.concatenate([[0], np.cumsum(f)])
    deviation = np.concatenate([np.zeros((12, 1)), stats.bends.cumsum(1)], axis=1)
    line = np.stack([np.ones(32), stats.shots])
    for basis, near in ((np.concatenate([line, deviation]), True), (line, False)):
        left = curve - np.linalg.lstsq(basis.T, curve)[0] @ basis
        assert (abs(left).max() < most) == near


def test_an_effect_of_each_shot_is_of_free_means_only() -> None:
    shared = HYPOTHESES["freeform"].varied(shared=True)
    assert set(shared.parameters) - set(HYPOTHESES["freeform"].parameters) == {*SHARED_SHOTS} == {"shot_sd", "at_shot"}
    assert HYPOTHESES["power"].varied(shared=True) == HYPOTHESES["power"]


def test_a_curved_lapse_is_lapse_where_the_belief_is_straight() -> None:
    """And else the lapse of a belief linear in n^(1 - a), which starts and ends where the straight one does."""
    n = np.arange(1.0, 33)
    theta = {"slope": column(0.3), "floor_until": column(2.0), "ceiling_from": column(20.0)}
    straight = HYPOTHESES["lapse"].curve(np, n, **theta)
    np.testing.assert_allclose(CURVED_LAPSE.curve(np, n, **theta, a=column(0.0)), straight, atol=1e-12)
    for a in (-0.4, 0.5, 0.9):
        g = n ** (1 - a)
        bent = HYPOTHESES["lapse"].curve(np, 1 + 31 * (g - g[0]) / (g[-1] - g[0]), **theta)
        found = CURVED_LAPSE.curve(np, n, **theta, a=column(a))
        np.testing.assert_allclose(found, bent, atol=1e-9)
        np.testing.assert_allclose(found[0, [0, -1]], straight[0, [0, -1]], atol=1e-9)
        assert abs(found - straight).max() > 0.1
    assert CURVED_LAPSE.name not in HYPOTHESES and set(CURVED_LAPSE.meanings) == set(CURVED_LAPSE.priors)


def test_constant_has_no_mean_update_and_the_direction_of_additive() -> None:
    """Or slopes of mean zero would pass for learning."""
    stats = statistics(1)
    mean, f, gain = HYPOTHESES["constant"].updates(np, stats, {})
    assert not np.any(mean) and gain == 0
    np.testing.assert_array_equal(f, f_of("additive", stats))
    assert "gain" not in HYPOTHESES["constant"].parameters
    assert "gain_sd" in HYPOTHESES["constant"].parameters


# --------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize("name", HYPOTHESES)
def test_every_hypothesis_says_what_it_is(name: str) -> None:
    h = HYPOTHESES[name]
    assert h.name == name
    assert set(h.meanings) == set(h.priors)
    assert all(len(text) > 5 for text in h.meanings.values())
    assert h.reference and h.predicts
    assert not set(h.priors) & {*SHARED_PRIORS, "delta", "dof"}
    assert {"gain_sd", "early_sd", "level", "walk"} <= set(h.parameters)


def test_the_hypotheses_of_the_design_are_there() -> None:
    shapes = "constant additive logarithmic power saturating pooling changepoint freeform"
    in_nats = "lapse nll_power nll_bounded nll_logistic scaling_law"
    assert {*shapes.split(), *in_nats.split()} <= set(HYPOTHESES)
    assert set(IN_NATS) == set(in_nats.split())


@pytest.mark.parametrize("name", HYPOTHESES)
def test_parameters_that_are_sampled(name: str) -> None:
    h = HYPOTHESES[name]
    assert ("gain" in h.parameters) == (h.has_gain and not h.in_nats)
    assert "dof" not in h.parameters
    heavy = h.varied(student=True)
    assert set(heavy.parameters) - set(h.parameters) == {"dof"}
    assert heavy.all_priors["dof"] == DOF_PRIOR
    assert h.varied() == h and heavy != h


def test_registering_makes_a_hypothesis_and_never_replaces_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayes_icl.hypotheses.law.HYPOTHESES", known := dict(HYPOTHESES))

    @hypothesis(
        "root", complexity=2, priors={"s": LogNormal(0, 1)}, meanings={"s": "shift"}, reference="me", predicts="x"
    )
    def root(xp: Any, n: Any, s: Any) -> Any:
        return xp.sqrt(n + s)

    params = {"s": np.array([[1.0], [3.0]]), "gain": np.ones((2, 1))}
    f = known["root"].updates(np, statistics(1), params)[1]
    np.testing.assert_allclose(f[1], np.diff(np.sqrt(np.arange(1, 33) + 3)) / (np.sqrt(35) - 2))
    with pytest.raises(ValueError, match="'root' is registered already"):
        hypothesis("root", complexity=1, reference="", predicts="")(root)
    with pytest.raises(dataclasses.FrozenInstanceError):
        known["root"].complexity = 0  # type: ignore[misc]


# --------------------------------------------------------------------------------------------- a user's own file

GOOD = """
from bayes_icl.hypotheses import LogNormal, hypothesis

@hypothesis("square_root", complexity=2, priors={"s": LogNormal(0, 1)}, meanings={"s": "shift, examples"},
            reference="me", predicts="as the root of n")
def square_root(xp, n, s):
    return xp.sqrt(n + s)
"""


@pytest.fixture
def registry() -> Iterator[dict[str, Any]]:
    """What a file registers is taken back after the test."""
    before, loaded = dict(HYPOTHESES), dict(law._LOADED)
    yield HYPOTHESES
    for table, old in ((HYPOTHESES, before), (law._LOADED, loaded)):
        table.clear()
        table.update(old)  # type: ignore[arg-type]


def test_a_good_file_registers_and_twice_is_harmless(tmp_path: Path, registry: dict[str, Any]) -> None:
    path = tmp_path / "my_laws.py"
    path.write_text(GOOD)
    assert load_hypotheses(path) == ["square_root"]
    assert load_hypotheses(path) == ["square_root"]
    assert load_hypotheses(tmp_path / "." / "my_laws.py") == ["square_root"]
    f = f_of("square_root", statistics(1), 2.0)
    np.testing.assert_allclose(f, np.diff(np.sqrt(np.arange(1, 33) + 2)) / (np.sqrt(34) - np.sqrt(3)))


BAD = {
    "an error inside": (GOOD + "\nraise RuntimeError('no such thing')", "RuntimeError: no such thing"),
    "not Python": (GOOD + "\ndef (", "SyntaxError"),
    "a name that is taken": (GOOD.replace("square_root", "additive"), "'additive' is registered already"),
    "an error of several lines": ("raise ValueError('one\\n\\ntwo')", "ValueError: one"),
    "nothing registered": ("x = 1", "nothing in it is registered"),
    "that leaves": ("import sys; sys.exit('bye')", "SystemExit"),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_file_is_one_line_and_leaves_nothing_behind(why: str, tmp_path: Path, registry: dict[str, Any]) -> None:
    text, said = BAD[why]
    path = tmp_path / "my_laws.py"
    path.write_text(text)
    before = dict(registry)
    for _ in range(2):
        with pytest.raises(StatedError) as error:
            load_hypotheses(path)
        assert said in str(error.value) and str(path) in str(error.value)
        assert "\n" not in str(error.value)
        assert registry == before
    # Put right, it is read.
    path.write_text(GOOD)
    assert load_hypotheses(path) == ["square_root"]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(StatedError, match="no such file") as error:
            load_hypotheses(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


# --------------------------------------------------------------------------------------------- priors

PRIORS = {
    "Normal": (Prior("Normal", (0.5, 2.5)), distributions.norm(0.5, 2.5)),
    "HalfNormal": (Prior("HalfNormal", (0.7,)), distributions.halfnorm(scale=0.7)),
    "LogNormal": (LogNormal(np.log(5), 1.5), distributions.lognorm(1.5, scale=5)),
    "Uniform": (Uniform(-0.5, 1.0), distributions.uniform(-0.5, 1.5)),
}


@pytest.mark.parametrize("family", PRIORS)
def test_prior_draws_follow_their_distribution(family: str) -> None:
    """Kolmogorov-Smirnov on 20000 draws at a false-alarm rate of 1e-4; shifted by 5 % of an sd it must reject."""
    prior, expected = PRIORS[family]
    draws = prior.draw(np.random.default_rng(0), (100, 200))
    assert draws.shape == (100, 200)
    spread = min(expected.std(), 3.0)
    assert distributions.kstest(draws.ravel(), expected.cdf).pvalue > 1e-4
    assert distributions.kstest(draws.ravel() + 0.05 * spread, expected.cdf).pvalue < 1e-4


def test_a_scaled_prior_is_in_units_of_the_curves() -> None:
    for prior in (Prior("Normal", (0.0, 2.5), scaled=True), Prior("HalfNormal", (1.0,), scaled=True)):
        plain, scaled = (prior.draw(np.random.default_rng(0), (50,), scale) for scale in (1.0, 3.0))
        np.testing.assert_allclose(scaled, 3 * plain)
    plain, scaled = (LogNormal(0, 1).draw(np.random.default_rng(0), (50,), scale) for scale in (1.0, 3.0))
    np.testing.assert_array_equal(scaled, plain)


def test_every_prior_in_use_is_one_that_was_checked() -> None:
    used: set[str] = {DOF_PRIOR.family}
    for h in HYPOTHESES.values():
        for prior in h.all_priors.values():
            used.add(prior.family)
            assert not prior.scaled or prior.family in ("Normal", "HalfNormal")
    assert used <= set(PRIORS)


@pytest.mark.parametrize("family", PRIORS)
def test_pymc_reads_the_parameters_in_the_same_order(family: str) -> None:
    import pymc as pm

    prior, expected = PRIORS[family]
    at = expected.ppf([0.01, 0.2, 0.5, 0.9])
    own = pm.logcdf(getattr(pm, family).dist(*prior.parameters), at).eval(mode="FAST_COMPILE")
    np.testing.assert_allclose(own, expected.logcdf(at), rtol=1e-6)
    with pytest.raises(AssertionError):  # the control
        np.testing.assert_allclose(own, expected.logcdf(at + 0.01 * expected.std()), rtol=1e-6)


def test_no_law_is_another_one_under_a_second_name() -> None:
    """At parameters where each is clearly curved, any two differ by more than 1 % of the gain somewhere."""
    stats = statistics(0)
    typical = {
        "lapse": (0.5, 4.0, 20.0),
        "nll_power": (3.0, 0.7, 0.2),
        "nll_bounded": (3.0, 5.0, 2.0, 0.2),
        "nll_logistic": (3.0, 8.0, 2.0, 0.2),
        "scaling_law": (1.0, 20.0, 10.0, 2.0, 3.0, 3.0),
        "power": (0.5,),
    }
    curves = {}
    for name in LAWS:
        if name != "constant":
            curves[name] = np.cumsum(f_of(name, stats, *typical.get(name, [8.0] * len(HYPOTHESES[name].priors))))
    for one in curves:
        for other in curves:
            assert one == other or abs(curves[one] - curves[other]).max() > 0.01, (one, other)


# --------------------------------------------------------------------------------------------- other processes


def test_laws_travel_with_their_curves(registry: dict[str, Any]) -> None:
    """A law that a notebook registers is in no module that another process could import."""
    exec(GOOD, {"__name__": "my_laws"})
    n = np.arange(1.0, 5.0)
    with run_jobs(2) as run:
        for name in ("additive", "square_root"):
            h = registry[name].varied(student=True)
            one = {parameter: np.ones((1, 1)) for parameter in h.priors}
            for _, (back, curve) in run(lambda h, one: (h, h.curve(np, n, **one)), [(h, one)] * 2):
                np.testing.assert_array_equal(curve, h.curve(np, n, **one))
                assert back.all_priors == h.all_priors and (back == h or name == "square_root")


@pytest.mark.parametrize(
    "name", ["/../../../mine", "a/b", "..", "", "a b", "2nd", "x" * 41, "caf\u00e9", "a\n", "$x$", None]
)
def test_a_name_that_could_leave_its_folder_is_not_registered(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 to 40 letters, digits, _ or -"):
        hypothesis(name, complexity=1, reference="", predicts="")(lambda xp, n: n)
    (tmp_path / "own.py").write_text(
        "from bayes_icl.hypotheses import hypothesis\n"
        f"hypothesis({name!r}, complexity=1, reference='', predicts='')(lambda xp, n: n)\n"
    )
    with pytest.raises(
        StatedError, match=r"own\.py does not run: ValueError: a hypothesis is called by 1 to 40 letters"
    ):
        load_hypotheses(tmp_path / "own.py")
    assert name not in HYPOTHESES


# Data of the PyMC model, dimensions of the posterior, a name that PyMC makes.
ABLATED_WORDS = [
    *(field.name for field in dataclasses.fields(Statistics)),
    "log_likelihood",
    "chain",
    "draw",
    "walk_log__",
]


@pytest.mark.parametrize("parameter", ["gain", "walk", "level", "delta", "log_odds", "n", "a b", "", *ABLATED_WORDS])
def test_a_parameter_with_the_name_of_one_that_all_laws_have_is_not_registered(parameter: str) -> None:
    with pytest.raises(ValueError, match="no parameter can be called"):
        hypothesis("own", complexity=1, reference="", predicts="", priors={parameter: Uniform(0, 1)})(lambda xp, n: n)
    assert "own" not in HYPOTHESES
