"""The two models that the tests read, each loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
import shapes  # noqa: F401 - before the package, which it is to check
import torch

from bayes_icl.models import Model, load_model

# Whole runs of commands, pages, junk and kills: what `make quick` leaves out, by folder or file.
SLOW = (
    "attribute", "calibrate", "mechanism", "patch", "report",
    "collect/test_collect.py", "core/test_parallel.py", "fit/test_fit.py", "fit/test_fit_figures.py",
    "fit/test_pooling.py", "fit/test_weighing.py", "inference/test_departure.py", "inference/test_importance.py",
    "inference/test_noise_shape.py", "inference/test_scores.py", "lens/test_sweeps.py",
    "test_docs.py", "test_wings.py",
    "models/test_models.py", "models/test_organisms.py", "writing/test_interactive.py",
    "test_analyses.py", "test_docs_site.py", "test_examples.py", "test_families.py", "test_junk.py", "test_kills.py",
    "test_weighing_organisms.py",
)  # fmt: skip

# Two threads wait for each other in busy loops: on a machine that does anything else, tests take ten times as long.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    slow = tuple(str(Path(__file__).parent / name) for name in SLOW)
    for item in items:
        if str(item.path).startswith(slow):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny() -> Model:
    return load_model("tiny", "cpu")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    return load_model("smollm2", "cpu")
