"""The two models that the tests read, each loaded once."""

from __future__ import annotations

import pytest
import torch

from bayes_icl.models import Model, load_model

# Two threads wait for each other in busy loops: on a machine that does anything else, tests take ten times as long.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> Model:
    return load_model("tiny", "cpu")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    return load_model("smollm2", "cpu")
