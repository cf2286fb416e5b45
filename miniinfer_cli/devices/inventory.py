"""The devices of this machine, the libraries that were found, and what the devices can do at best."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.backends.cpu.thread_count import thread_count, usable_cores
from miniinfer_cli.backends.cuda.driver.libraries import Library, find_libraries
from miniinfer_cli.backends.cuda.driver.presence import device_count, driver_fault
from miniinfer_cli.devices.ceilings import Measurable, gpu_named, this_cpu
from miniinfer_cli.devices.machine import processor_name


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Sizes in bytes; ``ceilings`` is None where it was not measured yet."""

    ordinal: int
    name: str
    arch: int
    multiprocessors: int
    total_memory: int
    free_memory: int
    l2_nbytes: int
    driver: str
    ceilings: Ceilings | None


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: ``cores`` that the process may use, ``threads`` that compute one inference unless told otherwise."""

    name: str
    cores: int
    threads: int
    ceilings: Ceilings | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """``fault`` says why CUDA cannot be used here, None when it can."""

    fault: str | None
    gpus: tuple[Gpu, ...]
    libraries: tuple[Library, ...]
    cpu: Cpu


Told = Callable[[str], None]
"""Told of what is measured next."""


def take_inventory(cache: Path | None, *, measure: bool = False, told: Told = lambda stage: None) -> Inventory:
    """Looks at every device and library. ``measure`` measures each device and keeps the figures in ``cache``."""

    def ceilings_of(device: Measurable, name: str) -> Ceilings | None:
        return device.measured(cache, lambda stage: told(f"{name}: {stage}")) if measure else device.kept(cache)

    threads = thread_count(None, os.environ)
    cpu = Cpu(processor_name(), usable_cores(), threads, ceilings_of(this_cpu(threads), "cpu"))
    fault = driver_fault()
    gpus: list[Gpu] = []
    for ordinal in range(device_count()) if fault is None else ():
        gpu = _look_at(ordinal)
        device = gpu_named(ordinal, gpu.name, gpu.driver)
        gpus.append(replace(gpu, ceilings=ceilings_of(device, f"cuda:{ordinal}")))
    return Inventory(fault, tuple(gpus), find_libraries(), cpu)


def _look_at(ordinal: int) -> Gpu:
    # Late: on a machine with no GPU nothing of CUDA is loaded.
    from miniinfer_cli.backends.cuda.driver.device import open_device

    with open_device(ordinal) as device:
        return Gpu(
            ordinal=ordinal,
            name=device.name,
            arch=device.arch,
            multiprocessors=device.multiprocessors,
            total_memory=device.total_memory,
            free_memory=device.available_memory(),
            l2_nbytes=device.l2_nbytes,
            driver=".".join(map(str, device.driver_version)),
            ceilings=None,
        )
