"""Which requests are computed together, in which order, and when: by a clock that stands where the test puts it."""

import random
from typing import Any

import pytest

from miniinfer_cli.serving.batch_sizes import BatchSizes
from miniinfer_cli.serving.desk import Desk
from miniinfer_cli.serving.layout import Form
from miniinfer_cli.serving.request import BatchedFuture
from miniinfer_cli.serving.waiting import Waiting

DELAY_S = 0.01
RAISE_S = 1.0


class Line:
    """A queue, and requests by name."""

    def __init__(self, *sizes: int, priorities: int = 3) -> None:
        self.waiting = Waiting(BatchSizes(sizes), priorities, DELAY_S, RAISE_S)
        self._desk = Desk(self.waiting, 1000)
        self.names: dict[BatchedFuture, str] = {}

    def add(self, name: str, at: float, priority: int = 0, rows: int = 1, shape: int = 3, due: float | None = None) -> Any:
        form = Form(rows, ((0, shape),))
        request = BatchedFuture(self._desk, [], form, priority, at, at + DELAY_S if due is None else due, None)
        self.names[request] = name
        self.waiting.add(request)
        return request

    def take(self, at: float, **options: bool) -> str:
        return " ".join(self.names[r] for r in self.waiting.take(at, **options))


def test_nothing_is_taken_before_it_is_due_unless_the_batch_is_full():
    line = Line(1, 2, 3, 4)
    line.add("a", 0)
    line.add("b", 0.008)
    assert line.take(0.0099) == ""
    assert line.waiting.due() == pytest.approx(DELAY_S)
    line.add("c", 0.009)
    assert line.take(0.0099) == ""
    line.add("d", 0.0095)
    assert (line.take(0.0099), line.waiting.count) == ("a b c d", 0)


def test_the_delay_counts_from_the_oldest():
    line = Line(1, 2, 3, 4)
    line.add("a", 0)
    line.add("b", 0.009)
    assert line.take(0.01) == "a b"
    line.add("c", 0.02)
    assert (line.take(0.0299), line.take(0.03), line.waiting.due()) == ("", "c", float("inf"))


def test_the_delay_counts_from_the_oldest_of_all_priorities():
    line = Line(1, 2, 3, 4)
    line.add("low", 0, priority=0)
    line.add("high", 0.005, priority=2)
    assert line.take(0.01) == "high low"


def test_more_than_a_batch_is_taken_in_turns():
    line = Line(1, 2)
    for number in range(5):
        line.add(str(number), number / 1000)
    assert [line.take(0.004) for _ in range(3)] == ["0 1", "2 3", ""]
    assert line.take(0.014) == "4"


def test_higher_priorities_go_first_and_each_keeps_its_order():
    line = Line(1, 2, 3)
    for number in range(6):
        line.add(f"{'low' if number % 2 else 'high'}{number}", number / 1000, priority=0 if number % 2 else 2)
    assert [line.take(0.02), line.take(0.02)] == ["high0 high2 high4", "low1 low3 low5"]


def test_waiting_raises_priority():
    line = Line(1)
    line.add("old", 0, priority=0)
    line.add("young", 0.99, priority=1)  # a level is worth a second
    line.add("younger", 1.01, priority=1)
    line.add("highest", 1.98, priority=2)
    assert [line.take(9) for _ in range(4)] == ["highest", "young", "old", "younger"]


def test_nobody_starves():
    line = Line(1)
    line.add("low", 0, priority=0)
    taken = []
    for turn in range(1000):  # a queue that is never empty of higher ones
        line.add(f"high{turn}", turn * 0.01, priority=2)
        taken.append(line.take(turn * 0.01 + DELAY_S))
        if taken[-1] == "low":
            break
    assert taken[-1] == "low"
    assert 200 <= len(taken) <= 202  # two levels, of a second each


def test_other_shapes_are_other_batches():
    line = Line(1, 2, 3, 4)
    for number, shape in enumerate((3, 5, 3, 5, 7)):
        line.add(f"{shape}.{number}", number / 1000, shape=shape)
    assert [line.take(0.1) for _ in range(4)] == ["3.0 3.2", "5.1 5.3", "7.4", ""]


