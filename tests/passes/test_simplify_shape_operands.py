"""simplify_shape_operands: targets computed from shapes become constants where the dimensions are known well enough."""

import pytest

from miniinfer_cli.ir import symbol
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.reshape_targets import reshape_target
from miniinfer_cli.passes.simplify_shape_operands import simplify_shape_operands

B, S = symbol("batch"), symbol("seq")


def simplify(graph):
    count = simplify_shape_operands(graph)
    remove_dead_nodes(graph)
    return count


def test_the_target_of_a_reshape_copies_what_it_can(rewrites):
    rewrites(
        simplify,
        """graph main(x: f32[batch,seq,12]) {
          s = Shape(x) {end=2, start=0}
          tail: i64[2] = const [3, 4]
          target = Concat(s, tail) {axis=0}
          y = Reshape(x, target) {allowzero=0}
          return y
        }""",
        """graph main(x: f32[batch,seq,12]) {
          y_shape: i64[4] = const [0, 0, 3, 4]
          y = Reshape(x, y_shape)
          return y
        }""",
    )


def test_the_target_of_an_expand_asks_for_one_where_nothing_grows(rewrites):
    rewrites(
        simplify,
        """graph main(x: f32[batch,1,seq]) {
          s = Shape(x) {end=1, start=0}
          t = Shape(x) {start=2}
          five: i64[2] = const [2, 5]
          target = Concat(s, five, t) {axis=0}
          first: i64[1] = const [1]
          u = Unsqueeze(x, first)
          y = Expand(u, target)
          return y
        }""",
        """graph main(x: f32[batch,1,seq]) {
          first: i64[1] = const [1]
          u = Unsqueeze(x, first)
          y_shape: i64[4] = const [1, 2, 5, 1]
          y = Expand(u, y_shape)
          return y
        }""",
    )


def test_an_expand_may_add_leading_axes(rewrites):
    rewrites(
        simplify,
        """graph main(x: f32[batch,1]) {
          s = Shape(x) {end=1}
          five: i64[1] = const [5]
          target = Concat(five, s, five) {axis=0}
          y = Expand(x, target)
          return y
        }""",
        "graph main(x: f32[batch,1]) { y_shape: i64[3] = const [5, 1, 5] y = Expand(x, y_shape) return y }",
    )


STAYING = {
    "a target that is constant already": "t: i64[2] = const [-1, 4] y = Reshape(x, t)",
    "a growth to a symbolic size": "t = Shape(other) y = Expand(one, t)",
    "two sizes that stand elsewhere": "t = Shape(other) y = Reshape(x, t)",
    "a target that is not known": "y = Reshape(x, n)",
    "an unknown size where a single element is": "y = Reshape(one, k)",
    "fewer elements than there are": "s = Shape(x) four: i64[2] = const [4, 0] t = Sub(s, four) y = Reshape(x, t)",
    "as many rows as another has": "t = Shape(column) y = Reshape(row, t)",
}


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_other_targets_stay(leaves, body):
    leaves(
        simplify_shape_operands,
        "graph main(x: f32[h,w], other: f32[w,h], one: f32[1,1], n: i64[2],"
        f" k: i64[1], row: f32[h,2], column: f32[w,2]) {{ {body} return y }}",
    )


@pytest.mark.parametrize(
    ("source", "target", "operand"),
    [
        ((2, 3), (6,), [6]),
        ((B, 3), (B, 3), [0, 3]),
        ((B, S, 8), (B * S, 8), [-1, 8]),
        ((B, S), (S, B), None),
        ((B, 4, S), (B, S, 4), [0, -1, 4]),
        ((B, 0), (0, B), None),
        ((), (1, 1), [1, 1]),
        ((B,), (1, B), [1, -1]),
    ],
)
def test_targets_copy_leave_over_or_are_refused(source, target, operand):
    assert reshape_target(source, target) == operand
