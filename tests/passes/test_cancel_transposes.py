"""cancel_transposes: two permutations become one, or none when they undo each other."""

import pytest

from miniinfer_cli.passes.cancel_transposes import cancel_transposes


def test_transposes_that_undo_each_other_go(rewrites):
    rewrites(
        cancel_transposes,
        """graph main(x: f32[batch,3,h,w]) {
          y = Transpose(x) {perm=[0, 2, 3, 1]}
          z = Transpose(y) {perm=[0, 3, 1, 2]}
          r = Neg(z)
          return r, y
        }""",
        """graph main(x: f32[batch,3,h,w]) {
          y = Transpose(x) {perm=[0, 2, 3, 1]}
          r = Neg(x)
          return r, y
        }""",
    )


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ([1, 2, 0], [1, 2, 0], [2, 0, 1]),
        ([1, 2, 0], [0, 2, 1], [1, 0, 2]),
        ([2, 0, 1], [2, 1, 0], [1, 0, 2]),
    ],
)
def test_other_transposes_become_one(rewrites, first, second, both):
    rewrites(
        cancel_transposes,
        f"graph main(x: f32[2,3,5]) {{ y = Transpose(x) {{perm={first}}} z = Transpose(y) {{perm={second}}} return z, y }}",
        f"graph main(x: f32[2,3,5]) {{ y = Transpose(x) {{perm={first}}} z = Transpose(x) {{perm={both}}} return z, y }}",
    )


def test_a_transpose_without_permutation_reverses(rewrites):
    rewrites(
        cancel_transposes,
        "graph main(x: f32[2,3,5]) { y = Transpose(x) z = Transpose(y) {perm=[0, 2, 1]} return z, y }",
        "graph main(x: f32[2,3,5]) { y = Transpose(x) z = Transpose(x) {perm=[2, 0, 1]} return z, y }",
    )


def test_three_in_a_row_become_one(graph_of, outputs_of):
    graph = graph_of(
        """graph main(x: f32[2,3,5]) {
          a = Transpose(x) {perm=[1, 2, 0]}
          b = Transpose(a) {perm=[1, 2, 0]}
          c = Transpose(b) {perm=[1, 0, 2]}
          return c
        }"""
    )
    (before,) = outputs_of(graph)
    assert cancel_transposes(graph) == 2
    node = graph.outputs[0].producer
    assert (node.inputs, node.attrs["perm"]) == (graph.inputs, [0, 2, 1])
    assert (outputs_of(graph)[0] == before).all()


def test_something_between_keeps_them_apart(leaves):
    leaves(
        cancel_transposes,
        "graph main(x: f32[2,3]) { y = Transpose(x) z = Softmax(y) w = Transpose(z) return w }",
    )


def test_a_reversal_of_unknown_rank_stays(leaves):
    leaves(
        cancel_transposes,
        "graph main(x: f32[?]) { y = Transpose(x) z = Transpose(y) {perm=[1, 0]} return z }",
    )
