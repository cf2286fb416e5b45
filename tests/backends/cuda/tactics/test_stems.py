"""Convolutions of few channels in steps of two over an image of pairs of rows: what is offered and favoured, and the numbers."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.convolution.stems import WAY
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.registry import OURS
from miniinfer_cli.passes.fuse_conv import fuse_conv
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.cuda.tactics.test_pixel_products import F16, FOLLOWING, numbers, offers
from tests.backends.nodes import assert_close

STEMS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "seven by seven": ((1, 65, 66, 3), (24, 7, 7, 3), {"pads": [3, 3, 3, 3]}),
    "three by three, an edge alone": ((2, 47, 51, 3), (16, 3, 3, 3), {"pads": [0, 1, 1, 0]}),
    "no padding, one channel": ((3, 42, 44, 1), (8, 5, 8, 1), {}),
    "four channels": ((1, 70, 68, 4), (72, 2, 1, 4), {"pads": [1, 2, 0, 0]}),
}


def stems(keys: list[str]) -> list[str]:
    return [key for key in keys if key.startswith(WAY)]


@pytest.mark.parametrize("name", STEMS)
def test_windows_are_pieces_of_pairs_of_rows(name: str) -> None:
    x_shape, w_shape, attrs = STEMS[name]
    x, w, b = numbers(*x_shape), numbers(*w_shape), numbers(w_shape[0])
    key = stems(offers(x, w, strides=[2, 2], **attrs))[0]
    target = Target(policy=Policy(forced={"y0": key}))
    given = {"domain": OURS, "constants": (1, 2), "target": target, "by": key, "tolerance": 4e-3}
    check_op("ConvNHWC", x, w, b, strides=[2, 2], **given, **attrs)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32])
def test_other_types(dtype: Any) -> None:
    x_shape, w_shape, attrs = STEMS["seven by seven"]
    x, w, b = (numbers(*shape, dtype=dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    key = stems(offers(x, w, strides=[2, 2], **attrs))[0]
    target = Target(policy=Policy(forced={"y0": key}))
    check_op("ConvNHWC", x, w, b, domain=OURS, constants=(1, 2), target=target, by=key, tolerance=3e-2, strides=[2, 2], **attrs)


@pytest.mark.parametrize("follows", ["relu", "swish"])
def test_an_image_with_the_channels_first_is_read_as_it_lies(follows: str) -> None:
    """The copy takes the place of the transposition, and all that follows is done in the product."""
    graph = Graph("g")
    image = numbers(64, 3, 32, 32)
    x = graph.add_input("x", TensorType(dtype_of(image), image.shape))
    w, b = (graph.add_constant(a, f"w{i}") for i, a in enumerate((numbers(64, 7, 7, 3), numbers(64))))
    last = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    y = graph.add("ConvNHWC", last, w, b, domain=OURS, strides=[2, 2], pads=[3, 3, 3, 3])
    graph.set_outputs([graph.add("Relu" if follows == "relu" else "Swish", y)])
    annotate(graph)
    assert fuse_conv(graph) == 1
    (got,) = run_graph(graph, [image], Target())
    (want,) = interpret(graph, [image])
    assert_close(got, want, 4e-3)
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert [kernel.name for kernel in program.kernels] == ["paired_rows", "narrow_product"]


def test_what_it_is_not_offered_for() -> None:
    x, w = numbers(1, 72, 72, 3), numbers(64, 7, 7, 3)
    assert stems(offers(x, w, strides=[2, 2]))
    assert not stems(offers(x, w)) and not stems(offers(x, w, strides=[2, 1])) and not stems(offers(x, w, strides=[4, 4]))
    assert not stems(offers(x, w, strides=[2, 2], dilations=[2, 2]))
    assert not stems(offers(numbers(1, 72, 72, 5), numbers(64, 7, 7, 5), strides=[2, 2]))
    assert not stems(offers(x, numbers(64, 3, 9, 3), strides=[2, 2]))
    assert not stems(offers(numbers(1, 60, 60, 3), w, strides=[2, 2]))
    assert not stems(offers(x, w, Target(arch=80), strides=[2, 2]))
    f32 = [a.astype(np.float32) for a in (x, w)]
    assert stems(offers(*f32, strides=[2, 2])) and not stems(offers(*f32, Target(tf32=False), strides=[2, 2]))


@pytest.mark.parametrize(("images", "first"), [(64, True), (1, False)])
@pytest.mark.parametrize("dtype", [F16, np.float32])
def test_many_images_are_the_heuristic_s(dtype: Any, images: int, *, first: bool) -> None:
    x, w = (np.broadcast_to(dtype(0), shape) for shape in ((images, 224, 224, 3), (64, 7, 7, 3)))
    found = offers(x, w, strides=[2, 2], pads=[3, 3, 3, 3])
    assert found[0].startswith(WAY) == first and stems(found)
    assert not offers(x, w, Target(arch=100), strides=[2, 2], pads=[3, 3, 3, 3])[0].startswith(WAY)


@pytest.mark.parametrize("turned", [False, True])
def test_few_features_are_the_heuristic_s_where_the_image_would_be_turned_first(*, turned: bool) -> None:
    """MobileNetV2's stem: the library takes as long for an image as it lies."""
    graph = Graph("g")
    shape = (64, 3, 224, 224) if turned else (64, 224, 224, 3)
    x = graph.add_input("x", TensorType(DType.F16, shape))
    last = graph.add("Transpose", x, perm=[0, 2, 3, 1]) if turned else x
    w, b = (graph.add_constant(a, f"w{i}") for i, a in enumerate((numbers(32, 3, 3, 3), numbers(32))))
    y = graph.add("ConvNHWC", last, w, b, domain=OURS, strides=[2, 2], pads=[1, 1, 1, 1])
    graph.set_outputs([FOLLOWING["relu6"](graph, y, y)])
    annotate(graph)
    assert fuse_conv(graph) == 1
    program = make_program(graph, [v.type for v in graph.inputs], Target(supports=lambda problem: True))
    assert ([kernel.name for kernel in program.kernels] == ["paired_rows", "narrow_product"]) == turned


def test_weights_that_are_computed_are_left_to_others() -> None:
    x, w = numbers(1, 66, 66, 3), numbers(64, 7, 7, 3)
    graph = Graph("g")
    given = [graph.add_input(n, TensorType(dtype_of(a), a.shape)) for n, a in (("x", x), ("w", w))]
    graph.set_outputs([graph.add("ConvNHWC", *given, domain=OURS, strides=[2, 2])])
    annotate(graph)
    assert not stems([t.key for t in offered(graph, [x, w], Target())])
