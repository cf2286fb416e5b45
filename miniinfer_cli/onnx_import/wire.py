"""Walks a serialized ModelProto without parsing it, and takes the large tensors' data out.

Protobuf copies every byte it parses and stops at 2 GiB. So the bytes given to it are the model's without the large data:
in each tensor that lost its data, the field ``segment`` says where in the file the data lies. Only lengths are read on
the way, so the pages that hold weights are never touched.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.errors import ModelError

LARGE_NBYTES = 4096
"""Data of at least so many bytes stays in the file."""

_MAX_DEPTH = 100  # protobuf's own limit on nested messages


@dataclass(frozen=True)
class Stripped:
    """A model without its large data: the bytes for protobuf, and the ranges (start, stop) of the source left out."""

    model: bytes
    ranges: frozenset[tuple[int, int]]


def strip(source: Any) -> Stripped:
    """The model in ``source`` (bytes, or a memoryview of a mapped file) without large tensor data.

    Raises ModelError when the bytes are no protobuf message or end inside a field.
    """
    ranges: set[tuple[int, int]] = set()
    pieces = _rewritten(source, 0, len(source), _MODEL, ranges, 0)
    return Stripped(b"".join(bytes(p) if isinstance(p, bytes) else bytes(source[p[0] : p[1]]) for p in pieces), frozenset(ranges))


class _Message:
    """What a message type holds on the way to tensor data: the message type behind a field number."""

    def __init__(self) -> None:
        self.fields: dict[int, _Message] = {}


_MODEL, _GRAPH, _FUNCTION, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE = (_Message() for _ in range(7))
# Field numbers of onnx.proto.
_MODEL.fields = {7: _GRAPH, 25: _FUNCTION}
_GRAPH.fields = {1: _NODE, 5: _TENSOR, 15: _SPARSE}
_FUNCTION.fields = {7: _NODE, 11: _ATTRIBUTE}
_NODE.fields = {5: _ATTRIBUTE}
_ATTRIBUTE.fields = {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE}
_SPARSE.fields = {1: _TENSOR, 2: _TENSOR}

# Fields of TensorProto whose bytes are the elements, little-endian and dense: float_data, raw_data, double_data.
_DATA_FIELDS = (4, 9, 10)
_SEGMENT_FIELD = 3

_Piece = bytes | tuple[int, int]  # new bytes, or a range of the source


def _rewritten(source: Any, start: int, stop: int, message: _Message, ranges: set[tuple[int, int]], depth: int) -> list[_Piece]:
    """The pieces of the message at ``start`` without its large data; one range when there is none."""
    if message is _TENSOR:
        return _rewritten_tensor(source, start, stop, ranges)
    if depth > _MAX_DEPTH:
        raise ModelError(f"the model nests more than {_MAX_DEPTH} messages")
    pieces: list[_Piece] = []
    copied = start
    for number, wire, field, begin, end in _fields(source, start, stop):
        inner = message.fields.get(number) if wire == 2 and end - begin >= LARGE_NBYTES else None
        if inner is None:
            continue
        new = _rewritten(source, begin, end, inner, ranges, depth + 1)
        if new == [(begin, end)]:
            continue
        length = sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in new)
        pieces += [(copied, field), _varint(number << 3 | 2) + _varint(length), *new]
        copied = end
    return [*pieces, (copied, stop)]


def _rewritten_tensor(source: Any, start: int, stop: int, ranges: set[tuple[int, int]]) -> list[_Piece]:
    fields = list(_fields(source, start, stop))
    data = [f for f in fields if f[0] in _DATA_FIELDS]
    if len(data) != 1 or data[0][1] != 2 or data[0][4] - data[0][3] < LARGE_NBYTES:
        return [(start, stop)]
    if any(f[0] == _SEGMENT_FIELD for f in fields):
        raise ModelError("a tensor is stored in segments, which ONNX does not define further")
    _, _, field, begin, end = data[0]
    ranges.add((begin, end))
    segment = b"\x08" + _varint(begin) + b"\x10" + _varint(end)
    marker = _varint(_SEGMENT_FIELD << 3 | 2) + _varint(len(segment)) + segment
    return [(start, field), marker, (end, stop)]


def _fields(source: Any, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, start of the field, start and end of its contents, for each field of a message."""
    at = start
    while at < stop:
        field = at
        tag, at = _read_varint(source, at, stop)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            length, at = _read_varint(source, at, stop)
        elif wire == 0:
            length = _read_varint(source, at, stop)[1] - at
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ModelError(f"not an ONNX model: byte {field} starts no protobuf field")
        if number == 0:
            raise ModelError(f"not an ONNX model: byte {field} starts no protobuf field")
        if at + length > stop:
            raise truncated(f"a field at byte {field} needs {length} bytes, {stop - at} are left")
        yield number, wire, field, at, at + length
        at += length


def truncated(what: str) -> ModelError:
    """The error for a model that ends too early."""
    return ModelError(f"the model is cut off: {what}", hint="the file is incomplete; copy or download it again")


def _read_varint(source: Any, at: int, stop: int) -> tuple[int, int]:
    """The number at ``at`` and the position after it."""
    value = shift = 0
    first = at
    while at < stop:
        byte = source[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ModelError(f"not an ONNX model: byte {first} starts no number")
    raise truncated(f"a number at byte {first} does not end")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
