"""Random numbers and Dropout on the emulated device: the reference's own where they are few and seeded, else distributions."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Copy, Fill
from miniinfer_cli.backends.cuda.tactics.pointwise import random as lowering
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.cuda.tactics.pointwise_bodies import numbers

MANY = (160, 250)


@pytest.fixture
def kernels_draw(monkeypatch):
    monkeypatch.setattr(lowering, "_DRAWN", 0)


@pytest.mark.parametrize("dtype", [1, 10, 11, 16])
def test_few_numbers_of_a_seed_are_the_references(dtype):
    check_op("RandomNormal", shape=[3, 5], dtype=dtype, mean=1.0, scale=2.0, seed=7.0)
    check_op("RandomUniform", shape=[4], dtype=dtype, low=-1.0, high=2.0, seed=7.0)
    check_op("RandomUniformLike", np.zeros((3, 2), np.int32), dtype=dtype, seed=1.0)
    check_op("RandomNormalLike", np.zeros((3, 2), np.float16), seed=1.0)
    check_op("Bernoulli", np.linspace(0, 1, 40, dtype=np.float32), dtype=dtype, seed=3.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_distributions(dtype):
    like = np.zeros(MANY, dtype)
    (normal,) = run_op("RandomNormalLike", like, mean=1.0, scale=2.0)
    (uniform,) = run_op("RandomUniformLike", like, low=-1.0, high=3.0)
    n, u = normal.astype(np.float64), uniform.astype(np.float64)
    assert (normal.dtype, n.shape) == (like.dtype, MANY)
    assert abs(n.mean() - 1) < 0.05 and abs(n.std() - 2) < 0.05 and abs(np.mean(np.abs(n - 1) < 2) - 0.683) < 0.02
    assert -1 <= u.min() < -0.99 and 2.99 < u.max() <= 3 and abs(u.mean() - 1) < 0.05
    assert abs(np.corrcoef(n.reshape(-1)[::2], n.reshape(-1)[1::2])[0, 1]) < 0.03


def test_a_seed_repeats_and_nodes_differ(kernels_draw):
    a, b, c = (run_op("RandomUniform", shape=[999], seed=s)[0] for s in (1.0, 1.0, 2.0))
    assert (a == b).all() and (a != c).mean() > 0.99
    assert len(np.unique(a)) > 990


def test_no_numbers():
    assert run_op("RandomNormal", shape=[0, 3])[0].shape == (0, 3)


@pytest.mark.parametrize("dtype", [None, 9, 6, 10])
def test_bernoulli_of_certain_and_uncertain_outcomes(dtype, kernels_draw):
    x = np.concatenate([np.zeros(50), np.ones(50), np.full(2000, 0.3)]).astype(np.float32)
    (y,) = run_op("Bernoulli", x, **({} if dtype is None else {"dtype": dtype}), seed=5.0)
    y = y.astype(np.float32)
    assert (y[:50] == 0).all() and (y[50:100] == 1).all() and abs(y[100:].mean() - 0.3) < 0.05


def test_few_classes_of_a_seed_are_the_references():
    x = numbers(np.float32, (3, 1001))
    check_op("Multinomial", x, sample_size=9, seed=2.0)
    check_op("Multinomial", x[:, :3].astype(np.float64), sample_size=300, seed=2.0, dtype=7)


def test_classes_come_as_often_as_they_should(kernels_draw):
    weights = np.array([[0.1, 0.0, 0.6, 0.3], [1.0, 1.0, 1.0, 1.0]])
    with np.errstate(divide="ignore"):
        (y,) = run_op("Multinomial", np.log(weights).astype(np.float32), sample_size=4000, seed=4.0)
    shares = np.stack([np.bincount(row, minlength=4) / 4000 for row in y])
    np.testing.assert_allclose(shares, weights / weights.sum(1, keepdims=True), atol=0.04)


def test_dropout_outside_of_training_is_a_copy():
    x = numbers(np.float16, (5, 7))
    check_op("Dropout", x, np.array(0.7, np.float32), n_outputs=2)
    lowered = lower_op("Dropout", x, n_outputs=2)
    assert [type(a) for a in lowered.actions] == [Copy, Fill]
    check_op("Dropout", x, None, np.array(False), n_outputs=2, constants=(2,))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.float8_e5m2])
def test_dropout_in_training_of_a_seed(dtype):
    x = numbers(dtype, (31, 9))
    for training in (True, False):
        check_op("Dropout", x, np.array(0.25, np.float32), np.array(training), n_outputs=2, seed=6)
    check_op("Dropout", x, np.array(0.0, np.float32), np.array(True), n_outputs=2, seed=6)


def test_dropout_in_training_keeps_a_share(kernels_draw):
    y, kept = run_op("Dropout", np.ones((4000,), np.float32), np.array(0.25, np.float32), np.array(True), n_outputs=2)
    assert abs(kept.mean() - 0.75) < 0.04
    np.testing.assert_allclose(y, kept / np.float32(0.75), rtol=1e-6)
