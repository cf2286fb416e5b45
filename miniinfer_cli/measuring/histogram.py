"""How often a time lies in which range: what a picture of a distribution is drawn from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.measuring.metrics import nearest_rank

_MOST = 80  # ranges
_SHOWN = 99.5  # percent of the times that are within them at least: the longest would make all others one bar


@dataclass(frozen=True, slots=True)
class Histogram:
    """``counts`` of times in ranges of ``width_ms`` from ``from_ms`` on, each without its end; ``beyond`` are longer than all."""

    from_ms: float
    width_ms: float
    counts: tuple[int, ...]
    beyond: int

    def to_json(self) -> dict[str, Any]:
        """The same with stable keys."""
        return {"from_ms": self.from_ms, "width_ms": self.width_ms, "counts": list(self.counts), "beyond": self.beyond}


def histogram(times_ms: Sequence[float]) -> Histogram:
    """The histogram of at least one time, in ms. Raises ValueError for none.

    The width is Freedman and Diaconis': twice the distance of the quartiles over the cube root of the count.
    """
    if not times_ms:
        raise ValueError("a histogram needs at least one time")
    ordered = sorted(times_ms)
    least, last = ordered[0], nearest_rank(ordered, _SHOWN)
    between = nearest_rank(ordered, 75) - nearest_rank(ordered, 25)
    extent = last - least
    width = max(2 * between / len(ordered) ** (1 / 3), extent / _MOST, last * 1e-6, 1e-9)
    counts = [0] * (math.floor(extent / width) + 1)
    beyond = 0
    for time_ms in ordered:
        place = math.floor((time_ms - least) / width)
        if place < len(counts):
            counts[place] += 1
        else:
            beyond += 1
    return Histogram(least, width, tuple(counts), beyond)
