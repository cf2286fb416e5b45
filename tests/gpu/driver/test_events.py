"""Events and streams: times, and who waits for whom."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.errors import DeviceError
from tests.gpu.driver.kernels import read, spin


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
    with device.create_event() as start, device.create_event() as end:
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
