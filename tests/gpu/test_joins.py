"""Joins on a GPU: results against f64, and against the same nodes apart."""

from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.ir import DType, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops import OURS, insert
from miniinfer_cli.ops.registry import lookup
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.planning.freeze import freeze

LIMITS = {DType.F32: 1e-6, DType.F16: 1e-3, DType.BF16: 8e-3}
SIZES = [(1, 1152, 48), (1, 96, 4), (3, 50, 7), (64, 960, 240), (8, 672, 28)]


def pair(channels: int, squeezed: int, dtype: DType, gate: str) -> tuple[Graph, list[Any]]:
    """Two products with what follows each, as the optimizer leaves them, and their weights and biases."""
    random, graph, kept = np.random.default_rng((channels, squeezed)), Graph("pair"), []
    value = graph.add_input("x", TensorType(dtype, ("n", 1, 1, channels)))
    for out, come, then in ((squeezed, channels, "Relu"), (channels, squeezed, gate)):
        operands = [random.normal(0, come**-0.5, (out, 1, 1, come)), random.normal(0, 1, out)]
        kept += [a.astype(numpy_dtype(dtype)) for a in operands]
        value = insert(graph, "ConvNHWC", value, *map(graph.add_constant, kept[-2:]), domain=OURS)
        value = insert(graph, then, value)
    graph.set_outputs([value], ["y"])
    assert fuse_conv(graph) == 2
    return graph, kept


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.BF16])
@pytest.mark.parametrize("pdl", [True, False])
@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid"])
def test_squeeze_and_excitation(dtype: DType, pdl: bool, gate: str) -> None:
    for images, channels, squeezed in SIZES:
        graph, (squeeze, first, excite, second) = pair(channels, squeezed, dtype, gate)
        name = graph.nodes[0].name
        with miniinfer_cli.load(freeze(graph), "cuda:0", tactics={name: "excitation"}, pdl=pdl) as engine:
            for seed in range(5):
                x = np.random.default_rng(seed).standard_normal((images, 1, 1, channels)).astype(numpy_dtype(dtype))
                (got,) = engine.run({"x": x}).values()
                wide = [a.astype(np.float64) for a in (x, squeeze, excite, first, second)]
                (want,) = lookup(OURS, "Excitation").evaluate(wide, {"activation": "Relu", "gate": gate}, n_outputs=1)
                assert np.linalg.norm(got - want) <= LIMITS[dtype] * np.linalg.norm(want)
            (step,) = engine.program([x]).steps
            assert step.kind == "miniinfer.Excitation" and step.choice is not None and step.choice.join is not None
