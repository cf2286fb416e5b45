"""Pad and CenterCropPad: every mode against numpy, cropping by negative pads, symbolic sizes."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops import lookup
from tests.ops.checked import infer, run, told

B, S, H = symbol("batch"), symbol("seq"), symbol("h")
X = np.arange(12, dtype=np.float32).reshape(3, 4)


def equal(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


@given(st.sampled_from(["constant", "reflect", "edge", "wrap"]), st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_modes_agree_with_numpy(mode, pads):
    expected = np.pad(X, [(pads[0], pads[2]), (pads[1], pads[3])], mode=mode)
    equal(run("Pad", X, told(*pads), mode=mode), expected)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_negative_pads_crop_first(mode):
    kept = X[1:, :3]
    equal(run("Pad", X, told(-1, 2, 1, -1), mode=mode), np.pad(kept, [(0, 1), (2, 0)], mode=mode))


def test_constant_value_and_axes():
    nine = np.array(9, np.float32)
    equal(run("Pad", X, told(1, 0), nine, told(-1)), np.pad(X, [(0, 0), (1, 0)], constant_values=9))
    words = np.array(["a"], object)
    equal(run("Pad", words, told(1, 1)), np.array(["", "a", ""], object))
    equal(run("Pad", words, told(1, 0), np.array(["z"], object)), np.array(["z", "a"], object))
    equal(run("Pad", np.ones(1, ml_dtypes.int4), told(0, 1)), np.array([1, 0], ml_dtypes.int4))
    equal(run("Pad", np.ones(1, np.bool_), told(0, 1)), np.array([True, False]))


def test_one_element_reflects_onto_itself():
    equal(run("Pad", np.array([5]), told(2, 1), mode="reflect"), np.full(4, 5))


def test_pads_keep_symbols():
    x = TensorType(DType.F32, (B, S, 8))
    pads = TensorType(DType.I64, (4,), np.array([1, 0, H, 2], object))
    assert infer("Pad", x, pads, None, told(1, 2)) == TensorType(DType.F32, (B, S + H + 1, 10))
    unknown = TensorType(DType.I64, (2,))
    assert [str(d) for d in infer("Pad", x, unknown, None, told(1)).shape] == ["batch", "?y0.1", "8"]
    assert [str(d) for d in infer("Pad", x, unknown, None, TensorType(DType.I64, (1,))).shape] == ["?y0.0", "?y0.1", "?y0.2"]


@pytest.mark.parametrize(
    ("pads", "attrs", "message"),
    [
        (told(1, 1), {}, "2 pads for 2 axes"),
        (told(0, 0, 0, 0), {"mode": "mirror"}, "'mirror' is not one of"),
        (told(-2, 0, -2, 0), {}, "crops axis 0"),
    ],
)
def test_pads_that_do_not_fit_are_refused(pads, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("Pad", X, pads, **attrs)


def test_operands_of_the_wrong_length_are_refused_before_their_contents_are_known():
    for pads, axes in (((3,), None), ((4,), (3,)), ((6,), (3,))):
        with pytest.raises(ModelError, match="two for each are expected"):
            infer("Pad", X, TensorType(DType.I64, pads), None, None if axes is None else TensorType(DType.I64, axes))
    with pytest.raises(ModelError, match="CenterCropPad has 3 sizes"):
        infer("CenterCropPad", X, TensorType(DType.I64, (3,)))
    with pytest.raises(ModelError, match="negative dimension"):
        infer("CenterCropPad", X, told(-1, 2))
    with pytest.raises(ModelError, match="not all 0 or more"):
        lookup("", "CenterCropPad").evaluate([X, np.array([-1, 2])], {}, n_outputs=1)


def test_what_cannot_be_padded_is_refused():
    with pytest.raises(ModelError, match="cannot grow an empty axis"):
        run("Pad", X[:0], told(1, 0, 0, 0), mode="edge")
    with pytest.raises(ModelError, match="a value of type i64"):
        infer("Pad", X, told(0, 0, 0, 0), np.array(1))


@pytest.mark.parametrize("size", range(4))
def test_crops_may_go_beyond_the_axis_where_the_other_side_grows(size):
    x = np.arange(1, 1 + size)
    for before in range(-4, 4):
        for after in range(-4, 4):
            if size + before + after >= 0:
                places = np.arange(-before, size + after)
                expected = np.array([x[i] if 0 <= i < size else 9 for i in places], x.dtype)
                equal(run("Pad", x, told(before, after), np.array(9)), expected)
                rows = run("Pad", np.stack([x, x]), told(0, before, 0, after), np.array(9))
                equal(rows, np.stack([expected, expected]))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_nothing_is_left_to_repeat(mode):
    for pads in ((-3, 1), (2, -4), (-4, 2)):
        if 3 + sum(pads) == 0:
            assert run("Pad", np.arange(3), told(*pads), mode=mode).shape == (0,)
            continue
        with pytest.raises(ModelError, match="cannot grow an empty axis"):
            infer("Pad", np.arange(3), told(*pads), mode=mode)
        with pytest.raises(ModelError, match="cannot grow an empty axis"):
            lookup("", "Pad").evaluate([np.arange(3), np.array(pads)], {"mode": mode}, n_outputs=1)
    assert run("Pad", np.arange(2), told(1, -3), mode=mode).shape == (0,)


def test_center_crop_pad_takes_the_middle():
    x = np.arange(20).reshape(4, 5)
    expected = np.zeros((7, 2), np.int64)
    expected[1:5] = x[:, 1:3]
    equal(run("CenterCropPad", x, told(7, 2)), expected)
    equal(run("CenterCropPad", x, told(3), axes=[-1]), x[:, 1:4])
    equal(run("CenterCropPad", np.array(["a"], object), told(2)), np.array(["a", ""], object))


def test_center_crop_pad_keeps_symbols():
    x = TensorType(DType.F32, (B, S, 8))
    size = TensorType(DType.I64, (1,), np.array([H], object))
    assert infer("CenterCropPad", x, size, axes=[1]) == TensorType(DType.F32, (B, H, 8))
    assert [str(d) for d in infer("CenterCropPad", x, TensorType(DType.I64, (1,)), axes=[1]).shape] == ["batch", "?y0.1", "8"]
    with pytest.raises(ModelError, match="2 sizes for 1 axes"):
        infer("CenterCropPad", x, told(2, 2), axes=[1])
