"""The performance summary: distributions over inferences, and the rows of ``run`` and ``profile``.

Percentiles are by nearest rank, without interpolation. Times are milliseconds unless the name says otherwise.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
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
        nearest_rank(ordered, 50.0),
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

    ``latency_ms``: computing one inference on the device. ``end_to_end_ms``: from the call to the result in the caller's
    hands. ``walltime_s``: from the first call after warm-up to the last completion, over all streams.
    """

    latency_ms: tuple[float, ...]
    end_to_end_ms: tuple[float, ...]
    walltime_s: float
    streams: int = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows of the performance summary for a device without copies or queues (a CPU)."""

    iterations: int
    batch: int | None
    streams: int
    throughput_qps: float
    latency: Distribution
    end_to_end: Distribution
    walltime_s: float
    compute_s: float
    hints: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The summary with stable keys; every time is in ms, unless its key ends in ``_s``."""
        return {
            "iterations": self.iterations,
            "streams": self.streams,
            "throughput_qps": self.throughput_qps,
            "samples_per_second": None if self.batch is None else self.throughput_qps * self.batch,
            "latency_ms": self.latency.to_json(),
            "end_to_end_latency_ms": self.end_to_end.to_json(),
            "total_host_walltime_s": self.walltime_s,
            "total_compute_time_s": self.compute_s,
            "hints": list(self.hints),
        }


def summarize(samples: Samples, batch: int | None, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> Summary:
    """The summary of at least one inference. ``batch`` is the leading size of the inputs, where they agree on one."""
    latency = distribution(samples.latency_ms, percentiles)
    return Summary(
        iterations=len(samples.latency_ms),
        batch=batch,
        streams=samples.streams,
        throughput_qps=len(samples.latency_ms) / samples.walltime_s,
        latency=latency,
        end_to_end=distribution(samples.end_to_end_ms, percentiles),
        walltime_s=samples.walltime_s,
        compute_s=sum(samples.latency_ms) / 1e3,
        hints=_hints(samples, latency),
    )


_UNSTABLE = 0.025  # spread of compute times, as a part of the mean, from which the figures deserve a warning


def _hints(samples: Samples, latency: Distribution) -> tuple[str, ...]:
    hints = []
    if len(samples.latency_ms) > 1:
        spread = statistics.pstdev(samples.latency_ms) / latency.mean
        if spread > _UNSTABLE:
            hints.append(
                f"compute time varies by {spread * 100:.1f} % of its mean of {latency.mean:.3f} ms (more than"
                f" {_UNSTABLE * 100:g} %): the clock is unsteady, or other work shares this machine"
            )
    if samples.streams > 1:
        hints.append(
            f"{samples.streams} streams run at once: a latency of {latency.median:.3f} ms includes waiting for the others;"
            f" look at the throughput"
        )
    return tuple(hints)
