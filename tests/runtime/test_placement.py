"""Where a GPU would run the nodes of a plan, as it is told with no GPU at hand."""

from miniinfer_cli.runtime.placement import place
from tests.graph_text import typed_graph
from tests.late_graphs import AROUND, CHOSEN


def test_all_on_the_device():
    graph = typed_graph("graph main(x: f32[n,3]) {\n  y = Neg(x)\n  z = Softmax(y)\n  return z\n}")
    placement = place(graph, {})
    assert placement is not None
    assert placement.lines() == ["On a GPU: 2 steps, all on the device"]


def test_late_parts_are_counted():
    placement = place(typed_graph(CHOSEN), {})
    assert placement is not None
    assert (placement.late_parts, placement.host_nodes) == (1, ())
    late = "1 late part (made ready once data have decided their sizes)"
    assert placement.lines() == [f"On a GPU: {placement.device_steps} steps, all on the device, {late}"]


def test_host_nodes_are_named_with_what_they_copy():
    placement = place(typed_graph(AROUND), {})
    assert placement is not None
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
    assert placement is not None
    assert [(n.node, n.copied_nbytes) for n in placement.host_nodes] == [("s", None), ("u", None)]
    assert placement.lines()[1] == "  host: s (SequenceConstruct): no lowering, within 'y'; copies unknown"
