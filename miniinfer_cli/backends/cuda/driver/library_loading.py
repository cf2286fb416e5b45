"""Finding the NVIDIA libraries: in their wheels, in a conda environment, or on the system, in this order."""

import contextlib
import ctypes
import functools
import importlib.util
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from miniinfer_cli.errors import DeviceError
from miniinfer_cli.shortage import start_thread

HINT = "pip install 'miniinfer[cuda]'"
_PARTS = {
    "cudnn": ("cudnn_graph", "cudnn_engines_precompiled", "cudnn_engines_runtime_compiled", "cudnn_heuristic"),
}
"""What a library loads itself, with its first plan."""


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


class LoadingAhead:
    """Libraries being loaded on a thread of their own, while Python has something else to do; ``wait()`` before they are opened.

    From their wheels alone, and only as a hint: what is not there, or there twice, is ``load_library``'s to find, and to miss.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._thread: threading.Thread | None = None
        with contextlib.suppress(MemoryError):
            thread = threading.Thread(target=_load_from_wheels, args=(tuple(names),), name="miniinfer-libraries")
            start_thread(thread)
            self._thread = thread

    def wait(self) -> None:
        """Until what was begun is done."""
        if self._thread is not None:
            self._thread.join()


def _load_from_wheels(names: tuple[str, ...]) -> None:
    # A function of a library is called without the interpreter, which ctypes.CDLL holds for as long as the loading takes.
    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    for name in names:
        found = [file for folder in wheel_folders() for file in _versions(folder, f"*/lib/lib{name}.so.*")]
        # One of this name that another package loaded from elsewhere is the one that will be used, with parts of its own.
        if len(found) == 1 and not load(found[0].name.encode(), os.RTLD_NOW | os.RTLD_NOLOAD):
            parts = [file for part in _PARTS.get(name, ()) for file in _versions(found[0].parent, f"lib{part}.so.*")]
            for file in (found[0], *parts):
                load(bytes(file), os.RTLD_NOW)


def _versions(folder: Path, pattern: str) -> list[Path]:
    """Files of a library by its major version: ``libcudnn.so.9``."""
    return [path for path in folder.glob(pattern) if path.suffix[1:].isdecimal()]


def wheel_folders() -> list[Path]:
    """Where NVIDIA's wheels lie."""
    spec = importlib.util.find_spec("nvidia")
    return [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
