"""Checks on single values of a parsed header. Each gives the value back, or raises Fault saying what was expected."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from engine_format.dtypes import DType
from engine_format.layout import MAX_DEPTH, MAX_DIM_TEXT, MAX_INT, MAX_RANK, MIN_INT
from engine_format.records import Dim, MapSpec, OptionalSpec, Plain, SequenceSpec, TensorSpec, TypeSpec
from engine_format.strict import Fault, Refused, describe

T = TypeVar("T")

_DTYPES = {d.value: d for d in DType}


def unexpected(expected: str, got: Any, *path: int | str) -> Fault:
    """The fault of finding ``got`` in place of ``expected``."""
    if isinstance(got, Refused):
        return Fault(f"expected {expected}, got {got.reason}", *path)
    return Fault(f"expected {expected}, got {describe(got)}", *path)


def fields(raw: Any, what: str, count: int) -> list[Any]:
    """A record: a list of exactly ``count``."""
    if type(raw) is not list or len(raw) != count:
        raise unexpected(f"{what} of {count} fields", raw)
    return raw


def text(raw: Any, *path: int | str) -> str:
    """A text."""
    if type(raw) is not str:
        raise unexpected("text", raw, *path)
    return raw


def integer(raw: Any, low: int, high: int, *path: int | str) -> int:
    """An integer from ``low`` to ``high``, both included."""
    if type(raw) is not int:
        raise unexpected("an integer", raw, *path)
    if not low <= raw <= high:
        raise Fault(f"{raw} is outside [{low}, {high}]", *path)
    return raw


def binary(raw: Any, nbytes: int | None, *path: int | str) -> bytes:
    """Bytes, ``nbytes`` of them unless that is None."""
    if type(raw) is not bytes or (nbytes is not None and len(raw) != nbytes):
        raise unexpected("bytes" if nbytes is None else f"{nbytes} bytes", raw, *path)
    return raw


def sequence(raw: Any, item: Callable[[Any], T], *path: int | str) -> tuple[T, ...]:
    """A list of what ``item`` accepts."""
    if type(raw) is not list:
        raise unexpected("a list", raw, *path)
    out: list[T] = []
    for i, x in enumerate(raw):
        try:
            out.append(item(x))
        except Fault as fault:
            fault.under(*path, i)
            raise
    return tuple(out)


def mapping(raw: Any, item: Callable[[Any], T], *path: int | str) -> dict[str, T]:
    """A map from texts to what ``item`` accepts."""
    if type(raw) is not dict:
        raise unexpected("a map", raw, *path)
    out: dict[str, T] = {}
    for key, x in raw.items():
        try:
            out[key] = item(x)
        except Fault as fault:
            fault.under(*path, key)
            raise
    return out


def size(raw: Any) -> int:
    """An integer that is not negative."""
    return integer(raw, 0, MAX_INT)


def number(raw: Any) -> int:
    """An integer of 64 bits with a sign."""
    return integer(raw, MIN_INT, MAX_INT)


def dtype(raw: Any, *path: int | str) -> DType:
    """The spelling of an element type."""
    found = _DTYPES.get(raw) if type(raw) is str else None
    if found is None:
        raise unexpected("an element type", raw, *path)
    return found


def shape(raw: Any, element: DType, *path: int | str) -> tuple[int, ...]:
    """The static dimensions of a tensor whose bytes, when unpacked and with zeros counted as ones, an int64 can count."""
    dims = sequence(raw, size, *path)
    if len(dims) > MAX_RANK:
        raise Fault(f"rank {len(dims)} is above {MAX_RANK}", *path)
    if math.prod(max(d, 1) for d in dims) * max(element.bits or 64, 8) > 8 * MAX_INT:
        raise Fault("the tensor is larger than any memory", *path)
    return dims


def type_spec(raw: Any, depth: int = 0) -> TypeSpec | None:
    """A type, or nil for one that is not known."""
    if raw is None and depth:
        return None
    if type(raw) is not list or not raw:
        raise unexpected("a type", raw)
    if depth > MAX_DEPTH:
        raise Fault(f"types are nested more than {MAX_DEPTH} deep")
    match raw[0]:
        case "tensor":
            _, element, dims = fields(raw, "a tensor type", 3)
            return TensorSpec(dtype(element, 1), None if dims is None else _dims(dims))
        case "sequence" | "optional" as kind:
            inner = _inner(fields(raw, f"a type of kind {kind}", 2)[1], depth, 1)
            return SequenceSpec(inner) if kind == "sequence" else OptionalSpec(inner)
        case "map":
            _, key, element = fields(raw, "a map type", 3)
            return MapSpec(dtype(key, 1), _inner(element, depth, 2))
    raise unexpected("tensor, sequence, optional or map", raw[0], 0)


def plain(raw: Any, depth: int = 0) -> Plain:
    """What options and metadata hold: nil, bool, int64, float, text, and lists and maps of these."""
    if depth > MAX_DEPTH:
        raise Fault(f"lists and maps are nested more than {MAX_DEPTH} deep")
    if type(raw) is list:
        return sequence(raw, lambda x: plain(x, depth + 1))
    if type(raw) is dict:
        return mapping(raw, lambda x: plain(x, depth + 1))
    if raw is None or type(raw) in (bool, float, str):
        result: Plain = raw
        return result
    return number(raw)


def plain_mapping(raw: Any, *path: int | str) -> Mapping[str, Plain]:
    """A map of plain values."""
    return mapping(raw, lambda x: plain(x, 1), *path)


def _dims(raw: Any) -> tuple[Dim, ...]:
    dims = sequence(raw, _dim, 2)
    if len(dims) > MAX_RANK:
        raise Fault(f"rank {len(dims)} is above {MAX_RANK}", 2)
    return dims


def _dim(raw: Any) -> Dim:
    if type(raw) is str:
        if not 0 < len(raw) <= MAX_DIM_TEXT:
            raise Fault(f"a dimension's text has {len(raw)} characters, outside [1, {MAX_DIM_TEXT}]")
        return raw
    return size(raw)


def _inner(raw: Any, depth: int, step: int) -> TypeSpec | None:
    try:
        return type_spec(raw, depth + 1)
    except Fault as fault:
        fault.under(step)
        raise
