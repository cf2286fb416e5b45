"""Graphs in which something moves data, as text; shared by the tests of the two passes that move integers instead."""

import numpy as np

from miniinfer_cli.ops.interpreter import interpret
from tests.passes.graphs import read_graph

NUMBERS = "s: f32[] = const 0.5 z: u8[] = const 3"
X = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)


def graph_of(body, returned="y", x="x: u8[2,3,4,4]"):
    graph = read_graph(f"graph main({x}) {{ {NUMBERS} {body} return {returned} }}")
    want = interpret(graph, [X] if "u8" in x else [X.astype(np.float32)])
    return graph, want


MOVES = {
    "Transpose": "y = Transpose(a) {perm=[0, 2, 3, 1]}",
    "Reshape": "t: i64[2] = const [2, -1] y = Reshape(a, t)",
    "Slice": "b: i64[1] = const [1] e: i64[1] = const [3] x1: i64[1] = const [2] y = Slice(a, b, e, x1)",
    "MaxPool": "y = MaxPool(a) {kernel_shape=[2, 2], pads=[1, 1, 0, 0]}",
    "Concat": "c = DequantizeLinear(x, s, z) y = Concat(a, c) {axis=1}",
    "Gather": "i: i64[2] = const [2, 0] y = Gather(a, i) {axis=1}",
    "DepthToSpace": "p = Transpose(a) {perm=[0, 2, 1, 3]} y = DepthToSpace(p) {blocksize=2}",
}
