"""Pieces of what a step computed, read where they lie, on a GPU: by the libraries and by our kernels, beside the references."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import numpy_dtype
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.planning.freeze import freeze
from tests.graph_text import typed_graph

TYPES: dict[str, tuple[Any, float]] = {"f32": (np.float32, 2e-5), "f16": (np.float16, 5e-3)}


def check(text: str, tolerance: float, *absent: str) -> None:
    """The results are the references', and no step is of a kind that is ``absent``."""
    graph = typed_graph(text)
    rng = np.random.default_rng(0)
    given = {v.name: rng.standard_normal(v.tensor.shape).astype(numpy_dtype(v.tensor.dtype)) for v in graph.inputs}
    with load(freeze(graph, options={"tf32": False}), "cuda:0") as engine, engine.create_context() as context:
        program = engine.program(engine.check(given))
        assert not {s.kind for s in program.steps} & set(absent)
        wanted = interpret(graph, list(given.values()))
        for _ in range(3):  # enqueued, captured, replayed
            for got, want in zip(context.run(given).values(), wanted, strict=True):
                difference = np.linalg.norm(got.astype(np.float64) - want.astype(np.float64))
                assert difference <= tolerance * np.linalg.norm(want.astype(np.float64))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("batch", "length", "heads"), [(1, 128, 12), (2, 197, 3), (3, 5, 1)])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_reads_a_merged_projection(dtype: str, batch: int, length: int, heads: int, causal: int) -> None:
    width = 64 * heads
    text = f"""
graph main(x: {dtype}[{batch},{length},{width}], w: {dtype}[{width},{3 * width}]) {{
  sizes: i64[3] = const [{width}, {width}, {width}]
  scale: {dtype}[] = const 0.1
  v = Mul(w, scale)
  p = MatMul(x, v)
  q, k, u = Split(p, sizes) {{axis=2}}
  y = Attention(q, k, u) {{q_num_heads={heads}, kv_num_heads={heads}, is_causal={causal}}}
  return y
}}
"""
    check(text, TYPES[dtype][1], "Split", "Copy")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("length", [1, 7, 130])
def test_products_and_gates_read_pieces(dtype: str, length: int) -> None:
    text = f"""
graph main(x: {dtype}[3,{length},192], w: {dtype}[64,72], g: {dtype}[3,24,64]) {{
  sizes: i64[3] = const [64, 64, 64]
  p = Mul(x, x)
  a, b, c = Split(p, sizes) {{axis=2}}
  h = Neg(g)
  t = Transpose(h) {{perm=[0, 2, 1]}}
  u = Transpose(b) {{perm=[0, 2, 1]}}
  one = MatMul(a, w)
  two = MatMul(c, t)
  three = MatMul(a, u)
  s = Sigmoid(b)
  four = Mul(a, s)
  return one, two, three, four
}}
"""
    check(text, TYPES[dtype][1], "Split", "Transpose", "Copy")


@pytest.mark.parametrize("dtype", TYPES)
def test_moved_and_repeated_pieces(dtype: str) -> None:
    text = f"""
graph main(x: {dtype}[2,1,200,192]) {{
  sizes: i64[3] = const [64, 64, 64]
  shape: i64[4] = const [2, 3, 200, 64]
  often: i64[4] = const [1, 2, 1, 2]
  p = Neg(x)
  a, b, c = Split(p, sizes) {{axis=3}}
  t = Transpose(a) {{perm=[0, 3, 1, 2]}}
  e = Expand(b, shape)
  r = Tile(c, often)
  return t, e, r
}}
"""
    check(text, 0.0, "Split", "Copy")


def test_what_is_joined_is_written_in_place() -> None:
    text = """
graph main(x: f32[1,80,6], y: f32[1,40,6]) {
  a = Neg(x)
  b = Exp(y)
  c = Concat(a, b) {axis=1}
  d = Neg(c)
  return c, d, a, b
}
"""
    check(text, 2e-6, "Concat")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("constant", [True, False])
def test_patches_of_an_image_with_the_channels_first(dtype: str, constant: bool) -> None:
    numbers = [round(n, 3) for n in np.random.default_rng(1).standard_normal(24 * 8 * 8 * 3).tolist()]
    weights, given = (f"w: {dtype}[24,8,8,3] = const {numbers}", "") if constant else ("", f", w: {dtype}[24,8,8,3]")
    text = f"""
graph main(i: {dtype}[3,3,40,33], b: {dtype}[24]{given}) {{
  {weights}
  x = Transpose(i) {{perm=[0, 2, 3, 1]}}
  y = miniinfer.ConvNHWC(x, w, b) {{strides=[8, 8]}}
  return y
}}
"""
    check(text, TYPES[dtype][1], "Transpose", "Copy")


@pytest.mark.parametrize("dtype", TYPES)
def test_a_product_reads_one_row_of_each_matrix_and_a_sum_rows_at_known_places(dtype: str) -> None:
    text = f"""
graph main(x: {dtype}[9,7,64], w: {dtype}[64,72]) {{
  start: i64[1] = const [2]
  end: i64[1] = const [3]
  axis: i64[1] = const [1]
  places: i64[3] = const [1, 3, 5]
  p = Neg(x)
  a = Slice(p, start, end, axis)
  one = MatMul(a, w)
  b = Gather(p, places) {{axis=1}}
  two = Sigmoid(b)
  return one, two
}}
"""
    check(text, TYPES[dtype][1], "Slice", "Gather", "Copy")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("batch", "length"), [(1, 128), (3, 5)])
def test_rotations_read_heads_of_a_merged_projection(dtype: str, batch: int, length: int) -> None:
    text = f"""
graph main(x: {dtype}[{batch},{length},768], c: {dtype}[{batch},{length},32], s: {dtype}[{batch},{length},32]) {{
  sizes: i64[3] = const [512, 128, 128]
  p = Neg(x)
  q, k, v = Split(p, sizes) {{axis=2}}
  a = RotaryEmbedding(q, c, s) {{num_heads=8}}
  b = RotaryEmbedding(k, c, s) {{num_heads=2, interleaved=1}}
  y = Mul(b, v)
  return a, y
}}
"""
    check(text, TYPES[dtype][1], "Split", "Copy")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_products_read_one_row_of_each_sequence(dtype: str, batch: int) -> None:
    text = f"""
graph main(x: {dtype}[{batch},9,768], w: {dtype}[768,96], b: {dtype}[96]) {{
  at: i64[] = const -1
  scale: {dtype}[] = const 0.1
  p = Mul(x, scale)
  a = Gather(p, at) {{axis=1}}
  g = MatMul(a, w)
  y = Add(g, b)
  return y
}}
"""
    check(text, TYPES[dtype][1], "Gather", "Copy")
