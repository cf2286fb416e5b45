"""Contexts on the emulated device: graphs, the pipeline of two slots, replays, and what a failure leaves."""

import logging

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contexts import context as context_module
from miniinfer_cli.backends.interface import DeviceOptions, TimedBy
from miniinfer_cli.errors import DeviceError, ModelError
from tests.backends.cuda.checked_runs import keep_from_device
from tests.backends.cuda.row_programs import TRIPLE, rows
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import EmulatedStream

TWO = """
graph main(a: f32[n], b: f32[n]) {
  s = Sub(a, b)
  e = Exp(s)
  return d=s, e
}
"""
SLICED = """
graph main(x: f32[n], start: i64[1], end: i64[1]) {
  y = Slice(x, start, end)
  z = Neg(y)
  return z
}
"""


def refusing(message: str):
    def refuse(self, *arguments):
        raise DeviceError(message)

    return refuse


@pytest.fixture
def engine(emulated):
    with open_emulated(plan_of(TRIPLE), emulated) as opened:
        yield opened


def runner(context):
    return context._device.runner


def calls_noted(monkeypatch) -> list[str]:
    """The names of what streams are asked to do from now on."""
    asked: list[str] = []

    def noting(name, method):
        def call(self, *arguments, **options):
            asked.append(name)
            return method(self, *arguments, **options)

        return call

    for name in ("copy_to_device", "copy_to_host", "copy_on_device", "fill", "launch", "launch_graph", "record", "wait"):
        monkeypatch.setattr(EmulatedStream, name, noting(name, getattr(EmulatedStream, name)))
    return asked


def test_the_second_run_of_a_slot_captures_and_later_ones_replay(engine):
    with engine.create_context() as context:
        for turn, captures in enumerate((0, 0, 1, 2, 2, 2, 2)):  # two slots, each warm at first
            assert context.run({"x": rows(2, turn)})["tripled"].tolist() == (3 * rows(2, turn)).tolist()
            assert runner(context).captures == captures


@pytest.mark.parametrize("options", [DeviceOptions(cuda_graph=False), DeviceOptions(cuda_graph=False, overlap=False)])
def test_without_graphs_nothing_is_captured(emulated, options: DeviceOptions):
    with open_emulated(plan_of(TRIPLE), emulated, options=options) as engine, engine.create_context() as context:
        for turn in range(5):
            assert context.run({"x": rows(2, turn)})["tripled"].tolist() == (3 * rows(2, turn)).tolist()
        assert runner(context).captures == 0


def test_without_overlap_one_inference_is_under_way_on_one_stream(emulated):
    with open_emulated(plan_of(TRIPLE), emulated, options=DeviceOptions(overlap=False)) as engine:
        before = emulated.alive["stream"]
        with engine.create_context() as context:
            assert (context.depth, emulated.alive["stream"]) == (1, before + 1)
            futures = [context.enqueue({"x": rows(2, turn)}) for turn in range(4)]
            for turn, future in enumerate(futures):
                assert future.result()["tripled"].tolist() == (3 * rows(2, turn)).tolist()
            assert runner(context).captures == 1


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (1, 0, 3, 2, 4), (2, 2, 0, 4, 1, 3)])
def test_futures_give_their_own_results_in_any_order(engine, order):
    with engine.create_context() as context:
        for _ in range(3):
            futures = [context.enqueue({"x": rows(2, 10 * turn)}) for turn in range(5)]  # more than there are slots
            for turn in order:
                assert futures[turn].result()["tripled"].tolist() == (3 * rows(2, 10 * turn)).tolist()


def test_results_stay_when_their_slot_is_used_again(engine):
    with engine.create_context() as context:
        first = context.run({"x": rows(2)})["tripled"]
        for turn in range(1, 5):
            context.run({"x": rows(2, turn)})
        assert first.tolist() == (3 * rows(2)).tolist()


def test_an_input_may_be_changed_as_soon_as_enqueue_returns(engine):
    with engine.create_context() as context:
        x = rows(2)
        future = context.enqueue({"x": x})
        x[:] = -1
        assert future.result()["tripled"].tolist() == (3 * rows(2)).tolist()


def test_growing_drops_the_graphs_that_hold_old_addresses(engine):
    with engine.create_context() as context:
        for n in (2, 2, 2, 2, 300, 2, 300, 2, 300, 2, 2, 300, 1, 2):
            assert context.run({"x": rows(n, n)})["tripled"].tolist() == (3 * rows(n, n)).tolist()


