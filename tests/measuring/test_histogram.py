"""Latencies in ranges, for a picture."""

import random

import pytest

from miniinfer_cli.measuring.histogram import Histogram, histogram


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000, 20_000])
def test_every_time_is_counted_once(count):
    drawn = random.Random(count)
    times = [1.0 + drawn.gauss(0, 0.05) ** 2 for _ in range(count)]
    found = histogram(times)
    assert sum(found.counts) + found.beyond == count
    assert len(found.counts) <= 81 and found.from_ms == min(times) and found.counts[0] > 0
    assert found.beyond <= 0.005 * count
    for place, counted in enumerate(found.counts):
        low, high = (found.from_ms + n * found.width_ms for n in (place, place + 1))
        assert abs(counted - sum(low <= t < high for t in times)) <= 1  # at a border, by the last bit


def test_one_straggler_makes_no_bar_of_all_others():
    found = histogram([*(1.0 + n / 1000 for n in range(400)), 5000.0])
    assert found.beyond == 1 and len(found.counts) > 5 and found.from_ms + found.width_ms * len(found.counts) < 2


def test_equal_times_are_one_bar():
    assert histogram([2.0] * 5) == Histogram(2.0, 2e-6, (5,), 0)
    assert histogram([0.0, 0.0]).counts == (2,)
    assert histogram([1.0, 3.0]).to_json() == {
        "from_ms": 1.0,
        "width_ms": pytest.approx(3.1748, abs=1e-3),
        "counts": [2],
        "beyond": 0,
    }


def test_no_times_make_none():
    with pytest.raises(ValueError, match="at least one"):
        histogram([])
