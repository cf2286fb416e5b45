"""Where the batch of a plan stands, which plans have none, and how requests lie in it."""

import numpy as np
import pytest

from engine_format import DimensionRange
from miniinfer_cli import Batcher
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import StatePair, States
from miniinfer_cli.ir.constants import constant
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.serving.layout import draws, find_layout
from tests.graph_text import typed_graph
from tests.serving.staged import DOUBLE, open_cpu, rows

FIXED = "graph main(x: f32[4,3]) {\n  y = Neg(x)\n  return y\n}"
PAIR = "graph main(a: f32[n,s], b: i64[n,s]) {\n  c = Neg(a)\n  d = Neg(b)\n  return c, d\n}"
BEHIND = "graph main(x: f32[t,n,3], z: f32[n]) {\n  y = Neg(x)\n  w = Neg(z)\n  return y, w\n}"


@pytest.mark.parametrize(
    ("text", "batch_dim", "message"),
    [
        (
            "graph main(x: f32[n,3], w: f32[3]) {\n  y = Add(x, w)\n  return y\n}",
            None,
            "the inputs share no first dimension, which a batch",
        ),
        (
            "graph main(x: f32[n,3], w: f32[m,3]) {\n  y = Neg(x)\n  z = Neg(w)\n  return y, z\n}",
            None,
            "share no first dimension",
        ),
        ("graph main(x: f32[]) {\n  y = Neg(x)\n  return y\n}", None, "share no first dimension"),
        (
            "graph main(x: f32[2*n,3]) {\n  y = Neg(x)\n  return y\n}",
            None,
            r"the first dimension of the inputs is 2\*n, which is no size of its own",
        ),
        ("graph main(x: f32[n,n]) {\n  y = Neg(x)\n  return y\n}", None, "more than one dimension that hangs on n"),
        (
            "graph main(x: f32[n,3]) {\n  y = ReduceSum(x) {keepdims=0}\n  return y\n}",
            None,
            "output y: .* has no dimension n: what belongs to which",
        ),
        (
            "graph main(x: f32[n,3]) {\n  t = Transpose(x) {perm=[1,0]}\n  y = MatMul(x, t)\n  return y\n}",
            None,
            "output y: .* more than one dimension that hangs on n",
        ),
        (
            "graph main(x: f32[n,3]) {\n  y = Concat(x, x) {axis=0}\n  return y\n}",
            None,
            r"output y: f32\[2\*n,3\] computes with n",
        ),
        (
            "graph main(x: f32[4,3]) {\n  y = Transpose(x) {perm=[1,0]}\n  return y\n}",
            None,
            "the first dimension of the inputs is 4, but no batch: output y",
        ),
        (DOUBLE, "batch", "batch_dim: not all inputs have a dimension 'batch'\n  hint: they share n; the inputs are x"),
        (FIXED, "batch", "batch_dim: .*\n  hint: they share none by name"),
    ],
)
def test_a_plan_without_a_batch_is_refused_in_words(text, batch_dim, message):
    with open_cpu(text) as engine, pytest.raises(UsageError, match=message):
        find_layout(engine, batch_dim, {})


def test_what_is_no_tensor_is_not_batched():
    text = "graph main(x: f32[n], xs: seq(f32[n])) {\n  y = Neg(x)\n  return y\n}"
    with open_cpu(text) as engine, pytest.raises(UsageError, match=r"xs: seq.* cannot be batched: it is no tensor of known rank"):
        find_layout(engine, None, {})


def test_a_plan_without_inputs_is_not_batched():
    text = "graph main() {\n  x: f32[2] = const [1.0, 2.0]\n  y = Neg(x)\n  return y\n}"
    with open_cpu(text) as engine, pytest.raises(UsageError, match="the plan has no inputs that could be batched"):
        find_layout(engine, None, {})


def test_a_plan_that_keeps_states_is_refused():
    with open_cpu() as engine:
        engine.graph.states = States((StatePair("x", "y"),))
        with pytest.raises(
            UsageError, match=r"the plan keeps states between inferences, .* of several callers would share\n  hint: give each"
        ):
            find_layout(engine, None, {})


