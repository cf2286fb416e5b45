"""What is fused behind a product or a convolution follows on each part of it, on the thread that did the part."""

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.ops import products
from miniinfer_cli.ops.interpreter import interpret
from tests.graph_text import typed_graph


def matmul(x, w, operands="", more="", body="t = Relu(p)", out="t"):
    header = f"x: {x}, w: {w}{operands}"
    return f"""
graph main({header}) {{
  y = miniinfer.FusedMatMul(x, w{more})
    body: graph FusedMatMul({header}) {{
      p = MatMul(x, w)
      {body}
      return {out}
    }}
  return y
}}"""


def conv(x, w, attrs="", operands="", more="", body="t = HardSwish(p)"):
    header = f"x: {x}, w: {w}, c: f32[{w[4:].split(',')[0]}]{operands}"
    return f"""
graph main({header}) {{
  y = miniinfer.FusedConv(x, w, c{more})
    body: graph FusedConv({header}) {{
      p = miniinfer.ConvNHWC(x, w, c) {{{attrs}}}
      {body}
      return t
    }}
  return y
}}"""


GRAPHS = {
    "rows and columns": matmul("f32[40,8]", "f32[8,48]"),
    "a batch over one matrix": matmul("f32[3,20,8]", "f32[8,48]"),
    "operands of every form": matmul(
        "f32[3,20,8]", "f32[8,48]", ", b: f32[48], r: f32[3,20,48], c: f32[3,20,1], s: f32[1,1,1]", ", b, r, c, s",
        "q = Add(p, b) u = Mul(q, c) v = Sub(u, r) t = Mul(v, s)",
    ),
    "an operand that is neither": matmul("f32[3,20,8]", "f32[8,48]", ", r: f32[3,1,48]", ", r", "t = Add(p, r)"),
    "a result of another type": matmul("f32[40,8]", "f32[8,48]", body="t: bool[40,48] = Greater(p, p)"),
    "the product is read twice, and stays": matmul("f32[40,8]", "f32[8,48]", body="q = Relu(p) t = Sub(q, p)"),
    "halves": matmul("f16[40,8]", "f16[8,48]"),
    "a batch of matrices": matmul("f32[3,40,8]", "f32[3,8,48]"),
    "a vector": matmul("f32[8]", "f32[8,48]"),
    "a convolution of points": conv("f32[2,6,7,8]", "f32[48,1,1,8]"),
    "of points, with strides and a residual": conv(
        "f32[2,9,8,8]", "f32[48,1,1,8]", "strides=[2,2]", ", r: f32[2,5,4,48]", ", r", "q = Add(p, r) t = Relu(q)"
    ),
    "of windows": conv("f32[3,12,10,24]", "f32[16,3,3,24]", "pads=[1,1,1,1]", ", r: f32[3,12,10,16]", ", r", "t = Add(p, r)"),
    "in one dimension": conv("f32[2,70,24]", "f32[16,3,24]"),
    "in groups": conv("f32[2,9,8,8]", "f32[12,3,3,4]", "group=2"),
    "of points in groups": conv("f32[2,9,8,8]", "f32[12,1,1,4]", "group=2"),
    "by channel": conv("f32[2,9,8,8]", "f32[8,3,3,1]", "group=8"),
    "of nothing": conv("f32[0,9,8,8]", "f32[12,3,3,8]"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_rest_follows_on_every_part(name, threads, monkeypatch):
    monkeypatch.setattr(products, "_PART", 1 << 9)  # so that small ones are cut, into rows and columns
    monkeypatch.setattr(products, "_ROWS", 8)
    monkeypatch.setattr(products, "_COLUMNS", 12)
    monkeypatch.setattr(products, "_ALIGNED", (4,))
    monkeypatch.setattr("miniinfer_cli.ops.convolve.TILE_NBYTES", 1 << 14)
    products.product_cuts.cache_clear()
    graph = typed_graph(GRAPHS[name])
    rng = np.random.default_rng(0)
    feeds = [
        rng.standard_normal([int(d) for d in v.tensor.shape]).astype(v.tensor.dtype.replace("f", "float")) for v in graph.inputs
    ]
    model = CpuModel(graph, threads)
    try:
        program = model.make_program([v.type for v in graph.inputs])
        context = model.make_context()
        for _ in range(2):
            (got,) = context.execute(program, feeds)
            (want,) = interpret(graph, feeds)
            assert got.shape == want.shape and got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=5e-3 if got.dtype == np.float16 else 1e-4, atol=1e-3)
    finally:
        model.close()
        products.product_cuts.cache_clear()


@pytest.mark.parametrize(("shape", "follows"), [((40, 48), 1), ((40, 48), 1 << 8), ((1, 48), 1 << 8), ((96, 12), 1 << 8)])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_rest_follows_once_on_every_row_that_is_whole(shape, follows, threads, monkeypatch):
    monkeypatch.setattr(products, "_PART", 1 << 9)
    monkeypatch.setattr(products, "_ROWS", 48)  # so that there are parts of columns
    monkeypatch.setattr(products, "_COLUMNS", 12)
    monkeypatch.setattr(products, "_ALIGNED", (4,))
    monkeypatch.setattr(products, "_FOLLOWS", follows)
    products.product_cuts.cache_clear()
    a, b = np.ones((shape[0], 8), np.float32), np.ones((8, shape[1]), np.float32)
    out, seen = np.zeros(shape, np.float32), np.zeros(shape[0], int)

    def then(rows):
        def follow():
            assert (out[rows] == 8).all()
            seen[rows] += 1

        return follow

    try:
        ready = products.prepare_product(a, b, out, Threads(threads), then)
        for turn in (1, 2):
            out[...] = 0
            ready()
            assert (seen == turn).all()
    finally:
        products.product_cuts.cache_clear()
