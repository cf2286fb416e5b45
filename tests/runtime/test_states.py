"""States that are replaced: contexts keep them, on the CPU and on the emulated device, and measuring leaves them alone."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import miniinfer_cli
from engine_format import read_plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError, LimitExceeded, MiniinferError, ModelError, UsageError
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.serving.batcher import Batcher
from tests.cached_models import group_query_attention
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated
from tests.emulation.stream import Schedule
from tests.everywhere import parsed

# The second state moves what is behind the first axis, and becomes what the first was.
TWO = """g (float[batch,3] x, float[batch,3] h, float[2,batch] c) => (float[batch] y, float[batch,3] hn, float[2,batch] cn) {
  half = Constant<value = float {0.5}>()
  one = Constant<value = int64[1] {1}>()
  s = Add(x, h)
  hn = Mul(s, half)
  before = ReduceSum<keepdims = 0>(h, one)
  zero = Constant<value = int64[1] {0}>()
  row = Unsqueeze(before, zero)
  rows = Concat<axis = 0>(row, row)
  cn = Add(c, rows)
  last = ReduceSum<keepdims = 0>(hn, one)
  other = ReduceSum<keepdims = 0>(c, zero)
  y = Add(last, other)
}"""
STATE = ["h:hn", "c:cn"]


def expected(xs):
    """The outputs for inputs one after the other, from zeros."""
    h, c, found = np.zeros((len(xs[0]), 3), "f"), np.zeros((2, len(xs[0])), "f"), []
    for x in xs:
        hn, cn = (x + h) * np.float32(0.5), c + h.sum(1)
        found.append(hn.sum(1) + c.sum(0))
        h, c = hn, cn
    return found


@pytest.fixture(params=["cpu", "at once", "late", "random"])
def opened(request) -> Iterator[Callable[..., Engine]]:
    """Opens plans on the CPU, and on the emulated device under each schedule."""
    device = None if request.param == "cpu" else EmulatedDevice(schedule=Schedule(request.param))
    engines: list[Engine] = []

    def open_plan(text: str, state=STATE, **options) -> Engine:
        plan = miniinfer_cli.build(parsed(text), state=state, **options)
        engines.append(load(plan, "cpu") if device is None else open_emulated(plan, device))
        return engines[-1]

    yield open_plan
    for engine in engines:
        engine.close()
    assert device is None or device.leftovers == {}


def inputs(count: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(-8, 8, (count, batch, 3)).astype("f")


def test_a_context_keeps_what_an_engine_does_not(opened):
    engine, xs = opened(TWO), inputs(4)
    assert ([b.name for b in engine.inputs], [b.name for b in engine.outputs]) == (["x"], ["y"])
    with engine.create_context() as context, engine.create_context() as other:
        got = [context.run({"x": x})["y"] for x in xs]
        np.testing.assert_array_equal(got, expected(xs))
        np.testing.assert_array_equal(other.run({"x": xs[3]})["y"], expected(xs[3:])[0])
    for _ in range(2):
        np.testing.assert_array_equal(engine.run({"x": xs[1]})["y"], expected(xs[1:])[0])


def test_inferences_in_flight_are_in_order(opened):
    engine, xs = opened(TWO), inputs(6)
    with engine.create_context() as context:
        futures = [context.enqueue({"x": x}) for x in xs]
        np.testing.assert_array_equal([f.result()["y"] for f in futures], expected(xs))


def test_what_measures_changes_nothing(opened):
    engine, xs = opened(TWO), inputs(3)
    with engine.create_context() as context:
        arrays = engine.check({"x": xs[2]})
        for number, x in enumerate(xs):
            for _ in range(3):  # as it is, captured, captured with events
                context.run_arrays(arrays, commit=False)
                context.time_steps(arrays)
                context.start(arrays).result()
                context.start(arrays, timed=True, transfers=False).wait()
            np.testing.assert_array_equal(context.run({"x": x})["y"], expected(xs)[number])


def test_times_of_steps_come_with_an_inference_that_counts(opened):
    engine, xs = opened(TWO), inputs(3)
    with engine.create_context() as context:
        for number, x in enumerate(xs):
            times: list[int] = []
            np.testing.assert_array_equal(context.run({"x": x}, times)["y"], expected(xs)[number])
            assert len(times) == len(engine.program([x]).steps)


def test_a_fork_goes_its_own_way(opened):
    engine, xs = opened(TWO), inputs(4)
    with engine.create_context() as context:
        for x in xs[:2]:
            context.enqueue({"x": x})
        with context.fork() as fork, context.fork() as untouched:
            np.testing.assert_array_equal(fork.run({"x": xs[2]})["y"], expected(xs)[2])
            np.testing.assert_array_equal(context.run({"x": xs[3]})["y"], expected([*xs[:2], xs[3]])[2])
            np.testing.assert_array_equal(fork.run({"x": xs[3]})["y"], expected(xs)[3])
            context.close()
            np.testing.assert_array_equal(untouched.run({"x": xs[2]})["y"], expected(xs)[2])
    with engine.create_context() as fresh, fresh.fork() as fork:
        np.testing.assert_array_equal(fork.run({"x": xs[0]})["y"], expected(xs)[0])


def test_one_slot_of_the_batch_or_all_begin_anew(opened):
    engine, xs = opened(TWO), inputs(4)
    with engine.create_context() as context:
        context.reset(1)  # there is nothing yet
        for x in xs[:2]:
            context.run({"x": x})
        context.reset(1)
        got = context.run({"x": xs[2]})["y"]
        np.testing.assert_array_equal(got, [expected(xs)[2][0], expected(xs[2:])[0][1]])
        with pytest.raises(UsageError, match=r"slot: expected 0 to 1, got 2"):
            context.reset(2)
        with pytest.raises(UsageError, match=r"are f32\[2,3\], these inputs want f32\[1,3\]\n  hint: reset\(\) lets go"):
            context.run({"x": xs[0][:1]})
        context.reset()
        np.testing.assert_array_equal(context.run({"x": xs[0][:1]})["y"], expected([xs[0][:1]])[0])


def test_a_state_may_be_an_output_twice_an_input_or_a_constant(opened):
    engine = opened(
        """g (float[2] x, float[2] a, float[2] b, float[2] c) => (float[2] y, float[2] an, float[2] bn, float[2] cn) {
        s = Add(a, b)
        t = Add(s, c)
        y = Add(x, t)
        an = Identity(y)
        bn = Identity(a)
        cn = Constant<value = float[2] {1.0, 2.0}>()
        }""",
        ["a:an", "b:bn", "c:cn"],
    )
    a, b, c = (np.zeros(2, "f") for _ in range(3))
    with engine.create_context() as context:
        for x in inputs(4):
            y = x[0, :2] + a + b + c
            np.testing.assert_array_equal(context.run({"x": x[0, :2]})["y"], y)
            a, b, c = y, a, np.array([1, 2], "f")


def test_states_that_are_exchanged(opened):
    engine = opened(
        """g (float[2] x, float[2] a, float[2] b) => (float[2] y, float[2] an, float[2] bn) {
        y = Sub(a, b)
        an = Identity(b)
        bn = Add(a, x)
        }""",
        ["a:an", "b:bn"],
    )
    a, b = (np.zeros(2, "f") for _ in range(2))
    with engine.create_context() as context:
        for x in inputs(5):
            np.testing.assert_array_equal(context.run({"x": x[0, :2]})["y"], a - b)
            a, b = b, a + x[0, :2]


def test_what_the_host_computes_is_kept_too(opened):
    # NonZero's size depends on data; what is left of it does not.
    engine = opened(
        """g (float[4] x, float[1] h) => (float[1] y, float[1] hn) {
        places = NonZero(x)
        n = Size(places)
        f = Cast<to = 1>(n)
        one = Constant<value = int64[1] {1}>()
        r = Reshape(f, one)
        hn = Add(h, r)
        y = Identity(h)
        }""",
        ["h:hn"],
    )
    with engine.create_context() as context:
        got = [context.run({"x": np.array(x, "f")})["y"][0] for x in ([1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1])]
    assert got == [0, 2, 5, 5]


def test_a_plan_file_keeps_its_states(tmp_path):
    miniinfer_cli.build(parsed(TWO), tmp_path / "m.plan", state=STATE)
    with read_plan(tmp_path / "m.plan") as plan:
        assert [list(p) for p in plan.report.options["states"]["pairs"]] == [["h", "hn", None], ["c", "cn", None]]
    xs = inputs(3)
    with load(tmp_path / "m.plan", "cpu") as engine, engine.create_context() as context:
        np.testing.assert_array_equal([context.run({"x": x})["y"] for x in xs], expected(xs))


def test_a_plan_with_no_states_has_none_to_reset():
    plan = miniinfer_cli.build(parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }"))
    with load(plan, "cpu") as engine, engine.create_context() as context:
        for call in (context.reset, context.fork, lambda: context.lengths, lambda: context.truncate(0)):
            with pytest.raises(UsageError, match="the plan has no states\n  hint: build it with states"):
                call()


def test_states_without_rows_are_not_truncated_and_batches_do_not_share_them(opened):
    engine = opened(TWO)
    with engine.create_context() as context:
        with pytest.raises(UsageError, match="the plan has no caches"):
            context.truncate(0)
        with pytest.raises(UsageError, match="counts: the plan has no caches"):
            context.run({"x": inputs(1)[0]}, counts=[1, 1])
    with pytest.raises(UsageError, match="the plan keeps states between inferences"):
        Batcher(engine)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("h:hn", r"state: expected a list of pairs, got 'h:hn'"),
        (["h"], r"state 'h': expected INPUT:OUTPUT, an input and an output of the model\n  hint: the inputs are x, h, c"),
        (["h:y"], r"state 'h:y': the input is f32\[batch,3\], the output f32\[batch\]"),
        (["x:hn", "h:hn"], "state 'h:hn': its input or its output is in another pair"),
    ],
)
def test_pairs_that_can_be_no_state(state, message):
    with pytest.raises(UsageError, match=message):
        miniinfer_cli.build(parsed(TWO), state=state)


def test_a_state_whose_size_nobody_tells():
    plan = miniinfer_cli.build(
        parsed("g (float[2] x, float[n] h) => (float[2] y, float[n] hn) { y = Relu(x) hn = Relu(h) }"), state=["h:hn"]
    )
    with load(plan, "cpu") as engine, pytest.raises(UsageError, match=r"the size of state 'h', f32\[n\], does not follow"):
        engine.run({"x": np.zeros(2, "f")})


@pytest.mark.parametrize(
    "grown",
    [
        "hn = Concat<axis = 0>(h, x)",
        "zero = Constant<value = int64[1] {0}>() places = NonZero(h) flat = Squeeze(places, zero) hn = Cast<to = 1>(flat)",
    ],
)
def test_a_state_that_grows_is_refused_without_a_capacity(opened, grown):
    engine = opened(f"g (float[2] x, float[n] h, float[n] z) => (float[2] y, float[m] hn) {{ y = Relu(x) {grown} }}", ["h:hn"])
    feeds = {"x": np.ones(2, "f"), "z": np.ones(1, "f")}
    with engine.create_context() as context:
        for call in (context.run, lambda feeds: context.enqueue(feeds).result()):
            with pytest.raises(ModelError, match=r"a state changes its type: .* the state f32\[1\]\n  hint: .*kv_cache=ROWS"):
                call(feeds)


def test_a_state_beside_branches_that_an_input_chooses(opened):
    # As voice activity detectors have it: filters for each sampling rate, one state for both.
    engine = opened(
        """g (float[B,2] x, int64 sr, float[B,2] h) => (float[B,2] y, float[B,2] hn) {
        rate = Constant<value = int64 {16000}>()
        c = Equal(sr, rate)
        y, hn = If(c) <
          then_branch = wide () => (float[B,2] p, float[B,2] s) { s = Add(x, h) p = Relu(s) },
          else_branch = narrow () => (float[B,2] q, float[B,2] t) { t = Sub(h, x) q = Neg(t) }
        >
        }""",
        ["h:hn"],
    )
    h = np.zeros((1, 2), "f")
    with engine.create_context() as context:
        for x, rate in zip(inputs(6, 1)[:, :, :2], (16000, 8000, 8000, 16000, 16000, 8000), strict=True):
            h = x + h if rate == 16000 else h - x
            y = context.run({"x": x, "sr": np.array(rate)})["y"]
            np.testing.assert_array_equal(y, np.maximum(h, 0) if rate == 16000 else -h)


def test_states_count_among_what_an_inference_may_allocate(opened):
    engine = opened(TWO)
    plan = engine.plan
    with load(plan, "cpu", DeviceOptions(memory_limit=20_000)) as limited, limited.create_context() as context:
        with pytest.raises(LimitExceeded, match="memory for the states of the context: 40000 bytes needed"):
            context.run({"x": np.zeros((2000, 3), "f")})
        context.reset()
        context.run({"x": np.zeros((1, 3), "f")})


def test_an_inference_that_fails_changes_nothing(opened):
    # What the data decide does not fit: the host sees it, before states are replaced.
    engine = opened(
        """g (float[4] x, int64[2] sizes, float[4] h) => (float[a,b] y, float[4] hn) {
        hn = Add(h, x)
        places = NonZero(x)
        flat = Squeeze(places)
        kept = Gather(hn, flat)
        y = Reshape(kept, sizes)
        }""",
        ["h:hn"],
    )
    x, one = np.ones(4, "f"), np.array([2, 2])
    with engine.create_context() as context:
        context.run({"x": x, "sizes": one})
        for call in (context.run, lambda feeds: context.enqueue(feeds).result()):
            with pytest.raises(MiniinferError, match="Reshape"):
                call({"x": np.array([1, 0, 1, 1], "f"), "sizes": one})
        np.testing.assert_array_equal(context.run({"x": x, "sizes": one})["y"], [[2, 2], [2, 2]])


@pytest.mark.parametrize("at", ["enqueuing", "waiting"])
def test_a_fault_of_the_device(at, monkeypatch):
    """Rows behind the length are written again; what was to be replaced is not known any more."""
    fault = DeviceError("the device failed")

    def failing(*arguments, **named):
        raise fault

    for model, options, feeds in (
        (parsed(TWO), {"state": STATE}, {"x": inputs(1)[0]}),
        (group_query_attention(), {"kv_cache": 9}, {"input_ids": np.zeros((2, 1), np.int64)}),
    ):
        with open_emulated(miniinfer_cli.build(model, **options)) as engine, engine.create_context() as context:
            context.run(feeds)
            with monkeypatch.context() as patched:
                if at == "enqueuing":
                    patched.setattr(context._device, "enqueue", failing)
                    with pytest.raises(DeviceError):
                        context.enqueue(feeds)
                else:
                    future = context.enqueue(feeds)
                    pending = future._pending._parts[0][1]
                    patched.setattr(pending, "result", failing)
                    with pytest.raises(DeviceError):
                        future.result()
            if "kv_cache" in options:
                assert context.lengths == (1, 1)
            elif at == "waiting":
                with pytest.raises(UsageError, match=r"failed in the middle of replacing the states .*\n  hint: reset\(\) it"):
                    context.run(feeds)
                with pytest.raises(UsageError, match="failed in the middle"):
                    context.fork()
                context.reset()
            context.run(feeds)


def test_a_state_of_unknown_rank_is_refused_by_what_is_not_known_of_it():
    model = parsed("g (float[2] x, float h) => (float[2] y, float[2] hn) { y = Relu(x) hn = Add(x, h) }")
    model.graph.input[1].type.tensor_type.ClearField("shape")
    with pytest.raises(UsageError, match=r"state 'h:hn': the input is f32\[\?\], of unknown rank, and a state begins with zeros"):
        miniinfer_cli.build(model, state=["h:hn"])
