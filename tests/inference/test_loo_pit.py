"""PITs of sequences left out: uniform under the truth, not under another curve or noise; the test of it is exact."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import line, power_law, simulate_curves
from statsmodels.stats.multitest import multipletests

from bayes_icl.curves import Curves
from bayes_icl.fit.adequacy import holm
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.loo_pit import STATISTICS, _tails, loo_pits, uniform_band, uniform_p
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import PLAIN


def p_of(curves: Curves, law: str = "additive") -> dict[str, float]:
    stats = summarise(curves, shape=PLAIN)
    pits, _ = loo_pits(sample_fast(HYPOTHESES[law], stats), stats)
    return {statistic: uniform_p(values) for statistic, values in pits.items()}


def test_the_truth_passes() -> None:
    """20 data sets, 3 tests each: at 5 % three alarms at most, but for 6 in 1,000 such runs."""
    found = [p_of(simulate_curves(40, 12, seed=seed)) for seed in range(20)]
    assert sum(p < 0.05 for own in found for p in own.values()) <= 7
    assert sum(own["contrast"] < 0.05 for own in found) <= 4
    # Not always near 1 either, or the test could see nothing.
    assert sum(own["contrast"] < 0.5 for own in found) >= 3


@pytest.mark.parametrize("seed", range(3))
def test_a_bent_truth_fails_in_the_contrast_alone(seed: int) -> None:
    found = p_of(simulate_curves(40, 12, f=power_law(0.4), seed=seed))
    assert found["contrast"] < 1e-3
    assert found["distance"] > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_wrong_noise_fails_in_the_distance(seed: int) -> None:
    """A tenth of the sequences is three times as noisy as the others."""
    curves = simulate_curves(40, 12, seed=seed)
    log_odds = curves.log_odds.copy()
    means = log_odds[:4].mean(1, keepdims=True) + log_odds.mean(0) - log_odds.mean()
    log_odds[:4] = means + 3 * (log_odds[:4] - means)
    found = p_of(curves._replace(log_odds=log_odds))
    assert found["distance"] < 1e-3


@pytest.mark.parametrize("law", ["constant", "changepoint", "lapse", "freeform"])
def test_every_kind_of_law_has_them(law: str) -> None:
    curves = simulate_curves(12, 10, seed=2, n_min=1, intercept_sd=3)
    stats = summarise(curves)
    pits, pareto_k = loo_pits(sample_fast(HYPOTHESES[law], stats), stats)
    assert tuple(pits) == STATISTICS and pareto_k.shape == (12,)
    for values in pits.values():
        assert values.shape == (12,) and ((values >= 0) & (values <= 1)).all() and np.ptp(values) > 0.05


def test_a_sequence_is_left_out() -> None:
    """One far sequence moves its own fit less than those that include it would show."""
    curves = simulate_curves(9, 12, seed=4, f=line)
    log_odds = curves.log_odds.copy()
    log_odds[0] += 2.0 * curves.shots
    stats = summarise(curves._replace(log_odds=log_odds), shape=PLAIN)
    pits, _ = loo_pits(sample_fast(HYPOTHESES["additive"], stats), stats)
    assert pits["slope"][0] > 0.99  # with it the sd of gains would hold it


@pytest.mark.parametrize("n", [5, 32, 110])
def test_the_test_is_exact(n: int) -> None:
    """Against simulation: p-values of uniform samples are uniform, as far as counts are discrete."""
    rng = np.random.default_rng(n)
    p = np.array([uniform_p(rng.uniform(size=n)) for _ in range(400)])
    for level in (0.05, 0.2, 0.5):
        # Never more alarms than said (3 standard errors), and about as many where counts are fine.
        assert (p <= level).mean() < level + 3 * np.sqrt(level * (1 - level) / 400)
    assert (p <= 0.2).mean() > 0.2 - 0.12


def test_the_band_holds_the_share_it_says() -> None:
    places, low, high = uniform_band(50)
    rng = np.random.default_rng(0)
    shares = (rng.uniform(size=(4000, 50, 1)) <= places).mean(1)
    inside = ((shares >= low - 1e-9) & (shares <= high + 1e-9)).all(1).mean()
    assert 0.945 < inside < 0.985  # at least 95 %; counts are discrete
    below, above = _tails(50)
    assert below[-1] == pytest.approx(np.ones(50)) and above[0] == pytest.approx(np.ones(50))


def test_holm_is_that_of_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(size=17) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-15)
    assert holm(np.array([])).shape == (0,)
