"""Jobs in worker processes, or here."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from bayes_icl.core.errors import FAILED, StatedError

Run = Callable[[Callable[..., Any], Sequence[tuple]], Iterator[tuple[int, Any]]]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_a_core() -> int:
    """How many processes are used where no number is given: one a core, 4 at most."""
    return min(4, cores())


@contextmanager
def run_jobs(workers: int, *prepare: Any) -> Iterator[Run]:
    """``run(function, arguments of each job)`` yields (index of the job, result) as they come.

    With 1 worker everything happens in this process. BLAS has one thread in each: as many processes as cores already.
    Functions, arguments and results go by value, so that what a notebook or script defines is known to workers.

    Parameters
    ----------
    workers
        Processes, 1 or more.
    prepare
        A function and its arguments, called first in each worker process.

    Raises
    ------
    StatedError
        A worker ended before its work was done.
    """
    from threadpoolctl import threadpool_limits

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker that runs its parent's script, which has no main guard, and so comes here again. The parent says so.
        sys.exit(FAILED)
    if workers < 1:
        raise StatedError(f"workers must be 1 or more, got {workers}")
    if workers == 1:
        with threadpool_limits(1, user_api="blas"):
            yield lambda function, jobs: ((j, function(*job)) for j, job in enumerate(jobs))
        return

    import cloudpickle

    context = multiprocessing.get_context("spawn")  # fork would copy the threads of torch and numba
    started, others = context.Event(), set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(started, cloudpickle.dumps(prepare))
    )

    def run(function: Callable[..., Any], jobs: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        try:
            with _interrupts_held():
                futures = {executor.submit(_call, cloudpickle.dumps((function, job))): j for j, job in enumerate(jobs)}
            for future in as_completed(futures):
                yield futures[future], cloudpickle.loads(future.result())
        except BrokenProcessPool:
            if started.is_set():
                why = "a worker process was killed, perhaps for want of memory: give fewer workers"
            else:
                why = (
                    "worker processes did not start: a script that asks for more than one has to do its work under "
                    '`if __name__ == "__main__":`; add that, or give workers=1'
                )
            raise StatedError(why) from None

    with executor:
        try:
            yield run
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:  # whose jobs may take minutes yet
                process.terminate()
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let an interrupt wait, and processes begin without: one that is still importing would answer with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(started: Any, prepare: bytes) -> None:
    import cloudpickle
    import numpy  # noqa: F401  (loads the BLAS whose threads are limited)
    from threadpoolctl import threadpool_limits

    from bayes_icl.core.home import spare_home

    # An interrupt from the keyboard reaches all processes: the parent answers it, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    started.set()
    spare_home()
    threadpool_limits(1, user_api="blas")
    if given := cloudpickle.loads(prepare):
        function, *arguments = given
        function(*arguments)


def _end_with_parent() -> None:
    """Leave no process behind when the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(FAILED)


def _call(job: bytes) -> bytes:
    import cloudpickle

    function, arguments = cloudpickle.loads(job)
    return cloudpickle.dumps(function(*arguments))
