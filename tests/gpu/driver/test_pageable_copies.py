"""Is memory of the host that is not pinned read before a copy from it returns? Whether host steps must wait hangs on this.

CUDA's manual promises no more than that such a copy "may" synchronize and stage
(https://docs.nvidia.com/cuda/cuda-driver-api/api-sync-behavior.html), so what passes here is the behaviour of one driver and one
machine; a machine that reads pageable memory directly (``PAGEABLE_MEMORY_ACCESS``) may well fail.
"""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.executing import hosting
from tests.gpu.driver.kernels import read, spin

SIZES = sorted({n for k in range(0, 27, 2) for n in ((1 << k) - 1, 1 << k, (1 << k) + 1) if n} | {65535, 65536, 65537, 3 << 20})
_MAPPED = 160 << 10  # bytes from which on numpy's memory is mapped anew, and unmapped when it goes


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
            stream.copy_to_device(memory.address, source.ctypes.data, nbytes)
            source[:] = 255
            expect_bytes(read(stream, memory.address, nbytes, np.uint8), byte, nbytes)


@pytest.mark.parametrize("nbytes", [n for n in SIZES if n >= _MAPPED])
def test_a_buffer_that_is_given_back_right_after_the_copy(device: Device, module: Module, stream: Stream, nbytes: int):
    with device.allocate(nbytes) as memory:
        for byte in (17, 34):
            source = np.full(nbytes, byte, np.uint8)
            spin(module, stream, 20)
            stream.copy_to_device(memory.address, source.ctypes.data, nbytes)
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


def test_what_the_machine_says_of_pageable_memory(device: Device, capsys: pytest.CaptureFixture[str]):
    """Printed, for whoever decides: with 1 the device may read such memory directly, and nothing need be staged."""
    driver = device.driver
    kind = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS
    value = int(device.call(driver.cuDeviceGetAttribute, kind, device.call(driver.cuDeviceGet, device.ordinal)))
    with capsys.disabled():
        print(f"\nPAGEABLE_MEMORY_ACCESS {value}; host steps wait for their copies: {hosting.WAITS_FOR_COPIES}")
    assert value in (0, 1)
    assert value == 0 or hosting.WAITS_FOR_COPIES, "a machine that reads pageable memory directly must wait for copies from it"
