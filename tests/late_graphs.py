"""Graphs with parts whose sizes depend on data, for the tests of planning and of every backend; and what to feed them."""

import numpy as np

# Rows with a positive number go through a product.
CHOSEN = """
graph main(x: f32[n,3], w: f32[3,4]) {
  zero: f32[] = const 0.0
  last: i64[1] = const [-1]
  a = Neg(x)
  m = ReduceMax(a, last) {keepdims=0}
  p = Greater(m, zero)
  i = NonZero(p)
  f = Reshape(i, last)
  g = Gather(a, f)
  y = MatMul(g, w)
  r = Relu(y)
  return r, f
}
"""

# The chosen rows are chosen from again, and what is computed of them has a shape of its own.
TWICE = """
graph main(x: f32[n,3], w: f32[3,4]) {
  zero: f32[] = const 0.0
  last: i64[1] = const [-1]
  first: i64[1] = const [0]
  m = ReduceMax(x, last) {keepdims=0}
  p = Greater(m, zero)
  i = NonZero(p)
  f = Reshape(i, last)
  g = Gather(x, f)
  y = MatMul(g, w)
  m2 = ReduceMax(y, last) {keepdims=0}
  p2 = Greater(m2, zero)
  i2 = NonZero(p2)
  f2 = Reshape(i2, last)
  g2 = Gather(y, f2)
  t = Transpose(g2) {perm=[1,0]}
  q = MatMul(t, g2)
  s = ReduceSum(q, first) {keepdims=0}
  e = Exp(s)
  return g2, q, e
}
"""

# A target shape that is a result: its contents decide.
RESHAPED = """
graph main(x: f32[n,12], k: f32[2,50]) {
  last: i64[1] = const [-1]
  m = ReduceMax(k, last) {keepdims=0}
  s = Cast(m) {to=7}
  y = Reshape(x, s)
  t = Transpose(y) {perm=[1,0]}
  z = MatMul(y, t)
  return z
}
"""

# One product that follows needs no size of the part: the part ends before it.
AROUND = """
graph main(x: f32[n,3], w: f32[3,80], v: f32[80,80]) {
  zero: f32[] = const 0.0
  last: i64[1] = const [-1]
  first: i64[1] = const [0]
  m = ReduceMax(x, last) {keepdims=0}
  p = Greater(m, zero)
  i = NonZero(p)
  f = Reshape(i, last)
  g = Gather(x, f)
  y = MatMul(g, w)
  s = ReduceSum(y, first) {keepdims=1}
  h = MatMul(s, v)
  b = Add(y, h)
  return b, h
}
"""


def chain(length: int) -> str:
    """So many choices, each of rows of what the one before gave, with a product in between; a few rows are left at the end."""
    lines = ["graph main(x: f32[n,2], w: f32[2,2]) {", "  zero: f32[] = const 0.0", "  last: i64[1] = const [-1]"]
    value = "x"
    for k in range(length):
        lines += [
            f"  m{k} = ReduceMax({value}, last) {{keepdims=0}}",
            f"  p{k} = Greater(m{k}, zero)",
            f"  i{k} = NonZero(p{k})",
            f"  f{k} = Reshape(i{k}, last)",
            f"  g{k} = Gather({value}, f{k})",
            f"  y{k} = MatMul(g{k}, w)",
        ]
        value = f"y{k}"
    return "\n".join([*lines, f"  return {value}", "}"])


TEXTS = {"chosen": CHOSEN, "twice": TWICE, "reshaped": RESHAPED, "around": AROUND}


def feeds(name: str, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Random inputs for one of the graphs, small whole numbers, so that sums are exact in any order."""
    random = np.random.default_rng(seed)
    if name == "reshaped":
        width = (1, 2, 3, 4, 6, 12)[seed % 6]
        return {"x": small(random, rows, 12), "k": np.repeat(np.float32([[rows * 12 // width], [width]]), 50, axis=1)}
    shapes = {"x": (rows, 3), "w": (3, 80 if name == "around" else 4), **({"v": (80, 80)} if name == "around" else {})}
    return {k: small(random, *shape) / (64 if name == "twice" else 1) for k, shape in shapes.items()}


def small(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(-4, 4, shape).astype(np.float32)
