"""Batch, instance, group and mean-variance normalization against their formulas, channel by channel."""

import itertools

import numpy as np
import onnx
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.everywhere import engines_everywhere
from tests.onnx_import.models import model
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

RNG = np.random.default_rng(2)
X = RNG.normal(1, 2, (2, 6, 3, 4))
SCALE, BIAS, MEAN = (RNG.normal(size=6) for _ in range(3))
VAR = RNG.uniform(0.5, 2, 6)


def close(dtype):
    return {"rtol": 8 * FLOATS[dtype], "atol": 16 * min(FLOATS[dtype], 1.2e-7)}


def wide(*arrays):
    return [a.astype(np.float64) for a in arrays]


def standardized(block, epsilon):
    return (block - block.mean()) / np.sqrt(block.var() + epsilon)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (24, 6), (4, 6, 6)])
def test_batch_normalization(dtype, shape):
    x, scale, b, mean, var = (array(v, dtype) for v in (X.reshape(shape), SCALE, BIAS, MEAN, VAR))
    y = run("BatchNormalization", x, scale, b, mean, var, epsilon=0.01).astype(np.float64)
    x, scale, b, mean, var = wide(x, scale, b, mean, var)
    for c in range(6):
        expected = (x[:, c] - mean[c]) / np.sqrt(var[c] + 0.01) * scale[c] + b[c]
        np.testing.assert_allclose(y[:, c], expected, **close(dtype))


