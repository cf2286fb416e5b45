"""The one check of a status that the driver, the CUDA runtime or NVRTC returned."""

import sys
from collections.abc import Callable
from typing import Any

from miniinfer_cli.errors import DeviceError, MiniinferError, OutOfMemoryError

# How each library explains a status of its own; the function stands beside the enumeration in the same module.
_EXPLAINERS = {"CUresult": "cuGetErrorString", "cudaError_t": "cudaGetErrorString", "nvrtcResult": "nvrtcGetErrorString"}

OUT_OF_MEMORY = {"CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation", "NVRTC_ERROR_OUT_OF_MEMORY"}
"""Names of statuses that mean that memory ran out."""

DAMAGED = {
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_CONTAINED",
}
"""Names of statuses after which every call on the context fails with the same status."""

GONE = {"CUDA_ERROR_DEINITIALIZED", "CUDA_ERROR_CONTEXT_IS_DESTROYED"}
"""Names of statuses that say that the context, and with it whatever it owned, is gone already."""

_DAMAGED_HINT = "a kernel spoilt the process's CUDA context: start again; compute-sanitizer shows which kernel and where"
_HINTS = {
    **dict.fromkeys(DAMAGED, _DAMAGED_HINT),
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "the kernel was compiled for another architecture: clear the kernel cache, or build again",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "the driver is older than the compiler: install a newer driver",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "the driver's library and its kernel module differ: reboot, or install them again",
    "CUDA_ERROR_SYSTEM_NOT_READY": "on machines with NVSwitch, nvidia-fabricmanager must be running",
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "another process holds the GPU exclusively: nvidia-smi names it",
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": "allocate, load, create and synchronize before the capture begins",
    "CUDA_ERROR_STREAM_CAPTURE_UNJOINED": "a stream that joined the capture must record an event that the first one waits for",
    "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD": "a capture must end on the thread that began it",
    "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": "the block needs more registers or threads than a multiprocessor has",
}


def fault(status: Any, call: str) -> MiniinferError:
    """The error for a ``status`` (a member of the library's enumeration) that ``call`` returned.

    OutOfMemoryError when memory ran out, else DeviceError. The message has the call, the status's name and number and what
    the library says about it.
    """
    kind = type(status)
    explain = getattr(sys.modules.get(kind.__module__), _EXPLAINERS.get(kind.__name__, ""), None)
    said = explain(status)[1] if explain else b""
    explanation = f": {said.decode(errors='replace')}" if said and said.decode(errors="replace") != status.name else ""
    error = OutOfMemoryError if status.name in OUT_OF_MEMORY else DeviceError
    return error(f"{call} failed: {status.name} ({int(status)}){explanation}", hint=_HINTS.get(status.name, ""))


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the bindings and checks its status.

    Returns what came behind the status: None, the value, or a tuple of values. Raises what ``fault`` makes of the status.
    """
    result = function(*arguments)
    if result[0]:
        raise fault(result[0], function.__name__)
    return values(result)


def values(result: tuple[Any, ...]) -> Any:
    """What came behind the status: None, the value, or a tuple of values."""
    return result[1] if len(result) == 2 else result[1:] or None
