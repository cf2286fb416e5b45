"""What NVML tells, over a stand-in for its library, and that nothing is raised where it is not there."""

import os
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver import nvml
from miniinfer_cli.backends.cuda.driver.nvml import GpuMonitor, GpuProcess, GpuState


class Library:
    """libnvidia-ml.so.1 as ctypes shows it: one GPU, whose processes the test names."""

    def __init__(self, processes: list[tuple[int, int]], reasons: int = 0) -> None:
        self.processes, self.reasons = processes, reasons
        self.shutdowns = 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus: bytes, target: Any) -> int:  # noqa: N802
        target._obj.value = 1
        return 0 if bus == b"0000:17:00.0" else 6

    def nvmlDeviceGetClockInfo(self, device: Any, kind: int, target: Any) -> int:  # noqa: N802
        target._obj.value = {1: 1755, 2: 3201}[kind]
        return 0

    def nvmlDeviceGetPowerUsage(self, device: Any, target: Any) -> int:  # noqa: N802
        target._obj.value = 341500
        return 0

    def nvmlDeviceGetTemperature(self, device: Any, sensor: int, target: Any) -> int:  # noqa: N802
        return 3  # not supported

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: Any, target: Any) -> int:  # noqa: N802
        target._obj.value = self.reasons
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, device: Any, count: Any, found: Any) -> int:  # noqa: N802
        room, count._obj.value = count._obj.value, len(self.processes)
        if room < len(self.processes):
            return 7
        for entry, (pid, nbytes) in zip(found, self.processes, strict=False):
            entry.pid, entry.nbytes = pid, nbytes
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.shutdowns += 1
        return 0


def sample(monkeypatch: pytest.MonkeyPatch, library: Library | None, bus: str = "0000:17:00.0") -> GpuState:
    monkeypatch.setattr(nvml, "_open", lambda: library)
    with GpuMonitor(bus) as monitor:
        state = monitor.sample()
    assert monitor.sample() == GpuState()
    monitor.close()
    assert library is None or library.shutdowns == 1
    return state


def test_a_sample(monkeypatch: pytest.MonkeyPatch):
    library = Library([(os.getpid(), 10), (1, 20), (2, 2**64 - 1)], reasons=0x1 | 0x4 | 0x40)
    assert sample(monkeypatch, library) == GpuState(
        sm_clock_mhz=1755,
        max_sm_clock_mhz=None,  # this library does not have it
        memory_clock_mhz=3201,
        throttle_reasons=("power cap", "hardware thermal slowdown"),
        temperature_c=None,
        power_w=341.5,
        other_processes=(GpuProcess(1, 20), GpuProcess(2, None)),
    )


@pytest.mark.parametrize(
    ("processes", "others"),
    [
        ([], ()),
        ([(os.getpid(), 1)], ()),
        ([(0, 1)], None),
        ([(os.getpid(), 1), *((0, n) for n in range(100))], tuple(GpuProcess(0, n) for n in range(100))),
    ],
    ids=["nobody", "only us", "numbered otherwise", "many"],
)
def test_other_processes(monkeypatch: pytest.MonkeyPatch, processes: list[tuple[int, int]], others: object):
    assert sample(monkeypatch, Library(processes)).other_processes == others


def test_without_the_library_or_the_gpu_samples_are_empty(monkeypatch: pytest.MonkeyPatch):
    assert sample(monkeypatch, None) == GpuState()
    assert sample(monkeypatch, Library([]), "0000:99:00.0") == GpuState()


def test_full_speed_has_no_reasons(monkeypatch: pytest.MonkeyPatch):
    assert sample(monkeypatch, Library([], reasons=0x1)).throttle_reasons == ()
