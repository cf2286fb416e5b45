"""Contexts and futures under several threads."""

import threading

import pytest

from miniinfer_cli.errors import UsageError
from tests.backends.cuda.row_programs import TRIPLE, rows
from tests.emulation.engine import open_emulated, plan_of


@pytest.fixture
def engine(emulated):
    with open_emulated(plan_of(TRIPLE), emulated) as opened:
        yield opened


def test_two_threads_at_once_are_refused(engine):
    with engine.create_context() as context:
        entered, go_on = threading.Event(), threading.Event()
        results = []

        def work() -> None:
            with context._used():
                entered.set()
                go_on.wait()
            results.append(context.run({"x": rows(1)})["tripled"].tolist())

        thread = threading.Thread(target=work)
        thread.start()
        entered.wait()
        for act in (context.run, context.enqueue, context.try_enqueue):
            with pytest.raises(UsageError, match="in use by another thread\n  hint: give each thread a context"):
                act({"x": rows(1)})
        with pytest.raises(UsageError, match="in use by another thread"):
            context.close()
        go_on.set()
        thread.join()
        assert results == [(3 * rows(1)).tolist()]


def test_results_may_be_awaited_by_other_threads_while_more_is_enqueued(engine):
    failures: list[BaseException] = []

    def wait_for(number: int, future) -> None:
        try:
            assert future.result()["tripled"].tolist() == (3 * rows(3, number)).tolist()
        except BaseException as error:
            failures.append(error)

    with engine.create_context() as context:
        threads = []
        for number in range(100):
            future = context.enqueue({"x": rows(3, number)})
            threads.append(threading.Thread(target=wait_for, args=(number, future)))
            threads[-1].start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_threads_with_a_context_each_agree_with_one(engine):
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with engine.create_context() as context:
                for turn in range(20):
                    n = 1 + (number + turn) % 5
                    assert context.run({"x": rows(n, turn)})["tripled"].tolist() == (3 * rows(n, turn)).tolist()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert engine.stats()["weights"]["tensors"] == 1


def test_closing_the_engine_waits_for_the_runs_under_way(engine):
    entered, go_on = threading.Event(), threading.Event()
    results = []
    context = engine.create_context()

    def work() -> None:
        with context._used():
            entered.set()
            go_on.wait()
            results.append("ran")

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go_on.set()
    closing.join()
    thread.join()
    assert results == ["ran"]
    with pytest.raises(UsageError, match="the engine is closed"):
        context.run({"x": rows(1)})
    context.close()
