"""The driver layer on a GPU: copies, launches, events, graphs, and what is said and left behind when something fails."""

import gc
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.driver.device import Device, open_device
from miniinfer_cli.backends.cuda.driver.module import Module, pack_parameters
from miniinfer_cli.backends.cuda.driver.nvml import GpuMonitor
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_cubin
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.errors import DeviceError, OutOfMemoryError

KERNELS = """
struct Sizes { int d[3]; };

extern "C" __global__ void mix(float* out, signed char a, double b, Sizes sizes, short c, long long d, float e) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < sizes.d[0]) out[i] = a + b + sizes.d[1] * i + sizes.d[2] + c + d + e;
}

extern "C" __global__ void add_one(int* x) { x[threadIdx.x + blockIdx.x * blockDim.x] += 1; }

extern "C" __global__ void place(int* out) {
  int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[i] = 1000 * block + thread;
}

extern "C" __global__ void reverse(int* x, int n) {
  extern __shared__ int kept[];
  for (int i = threadIdx.x; i < n; i += blockDim.x) kept[i] = x[i];
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = kept[n - 1 - i];
}

extern "C" __global__ void spin(unsigned long long ns) {
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  do { asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); } while (now - start < ns);
}
"""


@pytest.fixture(scope="module")
def module(device: Device) -> Module:
    return device.load(compile_cubin(KERNELS, "kernels", device.arch, {}))


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    with device.create_stream() as stream:
        yield stream


def spin(module: Module, stream: Stream, milliseconds: float) -> None:
    stream.launch(module.function("spin"), (1,), (1,), 0, pack_parameters([np.uint64(milliseconds * 1e6)]))


def read(stream: Stream, address: int, count: int, dtype: type) -> np.ndarray:
    target = np.empty(count, dtype)
    stream.copy_to_host(target.ctypes.data, address, target.nbytes)
    stream.synchronize()
    return target


