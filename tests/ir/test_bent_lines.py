"""Lines with bends: their positive part and their least value, beside trying every number."""

from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.ir.bent_lines import BentLine

SMALL = st.integers(-9, 9)
LINES = st.builds(BentLine, SMALL, st.integers(-4, 4), st.dictionaries(st.integers(-5, 8), st.integers(-4, 4), max_size=3))
ENDS = st.tuples(st.none() | st.integers(-4, 3), st.none() | st.integers(4, 9))


@given(LINES, ENDS)
def test_the_positive_part_is_max_0_everywhere_and_written_in_one_way(line: BentLine, ends: tuple[int | None, int | None]):
    low, high = ends
    part = line.positive_part(low, high)
    numbers = range(-40 if low is None else low, 41 if high is None else high + 1)
    assert [part.at(x) for x in numbers] == [max(0, line.at(x)) for x in numbers]
    assert part.positive_part(low, high) == part
    assert all(bend and (low is None or k > low) and (high is None or k < high) for k, bend in part.bends.items())


@given(LINES, ENDS)
def test_the_least_value_is_reached_and_no_value_is_less(line: BentLine, ends: tuple[int | None, int | None]):
    low, high = ends
    found = line.least(low, high)
    numbers = range(-40 if low is None else low, 41 if high is None else high + 1)
    values = [line.at(x) for x in numbers]
    if found is None:  # it goes down for ever
        assert (low is None and values[0] < values[1]) or (high is None and values[-1] < values[-2])
    else:
        assert min(values) == found
