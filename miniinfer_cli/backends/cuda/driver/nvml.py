"""How the GPU is doing, by NVML: clocks, what holds them back, temperature, power, and who else is on it."""

import ctypes
import os
from dataclasses import dataclass
from typing import Self

_LIBRARY = "libnvidia-ml.so.1"
_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_INSUFFICIENT_SIZE = 7
_REASONS = {
    0x002: "applications clocks setting",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "power brake",
    0x100: "display clock setting",
}


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("nbytes", ctypes.c_ulonglong),
        ("instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with a context on the GPU; ``nbytes`` of its memory is None where the driver keeps that to itself."""

    pid: int
    nbytes: int | None


@dataclass(frozen=True, slots=True)
class GpuState:
    """A moment of a GPU; None for whatever this machine does not tell.

    ``throttle_reasons`` is empty at full speed. ``other_processes`` is None as well where processes are numbered otherwise
    than here (in a container), so that ours cannot be told from others.
    """

    sm_clock_mhz: int | None = None
    max_sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    other_processes: tuple[GpuProcess, ...] | None = None


class GpuMonitor:
    """Samples one GPU, named by its PCI bus id (``device.properties.pci_bus_id``). Never raises for what is missing.

    Where NVML or the GPU is not found, every sample is empty. Use ``with``, or ``close()``.
    """

    def __init__(self, pci_bus_id: str) -> None:
        self._library = _open()
        self._device: ctypes.c_void_p | None = None
        if self._library is not None:
            device = ctypes.c_void_p()
            if self._library.nvmlDeviceGetHandleByPciBusId_v2(pci_bus_id.encode(), ctypes.byref(device)) == 0:
                self._device = device

    def sample(self) -> GpuState:
        """The state now; takes well under a millisecond, and does not wait for the GPU."""
        if self._library is None or self._device is None:
            return GpuState()
        power = self._number("nvmlDeviceGetPowerUsage")
        return GpuState(
            sm_clock_mhz=self._number("nvmlDeviceGetClockInfo", _SM_CLOCK),
            max_sm_clock_mhz=self._number("nvmlDeviceGetMaxClockInfo", _SM_CLOCK),
            memory_clock_mhz=self._number("nvmlDeviceGetClockInfo", _MEMORY_CLOCK),
            throttle_reasons=self._reasons(),
            temperature_c=self._number("nvmlDeviceGetTemperature", 0),
            power_w=None if power is None else power / 1000,
            other_processes=self._other_processes(),
        )

    def close(self) -> None:
        """Lets NVML go; may be called twice. Samples are empty from then on."""
        library, self._library, self._device = self._library, None, None
        if library is not None:
            library.nvmlShutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _number(self, name: str, *arguments: int) -> int | None:
        value = ctypes.c_uint()
        function = getattr(self._library, name, None)
        if function is None or function(self._device, *arguments, ctypes.byref(value)) != 0:
            return None
        return value.value

    def _reasons(self) -> tuple[str, ...] | None:
        bits = ctypes.c_ulonglong()
        # Drivers before 535 have it by its older name only.
        function = getattr(self._library, "nvmlDeviceGetCurrentClocksThrottleReasons", None)
        if function is None or function(self._device, ctypes.byref(bits)) != 0:
            return None
        return tuple(name for bit, name in _REASONS.items() if bits.value & bit)

    def _other_processes(self) -> tuple[GpuProcess, ...] | None:
        function = getattr(self._library, "nvmlDeviceGetComputeRunningProcesses_v3", None)
        if function is None:
            return None
        count = ctypes.c_uint(64)
        found = (_Process * count.value)()
        status = function(self._device, ctypes.byref(count), found)
        if status == _INSUFFICIENT_SIZE:
            count = ctypes.c_uint(2 * count.value)  # some may start meanwhile
            found = (_Process * count.value)()
            status = function(self._device, ctypes.byref(count), found)
        if status != 0:
            return None
        unknown = ctypes.c_ulonglong(-1).value
        processes = [GpuProcess(p.pid, None if p.nbytes == unknown else p.nbytes) for p in found[: count.value]]
        others = tuple(p for p in processes if p.pid != os.getpid())
        return others if len(others) < len(processes) or not processes else None


def _open() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None
