"""Kill every command at random places, run it again, and compare all that it leaves with a run that was not killed.

``python tests/kills.py`` (``make kills``) kills each ten times, by SIGKILL and SIGINT in turn, and writes
``benchmarks/kills.txt``; `test_kills` kills some once. Places are drawn between the first sign of work (the lock
beside the output) and the end, with a seed; on what falls there the machine decides.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KILLS = 10
SIGNALS = (signal.SIGKILL, signal.SIGINT)
# Times, and the commit that the code is of: somebody may commit meanwhile.
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+\d\d:\d\d)?|\"git\": (?:null|\{[^}]*\})")

# By command: its arguments, and what it writes; each reads what those before it have written.
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "collect": ("--model tiny --tasks copy random_labels --n-shots 12 --n-seqs 16 --out c.nc", ["c.nc"]),
    "fit": (
        "--curves c.nc --engine fast --n-min 1 --workers 2 --hypotheses constant additive power "
        "--out fits --figures fit_figures",
        ["fits", "fit_figures"],
    ),
    "attribute": ("--curves c.nc --workers 1 --out e.nc --figures head_figures", ["e.nc", "head_figures"]),
    "patch": (
        "--curves c.nc --n-examples 6 --n-seqs 4 --out p.nc --figures patch_figures",
        ["p.nc", "patch_figures"],
    ),
    "report": ("--curves c.nc --fits fits --effects e.nc --patch p.nc --out r.html", ["r.html", "r"]),
}


def start(command: str, folder: Path) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"bayes_icl.{command}", *COMMANDS[command][0].split()],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def finish(command: str, folder: Path) -> tuple[float, float]:
    """Run a command to its end; seconds until its lock stood there, and until the end."""
    began, locked = time.monotonic(), 0.0
    process = start(command, folder)
    while process.poll() is None:
        if not locked and _lock(command, folder).exists():
            locked = time.monotonic() - began
        time.sleep(0.01)
    said = process.communicate()[1]
    if process.returncode:
        raise AssertionError(f"{command} ended with {process.returncode}: {said[-2000:]}")
    return locked, time.monotonic() - began


def _lock(command: str, folder: Path) -> Path:
    out = COMMANDS[command][1][0]
    return folder / "fits" / ".fit.lock" if command == "fit" else folder / f".{out}.lock"


def kill(command: str, folder: Path, seconds: float, how: signal.Signals) -> str:
    """Start a command, kill its group after some seconds of work; what it was at, judged by what it has left."""
    process = start(command, folder)
    while process.poll() is None and not _lock(command, folder).exists():
        time.sleep(0.002)
    time.sleep(seconds)
    ended = process.poll() is not None
    os.killpg(process.pid, how) if not ended else None
    said = process.communicate(timeout=60)[1]
    # A shell shows both as 130; Python's own is that of an interrupt within code that was made at run time.
    if not ended and how == signal.SIGINT and process.returncode not in (0, 130, -signal.SIGINT):
        raise AssertionError(f"{command} ended an interrupt with {process.returncode}: {said[-2000:]}")
    if how == signal.SIGINT and "Traceback" in said:
        raise AssertionError(f"{command} answers an interrupt with a traceback: {said[-2000:]}")
    deadline = time.monotonic() + 20
    while _alive(process.pid):  # workers of the group
        if time.monotonic() > deadline:
            raise AssertionError(f"{command} has left processes behind")
        time.sleep(0.05)
    if ended:
        return "after its end"
    main = folder / COMMANDS[command][1][0]
    return "outputs whole" if any(folder.rglob(".*.whole")) else "parts kept" if _part(main) else "nothing kept"


def _part(main: Path) -> bool:
    part = main.with_name(main.name + ".part")
    return part.exists() and part.stat().st_size > 200


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def content(path: Path) -> dict[str, Any]:
    """All that a command has left at `path`, without times; by name."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if path.suffix == ".nc" and path.parent.exists():
        files += sorted(p for p in path.parent.glob(f"{path.stem}.*") if p != path)
    found: dict[str, Any] = {}
    for file in files:
        name = file.relative_to(path.parent).as_posix()
        if file.name.startswith("."):
            found[name] = "a record"  # whose hashes are of files with times in them
        elif file.suffix == ".nc":
            found[name] = _netcdf(file)
        elif file.suffix in (".json", ".html", ".tex", ".txt"):
            found[name] = TIME.sub("a time", file.read_text(encoding="utf-8"))
        elif file.suffix == ".svg":  # matplotlib names clipping paths by addresses in memory
            found[name] = re.sub(r"\bp[0-9a-f]{10}\b", "a clip", file.read_text(encoding="utf-8"))
        else:
            found[name] = file.read_bytes()
    return found


