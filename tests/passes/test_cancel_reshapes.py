"""cancel_reshapes: chains of views become one Reshape, or nothing."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.errors import ModelError
from miniinfer_cli.passes.cancel_reshapes import cancel_reshapes
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from tests.everywhere import parsed


def cancel(graph):
    count = cancel_reshapes(graph)
    remove_dead_nodes(graph)
    return count


def test_views_that_undo_each_other_go(rewrites):
    rewrites(
        cancel,
        """graph main(x: f32[batch,4,6]) {
          s: i64[2] = const [-1, 24]
          y = Reshape(x, s)
          t: i64[3] = const [-1, 4, 6]
          z = Reshape(y, t)
          r = Neg(z)
          return r
        }""",
        "graph main(x: f32[batch,4,6]) { r = Neg(x) return r }",
    )


def test_a_chain_becomes_one_reshape(rewrites):
    rewrites(
        cancel,
        """graph main(x: f32[batch,4,1,6]) {
          axes: i64[1] = const [2]
          a = Squeeze(x, axes)
          b = Flatten(a) {axis=1}
          first: i64[1] = const [0]
          c = Unsqueeze(b, first)
          return c
        }""",
        """graph main(x: f32[batch,4,1,6]) {
          c_shape: i64[3] = const [1, -1, 24]
          c = Reshape(x, c_shape)
          return c
        }""",
        fired=2,
    )


def test_symbolic_dimensions_are_copied_where_they_stand(rewrites):
    rewrites(
        cancel,
        """graph main(x: f32[batch,seq,768]) {
          s: i64[4] = const [0, 0, 12, 64]
          a = Reshape(x, s)
          t: i64[4] = const [0, 0, 64, 12]
          b = Reshape(a, t)
          return b
        }""",
        """graph main(x: f32[batch,seq,768]) {
          b_shape: i64[4] = const [0, 0, 64, 12]
          b = Reshape(x, b_shape)
          return b
        }""",
    )


def test_a_target_worked_out_at_run_time_is_kept_when_it_copies_nothing(rewrites):
    rewrites(
        cancel,
        """graph main(x: f32[batch,seq,6], like: f32[seq,batch,6]) {
          s: i64[2] = const [-1, 6]
          a = Reshape(x, s)
          t = Shape(like)
          b = Reshape(a, t)
          return b
        }""",
        """graph main(x: f32[batch,seq,6], like: f32[seq,batch,6]) {
          t = Shape(like)
          b = Reshape(x, t)
          return b
        }""",
    )


def test_a_target_that_copies_a_dimension_of_the_view_between_stays(leaves):
    leaves(
        cancel_reshapes,
        """graph main(x: f32[h,w,6], n: i64[1]) {
          s: i64[2] = const [-1, 6]
          a = Reshape(x, s)
          zero: i64[1] = const [0]
          t = Concat(zero, n) {axis=0}
          b = Reshape(a, t)
          return b
        }""",
    )


def test_the_view_between_stays_for_its_other_readers(rewrites):
    rewrites(
        cancel,
        """graph main(x: f32[2,3,4]) {
          a = Flatten(x) {axis=1}
          s: i64[3] = const [2, 4, 3]
          b = Reshape(a, s)
          return a, b
        }""",
        """graph main(x: f32[2,3,4]) {
          a = Flatten(x) {axis=1}
          b_shape: i64[3] = const [2, 4, 3]
          b = Reshape(x, b_shape)
          return a, b
        }""",
    )


def test_views_of_something_else_stay(leaves):
    leaves(
        cancel_reshapes,
        """graph main(x: f32[2,3,4]) {
          a = Neg(x)
          b = Flatten(a) {axis=1}
          c = Neg(b)
          s: i64[3] = const [2, 3, 4]
          d = Reshape(c, s)
          return d
        }""",
    )


def test_an_empty_dimension_is_not_mistaken_for_a_copy(leaves):
    leaves(
        cancel_reshapes,
        """graph main(x: f32[batch,0,4]) {
          a = Flatten(x) {axis=1}
          s: i64[3] = const [4, 0, 7]
          b = Reshape(a, s) {allowzero=1}
          return b
        }""",
    )


def test_the_axes_of_a_squeeze_are_no_target(leaves):
    """The second operand of a Squeeze is known too, but the dimensions that are left cannot be asked for."""
    leaves(
        cancel_reshapes,
        """graph main(x: f32[seq,batch], like: f32[1,batch,seq]) {
          t = Shape(like)
          a = Reshape(x, t)
          zero: i64[1] = const [-3]
          b = Squeeze(a, zero)
          return b
        }""",
    )


@pytest.mark.parametrize("back", ["s = Shape(row) b = Reshape(a, s)", "s: i64[1] = const [-1] b = Reshape(a, s)"])
@pytest.mark.parametrize(
    "target", ["t = Shape(column)", "r = Shape(row) d: i64[2] = const [5, 0] t = Sub(r, d)", "t = Neg(asked)"]
)
def test_a_view_that_may_not_fit_is_not_passed_over(leaves, target, back):
    """At most sizes it is an error of the run."""
    leaves(
        cancel_reshapes,
        f"graph main(row: f32[h,2], column: f32[w,2], asked: i64[2]) {{ {target} a = Reshape(row, t) {back} return b }}",
    )


def test_a_view_that_may_not_fit_is_refused_at_every_level():
    """Where the sizes do not go together; x[n,2] to [n-5,2] goes at n = 5 alone, where the target copies."""
    model = parsed(
        """g (float[n,2] x) => (float[m] y) {
          s = Shape(x)  five = Constant <value = int64[2] {5, 0}> ()  t = Sub(s, five)  a = Reshape(x, t)
          flat = Constant <value = int64[1] {-1}> ()  y = Reshape(a, flat)
        }"""
    )
    for level in range(4):
        with miniinfer_cli.load(miniinfer_cli.build(model, opt_level=level), device="cpu") as engine:
            assert engine.run({"x": np.ones((5, 2), np.float32)})["y"].shape == (10,)
            with pytest.raises(ModelError, match=r"Reshape to \[2,2\] does not fit the input \[7,2\]"):
                engine.run({"x": np.ones((7, 2), np.float32)})
