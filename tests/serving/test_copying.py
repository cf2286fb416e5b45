"""Threads that help to put batches together: where each row ends up, what goes wrong, and when they end."""

import threading
import time

import numpy as np
import pytest

from miniinfer_cli import Batcher
from miniinfer_cli.errors import UsageError
from miniinfer_cli.serving import batcher as module
from miniinfer_cli.serving import copying
from miniinfer_cli.serving.copying import Copiers
from tests.emulation.engine import open_emulated, plan_of
from tests.forked import in_forked_child
from tests.serving.staged import DOUBLE, WAIT_S, open_cpu, row


def copying_threads() -> int:
    return sum(thread.name == "miniinfer-copy" for thread in threading.enumerate())


@pytest.fixture
def copiers():
    made = Copiers(3, least_nbytes=8)
    yield made
    made.close()
    until = time.monotonic() + WAIT_S
    while copying_threads() and time.monotonic() < until:
        time.sleep(0.001)
    assert copying_threads() == 0


def some(*counts: int) -> list[np.ndarray]:
    numbers = iter(range(10_000))
    return [np.array([[next(numbers)] * 5 for _ in range(count)], np.float32).reshape(count, 5) for count in counts]


@pytest.mark.parametrize("counts", [(1,), (1, 1), (1,) * 7, (3, 1, 1, 9, 2), (2, 30), (1,) * 64])
def test_rows_come_one_behind_another(copiers, counts):
    rows = some(*counts)
    target = np.full((sum(counts) + 2, 5), -1, np.float32)
    copiers.gather(rows, target[1:-1])
    np.testing.assert_array_equal(target[1:-1, 0], np.arange(sum(counts)))
    np.testing.assert_array_equal(target[[0, -1]], np.full((2, 5), -1))
    assert copying_threads() == (3 if len(counts) > 1 else 0)


def test_several_use_them_at_once(copiers):
    def use(wrong: list[int]) -> None:
        for _ in range(200):
            target = np.empty((64, 5), np.float32)
            copiers.gather(some(*(1,) * 64), target)
            if target[:, 0].tolist() != list(range(64)):
                wrong.append(1)

    wrong: list[int] = []
    threads = [threading.Thread(target=use, args=(wrong,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and copying_threads() == 3


def test_what_one_of_them_meets_is_raised_once_all_have_ended(copiers):
    rows = some(*(1,) * 16)
    rows[15] = np.zeros((1, 4), np.float32)
    target = np.zeros((16, 5), np.float32)
    with pytest.raises(ValueError, match="must match"):
        copiers.gather(rows, target)
    np.testing.assert_array_equal(target[:12, 0], np.arange(12))
    copiers.gather(some(*(1,) * 16), target)
    np.testing.assert_array_equal(target[:, 0], np.arange(16))


def test_who_puts_together_copies_what_threads_that_were_ended_meanwhile_leave(copiers):
    copiers.gather(some(*(1,) * 16), np.empty((16, 5), np.float32))
    for _ in range(3):
        copiers._work.put(None)  # as from the garbage collector, when the number of threads has been looked at already
    for _ in range(50):
        target = np.empty((16, 5), np.float32)
        copiers.gather(some(*(1,) * 16), target)
        np.testing.assert_array_equal(target[:, 0], np.arange(16))


def test_small_batches_wake_nobody():
    copiers = Copiers(3)
    target = np.empty((64, 5), np.float32)
    copiers.gather(some(*(1,) * 64), target)
    assert copying_threads() == 0


def test_it_goes_on_with_the_threads_that_there_are(copiers, monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        if copying_threads() == 1:
            raise MemoryError
        thread.start()

    monkeypatch.setattr(copying, "start_thread", refuse)
    for _ in range(2):
        target = np.empty((16, 5), np.float32)
        copiers.gather(some(*(1,) * 16), target)
        np.testing.assert_array_equal(target[:, 0], np.arange(16))
    assert copying_threads() == 1


def test_a_forked_child_copies_by_itself(copiers):
    copiers.gather(some(*(1,) * 16), np.empty((16, 5), np.float32))

    def copy() -> list[float]:
        target = np.empty((16, 5), np.float32)
        copiers.gather(some(*(1,) * 16), target)
        return target[:, 0].tolist()

    assert in_forked_child(copy) == list(range(16))


def test_several_contexts_of_a_gpu_share_them(monkeypatch):
    monkeypatch.setattr(module, "Copiers", lambda count: Copiers(count, least_nbytes=16))
    with open_emulated(plan_of(DOUBLE)) as engine, Batcher(engine, 16, 1, contexts=2, copy_threads=2) as batcher:
        futures = [batcher.submit(row(n)) for n in range(400)]
        found = [f.result(WAIT_S)["y"][0].tolist() for f in futures]
        assert copying_threads() == 2
    assert found == [[2 * n, 2, 4] for n in range(400)]


def test_a_batcher_has_as_many_as_it_is_told(monkeypatch):
    made: list[int] = []

    class Noted(Copiers):
        def __init__(self, count: int) -> None:
            made.append(count)
            super().__init__(count, least_nbytes=4)

    monkeypatch.setattr(module, "Copiers", Noted)
    with open_cpu() as engine:
        with Batcher(engine, 4, 50, copy_threads=2) as batcher:
            futures = [batcher.submit(row(n)) for n in range(8)]
            assert [f.result(WAIT_S)["y"][0, 0] for f in futures] == [0, 2, 4, 6, 8, 10, 12, 14]
            assert copying_threads() == 2
        Batcher(engine, 4, 0).close()
        with pytest.raises(UsageError, match="copy_threads: expected a whole number from 0 on, got -1"):
            Batcher(engine, 4, 0, copy_threads=-1)
    assert made == [2, 0]
