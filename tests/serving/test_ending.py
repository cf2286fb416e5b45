"""Each request ends once, and as it should: with its own error, cancelled, late, rejected; never by another's fault."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from miniinfer_cli import Batcher
from miniinfer_cli.errors import (
    BatcherClosed,
    BatchFailed,
    DeadlinePassed,
    DeviceError,
    InputDataError,
    ModelError,
    OutOfMemoryError,
    QueueFull,
)
from tests.serving.staged import WAIT_S, Staged, open_cpu, row

TABLE = "graph main(x: i64[n]) {\n  t: f32[3] = const [0.5, 1.5, 2.5]\n  y = Gather(t, x)\n  return y\n}"
NOISE = "graph main(x: f32[n,3]) {\n  r = RandomNormalLike(x)\n  y = Add(x, r)\n  return y\n}"


@pytest.fixture
def engine():
    with open_cpu() as opened:
        yield opened


class Held:
    """A batcher whose first request is being computed, and stands still until ``go``."""

    def __init__(self, engine, fault=lambda _: None, **options):
        self.staged = Staged(engine, fault)
        self.staged.gate.clear()
        options.setdefault("max_batch", 8)
        self.batcher = Batcher(self.staged, max_delay_ms=0, **options)
        self.first = self.batcher.submit(row(100))
        self.staged.expect_entered()

    def go(self):
        self.staged.gate.set()
        self.batcher.close()
        return self.staged.batches[1:]


def culprit(*numbers, error=InputDataError):
    return lambda batch: error(f"{next(n for n in batch if n in numbers):g} is wrong") if set(batch) & set(numbers) else None


def test_an_index_out_of_range_is_one_requests_error_alone():
    with open_cpu(TABLE) as engine:
        staged = Staged(engine)
        with Batcher(staged, 4, 1e6) as batcher:
            futures = [batcher.submit({"x": np.array([n])}) for n in (0, 7, 1, 2)]
            with pytest.raises(InputDataError, match="7"):
                futures[1].result(WAIT_S)
            assert [futures[n].result(WAIT_S)["y"].tolist() for n in (0, 2, 3)] == [[0.5], [1.5], [2.5]]
            assert batcher.stats()["requests"] == dict.fromkeys(("cancelled", "deadline", "rejected", "closed"), 0) | {
                "result": 3,
                "error": 1,
            }


def test_a_batch_is_halved_until_the_culprits_are_alone(engine):
    held = Held(engine, culprit(3, 6))
    futures = [held.batcher.submit(row(n)) for n in range(8)]
    assert held.go() == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [0, 1], [2, 3], [2], [3], [4, 5, 6, 7], [4, 5], [6, 7], [6], [7]]
    for number, future in enumerate(futures):
        if number in (3, 6):
            with pytest.raises(InputDataError, match=f"^{number} is wrong"):
                future.result(0)
        else:
            assert future.result(0)["y"][0, 0] == 2 * number


@pytest.mark.parametrize("error", [OutOfMemoryError, ValueError, ZeroDivisionError])
def test_other_faults_than_the_devices_are_halved_too(engine, error):
    held = Held(engine, culprit(1, error=error))
    futures = [held.batcher.submit(row(n)) for n in range(2)]
    assert held.go() == [[0, 1], [0], [1]]
    assert (type(futures[0].exception(0)), type(futures[1].exception(0))) == (type(None), error)


def test_a_fault_of_the_device_is_everybodys_and_not_tried_again(engine):
    held = Held(engine, culprit(2, error=DeviceError))
    futures = [held.batcher.submit(row(n)) for n in range(4)]
    assert held.go() == [[0, 1, 2, 3]]
    assert [str(f.exception(0).message) for f in futures] == ["2 is wrong"] * 4
    assert held.first.result(0)["y"][0, 0] == 200


def test_what_draws_numbers_is_not_run_again():
    with open_cpu(NOISE) as engine:
        held = Held(engine, culprit(1, 5))
        futures = [held.batcher.submit(row(n)) for n in range(3)]
        batches = held.go()
        assert batches == [[0, 1, 2]]
        for future in futures:
            with pytest.raises(
                BatchFailed, match="one of the 3 requests of its batch failed: 1 is wrong\n  hint: submit it again"
            ):
                future.result(0)
        held = Held(engine, culprit(5))
        alone = held.batcher.submit(row(5))
        held.go()
        with pytest.raises(InputDataError, match=r"^5 is wrong"):
            alone.result(0)


def test_results_of_other_rows_than_the_plan_says_are_given_to_nobody(engine):
    staged = Staged(engine)
    staged.alter = lambda outputs: (np.concatenate([outputs[0], outputs[0][:1]]),)
    with Batcher(staged, 2, 1e6) as batcher:
        for future in [batcher.submit(row(n)) for n in range(2)]:
            with pytest.raises(ModelError, match=r"output y: f32\[n,3\] has 2 rows for a batch of 1"):
                future.result(WAIT_S)


def test_a_worker_outlives_whatever_is_raised(engine):
    held = Held(engine, culprit(1, error=SystemExit), max_batch=1)
    futures = [held.batcher.submit(row(n)) for n in range(3)]
    held.go()
    assert [type(f.exception(0)) for f in futures] == [type(None), SystemExit, type(None)]


def test_who_is_cancelled_in_the_queue_is_not_computed(engine):
    held = Held(engine)
    futures = [held.batcher.submit(row(n)) for n in range(4)]
    assert futures[1].cancel()
    assert futures[1].cancel()
    assert (futures[1].done(), futures[1].cancelled()) == (True, True)
    assert held.batcher.stats()["queued"] == 3
    assert held.go() == [[0, 2, 3]]
    assert not futures[0].cancel()
    assert not futures[0].cancelled()
    with pytest.raises(CancelledError):
        futures[1].result(0)
    with pytest.raises(CancelledError):
        futures[1].exception(0)
    assert held.batcher.stats()["requests"]["cancelled"] == 1


def test_who_is_cancelled_while_computed_disturbs_nobody(engine):
    held = Held(engine)
    assert held.first.cancel()
    later = held.batcher.submit(row(1))
    assert held.go() == [[1]]
    assert later.result(0)["y"][0, 0] == 2
    assert held.first.cancelled()
    assert held.batcher.stats()["requests"] == {
        "result": 1,
        "error": 0,
        "cancelled": 1,
        "deadline": 0,
        "rejected": 0,
        "closed": 0,
    }


def test_who_is_cancelled_is_not_computed_again_with_its_half(engine):
    def fault(batch):
        if len(batch) > 1 and 1 in batch:
            futures[1].cancel()
            return InputDataError("wrong")
        return None

    held = Held(engine, fault)
    futures = [held.batcher.submit(row(n)) for n in range(4)]
    assert held.go() == [[0, 1, 2, 3], [0], [2, 3]]


def test_a_request_that_is_late_ends_while_it_waits(engine):
    held = Held(engine)
    late = held.batcher.submit(row(1), deadline_s=0.005)
    patient = held.batcher.submit(row(2), deadline_s=1000)
    with pytest.raises(DeadlinePassed, match=r"its time was over after [\d.]+ ms, in the queue\n  hint: give it a longer"):
        late.result(WAIT_S)
    assert held.go() == [[2]]
    assert patient.result(0)["y"][0, 0] == 4
    assert held.batcher.stats()["requests"]["deadline"] == 1


def test_a_deadline_that_comes_before_the_delay_does_not_wait_for_it(engine):
    with Batcher(engine, 8, 1e6) as batcher:
        assert batcher.submit(row(1), deadline_s=0.5).result(WAIT_S)["y"][0, 0] == 2
        assert batcher.stats()["queue_s"] < 0.5


def test_ended_requests_with_deadlines_are_let_go(engine):
    with Batcher(engine, 1, 0) as batcher:
        for _ in range(300):
            batcher.submit(row(1), deadline_s=1000).result(WAIT_S)
        assert len(batcher._desk._deadlines) < 70


def test_one_too_many_is_rejected(engine):
    held = Held(engine, max_queue=2)
    futures = [held.batcher.submit(row(n)) for n in range(2)]
    with pytest.raises(
        QueueFull, match="2 requests wait already\n  hint: submit it later, or make the Batcher with overload='block'"
    ):
        held.batcher.submit(row(2))
    futures[0].cancel()
    futures.append(held.batcher.submit(row(3)))
    assert held.go() == [[1, 3]]
    assert held.batcher.stats()["requests"]["rejected"] == 1


def started(act):
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def until_outside(batcher, count):
    for _ in range(10_000):
        if batcher.stats()["outside"] == count:
            return
        threading.Event().wait(0.001)
    raise AssertionError(batcher.stats())


def test_one_too_many_waits_for_room(engine):
    held = Held(engine, max_queue=1, overload="block", max_batch=1)
    inside = held.batcher.submit(row(0))
    found = []
    threads = []
    for number in (1, 2):
        threads.append(started(lambda number=number: found.append(held.batcher.submit(row(number)))))
        until_outside(held.batcher, number)
    assert found == []
    inside.cancel()
    threads[0].join(WAIT_S)
    assert len(found) == 1
    held.staged.gate.set()
    threads[1].join(WAIT_S)
    assert held.go() == [[1], [2]]
    assert [f.result(0)["y"][0, 0] for f in found] == [2, 4]


def test_a_submit_that_is_interrupted_leaves_no_request(engine):
    class Interrupted:
        def acquire(self):
            raise KeyboardInterrupt

    held = Held(engine, max_queue=1, overload="block")
    held.batcher.submit(row(0))
    enter = held.batcher._desk.enter
    held.batcher._desk.enter = lambda request, block: enter(request, block=block) and Interrupted()
    with pytest.raises(KeyboardInterrupt):
        held.batcher.submit(row(1))
    assert held.batcher.stats()["outside"] == 0
    assert held.go() == [[0]]


def test_who_waits_for_room_may_be_late_or_find_it_closed(engine):
    held = Held(engine, max_queue=1, overload="block")
    held.batcher.submit(row(0))
    late = held.batcher.submit(row(1), deadline_s=0.005)
    assert isinstance(late.exception(0), DeadlinePassed)
    found = []
    thread = started(lambda: found.append(held.batcher.submit(row(2))))
    until_outside(held.batcher, 1)
    closing = started(lambda: held.batcher.close(drain=False))
    thread.join(WAIT_S)
    assert isinstance(found[0].exception(WAIT_S), BatcherClosed)
    held.staged.gate.set()
    closing.join(WAIT_S)


def test_closing_computes_those_who_wait_for_room(engine):
    held = Held(engine, max_queue=1, overload="block", max_batch=1)
    found = [held.batcher.submit(row(0))]
    threads = []
    for number in (1, 2, 3):
        threads.append(started(lambda number=number: found.append(held.batcher.submit(row(number)))))
        until_outside(held.batcher, number)
    closing = started(held.batcher.close)
    held.staged.gate.set()
    closing.join(WAIT_S)
    [t.join(WAIT_S) for t in threads]
    assert sorted(f.result(0)["y"][0, 0] for f in found) == [0, 2, 4, 6]
