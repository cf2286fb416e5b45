"""A worker on a GPU begins the next full batch while one is computed: what it takes ahead, and how such requests end."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from miniinfer_cli import Batcher
from miniinfer_cli.errors import DeviceError, InputDataError
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.planning.freeze import freeze
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import Schedule
from tests.serving.staged import DOUBLE, WAIT_S, Staged, StagedContext, open_cpu, row, rows


class Queueing(Staged):
    """Contexts that have two inferences under way; while ``gate`` is not set none ends. ``begun``: releases at each."""

    def __init__(self, engine, fault=lambda _: None):
        super().__init__(engine, fault)
        self.begun = threading.Semaphore(0)

    def create_context(self):
        return QueueingContext(self)


class QueueingContext(StagedContext):
    def __init__(self, staged):
        super().__init__(staged)
        self.depth = 2

    def enqueue_arrays(self, arrays):
        staged = self._staged
        numbers = [float(v.flat[0]) for v in arrays[0]]
        staged.batches.append(numbers)
        outputs = dict(enumerate(self._context.run_arrays([a.copy() for a in arrays])))
        staged.begun.release()

        def result():
            assert staged.gate.wait(WAIT_S)
            error = staged.fault(numbers)
            if error is not None:
                raise error
            return outputs

        return SimpleNamespace(result=result)


@pytest.fixture
def engine():
    with open_cpu() as opened:
        yield opened


def test_a_full_batch_begins_while_another_is_computed(engine):
    staged = Queueing(engine)
    staged.gate.clear()
    with Batcher(staged, 2, 1e6, contexts=1) as batcher:
        futures = [batcher.submit(rows(n, n)) for n in range(4)]
        for _ in range(2):
            assert staged.begun.acquire(timeout=WAIT_S)
        assert not staged.begun.acquire(timeout=0.05)  # two are under way, and no more
        assert staged.batches == [[0, 0], [1, 1]]
        assert batcher.stats()["running"] == 2
        staged.gate.set()
        assert [f.result(WAIT_S)["y"][:, 0].tolist() for f in futures] == [[2 * n] * 2 for n in range(4)]
        assert batcher.stats()["batches"] == 4


def test_what_does_not_fill_a_batch_waits_for_more(engine):
    """Ahead it would only wait for the device; until that is free others may come to share its batch."""
    staged = Queueing(engine)
    staged.gate.clear()
    with Batcher(staged, 3, 0, contexts=1) as batcher:
        first = [batcher.submit(row(0))]
        assert staged.begun.acquire(timeout=WAIT_S)
        later = [batcher.submit(row(n)) for n in (1, 2)]
        assert not staged.begun.acquire(timeout=0.05)
        staged.gate.set()
        assert [f.result(WAIT_S)["y"][0, 0] for f in first + later] == [0, 2, 4]
    assert staged.batches == [[0], [1, 2]]


def test_who_is_first_goes_first_though_others_fill_a_batch(engine):
    text = "graph main(x: f32[n,w]) {\n  y = Add(x, x)\n  return y\n}"
    with open_cpu(text) as opened:
        staged = Queueing(opened)
        staged.gate.clear()
        with Batcher(staged, 2, 0, contexts=1) as batcher:
            first = batcher.submit(row(0))
            assert staged.begun.acquire(timeout=WAIT_S)
            other = batcher.submit(row(1, width=4))  # of another shape: it shares no batch with those that follow
            full = [batcher.submit(row(n)) for n in (2, 3, 4, 5)]
            assert not staged.begun.acquire(timeout=0.05)
            staged.gate.set()
            assert [f.result(WAIT_S)["y"][0, 0] for f in (first, other, *full)] == [0, 2, 4, 6, 8, 10]
    assert staged.batches == [[0], [1], [2, 3], [4, 5]]


def test_a_faulty_request_of_one_batch_is_no_fault_of_the_next(engine):
    def fault(numbers):
        return InputDataError("wrong") if 1.0 in numbers else None

    staged = Queueing(engine, fault)
    staged.gate.clear()
    with Batcher(staged, 2, 1e6, contexts=1) as batcher:
        futures = [batcher.submit(row(n)) for n in range(6)]
        for _ in range(2):
            assert staged.begun.acquire(timeout=WAIT_S)
        staged.gate.set()
        assert [f.exception(WAIT_S) is None for f in futures] == [True, False, True, True, True, True]
        assert isinstance(futures[1].exception(), InputDataError)
        assert [f.result()["y"][0, 0] for n, f in enumerate(futures) if n != 1] == [0, 4, 6, 8, 10]
    assert staged.batches == [[0, 1], [2, 3], [0], [1], [4, 5]]


def test_a_device_fault_is_of_the_batches_that_were_under_way(engine):
    staged = Queueing(engine, lambda numbers: DeviceError("gone") if max(numbers) < 4 else None)
    staged.gate.clear()
    with Batcher(staged, 2, 1e6, contexts=1) as batcher:
        futures = [batcher.submit(row(n)) for n in range(6)]
        for _ in range(2):
            assert staged.begun.acquire(timeout=WAIT_S)
        staged.gate.set()
        assert [type(f.exception(WAIT_S)) for f in futures] == [DeviceError] * 4 + [type(None)] * 2


def test_closing_waits_for_all_that_is_under_way(engine):
    staged = Queueing(engine)
    staged.gate.clear()
    batcher = Batcher(staged, 2, 1e6, contexts=1)
    futures = [batcher.submit(row(n)) for n in range(7)]
    for _ in range(2):
        assert staged.begun.acquire(timeout=WAIT_S)
    threading.Timer(0.05, staged.gate.set).start()
    batcher.close()
    assert [f.result(0)["y"][0, 0] for f in futures] == [2 * n for n in range(7)]


@pytest.mark.parametrize("mode", ["at once", "late", "random"])
def test_on_the_device_no_batch_overwrites_another(mode):
    with (
        open_emulated(plan_of(DOUBLE), EmulatedDevice(schedule=Schedule(mode))) as engine,
        Batcher(engine, 4, 1, contexts=2, batch_sizes=[1, 4]) as batcher,
    ):
        futures = [batcher.submit(row(n)) for n in range(120)]
        assert [f.result(WAIT_S)["y"].tolist() for f in futures] == [[[2 * n, 2, 4]] for n in range(120)]
        np.testing.assert_array_less(3, batcher.stats()["mean_batch"])


def wide_sum():
    """Its large sizes need larger buffers."""
    return plan_of("graph main(x: f32[n,100000]) {\n  y = Add(x, x)\n  return y\n}"), {"x": np.ones((1, 100000), np.float32)}


def product_in_parts():
    """With 8 rows it is computed in more parts than with 9, and needs memory for them."""
    graph = Graph()
    rows = symbol("n")
    x = graph.add_input("x", TensorType(DType.F32, (rows, 512)))
    w = graph.add_constant(np.full((512, 4), 2**-8, np.float32), "w")
    graph.set_outputs([graph.add("MatMul", x, w, type=TensorType(DType.F32, (rows, 4)))], ["y"])
    return freeze(graph), {"x": np.ones((1, 512), np.float32)}


@pytest.mark.parametrize(("made", "sizes"), [(wide_sum, [1, 2, 8]), (product_in_parts, [8, 9])])
def test_after_warming_up_nothing_is_captured_any_more(made, sizes):
    plan, one = made()
    with open_emulated(plan) as engine:
        arenas = [engine.program_for_shapes({"x": (size, *one["x"].shape[1:])}).arena_nbytes for size in sizes]
        assert (made is product_in_parts) == (arenas[0] > arenas[-1])
        with Batcher(engine, sizes[-1], 1, contexts=2, batch_sizes=sizes) as batcher:
            batcher.warm_up(one)
            captured = engine.stats()["cuda_graphs"]["captures"]
            assert captured > 0
            for count in (1, *sizes) * 6:
                for future in [batcher.submit(one) for _ in range(count)]:
                    assert future.result(WAIT_S)["y"].max() == 2
            assert engine.stats()["cuda_graphs"]["captures"] == captured
