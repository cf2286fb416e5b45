"""Deadlines, workers and races at the desk, by a clock that stands where the test puts it, with no threads."""

import asyncio
import math
from typing import Any

import pytest

from miniinfer_cli.errors import BatcherClosed, DeadlinePassed
from miniinfer_cli.serving.batch_sizes import BatchSizes
from miniinfer_cli.serving.desk import Desk, WaitingWorker
from miniinfer_cli.serving.device_tally import DeviceTally
from miniinfer_cli.serving.layout import Form
from miniinfer_cli.serving.request import BatchedFuture
from miniinfer_cli.serving.waiting import Waiting

DELAY_S = 0.01


class Clocked(Desk):
    def __init__(self, most: int = 2, max_queue: int = 8) -> None:
        self.now = 0.0
        super().__init__(Waiting(BatchSizes(range(1, most + 1)), 1, DELAY_S, 1.0), max_queue, lambda: self.now)

    def add(self, deadline_s: float | None = None, shape: int = 0) -> BatchedFuture:
        deadline = None if deadline_s is None else self.now + deadline_s
        request = BatchedFuture(self, [0], Form(1, ((shape,),)), 0, self.now, self.now + DELAY_S, deadline)
        self.enter(request, block=True)
        return request


class Watched(WaitingWorker):
    """Writes down for how long it was to sleep, and does not; then ``then`` happens."""

    def __init__(self, then: Any = lambda: None, tally: DeviceTally | None = None) -> None:
        super().__init__(tally or DeviceTally("cpu"))
        self.pauses: list[float] = []
        self.woken = 0
        self.then = then

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.then()

    def wake(self) -> None:
        self.woken += 1


def placed(tally: DeviceTally | None = None) -> WaitingWorker:
    return WaitingWorker(tally or DeviceTally("cpu"))


def test_who_is_late_ends_wherever_it_is():
    desk = Clocked()
    computed, other, waits, patient = desk.add(1.0), desk.add(), desk.add(2.0), desk.add(9.0)
    assert desk.next_batch(placed()) == [computed, other]
    assert desk.end_overdue() == 1.0
    desk.now = 1.0
    assert desk.end_overdue() == 1.0
    with pytest.raises(DeadlinePassed, match=r"its time was over after 1e.03 ms, being computed"):
        computed.result(0)
    desk.now = 2.5
    assert desk.end_overdue() == 6.5
    with pytest.raises(DeadlinePassed, match=r"its time was over after 2.5e.03 ms, in the queue"):
        waits.result(0)
    desk.give([computed, other], [{"y": 1}, {"y": 2}], 2, 0.1, DeviceTally("cpu"))
    assert other.result(0) == {"y": 2}
    assert isinstance(computed.exception(0), DeadlinePassed)
    desk.cancel(patient)
    assert desk.end_overdue() == math.inf
    desk.close(drain=True)
    assert desk.end_overdue() is None
    assert desk.tally.outcomes == {"result": 1, "error": 0, "cancelled": 1, "deadline": 2, "rejected": 0, "closed": 0}


def test_who_is_late_before_its_batch_begins_is_in_none():
    """Though the timekeeper has not looked yet."""
    desk = Clocked()
    late, other = desk.add(0.5), desk.add()
    desk.now = 0.5
    assert desk.next_batch(placed()) == [other]
    with pytest.raises(DeadlinePassed, match="in the queue"):
        late.result(0)
    ahead, third = desk.add(0.5), desk.add()
    desk.now = 1.0
    assert desk.batch_ahead(DeviceTally("cpu")) == []
    assert isinstance(ahead.exception(0), DeadlinePassed)
    desk.cancel(third)


def test_an_earlier_deadline_wakes_the_timekeeper():
    desk = Clocked()
    desk.timekeeper = Watched()
    desk.add(5.0)
    desk.add(6.0)
    assert desk.timekeeper.woken == 1
    desk.add(1.0)
    assert desk.timekeeper.woken == 2


def test_of_several_that_come_at_once_the_earliest_deadline_wakes_the_timekeeper():
    desk = Clocked()
    desk.timekeeper = Watched()

    def some(*deadlines: float | None) -> list[BatchedFuture]:
        return [BatchedFuture(desk, [0], Form(1, ((0,),)), 0, desk.now, desk.now + DELAY_S, d) for d in deadlines]

    desk.enter_all(some(None, 5.0, 4.0), block=False)
    assert desk.timekeeper.woken == 1
    desk.enter_all(some(None, 6.0), block=False)
    assert desk.timekeeper.woken == 1
    desk.enter_all(some(1.0, 9.0), block=False)
    assert desk.timekeeper.woken == 2


