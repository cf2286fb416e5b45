"""The cheapest division in two sides is the cheapest that trying every division finds."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.passes.min_cut import divide


def cost(groups, side):
    return sum(weight for weight, members in groups if len({m in side for m in members}) > 1)


groups = st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(0, 6), min_size=2, max_size=4)), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(groups)
def test_no_division_is_cheaper_and_none_as_cheap_is_smaller(groups):
    side = divide(groups, [0], [6])
    assert 0 in side
    assert 6 not in side
    free = range(1, 6)
    every = [{0, *chosen} for size in range(6) for chosen in itertools.combinations(free, size)]
    best = min(cost(groups, s) for s in every)
    assert cost(groups, side) == best
    assert len(side) == min(len(s) for s in every if cost(groups, s) == best)


def test_a_long_chain_is_cut_where_it_is_thinnest():
    chain = [(2 if i != 700 else 1, [i, i + 1]) for i in range(3000)]
    assert divide(chain, [0], [3000]) == set(range(701))


def test_what_hangs_together_with_neither_side_is_last():
    assert divide([(1, ["a", "b"]), (5, ["first", "c"])], ["first"], ["last"]) == {"first", "c"}
