"""Who asks for results: threads, coroutines, callbacks; and batchers that are collected, forked, or left behind."""

import asyncio
import copy
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_format import write_plan
from miniinfer_cli import Batcher
from miniinfer_cli.errors import BatcherClosed, InputDataError, ModelError, QueueFull, UsageError
from miniinfer_cli.serving.batcher import Asked
from miniinfer_cli.serving.request import BatchedFuture
from miniinfer_cli.serving.tally import OUTCOMES
from tests.emulation.engine import plan_of
from tests.forked import in_forked_child
from tests.serving.staged import DOUBLE, WAIT_S, Staged, open_cpu, row


@pytest.fixture
def engine():
    with open_cpu() as opened:
        yield opened


def test_coroutines_await_results(engine):
    async def ask(batcher: Batcher) -> list[float]:
        sent = [batcher.submit(row(n)) for n in range(5)]
        asked = await asyncio.gather(*(batcher.asubmit(row(n)) for n in range(5, 10)))
        awaited = await asyncio.gather(*sent)
        again = await sent[0]
        return [r["y"][0, 0] for r in [*awaited, *asked, again]]

    with Batcher(engine, 4, 1) as batcher:
        assert asyncio.run(ask(batcher)) == [*range(0, 20, 2), 0]


def test_one_future_may_be_awaited_by_several_tasks_and_threads(engine):
    async def ask(batcher: Batcher) -> list[float]:
        future = batcher.submit(row(4))

        async def wait() -> float:
            return (await future)["y"][0, 0]

        return await asyncio.gather(wait(), wait(), asyncio.to_thread(lambda: future.result(WAIT_S)["y"][0, 0]))

    with Batcher(engine, 4, 5) as batcher:
        assert asyncio.run(ask(batcher)) == [8, 8, 8]


def test_a_task_that_is_cancelled_cancels_its_request(engine):
    staged = Staged(engine)
    staged.gate.clear()

    async def ask(batcher: Batcher) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(batcher.asubmit(row(0)))
        queued = loop.create_task(batcher.asubmit(row(1)))
        await asyncio.to_thread(staged.expect_entered)
        for asked in (queued, task):
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        staged.gate.set()

    with Batcher(staged, 1, 0) as batcher:
        asyncio.run(ask(batcher))
    assert staged.batches == [[0]]
    assert batcher.stats()["requests"]["cancelled"] == 2


def test_a_request_that_is_cancelled_cancels_who_awaits_it(engine):
    async def ask(batcher: Batcher) -> None:
        future = batcher.submit(row(0))
        asyncio.get_running_loop().call_soon(future.cancel)
        with pytest.raises(asyncio.CancelledError):
            await future

    with Batcher(engine, 4, 1e6) as batcher:
        asyncio.run(ask(batcher))


def test_errors_and_time_limits_reach_coroutines(engine):
    async def ask(batcher: Batcher) -> None:
        with pytest.raises(UsageError, match="missing 'x'"):
            await batcher.asubmit({})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.asubmit(row(0)), 0.005)
        with pytest.raises(QueueFull):
            await asyncio.gather(batcher.asubmit(row(1)), batcher.asubmit(row(2)))

    with Batcher(engine, 4, 1e6, max_queue=1) as batcher:
        asyncio.run(ask(batcher))
    assert batcher.stats()["requests"]["cancelled"] == 2  # the late one, and what the loop left behind


def test_a_coroutine_waits_for_room_while_the_loop_goes_on(engine):
    staged = Staged(engine)
    staged.gate.clear()

    async def ask(batcher: Batcher) -> list[float]:
        tasks = [asyncio.ensure_future(batcher.asubmit(row(n))) for n in range(4)]
        while batcher.stats()["outside"] < 2:
            await asyncio.sleep(0.001)
        staged.gate.set()
        return [r["y"][0, 0] for r in await asyncio.gather(*tasks)]

    with Batcher(staged, 1, 0, max_queue=1, overload="block") as batcher:
        assert asyncio.run(ask(batcher)) == [0, 2, 4, 6]


def test_a_loop_that_is_closed_is_told_nothing_and_others_are(engine):
    staged = Staged(engine)
    staged.gate.clear()
    with Batcher(staged, 2, 1e6) as batcher:
        sent = [batcher.submit(row(n)) for n in (3, 4)]
        kept: list = []

        async def leave() -> None:
            awaiting = sent[0].__await__()
            awaiting.send(None)
            kept.append(awaiting)

        async def stay() -> float:
            asyncio.get_running_loop().call_soon(staged.gate.set)
            return (await asyncio.wait_for(sent[1], WAIT_S))["y"][0, 0]

        asyncio.run(leave())
        assert asyncio.run(stay()) == 8
        assert sent[0].result(WAIT_S)["y"][0, 0] == 6


