"""Engines in forked children: on the CPU everything works, whatever the parent was at; a GPU's engine says why it does not."""

import multiprocessing
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_format import PlanFile, write_plan
from miniinfer_cli.backends.cpu import threads as cpu_threads
from miniinfer_cli.backends.cpu.blas import blas_threads
from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.backends.cpu.execution import CpuExecution
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.engine import Engine
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.forked import in_forked_child

ROWS = 600  # so many that the threads have something to do
X = np.random.default_rng(0).standard_normal((ROWS, 512)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).standard_normal((512, 512)).astype(np.float32)


def make_plan(path: Path) -> Path:
    """Exp, then a matrix product, in a file."""
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (symbol("n"), 512)))
    y = graph.add("Exp", x, type=x.tensor)
    z = graph.add("MatMul", y, graph.add_constant(WEIGHTS, "w"), type=x.tensor)
    graph.set_outputs([y, z], ["y", "z"])
    write_plan(freeze(graph), path)
    return path


@pytest.fixture
def engine(tmp_path) -> Iterator[Engine]:
    with load(make_plan(tmp_path / "m.plan"), "cpu", DeviceOptions(threads=3)) as opened:
        yield opened


def expect_right(outputs: dict[str, Any]) -> bool:
    np.testing.assert_allclose(outputs["y"], np.exp(X), rtol=1e-5)
    np.testing.assert_allclose(outputs["z"], np.exp(X) @ WEIGHTS, rtol=1e-3, atol=1e-2)
    return True


@contextmanager
def stopped_in(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, work: Any) -> Iterator[None]:
    """Within, another thread stands in the middle of ``work``, before ``owner.name`` does what it does; then it goes on."""
    original = getattr(owner, name)
    reached, go_on = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is thread:
            reached.set()
            assert go_on.wait(20)
        return original(*args, **kwargs)

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    monkeypatch.setattr(owner, name, stopping)
    thread.start()
    assert reached.wait(20)
    try:
        yield
    finally:
        go_on.set()
        thread.join()
    assert failures == []


@pytest.mark.parametrize("ran", [False, True])
def test_a_child_runs_an_engine_of_its_parent(engine, ran):
    if ran:
        engine.run({"x": X})
        assert [t for t in threading.enumerate() if t.name.startswith("miniinfer-cpu")]

    def child() -> bool:
        with engine.create_context() as context:
            expect_right(context.run({"x": X}))
        expect_right(engine.run({"x": X[:ROWS]}))
        return len([t for t in threading.enumerate() if t.name.startswith("miniinfer-cpu")]) == 2

    assert in_forked_child(child)
    expect_right(engine.run({"x": X}))


def test_children_of_children(engine):
    engine.run({"x": X})
    assert in_forked_child(
        lambda: expect_right(engine.run({"x": X})) and in_forked_child(lambda: expect_right(engine.run({"x": X})))
    )


@pytest.mark.parametrize(
    ("owner", "name"),
    [(CpuModel, "make_program"), (CpuExecution, "run"), (PlanFile, "verify")],
    ids=["making", "running", "reading"],
)
def test_a_fork_while_another_thread_runs(engine, monkeypatch, owner, name):
    context = engine.create_context()

    def everything() -> bool:
        expect_right(context.run({"x": X}))
        expect_right(engine.run({"x": X}))
        expect_right(context.enqueue({"x": X}).result())
        engine.stats()
        context.close()
        engine.close()
        return True

    with stopped_in(monkeypatch, owner, name, lambda: context.run({"x": X})):
        assert in_forked_child(everything)
    if owner is CpuExecution:  # the others are done with by now
        with stopped_in(monkeypatch, owner, name, lambda: engine.run({"x": X})):
            assert in_forked_child(everything)
    expect_right(engine.run({"x": X}))


