"""RotaryEmbedding on the emulated device."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.ir import Array
from tests.backends.cuda.graph_runs import kinds, run
from tests.backends.cuda.harness import check_op


def make(*shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


def caches(*shape: int, dtype: Any = np.float32) -> tuple[Array, Array]:
    angles = np.random.default_rng(shape).standard_normal(shape)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("size", "dim"), [(16, 0), (24, 16), (6, 0), (7, 4)])
def test_pairs_are_turned(interleaved: int, dtype: Any, size: int, dim: int) -> None:
    ids = np.random.default_rng(1).integers(0, 50, (2, 5))
    tables = caches(50, (dim or size) // 2, dtype=dtype)
    options: dict[str, Any] = {"interleaved": interleaved, "rotary_embedding_dim": dim}
    check_op("RotaryEmbedding", make(2, 3, 5, size, dtype=dtype), *tables, ids, **options)
    check_op("RotaryEmbedding", make(2, 5, 3 * size, dtype=dtype), *tables, ids, num_heads=3, **options)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("length", [1, 5])
def test_angles_for_each_place(batch: int, length: int) -> None:
    tables = caches(batch, length, 4)
    check_op("RotaryEmbedding", make(2, 3, 5, 8), *tables)
    check_op("RotaryEmbedding", make(2, 5, 24), *tables, num_heads=3, interleaved=1)


def test_positions_that_all_batches_share_and_from_the_end() -> None:
    ids = np.array([[3, -1, 0, -50, 49]], np.int64)
    check_op("RotaryEmbedding", make(2, 3, 5, 8), *caches(50, 4), ids)


def test_many_blocks() -> None:
    check_op("RotaryEmbedding", make(2, 9, 40, 64), *caches(2, 40, 32))


def test_long_indices(wide_indices: None) -> None:
    check_op("RotaryEmbedding", make(2, 9, 40, 64), *caches(2, 40, 32))


@pytest.mark.parametrize("shape", [(0, 3, 5, 8), (2, 3, 0, 8)])
def test_nothing_to_turn(shape: tuple[int, ...]) -> None:
    check_op("RotaryEmbedding", make(*shape), *caches(shape[0], shape[2], 4))


MERGED = """
graph main(x: f16[2,5,192], c: f16[2,5,8], s: f16[2,5,8]) {
  sizes: i64[3] = const [64, 64, 64]
  p = Neg(x)
  q, k, v = Split(p, sizes) {axis=2}
  a = RotaryEmbedding(q, c, s) {num_heads=4}
  b = RotaryEmbedding(k, c, s) {num_heads=4, interleaved=1}
  t = Add(a, b)
  y = Mul(t, v)
  return y
}
"""
HEADS = """
graph main(x: f32[2,5,4,3,8], c: f32[2,5,4], s: f32[2,5,4]) {
  at: i64[] = const 1
  p = Neg(x)
  h = Gather(p, at) {axis=3}
  t = Transpose(h) {perm=[0, 2, 1, 3]}
  y = RotaryEmbedding(t, c, s)
  return y
}
"""


def test_heads_within_a_merged_projection_are_turned_where_they_lie() -> None:
    assert kinds(run(MERGED)) == ["Neg", "RotaryEmbedding", "RotaryEmbedding", "Add", "Mul"]
    assert kinds(run(HEADS)) == ["Neg", "RotaryEmbedding"]


def test_heads_that_begin_anywhere_are_copied_first() -> None:
    text = MERGED.replace("192", "180").replace("64, 64, 64", "60, 60, 60").replace("5,8]", "5,6]").replace("=4", "=5")
    assert kinds(run(text)) == ["Neg", "Split", "RotaryEmbedding", "RotaryEmbedding", "Add", "Mul"]
