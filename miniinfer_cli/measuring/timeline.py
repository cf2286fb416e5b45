"""What each of a few inferences did when: on the host, in copies, on the device; all on the host's clock.

They are further inferences behind the measured ones, run in the same way: being watched costs the measured ones nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from miniinfer_cli.backends.interface import Clock, Pending
from miniinfer_cli.measuring.benchmark import Progress, Schedule, unwatched, warm_up
from miniinfer_cli.measuring.streams import Lane, on_streams
from miniinfer_cli.runtime.engine import Engine

INFERENCES = 10  # of each stream, at most
_LEAST = 3
_WARM = 2  # for each of a context's slots: libraries load what they need in the first, the second captures
_MOST_S = 1.0  # after which no more begin, but for the least


class Track(StrEnum):
    """Where something happens."""

    HOST = "host"
    """The thread that calls."""
    COPY_IN = "H2D"
    """Copies of inputs to the device."""
    COMPUTE = "compute"
    COPY_OUT = "D2H"
    """Copies of outputs to the host."""
    NODES = "nodes"
    """On a GPU, the steps of one more inference, which is timed step by step."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time: ``name``, on a track of a stream, for the inference of this number (of its stream, from 0 on).

    ``begin_us``: microseconds since the timeline began. ``node``: which step of the program it is, where it is one.
    """

    stream: int
    track: Track
    name: str
    inference: int
    begin_us: float
    length_us: float
    node: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The span with stable keys."""
        return {
            "stream": self.stream,
            "track": str(self.track),
            "name": self.name,
            "inference": self.inference,
            "begin_us": self.begin_us,
            "length_us": self.length_us,
            "node": self.node,
        }


@dataclass(frozen=True, slots=True)
class Timeline:
    """Spans by stream, then by begin. ``clock_error_us``: how far the device's tracks may be off beside the host's."""

    spans: tuple[Span, ...]
    clock_error_us: float

    def to_json(self) -> dict[str, Any]:
        """The timeline with stable keys."""
        return {"clock_error_us": round(self.clock_error_us, 3), "spans": [s.to_json() for s in self.spans]}


def record_timeline(
    engine: Engine, arrays: Sequence[Any], schedule: Schedule, *, streams: int = 1, progress: Progress = unwatched
) -> Timeline:
    """The timeline of up to INFERENCES inferences of ``arrays`` (checked, in binding order) on each of ``streams`` contexts.

    On a CPU with every step of the program; on a GPU the first stream does one more, timed step by step. ``progress`` is called
    with ``timeline`` and the number of inferences begun by the first stream. An error in any stream ends all and is raised.
    """
    on_gpu = engine.device != "cpu"
    labels = tuple(step.label for step in engine.program(list(arrays)).steps)

    def work(lane: Lane) -> tuple[list[Span], Clock]:
        told = (lambda done: progress("timeline", done)) if lane.number == 0 else (lambda done: None)
        warm_up(lane.context, arrays, replace(schedule, warmup_ms=0), unwatched, lane.stop, queues=on_gpu)
        clock = lane.context.set_clock()
        lane.ready()
        spans = _on_gpu(lane, arrays, schedule, clock, told) if on_gpu else _on_cpu(lane, arrays, labels, told)
        if on_gpu and lane.number == 0:
            spans += _nodes(lane, arrays, labels)
        return spans, clock

    recorded = on_streams(engine, streams, work)
    error_us = max(clock.error_ns for _, clock in recorded) / 1e3
    return Timeline(_in_order([s for found, _ in recorded for s in found]), error_us)


def _in_order(spans: Sequence[Span]) -> tuple[Span, ...]:
    """From 0 on, to the nanosecond. What follows on a track begins where the last has ended, at the soonest.

    Events on a device are told by floats of 32 bits: the second of two neighbours may seem to begin before the first has ended.
    """
    start = min((s.begin_us for s in spans), default=0.0)
    ended: dict[tuple[int, Track], float] = {}
    ordered = []
    for span in sorted(spans, key=lambda s: (s.stream, s.begin_us, s.length_us)):
        place = (span.stream, span.track)
        begin = max(round(span.begin_us - start, 3), ended.get(place, 0.0))
        ended[place] = end = max(round(span.begin_us - start + span.length_us, 3), begin)
        ordered.append(replace(span, begin_us=begin, length_us=round(end - begin, 3)))
    return tuple(ordered)


