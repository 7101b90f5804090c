"""Every registered law: normalised, finite, the same on numpy and PyTensor, with the limits that it promises."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions

from bayes_icl.hypotheses import HYPOTHESES, SHARED_PRIORS, Hypothesis, LogNormal, Prior, Uniform, hypothesis
from bayes_icl.noise import Statistics, summarise

LAWS = [name for name, h in HYPOTHESES.items() if not h.ceiling and not h.latent_step]
WITH_PARAMETER = [name for name in LAWS if HYPOTHESES[name].priors]
# Far beyond where a posterior can be, and within what the sampler may try: LogNormal from 1e-3 to 1e4.
EXTREMES = {"Uniform": (-0.5, 0.0, 0.5, 0.99, 1 - 1e-6, 1 - 1e-12), "LogNormal": (1e-3, 0.02, 0.1, 1.0, 30.0, 1e4)}


def statistics(n_min: int = 0, n_last: int = 32, n_max: float | None = None, n_seqs: int = 3) -> Statistics:
    shots = np.arange(n_min, n_last + 1.0)
    return summarise(np.random.default_rng(0).normal(size=(n_seqs, len(shots))), shots, n_max=n_max)


def as_tensors(stats: Statistics) -> Any:
    return SimpleNamespace(
        **{name: pt.as_tensor(np.asarray(getattr(stats, name), float)) for name in Statistics.__dataclass_fields__}
    )


def f_of(name: str, stats: Statistics, *values: float) -> np.ndarray:
    """Differences of f at one value of each parameter."""
    h = HYPOTHESES[name]
    return h.updates(np, stats, dict(zip(h.priors, values)), 0.0)[1]


def slope(values: Any, parameter: Any) -> Any:
    """The gradient of a fixed random mixture of the values: NaN if any of theirs is, and no loop to compile."""
    return pt.grad(pt.dot(values, pt.as_tensor(mixture(1000))[: values.shape[0]]), parameter)


def mixture(size: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=size)


def values_of(prior: Prior) -> st.SearchStrategy[float]:
    low, high = (-0.5, 1 - 1e-12) if prior.family == "Uniform" else (-3.0, 4.0)
    return st.floats(low, high).map(float if prior.family == "Uniform" else lambda x: 10**x)


# --------------------------------------------------------------------------------------------- f


@pytest.mark.parametrize("name", LAWS)
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
    """f and its gradient, on PyTensor, at the edges of the prior; numpy draw by draw and all draws at once."""
    h, stats = HYPOTHESES[name], statistics(n_min)
    ((parameter, prior),) = h.priors.items()
    values = np.array(EXTREMES[prior.family])
    theta = pt.dscalar(parameter)
    mean, f = h.updates(pt, as_tensors(stats), {parameter: theta}, pt.as_tensor(2.5))
    call = pytensor.function([theta], [mean, f, slope(f, theta)], mode="FAST_COMPILE")
    together_mean, together = h.updates(np, stats, {parameter: values[:, None]}, np.full((len(values), 1), 2.5))
    for i, value in enumerate(values):
        of_mean, of_f, gradient = call(value)
        assert np.isfinite(of_f).all(), value
        assert np.isfinite(gradient).all(), value
        one_mean, one = h.updates(np, stats, {parameter: value}, 2.5)
        np.testing.assert_allclose(of_f, one, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(of_mean, one_mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(together[i], one, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(together_mean[i], 2.5 * one, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", WITH_PARAMETER)
def test_the_gradient_is_that_of_f(name: str) -> None:
    """Finite differences, inside the prior; a `where` may give finite but wrong gradients."""
    h, stats = HYPOTHESES[name], statistics(0)
    ((parameter, _),) = h.priors.items()
    theta = pt.dscalar(parameter)
    f = h.updates(pt, as_tensors(stats), {parameter: theta}, pt.as_tensor(1.0))[1]
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


@pytest.mark.parametrize("name", LAWS)
@given(data=st.data(), n_min=st.sampled_from([0, 1, 2]))
@settings(deadline=None, max_examples=40)
def test_the_first_half_has_the_updates_of_the_whole(name: str, data: st.DataObject, n_min: int) -> None:
    """Leave the future out: a fit of the first half predicts the second only if f means the same in both."""
    theta = [data.draw(values_of(prior)) for prior in HYPOTHESES[name].priors.values()]
    whole, half = f_of(name, statistics(n_min), *theta), f_of(name, statistics(n_min, 16, n_max=32), *theta)
    np.testing.assert_allclose(half, whole[: 16 - n_min], rtol=1e-9, atol=1e-15)
    # The control: without n_max the half would be a curve of its own.
    assert f_of(name, statistics(n_min, 16), *theta).sum() == pytest.approx(1)


# --------------------------------------------------------------------------------------------- known answers


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


def test_freeform_can_be_any_curve_and_leaves_random_gains_a_line() -> None:
    h, stats = HYPOTHESES["freeform"], statistics(0, 8)
    wanted = np.random.default_rng(1).normal(size=8)
    shape = wanted @ stats.transform / stats.scale
    mean, f = h.updates(np, stats, {"shape": shape}, 0.0)
    np.testing.assert_allclose(mean, wanted, rtol=1e-10)
    np.testing.assert_allclose(f, 1 / 8)
    tensor_mean, tensor_f = h.updates(pt, as_tensors(stats), {"shape": pt.as_tensor(shape)}, 0.0)
    np.testing.assert_allclose(tensor_mean.eval(mode="FAST_COMPILE"), wanted, rtol=1e-10)
    np.testing.assert_allclose(tensor_f.eval(mode="FAST_COMPILE"), f)
    many, _ = h.updates(np, stats, {"shape": np.stack([shape, -shape])}, np.zeros((2, 1)))
    np.testing.assert_allclose(many, [wanted, -wanted], rtol=1e-10)


def test_constant_has_no_mean_update_and_the_direction_of_additive() -> None:
    """Or slopes of mean zero would pass for learning."""
    stats = statistics(1)
    mean, f = HYPOTHESES["constant"].updates(np, stats, {}, 0.0)
    assert not np.any(mean)
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
    assert not set(h.priors) & {*SHARED_PRIORS, "delta"}
    assert {"gain_sd", "level", "walk"} <= set(h.parameters)


def test_registering_makes_a_hypothesis_and_never_replaces_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayes_icl.hypotheses.HYPOTHESES", known := dict(HYPOTHESES))

    @hypothesis(
        "root", complexity=2, priors={"s": LogNormal(0, 1)}, meanings={"s": "shift"}, reference="me", predicts="x"
    )
    def root(xp: Any, n: Any, s: Any) -> Any:
        return xp.sqrt(n + s)

    f = known["root"].updates(np, statistics(1), {"s": np.array([[1.0], [3.0]])}, np.ones((2, 1)))[1]
    np.testing.assert_allclose(f[1], np.diff(np.sqrt(np.arange(1, 33) + 3)) / (np.sqrt(35) - 2))
    with pytest.raises(ValueError, match="'root' is registered already"):
        hypothesis("root", complexity=1, reference="", predicts="")(root)
    with pytest.raises(dataclasses.FrozenInstanceError):
        known["root"].complexity = 0  # type: ignore[misc]


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


def test_every_prior_in_use_is_one_that_was_checked() -> None:
    used: set[str] = {p.family for p in SHARED_PRIORS.values()}
    for h in HYPOTHESES.values():
        used |= {p.family for p in h.priors.values()}
    assert used <= set(PRIORS)


@pytest.mark.sampling
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
    shown: dict[str, Hypothesis] = {name: HYPOTHESES[name] for name in LAWS if name != "constant"}
    curves = {name: np.cumsum(f_of(name, stats, *([0.5 if name == "power" else 8.0] * len(h.priors))))
              for name, h in shown.items()}  # fmt: skip
    for one in curves:
        for other in curves:
            assert one == other or abs(curves[one] - curves[other]).max() > 0.01
