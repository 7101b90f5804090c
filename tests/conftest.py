"""The two models that the tests read, each loaded once."""

from __future__ import annotations

import pytest

from bayes_icl.models import Model, load_model


@pytest.fixture(scope="session")
def tiny() -> Model:
    return load_model("tiny", "cpu")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    return load_model("smollm2", "cpu")
