"""Memory of the host that is not pinned is read before a copy from it returns, where the device does not read it by itself.

Host steps do not wait for such copies (``Device.reads_pageable_memory``).

CUDA's manual promises no more than that such a copy "may" synchronize and stage
(https://docs.nvidia.com/cuda/cuda-driver-api/api-sync-behavior.html), so what passes here is the behaviour of one driver and one
machine. One that reads pageable memory directly (``PAGEABLE_MEMORY_ACCESS``) is waited for, and not asked.
"""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.stream import Stream
from tests.gpu.driver.kernels import read, spin

SIZES = sorted({n for k in range(0, 27, 2) for n in ((1 << k) - 1, 1 << k, (1 << k) + 1) if n} | {65535, 65536, 65537, 3 << 20})
_MAPPED = 160 << 10  # bytes from which on numpy's memory is mapped anew, and unmapped when it goes


def copy(device: Device, stream: Stream, target: int, source: np.ndarray) -> None:
    """What a host step does with its result."""
    stream.copy_to_device(target, source.ctypes.data, source.nbytes)
    if device.reads_pageable_memory:
        stream.synchronize()


def expect_bytes(found: np.ndarray, byte: int, nbytes: int) -> None:
    """All are ``byte``, and what is not is counted."""
    wrong = int((found != byte).sum())
    assert wrong == 0, f"{wrong} of {nbytes} bytes were read after the call had returned"


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "behind a kernel"])
@pytest.mark.parametrize("nbytes", SIZES)
def test_a_buffer_that_is_overwritten_right_after_the_copy(
    device: Device, module: Module, stream: Stream, nbytes: int, busy: bool
):
    source = np.empty(nbytes, np.uint8)
    with device.allocate(nbytes) as memory:
        for byte in (17, 34, 51):
            source[:] = byte
            if busy:
                spin(module, stream, 20)
            copy(device, stream, memory.address, source)
            source[:] = 255
            expect_bytes(read(stream, memory.address, nbytes, np.uint8), byte, nbytes)


@pytest.mark.parametrize("nbytes", [n for n in SIZES if n >= _MAPPED])
def test_a_buffer_that_is_given_back_right_after_the_copy(device: Device, module: Module, stream: Stream, nbytes: int):
    with device.allocate(nbytes) as memory:
        for byte in (17, 34):
            source = np.full(nbytes, byte, np.uint8)
            spin(module, stream, 20)
            copy(device, stream, memory.address, source)
            del source
            other = np.full(nbytes, 255, np.uint8)  # most likely in the same place
            expect_bytes(read(stream, memory.address, nbytes, np.uint8), byte, nbytes)
            del other


@pytest.mark.parametrize("nbytes", [1, 4096, 65536, 65537, 1 << 20, 64 << 20])
def test_a_captured_copy_reads_the_buffer_at_every_launch(device: Device, stream: Stream, nbytes: int):
    """In a graph nothing is staged ahead: a buffer must outlive the graph, and host steps' copies are never captured."""
    source = np.full(nbytes, 17, np.uint8)
    with device.allocate(nbytes) as memory:
        stream.begin_capture()
        stream.copy_to_device(memory.address, source.ctypes.data, nbytes)
        with stream.end_capture() as graph:
            for byte in (34, 51):
                source[:] = byte
                stream.launch_graph(graph)
                expect_bytes(read(stream, memory.address, nbytes, np.uint8), byte, nbytes)
