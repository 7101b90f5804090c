"""How far mean curves are from lines: constructed posteriors of known curves, and fits of curves of known truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as distributions
from scipy.special import expit, logit
from simulate import line, power_law, simulate_curves

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.departure import Belief, MeanCurve, Straightness
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import PLAIN, Shape
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import mean_curve

SHOTS = np.arange(1.0, 33)

# The largest distance from the best line as a share of the rise, over n = 1 ... 32.
KNOWN: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "n": (line, 0.0),
    "n^.95": (power_law(0.05), 0.013),
    "n^.85": (power_law(0.15), 0.041),
    "n^.7": (power_law(0.3), 0.087),
    "log(1+n/20)": (lambda n: np.log(1 + n / 20), 0.084),
    "log(1+n/5)": (lambda n: np.log(1 + n / 5), 0.184),
    "n/(n+60)": (lambda n: n / (n + 60), 0.073),
    "n/(n+5)": (lambda n: n / (n + 5), 0.388),
    "1-exp(-n/10)": (lambda n: 1 - np.exp(-n / 10), 0.276),
    "step at 16": (lambda n: 1.0 * (n > 16), 0.477),
}


def of_curves(*curves: np.ndarray, log_weights: np.ndarray | None = None, shots: np.ndarray = SHOTS) -> MeanCurve:
    """As from a posterior with these draws."""
    fits = [np.polyval(np.polyfit(shots, curve, 1), shots) for curve in curves]
    lines = np.stack([fit - curve.mean() for fit, curve in zip(fits, curves)])
    deviations = np.stack([curve - fit for fit, curve in zip(fits, curves)])
    weights = np.full(len(curves), -np.log(len(curves))) if log_weights is None else log_weights
    return MeanCurve(shots, lines, deviations, weights)


# --------------------------------------------------------------------------------------------- known curves


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", KNOWN)
def test_departures_of_known_curves(name: str, sign: int) -> None:
    """In whatever unit, rising or falling; in nats it is that of the curve."""
    f, departure = KNOWN[name]
    curve = sign * 7.5 * f(SHOTS) / (f(SHOTS)[-1] - f(SHOTS)[0]) + 3
    found = of_curves(curve, curve)
    assert found.departure.mean == pytest.approx(departure, abs=0.001)
    assert found.departure_nats.mean == pytest.approx(7.5 * found.departure.mean)
    assert found.total.mean == pytest.approx(sign * 7.5)
    np.testing.assert_allclose(found.curves[0], curve - curve.mean(), atol=1e-12)
    # delta is the least-squares slope, whatever the curve.
    assert found.delta.mean == pytest.approx(distributions.linregress(SHOTS, curve).slope)
    middle = (curve[15] + curve[16]) / 2
    if abs(middle - curve[0]) > 1e-9:
        assert found.second_half.mean == pytest.approx((curve[-1] - middle) / (middle - curve[0]))
    if name == "n":
        assert found.second_half.mean == pytest.approx(1)
    # The control: of another line it departs by more.
    ends = np.linspace(curve[0], curve[-1], 32)
    assert departure == 0 or abs(curve - ends).max() > found.departure_nats.mean * 1.01


def test_a_curve_that_comes_back_departs_without_bound() -> None:
    """No total to be a share of: large, and a number."""
    found = of_curves(np.sin(np.pi * (SHOTS - 1) / 31), np.zeros(32))
    assert np.isfinite(found.departures).all() and found.departures[0] > 1e3
    assert np.isfinite(found.second_halves).all() and found.departures[1] == 0


def test_draws_are_weighted() -> None:
    """A line with three quarters of the weight, and a curve that departs by .087."""
    f = power_law(0.3)(SHOTS)
    found = of_curves(SHOTS, f, log_weights=np.log([0.75, 0.25]))
    assert found.chance_within(0.05) == pytest.approx(0.75) and found.chance_within(0.1) == pytest.approx(1)
    assert found.chance_within(0.0) == 0
    assert found.departure.mean == pytest.approx(0.25 * found.departures[1], abs=1e-9)
    assert found.total.mean == pytest.approx(0.75 * 31 + 0.25 * (f[-1] - f[0]))
    # Weights need not add up to 1.
    assert of_curves(SHOTS, f, log_weights=np.log([3.0, 1.0])).chance_within(0.05) == pytest.approx(0.75)


def test_a_bend_whose_direction_is_not_known_is_none() -> None:
    """The tail of chi-square with 2 degrees of freedom, by hand from the draws' mean and covariance."""
    rng = np.random.default_rng(0)
    bend, wave = (np.cos(np.pi * k * (SHOTS - 0.5) / 32) for k in (2, 3))
    for off, low, high in ((0.0, 0.5, 1.0), (1.0, 0.3, 0.9), (3.0, 0.005, 0.05), (8.0, 0.0, 1e-10)):
        half = rng.normal(size=(500, 2))
        sizes = np.concatenate([half, -half]) + np.array([off, 0.0])
        p = of_curves(*(0.3 * SHOTS + sizes @ np.stack([bend, wave]))).straight_p
        assert low <= p <= high
        expected = distributions.chi2.sf(sizes.mean(0) @ np.linalg.inv(np.cov(sizes.T, ddof=0)) @ sizes.mean(0), 2)
        assert p == pytest.approx(expected, rel=1e-6, abs=1e-12)
        # The line beneath does not matter.
        assert of_curves(*(sizes @ np.stack([bend, wave]))).straight_p == pytest.approx(p, rel=1e-6, abs=1e-12)


