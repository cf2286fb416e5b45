"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss against a loop over the targets."""

import itertools

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

RNG = np.random.default_rng(8)
SCORES = RNG.normal(0, 2, (3, 5, 2, 4))
TARGETS = RNG.integers(0, 5, (3, 2, 4))
WEIGHTS = RNG.uniform(0.1, 2, 5)


def by_loops(log_prob, targets, weights, ignore, reduction):
    losses, shares = np.zeros(targets.shape), np.zeros(targets.shape)
    for index in itertools.product(*map(range, targets.shape)):
        target = targets[index]
        if target != ignore:
            shares[index] = 1 if weights is None else weights[target]
            losses[index] = -log_prob[(index[0], target, *index[1:])] * shares[index]
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / shares.sum()


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignore", [None, 2, -7])
@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
@pytest.mark.parametrize("flat", [True, False])
def test_losses_and_their_expansions(dtype, reduction, weights, ignore, op, flat):
    scores, targets = (SCORES[:, :, 0, 0], TARGETS[:, 0, 0]) if flat else (SCORES, TARGETS.copy())
    if ignore == -7:
        targets = np.where(targets == 4, -7, targets)
    x = array(scores if op.startswith("Softmax") else log_softmax(scores), dtype)
    w = None if weights is None else array(weights, dtype)
    exact = x.astype(np.float64)
    log_prob = log_softmax(exact) if op.startswith("Softmax") else exact
    expected = by_loops(log_prob, targets, None if w is None else w.astype(np.float64), ignore, reduction)
    attrs = {"reduction": reduction} | ({} if ignore is None else {"ignore_index": ignore})
    inputs = [x, targets, *([] if w is None else [w])]
    result = run(op, *inputs, **attrs)
    close = {"rtol": 8 * FLOATS[dtype], "atol": 1e-6}
    np.testing.assert_allclose(result.astype(np.float64), expected, **close)
    np.testing.assert_allclose(run_expanded(op, *inputs, **attrs).astype(np.float64), result.astype(np.float64), **close)


def test_log_prob_is_the_second_output():
    loss, log_prob = run("SoftmaxCrossEntropyLoss", SCORES, TARGETS, n_outputs=2)
    np.testing.assert_allclose(log_prob, log_softmax(SCORES))
    np.testing.assert_allclose(loss, by_loops(log_prob, TARGETS, None, None, "mean"))
    for one, other in zip(run_expanded("SoftmaxCrossEntropyLoss", SCORES, TARGETS, n_outputs=2), (loss, log_prob), strict=True):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_shapes_and_what_is_refused(op):
    n, d = symbol("n"), symbol("d")
    x, target = TensorType(DType.F32, (n, 5, d)), TensorType(DType.I64, (n, d))
    assert infer(op, x, target) == TensorType(DType.F32, ())
    assert infer(op, x, target, reduction="none") == TensorType(DType.F32, (n, d))
    with pytest.raises(ModelError, match="reduction is 'most'"):
        infer(op, x, target, reduction="most")
    with pytest.raises(ModelError, match=r"targets of i32 or i64, got f32"):
        infer(op, x, TensorType(DType.F32, (n, d)))
    with pytest.raises(ModelError, match=r"a target \[N, ...\]"):
        infer(op, x, TensorType(DType.I64, (n,)))
    with pytest.raises(ModelError, match="differ: 3 is not 4"):
        infer(op, TensorType(DType.F32, (3, 5)), TensorType(DType.I64, (4,)))
    with pytest.raises(ModelError, match="5 is not 6"):
        infer(op, x, target, TensorType(DType.F32, (6,)))
    with pytest.raises(ModelError, match="weights of rank 1"):
        infer(op, x, target, TensorType(DType.F32, (5, 1)))
