"""Movement of tensors on the CPU beside the references."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cpu.lowering.one_node import check_graph, check_op
from tests.graph_text import typed_graph


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, ml_dtypes.bfloat16, np.complex64])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(dtype: Any, axis: int) -> None:
    shapes = [[2, 3, 4], [2, 3, 4], [2, 3, 4]]
    for number, shape in enumerate(shapes):
        shape[axis] = (5, 0, 2)[number]
    arrays = [np.arange(np.prod(s)).reshape(s).astype(dtype) for s in shapes]
    check_op("Concat", *arrays, axis=axis, tactic="copy")
    check_op("Concat", arrays[0], axis=axis, tactic="copy")


X = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_, ml_dtypes.bfloat16])
def test_views(dtype: Any) -> None:
    x, two = X.astype(dtype), np.asarray([2, 2])
    check_op("Transpose", x, perm=[2, 0, 3, 1], tactic="copy of views")
    check_op("Transpose", x, tactic="copy of views")
    starts, ends, axes, steps = (np.asarray(v) for v in ([1, -1], [3, -5], [1, 3], [1, -2]))
    check_op("Slice", x, starts, ends, axes, steps, constants=(1, 2, 3, 4), tactic="copy of views")
    check_op("Split", x, two, axis=2, constants=(1,), n_outputs=2, tactic="copy of views")
    check_op("Split", x, axis=-1, num_outputs=2, n_outputs=2, tactic="copy of views")
    check_op("Expand", x[:, :1], np.asarray([2, 1, 3, 4, 5]), constants=(1,), tactic="copy of views")
    check_op("Slice", x, two, two, constants=(1, 2), tactic="copy of views")  # nothing of it


def test_views_that_data_decide() -> None:
    graph = typed_graph(
        "graph main(x: f32[6], n: i64[1]) {\n  z: i64[1] = const [0]\n  y: f32[2] = Slice(x, z, n)\n  return y\n}"
    )
    check_graph(graph, [np.arange(6, dtype=np.float32), np.asarray([2])], "reference")


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int) -> None:
    for indices in (1, -1, [0, 1, -1, -2], [[1, 0], [0, 0]], []):
        places = np.asarray(indices, np.int64)
        for x in (X, X.astype(np.int32)):
            check_op("Gather", x, places, axis=axis, constants=(1,), tactic="by constants")
    check_op("Gather", X, np.asarray([0]), axis=axis, tactic="reference")


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("pads", [[0, 1, 2, 0, 0, 2, 1, 4], [1, 0, 0, 3, 0, 0, 0, 0], [0] * 8])
def test_pad(mode: str, pads: list[int]) -> None:
    check_op("Pad", X, np.asarray(pads), mode=mode, constants=(1,), tactic="copy")
    if mode == "constant":
        check_op("Pad", X, np.asarray(pads), np.float32(2.5), mode=mode, constants=(1, 2), tactic="copy")
    four = np.asarray([1, 2, 3, 1])
    check_op("Pad", X, four, None, np.asarray([-2, 3]), mode=mode, constants=(1, 3), tactic="copy")


def test_pads_that_are_left_to_the_reference() -> None:
    check_op("Pad", X, np.asarray([0, -1, 0, 0, 0, 0, 0, 0]), constants=(1,), tactic="reference")
    check_op("Pad", X, np.asarray([0, 0, 0, 0, 0, 0, 0, 7]), mode="reflect", constants=(1,), tactic="reference")
    check_op("Pad", X, np.asarray([0, 0, 0, 0, 0, 0, 0, 1]), mode="wrap", constants=(1,), tactic="reference")
    check_op("Pad", X, np.asarray([0, 0, 0, 0, 0, 0, 0, 1]), np.float32(2), constants=(1,), tactic="reference")
