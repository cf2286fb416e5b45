"""Memory that grows with the programs that use it, and stays where it is while somebody outside looks at it."""

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from miniinfer_cli.backends.cuda.contract.protocols import Memory, PinnedMemory
from miniinfer_cli.ir import Array

Held = TypeVar("Held", bound=Memory)


class Buffer(Generic[Held]):
    """One piece of memory that only grows. ``allocate(nbytes, what)`` is the device's.

    What was lent out is not freed under its borrower: when the buffer grows or closes, it goes with the last borrower.
    """

    def __init__(self, allocate: Callable[[int, str], Held], what: str) -> None:
        self._allocate = allocate
        self._what = what
        self._memory: Held | None = None
        self._lent = False

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return 0 if self._memory is None else self._memory.nbytes

    @property
    def address(self) -> int:
        """Where it begins; it must hold something."""
        return self._existing.address

    @property
    def _existing(self) -> Held:
        assert self._memory is not None
        return self._memory

    def grow(self, nbytes: int) -> None:
        """Makes it at least so large; the contents go. Raises OutOfMemoryError, and then holds nothing."""
        if self.nbytes < nbytes:
            self.close()  # before the larger one comes
            self._memory = self._allocate(nbytes, self._what)

    def lend(self) -> Held | None:
        """The memory, for somebody who keeps a reference to it for as long as they use its address; None while it is empty."""
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


class PinnedBuffer(Buffer[PinnedMemory]):
    """Pinned memory of the host."""

    def view(self, offset: int, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
        """What lies at ``offset``; good for as long as the buffer stays as it is."""
        raw: Array = self._existing.array[offset : offset + math.prod(shape) * dtype.itemsize]
        return raw.view(dtype).reshape(shape)


class PinnedView:
    """What numpy takes for an array of pinned memory that keeps the memory alive: ``np.asarray(PinnedView(...))``."""

    def __init__(self, memory: PinnedMemory, offset: int, nbytes: int) -> None:
        self._memory = memory
        self.__array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (memory.address + offset, False),
            "version": 3,
        }


def pinned_array(memory: PinnedMemory, offset: int, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
    """An array of ``shape`` at ``offset`` of pinned memory, which lives as long as the array."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.asarray(PinnedView(memory, offset, nbytes)).view(dtype).reshape(shape)
