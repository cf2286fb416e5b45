"""What a GPU can do at best, measured: copy bandwidths, the cost of launches, the rates of matrix and vector units."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from miniinfer_cli.backends.ceilings import Ceilings, Rate, Unit
from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.problems import Compute, MatmulProblem
from miniinfer_cli.backends.cuda.contract.protocols import Captured, Device, Event, Function, Stream
from miniinfer_cli.backends.cuda.contract.protocols import Functions as Kernels
from miniinfer_cli.backends.cuda.contract.protocols import Libraries as Solvers
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.loading.functions import Functions
from miniinfer_cli.backends.cuda.loading.libraries import Libraries
from miniinfer_cli.backends.cuda.models.ceiling_kernels import CHAINS, COPY_AGAIN, EMPTY, NOISE, UNROLLED, multiply_adds
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from miniinfer_cli.ir import DType

_VECTOR = {"f32": multiply_adds("float"), "f64": multiply_adds("double")}
_THREADS = 256


@dataclass(frozen=True, slots=True)
class Extents:
    """How much is done to measure: bytes of a copy from and to the host, and on the device (far beyond any L2); launches; rounds
    of sums and of copies in the cache, and blocks on a multiprocessor; matrices are ``1 / smaller`` as large as below."""

    copy_nbytes: int = 256 << 20
    device_nbytes: int = 1 << 30
    launches: int = 200
    sums: int = 2000
    copies: int = 20
    blocks: int = 16
    smaller: int = 1


Seconds = Callable[..., float]
"""The median time of some work, by events: ``seconds(work, repeats)``."""
Told = Callable[[str], None]
"""Told of what is measured next."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A kind of product: types and size of its matrices, and what bits of noise are kept and set in even and odd words."""

    a: DType
    d: DType
    compute: Compute
    size: int
    bits: tuple[int, int, int, int]


# Magnitudes of 1/8 to 2 (bf16) or 1/2 to 1: with one exponent, products come faster than a network's do.
_PRODUCTS = {
    "bf16": _Numbers(DType.BF16, DType.BF16, Compute.F32, 8192, (0x81FF81FF, 0x3E003E00) * 2),
    "f16": _Numbers(DType.F16, DType.F16, Compute.F32, 8192, (0x87FF87FF, 0x38003800) * 2),
    "tf32": _Numbers(DType.F32, DType.F32, Compute.TF32, 8192, (0x80FFFFFF, 0x3E000000) * 2),
    "f32": _Numbers(DType.F32, DType.F32, Compute.F32, 4096, (0x80FFFFFF, 0x3E000000) * 2),
    "f64": _Numbers(DType.F64, DType.F64, Compute.F64, 4096, (0xFFFFFFFF, 0, 0x801FFFFF, 0x3FC00000)),
    "i8": _Numbers(DType.I8, DType.I32, Compute.I32, 8192, (0xFFFFFFFF, 0) * 2),
}


def measure_ceilings(ordinal: int, identity: str, told: Told = lambda stage: None) -> Ceilings:
    """Measures ``cuda:ordinal``, called ``identity``; takes a few seconds and up to 3 GiB of its memory."""
    with open_device(ordinal) as device:
        functions = Functions(device, KernelCache(None))
        libraries = Libraries(device)
        try:
            return measured(device, functions, libraries, identity, told)
        finally:
            libraries.close()
            functions.close()


def measured(
    device: Device,
    functions: Kernels,
    libraries: Solvers,
    identity: str = "",
    told: Told = lambda stage: None,
    extents: Extents = Extents(),
) -> Ceilings:
    """What ``device`` does at best, by kernels of ours and by its libraries."""
    functions.prepare([EMPTY, NOISE, COPY_AGAIN, *_VECTOR.values()])
    with device.create_stream() as stream, device.create_event(timing=True) as start, device.create_event(timing=True) as stop:

        def seconds(work: Callable[[], None], repeats: int = 5) -> float:
            work()
            times: list[float] = []
            for _ in range(repeats):
                stream.record(start)
                work()
                stream.record(stop)
                stop.synchronize()
                times.append(stop.elapsed_ms(start) / 1e3)
            return statistics.median(times)

        told("copies to and from the device")
        with device.allocate_pinned(extents.copy_nbytes) as pinned, device.allocate(extents.copy_nbytes) as memory:
            pageable = np.ones(extents.copy_nbytes, np.uint8)
            to_device = seconds(lambda: stream.copy_to_device(memory.address, pinned.address, extents.copy_nbytes))
            to_host = seconds(lambda: stream.copy_to_host(pinned.address, memory.address, extents.copy_nbytes))
            slow = seconds(lambda: stream.copy_to_device(memory.address, pageable.ctypes.data, extents.copy_nbytes))
        told("memory and its cache")
        with device.allocate(extents.device_nbytes) as source, device.allocate(extents.device_nbytes) as target:
            on_device = seconds(lambda: stream.copy_on_device(target.address, source.address, extents.device_nbytes))
        cached = _cache_gbps(device, stream, functions.get(COPY_AGAIN), seconds, extents)
        told("launches")
        costs = _launch_costs(device, stream, functions.get(EMPTY), seconds, extents.launches)
        launch, graph_launch, graph_wait, in_graph, event = costs
        rates = dict(_vector_rates(device, stream, functions, seconds, told, extents))
        libraries.bind(stream)
        try:
            rates |= dict(_matrix_rates(device, stream, functions, libraries, seconds, told, extents.smaller))
        finally:
            libraries.unbind(stream)
        return Ceilings(
            identity,
            rates,
            memory_gbps=2 * extents.device_nbytes / on_device / 1e9,
            cache_nbytes=device.l2_nbytes,
            cache_gbps=cached,
            step_us=in_graph if in_graph > 0 else None,
            event_us=event if event > 0 else None,
            launch_us=launch,
            graph_launch_us=graph_launch,
            graph_launch_and_wait_us=graph_wait,
            h2d_pinned_gbps=extents.copy_nbytes / to_device / 1e9,
            d2h_pinned_gbps=extents.copy_nbytes / to_host / 1e9,
            h2d_pageable_gbps=extents.copy_nbytes / slow / 1e9,
        )


