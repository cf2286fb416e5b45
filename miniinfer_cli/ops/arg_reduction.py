"""ArgMax and ArgMin: the index of the extreme along one axis."""

from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, TensorType
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.reduction import reduced_shape
from miniinfer_cli.ops.registry import define


def _infer_for(op: str) -> Callable[..., TensorType]:
    def infer(data: TensorType, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> TensorType:
        """i64 indices; ``axis`` is gone, or of size 1 when ``keepdims``. ModelError where there is nothing to point at."""
        shape = reduced_shape(op, data, (axis,), bool(keepdims))
        if data.shape and data.shape[axis] == 0 and shape is not None and all(isinstance(d, int) and d > 0 for d in shape):
            raise ModelError(f"{op} along axis {axis} of {data}: there is no element")
        return TensorType(DType.I64, shape)

    return infer


def _reference_for(find: Callable[..., Any]) -> Callable[..., Array]:
    def reference(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
        """The index of the first (or last) extreme along ``axis``. Source: ONNX ArgMax-13, ArgMin-13."""
        if data.ndim == 0:
            return np.zeros((), np.int64)
        others = np.delete(data.shape, axis)
        if 0 in others:  # numpy refuses an axis of no elements even where no index is asked for
            result = np.zeros(others, np.int64)
        elif select_last_index:
            result = data.shape[axis] - 1 - find(np.flip(data, axis), axis=axis)
        else:
            result = find(data, axis=axis)
        result = np.asarray(result, np.int64)
        return np.expand_dims(result, axis) if keepdims else result

    return reference


ARG_MAX = define("ArgMax", infer=_infer_for("ArgMax"), reference=_reference_for(np.argmax), takes=(REAL,))
ARG_MIN = define("ArgMin", infer=_infer_for("ArgMin"), reference=_reference_for(np.argmin), takes=(REAL,))
