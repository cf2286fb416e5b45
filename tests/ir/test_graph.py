"""Edits of a graph: uses, names, order and copies stay right, and what would break them raises."""

import numpy as np
import pytest

from engine_format.dtypes import DType
from miniinfer_cli.ir import Graph, TensorType, constant
from miniinfer_cli.ir.text import parse_graph, print_graph
from miniinfer_cli.ir.types import MapType, OptionalType, SequenceType
from miniinfer_cli.ir.verifier import verify

F32 = TensorType(DType.F32, (2,))
TEXT = """\
graph main(x: f32[2]) {
  a: f32[2] = Neg(x)
  c: f32[2] = const [1.0, 2.0]
  b: f32[2] = Add(a, c)
  d: f32[2] = Mul(b, b)
  return d
}
"""


@pytest.fixture
def graph():
    return parse_graph(TEXT)


def node(graph, name):
    return next(n for n in graph if n.name == name)


def test_a_value_knows_producer_and_users(graph):
    a, b = node(graph, "a").output, node(graph, "b").output
    assert (a.producer, a.users) == (node(graph, "a"), (node(graph, "b"),))
    assert b.users == (node(graph, "d"),)
    assert graph.inputs[0].producer is None
    assert [v.name for v in graph.values()] == ["x", "a", "c", "b", "d"]
    assert [v.name for v in graph.constants()] == ["c"]
    assert graph.is_output(node(graph, "d").output)
    assert not graph.is_output(a)


def test_replacing_uses_reaches_nodes_and_outputs(graph):
    x = graph.inputs[0]
    graph.replace_uses(node(graph, "b").output, x)
    assert node(graph, "d").inputs == (x, x)
    assert node(graph, "b").output.users == ()
    graph.replace_uses(node(graph, "d").output, x)
    assert (graph.outputs, graph.output_names) == ((x,), ("d",))
    verify(graph)


def test_a_value_read_twice_is_in_use_until_both_are_gone(graph):
    d, b = node(graph, "d"), node(graph, "b").output
    graph.set_inputs(d, (b, graph.inputs[0]))
    assert b.users == (d,)
    graph.set_inputs(d, (graph.inputs[0], graph.inputs[0]))
    assert b.users == ()
    verify(graph)


def test_only_what_nobody_reads_can_be_removed(graph):
    with pytest.raises(ValueError, match="cannot remove <Neg 'a'>: <a: f32\\[2\\]> is still read"):
        graph.remove(node(graph, "a"))
    with pytest.raises(ValueError, match="cannot remove <Mul 'd'>"):
        graph.remove(node(graph, "d"))
    b = node(graph, "b")
    graph.replace_uses(b.output, graph.inputs[0])
    graph.remove(b)
    assert b not in graph
    assert [n.name for n in graph] == ["a", "d"]
    verify(graph)


def test_replacing_a_node_hands_its_name_to_what_asked_for_it(graph):
    b = node(graph, "b")
    graph.rename_node(b, "/layer/Add")
    value = graph.add("Sub", *b.inputs, out="b", type=F32, before=b)
    assert (value.name, value.producer.name) == ("b_1", "b_1")
    graph.replace_node(b, [value])
    assert (value.name, value.producer.name) == ("b", "/layer/Add")
    verify(graph)


def test_replacing_a_node_leaves_the_names_of_values_made_for_something_else(graph):
    b = node(graph, "b")
    graph.replace_node(b, [graph.inputs[0]])
    assert graph.inputs[0].name == "x"
    other = graph.add("Sub", graph.inputs[0], graph.inputs[0], out="y", type=F32, before=node(graph, "d"))
    graph.replace_node(node(graph, "d"), [other])
    assert (other.name, graph.output_names) == ("y", ("d",))


def test_folding_a_node_keeps_the_value(graph):
    b = node(graph, "b")
    value = b.output
    graph.fold_node(b, [constant(np.array([5, 6], np.float32))])
    assert b not in graph
    assert node(graph, "d").inputs == (value, value)
    assert (value.name, value.producer, value.tensor.known.tolist()) == ("b", None, [5, 6])
    assert node(graph, "a").output.users == ()
    verify(graph)


def test_names_are_unique_and_free_again_after_removal(graph):
    assert [graph.unique_name("b"), graph.unique_name("b"), graph.unique_name("fresh"), graph.unique_name("")] == [
        "b_1", "b_2", "fresh", "v",
    ]  # fmt: skip
    d = node(graph, "d")
    graph.set_outputs([])
    graph.remove(d)
    assert graph.new_value("d").name == "d"


def test_only_a_free_value_gets_a_producer_or_contents(graph):
    a = node(graph, "a").output
    with pytest.raises(ValueError, match="already has a producer"):
        graph.add_node("Neg", [], [a])
    with pytest.raises(ValueError, match="has a producer"):
        graph.set_constant(a, constant(1))
    with pytest.raises(ValueError, match="already has a producer"):
        graph.add_node("Neg", [], [next(graph.constants())])


def test_an_input_can_be_removed_when_nobody_reads_it(graph):
    spare = graph.add_input("spare", F32)
    with pytest.raises(ValueError, match="cannot remove input <x"):
        graph.remove_input(graph.inputs[0])
    graph.remove_input(spare)
    assert [v.name for v in graph.inputs] == ["x"]
    with pytest.raises(ValueError, match="cannot remove input <spare"):
        graph.remove_input(spare)


