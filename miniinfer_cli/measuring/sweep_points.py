"""The settings of a sweep, and what measuring them gave."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """How many contexts run at once, and the batch of each inference."""

    streams: int
    batch: int

    @property
    def load(self) -> int:
        """Samples that are computed at once."""
        return self.streams * self.batch

    def holds(self, other: "Setting") -> bool:
        """Whether it is as large as the other in both numbers."""
        return self.streams >= other.streams and self.batch >= other.batch


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement of a setting: samples a second, percentiles of an inference's latency; ``more`` is for who reports."""

    throughput: float
    p50_ms: float
    p99_ms: float
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a setting could not be measured: it, and every larger one, is too large."""

    why: str


@dataclass(frozen=True, slots=True)
class Point:
    """A setting with all its readings: the mean of their throughput (samples a second), the medians of their percentiles."""

    setting: Setting
    readings: tuple[Reading, ...]
    throughput: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, setting: Setting, readings: Sequence[Reading]) -> "Point":
        """By at least one reading."""
        p50, p99 = (statistics.median(times) for times in ([r.p50_ms for r in readings], [r.p99_ms for r in readings]))
        return cls(setting, tuple(readings), statistics.fmean(r.throughput for r in readings), p50, p99)
