"""Slice: the specification's slicing for every bound and step, and the lengths of slices of symbolic dimensions."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ir.dims import evaluate, maximum, minimum, names_in, positive_part
from tests.ops.checked import contents, infer, run, told

S, P, UNTOLD = symbol("seq"), symbol("past"), symbol("?nonzero.0")
LONG, FEW = symbol("long", least=1), symbol("few", least=1, most=4)
INT_MAX, INT64_MIN = 2**31 - 1, -(2**63)


def vector(*items):
    known = np.array(items, object)
    return TensorType(DType.I64, known.shape, known)


def length(dim, start, end, step=1):
    return infer("Slice", TensorType(DType.F32, (dim,)), vector(start), vector(end), vector(0), vector(step)).shape[0]


BOUND = st.one_of(st.integers(-9, 9), st.sampled_from([INT_MAX, -INT_MAX, 2**63 - 1, INT64_MIN]))


@given(st.integers(0, 6), BOUND, BOUND, st.integers(-3, 3).filter(bool))
def test_slices_as_the_specification_says(size, start, end, step):
    """The bounds are counted and kept within the axis as ONNX's text has it, which is numpy's but for starts before the axis."""
    first, last = (b + size if b < 0 else b for b in (start, end))
    first = min(max(first, 0), size if step > 0 else size - 1)
    last = min(max(last, 0), size) if step > 0 else min(max(last, -1), size - 1)
    x = np.arange(size * 2).reshape(size, 2)
    got = run("Slice", x, told(start), told(end), told(0), told(step))
    np.testing.assert_array_equal(got, x[list(range(first, last, step))], strict=True)
    if step > 0 or start >= -size:
        np.testing.assert_array_equal(got, x[start:end:step], strict=True)


def test_axes_may_be_few_negative_or_left_out():
    x = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
    np.testing.assert_array_equal(run("Slice", x, told(0, 1), told(9, 9)), x[:, 1:], strict=True)
    np.testing.assert_array_equal(run("Slice", x, told(0), told(2), told(-1)), x[:, :2], strict=True)


@pytest.mark.parametrize(
    ("dim", "start", "end", "step", "expected"),
    [
        (S, 0, INT_MAX, 1, S),  # x[:]
        (S, 1, INT_MAX, 1, positive_part(S - 1)),  # x[1:]
        (S, 0, -1, 1, positive_part(S - 1)),  # x[:-1]
        (S, -1, INT_MAX, 1, minimum(S, 1)),  # x[-1:]
        (S, 0, 1, 1, minimum(S, 1)),  # x[:1]
        (LONG, 1, INT_MAX, 1, LONG - 1),
        (LONG, 0, -1, 1, LONG - 1),
        (LONG, -1, INT_MAX, 1, 1),
        (LONG, 0, LONG - 1, 1, LONG - 1),
        (LONG, LONG - 1, LONG, 1, 1),
        (S, 0, S - 1, 1, positive_part(S - 1)),  # x[:seq - 1]
        (S, 0, S - 2, 1, positive_part(S - 2)),
        (S, 0, INT_MAX, 2, -(-S // 2)),  # x[::2]
        (S, 1, INT_MAX, 2, -(-(S - 1) // 2)),  # x[1::2]
        (2 * S, 0, INT_MAX, 2, S),
        (S, -1, INT64_MIN, -1, S),  # x[::-1]
        (S, INT_MAX, -INT_MAX, -1, S),
        (1024, 0, S, 1, minimum(S, 1024)),  # table[:seq]
        (S, 0, P, 1, minimum(S, P)),  # x[:past]
        (S, 0, S, 1, S),
        (S, 0, S + 1, 1, S),
        (S, -S, INT_MAX, 1, S),
        (P + S, 0, P, 1, P),
        (P + S, P, P + S, 1, S),
        (P + LONG, -LONG, INT_MAX, 1, LONG),
        (1024, P, P + S, 1, minimum(S, positive_part(1024 - P))),  # table[past : past + seq]
        (S + 4, 2, 4, 1, 2),
        (S + 4, -3, -1, 1, 2),
        (S + 4, -1, -6, -1, minimum(S + 4, 5)),
        (S, S, INT_MAX, 1, 0),
        (S, 3, 2, 1, 0),
        (S, 2, INT_MAX, 1, positive_part(S - 2)),
        (S, 1, -3, 1, positive_part(S - 4)),
        (S, -2, 0, -1, positive_part(S - 2)),
        (S, 0, 128, 1, minimum(S, 128)),
        (S, -128, INT_MAX, 1, minimum(S, 128)),
        (S, 2, 4, 1, positive_part(S - 2) - positive_part(S - 4)),
        (S, -4, -2, 1, minimum(positive_part(S - 2), 2)),
        (S, 3, 0, -1, minimum(positive_part(S - 1), 3)),
        (S, -5, INT64_MIN, -1, maximum(S - 4, minimum(S, 1))),  # from before the axis: its first element
    ],
)
def test_lengths_that_exporters_rely_on_stay_symbolic(dim, start, end, step, expected):
    assert length(dim, start, end, step) == expected
    sizes = {"seq": 6, "past": 5, "long": 4}
    bounds = [evaluate(d, sizes) for d in (start, end, step)]
    assert evaluate(expected, sizes) == len(range(evaluate(dim, sizes))[slice(*bounds)])


SIZE = st.one_of(
    st.integers(0, 6),
    st.sampled_from([S, P, S + P, 2 * S, S + 2, S // 2, minimum(S, 3), positive_part(S - 2), UNTOLD, FEW, LONG]),
)
SYMBOLIC_BOUND = st.one_of(BOUND, SIZE, SIZE.map(lambda d: -d), st.tuples(SIZE, st.integers(-3, 3)).map(sum))


@settings(max_examples=50, deadline=None)
@example(2 * S, S, -(S // 2), 1)  # where seq is 1 the end is 0, counted from the front
@given(SIZE, SYMBOLIC_BOUND, SYMBOLIC_BOUND, st.integers(-3, 3).filter(bool))
def test_symbolic_lengths_are_the_lengths_at_every_size(dim, start, end, step):
    found = length(dim, start, end, step)
    if any(name.startswith("?y") for name in names_in(found)):
        return  # it is not told, which is never wrong
    for seq, past, untold in itertools.product((0, 1, 2, 3, 4, 7), (0, 1, 2, 5), (0, 1, 4)):
        sizes = {"seq": seq, "past": past, "?nonzero.0": untold, "few": 1 + seq % 4, "long": 1 + seq}
        assert evaluate(found, sizes) == length(*(evaluate(d, sizes) for d in (dim, start, end)), step), sizes


def test_operands_that_are_not_known_leave_their_axes_unknown():
    x = TensorType(DType.F32, (S, 3, 4))
    two = TensorType(DType.I64, (2,))
    assert [str(d) for d in infer("Slice", x, two, two, told(2, 0)).shape] == ["?y0.0", "3", "?y0.2"]
    assert [str(d) for d in infer("Slice", x, two, two).shape] == ["?y0.0", "?y0.1", "4"]
    assert [str(d) for d in infer("Slice", x, two, two, two).shape] == ["?y0.0", "?y0.1", "?y0.2"]
    assert infer("Slice", TensorType(DType.F32), two, two).shape is None


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ((told(0), told(1, 1)), "2 ends and 1 starts"),
        ((told(0, 0, 0), told(1, 1, 1)), "cuts 3 axes of f32"),
        ((TensorType(DType.I64, (1, 1)), told(1)), "starts should be a vector"),
        ((told(0), told(1), told(2)), r"axis 2 is outside \[-2, 1\]"),
        ((told(0), told(1), told(0), told(0)), "step is 0"),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands, message):
    with pytest.raises(ModelError, match=message):
        infer("Slice", TensorType(DType.F32, (2, 3)), *operands)


def test_contents_are_sliced():
    assert contents("Slice", [S, 2, P], [-1], [INT64_MIN], [0], [-2]) == [P, S]
    assert contents("Slice", [S, 2, P], [0], [UNTOLD], [0]) is None
