"""The PyMC models sampled by NUTS: recovery, the same posteriors as the fast engine, retries, reproducibility.

Each hypothesis is compiled once; everything else reuses it on curves of other sizes.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats as distributions
from simulate import line, power_law, prior_draws, simulate_curves, wider

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference import nuts as inference_nuts
from bayes_icl.inference.departure import MeanCurve
from bayes_icl.inference.idata import inference_data
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import Statistics, summarise
from bayes_icl.inference.noise_shape import Shape
from bayes_icl.inference.nuts import Sampler, SamplerSettings, build_model
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.scores import score_curves, sequence_log_likelihood

Compiled = Callable[..., Sampler]


@pytest.fixture(scope="module")
def sampler() -> Compiled:
    """Samplers of hypotheses, compiled on curves longer than any that they are used on."""

    def of(name: str, student: bool = False) -> Sampler:
        return Sampler(HYPOTHESES[name].varied(student=student), summarise(simulate_curves(8, 32)), SamplerSettings())

    return of


def with_settings(sampler: Sampler, **settings: Any) -> Sampler:
    other = copy.copy(sampler)
    other.settings = dataclasses.replace(sampler.settings, **settings)
    return other


def sample(sampler: Sampler, curves: Curves) -> tuple[Posterior, Statistics]:
    stats = summarise(curves)
    return sampler(sampler.hypothesis, stats), stats


# --------------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("name", HYPOTHESES)
def test_the_model_has_the_parameters_of_the_hypothesis(name: str, student: bool) -> None:
    """And delta; its log density is compared with numpy's in test_importance."""
    h, stats = HYPOTHESES[name].varied(student=student), summarise(simulate_curves(5, 9, n_min=1))
    model = build_model(h, stats)
    assert {rv.name for rv in model.basic_RVs} == set(h.parameters)
    assert ("delta" in model.named_vars) == h.has_gain
    lengths = {rv.name: rv.shape.eval().tolist() for rv in model.basic_RVs}
    assert all(lengths[p] == ([12] if prior.length == "bends" else []) for p, prior in h.all_priors.items())
    # Every array is data that can be replaced.
    assert {"eigenvalues", "scale"} <= {variable.name for variable in model.data_vars}


def test_delta_is_the_gain_a_shot() -> None:
    """Where the law has its own size too."""
    import pymc as pm

    stats = summarise(simulate_curves(5, 9, n_min=1))
    for name in ("additive", "lapse"):
        h = HYPOTHESES[name]
        model = build_model(h, stats)
        params = prior_draws(h, stats, 1)
        with model:
            given = pm.do(model, {p: x[0, 0] for p, x in params.items()})
        found = float(pm.draw(given["delta"]))
        numbers = Posterior(h, params, np.zeros(1), "nuts", ess=1).numbers(stats)
        assert found == pytest.approx(numbers["delta"][0], rel=1e-9)
        assert numbers["delta"][0] == pytest.approx(numbers["gain"][0] / 8)


@pytest.mark.sampling
def test_the_posterior_has_the_parameters_and_nothing_else(sampler: Compiled) -> None:
    """Or the sampler's own transformed copies (gain_sd_log__) get into intervals, files and comparison.csv."""
    posterior, stats = sample(sampler("additive"), simulate_curves(16, 16))
    assert set(posterior.params) == {"gain", "gain_sd", "early_sd", "level", "walk"}
    assert set(posterior.numbers(stats)) == {"gain", "gain_sd", "early_sd", "level", "walk", "delta"}
    assert posterior.engine == "nuts" and posterior.chains == 4
    assert np.isnan(posterior.k_hat) and np.isnan(posterior.log_marginal)
    assert np.ptp(posterior.log_weights) == 0 and np.exp(posterior.log_weights).sum() == pytest.approx(1)


@pytest.mark.parametrize("before", [True, False])
def test_the_garbage_collector_is_left_as_it_was(before: bool) -> None:
    (gc.enable if before else gc.disable)()
    try:
        with pytest.raises(RuntimeError), inference_nuts.not_collecting():
            assert not gc.isenabled()
            raise RuntimeError
        assert gc.isenabled() == before
    finally:
        gc.enable()


@pytest.mark.sampling
def test_a_sampler_is_of_one_hypothesis(sampler: Compiled) -> None:
    stats = summarise(simulate_curves(16, 16))
    with pytest.raises(ValueError, match="compiled for 'additive', asked for 'power'"):
        sampler("additive")(HYPOTHESES["power"], stats)
    with pytest.raises(ValueError, match="compiled for 'additive'"):  # other priors are compiled in
        sampler("additive")(wider(HYPOTHESES["additive"], 2.0), stats)


