"""Memory on the device and pinned memory: copies, fills, running out, and what a hundred cycles leave."""

import mmap
import re
import time

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.errors import OutOfMemoryError
from tests.gpu.driver.kernels import KERNELS, read, spin


def test_copies_fills_and_their_order(device: Device, stream: Stream):
    source = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
    with device.allocate(source.nbytes) as first, device.allocate(source.nbytes) as second:
        assert first.address % 256 == second.address % 256 == 0
        stream.copy_to_device(first.address, source.ctypes.data, source.nbytes)
        stream.fill(first.address + 100, 0xAB, 1000)
        stream.copy_on_device(second.address + 7, first.address, source.nbytes - 7)
        stream.copy_to_device(second.address, source.ctypes.data, 7)
        expected = np.concatenate([source[:7], source[:100], np.full(1000, 0xAB, np.uint8), source[1100:-7]])
        np.testing.assert_array_equal(read(stream, second.address, source.nbytes, np.uint8), expected)


def test_pinned_memory(device: Device, stream: Stream):
    count = device.allocations
    with device.allocate_pinned(1 << 20) as pinned, device.allocate(1 << 20) as memory, device.allocate_pinned(1 << 20) as back:
        assert device.allocations == count + 3
        pinned.array[:] = np.arange(1 << 20) % 251
        stream.copy_to_device(memory.address, pinned.address, pinned.nbytes)
        stream.copy_to_host(back.address, memory.address, back.nbytes)
        stream.synchronize()
        np.testing.assert_array_equal(back.array, pinned.array)
    with pytest.raises(ValueError, match="closed"):
        _ = pinned.array


def test_pieces_of_registered_memory(device: Device, stream: Stream):
    """Bytes of a file that processes share, in any order, at any address, twice; by one call where the driver has it."""
    assert device.quick.copies_batches == (device.driver_version >= (13, 0))
    random = np.random.default_rng(1)
    shared = mmap.mmap(-1, 4 << 20)
    memory = np.frombuffer(shared, np.uint8)
    memory[:] = random.integers(0, 256, memory.size, np.uint8)
    with device.register(memory) as registered, device.allocate(8 << 20) as target:
        for count in (1, 2, 3, 64, 300):
            sizes = random.integers(0, 20_000, count).tolist()
            offsets = random.integers(0, memory.size - 20_000, count).tolist()
            stream.fill(target.address, 0xEE, target.nbytes)
            stream.gather_to_device(target.address + 1, [registered.address + at for at in offsets], sizes)
            pieces = [memory[at : at + nbytes] for at, nbytes in zip(offsets, sizes, strict=True)]
            expected = np.concatenate([np.full(1, 0xEE, np.uint8), *pieces, np.full(3, 0xEE, np.uint8)])
            np.testing.assert_array_equal(read(stream, target.address, expected.size, np.uint8), expected)
    again = device.register(memory)  # what was let go can be registered once more
    again.close()


def test_copies_of_registered_memory_do_not_wait(device: Device, module: Module, stream: Stream):
    memory = np.zeros(8 << 20, np.uint8)
    with device.register(memory) as registered, device.allocate(8 << 20) as target:
        spin(module, stream, 50)
        start = time.perf_counter()
        stream.gather_to_device(target.address, [registered.address + (n << 17) for n in range(64)], [1 << 17] * 64)
        assert not stream.is_done()
        assert time.perf_counter() - start < 0.02
        stream.synchronize()


def test_copies_of_pinned_memory_do_not_wait(device: Device, module: Module, stream: Stream):
    with device.allocate_pinned(1 << 20) as pinned, device.allocate(1 << 20) as memory:
        spin(module, stream, 50)
        start = time.perf_counter()
        stream.copy_to_device(memory.address, pinned.address, pinned.nbytes)
        stream.copy_to_host(pinned.address, memory.address, pinned.nbytes)
        assert time.perf_counter() - start < 0.02
        assert not stream.is_done()
        stream.synchronize()
        assert stream.is_done()


@pytest.mark.alone
def test_running_out_of_memory_has_both_numbers_and_leaves_the_device(device: Device, stream: Stream):
    count, free = device.allocations, device.available_memory()
    wanted = 2 * device.total_memory
    with pytest.raises(OutOfMemoryError) as raised:
        device.allocate(wanted, "weights")
    numbers = re.fullmatch(r"weights: ([0-9.]+) MiB needed, ([0-9.]+) MiB free on cuda:0", str(raised.value).split("\n")[0])
    assert numbers
    assert float(numbers[1]) == pytest.approx(wanted / 2**20, abs=0.1)
    assert float(numbers[2]) == pytest.approx(free / 2**20, rel=0.01)
    assert device.allocations == count
    with device.allocate(8) as memory:
        stream.fill(memory.address, 9, 8)
        assert read(stream, memory.address, 8, np.uint8).tolist() == [9] * 8


@pytest.mark.alone
def test_a_hundred_cycles_leave_free_memory_where_it_was(device: Device):
    cubin = compile_kernel(KERNELS, "kernels", device.arch, {}).code

    def cycle() -> None:
        with (
            device.create_stream() as stream,
            device.create_event(timing=True) as event,
            device.allocate(8 << 20) as memory,
            device.allocate_pinned(1 << 20) as pinned,
            device.load(cubin) as module,
        ):
            function = module.function("add_one")
            stream.begin_capture()
            stream.copy_to_device(memory.address, pinned.address, pinned.nbytes)
            stream.launch(function, (8,), (128,), 0, pack_parameters([np.uint64(memory.address)]))
            with stream.end_capture() as graph:
                stream.launch_graph(graph)
                stream.record(event)
                event.synchronize()

    for _ in range(3):  # the driver keeps a little of what it takes for the first ones
        cycle()
    before = device.available_memory()
    for _ in range(100):
        cycle()
    assert device.available_memory() >= before - (2 << 20)
