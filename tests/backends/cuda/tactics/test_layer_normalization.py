"""LayerNormalization and RMSNormalization on the emulated device beside their references."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic

RNG = np.random.default_rng(7)


def normal(*shape, dtype=np.float32):
    return (RNG.standard_normal(shape) * 2 + 1).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 5), 1), ((4, 6, 8), 1), ((4, 6, 8), -1), ((3, 768), -1), ((1, 7, 1), 0), ((2, 4100), 1)]
)
def test_axes_and_all_outputs(shape, axis):
    row = shape[axis:]
    check_op("LayerNormalization", normal(*shape), normal(*row), normal(*row), axis=axis, n_outputs=3, tolerance=5e-6)
    check_op("RMSNormalization", normal(*shape), normal(*row), axis=axis, tolerance=5e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("stash", [1, 11])
def test_types(dtype, stash):
    x, scale, bias = normal(3, 24, dtype=dtype), normal(24, dtype=dtype), normal(24, dtype=dtype)
    tolerance = {"float64": 1e-5 if stash == 1 else 1e-12, "float16": 4e-3, "bfloat16": 4e-2}[np.dtype(dtype).name]
    check_op("LayerNormalization", x, scale, bias, stash_type=stash, n_outputs=3, tolerance=tolerance)
    check_op("RMSNormalization", x, scale, stash_type=stash, tolerance=tolerance)


def test_statistics_narrower_than_f32():
    check_op("LayerNormalization", normal(3, 24), normal(24), stash_type=10, n_outputs=2)


def test_result_in_the_type_of_the_scale():
    check_op("RMSNormalization", normal(3, 24, dtype=np.float16), normal(24), tolerance=5e-6)
    check_op("RMSNormalization", normal(3, 24), normal(24, dtype=np.float16), tolerance=4e-3)


def test_without_bias_and_with_epsilon():
    check_op("LayerNormalization", normal(3, 24), normal(24), epsilon=0.5, tolerance=5e-6)
    check_op("LayerNormalization", np.full((2, 8), 3, np.float32), normal(8))


@pytest.mark.parametrize("scale", [(8,), (1,), (6, 1), (4, 1, 8), (4, 6, 8), ()])
def test_scales_of_any_shape(scale):
    check_op("LayerNormalization", normal(4, 6, 8), normal(*scale), normal(1), axis=1, n_outputs=3, tolerance=5e-6)
    check_op("RMSNormalization", normal(4, 6, 8), normal(*scale), axis=1, tolerance=5e-6)


def test_rows_longer_than_registers_hold():
    check_op("LayerNormalization", normal(1, 9001), normal(9001), normal(9001), n_outputs=3, tolerance=1e-5)
    check_op("RMSNormalization", normal(1, 9001), normal(9001), tolerance=1e-5)


def test_large_mean_does_not_cancel():
    check_op("LayerNormalization", normal(2, 512) + 3000, normal(512), n_outputs=3, tolerance=2e-3)
    check_op("LayerNormalization", normal(1, 9001) + 3000, normal(9001), n_outputs=3, tolerance=2e-3)


def test_many_rows():
    check_op("LayerNormalization", normal(1100, 160), normal(160), normal(160), tolerance=5e-6)
    check_op("LayerNormalization", normal(70, 8), normal(8), normal(8), tolerance=5e-6)


def test_empty_tensors():
    check_op("LayerNormalization", np.zeros((0, 3), np.float32), normal(3), n_outputs=3)
    check_op("LayerNormalization", np.zeros((2, 0), np.float32), np.zeros(0, np.float32), n_outputs=3, tolerance=1e-5)


def test_indices_of_64_bits(wide_indices):
    check_op("LayerNormalization", normal(3, 24), normal(24), normal(24), tolerance=5e-6)
    check_op("LayerNormalization", normal(3, 2, 4), normal(4), axis=1, n_outputs=3, tolerance=5e-6)


def test_every_tactic_normalizes_when_it_is_forced():
    rows = [f"rows by {n} threads" for n in (160, 32, 96, 64)]
    operands = normal(3, 600), normal(600), normal(600)
    keys = check_every_tactic("LayerNormalization", *operands, n_outputs=3, target=Target(), tolerance=1e-5)
    assert keys == [*rows, "statistics"]
    keys = check_every_tactic("RMSNormalization", *operands[:2], target=Target(), tolerance=1e-5)
    assert keys == [*rows, "statistics"]
    keys = check_every_tactic("RMSNormalization", normal(3, 24), normal(3, 24), target=Target(), tolerance=1e-5)
    assert keys == ["statistics"]
