"""Regions: nodes move into a body, and the numbers stay."""

from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.passes.regions import make_region

TEXT = """graph main(x: f32[batch,4], y: f32[4]) {
  a = Mul(x, y) @/first
  half: f32[1] = const [0.5]
  b = Add(a, half)
  many: f32[4] = const [1, 2, 3, 4]
  c = Sub(b, many)
  d = Neg(a)
  return c, d, middle=b
}"""


def test_a_region_carries_its_nodes_and_reads_what_they_read(graph_of, outputs_of):
    graph = graph_of(TEXT)
    before = outputs_of(graph)
    a, b, c, d = graph.nodes
    region = make_region(graph, "FusedPointwise", [a, b, c])
    verify(graph)
    assert print_graph(graph) == print_graph(
        graph_of(
            """graph main(x: f32[batch,4], y: f32[4]) {
              many: f32[4] = const [1, 2, 3, 4]
              a, b, c = miniinfer.FusedPointwise(x, y, many) @/first
                body: graph FusedPointwise(x: f32[batch,4], y: f32[4], many: f32[4]) {
                  a = Mul(x, y) @/first
                  half: f32[1] = const [0.5]
                  b = Add(a, half)
                  c = Sub(b, many)
                  return a, b, c
                }
              d = Neg(a)
              return c, d, middle=b
            }"""
        )
    )
    assert (region.op, d in graph, a in graph) == ("FusedPointwise", True, False)
    for expected, actual in zip(before, outputs_of(graph), strict=True):
        assert (expected == actual).all()


def test_a_size_that_is_no_number_yet_is_read_from_outside(graph_of, outputs_of):
    graph = graph_of(
        """graph main(x: i64[batch,4]) {
          n = Shape(x) {end=1}
          a = Mul(x, n)
          b = Neg(a)
          return b
        }"""
    )
    (before,) = outputs_of(graph)
    region = make_region(graph, "FusedPointwise", graph.nodes[1:])
    assert [v.name for v in region.inputs] == ["x", "n"]
    assert (outputs_of(graph)[0] == before).all()


def test_a_value_read_only_inside_stays_inside(graph_of):
    graph = graph_of("graph main(x: f32[4]) { a = Neg(x) b = Mul(a, a) return b }")
    region = make_region(graph, "FusedPointwise", graph.nodes)
    assert [v.name for v in region.outputs] == ["b"]
    assert region.name == "a"
