"""Graphs: what is captured, launched, timed, and what spoils a capture."""

import gc
import re
import statistics
import threading
import time

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.errors import DeviceError
from tests.gpu.driver.captures import count_nodes
from tests.gpu.driver.kernels import read, spin


def check_usable(device: Device, module: Module, stream: Stream) -> None:
    """The stream works, and captures."""
    with device.allocate(4 * 32) as memory:
        stream.fill(memory.address, 0, 4 * 32)
        stream.begin_capture()
        stream.launch(module.function("add_one"), (1,), (32,), 0, pack_parameters([np.uint64(memory.address)]))
        with stream.end_capture() as graph:
            stream.launch_graph(graph)
            assert read(stream, memory.address, 32, np.int32).tolist() == [1] * 32


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
        assert count_nodes(device, stream) == {"KERNEL": 3, "MEMCPY": 1}
        graph = stream.end_capture()
        assert gc.isenabled()
        assert read(stream, memory.address, 32, np.int32).tolist() == [0] * 32
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
        assert count_nodes(device, stream) == {"KERNEL": 2}
        with stream.end_capture() as graph:
            stream.launch_graph(graph)
            assert read(stream, memory.address, 64, np.int32).tolist() == [1] * 64


@pytest.mark.alone
def test_events_noted_in_a_graph_take_the_time_of_each_launch(device: Device, stream: Stream):
    def elapsed(fills: int) -> float:
        stream.begin_capture()
        stream.note(before)
        for _ in range(fills):
            stream.fill(memory.address, 1, memory.nbytes)
        stream.note(after)
        assert count_nodes(device, stream) == {"MEMSET": fills, "EVENT_RECORD": 2}
        with stream.end_capture() as graph:
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


def test_a_noted_event_is_waited_for_from_the_launch_on(device: Device, module: Module, stream: Stream):
    with device.create_event() as event, device.create_stream() as other, device.allocate(4 * 32) as memory:
        stream.begin_capture()
        spin(module, stream, 20)
        stream.launch(module.function("add_one"), (1,), (32,), 0, pack_parameters([np.uint64(memory.address)]))
        stream.note(event)
        with stream.end_capture() as graph:
            stream.fill(memory.address, 0, 4 * 32)
            for launches in (1, 3, 5):  # reached by the launch before, it is not reached by the next one
                stream.launch_graph(graph)
                assert not event.is_done()
                other.wait(event)
                assert read(other, memory.address, 32, np.int32).tolist() == [launches] * 32
                stream.launch_graph(graph)
                event.synchronize()
                assert read(other, memory.address, 32, np.int32).tolist() == [launches + 1] * 32


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
