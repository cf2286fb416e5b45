"""The performance summary: distributions over inferences, and the rows of ``run`` and ``profile``.

Percentiles are by nearest rank, without interpolation; the median is the middle, of an even count the mean of the two in the
middle. Times are milliseconds unless the name says otherwise.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DEFAULT_PERCENTILES = (90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Figures of one row over all measured inferences, in ms. ``percentiles`` pairs a percentage with its time."""

    minimum: float
    maximum: float
    mean: float
    median: float
    percentiles: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, float]:
        """Keys ``min max mean median`` and ``p90`` ... in ms."""
        named = {f"p{percent:g}": value for percent, value in self.percentiles}
        return {"min": self.minimum, "max": self.maximum, "mean": self.mean, "median": self.median, **named}


def distribution(times_ms: Sequence[float], percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> Distribution:
    """The distribution of at least one time. Raises ValueError for none, or for a percentage outside (0, 100]."""
    if not times_ms:
        raise ValueError("a distribution needs at least one time")
    ordered = sorted(times_ms)
    return Distribution(
        ordered[0],
        ordered[-1],
        statistics.fmean(ordered),
        statistics.median(ordered),
        tuple((p, nearest_rank(ordered, p)) for p in percentiles),
    )


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the sorted values such that at least ``percent`` of them are no larger."""
    if not 0 < percent <= 100:
        raise ValueError(f"percentile {percent:g} is outside (0, 100]")
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


@dataclass(frozen=True, slots=True)
class Samples:
    """What a measurement recorded, in milliseconds and in order of completion.

    ``latency_ms``: copies in, computation and copies out of one inference. ``end_to_end_ms``: from the call to the result in
    the caller's hands. ``walltime_s``: from the first call after warm-up to the last completion, over all streams. The rest
    is of devices with copies or queues: times by events on the device, and the host's time to enqueue one inference (of
    further ones, without events); empty where there is none, or where transfers were left out. ``captured``: inferences were
    replays of a CUDA graph. ``started_ms``: when the call of each inference began, from the first one after warm-up.
    ``streams``: all of them, on ``devices`` devices.
    """

    latency_ms: tuple[float, ...]
    end_to_end_ms: tuple[float, ...]
    walltime_s: float
    streams: int = 1
    compute_ms: tuple[float, ...] = ()
    copies_in_ms: tuple[float, ...] = ()
    copies_out_ms: tuple[float, ...] = ()
    enqueue_ms: tuple[float, ...] = ()
    captured: bool = False
    started_ms: tuple[float, ...] = ()
    devices: int = 1

    @property
    def sharing(self) -> int:
        """Streams that share a device."""
        return self.streams // self.devices


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows of the performance summary. ``rows`` are those of a device with copies and queues, by name; empty on a CPU.

    ``sharing``: of the streams, those that share a device.
    """

    iterations: int
    batch: int | None
    streams: int
    throughput_qps: float
    latency: Distribution
    end_to_end: Distribution
    walltime_s: float
    compute_s: float
    hints: tuple[str, ...]
    rows: Mapping[str, Distribution] = field(default_factory=dict)
    sharing: int = 1

    def to_json(self) -> dict[str, Any]:
        """The summary with stable keys; every time is in ms, unless its key ends in ``_s``."""
        return {
            "iterations": self.iterations,
            "streams": self.streams,
            "throughput_qps": self.throughput_qps,
            "samples_per_second": None if self.batch is None else self.throughput_qps * self.batch,
            "latency_ms": self.latency.to_json(),
            "end_to_end_latency_ms": self.end_to_end.to_json(),
            **{_KEYS[name]: row.to_json() for name, row in self.rows.items()},
            "total_host_walltime_s": self.walltime_s,
            "total_compute_time_s": self.compute_s,
            "hints": list(self.hints),
        }


_KEYS = {
    "Enqueue time": "enqueue_time_ms",
    "H2D latency": "h2d_latency_ms",
    "GPU compute time": "gpu_compute_time_ms",
    "D2H latency": "d2h_latency_ms",
}


def summarize(samples: Samples, batch: int | None, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> Summary:
    """The summary of at least one inference. ``batch`` is the leading size of the inputs, where they agree on one."""
    latency = distribution(samples.latency_ms, percentiles)
    recorded = dict(
        zip(_KEYS, (samples.enqueue_ms, samples.copies_in_ms, samples.compute_ms, samples.copies_out_ms), strict=True)
    )
    rows = {name: distribution(times, percentiles) for name, times in recorded.items() if times}
    return Summary(
        iterations=len(samples.latency_ms),
        batch=batch,
        streams=samples.streams,
        throughput_qps=len(samples.latency_ms) / samples.walltime_s,
        latency=latency,
        end_to_end=distribution(samples.end_to_end_ms, percentiles),
        walltime_s=samples.walltime_s,
        compute_s=sum(samples.compute_ms or samples.latency_ms) / 1e3,
        hints=_hints(samples, rows.get("GPU compute time", latency), rows),
        rows=rows,
        sharing=samples.sharing,
    )


_UNSTABLE = 0.025  # spread of compute times, as a part of the mean, from which the figures deserve a warning


_LAUNCH_BOUND = 0.8  # enqueue time as a part of compute time


def _hints(samples: Samples, compute: Distribution, rows: Mapping[str, Distribution]) -> tuple[str, ...]:
    hints = []
    enqueue = rows.get("Enqueue time")
    if enqueue is not None and enqueue.median > _LAUNCH_BOUND * compute.median:
        hints.append(
            f"launch-bound: enqueuing takes {enqueue.median:.4f} ms, computing {compute.median:.4f} ms;"
            f" {_less_enqueuing(samples)}"
        )
    for name, what in (("H2D latency", "copying the inputs"), ("D2H latency", "copying the outputs")):
        row = rows.get(name)
        if row is not None and row.median >= compute.median:
            hints.append(f"transfer-bound: {what} takes {row.median:.4f} ms, computing {compute.median:.4f} ms")
    times = samples.compute_ms or samples.latency_ms
    if len(times) > 1 and samples.sharing == 1:  # streams that share a device unsettle each other
        spread = statistics.pstdev(times) / max(compute.mean, 1e-9)
        if spread > _UNSTABLE:
            hints.append(
                f"compute time varies by {spread * 100:.1f} % of its mean of {compute.mean:.3f} ms (more than"
                f" {_UNSTABLE * 100:g} %): the clock is unsteady, or other work shares this machine"
            )
    if samples.sharing > 1:
        hints.append(
            f"{samples.sharing} streams run at once: a latency of {compute.median:.3f} ms includes waiting for the others;"
            f" look at the throughput"
        )
    return tuple(hints)


def _less_enqueuing(samples: Samples) -> str:
    if samples.streams > 1:
        return "the streams of one process enqueue in turn: use fewer of them, or a larger batch"
    return "use a larger batch" if samples.captured else "use the CUDA graph, or a larger batch"
