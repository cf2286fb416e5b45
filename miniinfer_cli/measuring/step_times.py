"""The time of each step of a program over several inferences, and beside them inferences that are waited for one by one."""

import time
from collections.abc import Sequence
from typing import Any

from miniinfer_cli.backends.interface import StepRound
from miniinfer_cli.measuring.account import Synchronized, summed_up
from miniinfer_cli.measuring.benchmark import Progress, Schedule, unwatched
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.engine import Engine

MOST_SYNCHRONIZED = 1000
SHARE_SYNCHRONIZED = 0.2
"""Of the time that the measuring loop takes."""
_WARM = 3  # turns of each slot: on a GPU libraries load what they need in the first; the second captures


def time_steps(
    engine: Engine, arrays: Sequence[Any], schedule: Schedule, progress: Progress = unwatched
) -> tuple[list[StepRound], Synchronized]:
    """Times every step of the program for ``arrays`` over the schedule's iterations, in program order; and whole inferences.

    These are waited for one by one, behind each round as many as make a thousand in the end, or what fits into a fifth of the
    schedule's time: what changes meanwhile (clocks, other work) changes both. ``progress`` is called with ``nodes`` and the
    number of rounds done.
    """
    rounds: list[StepRound] = []
    with engine.create_context() as steps, engine.create_context() as context:
        whole = _Waiting(context, arrays, schedule.transfers, queues=engine.device != "cpu")
        steps.run_arrays(list(arrays), commit=False)
        for _ in range(_WARM * steps.depth):
            steps.time_steps(list(arrays))
            whole.once()
        whole.forget()
        budget_s = schedule.duration_s * SHARE_SYNCHRONIZED / schedule.iterations
        for done in range(schedule.iterations):
            progress("nodes", done)
            rounds.append(steps.time_steps(list(arrays)))
            until = time.perf_counter() + budget_s
            whole.once()
            while whole.count < MOST_SYNCHRONIZED * (done + 1) // schedule.iterations and time.perf_counter() < until:
                whole.once()
    return rounds, whole.summed_up()


def time_synchronized(engine: Engine, arrays: Sequence[Any], count: int, *, transfers: bool = True) -> Synchronized:
    """``count`` inferences on one context that are waited for one by one."""
    with engine.create_context() as context:
        whole = _Waiting(context, arrays, transfers, queues=engine.device != "cpu")
        for _ in range(_WARM * context.depth):
            whole.once()
        whole.forget()
        for _ in range(count):
            whole.once()
    return whole.summed_up()


class _Waiting:
    """Inferences that are waited for: what each took, in ms."""

    def __init__(self, context: Context, arrays: Sequence[Any], transfers: bool, *, queues: bool) -> None:
        self._context = context
        self._arrays = arrays
        self._transfers = transfers
        self._queues = queues
        self.forget()

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._wall)

    def once(self) -> None:
        """One more: on a GPU one by the host's clock, and one by events, which take the host as long as the rest."""
        started = time.perf_counter_ns()
        pending = self._context.start(list(self._arrays), timed=not self._queues, transfers=self._transfers)
        pending.result()
        self._wall.append((time.perf_counter_ns() - started) / 1e6)
        self._enqueue.append(pending.enqueue_ns / 1e6 if self._queues else 0.0)
        if self._queues:
            pending = self._context.start(list(self._arrays), timed=True, transfers=self._transfers)
            pending.result()
        self._device.append(pending.times_ms or (0.0, 0.0, 0.0))

    def forget(self) -> None:
        """Those so far were to warm up."""
        self._wall: list[float] = []
        self._device: list[tuple[float, float, float]] = []
        self._enqueue: list[float] = []

    def summed_up(self) -> Synchronized:
        """Medians over at least one."""
        return summed_up(self._wall, self._device, self._enqueue)
