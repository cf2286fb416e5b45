"""Inputs that fit come through as they are; every misfit is told with both sides."""

import numpy as np
import pytest

from engine_format import DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, OptionalType, SequenceType, TensorType, symbol
from miniinfer_cli.runtime.bindings import Binding, check_inputs, complete_shapes
from miniinfer_cli.runtime.random_inputs import random_inputs

BATCH, SEQ = symbol("batch"), symbol("seq")
X = Binding("x", TensorType(DType.F32, (BATCH, 3)))
Y = Binding("y", TensorType(DType.I64, (BATCH, SEQ)))
RANGES = {"batch": DimensionRange("batch", 1, 2, 4)}


def test_a_binding_says_what_it_is():
    assert (X.dtype, X.shape, str(X)) == (np.dtype("float32"), ("batch", 3), "x: f32[batch,3]")
    assert (Binding("s", SequenceType(None)).dtype, Binding("u", None).shape) == (None, None)
    assert Binding("r", TensorType(DType.F32)).shape is None


def test_inputs_come_in_binding_order_untouched():
    x, y = np.zeros((2, 3), np.float32), np.zeros((2, 5), np.int64)
    got = check_inputs((X, Y), RANGES, {"y": y, "x": x})
    assert got[0] is x
    assert got[1] is y


def test_python_numbers_take_the_bindings_type():
    (got,) = check_inputs((X,), {}, {"x": [[1, 2, 3]]})
    assert got.dtype == np.float32
    assert got.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"x": np.zeros((2, 3), np.float32)},
            r"inputs: missing 'y'\n  hint: the plan's inputs are x: f32\[batch,3\], y: i64\[batch,seq\]",
        ),
        ({"x": 0, "y": 0, "z": 0}, r"inputs: unknown 'z'"),
        (
            {"x": np.zeros((2, 3), np.float64), "y": np.zeros((2, 5), np.int64)},
            r"input 'x': got f64\[2,3\], expected f32\[batch,3\]\n  hint: convert it with .astype\(float32\)",
        ),
        (
            {"x": np.zeros((2, 4), np.float32), "y": np.zeros((2, 5), np.int64)},
            r"input 'x': got f32\[2,4\], expected f32\[batch,3\] \(axis 1: 4 is not 3\)",
        ),
        (
            {"x": np.zeros(3, np.float32), "y": np.zeros((2, 5), np.int64)},
            r"input 'x': got f32\[3\] of rank 1, expected f32\[batch,3\] of rank 2",
        ),
        (
            {"x": np.zeros((2, 3), np.float32), "y": np.zeros((3, 5), np.int64)},
            r"input 'y': axis 0 \(batch\) is 3, but 2 in input 'x'",
        ),
        (
            {"x": np.zeros((5, 3), np.float32), "y": np.zeros((5, 5), np.int64)},
            r"input 'x': axis 0 \(batch\) is 5, above 4, the largest .*\n  hint: build the plan with larger max_shapes",
        ),
        (
            {"x": np.zeros((0, 3), np.float32), "y": np.zeros((0, 5), np.int64)},
            r"input 'x': axis 0 \(batch\) is 0, below 1, the smallest .*\n  hint: build the plan with smaller min_shapes",
        ),
        ({"x": object(), "y": 0}, r"input 'x': expected an array f32\[batch,3\], got object"),
        (
            {"x": np.zeros(1, "datetime64[s]"), "y": 0},
            r"input 'x': element type datetime64\[s\] has no ONNX counterpart, expected f32",
        ),
    ],
)
def test_misfits_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        check_inputs((X, Y), RANGES, given)


def test_dimensions_that_are_expressions_are_checked_against_the_names():
    z = Binding("z", TensorType(DType.F32, (2 * BATCH,)))
    x = np.zeros((2, 3), np.float32)
    check_inputs((X, z), {}, {"x": x, "z": np.zeros(4, np.float32)})
    with pytest.raises(UsageError, match=r"axis 0 \(2\*batch\) is 5, but 4 where batch is 2"):
        check_inputs((X, z), {}, {"x": x, "z": np.zeros(5, np.float32)})
    # The names of an input itself count, too, whatever their order.
    both = Binding("z", TensorType(DType.F32, (2 * BATCH, BATCH)))
    with pytest.raises(UsageError, match=r"input 'z': axis 0 \(2\*batch\) is 3, but 2 where batch is 1"):
        check_inputs((both,), {}, {"z": np.zeros((3, 1), np.float32)})


def test_one_name_is_one_size_within_an_input_too():
    with pytest.raises(UsageError, match=r"input 'z': axis 1 \(batch\) is 3, but 2 in input 'z'"):
        check_inputs((Binding("z", TensorType(DType.F32, (BATCH, BATCH))),), {}, {"z": np.zeros((2, 3), np.float32)})


S = Binding("s", TensorType(DType.STR, (2,)))


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.array([b"a", b"b"]), np.array(["a", "b"], object), ["a", "b"]])
def test_strings_may_come_as_numpys_own(array):
    (got,) = check_inputs((S,), {}, {"s": array})
    assert got.dtype == object
    assert [type(s) for s in got] == [str, str]
    assert got.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([b"a", b"\xff"]), r"input 's': expected str\[2\], got bytes that are not UTF-8: invalid start byte"),
        (np.array(["a", 1], object), r"input 's': expected str\[2\], got an array that holds int"),
        (np.array(["a", None], object), r"input 's': expected str\[2\], got an array that holds None"),
        (np.array([None, "a"], object), r"input 's': expected str\[2\], got an array that holds None"),
        ([None, "a"], r"input 's': expected str\[2\], got an array that holds None"),
        (np.zeros(2), r"input 's': got f64\[2\], expected str\[2\]"),
    ],
)
def test_what_is_no_string_is_refused(array, message):
    with pytest.raises(UsageError, match=message):
        check_inputs((S,), {}, {"s": array})


