"""Times of steps: events between them, within a graph that is captured for nothing else."""

import contextlib
import statistics
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from miniinfer_cli.backends.cuda.contexts.running import Runner
from miniinfer_cli.backends.cuda.contract.program import HostStep
from miniinfer_cli.backends.cuda.contract.protocols import Captured, Device, Event, Stream
from miniinfer_cli.backends.cuda.hosting.hosting import HostValues
from miniinfer_cli.backends.cuda.scheduling.bound_program import BoundProgram, Call, Segment
from miniinfer_cli.backends.interface import StepRound, TimedBy

_IDLE = 5
"""Events behind the last step, with nothing between them: what passes there is what an event takes."""


def time_steps(device: Device, runner: Runner, binding: BoundProgram, values: HostValues) -> StepRound:
    """One inference, timed step by step.

    The steps of a segment are captured with events between them, so that none waits for the host to enqueue it. Kernels that may
    begin before the end of those in front of them do not: an event is in between. Where inferences run without graphs, the
    steps are enqueued once more, one by one, and what passes beyond the step itself is the gap in front of it.
    """
    stream = runner.stream
    in_order: list[float] = []
    gaps: list[float] | None = None
    event_ns = 0.0
    cold = False
    for segment in binding.segments:
        if isinstance(segment, HostStep):
            stream.synchronize()  # what came before is not its own
            started = time.perf_counter_ns()
            values.run(segment)
            stream.synchronize()
            in_order.append(time.perf_counter_ns() - started)
            continue
        timing = _timing_of(device, runner, segment)
        if timing is None:
            cold = True
            in_order += enqueued_ns(device, stream, segment)[0]
            segment.warm = True
            continue
        stream.launch_graph(timing.graph)
        stream.synchronize()
        taken, event_ns = timing.taken_ns()
        in_order += taken
        if binding.alone is not None and not runner.cuda_graph:
            passed, recording = enqueued_ns(device, stream, segment)
            gaps = [max(p - r - t, 0.0) for p, r, t in zip(passed, recording, taken, strict=True)]
    values.fetch_outputs()
    stream.synchronize()
    if binding.alone is None:
        return StepRound(TimedBy.PIECES, in_order, event_ns=event_ns)
    way = TimedBy.STREAM if cold or gaps is not None else TimedBy.REPLAY
    return StepRound(way, in_order, gaps, event_ns=event_ns)


class SegmentTiming:
    """A segment as a graph with an event in front of each step that does something, and some behind the last. Owns all of it."""

    def __init__(self, graph: Captured, events: Sequence[Event], working: Sequence[bool]) -> None:
        self.graph = graph
        self._events = events
        self._working = working

    def taken_ns(self) -> tuple[list[float], float]:
        """Nanoseconds of each step in the last launch, which has ended, less an event's with no work around it; and these."""
        passed = _between_ns(self._events)
        idle = statistics.median(passed[-_IDLE:])
        return _spread([max(ns - idle, 0.0) for ns in passed[:-_IDLE]], self._working), idle

    def close(self) -> None:
        """Gives graph and events back; may be called twice."""
        with contextlib.ExitStack() as stack:
            for event in self._events:
                stack.callback(event.close)
            stack.callback(self.graph.close)


def enqueued_ns(device: Device, stream: Stream, segment: Segment) -> tuple[list[float], list[float]]:
    """Nanoseconds from the end of one step to that of the next, while the host enqueues them one by one; waits for them.

    And what the host took meanwhile to record the event behind each, which it does for the times alone.
    """
    working = [bool(calls) for calls in segment.alone]
    with contextlib.ExitStack() as stack:
        events = [stack.enter_context(device.create_event(timing=True)) for _ in range(sum(working) + 1)]
        marks = iter(events)
        stream.record(next(marks))
        recording: list[float] = []
        for calls in filter(None, segment.alone):
            for call in calls:
                call()
            started = time.perf_counter_ns()
            stream.record(next(marks))
            recording.append(time.perf_counter_ns() - started)
        stream.synchronize()
        return _spread(_between_ns(events), working), _spread(recording, working)


def _timing_of(device: Device, runner: Runner, segment: Segment) -> SegmentTiming | None:
    """The segment's graph with events, captured at first need; None where it never ran, or a capture failed."""
    if segment.timing is None and segment.warm:
        segment.timing = _captured(device, runner, segment)
    timing = segment.timing
    assert timing is None or isinstance(timing, SegmentTiming)
    return timing


def _captured(device: Device, runner: Runner, segment: Segment) -> SegmentTiming | None:
    working = [bool(calls) for calls in segment.alone]
    with contextlib.ExitStack() as stack:
        events = [stack.enter_context(device.create_event(timing=True)) for _ in range(sum(working) + 1 + _IDLE)]
        marks = iter(events)
        calls: list[Call] = [partial(runner.stream.note, next(marks))]
        for step in filter(None, segment.alone):
            calls += [*step, partial(runner.stream.note, next(marks))]
        calls += [partial(runner.stream.note, event) for event in marks]
        graph = runner.capture(calls, anyway=True)
        if graph is None:
            return None
        stack.pop_all()
        return SegmentTiming(graph, events, working)


def _between_ns(events: Sequence[Event]) -> list[float]:
    return [after.elapsed_ms(before) * 1e6 for before, after in pairwise(events)]


def _spread(times: Sequence[float], working: Sequence[bool]) -> list[float]:
    """The times of the steps that do something, in order, and 0 for the others."""
    given = iter(times)
    return [next(given) if works else 0.0 for works in working]
