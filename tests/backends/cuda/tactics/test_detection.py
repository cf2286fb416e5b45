"""NonMaxSuppression."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Lowered
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op

F32 = np.float32


def boxes(batch, n, center, seed=0):
    r = np.random.default_rng(seed)
    if center:
        return (r.random((batch, n, 4)) * [10, 10, 3, 3]).astype(F32)
    low = r.random((batch, n, 2)) * 10
    x = np.concatenate([low, low + r.random((batch, n, 2)) * 3], -1)
    flipped = r.random((batch, n)) < 0.3
    x[flipped] = x[flipped][:, [2, 1, 0, 3]]
    return x.astype(F32)


def scores(*shape, seed=1):
    """Some equal ones among them."""
    return np.round(np.random.default_rng(seed).random(shape), 2).astype(F32)


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize(("batch", "classes", "n"), [(1, 1, 5), (2, 3, 300), (1, 2, 700)])
@pytest.mark.parametrize("limit", [np.array([20]), np.array(1000), np.array([10**12])])
def test_kept_boxes(batch, classes, n, limit, center):
    given = boxes(batch, n, center), scores(batch, classes, n), limit
    for thresholds in ((np.array([0.5], F32), np.array([0.3], F32)), (np.array(0.2, F32),), (None, np.array([0.9], F32)), ()):
        for constants in ((), (2,)):
            check_op("NonMaxSuppression", *given, *thresholds, constants=constants, center_point_box=center)


def test_more_boxes_than_a_block_sorts():
    given = boxes(1, 4500, 0), scores(1, 1, 4500), np.array([100])
    check_op("NonMaxSuppression", *given, np.array([0.3], F32), np.array([0.2], F32))


def test_boxes_without_area_and_nan():
    x = boxes(1, 8, 0)
    x[0, 1] = x[0, 0]
    x[0, 2] = [1, 1, 1, 1]
    x[0, 3] = [1, 1, 1, 1]
    x[0, 4, 0] = np.nan
    s = scores(1, 1, 8)
    s[0, 0, 5] = np.nan
    s[0, 0, 6] = -np.inf
    for thresholds in ((), (np.array([-1], F32),)):
        check_op("NonMaxSuppression", x, s, np.array([8]), np.array([0.4], F32), *thresholds)


@pytest.mark.parametrize("arguments", [(), (np.array([0]),), (np.array([-3]),)])
def test_no_room(arguments):
    check_op("NonMaxSuppression", boxes(1, 5, 0), scores(1, 1, 5), *arguments)


@pytest.mark.parametrize(("batch", "classes", "n"), [(0, 1, 4), (2, 0, 4), (2, 2, 0)])
def test_nothing(batch, classes, n):
    check_op("NonMaxSuppression", boxes(batch, n, 0), scores(batch, classes, n), np.array([3]))


def test_f64(wide_indices):
    given = boxes(1, 300, 0).astype(np.float64), scores(1, 2, 300).astype(np.float64), np.array([50]), np.array([0.3])
    check_op("NonMaxSuppression", *given)


def test_a_known_limit_bounds_the_output():
    given = boxes(2, 300, 0), scores(2, 3, 300), np.array([7])
    known, late = (lower_op("NonMaxSuppression", *given, constants=c) for c in ((2,), ()))
    assert isinstance(known, Lowered) and known.bounds[0].shape == (42, 3)
    assert isinstance(late, Lowered) and late.bounds[0].shape == (1800, 3)
