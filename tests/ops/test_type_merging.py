"""Types across the border of a sub-graph, and merged types."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, MapType, OptionalType, SequenceType, TensorType, symbol
from miniinfer_cli.ir.dim_text import parse_dim
from miniinfer_cli.ops import UNKNOWN
from miniinfer_cli.ops.type_merging import infer_inner, merge_types, same_type, substitute

N, M = symbol("n"), symbol("m")


def tensor(*shape, known=None):
    return TensorType(DType.I64, shape, known)


@pytest.mark.parametrize(
    ("a", "b", "merged"),
    [
        (tensor(2, N), tensor(2, N), tensor(2, N)),
        (tensor(2, N), tensor(3, N), tensor(UNKNOWN, N)),
        (tensor(N), tensor(M), tensor(UNKNOWN)),
        (tensor(2), tensor(2, 3), TensorType(DType.I64)),
        (tensor(2), TensorType(DType.I64), TensorType(DType.I64)),
        (SequenceType(tensor(2)), SequenceType(tensor(3)), SequenceType(tensor(UNKNOWN))),
        (SequenceType(None), SequenceType(tensor(3)), SequenceType(None)),
        (OptionalType(tensor(2)), tensor(2), OptionalType(tensor(2))),
        (OptionalType(tensor(2)), OptionalType(tensor(3)), OptionalType(tensor(UNKNOWN))),
        (MapType(DType.I64, tensor()), MapType(DType.I64, tensor()), MapType(DType.I64, tensor())),
        (None, tensor(2), None),
    ],
)
def test_merged_types(a, b, merged):
    assert merge_types("If", a, b) == merged
    assert merge_types("If", b, a) == merged


def test_contents_stay_where_they_are_equal():
    one, two = np.array([1, N], object), np.array([2, N], object)
    assert merge_types("If", tensor(2, known=one), tensor(2, known=one.copy())).known.tolist() == [1, N]
    assert merge_types("If", tensor(2, known=one), tensor(2, known=two)).known is None
    assert merge_types("If", tensor(2, known=one), tensor(2)).known is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (tensor(2), TensorType(DType.F32, (2,))),
        (tensor(2), SequenceType(tensor(2))),
        (MapType(DType.I64, tensor()), MapType(DType.STR, tensor())),
    ],
)
def test_different_kinds_are_refused(a, b):
    with pytest.raises(ModelError, match="differ where one"):
        merge_types("If", a, b)


def test_same_type_looks_at_contents():
    one, two = np.array([1]), np.array([2])
    assert same_type(tensor(1, known=one), tensor(1, known=one.copy()))
    assert not same_type(tensor(1, known=one), tensor(1, known=two))
    assert not same_type(tensor(1, known=one), tensor(1))
    assert not same_type(tensor(1), tensor(2))
    assert same_type(None, None)


def test_names_of_open_dimensions_mean_something_within_one_graph():
    seen = []

    def body(graph, types):
        seen.extend(types)
        # Inside, ?x.0 is another dimension than the outer one of that name.
        return (tensor(symbol("?x.0"), N, types[0].shape[0] + 1), SequenceType(types[0]))

    outer = tensor(symbol("?x.0"), known=np.array([symbol("?x.0")], object))
    own, passed = infer_inner(None, [outer], body)
    assert seen[0].shape == (symbol("?^x.0"),)
    assert seen[0].known.tolist() == [symbol("?^x.0")]
    assert own.shape == (UNKNOWN, N, symbol("?x.0") + 1)
    assert passed == SequenceType(tensor(symbol("?x.0")))


def test_contents_with_an_inner_name_are_not_known_outside():
    (result,) = infer_inner(None, [], lambda graph, types: (tensor(1, known=np.array([symbol("?x.0")], object)),))
    assert result.known is None


def test_unknown_sizes_of_inputs_are_told_apart_inside():
    seen = []

    def body(graph, types):
        seen.extend(types)
        return (tensor(types[0].shape[0] + N), types[1])

    inputs = [tensor(UNKNOWN, 2, UNKNOWN), SequenceType(tensor(UNKNOWN)), tensor(UNKNOWN)]
    assert infer_inner(None, inputs, body) == (tensor(UNKNOWN), SequenceType(tensor(UNKNOWN)))
    names = [str(d) for d in (*seen[0].shape, *seen[2].shape)]
    assert len(set(names)) == 4
    assert "?" not in names
    assert seen[1] == inputs[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2*n+m", "2*k+7"), ("floor((n+m)/(2))", "floor((k+7)/(2))"), ("n*m", "7*k"), ("p", "p"), ("n*n-p", "k*k-p")],
)
def test_substitution(text, expected):
    assert substitute(parse_dim(text), {"n": symbol("k"), "m": 7}) == parse_dim(expected)


def test_substituted_numbers_are_worked_out():
    assert substitute(parse_dim("floor((n+1)/(m))"), {"n": 9, "m": 2}) == 5
    assert substitute(4, {"n": 9}) == 4
