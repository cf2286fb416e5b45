"""Strides, beside what numpy says of arrays that lie so."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.backends.cuda.contract.strides import (
    broadcast_strides,
    is_dense,
    is_in_rows,
    merge_axes,
    reshaped,
    row_major,
    settled_strides,
    spread_strides,
)


def test_strides_of_what_is_broadcast() -> None:
    assert broadcast_strides((2, 3), (2, 3)) == (3, 1)
    assert broadcast_strides((2, 1, 3), (4, 2, 5, 3)) == (0, 3, 0, 1)
    assert broadcast_strides((), (4, 2)) == (0, 0)
    assert broadcast_strides((1, 1, 3), (3,)) == (1,)
    assert broadcast_strides((1, 1), ()) == ()
    assert spread_strides((2, 1, 3), (70, 8, 2), (4, 2, 5, 3)) == (0, 70, 0, 2)


def test_axes_merge_where_all_strides_allow() -> None:
    assert merge_axes((2, 3, 1, 4), (12, 4, 9, 1), (12, 4, 7, 1)) == ((24,), [(1,), (1,)])
    assert merge_axes((2, 3, 4), (12, 4, 1), (24, 4, 1)) == ((2, 12), [(12, 1), (24, 1)])
    assert merge_axes((2, 3, 4), (12, 4, 1), (0, 0, 0)) == ((24,), [(1,), (0,)])
    assert merge_axes((2, 3), (3, 1), (-3, -1)) == ((6,), [(1,), (-1,)])
    assert merge_axes((2, 3), (3, 1), (-3, 1)) == ((2, 3), [(3, 1), (-3, 1)])
    assert merge_axes((1, 1), (1, 1)) == ((), [()])


@pytest.mark.parametrize(
    ("sizes", "strides", "unit", "rows"),
    [
        ((4, 8), (24, 1), 8, True),
        ((4, 8), (20, 1), 8, False),
        ((1, 8), (20, 1), 8, True),
        ((4, 8), (1, 8), 8, False),
        ((4, 1), (8, 3), 8, True),
        ((), (), 8, False),
    ],
)
def test_rows_begin_at_multiples_of_a_unit(sizes: Any, strides: Any, unit: int, rows: bool) -> None:
    assert is_in_rows(sizes, strides, unit) is rows


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """An array of int64 that is a permuted part of a dense one."""
    whole = np.arange(math.prod(sizes := draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))).reshape(sizes)
    ends = [draw(st.integers(1, n)) for n in sizes]
    part = whole[tuple(slice(n) for n in ends)]
    return part.transpose(draw(st.permutations(range(part.ndim))))


@given(arrays(), st.data())
def test_reshaped_is_what_numpy_does_without_a_copy(array: Any, data: st.DataObject) -> None:
    factors = [n for size in array.shape for n in ((2, 3) if size == 6 else (2, 2) if size == 4 else (size,))]
    to: list[int] = []
    while factors:
        taken = data.draw(st.integers(1, len(factors)))
        to.append(math.prod(factors[:taken]))
        factors = factors[taken:]
        to += [1] * data.draw(st.integers(0, 1))
    strides = tuple(s // 8 for s in array.strides)
    found = reshaped(array.shape, strides, to)
    try:
        seen = array.view()
        seen.shape = tuple(to)
    except AttributeError:
        assert found is None
        return
    assert found is not None
    assert [s for n, s in zip(to, found, strict=True) if n > 1] == [
        s // 8 for n, s in zip(to, seen.strides, strict=True) if n > 1
    ]
    assert is_dense(to, found) is seen.flags.c_contiguous


def test_strides_of_axes_of_one_element_are_settled() -> None:
    assert settled_strides((1, 4, 8), (7, 24, 1)) == (96, 24, 1)
    assert settled_strides((4, 1, 8, 1), (24, 7, 1, 7)) == (24, 8, 1, 1)


def test_reshaped_to_nothing_is_dense() -> None:
    assert reshaped((2, 0), (1, 5), (0, 7)) == row_major((0, 7))
    assert reshaped((1, 1), (5, 9), ()) == ()
