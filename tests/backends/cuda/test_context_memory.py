"""The memory of contexts: what happens when there is too little, and that everything is given back."""

import logging

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contexts.buffers import Buffer
from miniinfer_cli.backends.cuda.contexts.io_slot import IoSlot
from miniinfer_cli.errors import DeviceError, OutOfMemoryError, UsageError
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.poison import poison

MODEL = """
graph main(x: f32[n]) {
  axis: i64[] = const 0
  y = Exp(x)
  z = Neg(y)
  w = CumSum(z, axis)
  return w
}
"""
KIB = 1 << 10


def run(context, n: int) -> None:
    x = np.zeros(n, np.float32)
    np.testing.assert_array_equal(context.run({"x": x})["w"], -np.arange(1, n + 1, dtype=np.float32))


def need(engine, n: int) -> tuple[int, int]:
    """Bytes of the arena and of one slot on the device."""
    program = engine.program(engine.check({"x": np.zeros(n, np.float32)})).made
    return program.arena_nbytes, program.io.input_nbytes + program.io.output_nbytes


def test_too_little_for_the_second_slot_costs_the_overlap_and_says_so(emulated, logged):
    with open_emulated(plan_of(MODEL), emulated) as engine, engine.create_context() as context:
        arena, slot = need(engine, 4096)
        emulated.memory_limit = emulated.used + arena + slot + 10 * KIB
        with logged.at_level(logging.WARNING):
            for _ in range(4):
                run(context, 4096)
        assert context.depth == 1
        futures = [context.enqueue({"x": np.full(4096, t, np.float32)}) for t in range(3)]
        assert [f.result()["w"][0] for f in futures] == [pytest.approx(-np.exp(t), rel=1e-6) for t in range(3)]
    assert logged.messages == [
        "memory for the inputs: 0.0 MiB needed, 0.0 MiB free on cuda:0; copies no longer overlap with computation"
    ]


def test_the_second_slot_is_given_up_for_what_the_first_needs(emulated, logged):
    with open_emulated(plan_of(MODEL), emulated) as engine, engine.create_context() as context:
        run(context, 16 * KIB)
        assert context.depth == 2
        arena, slot = need(engine, 20 * KIB)
        emulated.memory_limit = emulated.used - sum(need(engine, 16 * KIB)) - need(engine, 16 * KIB)[1] + arena + slot
        with logged.at_level(logging.WARNING):
            for _ in range(3):
                run(context, 20 * KIB)
        assert context.depth == 1
        assert len(logged.messages) == 1


@pytest.mark.parametrize("lacking", ["device", "pinned"])
@pytest.mark.parametrize("warm", [False, True])
def test_too_little_memory_says_both_numbers_and_smaller_shapes_still_run(lacking: str, warm: bool):
    device = EmulatedDevice()
    with open_emulated(plan_of(MODEL), device) as engine:
        with engine.create_context() as context:
            if warm:
                for _ in range(5):
                    run(context, 100)
            need(engine, 1 << 18)
            limit = 100 * KIB
            if lacking == "device":
                device.memory_limit = limit
            else:
                device.pinned_limit = limit
            place = (
                "memory for the (activations|inputs|outputs): 1.0 MiB needed, 0.[01] MiB free on (cuda:0|the host, to be pinned)"
            )
            for _ in range(2):
                with pytest.raises(OutOfMemoryError, match=place):
                    run(context, 1 << 18)
                memory = context._device.memory
                buffers = [memory.arena, *(getattr(memory.slots[0], n) for n in ("device_in", "device_out", "pinned_in"))]
                assert [b.nbytes for b in buffers] == [0] * 4  # others may have better use for it
                for n in (100, 1, 100):
                    for _ in range(3):
                        run(context, n)
            assert context.depth == 2
            device.memory_limit = device.pinned_limit = 1 << 30
            for _ in range(5):
                run(context, 1 << 18)
        assert context.arena_nbytes == 0
    assert device.leftovers == {}


