"""Tensors of more than 2^31 elements: every offset is 64 bits wide there."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.devices.opening import load
from miniinfer_cli.planning.freeze import freeze
from tests.graph_text import typed_graph

# 2 GiB and some of bytes. Were the columns a power of two, the host would compare a transposed view for minutes.
ROWS, COLUMNS = (1 << 16) + 3, (1 << 15) + 80
BLOCK = 256
NODES = {
    "pointwise": ("one: u8[] = const 1\n  y = Add(x, one)", lambda x: x + np.uint8(1)),
    "transposed": ("y = Transpose(x) {perm=[1, 0]}", lambda x: x.T),
    "reduced": ("y = ReduceMax(x, axes) {keepdims=0}", lambda x: x.max(axis=1)),
    "sliced": ("y = Slice(x, first, last, axes)", lambda x: x[:, 5:40]),
}
CONSTANTS = "axes: i64[1] = const [1]\n  first: i64[1] = const [5]\n  last: i64[1] = const [40]"


@pytest.mark.parametrize("name", NODES)
def test_large_tensors(name: str) -> None:
    text, expected = NODES[name]
    graph = typed_graph(f"graph main(x: u8[{ROWS},{COLUMNS}]) {{\n  {CONSTANTS}\n  {text}\n  return y\n}}")
    x: Any = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS), np.uint8)
    with load(freeze(graph), "cuda:0") as engine:
        got, want = engine.run({"x": x})["y"], expected(x)
    assert got.shape == want.shape
    assert all(np.array_equal(got[i : i + BLOCK], want[i : i + BLOCK]) for i in range(0, len(want), BLOCK))
