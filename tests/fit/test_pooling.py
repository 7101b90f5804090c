"""Limits that are known exactly, brute-force integration, coverage."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bayes_icl.core.errors import StatedError
from bayes_icl.fit.pooling import _draw_tau, _mu_given, families_of, pool_deltas
from bayes_icl.tasks import BUILT_IN

# Like the 8 tasks of the notes: deltas about 0.3, tasks differing by 0.06, known to 0.03.
Y = np.array([0.33, 0.42, 0.29, 0.36, 0.25, 0.38, 0.31, 0.40])
SD = np.array([0.02, 0.03, 0.03, 0.04, 0.02, 0.05, 0.03, 0.02])


def tasks(values: np.ndarray) -> dict[str, float]:
    return {f"task {i}": float(x) for i, x in enumerate(values)}


def by_hand(y: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joint posterior of (mu, tau) on a square grid, the task likelihoods multiplied one by one, nothing integrated."""
    scale = np.sqrt(np.mean(y**2 + s**2))
    mu = np.linspace(y.mean() - 3 * scale, y.mean() + 3 * scale, 3001)
    tau = (np.arange(2000) + 0.5) * 6 * scale / 2000
    log_p = np.broadcast_to(stats.halfnorm.logpdf(tau, scale=scale), (len(mu), len(tau))).copy()
    for mean, sd in zip(y, s):
        log_p += stats.norm.logpdf(mean, mu[:, None], np.hypot(sd, tau))
    p = np.exp(log_p - log_p.max())
    return mu, tau, p / p.sum()