def test_nodes_go_where_they_are_put(graph):
    b = node(graph, "b")
    first = graph.add("Exp", graph.inputs[0], out="first", before=graph.nodes[0])
    middle = graph.add("Exp", first, out="middle", before=b)
    graph.add("Exp", middle, out="last")
    assert [n.name for n in graph] == ["first", "a", "middle", "b", "d", "last"]
    graph.move_before(middle.producer, node(graph, "a"))
    assert [n.name for n in graph] == ["first", "middle", "a", "b", "d", "last"]
    graph.move_before(b, b)
    assert len(graph) == 6
    with pytest.raises(ValueError, match="is not in this graph"):
        graph.add("Exp", first, before=Graph().add("Neg").producer)


def test_walking_a_snapshot_survives_edits(graph):
    for n in graph.nodes:
        graph.replace_uses(n.output, graph.inputs[0])
        graph.remove(n)
    assert len(graph) == 0
    assert graph.nodes == ()


def test_sorting_restores_the_order_and_is_stable(graph):
    d, a = node(graph, "d"), node(graph, "a")
    graph.move_before(d, a)
    graph.add("Exp", graph.inputs[0], out="free")
    graph.sort()
    assert [n.name for n in graph] == ["a", "b", "d", "free"]
    verify(parse_graph(TEXT))


def test_sorting_finds_a_cycle(graph):
    graph.set_inputs(node(graph, "a"), [node(graph, "d").output])
    with pytest.raises(ValueError, match="the graph has a cycle through <"):
        graph.sort()


REGION = """\
graph main(x: f32[2], k: bool[]) {
  r: f32[2] = miniinfer.FusedPointwise(x)
    body: graph FusedPointwise(x: f32[2]) {
      half: f32[] = const 0.5
      y: f32[2] = Mul(x, half)
      return y
    }
  i: f32[2] = If(k, r) {mark=[1]}
    then_branch: graph then(r: f32[2]) {
      return r
    }
    else_branch: graph else(r: f32[2]) {
      z: f32[2] = Neg(r)
      return z
    }
  return i
}
"""


def test_types_and_names_change_through_the_graph_alone(graph):
    b = node(graph, "b")
    for owner, attribute in ((b, "name"), (b.output, "name"), (b.output, "type")):
        with pytest.raises(AttributeError, match=f"'{attribute}'"):
            setattr(owner, attribute, None)
    graph.rename_node(b, "other")
    graph.set_type(b.output, None)
    graph.set_attribute(b, "axis", 1)
    graph.set_attribute(b, "axis", 2)
    assert (b.name, b.output.name, b.output.type, b.attrs) == ("other", "b", None, {"axis": 2})


def test_inputs_of_a_graph_are_made_by_nobody(graph):
    made, fresh = node(graph, "b").output, [graph.new_value("p", F32), graph.new_value("q", F32)]
    with pytest.raises(ValueError, match="are made in it"):
        graph.set_graph_inputs([*fresh, made])
    graph.set_graph_inputs(fresh)
    assert graph.inputs == tuple(fresh)


def test_a_copy_is_equal_and_independent():
    graph = parse_graph(REGION)
    copy = graph.copy()
    verify(copy)
    assert print_graph(copy) == REGION
    region = copy.nodes[0]
    region.body.set_outputs([region.body.inputs[0]])
    branch = copy.nodes[1].graphs["else_branch"]
    branch.set_attribute(branch.nodes[0], "axis", 1)
    copy.set_attribute(copy.nodes[1], "mark", [])
    assert print_graph(graph) == REGION


def test_inlining_maps_inputs_and_drops_absent_ones():
    inner = parse_graph("graph g(a: f32[2], b: f32[2]) { y: f32[2] = Clip(a, b) return y, a }")
    graph = parse_graph("graph main(y: f32[2]) { z: f32[2] = Neg(y) return z }")
    y, a = graph.inline(inner, [graph.inputs[0], None], before=graph.nodes[0])
    assert a is graph.inputs[0]
    assert (y.name, y.producer.inputs) == ("y_1", (graph.inputs[0], None))
    assert [n.op for n in graph] == ["Clip", "Neg"]
    assert print_graph(inner).count("Clip(a, b)") == 1


def test_asking_a_value_for_its_tensor_type():
    graph = Graph()
    assert graph.add_input("x", F32).tensor is F32
    with pytest.raises(TypeError, match=r"value 's' is seq\(f32\[2\]\), not a tensor"):
        _ = graph.add_input("s", SequenceType(F32)).tensor
    with pytest.raises(TypeError, match="value 'u' is of unknown type"):
        _ = graph.add_input("u", None).tensor


def test_types_print_as_they_are_written():
    assert str(OptionalType(SequenceType(TensorType(DType.BF16)))) == "optional(seq(bf16[?]))"
    assert str(MapType(DType.STR, None)) == "map(str,?)"


def test_contents_take_no_part_in_comparing_types():
    known = TensorType(DType.I64, (2,), np.array([1, 2]))
    assert known == TensorType(DType.I64, (2,))
    assert known.concrete.tolist() == [1, 2]
    symbolic = TensorType(DType.I32, (2,), np.array([1, 2], object))
    assert symbolic.concrete.dtype == np.int32
