"""Which of NVIDIA's libraries are here, at which version and where; found by name, never loaded."""

import functools
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

# Where a toolkit's or the distribution's packages put libraries and headers; wheels come first, as cuda.pathfinder has it.
_LIBRARY_FOLDERS = ("/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")
_INCLUDE_FOLDERS = ("/usr/local/cuda/include", "/usr/include")


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
        find_nvrtc(),
        _find("cuBLASLt", "nvidia-cublas", "matrix products at full speed", "libcublasLt.so.13"),
        _find("cuDNN", "nvidia-cudnn-cu13", "convolutions and attention at full speed", "libcudnn.so.9"),
        _find_frontend(),
        Library("CUDA headers", "nvidia-cuda-runtime", "kernels of half-width floats", headers[2] if headers else None, folder),
    )


def find_nvrtc() -> Library:
    """NVRTC, the compiler of kernels."""
    return _find("NVRTC", "nvidia-cuda-nvrtc", "compiling kernels that are not in the cache", "libnvrtc.so.13")


@functools.cache  # every compilation asks
def find_headers() -> tuple[Path, Path | None, str] | None:
    """CUDA's headers for NVRTC: their folder, that of CCCL beside it if there is one, and their version; None when missing.

    NVRTC brings none of them; ``cuda_fp16.h`` needs those of the runtime and of crt.
    """
    for folder in [*(p / "cu13" / "include" for p in _wheel_folders()), *map(Path, _INCLUDE_FOLDERS)]:
        if (folder / "cuda_fp16.h").is_file() and (folder / "crt" / "host_defines.h").is_file():
            cccl = folder / "cccl"
            return folder, cccl if cccl.is_dir() else None, _headers_version(folder)
    return None


def _find(name: str, package: str, purpose: str, file: str) -> Library:
    wheels = _wheel_folders()
    for folder in [p / part / "lib" for p in wheels for part in ("cu13", "cudnn")]:
        if (folder / file).is_file():
            return Library(name, package, purpose, _wheel_version(package) or "unknown", folder / file)
    for path in (Path(folder) / file for folder in _LIBRARY_FOLDERS):
        if path.is_file():
            # The file behind the link bears the whole version.
            return Library(name, package, purpose, path.resolve().name.partition(".so.")[2] or "unknown", path)
    return Library(name, package, purpose)


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


def _wheel_folders() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    return [Path(p) for p in spec.submodule_search_locations or ()] if spec else []


def _wheel_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _headers_version(folder: Path) -> str:
    try:
        text = (folder / "cuda_runtime_api.h").read_text(errors="replace")
    except OSError:
        return "unknown"
    number = re.search(r"#define\s+CUDART_VERSION\s+(\d+)", text)
    return f"{int(number[1]) // 1000}.{int(number[1]) % 1000 // 10}" if number else "unknown"