def test_a_worker_sleeps_until_the_first_request_is_due():
    desk = Clocked(most=3)
    first = desk.add()
    desk.now = 0.004

    def later() -> None:
        desk.now = 0.0101

    worker = Watched(later)
    assert desk.next_batch(worker) == [first]
    assert worker.pauses == [pytest.approx(0.006)]


def test_of_two_idle_workers_one_watches_the_time_and_the_other_is_woken_for_a_full_batch():
    desk = Clocked()
    idle, watching = Watched(), Watched()

    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    watching.then = idle.then = stop
    for worker in (watching, idle):
        with pytest.raises(Stop):
            desk.next_batch(worker)
    assert (watching.pauses, idle.pauses) == ([math.inf], [math.inf])
    desk.add()  # it must learn when that is due
    assert (watching.woken, idle.woken) == (1, 0)
    desk.add()
    assert (watching.woken, idle.woken) == (1, 1)


def test_who_takes_a_batch_leaves_the_watch_to_another():
    desk = Clocked()

    def stop() -> None:
        raise InterruptedError

    watching, idle = Watched(stop), Watched(stop)
    for worker in (watching, idle):
        with pytest.raises(InterruptedError):
            desk.next_batch(worker)
    first = desk.add(shape=1)
    desk.now = 0.005
    second = desk.add(shape=2)
    assert idle.woken == 0
    desk.now = 0.01
    assert desk.next_batch(watching) == [first]  # and computes it, while the second becomes due
    assert idle.woken == 1
    desk.now = 0.015
    assert desk.next_batch(idle) == [second]


def abandon_unseen(desk: Desk) -> None:
    """The garbage collector comes just before the worker stands in the list of idle ones."""
    idle = desk._idle

    class Interrupting(list):  # type: ignore[type-arg]
        def append(self, item: Any) -> None:
            desk.abandon()
            super().append(item)

    desk._idle = Interrupting(idle)


@pytest.mark.parametrize("at", ["before", "while it looks", "asleep"])
def test_a_collected_batcher_ends_its_workers(at):
    desk = Clocked()
    worker = Watched(lambda: desk.abandon() if at == "asleep" else None)
    if at == "before":
        desk.abandon()
    if at == "while it looks":
        abandon_unseen(desk)
    assert desk.next_batch(worker) == []
    assert worker.pauses == {"before": [], "while it looks": [0], "asleep": [math.inf]}[at]


def test_a_collected_batcher_computes_what_waits():
    desk = Clocked()
    request = desk.add()
    desk.abandon()
    assert desk.next_batch(placed()) == [request]


def test_what_is_cancelled_by_the_garbage_collector_while_the_lock_is_held_is_cancelled_afterwards():
    desk = Clocked()
    first, second = desk.add(), desk.add()
    told: list[str] = []
    first.add_done_callback(lambda f: told.append(f.state))
    with desk.lock:
        assert first.cancel()
        assert first.cancel()
        assert not first.done()
        first.add_done_callback(lambda f: told.append("again"))
    assert told == ["cancelled", "again"]
    assert desk.next_batch(Watched(desk.abandon)) == [second]


def test_a_coroutine_that_is_collected_cancels_what_it_awaits():
    async def ask(future: BatchedFuture) -> None:
        awaiting = future.__await__()
        awaiting.send(None)
        with desk.lock:
            awaiting.close()  # as the collector does, at any time

    desk = Clocked()
    future = desk.add()
    asyncio.run(ask(future))
    assert future.cancelled()


def test_a_sleeper_that_was_woken_early_does_not_sleep():
    sleeper = placed()
    sleeper.wake()
    sleeper.wake()
    sleeper.sleep(1000)
    sleeper.sleep(0)
    sleeper.sleep(-1)


