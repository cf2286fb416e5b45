"""Memory on the device, and pinned memory of the host that the device copies from and to without a detour."""

import ctypes
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from miniinfer_cli.backends.cuda.driver.check import OUT_OF_MEMORY
from miniinfer_cli.backends.cuda.driver.handle import Handle, Owner
from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.host_memory import mib
from miniinfer_cli.ir import Array
from miniinfer_cli.wording import Wording

_DEVICE_HINT = Wording(
    "use a smaller batch, fewer contexts, or a GPU with more free memory; nvidia-smi lists who holds it",
    flags="use a smaller batch, fewer --streams, or a GPU with more free memory; nvidia-smi lists who holds it",
)
_PINNED_HINT = Wording(
    "use a smaller batch or fewer contexts; pinned memory cannot be swapped out",
    flags="use a smaller batch or fewer --streams; pinned memory cannot be swapped out",
)


_REGISTERED: dict[int, Array] = {}  # by address, of this process: the driver's own table is as well


class Memory(Handle):
    """``nbytes`` bytes on the device, from ``address`` (an int, 256-byte aligned)."""

    def __init__(self, device: Owner, nbytes: int, what: str = "") -> None:
        """Use ``device.allocate``."""
        driver = device.driver
        # The driver refuses 0 bytes, and an empty buffer still needs an address.
        raw = _obtain(device, driver.cuMemAlloc, (max(nbytes, 1),), nbytes, what, pinned=False)
        super().__init__(device, driver.cuMemFree, raw)
        self.address = int(raw)
        self.nbytes = nbytes


class PinnedMemory(Handle):
    """``nbytes`` bytes of page-locked host memory, from ``address``; pinned for every device of the process."""

    def __init__(self, device: Owner, nbytes: int, what: str = "") -> None:
        """Use ``device.allocate_pinned``."""
        driver = device.driver
        flags = driver.CU_MEMHOSTALLOC_PORTABLE
        self.address = int(_obtain(device, driver.cuMemHostAlloc, (max(nbytes, 1), flags), nbytes, what, pinned=True))
        super().__init__(device, driver.cuMemFreeHost, self.address)
        self.nbytes = nbytes
        self._array: npt.NDArray[np.uint8] | None
        self._array = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self.address))

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """The bytes, not copied: no array made of this may be used after ``close()``. Raises ValueError when it is closed."""
        if self._array is None:
            raise ValueError("the pinned memory is closed")
        return self._array

    def close(self) -> None:
        """Gives the memory back; does nothing the second time."""
        self._array = None
        super().close()


class RegisteredMemory(Handle):
    """Memory of the process that somebody else holds, page-locked: ``nbytes`` bytes from ``address``.

    What it was given stays until the driver has let it go, even where the device is dropped unclosed: the driver would take other
    memory that came to lie at its address for it.
    """

    def __init__(self, device: Owner, memory: Array) -> None:
        """Use ``device.register``; ``memory``: bytes one behind another, which may be written."""
        driver = device.driver
        self.address = int(memory.ctypes.data)
        self.nbytes = memory.nbytes
        device.call(driver.cuMemHostRegister, self.address, self.nbytes, driver.CU_MEMHOSTREGISTER_PORTABLE)
        _REGISTERED[self.address] = memory

        def unregister(address: int) -> Any:
            result = driver.cuMemHostUnregister(address)
            _REGISTERED.pop(address, None)
            return result

        unregister.__name__ = "cuMemHostUnregister"
        super().__init__(device, unregister, self.address)


def _obtain(device: Owner, allocate: Any, arguments: tuple[int, ...], nbytes: int, what: str, *, pinned: bool) -> Any:
    if nbytes < 0:
        raise ValueError(f"cannot allocate {nbytes} bytes")
    result = allocate(*arguments)
    if not result[0]:
        return result[1]
    if result[0].name not in OUT_OF_MEMORY:
        error = device.fault(result[0], allocate.__name__)
        raise error.at(what) if what else error
    if pinned:
        free, place, hint = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "on the host, to be pinned", _PINNED_HINT
    else:
        free, place, hint = device.available_memory(), f"on cuda:{device.ordinal}", _DEVICE_HINT
    message = f"{mib(nbytes, 1)} needed, {mib(free, 1)} free {place}"
    raise OutOfMemoryError(message, hint=hint, where=(what,) if what else ())