def test_a_request_that_has_ended_lets_its_inputs_go(engine):
    with Batcher(engine, 4, 0, batch_sizes=[4]) as batcher:
        x = row(1)["x"]
        held = weakref.ref(x)
        future = batcher.submit({"x": x})
        future.result(WAIT_S)
        cancelled = batcher.submit({"x": x})
        cancelled.cancel()
        del x
        batcher.close()
        gc.collect()
        assert held() is None
        assert future.done() and cancelled.done()


def test_waiting_may_take_so_long_and_no_longer(engine):
    with Batcher(engine, 4, 1e6) as batcher:
        future = batcher.submit(row(0))
        with pytest.raises(TimeoutError, match=r"no result within 0\.001 s"):
            future.result(0.001)
        with pytest.raises(TimeoutError):
            future.exception(-1)
        assert not future.done()
        assert repr(future) == "<BatchedFuture of 1 row: queued>"
    assert (future.result(0)["y"][0, 0], future.exception(0), repr(future)) == (0, None, "<BatchedFuture of 1 row: result>")


def test_futures_of_the_standard_library_follow(engine):
    staged = Staged(engine, lambda batch: InputDataError("bad") if 1 in batch else None)
    with Batcher(staged, 4, 1e6) as batcher:
        sent = [batcher.submit(row(n)) for n in range(4)]
        followed = [f.as_concurrent() for f in sent]
        followed.append(sent[0].as_concurrent())
        assert followed.pop().cancel()  # ends the watching alone
        batcher.close()
        assert futures.wait(followed, WAIT_S).not_done == set()
        assert followed[0].result()["y"][0, 0] == 0
        assert isinstance(followed[1].exception(), InputDataError)
        assert sent[0].as_concurrent().result(0)["y"][0, 0] == 0
    with Batcher(engine, 4, 1e6) as batcher:
        future = batcher.submit(row(0))
        followed = [future.as_concurrent()]
        future.cancel()
        assert followed[0].cancelled()
        assert future.as_concurrent().cancelled()


def test_callbacks_are_called_once_whenever_they_come(engine):
    called = []
    with Batcher(engine, 2, 1e6) as batcher:
        future = batcher.submit(row(0))
        future.add_done_callback(lambda f: called.append(("before", f.result(0)["y"][0, 0], threading.current_thread().name)))
        batcher.submit(row(1)).result(WAIT_S)
        future.add_done_callback(lambda f: called.append(("after", f.result(0)["y"][0, 0])))
    assert called[-1] == ("after", 0)
    assert ("before", 0, "miniinfer-batch-0") in called
    assert len(called) == 2


def test_a_callback_that_fails_disturbs_nobody(engine, logged):
    called = []

    def fail(future):
        called.append(future)
        raise ValueError("a fault of the caller's")

    with Batcher(engine, 2, 1e6) as batcher:
        for _ in range(2):
            sent = [batcher.submit(row(n)) for n in range(2)]
            for future in sent:
                future.add_done_callback(fail)
                future.add_done_callback(called.append)
            assert [f.result(WAIT_S)["y"][0, 0] for f in sent] == [0, 2]
        batcher.close()
    assert len(called) == 8


def test_a_callback_that_fails_is_logged(engine, logged):
    with Batcher(engine, 1, 0) as batcher:
        future = batcher.submit(row(0))
        future.result(WAIT_S)
        future.add_done_callback(lambda f: f.no_such_thing)
    assert "a callback of a batched request failed" in logged.text
    assert "no_such_thing" in logged.text


def test_a_callback_may_submit_cancel_and_close(engine):
    ended = threading.Event()
    found = []
    with Batcher(engine, 1, 0) as batcher:
        idle = batcher.submit(row(0))
        idle.result(WAIT_S)

        def act(future):
            found.append(future.cancel())
            found.append(batcher.submit(row(5)))
            batcher.close()
            found.append(future)
            ended.set()

        batcher.submit(row(1)).add_done_callback(act)
        assert ended.wait(WAIT_S)
    assert found[0] is False
    assert found[1].result(WAIT_S)["y"][0, 0] == 10


def test_closing_in_callbacks_of_several_threads_waits_for_none(engine):
    staged = Staged(engine)
    staged.gate.clear()
    batcher = Batcher(staged, 1, 0, contexts=2)
    sent = [batcher.submit(row(n), deadline_s=1000) for n in range(6)]
    for _ in range(2):
        staged.expect_entered()
    for future in sent[:2]:
        future.add_done_callback(lambda _: batcher.close())
    staged.gate.set()
    assert [f.result(WAIT_S)["y"][0, 0] for f in sent] == [0, 2, 4, 6, 8, 10]
    batcher.close()
    assert [c.closed for c in staged.contexts] == [True, True]


def test_a_batcher_that_nobody_holds_computes_what_waits_and_ends(engine):
    staged = Staged(engine)
    staged.gate.clear()
    batcher = Batcher(staged, 1, 0, contexts=2)
    threads = set(threading.enumerate())
    sent = [batcher.submit(row(n), deadline_s=1000) for n in range(4)]
    threads = set(threading.enumerate()) - threads
    assert len(threads) == 3
    gone = weakref.ref(batcher)
    del batcher
    gc.collect()
    assert gone() is None
    staged.gate.set()
    assert [f.result(WAIT_S)["y"][0, 0] for f in sent] == [0, 2, 4, 6]
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert [c.closed for c in staged.contexts] == [True, True]


