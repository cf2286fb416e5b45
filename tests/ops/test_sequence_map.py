"""SequenceMap."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, SequenceType, TensorType, symbol
from miniinfer_cli.ir.text import parse_graph
from miniinfer_cli.ops import infer_outputs
from miniinfer_cli.ops.interpreter import interpret

TEXT = """
graph main(xs: seq(f32[n,2]), ys: seq(f32[2]), z: f32[2], w: f32[2]) {
  sums, shapes = SequenceMap(xs, ys, z, w) {n_captures=1}
    body: graph body(x, y, all, captured) {
      s = Add(x, y)
      t = Add(s, all)
      u = Mul(t, captured)
      v = Shape(x)
      return u, v
    }
  return sums, shapes
}
"""
X = [np.full((k, 2), k, np.float32) for k in (1, 3)]
Y = [np.array([k, -k], np.float32) for k in (1, 2)]
Z, W = np.array([10, 20], np.float32), np.array([2, 3], np.float32)


def test_runs_the_body_on_each_position():
    sums, shapes = interpret(parse_graph(TEXT), [X, Y, Z, W])
    for i in range(2):
        np.testing.assert_array_equal(sums[i], (X[i] + Y[i] + Z) * W)
    assert [s.tolist() for s in shapes] == [[1, 2], [3, 2]]


def test_a_captured_sequence_goes_whole_to_every_run():
    text = """
    graph main(xs: seq(f32[2]), others: seq(f32[2])) {
      y = SequenceMap(xs, others) {n_captures=1}
        body: graph body(x, list) {
          all = ConcatFromSequence(list) {axis=0, new_axis=1}
          s = Add(x, all)
          return s
        }
      return y
    }
    """
    graph = parse_graph(text)
    (y,) = interpret(graph, [Y, [Z, Z, W]])
    for i in range(2):
        np.testing.assert_array_equal(y[i], Y[i] + np.stack([Z, Z, W]))
    (type,) = infer_outputs(graph, [v.type for v in graph.inputs])
    assert type.element.rank == 2


def test_of_nothing_is_nothing():
    assert interpret(parse_graph(TEXT), [[], [], Z, W]) == ([], [])


def test_types():
    graph = parse_graph(TEXT)
    sums, shapes = infer_outputs(graph, [v.type for v in graph.inputs])
    assert sums == SequenceType(TensorType(DType.F32, (symbol("n"), 2)))
    assert shapes == SequenceType(TensorType(DType.I64, (2,)))
    assert shapes.element.known is None


def test_sequences_of_two_lengths_are_refused():
    with pytest.raises(ModelError, match=r"lengths \[1, 2\], expected one length"):
        interpret(parse_graph(TEXT), [X, Y[:1], Z, W])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("xs: seq(f32[n,2])", "xs: f32[n,2]", r"is f32\[n,2\], expected a sequence"),
        ("body(x, y, all, captured)", "body(x, y, all, captured, odd)", "gives its body 4 inputs, the body takes 5"),
    ],
)
def test_what_does_not_fit_is_refused(old, new, message):
    graph = parse_graph(TEXT.replace(old, new, 1))
    with pytest.raises(ModelError, match=message):
        infer_outputs(graph, [v.type for v in graph.inputs])
