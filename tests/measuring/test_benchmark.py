"""The measuring loop, on both devices."""

import threading
import time

import numpy as np
import pytest

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.measuring.benchmark import Schedule, measure, measure_together
from miniinfer_cli.measuring.metrics import summarize
from miniinfer_cli.runtime.context import Context
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import EmulatedStream

MODEL = "graph main(x: f32[n,3]) {\n  y = Neg(x)\n  z = Exp(y)\n  return z\n}"
X = np.ones((2, 3), np.float32)
SHORT = Schedule(iterations=7, warmup_ms=0, duration_s=0)


@pytest.fixture(params=["cpu", "gpu", "gpu without overlap"])
def engine(request):
    plan = plan_of(MODEL)
    if request.param == "cpu":
        with load(plan, "cpu") as opened:
            yield opened
        return
    device = EmulatedDevice()
    with open_emulated(plan, device, options=DeviceOptions(overlap=request.param == "gpu")) as opened:
        yield opened
    assert device.leftovers == {}


def test_so_many_inferences_are_measured(engine):
    told: list[tuple[str, int]] = []
    samples = measure(engine, engine.check({"x": X}), SHORT, progress=lambda *words: told.append(words))
    assert [done for stage, done in told if stage == "inferences"] == [1, 2, 3, 4, 5, 6, 7]
    stages = ["warm-up", "inferences", *(["enqueue times"] if engine.device != "cpu" else [])]
    assert list(dict.fromkeys(stage for stage, _ in told)) == stages
    assert told[0] == ("warm-up", 0)
    assert (len(samples.latency_ms), len(samples.end_to_end_ms), samples.streams) == (7, 7, 1)
    assert samples.walltime_s > 0
    parts = (samples.copies_in_ms, samples.compute_ms, samples.copies_out_ms)
    if engine.device == "cpu":
        assert (*parts, samples.enqueue_ms) == ((), (), (), ())
        assert all(t > 0 for t in samples.latency_ms)
    else:
        assert parts == ((0.001,) * 7,) * 3
        assert samples.latency_ms == pytest.approx((0.003,) * 7)
        assert 1 <= len(samples.enqueue_ms) <= 7 and all(t > 0 for t in samples.enqueue_ms)


@pytest.mark.parametrize("transfers", [True, False])
def test_enqueue_times_are_those_of_inferences_without_events(transfers: bool, monkeypatch):
    """Events take the host as long as the launch; only measuring needs them."""
    enqueued: list[tuple[bool, float]] = []
    start = Context.start

    def noted(self, arrays, *, timed=False, transfers=True):
        pending = start(self, arrays, timed=timed, transfers=transfers)
        enqueued.append((timed, pending.enqueue_ns / 1e6))
        return pending

    monkeypatch.setattr(Context, "start", noted)
    with open_emulated(plan_of(MODEL)) as engine:
        arrays = engine.check({"x": X})
        once = measure(engine, arrays, Schedule(iterations=1, warmup_ms=0, duration_s=0, transfers=transfers))
        assert once.enqueue_ms == (enqueued[-1][1],)
        assert not enqueued[-1][0]
        many = measure(engine, arrays, Schedule(iterations=50, warmup_ms=0, duration_s=0, transfers=transfers))
    last = enqueued[-len(many.enqueue_ms) :]
    assert 2 <= len(many.enqueue_ms) <= 50
    assert last == [(False, t) for t in many.enqueue_ms]


def test_a_duration_is_kept_to(engine):
    samples = measure(engine, engine.check({"x": X}), Schedule(iterations=1, warmup_ms=0, duration_s=0.05))
    assert samples.walltime_s >= 0.05
    assert len(samples.latency_ms) > 1


@pytest.mark.parametrize("streams", [2, 3])
def test_streams_measure_side_by_side(engine, streams: int):
    samples = measure(engine, engine.check({"x": X}), SHORT, streams=streams)
    assert (len(samples.latency_ms), samples.streams) == (7 * streams, streams)
    assert sum(t.name.startswith("miniinfer-stream") for t in threading.enumerate()) == 0


