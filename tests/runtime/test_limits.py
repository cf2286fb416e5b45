"""Limits on a run: what takes too long or too much ends with one error, and the engine goes on with the next inference."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest

from engine_format import Plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load, load_with
from miniinfer_cli.errors import LimitExceeded, UsageError
from miniinfer_cli.ops import budget
from miniinfer_cli.ops.budget import Allowance, Budget, Kept
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.engine import Engine
from tests.emulation.engine import open_emulated
from tests.graph_text import typed_graph

Opened = Callable[..., Engine]
HUGE = 1 << 62
MIB = 1 << 20


@pytest.fixture(params=["cpu", "emulated"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Opens a graph's text with limits, on each device."""
    engines: list[Engine] = []

    def open_(text: str, **limits: Any) -> Engine:
        plan: Plan = freeze(typed_graph(text))
        options = DeviceOptions(**limits)
        engines.append(load(plan, "cpu", options=options) if request.param == "cpu" else open_emulated(plan, options=options))
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()


LOOP = """
graph main(n: i64[], x: f32[2]) {
  y = Loop(n, -, x)
    body: graph body(i, going, v) {
      w = Sin(v)
      return going, w
    }
  return y
}
"""
GROWING = """
graph main(n: i64[], x: f32[1000]) {
  y, all = Loop(n, -, x)
    body: graph body(i, going, v) {
      w = Sin(v)
      return going, w, w
    }
  return y, all
}
"""
SEQUENCE = """
graph main(n: i64[], x: f32[1000]) {
  none = SequenceEmpty() {dtype=1}
  many = Loop(n, -, none, x) {n_captures=1}
    body: graph body(i, going, list, piece) {
      again = Sin(piece)
      more = SequenceInsert(list, again)
      return going, more
    }
  y = SequenceLength(many)
  return y
}
"""


def fails(engine: Engine, feeds: dict[str, Any]) -> LimitExceeded:
    started = time.monotonic()
    with pytest.raises(LimitExceeded) as caught:
        engine.run(feeds)
    assert time.monotonic() - started < 3
    assert caught.value.exit_code == 6
    return caught.value


def test_a_loop_without_end(opened: Opened):
    engine = opened(LOOP, time_limit=0.1)
    x = np.ones(2, np.float32)
    error = fails(engine, {"n": np.array(HUGE), "x": x})
    assert error.message == "the inference took longer than its time limit of 0.1 s"
    assert error.where[0].startswith("node")
    assert "time_limit" in error.hint
    np.testing.assert_allclose(engine.run({"n": np.array(2), "x": x})["y"], np.sin(np.sin(x)), rtol=1e-6)


def test_a_loop_that_collects_without_end(opened: Opened):
    engine = opened(GROWING, memory_limit=MIB)
    x = np.ones(1000, np.float32)
    error = fails(engine, {"n": np.array(HUGE), "x": x})
    assert "the memory limit is 1.0 MiB" in error.message
    assert "memory_limit" in error.hint
    assert engine.run({"n": np.array(3), "x": x})["all"].shape == (3, 1000)
    for _ in range(30):  # nothing that was held before counts
        engine.run({"n": np.array(10), "x": x})


def test_what_a_loop_carries_grows(opened: Opened):
    engine = opened(SEQUENCE, memory_limit=300_000)
    x = np.ones(1000, np.float32)
    assert "the memory limit is 300000 bytes" in fails(engine, {"n": np.array(HUGE), "x": x}).message
    for _ in range(3):
        assert engine.run({"n": np.array(60), "x": x})["y"] == 60


@pytest.mark.parametrize(
    ("node", "feeds", "good"),
    [
        ("y = ConstantOfShape(s)", {"s": [40000, 40000]}, {"s": [3, 4]}),
        ("y = Expand(x, s)", {"s": [40000, 10000]}, {"s": [2, 1]}),
        ("y = Tile(x, t)", {"t": [1 << 50]}, {"t": [2]}),
        ("y = Resize(a, -, -, z) {mode=\"linear\"}", {"z": [1, 1, 40000, 40000]}, {"z": [1, 1, 4, 4]}),
        ("w = Abs(s)\n  y = ConstantOfShape(w)", {"s": [40000, 40000]}, {"s": [3, 4]}),
        ("w = NonZero(s)\n  v = ReduceSum(s) {keepdims=0}\n  o = Mul(v, v)\n  y = Range(k, o, j)",
         {"s": [1 << 24, 5]}, {"s": [1, 4]}),
        ("u = Unique(s)\n  y = ConstantOfShape(u)", {"s": [40000, 40001]}, {"s": [3, 4]}),
        ("u = Unique(s)\n  v = Expand(x, u)\n  y = Exp(v)", {"s": [40000, 40001]}, {"s": [3, 4]}),
        ("u = Unique(s)\n  v = Tile(b, u)\n  y = Exp(v)", {"s": [40000, 40001]}, {"s": [3, 4]}),
    ],
)  # fmt: skip
def test_big_expansions(opened: Opened, node: str, feeds: dict[str, Any], good: dict[str, Any]):
    ((name, contents),) = feeds.items()
    text = f"""graph main({name}: i64[{len(contents)}], x: f32[1], a: f32[1,1,2,2], b: f32[1,1]) {{
  k: i64[] = const 0
  j: i64[] = const 1
  {node}
  return y
}}"""
    engine = opened(text, memory_limit=MIB)
    given = {"x": np.ones(1, np.float32), "a": np.ones((1, 1, 2, 2), np.float32), "b": np.ones((1, 1), np.float32)}
    engine.run({**given, name: np.array(good[name])})  # kernels are compiled
    with mock.patch("numpy.empty", side_effect=_no_large(np.empty)), mock.patch("numpy.full", side_effect=_no_large(np.full)):
        error = fails(engine, {**given, name: np.array(contents)})
    assert "the memory limit is 1.0 MiB" in error.message
    assert engine.run({**given, name: np.array(good[name])})["y"].size >= 2


