"""Memory of the host: how much is free, arenas, and what is said when there is not enough."""

from pathlib import Path

import numpy as np

from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.ir import Array

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_HINT = "run smaller shapes, for example a smaller batch"


def available_memory() -> int | None:
    """Bytes that can be had without swapping, as Linux estimates them, within the container's limit; None elsewhere."""
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        return min(free, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such group, or "max"
        return free


def expect_memory(nbytes: int, what: str) -> None:
    """Raises OutOfMemoryError with both numbers when ``what`` cannot fit: Linux would promise it, and kill us later."""
    free = available_memory()
    if free is not None and nbytes > free:
        raise OutOfMemoryError(f"{what}: {_mib(nbytes)} needed, {_mib(free)} free", hint=_HINT)


def allocate_arena(nbytes: int) -> Array:
    """A byte array that starts on a 64-byte line, so that vector loads of the aligned offsets do not split lines."""
    if nbytes > 1 << 28:  # less is not worth the look
        expect_memory(nbytes, "memory for the activations")
    try:
        raw = np.empty(nbytes + 64, np.uint8)
    except MemoryError:
        raise OutOfMemoryError(f"memory for the activations: {_mib(nbytes)} needed, and not given", hint=_HINT) from None
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.0f} MiB"
