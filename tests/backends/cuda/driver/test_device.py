"""Devices, streams, events, memory, modules and graphs over the stand-in: who owns what, and what is said when it fails."""

import ctypes
import gc
import threading
import weakref

import numpy as np
import pytest
from cuda.bindings.driver import CUresult

from miniinfer_cli.backends.cuda.contract.cubin import Resources
from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from tests.backends.cuda.driver.fake_driver import CONTEXT, FakeDriver
from tests.forked import in_forked_child


def test_properties(device: Device):
    assert (device.ordinal, device.name, device.arch, device.multiprocessors) == (0, "Fake GPU", 90, 132)
    assert (device.shared_nbytes, device.l2_nbytes, device.total_memory) == (227 << 10, 50 << 20, 1 << 30)
    assert device.driver_version == (13, 1)
    assert device.properties.pci_bus_id == "0000:17:00.0"


def test_the_context_is_taken_late_and_once(device: Device, fake: FakeDriver):
    assert device.name and fake.alive["context"] == 0
    device.make_current()
    device.make_current()
    assert fake.calls.count("cuDevicePrimaryCtxRetain") == 1
    assert fake.calls.count("cuCtxSetCurrent") == 1
    # Another library took it away.
    fake.cuCtxSetCurrent(5)
    device.make_current()
    assert int(fake.cuCtxGetCurrent()[1]) == CONTEXT


