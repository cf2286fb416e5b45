"""How rows get from a server's bodies to a GPU: gathered in pinned memory and copied at once, or each from where it lies.

    python -m tests.benchmarks.row_copies [--rows 64] [--row-nbytes 301056] [--repeat 50]

The bodies lie in memory that processes share, once as it is and once registered with the driver (cuMemHostRegister). Each way is
timed alone, and beside a thread that computes in Python, as the thread does that speaks to the processes with the connections:
milliseconds until the host has enqueued all, and until the device has all, medians. What arrived is compared first.
"""

import argparse
import mmap
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.driver.bindings import load_driver
from miniinfer_cli.backends.cuda.driver.device import open_device

_STEP = 64 << 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--row-nbytes", type=int, default=3 * 224 * 224 * 2)
    parser.add_argument("--repeat", type=int, default=50)
    given = parser.parse_args()
    driver: Any = load_driver()
    sys.setswitchinterval(2e-4)
    room = -(-given.row_nbytes // _STEP) * _STEP
    total = given.rows * given.row_nbytes
    device = open_device(0)
    device.make_current()
    stream = device.create_stream()
    target, pinned = device.allocate(total, "rows"), device.allocate_pinned(total, "rows")
    descriptor = os.memfd_create("rows")
    os.truncate(descriptor, given.rows * room)
    memory = np.frombuffer(mmap.mmap(descriptor, given.rows * room), np.uint8)
    memory[:] = np.random.default_rng(0).integers(0, 256, memory.size, np.uint8)
    order = np.random.default_rng(1).permutation(given.rows)
    rows = [memory[n * room : n * room + given.row_nbytes] for n in order]
    addresses = [row.ctypes.data for row in rows]
    targets = [target.address + n * given.row_nbytes for n in range(given.rows)]
    expected = np.concatenate(rows)

    def gathered() -> None:
        np.concatenate(rows, out=pinned.array)
        stream.copy_to_device(target.address, pinned.address, total)

    def one_by_one() -> None:
        for to, source in zip(targets, addresses, strict=True):
            stream.copy_to_device(to, source, given.row_nbytes)

    attributes = driver.CUmemcpyAttributes()
    attributes.srcAccessOrder = driver.CUmemcpySrcAccessOrder.CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
    sizes = [given.row_nbytes] * given.rows

    def by_one_call() -> None:
        to = [driver.CUdeviceptr(address) for address in targets]
        source = [driver.CUdeviceptr(address) for address in addresses]
        status = driver.cuMemcpyBatchAsync(to, source, sizes, given.rows, [attributes], [0], 1, stream.raw)[0]
        assert not status, status

    ways: dict[str, Callable[[], None]] = {"gathered": gathered, "one by one": one_by_one, "by one call": by_one_call}
    for registered in (False, True):
        if registered:
            begun = time.perf_counter()
            status = driver.cuMemHostRegister(memory.ctypes.data, memory.nbytes, driver.CU_MEMHOSTREGISTER_PORTABLE)[0]
            assert not status, status
            print(f"registering {memory.nbytes >> 20} MiB: {(time.perf_counter() - begun) * 1e3:.1f} ms")
        for name, way in ways.items():
            try:
                way()
            except Exception as error:
                print(f"{name}: not possible: {error!r}")
                continue
            stream.synchronize()
            arrived = np.zeros(total, np.uint8)
            stream.copy_to_host(arrived.ctypes.data, target.address, total)
            stream.synchronize()
            np.testing.assert_array_equal(arrived, expected)
            alone = times(way, stream.synchronize, given.repeat)
            ended = threading.Event()
            beside = threading.Thread(target=compute, args=(ended,))
            beside.start()
            contended = times(way, stream.synchronize, given.repeat)
            ended.set()
            beside.join()
            where = "registered" if registered else "as it is"
            print(f"{where}, {name}: alone {alone}; beside Python {contended}", flush=True)


def times(way: Callable[[], None], wait: Callable[[], None], repeat: int) -> str:
    """Milliseconds until all is enqueued, and until it is done."""
    enqueued, done = [], []
    for _ in range(repeat):
        begun = time.perf_counter()
        way()
        enqueued.append(time.perf_counter() - begun)
        wait()
        done.append(time.perf_counter() - begun)
    return f"{statistics.median(enqueued) * 1e3:.2f}, {statistics.median(done) * 1e3:.2f} ms"


def compute(ended: threading.Event) -> None:
    """Python that holds the interpreter a third of the time, 100 us at a time."""
    while not ended.is_set():
        until = time.perf_counter() + 1e-4
        while time.perf_counter() < until:
            sum(range(50))
        time.sleep(2e-4)


if __name__ == "__main__":
    main()
