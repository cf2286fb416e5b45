"""CumSum and CumProd: running sums and products along one axis."""

from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.element_types import INDICES, REAL
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.operands import ints_of
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis


def _infer_for(op: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, axis: TensorType, *, exclusive: int = 0, reverse: int = 0) -> TensorType:
        """Same type as ``x``; ``axis`` is a tensor of one integer."""
        if axis.is_static and axis.shape not in ((), (1,)):
            raise ModelError(f"{op} expects one axis, got {axis}")
        if x.rank == 0:
            raise ModelError(f"{op} runs along an axis, and {x} has none")
        known = ints_of(axis)
        if known is not None and x.rank is not None:
            normal_axis(op, known[0], x)
        return TensorType(x.dtype, x.shape)

    return infer


def _reference_for(accumulate: Callable[..., Any], neutral: int) -> Callable[..., Array]:
    @widen_half
    def reference(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
        """The running result along ``axis``; ``exclusive`` leaves each element's own value out, ``reverse`` runs from
        the end. Source: ONNX CumSum-14, CumProd-26.
        """
        at = int(np.asarray(axis).reshape(-1)[0])
        moved = np.moveaxis(x, at, -1)
        if reverse:
            moved = moved[..., ::-1]
        if exclusive:
            # Shift by one and start from the neutral element.
            shifted = np.full(moved.shape, neutral, x.dtype)
            shifted[..., 1:] = moved[..., :-1]
            moved = shifted
        result = accumulate(moved, axis=-1, dtype=x.dtype)
        if reverse:
            result = result[..., ::-1]
        return np.ascontiguousarray(np.moveaxis(result, -1, at))

    return reference


CUM_SUM = define(
    "CumSum", infer=_infer_for("CumSum"), reference=_reference_for(np.cumsum, 0), takes=(REAL, INDICES), symbolic=True
)
CUM_PROD = define(
    "CumProd", infer=_infer_for("CumProd"), reference=_reference_for(np.cumprod, 1), takes=(REAL, INDICES), symbolic=True
)
