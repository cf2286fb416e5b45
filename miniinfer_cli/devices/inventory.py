"""The GPUs of this machine, the libraries that were found, and what the GPUs can do at best."""

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miniinfer_cli.backends.cuda.driver.cache_files import read_trusted, write_whole
from miniinfer_cli.backends.cuda.driver.libraries import Library, find_libraries
from miniinfer_cli.backends.cuda.driver.presence import device_count, driver_fault


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Sizes in bytes; ``ceilings`` holds measured figures by name, empty where none were measured yet."""

    ordinal: int
    name: str
    arch: int
    multiprocessors: int
    total_memory: int
    free_memory: int
    l2_nbytes: int
    driver: str
    ceilings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inventory:
    """``fault`` says why CUDA cannot be used here, None when it can."""

    fault: str | None
    gpus: tuple[Gpu, ...]
    libraries: tuple[Library, ...]


def take_inventory(cache: Path | None, *, measure: bool = False) -> Inventory:
    """Looks at every GPU and library. ``measure`` measures each GPU and keeps the figures in ``cache``."""
    fault = driver_fault()
    gpus = tuple(_look_at(n, cache, measure) for n in range(device_count())) if fault is None else ()
    return Inventory(fault, gpus, find_libraries())


def _look_at(ordinal: int, cache: Path | None, measure: bool) -> Gpu:
    # Late: on a machine with no GPU nothing of CUDA is loaded.
    from miniinfer_cli.backends.cuda.driver.device import open_device

    with open_device(ordinal) as device:
        driver = ".".join(map(str, device.driver_version))
        gpu = Gpu(
            ordinal=ordinal,
            name=device.name,
            arch=device.arch,
            multiprocessors=device.multiprocessors,
            total_memory=device.total_memory,
            free_memory=device.available_memory(),
            l2_nbytes=device.l2_nbytes,
            driver=driver,
            ceilings={},
        )
    figures = _measured(gpu, cache) if measure else _kept(gpu, cache)
    return replace(gpu, ceilings=figures)


def _measured(gpu: Gpu, cache: Path | None) -> dict[str, Any]:
    from miniinfer_cli.backends.cuda.models.ceilings import measure_ceilings

    figures = measure_ceilings(gpu.ordinal).to_json()
    path = _path(gpu, cache)
    if path is not None:
        with contextlib.suppress(OSError):  # the figures are shown all the same
            write_whole(path, json.dumps(figures).encode())
    return dict(figures)


def _kept(gpu: Gpu, cache: Path | None) -> dict[str, Any]:
    path = _path(gpu, cache)
    contents = None if path is None else read_trusted(path)
    try:
        figures = json.loads(contents or b"{}")
    except ValueError:
        return {}
    return figures if isinstance(figures, dict) else {}


def _path(gpu: Gpu, cache: Path | None) -> Path | None:
    name = "".join(c if c.isalnum() else "-" for c in f"{gpu.name}-driver-{gpu.driver}-{gpu.ordinal}")
    return None if cache is None else cache / "devices" / f"{name}.json"
