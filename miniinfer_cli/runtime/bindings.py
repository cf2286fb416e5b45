"""The named inputs and outputs of an engine, and the checks that a caller's arrays fit them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine_format import Plan
from engine_format.records import DimensionRange
from miniinfer_cli.backends.interface import OnDevice
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Constant, DType, OptionalType, SequenceType, TensorType, Type, dtype_of, numpy_dtype
from miniinfer_cli.ir.dims import Dim, bind, evaluate, names_in, plain_name
from miniinfer_cli.runtime.host_arrays import host_array
from miniinfer_cli.wording import Wording


@dataclass(frozen=True, slots=True)
class Binding:
    """A named input or output. ``shape`` holds ints and names; None where not even the rank is known.

    ``default``: what an input is when it is not given; None for one that must be.
    """

    name: str
    type: Type | None
    default: Constant | None = field(default=None, repr=False)

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
        return f"{self.name}: {self.type or '?'}{'' if self.default is None else ' (optional)'}"


def defaults_of(bindings: Sequence[Binding]) -> dict[str, Any]:
    """The default of each input that has one."""
    return {b.name: b.default.array() for b in bindings if b.default is not None}


def check_inputs(
    bindings: tuple[Binding, ...],
    ranges: Mapping[str, DimensionRange],
    given: Mapping[str, Any],
    constants: Collection[str] = (),
) -> list[Any]:
    """The arrays in binding order, the default of an input that is not given. ``constants``: inputs of the model that the plan
    has as constants. Raises UsageError naming the input, what it got and what it expects.
    """
    expected = [b.name for b in bindings]
    missing = [b.name for b in bindings if b.name not in given and b.default is None]
    extra = [n for n in given if n not in expected]
    if missing or extra:
        parts = [f"missing {', '.join(map(repr, missing))}"] if missing else []
        parts += [f"unknown {', '.join(map(repr, extra))}"] if extra else []
        raise UsageError(f"inputs: {'; '.join(parts)}", hint=hint_of_inputs(bindings, extra, constants))
    if len(given) < len(bindings):
        given = {**defaults_of([b for b in bindings if b.name not in given]), **given}
    sizes = _Sizes()
    return [_check(b, given[b.name], ranges, sizes) for b in bindings]


@dataclass(slots=True)
class _Sizes:
    """What the inputs so far make of the model's named sizes, and the first input that has each."""

    by_name: dict[str, int] = field(default_factory=dict)
    first_inputs: dict[str, str] = field(default_factory=dict)


def constant_inputs(plan: Plan) -> frozenset[str]:
    """Inputs of the model that are constants of the plan, as the plan's metadata say."""
    listed = plan.report.metadata.get("constant_inputs")
    return frozenset(n for n in listed if isinstance(n, str)) if isinstance(listed, tuple) else frozenset()


def hint_of_inputs(bindings: Sequence[Binding], unknown: Sequence[str], constants: Collection[str]) -> str:
    """The way out for whoever gives inputs that a plan does not have."""
    fixed = [name for name in unknown if name in constants]
    if fixed:
        why = "the model has an initializer for it, which the plan holds as a constant; build the plan with"
        return Wording(f"{why} overridable={fixed!r}", flags=f"{why} {' '.join(f'--overridable {name}' for name in fixed)}")
    return f"the plan's inputs are {', '.join(map(str, bindings))}"


def bind_sizes(binding: Binding, shape: Sequence[int], sizes: dict[str, int]) -> None:
    """Notes in ``sizes`` what ``shape`` makes of the binding's named dimensions. Raises UsageError where it does not fit."""
    kind = binding.type
    if not isinstance(kind, TensorType) or kind.shape is None:
        return
    if len(kind.shape) != len(shape):
        raise UsageError(f"input {binding.name!r}: shape {'x'.join(map(str, shape))} has rank {len(shape)}, expected {kind}")
    misfit = bind(kind.shape, shape, sizes)
    if misfit is None:
        return
    dim, size = misfit.dim, misfit.size
    if isinstance(dim, int):
        raise UsageError(f"input {binding.name!r}: shape {'x'.join(map(str, shape))} does not fit {kind}: {size} is not {dim}")
    raise UsageError(f"input {binding.name!r}: {dim} is {size}, but {misfit.expected} in another input", hint=_one_size(str(dim)))


