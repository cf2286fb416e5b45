"""Writing by index: Scatter, ScatterElements, ScatterND, TensorScatter."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.element_types import INDICES
from miniinfer_cli.ops.gather import check_not_scalar, coordinates, element_index
from miniinfer_cli.ops.numerics import is_half
from miniinfer_cli.ops.operands import to_ints
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis, same_dim

_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def infer_scatter_elements(
    data: TensorType, indices: TensorType, updates: TensorType, *, axis: int = 0, reduction: str = "none"
) -> TensorType:
    """Same type as ``data``."""
    _check_reduction("ScatterElements", reduction, data, updates)
    if data.rank is not None:
        check_not_scalar("ScatterElements", data)
        normal_axis("ScatterElements", axis, data)
        for x in (indices, updates):
            if x.rank is not None and x.rank != data.rank:
                raise ModelError(f"ScatterElements: data {data}, indices {indices} and updates {updates} differ in rank")
    for i, (d, u) in enumerate(zip(indices.shape or (), updates.shape or (), strict=False)):
        same_dim("ScatterElements", f"dimension {i} of indices {indices} and updates {updates}", d, u)
    return TensorType(data.dtype, data.shape)


def scatter_elements(data: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none") -> Array:
    """A copy of ``data`` with each update at its own position, but for ``axis``, whose coordinate comes from ``indices``.

    With a reduction, updates combine with what is there, also where indices repeat. Source: ONNX ScatterElements-18.
    """
    return _written(data, element_index("ScatterElements", data, indices, axis), updates, reduction)


def infer_scatter(data: TensorType, indices: TensorType, updates: TensorType, *, axis: int = 0) -> TensorType:
    """Same type as ``data``."""
    return infer_scatter_elements(data, indices, updates, axis=axis)


def scatter(data: Array, indices: Array, updates: Array, *, axis: int = 0) -> Array:
    """The deprecated name of ScatterElements without a reduction. Source: ONNX Scatter-11."""
    return scatter_elements(data, indices, updates, axis=axis)


def infer_scatter_nd(data: TensorType, indices: TensorType, updates: TensorType, *, reduction: str = "none") -> TensorType:
    """Same type as ``data``."""
    _check_reduction("ScatterND", reduction, data, updates)
    if data.shape is None or indices.shape is None or updates.shape is None:
        return TensorType(data.dtype, data.shape)
    depth = indices.shape[-1] if indices.shape else 0
    if isinstance(depth, int):
        if not 0 < depth <= len(data.shape):
            raise ModelError(f"ScatterND: {depth} coordinates do not index {data}")
        expected = indices.shape[:-1] + data.shape[depth:]
        if len(expected) != len(updates.shape):
            raise ModelError(f"ScatterND: updates {updates} should have rank {len(expected)} for {data} and {indices}")
        for i, (d, u) in enumerate(zip(expected, updates.shape, strict=True)):
            same_dim("ScatterND", f"dimension {i} of updates {updates}", u, d)
    return TensorType(data.dtype, data.shape)


def scatter_nd(data: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """A copy of ``data`` with ``updates`` written to the coordinates in the last axis of ``indices``.

    Source: ONNX ScatterND-18.
    """
    return _written(data, coordinates("ScatterND", data.shape, indices), updates, reduction)


def infer_tensor_scatter(
    past_cache: TensorType,
    update: TensorType,
    write_indices: TensorType | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> TensorType:
    """Same type as ``past_cache``."""
    if mode not in ("linear", "circular"):
        raise ModelError(f"TensorScatter mode {mode!r} is neither linear nor circular")
    if past_cache.shape is not None:
        at = normal_axis("TensorScatter", axis, past_cache)
        if at == 0:
            raise ModelError("TensorScatter axis 0 is the batch axis")
        if update.shape is not None:
            if len(update.shape) != len(past_cache.shape):
                raise ModelError(f"TensorScatter: cache {past_cache} and update {update} differ in rank")
            for i, (d, u) in enumerate(zip(past_cache.shape, update.shape, strict=True)):
                if i != at:
                    same_dim("TensorScatter", f"dimension {i} of cache {past_cache} and update {update}", d, u)
                elif isinstance(d, int) and isinstance(u, int) and u > d:
                    raise ModelError(f"TensorScatter: update {update} is longer than the cache {past_cache} along axis {at}")
    return TensorType(past_cache.dtype, past_cache.shape)


def tensor_scatter(
    past_cache: Array, update: Array, write_indices: Array | None = None, *, axis: int = -2, mode: str = "linear"
) -> Array:
    """A copy of the cache with ``update`` written along ``axis`` from each sample's write index on; circular mode wraps.

    Source: ONNX TensorScatter-24.
    """
    axis %= past_cache.ndim
    starts = np.zeros(past_cache.shape[0], np.int64) if write_indices is None else np.array(to_ints(write_indices), np.int64)
    size, count = past_cache.shape[axis], update.shape[axis]
    places = starts[:, None] + np.arange(count)
    if mode == "circular":
        places %= size
    elif places.size and (places.min() < 0 or places.max() >= size):
        raise ModelError(
            f"TensorScatter writes {count} entries at {int(starts.max())} into a cache of {size}",
            hint="mode 'circular' wraps around",
        )
    out = np.moveaxis(past_cache.copy(), axis, 1)
    out[np.arange(len(starts))[:, None], places] = np.moveaxis(update, axis, 1)
    return np.moveaxis(out, 1, axis)


def _written(data: Array, index: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    if reduction == "none":
        out = data.copy()
        out[index] = updates
        return out
    if is_half(data):  # several updates may meet in one place: add them up in f32 and round once
        return _written(data.astype(np.float32), index, updates.astype(np.float32), reduction).astype(data.dtype)
    out = data.copy()
    _REDUCTIONS[reduction].at(out, index, updates)
    return out


def _check_reduction(op: str, reduction: str, data: TensorType, updates: TensorType) -> None:
    if reduction != "none" and reduction not in _REDUCTIONS:
        raise ModelError(f"{op} reduction {reduction!r} is not one of none, {', '.join(_REDUCTIONS)}")
    if data.dtype != updates.dtype:
        raise ModelError(f"{op}: data {data} and updates {updates} differ in element type")


SCATTER = define("Scatter", infer=infer_scatter, reference=scatter, takes=(None, INDICES), symbolic=True)
SCATTER_ELEMENTS = define(
    "ScatterElements", infer=infer_scatter_elements, reference=scatter_elements, takes=(None, INDICES), symbolic=True
)
SCATTER_ND = define("ScatterND", infer=infer_scatter_nd, reference=scatter_nd, takes=(None, INDICES), symbolic=True)
TENSOR_SCATTER = define("TensorScatter", infer=infer_tensor_scatter, reference=tensor_scatter, takes=(None, None, INDICES))
