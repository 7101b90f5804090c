"""A home folder that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTS = "import arviz, matplotlib, nutpie, pytensor, seaborn; print(pytensor.config.compiledir)"


@pytest.mark.parametrize("spared", [True, False])
def test_what_a_fit_imports_does_without_a_home(tmp_path: Path, spared: bool) -> None:
    """The control: without it they do not even import."""
    (tmp_path / "home").write_text("no folder")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "PYTENSOR", "MPL"))
    }
    code = "from bayes_icl.core.home import spare_home; spare_home(); " if spared else ""
    done = subprocess.run(
        [sys.executable, "-c", code + IMPORTS],
        env={**environment, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == spared
    assert list(tmp_path.glob("bayes_icl-*")) == []  # removed at the end
    if spared:
        assert done.stdout.startswith(f"{tmp_path}/bayes_icl-") and done.stderr == ""


def test_a_home_that_can_be_written_is_left_alone(tmp_path: Path) -> None:
    code = (
        "from bayes_icl.core.home import spare_home; import os; b = dict(os.environ); "
        "spare_home(); print(b == os.environ)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout == "True\n" and list(tmp_path.iterdir()) == []
