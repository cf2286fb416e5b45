"""Engines and contexts: the public way to run a plan."""

import threading

import numpy as np
import pytest

import miniinfer_cli
from engine_format import read_plan, write_plan
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError, ModelError, PlanFileError, UsageError
from miniinfer_cli.ir.text import parse_graph
from miniinfer_cli.measuring.benchmark import Schedule, measure
from miniinfer_cli.measuring.layers import layers_of
from miniinfer_cli.measuring.step_times import time_steps, time_synchronized
from miniinfer_cli.planning.freeze import freeze
from tests.graph_text import typed_graph


def plan_of(text: str):
    return freeze(typed_graph(text))


AFFINE = "graph main(x: f32[batch,3]) {\n  two: f32[] = const 2.0\n  y = Mul(x, two)\n  z = Add(y, x)\n  return tripled=z\n}"


@pytest.fixture
def engine():
    with load(plan_of(AFFINE), "cpu") as opened:
        yield opened


def test_run(engine):
    x = np.array([[1, 2, 3]], np.float32)
    outputs = engine.run({"x": x})
    assert list(outputs) == ["tripled"]
    assert outputs["tripled"].tolist() == [[3, 6, 9]]
    assert [str(b) for b in (*engine.inputs, *engine.outputs)] == ["x: f32[batch,3]", "tripled: f32[batch,3]"]
    assert engine.device == "cpu"


def test_inputs_that_fitted_once_let_no_others_through(engine):
    x = np.ones((2, 3), np.float32)
    for _ in range(2):
        assert engine.check({"x": x})[0] is x
    for wrong in (x.astype(np.float64), x[:, :2], x[0], [[1.0, 2.0]]):
        with pytest.raises(UsageError, match="input 'x'"):
            engine.check({"x": wrong})
    with pytest.raises(UsageError, match="missing 'x'; unknown 'y'"):
        engine.check({"y": x})
    swapped = x.astype(">f4")
    for _ in range(2):
        (taken,) = engine.check({"x": swapped})
        assert taken.dtype == np.float32
        assert taken.dtype.isnative
    assert engine.check({"x": np.ma.masked_array(x)})[0].tolist() == x.tolist()


def test_a_plan_file_opens_by_path(tmp_path):
    write_plan(plan_of(AFFINE), tmp_path / "m.plan")
    with miniinfer_cli.load(tmp_path / "m.plan", "auto") as opened:
        assert opened.run({"x": np.ones((2, 3), np.float32)})["tripled"].tolist() == [[3] * 3] * 2


def test_programs_are_kept_by_shape(engine):
    x = np.ones((2, 3), np.float32)
    assert engine.program([x]) is engine.program([x + 1])
    assert engine.program([x]) is not engine.program([np.ones((4, 3), np.float32)])


def test_contents_that_decide_shapes_are_part_of_a_programs_key():
    with load(plan_of("graph main(x: f32[6], s: i64[2]) {\n  y = Reshape(x, s)\n  z = Exp(y)\n  return z\n}"), "cpu") as opened:
        x = np.zeros(6, np.float32)
        shapes = [opened.run({"x": x, "s": np.array(s)})["z"].shape for s in ([2, 3], [3, 2], [-1, 1])]
        assert shapes == [(2, 3), (3, 2), (6, 1)]
        assert [s.tactic for s in opened.program([x, np.array([2, 3])]).steps] == ["view", "blocks of 1"]


def test_a_shape_that_does_not_go_through_is_the_models_fault():
    with load(plan_of("graph main(x: f32[a], y: f32[b]) {\n  z = Add(x, y)\n  return z\n}"), "cpu") as opened:
        with pytest.raises(ModelError, match=r"node 'z': Add: shapes \[2\] and \[3\] do not broadcast"):
            opened.run({"x": np.ones(2, np.float32), "y": np.ones(3, np.float32)})
        assert opened.run({"x": np.ones(2, np.float32), "y": np.ones(1, np.float32)})["z"].tolist() == [2, 2]