def test_a_future_survives_the_growth_of_its_buffers(engine):
    with engine.create_context() as context:
        small = [context.enqueue({"x": rows(1, t)}) for t in range(2)]
        large = context.enqueue({"x": rows(500)})
        assert [f.result()["tripled"].tolist() for f in small] == [(3 * rows(1, t)).tolist() for t in range(2)]
        assert large.result()["tripled"].tolist() == (3 * rows(500)).tolist()


def test_a_slot_keeps_the_programs_that_were_used_last(engine):
    with engine.create_context() as context:
        sizes = [*range(1, 20), *range(19, 0, -1)] * 2
        for n in sizes:
            assert context.run({"x": rows(n)})["tripled"].tolist() == (3 * rows(n)).tolist()
        assert all(len(slot._bindings) == 16 for slot in context._device.memory.slots)


def test_programs_that_the_engine_forgot_stay_with_their_contexts(emulated):
    with open_emulated(plan_of(SLICED), emulated) as engine, engine.create_context() as context:
        x = np.arange(64, dtype=np.float32)
        for _ in range(3):
            for n in (*range(1, 40), 1, 2):  # more than an engine keeps, each with tables of its own
                z = context.run({"x": x, "start": np.array([n]), "end": np.array([n + 3])})["z"]
                assert z.tolist() == [-n, -n - 1, -n - 2]
        assert engine.stats()["programs_evicted"] > 0


def test_a_capture_that_fails_says_why_and_the_inference_is_done_without(engine, monkeypatch, logged):
    def refused(self):
        end(self).close()
        raise DeviceError("cuStreamEndCapture failed: not today")

    end = EmulatedStream.end_capture
    monkeypatch.setattr(EmulatedStream, "end_capture", refused)
    with engine.create_context() as context, logged.at_level(logging.WARNING):
        for turn in range(5):
            assert context.run({"x": rows(2, turn)})["tripled"].tolist() == (3 * rows(2, turn)).tolist()
        assert (runner(context).captures, runner(context).faults) == (0, ["cuStreamEndCapture failed: not today"])
    assert logged.messages == ["CUDA graph capture failed (cuStreamEndCapture failed: not today); running without graphs"]


def test_steps_are_timed_where_captures_fail_too(engine, monkeypatch):
    monkeypatch.setattr(EmulatedStream, "note", refusing("not today"))
    with engine.create_context() as context:
        for _ in range(4):
            times: list[int] = []
            assert context.run({"x": rows(2)}, times)["tripled"].tolist() == (3 * rows(2)).tolist()
            assert times == [1000] * len(engine.program(engine.check({"x": rows(2)})).steps)
        assert runner(context).faults == ["not today"]


def test_waiting_for_a_context_whose_result_somebody_takes_meanwhile(engine, monkeypatch):
    with engine.create_context() as context:
        future = context.enqueue({"x": rows(2)})
        slot = next(s for s in context._device.memory.slots if s.pending is not None)

        class Taken:
            """A slot whose result is taken between two looks at it."""

            def __getattr__(self, name):
                value = getattr(slot, name)
                if name == "pending" and value is not None:
                    future.result()
                return value

        with monkeypatch.context() as patch:
            patch.setattr(context._device.memory, "slots", [Taken()])
            context._device.synchronize()
        assert future.result()["tripled"].tolist() == (3 * rows(2)).tolist()


def test_nothing_is_allocated_once_everything_was_used(engine, emulated):
    with engine.create_context() as context:
        for n in (5, 2) * 3:
            context.run({"x": rows(n)})
        before = emulated.allocations
        for turn in range(50):
            n = (5, 2)[turn % 2]
            future = context.enqueue({"x": rows(n, turn)})
            assert future.result()["tripled"].tolist() == (3 * rows(n, turn)).tolist()
        assert emulated.allocations == before


def test_inputs_and_outputs_go_in_one_copy_each(emulated):
    with open_emulated(plan_of(TWO), emulated) as engine, engine.create_context() as context:
        values = {"a": np.array([1, 2], np.float32), "b": np.array([1, 0], np.float32)}
        context.run(values)
        del emulated.copies[:]
        assert {k: v.tolist() for k, v in context.run(values).items()} == {"d": [0, 2], "e": [1, pytest.approx(np.exp(2), 1e-6)]}
        assert [way for way, _ in emulated.copies] == ["to device", "to host"]


