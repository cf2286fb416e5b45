"""Requests that wait: in which order, and which of them are computed together when. No threads, and no clock of its own."""

import heapq
import math
import operator
from collections import OrderedDict
from collections.abc import Iterator

from miniinfer_cli.serving.batch_sizes import BatchSizes
from miniinfer_cli.serving.request import BatchedFuture

Key = tuple[tuple[int, ...], ...]

_Line = OrderedDict[BatchedFuture, None]
"""Requests of one priority, in order of arrival."""

_rank = operator.attrgetter("rank")


class Bucket:
    """Requests of one set of shapes, those of each priority in order of arrival."""

    def __init__(self, key: Key, priorities: int) -> None:
        self.key = key
        self.rows = 0
        self._lines: tuple[_Line, ...] = tuple(OrderedDict() for _ in range(priorities))
        self._hurried = math.inf
        """When a request is due that has less time than the others; that it may have gone since costs a batch its size alone."""

    def add(self, request: BatchedFuture, delay_s: float) -> None:
        """One more."""
        self._lines[request.priority][request] = None
        self.rows += request.form.rows
        if request.due < request.arrived + delay_s:
            self._hurried = min(self._hurried, request.due)

    def remove(self, request: BatchedFuture) -> None:
        """One less."""
        del self._lines[request.priority][request]
        self.rows -= request.form.rows

    def due(self) -> float:
        """When its first request is due."""
        first = self._hurried
        for line in self._lines:
            if line:
                first = min(first, next(iter(line)).due)
        return first

    def first(self) -> BatchedFuture:
        """The request to be computed first, of at least one."""
        return next(self._in_order())

    def take(self, sizes: BatchSizes) -> list[BatchedFuture]:
        """Takes out what is computed together: in order, as many as the size holds that fits what waits."""
        room = sizes.fit(self.key, self.rows if self.rows < sizes.most else sizes.most)
        taken: list[BatchedFuture] = []
        for request in self._in_order():
            rows = request.form.rows
            if rows > room:
                if taken:
                    break
                room = sizes.holding(rows)  # the first goes in any case
            room -= rows
            taken.append(request)
        for request in taken:
            self.remove(request)
        if self._hurried < math.inf:
            self._hurried = min((r.due for line in self._lines for r in line), default=math.inf)
        return taken

    def _in_order(self) -> Iterator[BatchedFuture]:
        """All of them, the one to be computed first in front; none may come or go meanwhile."""
        lines = [line for line in self._lines if line]
        return iter(lines[0]) if len(lines) == 1 else heapq.merge(*lines, key=_rank)


class Waiting:
    """All requests that wait, in buckets. Its users hold a lock.

    A request stands as if it had come ``raise_s`` earlier for each level of its priority: its rank. So the order of two requests
    never changes, and nobody who comes later than that by the number of levels goes before.
    """

    def __init__(self, sizes: BatchSizes, priorities: int, delay_s: float, raise_s: float) -> None:
        self.sizes = sizes
        self.delay_s = delay_s
        self.count = 0
        self._priorities = priorities
        self._raise_s = raise_s
        self._buckets: dict[Key, Bucket] = {}

    def add(self, request: BatchedFuture) -> bool:
        """One more; True when its bucket has enough for a batch of the largest size."""
        key = request.form.bucket
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(key, self._priorities)
        request.rank = request.arrived - request.priority * self._raise_s
        bucket.add(request, self.delay_s)
        self.count += 1
        return bucket.rows >= self.sizes.most

    def remove(self, request: BatchedFuture) -> None:
        """One that waits leaves."""
        bucket = self._buckets[request.form.bucket]
        bucket.remove(request)
        self._less(bucket, 1)

    def take(self, now: float, *, all_due: bool = False, ahead: bool = False) -> list[BatchedFuture]:
        """The next batch; empty when no bucket is full and none has a request that is due. ``all_due``: they all have.

        ``ahead``: it would wait for another batch to be computed, so that it is only worth while if it is full.
        """
        ready = [b for b in self._buckets.values() if all_due or b.rows >= self.sizes.most or b.due() <= now]
        if not ready:
            return []
        bucket = ready[0] if len(ready) == 1 else min(ready, key=lambda b: b.first().rank)
        if ahead and bucket.rows < self.sizes.most:
            return []
        taken = bucket.take(self.sizes)
        self._less(bucket, len(taken))
        return taken

    def is_ready(self, now: float) -> bool:
        """Whether ``take`` would give a batch: some bucket is full, or has a request that is due."""
        return any(b.rows >= self.sizes.most or b.due() <= now for b in self._buckets.values())

    def due(self) -> float:
        """When the next request is due; infinite when none waits."""
        return min((b.due() for b in self._buckets.values()), default=math.inf)

    def clear(self) -> list[BatchedFuture]:
        """Takes out all."""
        everything = [r for b in self._buckets.values() for line in b._lines for r in line]
        self._buckets.clear()
        self.count = 0
        return everything

    def _less(self, bucket: Bucket, count: int) -> None:
        self.count -= count
        if not bucket.rows:
            del self._buckets[bucket.key]
