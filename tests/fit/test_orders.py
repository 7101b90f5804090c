"""What stands beside the second verdict: order, by simulation; priors and the martingale, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import t as student

from bayes_icl.fit.orders import beside_second_verdict, order_share, prior_shift

N_SETS, N_ORDERS, SETS = 30, 4, np.repeat(np.arange(30), 4)


def in_orders(leak: float, seed: int) -> np.ndarray:
    """Log-odds at 4 shots after 12 examples in 4 orders each, under level noise; later examples are the same."""
    rng = np.random.default_rng(seed)
    shown = rng.choice([-1.0, 1.0], (N_SETS, 12))
    orders = np.stack([rng.permutation(row) for row in shown for _ in range(N_ORDERS)])
    later = np.repeat(rng.choice([-1.0, 1.0], (N_SETS, 3)), N_ORDERS, axis=0)
    whole = np.concatenate([orders, later], axis=1)
    reads = [whole[:, :n] @ leak ** np.arange(n - 1, -1, -1) for n in range(12, 16)]
    return 0.5 * np.stack(reads, axis=1) + rng.normal(0, 0.5, (len(SETS), 4))


def test_an_exchangeable_learner_has_no_order_share_and_a_leaky_one_has() -> None:
    """Intervals of 95 %: 100 simulations hold 0 at least 88 times but once in 300 runs."""
    found = [order_share(in_orders(1.0, seed), SETS, seed) for seed in range(100)]
    assert sum(share is not None and share[0].low < 0 < share[0].high for share in found) >= 88
    leaky = [order_share(in_orders(0.8, seed), SETS, seed) for seed in range(10)]
    assert all(share is not None and share[0].low > 0 and share[1].low > 0 for share in leaky)


def test_fewer_sets_or_shots_than_it_takes() -> None:
    odds = in_orders(1.0, 0)
    assert order_share(odds[:12], SETS[:12]) is None and order_share(odds[:16], SETS[:16]) is not None
    assert order_share(odds[:, :1], SETS) is None


def three(x: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t-interval, as textbooks have it."""
    half = student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return x.mean(), x.mean() - half, x.mean() + half


def test_the_shift_of_a_prior_by_hand() -> None:
    rng, shots = np.random.default_rng(0), np.arange(6.0)
    plain, shift = rng.normal(size=(9, 6)), 2 - 0.3 * shots + 0.1 * rng.normal(size=(9, 6))
    found = prior_shift(plain + shift, plain, shots)
    slopes = np.array([np.polyfit(shots, row, 1)[0] for row in shift])
    for name, x in {"first": shift[:, 0], "last": shift[:, -1], "slope": slopes}.items():
        np.testing.assert_allclose(found[name], three(x), rtol=1e-9)


def dataset() -> xr.Dataset:
    """A coin as it is, and after a text that shifts it; gaps of a martingale at two shots of the first."""
    rng = np.random.default_rng(1)
    odds = rng.normal(size=(2, 1, 8, 5))
    odds[1] = odds[0] + 1.5
    gaps = np.full((2, 8, 5), np.nan)
    gaps[0][:, [1, 3]] = rng.normal(0, 0.2, (8, 2))
    coords = {"task": ["coin", "coin+prior"], "readout": ["foil"], "seq": range(8), "shot": range(5)}
    return xr.Dataset(
        {
            "log_odds": (("task", "readout", "seq", "shot"), odds),
            "martingale_gap": (("task", "seq", "shot"), gaps),
            "set": (("task", "seq"), np.full((2, 8), -1)),
            "design": ("task", ["plain", "prior:text=x"]),
            "base": ("task", ["coin", "coin"]),
        },
        coords,
    )


def test_what_a_file_says_beside_the_verdict() -> None:
    """Each entry where its design is there: the gap over sequences, with its size; the shift beside the plain task."""
    data = dataset()
    found = beside_second_verdict(data, "coin", "foil")
    gaps = data.martingale_gap.values[0][:, [1, 3]]
    assert set(found) == {"martingale_gap"}
    own = found["martingale_gap"]
    np.testing.assert_allclose([own[k] for k in ("mean", "low", "high")], three(gaps.mean(1)))
    np.testing.assert_allclose([own["size"][k] for k in ("mean", "low", "high")], three(abs(gaps).mean(1)))
    assert [row["n"] for row in own["by_n"]] == [1, 3]
    np.testing.assert_allclose([row["mean"] for row in own["by_n"]], gaps.mean(0))
    shifted = beside_second_verdict(data, "coin+prior", "foil")
    assert set(shifted) == {"prior_shift"} and shifted["prior_shift"]["plain"] == "coin"
    assert shifted["prior_shift"]["first"]["mean"] == pytest.approx(1.5)
    assert shifted["prior_shift"]["slope"]["mean"] == pytest.approx(0, abs=1e-12)
    # Without the plain task there is nothing beside which.
    assert beside_second_verdict(data.sel(task=["coin+prior"]), "coin+prior", "foil") == {}
