"""Shapes in annotations are checked while tests run."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest

from bayes_icl.core.intervals import t_interval
from bayes_icl.curves import Curves
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import off_line
from bayes_icl.inference.survival import slack


def test_a_wrong_shape_is_an_error() -> None:
    shots, odds = np.arange(5.0), np.random.default_rng(0).normal(size=(3, 5))
    summarise(Curves("made", "complement", shots, odds))
    with pytest.raises(jaxtyping.TypeCheckError, match="seq"):
        t_interval(np.float64(1.0))  # type: ignore[arg-type]


def test_what_states_a_shape_is_checked_and_nothing_else() -> None:
    """Functions as they were written have no hook around them, whose code is jaxtyping's."""
    hooked = {f.__name__: "jaxtyping" in f.__code__.co_filename for f in (t_interval, summarise, off_line, slack)}
    assert hooked == {"t_interval": True, "summarise": False, "off_line": True, "slack": False}
