"""The worker threads of the CPU backend: splits a range over them while numpy works without the interpreter lock."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np


def worker_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(count: int, body: Callable[[int], None]) -> None:
    """Calls ``body(i)`` for every i below ``count``, on all workers; raises the first error after all have ended."""
    workers = min(worker_count(), count)
    if workers <= 1:
        for i in range(count):
            body(i)
        return

    def share(worker: int) -> None:
        with np.errstate(all="ignore"):  # numpy keeps this setting by thread; a worker has not got the caller's
            for i in range(worker, count, workers):
                body(i)

    others = [_pool().submit(share, w) for w in range(1, workers)]
    try:
        share(0)
    finally:
        errors = [f.exception() for f in others]
    for error in errors:
        if error is not None:
            raise error


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(worker_count() - 1, 1), thread_name_prefix="miniinfer-cpu")
