"""FlexAttention: graphs given as text, against Attention and against the formula."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ir.text import parse_graph
from miniinfer_cli.ops import infer_outputs
from miniinfer_cli.ops.interpreter import interpret
from tests.ops.checked import FLOATS, array, run

RNG = np.random.default_rng(1)
Q, K, V = RNG.normal(size=(2, 4, 3, 6)), RNG.normal(size=(2, 2, 5, 6)), RNG.normal(size=(2, 2, 5, 7))
BIAS = RNG.normal(size=(3, 5)).astype(np.float32)

PLAIN = """
graph main(q: f32[b,4,s,6], k: f32[b,2,t,6], v: f32[b,2,t,7]) {
  y = ai.onnx.preview.FlexAttention(q, k, v)
  return y
}
"""
MODIFIED = """
graph main(q: f32[2,4,3,6], k: f32[2,2,5,6], v: f32[2,2,5,7], bias: f32[3,5], share: f32[]) {
  y = ai.onnx.preview.FlexAttention(q, k, v, bias, share) {scale=0.25}
    score_mod: graph score(s, b, h) {
      t = Add(s, b)
      return t
    }
    prob_mod: graph prob(p, b, h) {
      t = Mul(p, h)
      return t
    }
  return y
}
"""


def evaluate(text, *inputs):
    (y,) = interpret(parse_graph(text), inputs)
    return y


@pytest.mark.parametrize("dtype", FLOATS)
def test_without_modifiers_it_is_attention(dtype):
    operands = [array(x, dtype) for x in (Q, K, V)]
    result = evaluate(PLAIN, *operands)
    expected = run("Attention", *operands)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result.astype(np.float64), expected.astype(np.float64), rtol=4 * FLOATS[dtype], atol=1e-6)


def test_modifiers_change_scores_and_probabilities():
    operands = [x.astype(np.float32) for x in (Q, K, V)]
    result = evaluate(MODIFIED, *operands, BIAS, np.array(0.5, np.float32))
    expected = 0.5 * run("Attention", *operands, BIAS, scale=0.25)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_modifiers_see_the_softmax_precision():
    text = MODIFIED.replace("f32[", "f16[").replace("scale=0.25", "softmax_precision=1")
    text = text.replace("bias: f16", "bias: f32").replace("share: f16", "share: f32")
    operands = [x.astype(np.float16) for x in (Q, K, V)]
    result = evaluate(text, *operands, BIAS, np.array(1, np.float32))
    expected = run("Attention", *(x.astype(np.float64) for x in operands), BIAS)
    assert result.dtype == np.float16
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)


def test_types():
    graph = parse_graph(PLAIN)
    types = infer_outputs(graph, [v.type for v in graph.inputs])
    assert types == (TensorType(DType.F32, (symbol("b"), 4, symbol("s"), 7)),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("q: f32[2,4,3,6]", "q: f32[2,3,24]", "rank 4"),
        ("t = Add(s, b)", "t = Cast(s) {to=7}", "element types differ"),
        ("return t\n    }\n  return", "return t, p\n    }\n  return", "prob_mod has 2 outputs, expected 1"),
        ("t = Mul(p, h)", "t = ReduceMax(p) {keepdims=0}", r"prob_mod gives f32\[\], expected f32\[2,4,3,5\]"),
    ],
)
def test_what_does_not_fit_is_refused(old, new, message):
    assert old in MODIFIED
    graph = parse_graph(MODIFIED.replace(old, new, 1))
    with pytest.raises(ModelError, match=message):
        infer_outputs(graph, [v.type for v in graph.inputs])
