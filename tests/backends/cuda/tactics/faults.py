"""Faults written into kernels, each of which a schedule must show: all before a release, some in every run of the tests."""

import os
from collections.abc import Iterable

from miniinfer_cli.backends.cuda.codegen.sources import FOLDER

ALL = bool(os.environ.get("MINIINFER_FAULTS"))
"""All of them, and what else takes long of these kernels: MINIINFER_FAULTS=1, which `make mutants` sets."""
_ONE_OF = 4


def some_of(names: Iterable[str]) -> list[str]:
    """One of four, or all: each has a kernel of its own to be compiled."""
    return list(names)[:: 1 if ALL else _ONE_OF]


def kernel_text(name: str, *headers: str) -> str:
    """The text of a kernel of ``sm90/``, with these of its headers in their places: so faults can be written into them."""
    text = (FOLDER / "sm90" / f"{name}.cu").read_text()
    for header in headers:
        included = f'#include "sm90/{header}.cuh"\n'
        assert text.count(included) == 1
        text = text.replace(included, (FOLDER / "sm90" / f"{header}.cuh").read_text().replace("#pragma once\n", ""))
    return text
