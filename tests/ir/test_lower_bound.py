"""What is certain about symbolic dimensions: lower bounds, and the comparisons that rest on them."""

import itertools
import operator

import pytest

from miniinfer_cli.ir import Dim, symbol
from miniinfer_cli.ir.dims import Undecided, evaluate, lower_bound

H, W, UNTOLD = symbol("h"), symbol("w"), symbol("?nonzero.0")
PADDED = H + (7 - H % 7) % 7


@pytest.mark.parametrize(
    ("dim", "bound"),
    [
        (H, 1),
        (H - 1, 0),
        (UNTOLD, 0),
        (H * W - 1, 0),
        (H * H - H, 0),
        (7 * H - 3, 4),
        (H // 2, 0),
        ((H - 1) // 2 + 1, 1),
        (H % 7, 0),
        (6 - H % 7, 0),
        (PADDED, 1),
        (PADDED - H, 0),
        (H + 6 - PADDED, 0),
        (H // 2 * (W // 3), 0),
        (12 // H, 0),
        (-H, None),
        (H - W, None),
        (5, 5),
    ],
)
def test_lower_bound_is_reached_by_no_size_and_as_high_as_expected(dim: Dim, bound: int | None):
    assert lower_bound(dim) == bound
    if bound is not None:
        least = 0 if dim is UNTOLD else 1
        sizes = [{"h": h, "w": w, "?nonzero.0": h} for h, w in itertools.product(range(least, 20), range(1, 6))]
        assert min(evaluate(dim, s) for s in sizes) >= bound


@pytest.mark.parametrize(
    ("compare", "left", "right", "answer"),
    [
        (operator.gt, H, 0, True),
        (operator.lt, H, 1, False),
        (operator.le, H, H, True),
        (operator.lt, H, H, False),
        (operator.ge, H + W, W, True),
        (operator.gt, H + W, W, True),
        (operator.le, H // 2, H, True),
        (operator.gt, 0, H, False),
        (operator.ge, UNTOLD, 0, True),
        (operator.lt, PADDED, H + 7, True),
    ],
)
def test_comparisons_that_hold_for_all_sizes_are_answered(compare, left: Dim, right: Dim, answer: bool):
    assert compare(left, right) is answer


@pytest.mark.parametrize(
    ("compare", "left", "right"), [(operator.gt, H, 1), (operator.lt, H, W), (operator.gt, UNTOLD, 0), (operator.le, 8, H)]
)
def test_comparisons_that_hang_on_the_size_are_undecided(compare, left: Dim, right: Dim):
    with pytest.raises(Undecided, match="whether"):
        compare(left, right)
