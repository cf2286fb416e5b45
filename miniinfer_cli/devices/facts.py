"""What a device is, in the words of those who buy it: rows of text by name."""

import uuid

from miniinfer_cli.backends.cuda.driver.presence import driver_fault
from miniinfer_cli.devices.machine import processor_name
from miniinfer_cli.devices.models import gpu_of


def rows_of(device: str) -> dict[str, str]:
    """The rows of ``auto``, ``cpu`` or ``cuda:N``. Raises DeviceError when it is not there, UsageError for other words."""
    ordinal = gpu_of(device)
    if ordinal is None:
        rows = {"Selected Device": f"CPU {processor_name()}"}
        fault = driver_fault() if device == "auto" else None
        return rows if fault is None else {**rows, "No GPU": fault}
    # Late: on a machine with no GPU nothing of CUDA is loaded.
    from miniinfer_cli.backends.cuda.driver.device import open_device
    from miniinfer_cli.backends.cuda.driver.properties import read_details

    with open_device(ordinal) as gpu:
        details = read_details(gpu.driver, gpu.call, ordinal)
        return {
            "Selected Device": gpu.name,
            "Selected Device ID": str(ordinal),
            "Selected Device UUID": f"GPU-{uuid.UUID(bytes=details.uuid)}",
            "Compute Capability": f"{gpu.arch // 10}.{gpu.arch % 10}",
            "SMs": str(gpu.multiprocessors),
            "Device Global Memory": f"{gpu.total_memory >> 20} MiB",
            "Shared Memory per SM": f"{details.shared_nbytes >> 10} KiB",
            "Memory Bus Width": f"{details.bus_bits} bits",
            "Application Compute Clock Rate": f"{details.clock_khz / 1e6:g} GHz",
            "Application Memory Clock Rate": f"{details.memory_clock_khz / 1e6:g} GHz",
        }
