"""Jobs in worker processes: what is sent, and what a script or a kill does to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from bayes_icl.core.errors import StatedError
from bayes_icl.core.parallel import run_jobs


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_notebook_defines_is_known_to_workers(workers: int) -> None:
    """Functions, arguments and results that no module holds."""
    offset = 3

    class Own(str):
        pass

    jobs = [(i, lambda x: x + offset) for i in range(5)]
    with run_jobs(workers) as run:
        found = dict(run(lambda i, f: (Own(f(i)), os.getpid()), jobs))
    assert [found[i][0] for i in range(5)] == [Own(i + 3) for i in range(5)]
    assert all(type(one) is Own for one, _ in found.values())
    assert (os.getpid() in {pid for _, pid in found.values()}) == (workers == 1)


def test_results_come_as_they_are_ready_from_one_thread_a_worker() -> None:
    """The first job is the slowest; a long array goes there and back, and may be written on."""

    def work(seconds: float, x: np.ndarray) -> tuple[np.ndarray, set[int]]:
        time.sleep(seconds)
        x += 1
        return x @ x, {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with run_jobs(2) as run:
        found = list(run(work, [(2.0, np.zeros((600, 600))), (0.0, np.ones((2, 2)))]))
    assert [j for j, _ in found] == [1, 0]
    assert found[1][1][0][0, 0] == 600 and {threads for _, (_, threads) in found for threads in threads} == {1}


def test_a_loop_that_ends_early_ends_its_jobs() -> None:
    """And not only when someone collects garbage: the error is still held here."""
    began = time.monotonic()
    with pytest.raises(KeyError) as held, run_jobs(2) as run:
        for _ in run(time.sleep, [(0,), (60,)]):
            raise KeyError
    assert held.value is not None and time.monotonic() < began + 30
    with run_jobs(2) as run:  # nor are others in its way
        assert sorted(run(abs, [(-1,), (2,)])) == [(0, 1), (1, 2)]


def test_an_error_in_a_job_is_that_error() -> None:
    with pytest.raises(ZeroDivisionError), run_jobs(2) as run:
        list(run(lambda x: 1 // x, [(1,), (0,)]))


def test_a_killed_worker_is_stated() -> None:
    with (
        pytest.raises(StatedError, match="a worker process was killed, perhaps for want of memory"),
        run_jobs(2) as run,
    ):
        list(run(lambda: os.kill(os.getpid(), signal.SIGKILL), [()]))


LONG = """
import os, signal, sys, time
from bayes_icl.core.errors import exit_stating
from bayes_icl.core.parallel import run_jobs

def wait():
    os.write(1, f"{os.getpid()}\\n".encode())  # at once, lest lines of two processes mix
    time.sleep(120)

def work():
    with run_jobs(2) as run:
        list(run(wait, [(), ()]))
    return 0

if __name__ == "__main__":
    exit_stating(work)
"""


@pytest.mark.parametrize(
    ("how", "whole_group", "code"), [("SIGINT", True, 130), ("SIGTERM", False, -15), ("SIGKILL", False, -9)]
)
def test_a_kill_ends_the_workers_too(tmp_path: Path, how: str, whole_group: bool, code: int) -> None:
    """An interrupt from the keyboard reaches them as well; it is answered by the parent, in one line."""
    (tmp_path / "script.py").write_text(LONG)
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    began = time.monotonic()
    (os.killpg if whole_group else os.kill)(process.pid, getattr(signal, how))
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in said and (said.startswith("stopped:") or how != "SIGINT")
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < began + 30
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


SCRIPT = """
from bayes_icl.core.parallel import run_jobs

class Own(int):
    pass

def double(x):
    return Own(2 * x)

def work():
    with run_jobs({workers}) as run:
        found = sorted(run(double, [(1,), (2,)]))
        print(found, {{type(x) is Own for _, x in found}})

{call}
"""


@pytest.mark.parametrize(
    ("workers", "call"),
    [(1, "work()"), (2, "work()"), (2, "if __name__ == '__main__': work()")],
    ids=["one process", "no main guard", "main guard"],
)
def test_scripts(tmp_path: Path, workers: int, call: str) -> None:
    """A script needs no main guard: workers do not run it."""
    (tmp_path / "script.py").write_text(SCRIPT.format(workers=workers, call=call))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(0, 2), (1, 4)] {True}\n", "")


def test_an_interrupt_finds_no_worker_that_is_still_starting(tmp_path: Path) -> None:
    """From the moment that they are there: one that is still importing would end with a traceback."""
    (tmp_path / "script.py").write_text(SCRIPT.format(workers=2, call="work()"))
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(0.5)")  # of every interpreter as it starts
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    sent = 0
    while process.poll() is None:
        for pid in children.read_text().split() if children.exists() else []:
            if b"popen_loky" in _command(pid):
                os.kill(int(pid), signal.SIGINT)
                sent += 1
        time.sleep(0.005)
    assert sent > 10  # some of them while they were importing
    assert (process.returncode, *process.communicate(timeout=30)) == (0, "[(0, 2), (1, 4)] {True}\n", "")


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
