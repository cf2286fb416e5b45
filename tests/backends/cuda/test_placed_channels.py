"""Units of ShuffleNet on the GPU: nothing but convolutions, the last of which writes between channels that are kept."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import DType, Graph, constant
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.pipeline import optimize
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.performing import perform_program
from tests.backends.nodes import assert_close
from tests.passes.graphs import read_graph
from tests.passes.test_place_channels import units


def network(batch: int, half: int) -> Graph:
    graph = read_graph(units(2, half).replace("batch", str(batch)))
    for value in list(graph.constants()):
        if value.tensor.dtype is DType.F16 and value.constant is not None and len(value.constant.shape) == 4:
            weights = value.constant.array().astype(np.float32)
            graph.set_constant(value, constant((weights / np.sqrt(weights[0].size)).astype(np.float16)))
    return graph


IN_ONE = ["FusedConv", "ConvNHWC", "FusedConv"]
BEHIND = [*IN_ONE, "FusedPointwise"]
"""Where no kernel of ours finishes the convolution, what is kept is chosen in a pass."""


@pytest.mark.parametrize(
    ("target", "unit"),
    [(Target(arch=90), IN_ONE), (Target(arch=80), BEHIND), (Library().target(), IN_ONE)],
    ids=["sm_90", "sm_80", "libraries"],
)
@pytest.mark.parametrize("half", [58, 64])
def test_units_are_convolutions(target: Target, unit: list[str], half: int) -> None:
    graph = network(2, half)
    given = [np.random.default_rng(0).normal(size=(2, 8, 3, 5)).astype(np.float16)]
    wanted = interpret(graph, given)
    optimize(graph)
    program = make_program(graph, [v.type for v in graph.inputs], target)
    for got, want in zip(perform_program(program, given, target), wanted, strict=True):
        assert_close(got, want, 1e-2)
    kinds = [s.kind.removeprefix("miniinfer.") for s in program.steps if s.kind != "Transpose"]
    assert kinds == ["ConvNHWC", *unit, *unit, "ConvNHWC"]
