"""A race of A and B: pairs of fresh workers, measured in short segments (A B B A), until the times tell or time is up."""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any

from miniinfer_cli.comparison.pair_tests import EARLY, FALSE_ALARMS, Relation, Verdict, judge, least_pairs
from miniinfer_cli.comparison.processors import Pool
from miniinfer_cli.comparison.workers import Reading, Worker
from miniinfer_cli.measuring.conditions import (
    Conditions,
    CpuTimes,
    drift_of,
    foreign_cores,
    is_crowded,
    slowdowns,
)

Start = Callable[[str], Worker]
"""Starts a worker of the side A or B, and returns while that is under way."""
_BLOCKS = ("ABBA", "BAAB")  # of segments: whatever grows or shrinks all along takes both sides alike
_COUNTS = (6, 3, 1)  # of blocks, of a pair and case
_INFERENCES = 5  # of a segment, where there is time for them
_SHORTEST_S = 0.025  # of a segment


@dataclass(frozen=True, slots=True)
class Rules:
    """How a race goes. ``budget_s``: seconds for all of it; ``pairs``: measure exactly so many, whatever time that takes.

    ``margin``: the change, as a part, that does not matter. ``threads``: of one inference; on a GPU those of the host.
    ``processors``: those that a pair is given some of; empty where workers stay where the system has them.
    """

    budget_s: float
    pairs: int | None
    margin: float
    cores: int
    threads: int
    on_cpu: bool
    processors: Pool = field(default_factory=Pool)


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair of workers: of each case the times of A and of B in ms (medians of segments), and latencies.

    ``change``: of each case, the logarithm of B's time over A's. ``foreign``: processors busy with other work meanwhile.
    ``states``: of the GPU of each side, right after; empty on a CPU.
    """

    times_ms: Sequence[Mapping[str, float]]
    latencies_ms: Sequence[Mapping[str, Sequence[float]]]
    change: Sequence[float]
    foreign: float | None
    crowded: bool
    states: Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class Raced:
    """What a race found: a verdict for each case, by the pairs that nothing disturbed; and what went on meanwhile."""

    verdicts: list[Verdict]
    pairs: list[Pair]
    seconds: float
    conditions: Conditions
    early: bool = False
    """It ended before its time, since there was nothing left to find out."""
    interrupted: bool = False

    @property
    def clean(self) -> list[Pair]:
        """The pairs that counted."""
        return [p for p in self.pairs if not p.crowded]

    def times_ms(self, case: int, letter: str) -> list[float]:
        """The times of one side's workers that counted."""
        return [p.times_ms[case][letter] for p in self.clean]

    def sm_clocks_mhz(self) -> dict[str, float]:
        """The median clock of each side's GPU, where that is known."""
        found = {side: [p.states[side].get("sm_clock_mhz") for p in self.pairs if side in p.states] for side in "AB"}
        known = {side: [c for c in clocks if c is not None] for side, clocks in found.items()}
        return {side: statistics.median(clocks) for side, clocks in known.items() if clocks}


def race(
    start: Start,
    cases: int,
    rules: Rules,
    progress: Callable[[float], None] = lambda part: None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], CpuTimes] = CpuTimes.now,
) -> Raced:
    """Races the sides that ``start`` starts in so many ``cases``, by ``rules``.

    ``progress`` is told how much of all is done, from 0 to 1. ``clock`` and ``now`` tell the time, and how busy processors are.
    After KeyboardInterrupt it gives what there is, if there is a pair, and says so.
    """
    alpha = FALSE_ALARMS / cases
    look = least_pairs(EARLY * alpha)
    begun = clock()
    pairs: list[Pair] = []
    clean: list[Pair] = []
    verdicts: list[Verdict] = []
    early = interrupted = False
    try:
        while not early and _goes_on(len(pairs), clock() - begun, rules):
            left = None if rules.pairs is not None else rules.budget_s - (clock() - begun)
            pair = _measure(start, cases, len(pairs), left, rules, clock, now)
            pairs.append(pair)
            if not pair.crowded:
                clean.append(pair)
            if len(clean) == look and not pair.crowded and rules.pairs is None:
                verdicts = [judge([p.change[c] for p in clean], rules.margin, EARLY * alpha) for c in range(cases)]
                early = all(v.relation is not Relation.CANNOT_TELL for v in verdicts)
            progress(min(1.0, len(pairs) / rules.pairs if rules.pairs is not None else (clock() - begun) / rules.budget_s))
    except KeyboardInterrupt:
        if not pairs:
            raise
        interrupted = True
    if not early:
        final = alpha if rules.pairs is not None else (1 - EARLY) * alpha
        found = [judge([p.change[c] for p in clean], rules.margin, final) for c in range(cases)]
        verdicts = [_explained(v, len(pairs) - len(clean), rules, clock() - begun) for v in found]
    return Raced(verdicts, pairs, clock() - begun, _conditions(pairs, rules), early, interrupted)


def _goes_on(count: int, elapsed_s: float, rules: Rules) -> bool:
    if rules.pairs is not None:
        return count < rules.pairs
    return count == 0 or elapsed_s * (1 + 1 / count) <= rules.budget_s  # another one takes as long as those so far


