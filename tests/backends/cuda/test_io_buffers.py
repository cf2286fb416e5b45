"""An engine's own arrays on the device: outputs that stay there, and the buffers that the next inference reads."""

import ctypes

import numpy as np
import pytest

from miniinfer_cli.backends import dlpack
from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.errors import UsageError
from tests.backends.cuda.row_programs import PAIR, contents, rows
from tests.emulation.engine import open_emulated, plan_of


@pytest.fixture
def engine(emulated):
    with open_emulated(plan_of(PAIR), emulated) as opened:
        yield opened


def test_outputs_stay_on_the_device_when_asked(engine, emulated):
    with engine.create_context() as context:
        inputs = {"a": rows(2, 4), "b": rows(2)}
        context.run(inputs)
        del emulated.copies[:]
        out = context.enqueue(inputs, on_device=True).result()["d"]
        assert isinstance(out, DeviceArray)
        assert (out.shape, contents(out).tolist()) == ((2, 3), [[4] * 3] * 2)
        assert emulated.copies == [("to device", 512)]
        # ... and are inputs of the next inference
        assert context.run({"a": out, "b": rows(2)})["d"].tolist() == (4 - rows(2)).tolist()


def test_outputs_on_the_device_outlive_growth_and_context(engine):
    with engine.create_context() as context:
        out = context.enqueue({"a": rows(2, 4), "b": rows(2)}, on_device=True).result()["d"]
        context.run({"a": rows(900), "b": rows(900)})
        assert contents(out).tolist() == [[4] * 3] * 2
        assert context.run({"a": out, "b": rows(2)})["d"].tolist() == (4 - rows(2)).tolist()
        kept = context.enqueue({"a": rows(2, 6), "b": rows(2)}, on_device=True).result()["d"]
        taken = dlpack.take(kept.__dlpack__())
        del kept
    assert np.frombuffer(ctypes.string_at(taken.address, 24), np.float32).tolist() == [6] * 6


def test_a_loop_over_outputs_stays_on_the_device(engine, emulated):
    with engine.create_context() as context:
        state: object = rows(2, 100)
        one = rows(2)
        for _ in range(10):
            state = context.enqueue({"a": state, "b": one}, on_device=True).result()["d"]
        assert contents(state).tolist() == (rows(2, 100) - 10 * rows(2)).tolist()


def test_input_buffers_take_no_copy(engine, emulated):
    shapes = {"a": (2, 3), "b": (2, 3)}
    with engine.create_context() as context:
        for turn in range(5):
            buffers = {name: context.input_buffer(name, shapes) for name in ("a", "b")}
            contents(buffers["a"])[...] = rows(2, turn)
            contents(buffers["b"])[...] = rows(2)
            del emulated.copies[:]
            assert context.run(buffers)["d"].tolist() == [[turn] * 3] * 2
            assert [way for way, _ in emulated.copies] == ["to host"]


def test_pinned_buffers_take_one_copy_and_no_staging(engine, emulated, monkeypatch):
    shapes = {"a": (2, 3), "b": (2, 3)}
    with engine.create_context() as context:
        for turn in range(5):
            buffers = {name: context.pinned_buffer(name, shapes) for name in ("a", "b")}
            buffers["a"][...], buffers["b"][...] = rows(2, turn), rows(2)
            del emulated.copies[:]
            with monkeypatch.context() as patch:
                patch.setattr(np, "copyto", None)
                assert context.run(buffers)["d"].tolist() == [[turn] * 3] * 2
            assert [way for way, _ in emulated.copies] == ["to device", "to host"]


def test_buffers_given_as_each_others_inputs_change_places(engine):
    shapes = {"a": (3, 3), "b": (3, 3)}
    with engine.create_context() as context:
        for kind in ("input_buffer", "pinned_buffer"):
            for _ in range(4):
                a, b = (getattr(context, kind)(name, shapes) for name in ("a", "b"))
                for buffer, values in ((a, rows(3, 9)), (b, rows(3))):
                    (contents(buffer) if kind == "input_buffer" else buffer)[...] = values
                assert context.run({"a": b, "b": a})["d"].tolist() == [[-9] * 3] * 3


def test_a_transposed_view_of_a_pinned_buffer_is_read_as_such(engine):
    shapes = {"a": (3, 3), "b": (3, 3)}
    with engine.create_context() as context:
        for _ in range(3):
            a = context.pinned_buffer("a", shapes)
            a[...] = rows(3)
            assert context.run({"a": a.T, "b": np.zeros((3, 3), np.float32)})["d"].tolist() == rows(3).T.tolist()


def test_buffers_stay_memory_when_the_context_has_moved_on(engine):
    with engine.create_context() as context:
        shapes = {"a": (2, 3), "b": (2, 3)}
        pinned, buffer = context.pinned_buffer("a", shapes), context.input_buffer("a", shapes)
        pinned[...], contents(buffer)[...] = rows(2, 1), rows(2, 2)
        context.run({"a": rows(700), "b": rows(700)})
        assert context.run({"a": pinned, "b": buffer})["d"].tolist() == [[-1] * 3] * 2
    pinned[...] = 5  # no longer anybody's, and still ours
    assert pinned.tolist() == [[5] * 3] * 2


def test_buffers_want_shapes_and_tensors(emulated):
    text = "graph main(x: f32[n], s: str[2]) {\n  y = Neg(x)\n  t = Identity(s)\n  return y, t\n}"
    with open_emulated(plan_of(text), emulated) as engine, engine.create_context() as context:
        with pytest.raises(UsageError, match=r"there is no input 'z'\n  hint: the inputs are x: f32\[n\], s: str\[2\]"):
            context.input_buffer("z")
        with pytest.raises(UsageError, match=r"the shape of input 'x: f32\[n\]' is open\n  hint: give the shapes"):
            context.input_buffer("x")
        with pytest.raises(UsageError, match="input 's' is no tensor of numbers"):
            context.input_buffer("s", {"x": (2,)})
        x = context.pinned_buffer("x", {"x": (2,)})
        x[...] = [1, 2]
        outputs = context.run({"x": x, "s": np.array(["a", "b"])})
        assert (outputs["y"].tolist(), outputs["t"].tolist()) == ([-1, -2], ["a", "b"])
