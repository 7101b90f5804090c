"""Jobs in worker processes, or here."""

from __future__ import annotations

import multiprocessing.resource_tracker
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from bayes_icl.core.errors import FAILED, StatedError
from bayes_icl.core.home import spare_home

Run = Callable[[Callable[..., Any], Sequence[tuple]], Iterator[tuple[int, Any]]]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_a_core() -> int:
    """How many processes are used where no number is given: one a core, 4 at most."""
    return min(4, cores())


@contextmanager
def run_jobs(workers: int) -> Iterator[Run]:
    """``run(function, arguments of each job)`` yields (index of the job, result) as they come.

    With 1 worker everything happens in this process. BLAS has one thread in each: as many processes as cores already.
    Functions, arguments and results go by value, so that what a notebook or script defines is known to workers.

    Parameters
    ----------
    workers
        Processes, 1 or more.

    Raises
    ------
    StatedError
        A worker ended before its work was done.
    """
    if workers < 1:
        raise StatedError(f"workers must be 1 or more, got {workers}")
    if workers == 1:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            yield lambda function, jobs: ((j, function(*job)) for j, job in enumerate(jobs))
        return

    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor

    begun: list[Generator[tuple[int, Any], None, None]] = []

    def run(function: Callable[..., Any], jobs: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        settings = {"n_jobs": workers, "inner_max_num_threads": 1, "initializer": _start, "initargs": (os.getpid(),)}
        try:
            with _interrupts_held(), parallel_config("loky", **settings):
                # Jobs are few and long: one at a time, all known from the start, no array through a file.
                parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all", max_nbytes=None)
                begun.append(parallel(delayed(_numbered)(j, function, job) for j, job in enumerate(jobs)))
            # A loop that ends early would close what is given to `yield from`, with a warning.
            for result in begun[-1]:  # noqa: UP028
                yield result
        except BrokenProcessPool:
            why = "a worker process was killed, perhaps for want of memory: give fewer workers"
            raise StatedError(why) from None

    try:
        yield run
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"(?s).*still being processed|.*but not used", module="joblib")
            for results in begun:  # whose jobs may take minutes yet
                results.close()
        get_reusable_executor(reuse=True).shutdown()  # else they would wait for more, for minutes


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let an interrupt wait, and processes begin without: one that is still importing would answer with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # which would let interrupts through as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(parent: int) -> None:
    """Make a worker process ready."""
    from joblib.externals.loky import process_executor

    # An interrupt from the keyboard reaches all processes: the parent answers it, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    process_executor._USE_PSUTIL = False  # else PyMC, which a later job loads, is taken for a leak of memory
    spare_home()


def _end_with_parent(parent: int) -> None:
    """Leave no process behind when the parent is killed."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(FAILED)


def _numbered(j: int, function: Callable[..., Any], arguments: tuple) -> tuple[int, Any]:
    return j, function(*arguments)
