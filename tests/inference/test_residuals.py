"""The noise of each shot, and what a fit expects of it, against simulation of the model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2
from simulate import simulate_curves

from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import PLAIN
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.predictive import replicate
from bayes_icl.inference.residuals import expected_sd, residual_sd

CURVES = simulate_curves(200, 16, gain_sd=2.0, level=1.0, walk=0.4, seed=1)


def test_the_sd_is_over_sequences_about_lines_of_their_own() -> None:
    sd, low, high = residual_sd(CURVES)
    n, y = CURVES.shots, CURVES.log_odds - CURVES.log_odds.mean(0)
    lines = np.stack([np.polyval(np.polyfit(n, own, 1), n) for own in y])
    assert sd == pytest.approx((y - lines).std(0, ddof=1), rel=1e-9)
    assert (low / sd, high / sd) == (
        pytest.approx(np.sqrt(199 / chi2.ppf(0.975, 199))),
        pytest.approx(np.sqrt(199 / chi2.ppf(0.025, 199))),
    )


@pytest.mark.parametrize("student", [False, True])
def test_what_is_expected_is_the_sd_of_replicates(student: bool) -> None:
    law = HYPOTHESES["additive"].varied(student=student)
    stats = summarise(CURVES, shape=PLAIN)
    params = {"gain": 9.0, "gain_sd": 2.0, "early_sd": 1.0, "level": 1.0, "walk": 0.4, "dof": 8.0}
    one = {name: np.full((1, 1), params[name]) for name in law.parameters}
    posterior = Posterior(law, one, np.zeros(1), "fast", ess=1.0)
    mean, low, high = expected_sd(posterior, stats)
    new = replicate(posterior.at(np.zeros(100, int)), stats, np.random.default_rng(0)).reshape(-1, 17)
    seen = residual_sd(CURVES._replace(log_odds=new))[0]
    assert mean == pytest.approx(seen, rel=0.04 if student else 0.02)  # 20,000 sequences: 0.5 % an sd
    assert low == pytest.approx(mean) and high == pytest.approx(mean)


def test_noise_that_falls_is_seen_where_a_fit_has_none_of_it() -> None:
    rng = np.random.default_rng(3)
    falling = CURVES._replace(log_odds=CURVES.log_odds + rng.normal(size=(200, 17)) * np.linspace(4, 0.5, 17))
    plain, own = summarise(falling, shape=PLAIN), summarise(falling)
    _, low, high = residual_sd(falling)

    def off(stats: object) -> float:
        expected = expected_sd(sample_fast(HYPOTHESES["additive"], stats), stats)[0]  # type: ignore[arg-type]
        return float(((expected < low) | (expected > high)).mean())

    assert off(plain) > 0.6
    assert off(own) < 0.35
