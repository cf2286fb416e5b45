"""Operands in the type that a routine computes in."""

from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Site
from miniinfer_cli.ir import Array, numpy_dtype


def operand(site: Site, number: int, dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    """How to get operand ``number`` in ``dtype``: as it is, upcast at each call, or upcast once where it is a constant."""
    kind = site.inputs[number]
    if kind is None or numpy_dtype(kind.dtype) == dtype:
        return lambda array: array
    handle = site.handles[number]
    if handle is None:
        return lambda array: array.astype(dtype)
    wide = site.weights.derived(handle, f"as {dtype}", lambda a: a.astype(dtype))
    return lambda array: wide
