"""Memory that a GPU copies from where it lies: which rows of a batch do, and how long it stays registered."""

import gc
import mmap
import weakref

import numpy as np
import pytest

from miniinfer_cli import Batcher
from miniinfer_cli.backends.cuda.arrays.registered import HostRows, host_rows
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.registering import Registrar, registrar_of
from miniinfer_cli.serving.batcher import Asked
from miniinfer_cli.serving.request import BatchedFuture
from tests.backends.cuda.checked_runs import keep_from_device
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import Schedule

WIDTH = 8192  # f16: rows of 16 KiB
GRAPH = f"graph main(x: f16[n,{WIDTH}]) {{\n  y = Add(x, x)\n  return y\n}}"
WAIT_S = 20


@pytest.fixture
def device():
    made = EmulatedDevice()
    yield made
    made.schedule.finish()


def rows_in(memory: np.ndarray, *counts: int) -> list[np.ndarray]:
    """Arrays of so many rows each, 64 bytes apart, with numbers of their own."""
    made, at = [], 64
    for number, count in enumerate(counts):
        array: np.ndarray = np.ndarray((count, WIDTH), np.float16, memory.data, at)
        array[...] = np.arange(WIDTH) % 100 + 100 * number
        made.append(array)
        at += array.nbytes + 64
    return made


def registered(device: EmulatedDevice, nbytes: int = 1 << 20) -> np.ndarray:
    memory = Registrar(device).register(mmap.mmap(-1, nbytes))
    assert memory is not None
    return memory


@pytest.mark.parametrize("mode", ["at once", "late", "random"])
@pytest.mark.parametrize("counts", [(1,), (1, 1), (1, 1, 1), (2, 1), (3, 4, 1)])
def test_registered_rows_reach_the_device_without_a_copy_on_the_host(mode: str, counts: tuple[int, ...]):
    device = EmulatedDevice(schedule=Schedule(mode))
    memory = registered(device)
    arrays = rows_in(memory, *counts)
    with open_emulated(plan_of(GRAPH), device) as engine:
        with Batcher(engine, 8, 1e6, contexts=1, batch_sizes=[1, 4, 8]) as batcher:
            futures = [batcher.submit({"x": array}) for array in arrays]
            batcher.close()
            for future, array in zip(futures, arrays, strict=True):
                np.testing.assert_array_equal(future.result(WAIT_S)["y"], array * 2)
        size = next(s for s in (1, 4, 8) if s >= sum(counts))
        gathered = [nbytes for way, nbytes in device.copies if way == "gathered to device"]
        assert sum(gathered) == size * WIDTH * 2
        assert not any(way == "to device" and nbytes >= WIDTH * 2 for way, nbytes in device.copies)
    del memory, arrays, array, future, futures
    gc.collect()
    assert device.leftovers == {}


@pytest.mark.parametrize("mode", ["at once", "late", "random"])
@pytest.mark.parametrize("overlap", [True, False])
def test_batches_side_by_side_have_their_own_rows(mode: str, overlap: bool):
    device = EmulatedDevice(schedule=Schedule(mode))
    arrays = rows_in(registered(device, 4 << 20), *[1 + number % 3 for number in range(40)])
    with (
        open_emulated(plan_of(GRAPH), device, options=DeviceOptions(overlap=overlap)) as engine,
        Batcher(engine, 8, 0, contexts=2, batch_sizes=[1, 4, 8]) as batcher,
    ):
        for _ in range(3):
            asked = [Asked({"x": array}) for array in arrays]
            futures = batcher.submit_all(asked, lambda ended: None)
            for future, array in zip(futures, arrays, strict=True):
                assert isinstance(future, BatchedFuture)
                np.testing.assert_array_equal(future.result(WAIT_S)["y"], array * 2)


