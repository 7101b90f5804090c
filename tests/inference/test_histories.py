"""The likelihood of laws of history, against dense normal densities written out reading by reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal, multivariate_t

from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HISTORY_LAWS, Hypothesis
from bayes_icl.hypotheses.history import lag_basis, lag_sizes
from bayes_icl.inference.histories import (
    Histories,
    collapsed_history,
    histories_of,
    history_log_likelihood,
    noise_left,
)
from bayes_icl.inference.idata import log_density
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise_shape import PLAIN
from bayes_icl.inference.space import draw_vectors

SHOTS = {"every shot": np.arange(9.0), "some shots": np.array([1.0, 3, 5, 8])}
DRAWS = 3


def curves_of(which: str, n_seqs: int = 7, seed: int = 0) -> Curves:
    """Fewer sequences than the shape of the noise is estimated from, so that it is plain."""
    rng = np.random.default_rng(seed)
    shown = rng.choice([-1.0, 1.0], (n_seqs, 8))
    if which == "single prompts":
        n = rng.integers(1, 9, n_seqs)
        odds = rng.normal(size=(n_seqs, 1)) + 0.4 * np.array([[row[:m].sum()] for row, m in zip(shown, n)])
        belief = rng.normal(size=(n_seqs, 1))
        return Curves("t", "foil", np.array([8.0]), odds, history=shown, observer=belief, single=n)
    shots = SHOTS[which]
    belief = np.pad(0.4 * shown, ((0, 0), (1, 0))).cumsum(1)[:, shots.astype(int)]
    odds = belief + rng.normal(size=belief.shape) + rng.normal(0, 9, (n_seqs, 1))
    return Curves("t", "foil", shots, odds, history=shown, observer=belief)


def drawn(law: Hypothesis, stats: Histories, n: int = DRAWS) -> dict[str, np.ndarray]:
    """Draws of the priors, with sds away from 0."""
    rng = np.random.default_rng(9)
    params = {
        name: prior.draw(rng, (n, len(stats.knots) if prior.length else 1), stats.scale)
        for name, prior in law.all_priors.items()
    }
    return params | {name: params[name] + 0.3 for name in ("level", "walk", "gain_sd", "w_sd") if name in params}


def mean_of(law: Hypothesis, stats: Histories, one: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """f and the mean of each sequence's readings, shape (seq, read), at one value of the parameters."""
    found = law.curve(np, stats.past, **{name: one[name][None] for name in law.priors if name != "w"})
    f, beside = found if isinstance(found, tuple) else (found, np.zeros(1))
    f, beside = (np.broadcast_to(x, (1, stats.past.n.size)).reshape(stats.log_odds.shape) for x in (f, beside))
    return f, one.get("w", np.ones(1)) * f + beside + one.get("start", np.zeros(1))


def dense(law: Hypothesis, curves: Curves, stats: Histories, one: dict[str, np.ndarray]) -> np.ndarray:
    """Log density of the differences of each sequence, whatever its intercept; of single prompts, of the readings."""
    f, mean = mean_of(law, stats, one)
    at = {name: x.item() for name, x in one.items() if x.size == 1}
    n = curves.shots - curves.shots[0] if not stats.single else np.zeros(1)
    apart = np.diff(np.eye(len(n)), axis=0) if not stats.single else np.eye(1)
    line = n / max(n[-1], 1)
    out = []
    for s, odds in enumerate(curves.log_odds):
        size = stats.size[s, 0] if stats.single else 1.0
        cov = (at["level"] * size) ** 2 * np.eye(len(n)) + at.get("walk", 0) ** 2 * np.minimum.outer(n, n)
        cov += at.get("gain_sd", 0) ** 2 * np.outer(line, line) + at.get("w_sd", 0) ** 2 * np.outer(f[s], f[s])
        scale, error = apart @ cov @ apart.T, apart @ (odds - mean[s])
        zero = np.zeros(len(apart))
        if law.student:
            out.append(multivariate_t(zero, scale, df=at["dof"]).logpdf(error))
        else:
            out.append(multivariate_normal(zero, scale).logpdf(error))
    return np.array(out)


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("which", [*SHOTS, "single prompts"])
@pytest.mark.parametrize("name", HISTORY_LAWS)
def test_log_likelihood_is_a_dense_density(name: str, which: str, student: bool) -> None:
    """Up to the jitter; where shots are uneven or readings have sizes of their own, up to a constant of the data."""
    curves = curves_of(which)
    assert curves.single is not None or noise_left(curves) == PLAIN
    stats = histories_of(curves)
    law = HISTORY_LAWS[name].varied(student=student, single=stats.single)
    params = drawn(law, stats)
    found = history_log_likelihood(np, law, stats, params)
    assert found.shape == (DRAWS, 7)
    expected = np.stack([dense(law, curves, stats, {p: x[i] for p, x in params.items()}) for i in range(DRAWS)])
    # The transform has columns of length 1 in the metric of a walk, whose differences have variances of n apart.
    constant = np.log(stats.size).sum(1) if stats.single else 0.5 * np.log(np.diff(curves.shots)).sum()
    np.testing.assert_allclose(found - expected, np.broadcast_to(constant, found.shape), atol=1e-5)
    for parameter in ("level", "w_sd", "gain_sd", "walk", "w", "start"):
        if parameter in params:  # the control: none may be 2 % off
            off = history_log_likelihood(np, law, stats, params | {parameter: 1.02 * params[parameter]})
            assert abs(off - found).max() > 1e-4, parameter


