"""FusedConv: claims of the body by the library and by our kernels, and what is left."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Estimate, Policy
from miniinfer_cli.backends.cuda.choice.deciding import lower as decide
from miniinfer_cli.backends.cuda.contract.problems import ConvolutionProblem, MatmulProblem
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Rewrite
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value, dtype_of
from miniinfer_cli.ops.inference import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_conv import fuse_conv
from tests.backends.cuda.harness import run_graph
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics.every_tactic import check_graph, offered
from tests.backends.cuda.tactics.test_convolution import DEPTHWISE, normal
from tests.backends.nodes import assert_close

Build = Callable[[Graph, Value], Value]


def region(inputs: list[Array], build: Build, op: str = "ConvNHWC", bias: bool = True, **attrs: Any) -> Graph:
    """A graph with one region: ``op`` of the first inputs, and what ``build`` puts behind it; the rest are its operands."""
    graph = Graph("g")
    values = [graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(inputs)]
    domain = "miniinfer" if op.endswith("NHWC") else ""
    y = graph.add(op, *values[: 3 if bias else 2], domain=domain, **attrs)
    graph.set_outputs([build(graph, y)])
    annotate(graph)
    assert fuse_conv(graph) == 1
    return graph


def number(graph: Graph, value: float) -> Value:
    return graph.add_constant(np.array(value, np.float32))


def lower(graph: Graph, target: Target) -> Lowered | Rewrite | None:
    (node,) = graph
    kinds = tuple(v.type for v in node.inputs if v is not None)
    decided = decide(Site(node, kinds, tuple(v.type for v in node.outputs), (None,) * len(kinds), target))
    return None if decided is None else decided.work


def operations(lowered: Lowered | Rewrite | None) -> list[list[str]]:
    """The nodes that a rewrite gives, a region as its body's operations."""
    assert isinstance(lowered, Rewrite)
    return [_operations(n) for n in lowered.graph]


def _operations(node: Node) -> list[str]:
    return [node.op] if node.body is None else [n.op for n in node.body]


def check(graph: Graph, inputs: list[Array], target: Target | None = None, tolerance: float = 2e-5, instead: Any = None) -> None:
    got = run_graph(graph, inputs, target or Target(), instead=instead)
    with np.errstate(all="ignore"):
        want = interpret(graph, inputs)
    assert_close(got[0], want[0], tolerance)


X, W, B, Z = normal(2, 6, 7, 8), normal(20, 3, 3, 8), normal(20), normal(2, 4, 5, 20)
ACTIVATIONS: dict[str, Build] = {
    "relu": lambda g, y: g.add("Relu", y),
    "sigmoid": lambda g, y: g.add("Sigmoid", y),
    "tanh": lambda g, y: g.add("Tanh", y),
    "swish": lambda g, y: g.add("Swish", y),
    "gelu": lambda g, y: g.add("Gelu", y),
    "gelu_tanh": lambda g, y: g.add("Gelu", y, approximate="tanh"),
    "elu": lambda g, y: g.add("Elu", y),
    "relu6": lambda g, y: g.add("Clip", y, number(g, 0), number(g, 6)),
}
APART = ["miniinfer.ConvNHWC", "miniinfer.FusedPointwise"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    library = Library()
    graph = region([X, W, B], ACTIVATIONS[name])
    check(graph, [X, W, B], library.target(), instead=None if name == "relu" else APART)
    (problem,) = set(library.accepted)
    assert isinstance(problem, ConvolutionProblem)
    # The others would be compiled for each shape, or done by an engine of last resort: they follow as a kernel of ours.
    assert (problem.activation, problem.bias, problem.residual) == ("relu" if name == "relu" else "", True, False)
    check(graph, [X, W, B])


def test_our_kernels_know_hard_swish_and_libraries_do_not() -> None:
    graph = region([X, W, B], lambda g, y: g.add("HardSwish", y))
    check(graph, [X, W, B])
    library = Library()
    assert operations(lower(graph, library.target())) == [["ConvNHWC"], ["HardSwish"]]
    assert {p.activation for p in library.asked} == {""}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("swapped", [False, True])
def test_residual_and_activation(dtype: Any, swapped: bool) -> None:
    arrays = [a.astype(dtype) for a in (X, W, B, Z)]
    graph = region(arrays, lambda g, y: g.add("Relu", g.add("Add", *((g.inputs[3], y) if swapped else (y, g.inputs[3])))))
    library = Library()
    limit = 4e-3 if dtype == np.float16 else 2e-5
    check(graph, arrays, library.target(), limit)
    assert library.accepted[0].residual
    check(graph, arrays, tolerance=limit)


def test_a_row_added_behind_the_convolution_is_its_bias() -> None:
    row = normal(1, 1, 1, 20)
    graph = region([X, W, row, Z], lambda g, y: g.add("Add", g.add("Add", g.inputs[3], y), g.inputs[2]), bias=False)
    library = Library()
    check(graph, [X, W, row, Z], library.target())
    assert library.accepted[0].bias
    assert library.accepted[0].residual
    check(graph, [X, W, row, Z])


def test_a_constant_of_the_body_is_the_bias_of_one_feature() -> None:
    w = normal(1, 3, 3, 8)
    graph = region([X, w], lambda g, y: g.add("Relu", g.add("Add", y, number(g, 0.5))), bias=False)
    library = Library()
    check(graph, [X, w], library.target())
    assert library.accepted[0].bias
    check(graph, [X, w])


def test_depthwise_region_is_ours() -> None:
    x, w, b = normal(2, 9, 9, 16), normal(16, 3, 3, 1), normal(16)
    library = Library()
    graph = region([x, w, b], lambda g, y: g.add("Swish", y), group=16, pads=[1, 1, 1, 1])
    check(graph, [x, w, b], library.target())
    assert not library.asked


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "ConvTransposeNHWC"])
def test_other_anchors(op: str) -> None:
    if op == "ConvTransposeNHWC":
        inputs = [normal(2, 5, 6, 8), normal(8, 3, 3, 20), normal(20)]
    else:
        inputs = [normal(2, 8, 5, 6), normal(8, 20, 3, 3) if op == "ConvTranspose" else normal(20, 8, 3, 3), normal(20)]
    graph = region(inputs, lambda g, y: g.add("Relu", y), op=op, strides=[2, 2])
    library = Library()
    check(graph, inputs, library.target())
    assert library.accepted[0].activation == "relu"
    check(graph, inputs)


