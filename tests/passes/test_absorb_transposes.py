"""absorb_transposes: the classifier of a convolutional net reads its features in the order in which they lie."""

import pytest

from miniinfer_cli.passes.absorb_transposes import absorb_transposes
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes


def absorb(graph):
    count = absorb_transposes(graph)
    remove_dead_nodes(graph)
    return count


@pytest.mark.parametrize("view", ["Flatten(a) {axis=1}", "Reshape(a, s)"])
def test_the_weights_take_the_permutation(rewrites, view):
    rewrites(
        absorb,
        f"""graph main(x: f32[batch,7,9,32]) {{
          a = Transpose(x) {{perm=[0, 3, 1, 2]}}
          s: i64[2] = const [-1, 2016]
          b = {view}
          w: f32[2016,10] = const large "mapped w"
          y = MatMul(b, w)
          return y
        }}""",
        """graph main(x: f32[batch,7,9,32]) {
          b_shape: i64[2] = const [0, 2016]
          b = Reshape(x, b_shape)
          w_1: f32[2016,10] = const large "reshaped transposed [1,2,0,3] of mapped w"
          y = MatMul(b, w_1)
          return y
        }""".replace("[0, 2016]", "[0, 2016]"),
        rtol=1e-5,
    )


STAYING = {
    "the batch is transposed too": ("f32[2,3,4]", [1, 0, 2], [3, 8], "f32[8,5] = const large \"mapped w\"", "MatMul(b, w)"),
    "only part becomes the row": ("f32[2,3,4,5]", [0, 3, 1, 2], [10, 12], "f32[12,5] = const large \"mapped w\"", "MatMul(b, w)"),
    "weights on the other side": ("f32[2,3,4]", [0, 2, 1], [2, 12], "f32[5,2] = const large \"mapped w\"", "MatMul(w, b)"),
    "no product": ("f32[2,3,4]", [0, 2, 1], [2, 12], "f32[12] = const fill 2.0", "Mul(b, w)"),
}  # fmt: skip


@pytest.mark.parametrize(("x", "perm", "target", "w", "op"), STAYING.values(), ids=STAYING.keys())
def test_other_transposes_stay(leaves, x, perm, target, w, op):
    leaves(
        absorb_transposes,
        f"""graph main(x: {x}) {{
          a = Transpose(x) {{perm={perm}}}
          s: i64[2] = const {target}
          b = Reshape(a, s)
          w: {w}
          y = {op}
          return y
        }}""",
    )


def test_features_of_unknown_number_stay(leaves):
    leaves(
        absorb_transposes,
        """graph main(x: f32[2,h,3]) {
          a = Transpose(x) {perm=[0, 2, 1]}
          b = Flatten(a) {axis=1}
          w: f32[18,5] = const large "mapped w"
          y = MatMul(b, w)
          return y
        }""",
    )


def test_computed_weights_stay(leaves):
    leaves(
        absorb_transposes,
        """graph main(x: f32[2,3,4], w: f32[12,5]) {
          a = Transpose(x) {perm=[0, 2, 1]}
          b = Flatten(a) {axis=1}
          y = MatMul(b, w)
          return y
        }""",
    )
