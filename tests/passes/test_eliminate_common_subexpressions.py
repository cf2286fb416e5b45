"""eliminate_common_subexpressions merges equal nodes and equal constants, and keeps what only looks equal."""

import pytest

from miniinfer_cli.passes.eliminate_common_subexpressions import eliminate_common_subexpressions


def test_equal_nodes_merge_and_so_do_their_equal_readers(rewrites):
    rewrites(
        eliminate_common_subexpressions,
        """graph main(x: f32[batch,4]) {
          a = Softmax(x) {axis=1}
          b = Softmax(x) {axis=1}
          c = Transpose(a) {perm=[1, 0]}
          d = Transpose(b) {perm=[1, 0]}
          e = Concat(c, d) {axis=0}
          return e
        }""",
        """graph main(x: f32[batch,4]) {
          a = Softmax(x) {axis=1}
          c = Transpose(a) {perm=[1, 0]}
          e = Concat(c, c) {axis=0}
          return e
        }""",
        fired=2,
    )


def test_equal_constants_merge_whatever_holds_them(rewrites):
    rewrites(
        eliminate_common_subexpressions,
        """graph main(x: f32[batch,4]) {
          p: i64[2] = const [4, -1]
          a = Reshape(x, p)
          q: i64[2] = const [4, -1]
          b = Reshape(x, q)
          v: f32[300,200] = const large "mapped v"
          w: f32[300,200] = const large "mapped v"
          z: f32[1000] = const fill 0.0
          o: f32[1000] = const fill 0.0
          return a, b, v, w, z, o
        }""",
        """graph main(x: f32[batch,4]) {
          p: i64[2] = const [4, -1]
          a = Reshape(x, p)
          v: f32[300,200] = const large "mapped v"
          z: f32[1000] = const fill 0.0
          return a, b=a, v, w=v, z, o=z
        }""",
        fired=4,
    )


def test_equal_shape_arithmetic_merges_however_it_is_written(rewrites):
    rewrites(
        eliminate_common_subexpressions,
        """graph main(x: f32[batch,seq,4]) {
          s = Shape(x)
          i: i64[2] = const [0, 1]
          lead = Gather(s, i)
          y = Softmax(x)
          t = Shape(y)
          zero: i64[1] = const [0]
          two: i64[1] = const [2]
          first = Slice(t, zero, two)
          again = Shape(y) {end=2}
          pair = Concat(lead, first, again) {axis=0}
          return pair, y
        }""",
        """graph main(x: f32[batch,seq,4]) {
          s = Shape(x)
          i: i64[2] = const [0, 1]
          lead = Gather(s, i)
          y = Softmax(x)
          pair = Concat(lead, lead, lead) {axis=0}
          return pair, y
        }""",
        fired=3,
    )


@pytest.mark.parametrize(
    "other",
    [
        "Softmax(x) {axis=0}",  # another attribute
        "Softmax(y) {axis=1}",  # another input
        "LogSoftmax(x) {axis=1}",  # another operation
    ],
)
def test_different_nodes_stay(leaves, other):
    leaves(
        eliminate_common_subexpressions,
        f"""graph main(x: f32[batch,4], y: f32[batch,4]) {{
          a = Softmax(x) {{axis=1}}
          b = {other}
          return a, b
        }}""",
    )


@pytest.mark.parametrize(
    "other",
    [
        "i32[2] = const [1, 2]",  # another type with the same numbers
        "i64[1,2] = const [1, 2]",  # another shape
        "i64[2] = const [2, 1]",  # other contents
        'i64[2] = const large "mapped c"',  # contents that only reading would compare
    ],
)
def test_different_constants_stay(leaves, other):
    leaves(
        eliminate_common_subexpressions,
        f"""graph main() {{
          a: i64[2] = const [1, 2]
          b: {other}
          return a, b
        }}""",
    )


def test_nodes_with_subgraphs_stay_whatever_they_hold(leaves):
    leaves(
        eliminate_common_subexpressions,
        """graph main(c: bool[], x: f32[2]) {
          y = If(c, x)
            then_branch: graph then(x: f32[2]) { a = Neg(x) return a }
            else_branch: graph else(x: f32[2]) { return x }
          z = If(c, x)
            then_branch: graph then(x: f32[2]) { a = Exp(x) return a }
            else_branch: graph else(x: f32[2]) { return x }
          return y, z
        }""",
    )


def test_two_draws_of_a_random_operation_stay(graph_of):
    graph = graph_of("graph main(x: f32[2,4]) { a = RandomNormalLike(x) b = RandomNormalLike(x) return a, b }")
    assert eliminate_common_subexpressions(graph) == 0
    assert len(graph) == 2