def test_idle_threads_end_with_their_batcher(engine):
    before = set(threading.enumerate())
    batcher = Batcher(engine, 4, 0, contexts=2)
    batcher.submit(row(1)).result(WAIT_S)
    threads = set(threading.enumerate()) - before
    del batcher
    gc.collect()
    [t.join(WAIT_S) for t in threads]
    assert [t for t in threads if t.is_alive()] == []


def test_a_forked_child_begins_anew(engine):
    staged = Staged(engine)
    with Batcher(staged, 1, 0) as batcher:
        batcher.submit(row(1), deadline_s=100).result(WAIT_S)
        staged.gate.clear()
        running = batcher.submit(row(2))
        staged.expect_entered()
        staged.expect_entered()
        queued = batcher.submit(row(3))

        def child():
            errors = [type(f.exception(1)) for f in (running, queued)]
            staged.gate.set()
            own = batcher.submit(row(4), deadline_s=100).result(WAIT_S)["y"][0, 0]
            batcher.close()
            return errors, own, len(staged.contexts)

        # The parent is in the middle of something in its context: the child has another.
        assert in_forked_child(child) == ([BatcherClosed, BatcherClosed], 8, 2)
        assert len(staged.contexts) == 1
        staged.gate.set()
        assert [f.result(WAIT_S)["y"][0, 0] for f in (running, queued)] == [4, 6]


def test_python_ends_though_a_batcher_is_open(tmp_path: Path):
    plan = tmp_path / "m.plan"
    write_plan(plan_of(DOUBLE), plan)
    script = f"""if True:
        import numpy, miniinfer_cli
        batcher = miniinfer_cli.Batcher(miniinfer_cli.load({str(plan)!r}, "cpu"), 4, 1e6)
        batcher.submit({{"x": numpy.zeros((4, 3), "f")}}).result(20)
        future = batcher.submit({{"x": numpy.zeros((1, 3), "f")}}, deadline_s=1000)
        future.add_done_callback(lambda f: print(type(f.exception()).__name__))
    """
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "BatcherClosed\n", "")
    assert time.monotonic() - started < 60


def test_they_are_one_of_a_kind(engine):
    with Batcher(engine) as batcher:
        for thing in (batcher, batcher.submit(row(1))):
            with pytest.raises(UsageError, match="can be neither copied nor pickled"):
                copy.copy(thing)


def test_several_are_submitted_in_one_step_and_told_together(engine):
    staged = Staged(engine)
    staged.gate.clear()
    told: list[list[Any]] = []
    all_told = threading.Semaphore(0)

    def listen(ended: list[Any]) -> None:
        told.append([future.tag for future in ended])
        all_told.release()

    with Batcher(staged, 4, 0, max_queue=5, priorities=2) as batcher:
        asked = [Asked(row(n), n % 2, None, n) for n in range(4)]
        asked[1:1] = [Asked({"x": np.zeros((1, 4), np.float32)}, tag="wide"), Asked(row(0), 7, tag="no such priority")]
        made = batcher.submit_all(asked, listen)
        assert [type(m) for m in made] == [BatchedFuture, UsageError, UsageError, *[BatchedFuture] * 3]
        staged.expect_entered()
        full = batcher.submit_all([Asked(row(n), 0, None, n) for n in range(10, 17)], listen)
        assert [type(m) for m in full] == [*[BatchedFuture] * 5, QueueFull, QueueFull]
        assert full[1].cancel()
        staged.gate.set()
        for _ in range(3):
            assert all_told.acquire(timeout=WAIT_S)
        assert [m.result()["y"][0, 0] for m in made if isinstance(m, BatchedFuture)] == [0, 2, 4, 6]
        assert batcher.stats()["requests"] == {**dict.fromkeys(OUTCOMES, 0), "result": 8, "cancelled": 1, "rejected": 2}
    assert staged.batches == [[1, 3, 0, 2], [10, 12, 13, 14]]
    assert told == [[11], [1, 3, 0, 2], [10, 12, 13, 14]]
    closed = batcher.submit_all([Asked(row(1))], listen)
    assert [type(m) for m in closed] == [BatcherClosed]


def test_one_of_several_that_is_poisoned_fails_alone(engine):
    staged = Staged(engine, lambda numbers: ModelError("poisoned") if 2 in numbers else None)
    ended: list[Any] = []
    with Batcher(staged, 4, 50) as batcher:
        made = batcher.submit_all([Asked(row(n), tag=n) for n in range(4)], ended.extend)
        assert all(isinstance(m, BatchedFuture) for m in made)
    assert sorted(future.tag for future in ended) == [0, 1, 2, 3]
    assert [future.tag for future in ended if isinstance(future.exception(0), ModelError)] == [2]
