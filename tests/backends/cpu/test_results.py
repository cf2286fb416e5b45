"""Memory of results: taken again when nobody holds an array or a view of it, and never before."""

import threading

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.results import ResultMemory

LARGE = 1 << 17  # bytes


def large(value: int, count: int = LARGE) -> np.ndarray:
    return np.full(count, value, np.uint8)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_what_the_caller_lets_go_of_is_taken_again():
    memory = ResultMemory()
    (first,) = memory.copies([large(1)])
    place = address(first)
    (second,) = memory.copies([large(2)])
    assert address(second) != place and first[0] == 1
    del first
    (third,) = memory.copies([large(3)])
    assert address(third) == place
    assert (second[-1], third[0], third[-1]) == (2, 3, 3)


@pytest.mark.parametrize(
    "view", [lambda a: a[5:], lambda a: a.reshape(2, -1).T, lambda a: a.view(np.int32), memoryview, np.ravel]
)
def test_a_view_holds_it(view):
    memory = ResultMemory()
    (first,) = memory.copies([large(1)])
    held, place = view(first), address(first)
    del first
    (second,) = memory.copies([large(2)])
    assert address(second) != place
    assert np.asarray(held).view(np.uint8).min() == 1
    del held
    (third,) = memory.copies([large(3)])
    assert address(third) == place


def test_copies_are_as_arrays_of_their_own():
    memory = ResultMemory()
    given = np.arange(LARGE, dtype=np.float16).reshape(2, -1, 4).transpose(2, 0, 1)
    (copy,) = memory.copies([given])
    np.testing.assert_array_equal(copy, given)
    assert (copy.dtype, copy.flags.c_contiguous, copy.flags.writeable) == (given.dtype, True, True)
    copy[...] = 0
    assert given.max() > 0


def test_small_arrays_and_sequences_are_copied_plainly():
    small, items = large(1, 8), [large(2)]
    got, many = ResultMemory().copies([small, items])
    assert got.flags.owndata and many[0].flags.owndata
    small[0] = items[0][0] = 9
    assert (got[0], many[0][0]) == (1, 2)


def test_no_more_is_kept_than_one_inference_gives():
    memory = ResultMemory()
    held = [memory.copies([large(i)]) for i in range(3)]
    held.clear()
    assert sum(map(len, memory._free.values())) == 1
    memory.copies([large(1, LARGE + 1)])
    assert list(memory._free) == [LARGE + 1], "of other sizes nothing is kept"
    memory.forget()
    assert not memory._free


def test_results_are_let_go_of_in_other_threads():
    memory = ResultMemory()
    wrong = []

    def hold_and_let_go(number: int) -> None:
        for _ in range(200):
            (one,) = given.pop()
            if one.min() != one.max():
                wrong.append(number)

    given = [memory.copies([large(i % 250)]) for i in range(600)]
    threads = [threading.Thread(target=hold_and_let_go, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for i in range(200):
        (mine,) = memory.copies([large(i)])
        assert mine.min() == mine.max() == i
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(memory._free[LARGE]) <= 1
