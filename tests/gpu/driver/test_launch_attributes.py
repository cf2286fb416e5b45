"""Attributes of launches on a GPU, launched and captured: clusters, priorities, and kernels that begin early."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel
from miniinfer_cli.backends.cuda.driver.stream import Stream
from tests.gpu.driver.kernels import read

TEXT = """
__device__ __forceinline__ long long now() {
  long long t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  return t;
}

extern "C" __global__ void clusters(int4* y) {
  int rank, count, x, z;
  asm("mov.u32 %0, %cluster_ctarank;" : "=r"(rank));
  asm("mov.u32 %0, %cluster_nctarank;" : "=r"(count));
  asm("mov.u32 %0, %cluster_ctaid.x;" : "=r"(x));
  asm("mov.u32 %0, %cluster_ctaid.z;" : "=r"(z));
  y[blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z)] = make_int4(rank, count, x, z);
}

// Lets the next kernel begin at once, and takes its time before it writes.
extern "C" __global__ void slow(int* x, long long* times, long long ns) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
  long long start = now();
  while (now() - start < ns) {}
  x[blockIdx.x * blockDim.x + threadIdx.x] += 1;
  if (blockIdx.x == 0 && threadIdx.x == 0) times[0] = now();
}

extern "C" __global__ void patient(int* x, long long* times) {
  if (blockIdx.x == 0 && threadIdx.x == 0) times[1] = now();
  asm volatile("griddepcontrol.wait;" ::: "memory");
  x[blockIdx.x * blockDim.x + threadIdx.x] *= 2;
}