def test_each_thread_makes_it_current_for_itself(device: Device, fake: FakeDriver):
    device.make_current()
    found = []

    def work() -> None:
        found.append(int(fake.cuCtxGetCurrent()[1]))
        device.make_current()
        found.append(int(fake.cuCtxGetCurrent()[1]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0, CONTEXT]


@pytest.mark.parametrize(("mode", "flag"), [("auto", 0), ("spin", 1), ("blocking", 4)])
def test_scheduling_is_set_before_the_context_is_taken(device: Device, fake: FakeDriver, mode, flag: int):
    device.set_scheduling(mode)
    assert fake.scheduling == [flag]
    assert fake.alive["context"] == 0


def test_a_forked_child_calls_the_driver_for_nothing(device: Device, fake: FakeDriver):
    memory, stream = device.allocate(64), device.create_stream()
    before = len(fake.calls)

    def child() -> str:
        with pytest.raises(DeviceError) as raised:
            device.allocate(64)
        for act in (device.make_current, device.synchronize, device.create_event, device.available_memory):
            with pytest.raises(DeviceError, match="does not survive a fork"):
                act()
        memory.close()
        stream.close()
        device.close()
        assert len(fake.calls) == before
        return str(raised.value)

    said = in_forked_child(child)
    assert said.startswith("cuda:0: opened before this process was forked, and CUDA does not survive a fork\n  hint: ")
    memory.close()
    stream.close()
    assert len(fake.calls) > before


def test_closing_the_device_gives_everything_back_in_reverse(fake: FakeDriver):
    device = Device(0, fake)
    memory, pinned = device.allocate(100), device.allocate_pinned(10)
    stream, event, module = device.create_stream(), device.create_event(), device.load(b"cubin")
    stream.begin_capture()
    graph = stream.end_capture()
    device.close()
    assert +fake.alive == {}
    destroyed = [name for name in fake.calls if name.endswith(("Destroy", "Unload", "Free", "FreeHost", "Release"))]
    assert destroyed == [
        "cuGraphDestroy",
        "cuGraphExecDestroy",
        "cuModuleUnload",
        "cuEventDestroy",
        "cuStreamDestroy",
        "cuMemFreeHost",
        "cuMemFree",
        "cuDevicePrimaryCtxRelease",
    ]
    assert int(fake.cuCtxGetCurrent()[1]) == 0
    count = len(fake.calls)
    for handle in (memory, pinned, stream, event, module, graph, device):
        handle.close()
    assert len(fake.calls) == count
    with pytest.raises(DeviceError, match="cuda:0 is closed"):
        device.allocate(1)


def test_one_that_cannot_be_destroyed_does_not_keep_the_others(fake: FakeDriver):
    device = Device(0, fake)
    device.allocate(10)
    kept = [device.create_stream(), device.create_event(), device.allocate(20)]
    fake.refuse["cuStreamDestroy"] = CUresult.CUDA_ERROR_INVALID_HANDLE
    with pytest.raises(DeviceError, match="cuStreamDestroy failed"):
        device.close()
    assert +fake.alive == {"stream": 1}
    assert all(handle.closed for handle in kept)


@pytest.mark.parametrize("status", [CUresult.CUDA_ERROR_ILLEGAL_ADDRESS, CUresult.CUDA_ERROR_DEINITIALIZED])
def test_closing_on_a_damaged_context_is_quiet(fake: FakeDriver, status: CUresult):
    device = Device(0, fake)
    memory = device.allocate(10)
    fake.refuse |= {"cuMemFree": status, "cuDevicePrimaryCtxRelease": status}
    memory.close()
    device.close()


def test_what_is_dropped_unclosed_waits_for_the_next_call(device: Device, fake: FakeDriver):
    event = device.create_event()
    del event
    gc.collect()
    assert fake.alive["event"] == 1 and len(device.orphans) == 1
    device.allocate(1).close()
    assert fake.alive["event"] == 0 and not device.orphans


def test_with_closes(device: Device, fake: FakeDriver):
    with device.create_stream() as stream, device.create_event() as event, device.allocate(8) as memory:
        assert not (stream.closed or event.closed or memory.closed)
    assert stream.closed and event.closed and memory.closed
    assert +fake.alive == {"context": 1}


# Memory.


def test_allocations_are_counted_and_have_an_address(device: Device):
    memory, pinned, empty = device.allocate(100), device.allocate_pinned(50), device.allocate(0)
    assert (memory.nbytes, pinned.nbytes, empty.nbytes) == (100, 50, 0)
    assert memory.address and empty.address and device.allocate_pinned(0).array.size == 0
    assert device.allocations == 4
    memory.close()
    assert device.allocations == 4
    with pytest.raises(ValueError, match="-1 bytes"):
        device.allocate(-1)


def test_running_out_of_device_memory_has_both_numbers(device: Device, fake: FakeDriver):
    with pytest.raises(OutOfMemoryError) as raised:
        device.allocate(3 << 30, "weights")
    first, hint = str(raised.value).split("\n")
    assert first == "weights: 3072.0 MiB needed, 1024.0 MiB free on cuda:0"
    assert "smaller batch" in hint
    with pytest.raises(OutOfMemoryError, match=r"^3072\.0 MiB needed"):
        device.allocate(3 << 30)
    assert device.allocations == 0
    device.allocate(10)


def test_running_out_of_pinned_memory_has_both_numbers(device: Device):
    with pytest.raises(OutOfMemoryError, match=r"^inputs: 3072\.0 MiB needed, [0-9.]+ MiB free on the host, to be pinned\n"):
        device.allocate_pinned(3 << 30, "inputs")


def test_another_fault_of_an_allocation_says_for_what(device: Device, fake: FakeDriver):
    fake.refuse["cuMemAlloc"] = CUresult.CUDA_ERROR_INVALID_CONTEXT
    with pytest.raises(DeviceError, match=r"^weights: cuMemAlloc failed: CUDA_ERROR_INVALID_CONTEXT \(201\): as the driver says"):
        device.allocate(1, "weights")


def test_pinned_memory_is_an_array_until_it_is_closed(device: Device):
    pinned = device.allocate_pinned(6)
    pinned.array[:] = range(6)
    assert pinned.array.tolist() == [0, 1, 2, 3, 4, 5]
    assert pinned.array.ctypes.data == pinned.address
    pinned.close()
    with pytest.raises(ValueError, match="closed"):
        _ = pinned.array


# Streams and events.


def test_copies_and_fills(device: Device):
    stream = device.create_stream()
    source, target = np.arange(8, dtype=np.uint8), np.zeros(8, np.uint8)
    first, second = device.allocate(8), device.allocate(8)
    stream.copy_to_device(first.address, source.ctypes.data, 8)
    stream.fill(first.address + 6, 255, 2)
    stream.copy_on_device(second.address, first.address, 8)
    stream.copy_to_host(target.ctypes.data, second.address, 8)
    stream.synchronize()
    assert target.tolist() == [0, 1, 2, 3, 4, 5, 255, 255]


@pytest.mark.parametrize("batches", [True, False])
def test_pieces_of_registered_memory_come_one_behind_another(fake: FakeDriver, batches: bool):
    if not batches:
        fake.lacking.add("cuMemcpyBatchAsync")
    with Device(0, fake) as device:
        memory = np.arange(200, dtype=np.uint8)
        registered = device.register(memory)
        assert (registered.address, registered.nbytes, fake.registered) == (memory.ctypes.data, 200, {memory.ctypes.data: 200})
        stream, target = device.create_stream(), device.allocate(64)
        stream.fill(target.address, 255, 64)
        at = registered.address
        fake.calls.clear()
        stream.gather_to_device(target.address + 1, [at + 190, at, at + 7, at + 190], [10, 0, 3, 10])
        assert fake.calls.count("cuMemcpyHtoDAsync") == (0 if batches else 3)
        stream.gather_to_device(target.address + 30, [at + 5], [2])
        stream.gather_to_device(target.address, [], [])
        found = np.ctypeslib.as_array((ctypes.c_uint8 * 64).from_address(target.address)).tolist()
        assert found == [255, *range(190, 200), 7, 8, 9, *range(190, 200), *[255] * 6, 5, 6, *[255] * 32]
    assert registered.closed and not fake.registered


def test_registered_memory_is_kept_until_the_driver_has_let_it_go(device: Device, fake: FakeDriver):
    memory = np.zeros(100, np.uint8)
    gone: list[bool] = []
    weakref.finalize(memory, lambda: gone.append(bool(fake.registered)))
    registered = device.register(memory)
    del memory
    del registered  # dropped: the device gives it back with the next call
    assert fake.registered and not gone
    device.create_event().close()
    assert (fake.registered, gone) == ({}, [False])


def test_registered_memory_outlives_a_device_that_is_dropped_unclosed(fake: FakeDriver):
    """The driver would take what came to lie there for it."""
    memory = np.zeros(100, np.uint8)
    gone: list[bool] = []
    weakref.finalize(memory, lambda: gone.append(True)).atexit = False
    device: Device | None = Device(0, fake)
    assert device is not None
    device.register(memory)
    del memory
    device = None
    gc.collect()
    assert fake.registered and not gone


@pytest.mark.parametrize("way", ["to_device", "to_host"])
def test_copies_of_pinned_memory_are_the_same(device: Device, fake: FakeDriver, way: str):
    stream, memory, pinned = device.create_stream(), device.allocate(4), device.allocate_pinned(4)
    pinned.array[:] = [1, 2, 3, 4]
    stream.copy_to_device(memory.address, pinned.address, 4, pinned=True)
    pinned.array[:] = 0
    stream.copy_to_host(pinned.address, memory.address, 3, pinned=True)
    assert pinned.array.tolist() == [1, 2, 3, 0]
    name = {"to_device": "cuMemcpyHtoDAsync", "to_host": "cuMemcpyDtoHAsync"}[way]
    fake.refuse[name] = CUresult.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(DeviceError, match=rf"^{name} failed: CUDA_ERROR_INVALID_VALUE \(1\)"):
        getattr(stream, f"copy_{way}")(memory.address, pinned.address, 4, pinned=True)


def test_without_addresses_of_functions_the_bindings_are_called(fake: FakeDriver):
    fake.lacking |= {"cuCtxGetCurrent", "cuEventRecord", "cuGraphLaunch", "cuStreamWaitEvent"}
    with Device(0, fake) as device:
        stream, event = device.create_stream(), device.create_event()
        stream.begin_capture()
        graph = stream.end_capture()
        stream.launch_graph(graph)
        stream.record(event)
        stream.wait(event)
        fake.refuse["cuGraphLaunch"] = CUresult.CUDA_ERROR_INVALID_HANDLE
        with pytest.raises(DeviceError, match="cuGraphLaunch failed: CUDA_ERROR_INVALID_HANDLE"):
            stream.launch_graph(graph)


@pytest.mark.parametrize("handle", [0, 1, 0x7F00])
def test_a_stream_of_another_library_waits_for_an_event(device: Device, fake: FakeDriver, handle: int):
    seen = []
    status = [CUresult.CUDA_SUCCESS]
    fake.cuStreamWaitEvent = lambda stream, event, flags: (seen.append((int(stream), int(event), flags)), (status[0],))[1]
    event = device.create_event()
    event.hold_foreign(handle)
    assert seen == [(handle, int(event.raw), 0)]
    status[0] = CUresult.CUDA_ERROR_INVALID_HANDLE
    with pytest.raises(DeviceError, match="cuStreamWaitEvent"):
        event.hold_foreign(handle)
    event.close()


@pytest.mark.parametrize("handle", [1, 2, 0x7F00])
def test_a_stream_waits_for_one_of_another_library(device: Device, fake: FakeDriver, handle: int):
    seen = []
    fake.cuEventRecord = lambda event, stream: (seen.append(("record", int(event), int(stream))), (CUresult.CUDA_SUCCESS,))[1]
    fake.cuStreamWaitEvent = lambda stream, event, flags: (
        seen.append(("wait", int(event), int(stream))),
        (CUresult.CUDA_SUCCESS,),
    )[1]
    stream = device.create_stream()
    for _ in range(2):
        stream.wait_for_foreign(handle)
    event = seen[0][1]
    assert seen == [("record", event, handle), ("wait", event, stream.handle)] * 2
    assert fake.alive["event"] == 1  # one serves all waits
    stream.close()
    assert fake.alive["event"] == 0


def test_nothing_to_copy_is_no_call(device: Device, fake: FakeDriver):
    stream = device.create_stream()
    count = len(fake.calls)
    for copy in (stream.copy_to_device, stream.copy_to_host, stream.copy_on_device, stream.fill):
        copy(0, 0, 0)
    assert len(fake.calls) == count


def test_a_launch_fills_up_sizes_and_passes_the_table(device: Device, fake: FakeDriver):
    stream, function = device.create_stream(), device.load(b"cubin").function("add")
    parameters = pack_parameters([np.int32(3)])
    stream.launch(function, (4,), (32, 2), 128, parameters)
    stream.launch(function, (1, 2, 3), (4, 5, 6), 0, pack_parameters([]))
    assert fake.launches == [
        (int(function.raw), 4, 1, 1, 32, 2, 1, 128, parameters.address, 0),
        (int(function.raw), 1, 2, 3, 4, 5, 6, 0, 0, 0),
    ]


def test_a_refused_launch_says_which_and_how(device: Device, fake: FakeDriver):
    stream, function = device.create_stream(), device.load(b"cubin").function("add")
    fake.refuse["cuLaunchKernel"] = CUresult.CUDA_ERROR_INVALID_VALUE
    message = r"^kernel add \(grid 4x1x1, block 2048x1x1, 0 bytes shared\): cuLaunchKernel failed: CUDA_ERROR_INVALID_VALUE"
    with pytest.raises(DeviceError, match=message):
        stream.launch(function, (4,), (2048,), 0, pack_parameters([]))


def test_attributes_of_a_launch_reach_the_driver(device: Device, fake: FakeDriver):
    stream, function = device.create_stream(), device.load(b"cubin").function("add")
    parameters = pack_parameters([np.int32(3)])
    asked = LaunchAttributes(cluster=(2, 4), programmatic=True, priority=-3)
    stream.begin_capture()
    stream.launch(function, (4, 8), (32,), 128, parameters, asked)
    stream.launch(function, (4, 8), (32,), 0, parameters, attributes=LaunchAttributes(cluster=(1, 1)))
    assert fake.launches == []
    stream.launch_graph(stream.end_capture())
    (*sizes, attributes), (*_, none) = fake.launches
    assert sizes == [int(function.raw), 4, 8, 1, 32, 1, 1, 128, parameters.address, 0]
    numbers = {name: np.frombuffer(value, np.int32)[:3].tolist() for name, value in attributes.items()}
    assert numbers == {"CLUSTER_DIMENSION": [2, 4, 1], "PROGRAMMATIC_STREAM_SERIALIZATION": [1, 0, 0], "PRIORITY": [-3, 0, 0]}
    assert none == {}


def test_attributes_that_a_device_does_not_take_are_refused_before_the_driver_is_asked(device: Device, fake: FakeDriver):
    stream, function = device.create_stream(), device.load(b"cubin").function("add")
    message = (
        r"^kernel add \(grid 9x1x1, block 32x1x1, 0 bytes shared\), .*cluster=\(9,\).*: a cluster has 8 blocks at most, not 9"
    )
    with pytest.raises(DeviceError, match=message):
        stream.launch(function, (9,), (32,), 0, pack_parameters([]), LaunchAttributes(cluster=(9,)))
    with pytest.raises(DeviceError, match="priorities are from -5 to 0 here, not 1"):
        stream.launch(function, (9,), (32,), 0, pack_parameters([]), LaunchAttributes(priority=1))
    assert "cuLaunchKernelEx" not in fake.calls
    fake.refuse["cuLaunchKernelEx"] = CUresult.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(DeviceError, match=r"^kernel add \(.*priority=0\): cuLaunchKernelEx failed: CUDA_ERROR_INVALID_VALUE"):
        stream.launch(function, (9,), (32,), 0, pack_parameters([]), LaunchAttributes(priority=0))


@pytest.mark.parametrize(
    ("function", "use"),
    [
        ("cuMemcpyHtoDAsync", lambda s, e: s.copy_to_device(1, 1, 1)),
        ("cuMemcpyDtoHAsync", lambda s, e: s.copy_to_host(1, 1, 1)),
        ("cuMemcpyDtoDAsync", lambda s, e: s.copy_on_device(1, 1, 1)),
        ("cuMemsetD8Async", lambda s, e: s.fill(1, 0, 1)),
        ("cuEventRecord", lambda s, e: s.record(e)),
        ("cuEventRecordWithFlags", lambda s, e: s.note(e)),
        ("cuStreamWaitEvent", lambda s, e: s.wait(e)),
        ("cuStreamSynchronize", lambda s, e: s.synchronize()),
        ("cuStreamQuery", lambda s, e: s.is_done()),
        ("cuStreamBeginCapture", lambda s, e: s.begin_capture()),
        ("cuEventSynchronize", lambda s, e: e.synchronize()),
        ("cuEventQuery", lambda s, e: e.is_done()),
        ("cuEventElapsedTime", lambda s, e: e.elapsed_ms(e)),
    ],
)
def test_every_refused_call_raises(device: Device, fake: FakeDriver, function: str, use):
    stream, event = device.create_stream(), device.create_event(timing=True)
    fake.refuse[function] = CUresult.CUDA_ERROR_INVALID_HANDLE
    with pytest.raises(DeviceError, match=rf"^{function} failed: CUDA_ERROR_INVALID_HANDLE \(400\)"):
        use(stream, event)
    assert gc.isenabled()


def test_work_that_is_not_done_is_no_fault(device: Device, fake: FakeDriver):
    stream, event = device.create_stream(), device.create_event()
    assert stream.is_done() and event.is_done()
    fake.refuse |= dict.fromkeys(["cuStreamQuery", "cuEventQuery"], CUresult.CUDA_ERROR_NOT_READY)
    assert not stream.is_done() and not event.is_done()


def test_elapsed_time_is_from_the_earlier_event(device: Device):
    first, second = device.create_event(timing=True), device.create_event(timing=True)
    assert second.elapsed_ms(first) == 0.25


# Kernels.


def test_a_function_tells_what_it_takes(device: Device, fake: FakeDriver):
    function = device.load(b"cubin").function("add")
    assert fake.calls.count("cuFuncGetAttribute") == 0, "asked for when it is read"
    assert (function.name, function.resources) == ("add", Resources(40, 0, 1024))
    with pytest.raises(DeviceError, match=r"^kernel absent: cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND"):
        device.load(b"cubin").function("absent")


def test_large_shared_memory_is_asked_for_once(device: Device, fake: FakeDriver):
    function = device.load(b"cubin").function("add")
    function.allow_shared(48 << 10)
    assert fake.calls.count("cuFuncSetAttribute") == 0
    function.allow_shared(100 << 10)
    function.allow_shared(64 << 10)
    function.allow_shared(226 << 10)
    assert fake.calls.count("cuFuncSetAttribute") == 2
    with pytest.raises(DeviceError, match=r"^kernel add: 232448 bytes of shared memory needed, 231424 can be had\n"):
        function.allow_shared(227 << 10)


# Graphs.


def test_a_captured_graph_does_the_work_when_it_is_launched(device: Device, fake: FakeDriver):
    stream, function = device.create_stream(), device.load(b"cubin").function("add")
    memory, target = device.allocate(4), np.zeros(4, np.uint8)
    stream.begin_capture()
    stream.fill(memory.address, 7, 4)
    stream.launch(function, (1,), (1,), 0, pack_parameters([]))
    stream.copy_to_host(target.ctypes.data, memory.address, 4)
    assert not gc.isenabled()
    graph = stream.end_capture()
    assert gc.isenabled()
    assert target.tolist() == [0] * 4
    stream.launch_graph(graph)
    assert target.tolist() == [7] * 4 and len(fake.launches) == 1
    assert fake.alive["template"] == 0
    fake.refuse["cuGraphLaunch"] = CUresult.CUDA_ERROR_LAUNCH_FAILED
    with pytest.raises(DeviceError, match="cuGraphLaunch failed"):
        stream.launch_graph(graph)


def test_a_spoilt_capture_says_what_spoilt_it_and_leaves_the_stream(device: Device, fake: FakeDriver):
    stream = device.create_stream()
    stream.begin_capture()
    with pytest.raises(DeviceError, match="cuMemAlloc failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
        device.allocate(10, "scratch")
    with pytest.raises(DeviceError) as raised:
        stream.end_capture()
    first, hint = str(raised.value).split("\n")
    assert first == (
        "graph capture: cuMemAlloc failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (900): as the driver says "
        "(then cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (901): as the driver says)"
    )
    assert "before the capture begins" in hint
    assert gc.isenabled()
    stream.begin_capture()
    assert fake._graphs[int(stream.end_capture().raw)] == []


def test_the_next_capture_does_not_report_the_last_one(device: Device, fake: FakeDriver):
    stream = device.create_stream()
    stream.begin_capture()
    with pytest.raises(DeviceError):
        device.allocate(10)
    with pytest.raises(DeviceError):
        stream.end_capture()
    stream.begin_capture()
    fake._spoilt.add(stream.handle)  # by a library, unseen
    with pytest.raises(DeviceError, match=r"^graph capture: cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        stream.end_capture()


def test_a_refusal_before_the_capture_is_not_its_fault(device: Device, fake: FakeDriver):
    stream = device.create_stream()
    fake.refuse["cuMemAlloc"] = CUresult.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT  # another library captures on this thread
    with pytest.raises(DeviceError, match="CAPTURE_IMPLICIT"):
        device.allocate(10)
    stream.begin_capture()
    fake._spoilt.add(stream.handle)
    with pytest.raises(DeviceError, match=r"^graph capture: cuStreamEndCapture failed"):
        stream.end_capture()


def test_a_graph_that_cannot_be_made_leaves_nothing(device: Device, fake: FakeDriver):
    stream = device.create_stream()
    stream.begin_capture()
    fake.refuse["cuGraphInstantiate"] = CUresult.CUDA_ERROR_OUT_OF_MEMORY
    with pytest.raises(OutOfMemoryError):
        stream.end_capture()
    assert fake.alive["template"] == 0 and gc.isenabled()


def test_closing_a_stream_gives_up_its_capture(device: Device, fake: FakeDriver):
    stream = device.create_stream()
    stream.begin_capture()
    stream.close()
    assert gc.isenabled()
    assert fake.alive["stream"] == fake.alive["template"] == 0


def test_the_collector_is_off_until_the_last_of_several_captures_ends(device: Device):
    first, second = device.create_stream(), device.create_stream()
    first.begin_capture()
    second.begin_capture()
    first.end_capture()
    assert not gc.isenabled()
    first.begin_capture()
    second.end_capture()
    assert not gc.isenabled()
    first.close()
    first.close()
    assert gc.isenabled()


def test_a_forked_child_of_a_capture_has_its_collector(device: Device):
    stream = device.create_stream()
    stream.begin_capture()
    assert in_forked_child(gc.isenabled)
    assert not gc.isenabled()
    stream.end_capture()


def test_a_collector_that_was_off_stays_off(device: Device):
    stream = device.create_stream()
    gc.disable()
    try:
        stream.begin_capture()
        stream.end_capture()
        assert not gc.isenabled()
    finally:
        gc.enable()