def test_places_are_given_on_when_somebody_leaves():
    desk = Clocked(most=1, max_queue=1)
    requests = [desk.add() for _ in range(4)]
    assert [r.state for r in requests] == ["queued", "outside", "outside", "outside"]
    desk.cancel(requests[2])
    desk.cancel(requests[0])
    assert [r.state for r in requests] == ["cancelled", "queued", "cancelled", "outside"]
    assert desk.next_batch(placed()) == [requests[1]]
    assert requests[3].state == "queued"
    desk.close(drain=False)
    assert isinstance(requests[3].exception(0), BatcherClosed)
    assert not requests[1].done()


def test_a_child_of_a_fork_begins_anew():
    desk = Clocked(most=1, max_queue=2)
    requests = [desk.add(5.0) for _ in range(4)]
    told = []
    requests[1].add_done_callback(told.append)
    desk.next_batch(placed())
    desk.lock.__enter__()  # by a thread that did not come along
    desk.renew()
    for request in requests:
        with pytest.raises(BatcherClosed, match="the process was forked; the parent has the request"):
            request.result(0)
    assert told == []  # the parent's to tell
    assert (desk.stats()["queued"], desk.stats()["outside"], desk.stats()["running"], desk.end_overdue()) == (0, 0, 0, math.inf)
    request = desk.add()
    assert desk.next_batch(placed()) == [request]


def gpu() -> DeviceTally:
    return DeviceTally("cuda:0", in_turn=True)


def test_what_waits_is_left_for_the_batch_under_way_until_that_is_nearly_computed():
    """Taken earlier, a batch would wait for the device, and whoever comes meanwhile could not join it."""
    desk, tally = Clocked(most=4), gpu()
    desk._waiting.sizes.note(((0,),), 2, 5e-3)
    first = [desk.add(), desk.add()]
    desk.now = DELAY_S
    assert desk.next_batch(placed(tally)) == first
    late = [desk.add()]
    desk.now = 2 * DELAY_S - 1e-3  # not due yet
    tally.free_at = desk.now + 5e-3

    def pass_on() -> None:
        desk.now += other.pauses[-1]
        if len(late) < 2:
            late.append(desk.add())

    other = Watched(pass_on, tally)
    assert desk.next_batch(other) == late
    assert other.pauses == [pytest.approx(5e-3 - 4.5e-4)] and other.woken == 0  # not for who came meanwhile
    assert len(late) == 2


def test_a_full_batch_is_not_left_and_neither_is_one_for_an_idle_device():
    desk, busy = Clocked(most=2), gpu()
    desk._waiting.sizes.note(((0,),), 2, 1.0)
    for _ in range(2):
        desk.add()
    assert len(desk.next_batch(placed(busy))) == 2
    for _ in range(2):
        desk.add()
    assert len(desk.next_batch(placed(busy))) == 2  # full
    desk.add()
    desk.now = DELAY_S
    assert len(desk.next_batch(placed(gpu()))) == 1
    desk.ended(busy)
    desk.ended(busy)
    desk.add()
    desk.now *= 2
    assert len(desk.next_batch(placed(busy))) == 1  # nothing is under way any more


def test_a_closing_desk_leaves_nothing():
    desk, tally = Clocked(most=4), gpu()
    desk._waiting.sizes.note(((0,),), 1, 1.0)
    desk.add()
    desk.now = DELAY_S
    assert len(desk.next_batch(placed(tally))) == 1
    desk.add()
    desk.close(drain=True)
    assert len(desk.next_batch(placed(tally))) == 1


def test_a_device_that_ends_sooner_or_later_is_known_to_be_free_then():
    desk, tally = Clocked(most=2), gpu()
    sizes, bucket = desk._waiting.sizes, ((0,),)
    sizes.note(bucket, 2, 4e-3)
    for _ in range(3):
        for _ in range(2):
            desk.add()
        desk.next_batch(placed(tally))
    assert tally.free_at == pytest.approx(12e-3)
    desk.now = 3e-3
    desk.ended(tally)
    assert tally.free_at == pytest.approx(3e-3 + 8e-3)
    desk.now = 5e-3  # the second took 2 ms behind the first: it was copied meanwhile
    desk.ended(tally)
    assert sizes.seconds(bucket, 2, in_turn=True) == pytest.approx(2e-3)
    assert sizes.seconds(bucket, 2) == pytest.approx(4e-3)
    desk.now = 8e-3
    desk.ended(tally)
    assert sizes.seconds(bucket, 2, in_turn=True) == pytest.approx(2e-3 + 0.1 * 1e-3)
    assert tally.begins_at() == -math.inf
