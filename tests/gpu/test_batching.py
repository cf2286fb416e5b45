"""Batchers on a GPU: pinned buffers that are filled while others are copied from, and contexts side by side."""

import contextlib
import mmap

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.devices.opening import load
from miniinfer_cli.devices.registering import Registrar
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.serving.batcher import Asked
from miniinfer_cli.serving.request import BatchedFuture
from tests.emulation.engine import plan_of
from tests.gpu.plans import sizes_of, small
from tests.serving.stress import stress

WAIT_S = 60
NET = """graph main(x: f32[n,s,8], k: i64[n,1]) {
  t: f32[3] = const [0.5, 1.5, 2.5]
  g = Gather(t, k)
  f: i64[3] = const [0, 1, 1]
  r = Reshape(g, f)
  m = Mul(x, r)
  y = Softmax(m) {axis=2}
  return y, k
}"""


@pytest.mark.parametrize("contexts", [1, 2, 4])
def test_requests_have_what_they_have_alone(contexts):
    random = np.random.default_rng(contexts)
    with load(plan_of(NET), "cuda:0") as engine:
        given = [
            {"x": random.standard_normal((rows, width, 8), np.float32), "k": random.integers(0, 3, (rows, 1))}
            for rows, width in zip(random.integers(1, 5, 200).tolist(), random.choice([1, 7, 16], 200).tolist(), strict=True)
        ]
        expected = [engine.run(inputs) for inputs in given]
        with miniinfer_cli.Batcher(engine, 16, 0.2, contexts=contexts, batch_sizes=[1, 4, 16]) as batcher:
            futures = [batcher.submit(inputs) for inputs in given]
            for future, alone in zip(futures, expected, strict=True):
                found = future.result(WAIT_S)
                np.testing.assert_array_equal(found["k"], alone["k"])
                np.testing.assert_allclose(found["y"], alone["y"], rtol=1e-5, atol=1e-6)
            assert batcher.stats()["mean_batch"] > 2


@pytest.mark.parametrize("contexts", [1, 2])
def test_rows_in_registered_memory_are_computed_as_others_are(contexts):
    """The GPU copies them from where they lie, beside rows elsewhere, which are put together on the host."""
    width, count = 20_000, 120
    random = np.random.default_rng(contexts)
    plan = plan_of(f"graph main(x: f32[n,{width}]) {{\n  y = Relu(x)\n  return y\n}}")
    with (
        contextlib.closing(Registrar(open_device(0))) as registrar,
        load(plan, "cuda:0") as engine,
        miniinfer_cli.Batcher(engine, 16, 0.2, contexts=contexts) as batcher,
    ):
        memory = registrar.register(mmap.mmap(-1, count * 4 * width * 4))
        assert memory is not None
        given = []
        for number, rows in enumerate(random.integers(1, 5, count).tolist()):
            there: np.ndarray = np.ndarray((rows, width), np.float32, memory.data, number * 4 * width * 4)
            there[...] = random.standard_normal((rows, width), np.float32)
            given.append(there if number % 40 or number == 0 else there.copy())
        for _ in range(3):
            futures = batcher.submit_all([Asked({"x": array}) for array in given], lambda ended: None)
            for future, array in zip(futures, given, strict=True):
                assert isinstance(future, BatchedFuture)
                np.testing.assert_array_equal(future.result(WAIT_S)["y"], np.maximum(array, 0))
        assert batcher.stats()["batches"] < 3 * count / 2  # they came together


def test_inputs_that_lie_on_the_gpu_are_batched_too():
    plan = plan_of("graph main(x: f32[n,3]) {\n  y = Neg(x)\n  return y\n}")
    with (
        load(plan, "cuda:0") as engine,
        engine.create_context() as context,
        miniinfer_cli.Batcher(engine, 4, 1) as batcher,
    ):
        there = context.enqueue({"x": np.ones((1, 3), np.float32)}, on_device=True).result()["y"]
        futures = [batcher.submit({"x": there}), batcher.submit({"x": np.full((2, 3), 5, np.float32)})]
        assert [f.result(WAIT_S)["y"].tolist() for f in futures] == [[[1, 1, 1]], [[-5, -5, -5]] * 2]


def test_each_of_many_requests_ends_once_and_as_it_should():
    stress(3000, seed=3, device="cuda:0")


@pytest.mark.parametrize("name", ["bert_base", "resnet50"])
def test_after_warming_up_nothing_is_captured_any_more(name):
    """Whatever its sizes want of memory: a small one may want a larger workspace than a large one."""
    plan = small(name, "f16")
    with load(plan, "cuda:0") as engine:
        one = random_inputs(engine.inputs, engine.ranges, {b.name: sizes_of(b, 1) for b in engine.inputs}, {}, 0)
        with miniinfer_cli.Batcher(engine, 64, 1, contexts=2, batch_sizes=[1, 8, 64]) as batcher:
            batcher.warm_up(one)
            captured = engine.stats()["cuda_graphs"]["captures"]
            assert captured > 0
            for count in (1, 8, 64, 200) * 4:
                for future in [batcher.submit(one) for _ in range(count)]:
                    future.result(WAIT_S)
            assert engine.stats()["cuda_graphs"]["captures"] == captured
