"""What a few inferences do when, and the trace that is made of it."""

import threading
from itertools import pairwise

import numpy as np
import pytest

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.measuring.benchmark import Schedule
from miniinfer_cli.measuring.timeline import INFERENCES, Span, Timeline, Track, _in_order, record_timeline
from miniinfer_cli.measuring.trace_events import trace_events
from miniinfer_cli.runtime.context import Context
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import EmulatedEvent
from tests.measuring.trace_rules import check_trace

MODEL = "graph main(x: f32[n,3]) {\n  y = Neg(x)\n  z = Exp(y)\n  return z\n}"
X = np.ones((2, 3), np.float32)


def spans_of(timeline: Timeline, stream: int, track: Track) -> list[Span]:
    return [s for s in timeline.spans if (s.stream, s.track) == (stream, track)]


@pytest.mark.parametrize("streams", [1, 3])
def test_a_cpu_shows_every_step_within_its_call(streams):
    told: list[int] = []
    with load(plan_of(MODEL), "cpu") as engine:
        labels = [s.label for s in engine.program(engine.check({"x": X})).steps]
        timeline = record_timeline(
            engine, engine.check({"x": X}), Schedule(), streams=streams, progress=lambda stage, done: told.append(done)
        )
    assert (told, timeline.clock_error_us) == (list(range(INFERENCES)), 0)
    assert min(s.begin_us for s in timeline.spans) == 0
    for stream in range(streams):
        calls, steps = (spans_of(timeline, stream, track) for track in (Track.HOST, Track.COMPUTE))
        assert [(c.name, c.inference) for c in calls] == [("run", n) for n in range(INFERENCES)]
        for call in calls:
            within = [s for s in steps if s.inference == call.inference]
            assert [(s.name, s.node) for s in within] == [(label, n) for n, label in enumerate(labels)]
            points = [call.begin_us, *(t for s in within for t in (s.begin_us, s.begin_us + s.length_us))]
            assert points == sorted(points) and points[-1] <= call.begin_us + call.length_us
    check_trace(trace_events(timeline, "cpu", {}))


@pytest.mark.parametrize(("overlap", "transfers"), [(True, True), (False, True), (True, False)])
def test_a_gpu_shows_copies_and_computing_beside_the_host(overlap, transfers):
    device = EmulatedDevice()
    with open_emulated(plan_of(MODEL), device, options=DeviceOptions(overlap=overlap)) as engine:
        timeline = record_timeline(engine, engine.check({"x": X}), Schedule(transfers=transfers), streams=2)
    assert device.leftovers == {}
    for stream in range(2):
        tracks = {track: spans_of(timeline, stream, track) for track in Track}
        numbers = list(range(INFERENCES))
        for track in (Track.COPY_IN, Track.COMPUTE, Track.COPY_OUT):
            there = transfers or track is Track.COMPUTE
            assert [s.inference for s in tracks[track]] == (numbers if there else [])
            assert all(s.length_us >= 1 for s in tracks[track])  # a tick of the emulated clock, which the streams share
        host = [(s.name, s.inference) for s in tracks[Track.HOST]]
        if stream == 0:
            assert host.pop() == ("time nodes", INFERENCES)
        assert sorted(host) == sorted((name, n) for name in ("enqueue", "wait") for n in numbers)
        if overlap:
            assert host[:3] == [("enqueue", 0), ("enqueue", 1), ("wait", 0)]
        assert all(a.begin_us + a.length_us <= b.begin_us for a, b in pairwise(tracks[Track.HOST]))
    check_trace(trace_events(timeline, "cuda:0", {}), one_clock=False)


def test_a_gpu_shows_the_nodes_of_one_more_inference():
    with open_emulated(plan_of(MODEL)) as engine:
        arrays = engine.check({"x": X})
        labels = [s.label for s in engine.program(arrays).steps]
        timeline = record_timeline(engine, arrays, Schedule(), streams=2)
    nodes = [s for s in timeline.spans if s.track is Track.NODES]
    assert [(s.stream, s.name, s.node, s.inference) for s in nodes] == [(0, n, k, INFERENCES) for k, n in enumerate(labels)]
    call = timeline.spans[[s.name for s in timeline.spans].index("time nodes")]
    assert nodes[0].begin_us >= call.begin_us
    assert all(a.begin_us + a.length_us <= b.begin_us for a, b in pairwise(nodes))


def test_the_clock_stands_between_the_call_and_its_end_and_counts_anew(monkeypatch):
    now = iter(range(1000, 100_000, 100))
    monkeypatch.setattr("miniinfer_cli.backends.cuda.contexts.clock.time.perf_counter_ns", lambda: next(now))
    with open_emulated(plan_of(MODEL)) as engine, engine.create_context() as context:
        arrays = engine.check({"x": X})
        untold = context.start(arrays, timed=True)
        first, second = context.set_clock(), context.set_clock()
        assert (first.error_ns, second.error_ns, second.host_ns - first.host_ns) == (50, 50, 1600)
        told, untimed = context.start(arrays, timed=True), context.start(arrays)
        for pending in (untold, told, untimed):
            pending.result()
        assert (untold.intervals_ms, untimed.intervals_ms) == (None, None)
        assert told.intervals_ms is not None
        points = [t for interval in told.intervals_ms for t in interval or ()]
        assert len(points) == 6 and points == sorted(points) and points[0] > 0


