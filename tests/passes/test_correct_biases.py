"""show_errors and correct_biases: the mean error of each product by itself, and where it goes."""

import numpy as np
import pytest

from miniinfer_cli.builder.calibration.calibrate import Method, mean_errors, scales_for
from miniinfer_cli.ir import Graph
from miniinfer_cli.ir.quantization import FP8, INT8, KeepFloat
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.choose_quantized import choose_quantized
from miniinfer_cli.passes.precision.correct_biases import correct_biases
from miniinfer_cli.passes.precision.quantize_floats import quantize_floats
from tests.passes.graphs import read_graph

RANDOM = np.random.default_rng(1)
FORMS = {
    "a product without a bias": "y = MatMul(x, w) @first\n  return y",
    "a bias behind a product": "s = MatMul(x, w) @first\n  y = Add(s, b)\n  return y",
    "the bias of a Gemm": "y = Gemm(x, w, b) @first\n  return y",
    "a Gemm without one": "y = Gemm(x, w) @first\n  return y",
    "a result that others read": "s = MatMul(x, w) @first\n  y = Relu(s)\n  return s, y",
}
IMAGES = """graph main(x: f32[n,3,5,5]) {
  w: f32[4,3,3,3] = const large "w"
  v: f32[4,4,1,1] = const large "v"
  b: f32[4] = const [1.0, 2.0, -1.0, 0.5]
  a = Conv(x, w, BIAS) {pads=[1,1,1,1]} @first
  r = Relu(a)
  c = Conv(r, v) @second
  d = Add(c, r) @join
  return d
}"""


def products(form: str) -> Graph:
    weights = 'w: f32[6,5] = const large "w"\n  b: f32[5] = const large "b"'
    return filled(read_graph(f"graph main(x: f32[n,6]) {{\n  {weights}\n  {FORMS[form]}\n}}"))


def filled(graph: Graph) -> Graph:
    for value in graph.values():
        if value.constant is not None and value.name in "wvb" and value.tensor.shape:
            graph.replace_uses(
                value, graph.add_constant(RANDOM.standard_normal(value.tensor.shape).astype(np.float32), value.name)
            )
    return graph


def quantized(graph: Graph, data: list, format=INT8) -> tuple[Graph, Graph]:
    """In 8 bits, as it is and corrected on these samples."""
    chosen = choose_quantized(graph, KeepFloat(), format)
    scales = scales_for(graph, chosen, data, Method("minmax"), None, ())
    errors = mean_errors(graph, chosen, scales, data, ())
    made = []
    for corrected in (False, True):
        copy = graph.copy()
        quantize_floats(copy, choose_quantized(copy, KeepFloat(), format), scales)
        assert not corrected or correct_biases(copy, errors) == len(errors)
        verify(copy)
        made.append(copy)
    return made[0], made[1]


@pytest.mark.parametrize("format", [INT8, FP8])
@pytest.mark.parametrize("form", FORMS)
def test_the_mean_of_each_output_is_that_of_f32(form, format):
    graph, data = products(form), [RANDOM.standard_normal((16, 6)).astype(np.float32) + 1 for _ in range(3)]
    plain, corrected = quantized(graph, [{"x": x} for x in data], format)
    samples = np.concatenate(data)
    exact, rough, found = (interpret(g, [samples])[0] for g in (graph, plain, corrected))
    assert np.abs((rough - exact).mean(axis=0)).max() > 1e-4
    np.testing.assert_allclose(found.mean(axis=0), exact.mean(axis=0), atol=1e-5)
    assert len(corrected.nodes) - len(plain.nodes) == (form in ("a product without a bias", "a result that others read"))


@pytest.mark.parametrize("bias", ["b", ""])
def test_convolutions_are_corrected_by_channel_with_what_is_added_to_them(bias):
    graph = filled(read_graph(IMAGES.replace(", BIAS", f", {bias}" if bias else "")))
    data = [RANDOM.standard_normal((8, 3, 5, 5)).astype(np.float32) + 0.5 for _ in range(2)]
    plain, corrected = quantized(graph, [{"x": x} for x in data])
    samples = np.concatenate(data)
    exact, rough, found = (interpret(g, [samples])[0] for g in (graph, plain, corrected))
    before, after = (np.abs((y - exact).mean(axis=(0, 2, 3))).max() for y in (rough, found))
    assert after < 0.5 * before  # each product by itself: what the second reads is rounded elsewhere by now


def test_a_bias_of_another_shape_is_left_alone():
    text = (
        'graph main(x: f32[n,6]) {\n  w: f32[6,5] = const large "w"\n  b: f32[] = const 1.0\n  y = Gemm(x, w, b)\n  return y\n}'
    )
    graph = filled(read_graph(text))
    data = [{"x": RANDOM.standard_normal((4, 6)).astype(np.float32)}]
    chosen = choose_quantized(graph, KeepFloat())
    errors = mean_errors(graph, chosen, scales_for(graph, chosen, data, Method("minmax"), None, ()), data, ())
    assert correct_biases(graph, errors) == 0
    assert correct_biases(graph, {name: np.zeros(5) for name in errors}) == 0
