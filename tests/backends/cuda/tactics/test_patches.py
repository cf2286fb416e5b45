"""Convolutions whose windows share no pixel, as a product of rows: alone, in regions, of images with the channels first."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Chooser, Estimate, Policy
from miniinfer_cli.backends.cuda.contract.problems import MatmulProblem
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep, library_calls
from miniinfer_cli.backends.cuda.contract.steps import Launch
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import unit_type
from miniinfer_cli.backends.cuda.tactics.convolution.patches import WAY
from miniinfer_cli.ir import DType, Graph, TensorType, Value
from miniinfer_cli.ops.inference import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_conv import fuse_conv
from tests.backends.cuda.graph_runs import kinds, some
from tests.backends.cuda.harness import program_of
from tests.backends.cuda.live_memory import check_memory
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.performing import perform_program
from tests.backends.cuda.tactics.every_tactic import check_every_tactic, check_graph, offered
from tests.backends.cuda.tactics.test_convolution import normal
from tests.backends.cuda.tactics.test_fused_conv import region
from tests.backends.nodes import assert_close, make_graph

OURS = "miniinfer"
OWN = ["patches, gemm 64x64", "patches, gemm 128x128"]
PREFERRED = ["patches, cublaslt", "cudnn", *OWN]
BESIDE = ["patches, cublaslt", *OWN]


@pytest.mark.parametrize("constants", [(), (1,)])
@pytest.mark.parametrize(
    ("x", "w", "attrs", "keys"),
    [
        ((5, 9, 8, 3), (20, 4, 4, 3), {"strides": [4, 4]}, [*PREFERRED, "tiles 64x64", "direct"]),
        ((5, 7, 11, 3), (20, 1, 3, 3), {"strides": [3, 4]}, ["cudnn", "tiles 64x64", "direct", *BESIDE]),
        ((5, 13, 9, 3), (20, 2, 2, 3), {"strides": [4, 3], "dilations": [2, 1]}, [*PREFERRED, "tiles 64x64", "direct"]),
        ((5, 12, 4), (20, 4, 4), {"strides": [4]}, [*PREFERRED, "tiles 64x64", "direct"]),
        ((5, 13, 4), (20, 4, 4), {"strides": [4]}, ["cudnn", "tiles 64x64", "direct", *BESIDE]),
        ((5, 5, 6, 4), (20, 1, 1, 4), {"strides": [2, 2]}, ["cudnn", "tiles 64x64", "direct", *BESIDE]),
        ((3, 5, 9, 8, 3), (20, 2, 4, 4, 3), {"strides": [2, 4, 4]}, [*PREFERRED, "tiles 64x64", "direct"]),
        ((1, 4, 6, 3), (24, 4, 6, 3), {}, ["patches, gemv_along_k", *OWN, "patches, cublaslt", "cudnn", "tiles 64x64", "direct"]),
    ],
    ids=[
        "pixels that are left",
        "odd rows",
        "gaps",
        "in one piece",
        "a rest",
        "strided pixels",
        "volumes",
        "one window",
    ],
)
def test_windows_are_rows_of_a_product(x: Any, w: Any, attrs: Any, keys: list[str], constants: tuple[int, ...]) -> None:
    operands, target = (normal(*x), normal(*w), normal(w[0])), replace(Library().target(), tf32=False)
    found = check_every_tactic("ConvNHWC", *operands, domain=OURS, target=target, tolerance=2e-5, constants=constants, **attrs)
    assert found == keys


@pytest.mark.parametrize(
    ("w", "attrs"),
    [
        ((20, 4, 4, 3), {"strides": [4, 3]}),
        ((20, 4, 4, 3), {"strides": [4, 4], "pads": [0, 0, 3, 0]}),
        ((20, 3, 4, 3), {"strides": [4, 4], "dilations": [2, 1]}),
        ((21, 4, 4, 1), {"strides": [4, 4], "group": 3}),
        ((20, 1, 1, 3), {}),
        ((1, 4, 4, 1), {"strides": [4, 4]}),
    ],
    ids=["shared", "padded", "spread", "groups", "pixels", "depthwise"],
)
def test_windows_that_are_no_rows(w: tuple[int, ...], attrs: dict[str, Any]) -> None:
    x, weights = normal(2, 9, 8, w[-1] * attrs.get("group", 1)), normal(*w)
    graph = make_graph("ConvNHWC", (x, weights), domain=OURS, n_outputs=1, constants=(), body=None, attrs=attrs)
    assert not [t.key for t in offered(graph, (x, weights), Library().target()) if t.key.startswith(WAY)]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_types(dtype: Any) -> None:
    operands = normal(2, 8, 8, 3, dtype=dtype), normal(24, 4, 4, 3, dtype=dtype), normal(24, dtype=dtype)
    tolerance = {np.float16: 4e-3, np.float64: 1e-12}[dtype]
    keys = check_every_tactic("ConvNHWC", *operands, domain=OURS, target=Library().target(), tolerance=tolerance, strides=[4, 4])
    assert keys[0] == "patches, cublaslt"


def test_wide_indices(wide_indices: None) -> None:
    check_every_tactic(
        *("ConvNHWC", normal(2, 9, 8, 3), normal(20, 4, 4, 3)), domain=OURS, target=Target(), tolerance=2e-5, strides=[4, 4]
    )


def test_the_estimate_has_the_rows_written_and_read() -> None:
    for x, moved in ((normal(2, 9, 8, 3), 2 * 2 * 2 * 2 * 48), (normal(2, 8, 4, 3), 0)):  # two columns of windows, and one
        w = normal(20, 4, 4, 3)
        graph = make_graph("ConvNHWC", (x, w), domain=OURS, n_outputs=1, constants=(), body=None, attrs={"strides": [4, 4]})
        found = offered(graph, (x, w), Library().target())[0].estimate
        rows = 2 * 2 * (x.shape[2] // 4)
        assert found == Estimate(2 * rows * 48 * 20, 4 * (rows * 48 + 48 * 20 + rows * 20 + moved))


def _relu_of_sum(graph: Graph, y: Value) -> Value:
    return graph.add("Relu", graph.add("Add", y, graph.inputs[3]))


def test_a_region_puts_bias_residual_and_activation_into_the_product() -> None:
    x, w, b, z = normal(5, 8, 8, 3), normal(20, 4, 4, 3), normal(20), normal(5, 2, 2, 20)
    graph = region([x, w, b, z], _relu_of_sum, strides=[4, 4])
    keys = check_graph([x, w, b, z], graph, Library().target(), 2e-5)
    assert keys == [*PREFERRED, "tiles 64x64", "direct"]
    library = Library(lambda problem: isinstance(problem, MatmulProblem))
    check_graph([x, w, b, z], graph, library.target(), 2e-5)
    longest = library.accepted[0]
    assert isinstance(longest, MatmulProblem)
    assert (longest.m, longest.n, longest.k, longest.bias, longest.residual) == (20, 20, 48, True, True)


def test_what_products_do_not_do_follows_them() -> None:
    operands = [normal(2, 8, 8, 3), normal(20, 4, 4, 3), normal(20)]
    graph = region(operands, lambda g, y: g.add("Sigmoid", y), strides=[4, 4])
    assert check_graph(operands, graph, Library().target(), 2e-5)[0] == "patches, cublaslt"


def _image(channels: int = 3, constant: bool = True, pads: tuple[int, ...] = (0, 0, 0, 0), spread: bool = False) -> Graph:
    """An image with the channels first, turned for a region of a convolution by 8x8 patches; with ``spread`` the region reads its
    own copy of the image besides."""
    graph, half = Graph("g"), DType.F16
    image = graph.add_input("image", TensorType(half, (2, channels, 16, 16)))
    weights = normal(24, 8, 8, channels, dtype=np.float16)
    w = graph.add_constant(weights) if constant else graph.add_input("w", TensorType(half, weights.shape))
    x = graph.add("Transpose", image, perm=[0, 2, 3, 1])
    y = graph.add("ConvNHWC", x, w, domain=OURS, strides=[8, 8], pads=pads)
    z = graph.add_input("z", TensorType(half, (1, 1, 1, 24)))
    graph.set_outputs([graph.add("Relu", graph.add("Add", y, z))] + ([graph.add("Softmax", x)] if spread else []))
    annotate(graph)
    assert fuse_conv(graph) == 1
    return graph


def _run(graph: Graph, target: Target) -> CudaProgram:
    """The program of the graph, whose results are those of the references."""
    given = some(graph)
    program = program_of(graph, given, target)
    check_memory(program)
    for got, want in zip(perform_program(program, given, target), interpret(graph, given), strict=True):
        assert_close(got, want, 1e-2)
    return program


def _copied(program: CudaProgram) -> list[str]:
    """The units in which the last step copies."""
    step = program.steps[-1]
    assert isinstance(step, DeviceStep)
    return [dict(a.kernel.defines)["MI_T"] for a in step.actions if isinstance(a, Launch) and a.kernel.name == "copy"]


def test_an_image_with_the_channels_first_is_read_where_it_lies() -> None:
    program = _run(_image(), Library().target())
    assert kinds(program) == ["miniinfer.FusedConv"]
    assert _copied(program) == [unit_type(16)]  # eight pixels of one channel
    (call,) = library_calls(program.steps)
    assert isinstance(call.problem, MatmulProblem) and (call.problem.m, call.problem.k) == (8, 192)


def test_weights_that_are_computed_keep_their_order() -> None:
    program = _run(_image(constant=False), Library().target())
    assert kinds(program) == ["miniinfer.FusedConv"]
    assert _copied(program) == [unit_type(2)]


@pytest.mark.parametrize("key", ["cudnn", "tiles 64x64", "direct", "patches, gemm 64x64"])
def test_an_image_with_the_channels_first_by_other_tactics(key: str) -> None:
    graph = _image()
    forced = {n.name: key for n in graph if n.op == "FusedConv"}
    program = _run(graph, Library().target(policy=Policy(forced=forced)))
    assert [(s.tactic, s.choice.chosen_by) for s in program.steps if isinstance(s, DeviceStep)] == [(key, Chooser.FORCED)]


def test_a_bare_convolution_reads_the_image_too() -> None:
    graph = Graph("g")
    image, w = (graph.add_input(n, TensorType(DType.F32, s)) for n, s in (("i", (2, 3, 9, 8)), ("w", (20, 4, 4, 3))))
    x = graph.add("Transpose", image, perm=[0, 2, 3, 1])
    graph.set_outputs([graph.add("ConvNHWC", x, w, domain=OURS, strides=[4, 4])])
    annotate(graph)
    assert kinds(_run(graph, Target())) == ["miniinfer.ConvNHWC"]


@pytest.mark.parametrize(
    "graph",
    [_image(channels=8), _image(pads=(0, 0, 1, 0)), _image(spread=True)],
    ids=["whole vectors", "padded", "others read it"],
)
def test_an_image_is_turned_where_patches_are_not_all_that_is_read(graph: Graph) -> None:
    assert kinds(_run(graph, Library().target()))[0] == "Transpose"
