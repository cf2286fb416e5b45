"""retype_bindings: inputs and outputs in other element types, with the graph within as it was."""

import numpy as np

from miniinfer_cli.ir import DType, constant
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.binding_types import retype_bindings
from tests.graph_text import typed_graph

TEXT = """graph main(x: f32[2], z: f32[2], i: i64[2]) {
  y = Add(x, z)
  return y, x, i
}"""


def test_casts_stand_at_the_borders():
    graph = typed_graph(TEXT)
    assert retype_bindings(graph, {"x": DType.F16, "z": DType.F32}, {"y": DType.BF16}) == 2
    verify(graph)
    assert print_graph(graph) == print_graph(
        typed_graph("""graph main(x: f16[2], z: f32[2], i: i64[2]) {
          x_1 = Cast(x) {to=1}
          y = Add(x_1, z)
          y_bf16 = Cast(y) {to=16}
          return y=y_bf16, x=x_1, i
        }""")
    )
    before = print_graph(graph)
    annotate(graph)
    assert print_graph(graph) == before


def test_a_default_has_the_type_of_its_input():
    graph = typed_graph(TEXT)
    graph.defaults["z"] = constant(np.array([1.5, 1e6], np.float32))
    assert retype_bindings(graph, {"z": DType.F16}, {}) == 1
    assert graph.defaults["z"].array().tolist() == [1.5, float("inf")]
    assert graph.defaults["z"].dtype is DType.F16


def test_an_input_that_nobody_reads_and_one_that_is_returned():
    graph = typed_graph("graph main(x: f32[2], u: f32[2]) { return x }")
    assert retype_bindings(graph, {"x": DType.F16, "u": DType.F16}, {"x": DType.F16}) == 3
    verify(graph)
    assert [str(v.type) for v in (*graph.inputs, *graph.outputs)] == ["f16[2]"] * 3
    (got,) = interpret(graph, [np.array([1, 2], np.float16)] * 2)
    assert got.dtype == np.float16 and got.tolist() == [1, 2]
