"""A race of simulated workers: who is measured when, when it ends, what does not count, and what it comes to."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from miniinfer_cli.comparison.pair_tests import Relation
from miniinfer_cli.comparison.processors import Pool
from miniinfer_cli.comparison.race import Rules, change_of, race, segments_of_pair
from miniinfer_cli.comparison.workers import Reading
from miniinfer_cli.measuring.conditions import CpuTimes


@dataclass
class Machine:
    """A clock, two processors, and workers: ``spread`` between them, ``noise`` between segments, B's ``factor``.

    ``foreign``: processors' worth of other work, by the number of the pair. ``drift``: part of the time a second.
    """

    factor: float = 1.0
    spread: float = 0.01
    noise: float = 0.01
    inference_s: float = 0.002
    start_s: float = 0.8
    seed: int = 0
    foreign: object = lambda pair: 0.0
    drift: float = 0.0
    neighbour_s: float = 0.0
    """A neighbour on each processor comes and goes, after so long in the middle, and takes a third of its speed."""
    state: dict = field(default_factory=dict)
    at: float = 0.0
    busy: float = 0.0
    started: list = field(default_factory=list)
    measured: list = field(default_factory=list)
    open: int = 0

    def __post_init__(self):
        self.random = np.random.default_rng(self.seed)
        self.neighbours = {}

    def start(self, letter):
        self.started.append(letter)
        return SimulatedWorker(self, letter)

    def passes(self, seconds, own):
        self.at += seconds
        self.busy += own + seconds * self.foreign((len(self.started) - 1) // 2)

    def now(self):
        return CpuTimes(self.at, self.busy, 0.0)

    def slowed(self, cpu):
        """How many times longer everything takes on this processor now."""
        if not self.neighbour_s:
            return 1.0
        until, there = self.neighbours.get(cpu, (0.0, False))
        while until <= self.at:
            until, there = until + self.random.exponential(self.neighbour_s), not there
        self.neighbours[cpu] = (until, there)
        return 1.45 if there else 1.0

    def race(self, cases=1, **rules):
        wanted = {"budget_s": 20.0, "pairs": None, "margin": 0.02, "cores": 2, "threads": 2, "on_cpu": True, **rules}
        return race(self.start, cases, Rules(**wanted), clock=lambda: self.at, now=self.now)


class SimulatedWorker:
    def __init__(self, machine, letter):
        self.machine, self.letter, self.cpu_s, self.pid = machine, letter, 0.0, 1000 + len(machine.started)
        self.cpu = len(machine.started) % 16
        self.own = math.exp(machine.random.normal(0, machine.spread)) * (machine.factor if letter == "B" else 1.0)
        machine.open += 1

    def ready(self):
        self.machine.passes(self.machine.start_s / 2, self.machine.start_s / 2)
        return [1e3 * self.machine.inference_s]

    def stay_on(self, processors):
        (self.cpu,) = processors

    def segment(self, case, seconds):
        machine = self.machine
        machine.measured.append(((len(machine.started) - 1) // 2, case, self.letter))
        time_s = (
            machine.inference_s * self.own * math.exp(machine.random.normal(0, machine.noise)) * (1 + machine.drift * machine.at)
        ) * machine.slowed(self.cpu)
        lasts = max(seconds, time_s)
        self.cpu_s += lasts
        machine.passes(lasts, lasts)
        return Reading(1e3 * time_s, (1e3 * time_s,) * 3)

    def state(self):
        state = self.machine.state
        siblings = [{"pid": self.pid - 1}, {"pid": self.pid + 1}]  # the other worker of the pair is one of them
        return {**state, "other_processes": [*siblings, *state["other_processes"]]} if state else {}

    def close(self):
        self.machine.open -= 1


def test_workers_take_turns_and_none_is_left():
    machine = Machine()
    raced = machine.race(pairs=4)
    assert machine.started == list("ABBAABBA")
    orders = ["".join(letter for pair, _, letter in machine.measured if pair == n) for n in range(4)]
    assert orders == ["ABBABAAB" * 3, "BAABABBA" * 3] * 2
    assert (machine.open, len(raced.pairs), raced.early) == (0, 4, False)
    assert raced.verdicts[0].relation is Relation.CANNOT_TELL


def test_sides_that_are_the_same_and_sides_that_are_not():
    found = {factor: Counter() for factor in (1.0, 1.05, 0.95)}
    for factor, counts in found.items():
        for seed in range(25):
            raced = Machine(factor=factor, spread=0.015, seed=seed).race()
            counts[raced.verdicts[0].relation] += 1
            assert raced.seconds <= 20
    assert found[1.0][Relation.SLOWER] + found[1.0][Relation.FASTER] <= 2
    assert found[1.05][Relation.SLOWER] >= 23
    assert found[0.95][Relation.FASTER] >= 23
    assert found[1.05][Relation.FASTER] == found[1.05][Relation.EQUAL] == found[0.95][Relation.SLOWER] == 0


def test_neighbours_that_come_and_go_are_those_of_both_sides():
    """As on virtual machines, where the other thread of a core may be anybody's: times are of two heights, 1 and 1.45."""
    rules = {"cores": 16, "threads": 1, "budget_s": 60.0}
    pool = Pool(tuple(range(16)), 16)
    found = {factor: Counter() for factor in (1.0, 1.05)}
    for factor, counts in found.items():
        for seed in range(20):
            raced = Machine(factor=factor, spread=0.01, neighbour_s=0.7, seed=seed).race(processors=pool, **rules)
            counts[raced.verdicts[0].relation] += 1
    assert found[1.0][Relation.SLOWER] + found[1.0][Relation.FASTER] <= 1
    assert found[1.05][Relation.SLOWER] >= 18
    assert found[1.05][Relation.FASTER] == found[1.05][Relation.EQUAL] == 0
    apart = [Machine(factor=1.05, spread=0.01, neighbour_s=0.7, seed=seed).race(**rules) for seed in range(5)]
    assert sum(r.verdicts[0].relation is Relation.SLOWER for r in apart) <= 2