def test_batch_normalization_in_training():
    x = X.astype(np.float32)
    vectors = [v.astype(np.float32) for v in (SCALE, BIAS, MEAN, VAR)]
    y, mean, var = run("BatchNormalization", x, *vectors, training_mode=1, momentum=0.75, n_outputs=3)
    for c in range(6):
        expected = standardized(X[:, c], 1e-5) * SCALE[c] + BIAS[c]
        np.testing.assert_allclose(y[:, c], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(mean[c], 0.75 * MEAN[c] + 0.25 * X[:, c].mean(), rtol=1e-5)
        np.testing.assert_allclose(var[c], 0.75 * VAR[c] + 0.25 * X[:, c].var(), rtol=1e-5)


def test_batch_normalization_of_mixed_types():
    half = X.astype(np.float16)
    vectors = [v.astype(np.float32) for v in (SCALE, BIAS, MEAN, VAR)]
    exact = run("BatchNormalization", half.astype(np.float64), *vectors)
    np.testing.assert_allclose(run("BatchNormalization", half, *vectors), exact.astype(np.float16), rtol=1e-3)


def test_batch_normalization_of_a_vector_has_one_channel():
    one = np.ones(1, np.float32)
    result = run("BatchNormalization", np.array([1, 3], np.float32), 2 * one, one, one, 4 * one, epsilon=0.0)
    np.testing.assert_allclose(result, [1, 3])


@pytest.mark.parametrize("dtype", FLOATS)
def test_instance_normalization(dtype):
    x, scale, b = (array(v, dtype) for v in (X, SCALE, BIAS))
    y = run("InstanceNormalization", x, scale, b, epsilon=0.01).astype(np.float64)
    x, scale, b = wide(x, scale, b)
    for n in range(2):
        for c in range(6):
            np.testing.assert_allclose(y[n, c], standardized(x[n, c], 0.01) * scale[c] + b[c], **close(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalization(dtype, groups):
    x, scale, bias = (array(v, dtype) for v in (X, SCALE, BIAS))
    stash = 11 if dtype == "float64" else 1
    y = run("GroupNormalization", x, scale, bias, num_groups=groups, epsilon=0.01, stash_type=stash).astype(np.float64)
    x, scale, bias = wide(x, scale, bias)
    size = 6 // groups
    for n in range(2):
        for c in range(6):
            first = c // size * size
            group = standardized(x[n, first : first + size], 0.01)
            np.testing.assert_allclose(y[n, c], group[c - first] * scale[c] + bias[c], **close(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axes", [None, [1, 2]])
def test_mean_variance_normalization(dtype, axes):
    x = array(X, dtype)
    over = tuple(axes or (0, 2, 3))
    attrs = {} if axes is None else {"axes": axes}
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(axis=over, keepdims=True)) / exact.std(axis=over, keepdims=True)
    result = run("MeanVarianceNormalization", x, **attrs).astype(np.float64)
    np.testing.assert_allclose(result, expected, **close(dtype) | ({"rtol": 1e-8} if dtype == "float64" else {}))


@pytest.mark.parametrize("shape", [(0, 6, 3, 4), (2, 6, 0, 4)])
def test_an_empty_tensor_stays_empty(shape):
    x = np.empty(shape, np.float32)
    scale = np.ones(6, np.float32)
    assert run("InstanceNormalization", x, scale, scale).shape == shape
    assert run("GroupNormalization", x, scale, scale, num_groups=2).shape == shape


def test_a_constant_block_becomes_zero():
    flat = np.full((1, 2, 3, 3), 5, np.float32)
    np.testing.assert_array_equal(run("MeanVarianceNormalization", flat), np.zeros_like(flat))
    ones = np.ones(2, np.float32)
    np.testing.assert_array_equal(run("InstanceNormalization", flat, ones, ones), np.ones_like(flat))


CALLS = [
    ("BatchNormalization", (X, SCALE, BIAS, MEAN, VAR), {"epsilon": 0.01}),
    ("BatchNormalization", (X.reshape(24, 6), SCALE, BIAS, MEAN, VAR), {}),
    ("InstanceNormalization", (X, SCALE, BIAS), {"epsilon": 0.01}),
    ("GroupNormalization", (X, SCALE, BIAS), {"num_groups": 3}),
    ("MeanVarianceNormalization", (X,), {"axes": [2, 3]}),
    ("MeanVarianceNormalization", (X,), {}),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("op", "inputs", "attrs"), CALLS)
def test_expansions_give_the_same(op, inputs, attrs, dtype):
    operands = [array(v, dtype) for v in inputs]
    if op == "GroupNormalization" and dtype == "float64":
        attrs = attrs | {"stash_type": 11}  # f64 all the way, not f32 for the statistics
    before = [v.copy() for v in operands]
    result = run(op, *operands, **attrs).astype(np.float64)
    np.testing.assert_allclose(run_expanded(op, *operands, **attrs).astype(np.float64), result, **close(dtype))
    for operand, copy in zip(operands, before, strict=True):
        np.testing.assert_array_equal(operand, copy)


@pytest.mark.parametrize(("op", "inputs", "attrs"), CALLS)
def test_shapes_are_kept(op, inputs, attrs):
    shape = (symbol("n"), *inputs[0].shape[1:])
    x = TensorType(DType.F64, shape)
    assert infer(op, x, *inputs[1:], **attrs) == x
    assert infer(op, TensorType(DType.F64), *inputs[1:], **attrs) == TensorType(DType.F64)


def test_running_statistics_have_their_shape():
    x = TensorType(DType.F32, (symbol("n"), 6))
    types = infer("BatchNormalization", x, SCALE, BIAS, MEAN, VAR, training_mode=1, n_outputs=3)
    assert types == (x, TensorType(DType.F64, (6,)), TensorType(DType.F64, (6,)))


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "message"),
    [
        ("BatchNormalization", (X, SCALE[:5], BIAS, MEAN, VAR), {}, r"size of scale f64\[5\]: 6 is not 5"),
        ("BatchNormalization", (X, SCALE, BIAS[None], MEAN, VAR), {}, r"expects B of rank 1, got f64\[1,6\]"),
        ("InstanceNormalization", (X[0, 0, 0], SCALE, BIAS), {}, "rank 2 or more"),
        ("InstanceNormalization", (X, SCALE.astype(np.float16), BIAS), {}, "needs operands of one element type, got f64"),
        ("InstanceNormalization", (X, SCALE, BIAS.astype(np.float32)), {}, "needs operands of one element type, got f64"),
        ("InstanceNormalization", (X, SCALE, BIAS[:2]), {}, r"size of B f64\[2\]: 6 is not 2"),
        ("GroupNormalization", (X, SCALE, BIAS), {"num_groups": 4}, "num_groups 4 does not divide the 6 channels"),
        ("GroupNormalization", (X, SCALE, BIAS), {"num_groups": 0}, "num_groups 0 does not divide"),
        ("MeanVarianceNormalization", (X[0],), {}, "axis 3 is outside"),
    ],
)
def test_what_does_not_fit_is_refused(op, inputs, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *inputs, **attrs)


def test_more_outputs_need_training_mode():
    with pytest.raises(ModelError, match="3 outputs, expected 1"):
        infer("BatchNormalization", X, SCALE, BIAS, MEAN, VAR, n_outputs=3)


@pytest.mark.parametrize(("x", "scale", "mean"), list(itertools.product((np.float32, np.float16), repeat=3)))
def test_batch_normalization_of_the_types_that_the_operator_may_mix(x, scale, mean):
    """BatchNormalization-15: X and Y of one type, scale and B of another, mean and variance of a third."""
    given = [X.astype(x), *(v.astype(scale) for v in (SCALE, BIAS)), *(v.astype(mean) for v in (MEAN, VAR))]
    names = ["x", "s", "b", "m", "v"]
    inputs = {n: (onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in zip(names, given, strict=True)}
    node = onnx.helper.make_node("BatchNormalization", names, ["y"])
    proto = model([node], inputs, {"y": (inputs["x"][0], None)}, opset=15)
    expected = run("BatchNormalization", *wide(*given))
    for engine in engines_everywhere(proto):
        y = engine.run(dict(zip(names, given, strict=True)))["y"]
        assert y.dtype == x
        np.testing.assert_allclose(y, expected, rtol=2e-3, atol=2e-3)
