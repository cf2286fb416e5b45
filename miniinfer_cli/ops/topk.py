"""TopK: the largest or smallest elements along one axis, with their indices."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, TensorType
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis


def infer_topk(
    x: TensorType, k: TensorType, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[TensorType, TensorType]:
    """Values like ``x`` and i64 indices, both with ``axis`` of size ``k``."""
    if x.shape is None:
        return TensorType(x.dtype), TensorType(DType.I64)
    at = normal_axis("TopK", axis, x)
    count: Dim = UNKNOWN
    if k.known is not None and k.known.size == 1:
        item = k.known.reshape(-1)[0]
        count = int(item) if isinstance(item, (int, np.integer)) else item
    elif k.is_static and k.shape not in ((), (1,)):
        raise ModelError(f"TopK expects one number k, got {k}")
    if isinstance(count, int):
        size = x.shape[at]
        if count < 0 or (isinstance(size, int) and count > size):
            raise ModelError(f"TopK k {count} is outside [0, {size}], the size of axis {at} of input {x}")
    shape = (*x.shape[:at], count, *x.shape[at + 1 :])
    return TensorType(x.dtype, shape), TensorType(DType.I64, shape)


def topk(x: Array, k: Array, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Array, Array]:
    """The ``k`` extreme elements in order, equal ones by increasing index. Source: ONNX TopK-24.

    ``sorted`` = 0 leaves the order open, so the sorted one serves. NaN counts as the largest.
    """
    count = int(np.asarray(k).reshape(-1)[0])
    size = x.shape[axis]
    if largest:
        # A stable ascending sort of the reversed axis, read backwards: descending, equal elements by increasing index.
        order = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
        indices = size - 1 - np.flip(order, axis)
    else:
        indices = np.argsort(x, axis=axis, kind="stable")
    indices = np.ascontiguousarray(np.take(indices, range(count), axis=axis), np.int64)
    return np.take_along_axis(x, indices, axis), indices


TOPK = define("TopK", infer=infer_topk, reference=topk, shape_operands=(1,))
