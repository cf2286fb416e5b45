"""Constants as handles: a small array, a range of a file, or a recipe over other constants.

A graph never holds a large constant in memory. Passes transform one by wrapping it in a recipe (transposed, scaled,
concatenated ...); only the plan writer and the CPU look inside, and the writer does so in blocks of bounded size.

Every handle answers ``block(index)``: the sub-array for one slice per axis. A recipe maps the index onto its sources,
so a block of any depth of recipes costs memory in proportion to the block.
"""

import functools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.ir.arrays import Array, dtype_of, numpy_dtype, pack, unpack

Index = tuple[slice, ...]  # one slice with start, stop and step 1 per axis

CHUNK_NBYTES = 16 << 20
SMALL_NBYTES = 64 << 10
STRING_NBYTES = 64  # of a string, besides its characters


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """The largest absolute values of a float constant along some axes, and the smallest that are not 0 (infinity: all are 0).

    In the constant's type, with the axes kept at size 1. NaN and infinity among the values show as one of them in ``largest``.
    """

    largest: Array
    smallest: Array


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Constant:
    """A constant tensor of ``dtype`` and static ``shape``; compared by identity."""

    dtype: DType
    shape: tuple[int, ...]
    _measured: dict[tuple[int, ...], Magnitudes] = field(default_factory=dict, init=False, repr=False)
    steps: int = field(init=False, repr=False)
    """How much is done for each element when it is asked for: 1 for what is stored. A source counts as often as it is read."""

    def __post_init__(self) -> None:
        """Counts the steps."""
        object.__setattr__(self, "steps", 1 + self._source_steps())

    def _source_steps(self) -> int:
        return 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes when densely packed."""
        return self.dtype.nbytes(self.size)

    @property
    def stored_nbytes(self) -> int:
        """Bytes that a plan takes for it, roughly: strings count as so many characters, and what leads to them."""
        if self.dtype is not DType.STR:
            return self.nbytes
        if isinstance(self, Filled):
            return self.size * (STRING_NBYTES + len(self.value))
        return sum(STRING_NBYTES + len(item) for item in self.array().reshape(-1))

    @property
    def held_nbytes(self) -> int:
        """Bytes that it takes as it is: those of the plan, but for one that is written out there."""
        return self.stored_nbytes

    @property
    def is_small(self) -> bool:
        """True when holding the whole contents in memory, many times over, costs nothing worth counting."""
        return self.nbytes <= SMALL_NBYTES

    def block(self, index: Index) -> Array:
        """The contents at ``index``, one slice per axis; may be a view."""
        raise NotImplementedError

    def array(self) -> Array:
        """The whole contents as a numpy array of ``shape``; may be a read-only view of a mapped file."""
        return self.block(tuple(slice(0, n) for n in self.shape))

    def chunks(self, nbytes: int = CHUNK_NBYTES) -> Iterator[bytes]:
        """The densely packed contents in order, in pieces of about ``nbytes``. Only one piece is in memory at a time."""
        for index in _blocks(self.shape, max(1, nbytes * 8 // max(self.dtype.bits, 8))):
            yield pack(self.block(index), self.dtype)

    def magnitudes(self, axes: Sequence[int]) -> Magnitudes:
        """How large the values of a float of 16 bits or more are, along ``axes`` (not negative).

        Everything is read, block by block, and only once: the answer is kept as long as the handle is.
        """
        axes = tuple(sorted(axes))
        if axes not in self._measured:
            self._measured[axes] = _measure(self, axes)
        return self._measured[axes]


@dataclass(frozen=True, slots=True, eq=False)
class ArrayConstant(Constant):
    """A constant held in memory; meant for small ones."""

    data: Array = field(repr=False)

    def block(self, index: Index) -> Array:
        return _part(self.data, index)


@dataclass(frozen=True, slots=True, eq=False)
class MappedConstant(Constant):
    """Densely packed little-endian bytes of a mapped file. ``buffer`` is a read-only view of exactly the tensor's bytes.

    ``source`` says where it came from (``model.onnx.data@4096``); it is for messages and for recognising the same bytes.
    """

    buffer: Any = field(repr=False)
    source: str = ""

    def block(self, index: Index) -> Array:
        if self.dtype.bits >= 8:
            return _part(unpack(self.buffer, self.dtype, self.shape), index)
        # Unpacking makes a copy: take only whole leading rows that share no byte with their neighbours.
        row = math.prod(self.shape[1:])
        if self.shape and row * self.dtype.bits % 8 == 0 and row:
            first = index[0]
            start, stop = self.dtype.nbytes(first.start * row), self.dtype.nbytes(first.stop * row)
            rows = unpack(self.buffer[start:stop], self.dtype, (first.stop - first.start, *self.shape[1:]))
            return rows[(slice(None), *index[1:])]
        return _part(unpack(self.buffer, self.dtype, self.shape), index)


@dataclass(frozen=True, slots=True, eq=False)
class Filled(Constant):
    """Every element is ``value``; takes no memory whatever its size."""

    value: Any = 0

    def block(self, index: Index) -> Array:
        shape = tuple(s.stop - s.start for s in index)
        return np.broadcast_to(np.array(self.value, numpy_dtype(self.dtype)), shape)


@dataclass(frozen=True, slots=True, eq=False)
class Reshaped(Constant):
    """The same elements in the same order under another shape."""

    source: Constant

    def _source_steps(self) -> int:
        return self.source.steps

    def block(self, index: Index) -> Array:
        full = tuple(slice(0, n) for n in self.shape)
        if index == full or self.size == 0:
            return _part(self.source.array().reshape(self.shape), index)
        # Take the covering run of the flattened source, which costs the block plus at most one leading row on each side.
        lead = index[0]
        row = math.prod(self.shape[1:])
        flat = _flat_run(self.source, lead.start * row, lead.stop * row)
        return flat.reshape(lead.stop - lead.start, *self.shape[1:])[(slice(None), *index[1:])]


@dataclass(frozen=True, slots=True, eq=False)
class Transposed(Constant):
    """``source`` with its axes permuted: axis i of the result is axis ``perm[i]`` of the source."""

    source: Constant
    perm: tuple[int, ...]

    def _source_steps(self) -> int:
        return self.source.steps

    def block(self, index: Index) -> Array:
        inner: list[slice] = [slice(0, 0)] * len(self.perm)
        for axis, s in zip(self.perm, index, strict=True):
            inner[axis] = s
        return self.source.block(tuple(inner)).transpose(self.perm)


@dataclass(frozen=True, slots=True, eq=False)
class Concatenated(Constant):
    """``sources`` joined along ``axis``."""

    sources: tuple[Constant, ...]
    axis: int

    def _source_steps(self) -> int:
        return max((s.steps for s in self.sources), default=0)

    def block(self, index: Index) -> Array:
        wanted, offset, parts = index[self.axis], 0, []
        for source in self.sources:
            start, stop = max(wanted.start - offset, 0), min(wanted.stop - offset, source.shape[self.axis])
            if start < stop:
                parts.append(source.block((*index[: self.axis], slice(start, stop), *index[self.axis + 1 :])))
            offset += source.shape[self.axis]
        if not parts:
            return np.empty(tuple(s.stop - s.start for s in index), numpy_dtype(self.dtype))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=self.axis)


@dataclass(frozen=True, slots=True, eq=False)
class Sliced(Constant):
    """The block of ``source`` that starts at ``start``, in steps of 1."""

    source: Constant
    start: tuple[int, ...]

    def _source_steps(self) -> int:
        return self.source.steps

    def block(self, index: Index) -> Array:
        return self.source.block(tuple(slice(s.start + o, s.stop + o) for s, o in zip(index, self.start, strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class Mapped(Constant):
    """An elementwise function of same-rank sources whose dimensions broadcast: scale, add, cast, dequantize ...

    ``function`` takes one block per source and must give, elementwise, this constant's block; it is named by ``label``
    in messages. Evaluated block by block.
    """

    sources: tuple[Constant, ...]
    function: Any
    label: str = ""

    def _source_steps(self) -> int:
        return sum(s.steps for s in self.sources)

    def block(self, index: Index) -> Array:
        blocks = []
        for source in self.sources:
            inner = tuple(slice(0, 1) if n == 1 else s for s, n in zip(index, source.shape, strict=True))
            blocks.append(source.block(inner))
        shape = tuple(s.stop - s.start for s in index)
        result = np.asarray(self.function(*blocks))
        with np.errstate(all="ignore"):  # what is beyond a narrower type is infinite there, as in the model itself
            narrow = result.astype(numpy_dtype(self.dtype), copy=False)
        return np.broadcast_to(narrow, shape)


@dataclass(frozen=True, slots=True, eq=False)
class PackedBytes(Constant):
    """The packed bytes of ``source``, as they lie in a file, as u8 of a shape of as many; equal where ``source`` is the same."""

    source: Constant

    def _source_steps(self) -> int:
        return self.source.steps

    def block(self, index: Index) -> Array:
        packed = b"".join(self.source.chunks())
        return _part(unpack(packed, self.dtype, self.shape), index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedBytes) and other.source is self.source and other.shape == self.shape

    def __hash__(self) -> int:
        return hash((PackedBytes, id(self.source), self.shape))


def packed_bytes(source: Constant, shape: tuple[int, ...]) -> PackedBytes:
    """``source`` as packed bytes of this shape. Raises ValueError where they are not as many."""
    if source.nbytes != math.prod(shape):
        raise ValueError(f"{source.dtype}{list(source.shape)} takes {source.nbytes} bytes, not {math.prod(shape)}")
    return PackedBytes(DType.U8, shape, source)


def constant(array: Any) -> ArrayConstant:
    """A handle on an array (anything numpy can make one of), which must not change afterwards."""
    array = np.asarray(array)
    return ArrayConstant(dtype_of(array), array.shape, array)


def reshaped(source: Constant, shape: tuple[int, ...]) -> Constant:
    """``source`` under another shape; a mapped file range stays one."""
    if isinstance(source, MappedConstant):
        return MappedConstant(source.dtype, shape, source.buffer, source.source)
    if isinstance(source, ArrayConstant):
        return ArrayConstant(source.dtype, shape, source.data.reshape(shape))
    return Reshaped(source.dtype, shape, source.source if isinstance(source, Reshaped) else source)


def reinterpreted(source: Constant, dtype: DType, shape: tuple[int, ...]) -> Constant:
    """The packed bytes of ``source`` as elements of another type; a mapped file range stays one. They must be as many bits."""
    if dtype.bits * math.prod(shape) != source.dtype.bits * source.size:
        raise ValueError(f"{source.size} elements of {source.dtype} are not as many bits as {math.prod(shape)} of {dtype}")
    if isinstance(source, MappedConstant):
        return MappedConstant(dtype, shape, source.buffer, source.source)
    return ArrayConstant(dtype, shape, unpack(pack(source.array(), source.dtype), dtype, shape))


def content_key(handle: Constant) -> Hashable:
    """Equal only for constants of equal contents, while both are alive: the same bytes of a file, or one recipe over such.

    Reads nothing of them.
    """
    kind = (type(handle).__name__, handle.dtype, handle.shape)
    match handle:
        case Filled():
            return (*kind, np.asarray(handle.value).tobytes())
        case MappedConstant() if len(handle.buffer):
            return (*kind, np.frombuffer(handle.buffer, np.uint8).ctypes.data)
        case Reshaped():
            return (*kind, content_key(handle.source))
        case Transposed():
            return (*kind, handle.perm, content_key(handle.source))
        case Sliced():
            return (*kind, handle.start, content_key(handle.source))
        case Concatenated():
            return (*kind, handle.axis, *map(content_key, handle.sources))
        case Mapped():
            return (*kind, _function_key(handle.function), *map(content_key, handle.sources))
    return (*kind, id(handle))


def as_transposed(handle: Constant) -> tuple[Constant, tuple[int, ...]] | None:
    """The constant, and the permutation of its axes, that give ``handle``; None where it is nothing transposed."""
    if isinstance(handle, Transposed):
        return handle.source, handle.perm
    if isinstance(handle, Mapped) and len(handle.sources) == 1 and isinstance(handle.sources[0], Transposed):
        inner = handle.sources[0]
        whole = Mapped(handle.dtype, inner.source.shape, (inner.source,), handle.function, handle.label)
        return whole, inner.perm
    return None


def _function_key(function: Any) -> Hashable:
    """Equal for functions that do the same: the same one, with the same arguments."""
    if isinstance(function, functools.partial):
        return (id(function.func), _argument_key(function.args), _argument_key(function.keywords))
    return id(function)


def _argument_key(item: Any) -> Hashable:
    if isinstance(item, np.ndarray) and item.dtype != object:
        return ("array", item.dtype.str, item.shape, item.tobytes())
    if isinstance(item, (list, tuple)):
        return (type(item).__name__, *map(_argument_key, item))
    if isinstance(item, dict):
        return ("dict", *((key, _argument_key(item[key])) for key in sorted(item)))
    if isinstance(item, (bool, int, str, bytes, type(None))):
        return (type(item).__name__, item)
    return ("float", repr(item)) if isinstance(item, float) else id(item)


def _measure(handle: Constant, axes: tuple[int, ...]) -> Magnitudes:
    # Without their sign, floats are ordered as the unsigned integers that their bits are, and those compare much faster.
    dtype = numpy_dtype(handle.dtype)
    bits = np.dtype(f"u{dtype.itemsize}")
    no_sign = bits.type(np.iinfo(bits).max >> 1)
    one = bits.type(1)
    shape = tuple(1 if i in axes else n for i, n in enumerate(handle.shape))
    largest, smallest = np.zeros(shape, bits), np.full(shape, np.array(np.inf, dtype).view(bits) - one)
    for index in _blocks(handle.shape, CHUNK_NBYTES // dtype.itemsize):
        at = (*(slice(0, 1) if i in axes else s for i, s in enumerate(index)), ...)
        block = np.asarray(handle.block(index).view(bits) & no_sign)
        largest[at] = np.maximum(largest[at], block.max(axis=axes, keepdims=True))
        block -= one  # so that 0 is larger than all others
        smallest[at] = np.minimum(smallest[at], block.min(axis=axes, keepdims=True))
    return Magnitudes(largest.view(dtype), (smallest + one).view(dtype))


def _part(array: Any, index: Index) -> Array:
    result: Array = array[(*index, ...)]  # with the ellipsis a scalar comes as an array too
    return result


def _flat_run(source: Constant, start: int, stop: int) -> Array:
    """Elements ``start`` to ``stop`` of the flattened source."""
    if not source.shape:
        return source.array().reshape(-1)[start:stop]
    row = math.prod(source.shape[1:])
    first, last = start // row, -(-stop // row)
    rest = tuple(slice(0, n) for n in source.shape[1:])
    rows = source.block((slice(first, last), *rest)).reshape(-1)
    return rows[start - first * row : stop - first * row]


def _blocks(shape: tuple[int, ...], limit: int) -> Iterator[Index]:
    """Indices that cover ``shape`` in row-major order, each of at most about ``limit`` elements and packable alone."""
    if math.prod(shape) == 0:
        return
    if not shape:
        yield ()
        return
    row = math.prod(shape[1:])
    if row > limit and len(shape) > 1 and row % 8 == 0:
        for i in range(shape[0]):
            for inner in _blocks(shape[1:], limit):
                yield (slice(i, i + 1), *inner)
        return
    # Eight rows at a time at least, so that sub-byte types always end on a whole byte between two pieces.
    step = max(limit // max(row, 1) // 8, 1) * 8
    for start in range(0, shape[0], step):
        yield (slice(start, min(start + step, shape[0])), *(slice(0, n) for n in shape[1:]))
