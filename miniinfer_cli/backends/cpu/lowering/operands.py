"""Operands in the type that a routine computes in."""

from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Site
from miniinfer_cli.ir import Array, numpy_dtype
from miniinfer_cli.ops.products import Call


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


def stays(site: Site, dtype: np.dtype[Any]) -> bool:
    """True where no ``operand`` is upcast at each call: what is made of the operands once is true for all calls."""
    return all(
        kind is None or handle is not None or numpy_dtype(kind.dtype) == dtype
        for kind, handle in zip(site.inputs, site.handles, strict=True)
    )


def anew(ready: Callable[..., Call]) -> Callable[..., Call]:
    """``ready``, which is a Routine's ``prepare``, made at each call: for operands that are upcast there."""

    def prepare(*arguments: Any) -> Call:
        return lambda: ready(*arguments)()

    return prepare
