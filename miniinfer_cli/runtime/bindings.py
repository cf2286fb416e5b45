"""The named inputs and outputs of an engine, and the checks that a caller's arrays fit them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine_format.records import DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, TensorType, Type, dtype_of, numpy_dtype
from miniinfer_cli.ir.dims import Sym, evaluate


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
    if not isinstance(kind, TensorType):
        return value
    if not isinstance(value, np.ndarray):
        if not isinstance(value, (np.generic, int, float, bool, list, tuple)):
            raise UsageError(f"input {binding.name!r}: expected an array {kind}, got {type(value).__name__}")
        numbers = np.asarray(value)  # Python numbers carry no width of their own
        target = binding.dtype
        value = numbers.astype(target) if target is not None and np.can_cast(numbers.dtype, target, "same_kind") else numbers
    try:
        got = TensorType(dtype_of(value), value.shape)
    except ValueError as error:
        raise UsageError(f"input {binding.name!r}: {error}, expected {kind}") from None
    if got.dtype is not kind.dtype:
        raise UsageError(
            f"input {binding.name!r}: got {got}, expected {kind}", hint=f"convert it with .astype({binding.dtype!s:s})"
        )
    if kind.dtype is DType.STR and value.dtype != object:
        value = value.astype(object)
    if kind.shape is None:
        return value
    if len(kind.shape) != value.ndim:
        raise UsageError(f"input {binding.name!r}: got {got} of rank {value.ndim}, expected {kind} of rank {len(kind.shape)}")
    for axis, (dim, size) in enumerate(zip(kind.shape, value.shape, strict=True)):
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
    return value