def _no_large(make: Any) -> Any:
    def guarded(shape: Any, *more: Any, **named: Any) -> Any:
        assert np.prod(shape, dtype=float) < 1 << 24, shape
        return make(shape, *more, **named)

    return guarded


def test_a_sequence_of_very_many_parts(opened: Opened):
    engine = opened("graph main(x: f32[n]) {\n  s = SplitToSequence(x)\n  y = SequenceLength(s)\n  return y\n}", memory_limit=MIB)
    assert engine.run({"x": np.zeros(100, np.float32)})["y"] == 100
    assert "the memory limit is 1.0 MiB" in fails(engine, {"x": np.zeros(10_000, np.float32)}).message  # of 40 000 bytes


SCAN = """
graph main(s: f32[1000], x: f32[n,1000]) {
  last, all = Scan(s, x) {num_scan_inputs=1, scan_output_axes=[1]}
    body: graph body(v, item) {
      w = Add(v, item)
      return w, w
    }
  return all
}
"""


def test_a_scan_that_collects(opened: Opened):
    engine = opened(SCAN, memory_limit=MIB)
    x = np.ones((1000, 1000), np.float32)
    assert "the memory limit is 1.0 MiB" in fails(engine, {"s": x[0], "x": x}).message
    assert engine.run({"s": x[0], "x": x[:50]})["all"].shape == (1000, 50)


def nested_loops(depth: int) -> str:
    """Loops in loops, each of which carries what changes its size: every one is inferred again for each round of the outer."""
    body = "w = Concat(v, v) {axis=0}"
    for level in range(depth):
        body = f"w = Loop(n, -, v, n) {{n_captures=1}}\n body: graph b{level}(i, going, v, n) {{\n {body}\n return going, w\n }}"
    return f"graph main(n: i64[], v: f32[k]) {{\n {body}\n return w\n}}"


def test_deep_nests(opened: Opened):
    with mock.patch.object(budget.time, "monotonic", _clock()):
        engine = opened(nested_loops(7), time_limit=2)
        with pytest.raises(LimitExceeded, match="longer than its time limit of 2 s"):
            engine.run({"n": np.array(2), "v": np.ones(1, np.float32)})


def _clock() -> Callable[[], float]:
    ticks = iter(range(1 << 60))
    return lambda: next(ticks) * 0.01


def test_a_limit_that_holds_changes_nothing(opened: Opened):
    text = "graph main(x: f32[n,4]) {\n  a = Softmax(x)\n  y = Exp(a)\n  z = Sin(x)\n  return y, z\n}"
    x = np.ones((100, 4), np.float32)
    plain, limited = opened(text), opened(text, time_limit=60, memory_limit=MIB)
    for name, value in plain.run({"x": x}).items():
        np.testing.assert_array_equal(limited.run({"x": x})[name], value)
    large = np.ones((1 << 16, 4), np.float32)
    error = fails(limited, {"x": large})
    assert "needed" in error.message
    assert limited.run({"x": x})["y"].shape == (100, 4)
    with limited.create_context() as context:
        with pytest.raises(LimitExceeded):
            context.enqueue({"x": large}).result()
        assert context.enqueue({"x": x}).result()["y"].shape == (100, 4)


TWO_SIZES = """
graph main(c: f32[1], x: f32[n], v: f32[m]) {
  c1: f32[1] = const [2.0]
  d = Less(c, c1)
  y = If(d, v)
    then_branch: graph t(p) {
      a = Softmax(p)
      k: i64[] = const 0
      b = CumSum(a, k)
      s = ReduceSum(b) {keepdims=1}
      return s
    }
    else_branch: graph e(p) {
      s = ReduceSum(p) {keepdims=1}
      return s
    }
  w = Softmax(x)
  z = Add(w, y)
  u = ReduceSum(z) {keepdims=1}
  return u
}
"""


