"""Does a plan give the numbers of the model it was built from? Behind ``build --verify``.

The oracle is ONNX Runtime on the original model where it is installed and takes the model, else the graph as imported,
not optimized, run by the numpy references. The report says which it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine_format import Plan
from miniinfer_cli.builder import read_model
from miniinfer_cli.ir import DType, dtype_of
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.runtime.engine import Engine

# Relative error (norm of the difference over norm of the reference) that an output may have, by its type.
TOLERANCES: dict[DType, float] = {
    DType.F64: 1e-5, DType.F32: 1e-5, DType.F16: 1e-2, DType.BF16: 5e-2, DType.C64: 1e-5, DType.C128: 1e-5,
    DType.F8E4M3FN: 0.1, DType.F8E4M3FNUZ: 0.1, DType.F8E5M2: 0.2, DType.F8E5M2FNUZ: 0.2,
}  # fmt: skip
_QUANTIZED = 0.02  # part of the elements of 8-bit integers that may be one step off, by rounding in a quantized model


@dataclass(frozen=True, slots=True)
class OutputError:
    """One output compared: relative error of the norm, largest absolute difference, and whether that is within tolerance."""

    name: str
    relative: float
    absolute: float
    tolerance: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """The comparison of all outputs with ``oracle``. ``note`` says why the oracle is not ONNX Runtime, where it is not."""

    oracle: str
    outputs: tuple[OutputError, ...]
    note: str = ""

    @property
    def ok(self) -> bool:
        """True when every output is within its tolerance."""
        return all(o.ok for o in self.outputs)


def verify_plan(model: Any, plan: Plan, feeds: Mapping[str, Any], mark_outputs: Sequence[str] = ()) -> Verification:
    """Runs the plan on the CPU and ``model`` by the oracle, on the same inputs."""
    with Engine(plan, "cpu") as engine:
        got = engine.run(feeds)
        names = [b.name for b in engine.outputs]
    try:
        oracle, expected = _by_onnxruntime(model, feeds, names, mark_outputs)
        note = ""
    except _Refused as refused:
        oracle, note = "the unoptimized graph (numpy references)", str(refused)
        expected = _by_references(model, feeds, mark_outputs)
    return Verification(oracle, tuple(compare(n, got[n], expected[n]) for n in names), note)


def compare(name: str, got: Any, expected: Any) -> OutputError:
    """Compares one output. Shapes and types must agree; strings, bools and integers must be equal but for rounding.

    A sequence or map is as wrong as its worst item.
    """
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)) and len(got) == len(expected):
        return _worst(name, [compare(name, g, e) for g, e in zip(got, expected, strict=True)])
    if isinstance(expected, Mapping) and isinstance(got, Mapping) and got.keys() == expected.keys():
        return _worst(name, [compare(name, got[k], expected[k]) for k in expected])
    if isinstance(expected, float) and isinstance(got, float):  # what maps hold: f32, as Python spells it
        got, expected = np.float32(got), np.float32(expected)
    if not isinstance(expected, (np.ndarray, np.generic)) or not isinstance(got, (np.ndarray, np.generic)):
        return _equal(name, type(got) is type(expected) and got == expected)
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return _equal(name, False)
    kind = dtype_of(np.asarray(got))
    if kind in TOLERANCES:
        wide = np.complex128 if got.dtype.kind == "c" else np.float64
        return _compare_floats(name, got.astype(wide), expected.astype(wide), TOLERANCES[kind])
    got, expected = np.asarray(got), np.asarray(expected)
    differing = got != expected
    part = float(np.mean(differing)) if got.size else 0.0
    if not kind.is_integer:
        return OutputError(name, part, part, 0.0, part == 0)
    widest = int(np.max(np.where(got > expected, _gap(got, expected), _gap(expected, got)), initial=0))
    allowed = _QUANTIZED if kind.bits <= 8 else 0.0
    return OutputError(name, part, float(widest), allowed, part <= allowed and (widest <= 1 or allowed == 0))


def _gap(larger: Any, smaller: Any) -> Any:
    """The difference of integers of any width; it wraps where ``larger`` is not, which nobody looks at."""
    return larger.astype(np.uint64) - smaller.astype(np.uint64)


def _equal(name: str, same: bool) -> OutputError:
    error = 0.0 if same else float("inf")
    return OutputError(name, error, error, 0.0, same)


def _worst(name: str, items: Sequence[OutputError]) -> OutputError:
    return min(items, key=lambda o: (o.ok, -o.relative), default=_equal(name, True))


def _compare_floats(name: str, got: Any, expected: Any, tolerance: float) -> OutputError:
    finite = np.isfinite(expected)
    if not np.array_equal(np.where(finite, 0, got), np.where(finite, 0, expected), equal_nan=True):
        return OutputError(name, float("inf"), float("inf"), tolerance, False)  # infinities and NaNs must be the same ones
    if not np.all(np.isfinite(got) == finite):
        return OutputError(name, float("inf"), float("inf"), tolerance, False)
    reference = np.where(finite, expected, 0)
    difference = np.where(finite, got, 0) - reference
    absolute = float(np.max(np.abs(difference), initial=0))
    scale = float(np.max(np.abs(reference), initial=0)) or 1.0  # squares of large numbers overflow
    norm = float(np.linalg.norm(reference / scale))
    relative = float(np.linalg.norm(difference / scale)) / norm if norm else absolute
    return OutputError(name, relative, absolute, tolerance, bool(relative <= tolerance))


def _by_references(model: Any, feeds: Mapping[str, Any], mark_outputs: Sequence[str]) -> dict[str, Any]:
    graph, _ = read_model(model, mark_outputs)
    with np.errstate(all="ignore"):
        outputs = interpret(graph, [feeds[v.name] for v in graph.inputs])
    return dict(zip(graph.output_names, outputs, strict=True))


class _Refused(Exception):
    """Why ONNX Runtime is not the oracle, in one line."""


def _by_onnxruntime(
    model: Any, feeds: Mapping[str, Any], names: Sequence[str], mark_outputs: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """The outputs by ONNX Runtime. Raises _Refused where it is not installed, or does not take this model."""
    if mark_outputs:
        raise _Refused("onnxruntime returns the model's own outputs only, not the marked ones")
    try:
        import onnxruntime  # late: optional, and heavy
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise _Refused(f"onnxruntime cannot be imported: {error}") from None
    # Its errors have no base class of their own; some inputs (bf16, fp8) its Python side refuses by numpy's errors.
    own = [v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception)]
    refusals: tuple[type[Exception], ...] = (*own, RuntimeError, ValueError, TypeError)
    source = str(model) if isinstance(model, (str, Path)) else model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        outputs = session.run(list(names), dict(feeds))
    except refusals as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _Refused(f"onnxruntime {onnxruntime.__version__} does not take this model: {reason}") from None
    return f"onnxruntime {onnxruntime.__version__}", dict(zip(names, outputs, strict=True))