# --------------------------------------------------------------------------------------------- of a posterior


def posterior_of(n: int = 50, shared: bool = True) -> tuple[Posterior, Curves]:
    curves = simulate_curves(12, 16, n_min=1, seed=1)
    h, rng = HYPOTHESES["freeform"].varied(shared=shared), np.random.default_rng(0)
    stats = summarise(curves, shape=Shape(shared=shared, trend=0.5))
    params = {
        name: prior.draw(rng, (n, len(getattr(stats, prior.length)) if prior.length else 1), stats.scale)
        for name, prior in h.all_priors.items()
    }
    return Posterior(h, params, np.full(n, -np.log(n)), "fast", ess=1e3), curves


@pytest.mark.parametrize("shared", [False, True])
def test_the_mean_curve_is_that_of_the_law_without_what_moves_single_shots(shared: bool) -> None:
    posterior, curves = posterior_of(shared=shared)
    stats = summarise(curves, shape=Shape(shared=shared, trend=0.5))
    found = MeanCurve.of(posterior, stats)
    smooth = {name: x for name, x in posterior.params.items() if name not in ("shot_sd", "at_shot")}
    alone = Posterior(HYPOTHESES["freeform"], smooth, posterior.log_weights, "fast", ess=1e3)
    np.testing.assert_allclose(found.curves, mean_curve(alone, stats), atol=1e-9)
    whole = abs(found.curves - mean_curve(posterior, stats)).max()
    assert (whole > 0.1) == shared
    # The two parts are the best line of the curve and what is left.
    for curve, straight in zip(found.curves[:10], found.lines):
        expected = np.polyval(np.polyfit(curves.shots, curve, 1), curves.shots)
        np.testing.assert_allclose(straight, expected, atol=1e-9)
    assert found.delta.mean == pytest.approx(posterior.intervals(stats)["delta"].mean)


def test_straightness_is_what_the_mean_curve_says() -> None:
    posterior, curves = posterior_of(4000)
    stats = summarise(curves, shape=Shape(shared=True))
    mean, found = MeanCurve.of(posterior, stats), Straightness.of(posterior, stats, Shape(shared=True, trend=0.7))
    for name in ("total", "departure", "departure_nats", "second_half", "delta", "straight_p"):
        assert getattr(found, name) == getattr(mean, name)
    assert found.noise == Shape(shared=True, trend=0.7).words and found.faults == ()
    assert (found.low <= found.curve).all() and (found.curve <= found.high).all()
    inside = ((mean.curves >= found.low) & (mean.curves <= found.high)).mean(0)
    np.testing.assert_allclose(inside, 0.95, atol=0.02)
    np.testing.assert_allclose(np.diff(found.line, n=2), 0, atol=1e-9)
    assert len(found.draws) == len(found.departures) == 2000
    assert found.within(0.3) == pytest.approx(mean.chance_within(0.3), abs=0.02)
    few = Posterior(posterior.hypothesis, posterior.params, posterior.log_weights, "fast", ess=10.0)
    assert Straightness.of(few, stats, PLAIN).faults == tuple(few.faults) != ()


