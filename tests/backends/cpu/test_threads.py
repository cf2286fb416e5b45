"""The worker threads: every part is done once, errors and interruptions, and that nobody waits for who does not come."""

import threading
import time
import weakref

import numpy as np
import pytest

from miniinfer_cli.backends.cpu import threads as pool_module
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.errors import OutOfMemoryError


@pytest.mark.parametrize(("threads", "parts"), [(1, 5), (2, 1), (2, 0), (3, 2), (4, 1000)])
def test_every_part_is_done_once(threads, parts):
    done = [0] * parts

    def body(number):
        done[number] += 1

    Threads(threads)(parts, body)
    assert done == [1] * parts


@pytest.mark.parametrize("counts", [(3, 40, 1, 7), (1, 2), (5, 0, 3)])
def test_a_stage_begins_when_the_one_before_is_done(counts):
    done, lock = [0] * len(counts), threading.Lock()

    def stage(place):
        def body(number):
            assert done[:place] == list(counts[:place])
            time.sleep(0.001 if number == 0 else 0)
            with lock:
                done[place] += 1

        return counts[place], body

    for _ in range(3):
        done[:] = [0] * len(counts)
        Threads(3).in_turn(*map(stage, range(len(counts))))
        assert done == list(counts)


def test_a_fault_in_one_stage_leaves_out_the_next():
    begun = []

    def fails(number):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Threads(2).in_turn((4, fails), (4, begun.append))
    assert not begun


def test_so_many_threads_and_no_more():
    inside, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3, timeout=20)

    def body(number):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        if number < 3:
            together.wait()  # three are there at once
        with lock:
            inside -= 1

    Threads(3)(60, body)
    assert most == 3


def test_a_worker_that_does_not_come_is_not_waited_for(monkeypatch):
    """All workers are held up elsewhere, as by other processes: the caller does it all."""
    held, go_on = threading.Semaphore(0), threading.Event()

    def hold(number):
        held.release()
        assert go_on.wait(20)

    holder = threading.Thread(target=Threads(2), args=(2, hold))
    monkeypatch.setattr(pool_module, "_pool", pool_module._Pool())
    holder.start()
    for _ in range(2):
        assert held.acquire(timeout=20)
    try:
        by = set()
        Threads(2)(50, lambda number: by.add(threading.get_ident()))
        assert by == {threading.get_ident()}
    finally:
        go_on.set()
        holder.join()


def test_the_first_part_that_failed_is_told_and_no_more_are_begun():
    done = []
    together = threading.Barrier(2, timeout=20)

    def body(number):
        if number < 2:
            together.wait()
            raise ValueError(f"part {number}")
        done.append(number)
        time.sleep(0.001)

    with pytest.raises(ValueError, match=r"^part 0$"):
        Threads(2)(1000, body)
    assert len(done) < 1000
    got = []
    Threads(2)(3, got.append)  # the workers are there as before
    assert sorted(got) == [0, 1, 2]


def test_an_interruption_waits_for_the_parts_that_are_under_way():
    begun, ended = threading.Event(), []

    def body(number):
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(20)
            raise KeyboardInterrupt
        begun.set()
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        Threads(2)(100, body)
    assert len(ended) == 1


def test_threads_within_threads():
    total, lock = [0], threading.Lock()

    def inner(number):
        with lock:
            total[0] += 1

    Threads(3)(6, lambda number: Threads(3)(7, inner))
    assert total == [42]


def test_nothing_of_the_caller_is_kept():
    class Kept:
        def __call__(self, number):
            pass

    body = Kept()
    gone = weakref.ref(body)
    Threads(4)(4, body)
    del body
    assert gone() is None


def test_workers_make_no_warnings_of_numbers():
    both = threading.Barrier(2, timeout=20)

    def body(number):
        both.wait()
        if threading.current_thread() is not threading.main_thread():
            np.exp(np.float32(1000))

    Threads(2)(2, body)  # a RuntimeWarning would be an error here


def test_threads_that_cannot_be_started(monkeypatch):
    monkeypatch.setattr(pool_module, "_pool", pool_module._Pool())

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OutOfMemoryError, match="only 1 of 3 threads can be started: can't start new thread\n  hint: ask"):
        Threads(3)(5, lambda number: None)


def test_idle_workers_take_no_time():
    Threads(3)(100, lambda number: None)
    started = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - started < 0.02
