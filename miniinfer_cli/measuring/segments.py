"""A plan that is measured a little at a time: contexts that stay, and segments of a fraction of a second each."""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from miniinfer_cli.measuring.benchmark import Schedule, inferences, unwatched, warm_up
from miniinfer_cli.runtime.at_once import at_once
from miniinfer_cli.runtime.engine import Engine


@dataclass(frozen=True, slots=True)
class Segment:
    """What one segment measured, in ms. ``time_ms``: one inference of all that were under way, which is what throughput follows.

    It goes by the median of the times between two results of a stream: what interrupts a few of them does not count.
    ``latencies_ms``: copies in, computation and copies out of each inference.
    """

    time_ms: float
    latencies_ms: tuple[float, ...]


class Rig:
    """``streams`` contexts of an engine that run the same checked ``arrays`` (in binding order). Use as a context manager."""

    def __init__(self, engine: Engine, arrays: Sequence[Any], *, streams: int = 1, transfers: bool = True) -> None:
        self._arrays = list(arrays)
        self._transfers = transfers
        self._queues = engine.device != "cpu"
        self._contexts = [engine.create_context() for _ in range(streams)]

    def warm_up(self, seconds: float) -> None:
        """Runs each context until nothing is left to be made, and for so many seconds, shared by all."""
        schedule = Schedule(warmup_ms=1e3 * seconds / len(self._contexts), transfers=self._transfers)
        for context in self._contexts:
            warm_up(context, self._arrays, schedule, unwatched, threading.Event(), queues=self._queues)

    def segment(self, seconds: float) -> Segment:
        """Measures for about so many seconds, at least one inference, on every stream."""
        streams = at_once(len(self._contexts), lambda number, ready, stop: self._stream(number, seconds, ready, stop))
        rate = sum(1 / max(statistics.median(between), 1e-6) for between, _ in streams)
        return Segment(1 / rate, tuple(t for _, latencies in streams for t in latencies))

    def close(self) -> None:
        """Lets the contexts go. May be called twice."""
        for context in self._contexts:
            context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _stream(
        self, number: int, seconds: float, ready: Callable[[], Any], stop: threading.Event
    ) -> tuple[list[float], list[float]]:
        """Milliseconds from result to result, and of each inference, of one stream."""
        context = self._contexts[number]
        ready()
        last = time.perf_counter_ns()
        until = last + seconds * 1e9
        between: list[float] = []
        latencies: list[float] = []

        def is_going(count: int) -> bool:
            return count == 0 or (time.perf_counter_ns() < until and not stop.is_set())

        for _, pending in inferences(context, self._arrays, is_going, timed=True, transfers=self._transfers):
            now = time.perf_counter_ns()
            between.append((now - last) / 1e6)
            last = now
            latencies.append(sum(pending.times_ms or ()))
        return between, latencies
