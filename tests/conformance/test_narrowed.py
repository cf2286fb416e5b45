"""The first case of each operation in onnx's suite that reads f32, in f16: sound after every pass, right but for rounding."""

from collections.abc import Iterator

import numpy as np
import onnx

from miniinfer_cli.builder.building import read_model
from miniinfer_cli.ir import DType, Numerics
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.passes.precision.narrow_floats import ask
from tests.conformance.cases import Case, all_cases

DRAWN = {"Bernoulli"}
"""Operations whose results are drawn, or that a rounding of their operands sends elsewhere."""
LIMIT = 2e-2


def first_cases() -> Iterator[tuple[str, Case]]:
    """By operation."""
    seen = set(DRAWN)
    for case in all_cases():
        if case.kind != "node" or not isinstance(case.model, onnx.ModelProto) or case.name.endswith("_expanded"):
            continue
        op = case.model.graph.node[-1].op_type
        if op not in seen and any(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in case.model.graph.input):
            seen.add(op)
            yield op, case


def error_of(case: Case) -> float:
    """How far the f32 outputs are off in f16; infinite where they are of another type, shape, or place of infinities."""
    graph, _ = read_model(case.model)
    ask(graph, Numerics(DType.F16))
    optimize(graph, check=True)
    worst = 0.0
    for feeds, wanted in case.runs():
        with np.errstate(all="ignore"):
            outputs = interpret(graph, [feeds.get(v.name) for v in graph.inputs])
        for got, want in zip(outputs, wanted, strict=False):
            if isinstance(want, np.ndarray) and want.dtype == np.float32:
                worst = max(worst, _off(np.asarray(got), want))
    return worst


def _off(got: np.ndarray, want: np.ndarray) -> float:
    finite = np.isfinite(want)
    if got.dtype != want.dtype or got.shape != want.shape or not np.array_equal(np.isfinite(got), finite):
        return np.inf
    scale = np.linalg.norm(want[finite].astype(np.float64))
    return float(np.linalg.norm(got[finite].astype(np.float64) - want[finite]) / (scale or 1.0))


def test_every_operation_in_f16():
    errors = {op: error_of(case) for op, case in first_cases()}
    assert len(errors) > 130
    assert {op: e for op, e in errors.items() if not e <= LIMIT} == {}
    assert sum(e > 1e-5 for e in errors.values()) > 60, "hardly anything was rounded"
