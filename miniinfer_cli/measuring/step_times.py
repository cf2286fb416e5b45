"""The time of each step of a program over several inferences, and inferences that are waited for one by one."""

import time
from collections.abc import Sequence
from typing import Any

from miniinfer_cli.backends.interface import StepRound
from miniinfer_cli.measuring.account import Synchronized, summed_up
from miniinfer_cli.measuring.benchmark import Progress, Schedule, unwatched
from miniinfer_cli.runtime.engine import Engine

MOST_SYNCHRONIZED = 1000
_WARM = 2  # rounds: on a GPU libraries load what they need in the first; the second captures
_SHARE = 0.2  # of the time that the measuring loop takes


def time_steps(engine: Engine, arrays: Sequence[Any], iterations: int, progress: Progress = unwatched) -> list[StepRound]:
    """Times every step of the program for ``arrays`` over ``iterations`` inferences, after some to warm up; in program order.

    ``progress`` is called with ``nodes`` and the number of inferences done.
    """
    with engine.create_context() as context:
        context.run_arrays(list(arrays))
        for _ in range(_WARM):
            context.time_steps(list(arrays))
        rounds: list[StepRound] = []
        for done in range(iterations):
            progress("nodes", done)
            rounds.append(context.time_steps(list(arrays)))
    return rounds


def time_synchronized(engine: Engine, arrays: Sequence[Any], schedule: Schedule, progress: Progress = unwatched) -> Synchronized:
    """Inferences on one context that are waited for one by one: a thousand, or what fits into a fifth of the schedule's time.

    There are as many as the schedule's iterations in any case. ``progress`` is called with ``synchronized`` and their number.
    """
    queues = engine.device != "cpu"
    wall: list[float] = []
    device: list[tuple[float, float, float]] = []
    enqueue: list[float] = []
    with engine.create_context() as context:

        def once() -> None:
            started = time.perf_counter_ns()
            pending = context.start(list(arrays), timed=True, transfers=schedule.transfers)
            pending.result()
            wall.append((time.perf_counter_ns() - started) / 1e6)
            device.append(pending.times_ms or (0.0, 0.0, 0.0))
            enqueue.append(pending.enqueue_ns / 1e6 if queues else 0.0)

        for _ in range((_WARM + 1) * context.depth):  # each slot captures its graphs
            once()
        for warming in (wall, device, enqueue):
            warming.clear()
        until = time.perf_counter() + schedule.duration_s * _SHARE
        while len(wall) < MOST_SYNCHRONIZED and (len(wall) < schedule.iterations or time.perf_counter() < until):
            once()
            progress("synchronized", len(wall))
    return summed_up(wall, device, enqueue)
