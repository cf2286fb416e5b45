"""What a GPU can do at best, measured: copy bandwidths, the cost of launches, the rates of memory and matrix units."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.problems import Compute, MatmulProblem
from miniinfer_cli.backends.cuda.contract.protocols import Captured, Device, Function, Stream
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.loading.functions import Functions
from miniinfer_cli.backends.cuda.loading.libraries import Libraries
from miniinfer_cli.ir import DType

_COPY_NBYTES = 256 << 20
_DEVICE_NBYTES = 1 << 30  # far beyond any L2
_MATRIX = 8192
_EMPTY = Kernel("empty", code='extern "C" __global__ void empty(int unused) {}\n')
# Values of +-1 with all their bits in use would be zeros to the power supply: a hash gives every operand bits of its own.
_NOISE = Kernel(
    "noise",
    code="""
extern "C" __global__ void noise(u32* words, index_t count) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    u32 h = (u32)i * 2654435761u;
    h ^= h >> 15; h *= 2246822519u; h ^= h >> 13;
    words[i] = (h & 0x81ff81ffu) | 0x3e003e00u;  // two bf16 of magnitude 1/8 to 2: with one exponent, products come faster
  }
}
""",
)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """GB/s are 1e9 bytes a second; a copy on the device counts the bytes read and written. None: could not be measured."""

    h2d_pinned_gbps: float
    d2h_pinned_gbps: float
    h2d_pageable_gbps: float
    device_copy_gbps: float
    launch_us: float
    graph_launch_us: float
    graph_launch_and_wait_us: float
    kernel_in_graph_us: float
    bf16_tflops: float | None

    def to_json(self) -> dict[str, float | None]:
        """The figures by name."""
        return asdict(self)


def measure_ceilings(ordinal: int) -> Ceilings:
    """Measures ``cuda:ordinal``; takes a second or two and 3 GiB of its memory."""
    with open_device(ordinal) as device:
        functions = Functions(device, KernelCache(None))
        libraries = Libraries(device)
        try:
            functions.prepare([_EMPTY, _NOISE])
            return _measure(device, functions, libraries)
        finally:
            libraries.close()
            functions.close()


def _measure(device: Device, functions: Functions, libraries: Libraries) -> Ceilings:
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

        with device.allocate_pinned(_COPY_NBYTES) as pinned, device.allocate(_COPY_NBYTES) as memory:
            pageable = np.ones(_COPY_NBYTES, np.uint8)
            to_device = seconds(lambda: stream.copy_to_device(memory.address, pinned.address, _COPY_NBYTES))
            to_host = seconds(lambda: stream.copy_to_host(pinned.address, memory.address, _COPY_NBYTES))
            slow = seconds(lambda: stream.copy_to_device(memory.address, pageable.ctypes.data, _COPY_NBYTES))
        with device.allocate(_DEVICE_NBYTES) as source, device.allocate(_DEVICE_NBYTES) as target:
            on_device = seconds(lambda: stream.copy_on_device(target.address, source.address, _DEVICE_NBYTES))
        launch, graph_launch, graph_wait, in_graph = _launch_costs(stream, functions.get(_EMPTY), seconds)
        return Ceilings(
            h2d_pinned_gbps=_COPY_NBYTES / to_device / 1e9,
            d2h_pinned_gbps=_COPY_NBYTES / to_host / 1e9,
            h2d_pageable_gbps=_COPY_NBYTES / slow / 1e9,
            device_copy_gbps=2 * _DEVICE_NBYTES / on_device / 1e9,
            launch_us=launch,
            graph_launch_us=graph_launch,
            graph_launch_and_wait_us=graph_wait,
            kernel_in_graph_us=in_graph,
            bf16_tflops=_matrix_rate(device, stream, functions, libraries, seconds),
        )


def _launch_costs(stream: Stream, function: Function, seconds: Callable[..., float]) -> tuple[float, float, float, float]:
    """Microseconds: host time of a launch, of a graph launch, of that with the wait; device time of a kernel in a graph."""
    parameters = pack_parameters([np.int32(0)])
    count = 200

    def launch() -> None:
        stream.launch(function, (1,), (32,), 0, parameters)

    def host_us(work: Callable[[], None]) -> float:
        work()
        stream.synchronize()
        started = time.perf_counter()
        for _ in range(count):
            work()
        spent = time.perf_counter() - started
        stream.synchronize()
        return spent / count * 1e6

    def captured(kernels: int) -> Captured:
        stream.begin_capture()
        for _ in range(kernels):
            launch()
        return stream.end_capture()

    with captured(1) as small, captured(count) as large:

        def launch_and_wait() -> None:
            stream.launch_graph(small)
            stream.synchronize()

        in_graph = (seconds(lambda: stream.launch_graph(large)) - seconds(lambda: stream.launch_graph(small))) / (count - 1)
        return host_us(launch), host_us(lambda: stream.launch_graph(small)), host_us(launch_and_wait), in_graph * 1e6


def _matrix_rate(
    device: Device, stream: Stream, functions: Functions, libraries: Libraries, seconds: Callable[..., float]
) -> float | None:
    n = _MATRIX
    problem = MatmulProblem(n, n, n, DType.BF16, DType.BF16, DType.BF16, Compute.F32, lda=n, ldb=n, ldd=n)
    prepared = libraries.prepare(problem)
    if prepared is None:
        return None
    nbytes = n * n * 2
    with device.allocate(3 * nbytes) as matrices, device.allocate(prepared.workspace_nbytes) as workspace:
        parameters = pack_parameters([np.uint64(matrices.address), np.int32(n * n)])
        stream.launch(functions.get(_NOISE), (1024,), (256,), 0, parameters)
        addresses = [matrices.address + i * nbytes for i in range(3)]
        spent = seconds(lambda: prepared.enqueue(stream.handle, addresses, workspace.address), 10)
    return 2 * n**3 / spent / 1e12
