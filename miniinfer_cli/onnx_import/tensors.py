"""TensorProto and SparseTensorProto as constants: file ranges where they are large, arrays where they are small."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from engine_format.dtypes import DType
from engine_format.layout import MAX_RANK
from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Array, Constant, TensorType, constant, numpy_dtype
from miniinfer_cli.ir.arrays import unpack
from miniinfer_cli.ir.constants import ArrayConstant, Index, MappedConstant
from miniinfer_cli.onnx_import.external_data import ExternalFiles
from miniinfer_cli.onnx_import.names import as_text
from miniinfer_cli.onnx_import.wire import LARGE_NBYTES
from miniinfer_cli.ops.type_codes import dtype_of_code


class TensorReader:
    """Makes constants of one model's tensors.

    ``source`` is the buffer that the model was stripped from, with the ``ranges`` that the strip left out and the
    ``label`` of the buffer for people; a model that was not stripped has none.
    """

    def __init__(
        self, external: ExternalFiles, source: Any = b"", ranges: frozenset[tuple[int, int]] = frozenset(), label: str = ""
    ) -> None:
        self._external = external
        self._source = source
        self._ranges = ranges
        self._label = label

    def read(self, tensor: onnx.TensorProto) -> Constant:
        """The constant that ``tensor`` holds. Raises ModelError naming the tensor when its data does not fit."""
        try:
            return self._read(tensor)
        except MiniinferError as error:
            raise error.at(f"tensor {tensor.name!r}") if tensor.name else error from None

    def read_sparse(self, sparse: onnx.SparseTensorProto) -> Constant:
        """The dense constant that a sparse tensor stands for; it is filled in block by block when read."""
        values = self.read(sparse.values)
        shape = _shape(sparse.dims)
        indices = self.read(sparse.indices).array().astype(np.int64)
        flat = indices if indices.ndim == 1 else _flattened(indices, shape)
        if flat.shape != (values.size,):
            raise ModelError(f"sparse tensor {sparse.values.name!r} has {values.size} values and {flat.size} indices")
        if flat.size and (flat.min() < 0 or flat.max() >= math.prod(shape)):
            raise ModelError(f"sparse tensor {sparse.values.name!r} has an index outside its shape {list(shape)}")
        order = np.argsort(flat, kind="stable")
        dense = Scattered(values.dtype, shape, flat[order], values.array().reshape(-1)[order])
        return constant(dense.array()) if dense.is_small else dense

    def _read(self, tensor: onnx.TensorProto) -> Constant:
        dtype = dtype_of_code(tensor.data_type)
        shape = _shape(tensor.dims)
        count = math.prod(shape)
        nbytes = dtype.nbytes(count)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if dtype is DType.STR:
                raise ModelError("strings cannot be external data")
            data, name = self._external.range({as_text(e.key): as_text(e.value) for e in tensor.external_data}, nbytes)
            return _over_bytes(data, dtype, shape, name)
        if tensor.HasField("segment"):
            begin, end = tensor.segment.begin, tensor.segment.end
            if (begin, end) not in self._ranges:
                raise ModelError("it is stored in segments, which ONNX does not define further")
            _expect_nbytes(end - begin, nbytes, dtype, shape)
            return _over_bytes(self._source[begin:end], dtype, shape, f"{self._label}@{begin}")
        if tensor.HasField("raw_data") and dtype is not DType.STR:
            raw = tensor.raw_data
            _expect_nbytes(len(raw), nbytes, dtype, shape)
            return _over_bytes(memoryview(raw), dtype, shape, f"{self._label}:{tensor.name}")
        return ArrayConstant(dtype, shape, _typed_data(tensor, dtype, shape, count))


_MOST_ELEMENTS = 1 << 56  # beyond every memory; bytes of any type are still counted in 64 bits


@dataclass(frozen=True, slots=True, eq=False)
class Scattered(Constant):
    """Zeros, but for ``values`` at the flat positions ``indices``, which ascend."""

    indices: Array = field(repr=False)
    values: Array = field(repr=False)

    @property
    def held_nbytes(self) -> int:
        """Bytes of the values and their positions."""
        return int(self.indices.nbytes + self.values.nbytes)

    def block(self, index: Index) -> Array:
        """The contents at ``index``, filled in from the values that fall inside."""
        dense = np.zeros(tuple(s.stop - s.start for s in index), numpy_dtype(self.dtype))
        if not index:
            return self.values.reshape(()) if self.values.size else dense
        row = math.prod(self.shape[1:])
        first, last = np.searchsorted(self.indices, (index[0].start * row, index[0].stop * row))
        where = np.unravel_index(self.indices[first:last], self.shape)
        inside = np.ones(last - first, bool)
        for axis, s in zip(where, index, strict=True):
            inside &= (axis >= s.start) & (axis < s.stop)
        dense[tuple(axis[inside] - s.start for axis, s in zip(where, index, strict=True))] = self.values[first:last][inside]
        return dense


def _over_bytes(data: Any, dtype: DType, shape: tuple[int, ...], name: str) -> Constant:
    if len(data) >= LARGE_NBYTES:
        return MappedConstant(dtype, shape, data, name)
    return ArrayConstant(dtype, shape, unpack(bytes(data), dtype, shape))


def _typed_data(tensor: onnx.TensorProto, dtype: DType, shape: tuple[int, ...], count: int) -> Array:
    """The contents from the typed field that onnx.proto names for the element type."""
    items: Any
    if dtype is DType.STR:
        _expect_count(len(tensor.string_data), count, shape, dtype)
        out = np.empty(count, object)
        out[:] = [text(s) for s in tensor.string_data]
        return out.reshape(shape)
    if dtype in (DType.F32, DType.C64):
        items = np.array(tensor.float_data, np.float32)
    elif dtype in (DType.F64, DType.C128):
        items = np.array(tensor.double_data, np.float64)
    elif dtype is DType.I64:
        items = np.array(tensor.int64_data, np.int64)
    elif dtype in (DType.U64, DType.U32):
        items = np.array(tensor.uint64_data, np.uint64).astype(numpy_dtype(dtype))
    else:
        items = np.array(tensor.int32_data, np.int32)
        if dtype.bits < 8:  # one item holds a byte of packed elements
            return unpack(_whole(items, dtype.nbytes(count), dtype, shape).astype(np.uint8).tobytes(), dtype, shape)
        if dtype.is_half:  # one item holds the bits of one element
            items = items.astype(np.uint16 if dtype.bits == 16 else np.uint8).view(numpy_dtype(dtype))
        else:
            items = items.astype(numpy_dtype(dtype))
    if dtype in (DType.C64, DType.C128):
        items = _whole(items, 2 * count, dtype, shape).view(numpy_dtype(dtype))
    return _whole(items, count, dtype, shape).reshape(shape)


def text(data: bytes) -> str:
    """A string of the model; bytes that are not UTF-8 are kept as surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _whole(items: Array, wanted: int, dtype: DType, shape: tuple[int, ...]) -> Array:
    _expect_count(len(items), wanted, shape, dtype)
    return items