def _one_size(name: str) -> str:
    return f"what the model names {name} is one size; where it may be two, rename one of them in the model, and build it again"


def complete_shapes(
    bindings: Sequence[Binding], ranges: Mapping[str, DimensionRange], given: Mapping[str, Sequence[int]]
) -> list[tuple[int, ...]]:
    """The shape of each binding: as ``given`` by name, or as named dimensions are there, or else at the plan's optimum.

    Raises UsageError for shapes that do not fit, and where a size stays open.
    """
    known = {b.name for b in bindings}
    sizes: dict[str, int] = {}
    for name, shape in given.items():
        if name not in known:
            raise UsageError(f"there is no input {name!r}", hint=f"the inputs are {', '.join(map(str, bindings))}")
        bind_sizes(next(b for b in bindings if b.name == name), shape, sizes)
    for b in bindings:
        if b.default is not None and b.name not in given:
            given = {**given, b.name: b.default.shape}
            bind_sizes(b, b.default.shape, sizes)
    sizes = {name: r.optimum for name, r in ranges.items()} | sizes
    return [tuple(given[b.name]) if b.name in given else _closed(b, sizes) for b in bindings]


def _closed(binding: Binding, sizes: Mapping[str, int]) -> tuple[int, ...]:
    kind = binding.type
    shape = None
    if isinstance(kind, TensorType) and kind.shape is not None:
        shape = [evaluate(d, sizes) for d in kind.shape]
    if shape is None or None in shape:
        example = f"{{{binding.name!r}: ({', '.join(map(str, binding.shape or ('...',)))},)}}"
        raise UsageError(
            f"the shape of input {str(binding)!r} is open",
            hint=f"give the shapes of all inputs by name, in numbers: {example}; or a tuple for this one",
        )
    return expect_sizes(binding, shape, sizes)


