"""Memory of results that are handed out, taken once more when nobody holds them any longer."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.reference import own
from miniinfer_cli.ir import Array

_LARGE_NBYTES = 1 << 17  # from which on the C library may ask the system for pages, which cost more than the copy into them


class ResultMemory:
    """Copies of what an inference gives, in the memory of results that the caller has let go of.

    Kept is at most what one inference gives. One inference at a time; results may be let go of in any thread.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._free: dict[int, list[Array]] = {}

    def copies(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Each value as the caller's own."""
        large = [v.nbytes for v in values if _is_large(v)]
        if not large:
            if self._counts:
                self.forget()
            return tuple(map(own, values))
        counts = Counter(large)
        if counts != self._counts:
            self._free = {nbytes: self._free.get(nbytes, [])[:count] for nbytes, count in counts.items()}
            self._counts = counts
        return tuple(self._copy(v) if _is_large(v) else own(v) for v in values)

    def forget(self) -> None:
        """Keeps nothing, until the next copies are made."""
        self._counts, self._free = Counter(), {}

    def _copy(self, value: Array) -> Array:
        try:
            block = self._free[value.nbytes].pop()
        except IndexError:
            block = np.empty(value.nbytes, np.uint8)
        copy: Array = np.asarray(_Lent(block, self)).view(value.dtype).reshape(value.shape)
        np.copyto(copy, value)
        return copy

    def take_back(self, block: Array) -> None:
        """For ``_Lent`` alone: nobody holds the block."""
        free = self._free.get(block.nbytes)
        if free is not None and len(free) < self._counts[block.nbytes]:
            free.append(block)


class _Lent:
    """What arrays over a block hold in its place: they and all their views have it as their base, so it ends with the last."""

    __slots__ = ("__array_interface__", "_block", "_memory")

    def __init__(self, block: Array, memory: ResultMemory) -> None:
        self._block, self._memory = block, memory
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self._memory.take_back(self._block)


def _is_large(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.nbytes >= _LARGE_NBYTES
