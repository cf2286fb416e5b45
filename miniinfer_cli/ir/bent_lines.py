"""Functions of one whole number that are straight but for bends, as ``max(0, 2*x-5)`` and ``min(x, 8) + 1`` are."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BentLine:
    """``start + slope*x + sum of bends[k] * max(0, x-k)``: how it begins, and by how much it bends at which k.

    For numbers from a least one on (or for all) each such function is written in one way, with bends above the least.
    """

    start: int
    slope: int
    bends: Mapping[int, int]

    def at(self, x: int) -> int:
        """Its value at ``x``."""
        return self.start + self.slope * x + sum(c * max(0, x - k) for k, c in self.bends.items())

    def least(self, low: int | None, high: int | None) -> int | None:
        """The least value from ``low`` to ``high``; None where there is none."""
        if (high is None and self.slope + sum(self.bends.values()) < 0) or (low is None and self.slope > 0):
            return None
        inside = [k for k in self.bends if (low is None or k > low) and (high is None or k < high)]
        ends = [x for x in (low, high) if x is not None]
        return min(map(self.at, [*inside, *ends]), default=self.start)

    def positive_part(self, low: int | None, high: int | None) -> "BentLine":
        """``max(0, f(x))`` for x from ``low`` to ``high``; None for no end."""

        def value(x: int) -> int:
            return max(0, self.at(x))

        places = [k for k in self._places() if (low is None or k > low) and (high is None or k < high)]
        first = low if low is not None else min(places, default=0) - 2
        slope = value(first + 1) - value(first)
        bends = {k: bend for k in places if (bend := value(k + 1) - 2 * value(k) + value(k - 1))}
        return BentLine(value(first) - slope * first, slope, bends)

    def _places(self) -> list[int]:
        """Where the positive part may bend: at the bends, and on both sides of where a piece, drawn on, would cross zero."""
        places = set(self.bends)
        start, slope = self.start, self.slope
        for k in (None, *sorted(self.bends)):
            if k is not None:
                start, slope = start - self.bends[k] * k, slope + self.bends[k]
            if slope:
                places |= {-start // slope, -start // slope + 1}
        return sorted(places)
