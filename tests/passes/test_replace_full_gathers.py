"""replace_full_gathers: a gather of everything in order is a Reshape; any other gather stays."""

import pytest

from miniinfer_cli.passes.replace_full_gathers import replace_full_gathers

# What transformers writes to look a padding mask up: batches and positions counted up.
COUNTS = """
  s = Shape(mask) {start=1, end=2}
  t = Shape(mask) {start=0, end=1}
  n = Squeeze(s)
  b = Squeeze(t)
  zero: i64[] = const 0
  one: i64[] = const 1
  positions = Range(zero, n, one)
  batches = Range(zero, b, one)
  p: i64[4] = const [1, 1, 1, -1]
  key = Reshape(positions, p)
  q: i64[4] = const [-1, 1, 1, 1]
  batch = Reshape(batches, q)
  ones: i64[2] = const [1, 1]
  last: i64[1] = const [-1]
"""
BY_PAIRS = """
  target = Concat(t, ones, s) {axis=0}
  batch_all = Expand(batch, target)
  batch_column = Unsqueeze(batch_all, last)
  key_all = Expand(key, target)
  key_column = Unsqueeze(key_all, last)
  pairs = Concat(batch_column, key_column) {axis=-1}
"""


def test_a_mask_gathered_by_pairs_of_batch_and_position_is_the_mask(rewrites):
    start = f"graph main(mask: bool[batch,seq]) {{ {COUNTS} {BY_PAIRS}"
    rewrites(
        replace_full_gathers,
        f"{start} y = GatherND(mask, pairs) {{batch_dims=0}} return y }}",
        f"{start} y_shape: i64[4] = const [0, 1, 1, -1] y = Reshape(mask, y_shape) return y }}",
    )


def test_a_flattened_mask_gathered_by_running_numbers_is_the_mask(rewrites):
    start = f"""graph main(mask: bool[batch,seq]) {{ {COUNTS}
      flat = Flatten(mask) {{axis=2}}
      before = Mul(batch, n)
      index = Add(key, before)"""
    rewrites(
        replace_full_gathers,
        f"{start} y = Gather(flat, index) return y }}",
        f"{start} y_shape: i64[5] = const [0, 1, 1, -1, 1] y = Reshape(mask, y_shape) return y }}",
    )


def test_gathers_along_one_axis(rewrites):
    start = f"graph main(mask: f32[h,seq,4]) {{ {COUNTS} row: i64[2] = const [1, -1] r = Reshape(positions, row)"
    rewrites(
        replace_full_gathers,
        f"{start} y = Gather(mask, r) {{axis=1}} z = Gather(mask, positions) {{axis=-2}} v = Sigmoid(z) return y, v }}",
        f"""{start} y_shape: i64[4] = const [0, 1, -1, 4] y = Reshape(mask, y_shape) v = Sigmoid(mask) return y, v }}""",
        fired=2,
    )


def test_constant_indices_in_order(rewrites):
    start = "graph main(x: f32[3,batch]) {"
    rewrites(
        replace_full_gathers,
        f"{start} i: i64[3,1] = const [0, 1, 2] y = Gather(x, i) {{axis=0}} return y }}",
        f"{start} y_shape: i64[3] = const [3, 1, -1] y = Reshape(x, y_shape) return y }}",
    )


@pytest.mark.parametrize(
    "body",
    [
        "y = Gather(mask, positions) {axis=0}",  # as many as there are columns, of the rows
        "a = Add(positions, one) y = Gather(mask, a) {axis=1}",
        "y = Gather(mask, ids) {axis=1}",
        "y = Gather(mask, zero) {axis=1}",
        "f = Flatten(mask) {axis=2} a = Mul(key, b) i = Add(a, batch) y = Gather(f, i)",  # down the columns
        "f = Flatten(mask) {axis=2} y = Gather(f, key)",  # the first row only
        "r = Concat(key_column, batch_column) {axis=-1} y = GatherND(square, r)",  # transposed
        "y = GatherND(mask, key_column)",  # rows, by position
        "r = Concat(batch_column, batch_column) {axis=-1} y = GatherND(square, r)",  # the diagonal
        "c = Unsqueeze(positions, last) i = Concat(c) {axis=1} y = GatherND(cube, i) {batch_dims=1}",  # the diagonal
        "i: i64[2,2] = const [0, 0, 1, 1] r = Concat(i) {axis=-1} y = GatherND(square, r)",
        "i: i64[2] = const [0, 2] y = Gather(square, i)",
        "i: i64[2] = const [1, 0] y = Gather(square, i)",
        "i: i64[1] = const [0] y = Gather(square, i)",
    ],
)
def test_other_gathers_stay(leaves, body):
    inputs = "mask: bool[batch,seq], ids: i64[seq], cube: f32[seq,seq], square: f32[2,2]"
    leaves(replace_full_gathers, f"graph main({inputs}) {{ {COUNTS} {BY_PAIRS} {body} return y }}")