def test_a_law_is_close_where_it_is_nowhere_further_than_the_margin() -> None:
    """Draws at distances of 0, 2, 4 and 8 % of the rise of a line, at its end alone or everywhere."""
    shots = np.arange(33.0)
    away = np.array([0.0, 0.02, 0.04, 0.08])[:, None] * np.cos(np.pi * shots / 8)
    draws = 10 * (shots / 32 - 0.5 + away - away.mean(1, keepdims=True))
    posterior, curves = posterior_of()
    some = Straightness.of(posterior, summarise(curves, shape=Shape(shared=True)), PLAIN)
    off = vars(some) | {"draws": draws, "curve": draws.mean(0), "shots": shots}
    found = Straightness(**off | {"total": some.total._replace(mean=10.0)})
    law = 0.3125 * shots + 77  # its level does not matter
    assert [found.close(law, margin) for margin in (0.01, 0.03, 0.05, 0.1)] == [0.25, 0.5, 0.75, 1.0]
    assert found.close(0.9 * law, 0.03) < 0.5  # the control: another slope
    # The mean of the draws is 3.5 % away.
    assert found.misfit(law) == pytest.approx(0.035, abs=0.002)
    assert found.misfit(draws.mean(0) - 5) == pytest.approx(0, abs=1e-9)
    assert found.misfit(0 * law) == pytest.approx(abs(draws.mean(0) - draws.mean()).max() / 10)


# --------------------------------------------------------------------------------------------- of curves


@pytest.mark.parametrize("name", ["n", "n^.7", "n/(n+5)", "1-exp(-n/10)"])
def test_known_truths_are_recovered(name: str) -> None:
    """256 sequences: the interval of the departure, of the total and of delta, and a line is within its margin."""
    f, departure = KNOWN[name]
    curves = simulate_curves(256, 32, n_min=1, f=f, level=1.0, gain_sd=1.0, early_sd=0.5, seed=3)
    stats = summarise(curves)
    found = MeanCurve.of(sample_fast(HYPOTHESES["freeform"], stats), stats)
    law = 9.6 * f(SHOTS) / (f(SHOTS)[-1] - f(SHOTS)[0])
    slope = distributions.linregress(SHOTS, law).slope
    assert found.delta.low < slope < found.delta.high and found.delta.high - found.delta.low < 0.03
    assert found.total.low - 0.1 < 9.6 < found.total.high + 0.1
    if name == "n":
        assert found.chance_within(0.05) > 0.95 and found.departure.high < 0.03
        assert found.second_half.low < 1 < found.second_half.high
        assert found.straight_p > 1e-3
    else:
        assert found.departure.mean == pytest.approx(departure, abs=0.025)
        assert found.chance_within(0.05) < 0.01
        assert found.straight_p < 1e-6 and found.second_half.high < 1


def test_a_belief_under_a_ceiling() -> None:
    """P = .02 + .93 sigma(-4 + .3 n): delta .3 and the ceiling logit(.95), and it is straight.

    Of 6 curves 4 or more intervals hold the truth (fewer: p of 2e-3 each).
    """
    shots = np.arange(1.0, 33)

    def read(belief: np.ndarray, seed: int) -> Belief:
        odds = logit(0.02 + 0.93 * expit(belief)) + np.random.default_rng(seed).normal(0, 0.4, size=(64, 32))
        curves = Curves("made", "complement", shots, odds)
        return Belief.of(curves, summarise(curves))

    found = [read(-4 + 0.3 * shots, seed) for seed in range(6)]
    assert all(one.faults == () for one in found)
    for name, truth, width in (("delta", 0.3, 0.03), ("ceiling", logit(0.95), 0.2), ("curvature", 0.0, 0.5)):
        intervals = [getattr(one, name) for one in found]
        assert sum(not one.excludes(truth) for one in intervals) >= 4, name
        assert all(one.high - one.low < width for one in intervals)
        assert sum(not one.excludes(truth + width) for one in intervals) < 2  # the control
    assert sum(one.straight(0.05) for one in found) >= 5
    # The control: a belief of square roots has a curvature of a half, and departs by .14.
    other = read(-6 + 2.2 * np.sqrt(shots), 0)
    assert other.curvature.low < 0.5 < other.curvature.high and not other.straight(0.05)
    assert 0.05 < other.departure.low < 0.143 < other.departure.high + 0.02
    doubted = dataclasses.replace(found[0], faults=("ESS 3 below 400",))
    assert found[0].straight(0.05) and not doubted.straight(0.05)