def test_what_was_kept_for_other_sizes_gives_way():
    engine = load(freeze(typed_graph(TWO_SIZES)), "cpu", options=DeviceOptions(memory_limit=1_250_000))
    for n, m in [(10, 100_000), (150_000, 10)] * 2:  # one arena within the other's context, each of which fits alone
        feeds = {"c": np.ones(1, np.float32), "x": np.ones(n, np.float32), "v": np.ones(m, np.float32)}
        assert engine.run(feeds)["u"].shape == (1,)


def test_a_limit_within_a_branch_is_no_fault_of_the_branch():
    sines = "\n".join(f"      a{i} = Sin(a{i - 1})" for i in range(1, 30))
    branch = f"graph b(a0) {{\n{sines}\n      return a29\n    }}"
    text = "graph main(c: bool[1], x: f32[n]) {\n  y = If(c, x)\n"
    text += f"    then_branch: {branch}\n    else_branch: {branch}\n  return y\n}}"
    engine = load(freeze(typed_graph(text)), "cpu", options=DeviceOptions(time_limit=0.1))
    with mock.patch.object(budget.time, "monotonic", _clock()), pytest.raises(LimitExceeded):
        engine.run({"c": np.array([True]), "x": np.ones(3, np.float32)})


def test_views_of_inputs_take_no_memory():
    text = "graph main(s: i64[2], x: f32[n]) {\n  u = Unique(s)\n  y = Reshape(x, u)\n  z = Shape(y)\n  return z\n}"
    engine = load(freeze(typed_graph(text)), "cpu", options=DeviceOptions(memory_limit=10_000))
    x = np.ones(100_000, np.float32)
    assert engine.run({"s": np.array([10, 10_000]), "x": x})["z"].tolist() == [10, 10_000]


def test_the_time_is_told_at_the_end_too():
    engine = load(freeze(typed_graph("graph main(x: f32[2]) {\n  y = Sin(x)\n  return y\n}")), "cpu",
                    options=DeviceOptions(time_limit=5))  # fmt: skip
    x = {"x": np.ones(2, np.float32)}
    engine.run(x)
    now = time.monotonic()
    clock = mock.Mock(side_effect=[now, now + 1, now + 2, now + 6])
    with mock.patch.object(budget.time, "monotonic", clock), pytest.raises(LimitExceeded):
        engine.run(x)
    assert engine.overdue_s() == -np.inf
    engine.run(x)


def test_what_is_held_counts_once():
    limited = Budget(Allowance(memory_nbytes=10_000))
    array = np.ones(1000, np.float32)
    with limited.inference([array]):
        assert budget.current() is limited
        assert limited.hold(array[2:]) == 0  # the caller's
        mine = array + 1
        assert limited.hold([mine, mine[1:]]) == 4112
        assert limited.hold(mine[:5].reshape(5, 1)) == 0
        limited.let_go([mine, mine[1:]])
        with pytest.raises(LimitExceeded, match=r"^x: 5889 bytes needed beside 4112 bytes in use, the memory limit is 10000"):
            limited.expect(5889, "x")
        limited.expect(5888, "x")
        limited.let_go(mine)
        limited.expect(10_000, "x")
        with Kept("them") as kept:
            kept.add(mine)
            with pytest.raises(LimitExceeded):
                kept.add(mine + 1)
        limited.expect(10_000, "x")
        assert limited.hold(np.array(["abc"], object)) == 112 + 56 + 3
    assert budget.current() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit": 0}, "time_limit: expected seconds above 0, or None, got 0"),
        ({"time_limit": float("nan")}, "time_limit: expected seconds"),
        ({"time_limit": True}, "time_limit: expected seconds"),
        ({"time_limit": "5"}, "time_limit: expected seconds"),
        ({"memory_limit": 0}, "memory_limit: expected a whole number of bytes above 0, or None, got 0"),
        ({"memory_limit": "2G"}, "memory_limit: expected a whole number"),
        ({"memory_limit": 2.5}, "memory_limit: expected a whole number"),
    ],
)
def test_limits_that_are_none(options: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        load_with(freeze(typed_graph("graph main(x: f32[2]) {\n  y = Sin(x)\n  return y\n}")), "cpu", options)


def test_other_forms_of_weights_are_on_no_account():
    rng = np.random.default_rng(0)
    weights = ", ".join(f"{v:.3f}" for v in rng.standard_normal(24 * 24).tolist())
    text = f"graph main(x: f32[n,24]) {{\n  w: f32[24,24] = const [{weights}]\n  t = Transpose(w) {{perm=[1,0]}}\n"
    text += "  y = MatMul(x, t)\n  return y\n}"
    plan = freeze(typed_graph(text))
    x = np.ones((2, 24), np.float32)
    with open_emulated(plan, options=DeviceOptions(memory_limit=4000)) as engine, open_emulated(plan) as plain:
        for _ in range(2):
            np.testing.assert_array_equal(engine.run({"x": x})["y"], plain.run({"x": x})["y"])