def test_try_enqueue_says_no_while_both_slots_are_busy(emulated):
    with open_emulated(plan_of(TRIPLE), emulated) as engine, engine.create_context() as context:
        futures = [context.try_enqueue({"x": rows(1, t)}) for t in range(2)]
        third = context.try_enqueue({"x": rows(1, 2)})
        if emulated.schedule._mode == "late":
            assert third is None
            assert [f.done() for f in futures] == [False, False]
            assert futures[0].result()["tripled"].tolist() == (3 * rows(1, 0)).tolist()
            third = context.try_enqueue({"x": rows(1, 2)})
        elif emulated.schedule._mode == "at once":
            assert [f.done() for f in futures] == [True, True]
        if third is not None:
            assert third.result()["tripled"].tolist() == (3 * rows(1, 2)).tolist()
        assert [f.result()["tripled"].tolist() for f in futures] == [(3 * rows(1, t)).tolist() for t in range(2)]


def test_a_replay_computes_on_the_inputs_that_are_there(engine, emulated):
    with engine.create_context() as context:
        arrays = engine.check({"x": rows(2)})
        for _ in range(4):
            context.run_arrays(arrays)
        del emulated.copies[:]
        for _ in range(6):
            (out,) = context.start(arrays, transfers=False, timed=True).result()
            assert engine.model.fetch(out).tolist() == (3 * rows(2)).tolist()
        assert [way for way, _ in emulated.copies] == ["to host"] * 6  # the test's own


@pytest.mark.parametrize("timed", [False, True])
def test_a_replay_without_copies_is_one_launch(engine, monkeypatch, timed):
    with engine.create_context() as context:
        arrays = engine.check({"x": rows(2)})
        for _ in range(3 * context.depth):
            context.start(arrays, transfers=False, timed=timed).result()
        asked = calls_noted(monkeypatch)
        for _ in range(3):
            (out,) = context.start(arrays, transfers=False, timed=timed).result()
        assert asked == ["launch_graph"] * 3
        assert engine.model.fetch(out).tolist() == (3 * rows(2)).tolist()


def test_copies_are_chained_to_the_launch_by_two_events(engine, monkeypatch):
    with engine.create_context() as context:
        arrays = engine.check({"x": rows(2)})
        for _ in range(3 * context.depth):
            context.start(arrays).result()
        asked = calls_noted(monkeypatch)
        (out,) = context.start(arrays).result()
        assert asked == ["copy_to_device", "record", "wait", "launch_graph", "wait", "copy_to_host", "record"]
        assert out.tolist() == (3 * rows(2)).tolist()


def test_a_replay_of_what_is_not_there_copies_it_first(engine):
    with engine.create_context() as context:
        for n in (2, 2, 2, 50, 2, 50, 2):
            (out,) = context.start(engine.check({"x": rows(n, n)}), transfers=False).result()
            assert engine.model.fetch(out).tolist() == (3 * rows(n, n)).tolist()


def test_a_replay_cuts_outputs_to_their_counts(emulated):
    text = "graph main(x: f32[n]) {\n  i = NonZero(x)\n  y = Neg(x)\n  return i, y\n}"
    with open_emulated(plan_of(text), emulated) as engine, engine.create_context() as context:
        arrays = engine.check({"x": np.float32([1, 0, 2, 0, 3])})
        for transfers in (False, True, False, False, True):
            found, negated = context.start(arrays, transfers=transfers).result()
            assert found.tolist() == [[0, 2, 4]]
            on_device = not isinstance(negated, np.ndarray)
            assert (engine.model.fetch(negated) if on_device else negated).tolist() == [-1, 0, -2, 0, -3]


def test_a_replays_host_steps_read_what_the_device_reads(emulated, monkeypatch):
    """The inputs of the slot's last turn, whatever is given now."""
    keep_from_device(monkeypatch, "Erf")
    text = "graph main(x: f32[n]) {\n  e = Erf(x)\n  s = Sign(e)\n  y = Mul(s, x)\n  return y\n}"
    with open_emulated(plan_of(text), emulated) as engine, engine.create_context() as context:
        first, other = (engine.check({"x": np.float32(v)}) for v in ([1, -2], [-3, 4]))
        for _ in range(2 * context.depth):
            assert context.start(first).result()[0].tolist() == [1, 2]
        assert context.start(other).result()[0].tolist() == [1, 2]