def _measure(
    start: Start, cases: int, number: int, left_s: float | None, rules: Rules, clock: Callable[[], float],
    now: Callable[[], CpuTimes],
) -> Pair:  # fmt: skip
    began = clock()
    with ExitStack() as stack:
        # Each side is the first to start, and to be measured, as often as the other.
        workers = {letter: stack.enter_context(closing(start(letter))) for letter in ("AB", "BA")[number % 2]}
        inference_s = max(t / 1e3 for worker in workers.values() for t in worker.ready())
        chosen = rules.processors.of_pair(number, rules.threads)
        for worker in workers.values() if chosen else ():
            worker.stay_on(chosen)
        blocks, seconds = segments_of_pair(
            inference_s * cases, clock() - began, left_s, least_pairs((1 - EARLY) * FALSE_ALARMS / cases) - number
        )
        order = "".join(_BLOCKS[(number + block) % 2] for block in range(blocks))
        before, taken_s = now(), sum(w.cpu_s for w in workers.values())
        found = [_segments(workers, case, order, seconds / cases) for case in range(cases)]
        foreign = foreign_cores(before, now(), sum(w.cpu_s for w in workers.values()) - taken_s)
        states = {letter: _alone(worker.state(), workers.values()) for letter, worker in workers.items()}
    return Pair(
        [{side: statistics.median(r.time_ms for r in readings) for side, readings in case.items()} for case in found],
        [{side: tuple(t for r in readings for t in r.latencies_ms) for side, readings in case.items()} for case in found],
        [change_of([r.time_ms for r in case["A"]], [r.time_ms for r in case["B"]]) for case in found],
        foreign,
        is_crowded(foreign, rules.cores, rules.threads, rules.on_cpu),
        states,
    )


def _segments(workers: Mapping[str, Worker], case: int, order: str, seconds: float) -> dict[str, list[Reading]]:
    found: dict[str, list[Reading]] = {"A": [], "B": []}
    for letter in order:
        found[letter].append(workers[letter].segment(case, seconds))
    return found


def _alone(state: Mapping[str, Any], workers: Iterable[Worker]) -> Mapping[str, Any]:
    """The state of a GPU without the processes that are ours."""
    ours = {os.getpid(), *(w.pid for w in workers)}
    others = state.get("other_processes")
    return state if others is None else {**state, "other_processes": [p for p in others if p["pid"] not in ours]}


def segments_of_pair(inference_s: float, started_s: float, left_s: float | None, pairs_left: int) -> tuple[int, float]:
    """How many blocks of four segments a pair has, and the seconds of a segment.

    As many as there may be, of several inferences each, where ``pairs_left`` more pairs fit into ``left_s`` then (all that is
    left, with the ``started_s`` that starting this one took); else one block, of segments as short as may be. ``inference_s``: of
    one inference of each case.
    """
    whole = max(_INFERENCES * inference_s, _SHORTEST_S)
    if left_s is None:
        return _COUNTS[0], whole
    share_s = left_s / max(pairs_left, 1) - started_s
    for blocks in _COUNTS:
        if 4 * blocks * whole <= share_s:
            return blocks, whole
    return 1, max(share_s / 4, _SHORTEST_S)


def change_of(a: Sequence[float], b: Sequence[float]) -> float:
    """The logarithm of B's time over A's: the median over neighbours, one of each side, as the machine may change in between.

    A neighbour that shares the core comes and goes within a second, and takes a third of the speed meanwhile: what is measured
    right behind each other is mostly of one state, and where it is not, it is far off.
    """
    return statistics.median(math.log(y / x) for x, y in zip(a, b, strict=True))


def _explained(verdict: Verdict, lost: int, rules: Rules, seconds: float) -> Verdict:
    """The verdict, with the way out where it cannot tell."""
    if verdict.relation is not Relation.CANNOT_TELL:
        return verdict
    why = verdict.why
    if lost:
        why = f"foreign load disturbed {lost} of {lost + verdict.pairs} pairs, which do not count; {why}"
    if verdict.needed is not None and verdict.needed > verdict.pairs and rules.pairs is None:
        each_s = seconds / max(verdict.pairs + lost, 1)
        why += f"; {verdict.needed} pairs would tell {100 * verdict.margin:g} %, in some {math.ceil(verdict.needed * each_s)} s"
    return replace(verdict, why=why)


def _conditions(pairs: Sequence[Pair], rules: Rules) -> Conditions:
    foreign = [p.foreign for p in pairs if p.foreign is not None]
    states = [state for p in pairs for state in p.states.values()]
    others = [len(s["other_processes"]) for s in states if s.get("other_processes") is not None]
    return Conditions(
        cores=rules.cores,
        foreign_cores=statistics.fmean(foreign) if foreign else None,
        crowded=any(p.crowded for p in pairs),
        slowdowns=tuple(dict.fromkeys(reason for state in states for reason in slowdowns(state))),
        other_processes=max(others, default=None),
        drift=drift_of([math.sqrt(p.times_ms[0]["A"] * p.times_ms[0]["B"]) for p in pairs]),
        own_threads=rules.threads,
    )