def test_with_little_time_there_are_fewer_pairs_of_as_many_segments():
    """Of few segments the median is of no use where times are of two heights."""
    rules = {"cores": 16, "threads": 1, "budget_s": 20.0, "processors": Pool(tuple(range(16)), 16)}
    raced = [Machine(factor=1.05, spread=0.01, neighbour_s=0.7, start_s=1.9, seed=seed).race(**rules) for seed in range(20)]
    assert sum(r.verdicts[0].relation is Relation.SLOWER for r in raced) >= 18
    assert {len(r.pairs) for r in raced} == {8}
    assert all(r.seconds <= 20 for r in raced)


def test_it_ends_early_where_there_is_nothing_left_to_find_out():
    raced = Machine(factor=2.0).race(budget_s=600.0)
    assert (raced.early, len(raced.pairs), raced.verdicts[0].relation) == (True, 10, Relation.SLOWER)
    assert raced.verdicts[0].change == pytest.approx(1.0, abs=0.05)
    wide = Machine(spread=0.3).race(budget_s=120.0)
    assert (wide.early, wide.verdicts[0].relation) == (False, Relation.CANNOT_TELL)
    assert len(wide.pairs) > 60
    assert wide.verdicts[0].why.startswith("pairs of workers differ too much among themselves; ")
    assert wide.verdicts[0].why.endswith(" s")


def test_a_drift_of_the_machine_favours_nobody_and_is_told():
    raced = Machine(drift=0.02, spread=0.002, noise=0.002).race(budget_s=30.0)
    assert raced.verdicts[0].relation is Relation.EQUAL
    raced = Machine(drift=0.02, spread=0.002, noise=0.002).race(pairs=20)
    assert abs(raced.verdicts[0].change) < 0.005
    assert raced.conditions.drift is not None and raced.conditions.drift > 0.2


def test_foreign_load_does_not_count_and_is_told():
    loaded = Machine(factor=1.5, foreign=lambda pair: 1.0).race()
    assert (loaded.clean, loaded.verdicts[0].relation) == ([], Relation.CANNOT_TELL)
    assert loaded.verdicts[0].why.startswith(f"foreign load disturbed {len(loaded.pairs)} of {len(loaded.pairs)} pairs")
    assert loaded.conditions.foreign_cores == pytest.approx(1.0)
    assert "foreign load" in loaded.conditions.flags[0]
    sometimes = Machine(factor=1.5, foreign=lambda pair: 1.0 if pair % 3 == 0 else 0.02).race(budget_s=40.0)
    assert sometimes.verdicts[0].relation is Relation.SLOWER
    assert len(sometimes.clean) < len(sometimes.pairs)


