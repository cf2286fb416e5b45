"""Kernels from CUDA C++ to cubins by NVRTC, which needs neither a GPU nor a driver."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.backends.cuda.driver.bindings import load_nvrtc
from miniinfer_cli.backends.cuda.driver.check import call, fault
from miniinfer_cli.backends.cuda.driver.libraries import find_headers
from miniinfer_cli.errors import DeviceError, UsageError
from miniinfer_cli.visible import visible

_LOG_LINES = 20  # of the compiler's log that the error repeats
# Tensor cores that wait for each other, and registers that are not handed over. NVRTC 13.5 has more reasons than these three
# (C7511: too few registers), and begins them all with the same words.
_SLOW = re.compile(r"\(C75(08|10|18)\)|Potential Performance Loss")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_SHARED = re.compile(r"(\d+) bytes smem")


OLDEST_ARCH = 80
"""The oldest architecture that the kernels are written for."""


class KernelCompileError(DeviceError):
    """A kernel did not compile, or not to what it is meant to be: a bug of ours, or of a plugin.

    ``log`` is the compiler's whole output, ``text`` the source.
    """

    def __init__(self, name: str, log: str, text: str) -> None:
        lines = [line for line in log.splitlines() if line.strip()]
        slow = next((line for line in lines if _SLOW.search(line)), lines[0] if lines else "the compiler does not say why")
        first = next((line for line in lines if "error:" in line), slow)
        more = [f"... {len(lines) - _LOG_LINES} more lines"] if len(lines) > _LOG_LINES else []
        shown = "".join(f"\n    {visible(line)}" for line in [*lines[:_LOG_LINES], *more])
        super().__init__(first.strip(), hint=f"the compiler's log:{shown}", where=(f"kernel {name}",))
        self.log = log
        self.text = text

    def _told(self, message: str, hint: str) -> str:
        head, *log = hint.split("\n")  # the only hint that has lines
        return "\n".join([super()._told(message, head), *log])


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """Machine code, and what the compiler said of it."""

    code: bytes
    log: str

    @property
    def resources(self) -> str:
        """Registers of a thread, bytes that found no room in them, and static shared memory of a block; empty if not told."""
        registers = _REGISTERS.search(self.log)
        if registers is None:
            return ""
        spills, shared = _SPILLS.search(self.log), _SHARED.search(self.log)
        spilled = int(spills[1]) + int(spills[2]) if spills else 0
        return f"{registers[1]} registers, {spilled} bytes spilled, {shared[1] if shared else 0} bytes of shared memory"


@functools.cache
def nvrtc_version() -> tuple[int, int]:
    """Major and minor version. Loads the library, which takes 0.1 s. Raises DeviceError when it is not found."""
    nvrtc = load_nvrtc()
    try:
        major, minor = call(nvrtc.nvrtcVersion)
    except RuntimeError as error:  # cuda.pathfinder's, when it finds no library
        reason = str(error).strip().partition("\n")[0]
        raise DeviceError(f"NVRTC is not found: {reason}", hint="pip install 'nvidia-cuda-nvrtc>=13,<14'") from None
    return major, minor


def expect_arch(arch: int) -> None:
    """Raises UsageError for an architecture (90 for sm_90) that this compiler does not know, DeviceError where there is none."""
    version = ".".join(map(str, nvrtc_version()))
    known = list(call(load_nvrtc().nvrtcGetSupportedArchs))
    if arch not in known:
        hint = f"NVRTC {version} knows {', '.join(f'sm_{a}' for a in known if a >= OLDEST_ARCH)}"
        raise UsageError(f"architecture sm_{arch} is not known to the compiler", hint=hint)


def compile_options(arch: int, options: Sequence[str] = ()) -> tuple[str, ...]:
    """All options of a compilation for ``arch`` (90 for sm_90), ``options`` last. One that names an architecture wins."""
    named = any(o.startswith(("-arch", "--gpu-architecture")) for o in options)
    target = () if named else (f"--gpu-architecture=sm_{arch}",)
    headers = find_headers()
    folders = [p for p in headers[:2] if p is not None] if headers else []
    return (*target, "--std=c++17", "--ptxas-options=-v", *(f"--include-path={folder}" for folder in folders), *options)


def compile_kernel(text: str, name: str, arch: int, headers: Mapping[str, str], options: Sequence[str] = ()) -> CompiledKernel:
    """Compiles CUDA C++17 to the machine code of one architecture (90 for sm_90).

    ``name``, of a file or a kernel, is for messages. ``headers``: text of each file that ``text`` includes, by the name it
    includes it by; CUDA's own are found where they are installed. Never PTX, which an older driver refuses. Other threads run
    meanwhile. Raises KernelCompileError with the compiler's log, also where it says that it made tensor cores wait for each
    other.
    """
    nvrtc_version()  # says it better when the library is missing
    nvrtc = load_nvrtc()
    sources = [h.encode() for h in headers.values()]
    names = [n.encode() for n in headers]
    flags = [o.encode() for o in compile_options(arch, options)]
    file = name if name.endswith(".cu") else f"{name}.cu"
    program = call(nvrtc.nvrtcCreateProgram, text.encode(), file.encode(), len(names), sources, names)
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(flags), flags)[0]
        log = _read(nvrtc, "ProgramLog", program).decode(errors="replace").rstrip("\0")
        if status:
            if status != nvrtc.nvrtcResult.NVRTC_ERROR_COMPILATION:
                error = fault(status, "nvrtcCompileProgram").at(f"kernel {name}")
                error.own_hint = "; ".join(log.split("\n")).strip("; ")
                raise error
            raise KernelCompileError(name, log, text)
        if _SLOW.search(log):
            raise KernelCompileError(name, log, text)
        # How long it took is no property of the code: equal sources have equal logs.
        kept = "".join(line for line in log.splitlines(keepends=True) if "Compile time" not in line)
        return CompiledKernel(_read(nvrtc, "CUBIN", program), kept)
    finally:
        call(nvrtc.nvrtcDestroyProgram, program)


def _read(nvrtc: Any, what: str, program: Any) -> bytes:
    size = call(getattr(nvrtc, f"nvrtcGet{what}Size"), program)
    buffer = bytearray(size)
    call(getattr(nvrtc, f"nvrtcGet{what}"), program, buffer)
    return bytes(buffer)