def test_channels_first_residual_is_not_the_librarys() -> None:
    inputs = [normal(2, 8, 5, 6), normal(20, 8, 3, 3), normal(20), normal(2, 20, 3, 4)]
    graph = region(inputs, lambda g, y: g.add("Relu", g.add("Add", y, g.inputs[3])), op="Conv")
    assert operations(lower(graph, Library().target())) == [["Conv"], ["Add", "Relu"]]
    check(graph, inputs)


@pytest.mark.parametrize(
    ("accepts", "parts"),
    [
        (lambda p: True, [["ConvNHWC", "Add", "Relu"], ["Mul"]]),
        (lambda p: not p.activation, [["ConvNHWC", "Add"], ["Relu", "Mul"]]),
        (lambda p: not p.activation and not p.residual, [["ConvNHWC"], ["Add", "Relu", "Mul"]]),
        (lambda p: False, [["ConvNHWC", "Add", "Relu"], ["Mul"]]),
    ],
)
def test_the_longest_claim_that_is_supported(accepts: Callable[[Any], bool], parts: list[list[str]]) -> None:
    graph = region([X, W, B, Z], lambda g, y: g.add("Mul", g.add("Relu", g.add("Add", y, g.inputs[3])), number(g, 3)))
    lowered = lower(graph, Library(accepts).target())
    assert operations(lowered) == parts
    assert isinstance(lowered, Rewrite)
    for got, want in zip(interpret(lowered.graph, [X, W, B, Z]), interpret(graph, [X, W, B, Z]), strict=True):
        assert_close(got, want)
    first = next(iter(lowered.graph))
    if first.body is not None:  # what the split leaves is taken whole
        annotate(lowered.graph)
        kinds = tuple(v.type for v in first.inputs if v is not None)
        site = Site(first, kinds, tuple(v.type for v in first.outputs), (None,) * len(kinds), Library(accepts).target())
        whole = decide(site)
        assert whole is not None and isinstance(whole.work, Lowered)


@pytest.mark.parametrize(
    "build",
    [
        lambda g, y: g.add("Add", y, y),
        lambda g, y: g.add("Mul", y, g.add("Sigmoid", y)),
        lambda g, y: g.add("Add", y, number(g, 2)),
        lambda g, y: g.add("Swish", y, alpha=2.0),
        lambda g, y: g.add("Elu", y, alpha=2.0),
        lambda g, y: g.add("Clip", y, number(g, 0), number(g, 5)),
        lambda g, y: g.add("Clip", y, number(g, 0)),
        lambda g, y: g.add("Mul", y, g.inputs[3]),
        lambda g, y: g.add("Add", y, g.add_constant(normal(5, 1), "column")),
        lambda g, y: g.add("Add", y, g.add_constant(normal(1, 4, 5, 20), "image")),
    ],
)
def test_what_is_no_epilogue(build: Build) -> None:
    graph = region([X, W, B, Z], build)
    ((first, *more), rest) = operations(lower(graph, Library().target()))
    assert (first, more) == ("ConvNHWC", [])
    assert rest