def test_a_clock_that_cannot_be_set_leaves_nothing(monkeypatch):
    device = EmulatedDevice()
    with open_emulated(plan_of(MODEL), device) as engine, engine.create_context() as context:
        context.set_clock()
        events = device.alive["event"]

        def fails(event):
            raise DeviceError("lost")

        with monkeypatch.context() as broken:
            broken.setattr(EmulatedEvent, "synchronize", fails)
            with pytest.raises(DeviceError, match="lost"):
                context.set_clock()
        assert device.alive["event"] == events - 1  # the old point is gone, too
    assert device.leftovers == {}


def test_what_seems_to_begin_before_the_last_has_ended_is_put_behind_it():
    def span(stream, track, begin, length):
        return Span(stream, track, "s", 0, begin, length)

    spans = (span(0, Track.COMPUTE, 100.0, 5.0), span(0, Track.COMPUTE, 104.9996, 2.0), span(0, Track.COPY_IN, 103.0, 1.0))
    ordered = _in_order((*spans, span(1, Track.COMPUTE, 101.0, 1.0)))
    assert [(s.stream, s.track, s.begin_us, s.length_us) for s in ordered] == [
        (0, Track.COMPUTE, 0.0, 5.0),
        (0, Track.COPY_IN, 3.0, 1.0),
        (0, Track.COMPUTE, 5.0, 2.0),
        (1, Track.COMPUTE, 1.0, 1.0),
    ]


def test_an_error_in_one_stream_ends_the_recording(monkeypatch):
    time_steps = Context.time_steps

    def failing(self, arrays):
        if threading.current_thread().name.endswith("-1"):
            raise DeviceError("lost")
        return time_steps(self, arrays)

    monkeypatch.setattr(Context, "time_steps", failing)
    with load(plan_of(MODEL), "cpu") as engine, pytest.raises(DeviceError, match="lost"):
        record_timeline(engine, engine.check({"x": X}), Schedule(), streams=2)


def made_timeline() -> Timeline:
    spans = []
    for n, at in enumerate((0.0, 10.0)):
        for track, name, begin, length in (
            (Track.HOST, "enqueue", 0, 2), (Track.HOST, "wait", 3, 6), (Track.COPY_IN, "copy inputs", 1, 1),
            (Track.COMPUTE, "compute", 2, 5), (Track.COPY_OUT, "copy outputs", 7, 1),
        ):  # fmt: skip
            spans.append(Span(0, track, name, n, at + begin, length))
    return Timeline(_in_order(spans), 1.5)


def test_a_trace_has_named_tracks_and_an_arrow_for_each_inference():
    document = trace_events(made_timeline(), "cuda:1", {"plan": "a.plan"})
    tracks = check_trace(document)
    assert document["otherData"] == {"plan": "a.plan", "clock_error_us": 1.5}
    names = {e["args"]["name"]: (e["pid"], e["tid"]) for e in document["traceEvents"] if e["name"].endswith("_name")}
    assert list(names) == ["stream 0 on cuda:1", "host", "H2D", "compute", "D2H"]
    assert [(e["name"], e["ts"], e["dur"], e["args"]) for e in tracks[names["compute"]]] == [
        ("compute", 2.0, 5.0, {"inference": 0}),
        ("compute", 12.0, 5.0, {"inference": 1}),
    ]
    arrows = [(e["ph"], e["tid"], e["ts"], e["id"]) for e in document["traceEvents"] if e["ph"] in "stf"]
    assert arrows[:4] == [("s", 0, 0.0, "0.0"), ("t", 1, 1.0, "0.0"), ("t", 2, 2.0, "0.0"), ("f", 3, 7.0, "0.0")]
    assert [id for *_, id in arrows] == ["0.0"] * 4 + ["0.1"] * 4


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"ph": "X", "name": "late", "pid": 0, "tid": 2, "ts": 6.0, "dur": 3.0}, "overlaps what it does not lie in"),
        ({"ph": "X", "name": "lost", "pid": 0, "tid": 9, "ts": 6.0, "dur": 3.0}, "a track without a name"),
        ({"ph": "B", "name": "open", "pid": 0, "tid": 2, "ts": 6.0}, "phase 'B'"),
        ({"ph": "s", "name": "a", "cat": "c", "id": "1", "pid": 0, "tid": 2, "ts": 6.0}, "^s"),
    ],
)
def test_the_rules_find_what_breaks_them(broken, rule):
    document = trace_events(made_timeline(), "cuda:1", {})
    document["traceEvents"].append(broken)
    with pytest.raises(AssertionError, match=rule):
        check_trace(document)
