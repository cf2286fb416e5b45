"""KeptPrograms: looked up, made once, let go."""

import threading

import pytest

from miniinfer_cli.backends.kept_programs import KeptPrograms


class Made:
    """A program that notes whether it was closed."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.closed = False

    def close(self) -> None:
        self.closed = True
        if self.fault is not None:
            raise self.fault


class Slow:
    """Makes a program once it is told to go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> Made:
        self.begun.set()
        self.go_on.wait(5)
        return Made()


def test_the_one_not_used_for_longest_goes_and_is_not_closed():
    kept: KeptPrograms = KeptPrograms(2)
    a, b = kept.get("a", Made), kept.get("b", Made)
    assert kept.get("a", Made) is a
    c = kept.get("c", Made)
    assert (len(kept), kept.made, kept.evicted) == (2, 3, 1)
    assert not b.closed
    assert kept.get("b", Made) is not b
    assert kept.get("c", Made) is c


def test_threads_that_want_the_same_one_get_one():
    kept: KeptPrograms = KeptPrograms(9)
    make = Slow()
    got: list[Made] = []

    def work() -> None:
        got.append(kept.get("a", make))

    other = kept.get("b", Made)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert make.begun.wait(5)
    assert kept.get("b", make) is other  # while the first is in the making
    make.go_on.set()
    for thread in threads:
        thread.join(5)
    assert len(got) == 4
    assert len(set(map(id, got))) == 1
    assert kept.made == 2


def test_making_one_may_need_another():
    kept: KeptPrograms = KeptPrograms(9)
    inner: list[Made] = []

    def make() -> Made:
        inner.append(kept.get("inner", Made))
        return Made()

    kept.get("outer", make)
    assert (len(kept), kept.get("inner", Made)) == (2, inner[0])


def test_what_could_not_be_made_is_tried_again():
    kept: KeptPrograms = KeptPrograms(9)

    def fail() -> Made:
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        kept.get("a", fail)
    assert (len(kept), kept.made) == (0, 0)
    assert isinstance(kept.get("a", Made), Made)


def test_closing_closes_all_even_when_one_fails():
    kept: KeptPrograms = KeptPrograms(9)
    programs = [kept.get(n, lambda n=n: Made(ValueError("stuck") if n == 1 else None)) for n in range(3)]
    with pytest.raises(ValueError, match="stuck"):
        kept.close()
    assert all(p.closed for p in programs)
    assert len(kept) == 0
    kept.close()


def test_closing_waits_for_what_is_in_the_making():
    kept: KeptPrograms = KeptPrograms(9)
    make = Slow()
    got: list[Made] = []
    thread = threading.Thread(target=lambda: got.append(kept.get("a", make)))
    thread.start()
    make.begun.wait(5)
    closing = threading.Thread(target=kept.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    make.go_on.set()
    thread.join(5)
    closing.join(5)
    assert got[0].closed
