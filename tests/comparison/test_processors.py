"""The processors of a pair: of different cores, far apart, others each time; and workers that stay there."""

import os
import threading

import pytest

from miniinfer_cli.comparison.processors import Pool, stay_on
from tests.forked import in_forked_child

SIXTEEN = Pool(tuple(range(16)), 16)
SMT = Pool((0, 1, 2, 3, 4, 5, 6, 7), 4)  # 0 to 3 are of four cores, 4 to 7 of the same


def test_the_next_pair_has_others_until_all_had_their_turn():
    assert [SIXTEEN.of_pair(n, 1) for n in range(17)] == [(n % 16,) for n in range(17)]
    assert [SIXTEEN.of_pair(n, 2) for n in (0, 1, 8)] == [(0, 8), (1, 9), (8, 0)]
    assert SIXTEEN.of_pair(3, 4) == (3, 7, 11, 15)
    for threads in range(1, 16):
        met = [cpu for n in range(16) for cpu in SIXTEEN.of_pair(n, threads)]
        assert {met.count(cpu) for cpu in range(16)} == {threads}
        assert all(len(set(SIXTEEN.of_pair(n, threads))) == threads for n in range(16))


def test_threads_have_cores_of_their_own_while_there_are_enough():
    assert {SMT.of_pair(n, 4) for n in range(4)} == {(0, 1, 2, 3), (1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2)}
    assert all(set(SMT.of_pair(n, 2)) <= {0, 1, 2, 3} for n in range(9))
    assert len(set(SMT.of_pair(1, 6))) == 6


@pytest.mark.parametrize(("pool", "threads"), [(SIXTEEN, 16), (SIXTEEN, 40), (Pool(), 1), (Pool((3,), 1), 1)])
def test_who_wants_all_is_given_none(pool, threads):
    assert pool.of_pair(0, threads) == ()


def test_what_this_process_may_use_is_ranked_by_core(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 9}, raising=False)
    for cpu, siblings in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        (tmp_path / str(cpu)).write_text(siblings + "\n")
    assert Pool.available(str(tmp_path / "{}")) == Pool((0, 2, 9, 1, 3), 3)  # of 9 nobody tells
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert Pool.available() == Pool()


def test_all_threads_stay():
    def child():
        gate, found = threading.Event(), []
        other = threading.Thread(target=lambda: gate.wait(10) and found.append(os.sched_getaffinity(0)))
        other.start()
        cpu = max(os.sched_getaffinity(0))
        stay_on([cpu])
        gate.set()
        other.join()
        return [os.sched_getaffinity(0), *found] == [{cpu}, {cpu}]

    assert in_forked_child(child)


def test_who_may_not_choose_goes_on():
    assert in_forked_child(lambda: stay_on([1023]) or len(os.sched_getaffinity(0))) >= 1
