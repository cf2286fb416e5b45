"""TopK: the largest or smallest elements along one axis, with their indices."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, TensorType
from miniinfer_cli.ops.element_types import INDICES, REAL
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis
from miniinfer_cli.ops.work import CALL, Attrs, Inputs, Outputs


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
    rows = np.moveaxis(x, axis, -1)
    if rows.shape[-1] >= _LONG and count <= rows.shape[-1] // 8 and x.dtype.kind in "fiu":
        flat = rows.reshape(-1, rows.shape[-1])
        indices = np.empty((len(flat), count), np.int64)
        for row, out in zip(flat, indices, strict=True):
            out[:] = _first_of_long(row, count, bool(largest))
        indices = indices.reshape(*rows.shape[:-1], count)
    else:
        indices = _order(rows, bool(largest))[..., :count]
    indices = np.ascontiguousarray(np.moveaxis(indices, -1, axis), np.int64)
    return np.take_along_axis(x, indices, axis), indices


_LONG = 4096  # elements; from here on, sorting all of a row costs more than finding the bound of the first k


def _order(rows: Array, largest: bool) -> Array:
    """The indices that sort the last axis, equal elements by increasing index."""
    if not largest:
        return np.argsort(rows, axis=-1, kind="stable")
    # A stable ascending sort of the reversed axis, read backwards, is descending with equal elements by increasing index.
    result: Array = rows.shape[-1] - 1 - np.argsort(rows[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    return result


def _first_of_long(row: Array, count: int, largest: bool) -> Array:
    """The first ``count`` indices of ``_order`` for one long row: only elements up to the bound are sorted."""
    if not count:
        return np.empty(0, np.int64)
    place = len(row) - count if largest else count - 1
    bound = np.partition(row, place)[place]
    # Asked the other way round, so that NaN is always in: it is the largest, whichever end is wanted.
    candidates = np.flatnonzero(~((row < bound) if largest else (row > bound)))
    return candidates[_order(row[candidates], largest)[:count]]


def _work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """Sorting, or a few calls for each long row."""
    x = inputs[0]
    return 0 if x is None else 500 * x.size + 20 * CALL * (x.size // max(x.shape[attrs.get("axis", -1)], _LONG))


TOPK = define("TopK", infer=infer_topk, reference=topk, takes=(REAL, INDICES), shape_operands=(1,), work=_work)
