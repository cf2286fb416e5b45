"""The graph that a change asks for computes what the plan's graph does, as far as the change lets it."""

import numpy as np
import pytest

from miniinfer_cli.diagnosis.change import Change
from miniinfer_cli.diagnosis.variants import BuiltAs, changed_graph, fixed_nodes
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.pipeline import optimize
from tests.graph_text import typed_graph

TEXT = """graph main(x: f32[batch,4]) {
  w: f32[4,3] = const [1.0, 2.0, 0.5, 0.25, 1.0, 1.0, 2.0, 1.0, 0.5, 1.0, 0.5, 1.0]
  h = MatMul(x, w)
  r = Relu(h)
  y = Neg(r)
  return y, h
}"""
X = np.array([[1, 2, 3, 4], [0, 5, 1, 2]], np.float32)


def changed(change: Change, text: str = TEXT) -> Graph:
    graph = typed_graph(text)
    optimize(graph)
    before = print_graph(graph)
    found = changed_graph(graph, change, [TensorType(DType.F32, (2, 4))], BuiltAs())
    assert print_graph(graph) == before  # it is a copy that was changed
    verify(found)
    return found


def test_all_passes_fuse_what_a_low_level_left():
    low = typed_graph(TEXT.replace(", h\n", "\n"))
    optimize(low, 1)
    assert len(low) == 3
    full = changed_graph(low, Change(full=True), [TensorType(DType.F32, (2, 4))], BuiltAs(1, ("fuse_matmul",)))
    assert [n.op for n in full] == ["FusedMatMul"]
    as_built = changed_graph(low, Change(), [TensorType(DType.F32, (2, 4))], BuiltAs(1))
    assert len(as_built) == 3
    assert np.array_equal(interpret(full, [X])[0], interpret(as_built, [X])[0])


def test_an_output_that_is_left_out_no_longer_keeps_a_product_by_itself():
    graph = changed(Change(without=("h",)))
    assert graph.output_names == ("y",)
    assert [n.op for n in graph] == ["FusedMatMul"]
    assert len(changed(Change())) == 2


def test_fixed_sizes():
    assert str(changed(Change(fixed=True)).inputs[0].type) == "f32[2,4]"
    open_sizes = typed_graph("graph main(x: f32[batch,4]) {\n s = Shape(x)\n r = Reshape(x, s)\n y = Neg(r)\n return y, s\n}")
    optimize(open_sizes)
    assert fixed_nodes(open_sizes, [TensorType(DType.F32, (2, 4))], BuiltAs()) == len(open_sizes) - 1
    assert fixed_nodes(open_sizes, [open_sizes.inputs[0].type], BuiltAs()) is None


def test_an_input_of_bytes_is_converted_first():
    graph = changed(Change(uint8=("x",)))
    assert str(graph.inputs[0].type) == "u8[batch,4]"
    for ours, theirs in zip(interpret(graph, [X.astype(np.uint8)]), interpret(changed(Change()), [X]), strict=True):
        assert np.array_equal(ours, theirs)


def test_half_within_between_inputs_and_outputs_of_f32():
    graph = changed(Change(half=True))
    assert [str(v.type) for v in (*graph.inputs, *graph.outputs)] == ["f32[batch,4]", "f32[batch,3]", "f32[batch,3]"]
    assert "f16[4,3]" in {str(v.type) for v in graph.constants()}
    for ours, theirs in zip(interpret(graph, [X]), interpret(changed(Change()), [X]), strict=True):
        assert np.array_equal(ours, theirs)  # small numbers, which f16 holds


def test_half_is_no_way_out_for_weights_beyond_it():
    with pytest.raises(ModelError, match="reaches 1e\\+05"):
        changed(Change(half=True), text=TEXT.replace("1.0", "1e5"))


def test_how_a_plan_was_built_is_read_from_what_it_records():
    assert BuiltAs.of({"opt_level": 1, "disable_passes": ["a"], "tf32": False}) == BuiltAs(1, ("a",), False)
    assert BuiltAs.of({}) == BuiltAs(2, (), True)
    assert BuiltAs.of({"opt_level": "high", "disable_passes": "all", "tf32": None}) == BuiltAs()  # of another writer
