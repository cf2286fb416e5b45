"""What makes times mean less: foreign load by /proc/stat, a GPU that is slowed down, drift."""

import math
import random

import pytest

from miniinfer_cli.measuring.conditions import (
    Conditions,
    CpuTimes,
    busy_seconds,
    conditions_of,
    drift_of,
    foreign_cores,
    is_crowded,
)

STAT = """cpu  400 20 100 9000 300 0 30 50 7 0
cpu0 100 10 50 4000 100 0 20 20 7 0
cpu1 200 10 50 4000 100 0 10 30 0 0
cpu12 900 0 0 0 0 0 0 0 0 0
intr 5 0
"""


@pytest.fixture
def stat(tmp_path):
    path = tmp_path / "stat"
    path.write_text(STAT)
    return path


def test_busy_is_neither_idle_nor_counted_twice(stat):
    assert busy_seconds(stat, [0]) == pytest.approx(2.0)  # with what the hypervisor took
    assert busy_seconds(stat, [0, 1]) == pytest.approx(5.0)
    assert busy_seconds(stat, [0, 3]) is None  # a processor that it does not list


@pytest.mark.parametrize("text", ["", "cpu0 0 0 0 0 0 0 0 0 0 0\n", "cpu0 a b\n"])
def test_where_nobody_tells(stat, text):
    stat.write_text(text)
    assert busy_seconds(stat, [0]) is None
    assert busy_seconds(stat.with_name("none"), [0]) is None


def test_foreign_is_what_is_neither_ours_nor_of_our_other_processes():
    before, after = CpuTimes(10.0, 100.0, 3.0), CpuTimes(14.0, 107.0, 4.0)
    assert foreign_cores(before, after) == pytest.approx(1.5)
    assert foreign_cores(before, after, others_s=4.0) == pytest.approx(0.5)
    assert foreign_cores(before, after, others_s=9.0) == 0.0
    assert foreign_cores(before, CpuTimes(10.1, 100.1, 3.0)) is None  # too close
    assert foreign_cores(before, CpuTimes(14.0, None, 3.0)) is None


@pytest.mark.parametrize(
    ("foreign", "cores", "threads", "on_cpu", "crowded"),
    [
        (None, 2, 2, True, False),
        (0.05, 2, 2, True, False),
        (0.3, 2, 2, True, True),
        (1.0, 16, 4, True, False),
        (2.0, 16, 4, True, True),  # shares what processors share
        (2.0, 16, 4, False, False),
        (13.0, 16, 4, False, True),  # wants more processors than there are
    ],
)
def test_when_foreign_load_bears_on_the_times(foreign, cores, threads, on_cpu, crowded):
    assert is_crowded(foreign, cores, threads, on_cpu) is crowded


def test_drift():
    noise = random.Random(1)
    level = [1 + noise.gauss(0, 0.02) for _ in range(600)]
    assert drift_of(level) is None
    assert drift_of([t * (1 + 0.1 * i / 600) for i, t in enumerate(level)]) == pytest.approx(0.075, abs=0.01)
    assert drift_of([t * (1 - 0.1 * i / 600) for i, t in enumerate(level)]) == pytest.approx(-0.075, abs=0.01)
    assert drift_of([1 + 0.001 * i / 600 for i in range(600)]) is None  # all along, but too little for a word
    assert drift_of([1.0, 2.0, 3.0]) is None
    assert sum(drift_of([1 + noise.gauss(0, 0.2) for _ in range(24)]) is not None for _ in range(500)) <= 4


def test_flags_and_disturbances():
    quiet = conditions_of(0.0, {}, (), cores=2, own_threads=2, on_cpu=True)
    assert (quiet.flags, quiet.disturbances) == ((), ())
    state = {"throttle_reasons": ("power cap", "hardware thermal slowdown", "sync boost"), "other_processes": [{}, {}]}
    found = conditions_of(1.5, state, [1 + i / 10 for i in range(24)], cores=2, own_threads=2, on_cpu=True)
    assert found.disturbances == (
        "foreign load: other work took 1.50 of 2 processors meanwhile",
        "the GPU was slowed down: hardware thermal slowdown",
    )
    assert found.flags == (
        *found.disturbances,
        "the GPU was at its power cap",
        "2 other processes on the GPU",
        "drift: from beginning to end times changed by +144.0 %",
    )
    assert Conditions(2, slowdowns=("power cap",)).disturbances == ()


@pytest.mark.parametrize(
    ("found", "factor"),
    [
        (Conditions(2), 1.0),
        (Conditions(2, 1.0, crowded=False), 1.0),
        (Conditions(8, 4.0, crowded=True, own_threads=2), 3.0),  # the processors suffice: caches and memory are shared
        (Conditions(2, 1.5, crowded=True, own_threads=2), 12.0),
        (Conditions(2, 2.0, crowded=True), math.inf),
        (Conditions(2, slowdowns=("power cap",)), 1.0),
        (Conditions(2, slowdowns=("hardware thermal slowdown",)), 10.0),
    ],
)
def test_how_many_times_longer_disturbances_make_it(found, factor):
    assert found.times_longer == factor
