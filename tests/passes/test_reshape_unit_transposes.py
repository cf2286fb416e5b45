"""reshape_unit_transposes: a Transpose that moves no data becomes a Reshape."""

import pytest

from miniinfer_cli.passes.reshape_unit_transposes import reshape_unit_transposes


@pytest.mark.parametrize(
    ("x", "perm", "target"),
    [
        ("f32[batch,1,1,8]", [0, 3, 1, 2], [0, 8, 1, 1]),
        ("f32[batch,seq,1]", [0, 2, 1], [0, 1, -1]),
        ("f32[1,batch]", [1, 0], [-1, 1]),
        ("f32[1,1,3]", [2, 0, 1], [3, 1, 1]),
    ],
)
def test_moved_axes_of_size_one_become_a_reshape(rewrites, x, perm, target):
    rewrites(
        reshape_unit_transposes,
        f"graph main(x: {x}) {{ y = Transpose(x) {{perm={perm}}} return y }}",
        f"graph main(x: {x}) {{ y_shape: i64[{len(target)}] = const {target} y = Reshape(x, y_shape) return y }}",
    )


@pytest.mark.parametrize(
    ("x", "perm"),
    [
        ("f32[batch,1,2,8]", [0, 3, 1, 2]),  # data moves
        ("f32[batch,seq]", [1, 0]),
        ("f32[1,batch,seq]", [1, 2, 0]),  # two dimensions to be found, neither in its place
    ],
)
def test_other_transposes_stay(leaves, x, perm):
    leaves(reshape_unit_transposes, f"graph main(x: {x}) {{ y = Transpose(x) {{perm={perm}}} return y }}")
