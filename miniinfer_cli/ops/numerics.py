"""Numeric conventions of the references: half-width floats are computed in f32 and rounded once, at the node's outputs."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.sums import add_up


def is_half(array: Any) -> bool:
    """True for an array of a floating-point type narrower than 32 bits (f16, bf16, fp8)."""
    return isinstance(array, np.ndarray) and array.dtype.itemsize < 4 and (array.dtype.kind == "f" or "float" in array.dtype.name)


def widen_half(reference: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a reference take half-width inputs as f32, and gives its f32 results back in the first such input's type.

    Results of other types (indices, masks) stay as they are.
    """

    @functools.wraps(reference)
    def wrapped(*inputs: Any, **attrs: Any) -> Any:
        narrow = next((x.dtype for x in inputs if is_half(x)), None)
        if narrow is None:
            return reference(*inputs, **attrs)
        results = reference(*(x.astype(np.float32) if is_half(x) else x for x in inputs), **attrs)
        if isinstance(results, tuple):
            return tuple(_round(r, narrow) for r in results)
        return _round(results, narrow)

    return wrapped


def elementwise(function: Callable[..., Any]) -> Callable[..., Array]:
    """Makes a function of floating-point arrays a reference: half-width operands come as f32, the result is rounded to
    the first operand's type and is an array at rank 0 too, and infinities and NaN arise without a warning."""

    @functools.wraps(function)
    def reference(x: Array, *others: Any, **attrs: Any) -> Array:
        operands = [o.astype(np.float32) if is_half(o) else o for o in (x, *others)]
        with np.errstate(all="ignore"):
            return np.asarray(function(*operands, **attrs)).astype(x.dtype, copy=False)

    return reference


def mean(x: Array, axes: tuple[int, ...], *, keep: bool) -> Array:
    """The mean over ``axes`` in the type of ``x``; over nothing NaN, 0 for integers, without the warning that numpy prints."""
    if x.dtype.kind == "f" and x.size and axes:
        total = add_up(x, axes, keep=keep)
        return np.asarray(total / total.dtype.type(math.prod(x.shape[a] for a in axes)))
    if x.size or not axes:
        return np.asarray(np.mean(x, axis=axes, keepdims=keep, dtype=x.dtype))
    total = np.asarray(np.sum(x, axis=axes, keepdims=keep, dtype=x.dtype))
    return np.full_like(total, 0 if x.dtype.kind in "biu" else np.nan)


def _round(result: Any, narrow: np.dtype[Any]) -> Array:
    found: Array = np.asarray(result)
    return found.astype(narrow) if found.dtype == np.float32 else found