def test_every_allocation_may_fail():
    """Whichever allocation fails, the context works once there is memory, and nothing is left at its end."""
    for lacking in range(12):
        device = EmulatedDevice()
        with open_emulated(plan_of(MODEL), device) as engine, engine.create_context() as context:
            run(context, 10)
            need(engine, 5000)
            device.allowed = lacking
            failed = False
            try:
                run(context, 5000)
            except OutOfMemoryError:
                failed = True
            assert failed == (lacking < 5)  # arena, and four buffers; the second slot may do without
            device.allowed = None
            for n in (10, 5000, 10):
                for _ in range(4):
                    run(context, n)
        assert device.leftovers == {}


def test_closing_twice_is_closing_once(emulated):
    engine = open_emulated(plan_of(MODEL), emulated)
    context = engine.create_context()
    for _ in range(5):
        run(context, 100)
    engine.run({"x": np.zeros(3, np.float32)})
    for _ in range(2):
        context.close()
    with pytest.raises(UsageError, match="the context is closed"):
        run(context, 100)
    for _ in range(2):
        engine.close()
    assert emulated.leftovers == {}


def test_an_engine_closes_the_contexts_that_are_open(emulated):
    engine = open_emulated(plan_of(MODEL), emulated)
    context = engine.create_context()
    future = context.enqueue({"x": np.zeros(3, np.float32)})
    engine.close()
    assert future.result()["w"].tolist() == [-1, -2, -3]
    context.close()
    assert emulated.leftovers == {}


def test_results_outlive_their_context(emulated):
    with open_emulated(plan_of(MODEL), emulated) as engine:
        with engine.create_context() as context:
            futures = [context.enqueue({"x": np.zeros(n, np.float32)}) for n in (3, 3, 3)]
        assert [f.done() for f in futures] == [True] * 3
        assert [f.result()["w"].tolist() for f in futures] == [[-1, -2, -3]] * 3


@pytest.mark.parametrize("number", range(6))
def test_a_context_that_cannot_be_made_leaves_nothing(number: int):
    device = EmulatedDevice()
    with open_emulated(plan_of(MODEL), device) as engine:
        before = dict(device.alive)
        device.refuse.extend([None] * number + ["no more handles"])
        with pytest.raises(DeviceError, match="no more handles"):
            engine.create_context()
        assert device.alive == before
        with engine.create_context() as context:
            run(context, 10)
    assert device.leftovers == {}


def test_a_context_that_nobody_closed_goes_with_the_engine(emulated):
    with open_emulated(plan_of(MODEL), emulated) as engine:
        contexts = [engine.create_context() for _ in range(3)]
        for context in contexts:
            run(context, 10)


def test_a_buffer_that_was_lent_goes_with_its_borrower():
    device = EmulatedDevice()
    buffer = Buffer(device.allocate, "something")
    buffer.grow(100)
    lent = buffer.lend()
    buffer.grow(200)
    assert device.used == 300
    assert lent.array[0] == poison(1)[0]
    del lent
    assert device.used == 200
    buffer.close()
    buffer.close()
    assert (device.used, buffer.nbytes) == (0, 0)


def test_a_buffer_that_cannot_grow_holds_nothing():
    device = EmulatedDevice(memory_limit=250)
    buffer = Buffer(device.allocate, "something")
    buffer.grow(100)
    with pytest.raises(OutOfMemoryError):
        buffer.grow(300)
    assert (buffer.nbytes, device.used) == (0, 0)
    buffer.grow(250)
    assert buffer.holds(buffer.address + 249)
    assert not buffer.holds(buffer.address + 250)
    buffer.close()


def test_a_slot_that_cannot_be_made_leaves_nothing():
    device = EmulatedDevice()
    device.refuse.extend([None, None, "no"])
    with pytest.raises(DeviceError, match="no"):
        IoSlot(device, 16)
    assert device.leftovers == {}
