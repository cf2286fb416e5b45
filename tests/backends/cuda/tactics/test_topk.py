"""TopK."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.program import HostWork
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import DType, Graph, TensorType
from tests.backends.cuda.harness import check_op, program_of, run_graph
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.nodes import make_graph, reference

BF16 = np.dtype(ml_dtypes.bfloat16)


def numbers(shape, dtype, seed=0):
    """Few values, so that many are equal."""
    return np.random.default_rng(seed).integers(0, 40, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", BF16, "int8", "uint8", "int32", "int64", "uint64"])
@pytest.mark.parametrize("largest", [0, 1])
def test_every_type(dtype, largest):
    check_op("TopK", numbers((3, 37), dtype), np.array([9]), largest=largest, n_outputs=2)


@pytest.mark.parametrize("largest", [0, 1])
def test_nan_and_zeros(largest):
    x = numbers((4, 50), np.float32)
    x[x == 3] = np.nan
    x[x == 5] = -0.0
    x[x == 6] = 0
    x[0, :2] = np.inf, -np.inf
    check_op("TopK", x, np.array([50]), largest=largest, n_outputs=2)


@pytest.mark.parametrize(("axis", "shape"), [(0, (5, 6)), (1, (3, 9, 4)), (-1, (70, 2)), (0, (5,)), (1, (2, 40, 33))])
def test_every_axis(axis, shape):
    check_op("TopK", numbers(shape, np.float32), np.array([min(4, shape[axis])]), axis=axis, n_outputs=2)


def test_the_extremes_of_integers():
    x = np.array([[-(2**63), 2**63 - 1, 0, -1]], np.int64)
    for largest in (0, 1):
        check_op("TopK", x, np.array([4]), largest=largest, n_outputs=2)


@pytest.mark.parametrize(
    ("shape", "k"),
    [
        ((2, 4097), 3),  # one merge of lists
        ((1, 40000), 900),  # several
        ((2, 9001), 5000),  # runs that are merged in pairs
        ((1, 5000), 5000),  # all of it
        ((1, 4200, 3), 4199),  # along an axis that is not the last
    ],
)
def test_long_rows(shape, k):
    check_op("TopK", numbers(shape, np.float32), np.array([k]), axis=1, n_outputs=2)


def test_long_rows_of_wide_elements():
    check_op("TopK", numbers((1, 5000), np.float64), np.array([2500]), largest=0, n_outputs=2)


@pytest.mark.parametrize(("shape", "k"), [((0, 5), 2), ((3, 5), 0), ((3, 0), 0)])
def test_nothing(shape, k):
    check_op("TopK", numbers(shape, np.float32), np.array([k]), n_outputs=2)


def test_wide_indices(wide_indices):
    check_op("TopK", numbers((3, 37, 2), np.float32), np.array([9]), axis=1, n_outputs=2)
    check_op("TopK", numbers((1, 4500), np.float32), np.array([3000]), n_outputs=2)


@pytest.mark.parametrize("k", [0, 3, 6])
def test_a_k_that_the_device_reads(k):
    graph = Graph("late")
    x = graph.add_input("x", TensorType(DType.F32, (4, 6, 2)))
    less = graph.add_input("less", TensorType(DType.I64, (1,)))
    (late,) = graph.add_node("Neg", [less], [graph.new_value("k")]).outputs
    graph.set_outputs(graph.add_node("TopK", [x, late], [graph.new_value("v"), graph.new_value("i")], attrs={"axis": 1}).outputs)
    array = numbers((4, 6, 2), np.float32)
    got = run_graph(graph, [array, np.array([-k])], Target())
    want = reference("TopK", array, np.array([k]), axis=1, n_outputs=2)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)


def test_a_short_row_takes_one_launch():
    lowered = lower_op("TopK", numbers((64, 1000), np.float32), np.array([8]), constants=(1,), n_outputs=2)
    assert isinstance(lowered, Lowered) and len(lowered.actions) == 1 and not lowered.scratch


def test_values_alone_are_the_host_s():
    inputs = [numbers((3, 37), np.float32), np.array([9])]
    program = program_of(make_graph("TopK", inputs, domain="", n_outputs=1, constants=(), body=None, attrs={}), inputs, Target())
    assert [(s.kind, s.tactic) for s in program.steps] == [("TopK", HostWork.REFERENCE)]


def test_every_tactic_sorts_when_it_is_forced():
    x, most = numbers((2, 5000), np.float32), ["sort by 4096", "sort by 2048", "sort by 1024"]
    assert check_every_tactic("TopK", x, np.array([9]), n_outputs=2, target=Target()) == most
    assert check_every_tactic("TopK", x[:, :1500], np.array([1500]), n_outputs=2, target=Target()) == [most[0], most[2]]
