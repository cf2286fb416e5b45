"""Late parts: which nodes wait for sizes, which of them are worth a program of their own, and what is in it."""

import numpy as np
import pytest

from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.planning.late_parts import LatePart, is_late_part, late_parts
from tests.graph_text import typed_graph
from tests.late_graphs import AROUND, CHOSEN, RESHAPED, TWICE, small


def parts_of(text: str, *shapes: tuple[int, ...]) -> tuple[Graph, list[LatePart]]:
    graph = typed_graph(text)
    kinds = [TensorType(v.tensor.dtype, s) for v, s in zip(graph.inputs, shapes, strict=True)]
    return graph, late_parts(graph, infer_graph(graph, kinds))


def names(part: LatePart) -> tuple[list[str], list[str], list[str]]:
    return [n.name for n in part.nodes], [v.name for v in part.inputs], [v.name for v in part.outputs]


def test_what_follows_a_choice_is_a_part():
    _, (part,) = parts_of(CHOSEN, (5, 3), (3, 4))
    assert names(part) == (["f", "g", "y", "r"], ["i", "a", "w"], ["f", "r"])
    assert is_late_part(part.node)
    assert part.node.name == "f"
    body = part.node.body
    assert body is not None
    assert [str(v.type) for v in body.inputs] == [str(v.type) for v in part.node.inputs]
    assert [v.name for v in body.constants()] == ["last"]


def test_a_parts_body_computes_what_its_nodes_do():
    _, (part,) = parts_of(CHOSEN, (5, 3), (3, 4))
    random = np.random.default_rng(0)
    a, w = small(random, 5, 3), small(random, 3, 4)
    f, r = interpret(part.node.body, [np.array([[0, 2]], np.int64), a, w])
    np.testing.assert_array_equal(f, [0, 2])
    np.testing.assert_array_equal(r, np.maximum(a[[0, 2]] @ w, 0))


def test_a_choice_within_a_part_makes_a_part_of_its_body():
    _, (part,) = parts_of(TWICE, (5, 3), (3, 4))
    assert names(part)[0][:3] == ["f", "g", "y"]
    assert names(part)[0][-1] == "e"  # a few numbers, which are part of it
    body = part.node.body
    assert body is not None
    kinds = [TensorType(DType.I64, (1, 3)), TensorType(DType.F32, (5, 3)), TensorType(DType.F32, (3, 4))]
    (inner,) = late_parts(body, infer_graph(body, kinds))
    assert names(inner)[0] == ["f2", "g2", "t", "q", "s", "e"]


def test_what_follows_a_computed_shape_is_a_part():
    _, (part,) = parts_of(RESHAPED, (5, 12), (2, 50))
    assert names(part) == (["t", "z"], ["y"], ["z"])  # the Reshape is not: a part is made for sizes, not for contents


def test_what_a_late_size_decides_is_of_the_part():
    text = """
graph main(x: f32[n,3], w: f32[3,4]) {
  last: i64[1] = const [-1]
  i = NonZero(x)
  j = Gather(i, last)
  f = Reshape(j, last)
  g = Gather(x, f)
  s = Shape(g)
  z = ConstantOfShape(s) {value=f32[1] [2.0]}
  a = Add(g, z)
  y = MatMul(a, w)
  return y
}
"""
    _, (part,) = parts_of(text, (5, 3), (3, 4))
    assert names(part)[0] == ["j", "f", "g", "s", "z", "a", "y"]