def test_another_dimension_may_be_the_batch():
    with open_cpu(BEHIND) as engine:
        layout = find_layout(engine, "n", {})
        assert (layout.name, layout.axes, layout.output_axes) == ("n", (1, 0), (1, 0))
        _, form = layout.read(engine, {"x": np.zeros((5, 2, 3), "f"), "z": np.zeros(2, "f")}, 8)
        assert (form.rows, form.bucket, form.padded) == (2, ((5, 0, 3), (0,)), False)
        with pytest.raises(UsageError, match=r"axis 0 .n. is 3, but 2 in input 'x'"):
            layout.read(engine, {"x": np.zeros((5, 2, 3), "f"), "z": np.zeros(3, "f")}, 8)


def test_a_fixed_first_dimension_is_a_batch_that_requests_need_not_fill():
    with open_cpu(FIXED) as engine:
        layout = find_layout(engine, None, {})
        assert layout.fixed == 4
        assert layout.read(engine, {"x": np.zeros((3, 3), "f")}, 4)[1].rows == 3
        with pytest.raises(UsageError, match="a request of 5 rows, and a batch has 4 at most"):
            layout.read(engine, {"x": np.zeros((5, 3), "f")}, 4)


@pytest.mark.parametrize("turn", range(2))  # of shapes that were seen, and of others
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs: missing 'x'"),
        ({"x": np.zeros((2, 3), "f"), "z": 1}, "unknown 'z'"),
        ({"y": np.zeros((2, 3), "f")}, "missing 'x'; unknown 'y'"),
        ({"x": np.zeros((2, 3), np.float64)}, r"input 'x': got f64\[2,3\], expected f32\[n,3\]"),
        ({"x": np.zeros((2, 4), "f")}, "4 is not 3"),
        ({"x": np.zeros(3, "f")}, "of rank 1, expected"),
        ({"x": np.zeros((0, 3), "f")}, "input 'x': a request of no rows"),
        ({"x": np.zeros((9, 3), "f")}, "a request of 9 rows, and a batch has 8 at most\n  hint: give the rows in several"),
        ([np.zeros((2, 3), "f")], "inputs: expected a dict of names and arrays, got list"),
    ],
)
def test_what_does_not_fit_is_told_at_once(inputs, message, turn):
    with open_cpu() as engine:
        layout = find_layout(engine, None, {})
        if turn:
            layout.read(engine, {"x": np.zeros((2, 3), "f")}, 8)
        with pytest.raises(UsageError, match=message):
            layout.read(engine, inputs, 8)


@pytest.mark.parametrize("value", [[[1, 2, 3]], np.array([[1, 2, 3]], ">f4"), np.ones((1, 3), "f").view(np.recarray)])
def test_what_an_engine_takes_a_request_may_hold(value):
    with open_cpu() as engine:
        ((array,), form) = find_layout(engine, None, {}).read(engine, {"x": value}, 8)
        assert (type(array).__module__, array.dtype, array.shape, form.rows) == (
            array.__class__.__module__,
            np.float32,
            (1, 3),
            1,
        )


def test_an_input_with_a_default_is_nobodys_own():
    graph = typed_graph("graph main(x: f32[n,3], w: f32[3]) {\n  y = Mul(x, w)\n  return y\n}")
    graph.defaults["w"] = constant(np.array([1, 2, 3], np.float32))
    with load(freeze(graph), "cpu") as engine:
        layout = find_layout(engine, None, {})
        assert ([b.name for b in layout.inputs], layout.defaults["w"].tolist()) == (["x"], [1, 2, 3])
        with pytest.raises(UsageError, match="input 'w' has a default, and is the same for all requests of a batch"):
            layout.read(engine, {"x": np.zeros((2, 3), "f"), "w": np.zeros(3, "f")}, 8)


