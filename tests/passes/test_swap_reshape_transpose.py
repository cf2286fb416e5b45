"""swap_reshape_transpose: a Reshape between two Transposes goes first where it keeps to neighbouring axes."""

import pytest

from miniinfer_cli.passes.cancel_transposes import cancel_transposes
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.swap_reshape_transpose import swap_reshape_transpose


def swap(graph):
    count = swap_reshape_transpose(graph)
    cancel_transposes(graph)
    remove_dead_nodes(graph)
    return count


def test_the_patches_of_a_vision_transformer_only_merge(rewrites):
    rewrites(
        swap,
        """graph main(x: f32[batch,7,5,3]) {
          a = Transpose(x) {perm=[0, 3, 1, 2]}
          s: i64[3] = const [0, 3, 35]
          b = Reshape(a, s)
          c = Transpose(b) {perm=[0, 2, 1]}
          return c
        }""",
        """graph main(x: f32[batch,7,5,3]) {
          b_early_shape: i64[3] = const [0, 35, 3]
          b_early = Reshape(x, b_early_shape)
          return c=b_early
        }""",
    )


def test_an_axis_may_be_split(rewrites):
    rewrites(
        swap,
        """graph main(x: f32[batch,35,6]) {
          a = Transpose(x) {perm=[0, 2, 1]}
          s: i64[4] = const [0, 6, 7, 5]
          b = Reshape(a, s)
          c = Transpose(b) {perm=[0, 2, 1, 3]}
          return c
        }""",
        """graph main(x: f32[batch,35,6]) {
          b_early_shape: i64[4] = const [0, 7, 5, 6]
          b_early = Reshape(x, b_early_shape)
          c = Transpose(b_early) {perm=[0, 1, 3, 2]}
          return c
        }""",
    )


STAYING = {
    "axes that were no neighbours": ("f32[2,3,4,5]", [0, 3, 1, 2], [2, 15, 4], "Transpose(b) {perm=[0, 2, 1]}"),
    "an axis across two": ("f32[2,6,4,5]", [0, 3, 1, 2], [2, 5, 8, 3], "Transpose(b) {perm=[0, 2, 1, 3]}"),
    "no Transpose behind": ("f32[2,3,4,5]", [0, 3, 1, 2], [2, 5, 12], "Neg(b)"),
}


@pytest.mark.parametrize(("x", "perm", "target", "last"), STAYING.values(), ids=STAYING.keys())
def test_other_reshapes_stay(leaves, x, perm, target, last):
    leaves(
        swap_reshape_transpose,
        f"""graph main(x: {x}) {{
          a = Transpose(x) {{perm={perm}}}
          s: i64[{len(target)}] = const {target}
          b = Reshape(a, s)
          c = {last}
          return c
        }}""",
    )


def test_a_transpose_with_another_reader_stays(leaves):
    leaves(
        swap_reshape_transpose,
        """graph main(x: f32[2,7,5,3]) {
          a = Transpose(x) {perm=[0, 3, 1, 2]}
          s: i64[3] = const [0, 3, 35]
          b = Reshape(a, s)
          c = Transpose(b) {perm=[0, 2, 1]}
          return c, a
        }""",
    )
