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
TOLERANCES: dict[DType, float] = {DType.F64: 1e-5, DType.F32: 1e-5, DType.F16: 1e-2, DType.BF16: 5e-2}
_QUANTIZED = 0.02  # part of the integer elements that may differ by rounding in a quantized model


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
    """The comparison of all outputs with ``oracle``."""

    oracle: str
    outputs: tuple[OutputError, ...]

    @property
    def ok(self) -> bool:
        """True when every output is within its tolerance."""
        return all(o.ok for o in self.outputs)


def verify_plan(model: Any, plan: Plan, feeds: Mapping[str, Any], mark_outputs: Sequence[str] = ()) -> Verification:
    """Runs the plan on the CPU and ``model`` by the oracle, on the same inputs."""
    with Engine(plan, "cpu") as engine:
        got = engine.run(feeds)
        names = [b.name for b in engine.outputs]
    oracle, expected = _expected(model, feeds, names, mark_outputs)
    return Verification(oracle, tuple(compare(n, got[n], expected[n]) for n in names))


def compare(name: str, got: Any, expected: Any) -> OutputError:
    """Compares one output. Shapes and types must agree; strings, bools and integers must be equal but for rounding."""
    if not isinstance(expected, np.ndarray) or not isinstance(got, np.ndarray):
        same = repr(got) == repr(expected)
        return OutputError(name, 0.0 if same else float("inf"), 0.0 if same else float("inf"), 0.0, same)
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return OutputError(name, float("inf"), float("inf"), 0.0, False)
    kind = dtype_of(got)
    if kind in TOLERANCES:
        return _compare_floats(name, got.astype(np.float64), expected.astype(np.float64), TOLERANCES[kind])
    differing = got != expected
    part = float(np.mean(differing)) if got.size else 0.0
    allowed = _QUANTIZED if kind.is_integer and kind.bits <= 8 else 0.0
    widest = (
        float(np.max(np.abs(got.astype(np.float64) - expected.astype(np.float64)), initial=0))
        if got.dtype.kind in "iub"
        else part
    )
    return OutputError(name, part, widest, allowed, part <= allowed)


def _compare_floats(name: str, got: Any, expected: Any, tolerance: float) -> OutputError:
    finite = np.isfinite(expected)
    if not np.array_equal(np.where(finite, 0, got), np.where(finite, 0, expected), equal_nan=True):
        return OutputError(name, float("inf"), float("inf"), tolerance, False)  # infinities and NaNs must be the same ones
    difference = np.where(finite, got - np.where(finite, expected, 0), 0)
    absolute = float(np.max(np.abs(difference), initial=0))
    norm = float(np.linalg.norm(np.where(finite, expected, 0)))
    relative = float(np.linalg.norm(difference)) / norm if norm else absolute
    return OutputError(name, relative, absolute, tolerance, bool(relative <= tolerance))


def _expected(
    model: Any, feeds: Mapping[str, Any], names: Sequence[str], mark_outputs: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    if not mark_outputs:
        found = _by_onnxruntime(model, feeds, names)
        if found is not None:
            return found
    graph, _ = read_model(model, mark_outputs)
    with np.errstate(all="ignore"):
        outputs = interpret(graph, [feeds[v.name] for v in graph.inputs])
    return "the unoptimized graph (numpy references)", dict(zip(graph.output_names, outputs, strict=True))


def _by_onnxruntime(model: Any, feeds: Mapping[str, Any], names: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """The outputs by ONNX Runtime; None where it is not installed, or does not take this model."""
    try:
        import onnxruntime  # late: optional, and heavy
    except ImportError:
        return None
    source = str(model) if isinstance(model, (str, Path)) else model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        outputs = session.run(list(names), dict(feeds))
    except Exception:  # its errors share no base class but Exception; what it refuses, the other oracle checks
        return None
    return f"onnxruntime {onnxruntime.__version__}", dict(zip(names, outputs, strict=True))
