"""Which of NVIDIA's libraries are here, at which version and where: cuda.pathfinder says it, and none is loaded."""

import functools
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from miniinfer_cli.backends.cuda.driver.library_loading import wheel_folders

_PACKAGES = {"nvrtc": "nvidia-cuda-nvrtc", "cublasLt": "nvidia-cublas", "cudnn": "nvidia-cudnn-cu13"}
"""The wheel of each library, by pathfinder's name for it."""
_WHEELS = {
    "cuda.bindings": "cuda-bindings",
    "NVRTC": _PACKAGES["nvrtc"],
    "cuBLASLt": _PACKAGES["cublasLt"],
    "cuDNN": _PACKAGES["cudnn"],
    "cudnn-frontend": "nvidia-cudnn-frontend",
}
_LIMIT_S = 60
# pathfinder finds a library by loading it, so it does that elsewhere.
_ASK = """
import json, sys
from cuda import pathfinder
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = pathfinder.load_nvidia_dynamic_lib(name).abs_path
    except (RuntimeError, ChildProcessError):
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Library:
    """A library that the CUDA backend uses. ``version`` and ``path`` are None where it is missing.

    ``package`` is what to install, ``purpose`` what does not work without it.
    """

    name: str
    package: str
    purpose: str
    version: str | None = None
    path: Path | None = None

    @property
    def found(self) -> bool:
        """True when it is here."""
        return self.path is not None


def find_libraries() -> tuple[Library, ...]:
    """Every library that the CUDA backend may use, found or not."""
    headers = find_headers()
    folder = headers[0] if headers else None
    return (
        _find_bindings(),
        _find("NVRTC", "nvrtc", "compiling kernels that are not in the cache"),
        _find("cuBLASLt", "cublasLt", "matrix products at full speed"),
        _find("cuDNN", "cudnn", "convolutions and attention at full speed"),
        _find_frontend(),
        Library("CUDA headers", "nvidia-cuda-runtime", "kernels of half-width floats", headers[2] if headers else None, folder),
    )


def library_versions() -> dict[str, str]:
    """The versions of those that are here, by name. Wheels tell theirs at once; only for what has none is it looked further."""
    wheels = {name: _wheel_version(package) for name, package in _WHEELS.items()}
    found = wheels if all(wheels.values()) else {library.name: library.version for library in find_libraries()}
    headers = find_headers()
    return {name: v for name, v in {**found, "CUDA headers": headers and headers[2]}.items() if v}


def nvrtc_wheel() -> str | None:
    """The version of NVRTC's wheel, which is taken before any other NVRTC; None where it is not installed."""
    return _wheel_version(_PACKAGES["nvrtc"])


@functools.cache  # every compilation asks
def find_headers() -> tuple[Path, Path | None, str] | None:
    """CUDA's headers for NVRTC: their folder, that of CCCL if there is one, and their version; None when missing.

    NVRTC brings none of them; ``cuda_fp16.h`` needs those of the runtime and of crt.
    """
    folder = _header_folder("cudart")
    if folder is None or not all((folder / name).is_file() for name in ("cuda_fp16.h", "crt/host_defines.h")):
        return None
    return folder, _header_folder("cccl"), _headers_version(folder)


def _header_folder(name: str) -> Path | None:
    try:
        from cuda import pathfinder
    except ImportError:
        return None
    try:
        found = pathfinder.find_nvidia_header_directory(name)
    except ChildProcessError:  # its probe of the system's toolkit failed
        return None
    return None if found is None else Path(found)


def _find(name: str, library: str, purpose: str) -> Library:
    package = _PACKAGES[library]
    found = _located().get(library)
    if found is None:
        return Library(name, package, purpose)
    path = Path(found)
    if any(path.is_relative_to(folder) for folder in wheel_folders()):
        return Library(name, package, purpose, _wheel_version(package) or "unknown", path)
    # The file behind the link bears the whole version.
    return Library(name, package, purpose, path.resolve().name.partition(".so.")[2] or "unknown", path)


@functools.cache
def _located() -> Mapping[str, str]:
    """Where the libraries are, by pathfinder's names; those that are missing, or do not load, left out."""
    command = [sys.executable, "-P", "-c", _ASK, *_PACKAGES]  # -P: nothing is imported from the current folder
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, str] = json.loads(told)
    return found


def _find_bindings() -> Library:
    return _find_package("cuda.bindings", "cuda-bindings", "any use of a GPU", "cuda")


def _find_frontend() -> Library:
    return _find_package("cudnn-frontend", "nvidia-cudnn-frontend", "convolutions and attention at full speed", "cudnn")


def _find_package(name: str, package: str, purpose: str, module: str) -> Library:
    spec = importlib.util.find_spec(module)
    version = _wheel_version(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if version is None or not places:
        return Library(name, package, purpose)
    return Library(name, package, purpose, version, Path(places[0]))


def _wheel_version(package: str) -> str | None:
    from importlib import metadata  # late: it brings much, and a plan that has its kernels needs no version

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _headers_version(folder: Path) -> str:
    try:
        text = (folder / "cuda_runtime_api.h").read_text(errors="replace")
    except OSError:
        return "unknown"
    number = re.search(r"#define\s+CUDART_VERSION\s+(\d+)", text)
    return f"{int(number[1]) // 1000}.{int(number[1]) % 1000 // 10}" if number else "unknown"
