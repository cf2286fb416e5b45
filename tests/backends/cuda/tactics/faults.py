"""Faults written into kernels, each of which a schedule must show: all before a release, some in every run of the tests."""

import os
from collections.abc import Iterable

ALL = bool(os.environ.get("MINIINFER_FAULTS"))
"""All of them, and what else takes long of these kernels: MINIINFER_FAULTS=1, which `make mutants` sets."""
_ONE_OF = 4


def some_of(names: Iterable[str]) -> list[str]:
    """One of four, or all: each has a kernel of its own to be compiled."""
    return list(names)[:: 1 if ALL else _ONE_OF]
