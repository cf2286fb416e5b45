"""CumSum, CumProd."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.reduction.scan_ops import ScanHeuristic, scan_tactics
from miniinfer_cli.ir import DType, TensorType
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.nodes import make_graph

BF16 = np.dtype(ml_dtypes.bfloat16)
# Of every way: warps, blocks with and without whole packs, blocks over parts, columns, columns in parts.
SHAPES = [
    ((5, 7), 1),
    ((3, 604), -1),
    ((2, 601), 1),
    ((1, 9000), 1),
    ((1, 9001), 1),
    ((20, 3, 5), 0),
    ((2, 300, 3), 1),
    ((7,), 0),
]


def whole(shape, seed=0):
    """Numbers whose sums are exact in every type, in any order."""
    return np.random.default_rng(seed).integers(-3, 4, shape)


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_sums(shape, axis, exclusive, reverse):
    options = {"exclusive": exclusive, "reverse": reverse}
    check_op("CumSum", whole(shape).astype(np.float32), np.array(axis), constants=(1,), tolerance=0.0, **options)
    check_op("CumSum", whole(shape).astype(np.float32), np.array(axis), tolerance=0.0, **options)  # read by the device


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_products(shape, axis):
    x = 1 + whole(shape) / 1000
    for exclusive, reverse in ((0, 0), (1, 1)):
        check_op("CumProd", x, np.array(axis), constants=(1,), tolerance=1e-11, exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize("dtype", ["float16", "float64", BF16, "int32", "int64", "uint32", "uint64"])
def test_every_type(dtype):
    x = (whole((3, 130)) + 3).astype(dtype)
    check_op("CumSum", x, np.array([1]), constants=(1,))


def test_integers_wrap_around():
    check_op("CumProd", np.full((2, 70), 3, np.int32), np.array(1), constants=(1,))
    check_op("CumSum", np.full((2, 70), 2**30, np.int32), np.array(1), constants=(1,))


def test_nan_and_infinity_go_on():
    x = np.array([[1, np.inf, 2, -np.inf, 3], [np.nan, 1, 2, 3, 4]], np.float32)
    for exclusive in (0, 1):
        check_op("CumSum", x, np.array(1), constants=(1,), exclusive=exclusive)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing(shape):
    check_op("CumSum", np.zeros(shape, np.float32), np.array(1), constants=(1,))


def test_an_i32_axis_counted_from_the_end():
    check_op("CumSum", whole((2, 3, 4)).astype(np.float32), np.array([-2], np.int32))


def test_wide_indices(wide_indices):
    for shape, axis in (((1, 9001), 1), ((2, 300, 3), 1)):
        check_op("CumSum", whole(shape).astype(np.float32), np.array(axis), constants=(1,))


def test_eight_bit_floats():
    check_op("CumSum", np.ones((2, 9), ml_dtypes.float8_e4m3fn), np.array(1), constants=(1,))


def test_many_rows_are_not_cut_into_parts():
    lowered = lower_op("CumSum", np.zeros((4096, 2048), np.float32), np.array(1), constants=(1,))
    assert isinstance(lowered, Lowered) and len(lowered.actions) == 1


BLOCKS = ["scan by blocks", "scan by blocks in 2 parts", "scan by blocks in 8 parts"]
COLUMNS = ["scan by columns in 9 parts", "scan by columns", "scan by columns in 2 parts", "scan by columns in 8 parts"]


@pytest.mark.parametrize(
    ("shape", "keys"),
    [((3, 601), [*BLOCKS, "scan by warps"]), ((2, 300), ["scan by warps", *BLOCKS]), ((2, 300, 3), COLUMNS)],
    ids=["long", "short", "columns"],
)
def test_every_tactic_sums_when_it_is_forced(shape, keys):
    x = whole(shape).astype(np.float32)
    assert check_every_tactic("CumSum", x, np.array(1), constants=(1,), target=Target(), tolerance=0.0, reverse=1) == keys


def test_thresholds_are_those_of_the_table():
    def first(*shape, **table):
        x = whole(shape).astype(np.float32)
        graph = make_graph("CumSum", [x, np.array(1)], domain="", n_outputs=1, constants=(1,), body=None, attrs={})
        (node,) = graph.nodes
        kind = TensorType(DType.F32, shape)
        site = Site(node, (kind, TensorType(DType.I64, ())), (kind,), (None, node.inputs[1].constant), Target(multiprocessors=2))
        return scan_tactics(site, 1, ScanHeuristic(**table))[0].key

    assert [first(2, 300), first(2, 300, warp_row=299)] == ["scan by warps", "scan by blocks"]
    assert [first(2, 600), first(2, 600, row_part=200), first(2, 600, row_part=200, blocks=2)] == [
        *("scan by blocks", "scan by blocks in 3 parts", "scan by blocks")
    ]
    assert [first(2, 96, 3), first(2, 96, 3, column_part=48)] == ["scan by columns in 3 parts", "scan by columns in 2 parts"]
