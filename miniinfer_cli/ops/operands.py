"""Reading the contents of shape operands (axes, sizes, pads, scales), in shape rules and in references."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, Sym, TensorType


def dims_of(x: TensorType | None) -> tuple[Dim, ...] | None:
    """The contents of an integer operand, flattened, as ints and symbolic dimensions; None when not known or absent.

    Raises ModelError when it is of another type, known or not.
    """
    if x is None:
        return None
    if not (x.dtype.is_integer or x.dtype is DType.BOOL):
        raise ModelError(f"an operand that holds sizes, axes or counts is {x}, expected integers")
    if x.known is None:
        return () if x.shape is not None and 0 in x.shape else None
    return tuple(i if isinstance(i, Sym) else int(i) for i in x.known.reshape(-1).tolist())


def ints_of(x: TensorType | None) -> tuple[int, ...] | None:
    """The contents of an integer operand, flattened, as ints; None when not known, symbolic, or absent."""
    dims = dims_of(x)
    if dims is None or any(isinstance(d, Sym) for d in dims):
        return None
    return tuple(int(d) for d in dims)


def floats_of(x: TensorType | None) -> tuple[float, ...] | None:
    """The contents of a floating-point operand, flattened; None when not known or absent."""
    if x is None or x.concrete is None:
        return None
    if not (x.dtype.is_float or x.dtype.is_integer):
        raise ModelError(f"an operand that holds scales is {x}, expected real numbers")
    return tuple(float(i) for i in x.concrete.reshape(-1))


def count_of(what: str, x: TensorType) -> int | None:
    """How many elements a vector (or scalar) has; None when that is not known. Raises ModelError for higher ranks."""
    if x.shape is None:
        return None
    if len(x.shape) > 1:
        raise ModelError(f"{what} should be a vector, got {x}")
    (size,) = x.shape or (1,)
    return size if isinstance(size, int) else None


def expect_one_item(what: str, x: TensorType | None) -> None:
    """Raises ModelError when an operand that is one number, of whatever rank, has more or none. ``what`` names it."""
    if x is not None and x.shape is not None and any(isinstance(d, int) and d != 1 for d in x.shape):
        raise ModelError(f"{what} is one number, got {x}")


def contents(dims: Iterable[Any], dtype: DType = DType.I64) -> Array:
    """What ``TensorType.known`` holds for a 1-D integer tensor of these dimensions: int64, or object where one is symbolic."""
    items = list(dims)
    return np.array(items, object if any(isinstance(d, Sym) for d in items) else np.dtype(f"int{dtype.bits}"))


def to_ints(operand: Array) -> list[int]:
    """The elements of an integer operand of a reference, flattened. Raises Undecided when one is symbolic."""
    return [int(i) for i in operand.reshape(-1)]


def to_dims(op: str, operand: Array) -> list[int]:
    """The elements of an operand that holds dimensions. Raises ModelError when one is negative, Undecided when symbolic."""
    dims = to_ints(operand)
    if any(d < 0 for d in dims):
        raise ModelError(f"{op}: the dimensions {dims} are not all 0 or more")
    return dims


def to_scalar(operand: Array) -> Any:
    """The only element of an operand that may be a scalar or a tensor of one element. Raises ModelError otherwise."""
    if operand.size != 1:
        raise ModelError(f"a scalar operand has {operand.size} elements, shape {list(operand.shape)}")
    return operand.reshape(-1)[0]


def to_indices(op: str, indices: Array, size: int, *, what: str = "index") -> Array:
    """``indices`` as int64 within [0, size), negative ones counted from the end. Raises ModelError when one is outside."""
    exact = indices.astype(np.int64, copy=False)
    if exact.size == 0:
        return exact
    low, high = int(exact.min()), int(exact.max())
    if low < -size or high >= size:
        raise ModelError(
            f"{op} {what} {high if high >= size else low} is outside [{-size}, {size - 1}]",
            hint="look at the integer input that the indices come from",
        )
    return exact + np.int64(size) * (exact < 0) if low < 0 else exact
