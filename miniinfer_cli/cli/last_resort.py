"""What ends the process when an inference does not heed its time limit, since one step of it does not return.

A step is a call of a library, which nothing can interrupt; so the command ends, as it would have at the end of the step.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from miniinfer_cli.errors import LimitExceeded
from miniinfer_cli.runtime.engine import Engine

_GRACE_S = 0.5  # in which a step may end by itself, and the place be told


@contextmanager
def last_resort(engine: Engine) -> Iterator[None]:
    """While it lasts, an inference that is overdue ends the process with the exit code for that."""
    limit = engine.allowance.time_s
    if limit is None:
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(engine, limit, ended), name="miniinfer-time-limit", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()


def _watch(engine: Engine, limit: float, ended: threading.Event) -> None:
    grace = max(_GRACE_S, limit / 10)
    while not ended.wait(min(max(grace - engine.overdue_s(), 0.01), grace)):
        if engine.overdue_s() >= grace and not ended.is_set():
            fault = LimitExceeded(
                f"one step of the inference goes on beyond its time limit of {limit:g} s",
                hint="give it more by --time-limit, or run smaller shapes",
            )
            sys.stdout.flush()
            print(f"miniinfer: error: {fault.in_flags()}", file=sys.stderr, flush=True)
            os._exit(LimitExceeded.exit_code)  # the thread that computes cannot be told