extern "C" __global__ void hasty(int* x, long long* times) {
  x[blockIdx.x * blockDim.x + threadIdx.x] *= 2;
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
"""
EARLY = LaunchAttributes(programmatic=True)
BLOCKS, THREADS = 4, 32


@pytest.fixture(scope="module")
def kernels(device: Device) -> Iterator[Module]:
    with device.load(compile_kernel(TEXT, "attributes", device.arch, {}).code) as module:
        yield module


def enqueue(stream: Stream, *, captured: bool, work: Any) -> None:
    """The work once; from a graph where it is to be captured."""
    if not captured:
        work()
        return
    stream.begin_capture()
    work()
    with stream.end_capture() as graph:
        stream.launch_graph(graph)
        stream.synchronize()


def noted_nodes(device: Device, stream: Stream) -> tuple[list[Any], list[Any]]:
    """The nodes of the capture on ``stream``, and the types of its edges."""
    driver = device.driver
    graph = device.call(driver.cuStreamGetCaptureInfo, stream.raw)[2]
    count = device.call(driver.cuGraphGetNodes, graph, 0)[1]
    nodes = device.call(driver.cuGraphGetNodes, graph, count)[0]
    edges = device.call(driver.cuGraphGetEdges, graph, 0)[-1]
    data = device.call(driver.cuGraphGetEdges, graph, edges)[2] if edges else []
    return nodes, [int(edge.type) for edge in data]


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize(
    ("grid", "cluster"),
    [((8,), (1,)), ((8,), (2,)), ((24,), (8,)), ((4, 6), (2, 3)), ((2, 2, 4), (1, 2, 4)), ((6, 1, 2), (3, 1, 2))],
)
def test_blocks_know_their_clusters(
    device: Device, kernels: Module, stream: Stream, grid: tuple[int, ...], cluster: tuple[int, ...], captured: bool
):
    function = kernels.function("clusters")
    size, blocks = (*grid, 1, 1)[:3], (*cluster, 1, 1)[:3]
    count = int(np.prod(size))
    with device.allocate(16 * count) as memory:
        parameters = pack_parameters([np.uint64(memory.address)])
        attributes = LaunchAttributes(cluster)
        enqueue(stream, captured=captured, work=lambda: stream.launch(function, grid, (32,), 0, parameters, attributes))
        found = read(stream, memory.address, 4 * count, np.int32).reshape(*reversed(size), 4)
    for z, y, x in np.ndindex(*reversed(size)):
        inside = (x % blocks[0], y % blocks[1], z % blocks[2])
        rank = inside[0] + blocks[0] * (inside[1] + blocks[1] * inside[2])
        assert found[z, y, x].tolist() == [rank, np.prod(blocks), inside[0], inside[2]]


def test_a_capture_keeps_what_was_asked_for(device: Device, kernels: Module, stream: Stream):
    function, driver = kernels.function("clusters"), device.driver
    with device.allocate(16 * 8) as memory:
        stream.begin_capture()
        asked = LaunchAttributes(cluster=(2, 4), priority=min(device.launch_limits.priorities))
        stream.launch(function, (2, 4), (32,), 0, pack_parameters([np.uint64(memory.address)]), asked)
        (node,), _ = noted_nodes(device, stream)
        ids = driver.CUlaunchAttributeID
        # Each answer owns the memory that its fields are read from.
        cluster = device.call(driver.cuGraphKernelNodeGetAttribute, node, ids.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
        size = tuple(getattr(cluster.clusterDim, axis) for axis in "xyz")
        priority = device.call(driver.cuGraphKernelNodeGetAttribute, node, ids.CU_LAUNCH_ATTRIBUTE_PRIORITY)
        assert (size, priority.priority) == ((2, 4, 1), asked.priority)
        stream.end_capture().close()


def test_limits_are_those_of_the_device(device: Device):
    limits = device.launch_limits
    assert limits.arch == device.arch and limits.shared_nbytes == device.shared_nbytes
    assert limits.priorities.stop == 1 and len(limits.priorities) >= 2


def pair(device: Device, kernels: Module, stream: Stream, second: str, attributes: LaunchAttributes, captured: bool) -> Any:
    """What 1 becomes through (+ 1, slowly) and (* 2), and when the first ended and the second began, in ns."""
    count = BLOCKS * THREADS
    with device.allocate(4 * count) as memory, device.allocate(16) as times:
        first_values = pack_parameters([np.uint64(memory.address), np.uint64(times.address), np.int64(20_000_000)])
        second_values = pack_parameters([np.uint64(memory.address), np.uint64(times.address)])

        def work() -> None:
            stream.launch(kernels.function("slow"), (BLOCKS,), (THREADS,), 0, first_values)
            stream.launch(kernels.function(second), (BLOCKS,), (THREADS,), 0, second_values, attributes)

        work()  # a function's first launch loads it, for which the driver waits
        start = np.ones(count, np.int32)
        stream.copy_to_device(memory.address, start.ctypes.data, start.nbytes)
        stream.fill(times.address, 0, 16)
        stream.synchronize()
        enqueue(stream, captured=captured, work=work)
        return read(stream, memory.address, count, np.int32), read(stream, times.address, 2, np.int64)


@pytest.mark.parametrize("captured", [False, True])
def test_a_kernel_begins_early_and_waits(device: Device, kernels: Module, stream: Stream, captured: bool):
    values, (ended, began) = pair(device, kernels, stream, "patient", EARLY, captured)
    assert values.tolist() == [4] * len(values)
    assert began < ended - 5_000_000
    values, (ended, began) = pair(device, kernels, stream, "patient", LaunchAttributes(), captured)
    assert values.tolist() == [4] * len(values)
    assert 0 < ended <= began


@pytest.mark.parametrize("captured", [False, True])
def test_one_that_does_not_wait_is_seen_to_be_wrong(device: Device, kernels: Module, stream: Stream, captured: bool):
    values, _ = pair(device, kernels, stream, "hasty", EARLY, captured)
    assert values.tolist() == [3] * len(values)


def test_edges_of_a_capture_are_programmatic_where_that_was_asked_for(device: Device, kernels: Module, stream: Stream):
    function, driver = kernels.function("patient"), device.driver
    with device.allocate(4 * 32) as memory, device.allocate(16) as times:
        parameters = pack_parameters([np.uint64(memory.address), np.uint64(times.address)])
        stream.begin_capture()
        for attributes in (LaunchAttributes(), EARLY, LaunchAttributes(), EARLY):
            stream.launch(function, (1,), (32,), 0, parameters, attributes)
        _, types = noted_nodes(device, stream)
        stream.end_capture().close()
    programmatic = int(driver.CUgraphDependencyType.CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC)
    assert len(types) == 3 and types.count(programmatic) == 2
