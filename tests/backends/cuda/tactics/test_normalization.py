"""Normalizations by channel and group on the emulated device beside their references."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import in_place
from miniinfer_cli.ir import DType, TensorType
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.nodes import make_graph

RNG = np.random.default_rng(7)
SHAPES = [((2, 6, 5, 3), 3), ((2, 6, 4, 4), 2), ((3, 8), 4), ((1, 4, 9), 4)]
HALF = {np.float32: 1e-5, np.float16: 6e-3, ml_dtypes.bfloat16: 5e-2, np.float64: 1e-11}


def normal(*shape, dtype=np.float32):
    return (RNG.standard_normal(shape) * 2 + 1).astype(dtype)


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_groups_and_instances(shape, groups):
    c = shape[1]
    check_op("GroupNormalization", normal(*shape), normal(c), normal(c), num_groups=groups, tolerance=1e-5)
    if len(shape) > 2:
        check_op("InstanceNormalization", normal(*shape), normal(c), normal(c), epsilon=0.1, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_types_of_groups(dtype):
    x, scale, bias = normal(2, 4, 8, dtype=dtype), normal(4, dtype=dtype), normal(4, dtype=dtype)
    # f64 data with f32 statistics, as ONNX has it unless stash_type says otherwise
    check_op("GroupNormalization", x, scale, bias, num_groups=2, tolerance=max(HALF[dtype], 1e-5))
    check_op("GroupNormalization", x, scale, bias, num_groups=2, stash_type=11, tolerance=HALF[dtype])
    check_op("InstanceNormalization", x, scale, bias, tolerance=HALF[dtype])


def test_groups_longer_than_registers_hold():
    x, scale, bias = normal(1, 4, 9001), normal(4), normal(4)
    check_op("GroupNormalization", x, scale, bias, num_groups=2, tolerance=2e-5)
    check_op("InstanceNormalization", x, scale, bias, tolerance=2e-5)


@pytest.mark.parametrize("shape", [(2, 6, 5, 3), (2, 6, 4, 4), (3, 8), (7,)])
@pytest.mark.parametrize("training", [0, 1])
def test_batches(shape, training):
    c = shape[1] if len(shape) > 1 else 1
    vectors = (normal(c), normal(c), normal(c), np.abs(normal(c)))
    check_op(
        "BatchNormalization", normal(*shape), *vectors, training_mode=training, n_outputs=3 if training else 1, tolerance=1e-5
    )


def test_types_of_batches():
    vectors = (normal(4), normal(4), normal(4), np.abs(normal(4)))
    check_op("BatchNormalization", normal(2, 4, 8, dtype=np.float16), *vectors, tolerance=6e-3)
    check_op("BatchNormalization", normal(2, 4, 8, dtype=np.float16), *vectors, training_mode=1, n_outputs=3, tolerance=6e-3)
    check_op("BatchNormalization", normal(2, 4, 8, dtype=np.float64), *(v.astype(np.float64) for v in vectors))


@pytest.mark.parametrize("axes", [(0, 2, 3), (1,), (-1,), (0, 1, 2, 3), (0, 2)])
def test_mean_and_variance_over_axes(axes):
    check_op("MeanVarianceNormalization", normal(3, 4, 2, 6), axes=axes, tolerance=1e-5)


def test_half_mean_and_variance():
    check_op("MeanVarianceNormalization", normal(3, 4, 2, 8, dtype=np.float16), tolerance=6e-3)


def test_empty_tensors():
    empty = np.zeros((0, 4, 3, 2), np.float32)
    vector = normal(4)
    for op, attrs in (("GroupNormalization", {"num_groups": 2}), ("InstanceNormalization", {})):  # their references refuse them
        assert run_op(op, empty, vector, vector, **attrs)[0].shape == empty.shape
    check_op("BatchNormalization", empty, vector, vector, vector, vector)
    check_op("MeanVarianceNormalization", empty, axes=(1,))


def test_an_input_that_is_the_scale_too_is_not_overwritten():
    x = TensorType(DType.F32, (4,))
    graph = make_graph("LayerNormalization", (normal(4), normal(4)), domain="", n_outputs=1, constants=(), body=None, attrs={})
    (node,), (value, _) = graph.nodes, graph.inputs
    assert in_place(Site(node, (x, x), (x,), (None, None), Target())) == {0: (0,)}
    graph.set_inputs(node, (value, value))
    assert in_place(Site(node, (x, x), (x,), (None, None), Target())) == {}


def test_indices_of_64_bits(wide_indices):
    x, vector = normal(2, 4, 6), np.abs(normal(4))
    check_op("GroupNormalization", x, vector, vector, num_groups=2, tolerance=1e-5)
    check_op("BatchNormalization", x, vector, vector, vector, vector, tolerance=1e-5)


def test_every_tactic_normalizes_groups_when_it_is_forced():
    operands = normal(2, 6, 5, 4), normal(6), normal(6)
    keys = ["rows by 16 threads", "rows by 32 threads", "rows by 4 threads", "statistics"]
    assert check_every_tactic("GroupNormalization", *operands, num_groups=3, target=Target(), tolerance=1e-5) == keys
    keys = ["rows by 8 threads", "rows by 32 threads", "statistics"]
    assert check_every_tactic("InstanceNormalization", *operands, target=Target(), tolerance=1e-5) == keys
