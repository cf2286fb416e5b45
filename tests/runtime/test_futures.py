"""Futures of contexts, on both devices."""

import threading

import numpy as np
import pytest

from miniinfer_cli.errors import UsageError
from miniinfer_cli.runtime.engine import Engine
from tests.emulation.engine import open_emulated, plan_of

MODEL = "graph main(x: f32[n,3]) {\n  y = Neg(x)\n  return y\n}"


def rows(first: float) -> np.ndarray:
    return (np.arange(6, dtype=np.float32) + np.float32(first)).reshape(2, 3)


@pytest.fixture(params=["cpu", "gpu"])
def context(request):
    plan = plan_of(MODEL)
    with Engine(plan, "cpu") if request.param == "cpu" else open_emulated(plan) as engine, engine.create_context() as made:
        yield made


def test_results_may_be_asked_for_in_any_order_and_again(context):
    futures = [context.enqueue({"x": rows(t)}) for t in range(6)]
    for turn in (3, 0, 5, 1, 3, 2, 4, 0):
        assert futures[turn].result()["y"].tolist() == (-rows(turn)).tolist()
        assert futures[turn].done()


def test_a_result_is_the_callers_own(context):
    first = context.enqueue({"x": rows(0)}).result()["y"]
    for turn in range(1, 5):
        context.enqueue({"x": rows(turn)}).result()["y"][...] = 99
    assert first.tolist() == (-rows(0)).tolist()


def test_try_enqueue_gives_a_future_where_nothing_waits(context):
    future = context.try_enqueue({"x": rows(1)})
    assert future.result()["y"].tolist() == (-rows(1)).tolist()


def test_inputs_are_checked_before_anything_is_started(context):
    for act in (context.enqueue, context.try_enqueue):
        with pytest.raises(UsageError, match="unknown 'z'"):
            act({"x": rows(0), "z": rows(0)})
    assert context.enqueue({"x": rows(2)}).result()["y"].tolist() == (-rows(2)).tolist()


def test_a_closed_context_starts_nothing_and_keeps_what_it_has(context):
    future = context.enqueue({"x": rows(1)})
    context.close()
    for act in (context.enqueue, context.try_enqueue, context.run):
        with pytest.raises(UsageError, match="the context is closed"):
            act({"x": rows(0)})
    with pytest.raises(UsageError, match="the context is closed"):
        context.input_buffer("x", {"x": (2, 3)})
    assert future.result()["y"].tolist() == (-rows(1)).tolist()


def test_many_threads_may_ask_for_one_result(context):
    future = context.enqueue({"x": rows(7)})
    found: list[dict] = []
    threads = [threading.Thread(target=lambda: found.append(future.result())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(f["y"] is found[0]["y"] for f in found)
    assert found[0]["y"].tolist() == (-rows(7)).tolist()


def test_buffers_to_fill_are_inputs(context):
    for turn in range(3):
        buffer = context.pinned_buffer("x", {"x": (2, 3)})
        buffer[...] = rows(turn)
        assert context.run({"x": buffer})["y"].tolist() == (-rows(turn)).tolist()
