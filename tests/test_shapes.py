"""Shapes in annotations are checked while tests run."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest

from bayes_icl.core.intervals import t_interval
from bayes_icl.curves import Curves
from bayes_icl.inference.noise import summarise


def test_a_wrong_shape_is_an_error() -> None:
    shots, odds = np.arange(5.0), np.random.default_rng(0).normal(size=(3, 5))
    summarise(Curves("made", "complement", shots, odds))
    with pytest.raises(jaxtyping.TypeCheckError, match="seq"):
        t_interval(np.float64(1.0))  # type: ignore[arg-type]
