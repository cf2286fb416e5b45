"""Kernels as functions of this processor: text to shared library, kept by digest, and the call.

A library is named by a digest of all that it is made from: the kernel's text, the headers that this reaches, the compiler and
its flags. So libraries of several checkouts may lie in one folder: MINIINFER_EMULATION_FOLDER, else ``build/emulation``.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from miniinfer_cli.backends.cuda.codegen import sources
from miniinfer_cli.backends.cuda.codegen.sources import FOLDER, kernel_text, reached_headers
from miniinfer_cli.backends.cuda.contract.launch_attributes import NO_ATTRIBUTES, LaunchAttributes
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.tensor_map import MapElement
from tests.emulation.tensor_map import STRUCT

_HEADER = Path(__file__).with_name("emulation.h")
# One translation unit, in this order.
_RUNTIME = ("teams.h", "schedule.h", "barriers.cpp", "copies.cpp", "tensor_cores.cpp", "grids.cpp")
_LANGUAGE = ("-std=c++17", "-fPIC", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-mf16c")
# Og: kernels run a few times on small arrays; to optimize them further takes longer than it saves.
# Not unique: shared memory of a template function would otherwise be one and the same in every library that has the function.
# Without the start files and C++'s library, all the memory of a kernel's library that starts as zeros is shared memory.
_FLAGS = (*_LANGUAGE, "-Og", "-fno-gnu-unique", "-fvisibility=hidden", "-fno-exceptions", "-fno-asynchronous-unwind-tables")
# The runtime brings C's libraries along, and is there first; that the linker reads them takes as long as it takes otherwise. The
# linker itself is called, since the compiler's way to it takes a tenth of the whole.
_LINKING = ("-shared",)
_RUNTIME_FLAGS = (*_LANGUAGE, "-O2", "-shared", "-Wl,--no-as-needed", "-lm")
_COMMON = '#include "pointwise.cuh"\n'  # which reaches what nearly all kernels include
_NAMES = re.compile(r"\w+")
_SYNCHRONIZES = re.compile(r"__sync|__shfl|__ballot|__any_|__all_|\"sm90/")
NOWHERE = -1
"""The number under which no block is kept."""
LATE, EARLY = 0, 1
"""Seeds of ``scheduled``."""
_RUNNING = threading.Lock()  # blocks and threads are counted in globals of the runtime


@dataclass(slots=True)
class _Schedule:
    seed: int = LATE


_schedule = _Schedule()


@contextlib.contextmanager
def scheduled(seed: int) -> Iterator[None]:
    """In which order threads run within this, and when copies arrive and matrix instructions read.

    LATE: threads by number, and the rest when nobody can go on without it; EARLY: at once; other seeds: at random.
    """
    before, _schedule.seed = _schedule.seed, seed
    try:
        yield
    finally:
        _schedule.seed = before


class EmulatedFunction:
    """A compiled kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._set_cluster, self._set_turn = _runtime().mi_set_cluster, _runtime().mi_set_turn
        self._set_seed = _runtime().mi_set_seed
        self._run = ctypes.CDLL(str(_library(kernel))).mi_run
        self._run.restype = ctypes.c_char_p

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        parameters: Any,
        attributes: LaunchAttributes = NO_ATTRIBUTES,
        kept: int = NOWHERE,
    ) -> None:
        """Runs the grid, cluster by cluster; ``parameters`` is a table of pointers to the arguments, as cuLaunchKernel takes it.

        ``kept``: where ``begin`` has left its first cluster. Raises AssertionError when the kernel took more shared memory than
        there is, or than it was launched with; when a thread of a programmatic launch did not wait for its turn; when nobody can
        move; and for barriers, copies and matrix instructions that no device would take.
        """
        self._in_turn(grid, block, shared_nbytes, parameters, attributes.cluster, (attributes.programmatic, False, kept))

    def begin(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        parameters: Any,
        attributes: LaunchAttributes,
        kept: int,
    ) -> None:
        """Runs the first cluster up to where it waits for its turn, and leaves it there, by the number ``kept``.

        Raises AssertionError where a thread of it ends without that.
        """
        self._in_turn(grid, block, shared_nbytes, parameters, attributes.cluster, (True, True, kept))

    def _in_turn(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        parameters: Any,
        cluster: tuple[int, ...],
        turn: tuple[bool, bool, int],
    ) -> None:
        *sizes, blocks = ((ctypes.c_uint * 3)(*(*d, 1, 1)[:3]) for d in (grid, block, cluster))
        with _RUNNING:
            self._set_cluster(blocks)
            self._set_turn(*turn)
            self._set_seed(_schedule.seed)
            wrong = self._run(*sizes, shared_nbytes, parameters)
        assert wrong is None, f"{self.kernel.name}: {wrong.decode()}"


@cache
def load(kernel: Kernel) -> EmulatedFunction:
    """The kernel, compiled at first need. Raises RuntimeError with the compiler's words."""
    return EmulatedFunction(kernel)


def whole_text(kernel: Kernel) -> str:
    """The kernel's text, and behind it that of every header that it reaches."""
    text = kernel_text(kernel)
    return text + _texts_behind(text)


