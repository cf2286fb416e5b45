"""Fresh workers of one side, one after the other, where the other side has run before: they tell how far processes are apart."""

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from miniinfer_cli.comparison.baselines import LEAST_WORKERS, Measurement, unsteadiness
from miniinfer_cli.comparison.workers import Worker
from miniinfer_cli.measuring.conditions import CpuTimes, foreign_cores, is_crowded
from miniinfer_cli.measuring.metrics import distribution

_MOST_WORKERS = 8
_SEGMENTS = 8
_SHORTEST_S = 0.05  # of a segment


@dataclass(slots=True)
class Alone:
    """Times of the workers that nothing disturbed, in ms; ``disturbed``: how many others there were; the time it all took."""

    times_ms: list[float] = field(default_factory=list)
    latencies_ms: list[tuple[float, ...]] = field(default_factory=list)
    disturbed: int = 0
    seconds: float = 0.0
    states: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def measurement(self) -> Measurement:
        """The same as figures of each process."""
        found = [distribution(times) for times in self.latencies_ms]
        unsteady = statistics.median(unsteadiness(d.to_json()) for d in found) if found else 0.0
        return Measurement(self.times_ms, [d.median for d in found], unsteady)


def measure_alone(
    start: Callable[[], Worker],
    budget_s: float,
    *,
    cores: int,
    threads: int,
    on_cpu: bool,
    progress: Callable[[float], None] = lambda part: None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], CpuTimes] = CpuTimes.now,
) -> Alone:
    """Measures eight workers, or as many as there is time for, in ``budget_s`` seconds; not less than tell anything.

    ``start`` starts one. The rest is as ``race`` has it: ``threads`` of an inference on so many ``cores``, ``on_cpu`` or not;
    ``progress`` is told how much is done; ``clock`` and ``now`` tell the time, and how busy processors are.
    """
    found, begun, started = Alone(), clock(), 0
    while len(found.times_ms) < _MOST_WORKERS:
        elapsed = clock() - begun
        if started >= LEAST_WORKERS and elapsed * (1 + 1 / started) > budget_s:
            break
        with closing(start()) as worker:
            (inference_ms,) = worker.ready()
            before, taken_s = now(), worker.cpu_s
            readings = [worker.segment(0, max(_SHORTEST_S, 3e-3 * inference_ms)) for _ in range(_SEGMENTS)]
            foreign = foreign_cores(before, now(), worker.cpu_s - taken_s)
            found.states.append(worker.state())
        started += 1
        if is_crowded(foreign, cores, threads, on_cpu):
            found.disturbed += 1
        else:
            found.times_ms.append(statistics.median(r.time_ms for r in readings))
            found.latencies_ms.append(tuple(t for r in readings for t in r.latencies_ms))
        progress(min(1.0, max(len(found.times_ms) / _MOST_WORKERS, (clock() - begun) / budget_s)))
    found.seconds = clock() - begun
    return found
