"""The join "excitation": which pairs of products it takes, and that they give the same results on the emulated device."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.joins.excitation import KEY
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_launch import Excitation
from miniinfer_cli.builder.building import read_model
from miniinfer_cli.ir import DType, Graph, numpy_dtype
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.passes.pipeline import optimize
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.backends.cuda.harness import checked_kinds
from tests.backends.cuda.performing import perform_program
from tests.graph_text import typed_graph

SQUEEZED = """
graph main(x: f32[3,1,1,40], v: f32[10,1,1,40], b: f32[10], w: f32[24,1,1,10], c: f32[24]) {
  s = miniinfer.ConvNHWC(x, v, b)
  t = Swish(s)
  e = miniinfer.ConvNHWC(t, w, c)
  y = Sigmoid(e)
  return y
}
"""


def fused(text: str = SQUEEZED, *exchanged: tuple[str, str]) -> Graph:
    for old, new in exchanged:
        assert old in text
        text = text.replace(old, new)
    graph = typed_graph(text)
    fuse_conv(graph)
    return graph


def found(graph: Graph, target: Target | None = None) -> list[str]:
    types = infer_graph(graph, [v.type for v in graph.inputs])
    return [join.label for join in joins_of(graph, types, target or Target()) if join.key == KEY]


def check(graph: Graph) -> None:
    """Joined, by the name of the first of the two, with the results of the references."""
    target = Target(policy=Policy(forced={graph.nodes[0].name: "excitation"}))
    rng = np.random.default_rng(1)
    given = [rng.standard_normal(v.tensor.shape).astype(numpy_dtype(v.tensor.dtype)) / 2 for v in graph.inputs]  # type: ignore[arg-type]
    assert checked_kinds(graph, given, target) == ["miniinfer.Excitation"]


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16"])
def test_types(dtype: str) -> None:
    check(fused(SQUEEZED, ("f32", dtype)))


@pytest.mark.parametrize(
    "exchanged",
    [
        (("Swish(s)", "Relu(s)"),),
        (("Swish(s)", "HardSwish(s)"),),
        (("Sigmoid(e)", "HardSigmoid(e)"),),
        (("Sigmoid(e)", "HardSigmoid(e) {alpha=0.16666667, beta=0.25}"),),
        (("x, v, b)", "x, v)"),),
        (("t, w, c)", "t, w)"),),
        (("[3,1,1,40]", "[3,1,40]"), ("[10,1,1,40]", "[10,1,40]"), ("[24,1,1,10]", "[24,1,10]")),
        (("w: f32[24,1,1,10], c: f32[24]", "c: f32[10], w: f32[24,1,1,10]"), ("x, v, b)", "x, v, c)"), ("t, w, c)", "t, w)")),
        (("[24,1,1,10]", "[10,1,1,10]"), ("c: f32[24]", "c: f32[7]"), ("t, w, c)", "t, w, b)")),  # one bias for both
        (("x, v, b)", "x, v, b) {kernel_shape=[1, 1], dilations=[2, 2]}"),),
    ],
)
def test_forms(exchanged: Any) -> None:
    check(fused(SQUEEZED, *exchanged))


@pytest.mark.parametrize(
    "exchanged",
    [
        (("[3,1,1,40]", "[3,2,1,40]"),),  # several pixels
        (("x, v, b)", "x, v, b) {pads=[1, 1, 1, 1], strides=[3, 3]}"),),  # a pixel of the border
        (("[10,1,1,40]", "[10,1,1,20]"), ("x, v, b)", "x, v, b) {group=2}")),
        (("Swish(s)", "Swish(s) {alpha=2.0}"),),
        (("Swish(s)", "Tanh(s)"),),
        (("Sigmoid(e)", "Tanh(e)"),),
        (("  t = Swish(s)\n", "  u = Swish(s)\n  t = Relu(u)\n"),),
        (("return y", "return y, t"),),
        (("return y", "z = Neg(t)\n  return y, z"),),
        (("  return y", "  z = Mul(t, t)\n  q = ReduceSum(z) {keepdims=0}\n  return y, q"),),
        (("[10,1,1,40]", "[0,1,1,40]"), ("b: f32[10]", "b: f32[0]"), ("[24,1,1,10]", "[24,1,1,0]")),
        (("[10,", "[2000,"), ("b: f32[10]", "b: f32[2000]"), ("1,1,10]", "1,1,2000]")),  # a block has no room
        (("x: f32[3", "x: f32[n"),),  # a size that nobody knows
    ],
)
def test_near_misses(exchanged: Any) -> None:
    graph = fused(SQUEEZED, *exchanged)
    assert found(graph) == []


def test_products_that_are_not_fused_with_what_follows_stay() -> None:
    assert found(typed_graph(SQUEEZED)) == []
    assert found(fused()) == ["s + e"]


def test_a_network_is_joined_wherever_it_is_squeezed() -> None:
    graph, _ = read_model(generate("efficientnet_b0", Request(2, small=True), dtype="f16", seed=1))
    optimize(graph)
    labels = found(graph)
    assert len(labels) == sum(n.op == "GlobalAveragePoolNHWC" for n in graph) - 1 == 5
    first = labels[0].split(" + ")
    target = Target(policy=Policy(forced={label.split(" + ")[0]: "excitation" for label in labels}))
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [s.label for s in program.steps if s.kind == "miniinfer.Excitation"] == labels
    assert not {s.label for s in program.steps}.intersection(first)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float16)
    (got,), (want,) = perform_program(program, [x], target), interpret(graph, [x])
    assert np.linalg.norm(got - want.astype(np.float32)) < 1e-2 * np.linalg.norm(want.astype(np.float32))


# Channels, squeezed; at batches 1, 8 and 64 the microseconds of a pair apart and joined, on an H200.
MEASURED = {
    (32, 8): ((5.09, 1.85), (6.45, 1.97), (7.19, 2.20)),
    (240, 10): ((5.55, 1.97), (8.14, 2.07), (8.60, 2.22)),
    (672, 28): ((6.18, 2.61), (9.66, 2.87), (11.30, 3.95)),
    (1152, 48): ((6.78, 3.69), (8.26, 4.74), (8.94, 15.62)),
    (120, 32): ((5.26, 2.27), (7.43, 2.39), (7.73, 2.54)),
    (480, 120): ((5.60, 5.60), (8.47, 5.89), (8.80, 8.51)),
    (672, 168): ((6.19, 8.80), (9.96, 9.01), (10.42, 22.74)),
    (960, 240): ((7.04, 14.71), (10.61, 14.82), (11.02, 60.48)),
}


@pytest.mark.parametrize("sizes", MEASURED)
def test_the_heuristic_takes_what_was_measured_to_gain_a_microsecond(sizes: tuple[int, int]) -> None:
    channels, squeezed = sizes
    for images, (apart_us, joined_us) in zip((1, 8, 64), MEASURED[sizes], strict=True):
        pair = Excitation(DType.F16, images, channels, squeezed, channels)
        (share, *_) = pair.shares(Target())
        if abs(apart_us - joined_us) > 1:
            assert (pair.gain_us(share) > 0) == (joined_us < apart_us), images
