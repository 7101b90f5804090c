"""Intervals: what they say and hold, and that one level is behind all."""

import math

import numpy as np
import pandas as pd
import pytest

from bayes_icl.core.intervals import (
    LEVEL,
    LEVEL_WORDS,
    TAILS,
    UNKNOWN_INTERVAL,
    Interval,
    mean_and_interval,
    t_interval,
)


def test_an_interval_is_written_read_and_compared() -> None:
    interval = Interval(0.178, 0.148, 0.211)
    assert f"{interval:.2f}" == "0.18 [0.15, 0.21]" and tuple(interval) == (0.178, 0.148, 0.211)
    table = pd.DataFrame({"x": [0.178], "x_low": [0.148], "x_high": [0.211]})
    rows = [next(table.itertuples()), table.iloc[0], table.iloc[0].to_dict()]
    assert all(Interval.of(row, "x") == interval == Interval.of(row, "x", "x_low", "x_high") for row in rows)


@pytest.mark.parametrize(
    ("interval", "excluded"),
    [
        (Interval(1, 0.1, 2), True), (Interval(-1, -2, -0.1), True), (Interval(1, -0.1, 2), False),
        (Interval(1, 0, 2), False), (UNKNOWN_INTERVAL, False), (Interval(1, math.nan, math.nan), False),
    ],
)  # fmt: skip
def test_zero_is_excluded_if_it_is_surely_not_the_value(interval: Interval, excluded: bool) -> None:
    assert interval.excludes(0) == excluded


def test_one_level_is_behind_words_tails_and_computations() -> None:
    assert f"{LEVEL:.0%}" == LEVEL_WORDS.replace(" ", "") and TAILS[1] - TAILS[0] == pytest.approx(LEVEL)
    x = np.random.default_rng(0).normal(size=40_000)
    _, low, high = mean_and_interval(x, np.zeros(len(x)))
    assert ((low <= x) & (x <= high)).mean() == pytest.approx(LEVEL, abs=1e-3)
    covered = [low <= 0 <= high for _, low, high in map(t_interval, x.reshape(-1, 8))]
    assert np.mean(covered) == pytest.approx(LEVEL, abs=0.01)
