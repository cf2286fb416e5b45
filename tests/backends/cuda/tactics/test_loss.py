"""Losses on the emulated device beside their references."""

import numpy as np
import pytest

from tests.backends.cuda.harness import check_op, run_op

RNG = np.random.default_rng(7)


def check_both(x, targets, weights, tolerance, **attrs):
    check_op("NegativeLogLikelihoodLoss", x, targets, weights, tolerance=tolerance, **attrs)
    check_op("SoftmaxCrossEntropyLoss", x, targets, weights, n_outputs=2, tolerance=tolerance, **attrs)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [None, 2, -1])
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_weights_and_ignored_classes(reduction, ignore_index, weighted):
    x = RNG.standard_normal((3, 5, 7)).astype(np.float32)
    targets = RNG.integers(0, 5, (3, 7))
    attrs = {}
    if ignore_index is not None:
        targets[0, 0] = ignore_index
        attrs["ignore_index"] = ignore_index
    weights = RNG.uniform(0.5, 2, 5).astype(np.float32) if weighted else None
    check_both(x, targets, weights, 1e-5, reduction=reduction, **attrs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 6e-3), (np.float64, 1e-11)])
def test_types(dtype, tolerance):
    x = RNG.standard_normal((4, 6)).astype(dtype)
    check_both(x, RNG.integers(0, 6, 4).astype(np.int32), None, tolerance)
    check_op("SoftmaxCrossEntropyLoss", x, RNG.integers(0, 6, 4), tolerance=tolerance)


def test_many_targets():
    x = RNG.standard_normal((2, 3, 700)).astype(np.float32)
    check_both(x, RNG.integers(0, 3, (2, 700)), None, 1e-5)


def test_empty_batches():
    x, targets = np.zeros((0, 3), np.float32), np.zeros((0,), np.int64)
    check_op("NegativeLogLikelihoodLoss", x, targets, reduction="sum")
    check_op("NegativeLogLikelihoodLoss", x, targets, reduction="none")
    check_op("SoftmaxCrossEntropyLoss", x, targets, reduction="sum", n_outputs=2)


def test_a_target_that_is_no_class_reads_nothing():
    x = np.full((2, 3), -1, np.float32)
    (loss,) = run_op("NegativeLogLikelihoodLoss", x, np.array([1, 99]), reduction="none")
    assert loss.tolist() == [1, 0]


def test_indices_of_64_bits(wide_indices):
    x = RNG.standard_normal((3, 5, 2)).astype(np.float32)
    check_both(x, RNG.integers(0, 5, (3, 2)), None, 1e-5)
