"""What is loaded when: the torch wing and the statistics wing apart, and help before both.

`lint-imports` reads the arrows in the source. What it cannot see, an import by name, is seen here: by a fresh
interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMANDS = ("collect", "fit", "attribute", "atlas", "patch", "addition", "independence", "calibrate", "report")

TORCH = {"torch", "transformers", "transformer_lens"}
STATISTICS = {"pymc", "pytensor", "nutpie", "arviz"}

LOADED = """
import importlib, pkgutil, sys
for name in {packages!r}:
    importlib.import_module(name)
    package = sys.modules[name]
    for _, module, _ in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        if not module.endswith("__main__"):
            importlib.import_module(module)
print(*sorted(sys.modules))
"""


def loaded(*packages: str) -> set[str]:
    """Modules of a fresh interpreter that has imported these packages, every module of each."""
    code = LOADED.format(packages=packages)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_report_is_written_without_torch() -> None:
    modules = loaded("bayes_icl.report", "bayes_icl.writing")
    assert {"bayes_icl.report.command", "bayes_icl.fit.section", "bayes_icl.patch.tables"} <= modules
    assert not modules & (TORCH | STATISTICS)
    # The control: one module more, and the check would fail.
    assert "torch" in loaded("bayes_icl.report", "bayes_icl.collect.command")


def test_models_are_read_without_statistics() -> None:
    modules = loaded("bayes_icl.collect", "bayes_icl.mechanism", "bayes_icl.models", "bayes_icl.lens")
    assert {"bayes_icl.collect.command", "torch"} <= modules
    assert not modules & STATISTICS
    # The control, as above.
    assert "arviz" in loaded("bayes_icl.collect.command", "arviz.data.base")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_takes_less_than_a_second(command: str) -> None:
    """Of a processor, the best of three: other programs share the machine."""
    took = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", f"bayes_icl.{command}", "--help"], capture_output=True, text=True
        )
        after = os.times()
        took.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 0 and f"usage: python -m bayes_icl.{command}" in done.stdout
    assert min(took) < 1, took
    modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert f"bayes_icl.{command}.settings" in modules
    heavy = TORCH | STATISTICS | {"pandas", "xarray", "matplotlib", "statsmodels", "plotly"}
    assert not modules & heavy
