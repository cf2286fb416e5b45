"""The measuring loop of ``run`` and ``profile``: warm-up, then at least so many inferences and so many seconds."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from miniinfer_cli.backends.interface import Pending
from miniinfer_cli.measuring.metrics import Samples
from miniinfer_cli.measuring.streams import Lane, on_streams
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.engine import Engine

Progress = Callable[[str, int], None]


def unwatched(stage: str, done: int) -> None:
    """Tells nobody how far the measuring is."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to measure: warm up for ``warmup_ms``, then at least ``iterations`` inferences and ``duration_s`` seconds.

    ``transfers``: every inference copies its inputs to the device and its outputs back.
    """

    iterations: int = 10
    warmup_ms: float = 200.0
    duration_s: float = 3.0
    transfers: bool = True


@dataclass(slots=True)
class _Recorded:
    """What one stream measured, a list item for each inference, in ms but for ``started_ns``.

    ``enqueue`` is of further ones, without events.
    """

    copies_in: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    copies_out: list[float] = field(default_factory=list)
    enqueue: list[float] = field(default_factory=list)
    end_to_end: list[float] = field(default_factory=list)
    started_ns: list[int] = field(default_factory=list)
    span_ns: tuple[int, int] = (0, 0)


def measure(
    engine: Engine,
    arrays: Sequence[Any],
    schedule: Schedule,
    *,
    streams: int = 1,
    progress: Progress = unwatched,
) -> Samples:
    """What ``measure_together`` measures of one engine alone."""
    return measure_together((engine,), arrays, schedule, streams=streams, progress=progress)[0]


def measure_together(
    engines: Sequence[Engine],
    arrays: Sequence[Any],
    schedule: Schedule,
    *,
    streams: int = 1,
    progress: Progress = unwatched,
) -> tuple[Samples, tuple[Samples, ...]]:
    """What all engines come to together, and each of them, while all of them run: engines of one plan on different devices.

    Runs ``arrays`` (checked inputs in binding order) over and over on ``streams`` contexts of each engine, each in a thread.

    ``iterations`` and ``duration_s`` hold for each stream. ``progress`` is called with what is
    being done (``warm-up``, ``inferences``, ``enqueue times``) and the number of inferences in it so far, of the first stream.
    An error in any stream ends all of them and is raised.
    """
    queues = engines[0].device != "cpu"

    def work(lane: Lane) -> tuple[int, _Recorded]:
        return lane.number, _measure_one(lane, arrays, schedule, progress if lane.number == 0 else unwatched, queues)

    recorded = on_streams(engines[0], streams, work, engines[1:])
    captured = [engine.stats().get("cuda_graphs", {}).get("captures", 0) > 0 for engine in engines]

    def samples(of: Sequence[_Recorded], count: int, captured: bool, devices: int = 1) -> Samples:
        return replace(_joined(of, count, captured, queues, schedule.transfers), devices=devices)

    if len(engines) == 1:
        together = samples([r for _, r in recorded], streams, captured[0])
        return together, (together,)
    each = [samples([r for n, r in recorded if n // streams == i], streams, captured[i]) for i in range(len(engines))]
    return samples([r for _, r in recorded], streams * len(engines), all(captured), len(engines)), tuple(each)


def _joined(recorded: Sequence[_Recorded], streams: int, captured: bool, queues: bool, transfers: bool) -> Samples:
    joined = {name: tuple(t for r in recorded for t in getattr(r, name)) for name in _Recorded.__slots__ if name != "span_ns"}
    first_ns = min(r.span_ns[0] for r in recorded)
    walltime_ns = max(r.span_ns[1] for r in recorded) - first_ns
    latency = tuple(map(sum, zip(joined["copies_in"], joined["compute"], joined["copies_out"], strict=True)))
    return Samples(
        latency,
        joined["end_to_end"],
        walltime_ns / 1e9,
        streams,
        compute_ms=joined["compute"] if queues else (),
        copies_in_ms=joined["copies_in"] if queues and transfers else (),
        copies_out_ms=joined["copies_out"] if queues and transfers else (),
        enqueue_ms=joined["enqueue"] if queues else (),
        captured=captured,
        started_ms=tuple((ns - first_ns) / 1e6 for ns in joined["started_ns"]),
    )


def _measure_one(lane: Lane, arrays: Sequence[Any], schedule: Schedule, progress: Progress, queues: bool) -> _Recorded:
    warm_up(lane.context, arrays, schedule, progress, lane.stop, queues=queues)
    lane.ready()
    started = time.perf_counter_ns()
    recorded = _loop(lane.context, arrays, schedule, progress, lane.stop)
    recorded.span_ns = (started, time.perf_counter_ns())
    if queues:
        recorded.enqueue = _enqueue_times(lane.context, arrays, schedule, recorded, progress, lane.stop)
    return recorded


def warm_up(
    context: Context,
    arrays: Sequence[Any],
    schedule: Schedule,
    progress: Progress,
    stop: threading.Event,
    *,
    queues: bool,
) -> None:
    """Enough inferences that the program exists, every weight has been touched, and every slot has captured its graphs.

    At least for as long as the ``schedule`` says, until ``stop``, of ``arrays`` in ``context``, which ``queues`` or does not.
    ``progress`` is called with ``warm-up`` and their number.
    """
    until = time.perf_counter() + schedule.warmup_ms / 1e3
    progress("warm-up", 0)  # the first inference takes longest
    context.run_arrays(list(arrays), commit=False)
    done = 1

    def once(*, timed: bool = True) -> None:
        nonlocal done
        context.start(list(arrays), timed=timed, transfers=schedule.transfers).result()
        done += 1
        progress("warm-up", done)

    # Each slot: what libraries load, the capture with events, a replay; the capture without them, a replay.
    for timed in (True, True, True, False, False) if queues else ():
        for _ in range(context.depth):
            once(timed=timed)
    while time.perf_counter() < until and not stop.is_set():
        once()


def _loop(
    context: Context,
    arrays: Sequence[Any],
    schedule: Schedule,
    progress: Progress,
    stop: threading.Event,
) -> _Recorded:
    recorded = _Recorded()
    until = time.perf_counter() + schedule.duration_s

    def is_going(count: int) -> bool:
        return (count < schedule.iterations or time.perf_counter() < until) and not stop.is_set()

    for started, pending in inferences(context, arrays, is_going, timed=True, transfers=schedule.transfers):
        recorded.started_ns.append(started)
        recorded.end_to_end.append((time.perf_counter_ns() - started) / 1e6)
        copies_in, compute, copies_out = pending.times_ms or (0.0, 0.0, 0.0)
        recorded.copies_in.append(copies_in)
        recorded.compute.append(compute)
        recorded.copies_out.append(copies_out)
        progress("inferences", len(recorded.compute))
    return recorded


def _enqueue_times(
    context: Context,
    arrays: Sequence[Any],
    schedule: Schedule,
    measured: _Recorded,
    progress: Progress,
    stop: threading.Event,
) -> list[float]:
    """The host's time to enqueue one inference, in ms: as many again, or what fits into a tenth of the time, without the events
    around copies and computation, which only measuring needs and which take the host as long as the rest.
    """
    begun, ended = measured.span_ns
    until = time.perf_counter_ns() + (ended - begun) // 10

    def is_going(count: int) -> bool:
        return count < len(measured.compute) and (count < context.depth or time.perf_counter_ns() < until) and not stop.is_set()

    times_ms: list[float] = []
    for _, pending in inferences(context, arrays, is_going, timed=False, transfers=schedule.transfers):
        times_ms.append(pending.enqueue_ns / 1e6)
        progress("enqueue times", len(times_ms))
    return times_ms


def inferences(
    context: Context, arrays: Sequence[Any], is_going: Callable[[int], bool], *, timed: bool, transfers: bool
) -> Iterator[tuple[int, Pending]]:
    """Inferences that have ended, with when they started, as long as ``is_going`` says so of the number started.

    Keeps as many of ``arrays`` under way as the ``context`` takes, and ends the oldest before it starts another. ``timed`` and
    ``transfers`` as ``Context.start`` has them.
    """
    under_way: deque[tuple[int, Pending]] = deque()

    def oldest() -> tuple[int, Pending]:
        started, pending = under_way.popleft()
        pending.result()
        return started, pending

    count = 0
    while is_going(count):
        if len(under_way) >= context.depth:
            yield oldest()
        started = time.perf_counter_ns()
        under_way.append((started, context.start(list(arrays), timed=timed, transfers=transfers)))
        count += 1
    while under_way:
        yield oldest()
