"""What an engine counts for a server's monitoring: inferences, and latencies as a histogram."""

from typing import Any

from engine_format.forking import ForkSafeLock

BOUNDS_MS = tuple(round(base * 10.0**power, 6) for power in range(-2, 4) for base in (1, 2, 5))
"""Upper bounds of the histogram's buckets, 0.01 ms to 5000 ms; one more bucket is for what takes longer."""


class Stats:
    """Counters of one engine, over all its contexts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._buckets = [0] * (len(BOUNDS_MS) + 1)
        self._sum_ms = 0.0
        self._counters = {"inferences": 0, "failures": 0}

    def count(self, name: str) -> None:
        """Adds one to a counter."""
        with self._lock:
            self._counters[name] += 1

    def add_latency(self, ms: float) -> None:
        """One more inference, from its call to its result."""
        bucket = next((i for i, bound in enumerate(BOUNDS_MS) if ms <= bound), len(BOUNDS_MS))
        with self._lock:
            self._counters["inferences"] += 1
            self._buckets[bucket] += 1
            self._sum_ms += ms

    def snapshot(self) -> dict[str, Any]:
        """The counters, and the histogram as counts of inferences by the bucket's upper bound in ms (``inf`` the last)."""
        with self._lock:
            counts = dict(zip([*(f"{b:g}" for b in BOUNDS_MS), "inf"], self._buckets, strict=True))
            return {**self._counters, "latency_ms_sum": self._sum_ms, "latency_ms": {k: n for k, n in counts.items() if n}}
