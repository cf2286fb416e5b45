"""Futures of contexts, on both devices."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from engine_format import DimensionRange
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import UsageError
from tests.backends.cuda.row_programs import contents
from tests.emulation.engine import open_emulated, plan_of

MODEL = "graph main(x: f32[n,3]) {\n  y = Neg(x)\n  return y\n}"


def rows(first: float) -> np.ndarray:
    return (np.arange(6, dtype=np.float32) + np.float32(first)).reshape(2, 3)


@pytest.fixture(params=["cpu", "gpu"])
def context(request):
    plan = plan_of(MODEL)
    with load(plan, "cpu") if request.param == "cpu" else open_emulated(plan) as engine, engine.create_context() as made:
        yield made


def test_results_may_be_asked_for_in_any_order_and_again(context):
    futures = [context.enqueue({"x": rows(t)}) for t in range(6)]
    for turn in (3, 0, 5, 1, 3, 2, 4, 0):
        assert futures[turn].result()["y"].tolist() == (-rows(turn)).tolist()
        assert futures[turn].done()


def test_buffers_of_all_inputs_come_at_once_and_are_inputs(context):
    for turn in range(3):
        (buffer,) = context.staging_buffers({"x": (2, 3)})
        assert (buffer.shape, buffer.dtype) == ((2, 3), np.float32)
        buffer[...] = rows(turn)
        assert context.run_arrays([buffer])[0].tolist() == (-rows(turn)).tolist()
    context.close()
    with pytest.raises(UsageError, match="the context is closed"):
        context.staging_buffers({"x": (2, 3)})


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


BUFFERS = ("pinned_buffer", "input_buffer")


def filled(buffer, array):
    """The buffer with the array in it; one of the emulated device's lies in this process's memory."""
    (contents(buffer) if hasattr(buffer, "address") else buffer)[...] = array
    return buffer


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize("shapes", [(2, 3), [2, 3], np.zeros((2, 3)).shape, {"x": (2, 3)}, {"x": [np.int64(2), 3]}])
def test_a_buffers_shape_may_stand_alone_or_by_name(context, kind, shapes):
    buffer = filled(getattr(context, kind)("x", shapes), rows(3))
    assert buffer.shape == (2, 3)
    assert context.run({"x": buffer})["y"].tolist() == (-rows(3)).tolist()


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (2, r"input 'x': 2 is not a shape\n  hint: give a tuple of sizes, \(1, 3, 224, 224\), or shapes by name"),
        ("2x3", "input 'x': '2x3' is not a shape"),
        ((2, -3), r"input 'x': \(2, -3\) is not a shape"),
        ((2.0, 3), r"input 'x': \(2.0, 3\) is not a shape"),
        ({"x": 2}, "input 'x': 2 is not a shape"),
        ((2, 4), r"input 'x': shape 2x4 does not fit f32\[n,3\]: 4 is not 3"),
        ((2, 3, 1), r"input 'x': shape 2x3x1 has rank 3, expected f32\[n,3\]"),
        ({"z": (2, 3)}, r"there is no input 'z'\n  hint: the inputs are x: f32\[n,3\]"),
        (None, r"the shape of input 'x: f32\[n,3\]' is open\n  hint: give the shapes .*\{'x': \(n, 3,\)\}"),
    ],
)
def test_shapes_of_buffers_that_do_not_fit(context, kind, shapes, message):
    with pytest.raises(UsageError, match=message):
        getattr(context, kind)("x", shapes)


PAIR = "graph main(a: f32[n,3], b: f32[2*n,m]) {\n  c = Neg(a)\n  d = Neg(b)\n  return c, d\n}"


@pytest.mark.parametrize("kind", BUFFERS)
def test_sizes_that_no_shape_tells_are_those_of_other_inputs_or_the_optimum(kind):
    ranges = (DimensionRange("n", 1, 4, 8), DimensionRange("m", 1, 5, 8))
    with open_emulated(replace(plan_of(PAIR), ranges=ranges)) as engine, engine.create_context() as made:
        buffer = getattr(made, kind)
        assert (buffer("a").shape, buffer("b").shape) == ((4, 3), (8, 5))
        assert (buffer("b", {"a": (2, 3)}).shape, buffer("a", (6, 3)).shape) == ((4, 5), (6, 3))
        with pytest.raises(UsageError, match=r"input 'a': axis 0 \(n\) is 9, above 8, the largest of the plan"):
            buffer("a", (9, 3))
