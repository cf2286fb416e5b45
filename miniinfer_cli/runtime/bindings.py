"""The named inputs and outputs of an engine, and the checks that a caller's arrays fit them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine_format.records import DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, OptionalType, SequenceType, TensorType, Type, dtype_of, numpy_dtype
from miniinfer_cli.ir.dims import Sym, evaluate

_UNSIGNED = frozenset({DType.U64, DType.U32, DType.U16, DType.U8, DType.U4, DType.U2})


@dataclass(frozen=True, slots=True)
class Binding:
    """A named input or output. ``shape`` holds ints and names; None where not even the rank is known."""

    name: str
    type: Type | None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The numpy dtype, None for what is not a tensor."""
        return numpy_dtype(self.type.dtype) if isinstance(self.type, TensorType) else None

    @property
    def shape(self) -> tuple[int | str, ...] | None:
        """Ints for fixed dimensions, text (``batch``, ``2*seq``) for the others."""
        if not isinstance(self.type, TensorType) or self.type.shape is None:
            return None
        return tuple(d if isinstance(d, int) else str(d) for d in self.type.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.type or '?'}"


def check_inputs(bindings: tuple[Binding, ...], ranges: Mapping[str, DimensionRange], given: Mapping[str, Any]) -> list[Any]:
    """The arrays in binding order. Raises UsageError naming the input, what it got and what it expects."""
    expected = [b.name for b in bindings]
    missing = [n for n in expected if n not in given]
    extra = [n for n in given if n not in expected]
    if missing or extra:
        parts = [f"missing {', '.join(map(repr, missing))}"] if missing else []
        parts += [f"unknown {', '.join(map(repr, extra))}"] if extra else []
        raise UsageError(f"inputs: {'; '.join(parts)}", hint=f"the plan's inputs are {', '.join(map(str, bindings))}")
    sizes: dict[str, tuple[int, str]] = {}
    return [_check(b, given[b.name], ranges, sizes) for b in bindings]


def _check(binding: Binding, value: Any, ranges: Mapping[str, DimensionRange], sizes: dict[str, tuple[int, str]]) -> Any:
    kind = binding.type
    if isinstance(kind, OptionalType):
        if value is None:
            return None
        kind = kind.element
    if isinstance(kind, SequenceType):
        return _check_items(binding, kind, value)
    if not isinstance(kind, TensorType):
        return value
    array = _as_array(binding, kind, value)
    if kind.shape is not None:
        _check_shape(binding, kind, array, ranges, sizes)
    return array


def _check_items(binding: Binding, kind: SequenceType, value: Any) -> list[Any]:
    """The items of a sequence, each of the sequence's element type; their shapes are free."""
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"input {binding.name!r}: expected a list of arrays {kind}, got {type(value).__name__}")
    element = kind.element
    return [_as_array(binding, element, item) if isinstance(element, TensorType) else item for item in value]


def _as_array(binding: Binding, kind: TensorType, value: Any) -> Any:
    """``value`` as an array of the element type of ``kind``, in this machine's byte order; one on a device as it is."""
    on_device = hasattr(value, "address")
    if not on_device and not isinstance(value, np.ndarray):
        value = _from_numbers(binding, kind, value)
    try:
        got = TensorType(dtype_of(value), value.shape)
    except ValueError as error:
        raise UsageError(f"input {binding.name!r}: {error}, expected {kind}") from None
    if got.dtype is not kind.dtype:
        hint = f"convert it with .astype({numpy_dtype(kind.dtype)!s:s})"
        raise UsageError(f"input {binding.name!r}: got {got}, expected {kind}", hint=hint)
    if on_device:
        return value
    return _as_text(binding, kind, value) if kind.dtype is DType.STR else value.astype(numpy_dtype(kind.dtype), copy=False)


def _from_numbers(binding: Binding, kind: TensorType, value: Any) -> Any:
    """An array of Python or numpy scalars: they take the binding's type where that loses nothing but decimals."""
    if not isinstance(value, (np.generic, int, float, bool, str, list, tuple)):
        raise UsageError(f"input {binding.name!r}: expected an array {kind}, got {type(value).__name__}")
    try:
        numbers = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"input {binding.name!r}: expected an array {kind}, but the list is none: {error}") from None
    if not numbers.size:
        return numbers.astype(numpy_dtype(kind.dtype))  # numpy takes nothing for f64
    if kind.dtype.is_integer and numbers.dtype.kind in "biu":
        width = kind.dtype.bits
        lowest, highest = (0, (1 << width) - 1) if kind.dtype in _UNSIGNED else (-(1 << width - 1), (1 << width - 1) - 1)
        least, most = int(numbers.min()), int(numbers.max())
        if least < lowest or most > highest:
            raise UsageError(f"input {binding.name!r}: {least if least < lowest else most} does not fit {kind}")
        return numbers.astype(numpy_dtype(kind.dtype))
    return numbers.astype(numpy_dtype(kind.dtype)) if kind.dtype.is_float and numbers.dtype.kind in "biuf" else numbers


def _as_text(binding: Binding, kind: TensorType, value: Any) -> Any:
    """numpy's own strings, bytes (as UTF-8) or objects as an array of Python strings."""
    try:
        text = (np.char.decode(value, "utf-8") if value.dtype.kind == "S" else value).astype(object)
    except UnicodeDecodeError as error:
        raise UsageError(f"input {binding.name!r}: expected {kind}, got bytes that are not UTF-8: {error.reason}") from None
    wrong = next((item for item in text.reshape(-1) if not isinstance(item, str)), None)
    if wrong is not None:
        raise UsageError(f"input {binding.name!r}: expected {kind}, got an array that holds {type(wrong).__name__}")
    return text


def _check_shape(
    binding: Binding, kind: TensorType, value: Any, ranges: Mapping[str, DimensionRange], sizes: dict[str, tuple[int, str]]
) -> None:
    """Rank and sizes as declared, names alike in all inputs, all within the plan's ranges."""
    got = TensorType(kind.dtype, value.shape)
    shape = kind.shape or ()
    if len(shape) != value.ndim:
        raise UsageError(f"input {binding.name!r}: got {got} of rank {value.ndim}, expected {kind} of rank {len(shape)}")
    for axis, (dim, size) in enumerate(zip(shape, value.shape, strict=True)):
        if isinstance(dim, int):
            if dim != size:
                raise UsageError(f"input {binding.name!r}: got {got}, expected {kind} (axis {axis}: {size} is not {dim})")
            continue
        name = str(dim)
        limits = ranges.get(name)
        if limits is not None and not limits.minimum <= size <= limits.maximum:
            raise UsageError(
                f"input {binding.name!r}: axis {axis} ({name}) is {size}, outside [{limits.minimum}, {limits.maximum}]",
                hint="build the plan with a wider --min-shapes/--max-shapes",
            )
        known = evaluate(dim, {n: s for n, (s, _) in sizes.items()}) if isinstance(dim, Sym) else None
        if known is None:
            sizes[name] = (size, binding.name)
        elif known != size:
            other = sizes.get(name, (0, "?"))[1]
            raise UsageError(f"input {binding.name!r}: axis {axis} ({name}) is {size}, but {known} in input {other!r}")
