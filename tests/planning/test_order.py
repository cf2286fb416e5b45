"""Partial orders, beside what following every edge says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.planning.order import PartialOrder, list_order


@st.composite
def orders(draw: st.DrawFn) -> PartialOrder:
    count = draw(st.integers(1, 12))
    lanes = tuple(draw(st.integers(0, 3)) for _ in range(count))
    waits = tuple(tuple(draw(st.lists(st.integers(0, n - 1), max_size=2))) if n else () for n in range(count))
    return PartialOrder(lanes, waits)


@given(orders())
def test_what_precedes_is_what_edges_lead_to(order: PartialOrder) -> None:
    count = len(order.lanes)
    before: list[set[int]] = []
    for number in range(count):
        direct = {n for n in range(number) if order.lanes[n] == order.lanes[number]} | set(order.waits[number])
        before.append(direct.union(*(before[n] for n in direct)))
    assert [[order.precedes(one, other) for one in range(count)] for other in range(count)] == [
        [one in before[other] for one in range(count)] for other in range(count)
    ]


@given(orders(), st.data())
def test_a_stretch_has_ended_where_all_of_it_precedes_all_of_another(order: PartialOrder, data: st.DataObject) -> None:
    steps = st.sets(st.integers(0, len(order.lanes) - 1), min_size=1)
    one, other = data.draw(steps), data.draw(steps)
    ended = bool((order.reached(one) < order.begun(other)).all())
    assert ended is all(order.precedes(a, b) for a in one for b in other)
    end = len(order.lanes)
    assert (order.reached(one) < order.begun([end])).all()
    assert not (order.reached({*one, end}) < order.begun([end])).all()
    assert not (order.reached({end}) < order.begun(other)).all()


def test_a_list_is_one_lane() -> None:
    assert [[list_order(3).precedes(i, j) for j in range(3)] for i in range(3)] == [[j > i for j in range(3)] for i in range(3)]
    assert (list_order(0).reached([0]).tolist(), list_order(0).begun([0]).tolist()) == ([1], [0])


@pytest.mark.parametrize("waits", [((0,),), ((1,),), ((-1,),)])
def test_nobody_waits_for_what_is_not_in_front(waits: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="step 0 waits for"):
        PartialOrder((0,), waits)
