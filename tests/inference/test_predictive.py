"""New sequences and how sequences go on, against dense distributions; a latent step by enumeration of its places."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as distributions
from scipy.special import logsumexp
from simulate import covariance_by_hand, prior_draws, simulate_curves

from bayes_icl.hypotheses import HYPOTHESES, Hypothesis
from bayes_icl.inference.noise import Statistics, log_likelihood, summarise
from bayes_icl.inference.noise_shape import PLAIN, Shape
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import go_on, mean_curve, replicate

K = 6
CURVES = simulate_curves(3, K + 1, n_min=1, gain=6.0, walk=0.5)
NOISES = {"plain": PLAIN, "falling": Shape(trend=1.0), "carried": Shape(carry=0.5, corr=-0.5, trend=-0.3, shared=True)}
ALL_STATS = {shape: summarise(CURVES, shape=shape) for shape in NOISES.values()}
STATS = ALL_STATS[PLAIN]
VALUES = {
    "gain": 5.0, "gain_sd": 4.0, "early_sd": 2.0, "level": 1.0, "walk": 0.6, "dof": 7.0, "a": 0.4, "tau": 0.6,
    "spread": 0.3, "slope": 1.2, "floor_until": 2.0, "ceiling_from": 5.0, "bend": 1.5, "shot_sd": 0.8,
}  # fmt: skip
KINDS = ["constant", "power", "lapse", "changepoint", "freeform"]


def varied(name: str, student: bool = False, shape: Shape = PLAIN) -> Hypothesis:
    return HYPOTHESES[name].varied(student=student, shared=shape.shared)


def repeated(h: Hypothesis, n: int, **changed: float) -> Posterior:
    """`n` draws, all of one value of the parameters."""
    values = VALUES | changed
    params = {
        name: np.full((n, 1), values[name])
        if not prior.length
        else np.tile(np.linspace(-1, 1, len(getattr(ALL_STATS[NOISES["carried"]], prior.length))), (n, 1))
        for name, prior in h.all_priors.items()
    }
    return Posterior(h, params, np.full(n, -np.log(n)), "fast", ess=float(n))


def parts(h: Hypothesis, one: Posterior, seq: int, shape: Shape = PLAIN) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a sequence's updates: mean of each component, its log weight, and the scale matrix; components are steps."""
    own, stats = {name: x[0] for name, x in one.params.items()}, ALL_STATS[shape]
    cov = covariance_by_hand(CURVES.shots, own, stats.scale, shape=shape)
    log_weights = np.zeros(1)
    if h.latent_step:
        means, log_weights = own["gain"] * np.vstack([np.eye(K), np.zeros(K)]), h.step_log_weights(np, stats, own)
    else:
        mean, _, _ = h.updates(np, stats, {name: x[None] for name, x in own.items()})
        means = np.atleast_2d(mean + np.zeros(K))
    return means, log_weights, cov


