"""What a server counts of one plan: requests by how they ended, and their times. One thread alone adds to it."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

OUTCOMES = ("result", "invalid", "error", "rejected", "deadline", "cancelled", "closed")
RESULT, INVALID, ERROR, REJECTED, DEADLINE, CANCELLED, CLOSED = OUTCOMES
BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of the buckets of times, in seconds."""


class BatchTotals:
    """Of Batchers, summed up; ``by_rows``: how many batches there were of so many rows; ``phases_s``: see ``PHASES``."""

    def __init__(self) -> None:
        self.batches = 0
        self.rows = 0
        self.execution_s = 0.0
        self.queued = 0
        self.running = 0
        self.by_rows: Counter[int] = Counter()
        self.phases_s: Counter[str] = Counter()

    def add(self, stats: Mapping[str, Any]) -> None:
        """The stats of one more Batcher."""
        self.batches += stats["batches"]
        self.rows += stats["rows"]
        self.execution_s += stats["execution_s"]
        self.queued += stats["queued"]
        self.running += stats["running"]
        self.by_rows.update(stats["batches_by_rows"])
        self.phases_s.update(stats["phases_s"])

    def join(self, other: "BatchTotals") -> None:
        """What others computed."""
        self.batches += other.batches
        self.rows += other.rows
        self.execution_s += other.execution_s
        self.by_rows.update(other.by_rows)
        self.phases_s.update(other.phases_s)


class Times:
    """A histogram of seconds, by BOUNDS_S and one more bucket."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def join(self, other: "Times") -> None:
        """What others took."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.sum_s += other.sum_s


class Figures:
    """Of all requests that were answered under one name. ``request_s``: from the head of a request to its answer.

    ``queue_s`` and ``execution_s`` are of requests with a result: until their batch began, and from then on; ``answer_s``, within
    the latter, is from their result on.
    """

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.reloads = {"result": 0, "error": 0}
        self.request_s = Times()
        self.queue_s = Times()
        self.execution_s = Times()
        self.answer_s = Times()
        self._retired = BatchTotals()

    def take_over(self, others: Iterable["Figures"]) -> None:
        """In the place of its own, the sums of what others counted of requests."""
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.request_s, self.queue_s, self.execution_s, self.answer_s = Times(), Times(), Times(), Times()
        for other in others:
            for outcome, count in other.outcomes.items():
                self.outcomes[outcome] += count
            self.request_s.join(other.request_s)
            self.queue_s.join(other.queue_s)
            self.execution_s.join(other.execution_s)
            self.answer_s.join(other.answer_s)

    def retire(self, stats: Mapping[str, Any]) -> None:
        """Keeps what a Batcher counted that was closed."""
        self._retired.add(stats)

    def totals(self, stats: Iterable[Mapping[str, Any]]) -> BatchTotals:
        """Of all Batchers so far; ``stats``: of those at work."""
        totals = BatchTotals()
        totals.join(self._retired)
        for one in stats:
            totals.add(one)
        return totals
