"""What a GPU is: its limits, read once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """A GPU as the driver describes it. Sizes in bytes."""

    name: str
    arch: int  # compute capability as 10 * major + minor
    multiprocessors: int
    total_memory: int
    shared_nbytes: int  # dynamic shared memory that a block may ask for
    l2_nbytes: int
    pci_bus_id: str
    reads_pageable_memory: bool  # by itself, so that copies from there are not staged before the call returns


def read_properties(driver: Any, call: Callable[..., Any], device: Any) -> DeviceProperties:
    """The properties of the CUdevice ``device``; ``call`` checks statuses. Needs no context."""

    def read(name: str) -> int:
        kind = getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(call(driver.cuDeviceGetAttribute, kind, device))

    return DeviceProperties(
        name=_text(call(driver.cuDeviceGetName, 256, device)),
        arch=10 * read("COMPUTE_CAPABILITY_MAJOR") + read("COMPUTE_CAPABILITY_MINOR"),
        multiprocessors=read("MULTIPROCESSOR_COUNT"),
        total_memory=int(call(driver.cuDeviceTotalMem, device)),
        shared_nbytes=read("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        l2_nbytes=read("L2_CACHE_SIZE"),
        pci_bus_id=_text(call(driver.cuDeviceGetPCIBusId, 64, device)),
        reads_pageable_memory=bool(read("PAGEABLE_MEMORY_ACCESS")),
    )


@dataclass(frozen=True, slots=True)
class DeviceDetails:
    """What only reports tell of a GPU. ``uuid``: 16 bytes; ``shared_nbytes``: of a multiprocessor; clocks at their highest."""

    uuid: bytes
    shared_nbytes: int
    bus_bits: int
    clock_khz: int
    memory_clock_khz: int


def read_details(driver: Any, call: Callable[..., Any], ordinal: int) -> DeviceDetails:
    """The details of the GPU ``ordinal``; ``call`` checks statuses. Needs no context."""
    device = call(driver.cuDeviceGet, ordinal)

    def read(name: str) -> int:
        return int(call(driver.cuDeviceGetAttribute, getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}"), device))

    return DeviceDetails(
        uuid=bytes(call(driver.cuDeviceGetUuid, device).bytes),
        shared_nbytes=read("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
        bus_bits=read("GLOBAL_MEMORY_BUS_WIDTH"),
        clock_khz=read("CLOCK_RATE"),
        memory_clock_khz=read("MEMORY_CLOCK_RATE"),
    )


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode(errors="replace")
