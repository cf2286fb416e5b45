"""Kernels as functions of this processor: text to shared library, kept by digest, and the call."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

from miniinfer_cli.backends.cuda.sources import FOLDER, headers, kernel_text
from miniinfer_cli.backends.cuda.steps import Kernel

_HEADER = Path(__file__).with_name("emulation.h")
# Not unique: shared memory of a template function would otherwise be one and the same in every library that has the function.
_FLAGS = (
    "-O1",
    "-std=c++17",
    "-fPIC",
    "-w",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",
    "-mf16c",
    "-fno-gnu-unique",
)
_SYNCHRONIZES = re.compile(r"__sync|__shfl|__ballot|__any_|__all_")
_INCLUDES = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
_RUNNING = threading.Lock()  # blocks and threads are counted in globals of each library


class EmulatedFunction:
    """A compiled kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._run = ctypes.CDLL(str(_library(kernel))).mi_run
        self._run.restype = None

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], parameters: Any) -> None:
        """Runs the grid; ``parameters`` is a table of pointers to the arguments, as cuLaunchKernel takes it."""
        sizes = [(ctypes.c_uint * 3)(*(*d, 1, 1)[:3]) for d in (grid, block)]
        with _RUNNING:
            self._run(*sizes, parameters)


@cache
def load(kernel: Kernel) -> EmulatedFunction:
    """The kernel, compiled at first need. Raises RuntimeError with the compiler's words."""
    return EmulatedFunction(kernel)


def digest_of(kernel: Kernel) -> str:
    """Equal for equal code, headers and ways of compiling."""
    everything = "".join((kernel_text(kernel), kernel.name, *headers().values(), _HEADER.read_text(), *_FLAGS))
    return hashlib.sha256(everything.encode()).hexdigest()[:32]


def _library(kernel: Kernel) -> Path:
    text = kernel_text(kernel)
    target = folder() / f"{digest_of(kernel)}.so"
    if not target.exists():
        fibers = "true" if _SYNCHRONIZES.search(_with_headers(text)) else "false"
        source = (
            f"{text}\nstatic void mi_call(void** p) {{ emulation::call({kernel.name}, p); }}\n"
            f'extern "C" void mi_run(const unsigned* grid, const unsigned* block, void** p)'
            f" {{ emulation::run_grid(mi_call, p, grid, block, {fibers}); }}\n"
        )
        path = target.with_suffix(".cpp")
        _write(path, source)
        _compile(path, target, ["-shared", "-include", str(_precompiled()), "-I", str(FOLDER)])
    return target


def _with_headers(text: str) -> str:
    """The text and that of every header that it reaches."""
    reached: list[str] = []
    pending = [text]
    while pending:
        for name in _INCLUDES.findall(pending.pop()):
            if name not in reached:
                reached.append(name)
                pending.append(headers()[name])
    return text + "".join(headers()[name] for name in reached)


def _compile(source: Path, target: Path, flags: list[str]) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=target.suffix)
    os.close(handle)
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise RuntimeError(f"the emulated GPU needs a C++17 compiler, and there is no {compiler}: install g++, or set CXX")
    command = [compiler, *_FLAGS, *flags, str(source), "-o", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        Path(name).unlink(missing_ok=True)
        raise RuntimeError(f"{source} does not compile for this processor:\n{done.stderr[:3000]}")
    Path(name).replace(target)  # atomic: other processes see all of it or nothing


@cache
def _precompiled() -> Path:
    """The header, compiled once: most of the time of each compilation would be spent on it."""
    digest = hashlib.sha256((_HEADER.read_text() + "".join(_FLAGS)).encode()).hexdigest()[:16]
    header = folder() / f"emulation-{digest}.h"
    target = header.with_name(f"{header.name}.gch")
    if not target.exists():
        _write(header, _HEADER.read_text())
        _compile(header, target, ["-x", "c++-header"])
    return header


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.stem}-{os.getpid()}{path.suffix}")
    temporary.write_text(text)
    temporary.replace(path)


@cache
def folder() -> Path:
    """Where compiled kernels are kept."""
    where = Path(__file__).parents[2] / "build" / "emulation"
    where.mkdir(parents=True, exist_ok=True)
    return where
