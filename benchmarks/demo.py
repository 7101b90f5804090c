"""Minutes that `make demo` takes, by stage, after the set-up: every stage's command as the Makefile has it.

``.venv/bin/python benchmarks/demo.py`` prints a table, and writes benchmarks/demo.txt.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
VERDICT = re.compile(r"additive update: ")


def commands() -> list[str]:
    """The commands of the Makefile's target `demo`, with this Python."""
    lines = (HOME / "Makefile").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("demo:"))
    recipe = []
    for line in lines[start + 1 :]:
        if not line.startswith("\t"):
            break
        recipe.append(line.strip())
    return [line.replace("$(RUN)", sys.executable) for line in recipe]


def run(command: str, since: float) -> tuple[float, float, float | None]:
    """Wall seconds and CPU seconds of a command, and seconds from `since` to its first verdict, if it prints one."""
    began, before = time.perf_counter(), os.times()
    first = None
    with subprocess.Popen(
        command, shell=True, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if first is None and VERDICT.search(line):
                first = time.perf_counter() - since
    if process.returncode not in (0, 3):
        raise SystemExit(f"{command}: exit {process.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu, first


def processor() -> str:
    """What the system calls it, and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else 'an unnamed processor'}"


def main() -> None:
    """Run the demo and print its minutes."""
    began = time.perf_counter()
    rows, first = [], None
    for command in commands():
        seconds, cpu, verdict = run(command, began)
        stage = re.search(r"bayes_icl\.(\w+)", command)
        rows.append((stage.group(1) if stage else command, seconds, cpu))
        first = first if first is not None else verdict
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    lines = [f"make demo after the set-up, {processor()}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}"]
    lines += [f"{'stage':12} {'minutes':>8} {'CPU minutes':>12}"]
    lines += [f"{name:12} {seconds / 60:8.2f} {cpu / 60:12.2f}" for name, seconds, cpu in rows]
    lines += [f"first verdict printed after {first / 60:.2f} minutes" if first else "no verdict was printed"]
    text = "\n".join(lines) + "\n"
    (HOME / "benchmarks" / "demo.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
