"""smooth_activations: which values are divided channel by channel, into what, and that nothing but rounding changes."""

import numpy as np
import pytest

from miniinfer_cli.ir.quantization import KeepFloat
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.choose_quantized import choose_quantized
from miniinfer_cli.passes.precision.smooth_activations import smooth_activations, smoothable
from tests.passes.graphs import read_graph

W = "w: f32[4,3] = const [1.0, -2.0, 0.5, 3.0, 0.25, 1.0, -1.0, 2.0, 4.0, 0.5, 0.5, -8.0]"
NORM = "g: f32[4] = const [1.0, 50.0, 0.5, 2.0] b: f32[4] = const [0.1, 3.0, 0.0, -1.0]"
SQUARE = (
    "v: f32[4,4] = const [1.0, 40.0, 0.5, 3.0, 0.25, 90.0, -1.0, 2.0, 4.0, 0.5, 0.5, -8.0, 1.0, 1.0, -30.0, 2.0] c: f32[4] ="
    " const [1.0, 20.0, 0.0, -1.0]"
)
FORMS = {
    "a norm": f"{NORM} a = LayerNormalization(x, g, b)",
    "a norm without a bias": f"{NORM} a = LayerNormalization(x, g)",
    "a norm by the root of squares": f"{NORM} a = RMSNormalization(x, g)",
    "a product": f"{SQUARE} a = MatMul(x, v)",
    "a turned product with a bias": f"{SQUARE} f = Flatten(x) a = Gemm(f, v, c) {{transB=1}}",
    "a product, a bias and a Relu": f"{SQUARE} p = MatMul(x, v) s = Add(p, c) a = Relu(s)",
    "a Mul by rows": "e: f32[4] = const [1.0, 20.0, 0.5, -1.0] t = Tanh(x) a = Mul(t, e)",
    "a gate": f"{SQUARE} s = Sigmoid(x) p = MatMul(x, v) a = Mul(s, p)",
}


def smoothed(body, end="y = MatMul(a, w)", alpha=0.5, result="y"):
    """The graph before and after, what was found, and x."""
    text = f"graph main(x: f32[5,4]) {{ {W} {body} {end} return {result} }}"
    graph, exact = read_graph(text), read_graph(text)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    found = smoothable(graph, choose_quantized(graph, KeepFloat()))
    shown = read_graph(text)
    values = {v.name: v for v in shown.values()}
    names = [one.value.name for one in found]
    shown.set_outputs([values[n] for n in names], names)
    maxima = {n: np.abs(a).max(axis=0) for n, a in zip(names, interpret(shown, [x]), strict=True)}
    assert smooth_activations(graph, found, maxima, alpha) == len(found)
    verify(graph)
    return exact, graph, [n for n in names if n != "x"], x


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_factors_go_into_what_makes_a_value_and_out_of_the_weights(body):
    exact, graph, names, x = smoothed(body)
    assert "a" in names
    np.testing.assert_allclose(interpret(graph, [x])[0], interpret(exact, [x])[0], rtol=2e-5, atol=1e-4)
    assert [n.op for n in graph] == [n.op for n in exact]  # not one step more
    product = graph.outputs[0].producer
    rows = np.abs(product.inputs[1].constant.array()).max(axis=1)
    graph.set_outputs([product.inputs[0]])
    channels = np.abs(interpret(graph, [x])[0]).max(axis=0)
    np.testing.assert_allclose(channels / rows, np.full(4, channels[0] / rows[0]), rtol=1e-3)  # shared out evenly


def test_how_much_of_it_moves():
    spans = []
    for alpha in (0.0, 0.5, 1.0):
        _, graph, _, x = smoothed(FORMS["a norm"], alpha=alpha)
        graph.set_outputs([graph.outputs[0].producer.inputs[0]])
        channels = np.abs(interpret(graph, [x])[0]).max(axis=0)
        spans.append(channels.max() / channels.min())
    assert spans[0] > spans[1] > spans[2] == pytest.approx(1, rel=1e-3)


def test_a_norm_that_others_read_gets_a_mul_and_they_read_what_was():
    exact, graph, names, x = smoothed(
        FORMS["a norm"], "p = MatMul(a, w) q = MatMul(a, w) r = Neg(a) y = Add(p, q)", result="y, r"
    )
    assert names == ["a"]
    for got, want in zip(interpret(graph, [x]), interpret(exact, [x]), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-4)
    assert [n.op for n in graph] == ["LayerNormalization", "Mul", "MatMul", "MatMul", "Neg", "Add"]
    chosen = choose_quantized(graph, KeepFloat())
    assert [v.name for v in chosen.readers] == ["a_smoothed"]


def test_one_weight_of_two_products_is_scaled_for_the_one_alone():
    exact, graph, _, x = smoothed(FORMS["a norm"], "p = MatMul(a, w) q = MatMul(x, w) y = Add(p, q)")
    np.testing.assert_allclose(interpret(graph, [x])[0], interpret(exact, [x])[0], rtol=2e-5, atol=1e-4)


def test_channels_of_nothing_but_zeros_stay():
    body = f"{NORM} z: f32[4] = const [1.0, 0.0, 0.0, 2.0] a = Mul(x, z)"
    exact, graph, names, x = smoothed(body)
    assert names == ["a"]
    (got,) = interpret(graph, [x])
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, interpret(exact, [x])[0], rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("body", "end", "result"),
    {
        "an input": ("a = Identity(x)", "y = MatMul(x, w)", "y"),
        "what is no product": (f"{SQUARE} p = MatMul(x, v) a = Tanh(p)", "y = MatMul(a, w)", "y"),
        "a sum of two results": (f"{SQUARE} p = MatMul(x, v) a = Add(p, x)", "y = MatMul(a, w)", "y"),
        "one number for all": ("o: f32[] = const 2.0 t = Tanh(x) a = Mul(t, o)", "y = MatMul(a, w)", "y"),
        "what leaves the graph": (f"{SQUARE} a = MatMul(x, v)", "y = MatMul(a, w)", "y, a"),
        "what others read": (f"{SQUARE} a = MatMul(x, v)", "p = MatMul(a, w) r = Neg(a) y = MatMul(r, w)", "p, y"),
    }.values(),
)  # fmt: skip
def test_what_is_left_alone(body, end, result):
    _, _, names, _ = smoothed(body, end, result=result)
    assert "a" not in names


def test_a_value_of_nothing_but_zeros_is_not_counted():
    graph = read_graph(f"graph main(x: f32[5,4]) {{ {W} {NORM} a = LayerNormalization(x, g, b) y = MatMul(a, w) return y }}")
    found = smoothable(graph, choose_quantized(graph, KeepFloat()))
    assert smooth_activations(graph, found, {one.value.name: np.zeros(4, np.float32) for one in found}, 0.5) == 0 < len(found)
