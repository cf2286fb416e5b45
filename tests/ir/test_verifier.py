"""The verifier accepts well-formed graphs and names the node of each kind of damage."""

import numpy as np
import pytest

from engine_format.dtypes import DType
from miniinfer_cli.ir import Graph, TensorType, constant
from miniinfer_cli.ir.text import parse_graph
from miniinfer_cli.ir.verifier import MalformedGraph, verify

TEXT = """
graph main(x: f32[2]) {
  a: f32[2] = Neg(x)
  c: f32[2] = const [1, 2]
  b: f32[2] = Add(a, c)
  r: f32[2] = miniinfer.FusedPointwise(b, a)
    body: graph FusedPointwise(b: f32[2], a: f32[2]) {
      s: f32[2] = Mul(b, a)
      return s
    }
  i: f32[2] = If(x, r)
    then_branch: graph then(r: f32[2]) {
      return r
    }
    else_branch: graph else(r: f32[2]) {
      t: f32[2] = Exp(r)
      return t
    }
  return y=i, a
}
"""


def test_a_well_formed_graph_passes():
    verify(parse_graph(TEXT))


def test_a_branch_that_inference_never_reached_passes():
    graph = parse_graph(TEXT)
    graph.nodes[-1].graphs["else_branch"].nodes[0].output._type = None
    verify(graph)


def test_an_empty_graph_passes():
    verify(Graph())


def swap_order(graph, nodes):
    graph.move_before(nodes["b"], nodes["a"])


def foreign_value(graph, nodes):
    graph.set_inputs(nodes["a"], [Graph().add_input("z", TensorType(DType.F32, (2,)))])


def forget_a_use(graph, nodes):
    graph.inputs[0]._uses[nodes["a"]] = 2


def keep_a_stale_user(graph, nodes):
    nodes["a"].output._uses[nodes["i"]] = 1


def steal_the_producer(graph, nodes):
    nodes["a"].output.producer = nodes["b"]


def same_name_twice(graph, nodes):
    nodes["b"].output._name = "a"


def drop_the_type(graph, nodes):
    nodes["a"].output._type = None


def wrong_constant_type(graph, nodes):
    nodes["b"].inputs[1]._type = TensorType(DType.F32, (3,))


def constant_with_a_producer(graph, nodes):
    nodes["a"].output.constant = constant(np.zeros(2, np.float32))


def missing_region_input(graph, nodes):
    graph.set_inputs(nodes["r"], nodes["r"].inputs[:1])


def region_type_differs(graph, nodes):
    nodes["r"].body.inputs[0]._type = TensorType(DType.F32, (3,))


def region_in_onnx(graph, nodes):
    nodes["r"].domain = ""


def body_in_a_body(graph, nodes):
    nodes["r"].body.nodes[0].body = Graph()


def nested_region(graph, nodes):
    nodes["r"].body.nodes[0].graphs = {"body": Graph()}


def damage_inside_a_body(graph, nodes):
    nodes["r"].body.nodes[0].output._name = "b"


def damage_inside_a_subgraph(graph, nodes):
    nodes["i"].graphs["else_branch"].set_outputs([nodes["a"].output])


def node_of_another_graph(graph, nodes):
    nodes["a"].graph = Graph()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap_order, r"node 'b' \(Add\) reads <a: f32\[2\]>, which nothing before it makes"),
        (foreign_value, r"node 'a' \(Neg\) reads <z: f32\[2\]>, which nothing"),
        (forget_a_use, r"node 'a' \(Neg\) reads <x: f32\[2\]> 1 times, and the value knows of 2"),
        (keep_a_stale_user, r"node 'a' \(Neg\) its output <a: f32\[2\]> names <If 'i'> as a user"),
        (steal_the_producer, r"node 'a' \(Neg\) does not own its output"),
        (same_name_twice, "two values named 'a'"),
        (drop_the_type, r"node 'a' \(Neg\) its output <a: \?> has no type"),
        (wrong_constant_type, r"node 'b' \(Add\) reads <c: f32\[3\]>, a constant that holds f32\[2\]"),
        (constant_with_a_producer, r"node 'b' \(Add\) reads <a: f32\[2\]>, a constant with a producer"),
        (missing_region_input, r"node 'r' \(FusedPointwise\) has 1 inputs and 1 outputs, its body 2 and 1"),
        (region_type_differs, r"node 'r' \(FusedPointwise\) <b: f32\[2\]> is <b: f32\[3\]> in its body"),
        (region_in_onnx, r"node 'r' \(FusedPointwise\) has a body but stands in ai.onnx"),
        (body_in_a_body, r"node 'r' \(FusedPointwise\) its body holds <Mul 's'>"),
        (nested_region, r"node 'r' \(FusedPointwise\) its body holds <Mul 's'>"),
        (damage_inside_a_body, r"node 'r' \(FusedPointwise\) in its body: graph 'FusedPointwise' has two values named 'b'"),
        (damage_inside_a_subgraph, "graph 'else' returns <a: f32\\[2\\]>, which nothing in it makes"),
        (node_of_another_graph, r"node 'a' \(Neg\) belongs to another graph"),
    ],
)
def test_each_kind_of_damage_is_named(damage, message):
    graph = parse_graph(TEXT)
    damage(graph, {n.name: n for n in graph})
    with pytest.raises(MalformedGraph, match=message):
        verify(graph)


def test_the_signature_needs_one_distinct_name_per_output():
    graph = parse_graph(TEXT)
    graph.output_names = ("y",)
    with pytest.raises(MalformedGraph, match="2 outputs and 1 names"):
        verify(graph)
    graph.output_names = ("y", "y")
    with pytest.raises(MalformedGraph, match="2 outputs named 'y'"):
        verify(graph)


def test_an_input_must_not_be_made():
    graph = parse_graph(TEXT)
    graph.inputs[0].producer = graph.nodes[0]
    with pytest.raises(MalformedGraph, match="input <x: f32\\[2\\]> has a producer or is a constant"):
        verify(graph)


def test_an_input_must_be_free():
    graph = parse_graph(TEXT)
    graph.inputs[0].constant = constant(np.zeros(2, np.float32))
    with pytest.raises(MalformedGraph, match="input <x: f32\\[2\\]> has a producer or is a constant"):
        verify(graph)
