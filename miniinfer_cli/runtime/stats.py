"""What an engine counts for a server's monitoring: inferences, and latencies as a histogram."""

from bisect import bisect_left
from typing import Any

from engine_format.forking import ForkSafeLock

_FIRST, _LAST = -7, 16
_TO_THE_OCTAVE = 16
BOUNDS_MS = (
    2.0**_FIRST,
    *(2.0**octave * (1 + n / _TO_THE_OCTAVE) for octave in range(_FIRST, _LAST) for n in range(1, _TO_THE_OCTAVE + 1)),
)
"""Upper bounds of the histogram's buckets, 8 us to 65 s: 16 equal ones from each power of two to the next.

So a bound is at most a sixteenth above any latency in its bucket, and so is a percentile that is read off the bounds. One more
bucket is for what takes longer.
"""


class Histogram:
    """Latencies by the buckets of ``BOUNDS_MS``. Whoever shares one between threads holds a lock."""

    def __init__(self) -> None:
        self.sum_ms = 0.0
        self._buckets = [0] * (len(BOUNDS_MS) + 1)

    def add(self, ms: float) -> None:
        """One more latency."""
        self._buckets[bisect_left(BOUNDS_MS, ms)] += 1
        self.sum_ms += ms

    def snapshot(self) -> dict[str, int]:
        """How many there are by their bucket's upper bound in ms, ascending (``inf`` the last), without empty buckets."""
        counts = zip([*(f"{b:.12g}" for b in BOUNDS_MS), "inf"], self._buckets, strict=True)
        return {bound: count for bound, count in counts if count}


class Stats:
    """Counters of one engine, over all its contexts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._latencies = Histogram()
        self._counters = {"inferences": 0, "failures": 0}

    def count(self, name: str) -> None:
        """Adds one to a counter."""
        with self._lock:
            self._counters[name] += 1

    def add_latency(self, ms: float) -> None:
        """One more inference, from its call to its result."""
        with self._lock:
            self._counters["inferences"] += 1
            self._latencies.add(ms)

    def snapshot(self) -> dict[str, Any]:
        """The counters, and the histogram of latencies in ms."""
        with self._lock:
            latencies = self._latencies
            return {**self._counters, "latency_ms_sum": latencies.sum_ms, "latency_ms": latencies.snapshot()}
