"""Scores against exact refits, hand formulas, and simulations; odd sequences under both kinds of noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from simulate import covariance_by_hand, power_law, simulate_curves

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES, Hypothesis
from bayes_icl.inference import scores as inference_scores
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import Statistics, summarise
from bayes_icl.inference.noise_shape import estimate
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import mean_curve
from bayes_icl.inference.scores import lag_one, score_curves, sequence_log_likelihood

CURVED = simulate_curves(32, 24, f=power_law(0.3), walk=0.3, seed=2)


def stretched(curves: Curves, factor: float, seq: int = 5) -> Curves:
    """One sequence multiplied, about its mean."""
    odds = curves.log_odds.copy()
    odds[seq] = factor * (odds[seq] - odds[seq].mean())
    return curves._replace(log_odds=odds)


def exact_refits(h: Hypothesis, stats: Statistics, like: Posterior, seqs: np.ndarray) -> np.ndarray:
    """Log density of each sequence given all others, each from a fit of its own with another seed."""
    out = []
    for s in seqs:
        refit = sample_fast(h, stats.of(np.arange(len(stats.x)) != s), like=like, least_draws=5000, seed=7)
        assert not refit.faults
        one = sequence_log_likelihood(refit, stats.of(np.array([s])))[:, 0]
        out.append(float(logsumexp(one + refit.log_weights)))
    return np.array(out)


# --------------------------------------------------------------------------------------------- one sequence left out


@pytest.mark.parametrize(
    ("name", "student", "each"),
    [
        ("additive", False, 0.06),
        ("power", False, 0.06),
        ("power", True, 0.06),
        ("lapse", False, 0.06),
        ("changepoint", False, 0.06),
        ("freeform", False, 0.1),  # 12 components: a sequence counts for more
    ],
)
def test_leaving_a_sequence_out_agrees_with_exact_refits(name: str, student: bool, each: float) -> None:
    """Every other sequence: within 0.1 nats in total and 0.06 each, three times the sd of one over seeds (0.02)."""
    h = HYPOTHESES[name].varied(student=student)
    score, posterior = score_curves(h, CURVED, checks=False)
    stats = summarise(CURVED)
    exact = exact_refits(posterior.hypothesis, stats, posterior, np.arange(0, 32, 2))
    assert score.refits == 0 and score.pareto_k_max < 0.7 and score.faults == ()
    assert abs(score.elpd_logo[::2] - exact).max() < each
    assert abs(score.elpd_logo[::2].sum() - exact.sum()) < 0.1
    # The control: the density of what was fitted, nothing left out, is no substitute.
    fitted = logsumexp(sequence_log_likelihood(posterior, stats) + posterior.log_weights[:, None], axis=0)[::2]
    assert fitted.sum() - exact.sum() > 0.5
    assert abs(fitted - exact).max() > each


def test_an_odd_sequence_is_refitted() -> None:
    """Four times as large: weights cannot do it, and the exact refit inside agrees with one from another seed."""
    curves, h = stretched(CURVED, 4), HYPOTHESES["additive"]
    score, posterior = score_curves(h, curves, checks=False)
    assert score.refits == 1 and score.pareto_k_max < 0.7
    exact = exact_refits(h, summarise(curves), posterior, np.array([5, 6]))
    np.testing.assert_allclose(score.elpd_logo[5:7], exact, atol=0.5)
    assert [p["seq"] for p in score.pulls] == [5] and score.pulls[0]["pareto_k"] > 0.7
    # The control: weights alone, without the refit, are off by more.
    draws = posterior.equal(4000)
    own = sequence_log_likelihood(draws, summarise(curves))
    log_weights, k = inference_scores.smooth(draws.log_weights[:, None] - own)
    assert k[5] > 0.7 > k[6]
    assert abs(logsumexp(log_weights[:, 5] + own[:, 5]) - exact[0]) > 0.5


def test_a_refit_that_does_not_settle_a_score_does_not_count_as_exact() -> None:
    """Either seeds agree on the score of a sequence 50 times as large, or Pareto k says that it cannot be relied on."""
    curves = stretched(CURVED, 50)
    both = [
        score_curves(
            HYPOTHESES["additive"], curves, lambda h, s, seed=seed: sample_fast(h, s, seed=seed), checks=False
        )[0]
        for seed in (0, 1)
    ]
    settled = abs(both[0].elpd_logo[5] - both[1].elpd_logo[5]) < 2
    assert settled or all(score.pareto_k_max > 0.7 for score in both), [score.elpd_logo[5] for score in both]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_heavy_tails_withstand_one_sequence_multiplied_by_50(seed: int) -> None:
    """delta moves by less than 3 %; the control: by more under normal noise."""
    curves = simulate_curves(64, 32, seed=seed)
    moved = {}
    for student in (True, False):
        h = HYPOTHESES["additive"].varied(student=student)
        (clean, _), (odd, _) = (score_curves(h, c, checks=False) for c in (curves, stretched(curves, 50)))
        moved[student] = abs(odd.intervals["delta"][0] / clean.intervals["delta"][0] - 1)
        assert [p["seq"] for p in odd.pulls if p["pareto_k"] > 0.7] == [5]
        assert all(p["pareto_k"] < 0.7 for p in clean.pulls)
        assert odd.noise == ("student" if student else "normal")
        # Without it, the clean value.
        (pull,) = (p for p in odd.pulls if p["seq"] == 5)
        assert pull["delta_without"] == pytest.approx(clean.intervals["delta"][0], rel=0.03)
    assert moved[True] < 0.03 < moved[False]


def test_pulls_are_the_sequences_without_which_delta_moves() -> None:
    """A sequence with a slope of its own; delta without it is that of a fit without it."""
    odds = simulate_curves(16, 16, gain_sd=0.3, level=0.5, walk=0.05, seed=1).log_odds
    odds[3] += 0.6 * np.arange(17)
    curves = Curves("pulled", "complement", np.arange(17.0), odds)
    score, posterior = score_curves(HYPOTHESES["additive"], curves, checks=False)
    found = {p["seq"]: p["delta_without"] for p in score.pulls}
    assert 3 in found
    stats = summarise(curves)
    others = stats.of(np.arange(16) != 3)
    refit = sample_fast(HYPOTHESES["additive"], others, least_draws=20_000)
    exact = float(np.exp(refit.log_weights) @ refit.numbers(others)["delta"])
    _, low, high = score.intervals["delta"]
    assert found[3] == pytest.approx(exact, abs=0.05 * (high - low))
    # The control: what is not listed moves it by less than half an sd.
    delta = posterior.numbers(stats)["delta"]
    w = np.exp(posterior.log_weights)
    sd = np.sqrt(w @ (delta - w @ delta) ** 2)
    assert abs(exact - score.intervals["delta"][0]) > 0.5 * sd
    assert len(found) < 4


# --------------------------------------------------------------------------------------------- the future left out


@pytest.mark.parametrize("name", ["additive", "power"])
@pytest.mark.parametrize("noise", [{}, {"trend": 1.5}])
def test_the_future_given_the_past_is_a_dense_conditional(name: str, noise: dict[str, float]) -> None:
    """log mean over draws of the first half's fit of N(second half | first half), by dense algebra.

    The same draws enter both, so that no Monte Carlo error is left. The shape of the noise is that of the whole.
    """
    h, curves = HYPOTHESES[name], simulate_curves(10, 12, walk=0.3, **noise)
    shape = estimate(curves)
    assert bool(shape.trend) == bool(noise)
    score, _ = score_curves(h, curves, lambda h, s: _thin(sample_fast(h, s)), checks=False)
    whole = summarise(curves)
    half = _thin(sample_fast(h, summarise(curves, until=6.0, scale=whole.scale, shape=shape)))
    expected, marginal = np.empty((len(half.log_weights), 10)), np.empty((len(half.log_weights), 10))
    for i in range(len(half.log_weights)):
        one = {p: x[i] for p, x in half.params.items()}
        cov = covariance_by_hand(curves.shots, one, whole.scale, shape=shape)
        _, f, _ = h.updates(np, whole, {p: x[None] for p, x in one.items()})
        carry = np.linalg.solve(cov[:6, :6], cov[:6, 6:])
        later = multivariate_normal(np.zeros(6), cov[6:, 6:] - cov[6:, :6] @ carry)
        alone = multivariate_normal(np.zeros(6), cov[6:, 6:])
        error = np.diff(curves.log_odds, axis=1) - one["gain"] * np.atleast_2d(f)
        expected[i] = later.logpdf(error[:, 6:] - error[:, :6] @ carry)
        marginal[i] = alone.logpdf(error[:, 6:])
    found = logsumexp(expected + half.log_weights[:, None], axis=0)
    np.testing.assert_allclose(score.elpd_lfo, found, atol=1e-4)
    # The control: the second half as if the first had not been seen.
    assert abs(logsumexp(marginal + half.log_weights[:, None], axis=0) - score.elpd_lfo).max() > 0.1


def _thin(posterior: Posterior) -> Posterior:
    return posterior.equal(400)


@pytest.mark.parametrize(("name", "finite"), [("freeform", False), ("power", True)])
def test_a_ceiling_says_nothing_of_the_future(name: str, finite: bool) -> None:
    score, _ = score_curves(HYPOTHESES[name], simulate_curves(8, 12))
    assert np.isfinite(score.elpd_lfo).all() == finite
    assert np.isfinite(score.elpd_lfo).any() == finite
    assert np.isfinite(score.coverage_ahead) == finite
    assert np.isfinite([score.lag, score.lag_low, score.lag_high]).all()


def test_one_sequence_or_few_shots_are_fitted_without_the_scores_they_cannot_have() -> None:
    """Three shots up to the middle are the least that the future is predicted from."""
    score, _ = score_curves(HYPOTHESES["additive"], simulate_curves(1, 16), checks=False)
    assert np.isnan(score.elpd_logo).all() and np.isfinite(score.elpd_lfo).all()
    score, _ = score_curves(HYPOTHESES["additive"], simulate_curves(16, 3))
    assert np.isfinite(score.elpd_logo).all() and np.isnan(score.elpd_lfo).all()


def test_the_monte_carlo_error_is_the_sd_over_seeds() -> None:
    """Of 12 seeds: an sd of 12 has a relative error of a fifth."""
    curves = simulate_curves(24, 12, seed=3)

    def engine(seed: int) -> Callable[[Hypothesis, Statistics], Posterior]:
        return lambda h, stats: sample_fast(h, stats, seed=seed)

    found = [
        score_curves(HYPOTHESES["power"], curves, engine(seed), future=False, checks=False)[0] for seed in range(12)
    ]
    assert all(score.refits == 0 for score in found)
    sd = np.std([score.elpd_logo.sum() for score in found], ddof=1)
    assert 0.4 * sd < np.mean([score.mcse for score in found]) < 2.5 * sd


# --------------------------------------------------------------------------------------------- checks


def test_lag_one_is_the_autocorrelation_of_updates_about_their_mean() -> None:
    updates = np.array([[1.0, 2.0, 4.0], [3.0, 0.0, 2.0]])
    d = updates - updates.mean(0)
    expected = (d[:, 0] @ d[:, 1] + d[:, 1] @ d[:, 2]) / (d**2).sum()
    assert lag_one(updates) == pytest.approx(expected)
    np.testing.assert_allclose(lag_one(np.stack([updates, 5 * updates])), expected)
    # Level noise alone has -0.5, a random walk 0: 2000 sequences, errors below 0.01.
    level, walk = (simulate_curves(2000, 32, level=a, walk=b, gain_sd=0.0).log_odds for a, b in ((1, 0), (0, 1)))
    assert lag_one(np.diff(level, axis=1)) == pytest.approx(-0.5, abs=0.03)
    assert lag_one(np.diff(walk, axis=1)) == pytest.approx(0.0, abs=0.03)


def test_the_lag_of_replicates_holds_that_of_the_model_and_not_of_another_noise() -> None:
    """99 % intervals: of 20 curves, 17 or more are inside (false alarm 4e-5).

    The control: updates that alternate in sign, as neither level noise nor a walk makes them.
    """
    inside = []
    for seed in range(20):
        score, _ = score_curves(HYPOTHESES["additive"], simulate_curves(16, 16, walk=1.0, level=1.0, seed=seed))
        inside.append(score.lag_low <= score.lag <= score.lag_high)
    assert sum(inside) >= 17
    rng = np.random.default_rng(0)
    updates = 0.5 + rng.normal(0, 1.5, size=(32, 1)) * (-1.0) ** np.arange(24) + rng.normal(0, 0.3, size=(32, 24))
    odds = np.concatenate([np.zeros((32, 1)), np.cumsum(updates, axis=1)], axis=1)
    score, _ = score_curves(HYPOTHESES["additive"], Curves("odd", "complement", np.arange(25.0), odds))
    assert not score.lag_low <= score.lag <= score.lag_high


def test_extrapolated_intervals_hold_95_of_100_under_the_truth() -> None:
    """Ten curves: their sd is below 0.02, so their mean is within 0.03 with probability above 1 - 1e-5.

    The control: a truth that speeds up, of whose first half none can foresee the second.
    """
    right, wrong = [], []
    for seed in range(10):
        curves = simulate_curves(64, 32, f=power_law(0.6), level=0.5, gain_sd=0.5, seed=seed)
        right.append(score_curves(HYPOTHESES["power"], curves)[0].coverage_ahead)
        late = simulate_curves(64, 32, f=power_law(-2.0), level=0.5, gain_sd=0.5, seed=seed)
        wrong.append(score_curves(HYPOTHESES["additive"], late)[0].coverage_ahead)
    assert np.mean(right) == pytest.approx(0.95, abs=0.03)
    assert np.mean(wrong) < 0.8
    many = simulate_curves(512, 32, level=0.5, gain_sd=0.5)  # fewer draws each: still no bias
    assert score_curves(HYPOTHESES["additive"], many)[0].coverage_ahead == pytest.approx(0.95, abs=0.02)


# --------------------------------------------------------------------------------------------- the rest of a score


def test_a_score_says_what_it_is_of() -> None:
    curves = simulate_curves(8, 12, n_min=1, task="t", readout="selected")
    score, posterior = score_curves(HYPOTHESES["power"], curves, checks=False)
    assert (score.task, score.readout, score.n_min, score.hypothesis) == ("t", "selected", 1, "power")
    assert (score.noise, score.engine, score.straightness) == ("normal", "fast", None)
    assert score.k_hat == posterior.k_hat and score.log_marginal == posterior.log_marginal
    assert set(score.intervals) == {*posterior.numbers(summarise(curves))}
    for mean, low, high in score.intervals.values():
        assert low < mean < high
    assert np.isnan(score.lag) and np.isnan(score.coverage_ahead)  # checks were not asked for


@pytest.mark.parametrize("name", ["power", "changepoint", "freeform"])
def test_a_score_has_the_mean_curve(name: str) -> None:
    """Averaged over the posterior, shot by shot; of a curve in common, near what was drawn."""
    curves = CURVED
    score, posterior = score_curves(HYPOTHESES[name], curves, future=False, checks=False)
    assert score.mean_curve is not None and score.mean_curve.shape == (25,)
    equal = posterior.equal(20_000)
    np.testing.assert_allclose(score.mean_curve, mean_curve(equal, summarise(curves)).mean(0), atol=0.02)
    assert score.mean_curve.sum() == pytest.approx(0, abs=1e-9)
    if name in ("power", "freeform"):
        seen = curves.log_odds.mean(0) - curves.log_odds.mean()
        assert abs(score.mean_curve - seen).max() < 5 * 1.6 / np.sqrt(32)  # of 32 sequences with noise of 1.5 and more
        assert abs(score.mean_curve[::-1] - seen).max() > 5 * 1.6 / np.sqrt(32)  # the control


def test_a_free_mean_says_how_straight_it_is() -> None:
    """And under heavy tails sequences are weighed, as no density of a sequence left out is to be had then."""
    for student in (False, True):
        score, posterior = score_curves(HYPOTHESES["freeform"].varied(student=student), CURVED, checks=False)
        assert score.straightness is not None and score.noise == ("student" if student else "normal")
        assert not posterior.hypothesis.student
        assert np.isnan(score.elpd_logo).all() == student
        assert score.straightness.delta[0] == pytest.approx(score.intervals["delta"][0])
        assert not score.straightness.faults and score.reliable
        assert score.straightness.departure.low < 0.087 < score.straightness.departure.high  # n^0.7


def test_engines_are_interchangeable_in_scores() -> None:
    """Whatever fits is called on the whole and on the first half, nothing else; equal draws give equal scores."""
    curves, calls = simulate_curves(8, 12), []

    def engine(h: Hypothesis, stats: Statistics) -> Posterior:
        calls.append(len(stats.shots))
        return sample_fast(h, stats)

    one, _ = score_curves(HYPOTHESES["power"], curves, engine)
    assert calls == [13, 7]
    other, _ = score_curves(HYPOTHESES["power"], curves)
    np.testing.assert_array_equal(one.elpd_logo, other.elpd_logo)
    np.testing.assert_array_equal(one.elpd_lfo, other.elpd_lfo)
    assert (one.coverage_ahead, one.lag_low) == (other.coverage_ahead, other.lag_low)


def test_the_log_likelihood_in_blocks_is_that_in_one() -> None:
    h = HYPOTHESES["changepoint"]
    stats = summarise(simulate_curves(64, 32))
    posterior = sample_fast(h, stats).equal(300)
    from bayes_icl.inference.noise import log_likelihood

    assert 300 * 64 * 32 > inference_scores.BLOCK
    np.testing.assert_allclose(
        sequence_log_likelihood(posterior, stats), log_likelihood(np, h, stats, posterior.params), rtol=1e-12
    )