def test_a_batch_with_a_row_elsewhere_is_put_together_on_the_host(device):
    arrays = [*rows_in(registered(device), 1, 1), np.full((1, WIDTH), 7, np.float16)]
    with open_emulated(plan_of(GRAPH), device) as engine, Batcher(engine, 3, 1e6, contexts=1) as batcher:
        futures = [batcher.submit({"x": array}) for array in arrays]
        for future, array in zip(futures, arrays, strict=True):
            np.testing.assert_array_equal(future.result(WAIT_S)["y"], array * 2)
        assert ("gathered to device", WIDTH * 2) not in device.copies


def test_rows_are_gathered_for_steps_of_the_host(device, monkeypatch):
    keep_from_device(monkeypatch, "Erf")
    text = f"graph main(x: f16[n,{WIDTH}]) {{\n  e = Erf(x)\n  y = Add(x, e)\n  return y\n}}"
    arrays = rows_in(registered(device), 1, 2)
    with open_emulated(plan_of(text), device) as engine:
        expected = [engine.run({"x": array})["y"] for array in arrays]
        with Batcher(engine, 4, 1e6, contexts=1, batch_sizes=[4]) as batcher:
            futures = [batcher.submit({"x": array}) for array in arrays]
            batcher.close()
            for future, alone in zip(futures, expected, strict=True):
                np.testing.assert_array_equal(future.result(WAIT_S)["y"], alone)
    assert not any(way == "gathered to device" for way, _ in device.copies)


def test_an_input_that_decides_shapes_is_wanted_on_the_host(device):
    text = "graph main(x: f32[n,4], k: i64[2]) {\n  y = Reshape(x, k)\n  return y\n}"
    with open_emulated(plan_of(text), device) as engine:
        assert engine.host_inputs == {"k"}


def test_rows_in_one_piece_on_the_host(device):
    arrays = rows_in(registered(device), 1, 1)
    given = host_rows(arrays, 2)
    assert isinstance(given, HostRows)
    assert (given.shape, given.dtype, given.nbytes) == ((4, WIDTH), np.dtype(np.float16), 4 * WIDTH * 2)
    np.testing.assert_array_equal(given.gathered(), np.concatenate([*arrays, arrays[-1], arrays[-1]]))


def test_what_is_cancelled_while_it_is_copied_stays_registered_until_then():
    device = EmulatedDevice(schedule=Schedule("late"))
    memory = registered(device)
    gone: list[int] = []
    with open_emulated(plan_of(GRAPH), device) as engine, Batcher(engine, 2, 0, contexts=1) as batcher:
        arrays = rows_in(memory, 2)
        weakref.finalize(arrays[0], lambda: gone.append(len(device.copies)))
        future = batcher.submit({"x": arrays.pop()})
        del memory
        future.cancel()
        gc.collect()
    assert len(gone) == 1
    gc.collect()
    assert not device.registered  # had it gone before, the emulated copy would have failed


def test_no_more_is_registered_than_may_be(device):
    registrar = Registrar(device, most_nbytes=1 << 20)
    first = registrar.register(mmap.mmap(-1, 3 << 18))
    assert first is not None and first.nbytes == 3 << 18
    assert registrar.register(mmap.mmap(-1, 2 << 18)) is None
    assert registrar.register(mmap.mmap(-1, 4096)) is None  # too few to be worth it
    part = first[10:20].view(np.uint16)
    del first
    assert sum(device.registered.values()) == 3 << 18  # an array of it is there
    del part
    registrar.collect()
    assert not device.registered
    assert registrar.register(mmap.mmap(-1, 2 << 18)) is not None


def test_what_the_driver_does_not_take_stays_as_it_is(device, capsys):
    device.allowed = 0
    assert Registrar(device).register(mmap.mmap(-1, 1 << 20)) is None
    assert "shared memory is not registered" in capsys.readouterr().err


def test_there_is_none_for_a_cpu():
    assert registrar_of(["cpu"]) is None


def test_memory_that_is_registered_no_more_is_copied_on_the_host(device):
    memory = registered(device)
    arrays = rows_in(memory, 1)
    assert host_rows(arrays) is not None
    memory.base.memory.close()
    assert host_rows(arrays) is None
    assert host_rows([np.zeros((1, WIDTH), np.float16)]) is None
    assert host_rows([arrays[0][:, ::2]]) is None
