"""Every kernel that a test runs on the emulated device compiles by NVRTC for each architecture, too."""

from functools import cache

from cuda.bindings import nvrtc

from miniinfer_cli.backends.cuda.sources import headers, kernel_text
from miniinfer_cli.backends.cuda.steps import Kernel
from tests.emulation.compiler import digest_of, folder

ARCHITECTURES = (80, 90, 100)


@cache
def compile_everywhere(kernel: Kernel) -> None:
    """Raises AssertionError with the compiler's words when NVRTC refuses the kernel for one of the architectures."""
    done = folder() / f"{digest_of(kernel)}.nvrtc"
    if done.exists():
        return
    names = headers()
    for arch in ARCHITECTURES:
        status, program = nvrtc.nvrtcCreateProgram(
            kernel_text(kernel).encode(),
            (kernel.file or "generated.cu").encode(),
            len(names),
            [t.encode() for t in names.values()],
            [n.encode() for n in names],
        )
        assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
        options = [f"--gpu-architecture=sm_{arch}".encode(), b"--std=c++17"]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = b" " * nvrtc.nvrtcGetProgramLogSize(program)[1]
            nvrtc.nvrtcGetProgramLog(program, log)
            raise AssertionError(f"{kernel} for sm_{arch}:\n{log.decode()}")
        nvrtc.nvrtcDestroyProgram(program)
    done.touch()