def masked(mask):
    return np.ma.masked_array(np.ones((1, 3), np.float32), mask)


def test_a_masked_array_is_refused_unless_it_masks_nothing():
    for mask in (np.ma.nomask, [[False] * 3]):
        (got,) = check_inputs((X,), {}, {"x": masked(mask)})
        assert type(got) is np.ndarray
        assert got.tolist() == [[1, 1, 1]]
    items = Binding("l", SequenceType(X.type))
    for binding, value in ((X, masked([[0, 1, 1]])), (items, [masked(0), masked([[0, 1, 1]])])):
        with pytest.raises(UsageError, match=r"got a masked array that masks 2 elements\n  hint: .*array\.filled\(value\)"):
            check_inputs((binding,), {}, {binding.name: value})


def test_what_only_looks_like_an_array_on_a_device_is_none():
    class Buffer:
        address, shape, dtype, ndim = 4096, (1, 3), np.dtype(np.float32), 2

    with pytest.raises(UsageError, match=r"input 'x': expected an array f32\[batch,3\], got Buffer"):
        check_inputs((X,), {}, {"x": Buffer()})


D = Binding("d", TensorType(DType.F32, (BATCH - 5, 2 * SEQ - 3)))


@pytest.mark.parametrize(
    ("sizes", "wrong"),
    [
        ({"batch": 4, "seq": 2}, r"axis 0 \(batch-5\) would be -1 where batch is 4"),
        ({"batch": 5, "seq": 1}, r"axis 1 \(2\*seq-3\) would be -1"),
    ],
)
def test_a_size_below_zero_is_told_with_its_dimension(sizes, wrong):
    ranges = {n: DimensionRange(n, 0, size, 8) for n, size in sizes.items()}
    for shapes in (lambda: complete_shapes((D,), ranges, {}), lambda: random_inputs((D,), ranges, {}, {}, 0)):
        with pytest.raises(UsageError, match=f"input 'd': {wrong}.*\n  hint: .*itself: "):
            shapes()
    assert random_inputs((D,), ranges, {"d": (0, 1)}, {}, 0)["d"].shape == (0, 1)


def test_the_other_byte_order_is_turned():
    (got,) = check_inputs((X,), {}, {"x": np.ones((1, 3), ">f4")})
    assert got.dtype == np.dtype("float32")
    assert got.dtype.isnative
    assert got.tolist() == [[1, 1, 1]]


def int8(*values: int) -> tuple[Binding, list[int]]:
    return Binding("i", TensorType(DType.I8, (len(values),))), list(values)


def test_python_integers_must_fit():
    binding, values = int8(-128, 127)
    assert check_inputs((binding,), {}, {"i": values})[0].tolist() == values
    for wrong in (-129, 128):
        binding, values = int8(0, wrong)
        with pytest.raises(UsageError, match=rf"input 'i': {wrong} does not fit i8\[2\]"):
            check_inputs((binding,), {}, {"i": values})
    u4 = Binding("i", TensorType(DType.U4, ()))
    assert check_inputs((u4,), {}, {"i": 15})[0] == 15
    with pytest.raises(UsageError, match="16 does not fit u4"):
        check_inputs((u4,), {}, {"i": 16})


def test_python_numbers_that_lose_more_than_decimals_are_refused():
    binding, _ = int8(0)
    with pytest.raises(UsageError, match=r"input 'i': got f64\[1\], expected i8\[1\]"):
        check_inputs((binding,), {}, {"i": [0.5]})
    assert check_inputs((Binding("i", TensorType(DType.I8, (0,))),), {}, {"i": []})[0].dtype == np.int8
    with pytest.raises(UsageError, match=r"input 'x': expected an array f32\[batch,3\], but its lists differ in length"):
        check_inputs((X,), {}, {"x": [[1, 2, 3], [1]]})


def test_sequences_and_optionals():
    items = Binding("l", SequenceType(TensorType(DType.F32)))
    maybe = Binding("o", OptionalType(TensorType(DType.F32, (1,))))
    a = np.ones(2, np.float32)
    got = check_inputs((items, maybe), {}, {"l": (a, 2.0), "o": None})
    assert got[0][0] is a
    assert (got[0][1].dtype, got[0][1].shape, got[1]) == (np.float32, (), None)
    assert check_inputs((items, maybe), {}, {"l": [], "o": [3]})[1].tolist() == [3]
    with pytest.raises(UsageError, match=r"input 'l': got f64\[2\], expected f32"):
        check_inputs((items, maybe), {}, {"l": [np.ones(2)], "o": None})
    with pytest.raises(UsageError, match=r"input 'l': expected a list of arrays seq\(f32.*\), got ndarray"):
        check_inputs((items, maybe), {}, {"l": a, "o": None})
    with pytest.raises(UsageError, match=r"input 'o': got f32\[2\], expected f32\[1\]"):
        check_inputs((items, maybe), {}, {"l": [], "o": a})
