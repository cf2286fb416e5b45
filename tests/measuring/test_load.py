"""The load generator against simulated engines, on a clock that moves only when somebody sleeps: waiting as theory has it."""

import copy
import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.measuring.benchmark import unwatched
from miniinfer_cli.measuring.load import Answers, Load, Scenario, poisson_arrivals, run_load
from miniinfer_cli.measuring.load_summary import LoadSummary, asserted_times, summarize_load

SERVICE_S = 0.0005
STALL_S = 0.1


class Simulated:
    """A clock with events to come, and an engine on it: ``workers`` that take requests from one queue.

    ``service(number, begun)`` is what a request takes; more than ``room`` do not wait. ``interrupt_at``: Ctrl-C.
    """

    def __init__(self, service: Callable[[int, float], float], workers: int = 1, room: int = 1 << 30) -> None:
        self.service, self.room, self.at_once = service, room, workers
        self.time = 100.0
        self.abandoned = False
        self.ended: list[int] = []
        self._free = workers
        self._waiting: list[tuple[int, Answers]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._woken = False

    # The clock.

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        until = self.time + seconds
        while not self._woken and self._events and self._events[0][0] <= until:
            self.time, _, act = heapq.heappop(self._events)
            act()
        if not self._woken:
            self.time = until
        self._woken = False

    def wake(self) -> None:
        self._woken = True

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), act))

    # The engine.

    def submit(self, number: int, answers: Answers) -> bool:
        if self._free == 0 and len(self._waiting) >= self.room:
            return False
        self._waiting.append((number, answers))
        self._begin()
        return True

    def abandon(self) -> None:
        self.abandoned = True

    def _begin(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            number, answers = self._waiting.pop(0)
            begun = self.time
            self.at(begun + self.service(number, begun), lambda n=number, a=answers, b=begun: self._end(n, a, b))

    def _end(self, number: int, answers: Answers, begun: float) -> None:
        self._free += 1
        self.ended.append(number)
        answers.end(number, begun, self.time, None)
        self._begin()


def steady(number: int, begun: float) -> float:
    return SERVICE_S


@dataclass
class StalledAt:
    """One inference, the first from then on, takes as long as the stall."""

    when: float
    over: bool = False

    def __call__(self, number: int, begun: float) -> float:
        stalls = not self.over and begun >= self.when
        self.over = self.over or stalls
        return STALL_S if stalls else SERVICE_S


def measure(load: Load, engine: Simulated, **options: Any) -> LoadSummary:
    return summarize_load(load, run_load(load, engine, engine, unwatched), 1, **options)


def server(rate: float, seconds: float, **options: Any) -> Load:
    return Load(Scenario.SERVER, 1, seconds, rate, **options)


def by_recursion(load: Load, service: Callable[[int, float], float], started: float) -> list[float]:
    """How long each request takes from when it is due (Lindley): it begins when the one before has ended, or as it comes."""
    assert load.rate is not None
    latencies, free = [], started
    for number, at in enumerate(poisson_arrivals(load.rate, load.queries, load.seconds, load.seed)):
        due = started + at
        begun = max(free, due)
        free = begun + service(number, begun)
        latencies.append(free - due)
    return latencies


def test_arrivals_are_drawn_beforehand_and_equal_for_equal_seeds():
    times = np.array(poisson_arrivals(2000, 1, 10, seed=3))
    assert len(times) == pytest.approx(20000, rel=0.03)
    assert times[-1] <= 10
    gaps = np.diff(times, prepend=0)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(1 / 2000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # as of an exponential distribution
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0, abs=0.03)  # and each gap by itself
    assert np.array(poisson_arrivals(2000, 1, 10, seed=3)).tolist() == times.tolist()
    assert np.array(poisson_arrivals(2000, 1, 10, seed=4)).tolist() != times.tolist()


@pytest.mark.parametrize(("queries", "seconds", "expected"), [(50, 0.0, 50), (50, 0.01, 50), (1, 0.5, None)])
def test_as_many_arrivals_as_are_wanted_at_least(queries, seconds, expected):
    times = poisson_arrivals(1000, queries, seconds, seed=1)
    assert len(times) == expected if expected else 400 < len(times) < 600


@pytest.mark.parametrize("service", [steady, StalledAt(100.5)])
def test_latencies_are_as_the_recursion_has_them(service):
    load = server(1500, 1.0)
    engine = Simulated(copy.deepcopy(service))
    log = run_load(load, engine, engine, unwatched)
    expected = by_recursion(load, copy.deepcopy(service), log.started)
    np.testing.assert_allclose(np.array(log.ended) - np.array(log.due), expected, atol=1e-9)
    assert log.due.tolist() == log.sent.tolist()


def test_a_queue_waits_as_long_as_theory_says():
    """Three quarters of what one worker can do, all taking as long (M/D/1): half of 0.75 / 0.25 services on average."""
    waits = [measure(server(1500, 4.0, seed=seed), Simulated(steady)).queueing for seed in range(3)]
    assert np.mean([w.mean for w in waits if w]) == pytest.approx(1.5 * SERVICE_S * 1e3, rel=0.15)


def test_a_stall_shows_in_the_slowest_percent_of_an_open_loop():
    summaries = [measure(server(1000, 2.0, seed=seed), Simulated(StalledAt(101))) for seed in range(8)]
    rows = [s.latency for s in summaries if s.latency is not None]
    # While it stands, 100 requests come, and as many until they are caught up with: delays go evenly from 100 ms to none. A
    # hundredth of all 2000 is a tenth of these 200.
    assert np.mean([dict(row.percentiles)[99] for row in rows]) == pytest.approx(90, abs=4)
    assert np.mean([row.maximum for row in rows]) == pytest.approx(100, abs=2)
    assert np.mean([s.most_waiting for s in summaries if s.most_waiting]) == pytest.approx(100, abs=10)
    closed = measure(Load(Scenario.SINGLE_STREAM, 1, 2.0), Simulated(StalledAt(101)))
    assert closed.latency is not None
    assert closed.latency.maximum == pytest.approx(100)  # one request saw it: the others did not even come
    assert dict(closed.latency.percentiles)[99] == pytest.approx(0.5)


def test_a_late_generator_counts_as_waiting_and_is_told():
    """Who sends is held up: requests are sent late, and latencies count from when they were due."""
    engine = Simulated(steady)
    original, held = engine.submit, iter([0.05])

    def submit(number: int, answers: Answers) -> bool:
        if number == 500:
            engine.time += next(held)
        return original(number, answers)

    engine.submit = submit  # type: ignore[method-assign]
    summary = measure(server(1000, 1.0), engine)
    assert summary.sent_late is not None and summary.latency is not None and summary.queueing is not None
    assert summary.sent_late.maximum == pytest.approx(50, abs=5)
    assert summary.latency.maximum >= summary.sent_late.maximum
    assert [h for h in summary.hints if h.startswith("requests were sent late: 1 % by ")]
    assert measure(server(1000, 1.0), Simulated(steady)).hints == ()


@pytest.mark.parametrize("room", [0, 5, 40])
def test_more_than_is_computed_is_dropped_and_every_request_counted(room):
    engine = Simulated(steady, room=room)
    load = server(4000, 1.0)
    summary = measure(load, engine, budget_ms=2.0, advice="try this")
    assert load.rate is not None
    assert summary.issued == len(poisson_arrivals(load.rate, 1, 1.0, 0)) == summary.completed + summary.dropped
    assert (summary.unfinished, len(engine.ended)) == (0, summary.completed)
    assert summary.throughput_qps == pytest.approx(1 / SERVICE_S, rel=0.02 if room else 0.4)
    assert summary.latency is not None and summary.within_budget is not None and summary.goodput_qps is not None
    assert summary.latency.maximum <= (room + 1) * SERVICE_S * 1e3 + 1e-6
    assert summary.within_budget == summary.completed if room <= 3 else summary.within_budget < summary.completed
    assert summary.goodput_qps == pytest.approx(summary.within_budget / summary.walltime_s)
    assert summary.kept is False  # what was dropped kept to no budget
    (hint,) = summary.hints
    assert f"and {summary.dropped} requests found it full: try this" in hint
    assert summary.most_waiting == room


def test_what_was_dropped_is_asserted_of_as_the_slowest():
    load = server(4000, 1.0)
    engine = Simulated(steady, room=5)
    log = run_load(load, engine, engine, unwatched)
    latencies, served = asserted_times(load, log)
    assert len(latencies) == log.sent_count and len(served.latency_ms) == log.completed
    assert sorted(latencies)[-len(log.dropped) :] == [pytest.approx(1e3 * (log.stopped - log.started))] * len(log.dropped)
    assert set(np.round(served.latency_ms, 6)) == {0.5}


def test_a_budget_that_is_kept():
    summary = measure(server(500, 2.0), Simulated(steady), budget_ms=5.0)
    assert (summary.kept, summary.within_budget, summary.dropped) == (True, summary.issued, 0)
    assert summary.goodput_qps == summary.throughput_qps
    assert measure(server(500, 2.0), Simulated(steady), budget_ms=0.1).within_budget == 0


def test_single_stream_sends_one_after_the_other():
    summary = measure(Load(Scenario.SINGLE_STREAM, 25, 0.0), Simulated(steady, workers=4))
    assert (summary.issued, summary.completed) == (25, 25)
    assert summary.throughput_qps == pytest.approx(1 / SERVICE_S, rel=0.01)
    assert summary.metric is not None
    assert (summary.metric.name, summary.metric.value) == ("p90 of latency", pytest.approx(0.5))
    assert measure(Load(Scenario.SINGLE_STREAM, 1, 0.1), Simulated(steady)).issued == pytest.approx(0.1 / SERVICE_S, abs=2)


def test_multi_stream_counts_from_the_query_to_its_last_request():
    engine = Simulated(lambda number, begun: SERVICE_S * (4 if number % 8 == 3 else 1), workers=8)
    summary = measure(Load(Scenario.MULTI_STREAM, 10, 0.0, width=8), engine, budget_ms=1.0)
    assert (summary.issued, summary.completed, summary.within_budget) == (80, 80, 0)
    assert summary.latency is not None and summary.service is not None and summary.metric is not None
    assert (summary.latency.minimum, summary.latency.maximum) == (pytest.approx(2.0), pytest.approx(2.0))
    assert summary.service.median == pytest.approx(0.5)
    assert summary.metric.name == "p99 of latency"
    assert summary.sent_late is None


def test_offline_keeps_all_workers_busy_and_has_no_latency():
    summary = measure(Load(Scenario.OFFLINE, 1, 0.5), Simulated(steady, workers=3), budget_ms=None)
    assert summary.issued == summary.completed == pytest.approx(3 * 0.5 / SERVICE_S, rel=0.02)
    assert summary.throughput_qps == pytest.approx(3 / SERVICE_S, rel=0.02)
    assert (summary.latency, summary.queueing, summary.sent_late) == (None, None, None)
    assert summary.metric is not None and summary.metric.value == summary.throughput_qps


def test_the_first_error_ends_it():
    engine = Simulated(steady)
    original = engine._end

    def end(number: int, answers: Answers, begun: float) -> None:
        if number == 5:
            answers.fail(ArithmeticError("the sixth"))
        original(number, answers, begun)

    engine._end = end  # type: ignore[method-assign]
    for load in (server(1000, 1.0), Load(Scenario.SINGLE_STREAM, 9, 1.0), Load(Scenario.OFFLINE, 9, 1.0)):
        engine.abandoned = False
        with pytest.raises(ArithmeticError, match="the sixth"):
            run_load(load, engine, engine, unwatched)
        assert engine.abandoned


def test_what_submit_raises_ends_it():
    engine = Simulated(steady)
    engine.submit = lambda number, answers: [][0]  # type: ignore[method-assign]
    with pytest.raises(IndexError):
        run_load(server(1000, 1.0), engine, engine, unwatched)


def test_an_interruption_leaves_what_there_is():
    """Ctrl-C comes to the thread that watches, in the middle."""
    engine = Simulated(steady)
    reached, seen = threading.Event(), threading.Event()
    original = engine.submit

    def submit(number: int, answers: Answers) -> bool:
        if number == 300:
            reached.set()
            assert seen.wait(20)
        return original(number, answers)

    engine.submit = submit  # type: ignore[method-assign]

    def watch(stage: str, done: int) -> None:
        assert reached.wait(20)
        threading.Timer(0.05, seen.set).start()
        raise KeyboardInterrupt

    load = server(1000, 1.0)
    log = run_load(load, engine, engine, watch)
    summary = summarize_load(load, log, None, budget_ms=100.0)
    assert (log.interrupted, engine.abandoned, summary.issued) == (True, True, 301)
    assert summary.issued == summary.completed + summary.unfinished
    assert summary.completed > 290
    assert summary.kept


def test_interrupted_before_anything_ended():
    engine = Simulated(lambda number, begun: 1e9)

    def watch(stage: str, done: int) -> None:
        raise KeyboardInterrupt

    for load in (server(1000, 1.0), Load(Scenario.MULTI_STREAM, 3, 1.0, width=8), Load(Scenario.OFFLINE, 3, 1.0)):
        engine = Simulated(lambda number, begun: 1e9)
        summary = summarize_load(load, run_load(load, engine, engine, watch), None, budget_ms=1.0)
        assert (summary.completed, summary.latency, summary.service) == (0, None, None)
        assert summary.issued == summary.unfinished
