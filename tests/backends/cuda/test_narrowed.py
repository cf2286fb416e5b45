"""Nodes with operands of two types, as narrowing leaves them, on the emulated device: the same as on the CPU."""

import numpy as np
import pytest

from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import DType, Numerics
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.planning.freeze import freeze
from tests.emulation.engine import open_emulated
from tests.graph_text import typed_graph

# What is computed of x, the other inputs, and the node that reads two types.
CASES = {
    "grid": ("x: f32[1,2,6,6], g: f32[1,4,4,2]", "GridSample(a, g)", "GridSample"),
    "regions": (
        "x: f32[1,2,8,8], r: f32[2,4]", "RoiAlign(a, r, which) {output_height=2, output_width=2}", "RoiAlign",
    ),
    "mask": ("x: f32[1,2,4,8], m: f32[4,4]", "Attention(a, a, a, m)", "Attention"),
    "sine": ("x: f32[2,8]", "Sin(a)", "Sin"),
    "softmax of a masked row": ("x: f32[2,8]", "Softmax(masked)", "Softmax"),
    "kept": ("x: f32[4,4]", "MatMul(a, w)", "MatMul"),
}  # fmt: skip


@pytest.mark.parametrize("half", [DType.F16, DType.BF16])
@pytest.mark.parametrize(("inputs", "node", "op"), CASES.values(), ids=CASES.keys())
def test_operands_of_two_types(inputs: str, node: str, op: str, half: DType) -> None:
    more = ""
    if "masked" in node:
        more = "low: f32[] = const -3e38\n h: f32[] = const 0.5\n b = Greater(x, h)\n masked = Where(b, low, a)"
    if "which" in node:
        more = "which: i64[2] = const [0, 0]"
    if "w)" in node:
        more = "w: f32[4,4] = const fill 1e6"
    graph = typed_graph(f"graph main({inputs}) {{ a = Abs(x)\n {more}\n y = {node} @n\n z = Tanh(y) return z }}")
    exact = graph.copy()
    optimize(exact)
    graph.numerics = Numerics(half, frozenset({"n"} if op == "MatMul" else ()))
    optimize(graph, check=True)
    assert not graph.numerics.lost
    rng = np.random.default_rng(0)
    feeds = {v.name: np.clip(rng.standard_normal(v.tensor.shape or ()), -1, 1).astype(np.float32) for v in graph.inputs}
    if "which" in node:
        feeds["r"] = np.array([[0, 0, 6, 6], [1, 2, 5, 7]], np.float32)
    with load(freeze(exact), "cpu") as engine:
        expected = engine.run(feeds)["z"]
    for engine in (load(freeze(graph), "cpu"), open_emulated(freeze(graph))):
        with engine:
            got = engine.run(feeds)["z"]
        assert got.dtype == np.float32
        assert np.linalg.norm(got - expected) < (2e-2 if half is DType.F16 else 1e-1) * np.linalg.norm(expected)