def test_without_transfers_there_are_no_copies_to_time(engine):
    samples = measure(engine, engine.check({"x": X}), Schedule(iterations=5, warmup_ms=0, duration_s=0, transfers=False))
    assert (len(samples.latency_ms), samples.copies_in_ms, samples.copies_out_ms) == (5, (), ())
    if engine.device != "cpu":
        assert samples.latency_ms == samples.compute_ms == (0.001,) * 5
        assert set(summarize(samples, 2).rows) == {"Enqueue time", "GPU compute time"}


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("transfers", [True, False])
def test_what_is_measured_is_replayed_graphs(overlap: bool, transfers: bool, monkeypatch):
    """Captures, and copies where there are none to time, belong to the warm-up, those for the enqueue times too."""
    captures: list[object] = []
    at_start: list[int] = []
    capture, start = EmulatedStream.begin_capture, Context.start

    def noted_capture(self) -> None:
        captures.append(self)
        capture(self)

    def noted_start(self, arrays, **options):
        if options.get("timed"):
            at_start.append(len(captures))
        return start(self, arrays, **options)

    monkeypatch.setattr(EmulatedStream, "begin_capture", noted_capture)
    monkeypatch.setattr(Context, "start", noted_start)
    with open_emulated(plan_of(MODEL), options=DeviceOptions(overlap=overlap)) as engine:
        measure(engine, engine.check({"x": X}), Schedule(iterations=6, warmup_ms=0, duration_s=0, transfers=transfers))
    made = 2 * (2 if overlap else 1)  # with events and without, for each slot
    assert (at_start[-6:], len(captures)) == ([made] * 6, made)


@pytest.mark.parametrize("streams", [1, 3])
def test_an_error_in_one_stream_ends_all(streams: int, monkeypatch):
    device = EmulatedDevice()
    launched: list[int] = []
    launch = EmulatedStream.launch_graph

    def failing(self, graph) -> None:
        launched.append(1)
        if len(launched) == 9:
            raise DeviceError("fell over")
        launch(self, graph)

    monkeypatch.setattr(EmulatedStream, "launch_graph", failing)
    with open_emulated(plan_of(MODEL), device) as engine:
        with pytest.raises(DeviceError, match="fell over"):
            measure(engine, engine.check({"x": X}), Schedule(iterations=10**6, warmup_ms=0, duration_s=60), streams=streams)
        assert engine.run({"x": X})["z"].shape == (2, 3)
    assert device.leftovers == {}


def test_a_thread_that_cannot_be_started_ends_the_others(monkeypatch):
    start, started = threading.Thread.start, []

    def refused(self) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    with load(plan_of(MODEL), "cpu") as engine:
        arrays = engine.check({"x": X})
        engine.run({"x": X})
        monkeypatch.setattr(threading.Thread, "start", refused)
        with pytest.raises(MemoryError, match="can't start new thread"):
            measure(engine, arrays, SHORT, streams=3)
        monkeypatch.undo()
    assert not any(thread.is_alive() for thread in started)


def test_a_fault_of_the_model_is_raised_from_the_warm_up():
    plan = plan_of("graph main(a: f32[n], b: f32[m]) {\n  c = Add(a, b)\n  return c\n}")
    for engine in (load(plan, "cpu"), open_emulated(plan)):
        with engine, pytest.raises(Exception, match="do not broadcast"):
            measure(engine, engine.check({"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)}), SHORT, streams=2)


class Slow:
    """An engine whose inferences take 20 ms more."""

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def create_context(self):
        context = self.engine.create_context()
        start = context.start

        def slowly(*args, **named):
            time.sleep(0.02)
            return start(*args, **named)

        context.start = slowly
        return context


def test_each_of_several_engines_has_its_own_figures():
    with load(plan_of(MODEL), "cpu") as fast, load(plan_of(MODEL), "cpu") as other:
        schedule = Schedule(iterations=3, warmup_ms=0, duration_s=0)
        together, each = measure_together([fast, Slow(other)], fast.check({"x": X}), schedule, streams=2)
        assert [(len(s.end_to_end_ms), s.streams, s.devices, s.sharing) for s in (together, *each)] == [
            (12, 4, 2, 2),
            (6, 2, 1, 2),
            (6, 2, 1, 2),
        ]
        assert sorted(together.end_to_end_ms) == sorted(each[0].end_to_end_ms + each[1].end_to_end_ms)
        assert min(each[1].end_to_end_ms) >= 20 > min(each[0].end_to_end_ms)
        assert together.walltime_s >= max(s.walltime_s for s in each) >= 0.06
