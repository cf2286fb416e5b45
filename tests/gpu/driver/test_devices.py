"""Devices: properties, contexts and threads, how the host waits, and NVML."""

import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.driver.device import Device, open_device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.nvml import GpuMonitor
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.errors import DeviceError
from tests.gpu.driver.kernels import read


def run_alone(script: str) -> str:
    """What a fresh process prints, for what would spoil this one's context."""
    start = "from miniinfer_cli.backends.cuda.driver.device import open_device\n"
    done = subprocess.run([sys.executable, "-c", start + script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_properties(device: Device):
    assert device.arch >= 80 and device.multiprocessors > 0 and device.name
    assert device.shared_nbytes >= 64 << 10 and device.l2_nbytes >= 1 << 20
    assert 0 < device.available_memory() < device.total_memory
    assert device.driver_version >= (13, 0)
    assert re.fullmatch(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.0", device.properties.pci_bus_id)


def test_an_unknown_device_is_told_with_what_there_is():
    with pytest.raises(
        DeviceError, match=r"^no such device: got cuda:99, there (is 1 device|are \d+ devices)\n  hint: open it on "
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
        "from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters\n"
        "from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel\n"
        "from miniinfer_cli.errors import DeviceError\n"
        "text = 'extern \"C\" __global__ void wild(int* x) { *x = 1; }'\n"
        "with open_device(0) as device:\n"
        "    stream, memory, event = device.create_stream(), device.allocate(4), device.create_event()\n"
        "    kernel = device.load(compile_kernel(text, 'wild', device.arch, {}).code).function('wild')\n"
        "    stream.launch(kernel, (1,), (1,), 0, pack_parameters([np.uint64(1 << 44)]))\n"
        "    try:\n"
        "        stream.synchronize()\n"
        "    except DeviceError as error:\n"
        "        print(error)\n"
    )
    told = run_alone(script)
    assert told.startswith("cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS (700): ")
    assert "compute-sanitizer" in told


def test_nvml_sees_this_gpu(device: Device):
    with GpuMonitor(device.properties.pci_bus_id) as monitor:
        state = monitor.sample()
    assert state.sm_clock_mhz and state.memory_clock_mhz and state.throttle_reasons is not None
    assert state.max_sm_clock_mhz and state.max_sm_clock_mhz >= state.sm_clock_mhz
    assert state.temperature_c is None or 0 < state.temperature_c < 120
