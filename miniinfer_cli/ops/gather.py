"""Reading by index: Gather, GatherElements, GatherND."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.element_types import INDICES
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import to_indices
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis, same_dim


def infer_gather(data: TensorType, indices: TensorType, *, axis: int = 0) -> TensorType:
    """``data`` with ``axis`` replaced by the shape of ``indices``."""
    if data.shape is None:
        return TensorType(data.dtype)
    check_not_scalar("Gather", data)
    at = normal_axis("Gather", axis, data)
    if indices.shape is None:
        return TensorType(data.dtype)
    return TensorType(data.dtype, data.shape[:at] + indices.shape + data.shape[at + 1 :])


def gather(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """The slices of ``data`` at ``indices`` along ``axis``. Raises ModelError for an index outside. Source: ONNX Gather-13."""
    return np.take(data, to_indices("Gather", indices, data.shape[axis]), axis=axis)


def infer_gather_elements(data: TensorType, indices: TensorType, *, axis: int = 0) -> TensorType:
    """The shape of ``indices`` with the element type of ``data``."""
    if data.rank is not None:
        check_not_scalar("GatherElements", data)
        normal_axis("GatherElements", axis, data)
        if indices.rank is not None and indices.rank != data.rank:
            raise ModelError(f"GatherElements: data {data} and indices {indices} differ in rank")
    if indices.shape is None:
        return TensorType(data.dtype, None if data.rank is None else (UNKNOWN,) * data.rank)
    return TensorType(data.dtype, indices.shape)


def gather_elements(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """Each element of ``data`` at its own position, but for ``axis``, whose coordinate comes from ``indices``.

    Source: ONNX GatherElements-13.
    """
    return data[element_index("GatherElements", data, indices, axis)]


def element_index(op: str, data: Array, indices: Array, axis: int) -> tuple[Array, ...]:
    """The index arrays of every element that ``indices`` points at along ``axis``; they broadcast to its shape."""
    axis %= data.ndim
    mesh = list(np.meshgrid(*(np.arange(n) for n in indices.shape), indexing="ij", sparse=True))
    mesh[axis] = to_indices(op, indices, data.shape[axis])
    return tuple(mesh)


def check_not_scalar(op: str, data: TensorType) -> None:
    """Raises ModelError when ``data`` has no axis."""
    if data.rank == 0:
        raise ModelError(f"{op} needs an axis, and {data} is a scalar")


def infer_gather_nd(data: TensorType, indices: TensorType, *, batch_dims: int = 0) -> TensorType:
    """The leading dimensions of ``indices``, then those of ``data`` that its last dimension does not index."""
    if data.shape is None or indices.shape is None:
        return TensorType(data.dtype)
    if not indices.shape or not data.shape:
        raise ModelError(f"GatherND of {data} by {indices}: neither may be a scalar")
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        return TensorType(data.dtype)
    if depth < 1 or not 0 <= batch_dims < min(len(data.shape), len(indices.shape)) or batch_dims + depth > len(data.shape):
        raise ModelError(f"GatherND: {depth} coordinates after {batch_dims} batch axes do not fit {data} by {indices}")
    batch = tuple(
        same_dim("GatherND", f"batch dimension {i} of {data} and {indices}", data.shape[i], indices.shape[i])
        for i in range(batch_dims)
    )
    return TensorType(data.dtype, batch + indices.shape[batch_dims:-1] + data.shape[batch_dims + depth :])


def gather_nd(data: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """The slices of ``data`` at the coordinates in the last axis of ``indices``, batch by batch. Source: ONNX GatherND-13."""
    lead = np.meshgrid(*(np.arange(n) for n in indices.shape[:batch_dims]), indexing="ij", sparse=True)
    rest = (1,) * (indices.ndim - 1 - batch_dims)
    mesh = [m.reshape(m.shape + rest) for m in lead]
    result: Array = data[(*mesh, *coordinates("GatherND", data.shape[batch_dims:], indices))]
    return result


def coordinates(op: str, shape: tuple[int, ...], indices: Array) -> tuple[Array, ...]:
    """The last axis of ``indices`` as one index array per leading axis of ``shape``."""
    return tuple(to_indices(op, indices[..., i], shape[i]) for i in range(indices.shape[-1]))


GATHER = define("Gather", infer=infer_gather, reference=gather, takes=(None, INDICES), symbolic=True, moves=True)
GATHER_ELEMENTS = define(
    "GatherElements", infer=infer_gather_elements, reference=gather_elements, takes=(None, INDICES), symbolic=True, moves=True
)
GATHER_ND = define("GatherND", infer=infer_gather_nd, reference=gather_nd, takes=(None, INDICES), symbolic=True, moves=True)
