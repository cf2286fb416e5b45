"""The matrix library is held to one thread while a program runs, and has its number again afterwards."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from miniinfer_cli.backends.cpu.blas import BlasThreads, Library, blas_threads
from miniinfer_cli.devices.opening import load
from tests.emulation.engine import plan_of


class Fake:
    """A library with a number for the process, or for each thread."""

    def __init__(self, number, by_thread=False):
        self._by_thread = by_thread
        self._first = number
        self._number = threading.local() if by_thread else type("Shared", (), {})()
        self.sets = 0

    def get(self):
        return getattr(self._number, "value", self._first)

    def set(self, number):
        self._number.value = number
        self.sets += 1

    @property
    def library(self):
        return Library(self.get, self.set, self._by_thread)


def test_the_number_is_there_again():
    fakes = [Fake(8), Fake(1), Fake(6, by_thread=True)]
    threads = BlasThreads([f.library for f in fakes])
    with threads:
        assert [f.get() for f in fakes] == [1, 1, 1]
        with threads:
            assert [f.get() for f in fakes] == [1, 1, 1]
        assert [f.get() for f in fakes] == [1, 1, 1]
    assert [f.get() for f in fakes] == [8, 1, 6]
    assert [f.sets for f in fakes] == [2, 0, 2]  # nothing is set that is so already


def test_the_last_of_several_runs_sets_it_again():
    shared, own = Fake(8), Fake(6, by_thread=True)
    threads = BlasThreads([shared.library, own.library])
    entered, leave, left = threading.Event(), threading.Event(), []

    def other():
        with threads:
            entered.set()
            assert leave.wait(20)
            left.append((shared.get(), own.get()))
        left.append(own.get())

    thread = threading.Thread(target=other)
    with threads:
        thread.start()
        assert entered.wait(20)
    assert (shared.get(), own.get()) == (1, 6)  # this one ended, the other goes on
    leave.set()
    thread.join()
    assert (shared.get(), left) == (8, [(1, 1), 6])


def test_a_number_that_the_caller_set_meanwhile_stays():
    shared = Fake(8)
    with BlasThreads([shared.library]):
        shared.set(3)
    assert shared.get() == 3


def test_it_is_set_again_when_a_run_fails():
    shared = Fake(8)
    with pytest.raises(ValueError, match="it"), BlasThreads([shared.library]):
        raise ValueError("it")
    assert shared.get() == 8


def test_workers_of_the_pool_are_limited_for_good():
    shared, own = Fake(8), Fake(6, by_thread=True)
    BlasThreads([shared.library, own.library]).limit_worker()
    assert (shared.get(), own.get()) == (8, 1)


def test_numpys_own_library_is_found_and_set_from_any_thread():
    (found, *_) = [c for c in ThreadpoolController().lib_controllers if c.user_api == "blas"]
    before = found.num_threads
    library = blas_threads()._shared[0]
    seen = []

    def run():
        library.set(2)
        with blas_threads():
            seen.append(found.num_threads)
        seen.append(found.num_threads)

    try:
        for target in (run, lambda: threading.Thread(target=run)):
            made = target()
            if made is not None:
                made.start()
                made.join()
    finally:
        library.set(before)
    assert seen == [1, 2] * 2


def test_a_run_leaves_numpy_as_it_was(monkeypatch):
    inside = []
    library = blas_threads()._shared[0]
    before = library.get()
    library.set(2)
    multiply = np.matmul
    monkeypatch.setattr(np, "matmul", lambda *a, **k: (inside.append(library.get()), multiply(*a, **k))[1])
    try:
        with load(plan_of("graph main(x: f32[n,n]) {\n  y = MatMul(x, x)\n  return y\n}"), "cpu") as engine:
            engine.run({"x": np.eye(4, dtype=np.float32)})
            assert library.get() == 2
            with engine.create_context() as context:
                context.enqueue({"x": np.eye(4, dtype=np.float32)}).result()
            assert library.get() == 2
    finally:
        library.set(before)
    assert inside == [1, 1]


def test_importing_the_package_looks_for_no_library():
    code = "import sys, miniinfer_cli, miniinfer_cli.runtime.stats; print('threadpoolctl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
