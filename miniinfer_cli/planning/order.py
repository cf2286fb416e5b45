"""Which steps come before which, and the stretch of them over which a buffer is used."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class PartialOrder:
    """Steps in lanes: those of one lane come one after the other, as they are numbered.

    ``lanes`` has the lane of each step, ``waits`` the steps in front of each that it comes after besides. The numbers of steps in
    different lanes say nothing about which comes first.
    """

    lanes: tuple[int, ...]
    waits: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Raises ValueError for a step that waits for itself or a later one."""
        for number, (_, waits) in enumerate(zip(self.lanes, self.waits, strict=True)):
            if any(not 0 <= w < number for w in waits):
                raise ValueError(f"step {number} waits for {waits}, of which some are not in front of it")

    def precedes(self, one: int, other: int) -> bool:
        """True when step ``one`` has ended before ``other`` begins."""
        return bool(self._places[one] < self.clocks[other, self.lanes[one]])

    @cached_property
    def clocks(self) -> Positions:
        """``[steps + 1, lanes]``: how many steps of each lane come before a step; the last row is the end's."""
        clocks = np.zeros((len(self.lanes) + 1, self._count), np.int64)
        latest: dict[int, int] = {}
        for number, (lane, waits) in enumerate(zip(self.lanes, self.waits, strict=True)):
            for earlier in (*waits, *([latest[lane]] if lane in latest else [])):
                np.maximum(clocks[number], clocks[earlier], out=clocks[number])
                of = self.lanes[earlier]
                clocks[number, of] = max(clocks[number, of], self._places[earlier] + 1)
            latest[lane] = number
        clocks[-1] = np.bincount(np.array(self.lanes, np.int64), minlength=self._count)
        return clocks

    def reached(self, steps: Collection[int]) -> Positions:
        """``[lanes]``: the place of the last of ``steps`` in each lane, -1 where there is none.

        ``len(lanes)`` is the end of all, which nothing comes after.
        """
        if len(self.lanes) in steps:
            return np.full(self._count, len(self.lanes) + 1, np.int64)
        last = np.full(self._count, -1, np.int64)
        for number in steps:
            lane = self.lanes[number]
            last[lane] = max(last[lane], self._places[number])
        return last

    def begun(self, steps: Collection[int]) -> Positions:
        """``[lanes]``: how many steps of each lane come before all of ``steps``."""
        found: Positions = self.clocks[list(steps)].min(axis=0)
        return found

    @cached_property
    def _count(self) -> int:
        return max(self.lanes, default=0) + 1

    @cached_property
    def _places(self) -> tuple[int, ...]:
        """The place of each step in its lane."""
        taken = [0] * self._count
        places = []
        for lane in self.lanes:
            places.append(taken[lane])
            taken[lane] += 1
        return tuple(places)


def list_order(count: int) -> PartialOrder:
    """Each of ``count`` steps after the one in front of it."""
    return PartialOrder((0,) * count, ((),) * count)
