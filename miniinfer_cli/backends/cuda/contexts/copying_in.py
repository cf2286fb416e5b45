"""Inputs on their way to the device: host arrays through pinned memory; rows in registered memory, and arrays that are on the
device already, straight into the slot.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.backends.cuda.arrays.registered import HostRows
from miniinfer_cli.backends.cuda.contexts.io_slot import IoSlot
from miniinfer_cli.backends.cuda.contract.program import CudaProgram
from miniinfer_cli.backends.cuda.contract.protocols import Stream
from miniinfer_cli.ir import Array

Placed = list[tuple[int, Array | DeviceArray | HostRows]]
"""Inputs with their offsets in the region of inputs."""


def stage(plan: CudaProgram, slot: IoSlot, inputs: Sequence[Any], fetch: Callable[[DeviceArray], Array]) -> Placed:
    """Puts host arrays into the slot's pinned memory, those that the caller has not written there already.

    ``fetch`` gives the contents of an array on the device. What is no tensor of numbers is left out.
    """
    placed: Placed = [
        (offset, value)
        for number, value in zip(plan.input_slots, inputs, strict=True)
        if (offset := plan.io.inputs.get(number)) is not None and value.nbytes
    ]
    for at, (offset, value) in enumerate(placed):
        # What lies in this slot at another input's place must be out of there before something else comes in.
        to = slot.device_in.address + offset
        if isinstance(value, np.ndarray):
            if slot.pinned_in.holds(value.ctypes.data) and not _is_at(value, slot.pinned_in.address + offset):
                placed[at] = (offset, value.copy())
        elif isinstance(value, DeviceArray) and slot.device_in.holds(value.address) and value.address != to:
            placed[at] = (offset, fetch(value))
    for offset, value in placed:
        if isinstance(value, np.ndarray) and not _is_at(value, slot.pinned_in.address + offset):
            np.copyto(slot.pinned_in.view(offset, value.shape, value.dtype), value, casting="no")
    return placed


def send(plan: CudaProgram, slot: IoSlot, placed: Placed, stream: Stream) -> None:
    """Enqueues the copies: one for all inputs when all come from the host, else one for each."""
    if placed and all(isinstance(v, np.ndarray) for _, v in placed):
        stream.copy_to_device(slot.device_in.address, slot.pinned_in.address, plan.io.input_nbytes, pinned=True)
        return
    for offset, value in placed:
        address = slot.device_in.address + offset
        if isinstance(value, np.ndarray):
            stream.copy_to_device(address, slot.pinned_in.address + offset, value.nbytes, pinned=True)
            continue
        if isinstance(value, HostRows):
            stream.gather_to_device(address, value.addresses, value.sizes)
            continue
        value.wait_on(stream)
        if value.address != address:
            stream.copy_on_device(address, value.address, value.nbytes)


def _is_at(value: Array, address: int) -> bool:
    return bool(value.ctypes.data == address and value.flags.c_contiguous)
