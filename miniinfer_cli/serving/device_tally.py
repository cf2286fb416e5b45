"""A device that batches are computed on: what is under way there, and when that is computed. Its users hold a lock."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from miniinfer_cli.serving.batch_sizes import BatchSizes
from miniinfer_cli.serving.waiting import Key

_AHEAD_S = 4.5e-4  # before a device has computed what it has: in which a batch is taken, put together, enqueued and copied there


class Turn(NamedTuple):
    """A batch of ``size`` rows under way on a device, which is to take so many ``seconds`` of it. ``behind``: another one."""

    bucket: Key
    size: int
    begun: float
    seconds: float
    behind: bool


@dataclass(slots=True, eq=False)
class DeviceTally:
    """How many batches are ``under_way`` on a device, and how many were computed, of so many rows.

    ``in_turn``: it computes one after the other, as a GPU does; then ``turns`` are those under way, and ``free_at`` is when they
    are computed, as far as that is known. ``ended_at``: when the last one was.
    """

    device: str
    under_way: int = 0
    batches: int = 0
    rows: int = 0
    in_turn: bool = False
    free_at: float = 0.0
    ended_at: float = 0.0
    turns: deque[Turn] = field(default_factory=deque)

    def begins_at(self) -> float:
        """When a batch that is not full had better begin: earlier it would wait for the device, where others cannot join it."""
        return self.free_at - _AHEAD_S if self.in_turn and self.under_way else -math.inf

    def begin_turn(self, sizes: BatchSizes, bucket: Key, rows: int, now: float) -> None:
        """A batch of so many rows begins."""
        behind = bool(self.turns)
        size = sizes.holding(rows)
        seconds = sizes.seconds(bucket, size, in_turn=behind)
        self.free_at = (max(self.free_at, now) if behind else now) + seconds
        self.turns.append(Turn(bucket, size, now, seconds, behind))

    def end_turn(self, sizes: BatchSizes, now: float) -> None:
        """The oldest batch has ended."""
        turn = self.turns.popleft()
        if turn.behind:
            sizes.note_in_turn(turn.bucket, turn.size, now - max(self.ended_at, turn.begun))
        self.ended_at = now
        self.free_at = min(self.free_at, now + sum(t.seconds for t in self.turns))
