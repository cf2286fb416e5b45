"""trace_shapes: shapes of computed tensors are computed from those of the inputs."""

import pytest

from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.trace_shapes import trace_shapes


def trace(graph):
    count = trace_shapes(graph)
    remove_dead_nodes(graph)
    return count


def test_sizes_come_from_the_inputs_that_have_them(rewrites):
    rewrites(
        trace,
        """graph main(x: f32[batch,6,h,w]) {
          y = Neg(x)
          s = Shape(y)
          return s
        }""",
        """graph main(x: f32[batch,6,h,w]) {
          batch = Shape(x) {end=1, start=0}
          size: i64[1] = const [6]
          h = Shape(x) {end=3, start=2}
          w = Shape(x) {end=4, start=3}
          s = Concat(batch, size, h, w) {axis=0}
          return s
        }""",
    )


def test_a_part_of_a_shape_is_the_part(rewrites):
    rewrites(
        trace,
        "graph main(x: f32[batch,6,h,w]) { y = Neg(x) s = Shape(y) {end=-1, start=2} return s }",
        "graph main(x: f32[batch,6,h,w]) { h = Shape(x) {end=3, start=2} return s=h }",
    )


@pytest.mark.parametrize(
    "op",
    [
        "Conv(x, k) {strides=[2, 2], pads=[1, 1, 1, 1]}",
        "MaxPool(x) {kernel_shape=[3, 2], strides=[2, 3]}",
        "Concat(x, x) {axis=2}",
        "Pad(x, grow)",
        "Flatten(x) {axis=3}",
    ],
)
def test_expressions_of_sizes_are_computed_exactly(graph_of, outputs_of, op):
    constants = 'k: f32[4,6,3,3] = const large "mapped k" grow: i64[8] = const [0, 0, 1, 0, 0, 0, 0, 2]'
    graph = graph_of(f"graph main(x: f32[batch,6,h,w]) {{ {constants} y = {op} s = Shape(y) return s }}")
    (before,) = outputs_of(graph)
    assert trace(graph) == 1
    assert not {n.op for n in graph} & {"Conv", "MaxPool", "Flatten"}
    (after,) = outputs_of(graph)
    assert (after.dtype, after.tolist()) == (before.dtype, before.tolist())
    assert trace_shapes(graph) == 0


def test_an_unknown_size_is_read_before_the_transpose(rewrites):
    rewrites(
        trace,
        """graph main(x: f32[batch,6]) {
          n = NonZero(x)
          t = Transpose(n) {perm=[1, 0]}
          s = Shape(t) {end=1}
          return s
        }""",
        """graph main(x: f32[batch,6]) {
          n = NonZero(x)
          s_before = Shape(n)
          order: i64[1] = const [1]
          s = Gather(s_before, order)
          return s
        }""",
    )


STAYING = {
    "the shape of an input": "s = Shape(x)",
    "a size that the inputs have only twofold": "y = Neg(x2) s = Shape(y)",
    "a size that no input has": "n = NonZero(x) s = Shape(n)",
    "an unknown rank": "n = Reshape(x, t) s = Shape(n)",
}


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_other_shapes_stay(leaves, body):
    leaves(trace_shapes, f"graph main(x: f32[batch,6], x2: f32[2*h,w+1], t: i64[seq]) {{ {body} return s }}")
