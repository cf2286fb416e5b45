"""Memory of this process that GPUs copy from where it lies, so that the host need not copy it first."""

import logging
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.arrays.registered import RegisteredBytes
from miniinfer_cli.backends.cuda.contract.protocols import Device
from miniinfer_cli.devices.models import gpu_of
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from miniinfer_cli.ir import Array

MOST_NBYTES = 8 << 30
"""That are registered at a time: such memory cannot be swapped out."""
_LEAST_NBYTES = 16 << 10  # that are worth it

_LOG = logging.getLogger("miniinfer")


class Registrar:
    """Registers memory with the driver of ``device``, for every GPU of the process; ``most_nbytes`` at a time.

    ``close()`` it once no batch is under way.
    """

    def __init__(self, device: Device, most_nbytes: int = MOST_NBYTES) -> None:
        self._device = device
        self._most_nbytes = most_nbytes
        self._held: weakref.WeakSet[RegisteredBytes] = weakref.WeakSet()

    def register(self, memory: Any) -> Array | None:
        """The bytes of ``memory``, which has the buffer protocol: registered, and kept, as long as an array of them is there.

        None where they are not: they are few, or too many, or the driver does not take them, which is logged.
        """
        array = np.frombuffer(memory, np.uint8)
        if array.nbytes < _LEAST_NBYTES or array.nbytes + sum(one.memory.nbytes for one in self._held) > self._most_nbytes:
            return None
        try:
            made = RegisteredBytes(self._device.register(array))
        except (DeviceError, OutOfMemoryError) as error:
            _LOG.warning("shared memory is not registered, so its rows are copied before the GPU has them: %s", error.message)
            return None
        self._held.add(made)
        return np.asarray(made)

    def collect(self) -> None:
        """Gives back what nobody has an array of any more; otherwise that waits for the next ``register``."""
        self._device.collect()

    def close(self) -> None:
        """Gives everything back."""
        self._device.close()


def registrar_of(devices: Sequence[str]) -> Registrar | None:
    """The registrar for engines on these devices; None where none is a GPU. Raises DeviceError."""
    numbers = [number for device in devices if (number := gpu_of(device)) is not None]
    if not numbers:
        return None
    from miniinfer_cli.backends.cuda.driver.device import open_device  # late: brings CUDA

    return Registrar(open_device(numbers[0]))
