"""What is certain about symbolic dimensions: lower bounds, and the comparisons that rest on them."""

import itertools
import operator

import pytest

from miniinfer_cli.ir import Dim, symbol
from miniinfer_cli.ir.dims import Undecided, assuming, evaluate, lower_bound, maximum, minimum, positive_part

H, W, N, M = symbol("h", least=1), symbol("w", least=1), symbol("n"), symbol("m")
FEW = symbol("few", least=2, most=5)
PADDED = H + (7 - H % 7) % 7


@pytest.mark.parametrize(
    ("dim", "bound"),
    [
        (H, 1),
        (H - 1, 0),
        (N, 0),
        (N - 1, -1),
        (N * M - 1, -1),
        (N % 7, 0),
        (FEW - 2, 0),
        (-FEW, -5),
        (FEW * FEW - 5 * FEW, -6),
        (10 - FEW * N, None),
        (H * W - 1, 0),
        (H * H - H, 0),
        (7 * H - 3, 4),
        (H // 2, 0),
        ((H - 1) // 2 + 1, 1),
        (H % 7, 0),
        (6 - H % 7, 0),
        (PADDED, 7),
        (PADDED - H, 0),
        (H + 6 - PADDED, 0),
        (H // 2 * (W // 3), 0),
        (12 // H, 0),
        (2 * (H // 2) * H - H // 2 - H, None),  # the most of a division in one term, and the least of it in the other
        (H // 2 * N - H // 2, None),
        (H // 2 * N + H // 2, 0),
        (-H, None),
        (H - W, None),
        (5, 5),
        (minimum(N, 1), 0),
        (1 - minimum(N, 1), 0),
        (minimum(H, 1), 1),
        (minimum(N, M), 0),
        (N - minimum(N, M), 0),
        (maximum(N, M) - N, 0),
        (minimum(N, 1024) - minimum(N, 2), 0),
        (positive_part(N - 3) - N, -3),
        (N - positive_part(N // 2 - 1), 0),
        (minimum(N, 8) - minimum(M, 8), -8),
    ],
)
def test_lower_bound_is_reached_by_no_size_and_as_high_as_expected(dim: Dim, bound: int | None):
    assert lower_bound(dim) == bound
    if bound is not None:
        sizes = [
            {"h": h, "w": w, "n": h - 1, "m": w - 1, "few": few}
            for h, w, few in itertools.product(range(1, 20), range(1, 6), range(2, 6))
        ]
        assert min(evaluate(dim, s) for s in sizes) >= bound


@pytest.mark.parametrize(
    ("dim", "given", "bound"),
    [
        (N, [N - 3], 3),
        (-N, [3 - N], -3),
        (N - M, [N - M - 2], 2),
        (N, [minimum(N, 4) - 2], 2),
        (N, [N // 2 - 2], 4),
        (-N, [2 - N // 2], -5),
        (2 * N, [N + minimum(N, 1) - 1], 2),
        (N, [N - 3, M - N], 3),
        (M, [N - 3, M - N], 3),
    ],
)
def test_what_is_given_narrows_the_sizes(dim: Dim, given: list[Dim], bound: int):
    assert lower_bound(dim, given) == bound
    sizes = [{"n": n, "m": m} for n, m in itertools.product(range(12), range(12))]
    held = [s for s in sizes if all(evaluate(g, s) >= 0 for g in given)]
    assert min(evaluate(dim, s) for s in held) >= bound


def test_a_choice_is_told_where_what_is_given_decides_it():
    assert assuming(minimum(N, 1), [N - 1]) == 1
    assert assuming(minimum(N, 1) + N, [1 - N]) == 2 * N
    assert assuming(minimum(N, M), [N - M]) == M
    assert assuming(minimum(N, 3), [N - 1]) == minimum(N, 3)


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
        (operator.ge, N, 0, True),
        (operator.gt, FEW, 1, True),
        (operator.le, FEW, 5, True),
        (operator.lt, PADDED, H + 7, True),
    ],
)
def test_comparisons_that_hold_for_all_sizes_are_answered(compare, left: Dim, right: Dim, answer: bool):
    assert compare(left, right) is answer


@pytest.mark.parametrize(
    ("compare", "left", "right"), [(operator.gt, H, 1), (operator.lt, H, W), (operator.gt, N, 0), (operator.le, 8, H)]
)
def test_comparisons_that_hang_on_the_size_are_undecided(compare, left: Dim, right: Dim):
    with pytest.raises(Undecided, match="whether"):
        compare(left, right)


def test_bounds_of_names_count_though_names_compare_without_them():
    plain, bounded = minimum(N, 3), N - positive_part(symbol("n", least=2) - 3)
    assert plain == bounded
    for _ in range(2):  # what is remembered of one is not said of the other
        assert [lower_bound(minimum(symbol("n", least=k), 3)) for k in (0, 1, 2)] == [0, 1, 2]
        assert lower_bound(plain) == 0
