"""Load on what answers requests, by MLPerf's four scenarios: when each request is due, and who sends it. No engine is in it.

The loop of ``server`` is open: when requests are due is drawn beforehand and does not move, whether or not others have ended, so
that what stands still for a while shows in all whom it delayed. The others are closed: a query follows when the last has ended.
"""

import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from miniinfer_cli.measuring.load_log import LoadLog
from miniinfer_cli.shortage import start_thread

MOST_ARRIVALS = 10_000_000
"""Requests of one load whose times are drawn."""
_LEAD_S = 0.01  # before the first request, so that it is not late
_AHEAD = 4  # of offline: so many times what is computed at once is under way
_TOLD_S = 0.5  # between two looks of who watches


class Scenario(StrEnum):
    """Which queries come when; MLPerf's names."""

    SINGLE_STREAM = "single-stream"
    """One request after the other."""
    MULTI_STREAM = "multi-stream"
    """Queries of several requests that come at once; the next when all of them have ended."""
    SERVER = "server"
    """Requests by chance, at a rate (Poisson)."""
    OFFLINE = "offline"
    """One query: all requests are there from the beginning."""


@dataclass(frozen=True, slots=True)
class Load:
    """What comes: at least so many ``queries``, and queries for at least so many ``seconds``.

    ``rate``: requests a second, of ``SERVER`` alone. ``width``: requests of a query, of ``MULTI_STREAM``. In ``OFFLINE`` the
    one query has at least so many requests.
    """

    scenario: Scenario
    queries: int
    seconds: float
    rate: float | None = None
    width: int = 1
    seed: int = 0


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Seconds, from some beginning."""

    def sleep(self, seconds: float) -> None:
        """Returns after so long, or as soon as it is woken, also when that was before."""

    def wake(self) -> None:
        """Ends the sleep, or the next one; from any thread."""


class Answers(Protocol):
    """Who is told how requests end; from any thread."""

    def end(self, number: int, begun: float, ended: float, outputs: Any) -> None:
        """This request has its ``outputs``. When somebody began with it, and when they were there, on the clock of the system."""

    def fail(self, error: BaseException) -> None:
        """A request failed: the measuring is over."""


class System(Protocol):
    """What answers requests, each of which is known by its number."""

    @property
    def at_once(self) -> int:
        """Requests that are computed at once, at most."""

    def submit(self, number: int, answers: Answers) -> bool:
        """Takes a request, and tells ``answers`` of its end; False when there was no room, and it is dropped."""

    def abandon(self) -> None:
        """What waits is not computed; returns when nothing is any more."""


Progress = Callable[[str, int], None]


def poisson_arrivals(rate: float, queries: int, seconds: float, seed: int) -> "array[float]":
    """Times in seconds, ascending from 0, of requests that come by chance, ``rate`` a second: exponential gaps between them.

    All that lie within ``seconds``, and at least so many as ``queries``. Equal for equal seeds.
    """
    random = np.random.default_rng(seed)
    times = np.cumsum(random.exponential(1 / rate, max(queries, int(rate * seconds), 1)))
    while times[-1] < seconds:
        more = np.cumsum(random.exponential(1 / rate, max(int(rate * (seconds - times[-1])), 16)))
        times = np.concatenate([times, times[-1] + more])
    return array("d", times[: max(queries, int(np.searchsorted(times, seconds, side="right")))].tobytes())


def run_load(load: Load, system: System, clock: Clock, progress: Progress) -> LoadLog:
    """Sends the requests of ``load`` to ``system``, and gives what came of each when all have ended.

    ``progress`` is called with ``requests`` and the number sent so far, now and then. After KeyboardInterrupt the log has what
    there is, and says so. Raises what a request failed with.
    """
    log = LoadLog(clock.wake)
    run = _Run(load, system, clock, log)
    # Requests are sent by a thread of their own: an interruption, which comes to this one, cannot leave a lock held.
    thread = threading.Thread(target=run.go, name="miniinfer-load")
    try:
        start_thread(thread)
        progress("requests", 0)
        while not run.over.wait(_TOLD_S):
            progress("requests", log.sent_count)
    except BaseException as error:
        log.interrupt()
        if not isinstance(error, KeyboardInterrupt):
            raise
    finally:
        if thread.ident is not None:
            thread.join()
    if log.error is not None:
        raise log.error
    return log


class _Run:
    """A load that is under way: what its loop does with time and requests."""

    def __init__(self, load: Load, system: System, clock: Clock, log: LoadLog) -> None:
        self.load, self.system, self.clock, self.log = load, system, clock, log
        self.over = threading.Event()
        self.started = log.started = clock.now() + _LEAD_S

    def go(self) -> None:
        """Sends all, and waits until all have ended."""
        log = self.log
        try:
            _LOOPS[self.load.scenario](self)
            self.wait_for(0)
            log.stopped = self.clock.now()
            if log.halted:
                self.system.abandon()
        except BaseException as error:  # else who waits for this thread would not learn of it
            log.fail(error)
        finally:
            self.over.set()

    def send(self, due: float) -> None:
        """One more request."""
        number = self.log.send(due, self.clock.now())
        if not self.system.submit(number, self.log):
            self.log.drop(number)

    def is_going(self, queries: int) -> bool:
        """Whether there is more to send after so many queries."""
        if self.log.halted:
            return False
        return queries < self.load.queries or self.clock.now() < self.started + self.load.seconds

    def wait_until(self, at: float) -> None:
        """Sleeps until then, or until no more is to be sent."""
        clock, log = self.clock, self.log
        pause = at - clock.now()
        while pause > 0 and not log.halted:
            clock.sleep(pause)
            pause = at - clock.now()

    def wait_for(self, left: int) -> None:
        """Sleeps until no more than so many requests are under way, or no more is to be sent."""
        log = self.log
        log.call_at(left)
        while log.under_way > left and not log.halted:
            self.clock.sleep(_TOLD_S)


def _serve(run: _Run) -> None:
    load = run.load
    assert load.rate is not None
    for at in poisson_arrivals(load.rate, load.queries, load.seconds, load.seed):
        due = run.started + at
        run.wait_until(due)
        if run.log.halted:
            return
        run.send(due)


def _query_by_query(run: _Run) -> None:
    run.wait_until(run.started)
    queries = 0
    while run.is_going(queries):
        due = run.clock.now()
        for _ in range(run.load.width):
            run.send(due)
        run.wait_for(0)
        queries += 1


def _offline(run: _Run) -> None:
    """All are due at the beginning; they are sent as others end, which nobody can tell from a queue of all of them."""
    run.wait_until(run.started)
    most = _AHEAD * run.system.at_once
    while run.is_going(run.log.sent_count):
        for _ in range(most - run.log.under_way):
            run.send(run.started)
        run.wait_for(most // 2)


_LOOPS: dict[Scenario, Callable[[_Run], None]] = {
    Scenario.SINGLE_STREAM: _query_by_query,
    Scenario.MULTI_STREAM: _query_by_query,
    Scenario.SERVER: _serve,
    Scenario.OFFLINE: _offline,
}