def test_enqueue_and_replay_may_take_turns(engine):
    with engine.create_context() as context:
        small, other = engine.check({"x": rows(2)}), {"x": rows(2, 7)}
        for _ in range(3):
            replayed = context.start(small, transfers=False)
            enqueued = [context.enqueue(other), context.enqueue(other)]
            assert engine.model.fetch(replayed.result()[0]).shape == (2, 3)
            assert [next(iter(p.result().values())).tolist() for p in enqueued] == [(3 * rows(2, 7)).tolist()] * 2


def test_replays_with_copies_leave_outputs_in_pinned_memory(engine):
    with engine.create_context() as context:
        arrays = engine.check({"x": rows(2, 5)})
        for _ in range(5):
            (out,) = context.start(arrays, transfers=True).result()
            assert out.tolist() == (3 * rows(2, 5)).tolist()
            assert out.base is not None
            del out


def test_times_are_taken_of_what_was_asked_for(engine):
    with engine.create_context() as context:
        arrays = engine.check({"x": rows(2)})
        timed, untimed, replayed = (
            context.start(arrays, timed=True),
            context.start(arrays),
            context.start(arrays, timed=True, transfers=False),
        )
        for pending in (timed, untimed, replayed):
            pending.result()
        assert (timed.times_ms, untimed.times_ms, replayed.times_ms) == ((0.001,) * 3, None, (0.0, 0.001, 0.0))


def test_what_is_timed_is_a_graph_of_its_own(engine):
    with engine.create_context() as context:
        arrays = engine.check({"x": rows(2)})
        for timed, captures in ((True, 2), (False, 4), (True, 4)):  # one for each slot, kept
            for _ in range(3 * context.depth):
                pending = context.start(arrays, timed=timed)
                assert pending.result()[0].tolist() == (3 * rows(2)).tolist()
                assert pending.times_ms == ((0.001,) * 3 if timed else None)
            assert runner(context).captures == captures


def test_the_hosts_own_copying_is_no_part_of_the_transfers_time(engine, monkeypatch):
    recorded: list[object] = []

    def noted(plan, slot, inputs, fetch):
        recorded.append(slot.timed().pairs[0][0].stream)
        return stage(plan, slot, inputs, fetch)

    stage = context_module.stage
    monkeypatch.setattr(context_module, "stage", noted)
    with engine.create_context() as context:
        context.start(engine.check({"x": rows(2)}), timed=True).result()
    assert recorded == [None]


def test_each_step_is_timed(engine):
    with engine.create_context() as context:
        # A microsecond between two events, of which the event takes half a one: a graph tells these apart.
        for each in (1000, 1000, 500, 500):
            times: list[int] = []
            assert context.run({"x": rows(2)}, times)["tripled"].tolist() == (3 * rows(2)).tolist()
            assert times == [each] * len(engine.program(engine.check({"x": rows(2)})).steps)


def test_rounds_say_how_they_were_taken(engine):
    arrays = engine.check({"x": rows(2)})
    with engine.create_context() as context:
        cold = [context.time_steps(arrays) for _ in range(context.depth)]
        warm = context.time_steps(arrays)
    assert {(r.way, r.gaps_ns) for r in cold} == {(TimedBy.STREAM, None)}
    assert (warm.way, warm.gaps_ns, warm.steps_ns) == (TimedBy.REPLAY, None, pytest.approx([500, 500]))


def test_results_of_timed_rounds_stay_on_the_device(engine, emulated):
    arrays = engine.check({"x": rows(2)})
    with engine.create_context() as context:
        emulated.copies.clear()
        context.time_steps(arrays)
        assert {kind for kind, _ in emulated.copies} == {"to device"}, "a round of a large output would take as long as its copy"
        assert context.run({"x": rows(2)})["tripled"].tolist() == (3 * rows(2)).tolist()