def _netcdf(path: Path) -> str:
    """A netCDF file as text: every group, attribute and bit of a value, without times."""
    import hashlib

    import h5py

    lines: list[str] = []

    def see(name: str, item: Any) -> None:
        own = {key: str(value) for key, value in sorted(item.attrs.items()) if not (key.isupper() or key[0] == "_")}
        lines.append(f"{name} {own}")
        if isinstance(item, h5py.Dataset):
            values = item[()]
            raw = json.dumps(values.tolist(), default=str).encode() if values.dtype.kind == "O" else values.tobytes()
            lines.append(f"{item.dtype} {item.shape} {hashlib.sha256(raw).hexdigest()}")

    with h5py.File(path) as file:
        see("/", file)
        file.visititems(see)
    return TIME.sub("a time", "\n".join(lines))


def rounds(
    command: str, reference: Path, work: Path, kills: int, seed: int, seconds: tuple[float, float] | None = None
) -> list[tuple[float, str, str]]:
    """Kill a command some times and let it go on; where each kill came, by which signal, and what had been left.

    Parameters
    ----------
    seconds
        Of a run without a kill, as `finish` gives them; None to run it once more, which must give the same files.

    Raises
    ------
    AssertionError
        What is there at the end differs from the reference.
    """
    outs = COMMANDS[command][1]
    expected = {out: content(reference / out) for out in outs}
    if seconds is None:
        timing = work / "timing"
        _copy_inputs(command, reference, timing)
        seconds = finish(command, timing)
        for out in outs:
            _same(expected[out], content(timing / out), f"{command}, run again without a kill")
    locked, ended = seconds
    places = random.Random(f"{seed} {command}")
    told = []
    for i in range(kills):
        folder = work / str(i)
        _copy_inputs(command, reference, folder)
        after = places.uniform(0, ended - locked)
        how = SIGNALS[i % len(SIGNALS)]
        told.append((after / (ended - locked), how.name, kill(command, folder, after, how)))
        finish(command, folder)
        for out in outs:
            _same(expected[out], content(folder / out), f"{command}, killed after {after:.2f} s by {how.name}")
        left = [p for p in folder.rglob(".*") if p.suffix in (".new", ".whole", ".lock")] + [*folder.rglob("*.part")]
        if left:
            raise AssertionError(f"{command} has left {left}")
        shutil.rmtree(folder)
    return told


def _copy_inputs(command: str, reference: Path, folder: Path) -> None:
    """The outputs of the commands before, with their records."""
    folder.mkdir(parents=True)
    for earlier, (_, outs) in COMMANDS.items():
        if earlier == command:
            break
        for out in outs:
            for path in reference.glob(f"{out}*") if "." not in out else _family(reference / out):
                (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)


def _family(main: Path) -> list[Path]:
    return [p for p in main.parent.iterdir() if p.name.lstrip(".").split(".")[0] == main.stem and p.is_file()]


def _same(expected: dict[str, Any], found: dict[str, Any], when: str) -> None:
    if set(expected) != set(found):
        raise AssertionError(f"{when}: files {sorted(set(expected) ^ set(found))} are only in one")
    for name, own in expected.items():
        if own != found[name]:
            raise AssertionError(f"{when}: {name} differs")


def reference_of(folder: Path, commands: Iterable[str] = tuple(COMMANDS)) -> dict[str, tuple[float, float]]:
    """Commands, one after the other, not killed; seconds as `finish` gives them."""
    folder.mkdir(parents=True, exist_ok=True)
    return {command: finish(command, folder) for command in commands}


def main() -> int:
    """All commands, `KILLS` times each; the outcome in a table."""
    import tempfile

    lines = [
        f"Each command killed {KILLS} times at random places of its work, by {' and '.join(s.name for s in SIGNALS)}",
        "in turn, and run again; all files are compared with those of a run that was not killed, but for times.",
        "Place: share of the seconds from the first sign of work to the end. `make kills` writes this file.",
        "",
        f"{'command':10s} {'signal':8s} {'place':>6s}  left by the kill",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        reference_of(reference := Path(scratch) / "reference")
        for command in COMMANDS:
            for place, how, left in rounds(command, reference, Path(scratch) / command, KILLS, seed=0):
                lines.append(f"{command:10s} {how:8s} {place:6.2f}  {left}")
                print(lines[-1], flush=True)
    n = len(COMMANDS) * KILLS
    lines += ["", f"{n} of {n} runs left the same files as one that was not killed."]
    (ROOT / "benchmarks" / "kills.txt").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
