"""What a caller gives for an input, as a numpy array: numbers and lists, and what other libraries have on the host."""

from typing import Any

import numpy as np

from miniinfer_cli.backends import dlpack
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Array, DType, TensorType, numpy_dtype

_UNSIGNED = frozenset({DType.U64, DType.U32, DType.U16, DType.U8, DType.U4, DType.U2})
# What numpy, and what libraries that give arrays, refuse with: a ragged list, a tensor that needs its gradient ...
_REFUSED = (BufferError, OverflowError, RuntimeError, TypeError, ValueError)


def host_array(name: str, kind: TensorType, value: Any) -> Array:
    """``value``, which is no numpy array, as one for the input ``name``, which is a ``kind``.

    Python's numbers and lists of them take the element type of ``kind`` where that loses nothing but decimals; what another
    library has on the host (DLPack, or ``__array__``) keeps its own, and its memory where it can. Raises UsageError.
    """
    if isinstance(value, (np.generic, int, float, complex, bool, str, list, tuple)):
        return _from_numbers(name, kind, value)
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _from_dlpack(name, kind, value)
    if hasattr(value, "__array__"):
        try:
            return np.asarray(value)
        except _REFUSED as error:
            raise UsageError(f"input {name!r}: {type(value).__name__} gives no array: {error}") from None
    raise UsageError(
        f"input {name!r}: expected an array {kind}, got {type(value).__name__}",
        hint="a numpy array, a list of numbers, and anything with __array__ or DLPack will do",
    )


def _from_dlpack(name: str, kind: TensorType, value: Any) -> Array:
    """DLPack first, since numpy knows no bf16; ``__array__`` for a type or a form that it does not carry."""
    where = int(value.__dlpack_device__()[0])
    if where not in (dlpack.CPU, dlpack.PINNED):
        raise UsageError(
            f"input {name!r}: expected an array {kind} on the host, got {type(value).__name__} on DLPack's device {where}",
            hint="copy it to the host first",
        )
    try:
        return dlpack.host_view(dlpack.take(value.__dlpack__()))
    except _REFUSED as error:
        refusal = error
    try:
        if hasattr(value, "__array__"):
            return np.asarray(value)
    except _REFUSED:
        pass  # the first refusal says more
    raise UsageError(
        f"input {name!r}: {type(value).__name__} gives no array: {refusal}", hint="give a plain dense one: .detach().contiguous()"
    ) from None


def _from_numbers(name: str, kind: TensorType, value: Any) -> Array:
    try:
        numbers = np.asarray(value)
        whole = numbers.dtype.kind in "biu"
        if kind.dtype.is_integer and numbers.dtype.kind in "fO":  # numpy widens integers beyond 64 bits
            items = np.asarray(value, object)
            whole = all(isinstance(item, int) for item in items.flat)
            numbers = items if whole else numbers
    except _REFUSED as error:
        told = "its lists differ in length" if isinstance(error, ValueError) else f"the list is none: {error}"
        raise UsageError(f"input {name!r}: expected an array {kind}, but {told}") from None
    target = numpy_dtype(kind.dtype)
    given = numbers.dtype.kind
    if not numbers.size:
        return numbers.astype(target)  # numpy takes nothing for f64
    if kind.dtype.is_integer and whole:
        _expect_range(name, kind, numbers)
        return numbers.astype(target)
    if given == "O" and kind.dtype is not DType.STR:
        wrong = next((item for item in numbers.flat if not isinstance(item, (bool, int, float, complex))), numbers.flat[0])
        what = f"the list holds {wrong if isinstance(wrong, int) else type(wrong).__name__}"
        raise UsageError(f"input {name!r}: expected an array {kind}, but {what}")
    if (kind.dtype.is_float and given in "biuf") or (kind.dtype in (DType.C64, DType.C128) and given in "biufc"):
        return _rounded(name, kind, numbers)
    return numbers


def _expect_range(name: str, kind: TensorType, numbers: Array) -> None:
    width = kind.dtype.bits
    lowest, highest = (0, (1 << width) - 1) if kind.dtype in _UNSIGNED else (-(1 << width - 1), (1 << width - 1) - 1)
    least, most = int(numbers.min()), int(numbers.max())
    if least < lowest or most > highest:
        raise UsageError(f"input {name!r}: {least if least < lowest else most} does not fit {kind}")


def _rounded(name: str, kind: TensorType, numbers: Array) -> Array:
    """The numbers as floats of ``kind``: decimals are rounded; whole numbers must stay what they are, and finite ones finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        made = numbers.astype(numpy_dtype(kind.dtype))
        wide = made.astype(np.complex128 if made.dtype.kind == "c" else np.float64)
        if numbers.dtype.kind in "iu":
            kept = np.isfinite(wide) & (wide.real.astype(numbers.dtype) == numbers)
        else:
            kept = (np.isfinite(wide) == np.isfinite(numbers)) & (np.isnan(wide) == np.isnan(numbers))
    if not kept.all():
        lost = numbers[~kept].flat[0] if numbers.ndim else numbers
        raise UsageError(
            f"input {name!r}: {lost} does not fit {kind}",
            hint=f"round it yourself, if that is meant: np.asarray(...).astype({numpy_dtype(kind.dtype)!s})",
        )
    return made
