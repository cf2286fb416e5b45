"""DepthToSpace, SpaceToDepth, ReverseSequence, Trilu."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import infer, run, told

B, S, H = symbol("batch"), symbol("seq"), symbol("h")


def equal(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


def f32(*dims):
    return TensorType(DType.F32, dims)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_blocks_go_into_depth_and_back(mode):
    x = np.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    deep = run("SpaceToDepth", x, blocksize=2, mode=mode)
    for n, c, h, w in np.ndindex(x.shape):
        block = h % 2 * 2 + w % 2
        channel = block * 3 + c if mode == "DCR" else c * 4 + block
        assert deep[n, channel, h // 2, w // 2] == x[n, c, h, w]
    equal(run("DepthToSpace", deep, blocksize=2, mode=mode), x)


def test_blocks_keep_symbols():
    assert infer("DepthToSpace", f32(B, 12, H, S), blocksize=2) == f32(B, 3, 2 * H, 2 * S)
    assert infer("SpaceToDepth", f32(B, 3, 2 * H, S), blocksize=2) == f32(B, 12, H, S // 2)
    assert len(infer("SpaceToDepth", TensorType(DType.F32), blocksize=2).shape) == 4


@pytest.mark.parametrize(
    ("op", "dims", "attrs", "message"),
    [
        ("DepthToSpace", (1, 6, 2, 2), {}, "6 channels"),
        ("SpaceToDepth", (1, 1, 2, 3), {}, "a side of 3"),
        ("SpaceToDepth", (1, 2, 3), {}, "rank 4"),
        ("DepthToSpace", (1, 4, 1, 1), {"blocksize": 0}, "not positive"),
        ("DepthToSpace", (1, 4, 1, 1), {"mode": "RCD"}, "'RCD' is neither"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(op, dims, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, f32(*dims), **{"blocksize": 2} | attrs)


@pytest.mark.parametrize("batch_axis", [0, 1])
def test_reverse_sequence_turns_the_first_steps_of_each_sample(batch_axis):
    x = np.arange(24).reshape(3, 4, 2)
    expected = x.copy()
    for sample, length in enumerate([1, 4, 0]):
        expected[sample, :length] = x[sample, :length][::-1]
    if batch_axis == 1:
        x, expected = x.swapaxes(0, 1), expected.swapaxes(0, 1)
    equal(run("ReverseSequence", x, told(1, 4, 0), batch_axis=batch_axis, time_axis=1 - batch_axis), expected)


def test_reverse_sequence_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"\[5\] do not lie in \[0, 4\]"):
        run("ReverseSequence", np.zeros((4, 1)), told(5))
    with pytest.raises(ModelError, match="2 is not 3"):
        infer("ReverseSequence", f32(4, 3), told(1, 1))
    with pytest.raises(ModelError, match="batch_axis 1 and time_axis 1"):
        infer("ReverseSequence", f32(4, 3), told(1, 1, 1), time_axis=1)
    with pytest.raises(ModelError, match="rank 2 or more"):
        infer("ReverseSequence", f32(4), told(1))


@pytest.mark.parametrize("k", [None, -9, -1, 0, 1, 9])
def test_trilu_keeps_a_triangle(k):
    x = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    x[0, 2, 0] = np.inf  # is to be dropped, not multiplied by 0
    operands = () if k is None else (np.array(k),)
    equal(run("Trilu", x, *operands), np.triu(x, k or 0))
    equal(run("Trilu", x, *operands, upper=0), np.tril(x, k or 0))


def test_trilu_takes_any_matrices():
    equal(run("Trilu", np.array([["a", "b"], ["c", "d"]], object)), np.array([["a", "b"], ["", "d"]], object))
    equal(run("Trilu", np.ones((0, 2), np.bool_)), np.ones((0, 2), np.bool_))
    with pytest.raises(ModelError, match="expects matrices"):
        infer("Trilu", f32(4))
