"""Host steps between device segments: what is fetched, what is sent, and that results are the processor's."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.hosting import hosting
from miniinfer_cli.backends.interface import TimedBy
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import ModelError
from tests.backends.cuda.checked_runs import assert_same, check, keep_from_device
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import Schedule

X = np.array([[1, -2, 3], [4, 5, -6]], np.float32)


def test_a_host_step_between_device_steps(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf")
    copies, steps = check(
        emulated,
        "graph main(x: f32[n,3]) {\n  a = Neg(x)\n  b = Erf(a)\n  c = Exp(b)\n  return c\n}",
        {"x": X},
        {"x": X + 1},
        {"x": X * 2},
    )
    assert (copies, steps) == ({"fetches": 1, "fetched_nbytes": 24, "sends": 1, "sent_nbytes": 24}, ["Erf"])


@pytest.mark.parametrize("reads", [False, True])
def test_a_result_is_waited_for_where_the_device_reads_pageable_memory(monkeypatch, reads: bool):
    """Copies are done as late as may be, and each result is spoilt as soon as it was sent."""
    keep_from_device(monkeypatch, "Erf")
    device = EmulatedDevice(schedule=Schedule("late"), reads_pageable_memory=reads)
    results: list[np.ndarray] = []
    run = hosting.run_reference

    def remember(*arguments: Any) -> Any:
        made = run(*arguments)
        results.extend(made)
        return made

    def spoil(nbytes: int) -> None:
        done.append(("to device", nbytes) in device.copies)
        results[-1][...] = np.nan

    done: list[bool] = []
    plan = plan_of("graph main(x: f32[2,3]) {\n a = Neg(x)\n b = Erf(a)\n c = Exp(b)\n return c\n}")
    with open_emulated(plan, device) as engine, load(plan, "cpu") as cpu:
        expected = cpu.run({"x": X})
        monkeypatch.setattr(hosting, "run_reference", remember)
        monkeypatch.setattr(engine.model, "count_send", spoil)
        assert_same(engine.run({"x": X}), expected)
    assert done == [reads]


def test_a_value_is_fetched_once_for_all_who_read_it(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf", "Sinh")
    text = """
graph main(x: f32[n,3]) {
  a = Neg(x)
  b = Erf(a)
  c = Sinh(a)
  d = Add(b, c)
  return a, d
}
"""
    copies, steps = check(emulated, text, {"x": X}, {"x": X - 1})
    assert (copies["fetches"], copies["sends"], sorted(steps)) == (1, 2, ["Erf", "Sinh"])


def test_inputs_are_read_where_the_caller_has_them(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf")
    copies, _ = check(emulated, "graph main(x: f32[n,3]) {\n  b = Erf(x)\n  return b\n}", {"x": X}, {"x": X - 1})
    assert copies == {"fetches": 0, "fetched_nbytes": 0, "sends": 0, "sent_nbytes": 0}


def test_inputs_on_the_device_are_fetched_for_host_steps(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf")
    plan = plan_of("graph main(x: f32[n,3]) {\n  b = Erf(x)\n  c = Neg(b)\n  return c\n}")
    with open_emulated(plan, emulated) as engine, engine.create_context() as context, load(plan, "cpu") as cpu:
        out = context.enqueue({"x": X}, on_device=True).result()["c"]
        assert_same(context.run({"x": out}), cpu.run({"x": cpu.run({"x": X})["c"]}))


def test_views_of_what_the_host_has(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf", "Sinh")
    text = """
graph main(x: f32[2,3]) {
  s: i64[2] = const [3, 2]
  f: i64[1] = const [-1]
  v = Reshape(x, s)
  a = Erf(v)
  b = Reshape(a, f)
  c = Neg(b)
  d = Reshape(c, s)
  e = Sinh(d)
  g = Reshape(e, f)
  return v, b, d, g
}
"""
    copies, _ = check(emulated, text, {"x": X}, {"x": -X})
    assert copies["sends"] <= 2


def test_host_results_that_are_read_on_both_sides(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf", "Sinh")
    text = """
graph main(x: f32[n,3]) {
  a = Erf(x)
  b = Neg(a)
  c = Sinh(a)
  d = Add(b, c)
  e = Mul(d, a)
  return a, e
}
"""
    copies, _ = check(emulated, text, {"x": X}, {"x": -X})
    assert (copies["fetches"], copies["sends"]) == (0, 2)


def test_constants_and_settled_values_for_host_steps(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Sinh", "Cast")
    text = """
graph main(x: f32[n,3]) {
  w: f32[3] = const [1.0, 2.0, 3.0]
  s = Shape(x)
  t = Cast(s) {to=1}
  a = Sinh(w)
  b = Mul(x, a)
  return b, t, s, w
}
"""
    check(emulated, text, {"x": X}, {"x": X[:1]})


def test_sizes_that_depend_on_data(emulated, monkeypatch):
    text = """
