"""The join "quantized_attention" on a GPU: bytes that leave the kernel of attention, against the CPU."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.ops.inference import annotate
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from miniinfer_cli.planning.freeze import freeze
from tests.graph_text import typed_graph

TEXT = """
graph main(x: {type}[b,n,1024], m: f32[b,1,1,n]) {{
  p: i64[3] = const [512,256,256]
  q, k, v = Split(x, p) {{axis=2}}
  y = Attention(q, k, v, m) {{kv_num_heads=4, q_num_heads=8}}
  w = Cast(y) {{to=1}}
  s: f32[] = const {scale}
  z: {bytes}[] = const {zero}
  b = QuantizeLinear(w, s, z)
  return b
}}
"""


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize(("narrow", "zero", "scale"), [("i8", 3, 0.01), ("u8", 128, 0.001), ("f8e4m3fn", 0.0, 0.002)])
@pytest.mark.parametrize("pdl", [True, False])
def test_bytes_that_leave_attention(kind: str, narrow: str, zero: float, scale: float, pdl: bool) -> None:
    """Off by the roundings of probabilities and results to 16 bits: in integers by one step at most."""
    graph = typed_graph(TEXT.format(type=kind, bytes=narrow, zero=zero, scale=scale))
    fuse_pointwise(graph)
    annotate(graph)
    plan, limit = freeze(graph), 1.5e-2 if kind == "f16" else 3e-2
    with (
        miniinfer_cli.load(plan, "cuda:0", tactics={"y": "quantized_attention"}, pdl=pdl) as engine,
        miniinfer_cli.load(plan, "cpu") as exact,
    ):
        for batch, places in ((1, 128), (3, 200), (2, 40), (64, 128)):
            random = np.random.default_rng(places)
            x = random.standard_normal((batch, places, 1024)).astype(engine.inputs[0].dtype)
            given = {"x": x, "m": np.where(random.random((batch, 1, 1, places)) < 0.2, -1e4, 0).astype(np.float32)}
            (want,) = exact.run(given).values()
            for _ in range(3):  # kernel by kernel, captured, replayed
                (got,) = engine.run(given).values()
                apart = np.abs(got.astype(np.float32) - want.astype(np.float32))
                assert np.linalg.norm(apart) <= limit * np.linalg.norm(want.astype(np.float32) - zero)
                assert narrow.startswith("f8") or apart.max() <= (1 if kind == "f16" else 2)
            assert [s.kind for s in engine.program([*given.values()]).steps] == ["miniinfer.QuantizedAttention"]