@pytest.mark.parametrize("which", [*SHOTS, "single prompts"])
def test_a_kernel_that_is_integrated_out_is_a_dense_normal(which: str) -> None:
    """All readings of all sequences at once: weights over lags are shared, so their prior ties sequences together."""
    curves = curves_of(which)
    stats = histories_of(curves)
    law = HISTORY_LAWS["per_lag"].varied(single=stats.single)
    params = drawn(law, stats)
    found, root, mean = collapsed_history(stats, {name: x for name, x in params.items() if name != "kernel"})
    k, n_seqs = stats.x.shape[1], len(stats.x)
    for i in range(DRAWS):
        at = {name: x[i] for name, x in params.items() if name != "kernel"}
        basis = lag_basis(stats.past) * lag_sizes(np, at["step"], stats.past)[:, None]
        columns = stats.transformed(basis).reshape(len(basis), -1).T
        own = np.diag(at["level"] ** 2 * stats.eigenvalues + at.get("walk", np.zeros(1)) ** 2)
        own = own + at.get("gain_sd", np.zeros(1)) ** 2 * np.outer(stats.line, stats.line)
        noise = np.kron(np.eye(n_seqs), own)
        error = (stats.x - at.get("start", np.zeros(1)) * stats.start).ravel()
        density = multivariate_normal(np.zeros(k * n_seqs), noise + columns @ columns.T).logpdf(error)
        assert found[i] == pytest.approx(density, abs=1e-4)
        # And given all else: precision I + U'U/noise.
        precision = np.eye(len(basis)) + columns.T @ np.linalg.solve(noise, columns)
        np.testing.assert_allclose(root[i] @ root[i].T, precision, rtol=1e-5, atol=1e-5)
        given = np.linalg.solve(precision, columns.T @ np.linalg.solve(noise, error))
        np.testing.assert_allclose(mean[i], given, rtol=1e-4, atol=1e-5)
        assert abs(found[i] - multivariate_normal(np.zeros(k * n_seqs), noise).logpdf(error)) > 0.01  # the control


def test_draws_of_the_kernel_have_its_mean_and_covariance() -> None:
    """20000 draws: 5 standard errors of every mean and covariance."""
    stats = histories_of(curves_of("every shot"))
    law, n = HISTORY_LAWS["per_lag"], 20_000
    one = {name: x for name, x in drawn(law, stats, 1).items() if name != "kernel"}
    _, root, mean = collapsed_history(stats, one)
    many = {name: np.tile(x, (n, 1)) for name, x in one.items()}
    kernels = draw_vectors(law, stats, many, np.random.default_rng(0))["kernel"]
    cov = np.linalg.inv(root[0] @ root[0].T)
    assert kernels.shape == (n, len(stats.knots))
    assert (abs(kernels.mean(0) - mean[0]) < 5 * np.sqrt(np.diag(cov) / n)).all()
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    assert (abs(np.cov(kernels.T) - cov) < 5 * error).all()
    assert not (abs(np.cov(kernels.T) - 1.1 * cov) < 5 * error).all()  # the control