@pytest.mark.sampling
@pytest.mark.parametrize(
    ("diagnostics", "then"),
    [
        ({}, None),
        ({"ess": 300.0}, (600, 600, 0.99)),
        ({"rhat_max": 1.02}, (600, 600, 0.99)),
        ({"divergences": 1}, (300, 600, 0.99)),
    ],
)
def test_a_fit_with_faults_is_tried_once_more(
    diagnostics: dict[str, float], then: tuple[int, int, float] | None, sampler: Compiled
) -> None:
    """Twice as long where the draws were too few, with smaller steps in any case; what is returned says how it went.

    The draws are the sampler's; their diagnostics are put in, since which draws are good differs between machines.
    """
    tried: list[tuple[int, int, float]] = []
    additive = with_settings(sampler("additive"), draws=300, tune=300)
    inner = additive._sample

    def spy(stats: Statistics, draws: int, tune: int, target_accept: float) -> Posterior:
        tried.append((draws, tune, target_accept))
        good = dataclasses.replace(inner(stats, draws, tune, target_accept), ess=5000.0, rhat_max=1.0, divergences=0)
        return dataclasses.replace(good, **diagnostics)

    additive._sample = spy  # type: ignore[method-assign]
    posterior = additive(additive.hypothesis, summarise(simulate_curves(16, 16)))
    assert tried == [(300, 300, 0.9), *([then] if then else [])]
    assert bool(posterior.faults) == bool(diagnostics)


@pytest.mark.sampling
def test_too_few_draws_are_said() -> None:
    """Of 100 draws in all the ESS cannot reach 400, on any machine."""
    h, stats = HYPOTHESES["additive"], summarise(simulate_curves(16, 16))
    posterior = Sampler(h, stats, SamplerSettings(draws=25, tune=300, chains=2))(h, stats)
    assert len(posterior.log_weights) == 100  # twice as many, the second time
    assert any("ESS" in fault for fault in posterior.faults)


@pytest.mark.sampling
def test_a_law_is_compiled_once_a_process(sampler: Compiled) -> None:
    one = sampler("additive")
    longer = simulate_curves(32, 40)
    again = Sampler(one.hypothesis, summarise(longer))
    assert again._compiled is one._compiled
    posterior, stats = sample(again, longer)  # curves longer than those it was compiled on
    assert off(posterior, sample_fast(one.hypothesis, stats), stats) < 0.2
    other = wider(HYPOTHESES["additive"], 2.0)
    assert not any(known == other for known, *_ in inference_nuts._COMPILED)


@pytest.mark.sampling
def test_the_seed_makes_it_reproducible(sampler: Compiled) -> None:
    curves = simulate_curves(16, 16)
    one, again = (sample(sampler("additive"), curves)[0].params for _ in range(2))
    other = sample(with_settings(sampler("additive"), seed=1), curves)[0].params
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
        assert not np.array_equal(one[name], other[name])


# --------------------------------------------------------------------------------------------- two engines, one model


def steps(n: np.ndarray) -> np.ndarray:
    return (n > 9).astype(float)


def ramp(n: np.ndarray) -> np.ndarray:
    return HYPOTHESES["lapse"].curve(np, n, 1.0, 4.0, 16.0)


def off(one: Posterior, other: Posterior, stats: Statistics) -> float:
    """The largest difference of any mean in sds, or of any sd in parts of it, that two posteriors have."""
    weights, others = np.exp(one.log_weights), np.exp(other.log_weights)
    worst = 0.0
    for name, x in one.numbers(stats).items():
        y = other.numbers(stats)[name]
        means = weights @ x, others @ y
        sds = np.sqrt(weights @ (x - means[0]) ** 2), np.sqrt(others @ (y - means[1]) ** 2)
        worst = max(worst, abs(means[0] - means[1]) / sds[1], abs(sds[0] / sds[1] - 1))
    return float(worst)


