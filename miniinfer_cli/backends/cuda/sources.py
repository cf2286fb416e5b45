"""The text of kernels: files of ``kernels/``, generated code, and the macros before them."""

from functools import cache
from pathlib import Path

from miniinfer_cli.backends.cuda.steps import Kernel

FOLDER = Path(__file__).parent / "kernels"


def kernel_text(kernel: Kernel) -> str:
    """The whole translation unit, with ``#include`` of files of ``headers()`` left in. Equal kernels have equal texts."""
    macros = "".join(f"#define {name} {value}\n" for name, value in kernel.defines)
    file = _file(kernel.file) if kernel.file else '#include "types.cuh"\n'
    return f"{macros}{file}\n{kernel.code}"


@cache
def headers() -> dict[str, str]:
    """The text of every header of ``kernels/``, by the name in ``#include``."""
    return {path.name: path.read_text() for path in sorted(FOLDER.glob("*.cuh"))}


@cache
def _file(name: str) -> str:
    return (FOLDER / name).read_text()
