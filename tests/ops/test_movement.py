"""Transpose, Concat, Split, Expand, Tile: against numpy, with symbolic dimensions, and where operands do not fit."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops import lookup
from tests.ops.checked import contents, infer, run, told

B, S, H = symbol("batch"), symbol("seq"), symbol("h")
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
WORDS = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
ANY_RANK = TensorType(DType.F32)


def f32(*dims):
    return TensorType(DType.F32, dims)


def equal(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


def test_transpose_permutes_and_reverses():
    equal(run("Transpose", X), X.T)
    equal(run("Transpose", X, perm=[1, 0, 2]), np.swapaxes(X, 0, 1))
    equal(run("Transpose", WORDS), WORDS.T)
    assert infer("Transpose", f32(B, S, 4), perm=[0, 2, 1]) == f32(B, 4, S)
    assert len(infer("Transpose", ANY_RANK, perm=[1, 0]).shape) == 2
    assert infer("Transpose", ANY_RANK).shape is None


@pytest.mark.parametrize("perm", [[0, 1], [0, 0, 1], [1, 2, 3]])
def test_transpose_wants_a_permutation(perm):
    with pytest.raises(ModelError, match="no permutation"):
        infer("Transpose", X, perm=perm)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_joins(axis):
    equal(run("Concat", X, X + 1, X[:2], axis=axis), np.concatenate([X, X + 1, X[:2]], axis))
    equal(run("Concat", X, axis=axis), X)


def test_concat_adds_symbolic_sizes_and_merges_the_others():
    assert infer("Concat", f32(B, S, 4), f32(2, 1, 4), axis=1) == f32(2, S + 1, 4)
    first, second = infer("Concat", f32(B, 4), ANY_RANK, axis=0).shape
    assert (str(first), second) == ("?y0.0", 4)
    assert infer("Concat", ANY_RANK, ANY_RANK, axis=0).shape is None


@pytest.mark.parametrize(
    ("inputs", "axis", "message"),
    [
        ((f32(2, 3), f32(2, 4)), 0, "3 is not 4"),
        ((f32(2, 3), f32(2)), 0, "ranks differ"),
        ((f32(2, 3), TensorType(DType.I64, (2, 3))), 0, "element types differ"),
        ((f32(2, 3),), 2, r"axis 2 is outside \[-2, 1\]"),
        ((f32(), f32()), 0, "scalars"),
        ((), 0, "no inputs"),
    ],
)
def test_concat_that_does_not_fit_is_refused(inputs, axis, message):
    with pytest.raises(ModelError, match=message):
        infer("Concat", *inputs, axis=axis)


def test_split_by_sizes_and_by_number():
    for got, expected in zip(run("Split", X, told(1, 3), axis=-1, n_outputs=2), (X[..., :1], X[..., 1:]), strict=True):
        equal(got, expected)
    for got, expected in zip(run("Split", X, axis=2, num_outputs=3, n_outputs=3), np.split(X, [2, 4], 2), strict=True):
        equal(got, expected)
    assert infer("Split", f32(B, 3 * H), axis=1, num_outputs=3, n_outputs=3) == (f32(B, H),) * 3
    assert infer("Split", f32(B, H), axis=1, num_outputs=2, n_outputs=2) == (f32(B, -(-H // 2)), f32(B, H + (-H // 2)))
    pieces = infer("Split", X, TensorType(DType.I64, (2,)), axis=1, n_outputs=2)
    assert [(p.shape[0], str(p.shape[1]), p.shape[2]) for p in pieces] == [(2, "?y0.1", 4), (2, "?y1.1", 4)]


def test_split_of_unknown_rank():
    assert infer("Split", ANY_RANK, axis=1, num_outputs=2, n_outputs=2) == (ANY_RANK, ANY_RANK)


@pytest.mark.parametrize(
    ("sizes", "attrs", "message"),
    [
        (told(1, 3), {"axis": 1}, "add up to"),
        (told(1, 1, 1), {"axis": 1}, "into 3 sizes has 2 outputs"),
        (told(-1, 4), {"axis": 1}, "size -1 is negative"),
        (None, {"axis": 1, "num_outputs": 1}, "into 1 has 2 outputs"),
        (None, {"axis": 1, "num_outputs": 4}, "into 4 has 2 outputs"),
    ],
)
def test_split_that_does_not_fit_is_refused(sizes, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("Split", X, sizes, n_outputs=2, **attrs)


def test_split_of_a_scalar_is_refused():
    with pytest.raises(ModelError, match="cannot take a scalar"):
        infer("Split", f32(), n_outputs=2)


def test_sizes_that_only_the_reference_sees_are_checked():
    with pytest.raises(ModelError, match="add up to: 5 is not 3"):
        lookup("", "Split").evaluate([X, np.array([1, 4])], {"axis": 1}, n_outputs=2)
    for op in ("Expand", "Tile"):
        with pytest.raises(ModelError, match=rf"{op}: the dimensions \[1, -1, 1\]"):
            lookup("", op).evaluate([X, np.array([1, -1, 1])], {}, n_outputs=1)


def test_operands_of_the_wrong_shape_are_refused():
    vector, matrix = TensorType(DType.I64, (3,)), TensorType(DType.I64, (3, 1))
    with pytest.raises(ModelError, match="3 repeats"):
        infer("Tile", f32(2), vector)
    for op in ("Expand", "Tile"):
        with pytest.raises(ModelError, match="should be a vector"):
            infer(op, X, matrix)
    with pytest.raises(ModelError, match="not all 0 or more"):
        infer("Tile", X, told(1, -1, 1))


def test_split_into_more_pieces_than_there_are_is_refused():
    with pytest.raises(ModelError, match="into 5 pieces of 1"):
        infer("Split", f32(3), num_outputs=5, n_outputs=5)


def test_expand_broadcasts_both_ways():
    x = X[:, :1]
    equal(run("Expand", x, told(3, 1)), np.broadcast_to(x, (2, 3, 4)))
    equal(run("Expand", x, told(5, 1, 3, 1)), np.broadcast_to(x, (5, 2, 3, 4)))
    assert infer("Expand", f32(1, 1, S), TensorType(DType.I64, (4,), np.array([B, 1, S, S], object))) == f32(B, 1, S, S)
    rank, unknown, kept = infer("Expand", f32(1, 4), TensorType(DType.I64, (3,))).shape
    assert (str(rank), str(unknown), kept) == ("?y0.0", "?y0.1", 4)
    assert infer("Expand", X, TensorType(DType.I64, (B,))).shape is None


def test_expand_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="do not broadcast"):
        infer("Expand", X, told(2, 5))
    with pytest.raises(ModelError, match="negative dimension"):
        infer("Expand", X, told(-1, 4))


def test_tile_repeats():
    equal(run("Tile", X, told(2, 1, 3)), np.tile(X, (2, 1, 3)))
    equal(run("Tile", WORDS, told(1, 0)), np.empty((2, 0), object))
    repeats = TensorType(DType.I64, (3,), np.array([B, 1, 2], object))
    assert infer("Tile", f32(2, S, H), repeats) == f32(2 * B, S, 2 * H)
    assert [str(d) for d in infer("Tile", X, TensorType(DType.I64, (3,))).shape] == ["?y0.0", "?y0.1", "?y0.2"]
    assert len(infer("Tile", ANY_RANK, TensorType(DType.I64, (3,))).shape) == 3
    with pytest.raises(ModelError, match="2 repeats"):
        infer("Tile", X, told(2, 2))


def test_symbolic_contents_move_along():
    assert contents("Concat", [B], [1, S], axis=0) == [B, 1, S]
    assert contents("Transpose", [[B, 1], [S, 2]]) == [[B, S], [1, 2]]
    assert contents("Expand", [B], [3]) == [B, B, B]
    assert contents("Tile", [B, 1], [2]) == [B, 1, B, 1]
    assert contents("Split", [B, 1], num_outputs=1) == [B, 1]
