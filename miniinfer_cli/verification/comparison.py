"""When two results are equal but for rounding: relative errors by element type, and what no number can be said of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.ir import DType, TensorType, dtype_of

# Relative error (norm of the difference over norm of the reference) that an output may have, by the types it is computed in.
TOLERANCES: dict[DType, float] = {
    DType.F64: 1e-5, DType.F32: 1e-5, DType.F16: 1e-2, DType.BF16: 5e-2, DType.C64: 1e-5, DType.C128: 1e-5,
    DType.F8E4M3FN: 0.1, DType.F8E4M3FNUZ: 0.1, DType.F8E5M2: 0.2, DType.F8E5M2FNUZ: 0.2, DType.F4E2M1: 0.4,
}  # fmt: skip
TF32 = 5e-3
"""The same for f32 where a GPU may round the operands of products to 11 bits."""
INT8 = 0.1
"""The same for what a build in 8-bit integers computes, against f32: 127 steps of a tensor, layer after layer."""
INT4_WEIGHTS = 0.3
"""The same for what a build with weights of 4 bits computes: 7 steps to either side."""
FP8 = 0.2
"""The same for a build in 8-bit floats: an operand is off by up to 1/16 of itself, three times as far as integers on average."""
OF_BUILDS = {"int8": INT8, "fp8": FP8, "int8 weights": INT8, "int4 weights": INT4_WEIGHTS}
"""The same by what a plan records as its precision, where that is not a type of 16 bits."""
# The same where floats were rounded to integers of so many bits on the way: a number beside a boundary may go either way.
_ROUNDED = {16: 1e-4, 8: 2e-2, 4: 0.1, 2: 0.3}
EMPTY = "empty"
"""What a result of no elements says."""
_QUANTIZED = 0.02  # part of the elements of 8-bit integers that may be one step off, by rounding in a quantized model


@dataclass(frozen=True, slots=True)
class OutputError:
    """One output compared: relative error of the norm, largest absolute difference, and whether that is within tolerance.

    ``relative`` and ``absolute`` are infinite where no number says how far apart the two are; ``reason`` says why then.
    ``says_nothing``: why the comparison shows nothing (in words, empty where it does), though ``ok``: the reference has not one
    finite number, or no element, or changes as much by itself.
    """

    name: str
    relative: float
    absolute: float
    tolerance: float
    ok: bool
    reason: str = ""
    says_nothing: str = ""

    @property
    def result(self) -> str:
        """Whether it is within tolerance, in a word, or why nothing can be said."""
        if not self.ok:
            return f"DIFFERS{f' ({self.reason})' if self.reason else ''}"
        return self.says_nothing or "ok"


def tolerance_of(types: Collection[DType], tf32: bool = False) -> float:
    """The relative error that is allowed to what was computed in ``types``, the widest of theirs; 0.0 for none of them."""
    wide = TOLERANCES | {DType.F32: TF32} if tf32 else TOLERANCES
    return max((wide.get(t, _ROUNDED.get(t.bits, 0.0) if t.is_integer else 0.0) for t in types), default=0.0)


def compare(name: str, got: Any, expected: Any, tolerance: float = 0.0) -> OutputError:
    """Compares the output ``name``, as ``got`` and as ``expected``.

    Shapes and types must agree; strings, bools and integers must be equal but for rounding.

    Floats may differ by ``tolerance``, or what TOLERANCES has for their own type where that is more.
    A sequence or map is as wrong as its worst item.
    """
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)):
        if len(got) != len(expected):
            return _different(name, f"{len(got)} items instead of {len(expected)}")
        return _worst(name, [compare(name, g, e, tolerance) for g, e in zip(got, expected, strict=True)])
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        if got.keys() != expected.keys():
            return _different(name, "other keys")
        return _worst(name, [compare(name, got[k], expected[k], tolerance) for k in expected])
    if isinstance(expected, float) and isinstance(got, float):  # what maps hold: f32, as Python spells it
        got, expected = np.float32(got), np.float32(expected)
    if not isinstance(expected, (np.ndarray, np.generic)) or not isinstance(got, (np.ndarray, np.generic)):
        same = type(got) is type(expected) and got == expected
        return _same(name) if same else _different(name, f"{_kind_of(got)} instead of {_kind_of(expected)}")
    got, expected = np.asarray(got), np.asarray(expected)
    kind = dtype_of(got)
    if kind is not dtype_of(expected) or got.shape != expected.shape:
        return _different(name, f"{_kind_of(got)} instead of {_kind_of(expected)}")
    if not got.size:
        return replace(_same(name), says_nothing=EMPTY)
    if kind in TOLERANCES:
        wide = np.complex128 if got.dtype.kind == "c" else np.float64
        with np.errstate(invalid="ignore"):  # a signaling NaN, which its bits may be, warns when it is widened
            got, expected = got.astype(wide), expected.astype(wide)
        return _compare_floats(name, got, expected, max(tolerance, TOLERANCES[kind]))
    part = float(np.mean(got != expected))
    if not kind.is_integer:
        return OutputError(name, part, part, 0.0, part == 0)
    widest = int(np.max(np.where(got > expected, _gap(got, expected), _gap(expected, got)), initial=0))
    # An error of the tolerance, in steps of the type: so many elements may have been beside a boundary.
    allowed = min(1.0, max(_QUANTIZED, tolerance * 2**kind.bits / 4)) if kind.bits <= 8 else 0.0
    return OutputError(name, part, float(widest), allowed, part <= allowed and (widest <= 1 or allowed == 0))


def _gap(larger: Any, smaller: Any) -> Any:
    """The difference of integers of any width; it wraps where ``larger`` is not, which nobody looks at."""
    return larger.astype(np.uint64) - smaller.astype(np.uint64)


def _same(name: str) -> OutputError:
    return OutputError(name, 0.0, 0.0, 0.0, True)


def _different(name: str, reason: str, tolerance: float = 0.0) -> OutputError:
    return OutputError(name, float("inf"), float("inf"), tolerance, False, reason)


def _kind_of(value: Any) -> str:
    if isinstance(value, (np.ndarray, np.generic)):
        return str(TensorType(dtype_of(np.asarray(value)), value.shape))
    return "nothing" if value is None else repr(value) if isinstance(value, (int, str)) else type(value).__name__


def worst_of(items: Sequence[OutputError]) -> OutputError:
    """The worst item; what says nothing is better than any other that is equal, so that it stands only for such as itself."""
    return min(items, key=lambda o: (o.ok, bool(o.says_nothing), -o.relative))


def _worst(name: str, items: Sequence[OutputError]) -> OutputError:
    return worst_of(items) if items else replace(_same(name), says_nothing=EMPTY)


def _compare_floats(name: str, got: Any, expected: Any, tolerance: float) -> OutputError:
    finite = np.isfinite(expected)
    if not np.array_equal(np.isnan(got), np.isnan(expected)):
        shares = (f"{100 * float(np.mean(np.isnan(values))):.3g} %" for values in (got, expected))
        return _different(name, f"NaN in {' instead of '.join(shares)} of the elements", tolerance)
    if not np.array_equal(np.where(finite, 0, got), np.where(finite, 0, expected), equal_nan=True):
        return _different(name, "infinities where the reference has others", tolerance)
    if not np.all(np.isfinite(got) == finite):
        return _different(name, "infinite where the reference is finite", tolerance)
    reference = np.where(finite, expected, 0)
    with np.errstate(over="ignore"):  # numbers as large as the type allows, of opposite signs
        difference = np.where(finite, got, 0) - reference
    absolute = float(np.max(np.abs(difference)))
    scale = float(np.max(np.abs(reference))) or 1.0  # squares of large numbers overflow
    norm = float(np.linalg.norm(reference / scale))
    with np.errstate(over="ignore"):
        relative = float(np.linalg.norm(difference / scale)) / norm if norm else absolute
    nothing = "" if finite.any() else "NaN everywhere" if np.isnan(expected).all() else "not one finite number"
    return OutputError(name, relative, absolute, tolerance, bool(relative <= tolerance), says_nothing=nothing)
