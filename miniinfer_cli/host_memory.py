"""Memory of the host: how much is free, and what is said when there is not enough."""

from pathlib import Path

from miniinfer_cli.errors import OutOfMemoryError

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
SMALLER = "run smaller shapes, for example a smaller batch"
"""The way out, as a hint."""


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
        raise OutOfMemoryError(f"{what}: {mib(nbytes)} needed, {mib(free)} free", hint=SMALLER)


def mib(nbytes: int, decimals: int = 0) -> str:
    """The size in MiB, in words."""
    # A size in a file may be too long to be a float, or even to be written out.
    return "more than 2^63 bytes" if nbytes >> 63 else f"{nbytes / 2**20:.{decimals}f} MiB"