@pytest.mark.sampling
@pytest.mark.parametrize(
    ("name", "student", "f"),
    [
        ("additive", False, line),
        pytest.param("power", False, power_law(0.3), marks=pytest.mark.long),
        pytest.param("changepoint", False, steps, marks=pytest.mark.long),
        pytest.param("lapse", False, ramp, marks=pytest.mark.long),
        pytest.param("freeform", False, power_law(0.3), marks=pytest.mark.long),
        pytest.param("additive", True, line, marks=pytest.mark.long),
    ],
)
def test_the_engines_agree(name: str, student: bool, f: Callable[[np.ndarray], np.ndarray], sampler: Compiled) -> None:
    """Means within 5 % of a posterior sd, sds within 5 %.

    NUTS keeps 48000 draws with a bulk ESS above 10000, the fast engine an effective 25000: Monte Carlo errors are below
    1.2 % of an sd for a mean and about 1 % (heavier tails: 1.3 %) for an sd, so 5 % is four of them.
    """
    h = HYPOTHESES[name].varied(student=student)
    curves = simulate_curves(32, 24, f=f, level=1.0, walk=0.3, gain_sd=2.0)
    stats = summarise(curves)
    slow = with_settings(sampler(name, student), draws=16_000 if name == "freeform" else 12_000)(h, stats)
    fast = sample_fast(h, stats, least_draws=40_000)
    assert slow.faults == fast.faults == []
    assert slow.ess > 10_000 and fast.ess > 25_000
    assert off(fast, slow, stats) < 0.05
    if name == "freeform":
        # What the verdict is made from, and each component of the deviation.
        one, other = (MeanCurve.of(posterior, stats) for posterior in (slow, fast))
        for x, y in ((one.totals, other.totals), (one.departures, other.departures)):
            sd, w = x.std(), np.exp(fast.log_weights)
            assert abs(x.mean() - w @ y) < 0.05 * sd
            assert abs(np.sqrt(w @ (y - w @ y) ** 2) / sd - 1) < 0.05
        for name in ("total", "departure", "second_half", "delta"):
            found, expected = getattr(one, name), getattr(other, name)
            np.testing.assert_allclose(found, expected, atol=0.1 * (found.high - found.low))
        assert one.chance_within(0.05) == pytest.approx(other.chance_within(0.05), abs=0.02)
        shape, w = slow.params["shape"], np.exp(fast.log_weights)
        means, sds = w @ fast.params["shape"], shape.std(0)
        assert (abs(means - shape.mean(0)) < 0.05 * sds).all()
        spread = np.sqrt(w @ (fast.params["shape"] - means) ** 2)
        assert abs(spread / sds - 1).max() < 0.05
    # The controls: priors half as wide, and one sequence less.
    narrow = sample_fast(wider(h, 0.5), stats, least_draws=40_000)
    assert off(narrow, slow, stats) > 0.05
    assert off(sample_fast(h, stats.of(np.arange(32) > 0), least_draws=40_000), slow, stats) > 0.05


@pytest.mark.sampling
@pytest.mark.long
def test_the_engines_agree_where_single_shots_move_and_sequences_are_weighed() -> None:
    """An effect of each shot, noise that falls, weights: means within a tenth of an sd, of 6000 draws with less ESS."""
    curves = simulate_curves(24, 12, f=power_law(0.3), level=1.0, walk=0.3, gain_sd=2.0, trend=1.0)
    curves = curves._replace(log_odds=curves.log_odds + np.random.default_rng(1).normal(0, 1, size=13))
    weights = tuple(np.linspace(0.5, 1.5, 24).tolist())
    stats = summarise(curves, shape=Shape(trend=1.0, corr=0.3, shared=True, weights=weights))
    h = HYPOTHESES["freeform"].varied(shared=True)
    slow = Sampler(h, stats, SamplerSettings(draws=1500))(h, stats)
    fast = sample_fast(h, stats, least_draws=40_000)
    assert slow.faults == fast.faults == []
    assert off(fast, slow, stats) < 0.1
    one, other = (MeanCurve.of(posterior, stats) for posterior in (slow, fast))
    w = np.exp(fast.log_weights)
    for x, y in ((one.totals, other.totals), (one.departures, other.departures)):
        assert abs(x.mean() - w @ y) < 0.1 * x.std()
    assert (
        abs(slow.params["at_shot"].mean(0) - w @ fast.params["at_shot"]) < 0.1 * slow.params["at_shot"].std(0)
    ).all()
    # The control: as if all sequences weighed alike.
    alike = summarise(curves, shape=Shape(trend=1.0, corr=0.3, shared=True))
    assert off(sample_fast(h, alike, least_draws=40_000), slow, stats) > 0.1