def test_two_residuals_and_two_activations_are_one_too_many() -> None:
    graph = region([X, W, B, Z], lambda g, y: g.add("Add", g.add("Add", y, g.inputs[3]), g.inputs[3]))
    assert operations(lower(graph, Library().target())) == [["ConvNHWC", "Add"], ["Add"]]
    graph = region([X, W, B], lambda g, y: g.add("Tanh", g.add("Relu", y)))
    assert operations(lower(graph, Library().target())) == [["ConvNHWC", "Relu"], ["Tanh"]]


def test_one_tap_as_a_matrix_product() -> None:
    inputs = [normal(2, 3, 4, 8), normal(20, 1, 1, 8), normal(20), normal(2, 3, 4, 20)]
    graph = region(inputs, lambda g, y: g.add("Relu", g.add("Add", y, g.inputs[3])))
    library = Library(lambda problem: isinstance(problem, MatmulProblem))
    check(graph, inputs, library.target())
    assert (library.accepted[0].residual, library.accepted[0].bias, library.accepted[0].activation) == (True, True, "relu")
    check(graph, inputs)
    swish = region(inputs[:3], lambda g, y: g.add("Swish", y))
    assert operations(lower(swish, library.target())) == [["ConvNHWC"], ["Swish"]]
    assert isinstance(lower(swish, Target()), Lowered)


def test_a_single_pixel_is_ours_as_far_as_products_go() -> None:
    inputs = [normal(1, 1, 1, 8), normal(20, 1, 1, 8), normal(20)]
    library = Library()
    check(region(inputs, lambda g, y: g.add("Relu", y)), inputs, library.target())
    sigmoid = region(inputs, lambda g, y: g.add("Sigmoid", y))
    assert operations(lower(sigmoid, library.target())) == [["ConvNHWC"], ["Sigmoid"]]
    assert not library.asked


@pytest.mark.parametrize("leaving", ["the input", "what follows the input"])
def test_a_region_that_does_not_give_its_convolution_s_result_is_done_node_by_node(leaving: str) -> None:
    inputs = [normal(2, 5, 4), normal(4, 1, 4)]
    graph = region(inputs, lambda g, y: g.add("Relu", y), bias=False)
    (node,) = graph
    body = node.body
    assert body is not None
    (relu,) = (n for n in body if n.op == "Relu")
    x = body.inputs[0]
    if leaving == "the input":
        body.set_outputs([x])
    else:
        body.set_inputs(relu, [x])
    graph.set_type(node.outputs[0], x.type)
    annotate(graph)
    check(graph, inputs, instead=["miniinfer.ConvNHWC"])


PIECES = [normal(2, 3, 4, 8), normal(20, 1, 1, 8), normal(20), normal(2, 3, 4, 20)]
OWN = ["gemm 64x64", "gemm 128x128", "tiles 64x64", "direct"]
WAYS: list[tuple[list[Array], Build, dict[str, Any], list[str]]] = [
    ([X, W, B, Z], lambda g, y: g.add("Mul", g.add("Relu", g.add("Add", y, g.inputs[3])), number(g, 3)), {}, ["cudnn", *OWN[2:]]),
    (PIECES, lambda g, y: g.add("Relu", g.add("Add", y, g.inputs[3])), {}, ["cublaslt", "cudnn", *OWN]),
    (PIECES[:3], lambda g, y: g.add("Swish", y), {}, ["cudnn", "cublaslt", *OWN[2:], *OWN[:2]]),
    (
        [normal(1, 9, 9, 8), normal(8, 3, 3, 1), normal(8)],
        lambda g, y: g.add("Swish", y),
        {"group": 8},
        [*DEPTHWISE, "direct", "tiles 64x64", "cudnn"],
    ),
]


@pytest.mark.parametrize(("inputs", "build", "attrs", "keys"), WAYS, ids=["residual", "product", "activation", "depthwise"])
def test_every_tactic_does_the_region_when_it_is_forced(
    inputs: list[Array], build: Build, attrs: dict[str, Any], keys: list[str]
) -> None:
    target = replace(Library().target(), tf32=False)
    assert check_graph(inputs, region(inputs, build, **attrs), target, 2e-5) == keys


def test_the_estimate_is_of_the_whole_region() -> None:
    graph = region(PIECES[:3], lambda g, y: g.add("Swish", y))
    by_key = {t.key: t for t in offered(graph, PIECES[:3], Library().target())}
    library, direct = by_key["cudnn"], by_key["direct"]
    assert (library.claims, direct.claims) == (1, 2)
    y = PIECES[3].size
    assert library.estimate == direct.estimate + Estimate(0, 2 * 4 * y)  # the result of the convolution comes and goes


def test_a_disabled_library_leaves_the_whole_region_to_our_kernels() -> None:
    graph = region([X, W, B, Z], lambda g, y: g.add("Relu", g.add("Add", y, g.inputs[3])))
    target = Library().target(policy=Policy(disabled=frozenset({"cudnn"})))
    assert isinstance(lower(graph, target), Lowered)
    check(graph, [X, W, B, Z], target)