def test_the_first_half_is_the_first_half() -> None:
    """Same units, fewer readings; some sequences are those sequences."""
    curves = curves_of("every shot")
    whole = histories_of(curves)
    half = histories_of(curves, until=4.0, like=whole)
    assert half.scale == whole.scale and half.x.shape == (7, 4)
    np.testing.assert_allclose(half.x @ np.linalg.inv(half.transform), np.diff(curves.log_odds[:, :5], axis=1))
    np.testing.assert_array_equal(half.past.by_lag, whole.past.by_lag.reshape(7, 9, -1)[:, :5, :4].reshape(-1, 4))
    law = HISTORY_LAWS["leaky"]
    params = drawn(law, whole)
    each = history_log_likelihood(np, law, whole, params)
    some = np.array([5, 0, 2])
    np.testing.assert_allclose(history_log_likelihood(np, law, whole.of(some), params), each[:, some], rtol=1e-10)


def test_the_noise_of_prompts_may_hang_on_their_length() -> None:
    """Twice the level noise at n = 8: sizes relative to the whole, shrunk a little towards 1."""
    rng = np.random.default_rng(0)
    shown, n = rng.choice([-1.0, 1.0], (400, 8)), np.repeat([2, 8], 200)
    odds = np.array([[0.5 * row[:m].sum()] for row, m in zip(shown, n)]) + rng.normal(size=(400, 1)) * (n / 4)[:, None]
    stats = histories_of(Curves("t", "foil", np.array([8.0]), odds, history=shown, single=n))
    ratio = stats.size[-1, 0] / stats.size[0, 0]
    assert ratio == pytest.approx(4, rel=0.2)  # 0.5 and 2 nats
    assert (stats.size**2).mean() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("which", [*SHOTS, "single prompts"])
@pytest.mark.parametrize("name", HISTORY_LAWS)
def test_the_model_of_pymc_has_the_density_of_numpy(name: str, which: str) -> None:
    """Priors and likelihood at three points, in the parameters' own units."""
    from bayes_icl.inference.nuts import build_model, quiet

    stats = histories_of(curves_of(which))
    law = HISTORY_LAWS[name].varied(student=name == "signed", single=stats.single)
    params = drawn(law, stats)
    with quiet():
        model = build_model(law, stats)
        points: list[dict[str, Any]] = [{} for _ in range(DRAWS)]
        for rv in model.free_RVs:
            transform, value = model.rvs_to_transforms[rv], model.rvs_to_values[rv]
            for i, point in enumerate(points):
                x = params[rv.name][i] if law.all_priors[rv.name].length else params[rv.name][i, 0]
                point[value.name] = transform.forward(x, *rv.owner.inputs).eval() if transform else x
        density = model.compile_logp(jacobian=False, mode="FAST_COMPILE")
        found = np.array([float(density(point)) for point in points])
    assert {rv.name for rv in model.free_RVs} == set(law.parameters)
    priors = sum(log_density(prior, params[p], stats.scale) for p, prior in law.all_priors.items())
    np.testing.assert_allclose(found, priors + history_log_likelihood(np, law, stats, params).sum(1), rtol=1e-7)


@pytest.mark.sampling
@pytest.mark.long
def test_two_engines_have_one_posterior() -> None:
    """Means within 0.15 of an sd, sds within 15 %: the Monte Carlo errors of both are a third of that."""
    from bayes_icl.inference.nuts import Sampler, SamplerSettings

    curves = curves_of("every shot", n_seqs=24, seed=2)
    stats, law = histories_of(curves), HISTORY_LAWS["leaky"]
    fast = sample_fast(law, stats)
    nuts = Sampler(law, stats, SamplerSettings(draws=1000, tune=500))(law, stats)
    assert not fast.faults and not nuts.faults
    weights = np.exp(fast.log_weights)
    for name, x in fast.numbers(stats).items():
        mean, y = weights @ x, nuts.numbers(stats)[name]
        assert abs(mean - y.mean()) < 0.15 * y.std(), name
        assert np.sqrt(weights @ (x - mean) ** 2) == pytest.approx(y.std(), rel=0.15), name
