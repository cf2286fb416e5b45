"""The join "activated_depthwise": which activations go into the depthwise convolution behind them, with the same results."""

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.joins.activated_depthwise import KEY
from miniinfer_cli.ir import Graph, numpy_dtype
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.passes.fuse_conv import fuse_conv
from tests.backends.cuda.harness import checked_kinds
from tests.graph_text import typed_graph

EXPANDED = """
graph main(x: f32[2,7,9,8], v: f32[24,1,1,8], b: f32[24], w: f32[24,3,3,1], c: f32[24]) {
  l: f32[] = const 0
  h: f32[] = const 6
  e = miniinfer.ConvNHWC(x, v, b)
  t = Clip(e, l, h)
  d = miniinfer.ConvNHWC(t, w, c) {group=24, pads=[1,1,1,1]}
  y = Clip(d, l, h)
  return y
}
"""


def fused(*exchanged: tuple[str, str]) -> Graph:
    text = EXPANDED
    for old, new in exchanged:
        assert old in text
        text = text.replace(old, new)
    graph = typed_graph(text)
    fuse_conv(graph)
    return graph


def found(graph: Graph, target: Target | None = None) -> list[tuple[str, bool]]:
    """The joins by their labels, and whether they are to save time."""
    types = infer_graph(graph, [v.type for v in graph.inputs])
    return [(join.label, join.gain_us > 0) for join in joins_of(graph, types, target or Target()) if join.key == KEY]


def check(graph: Graph, kinds: list[str] | None = None) -> None:
    target = Target(policy=Policy(forced={graph.nodes[0].name: KEY}))
    rng = np.random.default_rng(1)
    given = [(3 * rng.standard_normal(v.tensor.shape)).astype(numpy_dtype(v.tensor.dtype)) for v in graph.inputs]  # type: ignore[arg-type]
    tolerance = 2e-2 if given[0].dtype != np.float32 else 2e-5
    assert checked_kinds(graph, given, target, tolerance) == (kinds or ["miniinfer.ConvNHWC", "miniinfer.FusedConv"])


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_types(dtype: str) -> None:
    check(fused(("f32", dtype)))


VARIED: dict[str, tuple[tuple[str, str], ...]] = {
    "swish": (("Clip(e, l, h)", "Swish(e)"), ("Clip(d, l, h)", "Swish(d)")),
    "an activation that is not zero at zero": (("Clip(e, l, h)", "Sigmoid(e)"),),
    "no activation behind": (("  y = Clip(d, l, h)\n  return y", "  return d"),),
    "steps": (("pads=[1,1,1,1]", "pads=[0,1,1,1], strides=[2,2]"),),
    "spread": (("pads=[1,1,1,1]", "pads=[2,2,2,2], dilations=[2,2]"),),
    "a wide kernel": (("[24,3,3,1]", "[24,5,5,1]"), ("pads=[1,1,1,1]", "pads=[2,2,2,2]")),
    "a kernel that nobody holds": (("[24,3,3,1]", "[24,2,2,1]"), ("pads=[1,1,1,1]", "pads=[1,0,0,1]")),
    "one axis": (
        ("[2,7,9,8]", "[2,19,8]"), ("[24,1,1,8]", "[24,1,8]"), ("[24,3,3,1]", "[24,3,1]"), ("pads=[1,1,1,1]", "pads=[1,1]"),
    ),
    "no biases": (("(x, v, b)", "(x, v)"), ("(t, w, c)", "(t, w)")),
    "odd channels": (("24", "21"),),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIED)
def test_forms(name: str) -> None:
    check(fused(*VARIED[name]))


LEFT: dict[str, tuple[tuple[str, str], ...]] = {
    "an activation that the library has": (("Clip(e, l, h)", "Relu(e)"),),
    "a convolution that is not depthwise": (("{group=24, ", "{group=12, "), ("[24,3,3,1]", "[24,3,3,2]")),
    "a result that others read": (("return y", "return y, t"),),
    "a clip at other limits": (("const 6", "const 5"),),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_apart(name: str) -> None:
    assert found(fused())
    assert not found(fused(*LEFT[name]))


def test_what_takes_longer_than_a_pass_is_left_to_who_forces_it() -> None:
    slow = fused(("Clip(e, l, h)", "Swish(e)"))
    assert found(slow) == [(found(slow)[0][0], False)]
    halves = fused(("f32", "f16"), ("Clip(e, l, h)", "Swish(e)"))
    assert found(halves) == [(found(halves)[0][0], True)]
    assert found(fused()) == [(found(fused())[0][0], True)]


def test_few_pixels_whose_activation_a_product_does_are_left_to_it() -> None:
    few = fused(("f32", "f16"), ("[2,7,9,8]", "[1,7,9,64]"), ("[24,1,1,8]", "[64,1,1,64]"), ("24", "64"))
    assert found(few) == [(found(few)[0][0], False)]
    assert found(few, Target(arch=80)) == [(found(few)[0][0], True)]