def run_alone(script: str) -> str:
    """What a fresh process prints, for what would spoil this one's context."""
    start = "from miniinfer_cli.backends.cuda.driver.device import open_device\n"
    done = subprocess.run([sys.executable, "-c", start + script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Devices.


def test_properties(device: Device):
    properties = device.properties
    assert device.arch >= 75 and device.multiprocessors > 0 and device.name
    assert device.shared_nbytes >= 64 << 10 and device.l2_nbytes >= 1 << 20
    assert 0 < device.available_memory() < device.total_memory
    assert device.driver_version >= (13, 0)
    assert re.fullmatch(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.0", properties.pci_bus_id)
    assert 1e11 < properties.memory_bandwidth < 2e13
    assert 500 < properties.clock_mhz < 5000


def test_an_unknown_device_is_told_with_what_there_is():
    with pytest.raises(
        DeviceError, match=r"^no such device: got cuda:99, there (is 1 device|are \d+ devices)\n  hint: use --device"
    ):
        open_device(99)


def test_two_owners_share_the_context(device: Device, stream: Stream):
    with open_device(0) as other, other.create_stream() as second:
        memory = device.allocate(4)
        second.fill(memory.address, 3, 4)
        second.synchronize()
    device.make_current()
    assert read(stream, memory.address, 4, np.uint8).tolist() == [3] * 4
    memory.close()


def test_another_library_may_take_the_context_away(device: Device):
    device.driver.cuCtxSetCurrent(device.driver.CUcontext(0))
    device.make_current()
    device.allocate(4).close()


def test_each_thread_works_after_make_current(device: Device, module: Module):
    results: list[list[int]] = []

    def work() -> None:
        device.make_current()
        with device.create_stream() as stream, device.allocate(4 * 32) as memory:
            stream.fill(memory.address, 0, 4 * 32)
            for _ in range(50):
                stream.launch(module.function("add_one"), (1,), (32,), 0, pack_parameters([np.uint64(memory.address)]))
            results.append(read(stream, memory.address, 32, np.int32).tolist())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[50] * 32] * 4


@pytest.mark.parametrize(("mode", "flag"), [("auto", 0), ("spin", 1), ("blocking", 4)])
def test_scheduling(mode: str, flag: int):
    script = (
        f"with open_device(0) as device:\n"
        f"    device.set_scheduling({mode!r})\n"
        f"    device.allocate(4)\n"
        f"    print(*device.driver.cuDevicePrimaryCtxGetState(0)[1:])"
    )
    flags, active = map(int, run_alone(script).split())
    assert (flags & 7, active) == (flag, 1)


def test_a_kernel_that_spoils_the_context_is_told_once_and_closing_is_quiet():
    script = (
        "import numpy as np\n"
        "from miniinfer_cli.backends.cuda.driver.module import pack_parameters\n"
        "from miniinfer_cli.backends.cuda.driver.nvrtc import compile_cubin\n"
        "from miniinfer_cli.errors import DeviceError\n"
        "text = 'extern \"C\" __global__ void wild(int* x) { *x = 1; }'\n"
        "with open_device(0) as device:\n"
        "    stream, memory, event = device.create_stream(), device.allocate(4), device.create_event()\n"
        "    kernel = device.load(compile_cubin(text, 'wild', device.arch, {})).function('wild')\n"
        "    stream.launch(kernel, (1,), (1,), 0, pack_parameters([np.uint64(1 << 44)]))\n"
        "    try:\n"
        "        stream.synchronize()\n"
        "    except DeviceError as error:\n"
        "        print(error)\n"
    )
    told = run_alone(script)
    assert told.startswith("cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS (700): ")
    assert "compute-sanitizer" in told


# Memory.


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
    cubin = compile_cubin(KERNELS, "kernels", device.arch, {})

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


# Kernels.


def test_a_launch_with_mixed_parameters_is_reusable(device: Device, module: Module, stream: Stream):
    n = 1000
    sizes = np.array([n, 3, -7], np.int32)
    with device.allocate(4 * n) as memory:
        address = np.uint64(memory.address)
        values = [address, np.int8(-5), np.float64(0.25), sizes, np.int16(300), np.int64(1 << 20), np.float32(0.5)]
        parameters = pack_parameters(values)
        expected = (-5 + 0.25 + 3 * np.arange(n) - 7 + 300 + (1 << 20) + 0.5).astype(np.float32)
        for _ in range(2):
            stream.fill(memory.address, 0xFF, 4 * n)
            stream.launch(module.function("mix"), (8,), (128,), 0, parameters)
            np.testing.assert_array_equal(read(stream, memory.address, n, np.float32), expected)


def test_grid_and_block_have_three_sizes(device: Device, module: Module, stream: Stream):
    with device.allocate(4 * 24 * 60) as memory:
        stream.launch(module.function("place"), (2, 3, 4), (3, 4, 5), 0, pack_parameters([np.uint64(memory.address)]))
        expected = 1000 * np.arange(24)[:, None] + np.arange(60)
        np.testing.assert_array_equal(read(stream, memory.address, 24 * 60, np.int32), expected.ravel())


def test_large_shared_memory_must_be_asked_for(device: Device, stream: Stream):
    module = device.load(compile_cubin(KERNELS, "kernels", device.arch, {}))
    function, n = module.function("reverse"), device.shared_nbytes // 4
    values = np.arange(n, dtype=np.int32)
    with module, device.allocate(values.nbytes) as memory:
        stream.copy_to_device(memory.address, values.ctypes.data, values.nbytes)
        parameters = pack_parameters([np.uint64(memory.address), np.int32(n)])
        with pytest.raises(
            DeviceError, match=r"^kernel reverse \(grid 1x1x1, block 256x1x1, \d+ bytes shared\): cuLaunchKernel failed"
        ):
            stream.launch(function, (1,), (256,), 4 * n, parameters)
        function.allow_shared(4 * n)
        stream.launch(function, (1,), (256,), 4 * n, parameters)
        np.testing.assert_array_equal(read(stream, memory.address, n, np.int32), values[::-1])
        with pytest.raises(DeviceError, match=f"{4 * n + 4} bytes of shared memory needed, {4 * n} can be had"):
            function.allow_shared(4 * n + 4)


def test_a_function_tells_what_it_takes(module: Module):
    function = module.function("mix")
    assert 0 < function.registers < 256 and function.local_nbytes == 0 and function.shared_nbytes == 0
    assert function.max_threads == 1024 and function.handle
    with pytest.raises(DeviceError, match=r"^kernel absent: cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND \(500\)"):
        module.function("absent")


def test_code_for_another_architecture_is_refused_with_a_way_out(device: Device):
    other = 80 if device.arch >= 90 else 90
    with pytest.raises(
        DeviceError, match=r"^cuModuleLoadData failed: CUDA_ERROR_NO_BINARY_FOR_GPU \(209\)(.|\n)*another architecture"
    ):
        device.load(compile_cubin(KERNELS, "kernels", other, {}))


# Events.


def test_events_take_the_time(device: Device, module: Module, stream: Stream):
    with device.create_event(timing=True) as start, device.create_event(timing=True) as end:
        spin(module, stream, 1)
        stream.record(start)
        spin(module, stream, 20)
        stream.record(end)
        assert not end.is_done()
        end.synchronize()
        assert end.is_done() and start.is_done()
        assert 18.9 < end.elapsed_ms(start) < 30  # the kernel's clock may count in milliseconds


def test_events_without_times_have_none(device: Device, stream: Stream):
    with device.create_event() as start, device.create_event(blocking=True) as end:
        stream.record(start)
        stream.record(end)
        end.synchronize()
        with pytest.raises(DeviceError, match="cuEventElapsedTime failed"):
            end.elapsed_ms(start)


def test_a_stream_waits_for_another(device: Device, module: Module, stream: Stream):
    with device.create_stream() as second, device.create_event() as event, device.allocate(4) as memory:
        stream.fill(memory.address, 0, 4)
        spin(module, stream, 20)
        stream.fill(memory.address, 7, 4)
        stream.record(event)
        second.wait(event)
        assert read(second, memory.address, 4, np.uint8).tolist() == [7] * 4


def test_streams_of_both_priorities(device: Device):
    with device.create_stream(priority=-1) as high, device.create_stream(priority=0) as low:
        high.synchronize()
        low.synchronize()
        assert high.handle != low.handle


# Graphs.


def test_a_graph_works_when_it_is_launched_and_each_time(device: Device, module: Module, stream: Stream):
    with device.allocate(4 * 32) as memory, device.allocate_pinned(4 * 32) as back:
        parameters = pack_parameters([np.uint64(memory.address)])
        stream.fill(memory.address, 0, 4 * 32)
        function = module.function("add_one")
        stream.begin_capture()
        assert not gc.isenabled()
        for _ in range(3):
            stream.launch(function, (1,), (32,), 0, parameters)
        stream.copy_to_host(back.address, memory.address, back.nbytes)
        graph = stream.end_capture()
        assert gc.isenabled()
        assert (graph.nodes, graph.kernels) == (4, 3)
        assert read(stream, memory.address, 32, np.int32).tolist() == [0] * 32
        graph.upload(stream)
        for launches in (1, 2, 3):
            stream.launch_graph(graph)
            stream.synchronize()
            assert back.array.view(np.int32).tolist() == [3 * launches] * 32
        graph.close()


def test_a_capture_takes_in_streams_that_wait_for_it(device: Device, module: Module, stream: Stream):
    with (
        device.create_stream() as second,
        device.create_event() as fork,
        device.create_event() as join,
        device.allocate(4 * 64) as memory,
    ):
        stream.fill(memory.address, 0, 4 * 64)
        first_half, second_half = (pack_parameters([np.uint64(memory.address + offset)]) for offset in (0, 4 * 32))
        function = module.function("add_one")
        stream.begin_capture()
        stream.record(fork)
        second.wait(fork)
        second.launch(function, (1,), (32,), 0, second_half)
        stream.launch(function, (1,), (32,), 0, first_half)
        second.record(join)
        stream.wait(join)
        with stream.end_capture() as graph:
            assert (graph.nodes, graph.kernels) == (2, 2)
            stream.launch_graph(graph)
            assert read(stream, memory.address, 64, np.int32).tolist() == [1] * 64


def check_usable(device: Device, module: Module, stream: Stream) -> None:
    """The stream works, and captures."""
    with device.allocate(4 * 32) as memory:
        stream.fill(memory.address, 0, 4 * 32)
        stream.begin_capture()
        stream.launch(module.function("add_one"), (1,), (32,), 0, pack_parameters([np.uint64(memory.address)]))
        with stream.end_capture() as graph:
            stream.launch_graph(graph)
            assert read(stream, memory.address, 32, np.int32).tolist() == [1] * 32


@pytest.mark.alone
def test_events_noted_in_a_graph_take_the_time_of_each_launch(device: Device, stream: Stream):
    def elapsed(fills: int) -> float:
        stream.begin_capture()
        stream.note(before)
        for _ in range(fills):
            stream.fill(memory.address, 1, memory.nbytes)
        stream.note(after)
        with stream.end_capture() as graph:
            assert (graph.nodes, graph.kernels) == (fills + 2, 0)
            times = []
            for _ in range(5):
                stream.launch_graph(graph)
                stream.synchronize()
                times.append(after.elapsed_ms(before))
            return statistics.median(times)

    with (
        device.create_event(timing=True) as before,
        device.create_event(timing=True) as after,
        device.allocate(256 << 20) as memory,
    ):
        one, eight = elapsed(1), elapsed(8)
        assert 0.02 < one < 10
        assert 4 * one < eight < 16 * one


def test_an_allocation_spoils_a_capture_and_is_named(device: Device, module: Module, stream: Stream):
    stream.begin_capture()
    with pytest.raises(DeviceError, match=r"^scratch: cuMemAlloc failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED \(900\)"):
        device.allocate(10, "scratch")
    with pytest.raises(DeviceError) as raised:
        stream.end_capture()
    assert re.match(
        r"graph capture: cuMemAlloc failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED \(900\): .+ "
        r"\(then cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED \(901\): .+\)\n  hint: allocate, load",
        str(raised.value),
    )
    assert gc.isenabled()
    check_usable(device, module, stream)


def test_waiting_spoils_a_capture_and_is_named(device: Device, module: Module, stream: Stream):
    stream.begin_capture()
    with pytest.raises(DeviceError, match=r"^cuStreamSynchronize failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
        stream.synchronize()
    with pytest.raises(DeviceError, match="graph capture: cuStreamSynchronize failed"):
        stream.end_capture()
    check_usable(device, module, stream)


def test_a_stream_that_does_not_come_back_spoils_the_capture(device: Device, module: Module, stream: Stream):
    with device.create_stream() as second, device.create_event() as fork, device.allocate(4 * 32) as memory:
        stream.begin_capture()
        stream.record(fork)
        second.wait(fork)
        second.launch(module.function("add_one"), (1,), (32,), 0, pack_parameters([np.uint64(memory.address)]))
        with pytest.raises(DeviceError, match=r"CUDA_ERROR_STREAM_CAPTURE_UNJOINED(.|\n)*must record an event"):
            stream.end_capture()
        check_usable(device, module, stream)
        check_usable(device, module, second)


def test_another_thread_may_allocate_during_a_capture(device: Device, module: Module, stream: Stream):
    faults: list[BaseException] = []

    def work() -> None:
        try:
            with device.allocate(1 << 20), device.create_stream() as other:
                other.synchronize()
        except DeviceError as error:
            faults.append(error)

    stream.begin_capture()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    stream.end_capture().close()
    assert faults == []
    check_usable(device, module, stream)


def test_closing_a_stream_gives_up_its_capture(device: Device):
    stream = device.create_stream()
    stream.begin_capture()
    stream.close()
    assert gc.isenabled()
    device.allocate(8).close()


def test_launching_a_graph_costs_little_host_time(device: Device, module: Module, stream: Stream):
    with device.allocate(4 * 32) as memory:
        parameters = pack_parameters([np.uint64(memory.address)])
        function = module.function("add_one")
        stream.begin_capture()
        for _ in range(50):
            stream.launch(function, (1,), (32,), 0, parameters)
        with stream.end_capture() as graph:
            for _ in range(20):
                stream.launch_graph(graph)
            stream.synchronize()
            times = []
            for _ in range(200):
                start = time.perf_counter_ns()
                stream.launch_graph(graph)
                times.append(time.perf_counter_ns() - start)
                stream.synchronize()  # a full queue would make launches wait
    median = statistics.median(times) / 1000
    print(f"launch_graph: {median:.2f} µs")
    assert median < 20


# NVML.


def test_nvml_sees_this_gpu(device: Device):
    with GpuMonitor(device.properties.pci_bus_id) as monitor:
        state = monitor.sample()
    assert state.sm_clock_mhz and state.memory_clock_mhz and state.throttle_reasons is not None
    assert state.max_sm_clock_mhz and state.max_sm_clock_mhz >= state.sm_clock_mhz
    assert state.temperature_c is None or 0 < state.temperature_c < 120
