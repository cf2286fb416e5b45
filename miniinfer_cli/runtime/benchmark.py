"""The measuring loop of ``run`` and ``profile``: warm-up, then at least so many inferences and so many seconds."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.runtime.engine import Context, Engine
from miniinfer_cli.runtime.metrics import Samples


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to measure: warm up for ``warmup_ms``, then at least ``iterations`` inferences and ``duration_s`` seconds."""

    iterations: int = 10
    warmup_ms: float = 200.0
    duration_s: float = 3.0


def measure(
    engine: Engine,
    arrays: Sequence[Any],
    schedule: Schedule,
    *,
    streams: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Samples:
    """Runs ``arrays`` (checked inputs in binding order) over and over on ``streams`` contexts, each in its own thread.

    ``iterations`` and ``duration_s`` hold for each stream. ``progress`` is called with the inferences done by the first.
    An error in any stream ends all of them and is raised.
    """
    if streams == 1:
        with engine.create_context() as context:
            _warm_up(context, arrays, schedule.warmup_ms, threading.Event())
            started = time.perf_counter_ns()
            latency, end_to_end = _loop(context, arrays, schedule, progress, threading.Event())
            walltime = time.perf_counter_ns() - started
        return Samples(tuple(latency), tuple(end_to_end), walltime / 1e9)
    return _measure_streams(engine, arrays, schedule, streams, progress)


def _measure_streams(
    engine: Engine, arrays: Sequence[Any], schedule: Schedule, streams: int, progress: Callable[[int], None] | None
) -> Samples:
    results: list[tuple[list[float], list[float]]] = [([], []) for _ in range(streams)]
    errors: list[BaseException] = []
    stop = threading.Event()
    spans: list[tuple[int, int]] = []
    ready = threading.Barrier(streams)

    def work(number: int) -> None:
        try:
            with engine.create_context() as context:
                _warm_up(context, arrays, schedule.warmup_ms, stop)
                ready.wait()
                started = time.perf_counter_ns()
                results[number] = _loop(context, arrays, schedule, progress if number == 0 else None, stop)
                spans.append((started, time.perf_counter_ns()))
        except threading.BrokenBarrierError:
            pass  # another stream failed first; its error is the one to show
        except BaseException as error:
            errors.append(error)
            stop.set()
            ready.abort()

    threads = [threading.Thread(target=work, args=(n,), name=f"miniinfer-stream-{n}") for n in range(streams)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]
    walltime = max(end for _, end in spans) - min(start for start, _ in spans)
    latency = tuple(t for times, _ in results for t in times)
    return Samples(latency, tuple(t for _, times in results for t in times), walltime / 1e9, streams)


def _warm_up(context: Context, arrays: Sequence[Any], warmup_ms: float, stop: threading.Event) -> None:
    """At least one inference, so that the program exists and every weight has been touched."""
    until = time.perf_counter() + warmup_ms / 1e3
    context.run_arrays(list(arrays))
    while time.perf_counter() < until and not stop.is_set():
        context.run_arrays(list(arrays))


def _loop(
    context: Context,
    arrays: Sequence[Any],
    schedule: Schedule,
    progress: Callable[[int], None] | None,
    stop: threading.Event,
) -> tuple[list[float], list[float]]:
    latency: list[float] = []
    end_to_end: list[float] = []
    until = time.perf_counter() + schedule.duration_s
    while (len(latency) < schedule.iterations or time.perf_counter() < until) and not stop.is_set():
        started = time.perf_counter_ns()
        compute_ns = context.run_timed(list(arrays))[1]
        end_to_end.append((time.perf_counter_ns() - started) / 1e6)
        latency.append(compute_ns / 1e6)
        if progress is not None:
            progress(len(latency))
    return latency, end_to_end