def test_the_childs_numpy_has_its_threads_back_when_the_parent_was_in_the_middle_of_a_run(engine, monkeypatch):
    library = blas_threads()._shared[0]
    before = library.get()
    library.set(2)
    try:
        with stopped_in(monkeypatch, CpuExecution, "run", lambda: engine.run({"x": X})):
            assert library.get() == 1
            assert in_forked_child(library.get) == 2
            assert in_forked_child(lambda: (engine.run({"x": X}), library.get())[1]) == 2
        assert library.get() == 2
    finally:
        library.set(before)


def test_results_that_were_enqueued_before(engine):
    with engine.create_context() as context:
        future = context.enqueue({"x": X})
        assert in_forked_child(lambda: expect_right(future.result()))


_SHARED: list[Engine] = []


def _first_of(row: int) -> float:
    return float(_SHARED[0].run({"x": X[row : row + 1]})["y"][0, 0])


def test_a_pool_of_processes(engine):
    engine.run({"x": X})
    _SHARED[:] = [engine]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: the process has other threads
        with multiprocessing.get_context("fork").Pool(2) as pool:
            got = pool.map_async(_first_of, range(8)).get(timeout=20)
            pool.close()
            pool.join()
    np.testing.assert_allclose(got, np.exp(X[:8, 0]), rtol=1e-5)
    _SHARED.clear()


def test_a_workers_own_child(engine):
    """A worker of the pool is the thread that lives on."""
    children = []
    lock = threading.Lock()

    def body(number: int) -> None:
        with lock:
            if threading.current_thread() is not threading.main_thread() and not children:
                children.append(in_forked_child(lambda: expect_right(engine.run({"x": X}))))

    while not children:
        cpu_threads.Threads(2)(8, body)
    assert children == [True]


GPU = "graph main(x: f32[n,3]) {\n  y = Neg(x)\n  return y\n}"
ROW = np.ones((1, 3), np.float32)


def test_an_engine_on_a_gpu_says_that_it_does_not_survive():
    device = EmulatedDevice()
    with open_emulated(plan_of(GPU), device) as engine, engine.create_context() as context:
        pending = context.enqueue({"x": ROW})
        known = context.enqueue({"x": ROW})
        known.result()
        attempts = [
            lambda: engine.run({"x": ROW}),
            lambda: engine.run({"x": np.ones((2, 3), np.float32)}),
            engine.create_context,
            lambda: context.run({"x": ROW}),
            lambda: context.enqueue({"x": ROW}),
            lambda: context.try_enqueue({"x": ROW}),
            lambda: context.start([ROW]),
            lambda: context.input_buffer("x", {"x": (1, 3)}),
            lambda: context.pinned_buffer("x", {"x": (1, 3)}),
            pending.result,
            pending.done,
        ]

        def child() -> list[str]:
            said = []
            for attempt in attempts:
                with pytest.raises(DeviceError) as raised:
                    attempt()
                said.append(str(raised.value))
            assert known.done() and known.result()["y"].tolist() == [[-1] * 3]
            held = device.used
            context.close()
            engine.close()
            assert device.used == held and not device.closed, "what is the parent's was given back"
            return said

        said = in_forked_child(child)
        assert len(said) == len(attempts)
        (text,) = set(said)
        message, hint = text.split("\n  hint: ")
        assert message == "cuda:0: opened before this process was forked, and CUDA does not survive a fork"
        assert "spawn" in hint
        assert pending.result()["y"].tolist() == context.run({"x": ROW})["y"].tolist() == [[-1] * 3]


def test_a_child_does_not_wait_for_a_thread_that_waits_for_the_gpu(monkeypatch):
    from miniinfer_cli.backends.cuda.contexts.pending import Pending

    with open_emulated(plan_of(GPU)) as engine, engine.create_context() as context:
        future = context.enqueue({"x": ROW})

        def child() -> str:
            for attempt in (future.result, future.done, lambda: context.run({"x": ROW})):
                with pytest.raises(DeviceError, match="does not survive a fork"):
                    attempt()
            context.close()
            return "ended"

        with stopped_in(monkeypatch, Pending, "_settle", future.result):
            assert in_forked_child(child) == "ended"