def _goes_on(lane: Lane) -> Callable[[int], bool]:
    until = time.perf_counter() + _MOST_S
    return lambda done: done < INFERENCES and (done < _LEAST or time.perf_counter() < until) and not lane.stop.is_set()


def _on_gpu(lane: Lane, arrays: Sequence[Any], schedule: Schedule, clock: Clock, told: Callable[[int], None]) -> list[Span]:
    """As many under way as the context takes, as measuring has it."""
    spans: list[Span] = []
    under_way: deque[tuple[int, Pending]] = deque()
    goes_on, number = _goes_on(lane), 0

    def end_oldest() -> None:
        inference, pending = under_way.popleft()
        began = time.perf_counter_ns()
        pending.result()
        spans.append(_span(lane.number, Track.HOST, "wait", inference, began, time.perf_counter_ns()))
        for track, interval in zip((Track.COPY_IN, Track.COMPUTE, Track.COPY_OUT), pending.intervals_ms or (), strict=False):
            if interval is not None:
                begin, end = (clock.host_ns + t * 1e6 for t in interval)
                spans.append(_span(lane.number, track, _NAMES[track], inference, begin, end))

    while goes_on(number):
        told(number)
        if len(under_way) >= lane.context.depth:
            end_oldest()
        began = time.perf_counter_ns()
        under_way.append((number, lane.context.start(list(arrays), timed=True, transfers=schedule.transfers)))
        spans.append(_span(lane.number, Track.HOST, "enqueue", number, began, time.perf_counter_ns()))
        number += 1
    while under_way:
        end_oldest()
    return spans


_NAMES = {Track.COPY_IN: "copy inputs", Track.COMPUTE: "compute", Track.COPY_OUT: "copy outputs"}


def _on_cpu(lane: Lane, arrays: Sequence[Any], labels: Sequence[str], told: Callable[[int], None]) -> list[Span]:
    """The steps lie in the call, one behind the other."""
    spans: list[Span] = []
    goes_on, number = _goes_on(lane), 0
    while goes_on(number):
        told(number)
        spans += _stepwise(lane, arrays, labels, number, "run", Track.COMPUTE)
        number += 1
    return spans


def _nodes(lane: Lane, arrays: Sequence[Any], labels: Sequence[str]) -> list[Span]:
    """An inference step by step, behind some that make ready for it: where on the host's clock they lie, nobody knows."""
    for _ in range(_WARM * lane.context.depth):
        lane.context.time_steps(list(arrays))
    return _stepwise(lane, arrays, labels, INFERENCES, "time nodes", Track.NODES)


def _stepwise(lane: Lane, arrays: Sequence[Any], labels: Sequence[str], number: int, name: str, track: Track) -> list[Span]:
    """The call of one inference that is timed step by step, and its steps: from the call's begin on, where no host saw them."""
    began = time.perf_counter_ns()
    timed = lane.context.time_steps(list(arrays))
    spans = [_span(lane.number, Track.HOST, name, number, began, time.perf_counter_ns())]
    at: float = timed.begin_ns or began
    gaps = timed.gaps_ns or [0] * len(labels)
    for node, (label, gap, took) in enumerate(zip(labels, gaps, timed.steps_ns, strict=True)):
        spans.append(_span(lane.number, track, label, number, at + gap, at + gap + took, node))
        at += gap + took
    return spans


def _span(stream: int, track: Track, name: str, number: int, begin_ns: float, end_ns: float, node: int | None = None) -> Span:
    return Span(stream, track, name, number, begin_ns / 1e3, (end_ns - begin_ns) / 1e3, node)
