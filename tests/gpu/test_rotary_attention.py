"""The join "rotary_attention" on a GPU: heads that are turned by the kernel that multiplies them, against the CPU."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.ir import DType, numpy_dtype
from miniinfer_cli.planning.freeze import freeze
from tests.graph_text import typed_graph

LIMITS = {DType.F16: 2e-3, DType.BF16: 1.6e-2}
TURNED = """
graph main(x: {type}[b,n,1024], c: f32[b,n,32], s: f32[b,n,32]) {{
  p: i64[3] = const [512,256,256]
  q, k, v = Split(x, p) {{axis=2}}
  qt = RotaryEmbedding(q, c, s) {{num_heads=8{how}}}
  kt = RotaryEmbedding(k, c, s) {{num_heads=4{how}}}
  y = Attention(qt, kt, v) {{is_causal=1, kv_num_heads=4, q_num_heads=8}}
  return y
}}
"""


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
@pytest.mark.parametrize("how", ["", ", interleaved=1"])
@pytest.mark.parametrize("pdl", [True, False])
def test_heads_that_are_turned_where_they_are_multiplied(dtype: DType, how: str, pdl: bool) -> None:
    plan = freeze(typed_graph(TURNED.format(type=dtype.value, how=how)))
    joined = dict.fromkeys(("qt", "kt"), "rotary_attention")
    with (
        miniinfer_cli.load(plan, "cuda:0", tactics=joined, pdl=pdl) as engine,
        miniinfer_cli.load(plan, "cpu") as exact,
    ):
        for batch, places in ((1, 128), (3, 200), (2, 7)):
            rng = np.random.default_rng(places)
            angles = rng.uniform(0, 6, (batch, places, 32))
            given = {
                "x": rng.standard_normal((batch, places, 1024)).astype(numpy_dtype(dtype)),
                "c": np.cos(angles).astype(np.float32),
                "s": np.sin(angles).astype(np.float32),
            }
            (want,) = exact.run(given).values()
            for _ in range(3):  # kernel by kernel, captured, replayed
                (got,) = engine.run(given).values()
                difference = np.linalg.norm(got.astype(np.float32) - want.astype(np.float32))
                assert difference <= LIMITS[dtype] * np.linalg.norm(want.astype(np.float32))
            assert [s.kind for s in engine.program([*given.values()]).steps] == ["miniinfer.RotaryAttention"]
