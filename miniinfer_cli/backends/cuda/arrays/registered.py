"""Memory of the host that a GPU copies from where it lies: registered with the driver, and inputs of which rows lie there."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.protocols import RegisteredMemory
from miniinfer_cli.backends.interface import OnDevice
from miniinfer_cli.ir import Array


class RegisteredBytes:
    """What numpy takes for the bytes of registered memory: ``np.asarray(RegisteredBytes(...))``. Every array of them keeps it
    registered.
    """

    def __init__(self, memory: RegisteredMemory) -> None:
        self.memory = memory
        self.__array_interface__ = {"shape": (memory.nbytes,), "typestr": "|u1", "data": (memory.address, False), "version": 3}


class HostRows(OnDevice):
    """An input that is copied to the device piece by piece: arrays in registered memory, one behind another.

    ``repeats``: how often the last row of the last array stands behind it once more.
    """

    def __init__(self, arrays: Sequence[Array], repeats: int) -> None:
        first = arrays[0]
        rows = sum(len(array) for array in arrays) + repeats
        self.shape: tuple[int, ...] = (rows, *first.shape[1:])
        self.dtype = first.dtype
        self.ndim = first.ndim
        self.sizes = [array.nbytes for array in arrays]
        self.nbytes = sum(self.sizes)
        self.addresses = [address_of(array) for array in arrays]
        self._arrays = arrays  # which keep the memory
        self._repeats = repeats
        if repeats:
            row = self.sizes[-1] // len(arrays[-1])
            self.addresses += [self.addresses[-1] + self.sizes[-1] - row] * repeats
            self.sizes += [row] * repeats
            self.nbytes += row * repeats

    def gathered(self) -> Array:
        """A copy on the host, in one piece."""
        last = self._arrays[-1][-1:]
        return np.concatenate([*self._arrays, *[last] * self._repeats])


def host_rows(arrays: Sequence[Array], repeats: int = 0) -> HostRows | None:
    """The arrays, of one type and one shape but for their first dimension, as one input; None where one is not registered."""
    return HostRows(arrays, repeats) if all(map(_is_registered, arrays)) else None


def _is_registered(array: Array) -> bool:
    base: Any = array.base
    owner: Any = base.base if type(base) is np.ndarray else None
    return type(owner) is RegisteredBytes and not owner.memory.closed and array.flags.c_contiguous and array.nbytes > 0


def address_of(array: Any) -> int:
    """Where an array that is in one piece and not empty begins."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # a third of the time of the way below
    except (TypeError, ValueError):  # it may not be written, or is of a type that the buffer protocol does not have
        return int(array.__array_interface__["data"][0])
