"""Jobs in worker processes, or here."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

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
    """
    from threadpoolctl import threadpool_limits

    if workers == 1:
        with threadpool_limits(1, user_api="blas"):
            yield lambda function, jobs: ((j, function(*job)) for j, job in enumerate(jobs))
        return

    executor = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread
    )  # fork would copy the threads of torch and numba

    def run(function: Callable[..., Any], jobs: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        futures = {executor.submit(function, *job): j for j, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()

    with executor:
        try:
            yield run
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    import numpy  # noqa: F401  (loads the BLAS whose threads are limited)
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
