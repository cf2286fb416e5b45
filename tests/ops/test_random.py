"""Random operations: their distributions, seeds, types; Dropout in both modes."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops import lookup
from tests.ops.checked import array, infer, run

GENERATORS = [
    ("RandomNormal", {"mean": 3.0, "scale": 2.0}, 3.0, 2.0),
    ("RandomUniform", {"low": -1.0, "high": 5.0}, 2.0, 6 / np.sqrt(12)),
]


@pytest.mark.parametrize(("op", "attrs", "mean", "deviation"), GENERATORS)
def test_distribution_seed_and_type(op, attrs, mean, deviation):
    drawn = run(op, shape=[100, 200], seed=1.0, **attrs)
    assert drawn.dtype == np.float32
    assert drawn.mean() == pytest.approx(mean, abs=0.1)
    assert drawn.std() == pytest.approx(deviation, rel=0.05)
    np.testing.assert_array_equal(drawn, run(op, shape=[100, 200], seed=1.0, **attrs))
    assert (drawn != run(op, shape=[100, 200], seed=2.0, **attrs)).any()
    assert (run(op, shape=[9]) != run(op, shape=[9])).any()
    like = run(op + "Like", array(np.zeros((100, 200)), "bfloat16"), seed=1.0, **attrs)
    np.testing.assert_array_equal(like, drawn.astype(like.dtype))
    assert run(op + "Like", np.zeros(3, np.int32), dtype=11).dtype == np.float64


def test_uniform_numbers_stay_in_their_range():
    drawn = run("RandomUniform", shape=[1000], low=2.0, high=3.0)
    assert drawn.min() >= 2
    assert drawn.max() <= 3


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_bernoulli(dtype):
    p = array(np.repeat([[0.0], [0.25], [1.0]], 4000, axis=1), dtype)
    drawn = run("Bernoulli", p, seed=3.0)
    assert set(np.unique(drawn.astype(np.float64))) == {0, 1}
    np.testing.assert_allclose(drawn.astype(np.float64).mean(axis=1), [0, 0.25, 1], atol=0.03)
    assert run("Bernoulli", p, dtype=9).dtype == np.bool_


def test_multinomial_draws_in_proportion_row_by_row():
    p = np.array([[0.1, 0.2, 0.7], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    with np.errstate(divide="ignore"):
        logits = (np.log(p) + 5).astype(np.float32)
    drawn = run("Multinomial", logits, sample_size=5000, seed=4.0, dtype=7)
    shares = np.stack([(drawn == c).mean(axis=1) for c in range(3)], axis=1)
    np.testing.assert_allclose(shares, p, atol=0.03)
    assert run("Multinomial", logits).dtype == np.int32


@pytest.mark.parametrize("training", [None, np.array(False)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float8_e4m3fn"])
def test_dropout_at_inference_changes_nothing(training, dtype):
    x = array([[1, -2], [3, 4]], dtype)
    result, mask = run("Dropout", x, np.array(0.9, np.float32), training, n_outputs=2)
    np.testing.assert_array_equal(result, x)
    assert mask.all()
    np.testing.assert_array_equal(run("Dropout", x), x)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_dropout_in_training_zeroes_a_share_and_scales_the_rest(dtype):
    x = array(np.full((100, 100), 3.0), dtype)
    result, mask = run("Dropout", x, np.array(0.25, np.float32), np.array(True), n_outputs=2, seed=5)
    assert mask.mean() == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(result, np.where(mask, array(4, dtype), array(0, dtype)))
    again = run("Dropout", x, np.array(0.25, np.float32), np.array(True), seed=5)
    np.testing.assert_array_equal(again, result)
    np.testing.assert_array_equal(run("Dropout", x, np.array(0.0, np.float32), np.array(True)), x)


def test_random_operations_are_marked_so():
    for op in ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"):
        assert lookup("", op).random
    assert not lookup("", "Add").random


N = symbol("n")


@pytest.mark.parametrize(
    ("op", "types", "attrs", "message"),
    [
        ("RandomNormal", (), {"shape": [2], "dtype": 7}, "of i64 is not possible, only of f64 f32 f16 bf16"),
        ("RandomUniformLike", (TensorType(DType.I32, (N,)),), {}, "of i32 is not possible"),
        ("Bernoulli", (TensorType(DType.F32, (N,)),), {"dtype": 8}, "Bernoulli of str is not possible"),
        ("Multinomial", (TensorType(DType.F32, (N,)),), {}, r"Multinomial expects an input of rank 2, got f32\[n\]"),
        ("Multinomial", (TensorType(DType.F32, (N, 3)),), {"dtype": 1}, "Multinomial of f32 is not possible, only of i64 i32"),
        ("Dropout", (TensorType(DType.I32, (N,)),), {}, "Dropout does not take an input i32"),
        ("Dropout", (TensorType(DType.F32), None, TensorType(DType.F32)), {}, "Dropout does not take an input f32"),
    ],
)
def test_wrong_operands_are_refused(op, types, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *types, **attrs)


def test_symbolic_shapes():
    assert infer("RandomNormalLike", TensorType(DType.F16, (N, 2))) == TensorType(DType.F16, (N, 2))
    assert infer("Multinomial", TensorType(DType.F16, (N, 9)), sample_size=4) == TensorType(DType.I32, (N, 4))
