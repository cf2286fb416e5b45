"""Where a GPU would run the nodes of a plan, as it is told with no GPU at hand."""

from engine_format import DimensionRange
from miniinfer_cli.devices.placement import Placement, Unplaced, place
from miniinfer_cli.wording import as_flags
from tests.graph_text import typed_graph
from tests.late_graphs import AROUND, CHOSEN


def test_all_on_the_device():
    graph = typed_graph("graph main(x: f32[n,3]) {\n  y = Neg(x)\n  z = Softmax(y)\n  return z\n}")
    placement = place(graph, {})
    assert isinstance(placement, Placement)
    assert placement.lines() == ["On a GPU: 2 steps, all on the device"]


def test_late_parts_are_counted():
    placement = place(typed_graph(CHOSEN), {})
    assert isinstance(placement, Placement)
    assert (placement.late_parts, placement.host_nodes) == (1, ())
    late = "1 late part (made ready once data have decided their sizes)"
    assert placement.lines() == [f"On a GPU: {placement.device_steps} steps, all on the device, {late}"]


def test_host_nodes_are_named_with_what_they_copy():
    placement = place(typed_graph(AROUND), {})
    assert isinstance(placement, Placement)
    (node,) = placement.host_nodes
    assert (node.node, node.operation) == ("b", "Add")
    assert placement.lines()[1].startswith(f"  host: b (Add): {node.reason}; copies {node.copied_nbytes} B")
    assert placement.to_json()["late_parts"] == 1


def test_host_nodes_within_branches_are_named():
    """Sizes are not known there, and so neither are bytes."""
    text = """
graph main(x: f32[n]) {
  zero: f32[] = const 0.0
  m = ReduceMax(x) {keepdims=0}
  c = Greater(m, zero)
  y = If(c, x)
    then_branch: graph a(x) {
      first: i64[] = const 0
      n = Neg(x)
      s = SequenceConstruct(n)
      u = SequenceAt(s, first)
      return u
    }
    else_branch: graph b(x) {
      v = Abs(x)
      return v
    }
  return y
}
"""
    placement = place(typed_graph(text), {})
    assert isinstance(placement, Placement)
    assert [(n.node, n.copied_nbytes) for n in placement.host_nodes] == [("s", None), ("u", None)]
    assert placement.lines()[1] == "  host: s (SequenceConstruct): no lowering, within 'y'; copies unknown"


ODD = """
graph main(x: f32[n,3], y: f32[m,3]) {
  s: i64[2] = const [2, 3]
  z = Add(x, y)
  w = Reshape(z, s)
  return w
}
"""


def test_optimal_sizes_that_do_not_go_through_the_model_are_told():
    graph = typed_graph(ODD)
    ranges = {"n": DimensionRange("n", 1, 4, 8)}
    placement = place(graph, ranges)
    assert isinstance(placement, Unplaced)
    assert (placement.sizes, placement.to_json()["sizes"]) == ({"n": 4, "m": 1}, {"n": 4, "m": 1})
    (line,) = placement.lines()
    assert line.startswith(
        "On a GPU: not known before a run: the optimal sizes (n = 4, m = 1) do not go through the model: node 'w': "
    )
    assert as_flags(line).endswith("; build with sizes that do, --opt-shapes x:nx3,y:mx3, to see it")
    assert line.endswith("; build with sizes that do, opt_shapes of x:nx3,y:mx3, to see it")
    assert isinstance(place(graph, {"n": DimensionRange("n", 1, 2, 8)}), Placement)