def moments(
    h: Hypothesis, one: Posterior, seq: int, n_past: int = 0, shape: Shape = PLAIN
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the updates that follow, given the sequence's first ones."""
    means, log_weights, cov = parts(h, one, seq, shape)
    dof = one.params["dof"][0, 0] if h.student else np.inf
    past = np.diff(CURVES.log_odds[seq])[:n_past]
    later_means, later_covs, posterior = [], [], []
    for mean, log_weight in zip(means, log_weights):
        a, b, c = cov[:n_past, :n_past], cov[n_past:, :n_past], cov[n_past:, n_past:]
        error = past - mean[:n_past]
        squares = error @ np.linalg.solve(a, error) if n_past else 0.0
        later_means.append(mean[n_past:] + (b @ np.linalg.solve(a, error) if n_past else 0))
        left = c - (b @ np.linalg.solve(a, b.T) if n_past else 0)
        # A conditional t has dof + n_past degrees of freedom, and a scale that the past has a say in.
        later_covs.append(left * ((dof + squares) / (dof + n_past - 2) if h.student else 1.0))
        density = 0.0
        if n_past:
            t = distributions.multivariate_t(mean[:n_past], a, df=dof) if h.student else None
            density = t.logpdf(past) if t else distributions.multivariate_normal(mean[:n_past], a).logpdf(past)
        posterior.append(log_weight + density)
    w = np.exp(np.array(posterior) - logsumexp(posterior))
    mean = w @ np.array(later_means)
    spread = [cov + np.outer(m - mean, m - mean) for m, cov in zip(later_means, later_covs)]
    return mean, np.einsum("c,cij->ij", w, np.array(spread))


def worst(x: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> float:
    """The largest distance of any entry of the mean and covariance of draws (n, k) from those given, in SE."""
    n = len(x)
    off = x - x.mean(0)
    products = off[:, :, None] * off[:, None, :]
    return float(
        max(
            abs((x.mean(0) - mean) / (x.std(0) / np.sqrt(n))).max(),
            abs((products.mean(0) - cov) / (products.std(0) / np.sqrt(n))).max(),
        )
    )


CASES = [
    *((name, student, "plain") for name in KINDS for student in (False, True) if not (name == "freeform" and student)),
    *((name, False, noise) for name in ("power", "changepoint", "freeform") for noise in ("falling", "carried")),
    ("changepoint", True, "carried"),
]


@pytest.mark.parametrize(("name", "student", "noise"), CASES)
def test_replicates_have_the_mean_and_covariance_of_the_model(name: str, student: bool, noise: str) -> None:
    """40000 of each of 3 sequences; every entry within 5.5 SE (81 of them: a false alarm below 81 * 4e-8 = 3e-6)."""
    shape = NOISES[noise]
    h = varied(name, student, shape)
    one = repeated(h, 40_000)
    drawn = replicate(one, ALL_STATS[shape], np.random.default_rng(0))
    assert drawn.shape == (40_000, 3, K + 1)
    np.testing.assert_allclose(drawn.mean(-1), 0, atol=1e-10)
    x = np.diff(drawn, axis=-1)
    for seq in range(3):
        assert worst(x[:, seq], *moments(h, one, seq, shape=shape)) < 5.5
        # The controls: any sd 1.5 times as large, and the two other shapes of noise.
        for parameter in ("gain_sd", "early_sd", "level", "walk"):
            other = repeated(h, 1, **{parameter: 1.5 * VALUES[parameter]})
            assert worst(x[:, seq], *moments(h, other, seq, shape=shape)) > 5.5, parameter
        for other_shape in NOISES.values():
            if other_shape != shape and not h.ceiling:
                assert worst(x[:, seq], *moments(h, one, seq, shape=other_shape)) > 5.5


@pytest.mark.parametrize("student", [False, True])
def test_replicates_have_the_density_of_the_model(student: bool) -> None:
    """Squared length of 20000 sequences in the metric of the scale matrix: chi-square, or F times its numerator."""
    h = HYPOTHESES["power"].varied(student=student)
    one = repeated(h, 20_000)
    x = np.diff(replicate(one, STATS, np.random.default_rng(1))[:, 0], axis=-1)
    means, _, cov = parts(h, one, 0)
    error = x - means[0]
    squares = (error * np.linalg.solve(cov, error.T).T).sum(1)
    expected = {False: distributions.chi2(K), True: distributions.f(K, 7.0, scale=K)}
    assert distributions.kstest(squares, expected[student].cdf).pvalue > 1e-4
    assert distributions.kstest(squares, expected[not student].cdf).pvalue < 1e-4  # the control


def test_each_draw_of_replicates_has_its_own_parameters() -> None:
    h = HYPOTHESES["power"]
    params = {name: np.array([[VALUES[name]], [VALUES[name]]]) for name in h.parameters}
    params |= {"level": np.array([[1.0], [0.1]]), **{sd: np.zeros((2, 1)) for sd in ("walk", "gain_sd", "early_sd")}}
    many = summarise(simulate_curves(4000, 6))
    drawn = replicate(Posterior(h, params, np.log([0.5, 0.5]), "fast", ess=2), many, np.random.default_rng(0))
    sds = np.diff(drawn, axis=-1).std(1).mean(1)
    np.testing.assert_allclose(sds, np.sqrt(2) * np.array([1.0, 0.1]), rtol=0.05)


def test_steps_are_drawn_as_often_as_their_weights_say() -> None:
    """Without noise, 40000 sequences: each frequency within 5 SE (false alarm below 7 * 6e-7)."""
    h = HYPOTHESES["changepoint"]
    one = repeated(h, 40_000, level=1e-6, walk=1e-6, gain_sd=1e-6, early_sd=1e-6, gain=1.0)
    steps = np.diff(replicate(one, STATS, np.random.default_rng(0))[:, 0], axis=-1) > 0.5
    assert set(np.unique(steps.sum(1))) == {0, 1}
    found = np.append(steps.mean(0), 1 - steps.sum(1).mean())
    weights = np.exp(h.step_log_weights(np, STATS, {name: x[0] for name, x in one.params.items()}))

    def off(expected: np.ndarray) -> float:
        return float(abs((found - expected) / np.sqrt(expected * (1 - expected) / 40_000)).max())

    assert off(weights) < 5
    assert off(weights[::-1]) > 5  # the control


@pytest.mark.parametrize("n_past", [2, 4])
@pytest.mark.parametrize(("name", "student", "noise"), [case for case in CASES if case[0] != "freeform"])
def test_sequences_go_on_as_the_model_says(name: str, student: bool, noise: str, n_past: int) -> None:
    """40000 ways of each of 3 sequences; every entry within 5.5 SE (60 of them: a false alarm below 3e-6)."""
    shape = NOISES[noise]
    h = varied(name, student, shape)
    one = repeated(h, 40_000)
    later = go_on(one, ALL_STATS[shape], n_past, np.random.default_rng(0))
    assert later.shape == (40_000, 3, K - n_past)
    updates = np.diff(later, axis=-1, prepend=0)
    failed = []
    for seq in range(3):
        mean, cov = moments(h, one, seq, n_past, shape)
        assert worst(updates[:, seq], mean, cov) < 5.5
        marginal_mean, marginal_cov = moments(h, one, seq, shape=shape)
        failed.append(worst(updates[:, seq], marginal_mean[n_past:], marginal_cov[n_past:, n_past:]))
    assert min(failed) > 5.5  # the control: as if nothing had been seen


@pytest.mark.parametrize("noise", NOISES)
def test_going_on_is_the_likelihood_of_the_whole_less_that_of_the_past(noise: str) -> None:
    """Density of what follows, from the noise module, at draws of `go_on`: its mean is the entropy of the normal."""
    h, n_past, shape = HYPOTHESES["power"], 3, NOISES[noise]
    stats = ALL_STATS[shape]
    one = repeated(h, 4000)
    past = np.diff(CURVES.log_odds)[:, :n_past]
    updates = np.diff(go_on(one, stats, n_past, np.random.default_rng(0)), axis=-1, prepend=0)[:, 0]
    whole = np.concatenate([np.tile(past[0], (4000, 1)), updates], axis=1)
    odds = np.concatenate([np.zeros((4000, 1)), np.cumsum(whole, axis=1)], axis=1)
    curves = simulate_curves(4000, K + 1, n_min=1)._replace(log_odds=odds)
    density = [
        log_likelihood(
            np,
            h,
            summarise(curves, until=until, scale=stats.scale, shape=shape),
            {k: v[:1] for k, v in one.params.items()},
        )
        for until in (None, 1.0 + n_past)
    ]
    found = (density[0] - density[1])[0]
    _, cov = moments(h, one, 0, n_past, shape)
    entropy = float(distributions.multivariate_normal(np.zeros(K - n_past), cov).entropy())
    error = found.std() / np.sqrt(4000)
    assert abs(found.mean() + entropy) < 5 * error  # false alarm 6e-7
    assert abs((density[0] - density[1])[0].mean() + 1.1 * entropy) > 5 * error  # the control


@pytest.mark.parametrize("name", KINDS)
def test_the_mean_curve_is_the_mean_of_replicates(name: str) -> None:
    """20000 of each of 3 sequences at their own draw of the prior's; every shot within 5 SE."""
    h = HYPOTHESES[name]
    one = repeated(h, 20_000)
    found = mean_curve(one, STATS)
    assert found.shape == (20_000, K + 1)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-10)
    new = replicate(one, STATS, np.random.default_rng(2)).mean(1)
    error = new.std(0) / np.sqrt(20_000)
    assert (abs(new.mean(0) - found[0]) < 5 * error).all()
    if h.has_gain:
        assert (abs(new.mean(0) - 1.1 * found[0]) > 5 * error).any()  # the control
    else:
        assert (found == 0).all() or name == "freeform"


def test_draws_do_not_mix() -> None:
    """Each draw's curve hangs on its own parameters."""
    for name in KINDS:
        h = HYPOTHESES[name]
        params = prior_draws(h, STATS, 5)
        many = mean_curve(Posterior(h, params, np.zeros(5), "fast", ess=5), STATS)
        for i in range(5):
            alone = Posterior(h, {k: v[[i]] for k, v in params.items()}, np.zeros(1), "fast", ess=1)
            np.testing.assert_allclose(mean_curve(alone, STATS)[0], many[i], atol=1e-10)


def test_statistics_are_not_changed() -> None:
    before = {name: np.copy(getattr(STATS, name)) for name in Statistics.__dataclass_fields__}
    go_on(repeated(HYPOTHESES["power"], 5), STATS, 3, np.random.default_rng(0))
    replicate(repeated(HYPOTHESES["power"], 5), STATS, np.random.default_rng(0))
    for name, x in before.items():
        np.testing.assert_array_equal(getattr(STATS, name), x)
