"""Whether the best of many is told from chance: against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bayes_icl.inference.selection import best_of, p_worse


def test_equals_are_as_far_apart_as_chance_says() -> None:
    """Twelve equal laws: the best is on average as far above the median as expected, and rarely said to be chosen."""
    rng = np.random.default_rng(0)
    found = [best_of(3.0 * rng.normal(size=12)) for _ in range(2000)]
    above, by_chance = np.array(found).T
    assert above.mean() == pytest.approx(by_chance.mean(), rel=0.15)
    better = [best_of([*(3.0 * rng.normal(size=11)), 40.0]) for _ in range(200)]
    assert np.mean([b.chosen for b in better]) > 0.95


def test_by_hand() -> None:
    above, by_chance = best_of([0.0, -1.0, -2.0, -50.0, -90.0])
    assert above == 2.0
    assert by_chance == pytest.approx(np.sqrt((4 + 1 + 0) / 3) * 1.1503493803760079)  # normal quantile of 7/8
    assert all(math.isnan(x) for x in best_of([0.0, -1.0]))


def test_probability_to_be_worse() -> None:
    assert p_worse(-4.0, 2.0) == pytest.approx(0.9772498680518208)
    assert math.isnan(p_worse(0.0, 0.0))
