"""The join "squeeze_excitation": which images it takes, and that it gives the same results on the emulated device."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.joins.squeeze_excitation import KEY
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.builder.building import read_model
from miniinfer_cli.ir import Graph, numpy_dtype
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
graph main(x: f16[3,4,5,40], v: f16[10,1,1,40], b: f16[10], w: f16[40,1,1,10], c: f16[40]) {
  p = miniinfer.GlobalAveragePoolNHWC(x)
  s = miniinfer.ConvNHWC(p, v, b)
  t = Swish(s)
  e = miniinfer.ConvNHWC(t, w, c)
  g = Sigmoid(e)
  y = Mul(x, g)
  return y
}
"""


def fused(text: str = SQUEEZED, *exchanged: tuple[str, str], constant: bool = True) -> Graph:
    """The graph, with all but its image as constants."""
    for old, new in exchanged:
        assert old in text
        text = text.replace(old, new)
    graph = typed_graph(text)
    rng = np.random.default_rng(2)
    for value in graph.inputs[1:] if constant else ():
        shape = [int(n) for n in value.tensor.shape or ()]
        array = rng.standard_normal(shape).astype(numpy_dtype(value.tensor.dtype))
        graph.replace_uses(value, graph.add_constant(array, f"{value.name}_constant"))
    fuse_conv(graph)
    return graph


def found(graph: Graph, target: Target | None = None) -> list[str]:
    types = infer_graph(graph, [v.type for v in graph.inputs])
    return [join.label for join in joins_of(graph, types, target or Target()) if join.key == KEY]


def check(graph: Graph) -> None:
    """Joined, by the name of the first of them, with the results of the references."""
    target = Target(policy=Policy(forced={graph.nodes[0].name: KEY}))
    rng = np.random.default_rng(1)
    given = [rng.standard_normal(v.tensor.shape).astype(numpy_dtype(v.tensor.dtype)) / 2 for v in graph.inputs]  # type: ignore[arg-type]
    assert checked_kinds(graph, given, target) == ["miniinfer.SqueezeExcitation"]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_types(dtype: str) -> None:
    check(fused(SQUEEZED, ("f16", dtype)))


@pytest.mark.parametrize(
    "exchanged",
    [
        (("Swish(s)", "Relu(s)"),),
        (("Swish(s)", "HardSwish(s)"),),
        (("Sigmoid(e)", "HardSigmoid(e)"),),
        (("Sigmoid(e)", "HardSigmoid(e) {alpha=0.16666667, beta=0.25}"),),
        (("p, v, b)", "p, v)"),),
        (("t, w, c)", "t, w)"),),
        (("Mul(x, g)", "Mul(g, x)"),),
        (("[3,4,5,40]", "[3,9,40]"), ("[10,1,1,40]", "[10,1,40]"), ("[40,1,1,10]", "[40,1,10]")),
    ],
)
def test_forms(exchanged: Any) -> None:
    check(fused(SQUEEZED, *exchanged))


@pytest.mark.parametrize(
    "exchanged",
    [
        (("Swish(s)", "Tanh(s)"),),
        (("Sigmoid(e)", "Tanh(e)"),),
        (("Mul(x, g)", "Add(x, g)"),),
        (("Mul(x, g)", "Mul(g, g)"),),
        (("  y = Mul(x, g)", "  n = Neg(x)\n  y = Mul(n, g)"),),
        (("return y", "return y, g"),),
        (("return y", "return y, p"),),
        (("  return y", "  z = Neg(t)\n  return y, z"),),
        (
            ("x: f16[3,4,5,40]", "x: f16[3,4,5,20]"),
            ("10,1,1,40]", "10,1,1,20]"),
            ("[40,1,1,10], c: f16[40]", "[20,1,1,10], c: f16[20]"),
        ),
        (("x: f16[3,4,5,40]", "x: f16[3,400,500,40]"),),  # a block has no room
        (("x: f16[3", "x: f16[n"),),  # a size that nobody knows
    ],
)
def test_near_misses(exchanged: Any) -> None:
    assert found(fused(SQUEEZED, *exchanged)) == []


def test_weights_that_are_computed_are_left_to_others() -> None:
    assert found(fused(constant=False)) == [] and len(found(fused())) == 1


def test_many_images_keep_the_products_joined_alone() -> None:
    few, graph = fused(), fused(SQUEEZED, ("x: f16[3", "x: f16[17"))
    assert [s.kind for s in make_program(few, [v.type for v in few.inputs], Target()).steps] == ["miniinfer.SqueezeExcitation"]
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert [step.kind for step in program.steps] == ["miniinfer.GlobalAveragePoolNHWC", "miniinfer.Excitation", "Mul"]
    types = infer_graph(graph, [v.type for v in graph.inputs])
    (join,) = (join for join in joins_of(graph, types, Target()) if join.key == KEY)
    assert not join.needs(Target()) and join.needs(Target(arch=80))


def test_a_network_is_joined_wherever_it_is_squeezed() -> None:
    graph, _ = read_model(generate("efficientnet_b0", Request(2, small=True), dtype="f16", seed=1))
    optimize(graph)
    labels = found(graph)
    assert len(labels) == sum(n.op == "GlobalAveragePoolNHWC" for n in graph) - 1 == 5
    target = Target(policy=Policy(forced={label.split(" + ")[0]: KEY for label in labels}))
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [s.label for s in program.steps if s.kind == "miniinfer.SqueezeExcitation"] == labels
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float16)
    (got,), (want,) = perform_program(program, [x], target), interpret(graph, [x])
    assert np.linalg.norm(got - want.astype(np.float32)) < 1e-2 * np.linalg.norm(want.astype(np.float32))
