"""Softmax, LogSoftmax and Hardmax on the emulated device beside their references."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.normalization.normalization_heuristic import NormalizationHeuristic
from miniinfer_cli.backends.cuda.tactics.normalization.row_groups import row_ways
from miniinfer_cli.backends.cuda.tactics.normalization.softmax import softmax_tactics
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.nodes import make_graph

RNG = np.random.default_rng(7)
OPS = ("Softmax", "LogSoftmax", "Hardmax")
SMALL = Target(multiprocessors=2)


def normal(*shape, dtype=np.float32):
    return (RNG.standard_normal(shape) * 4).astype(dtype)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 5), -1), ((5, 3), 0), ((2, 8, 6), 1), ((300, 16), 1), ((2, 3, 768), -1), ((2, 1000), 1)]
)
def test_axes(op, shape, axis):
    check_op(op, normal(*shape), axis=axis, tolerance=5e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_types(dtype):
    for op in OPS:
        check_op(op, normal(4, 24, dtype=dtype), tolerance=None if op == "Softmax" else 2e-2 if dtype != np.float64 else 1e-12)
        check_op(
            op, normal(4, 24, dtype=dtype), axis=0, tolerance=None if op == "Softmax" else 2e-2 if dtype != np.float64 else 1e-12
        )


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_rows_longer_than_registers_hold(op):
    check_op(op, normal(2, 9001), axis=1, tolerance=1e-5)
    check_op(op, normal(3000, 2), axis=0, tolerance=5e-5)


def test_several_warps_share_few_long_columns():
    check_op("Softmax", normal(2, 900, 3), axis=1, tolerance=1e-5)


def test_infinities_and_nan():
    x = np.array([[1, np.inf, -np.inf, 2], [-np.inf] * 4, [np.nan, 1, 2, 3], [-np.inf, 0, 1, 2]], np.float32)
    for op in OPS:
        check_op(op, x)
        check_op(op, x.T.copy(), axis=0)
    for op in ("Softmax", "LogSoftmax"):
        long = np.zeros((4, 9001), np.float32)
        long[:, :4] = x
        check_op(op, long, tolerance=1e-5)


def test_scalars_and_empty_tensors():
    for op in OPS:
        check_op(op, np.float32(3).reshape(()))
        check_op(op, np.zeros((0, 3), np.float32))
        check_op(op, np.zeros((3, 0), np.float32))


def test_indices_of_64_bits(wide_indices):
    for axis in (0, 1):
        check_op("Softmax", normal(5, 12), axis=axis)
        check_op("Hardmax", normal(5, 12), axis=axis)


def test_hardmax_of_integers():
    check_op("Hardmax", RNG.integers(-3, 3, (4, 6)).astype(np.int32), axis=0)


@pytest.mark.parametrize(
    ("rows", "length", "nbytes"), [(8192, 768, 2), (128, 768, 2), (8192, 4096, 4), (1, 7, 4), (5, 30000, 2), (10**6, 3, 8)]
)
def test_groups_cover_their_rows(rows, length, nbytes):
    ways = row_ways(rows, length, nbytes, Target())
    assert ways and len({w.key for w in ways}) == len(ways)
    for groups in ways:
        assert groups.packs * groups.width == length and groups.width * nbytes <= 16
        assert groups.threads * groups.loads >= groups.packs and groups.loads * groups.width <= 64
        threads = groups.threads * groups.rows_per_block
        assert threads % 32 == 0 and threads <= 512
        assert groups.threads <= 32 or (groups.rows_per_block == 1 and groups.threads % 32 == 0)
        assert groups.grid(rows)[0] * groups.rows_per_block >= rows


def test_no_groups_for_rows_that_do_not_fit():
    assert row_ways(5, 40000, 2, Target()) == ()
    assert row_ways(5, 9001, 4, Target()) == ()


COLUMNS = [f"columns by {n} threads" for n in (64, 8, 32)]


@pytest.mark.parametrize(
    ("shape", "axis", "keys"),
    [
        ((3, 600), 1, ["rows by 160 threads", *(f"rows by {n} threads" for n in (32, 96, 64)), *COLUMNS]),
        ((5, 24), 1, ["rows by 8 threads", "rows by 32 threads", "columns by 8 threads"]),
        ((2, 300, 6), 1, ["columns by 32 threads", "columns by 8 threads"]),
        ((1030, 3), 0, COLUMNS),
    ],
    ids=["long rows", "short rows", "columns", "long columns"],
)
def test_every_tactic_gives_the_softmax_when_it_is_forced(shape, axis, keys):
    found = check_every_tactic("Softmax", normal(*shape), axis=axis, target=Target(), tolerance=5e-5)
    assert [key for key in found if key not in ("sums", "columns by a thread")] == keys
    assert found[0] == ("sums" if shape[0] == 1030 else keys[0]) and {"sums", "columns by a thread"} < set(found)
    assert check_every_tactic("LogSoftmax", normal(*shape), axis=axis, target=Target(), tolerance=5e-5) == found


def test_thresholds_are_those_of_the_table():
    def first(shape, axis, **table):
        graph = make_graph("Softmax", [normal(*shape)], domain="", n_outputs=1, constants=(), body=None, attrs={"axis": axis})
        (node,), (x,) = graph.nodes, graph.inputs
        site = Site(node, (x.type,), (x.type,), (None,), SMALL)
        return softmax_tactics(site, NormalizationHeuristic(**table))[0].key

    assert [first((9, 300), 1, **t) for t in ({}, {"warp_rows": 4}, {"warp_rows": 4, "warp_loads": 2}, {"two_load_rows": 5})] == [
        *("rows by 32 threads", "rows by 32 threads", "rows by 32 threads", "rows by 64 threads")
    ]
    assert first((9, 300), 1, one_load_rows=5) == "rows by 96 threads"
    assert [first((300, 3), 0, **t) for t in ({}, {"long_columns": 300}, {"long_columns": 300, "busy_threads": 48})] == [
        *("columns by 64 threads", "sums", "columns by 32 threads")
    ]