def common_names() -> frozenset[str]:
    """Every name in the headers that are compiled once for all kernels."""
    return _names_in(_texts_behind(_COMMON))


@cache
def _names_in(text: str) -> frozenset[str]:
    return frozenset(_NAMES.findall(text))


def _prelude(kernel: Kernel) -> str:
    """What is read before the kernel's text, and compiled once: its macros stand before the headers that name them."""
    names = common_names()
    macros = "".join(f"#define {name} {value}\n" for name, value in kernel.defines if name in names)
    return f"{_HEADER.read_text()}{macros}{_COMMON}"


def _texts_behind(text: str) -> str:
    return "".join(sources.headers()[name] for name in reached_headers(text))


def digest_of(kernel: Kernel) -> str:
    """Equal for equal code, headers, compilers and ways of compiling."""
    return _digest(whole_text(kernel), kernel.name, _prelude(kernel), _texts_behind(_COMMON), *_FLAGS, *_LINKING)


def _library(kernel: Kernel) -> Path:
    text = kernel_text(kernel)
    synchronizes = "true" if _SYNCHRONIZES.search(whole_text(kernel)) else "false"
    source = f"{text}\nMI_EXPORT({kernel.name}, {synchronizes})\n"
    return _made(
        folder() / f"{digest_of(kernel)}.so",
        source,
        lambda: [*_FLAGS, "-include", str(_precompiled(_prelude(kernel))), "-I", str(FOLDER)],
        is_linked=True,
    )


@cache
def _precompiled(prelude: str) -> Path:
    """A header with this text, compiled: most of the time of each compilation would be spent on it."""
    header = folder() / f"emulation-{_digest(prelude, _texts_behind(_COMMON), *_FLAGS)[:16]}.h"
    flags = (*_FLAGS, "-x", "c++-header", "-I", str(FOLDER))
    _made(header.with_name(f"{header.name}.gch"), prelude, lambda: flags, source_path=header)
    return header


@cache
def _runtime() -> ctypes.CDLL:
    """What runs the grids of all kernels, where their libraries find it."""
    texts = {name: (_HEADER.with_name("runtime") / name).read_text() for name in _RUNTIME}
    map_text = f"{STRUCT}constexpr int TF32_ELEMENT = {list(MapElement).index(MapElement.TF32)};\n"
    text = "".join(f'#line 1 "{name}"\n{part}{map_text if name == "teams.h" else ""}' for name, part in texts.items())
    target = folder() / f"runtime-{_digest(text, _HEADER.read_text(), *_RUNTIME_FLAGS)[:16]}.so"
    library = ctypes.CDLL(str(_made(target, text, lambda: [*_RUNTIME_FLAGS, "-I", str(_HEADER.parent)])), ctypes.RTLD_GLOBAL)
    library.mi_set_turn.argtypes = (ctypes.c_bool, ctypes.c_bool, ctypes.c_int)
    library.mi_set_seed.argtypes = (ctypes.c_uint64,)
    return library


def _made(
    target: Path, text: str, flags: Callable[[], Sequence[str]], *, is_linked: bool = False, source_path: Path | None = None
) -> Path:
    """The target, compiled from the text unless it is there; by one process, while others that want it wait.

    ``is_linked``: the compiler gives an object, and the linker makes a library of it.
    """
    if target.exists():
        return target
    extra = flags()
    source = source_path or target.with_suffix(".cpp")
    with source.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not target.exists():
            held.truncate(0)
            held.write(text)
            held.flush()
            _compile(source, target, extra, is_linked=is_linked)
    return target


def _compile(source: Path, target: Path, flags: Sequence[str], *, is_linked: bool) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=target.suffix)
    os.close(handle)
    product = f"{name}.o" if is_linked else name
    commands = [[_compiler(), *flags, *(["-c"] if is_linked else []), str(source), "-o", product]]
    if is_linked:
        commands.append([_part("--print-prog-name=ld"), *_LINKING, product, _part("--print-libgcc-file-name"), "-o", name])
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{source} does not compile for this processor:\n{done.stderr[:3000]}")
        Path(name).replace(target)  # atomic: other processes see all of it or nothing
    finally:
        for left in {name, product}:
            Path(left).unlink(missing_ok=True)


@cache
def _part(flag: str) -> str:
    """Where a part of the compiler is, which it tells for the flag."""
    return subprocess.run([_compiler(), flag], capture_output=True, text=True, check=True).stdout.strip()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join((_version(), *parts)).encode()).hexdigest()[:32]


def _compiler() -> str:
    """g++, or what CXX names. Raises RuntimeError when there is none."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise RuntimeError(f"the emulated GPU needs a C++17 compiler, and there is no {compiler}: install g++, or set CXX")
    return compiler


@cache
def _version() -> str:
    """Which compiler this is, and what it compiles for."""
    return subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True).stdout + os.uname().machine


@cache
def folder() -> Path:
    """Where compiled kernels are kept."""
    named = os.environ.get("MINIINFER_EMULATION_FOLDER")
    where = Path(named) if named else Path(__file__).parents[2] / "build" / "emulation"
    where.mkdir(parents=True, exist_ok=True)
    return where
