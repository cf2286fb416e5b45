"""FlexAttention on the emulated device beside the numpy reference, with sub-graphs as primitives."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.tactics.test_attention import EXACT, F16, F32, F64, qkv
from tests.backends.nodes import assert_close, reference

FLEX = "ai.onnx.preview"


@pytest.mark.parametrize("dtype", [F32, F16, F64])
def test_flex_attention_without_sub_graphs(dtype: Any) -> None:
    tolerance = {F32: 5e-6, F16: 2e-3, F64: 1e-12}[dtype]
    check_op("FlexAttention", *qkv(2, 4, 2, 10, 20, 16, 12, dtype=dtype), domain=FLEX, target=EXACT, tolerance=tolerance)


@pytest.mark.parametrize("dtype", [F32, F16])
def test_flex_attention_with_sub_graphs(dtype: Any) -> None:
    q, k, v = qkv(2, 4, 2, 10, 40, 16, dtype=dtype)
    shift = np.array(0.25, F32)
    graph = Graph("flex")
    operands = [graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate((q, k, v, shift))]
    kind = TensorType(DType.F32, (2, 4, 10, 40))
    graphs = {}
    for name, op in (("score_mod", "Add"), ("prob_mod", "Mul")):
        inner = graphs[name] = Graph(name)
        x, by = inner.add_input("x", kind), inner.add_input("by", TensorType(DType.F32, ()))
        y = inner.new_value("y", kind)
        inner.add_node(op, (x, by), (y,))
        inner.set_outputs([y])
    result = graph.new_value("y")
    graph.add_node("FlexAttention", operands, [result], domain=FLEX, graphs=graphs)
    graph.set_outputs([result])
    (got,) = run_graph(graph, [q, k, v, shift], EXACT, instead=["MatMul", "Add", "Softmax", "Mul"])
    (plain,) = reference("FlexAttention", q, k, v, domain=FLEX, graphs={}, run_graph=None)
    assert_close(got, (plain.astype(F32) * shift).astype(dtype), 5e-6 if dtype is F32 else 2e-3)