def test_a_full_bucket_does_not_wait_for_an_older_one_that_is_not_due():
    line = Line(1, 2)
    line.add("a", 0, shape=3)
    line.add("b", 0.001, shape=5)
    line.add("c", 0.001, shape=5)
    assert [line.take(0.002), line.take(0.002), line.take(0.01)] == ["b c", "", "a"]


def test_of_two_buckets_that_are_ready_the_one_with_the_first_request_goes_first():
    line = Line(1, 2)
    line.add("low", 0, priority=0, shape=3)
    line.add("high", 0.001, priority=1, shape=5)
    assert [line.take(1), line.take(1)] == ["high", "low"]


def test_a_request_of_many_rows_is_not_passed_by_others_of_its_line():
    line = Line(*range(1, 9))
    for name, count in (("a", 3), ("b", 6), ("c", 1)):
        line.add(name, 0, rows=count)
    assert [line.take(1), line.take(1)] == ["a", "b c"]


def test_a_size_that_is_not_there_is_padded_to_or_left_behind_by_what_it_wastes():
    line = Line(2, 16)
    for number in range(9):
        line.add(str(number), 0)
    assert len(line.take(1).split()) == 9  # more than half of 16
    for number in range(5):
        line.add(str(number), 0)
    assert [line.take(1) for _ in range(3)] == ["0 1", "2 3", "4"]


def test_what_is_large_finds_the_size_that_holds_it():
    line = Line(2, 16)
    line.add("large", 0, rows=3)
    line.add("small", 0)
    assert line.take(1) == "large small"


def test_one_that_hurries_is_due_early_and_alone_in_that():
    line = Line(*range(1, 9))
    line.add("a", 0)
    line.add("b", 0.001, due=0.003)
    assert (line.waiting.due(), line.take(0.0029), line.take(0.003)) == (0.003, "", "a b")
    line.add("c", 0.004)
    assert line.waiting.due() == pytest.approx(0.014)


def test_who_is_left_when_one_that_hurried_is_gone_has_its_own_time():
    line = Line(1, 2)
    line.add("a", 0)
    line.add("b", 0.001, due=0.003)
    line.add("c", 0.002)
    assert (line.take(0.003), line.waiting.due(), line.take(0.011)) == ("a b", pytest.approx(0.012), "")


def test_who_leaves_is_not_taken_and_not_waited_for():
    line = Line(1, 2)
    first, second = line.add("a", 0), line.add("b", 0.001)
    line.waiting.remove(first)
    assert (line.take(0.001), line.waiting.due()) == ("", pytest.approx(0.011))
    line.waiting.remove(second)
    assert (line.waiting.count, line.waiting.due(), line.take(9)) == (0, float("inf"), "")


def test_everything_is_due_when_it_is_drained():
    line = Line(1, 2, 3, 4)
    line.add("a", 0)
    assert (line.take(0), line.take(0, all_due=True)) == ("", "a")


@pytest.mark.parametrize("seed", range(20))
def test_by_chance_none_is_lost_and_each_line_keeps_its_order(seed):
    chance = random.Random(seed)
    line = Line(*sorted(chance.sample(range(1, 20), 3)), priorities=3)
    most = line.waiting.sizes.most
    present: list[BatchedFuture] = []
    taken: list[BatchedFuture] = []
    now = 0.0

    def take(**options: bool) -> bool:
        batch = line.waiting.take(now, **options)
        assert sum(r.form.rows for r in batch) <= most
        assert len({r.form.bucket for r in batch}) <= 1
        taken.extend(batch)
        return bool(batch)

    for number in range(300):
        now += chance.choice((0, 0.001, 0.02))
        priority, shape, rows = chance.randrange(3), chance.choice((3, 5)), chance.randint(1, most)
        present.append(line.add(str(number), now, priority=priority, shape=shape, rows=rows))
        waiting = [r for r in present if r not in taken]
        if waiting and chance.random() < 0.1:
            gone = chance.choice(waiting)
            line.waiting.remove(gone)
            present.remove(gone)
        take()
    while take(all_due=True):
        pass
    assert line.waiting.count == 0
    assert len(taken) == len(set(taken)) == len(present)
    for lane in {(r.priority, r.form.bucket) for r in present}:
        assert [r for r in taken if (r.priority, r.form.bucket) == lane] == [
            r for r in present if (r.priority, r.form.bucket) == lane
        ]