def expect_sizes(binding: Binding, shape: Sequence[int | None], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape that the binding has with these ``sizes``. Raises UsageError where they make a dimension less than 0."""
    declared = binding.type.shape if isinstance(binding.type, TensorType) and binding.type.shape is not None else ()
    for axis, (dim, size) in enumerate(zip(declared, shape, strict=True)):
        if size is not None and size < 0:
            where = " and ".join(f"{name} is {sizes[name]}" for name in sorted(names_in(dim)))
            raise UsageError(
                f"input {binding.name!r}: axis {axis} ({dim}) would be {size} where {where}",
                hint=Wording(
                    f"give larger sizes, or the shape of the input itself: {{{binding.name!r}: (...)}}",
                    flags=f"give larger sizes, or the shape of the input itself: --shapes {binding.name}:...",
                ),
            )
    return tuple(d for d in shape if d is not None)


def _check(binding: Binding, value: Any, ranges: Mapping[str, DimensionRange], sizes: _Sizes) -> Any:
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
    """The items of a sequence, each of the sequence's element type; a size that this leaves open is each item's own."""
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"input {binding.name!r}: expected a list of arrays {kind}, got {type(value).__name__}")
    element = kind.element
    if not isinstance(element, TensorType):
        return list(value)
    items = [_as_array(binding, element, item) for item in value]
    for number, item in enumerate(items):
        if not _has_sizes(item.shape, element):
            got = TensorType(element.dtype, item.shape)
            hint = "give elements of these sizes; where the model means any, declare the sequence in it without them"
            raise UsageError(f"input {binding.name!r}: element {number} is {got}, expected {element}", hint=hint)
    return items


def _has_sizes(shape: Sequence[int], declared: TensorType) -> bool:
    """True where ``shape`` has the rank, and the sizes in numbers, of ``declared``."""
    if declared.shape is None:
        return True
    return len(shape) == len(declared.shape) and all(
        not isinstance(d, int) or d == n for d, n in zip(declared.shape, shape, strict=True)
    )


def _as_array(binding: Binding, kind: TensorType, value: Any) -> Any:
    """``value`` as an array of the element type of ``kind``, in this machine's byte order; one on a device as it is."""
    if type(value) is np.ndarray and kind.dtype is not DType.STR and value.dtype == numpy_dtype(kind.dtype):
        return value
    on_device = isinstance(value, OnDevice)
    if isinstance(value, np.ma.MaskedArray):
        value = _unmasked(binding, kind, value)
    if not on_device and not isinstance(value, np.ndarray):
        value = host_array(binding.name, kind, value)
    try:
        got = TensorType(dtype_of(value), value.shape)
    except ValueError as error:
        raise UsageError(f"input {binding.name!r}: {error}, expected {kind}") from None
    if got.dtype is not kind.dtype:
        hint = f"convert it with .astype({numpy_dtype(kind.dtype)!s})"
        raise UsageError(f"input {binding.name!r}: got {got}, expected {kind}", hint=hint)
    if on_device:
        return value
    return _as_text(binding, kind, value) if kind.dtype is DType.STR else value.astype(numpy_dtype(kind.dtype), copy=False)


def _unmasked(binding: Binding, kind: TensorType, value: Any) -> Any:
    """The data of a masked array that masks nothing."""
    masked = np.count_nonzero(value.mask)
    if masked:
        hint = "give what stands in the masked places, array.filled(value); a mask of the model is an input of its own"
        raise UsageError(f"input {binding.name!r}: expected {kind}, got a masked array that masks {masked} elements", hint=hint)
    return value.data


def _as_text(binding: Binding, kind: TensorType, value: Any) -> Any:
    """numpy's own strings, bytes (as UTF-8) or objects as an array of Python strings."""
    try:
        text = (np.char.decode(value, "utf-8") if value.dtype.kind == "S" else value).astype(object)
    except UnicodeDecodeError as error:
        raise UsageError(f"input {binding.name!r}: expected {kind}, got bytes that are not UTF-8: {error.reason}") from None
    wrong = [item for item in text.reshape(-1) if not isinstance(item, str)]
    if wrong:
        what = "None" if wrong[0] is None else type(wrong[0]).__name__
        raise UsageError(f"input {binding.name!r}: expected {kind}, got an array that holds {what}")
    return text


def _check_shape(binding: Binding, kind: TensorType, value: Any, ranges: Mapping[str, DimensionRange], sizes: _Sizes) -> None:
    """Rank and sizes as declared, names alike in all inputs, all within the plan's ranges."""
    got = TensorType(kind.dtype, value.shape)
    shape = kind.shape or ()
    if len(shape) != value.ndim:
        raise UsageError(f"input {binding.name!r}: got {got} of rank {value.ndim}, expected {kind} of rank {len(shape)}")
    misfit = bind(shape, value.shape, sizes.by_name)
    if misfit is not None and isinstance(misfit.dim, int):
        told = f"axis {misfit.axis}: {misfit.size} is not {misfit.dim}"
        raise UsageError(f"input {binding.name!r}: got {got}, expected {kind} ({told})")
    if misfit is not None:
        name = str(misfit.dim)
        first = sizes.first_inputs.get(name, binding.name)
        told = f"axis {misfit.axis} ({name}) is {misfit.size}, but {misfit.expected} in input {first!r}"
        raise UsageError(f"input {binding.name!r}: {told}", hint=_one_size(name))
    for axis, (dim, size) in enumerate(zip(shape, value.shape, strict=True)):
        if isinstance(dim, int):
            continue
        plain = plain_name(dim)
        if plain is None:
            _check_computed(binding, axis, dim, size, sizes)
            continue
        name = plain
        sizes.first_inputs.setdefault(name, binding.name)
        limits = ranges.get(name)
        if limits is not None and size < limits.minimum:
            raise UsageError(
                f"input {binding.name!r}: axis {axis} ({name}) is {size}, below {limits.minimum}, the smallest of the plan",
                hint=Wording("build the plan with smaller min_shapes", flags="build the plan with smaller --min-shapes"),
            )
        if limits is not None and size > limits.maximum:
            raise UsageError(
                f"input {binding.name!r}: axis {axis} ({name}) is {size}, above {limits.maximum}, the largest of the plan",
                hint=Wording("build the plan with larger max_shapes", flags="build the plan with larger --max-shapes"),
            )


def _check_computed(binding: Binding, axis: int, dim: Dim, size: int, sizes: _Sizes) -> None:
    """Raises UsageError where a dimension that is computed from names has another size than theirs make it."""
    known = evaluate(dim, sizes.by_name)
    if known is not None and known != size:
        where = " and ".join(f"{name} is {sizes.by_name[name]}" for name in sorted(names_in(dim)))
        raise UsageError(f"input {binding.name!r}: axis {axis} ({dim}) is {size}, but {known} where {where}")