def _expect_count(got: int, wanted: int, shape: tuple[int, ...], dtype: DType) -> None:
    if got != wanted:
        raise ModelError(f"it holds {got} items, {TensorType(dtype, shape)} takes {wanted}")


def _expect_nbytes(got: int, wanted: int, dtype: DType, shape: tuple[int, ...]) -> None:
    if got != wanted:
        raise ModelError(f"it holds {got} bytes, {TensorType(dtype, shape)} takes {wanted}")


def _shape(dims: Any) -> tuple[int, ...]:
    shape = tuple(dims)
    if len(shape) > MAX_RANK:
        raise ModelError(f"its rank {len(shape)} is above {MAX_RANK}")
    if any(d < 0 for d in shape):
        raise ModelError(f"its shape {list(shape)} has a negative dimension")
    if math.prod(d for d in shape if d) > _MOST_ELEMENTS:  # one of no elements, too: numpy multiplies the others all the same
        raise ModelError(f"its shape {list(shape)} has more than {_MOST_ELEMENTS} elements, sizes of 0 apart")
    return shape


def _flattened(indices: Array, shape: tuple[int, ...]) -> Array:
    if indices.ndim != 2 or indices.shape[1] != len(shape):
        raise ModelError(f"the indices of a sparse tensor of shape {list(shape)} have shape {list(indices.shape)}")
    flat = np.zeros(len(indices), np.int64)
    for axis, size in enumerate(shape):
        if np.any((indices[:, axis] < 0) | (indices[:, axis] >= size)):
            raise ModelError(f"the indices of a sparse tensor leave its shape {list(shape)}")
        flat = flat * size + indices[:, axis]
    return flat
