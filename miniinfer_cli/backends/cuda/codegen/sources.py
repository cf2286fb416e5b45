"""The text of kernels: files of ``kernels/``, generated code, and the macros before them."""

import re
from functools import cache
from pathlib import Path

from miniinfer_cli.backends.cuda.contract.steps import Kernel

FOLDER = Path(__file__).parents[1] / "kernels"
_INCLUDES = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def kernel_text(kernel: Kernel) -> str:
    """The whole translation unit, with ``#include`` of files of ``headers()`` left in. Equal kernels have equal texts."""
    macros = "".join(f"#define {name} {value}\n" for name, value in kernel.defines)
    return f"{macros}{template_text(kernel)}"


def template_text(kernel: Kernel) -> str:
    """The same without the macros: kernels of one file that differ in these alone have one template."""
    file = _file(kernel.file) if kernel.file else '#include "types.cuh"\n'
    return f"{file}\n{kernel.code}"


@cache
def headers() -> dict[str, str]:
    """The text of every header of ``kernels/``, by the name in ``#include``: ``types.cuh``, ``sm90/wgmma.cuh``."""
    return {path.relative_to(FOLDER).as_posix(): path.read_text() for path in sorted(FOLDER.rglob("*.cuh"))}


def reached_headers(text: str) -> list[str]:
    """The names of those of ``headers()`` that a text includes, and that these include in turn."""
    reached: list[str] = []
    pending = [text]
    while pending:
        for name in _INCLUDES.findall(pending.pop()):
            if name not in reached:
                reached.append(name)
                pending.append(headers()[name])
    return reached


@cache
def _file(name: str) -> str:
    return (FOLDER / name).read_text()
