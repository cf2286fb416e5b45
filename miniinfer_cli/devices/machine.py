"""The machine that plans run on, as results name it."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.thread_count import processors, usable_cores
from miniinfer_cli.backends.cuda.driver.libraries import library_versions

_CPUINFO = Path("/proc/cpuinfo")
# What changes the speed of a run without being a flag of it.
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "MINIINFER_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def host_facts(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Name, system, processor and cores of this machine, and the variables of the environment that bear on speed."""
    given = os.environ if environment is None else environment
    return {
        "name": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "environment": {name: given[name] for name in _VARIABLES if name in given},
    }


def available_processors() -> int:
    """Processors that this process may use, quotas of control groups among what bounds them."""
    return processors()


def versions(device: str) -> dict[str, str]:
    """Versions by name: of Python and numpy, and, for a GPU, of the CUDA libraries that were found."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    if device != "cpu":
        found |= library_versions()
    return found


def processor_name() -> str:
    """The processor's name, as it is sold where Linux tells that."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
