"""GroupNormalizationNHWC on the emulated device beside its reference."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ops.registry import OURS
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.test_normalization import HALF, SHAPES, normal


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_groups(shape, groups):
    x, c = np.moveaxis(normal(*shape), 1, -1).copy(), shape[1]
    check_op("GroupNormalizationNHWC", x, normal(c), normal(c), num_groups=groups, domain=OURS, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_types(dtype):
    x, scale, bias = normal(2, 4, 8, dtype=dtype), normal(8, dtype=dtype), normal(8, dtype=dtype)
    check_op("GroupNormalizationNHWC", x, scale, bias, num_groups=2, domain=OURS, tolerance=HALF[dtype])


def test_channels_last_groups_of_many_places():
    x = normal(2, 700, 16)
    check_op(
        "GroupNormalizationNHWC",
        x,
        normal(16),
        normal(16),
        num_groups=4,
        domain=OURS,
        target=Target(multiprocessors=2),
        tolerance=1e-5,
    )


def test_indices_of_64_bits(wide_indices):
    check_op("GroupNormalizationNHWC", normal(2, 6, 4), normal(4), normal(4), num_groups=2, domain=OURS, tolerance=1e-5)
