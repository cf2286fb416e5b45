"""Convolutions of one tap by the kernels for sm_90: what is offered and favoured, and the numbers with all that follows."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE
from miniinfer_cli.ir import Graph, TensorType, Value, dtype_of
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.registry import OURS
from miniinfer_cli.passes.fuse_conv import fuse_conv
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.nodes import assert_close, make_graph

F16 = np.float16
TURNS = "by turns"
FILES = {WAY: "product_sm90", LARGE: "large_product", TURNS: "narrow_product"}
"""The kernel of each way."""
KERNELS = [((1, 3, 5), 80, WAY), ((2, 16, 33), 80, LARGE), ((2, 16, 33), 40, TURNS)]
"""Pixels, features, and a way that there is of them."""
Build = Callable[[Graph, Value, Value], Value]


def numbers(*shape: int, dtype: Any = F16) -> Any:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) / 4).astype(dtype)


def offers(x: Any, w: Any, target: Target | None = None, **attrs: Any) -> list[str]:
    b = numbers(len(w), dtype=x.dtype)
    graph = make_graph("ConvNHWC", (x, w, b), domain=OURS, n_outputs=1, constants=(1, 2), body=None, attrs=attrs)
    return [t.key for t in offered(graph, [x], target or Target())]


def ours(keys: list[str]) -> list[str]:
    return [key for key in keys if key.startswith((WAY, LARGE))]


def way_of(key: str) -> str:
    """The kernel of a key."""
    return TURNS if " by turns" in key else key.split(" ", 1)[0]


@pytest.mark.parametrize(("pixels", "features", "way"), KERNELS, ids=["few", "many", "of few features"])
def test_a_bias_is_added_in_the_product(pixels: tuple[int, ...], features: int, way: str) -> None:
    x, w, b = numbers(*pixels, 72), numbers(features, 1, 1, 72), numbers(features)
    key = next(k for k in ours(offers(x, w)) if way_of(k) == way)
    target = Target(policy=Policy(forced={"y0": key}))
    check_op("ConvNHWC", x, w, b, domain=OURS, constants=(1, 2), target=target, by=key, tolerance=4e-3)


WINDOWS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padding": ((1, 5, 6, 64), (64, 3, 3, 64), {"pads": [1, 1, 1, 1]}),
    "steps": ((2, 9, 7, 72), (72, 3, 3, 72), {"pads": [0, 1, 1, 1], "strides": [2, 2]}),
    "a step for one tap": ((2, 9, 8, 64), (64, 1, 1, 64), {"strides": [2, 3]}),
    "spread taps": ((3, 8, 9, 16), (80, 2, 3, 16), {"pads": [0, 2, 2, 1], "dilations": [2, 2], "strides": [1, 2]}),
    "an edge alone": ((1, 2, 9, 136), (64, 5, 2, 136), {"pads": [3, 0, 2, 1]}),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_read_by_a_map(name: str) -> None:
    x_shape, w_shape, attrs = WINDOWS[name]
    x, w, b = numbers(*x_shape), numbers(*w_shape), numbers(w_shape[0])
    found = ours(offers(x, w, **attrs))
    assert len(found) > 2
    for key in (found[0], found[len(found) // 2], found[-1]):
        target = Target(policy=Policy(forced={"y0": key}))
        check_op("ConvNHWC", x, w, b, domain=OURS, constants=(1, 2), target=target, by=key, tolerance=4e-3, **attrs)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32])
def test_windows_of_other_types(dtype: Any) -> None:
    x, w, b = numbers(1, 5, 6, 40, dtype=dtype), numbers(64, 3, 3, 40, dtype=dtype), numbers(64, dtype=dtype)
    attrs = {"pads": [1, 1, 1, 1]}
    key = ours(offers(x, w, **attrs))[0]
    target = Target(policy=Policy(forced={"y0": key}))
    check_op("ConvNHWC", x, w, b, domain=OURS, constants=(1, 2), target=target, by=key, tolerance=3e-2, **attrs)


def test_what_it_is_not_offered_for() -> None:
    x, w = numbers(1, 7, 7, 64), numbers(64, 1, 1, 64)
    assert ours(offers(x, w))
    assert not ours(offers(x, numbers(64, 1, 1, 32), group=2))
    for channels in (60, 12):
        assert not ours(offers(numbers(1, 7, 7, channels), numbers(64, 3, 3, channels)))
    assert not [key for key in offers(numbers(1, 32, 33, 64), numbers(64, 3, 3, 64)) if key.startswith(LARGE)]
    for arch in (80, 100):
        assert not ours(offers(x, w, Target(arch=arch)))


@pytest.mark.parametrize(("side", "channels", "first"), [(7, 64, True), (56, 64, True), (57, 64, False), (7, 56, False)])
def test_few_pixels_of_many_channels_are_the_heuristic_s(side: int, channels: int, *, first: bool) -> None:
    assert offers(numbers(1, side, side, channels), numbers(64, 1, 1, channels))[0].startswith(WAY) == first


def test_images_whose_products_are_many_are_left_to_the_libraries() -> None:
    weights = np.broadcast_to(F16(0), (512, 3, 3, 512))
    for images, first in ((8, True), (9, False)):
        found = offers(np.broadcast_to(F16(0), (images, 7, 7, 512)), weights, pads=[1, 1, 1, 1])
        assert found[0].startswith(WAY) == first and ours(found)


MANY: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], tuple[Any, ...]]] = {
    "one tap": ((64, 56, 56, 64), (256, 1, 1, 64), {}, (F16,)),
    "windows": ((64, 28, 28, 128), (128, 3, 3, 128), {"pads": [1, 1, 1, 1]}, ()),
    "windows of few features": ((64, 56, 56, 64), (64, 3, 3, 64), {"pads": [1, 1, 1, 1]}, (F16,)),
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("dtype", [F16, np.float32])
def test_many_pixels_are_the_heuristic_s_where_they_take_less_time(name: str, dtype: Any) -> None:
    x_shape, w_shape, attrs, types = MANY[name]
    given = np.broadcast_to(dtype(0), x_shape), np.broadcast_to(dtype(0), w_shape)
    found = offers(*given, **attrs)
    assert found[0].startswith(LARGE) == (dtype in types) and [key for key in found if key.startswith(LARGE)]
    assert not offers(*given, Target(arch=80), **attrs)[0].startswith(LARGE)
    if dtype is np.float32:
        assert not ours(offers(*given, Target(tf32=False), **attrs))


@pytest.mark.parametrize("follows", ["relu", "swish"])
def test_an_activation_that_no_library_has_counts(follows: str) -> None:
    """Of 96 features of 16 channels: the product takes a little less than the library and what the activation costs elsewhere."""
    arrays = [np.broadcast_to(F16(0), shape) for shape in ((64, 112, 112, 16), (64, 112, 112, 96))]
    graph = Graph("g")
    x, z = (graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays))
    w, b = (graph.add_constant(a, f"w{i}") for i, a in enumerate((numbers(96, 1, 1, 16), numbers(96))))
    graph.set_outputs([FOLLOWING[follows](graph, graph.add("ConvNHWC", x, w, b, domain=OURS), z)])
    annotate(graph)
    fuse_conv(graph)
    program = make_program(graph, [v.type for v in graph.inputs], Target(supports=lambda problem: True))
    assert ([kernel.name for kernel in program.kernels] == ["narrow_product"]) == (follows == "swish")


def test_of_f32_where_tf32_is_allowed() -> None:
    x, w = numbers(1, 7, 7, 64, dtype=np.float32), numbers(64, 3, 3, 64, dtype=np.float32)
    assert offers(x, w)[0].startswith(WAY)
    assert not ours(offers(x, w, Target(tf32=False)))
    many = [np.broadcast_to(np.float32(0), shape) for shape in ((2, 7, 7, 512), (512, 3, 3, 512))]
    found = offers(*many, pads=[1, 1, 1, 1])
    assert not found[0].startswith(WAY) and ours(found)


FOLLOWING: dict[str, Build] = {
    "relu": lambda g, y, z: g.add("Relu", y),
    "relu6": lambda g, y, z: g.add("Clip", y, *(g.add_constant(np.array(n, F16)) for n in (0, 6))),
    "residual": lambda g, y, z: g.add("Relu", g.add("Add", y, z)),
    "swish": lambda g, y, z: g.add("Swish", y),
    "residual in the end": lambda g, y, z: g.add("Add", g.add("HardSwish", y), z),
}


@pytest.mark.parametrize("name", FOLLOWING)
@pytest.mark.parametrize(("pixels", "features", "way"), KERNELS, ids=["few", "many", "of few features"])
def test_what_follows_is_done_in_the_product(pixels: tuple[int, ...], features: int, way: str, name: str) -> None:
    arrays = [numbers(*pixels, 72), numbers(*pixels, features)]
    graph = Graph("g")
    x, z = (graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays))
    w, b = (graph.add_constant(a, f"w{i}") for i, a in enumerate((numbers(features, 1, 1, 72), numbers(features))))
    graph.set_outputs([FOLLOWING[name](graph, graph.add("ConvNHWC", x, w, b, domain=OURS), z)])
    annotate(graph)
    assert fuse_conv(graph) == 1
    (node,) = graph
    whole = [
        t.key for t in offered(graph, arrays, Target()) if t.claims == len(node.body or ()) and t.key.startswith((WAY, LARGE))
    ]
    assert len(whole) == len(set(whole))
    key = next(key for key in whole if way_of(key) == way and " parts" not in key)
    target = Target(policy=Policy(forced={node.name: key}))
    (got,) = run_graph(graph, arrays, target)
    (want,) = interpret(graph, arrays)
    assert_close(got, want, 4e-3)
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [kernel.name for kernel in program.kernels] == [FILES[way]]


def test_what_follows_a_product_in_parts() -> None:
    arrays = [numbers(1, 5, 6, 64), numbers(1, 5, 6, 64)]
    graph = Graph("g")
    x, z = (graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays))
    w, b = (graph.add_constant(a, f"w{i}") for i, a in enumerate((numbers(64, 3, 3, 64), numbers(64))))
    y = graph.add("ConvNHWC", x, w, b, domain=OURS, pads=[1, 1, 1, 1])
    graph.set_outputs([FOLLOWING["residual"](graph, y, z)])
    annotate(graph)
    assert fuse_conv(graph) == 1
    (node,) = graph
    key = next(t.key for t in offered(graph, arrays, Target()) if t.key.startswith(WAY) and t.key.endswith(" parts"))
    target = Target(policy=Policy(forced={node.name: key}))
    (got,), (want,) = run_graph(graph, arrays, target), interpret(graph, arrays)
    assert_close(got, want, 4e-3)
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [(step.tactic, [k.name for k in program.kernels]) for step in program.steps] == [(key, [FILES[WAY]])]
