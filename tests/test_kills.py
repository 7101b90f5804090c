"""Three commands are killed once and go on; `make kills` does it with all, ten times each (benchmarks/kills.txt)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kills
import pytest

KILLED = ("collect", "fit", "attribute")


@pytest.fixture(scope="module")
def seconds(reference: Path) -> dict[str, tuple[float, float]]:
    return kills.reference_of(reference, KILLED)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills") / "reference"


@pytest.mark.parametrize("command", KILLED)
def test_a_command_that_is_killed_goes_on_to_the_same_files(
    command: str, reference: Path, seconds: dict[str, tuple[float, float]], tmp_path: Path
) -> None:
    kills.rounds(command, reference, tmp_path, 1, seed=1, seconds=seconds[command])


def test_the_comparison_sees_a_changed_bit(reference: Path, seconds: Any) -> None:
    """The control."""
    import h5py

    expected = kills.content(reference / "c.nc")
    with h5py.File(reference / "c.nc", "r+") as file:
        file["log_odds"][0, 0, 0, 0] += 1e-12
    with pytest.raises(AssertionError, match=r"c\.nc differs"):
        kills._same(expected, kills.content(reference / "c.nc"), "now")