graph main(x: f32[n,3]) {
  z = NonZero(x)
  t = Transpose(z) {perm=[1, 0]}
  y = GatherND(x, t)
  e = Exp(y)
  k = Neg(x)
  return z, e, k
}
"""
    sparse = np.where(np.arange(6).reshape(2, 3) % 2, X, 0).astype(np.float32)
    check(emulated, text, {"x": X}, {"x": sparse}, {"x": np.zeros((2, 3), np.float32)}, {"x": sparse})


def test_a_count_lives_as_long_as_what_it_counts(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf")
    text = """
graph main(x: f32[n,3]) {
  z = NonZero(x)
  a = Neg(x)
  b = Exp(a)
  c = Mul(b, a)
  d = Sub(c, b)
  e = Erf(d)
  t = Transpose(z) {perm=[1, 0]}
  y = GatherND(e, t)
  return y
}
"""
    sparse = np.where(np.arange(6).reshape(2, 3) % 2, X, 0).astype(np.float32)
    check(emulated, text, {"x": sparse}, {"x": X})


def test_sequences_pass_through_the_host(emulated):
    text = """
graph main(x: f32[n,3], i: i64[]) {
  a = Neg(x)
  b = Exp(x)
  s = SequenceConstruct(a, b, x)
  y = SequenceAt(s, i)
  z = Mul(y, y)
  return s, z
}
"""
    _, steps = check(emulated, text, {"x": X, "i": np.array(1)}, {"x": X, "i": np.array(-1)})
    assert "SequenceConstruct" in steps


def test_strings_go_beside_numbers(emulated):
    text = """
graph main(x: f32[n,3], s: str[m]) {
  t = Identity(s)
  y = Neg(x)
  return y, t, s
}
"""
    words = np.array(["a", "bé", ""], object)
    check(emulated, text, {"x": X, "s": words}, {"x": X[:1], "s": words[:1]})


def test_what_data_does_not_allow_names_the_node_and_harms_nothing(emulated):
    text = """
graph main(x: f32[n,3], i: i64[]) {
  a = Neg(x)
  s = SequenceConstruct(a, x)
  y = SequenceAt(s, i)
  z = Exp(y)
  return z
}
"""
    plan = plan_of(text)
    with open_emulated(plan, emulated) as engine, engine.create_context() as context:
        good = {"x": X, "i": np.array(0)}
        first = context.run(good)["z"]
        for _ in range(3):
            with pytest.raises(ModelError, match="node 'y'"):
                context.run({"x": X, "i": np.array(7)})
            np.testing.assert_array_equal(context.run(good)["z"], first)


def test_a_result_that_is_not_what_its_rule_says_is_refused(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf")
    monkeypatch.setattr(hosting, "run_reference", lambda node, operands, run: (np.zeros(99, np.float32),))
    plan = plan_of("graph main(x: f32[n,3]) {\n  b = Erf(x)\n  c = Neg(b)\n  return c\n}")
    told = r"node 'b': Erf: computed f32\[99\], its shape rule says f32\[2,3\]"
    with open_emulated(plan, emulated) as engine, pytest.raises(ModelError, match=told):
        engine.run({"x": X})


def test_each_step_is_timed_with_its_host_steps(emulated, monkeypatch):
    keep_from_device(monkeypatch, "Erf")
    with open_emulated(
        plan_of("graph main(x: f32[n,3]) {\n  a = Neg(x)\n  b = Erf(a)\n  c = Exp(b)\n  return c\n}"), emulated
    ) as engine:
        times: list[int] = []
        with engine.create_context() as context:
            context.run({"x": X}, times)
            taken = [context.time_steps(engine.check({"x": X})) for _ in range(4)][-1]
        assert (len(times), times[0], times[2]) == (3, 1000, 1000)
        assert times[1] > 1000
        assert (taken.way, taken.gaps_ns, taken.event_ns) == (TimedBy.PIECES, None, pytest.approx(500))
        assert (taken.steps_ns[0], taken.steps_ns[2]) == (pytest.approx(500), pytest.approx(500))


PASSED_THROUGH = """
graph main(x: f32[n,3], c: bool[]) {
  y = If(c, x)
    then_branch: graph then(p) { return p }
    else_branch: graph other(p) { r = Neg(p) return r }
  s = SequenceConstruct(x)
  z = If(c, s)
    then_branch: graph kept(p) { return p }
    else_branch: graph erased(p) { e = SequenceErase(p) return e }
  return y, s, z
}
"""


@pytest.mark.parametrize("rows", [2, 400])
def test_results_that_are_inputs_are_as_they_were_when_enqueued(emulated, rows: int):
    """The caller may fill the array again while the inference is under way; what goes through branches is lent, not copied."""
    with open_emulated(plan_of(PASSED_THROUGH), emulated) as engine, engine.create_context() as context:
        for _ in range(3):
            x = np.ones((rows, 3), np.float32)
            future = context.enqueue({"x": x, "c": np.array(True)})
            x[:] = 9
            got = future.result()
            for array in (got["y"], got["s"][0], got["z"][0]):
                assert array.tolist() == [[1, 1, 1]] * rows
            assert not any(np.shares_memory(a, b) for a, b in [(got["s"][0], got["z"][0]), (got["y"], x), (got["z"][0], x)])
