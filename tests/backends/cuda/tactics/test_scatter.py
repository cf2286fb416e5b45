"""Scatter, ScatterElements, ScatterND, TensorScatter on the emulated device beside their references."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.choice.deciding import lower as decide
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.nodes import make_graph

RNG = np.random.default_rng(9)
REDUCTIONS = ("none", "add", "mul", "max", "min")


def data(*shape, dtype=np.float32):
    return (RNG.integers(-8, 8, shape) / 4).astype(dtype)


def indices(size, *shape, dtype=np.int64):
    return RNG.integers(-size, size, shape).astype(dtype)


def exactly(op, *inputs, **attrs):
    check_op(op, *inputs, tolerance=0.0, **attrs)


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_elements(reduction):
    x = data(5, 4, 7)
    exactly("ScatterElements", x, indices(4, 3, 1, 7), data(3, 1, 7), axis=1, reduction=reduction)  # none can meet
    exactly("ScatterElements", x, indices(4, 3, 9, 7), data(3, 9, 7), axis=1, reduction=reduction)  # lines
    exactly("ScatterElements", x, indices(4, 3, 0, 7), data(3, 0, 7), axis=1, reduction=reduction)
    exactly("ScatterElements", data(3, 50, 2), indices(50, 3, 90, 2), data(3, 90, 2), axis=-2, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_reduction(reduction):
    many = Target(multiprocessors=1)
    exactly("ScatterElements", data(50), indices(50, 700), data(700), reduction=reduction, target=many)
    exactly("ScatterElements", data(9), indices(9, 20), data(20), reduction=reduction)


@pytest.mark.parametrize("reduction", ["none", "max"])
def test_scatter_nd(reduction):
    x = data(5, 4, 8)
    exactly("ScatterND", x, np.array([[1, -1], [0, 3], [1, 3]]), data(3, 8), reduction=reduction)
    exactly("ScatterND", x, np.array([[1, -1], [0, 3], [1, 2]]), data(3, 8), reduction=reduction, constants=(1,))
    exactly("ScatterND", x, indices(4, 10, 10, 2), data(10, 10, 8), reduction=reduction)
    exactly("ScatterND", x, indices(4, 0, 2), data(0, 8), reduction=reduction)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.int8, np.bool_])
def test_reductions_of_other_types(dtype):
    for reduction in ("mul", "max"):
        exactly("ScatterElements", data(9, dtype=dtype), indices(9, 90), data(90, dtype=dtype), reduction=reduction)


def test_half_floats_add_up_in_f32():
    ones = np.full(300, 1, ml_dtypes.bfloat16)
    (sum,) = run_op("ScatterElements", np.zeros(1, ml_dtypes.bfloat16), np.zeros(300, np.int64), ones, reduction="add")
    assert sum == 300  # one by one in bf16 it would stay at 256


def test_nan_is_the_larger_and_the_smaller():
    for reduction in ("max", "min"):
        check_op("ScatterElements", data(3), np.array([0, 0, 1]), np.array([np.nan, 1, 2], np.float32), reduction=reduction)


def test_elements_of_every_size_and_strings():
    for dtype in (np.uint8, np.float64, np.complex128):
        exactly("Scatter", data(9, dtype=dtype), indices(9, 4, dtype=np.int32), data(4, dtype=dtype))
        exactly("ScatterND", data(9, 6, dtype=dtype), indices(9, 4, 1), data(4, 6, dtype=dtype))
    words = np.array(["a", "b"], object)
    assert lower_op("Scatter", words, np.array([1]), words[:1]) is None
    turns = np.ones(2, np.complex64)
    assert lower_op("ScatterElements", turns, np.array([1]), turns[:1], reduction="add") is None


def test_indices_outside_write_nothing():
    x, outside = np.zeros(4, np.float32), np.array([1, 4, -5, 2**40])
    for reduction in ("none", "add"):
        (got,) = run_op("ScatterElements", x, outside, np.ones(4, np.float32), reduction=reduction)
        np.testing.assert_array_equal(got, [0, 1, 0, 0])
        many = np.tile(outside, 20)
        (got,) = run_op("ScatterND", x, many[:, None], np.ones(80, np.float32), reduction=reduction)
        np.testing.assert_array_equal(got, [0, 1 if reduction == "none" else 20, 0, 0])


def test_the_way_follows_from_what_can_meet():
    def tactic(n, *, reduction="none", same=False, constants=()):
        chosen = np.zeros(n, np.int64) if same else np.arange(n)
        return lower_op("ScatterElements", data(200), chosen, data(n), reduction=reduction, constants=constants).tactic

    assert tactic(1) == "scatter"
    assert tactic(8) == tactic(8, same=True, constants=(1,)) == "scatter by lines"
    assert tactic(8, constants=(1,)) == tactic(100, reduction="add", constants=(1,)) == "scatter"
    assert tactic(100) == "scatter the last"
    assert tactic(100, reduction="add") == "scatter sorted"


def test_the_data_may_be_written_over_unless_it_is_read_too():
    assert lower_op("ScatterElements", data(3), np.array([0]), data(1)).in_place == {0: (0,)}
    operands = (data(3), np.arange(3), data(3))
    graph = make_graph("ScatterElements", operands, domain="", n_outputs=1, constants=(), body=None, attrs={})
    (node,) = graph.nodes
    x, at, updates = node.inputs
    graph.replace_uses(updates, x)
    kinds = (x.type, at.type, x.type)
    assert decide(Site(node, kinds, (x.type,), (None,) * 3, Target())).work.in_place == {}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_tensor_scatter(dtype):
    exactly("TensorScatter", data(2, 3, 6, 8, dtype=dtype), data(2, 3, 2, 8, dtype=dtype), np.array([4, 1]))
    exactly("TensorScatter", data(2, 3, 6, 8, dtype=dtype), data(2, 3, 2, 8, dtype=dtype), np.array([5, -7]), mode="circular")
    exactly("TensorScatter", data(2, 6, 5, dtype=dtype), data(2, 2, 5, dtype=dtype), None, axis=1)
    exactly("TensorScatter", data(2, 6, 5, dtype=dtype), data(2, 0, 5, dtype=dtype), None, axis=1)


def test_entries_past_the_cache_are_left_out():
    (got,) = run_op("TensorScatter", np.zeros((1, 4, 1), np.float32), np.ones((1, 3, 1), np.float32), np.array([2]))
    np.testing.assert_array_equal(got[0, :, 0], [0, 0, 1, 1])


def test_64_bit_indices(wide_indices):
    exactly("ScatterElements", data(5, 4, 7), indices(4, 3, 9, 7), data(3, 9, 7), axis=1)
    exactly("ScatterElements", data(50), indices(50, 100), data(100), reduction="add")
    exactly("TensorScatter", data(2, 3, 6, 8), data(2, 3, 2, 8), np.array([4, 1]))


@pytest.mark.parametrize(
    ("count", "reduction", "keys"),
    [
        (40, "none", ["scatter the last", "scatter by lines"]),
        (20, "none", ["scatter by lines", "scatter the last"]),
        (40, "add", ["scatter sorted", "scatter by lines"]),
        (20, "max", ["scatter by lines", "scatter sorted"]),
    ],
)
def test_every_tactic_scatters_when_it_is_forced(count, reduction, keys):
    rng = np.random.default_rng(3)
    x, updates = (rng.integers(0, 99, (n, 5)).astype(np.float32) for n in (9, count))
    at = rng.integers(0, 9, (count, 5))
    attrs = {"reduction": reduction, "target": Target()}
    assert check_every_tactic("ScatterElements", x, at, updates, axis=0, **attrs) == keys
    if reduction != "none":
        assert check_every_tactic("ScatterND", x, at[:, :1], updates, **attrs) == keys