def test_contexts_run_side_by_side_and_agree(engine):
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((n, 3)).astype(np.float32) for n in (1, 7, 300, 2)]
    results: dict[int, bool] = {}

    def work(number: int) -> None:
        with engine.create_context() as context:
            results[number] = all(
                np.allclose(context.run({"x": inputs[(number + i) % 4]})["tripled"], 3 * inputs[(number + i) % 4], rtol=1e-6)
                for i in range(50)
            )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == dict.fromkeys(range(4), True)


def test_a_context_in_use_refuses_a_second_thread(engine):
    context = engine.create_context()
    x = np.ones((1, 3), np.float32)
    context.run({"x": x})
    assert context._busy.acquire(blocking=False)
    with pytest.raises(UsageError, match="in use by another thread\n  hint: give each thread a context"):
        context.run({"x": x})
    context._busy.release()
    assert context.run({"x": x})["tripled"].tolist() == [[3, 3, 3]]


def test_a_context_keeps_its_arena_and_lets_it_go(engine):
    with engine.create_context() as context:
        context.run({"x": np.ones((1000, 3), np.float32)})
        held = context.arena_nbytes
        context.run({"x": np.ones((1, 3), np.float32)})
        assert context.arena_nbytes == held >= 12000
    assert context.arena_nbytes == 0


def test_a_closed_engine_says_so(engine):
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="the engine is closed"):
        engine.run({"x": np.ones((1, 3), np.float32)})


def test_a_closed_context_says_so(engine):
    context = engine.create_context()
    context.close()
    context.close()
    with pytest.raises(UsageError, match="the context is closed"):
        context.run({"x": np.ones((1, 3), np.float32)})


def test_a_context_outlives_its_engine_only_to_be_closed(engine):
    x = np.ones((1, 3), np.float32)
    with engine.create_context() as context:
        context.run({"x": x})
        engine.close()
        with pytest.raises(UsageError, match="the engine is closed"):
            context.run({"x": x})


def test_a_context_at_work_is_not_closed(engine):
    context = engine.create_context()
    with context._busy, pytest.raises(UsageError, match="in use by another thread\n  hint: close it when"):
        context.close()
    context.close()


def test_an_engine_closes_the_file_that_it_opened_and_no_other(tmp_path):
    write_plan(plan_of(AFFINE), tmp_path / "m.plan")
    x = np.ones((1, 3), np.float32)
    opened = miniinfer_cli.load(tmp_path / "m.plan")
    opened.close()
    with pytest.raises(ValueError, match="released"):
        opened.plan.tensor_bytes(0)
    with read_plan(tmp_path / "m.plan") as plan:
        results = []
        for _ in range(2):  # a plan of the caller's may be loaded again and again
            with miniinfer_cli.load(plan) as engine:
                results.append(engine.run({"x": x})["tripled"].tolist())
        assert results == [[[3, 3, 3]]] * 2
        assert bytes(plan.tensor_bytes(0)) == np.float32(2).tobytes()


def test_known_shapes_are_run_while_a_program_is_made(engine, monkeypatch):
    known, other = ({"x": np.ones((n, 3), np.float32)} for n in (1, 2))
    want = engine.run(known)
    asked, go_on = threading.Event(), threading.Event()
    make = engine.model.make_program

    def slow(*args):
        asked.set()
        assert go_on.wait(30)
        return make(*args)

    monkeypatch.setattr(engine.model, "make_program", slow)
    with engine.create_context() as first, engine.create_context() as second:
        maker = threading.Thread(target=first.run, args=(other,))
        maker.start()
        assert asked.wait(30)
        for name, value in second.run(known).items():  # without waiting for the program
            np.testing.assert_array_equal(value, want[name])
        assert maker.is_alive()
        go_on.set()
        maker.join()
    assert engine.stats()["programs_made"] == 2


def test_only_the_most_recent_programs_are_kept(engine, monkeypatch):
    monkeypatch.setattr(engine._programs, "_most", 2)
    made = [engine.program([np.ones((n, 3), np.float32)]) for n in (1, 2, 1, 3)]
    assert made[0] is made[2]
    assert engine.program([np.ones((1, 3), np.float32)]) is made[0]
    assert engine.program([np.ones((2, 3), np.float32)]) is not made[1]