def narrowest(x: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Ends of the highest-density region, which is an interval here."""
    order = np.argsort(-p)
    inside = x[order[: np.searchsorted(np.cumsum(p[order]), 0.95) + 1]]
    return inside.min(), inside.max()


@pytest.mark.parametrize("n_tasks", [2, 3, 8])
def test_agrees_with_brute_force(n_tasks: int) -> None:
    y, s = Y[:n_tasks], SD[:n_tasks]
    mu, tau, p = by_hand(y, s)
    pooled = pool_deltas(tasks(y), tasks(s), draws=400_000)
    p_mu, p_tau = p.sum(1), p.sum(0)
    mean_mu, mean_tau = p_mu @ mu, p_tau @ tau
    assert pooled.mu[0] == pytest.approx(mean_mu, rel=1e-2)
    assert pooled.tau[0] == pytest.approx(mean_tau, rel=1e-2)
    width_mu, width_tau = np.ptp(narrowest(mu, p_mu)), np.ptp(narrowest(tau, p_tau))
    assert pooled.mu[1:] == pytest.approx(narrowest(mu, p_mu), abs=0.02 * width_mu)
    assert pooled.tau[1:] == pytest.approx(narrowest(tau, p_tau), abs=0.02 * width_tau)
    own = tau**2 / (tau**2 + s[:, None] ** 2)
    shrunken = [(p * (w * mean + (1 - w) * mu[:, None])).sum() for w, mean in zip(own, y)]
    assert [delta[0] for delta in pooled.deltas.values()] == pytest.approx(shrunken, rel=1e-2)
    new = np.linspace(mean_mu - 1.5, mean_mu + 1.5, 601)
    part = p[::10, ::4] / p[::10, ::4].sum()
    density = np.array([(part * stats.norm.pdf(x, mu[::10, None], tau[::4])).sum() for x in new[::3]])
    low, high = narrowest(new[::3], density / density.sum())
    assert pooled.new_task[0] == pytest.approx(mean_mu, rel=2e-2)
    assert pooled.new_task[1:] == pytest.approx((low, high), abs=0.04 * (high - low))


def test_default_draws_are_enough() -> None:
    few, many = (pool_deltas(tasks(Y), tasks(SD), draws=draws) for draws in (4000, 400_000))
    assert few.mu[0] == pytest.approx(many.mu[0], rel=1e-2)
    assert few.tau[0] == pytest.approx(many.tau[0], rel=1e-2)
    assert few.mu[1:] == pytest.approx(many.mu[1:], rel=2e-2)


def test_no_spread_is_complete_pooling() -> None:
    s = SD[np.arange(400) % 8]
    y = 0.3 + 1e-6 * np.arange(400)
    weighted = (y / s**2).sum() / (1 / s**2).sum()
    mean, sd = _mu_given(np.zeros(1), y, s)
    assert mean[0] == pytest.approx(weighted) and sd[0] == pytest.approx((1 / s**2).sum() ** -0.5)
    pooled = pool_deltas(tasks(y), tasks(s))
    assert pooled.tau[0] < 0.1 * s.min()
    assert pooled.mu[0] == pytest.approx(weighted, rel=1e-3)
    assert all(delta[0] == pytest.approx(weighted, rel=3e-3) for delta in pooled.deltas.values())


def test_huge_spread_is_no_pooling() -> None:
    y, s = np.array([-3.0, 1.0, 4.0, 9.0]), np.full(4, 1e-4)
    pooled = pool_deltas(tasks(y), tasks(s))
    for (mean, low, high), own in zip(pooled.deltas.values(), y):
        assert mean == pytest.approx(own, abs=1e-5)
        assert high - low == pytest.approx(2 * 1.96e-4, rel=0.05)
    assert pooled.mu[0] == pytest.approx(y.mean(), abs=0.2)


def test_few_noisy_tasks_are_drawn_together() -> None:
    y, s = np.array([0.0, 1.0]), np.array([0.5, 0.5])
    pooled = pool_deltas(tasks(y), tasks(s))
    one, other = (delta[0] for delta in pooled.deltas.values())
    assert 0.05 < one < 0.5 < other < 0.95
    assert pooled.new_task[2] - pooled.new_task[1] > pooled.mu[2] - pooled.mu[1]


def test_coverage() -> None:
    # 200 sets of 8 tasks: at 95 % the share has sd 0.015, so 0.91 to 0.99 is within 2.7 of its own.
    rng = np.random.default_rng(5)
    hits = {"mu": 0, "new_task": 0, "deltas": 0}
    for seed in range(200):
        s = rng.uniform(0.02, 0.06, size=8)
        truth = rng.normal(0.3, 0.06, size=9)
        pooled = pool_deltas(tasks(rng.normal(truth[:8], s)), tasks(s), seed=seed)
        hits["mu"] += pooled.mu[1] < 0.3 < pooled.mu[2]
        hits["new_task"] += pooled.new_task[1] < truth[8] < pooled.new_task[2]
        hits["deltas"] += sum(low < t < high for t, (_, low, high) in zip(truth, pooled.deltas.values()))
    assert 0.91 <= hits["mu"] / 200 <= 0.99
    assert 0.91 <= hits["new_task"] / 200 <= 0.99
    assert 0.93 <= hits["deltas"] / 1600 <= 0.97


@pytest.mark.parametrize("unit", [1000.0, 1e-6])
def test_units(unit: float) -> None:
    plain = pool_deltas(tasks(Y), tasks(SD))
    scaled = pool_deltas(tasks(Y * unit), tasks(SD * unit))
    for name in ("mu", "tau", "new_task"):
        assert np.array(getattr(scaled, name)) / unit == pytest.approx(getattr(plain, name), rel=1e-6)
    for task, delta in plain.deltas.items():
        assert np.array(scaled.deltas[task]) / unit == pytest.approx(delta, rel=1e-6)


def test_sd_by_a_narrow_posterior_is_resolved() -> None:
    """The deltas are 1 and differ by a hundred-thousandth."""
    y = 1 + 1e-5 * np.random.default_rng(0).normal(size=200)
    tau = _draw_tau(y, np.full(200, 1e-7), 4000, np.random.default_rng(0))
    assert tau.mean() == pytest.approx(y.std(ddof=1), rel=0.01)
    assert tau.std() == pytest.approx(y.std() / np.sqrt(2 * 199), rel=0.1)


def test_same_seed_same_answer_and_the_order_of_sds_is_free() -> None:
    means, sds = tasks(Y), tasks(SD)
    pooled = pool_deltas(means, sds, seed=4)
    assert pooled == pool_deltas(means, dict(reversed(sds.items())), seed=4)
    assert pooled != pool_deltas(means, sds, seed=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pooled.mu = (0.0, 0.0, 0.0)  # type: ignore[misc]


@pytest.mark.parametrize(
    "means, sds, says",
    [
        ({}, {}, "at least 2 tasks, got 0"),
        ({"a": 1.0}, {"a": 1.0}, "at least 2 tasks, got 1"),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0}, "a mean and an sd of each task"),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 0.0}, "'b' must have a finite mean and a positive sd, got 2.0 and 0.0"),
        ({"a": np.nan, "b": 2.0}, {"a": 1.0, "b": 1.0}, "'a' must have a finite mean"),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": np.inf}, "'b' must have a finite mean"),
    ],
)
def test_stated_errors(means: dict[str, float], sds: dict[str, float], says: str) -> None:
    with pytest.raises(StatedError, match=says):
        pool_deltas(means, sds)


# --------------------------------------------------------------------------------------------- families


def in_families(n_families: int, n_tasks: int, seed: int) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Deltas about 0.25 whose sd over tasks is 0.1, four fifths of the variance between families."""
    rng = np.random.default_rng([seed, n_families])
    of = {f"{f}-{i}": str(f) for f in range(n_families) for i in range(n_tasks)}
    shifts = rng.normal(0, 0.1 * np.sqrt(0.8), n_families)
    means = {task: 0.25 + shifts[int(f)] + rng.normal(0, np.hypot(0.1 * np.sqrt(0.2), 0.01)) for task, f in of.items()}
    return means, dict.fromkeys(of, 0.01), of


def test_the_mean_over_few_families_is_covered() -> None:
    """15 tasks in 3 families, 100 sets: at 95 % the share has sd 0.022. The control leaves families out."""
    with_families = without = 0
    for seed in range(100):
        means, sds, of = in_families(3, 5, seed)
        families, plain = (pool_deltas(means, sds, f, seed=seed).mu for f in (of, None))
        with_families += families[1] < 0.25 < families[2]
        without += plain[1] < 0.25 < plain[2]
    assert with_families >= 90
    assert without <= 70


def test_one_family_is_none() -> None:
    means, sds, of = in_families(1, 6, 0)
    assert pool_deltas(means, sds, of) == pool_deltas(means, sds)
    assert pool_deltas(means, sds).families is None


def test_families_agree_with_brute_force() -> None:
    """Weights of draws from the priors, on three families of two tasks."""
    means, sds, of = in_families(3, 2, 1)
    sds = dict.fromkeys(sds, 0.05)
    pooled = pool_deltas(means, sds, of, draws=100_000)
    y, s, rng = np.array(list(means.values())), 0.05, np.random.default_rng(0)
    scale = np.sqrt(np.mean(y**2 + s**2))
    tau, tau_family = np.abs(rng.normal(0, scale, (2, 400_000)))
    # Given both sds, tasks are normal with a block covariance about mu, whose prior is flat.
    cov = np.einsum("n,ij->nij", tau**2, np.eye(6)) + s**2 * np.eye(6)
    cov += np.einsum("n,ij->nij", tau_family**2, np.kron(np.eye(3), np.ones((2, 2))))
    inverse = np.linalg.inv(cov)
    precision = inverse.sum((1, 2))
    mu = (inverse @ y).sum(1) / precision
    off = y - mu[:, None]
    log_w = -0.5 * (np.linalg.slogdet(cov)[1] + np.einsum("ni,nij,nj->n", off, inverse, off) + np.log(precision))
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    assert pooled.mu[0] == pytest.approx(w @ mu, abs=0.01 * scale)
    assert pooled.tau[0] == pytest.approx(w @ tau, rel=0.03)
    assert pooled.tau_family is not None and pooled.tau_family[0] == pytest.approx(w @ tau_family, rel=0.03)


def test_families_of_built_in_tasks_are_those_of_their_forms() -> None:
    forms = {"number": "numbers", "label": "labels", "free": "words"}
    expected = {name: forms[make(name).form] for name, make in BUILT_IN.items()}
    assert families_of(xr.Dataset(), list(BUILT_IN)) == expected
    names = ["affine:slope=3", "category+switch(at=16)", "mine"]
    assert list(families_of(xr.Dataset(), names).values()) == ["numbers", "labels", "other"]
    own = xr.Dataset({"family": ("task", ["a", "b"])}, coords={"task": ["copy", "mine"]})
    assert families_of(own, ["mine", "copy"]) == {"mine": "b", "copy": "a"}
