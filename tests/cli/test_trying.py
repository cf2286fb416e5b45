"""Trials of a diagnosis: each kind of change is made and measured, within the time that there is."""

from unittest import mock

import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli.cli import measuring, trying
from miniinfer_cli.cli.measuring import Bench
from miniinfer_cli.cli.trying import try_all
from miniinfer_cli.cli.wanted import Wanted
from miniinfer_cli.devices import opening
from miniinfer_cli.diagnosis.change import Change
from miniinfer_cli.diagnosis.trials import Trial
from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.measuring.benchmark import Schedule
from tests.emulation.engine import load_emulated


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(trying, "_SEGMENT_S", 0.0)
    monkeypatch.setattr(trying, "_WARM_UP_MS", 0.0)
    monkeypatch.setattr(trying, "_OPENING_S", 0.0)


def wanted(plan, device: str) -> Wanted:
    defaults = opening.DEFAULT_OPTIONS
    return Wanted(plan, (), {}, 0, Schedule(1, 0, 0), 1, None, None, None, (99.0,), device, defaults, (), ())


def results(plan, device: str, *changes: Change, most_s: float = 60.0):
    trials = [Trial(f"change {i}", change, "", "") for i, change in enumerate(changes)]
    with opening.load(plan, device) as engine:
        bench = Bench.of(wanted(plan, device), engine, {})
        return list(try_all(bench, trials, 0.01, most_s))


UNSURE = {"too unsteady to tell", "too little time to tell"}
CROWDED = "too much other work on the processors to tell"
EVERYWHERE = (
    *(Change(streams=2), Change(batch=8), Change(full=True), Change(tf32=True), Change(fixed=True), Change(uint8=("x",))),
    *(Change(half=True), Change(pinned=True)),
)


def test_every_change_can_be_measured_on_a_cpu(plan):
    found = results(plan, "cpu", *EVERYWHERE[:-1], Change(options={"threads": 2}))
    assert {t.reason for t in found} <= {"", *UNSURE, CROWDED}
    assert all(t.gain is not None for t in found)


def test_every_change_can_be_measured_on_a_gpu(plan):
    with mock.patch.object(opening, "load_model", load_emulated()):
        found = results(plan, "cuda:0", *EVERYWHERE, Change(options={"cuda_graph": False}))
    assert {t.reason for t in found} <= {"", *UNSURE, CROWDED}
    assert all(t.gain is not None for t in found)


@pytest.mark.parametrize(
    ("foreign", "gain", "change", "claimed"),
    [
        (2.0, 0.3, Change(batch=8), False),
        (2.0, 0.8, Change(batch=8), True),  # plain all the same
        (2.0, 0.8, Change(streams=2), False),
        (2.0, 0.8, Change(options={"threads": 2}), False),
        (0.0, 0.3, Change(streams=2), True),
        (None, 0.3, Change(streams=2), True),  # nobody can tell
    ],
)
def test_on_a_crowded_cpu_only_plain_gains_are_claimed(plan, monkeypatch, foreign, gain, change, claimed):
    monkeypatch.setattr(trying, "foreign_cores", lambda before, after: foreign)
    monkeypatch.setattr(trying, "_pairs", lambda *_: [(1.0, 1.0 - gain)] * 3)
    (found,) = results(plan, "cpu", change)
    assert (found.advice is not None) == claimed
    assert found.reason == ("" if claimed else CROWDED)


def test_what_others_do_on_the_host_is_no_matter_of_a_gpu(plan, monkeypatch):
    monkeypatch.setattr(trying, "foreign_cores", lambda before, after: 9.0)
    monkeypatch.setattr(trying, "_pairs", lambda *_: [(1.0, 0.7)] * 3)
    with mock.patch.object(opening, "load_model", load_emulated()):
        (found,) = results(plan, "cuda:0", Change(streams=2))
    assert found.advice is not None