def test_a_dimension_is_padded_to_the_next_size_and_outputs_are_cut():
    text = "graph main(a: f32[n,s,2], b: i64[n,s]) {\n  c = Concat(a, a) {axis=1}\n  d = Neg(b)\n  return c, d\n}"
    with open_cpu(text) as engine:
        layout = find_layout(engine, None, {"s": [8, 4]})
        _, form = layout.read(engine, {"a": np.zeros((2, 3, 2), "f"), "b": np.zeros((2, 3), np.int64)}, 8)
        assert (form.bucket, form.padded) == (((0, 4, 2), (0, 4)), True)
        assert form.cuts == ((slice(None), slice(6), slice(None)), (slice(None), slice(3)))
        _, form = layout.read(engine, {"a": np.zeros((2, 8, 2), "f"), "b": np.zeros((2, 8), np.int64)}, 8)
        assert (form.bucket, form.padded, form.cuts) == (((0, 8, 2), (0, 8)), False, ())
        with pytest.raises(UsageError, match="the dimension s is 9, and 8 is the largest size that pad gives it"):
            layout.read(engine, {"a": np.zeros((2, 9, 2), "f"), "b": np.zeros((2, 9), np.int64)}, 8)


def test_what_is_smaller_than_the_plan_takes_is_padded():
    with open_cpu(PAIR, [DimensionRange("s", 4, 8, 16)]) as engine:
        layout = find_layout(engine, None, {"s": [4, 8]})
        assert layout.read(engine, {"a": np.zeros((1, 2), "f"), "b": np.zeros((1, 2), np.int64)}, 8)[1].bucket == ((0, 4), (0, 4))


@pytest.mark.parametrize(
    ("pad", "message"),
    [
        ({"q": [4]}, "pad: no input has a dimension 'q' that could be padded\n  hint: it may be one of s"),
        ({"n": [4]}, "no input has a dimension 'n'"),
        ({"s": [4, 40]}, "pad: 40 is none of the sizes that the plan takes: s: 1 to 16"),
        ({"s": []}, r"pad: expected sizes for 's', got \[\]"),
        ({"s": 4}, "pad: expected sizes for 's', got 4"),
        ({"s": [0]}, "pad: expected sizes"),
        ({"s": "48"}, "pad: expected sizes"),
    ],
)
def test_pads_that_do_not_fit(pad, message):
    with open_cpu(PAIR, [DimensionRange("s", 1, 8, 16)]) as engine, pytest.raises(UsageError, match=message):
        find_layout(engine, None, pad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DOUBLE, False),
        ("graph main(x: f32[n,3]) {\n  y = Bernoulli(x)\n  return y\n}", True),
        ("graph main(x: f32[n,3]) {\n  y = Dropout(x)\n  return y\n}", False),
    ],
)
def test_which_plans_draw_numbers(text, expected):
    assert draws(typed_graph(text)) is expected


def test_a_plan_without_a_batch_is_computed_request_by_request_if_that_is_asked_for():
    text = "graph main(x: f32[n,3]) {\n  t = Transpose(x) {perm=[1, 0]}\n  y = MatMul(x, t)\n  return y\n}"
    with open_cpu(text) as engine:
        with pytest.raises(UsageError, match="output y: f32"):
            Batcher(engine)
        with pytest.raises(UsageError, match="alone: requests share no batches"):
            Batcher(engine, alone=True, batch_dim="n")
        with pytest.raises(UsageError, match="max_batch: 2 is not 1"):
            Batcher(engine, max_batch=2, alone=True)
        with Batcher(engine, alone=True, priorities=2) as batcher:
            batcher.warm_up(rows(1))
            given = [rows(*range(1, 2 + n % 3)) for n in range(7)]
            futures = [batcher.submit(g, priority=n % 2) for n, g in enumerate(given)]
            for future, one in zip(futures, given, strict=True):
                np.testing.assert_array_equal(future.result(20)["y"], one["x"] @ one["x"].T)
            with pytest.raises(UsageError, match="rank"):
                batcher.submit({"x": np.zeros(3, np.float32)})
            assert (batcher.stats()["batches"], batcher.stats()["mean_batch"]) == (7, 1)
