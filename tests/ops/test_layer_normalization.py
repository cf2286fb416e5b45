"""LayerNormalization and RMSNormalization against their formulas in f64."""

import math

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops import lookup
from miniinfer_cli.ops.interpreter import interpret
from tests.ops.checked import FLOATS, array, infer, run, run_expanded, single_node

RNG = np.random.default_rng(11)
X = RNG.normal(2, 3, (2, 3, 4))
SCALE, BIAS = RNG.normal(size=(3, 4)), RNG.normal(size=4)


def formula(x, scale, bias, axis, epsilon):
    """Y, Mean and InvStdDev, one row of normalized axes after the other."""
    axis %= x.ndim
    rows = x.reshape(math.prod(x.shape[:axis]), -1)
    means = np.array([math.fsum(row) / len(row) for row in rows])[:, None]
    variances = np.array([math.fsum((row - m) ** 2) / len(row) for row, m in zip(rows, means, strict=True)])[:, None]
    inverse = 1 / np.sqrt(variances + epsilon)
    kept = x.shape[:axis] + (1,) * (x.ndim - axis)
    y = ((rows - means) * inverse).reshape(x.shape) * scale
    return y + bias, means.reshape(kept), inverse.reshape(kept)


def tolerances(dtype):
    # The result is a difference of numbers of size 10: absolute error counts.
    return {"rtol": 8 * FLOATS[dtype], "atol": 16 * min(FLOATS[dtype], 1.2e-7)}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_layer_normalization(dtype, axis):
    x, scale, bias = (array(v, dtype) for v in (X, SCALE, BIAS))
    stash = 11 if dtype == "float64" else 1
    results = run("LayerNormalization", x, scale, bias, axis=axis, epsilon=0.01, stash_type=stash, n_outputs=3)
    expected = formula(*(v.astype(np.float64) for v in (x, scale, bias)), axis, 0.01)
    for result, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.astype(np.float64), want, **tolerances(dtype))
    alone = run("LayerNormalization", x, scale, bias, axis=axis, epsilon=0.01, stash_type=stash)
    np.testing.assert_array_equal(alone, results[0])


def test_statistics_are_of_the_stash_type():
    _, mean, inverse = run("LayerNormalization", X, SCALE, BIAS, n_outputs=3)
    assert (mean.dtype, inverse.dtype) == (np.float32, np.float32)
    types = infer("LayerNormalization", X, SCALE, BIAS, stash_type=16, axis=1, n_outputs=3)
    assert types[1:] == (TensorType(DType.BF16, (2, 1, 1)),) * 2


def test_without_a_bias_and_with_defaults():
    expected, _, _ = formula(X, SCALE, np.zeros(4), -1, 1e-5)
    x, scale = X.astype(np.float32), SCALE.astype(np.float32)
    np.testing.assert_allclose(run("LayerNormalization", x, scale), expected, **tolerances("float32"))


def test_large_means_do_not_cancel():
    x = (X + 1e4).astype(np.float32)
    expected, _, _ = formula(x.astype(np.float64), 1, 0, -1, 1e-5)
    np.testing.assert_allclose(run("LayerNormalization", x, np.ones(4, np.float32)), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_rms_normalization(dtype, axis):
    x, scale = array(X, dtype), array(SCALE, dtype)
    wide = x.astype(np.float64)
    over = tuple(range(axis % 3, 3))
    expected = wide / np.sqrt(np.mean(wide**2, axis=over, keepdims=True) + 0.01) * scale.astype(np.float64)
    result = run("RMSNormalization", x, scale, axis=axis, epsilon=0.01, stash_type=11 if dtype == "float64" else 1)
    np.testing.assert_allclose(result.astype(np.float64), expected, **tolerances(dtype))


def test_rms_normalization_takes_the_type_of_its_scale():
    assert run("RMSNormalization", X.astype(np.float16), SCALE.astype(np.float32)).dtype == np.float32
    assert run("RMSNormalization", X.astype(np.float32), SCALE.astype(np.float16)).dtype == np.float16


def test_inputs_stay_as_they_are():
    x = X.astype(np.float32)
    before = x.copy()
    run("LayerNormalization", x, SCALE.astype(np.float32))
    run("RMSNormalization", x, SCALE.astype(np.float32))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [1, -1])
def test_expansions_give_the_same(dtype, axis):
    x, scale, bias = (array(v, dtype) for v in (X, SCALE, BIAS))
    attrs = {"axis": axis, "epsilon": 0.01}
    close = {"rtol": 2 * FLOATS[dtype], "atol": 1e-6}
    for inputs, n_outputs in (((x, scale, bias), 3), ((x, scale), 1)):
        results = run("LayerNormalization", *inputs, n_outputs=n_outputs, **attrs)
        expanded = run_expanded("LayerNormalization", *inputs, n_outputs=n_outputs, **attrs)
        pairs = zip(results, expanded, strict=True) if n_outputs > 1 else [(results, expanded)]
        for one, other in pairs:
            np.testing.assert_allclose(one.astype(np.float64), other.astype(np.float64), **close)
    one, other = run("RMSNormalization", x, scale, **attrs), run_expanded("RMSNormalization", x, scale, **attrs)
    np.testing.assert_allclose(one.astype(np.float64), other.astype(np.float64), **close)


@pytest.mark.parametrize(("x_dtype", "scale_dtype"), [("float16", "float32"), ("float32", "float16")])
def test_expansion_with_a_scale_of_another_type(x_dtype, scale_dtype):
    x, scale = array(X, x_dtype), array(SCALE, scale_dtype)
    result, expanded = run("RMSNormalization", x, scale), run_expanded("RMSNormalization", x, scale)
    np.testing.assert_allclose(expanded.astype(np.float64), result.astype(np.float64), rtol=2 * FLOATS[scale_dtype])


def test_expansion_without_a_rank_counts_from_the_end():
    x, scale = TensorType(DType.F32), TensorType(DType.F32, (4,))
    node = single_node("RMSNormalization", x, scale, axis=-2, epsilon=0.01)
    graph = node.graph
    graph.set_outputs(lookup("", "RMSNormalization").expand(graph, node))
    graph.remove(node)
    operands = [X.astype(np.float32), SCALE[0].astype(np.float32)]
    (result,) = interpret(graph, operands)
    np.testing.assert_allclose(result, run("RMSNormalization", *operands, axis=-2, epsilon=0.01), rtol=1e-6)
    node = single_node("LayerNormalization", x, scale, axis=1)
    with pytest.raises(ModelError, match="axis 1 cannot be expanded for an input of unknown rank"):
        lookup("", "LayerNormalization").expand(node.graph, node)


@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization"])
def test_shapes_and_what_is_refused(op):
    x = TensorType(DType.F32, (symbol("n"), 8, 16))
    assert infer(op, x, np.ones(16, np.float32)) == x
    assert infer(op, TensorType(DType.F32), np.ones(16, np.float32)) == TensorType(DType.F32)
    with pytest.raises(ModelError, match=rf"{op} axis 3 is outside"):
        infer(op, x, np.ones(16, np.float32), axis=3)
    with pytest.raises(ModelError, match="do not broadcast"):
        infer(op, x, np.ones(15, np.float32))
    with pytest.raises(ModelError, match="does not broadcast to the input"):
        infer(op, x, np.ones((2, 1, 1, 16), np.float32))
    column = TensorType(DType.F32, (symbol("n"), 1))
    assert infer(op, column, np.ones(1, np.float32)) == column
    with pytest.raises(ModelError, match=r"f32\[5\] does not broadcast to the input f32\[n,1\]"):
        infer(op, column, np.ones(5, np.float32))
