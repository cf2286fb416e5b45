"""Whether CUDA can be used here, asked of the driver's library itself, so that a machine without one loads nothing for it."""

import ctypes
import importlib.util

from miniinfer_cli.errors import DeviceError
from miniinfer_cli.wording import Wording

MINIMUM_DRIVER = (13, 0)
"""The CUDA version that the driver must support: kernels and libraries are of CUDA 13."""

_LIBRARY = "libcuda.so.1"
_NOT_INITIALIZED = 3
_NO_DEVICE = 100
FORKED = "CUDA was in use before this process was forked, and CUDA does not survive a fork"
"""The fault that is none of the machine's: what cuInit answers in a child when its parent has called it."""
FORK_HINT = (
    "open engines on a GPU in the child, before the parent uses CUDA; start processes by multiprocessing's spawn or forkserver; "
    "or use the cpu"
)


def hint_for(reason: str) -> str:
    """The way out of what ``driver_fault`` says."""
    return (
        FORK_HINT
        if reason == FORKED
        else Wording(
            "use load(plan, device='cpu'), or install an NVIDIA driver of version 580 or newer",
            flags="use --device cpu, or install an NVIDIA driver of version 580 or newer",
        )
    )


def expect_gpu(ordinal: int) -> None:
    """Raises DeviceError that says why when ``cuda:ordinal`` cannot be used, with the way out as hint."""
    reason = driver_fault()
    if reason is not None:
        raise DeviceError(reason, hint=hint_for(reason), where=(f"cuda:{ordinal}",))
    count = device_count()
    if not 0 <= ordinal < count:
        known = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        there = "there is 1 device" if count == 1 else f"there are {count} devices"
        hint = Wording(f"open it on {known}, or on cpu", flags=f"use --device {known}, or cpu")
        raise DeviceError(f"no such device: got cuda:{ordinal}, {there}", hint=hint)


def device_count() -> int:
    """How many GPUs can be used: 0 where CUDA cannot be used at all; ``driver_fault`` says why."""
    library = _open()
    return 0 if library is None or driver_fault() is not None else _count(library)


def driver_fault() -> str | None:
    """Why CUDA cannot be used here, in one line; None when it can."""
    library = _open()
    if library is None:
        return f"no NVIDIA driver: the library {_LIBRARY} is not found"
    version = ctypes.c_int()
    found = (0, 0)
    if library.cuDriverGetVersion(ctypes.byref(version)) == 0:
        found = split_version(version.value)
    if found < MINIMUM_DRIVER:
        return f"the NVIDIA driver is too old: found CUDA {_dotted(found)}, need CUDA {_dotted(MINIMUM_DRIVER)}"
    status = library.cuInit(0)
    if status == _NO_DEVICE or (status == 0 and _count(library) == 0):
        return "no NVIDIA GPU is visible to this process"
    if status == _NOT_INITIALIZED:
        return FORKED
    if status != 0:
        return f"the NVIDIA driver does not start: cuInit failed with {_name(library, status)}"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return "the package cuda-bindings is not installed"
    return None


def split_version(number: int) -> tuple[int, int]:
    """CUDA's version number, 1000 * major + 10 * minor, as (major, minor)."""
    return number // 1000, number % 1000 // 10


def _open() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None


def _count(library: ctypes.CDLL) -> int:
    count = ctypes.c_int()
    return count.value if library.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def _name(library: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    if library.cuGetErrorName(status, ctypes.byref(text)) != 0 or text.value is None:
        return f"status {status}"
    return f"{text.value.decode()} ({status})"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