def test_independent_choices_are_parts_of_their_own():
    branch = """  i{k} = NonZero(x{k})
  j{k} = Gather(i{k}, o)
  f{k} = Reshape(j{k}, o)
  g{k} = Gather(x{k}, f{k})
  y{k} = MatMul(g{k}, w)
"""
    lines = "".join(branch.format(k=k) for k in range(3))
    head = "graph main(x0: f32[n,3], x1: f32[n,3], x2: f32[n,3], w: f32[3,3]) {\n  o: i64[1] = const [-1]\n"
    shapes = [(4, 3), (4, 3), (4, 3), (3, 3)]
    _, parts = parts_of(f"{head}{lines}  return y0, y1, y2\n}}", *shapes)
    assert [names(p)[0] for p in parts] == [[f"{n}{k}" for n in "jfgy"] for k in range(3)]
    _, parts = parts_of(f"{head}{lines}  c = Concat(y0, y1) {{axis=0}}\n  return c, y2\n}}", *shapes)
    assert [names(p)[0][-1] for p in parts] == ["c", "y2"]


def test_what_needs_no_size_waits_and_ends_the_part():
    _, parts = parts_of(AROUND, (5, 3), (3, 80), (80, 80))
    # Adding alone would not be worth a part.
    assert [names(p) for p in parts] == [(["f", "g", "y", "s"], ["i", "x", "w"], ["y", "s"])]


def test_what_shapes_tell_is_a_constant_of_the_part():
    text = """
graph main(x: f32[n,3], w: f32[3,4]) {
  last: i64[1] = const [-1]
  s = Shape(w)
  d = Gather(s, last)
  p = Concat(last, d) {axis=0}
  i = NonZero(x)
  f = Reshape(i, last)
  g = Gather(x, f)
  y = MatMul(g, w)
  z = Reshape(y, p)
  return z
}
"""
    _, (part,) = parts_of(text, (5, 3), (3, 4))
    assert names(part) == (["f", "g", "y", "z"], ["i", "x", "w"], ["z"])
    body = part.node.body
    assert body is not None
    assert {v.name: v.constant.array().tolist() for v in body.constants() if v.constant} == {"last": [-1], "p": [-1, 4]}


LIGHT = "  i = NonZero(x)\n  f = Reshape(i, last)\n  g = Gather(x, f)\n  y = Neg(g)\n  return y\n"
FIXED = "  g = Gather(x, last)\n  y = MatMul(g, w)\n  return y\n"


@pytest.mark.parametrize("lines", [LIGHT, FIXED], ids=["little to do", "sizes are known"])
def test_no_part(lines: str):
    text = "graph main(x: f32[n,3], w: f32[3,4]) {\n  last: i64[1] = const [-1]\n" + lines + "}"
    assert parts_of(text, (5, 3), (3, 4))[1] == []


@pytest.mark.parametrize("op", ["Conv", "miniinfer.ConvNHWC"])
def test_convolutions_are_work_in_either_layout(op: str):
    shape = "3,3,8" if op == "Conv" else "8,3,3"
    text = f"""
graph main(x: f32[n,{shape}], w: f32[4,{shape}]) {{
  last: i64[1] = const [-1]
  i = NonZero(x)
  j = Gather(i, last)
  f = Reshape(j, last)
  g = Gather(x, f)
  y = {op}(g, w)
  return y
}}
"""
    sizes = tuple(map(int, shape.split(",")))
    (part,) = parts_of(text, (5, *sizes), (4, *sizes))[1]
    assert names(part)[0][-1] == "y"


def test_strings_stay_outside():
    text = """
graph main(x: f32[n,3], w: f32[3,4]) {
  last: i64[1] = const [-1]
  t = Cast(x) {to=8}
  i = NonZero(x)
  f = Reshape(i, last)
  g = Gather(x, f)
  y = MatMul(g, w)
  words = Gather(t, f)
  return y, words
}
"""
    _, (part,) = parts_of(text, (5, 3), (3, 4))
    assert names(part) == (["f", "g", "y"], ["i", "x", "w"], ["f", "y"])


def test_a_part_is_never_all_there_is():
    """Else its program would be one late part, whose program would be one ..."""
    graph = typed_graph("graph main(x: f32[n,3], w: f32[3,4]) {\n  y = MatMul(x, w)\n  z = Neg(y)\n  return z\n}")
    unknown = [v.type for v in graph.inputs]
    assert late_parts(graph, infer_graph(graph, unknown)) == []