@pytest.mark.sampling
@pytest.mark.long
def test_the_engines_score_alike(sampler: Compiled) -> None:
    """Leave-one-out within 0.15 nats in total, leave-future-out within 0.3; the control: another hypothesis."""
    curves = simulate_curves(32, 24, f=power_law(0.3), level=1.0, walk=0.3)
    h = HYPOTHESES["power"]
    (slow, _), (fast, _) = (score_curves(h, curves, engine) for engine in (sampler("power"), sample_fast))
    assert (slow.engine, fast.engine) == ("nuts", "fast")
    assert slow.elpd_logo.sum() == pytest.approx(fast.elpd_logo.sum(), abs=0.15)
    assert slow.elpd_lfo.sum() == pytest.approx(fast.elpd_lfo.sum(), abs=0.3)
    assert slow.coverage_ahead == pytest.approx(fast.coverage_ahead, abs=0.03)
    other, _ = score_curves(HYPOTHESES["additive"], curves, checks=False)
    assert abs(other.elpd_logo.sum() - fast.elpd_logo.sum()) > 1


# --------------------------------------------------------------------------------------------- recovery


def covered(fits: list[tuple[Posterior, Statistics]], name: str, truths: list[float]) -> tuple[int, float]:
    """How many 95 % intervals hold the truth, and the largest distance of a mean from it in posterior sds."""
    x = [posterior.numbers(stats)[name] for posterior, stats in fits]
    inside = [np.quantile(d, 0.025) < t < np.quantile(d, 0.975) for d, t in zip(x, truths)]
    return sum(inside), max(abs(d.mean() - t) / d.std() for d, t in zip(x, truths))


SHAPES = [(0, 64, 32), (1, 16, 32), (2, 64, 32), (0, 16, 16), (1, 64, 16), (2, 16, 32)]  # n_min, sequences, shots


@pytest.mark.sampling
def test_additive_is_recovered_whatever_the_shape_of_the_data(sampler: Compiled) -> None:
    """12 curves: fewer than 9 intervals hold the truth with probability below 3e-3 a parameter (binomial)."""
    assert distributions.binom(12, 0.95).cdf(8) < 3e-3
    truth = {"gain": 9.6, "gain_sd": 1.5, "level": 1.5, "walk": 0.3}
    shapes = [(*shape, seed) for shape in SHAPES for seed in (0, 1)]
    fits = [
        sample(sampler("additive"), simulate_curves(s, n, n_min=n_min, seed=seed, **truth))
        for n_min, s, n, seed in shapes
    ]
    assert all(fit.rhat_max < 1.02 and fit.ess > 400 and not fit.divergences for fit, _ in fits)
    for name in ("gain", "level", "walk", "gain_sd"):
        hits, furthest = covered(fits, name, [truth[name]] * 12)
        assert hits >= 9, name
        assert furthest < 4, name
    deltas = [9.6 / (n - n_min) for n_min, _, n, _ in shapes]
    hits, furthest = covered(fits, "delta", deltas)
    assert hits >= 9 and furthest < 3.5
    # The control: an answer a quarter off is not covered.
    assert covered(fits, "delta", [1.25 * delta for delta in deltas])[0] < 9


@pytest.mark.sampling
@pytest.mark.long
def test_power_is_recovered(sampler: Compiled) -> None:
    """6 curves: fewer than 4 intervals hold the truth with probability below 3e-3 a parameter (binomial)."""
    assert distributions.binom(6, 0.95).cdf(3) < 3e-3
    fits = [
        sample(sampler("power"), simulate_curves(s, n, n_min=n_min, seed=3, f=power_law(0.3))) for n_min, s, n in SHAPES
    ]
    for name, truth, false in (("gain", 9.6, 7.0), ("a", 0.3, 0.0)):
        hits, furthest = covered(fits, name, [truth] * 6)
        assert hits >= 4 and furthest < 3.5, name
        assert covered(fits, name, [false] * 6)[0] < 4, name  # the control


# --------------------------------------------------------------------------------------------- in ArviZ's form


@pytest.mark.sampling
def test_inference_data_keeps_the_chains(sampler: Compiled) -> None:
    """Chains and draws stand where the posterior has them; so does the sampler's own record."""
    curves = simulate_curves(16, 16, n_min=1)
    posterior, stats = sample(sampler("additive"), curves)
    inference = inference_data(posterior, curves)
    assert inference.posterior.sizes == {"chain": 4, "draw": 2000}
    np.testing.assert_array_equal(inference.posterior["gain"].values.ravel(), posterior.params["gain"][:, 0])
    ll = sequence_log_likelihood(posterior.at(np.array([2 * 2000 + 7])), stats)
    np.testing.assert_allclose(inference.log_likelihood["log_odds"][2, 7], ll[0])
    assert inference.sample_stats.diverging.shape == (4, 2000)
