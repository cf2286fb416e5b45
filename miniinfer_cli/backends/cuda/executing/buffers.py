"""Memory that grows with the programs that use it, and stays where it is while somebody outside looks at it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array


class Buffer:
    """One piece of memory that only grows. ``allocate(nbytes, what)`` is the device's.

    What was lent out is not freed under its borrower: when the buffer grows or closes, it goes with the last borrower.
    """

    def __init__(self, allocate: Callable[[int, str], Any], what: str) -> None:
        self._allocate = allocate
        self._what = what
        self._memory: Any = None
        self._lent = False

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return 0 if self._memory is None else int(self._memory.nbytes)

    @property
    def address(self) -> int:
        """Where it begins; it must hold something."""
        return int(self._memory.address)

    def view(self, offset: int, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
        """What lies at ``offset``, where the memory is the host's; good for as long as the buffer stays as it is."""
        raw: Array = self._memory.array[offset : offset + math.prod(shape) * dtype.itemsize]
        return raw.view(dtype).reshape(shape)

    def grow(self, nbytes: int) -> None:
        """Makes it at least so large; the contents go. Raises OutOfMemoryError, and then holds nothing."""
        if self.nbytes < nbytes:
            self.close()  # before the larger one comes
            self._memory = self._allocate(nbytes, self._what)

    def lend(self) -> Any:
        """The memory, for somebody who keeps a reference to it for as long as they use its address."""
        self._lent = True
        return self._memory

    def holds(self, address: int) -> bool:
        """True when the address lies in it."""
        return self._memory is not None and 0 <= address - self._memory.address < self._memory.nbytes

    def close(self) -> None:
        """Frees the memory; may be called twice."""
        memory, self._memory = self._memory, None
        if memory is not None and not self._lent:
            memory.close()
        self._lent = False


class PinnedView:
    """What numpy takes for an array of pinned memory that keeps the memory alive: ``np.asarray(PinnedView(...))``."""

    def __init__(self, memory: Any, offset: int, nbytes: int) -> None:
        self._memory = memory
        self.__array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (memory.address + offset, False),
            "version": 3,
        }


def pinned_array(memory: Any, offset: int, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
    """An array of ``shape`` at ``offset`` of pinned memory, which lives as long as the array."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.asarray(PinnedView(memory, offset, nbytes)).view(dtype).reshape(shape)
