"""The ceilings of the devices that plans run on: kept in the cache folder, and measured where they are not there yet."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.cache_files import read_trusted, write_whole
from miniinfer_cli.devices.machine import processor_name, versions

Told = Callable[[str], None]
"""Told of what is measured next."""


@dataclass(frozen=True, slots=True)
class Measurable:
    """A device that can be measured: ``identity`` is what its figures hang on, ``file`` the name under which they are kept."""

    identity: str
    file: str
    measure: Callable[[Told], Ceilings]

    def kept(self, cache: Path | None) -> Ceilings | None:
        """What was measured before; None without a folder, or where there is nothing in it that was measured of this device."""
        contents = None if cache is None else read_trusted(self._path(cache))
        try:
            found = Ceilings.from_json(json.loads(contents or b"{}"))
        except ValueError:
            return None
        return found if found is not None and found.device == self.identity else None

    def measured(self, cache: Path | None, told: Told = lambda stage: None) -> Ceilings:
        """Measures it now, and keeps the figures where there is a folder that takes them.

        Where there are figures of before, each is the better of both: they may have been measured beside other work.
        """
        found, before = self.measure(told), self.kept(cache)
        if before is not None:
            found = found.at_best(before)
        if cache is not None:
            with contextlib.suppress(OSError):  # the figures are used all the same
                write_whole(self._path(cache), json.dumps(found.to_json()).encode())
        return found

    def _path(self, cache: Path) -> Path:
        return cache / "devices" / f"{self.file}.json"


def gpu_named(ordinal: int, name: str, driver: str) -> Measurable:
    """``cuda:ordinal``, a GPU of this name with a driver for this version of CUDA."""
    identity = f"{name}, driver for CUDA {driver}"

    def measure(told: Told) -> Ceilings:
        # Late: on a machine with no GPU nothing of CUDA is loaded.
        from miniinfer_cli.backends.cuda.models.ceilings import measure_ceilings

        return measure_ceilings(ordinal, identity, told)

    return Measurable(identity, _file_name(f"{identity}-{ordinal}"), measure)


def this_cpu(threads: int) -> Measurable:
    """The processor of this machine, with so many threads."""
    identity = f"{processor_name()}, {threads} thread{'s' * (threads != 1)}, numpy {versions('cpu')['numpy']}"

    def measure(told: Told) -> Ceilings:
        from miniinfer_cli.backends.cpu.ceilings import measure_ceilings  # late: a run on a GPU pays for none of this

        return measure_ceilings(identity, threads, told)

    return Measurable(identity, _file_name(identity), measure)


def device_of(name: str, facts: Mapping[str, Any]) -> Measurable:
    """The device that an engine is on, by its name (``cpu``, ``cuda:0``) and what its model says of it."""
    if name == "cpu":
        return this_cpu(facts["threads"])
    return gpu_named(int(name.partition(":")[2]), facts["name"], facts["driver"])


def _file_name(identity: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in identity)
