"""Activation functions against their formulas in f64, against their expansions, and where numbers get large."""

import math

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

X = np.array([[-30.0, -3.0, -1.0, -0.25], [0.0, 0.25, 1.0, 30.0]])
ERF = np.vectorize(math.erf)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


# name, attributes, formula in f64
CASES = [
    ("Relu", {}, lambda x: np.maximum(x, 0)),
    ("LeakyRelu", {}, lambda x: np.where(x < 0, 0.01 * x, x)),
    ("LeakyRelu", {"alpha": 0.5}, lambda x: np.where(x < 0, 0.5 * x, x)),
    ("Elu", {}, lambda x: np.where(x < 0, np.expm1(x), x)),
    ("Elu", {"alpha": 2.0}, lambda x: np.where(x < 0, 2 * np.expm1(x), x)),
    ("Selu", {}, lambda x: 1.0507009873554805 * np.where(x < 0, 1.6732632423543772 * np.expm1(x), x)),
    ("Selu", {"alpha": 2.0, "gamma": 3.0}, lambda x: 3 * np.where(x < 0, 2 * np.expm1(x), x)),
    ("Celu", {}, lambda x: np.where(x < 0, np.expm1(x), x)),
    ("Celu", {"alpha": 2.0}, lambda x: np.where(x < 0, 2 * np.expm1(x / 2), x)),
    ("Sigmoid", {}, sigmoid),
    ("HardSigmoid", {}, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    ("HardSigmoid", {"alpha": 0.5, "beta": 0.25}, lambda x: np.clip(0.5 * x + 0.25, 0, 1)),
    ("HardSwish", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ("Softplus", {}, softplus),
    ("Softsign", {}, lambda x: x / (1 + np.abs(x))),
    ("ThresholdedRelu", {}, lambda x: np.where(x > 1, x, 0)),
    ("ThresholdedRelu", {"alpha": -2.0}, lambda x: np.where(x > -2, x, 0)),
    ("Gelu", {}, lambda x: x * 0.5 * (1 + ERF(x / math.sqrt(2)))),
    ("Gelu", {"approximate": "tanh"}, lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ("Mish", {}, lambda x: x * np.tanh(softplus(x))),
    ("Swish", {}, lambda x: x * sigmoid(x)),
    ("Swish", {"alpha": 1.702}, lambda x: x * sigmoid(1.702 * x)),
    ("Shrink", {}, lambda x: np.where(np.abs(x) > 0.5, x, 0)),
    ("Shrink", {"lambd": 1.0, "bias": 0.5}, lambda x: np.where(x < -1, x + 0.5, np.where(x > 1, x - 0.5, 0))),
]
EXPANDED = [c[:2] for c in CASES if c[0] not in ("Relu", "Sigmoid", "Shrink")]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("op", "attrs", "formula"), CASES)
def test_formula_in_every_float_type(op, attrs, formula, dtype):
    x = array(X, dtype)
    result = run(op, x, **attrs)
    # Defaults are f32 numbers, which f64 results show; products of two roundings cost a step each.
    tolerance = max(4 * FLOATS[dtype], 5e-8)
    np.testing.assert_allclose(result.astype(np.float64), formula(x.astype(np.float64)), rtol=tolerance, atol=tolerance / 2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("op", "attrs"), EXPANDED)
def test_expansion_means_the_same(op, attrs, dtype):
    x = array(np.linspace(-8, 8, 97), dtype)
    expected = run(op, x, **attrs).astype(np.float64)
    tolerance = max(2 * FLOATS[dtype], 1e-15)
    np.testing.assert_allclose(run_expanded(op, x, **attrs).astype(np.float64), expected, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
def test_expansions_of_two_operands(dtype):
    a, b = array(X, dtype), array(np.flip(X) / 3, dtype)
    for op, attrs in (("PRelu", {}), ("SwiGLU", {}), ("SwiGLU", {"alpha": 0.5})):
        expected = run(op, a, b, **attrs).astype(np.float64)
        np.testing.assert_allclose(
            run_expanded(op, a, b, **attrs).astype(np.float64), expected, rtol=2 * FLOATS[dtype], atol=1e-15
        )


@pytest.mark.parametrize("op", [c[0] for c in CASES if not c[1]])
@pytest.mark.parametrize("dtype", FLOATS)
def test_large_numbers_neither_overflow_nor_warn(op, dtype):
    x = array([-3e4, 3e4], dtype)
    result = run(op, x).astype(np.float64)
    assert np.isfinite(result).all()
    assert np.isnan(run(op, array([np.nan], dtype)).astype(np.float64)).all() or op in ("ThresholdedRelu", "Shrink")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_numbers_keep_their_digits(dtype):
    x = array([1e-6, -1e-6], dtype)
    np.testing.assert_allclose(run("Elu", x), np.expm1(x), rtol=1e-6)
    np.testing.assert_allclose(run("Celu", x[1:]), np.expm1(x[1:]), rtol=1e-6)
    np.testing.assert_allclose(run("Sigmoid", array([-80], dtype)), np.exp(-80.0), rtol=1e-5)
    np.testing.assert_allclose(run("Softplus", array([-80], dtype)), np.exp(-80.0), rtol=1e-5)


@pytest.mark.parametrize("alpha", [np.inf, np.nan])
def test_elu_of_zero_is_zero_and_selu_of_it_is_the_exponential_part(alpha):
    x = np.array([-0.0, 0.0, 2.0, -1.0], np.float32)
    for evaluate in (run, run_expanded):
        np.testing.assert_array_equal(evaluate("Elu", x, alpha=alpha), [-0.0, 0.0, 2.0, -alpha])
        np.testing.assert_array_equal(evaluate("Selu", x, alpha=alpha, gamma=1.0), [np.nan, np.nan, 2.0, -alpha])


def test_prelu_slope_broadcasts_onto_the_input_only():
    x = np.array([[-2.0, 4.0], [-6.0, -8.0]], np.float32)
    np.testing.assert_array_equal(run("PRelu", x, np.array([0.5, 0.25], np.float32)), [[-1, 4], [-3, -2]])
    np.testing.assert_array_equal(run("PRelu", x, np.array([[0.5], [2]], np.float32)), [[-1, 4], [-12, -16]])
    np.testing.assert_array_equal(run("PRelu", np.array([-4, 4], np.int32), np.array(3, np.int32)), [-12, 4])
    with pytest.raises(ModelError, match=r"PRelu: the slope f32\[2,2\] does not broadcast onto f32\[1,2\]"):
        infer("PRelu", TensorType(DType.F32, (1, 2)), TensorType(DType.F32, (2, 2)))
    with pytest.raises(ModelError, match="does not broadcast onto"):
        infer("PRelu", TensorType(DType.F32, (2,)), TensorType(DType.F32, (1, 2)))


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "int32", "uint8", "uint64"])
def test_clip(dtype):
    x, low, high = array([1, 5, 9], dtype), array(3, dtype), array(7, dtype)
    assert run("Clip", x, low, high).astype(np.float64).tolist() == [3, 5, 7]
    assert run("Clip", x, low).astype(np.float64).tolist() == [3, 5, 9]
    assert run("Clip", x, None, high).astype(np.float64).tolist() == [1, 5, 7]
    assert run("Clip", x).astype(np.float64).tolist() == [1, 5, 9]
    assert run("Clip", x, high, low).astype(np.float64).tolist() == [3, 3, 3]
    assert run("Clip", x[:1].reshape(()), low.reshape(1)).astype(np.float64).tolist() == 3


@pytest.mark.parametrize("dtype", ["int8", "int64"])
def test_relu_and_shrink_of_integers(dtype):
    x = array([-3, 0, 3], dtype)
    assert run("Relu", x).tolist() == [0, 0, 3]
    assert run("Shrink", x, lambd=1.5, bias=1.0).tolist() == [-2, 0, 2]


def test_swiglu_is_swish_times_the_value():
    a, b = np.array([1.0, -2.0], np.float32), np.array([3.0, 4.0], np.float32)
    np.testing.assert_allclose(run("SwiGLU", a, b, alpha=2.0), run("Swish", a, alpha=2.0) * b, rtol=1e-6)
    n = symbol("n")
    assert infer("SwiGLU", TensorType(DType.F16, (n, 4)), TensorType(DType.F16, (2, 4))) == TensorType(DType.F16, (2, 4))
    assert infer("SwiGLU", TensorType(DType.F16), TensorType(DType.F16, (2, 4))) == TensorType(DType.F16, (2, 4))


F = TensorType(DType.F32, (2, 3))


@pytest.mark.parametrize(
    ("op", "types", "attrs", "message"),
    [
        ("SwiGLU", (F, TensorType(DType.F32, (1, 3))), {}, r"SwiGLU: f32\[2,3\] and f32\[1,3\] differ: 2 is not 1"),
        ("SwiGLU", (F, TensorType(DType.F32, (3,))), {}, r"SwiGLU needs operands of one shape, got f32\[2,3\] and f32\[3\]"),
        ("Gelu", (F,), {"approximate": "sigmoid"}, "Gelu approximate is 'sigmoid', expected 'none' or 'tanh'"),
        ("Clip", (F, TensorType(DType.F32, (3,))), {}, r"Clip needs scalar limits, got f32\[3\]"),
        ("Clip", (F, TensorType(DType.F64, ())), {}, "Clip needs operands of one element type"),
        ("Sigmoid", (TensorType(DType.I32, (2,)),), {}, "Sigmoid does not take an input i32"),
    ],
)
def test_wrong_operands_are_refused(op, types, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *types, **attrs)
