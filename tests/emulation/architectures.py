"""Every kernel that a test runs on the emulated device compiles by NVRTC, too, for one of the architectures in turn."""

from collections.abc import Iterable
from functools import cache

from miniinfer_cli.backends.cuda.contract.architectures import is_for
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
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
        fitting = fitting_architectures(kernel)
        compile_for(kernel, fitting[int(digest, 16) % len(fitting)])
        done.touch()


def fitting_architectures(kernel: Kernel, among: Iterable[int] = ARCHITECTURES) -> tuple[int, ...]:
    """Those that the kernel is for; where it is for none ``among`` them, all that it is for."""
    return tuple(a for a in among if is_for(kernel.arch, a)) or tuple(a for a in ARCHITECTURES if is_for(kernel.arch, a))


def compile_for(kernel: Kernel, arch: int) -> bytes:
    """The kernel's cubin for ``sm_ARCH``."""
    (source,) = sources_of([kernel], arch)
    return compile_kernel(source.text, source.name, source.arch, source.headers, source.options).code