def test_several_cases_share_the_false_alarms():
    machine = Machine(factor=1.2)
    raced = machine.race(cases=3, budget_s=90.0)
    assert [v.relation for v in raced.verdicts] == [Relation.SLOWER] * 3
    assert len(raced.pairs) == 12  # a p of 0.002 / 3 takes so many
    assert {case for _, case, _ in machine.measured} == {0, 1, 2}


def test_a_gpu_that_is_slowed_down_and_others_on_it():
    state = {"throttle_reasons": ["hardware thermal slowdown"], "sm_clock_mhz": 1200, "other_processes": []}
    raced = Machine(state=state).race(pairs=1, on_cpu=False)
    assert raced.conditions.other_processes == 1  # one of the siblings is not there: it is a stranger
    state["other_processes"] = [{"pid": 7}]
    raced = Machine(state=state).race(pairs=1, on_cpu=False)
    assert raced.conditions.slowdowns == ("hardware thermal slowdown",)
    assert raced.conditions.other_processes == 2
    assert raced.sm_clocks_mhz() == {"A": 1200, "B": 1200}


def test_long_inferences_have_fewer_and_shorter_segments():
    assert segments_of_pair(0.002, 0.8, None, 10) == (6, 0.025)
    assert segments_of_pair(0.05, 0.8, None, 10) == (6, 0.25)
    assert segments_of_pair(0.002, 0.8, 20.0, 10) == (6, 0.025)
    assert segments_of_pair(0.009, 0.8, 20.0, 10) == (6, pytest.approx(0.045))
    assert segments_of_pair(0.015, 0.8, 20.0, 10) == (3, 0.075)
    assert segments_of_pair(0.04, 0.8, 20.0, 10) == (1, 0.2)
    blocks, seconds = segments_of_pair(0.2, 0.8, 20.0, 10)
    assert (blocks, seconds) == (1, pytest.approx(0.3))
    assert segments_of_pair(2.0, 0.8, 20.0, 30) == (1, 0.025)  # one inference, however long
    raced = Machine(inference_s=1.0).race()
    assert raced.verdicts[0].why.startswith(
        "4 pairs of workers; 8 are the least that tell anything; 9 pairs would tell 2 %, in some "
    )


def test_the_change_of_a_pair():
    assert change_of([1, 1, 1, 1], [2, 2, 2, 2]) == pytest.approx(math.log(2))
    assert change_of([1, 1, 1, 1, 9, 9], [2, 2, 2, 2, 2, 2]) == pytest.approx(math.log(2))  # some were disturbed
    assert change_of([1, 5, 5, 5, 1, 1], [2, 10, 2, 10, 2, 10]) == pytest.approx(
        math.log(2)
    )  # the machine changed, mostly for both
    assert change_of([1.0, 1.3], [1.1, 1.2]) == pytest.approx(math.log(1.1 * 1.2 / 1.3) / 2)


@pytest.mark.parametrize("pairs", [0, 3, 12])
def test_interrupted_it_gives_what_there_is(pairs):
    machine = Machine(factor=1.5)
    start = machine.start

    def interrupted(letter):
        if len(machine.started) == 2 * pairs + 1:
            raise KeyboardInterrupt
        return start(letter)

    machine.start = interrupted
    if not pairs:
        with pytest.raises(KeyboardInterrupt):
            machine.race(pairs=20)
    else:
        raced = machine.race(pairs=20)
        assert (raced.interrupted, len(raced.pairs), raced.early) == (True, pairs, False)
        assert raced.verdicts[0].relation is (Relation.SLOWER if pairs == 12 else Relation.CANNOT_TELL)
    assert machine.open == 0


def test_a_worker_that_fails_ends_the_others():
    machine = Machine()
    start = machine.start

    def failing(letter):
        worker = start(letter)
        if len(machine.started) == 4:
            worker.segment = lambda case, seconds: 1 / 0
        return worker

    machine.start = failing
    with pytest.raises(ZeroDivisionError):
        machine.race()
    assert machine.open == 0