def _cache_gbps(device: Device, stream: Stream, function: Function, seconds: Seconds, extents: Extents) -> float | None:
    """GB/s, read and written, of a copy that stays in the last cache; None for a device that tells of none."""
    pieces = device.l2_nbytes // 4 // 16  # two buffers, which take half of it
    if not pieces:
        return None
    blocks, rounds = extents.blocks * device.multiprocessors // 4 or 1, extents.copies
    shift = 5 * _THREADS * 3 + _THREADS  # to another multiprocessor
    with device.allocate(16 * pieces) as a, device.allocate(16 * pieces) as b:
        addresses = [np.uint64(a.address), np.uint64(b.address)]

        def copies(times: int) -> float:
            parameters = pack_parameters([*addresses, np.int32(pieces), np.int32(times), np.int32(shift)])
            return seconds(lambda: stream.launch(function, (blocks,), (_THREADS,), 0, parameters))

        spent = copies(11 * rounds) - copies(rounds)  # what a launch takes is in both
    return 2 * 16 * pieces * 10 * rounds / spent / 1e9 if spent > 0 else None


def _launch_costs(
    device: Device, stream: Stream, function: Function, seconds: Seconds, count: int
) -> tuple[float, float, float, float, float]:
    """Microseconds: host time of a launch, of a graph launch, of that with the wait; device time of a kernel in a graph, and of
    an event between two of them.
    """
    launch = partial(stream.launcher(function, (1,), (32,), 0), pack_parameters([np.int32(0)]))

    def host_us(work: Callable[[], None]) -> float:
        work()
        stream.synchronize()
        started = time.perf_counter()
        for _ in range(count):
            work()
        spent = time.perf_counter() - started
        stream.synchronize()
        return spent / count * 1e6

    def captured(kernels: int, events: Sequence[Event] = ()) -> Captured:
        stream.begin_capture()
        for number in range(kernels):
            launch()
            if events:
                stream.note(events[number])
        return stream.end_capture()

    with contextlib.ExitStack() as stack:
        events = [stack.enter_context(device.create_event(timing=True)) for _ in range(count)]
        small, large, noted = (stack.enter_context(graph) for graph in (captured(1), captured(count), captured(count, events)))

        def launch_and_wait() -> None:
            stream.launch_graph(small)
            stream.synchronize()

        one, many, with_events = (seconds(lambda g=graph: stream.launch_graph(g)) for graph in (small, large, noted))
        in_graph, event = (many - one) / (count - 1), (with_events - many) / count
        host = host_us(launch), host_us(lambda: stream.launch_graph(small)), host_us(launch_and_wait)
        return *host, in_graph * 1e6, event * 1e6


def _vector_rates(
    device: Device, stream: Stream, functions: Kernels, seconds: Seconds, told: Told, extents: Extents
) -> Iterator[tuple[str, float]]:
    """1e12 operations a second of multiplications and additions in registers."""
    blocks, rounds = extents.blocks * device.multiprocessors, extents.sums
    with device.allocate(8) as sums:
        for numbers, kernel in _VECTOR.items():
            told(f"vector units, {numbers}")
            parameters, function = pack_parameters([np.uint64(sums.address), np.int32(rounds)]), functions.get(kernel)
            spent = seconds(lambda f=function, p=parameters: stream.launch(f, (blocks,), (_THREADS,), 0, p))
            done = 2 * CHAINS * UNROLLED * rounds * blocks * _THREADS
            yield str(Rate(Unit.VECTOR, numbers)), done / spent / 1e12


def _matrix_rates(
    device: Device,
    stream: Stream,
    functions: Kernels,
    libraries: Solvers,
    seconds: Seconds,
    told: Told,
    smaller: int,
) -> Iterator[tuple[str, float]]:
    """1e12 operations a second of large products by the library; kinds that it cannot do, or that find no room, are left out."""
    for numbers, kind in _PRODUCTS.items():
        told(f"matrix units, {numbers}")
        try:
            rate = _matrix_rate(kind, kind.size // smaller, device, stream, functions, libraries, seconds)
        except (DeviceError, OutOfMemoryError):
            continue
        if rate is not None:
            yield str(Rate(Unit.MATRIX, numbers)), rate


def _matrix_rate(
    kind: _Numbers,
    n: int,
    device: Device,
    stream: Stream,
    functions: Kernels,
    libraries: Solvers,
    seconds: Seconds,
) -> float | None:
    problem = MatmulProblem(n, n, n, kind.a, kind.a, kind.d, kind.compute, transpose_b=True, lda=n, ldb=n, ldd=n)
    prepared = libraries.prepare(problem)
    if prepared is None:
        return None
    operand, result = n * n * element_nbytes(kind.a), n * n * element_nbytes(kind.d)
    with device.allocate(2 * operand + result) as matrices, device.allocate(prepared.workspace_nbytes) as workspace:
        bits = [np.uint32(b) for b in kind.bits]
        parameters = pack_parameters([np.uint64(matrices.address), np.int32(2 * operand // 4), *bits])
        stream.launch(functions.get(NOISE), (1024,), (256,), 0, parameters)
        addresses = [matrices.address, matrices.address + operand, matrices.address + 2 * operand]
        spent = seconds(lambda: prepared.enqueue(stream.handle, addresses, workspace.address), 10)
    return 2 * n**3 / spent / 1e12
