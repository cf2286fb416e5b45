"""Operations on sequences of tensors."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, SequenceType, TensorType, symbol
from miniinfer_cli.ops import lookup
from tests.ops.checked import Told, infer, told

N = symbol("n")
A, B, C = (np.full((2, k + 1), k, np.float32) for k in range(3))
PAIR = SequenceType(TensorType(DType.F32, (2, N)))


def run(op, *inputs, **attrs):
    (result,) = lookup("", op).evaluate(inputs, attrs, n_outputs=1)
    return result


def at(position):
    return np.array(position, np.int64)


def same(result, expected):
    assert isinstance(result, list)
    assert len(result) == len(expected)
    for x, y in zip(result, expected, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


def test_construct_and_empty():
    same(run("SequenceConstruct", A, B), [A, B])
    assert run("SequenceEmpty", dtype=7) == []
    assert infer("SequenceConstruct", A, A) == SequenceType(TensorType(DType.F32, (2, 1)))
    mixed = infer("SequenceConstruct", A, B)
    assert mixed.element.shape[0] == 2
    assert not isinstance(mixed.element.shape[1], int)
    assert infer("SequenceEmpty", dtype=7) == SequenceType(TensorType(DType.I64))
    assert infer("SequenceEmpty") == SequenceType(TensorType(DType.F32))


@pytest.mark.parametrize(
    ("position", "expected"), [(None, [A, B, C]), (0, [C, A, B]), (1, [A, C, B]), (-1, [A, C, B]), (-2, [C, A, B])]
)
def test_insert(position, expected):
    before = [A, B]
    same(run("SequenceInsert", before, C, *([] if position is None else [at(position)])), expected)
    same(before, [A, B])


@pytest.mark.parametrize(("position", "expected"), [(None, [A, B]), (0, [B, C]), (-2, [A, C])])
def test_erase(position, expected):
    before = [A, B, C]
    same(run("SequenceErase", before, *([] if position is None else [at(position)])), expected)
    same(before, [A, B, C])


def test_at_and_length():
    np.testing.assert_array_equal(run("SequenceAt", [A, B, C], at(1)), B)
    np.testing.assert_array_equal(run("SequenceAt", [A, B, C], at(-1)), C)
    length = run("SequenceLength", [A, B])
    assert (length.shape, length.dtype, length) == ((), np.int64, 2)


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        ("SequenceAt", ([A], at(1)), r"SequenceAt position 1 is outside \[-1, 0\]"),
        ("SequenceInsert", ([A], B, at(2)), r"SequenceInsert position 2 is outside \[-1, 1\]"),
        ("SequenceErase", ([], at(0)), r"SequenceErase position 0 is outside \[0, -1\]"),
        ("ConcatFromSequence", ([],), "empty sequence"),
    ],
)
def test_what_is_not_there_is_refused(op, inputs, message):
    with pytest.raises(ModelError, match=message):
        run(op, *inputs, **({"axis": 0} if op == "ConcatFromSequence" else {}))


X = np.arange(12).reshape(2, 6)


@pytest.mark.parametrize(
    ("split", "attrs", "expected"),
    [
        (None, {}, [X[:1], X[1:]]),
        (None, {"keepdims": 0}, [X[0], X[1]]),
        (None, {"axis": -1, "keepdims": 0}, list(X.T)),
        (at(2), {"axis": 1}, [X[:, :2], X[:, 2:4], X[:, 4:]]),
        (at(4), {"axis": 1, "keepdims": 0}, [X[:, :4], X[:, 4:]]),
        (at([1, 5]), {"axis": 1}, [X[:, :1], X[:, 1:]]),
        (at([0, 2]), {"axis": 0}, [X[:0], X]),
    ],
)
def test_split(split, attrs, expected):
    inputs = [X] if split is None else [X, split]
    parts = run("SplitToSequence", *inputs, **attrs)
    same(parts, expected)
    element = infer("SplitToSequence", *inputs, **attrs).element
    for part in parts:
        assert len(element.shape) == part.ndim
        assert all(d == n or not isinstance(d, int) for d, n in zip(element.shape, part.shape, strict=True))


def test_split_of_nothing():
    same(run("SplitToSequence", np.zeros((0, 2))), [])


@pytest.mark.parametrize(
    ("split", "message"), [(at(0), "split is 0"), (at([1, 3]), r"\[1, 3\] do not add up to 6"), (at([7, -1]), "add up")]
)
def test_sizes_that_do_not_fit_are_refused(split, message):
    with pytest.raises(ModelError, match=message):
        run("SplitToSequence", X, split, axis=1)


def test_shapes_of_parts():
    x = TensorType(DType.F32, (N, 6))
    assert infer("SplitToSequence", x) == SequenceType(TensorType(DType.F32, (1, 6)))
    assert infer("SplitToSequence", x, keepdims=0) == SequenceType(TensorType(DType.F32, (6,)))
    assert infer("SplitToSequence", x, told(3, 3), axis=1) == SequenceType(TensorType(DType.F32, (N, 3)))
    assert infer("SplitToSequence", x, Told(at(3)), axis=-1) == SequenceType(TensorType(DType.F32, (N, 3)))
    for split in (Told(at(4)), TensorType(DType.I64, ()), TensorType(DType.I64, (2,))):
        assert not isinstance(infer("SplitToSequence", x, split, axis=1).element.shape[1], int)
    open_size = infer("SplitToSequence", x, told(2, 4), axis=1).element.shape[1]
    assert not isinstance(open_size, int)
    assert infer("SplitToSequence", TensorType(DType.F32)) == SequenceType(TensorType(DType.F32))
    with pytest.raises(ModelError, match="should be a vector"):
        infer("SplitToSequence", x, Told(at([[3, 3]])), axis=1)


def test_concat():
    np.testing.assert_array_equal(run("ConcatFromSequence", [A, B], axis=1), np.concatenate([A, B], axis=1))
    np.testing.assert_array_equal(run("ConcatFromSequence", [A, A], axis=-1, new_axis=1), np.stack([A, A], axis=-1))
    joined = infer("ConcatFromSequence", PAIR, axis=1)
    assert joined.shape[0] == 2
    assert joined.rank == 2
    stacked = infer("ConcatFromSequence", PAIR, axis=-1, new_axis=1)
    assert stacked.shape[:2] == (2, N)
    assert stacked.rank == 3
    middle = infer("ConcatFromSequence", SequenceType(TensorType(DType.F32, (2, N, 4, 5))), axis=1)
    assert (middle.shape[0], middle.shape[2:]) == (2, (4, 5))
    assert middle.shape[1] != N
    assert infer("ConcatFromSequence", SequenceType(TensorType(DType.F32)), axis=0) == TensorType(DType.F32)
    with pytest.raises(ModelError, match="axis 2 is outside"):
        infer("ConcatFromSequence", PAIR, axis=2)


def test_types_of_elements():
    assert infer("SequenceAt", PAIR, at(0)) == PAIR.element
    assert infer("SequenceErase", PAIR) == PAIR
    assert infer("SequenceLength", PAIR) == TensorType(DType.I64, ())
    assert infer("SequenceInsert", PAIR, TensorType(DType.F32, (2, N))) == PAIR
    assert infer("SequenceInsert", PAIR, TensorType(DType.F32, (2,))) == SequenceType(TensorType(DType.F32))


@pytest.mark.parametrize("op", ["SequenceAt", "SequenceErase", "SequenceLength", "ConcatFromSequence", "SequenceInsert"])
def test_a_tensor_is_no_sequence(op):
    rest = {"SequenceAt": [at(0)], "SequenceInsert": [A]}.get(op, [])
    with pytest.raises(ModelError, match=rf"{op} input 0 \(input_sequence\) is f32\[2,1\], expected a sequence"):
        infer(op, A, *rest, **({"axis": 0} if op == "ConcatFromSequence" else {}))


def test_elements_of_two_types_are_refused():
    with pytest.raises(ModelError, match="element types differ"):
        infer("SequenceConstruct", A, X)
    with pytest.raises(ModelError, match="element types differ"):
        infer("SequenceInsert", PAIR, X)