def test_a_weight_damaged_after_opening_is_found_at_first_touch(tmp_path):
    path = tmp_path / "m.plan"
    write_plan(
        plan_of("graph main(x: f32[1,300]) {\n  w: f32[300,300] = const fill 0.5\n  y = MatMul(x, w)\n  return y\n}"), path
    )
    whole = bytearray(path.read_bytes())
    whole[-1000] ^= 1
    path.write_bytes(whole)
    with miniinfer_cli.load(path) as engine, pytest.raises(PlanFileError, match=r"m.plan: .*digest"):
        engine.run({"x": np.ones((1, 300), np.float32)})


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("cuda:99", DeviceError, r"cuda:99: .*\n  hint: (open it on|use load\(plan, device='cpu'\))"),
        ("gpu", UsageError, r"device 'gpu' is not one of auto, cpu, cuda:N"),
    ],
)
def test_other_devices_are_refused(device, error, message):
    with pytest.raises(error, match=message):
        load(plan_of(AFFINE), device)


def test_a_missing_plan_is_told_with_the_way_out(tmp_path):
    with pytest.raises(PlanFileError, match=r"no.plan: no such file\n  hint: build it first: miniinfer_cli.build"):
        miniinfer_cli.load(tmp_path / "no.plan")


def test_a_plan_without_its_plugin_names_the_operation():
    graph = parse_graph("graph main(x: f32[2]) {\n  y: f32[2] = nowhere.Odd(x)\n  return y\n}\n")
    with pytest.raises(ModelError, match=r"nowhere::Odd is not known\n  hint: .*plugins="):
        load(freeze(graph), "cpu")


@pytest.mark.parametrize("streams", [1, 3])
def test_measuring_runs_exactly_what_was_asked_for(engine, streams):
    seen: list[tuple[str, int]] = []
    arrays = [np.ones((1, 3), np.float32)]
    samples = measure(engine, arrays, Schedule(7, 0, 0), streams=streams, progress=lambda *words: seen.append(words))
    assert len(samples.latency_ms) == len(samples.end_to_end_ms) == 7 * streams
    assert samples.streams == streams
    assert [done for stage, done in seen if stage == "inferences"] == list(range(1, 8))
    assert samples.walltime_s > 0
    assert all(0 < c <= e for c, e in zip(samples.latency_ms, samples.end_to_end_ms, strict=True))


@pytest.mark.parametrize("streams", [1, 2])
def test_an_error_while_measuring_reaches_the_caller(streams):
    with load(plan_of("graph main(x: f32[4], i: i64[n]) {\n  y = Gather(x, i)\n  return y\n}"), "cpu") as opened:
        arrays = [np.ones(4, np.float32), np.array([9])]
        with pytest.raises(ModelError, match=r"node 'y': .*out of (range|bounds)|outside"):
            measure(opened, arrays, Schedule(1, 0, 0), streams=streams)


def test_steps_are_timed_in_program_order(engine):
    told: list[tuple[str, int]] = []
    arrays = [np.ones((1, 3), np.float32)]
    rounds, whole = time_steps(engine, arrays, Schedule(3, 0, 0), lambda *words: told.append(words))
    steps = layers_of(engine.program(arrays), rounds)
    assert told == [("nodes", 0), ("nodes", 1), ("nodes", 2)]
    assert [(s.label, s.kind) for s in steps] == [("y", "Mul"), ("z", "Add")]
    assert all(0 < s.min_ms <= s.median_ms <= s.max_ms for s in steps)
    assert len(rounds) == whole.count == 3 and 0 < whole.compute_ms <= whole.wall_ms and whole.enqueue_ms == 0


def test_as_many_inferences_are_waited_for_as_fit(engine):
    arrays = [np.ones((1, 3), np.float32)]
    rounds, whole = time_steps(engine, arrays, Schedule(7, 0, 60))
    assert (len(rounds), whole.count) == (7, 1000), "a fifth of a minute is enough for a thousand"
    assert time_synchronized(engine, arrays, 5).count == 5
