"""Run the tests that take minutes each, and keep their outcome: ``make test-long`` writes benchmarks/long_tests.txt."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "long_tests.txt"


def main() -> int:
    """Run them, one process a core; a row a test, and pytest's exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        workers = ("-n", "auto", "--maxprocesses", "4", "--dist", "load")
        code = subprocess.call(
            [sys.executable, "-m", "pytest", "-m", "long", *workers, f"--junitxml={report}"], cwd=ROOT
        )
        if not report.exists():
            return code
        cases = ElementTree.parse(report).getroot().iter("testcase")
        rows = sorted((f"{case.get('classname', '')}.{case.get('name', '')}", _outcome(case)) for case in cases)
    width = max(len(name) for name, _ in rows)
    lines = ["Tests of minutes, mostly NUTS beside the fast engine (`make test-long` writes this file).", ""]
    lines += [f"{name:{width}s}  {outcome}" for name, outcome in rows]
    RESULT.write_text("\n".join(lines) + "\n")
    print(RESULT)
    return code


def _outcome(case: ElementTree.Element) -> str:
    return next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")


if __name__ == "__main__":
    sys.exit(main())
