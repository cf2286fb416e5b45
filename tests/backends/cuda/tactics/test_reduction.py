"""Reductions on the emulated device beside their references."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.reduction.reduction import lower_reduction, reduction_of
from miniinfer_cli.backends.cuda.tactics.reduction.reduction_heuristic import ReductionHeuristic
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import Reduction, merged_runs, reduce_actions, reduction_tactics
from miniinfer_cli.ir import DType, TensorType
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic, offered
from tests.backends.nodes import make_graph

OPERATIONS = (
    "ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum",
    "ReduceLogSumExp",
)  # fmt: skip
RNG = np.random.default_rng(7)
SMALL = Target(multiprocessors=2)  # so that short axes are split, too


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize(("shape", "axes"), [((3, 5, 16), [2]), ((3, 5, 16), [1]), ((4, 3, 2, 5), [0, -2])])
def test_every_kind(op, shape, axes):
    x = np.abs(normal(*shape)) + 0.5
    check_op(op, x, np.array(axes, np.int64), keepdims=0)
    check_op(op, x, np.array(axes, np.int64))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_floats(dtype):
    x = normal(5, 24, dtype=dtype)
    for kind in ("Sum", "Mean", "Max", "L2", "LogSumExp"):
        check_op(f"Reduce{kind}", x, np.array([1]))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_integers_wrap_around(dtype):
    x = RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (4, 6), dtype=dtype)
    for kind in ("Sum", "Prod", "Max", "Min", "L1") if dtype in (np.int8, np.int32) else ("Prod", "Max"):
        check_op(f"Reduce{kind}", x, np.array([1]))


def test_means_roots_and_logarithms_of_integers():
    x = RNG.integers(-50, 50, (4, 7), dtype=np.int32)
    for kind in ("Mean", "L2", "LogSumExp"):
        check_op(f"Reduce{kind}", x, np.array([0]))
    check_op("ReduceLogSum", np.abs(x) + 1, np.array([1]))


def test_bools():
    x = RNG.integers(0, 2, (4, 3)).astype(bool)
    for kind in ("Max", "Min", "Sum", "Prod"):
        check_op(f"Reduce{kind}", x, np.array([1]))


def test_axes_left_out_empty_or_of_no_effect():
    x = normal(3, 4)
    check_op("ReduceSum", x)
    check_op("ReduceSum", x, np.array([], np.int64))
    check_op("ReduceSumSquare", x, np.array([], np.int64), noop_with_empty_axes=1)
    check_op("ReduceSum", x, noop_with_empty_axes=1)
    check_op("ReduceSum", normal(1, 4, 1), np.array([0, 2]), keepdims=0)


def test_scalars_and_empty_tensors():
    check_op("ReduceL1", np.float32(-3).reshape(()))
    for kind in ("Sum", "Prod", "Max", "Min", "LogSum", "LogSumExp"):
        check_op(f"Reduce{kind}", np.zeros((2, 0, 3), np.float32), np.array([1]))
    check_op("ReduceMax", np.zeros((0, 3), np.int32), np.array([0]), keepdims=0)
    check_op("ReduceMin", np.zeros((0, 3), bool), np.array([0]), keepdims=0)
    check_op("ReduceSum", np.zeros((2, 0, 3), np.float32), np.array([2]))


def test_infinities_and_nan():
    x = np.array([[1, np.inf, -np.inf, 2], [-np.inf] * 4, [np.nan, 1, 2, 3], [-np.inf, 0, 1, 2], [1, np.inf, 3, 4]], np.float32)
    for kind in ("Max", "Min", "Sum", "LogSumExp"):
        for axis in (0, 1):
            check_op(f"Reduce{kind}", x, np.array([axis]))
    check_op("ReduceLogSumExp", np.array([[-1e30, -np.inf], [1e30, 3], [-2000, -2001]], np.float32), np.array([1]))


@pytest.mark.parametrize("shape", [(1, 20011), (2, 16384), (1, 4099, 3), (2, 2000, 8)])
def test_long_axes_are_split(shape):
    for kind in ("Sum", "Max", "LogSumExp"):
        check_op(f"Reduce{kind}", normal(*shape), np.array([1]), target=SMALL, tolerance=2e-5)


def test_many_short_rows_and_columns():
    check_op("ReduceMean", normal(700, 12), np.array([1]))
    check_op("ReduceMean", normal(700, 2), np.array([1]))
    check_op("ReduceMean", normal(90, 4, 7), np.array([1]))
    check_op("ReduceMean", normal(2, 300, 8), np.array([0, 1]))


def test_alternating_axes_take_stages():
    check_op("ReduceSum", normal(3, 4, 5, 6, 7), np.array([0, 2, 4]), tolerance=1e-5)
    check_op("ReduceMean", normal(3, 4, 5, 6, 7), np.array([1, 3]))


def test_indices_of_64_bits(wide_indices):
    check_op("ReduceSum", normal(5, 12), np.array([1]))
    check_op("ReduceSum", normal(5, 12), np.array([0]))


def test_axes_that_nobody_knows_are_left_to_the_host():
    graph = make_graph("ReduceSum", (normal(2, 3), np.array([1])), domain="", n_outputs=1, constants=(), body=None, attrs={})
    (node,) = graph.nodes
    types = tuple(v.type for v in graph.inputs)
    result = TensorType(DType.F32, (2, 1))
    assert lower_reduction(Site(node, types, (result,), (None, None), Target())) is None
    known = (types[0], TensorType(DType.I64, (1,), np.array([1])))
    assert lower_reduction(Site(node, known, (result,), (None, None), Target())) is not None


def test_runs_of_axes():
    assert merged_runs((2, 1, 3, 4, 5), (0, 1, 3, 4)) == [(2, True), (3, False), (20, True)]
    assert merged_runs((1, 1), (0,)) == []


def test_nothing_is_launched_for_no_results():
    what = Reduction("Sum", "f32", 4, "f32", 4)
    stages = reduce_actions(what, (0, 3), (1,), Operand.input(0), Operand.output(0), Target())
    assert stages.actions == ()


def test_new_sizes_need_no_new_kernel():
    what = Reduction("Sum", "f32", 4, "f32", 4)

    def kernels(*shape):
        stages = reduce_actions(what, shape, (1,), Operand.input(0), Operand.output(0), Target())
        return [a.kernel for a in stages.actions if isinstance(a, Launch)]

    assert kernels(1000, 256) == kernels(7, 4096)
    assert len(kernels(1, 1 << 20)) == 2


def keys_by(*threads):
    return [f"reduce by {n} threads" if n > 1 else "reduce by a thread" for n in threads]


@pytest.mark.parametrize(
    ("shape", "axes", "threads"), [((3, 2100), [1], (256, 32)), ((3, 300, 5), [1], (16, 1)), ((4, 3, 50, 5), [0, 2], (8, 1))]
)
def test_every_tactic_reduces_when_it_is_forced(shape, axes, threads):
    for op in ("ReduceSum", "ReduceLogSumExp"):
        found = check_every_tactic(op, normal(*shape), np.array(axes), target=Target(), tolerance=1e-5)
        assert found[0] == keys_by(*threads)[0] and [key for key in found if "parts" not in key] == keys_by(*threads)
        assert any(key.endswith("in 4 parts") for key in found)


def test_thresholds_are_those_of_the_table():
    def first(shape, axis, **table):
        graph = make_graph("ReduceSum", [normal(*shape)], domain="", n_outputs=1, constants=(), body=None, attrs={})
        (node,), (x,) = graph.nodes, graph.inputs
        result = TensorType(DType.F32, tuple(d for i, d in enumerate(shape) if i != axis))
        site = Site(node, (x.type,), (result,), (None,), SMALL)
        return reduction_tactics(site, reduction_of("ReduceSum", DType.F32), (axis,), ReductionHeuristic(**table))[0].key

    assert [first((3, 400), 1), first((3, 400), 1, some_loads=101), first((3, 400), 1, few_threads=48)] == keys_by(32, 32, 32)
    assert [first((3, 2000), 1, **t) for t in ({}, {"long_rows": 501}, {"long_rows": 501, "few_threads": 48})] == keys_by(
        128, 128, 32
    )
    assert first((3, 9000), 1) == "reduce by 256 threads"
    assert first((3, 9000), 1, part_loads=2) == "reduce by 256 threads in 2 parts"
    assert first((3, 9000), 1, part_loads=2, part_blocks=9) == "reduce by 256 threads in 4 parts"
    assert first((3, 9000), 1, part_loads=2, few_results=1) == "reduce by 256 threads"
    assert [first((300, 5), 0, column_threads=n) for n in (1024, 10, 1)] == [
        *("reduce by 32 threads", "reduce by 4 threads in 4 parts", "reduce by a thread in 8 parts")
    ]
    assert first((300, 5), 0, column_loads=4) == "reduce by 32 threads in 2 parts"


def test_the_estimate_counts_what_parts_leave():
    x = normal(3, 300, 5)
    graph = make_graph("ReduceSum", [x, np.array([1])], domain="", n_outputs=1, constants=(1,), body=None, attrs={})
    made = {t.key: t.estimate for t in offered(graph, [x], Target())}
    assert made["reduce by a thread"] == Estimate(x.size, 4 * (x.size + 15) + 8)
    assert made["reduce by a thread in 4 parts"] == made["reduce by a thread"] + Estimate(4 * 15, 2 * 4 * 4 * 15)
