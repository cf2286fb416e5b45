"""Which inputs decide shapes by their contents."""

import pytest

from miniinfer_cli.planning.shape_values import shape_inputs
from tests.graph_text import typed_graph


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("graph main(x: f32[n,6], s: i64[2]) {\n  y = Reshape(x, s)\n  return y\n}", {1}),
        (
            "graph main(x: f32[n,6], s: i64[1], t: i64[1]) {\n  u = Concat(s, t) {axis=0}\n  y = Expand(x, u)\n  return y\n}",
            {1, 2},
        ),
        ("graph main(x: f32[n,6]) {\n  s = Shape(x)\n  y = Expand(x, s)\n  return y\n}", set()),
        ("graph main(x: i64[9], y: f32[9]) {\n  s = Shape(x)\n  z = Expand(y, s)\n  return z\n}", set()),
        ("graph main(x: f32[n,6], i: i64[2]) {\n  y = Gather(x, i)\n  return y\n}", set()),
        ("graph main(x: f32[n], s: i64[100]) {\n  m = ReduceMax(s)\n  y = Expand(x, m)\n  return y\n}", set()),
        ("graph main(x: f32[n], s: i64[k]) {\n  y = Reshape(x, s)\n  return y\n}", set()),
        ("graph main(x: f32[n], t: i64[2,1], i: i64[]) {\n  s = Gather(t, i)\n  y = Expand(x, s)\n  return y\n}", {1, 2}),
        ("graph main(x: f32[n], t: i64[99,1], i: i64[]) {\n  s = Gather(t, i)\n  y = Expand(x, s)\n  return y\n}", set()),
        (
            "graph main(x: f32[n], t: i64[99,1], i: i64[1]) {\n  s = Gather(t, i) {axis=1}\n  y = Reshape(x, i)\n"
            "  k = Shape(s)\n  j = Mul(k, k)\n  z = Expand(y, j)\n  return z\n}",
            {2},
        ),
    ],
    ids=[
        *("direct", "through arithmetic", "only a shape is read", "Shape reads no contents", "data", "too large", "open size"),
        *("chosen from a small table", "chosen from data", "beside data"),
    ],
)
def test_shape_inputs(text, expected):
    assert shape_inputs(typed_graph(text)) == expected
