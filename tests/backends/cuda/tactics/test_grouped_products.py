"""Convolutions of several groups by the kernel for few features on sm_90: what is offered and favoured, and the numbers."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.convolution.grouped_products import GROUPS
from miniinfer_cli.ir import Graph, TensorType, dtype_of
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.registry import OURS
from miniinfer_cli.passes.fuse_conv import fuse_conv
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.cuda.tactics.test_pixel_products import F16, FOLLOWING, numbers, offers
from tests.backends.nodes import assert_close

PADDED = {"pads": [1, 1, 1, 1]}
# Image, weights, groups, attributes, and how many groups a block has.
GROUPED: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, dict[str, Any], int]] = {
    "a group to a block": ((2, 9, 8, 96), (96, 3, 3, 48), 2, PADDED, 1),
    "two on a diagonal": ((1, 9, 7, 96), (96, 3, 3, 24), 4, {**PADDED, "strides": [2, 2]}, 2),
    "eight on a diagonal": ((1, 6, 7, 64), (128, 3, 3, 4), 16, PADDED, 8),
    "all on one diagonal": ((2, 9, 8, 48), (48, 3, 2, 8), 6, {"pads": [1, 0, 1, 1], "dilations": [1, 2]}, 6),
    "a number of groups with no divisor": ((1, 6, 5, 56), (56, 3, 3, 8), 7, PADDED, 7),
    "too many groups with no divisor": ((1, 5, 5, 88), (88, 3, 3, 8), 11, PADDED, 1),
    "more than a chunk": ((1, 6, 7, 240), (208, 3, 3, 120), 2, PADDED, 1),
    "one tap": ((2, 5, 6, 128), (192, 1, 1, 16), 8, {}, 2),
}


def of_groups(keys: list[str]) -> list[str]:
    return [key for key in keys if key.startswith(GROUPS)]


@pytest.mark.parametrize("name", GROUPED)
def test_groups_lie_on_the_diagonals_of_blocks(name: str) -> None:
    x_shape, w_shape, group, attrs, together = GROUPED[name]
    x, w, b = numbers(*x_shape), numbers(*w_shape), numbers(w_shape[0])
    found = of_groups(offers(x, w, group=group, **attrs))
    assert found and all((f"{together} together" in key) == (together > 1) for key in found)
    for key in found:
        target = Target(policy=Policy(forced={"y0": key}))
        given = {"domain": OURS, "constants": (1, 2), "target": target, "by": key, "tolerance": 4e-3}
        check_op("ConvNHWC", x, w, b, group=group, **given, **attrs)


def test_bf16() -> None:
    x, w, b = (numbers(*shape, dtype=ml_dtypes.bfloat16) for shape in ((1, 6, 7, 96), (96, 3, 3, 24), (96,)))
    key = of_groups(offers(x, w, group=4, **PADDED))[0]
    target = Target(policy=Policy(forced={"y0": key}))
    check_op("ConvNHWC", x, w, b, domain=OURS, constants=(1, 2), target=target, by=key, tolerance=3e-2, group=4, **PADDED)


@pytest.mark.parametrize("name", FOLLOWING)
@pytest.mark.parametrize(("group", "width"), [(2, 48), (4, 8)], ids=["a group to a block", "all on one diagonal"])
def test_what_follows_is_done_in_the_product(group: int, width: int, name: str) -> None:
    channels = group * width
    arrays = [numbers(2, 6, 7, channels), numbers(2, 6, 7, channels)]
    graph = Graph("g")
    x, z = (graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays))
    w, b = (graph.add_constant(a, f"w{i}") for i, a in enumerate((numbers(channels, 3, 3, width), numbers(channels))))
    y = graph.add("ConvNHWC", x, w, b, domain=OURS, group=group, **PADDED)
    graph.set_outputs([FOLLOWING[name](graph, y, z)])
    annotate(graph)
    assert fuse_conv(graph) == 1
    (node,) = graph
    whole = [t.key for t in offered(graph, arrays, Target()) if t.claims == len(node.body or ())]
    assert len(whole) == len(set(whole)) and whole[0].startswith(GROUPS)
    (got,) = run_graph(graph, arrays, Target())
    (want,) = interpret(graph, arrays)
    assert_close(got, want, 4e-3)
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert [kernel.name for kernel in program.kernels] == ["narrow_product"]


def test_what_a_group_reads_is_its_own() -> None:
    """What is not finite in one group's channels is seen in none of the others', where each has a block."""
    x, w, b = numbers(1, 6, 7, 144), numbers(144, 3, 3, 48), numbers(144)
    x[..., 48:96] = np.nan
    graph = Graph("g")
    given = graph.add_input("x", TensorType(dtype_of(x), x.shape))
    weights = [graph.add_constant(a, n) for a, n in ((w, "w"), (b, "b"))]
    graph.set_outputs([graph.add("ConvNHWC", given, *weights, domain=OURS, group=3, **PADDED)])
    annotate(graph)
    (got,) = run_graph(graph, [x], Target())
    assert np.isnan(got[..., 48:96]).all() and np.isfinite(got[..., :48]).all() and np.isfinite(got[..., 96:]).all()
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert [kernel.name for kernel in program.kernels] == ["narrow_product"]


def test_what_it_is_not_offered_for() -> None:
    x, w = numbers(1, 9, 9, 64), numbers(64, 3, 3, 32)
    assert of_groups(offers(x, w, group=2))
    for arch in (80, 100):
        assert not of_groups(offers(x, w, Target(arch=arch), group=2))
    assert not of_groups(offers(*(a.astype(np.float32) for a in (x, w)), group=2))
    assert not of_groups(offers(x, numbers(64, 3, 3, 64)))
    assert not of_groups(offers(x, numbers(64, 3, 3, 1), group=64))
    assert not of_groups(offers(x, numbers(96, 3, 3, 2), group=32))
    assert not of_groups(offers(numbers(1, 9, 9, 60), numbers(60, 3, 3, 12), group=5))
    assert not of_groups(offers(numbers(1, 50, 50, 128), numbers(128, 3, 3, 32), group=4, dilations=[16, 16]))
    assert not of_groups(offers(numbers(1, 40, 40, 128), numbers(128, 1, 1, 32), group=4, pads=[17, 0, 0, 0]))
    assert not of_groups(offers(numbers(1, 9, 9, 512), numbers(512, 3, 3, 256), group=2))
    assert not of_groups(offers(numbers(1, 9, 9, 9, 64), numbers(64, 3, 3, 3, 32), group=2))


def test_weights_that_are_computed_are_left_to_others() -> None:
    x, w = numbers(1, 9, 9, 64), numbers(64, 3, 3, 32)
    graph = Graph("g")
    given = [graph.add_input(n, TensorType(dtype_of(a), a.shape)) for n, a in (("x", x), ("w", w))]
    graph.set_outputs([graph.add("ConvNHWC", *given, domain=OURS, group=2)])
    annotate(graph)
    assert not of_groups([t.key for t in offered(graph, [x, w], Target())])


@pytest.mark.parametrize(("images", "tokens"), [(1, 64), (64, 128)])
def test_they_are_the_heuristic_s_on_sm_90(images: int, tokens: int) -> None:
    x, w = (np.broadcast_to(F16(0), shape) for shape in ((images, 14, 14, 432), (432, 3, 3, 48)))
    assert offers(x, w, group=9, **PADDED)[0].startswith(f"{GROUPS} {tokens}x64")
