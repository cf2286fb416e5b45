"""Finding the NVIDIA libraries: in their wheels, in a conda environment, or on the system, in this order."""

import ctypes
import functools

from miniinfer_cli.errors import DeviceError

HINT = "pip install 'miniinfer[cuda]'"


@functools.cache
def load_library(name: str) -> ctypes.CDLL:
    """The library (``cublasLt``, ``cudnn`` ...) loaded with those it depends on; later loads by its soname find it too.

    Raises DeviceError where it is absent or cannot be loaded.
    """
    try:
        from cuda import pathfinder
    except ImportError as error:
        raise DeviceError(f"{name} cannot be looked for: cuda-pathfinder is not installed", hint=HINT) from error
    try:
        # RuntimeError is what the loader raises for a file that is there but does not load; DynamicLibNotFoundError
        # derives from it. ChildProcessError: the probe of the system's toolkit failed.
        path = pathfinder.load_nvidia_dynamic_lib(name).abs_path
    except (RuntimeError, ChildProcessError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeviceError(f"the {name} library was not found or cannot be loaded: {reason}", hint=HINT) from error
    if path is None:
        raise DeviceError(f"the {name} library was loaded from an unknown place", hint=HINT)
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise DeviceError(f"{path} cannot be loaded: {error}", hint=HINT) from error
