"""Every kernel that a test runs on the emulated device compiles by NVRTC, too, for one of the architectures in turn."""

from functools import cache

from miniinfer_cli.backends.cuda.driver.nvrtc import compile_cubin
from miniinfer_cli.backends.cuda.sources import headers, kernel_text
from miniinfer_cli.backends.cuda.steps import Kernel
from tests.emulation.compiler import digest_of, folder

ARCHITECTURES = (80, 90, 100)


@cache
def compile_for_a_gpu(kernel: Kernel) -> None:
    """Raises KernelCompileError with the compiler's words when NVRTC refuses the kernel.

    The architecture follows from the kernel, so that each has its share; ``test_kernel_files.py`` does all of them.
    """
    digest = digest_of(kernel)
    done = folder() / f"{digest}.nvrtc"
    if not done.exists():
        compile_for(kernel, ARCHITECTURES[int(digest, 16) % len(ARCHITECTURES)])
        done.touch()


def compile_for(kernel: Kernel, arch: int) -> bytes:
    """The kernel's cubin for ``sm_ARCH``."""
    return compile_cubin(kernel_text(kernel), kernel.file or "generated.cu", arch, headers())
