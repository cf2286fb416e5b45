"""What a batcher counts."""

from collections.abc import Sequence
from typing import Any

from miniinfer_cli.runtime.stats import Histogram
from miniinfer_cli.serving.request import CANCELLED, CLOSED, DEADLINE, ERROR, RESULT

REJECTED = "rejected"
OUTCOMES = (RESULT, ERROR, CANCELLED, DEADLINE, REJECTED, CLOSED)


class Tally:
    """Requests by how they ended, batches, and times. Its users hold a lock."""

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self._batches = 0
        self._requests = 0
        self._rows = 0
        self._padding = 0
        self._queue_s = 0.0
        self._execution_s = 0.0
        self._latencies = Histogram()
        self._by_rows: dict[int, int] = {}

    def count_batch(self, requests: int, rows: int, size: int, seconds: float) -> None:
        """A batch of so many requests and rows was computed with ``size`` rows, in so many seconds."""
        self._batches += 1
        self._requests += requests
        self._rows += rows
        self._padding += size - rows
        self._execution_s += seconds
        self._by_rows[rows] = self._by_rows.get(rows, 0) + 1

    def add_waited(self, seconds: float) -> None:
        """The requests of a batch waited so long together before it began."""
        self._queue_s += seconds

    def add_latencies(self, seconds: Sequence[float]) -> None:
        """Requests had their results so long after they were submitted."""
        for one in seconds:
            self._latencies.add(one * 1e3)

    def snapshot(self) -> dict[str, Any]:
        """All figures; the histogram is of requests with a result, from ``submit`` on, as of an engine's ``stats``."""
        batches = self._batches
        return {
            "requests": dict(self.outcomes),
            "batches": batches,
            "mean_batch": self._rows / batches if batches else 0.0,
            "requests_computed": self._requests,
            "rows": self._rows,
            "batches_by_rows": dict(self._by_rows),
            "rows_of_padding": self._padding,
            "queue_s": self._queue_s,
            "execution_s": self._execution_s,
            "latency_ms_sum": self._latencies.sum_ms,
            "latency_ms": self._latencies.snapshot(),
        }
