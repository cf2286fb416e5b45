"""QuantizedConv and QuantizedMatMul on the emulated device: integers by MatMulInteger and one pass behind it, or floats."""

import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from tests.backends.cuda.harness import program_of, run_graph
from tests.backends.cuda.numpy_library import Library
from tests.passes.quantized_graphs import CASES, assert_within_a_step, quantized_product, random_feeds

MATRICES = ("single pixels", "single pixels without a bias", "a matrix", "a matrix, and Gelu", "a matrix alone")


def region_of(case):
    graph = quantized_product(**CASES[case])
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    fuse_quantized(graph)
    annotate(graph)
    return graph, feeds, want


@pytest.mark.parametrize("library", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_region_gives_what_its_nodes_give(case, library):
    graph, feeds, want = region_of(case)
    instead = ["MatMulInteger", "FusedPointwise"] if case in MATRICES else ["DequantizeLinear"]
    target = Library().target() if library else Target()
    (got,) = run_graph(graph, feeds, target, instead=[k if k != "FusedPointwise" else f"miniinfer.{k}" for k in instead])
    assert_within_a_step(got, want)


@pytest.mark.parametrize("case", CASES)
def test_matrices_are_multiplied_as_integers(case):
    graph, feeds, _ = region_of(case)
    kinds = [s.kind for s in program_of(graph, feeds, Target()).steps]
    assert ("MatMulInteger" in kinds) == (case in MATRICES)
    if case in MATRICES:
        assert kinds == ["MatMulInteger", "miniinfer.FusedPointwise"]
