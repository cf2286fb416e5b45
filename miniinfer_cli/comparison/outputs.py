"""Two sets of outputs beside each other: how far apart they are, in the figures that people ask for, and whether that is allowed.

What is allowed by default, and what no number can be said of, is ``verification``'s. Neither side is more right than the other;
relative figures are relative to the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.ir import DType, dtype_of
from miniinfer_cli.verification.comparison import TOLERANCES, OutputError, compare, tolerance_of


@dataclass(frozen=True, slots=True)
class Closeness:
    """Each element of B may be off by ``atol`` + ``rtol`` times that of A; NaN equals NaN, an infinity itself."""

    rtol: float
    atol: float


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """One output of both sides. ``error``: how far apart they are, and whether that is allowed.

    ``cosine``: of the angle between both as vectors; None where one has no length, or they are no numbers of one shape.
    ``argmax``: the part of the rows (the last axis) whose largest entry is at the same place; None where there are no rows.
    ``beyond``: the part of the elements beyond a Closeness; None where the table of tolerances decides.
    """

    error: OutputError
    cosine: float | None = None
    argmax: float | None = None
    beyond: float | None = None

    @property
    def allowed(self) -> str:
        """What was allowed, in words."""
        return "by element" if self.beyond is not None else f"{self.error.tolerance:.0e}"

    def to_json(self) -> dict[str, Any]:
        """Stable keys. Errors without a number are infinite, ``null`` in a file."""
        return {
            "name": self.error.name,
            "max_abs_error": self.error.absolute,
            "relative_error": self.error.relative,
            "cosine": self.cosine,
            "argmax_agreement": self.argmax,
            "tolerance": None if self.beyond is not None else self.error.tolerance,
            "beyond_tolerance": self.beyond,
            "ok": self.error.ok,
            "reason": self.error.reason or self.error.says_nothing,
        }


def compare_outputs(
    a: Mapping[str, Any], b: Mapping[str, Any], tolerances: Mapping[str, float], closeness: Closeness | None = None
) -> list[OutputDifference]:
    """Every output of ``a`` and ``b``, by name, in the order of ``a``; one that only one of them has differs.

    ``tolerances``: relative errors that outputs are allowed by what they were computed in, besides those of their own types.
    """
    found = []
    for name in dict.fromkeys((*a, *b)):
        if name in a and name in b:
            found.append(compare_output(name, a[name], b[name], tolerances.get(name, 0.0), closeness))
        else:
            reason = f"only {'A' if name in a else 'B'} has it"
            found.append(OutputDifference(OutputError(name, float("inf"), float("inf"), 0.0, False, reason)))
    return found


def compare_output(name: str, a: Any, b: Any, tolerance: float = 0.0, closeness: Closeness | None = None) -> OutputDifference:
    """The output ``name`` of both. Numbers of different types are compared as numbers, with the tolerance of the coarser."""
    a, b, tolerance = _alike(a, b, tolerance)
    error = compare(name, b, a, tolerance)
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape and _is_number(a) and _is_number(b)):
        return OutputDifference(error)
    wide = np.complex128 if "c" in a.dtype.kind + b.dtype.kind else np.float64
    with np.errstate(invalid="ignore"):  # a signaling NaN warns when it is widened
        x, y = a.astype(wide), b.astype(wide)
    beyond = None
    if closeness is not None:
        beyond = float(np.mean(~np.isclose(y, x, rtol=closeness.rtol, atol=closeness.atol, equal_nan=True))) if x.size else 0.0
        error = replace(error, ok=beyond == 0, reason=f"{100 * beyond:.3g} % of the elements beyond" if beyond else "")
    return OutputDifference(error, _cosine(x, y), _argmax_agreement(a, b), beyond)


def pair_by_place(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """``b`` under the names of ``a``, and a note that says so, where no name is in both and they are as many; else as it is."""
    if a.keys() & b.keys() or len(a) != len(b) or not a:
        return dict(b), ""
    pairs = ", ".join(f"{x} with {y}" for x, y in zip(a, b, strict=True))
    return dict(zip(a, b.values(), strict=True)), f"no output has the same name in both; compared in their order: {pairs}"


def _alike(a: Any, b: Any, tolerance: float) -> tuple[Any, Any, float]:
    """Both, of one type where both are numbers."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return a, b, tolerance
    kinds = dtype_of(a), dtype_of(b)
    if kinds[0] is kinds[1]:
        return a, b, tolerance
    if all(kind in TOLERANCES for kind in kinds):
        wide = np.complex128 if "c" in a.dtype.kind + b.dtype.kind else np.float64
        return a.astype(wide), b.astype(wide), max(tolerance, tolerance_of(kinds))
    if all(kind.is_integer and kind is not DType.U64 for kind in kinds):
        return a.astype(np.int64), b.astype(np.int64), tolerance
    return a, b, tolerance


def _is_number(array: Any) -> bool:
    kind = dtype_of(array)
    return kind in TOLERANCES or kind.is_integer


def _cosine(x: Any, y: Any) -> float | None:
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    scales = [float(np.max(np.abs(v), initial=0.0)) for v in (x, y)]
    if not all(scales):
        return None
    x, y = x / scales[0], y / scales[1]  # squares of large numbers overflow
    cosine = float(np.real(np.vdot(x, y))) / (float(np.linalg.norm(x)) * float(np.linalg.norm(y)))
    return max(-1.0, min(cosine, 1.0))


def _argmax_agreement(a: Any, b: Any) -> float | None:
    if not a.ndim or a.shape[-1] < 2 or not a.size or "c" in a.dtype.kind + b.dtype.kind:
        return None
    places: Sequence[Any] = [np.argmax(np.asarray(v, np.float64), axis=-1) for v in (a, b)]
    return float(np.mean(places[0] == places[1]))
