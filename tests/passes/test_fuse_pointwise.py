"""fuse_pointwise: elementwise operations become regions that depend on nothing that depends on them."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.passes.fuse_pointwise import MOST_INPUTS, MOST_NODES, MOST_OUTPUTS, _Clusters, fuse_pointwise
from tests.passes.graphs import read_graph, run_graph


def test_a_chain_with_a_value_read_outside_is_one_region_of_two_outputs(rewrites):
    rewrites(
        fuse_pointwise,
        """graph main(x: f32[batch,4], y: f32[4]) {
          a = Mul(x, y)
          b = Exp(a)
          s = Softmax(a)
          half: f32[] = const 0.5
          c = Add(b, half)
          return c, s
        }""",
        """graph main(x: f32[batch,4], y: f32[4]) {
          a, c = miniinfer.FusedPointwise(x, y)
            body: graph FusedPointwise(x: f32[batch,4], y: f32[4]) {
              a = Mul(x, y)
              b = Exp(a)
              half: f32[] = const 0.5
              c = Add(b, half)
              return a, c
            }
          s = Softmax(a)
          return c, s
        }""",
    )


def test_a_long_chain_needs_no_search():
    ops = ("Exp", "Neg", "Abs", "Sigmoid")
    chain = " ".join(f"v{i} = {ops[i % 4]}({f'v{i - 1}' if i else 'x'})" for i in range(4 * MOST_NODES))
    graph = read_graph(f"graph main(x: f32[3]) {{ {chain} return v{4 * MOST_NODES - 1} }}")
    clusters = _Clusters(graph)
    left = clusters._visits
    assert [len(c.nodes) for c in clusters.grow()] == [MOST_NODES] * 4
    assert clusters._visits >= left - 8 * len(graph.nodes)


def test_where_the_search_may_not_go_on_nothing_is_merged(monkeypatch):
    """What is not found to be free of cycles stays apart, and the graph as it was."""
    text = "graph main(x: f32[2,4]) { a = Exp(x) s = Softmax(a) b = Neg(a) t = Softmax(b) c = Add(b, s) d = Add(c, t) return d }"
    graph = read_graph(text)
    before = run_graph(graph)
    monkeypatch.setattr("miniinfer_cli.passes.fuse_pointwise._MOST_VISITS", 0)
    assert fuse_pointwise(graph) == 0
    verify(graph)
    for expected, actual in zip(before, run_graph(graph), strict=True):
        assert (expected == actual).all()


CASES = {
    "two chains that meet": ("a = Exp(x) b = Neg(y) c = Add(a, b) return c", ["FusedPointwise"]),
    "a way out and back": ("a = Exp(x) s = Softmax(a) c = Add(a, s) return c", ["Exp", "Softmax", "Add"]),
    "a way round": (
        "a = Exp(x) b = Neg(a) s = Softmax(b) c = Add(a, s) d = Abs(c) return d",
        ["FusedPointwise", "Softmax", "FusedPointwise"],
    ),
    "another shape": ("a = Exp(row) b = Neg(a) c = Add(b, x) d = Abs(c) return d", ["FusedPointwise", "FusedPointwise"]),
    "other element types": ("a = Greater(x, y) b = Not(a) c = Where(b, x, y) d = Cast(c) {to=10} return d", ["FusedPointwise"]),
    "single nodes": ("a = Exp(x) s = Softmax(a) c = Neg(s) return c", ["Exp", "Softmax", "Neg"]),
    "shape arithmetic": ("s = Shape(x) t = Add(s, s) u = Mul(t, s) return u", ["Shape", "Add", "Mul"]),
    "texts": ("a = Identity(text) b = Identity(a) return b", ["Identity", "Identity"]),
}


@pytest.mark.parametrize(("body", "ops"), CASES.values(), ids=CASES.keys())
def test_what_fuses_and_what_does_not(graph_of, outputs_of, body, ops):
    text = "text: str[2]" if "text" in body else "unused: f32[]"
    graph = graph_of(f"graph main(x: f32[batch,4], y: f32[batch,4], row: f32[4], {text}) {{ {body} }}")
    before = outputs_of(graph) if "text" not in body else ()
    fired = fuse_pointwise(graph)
    verify(graph)
    assert [n.op for n in graph] == ops
    assert fired == ops.count("FusedPointwise")
    assert fuse_pointwise(graph) == 0
    for expected, actual in zip(before, outputs_of(graph) if before else (), strict=True):
        assert (expected == actual).all()


def test_two_regions_do_not_come_to_depend_on_each_other(graph_of, outputs_of):
    """Each of two pairs alone is free of cycles; fused both ways they would wait for one another."""
    graph = graph_of(
        """graph main(x: f32[2,4], y: f32[3,4]) {
          a = Exp(x)
          b = Exp(y)
          ra = ReduceSum(a)
          rb = ReduceSum(b)
          c = Mul(a, rb)
          d = Mul(b, ra)
          return c, d
        }"""
    )
    before = outputs_of(graph)
    assert fuse_pointwise(graph) == 1
    verify(graph)
    for expected, actual in zip(before, outputs_of(graph), strict=True):
        assert (expected == actual).all()


def test_a_region_is_bounded(graph_of):
    chain = " ".join(f"v{i + 1} = Neg(v{i})" for i in range(2 * MOST_NODES))
    graph = graph_of(f"graph main(v0: f32[2]) {{ {chain} return v{2 * MOST_NODES} }}")
    assert fuse_pointwise(graph) == 2
    assert [len(n.body) for n in graph] == [MOST_NODES, MOST_NODES]
    inputs = ", ".join(f"x{i}: f32[2]" for i in range(MOST_INPUTS + 4))
    sums = " ".join(f"s{i + 1} = Add(s{i}, x{i + 1})" for i in range(MOST_INPUTS + 3))
    graph = graph_of(f"graph main({inputs}) {{ s0 = Neg(x0) {sums} return s{MOST_INPUTS + 3} }}")
    assert fuse_pointwise(graph) == 2
    assert max(len(n.inputs) for n in graph) == MOST_INPUTS


def test_a_region_has_a_bounded_number_of_outputs(graph_of):
    chain = " ".join(f"v{i + 1} = Neg(v{i})" for i in range(2 * MOST_OUTPUTS))
    returned = ", ".join(f"v{i + 1}" for i in range(2 * MOST_OUTPUTS))
    graph = graph_of(f"graph main(v0: f32[2]) {{ {chain} return {returned} }}")
    assert fuse_pointwise(graph) == 2
    assert [len(n.outputs) for n in graph] == [MOST_OUTPUTS, MOST_OUTPUTS]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_graph_keeps_its_numbers_and_its_order(data):
    """Random graphs of elementwise operations, reductions and shapes: never a cycle, always the same results."""
    lines, shapes = [], {"x": "big", "y": "big", "z": "row"}
    for i in range(data.draw(st.integers(1, 14))):
        a, b = (data.draw(st.sampled_from(sorted(shapes))) for _ in range(2))
        op = data.draw(st.sampled_from(["Add", "Mul", "Neg", "Softmax", "Sum"]))
        if op == "Sum":
            lines.append(f"v{i} = ReduceMax({a}, first)")
            shapes[f"v{i}"] = "row"
            continue
        unary = op in ("Neg", "Softmax")
        lines.append(f"v{i} = {op}({a})" if unary else f"v{i} = {op}({a}, {b})")
        shapes[f"v{i}"] = shapes[a] if unary or shapes[a] == "big" else shapes[b]
    returned = sorted({data.draw(st.sampled_from(sorted(shapes))) for _ in range(3)})
    text = "first: i64[1] = const [0] " + " ".join(lines) + " return " + ", ".join(returned)
    graph = read_graph(f"graph main(x: f32[3,4], y: f32[3,4], z: f32[1,4]) {{ {text} }}")
    before, count = run_graph(graph), Counter(n.op for n in graph)
    fuse_pointwise(graph)
    verify(graph)
    inside = Counter(n.op for region in graph for n in (region.body or [region]))
    assert inside == count
    for expected, actual in zip(before, run_graph(graph), strict=True):
        assert ((expected == actual) | (expected != expected)).all()
