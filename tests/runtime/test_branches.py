"""Ifs that small inputs decide: the branch taken is part of what a program is kept under, and no control flow is left."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.devices.opening import load
from miniinfer_cli.devices.placement import place
from miniinfer_cli.errors import ModelError
from miniinfer_cli.planning.thaw import thaw
from tests.backends.cuda.checked_runs import assert_same
from tests.emulation.engine import open_emulated
from tests.everywhere import outputs_everywhere, parsed

# As voice activity detectors do it: each sampling rate has filters of its own, which fit windows of its own, and an inner If asks
# for the shape of the state.
SPEECH = """g (float[B,N] x, int64 sr, float[S,B,2] state) => (float[B] y, float[B,2] next) {
  rate = Constant<value = int64 {16000}>()
  c = Equal(sr, rate)
  y, next = If(c) <
    then_branch = wide () => (float[B] p, float[B,2] s) {
      ax = Constant<value = int64[1] {1}>()
      u = Unsqueeze(x, ax)
      w = ConstantOfShape<value = float[1] {0.5}>(wide_shape)
      f = Conv<strides = [16]>(u, w)
      six = Constant<value = int64[3] {-1, 2, 16}>()
      r = Reshape(f, six)
      m = ReduceMean<axes = [2], keepdims = 0>(r)
      sh = Shape<start = 0, end = 1>(state)
      one = Constant<value = int64[1] {1}>()
      alone = Equal(sh, one)
      s = If(alone) <
        then_branch = fresh () => (float[B,2] a) { a = Identity(m) },
        else_branch = kept () => (float[B,2] b) { i = Constant<value = int64 {0}>() t = Gather(state, i) b = Add(t, m) }
      >
      p = ReduceSum<keepdims = 0>(s, ax)
    },
    else_branch = narrow () => (float[B] p, float[B,2] s) {
      ax = Constant<value = int64[1] {1}>()
      u = Unsqueeze(x, ax)
      w = ConstantOfShape<value = float[1] {0.25}>(narrow_shape)
      f = Conv<strides = [8]>(u, w)
      six = Constant<value = int64[3] {-1, 2, 16}>()
      r = Reshape(f, six)
      s = ReduceMean<axes = [2], keepdims = 0>(r)
      slow = Constant<value = int64 {8000}>()
      exact = Equal(sr, slow)
      p = If(exact) <
        then_branch = e () => (float[B] a) { a = ReduceSum<keepdims = 0>(s, ax) },
        else_branch = o () => (float[B] b) { t = ReduceSum<keepdims = 0>(s, ax) b = Neg(t) }
      >
    }
  >
}"""


def _speech():
    model = parsed(SPEECH)
    for name, dims in (("wide_shape", [1, 1, 32]), ("narrow_shape", [1, 1, 16])):
        model.graph.initializer.add(name=name, dims=[3], data_type=7, int64_data=dims)
    return model


def _feeds(sr: int, n: int, states: int = 1) -> dict:
    x = np.random.default_rng(sr).standard_normal((2, n)).astype(np.float32)
    return {"x": x, "sr": np.array(sr), "state": np.ones((states, 2, 2), np.float32)}


WIDE, NARROW, OTHER, KEPT = _feeds(16000, 528), _feeds(8000, 264), _feeds(11025, 264), _feeds(16000, 528, 2)


def _expected(feeds: dict) -> tuple[np.ndarray, np.ndarray]:
    width, step, weight = (32, 16, 0.5) if feeds["sr"] == 16000 else (16, 8, 0.25)
    x = feeds["x"]
    filtered = np.stack([x[:, i : i + width].sum(1) * weight for i in range(0, x.shape[1] - width + 1, step)], 1)
    state = filtered.reshape(-1, 2, 16).mean(2) + (feeds["state"][0] if len(feeds["state"]) > 1 else 0)
    total = state.sum(1)
    return (-total if feeds["sr"] not in (16000, 8000) else total), state


def test_each_sampling_rate_runs_its_own_branch():
    cases = [WIDE, NARROW, OTHER, KEPT]
    for found, feeds in zip(outputs_everywhere(_speech(), *cases), cases, strict=True):
        y, state = _expected(feeds)
        np.testing.assert_allclose(found["y"], y, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found["next"], state, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("opened", [lambda plan: load(plan, "cpu"), open_emulated], ids=["cpu", "cuda"])
def test_no_control_flow_is_left(opened, level):
    with opened(miniinfer_cli.build(_speech(), opt_level=level)) as engine:
        for feeds in (WIDE, NARROW, KEPT):
            program = engine.program(engine.check(feeds))
            kinds = [step.kind for step in program.steps]
            assert "If" not in kinds
            assert "Equal" not in kinds
            assert not program.host_steps
            assert sum("Conv" in kind for kind in kinds) == 1


@pytest.mark.parametrize("opened", [lambda plan: load(plan, "cpu"), open_emulated], ids=["cpu", "cuda"])
def test_a_thousand_values_of_one_branch_make_one_program(opened):
    with opened(miniinfer_cli.build(_speech())) as engine:
        want = engine.run(OTHER)
        programs = {id(engine.program(engine.check({**OTHER, "sr": np.array(sr)}))) for sr in range(20000, 21000)}
        assert len(programs) == 1
        assert_same(engine.run({**OTHER, "sr": np.array(20999)}), want)
        assert engine.stats()["programs_made"] == 1
        engine.run(NARROW)
        engine.run(WIDE)
        engine.run({**WIDE, "sr": np.array([16000], np.int64).reshape(())})
        assert engine.stats()["programs_made"] == 3


def test_a_branch_that_does_not_fit_the_window_fails_when_it_is_taken():
    for opened in (lambda plan: load(plan, "cpu"), open_emulated):
        with opened(miniinfer_cli.build(_speech())) as engine:
            with pytest.raises(ModelError, match=r"Reshape"):
                engine.run({**WIDE, "sr": np.array(8000)})
            np.testing.assert_allclose(engine.run(WIDE)["y"], _expected(WIDE)[0], rtol=1e-4, atol=1e-4)


# -- how a condition is computed ---------------------------------------------------------------------------------------


def _choosing(condition: str, inputs: str) -> str:
    return f"""g (float[2] x, {inputs}) => (float[2] y) {{
      zero = Constant<value = int64 {{0}}>() one = Constant<value = int64[1] {{1}}>() axes = Constant<value = int64[1] {{0}}>()
      {condition}
      y = If(c) <then_branch = a () => (float[2] r) {{ r = Neg(x) }}, else_branch = b () => (float[2] r) {{ r = Abs(x) }}>
    }}"""


CONDITIONS = {
    "itself": ("c = Identity(b)", "bool b", {"b": np.array(True)}, {"b": np.array(False)}),
    "of rank 1": ("c = Not(b)", "bool[1] b", {"b": np.array([False])}, {"b": np.array([True])}),
    "greater": ("c = Greater(n, zero)", "int64 n", {"n": np.array(5)}, {"n": np.array(-5)}),
    "cast": ("c = Cast<to = 9>(n)", "int32 n", {"n": np.array(5, np.int32)}, {"n": np.array(0, np.int32)}),
    "both": (
        "p = Greater(n, zero) c = And(p, b)", "int64 n, bool b",
        {"n": np.array(1), "b": np.array(True)}, {"n": np.array(1), "b": np.array(False)},
    ),
    "gathered": (
        "f = Gather(v, zero) s = Squeeze(f, axes) t = Cast<to = 7>(s) c = Equal(t, zero)", "int32[3,1] v",
        {"v": np.int32([[0], [1], [2]])}, {"v": np.int32([[4], [0], [0]])},
    ),
    "through floats": (
        "f = Cast<to = 1>(n) h = Sqrt(f) i = Cast<to = 7>(h) c = Equal(i, one)", "int64[1] n",
        {"n": np.array([3])}, {"n": np.array([4])},
    ),
    "reduced": (
        "q = Equal(v, one) r = Cast<to = 7>(q) s = ReduceSum<keepdims = 0>(r) c = Greater(s, zero)", "int64[3] v",
        {"v": np.array([0, 1, 0])}, {"v": np.array([0, 0, 0])},
    ),
    "with a shape": (
        "n1 = Shape(z) s = Add(n1, n) c = Equal(s, one)", "int64[1] n, float[k] z",
        {"n": np.array([-1]), "z": np.ones(2, np.float32)}, {"n": np.array([-1]), "z": np.ones(3, np.float32)},
    ),
    "from a branch": (
        "g = Greater(n, zero) k = If(g) <then_branch = t () => (bool u) { u = Equal(n, m) },"
        " else_branch = e () => (bool u) { u = Identity(b) }> c = Not(k)", "int64 n, int64 m, bool b",
        {"n": np.array(2), "m": np.array(3), "b": np.array(True)}, {"n": np.array(-2), "m": np.array(3), "b": np.array(True)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_that_small_inputs_decide(name):
    condition, inputs, *cases = CONDITIONS[name]
    model = parsed(_choosing(condition, inputs))
    x = np.float32([1, -2])
    found = outputs_everywhere(model, *({"x": x, **given} for given in cases))
    assert [f["y"].tolist() for f in found] == [[-1, 2], [1, 2]]
    for level in (0, 2):
        with open_emulated(miniinfer_cli.build(model, opt_level=level)) as engine:
            for given in cases:
                program = engine.program(engine.check({"x": x, **given}))
                assert [s.kind for s in program.steps] in (["Neg"], ["Abs"], ["miniinfer.FusedPointwise"]), name
                assert not program.host_steps


def test_data_keep_their_say():
    model = parsed(_choosing("s = ReduceSum<keepdims = 0>(x) z = Constant<value = float {0}>() c = Greater(s, z)", "bool b"))
    cases = [{"x": np.float32([1, -2]), "b": np.array(True)}, {"x": np.float32([3, -2]), "b": np.array(True)}]
    assert [f["y"].tolist() for f in outputs_everywhere(model, *cases)] == [[1, 2], [-3, 2]]
    with open_emulated(miniinfer_cli.build(model)) as engine:
        assert "If" in [s.kind for s in engine.program(engine.check(cases[0])).steps]


def test_contents_that_decide_a_shape_within_the_branch_taken():
    model = parsed("""g (float[k] x, int64[2] shape, bool c) => (float[a,b] y) {
      y = If(c) <then_branch = t () => (float[a,b] r) { r = Reshape(x, shape) },
                 else_branch = e () => (float[a,b] r) { o = Constant<value = int64[2] {1, -1}>() r = Reshape(x, o) }>
    }""")
    x = np.arange(6, dtype=np.float32)
    cases = [{"x": x, "shape": np.array(s), "c": np.array(c)} for s, c in (([2, 3], True), ([3, 2], True), ([2, 3], False))]
    assert [f["y"].shape for f in outputs_everywhere(model, *cases)] == [(2, 3), (3, 2), (1, 6)]
    with open_emulated(miniinfer_cli.build(model)) as engine:
        for case in cases:
            assert not engine.program(engine.check(case)).host_steps
        engine.run({**cases[2], "shape": np.array([6, 1])})
        assert engine.stats()["programs_made"] == 3  # where the shape is not read, it is no part of the key


def test_the_report_looks_at_every_branch_that_inputs_may_choose():
    for size, programs in ((528, 1), (264, 2)):  # of the wrong size for a branch, or as two inner branches take it
        plan = miniinfer_cli.build(_speech(), opt_shapes={"x": (2, size)})
        placement = place(thaw(plan), {r.name: r for r in plan.ranges})
        assert placement is not None
        assert (placement.host_nodes, placement.programs, placement.segments) == ((), programs, 1)
    assert placement.lines()[0].endswith("; 2 programs, of which small inputs choose one by the branches that they decide")


def test_an_index_that_a_choice_does_not_have_is_told_by_the_run():
    model = parsed(_choosing("v = Constant<value = bool[2] {1, 0}>() c = Gather(v, n)", "int64 n"))
    x = np.float32([1, -2])
    found = outputs_everywhere(model, {"x": x, "n": np.array(0)}, {"x": x, "n": np.array(-1)})
    assert [f["y"].tolist() for f in found] == [[-1, 2], [1, 2]]
    with load(miniinfer_cli.build(model), "cpu") as engine, pytest.raises(ModelError, match="index 7 is outside"):
        engine.run({"x": x, "n": np.array(7)})


def test_outputs_that_nobody_wants():
    model = parsed("""g (float[2] x, bool c) => (float[2] y) {
      y = If(c) <then_branch = a () => (float[2] r, float[2] x) { r = Neg(x) },
                 else_branch = b () => (float[2] x, float[2] x) { }>
    }""")
    x = np.float32([1, -2])
    found = outputs_everywhere(model, {"x": x, "c": np.array(True)}, {"x": x, "c": np.array(False)})
    assert [f["y"].tolist() for f in found] == [[-1, 2], [1, -2]]
