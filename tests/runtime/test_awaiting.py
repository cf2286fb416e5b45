"""Futures of contexts under asyncio, and as futures of the standard library, on both devices."""

import asyncio
import threading
from concurrent import futures

import numpy as np
import pytest

from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError
from tests.emulation.engine import open_emulated, plan_of

MODEL = "graph main(x: f32[n,3]) {\n  y = Neg(x)\n  return y\n}"


def rows(first: float) -> np.ndarray:
    return (np.arange(6, dtype=np.float32) + np.float32(first)).reshape(2, 3)


def watching() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("miniinfer-watch")]


@pytest.fixture(params=["cpu", "gpu"])
def context(request):
    plan = plan_of(MODEL)
    with load(plan, "cpu") if request.param == "cpu" else open_emulated(plan) as engine, engine.create_context() as made:
        yield made


class Held:
    """A pending inference that ends when it is told to: with its outputs, or with an error."""

    enqueue_ns = 0
    times_ms = None

    def __init__(self, pending, fault=None):
        self.pending, self.fault = pending, fault
        self.ended = threading.Event()

    def done(self):
        return self.ended.is_set()

    def wait(self):
        self.ended.wait()

    def result(self):
        self.ended.wait()
        if self.fault is not None:
            raise self.fault
        return self.pending.result()


def held(context, first: float, fault=None):
    future = context.enqueue({"x": rows(first)})
    future._pending = Held(future._pending, fault)
    return future, future._pending.ended


def test_results_are_awaited_side_by_side(context):
    async def main():
        found = await asyncio.gather(*(one(t) for t in range(5)))
        future = context.enqueue({"x": rows(9)})
        return [*found, await future, await future]

    async def one(turn):
        return await context.enqueue({"x": rows(turn)})

    results = asyncio.run(main())
    assert [r["y"].tolist() for r in results] == [(-rows(t)).tolist() for t in (0, 1, 2, 3, 4, 9, 9)]
    assert results[-1]["y"] is results[-2]["y"]


def test_the_loop_goes_on_while_the_device_computes(context):
    seen = []

    async def main():
        future, ended = held(context, 3)
        assert watching() == []  # nobody waits yet
        asyncio.get_running_loop().call_later(0.01, lambda: (seen.extend(watching()), ended.set()))
        return await future

    assert asyncio.run(main())["y"].tolist() == (-rows(3)).tolist()
    assert len(seen) == 1


def test_what_has_ended_needs_no_thread_and_gives_the_loop_a_turn(context):
    turns, before = [], watching()

    async def main():
        future = context.enqueue({"x": rows(1)})
        future.result()
        asyncio.get_running_loop().call_soon(turns.append, 1)
        await future
        assert future.as_concurrent().result(0)["y"].tolist() == (-rows(1)).tolist()

    asyncio.run(main())
    assert turns == [1]
    assert set(watching()) <= set(before)  # those of other tests may be ending


def test_errors_come_to_whoever_awaits(context):
    fault = DeviceError("the device was lost")
    future, ended = held(context, 2, fault)

    async def main():
        asyncio.get_running_loop().call_later(0.01, ended.set)
        with pytest.raises(DeviceError, match="the device was lost"):
            await future

    asyncio.run(main())
    assert future.as_concurrent().exception(0) is fault
    assert context._engine.stats()["failures"] == 1


def test_cancelling_who_awaits_leaves_the_inference(context):
    future, ended = held(context, 4)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_awaited(future), 0.01)
        other = asyncio.ensure_future(_awaited(future))
        await asyncio.sleep(0)
        ended.set()
        return await other

    assert asyncio.run(main())["y"].tolist() == (-rows(4)).tolist()
    assert future.result()["y"].tolist() == (-rows(4)).tolist()


async def _awaited(future):
    return await future


def test_a_loop_that_was_closed_meanwhile_is_left_alone(context, logged):
    future, ended = held(context, 5)
    loop = asyncio.new_event_loop()
    task = loop.create_task(_awaited(future))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    watched = future.as_concurrent()
    ended.set()
    assert watched.result(5)["y"].tolist() == (-rows(5)).tolist()
    context.close()
    assert logged.records == []
    task._log_destroy_pending = False


def test_wrap_future_and_wait_take_them(context):
    async def main():
        return await asyncio.wrap_future(context.enqueue({"x": rows(6)}).as_concurrent())

    assert asyncio.run(main())["y"].tolist() == (-rows(6)).tolist()
    waited = [context.enqueue({"x": rows(t)}).as_concurrent() for t in range(4)]
    done, _ = futures.wait(waited, 5)
    assert done == set(waited)
    assert [w.result()["y"][0, 0] for w in waited] == [0, -1, -2, -3]


def test_a_closed_context_still_gives_what_it_has(context):
    future = context.enqueue({"x": rows(7)})
    context.close()
    assert asyncio.run(_awaited(future))["y"].tolist() == (-rows(7)).tolist()
