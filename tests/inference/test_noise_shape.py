"""The shape of the noise: what it is made of, and that it is found beside any mean curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate import covariance_by_hand, early_by_hand, power_law, simulate_curves

from bayes_icl.inference.noise_shape import N_BENDS, PLAIN, Shape, deviations, early_bend, estimate, recurs, spectrum

SHOTS = np.arange(1.0, 33)


# --------------------------------------------------------------------------------------------- what it is made of


@given(st.integers(1, 60), st.sampled_from([(0.0, 0.0), (0.7, 0.0), (-1.5, 0.0), (0.0, 0.6), (1.0, 0.9)]))
@settings(deadline=None, max_examples=40)
def test_the_spectrum_diagonalises_differenced_level_noise(k: int, noise: tuple[float, float]) -> None:
    """Whatever the walk; columns are eigenvectors, which need be no symmetric matrix."""
    shape, shots = Shape(*noise), np.arange(1.0, k + 2)
    values, vectors = spectrum(shots, 1.0, k + 1.0, shape)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-12)
    for level, walk in ((1.0, 0.0), (0.7, 0.4)):
        one = {"level": level, "walk": walk, "gain_sd": 0.0, "early_sd": 0.0}
        cov = covariance_by_hand(shots, {name: np.array([x]) for name, x in one.items()}, 0.0, shape=shape)
        expected = np.diag(level**2 * values + walk**2)
        np.testing.assert_allclose(vectors.T @ cov @ vectors, expected, atol=1e-10)
    if shape == PLAIN:
        np.testing.assert_allclose(vectors, vectors.T, atol=1e-12)  # the discrete sine transform


def test_level_noise_is_what_the_shape_says() -> None:
    """20000 simulated sequences: sd of each shot, and what is carried over, to 3 % and 0.03."""
    curves = simulate_curves(20_000, 16, gain=0.0, gain_sd=0.0, walk=0.0, level=2.0, trend=np.log(3), carry=0.6,
                             intercept_sd=0.0)  # fmt: skip
    sd = curves.log_odds.std(0)
    np.testing.assert_allclose(sd, 2 * np.exp(-np.log(3) * (curves.shots - 8) / 16), rtol=0.03)
    lags = [np.corrcoef(curves.log_odds[:, i], curves.log_odds[:, i + 2])[0, 1] for i in range(15)]
    np.testing.assert_allclose(lags, 0.36, atol=0.03)
    difference = np.diff(np.eye(17), axis=0)
    values, vectors = spectrum(curves.shots, 0.0, 16.0, Shape(trend=float(np.log(3)), carry=0.6))
    found = np.cov(curves.log_odds.T) / 4
    np.testing.assert_allclose((vectors * values) @ vectors.T, difference @ found @ difference.T, atol=0.06)


@pytest.mark.parametrize("n", [2, 3, 5, 9, 16, 33, 128])
def test_deviations_are_no_lines_and_have_size_1(n: int) -> None:
    """Against the covariance of twice summed noise less its best lines: the largest of its components."""
    shots = np.arange(1.0, n + 1)
    rows = deviations(shots)
    assert rows.shape == (N_BENDS, n)
    np.testing.assert_allclose(rows.sum(1), 0, atol=1e-9)
    np.testing.assert_allclose(rows @ shots, 0, atol=1e-8)
    used = (rows**2).sum(1) > 0
    assert used.sum() == min(N_BENDS, n - 2)
    if n > 2:
        assert (rows**2).sum() / n == pytest.approx(1)  # the mean over shots of the variance over draws
        impulses = np.cumsum(np.cumsum(np.eye(n), axis=0), axis=0)  # of each second difference
        off = impulses - np.polynomial.polynomial.polyval(
            shots, np.polynomial.polynomial.polyfit(shots, impulses, 1)
        ).T.reshape(n, n)
        values, vectors = np.linalg.eigh(off @ off.T)
        largest = (vectors[:, ::-1] * values[::-1])[:, : used.sum()] @ vectors[:, ::-1][:, : used.sum()].T
        expected = largest * n / np.trace(largest)
        np.testing.assert_allclose(rows.T @ rows, expected, atol=1e-8 * n)


def test_the_early_bend() -> None:
    for n in (5, 16, 64):
        shots = np.arange(2.0, n + 2)
        np.testing.assert_allclose(early_bend(shots), early_by_hand(shots), atol=1e-9)
        assert abs(early_bend(shots)).max() == pytest.approx(1) and abs(early_bend(shots) @ shots) < 1e-9


# --------------------------------------------------------------------------------------------- found from curves


@pytest.mark.parametrize("f", [power_law(0.0), power_law(0.7), lambda n: 1.0 * (n > 16)])
def test_what_noise_does_is_found_whatever_the_mean(f) -> None:
    """sd that falls or rises threefold, AR(1) of 0.6, sequences that differ along both directions; 64 x 32."""
    more = {"f": f, "n_min": 1, "seed": 2}
    for trend in (np.log(3), -np.log(3)):
        found = estimate(simulate_curves(64, 32, trend=trend, **more))
        assert found.trend == pytest.approx(trend, abs=0.25) and found.carry == 0
    found = estimate(simulate_curves(64, 32, carry=0.6, **more))
    assert found.carry == pytest.approx(0.6, abs=0.1) and found.trend == 0
    found = estimate(simulate_curves(64, 32, trend=np.log(3), carry=0.6, **more))
    assert found.carry == pytest.approx(0.6, abs=0.1) and found.trend == pytest.approx(np.log(3), abs=0.25)
    found = estimate(simulate_curves(256, 32, gain_sd=3.0, early_sd=3.0, corr=0.7, **more))
    assert found.corr == pytest.approx(0.7, abs=0.15) and (found.trend, found.carry) == (0, 0)


def test_plain_noise_is_called_plain() -> None:
    """36 or more of 40 curves; the control: of 10 whose noise falls threefold, 9 or more are not."""
    plain = [estimate(simulate_curves(32, 10, n_min=1, walk=0.3, seed=seed)) for seed in range(40)]
    assert sum((shape.trend, shape.carry) == (0, 0) for shape in plain) >= 36
    other = [estimate(simulate_curves(32, 10, n_min=1, walk=0.3, trend=1.1, seed=seed)) for seed in range(10)]
    assert sum((shape.trend, shape.carry) == (0, 0) for shape in other) <= 1


@pytest.mark.parametrize(("noise", "robust"), [({}, False), ({"trend": 1.1}, True), ({"carry": 0.6}, False)])
def test_a_mean_curve_added_to_all_sequences_changes_nothing(noise: dict[str, float], robust: bool) -> None:
    curves = simulate_curves(24, 12, n_min=1, walk=0.3, early_sd=1.0, corr=0.5, seed=4, **noise)
    one = estimate(curves, robust=robust)
    for mean in (20 * np.log(curves.shots), 9.0 * (curves.shots > 8)):
        other = estimate(curves._replace(log_odds=curves.log_odds + mean), robust=robust)
        np.testing.assert_allclose(
            [other.trend, other.carry, other.corr], [one.trend, one.carry, one.corr], rtol=1e-6, atol=1e-6
        )
        if robust:
            np.testing.assert_allclose(other.weights, one.weights, rtol=1e-6)
    if noise:  # the control: something that is not common to them
        tilted = curves.log_odds + np.linspace(-5, 5, 24)[:, None] * np.linspace(-1, 1, 12) ** 2
        other = estimate(curves._replace(log_odds=tilted), robust=robust)
        assert max(abs(other.trend - one.trend), abs(other.carry - one.carry)) > 1e-3


def test_an_odd_sequence_is_weighed_down() -> None:
    curves = simulate_curves(32, 16, n_min=1, seed=1)
    curves.log_odds[5] *= 20
    weights = estimate(curves, robust=True).weights
    assert weights is not None and len(weights) == 32
    others = np.delete(weights, 5)
    assert weights[5] < 0.1 * others.min() and abs(others.mean() - 1) < 0.2
    assert estimate(curves).weights is None


def test_few_sequences_or_shots_have_plain_noise() -> None:
    assert estimate(simulate_curves(7, 32, trend=2.0)) == estimate(simulate_curves(64, 4, trend=2.0)) == PLAIN
    assert estimate(simulate_curves(64, 32, trend=2.0)) != PLAIN  # the control


# --------------------------------------------------------------------------------------------- items in common


def with_items(n_seqs: int, same: bool, sd: float, seed: int, named: bool = False) -> tuple[bool, bool]:
    """Whether items in the same order in all sequences, or drawn for each, are seen: by the curves, by their names."""
    rng = np.random.default_rng([seed, 5])
    curves = simulate_curves(n_seqs, 20, n_min=1, level=1.0, seed=seed)
    order = np.tile(np.arange(20), (n_seqs, 1)) if same else np.argsort(rng.random((n_seqs, 64)), axis=1)[:, :20]
    curves = curves._replace(log_odds=curves.log_odds + rng.normal(0, sd, size=64)[order])
    return estimate(curves).shared, estimate(curves._replace(items=order)).shared


def test_items_that_all_are_asked_at_a_shot_are_seen() -> None:
    """By what they do, and by their names where they do little; not where each sequence draws its own."""
    assert [with_items(48, True, 1.0, seed) for seed in range(3)] == 3 * [(True, True)]
    assert [with_items(48, True, 0.0, seed)[1] for seed in range(3)] == 3 * [True]
    drawn = [with_items(48, False, 1.0, seed) for seed in range(10)]
    assert sum(by_curves for by_curves, _ in drawn) <= 3  # one in twenty by chance: 4 and more have p of 1e-3
    assert [named for _, named in drawn] == [by_curves for by_curves, _ in drawn]


def test_items_recur_where_shares_vary_over_shots() -> None:
    rng = np.random.default_rng(0)
    assert recurs(np.tile(np.arange(16), (8, 1)))
    assert recurs(rng.permuted(np.arange(64).reshape(4, 16).repeat(8, axis=0), axis=0))  # four orders
    for n_seqs in (8, 32, 256):
        own = np.stack([rng.permutation(64)[:16] for _ in range(n_seqs)])
        assert not recurs(own)
        assert not recurs(rng.integers(0, 4, size=(n_seqs, 16)))  # few items, drawn anew at each shot
    assert not recurs(np.arange(8 * 16).reshape(8, 16))  # none twice
    assert not recurs(np.zeros((8, 16), int))  # one and the same everywhere: it moves no shot against another


def test_words() -> None:
    assert PLAIN.words == "plain level noise"
    assert Shape(trend=np.log(3)).words == "level noise falling 3.0-fold"
    assert Shape(trend=-np.log(2), carry=0.5).words == (
        "level noise rising 2.0-fold and level noise carried over (AR(1), 0.50)"
    )
    assert Shape(shared=True).words == "plain level noise, an effect of each shot"