def test_without_graphs_steps_are_timed_in_one_and_gaps_between_launches(emulated):
    options = DeviceOptions(cuda_graph=False)
    with open_emulated(plan_of(TRIPLE), emulated, options=options) as engine, engine.create_context() as context:
        arrays = engine.check({"x": rows(2)})
        for _ in range(2 * context.depth):
            context.time_steps(arrays)
        taken = context.time_steps(arrays)
        assert runner(context).captures == 0, "inferences run without"
    assert (taken.way, taken.steps_ns, taken.event_ns) == (TimedBy.STREAM, pytest.approx([500, 500]), pytest.approx(500))
    assert taken.gaps_ns is not None and all(0 <= gap <= 500 for gap in taken.gaps_ns), "less what recording took the host"


def test_the_graph_of_a_timing_goes_with_those_that_hold_the_same_addresses(emulated):
    with open_emulated(plan_of(TRIPLE), emulated) as engine, engine.create_context() as context:
        for count in (2, 300):  # whose buffers are larger
            ways = [context.time_steps(engine.check({"x": rows(count)})).way for _ in range(2 * context.depth)]
            assert ways == [TimedBy.STREAM] * context.depth + [TimedBy.REPLAY] * context.depth
            assert emulated.alive["graph"] == context.depth


def test_a_failure_in_the_middle_leaves_the_context_whole(engine, monkeypatch):
    with engine.create_context() as context:
        for turn in range(6):
            context.run({"x": rows(2, turn)})
        for method in ("copy_to_device", "launch_graph", "copy_to_host"):
            under_way = context.enqueue({"x": rows(2, 40)})
            with monkeypatch.context() as patch:
                patch.setattr(
                    EmulatedStream,
                    method,
                    lambda self, *a, m=method, **options: (_ for _ in ()).throw(DeviceError(f"{m} failed")),
                )
                with pytest.raises(DeviceError, match=f"{method} failed"):
                    context.enqueue({"x": rows(2, 50)})
            assert under_way.result()["tripled"].tolist() == (3 * rows(2, 40)).tolist()
            for turn in range(3):
                assert context.run({"x": rows(2, turn)})["tripled"].tolist() == (3 * rows(2, turn)).tolist()
    assert engine.stats()["failures"] == 3


def test_a_fault_of_the_device_belongs_to_the_inference_that_met_it(engine, monkeypatch):
    with engine.create_context() as context:
        first = context.enqueue({"x": rows(2)})
        with monkeypatch.context() as patch:
            patch.setattr(
                "tests.emulation.stream.EmulatedEvent.synchronize", lambda self: (_ for _ in ()).throw(DeviceError("gone"))
            )
            for _ in range(2):
                with pytest.raises(DeviceError, match="gone"):
                    first.result()
        assert context.run({"x": rows(2, 1)})["tripled"].tolist() == (3 * rows(2, 1)).tolist()


def test_a_shape_that_does_not_go_through_harms_nothing(emulated):
    plan = plan_of("graph main(a: f32[n], b: f32[m]) {\n  c = Add(a, b)\n  return c\n}")
    with open_emulated(plan, emulated) as engine, engine.create_context() as context:
        two, three = np.ones(2, np.float32), np.ones(3, np.float32)
        assert context.run({"a": two, "b": two})["c"].tolist() == [2, 2]
        with pytest.raises(ModelError, match="do not broadcast"):
            context.run({"a": two, "b": three})
        assert context.run({"a": two, "b": two})["c"].tolist() == [2, 2]


def test_a_step_that_works_in_place_is_timed_and_does_it_once():
    text = """graph main(x: f32[8], i: i64[2], u: f32[2]) {
      y = Exp(x)
      z = ScatterElements(y, i, u) {reduction="add"}
      w = Neg(z)
      return w
    }"""
    inputs = {"x": rows(1).reshape(-1)[:1].repeat(8), "i": np.array([1, 1]), "u": np.array([2, 3], np.float32)}
    with open_emulated(plan_of(text)) as engine, engine.create_context() as context:
        want = context.run(inputs)["w"]
        for _ in range(3):
            times: list[int] = []
            np.testing.assert_array_equal(context.run(inputs, times)["w"], want)
        assert times == [500, 500, 500]


def test_the_engine_counts_captures_over_all_contexts(engine):
    before = engine.stats()["cuda_graphs"]["captures"]
    for _ in range(2):
        with engine.create_context() as context:
            for _ in range(6):
                context.run({"x": rows(2)})
    assert engine.stats()["cuda_graphs"] == {"captures": before + 4, "failures": 0}  # one for each slot