def test_what_a_changed_plan_computes_is_measured_not_the_plan(plan):
    """The engine that is measured has the change: other types, other outputs, other sizes."""
    with opening.load(plan, "cpu") as engine:
        bench = Bench.of(wanted(plan, "cpu"), engine, {})
        with trying._changed(bench, Change(uint8=("x",))) as other:
            assert [str(b.type) for b in other.engine.inputs] == ["u8[batch,4]"] and other.arrays[0].dtype == "uint8"
        with trying._changed(bench, Change(half=True)) as other:
            assert any(v.tensor.dtype == "f16" for v in other.engine.graph.constants())
        with trying._changed(bench, Change(fixed=True)) as other:
            assert [str(b) for b in other.engine.inputs] == ["x: f32[1,4]"]
        with trying._changed(bench, Change(batch=8)) as other:
            assert other.engine is engine and other.arrays[0].shape == (8, 4)
        with trying._changed(bench, Change(streams=3)) as other:
            assert other.engine is engine and other.wanted.streams == 3
        with trying._changed(bench, Change(options={"threads": 2})) as other:
            assert other.engine is not engine and other.engine.model.facts()["threads"] == 2


def test_an_output_that_is_left_out(tmp_path, miniinfer):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in ("y", "h")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "two.onnx")
    assert miniinfer("build", tmp_path / "two.onnx", "-q").code == 0
    with opening.load(tmp_path / "two.plan", "cpu") as engine:
        bench = Bench.of(wanted(tmp_path / "two.plan", "cpu"), engine, {})
        with trying._changed(bench, Change(without=("h",))) as other:
            assert [b.name for b in other.engine.outputs] == ["y"]


def test_without_time_nothing_is_tried(plan):
    assert [(t.reason, t.gain, t.advice) for t in results(plan, "cpu", Change(streams=2), most_s=0.0)] == [
        ("no time left", None, None)
    ]


def test_what_cannot_be_is_told_and_the_rest_goes_on(plan):
    """A batch beyond what the plan may have; then one that memory does not hold; then something that works."""
    real = measuring.Bench.of.__func__

    def short_of_memory(cls, wanted, engine, given):
        if wanted.batch == 16:
            raise OutOfMemoryError("arena: no memory left")
        if wanted.batch == 32:
            raise MemoryError
        return real(cls, wanted, engine, given)

    with mock.patch.object(measuring.Bench, "of", classmethod(short_of_memory)):
        found = results(plan, "cpu", Change(batch=16), Change(batch=32), Change(batch=8))
    assert [t.reason for t in found][:2] == ["cannot be: arena: no memory left", "memory ran out"]
    assert found[2].gain is not None
    assert str(found[0]) == "change 0 (cannot be: arena: no memory left)"


def test_a_long_run_has_long_trials():
    assert [trying.trial_seconds(s) for s in (0, 0.5, 1, 3, 10)] == [0, 3, 6, 6, 20]


def test_a_bug_is_no_trial_that_failed(plan):
    with mock.patch.object(trying, "_wall_ms", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        results(plan, "cpu", Change(streams=2))


def test_a_larger_batch_is_compared_by_its_samples(plan):
    """Twice the time for eight times the samples: a quarter of the time for as many."""
    with mock.patch.object(trying, "_wall_ms", side_effect=lambda bench, count: 2.0 if bench.wanted.batch == 8 else 1.0):
        (found,) = results(plan, "cpu", Change(batch=8))
    assert found.gain == 0.75
    assert found.advice is not None and found.advice.gain is not None
    assert (found.advice.gain.before_ms, found.advice.gain.after_ms) == (0.01, pytest.approx(0.0025))
    with mock.patch.object(trying, "_wall_ms", side_effect=lambda bench, count: 9.0 if bench.wanted.batch == 8 else 1.0):
        (found,) = results(plan, "cpu", Change(batch=8))
    assert found.gain == pytest.approx(-0.125) and found.advice is None
