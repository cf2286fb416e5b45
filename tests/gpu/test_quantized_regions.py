"""Regions of bytes on the GPU: each tactic, forced, within one step of what the nodes say; sizes with tails on every side."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.tactic import REWRITTEN
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import DType
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from miniinfer_cli.planning.freeze import freeze
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.cuda.tactics.test_quantized_regions import FOLDED, MANY, WHOLE
from tests.passes.quantized_graphs import assert_within_a_step, quantized_product, random_feeds

LARGE = {
    "192 channels, each by itself": {"channels": 192, "features": 192, "group": 192, "y_dtype": DType.I8, "activation": "Clip"},
    "64 channels, 3x3": {"channels": 64, "features": 64, "y_dtype": DType.I8, "x_dtype": DType.I8, "residual": True},
    "256 channels, single pixels": {"channels": 256, "features": 512, "taps": 1, "y_dtype": DType.U8, "activation": "Relu"},
    **{f"folded: {name}": options for name, options in FOLDED.items()},
    **{f"many: {name}": {"side": 23} | options for name, options in MANY.items()},
    "a matrix of 768": {"kind": "MatMul", "channels": 768, "features": 3072, "y_dtype": DType.I8, "zero": 7},
}


@pytest.mark.parametrize("case", [*WHOLE, *LARGE])
def test_every_tactic_is_right_when_it_is_forced(case):
    graph = quantized_product(**{"channels": 16, "features": 32, "symmetric": True} | (WHOLE | LARGE)[case])
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    fuse_quantized(graph)
    annotate(graph)
    (node,) = graph
    plan = freeze(graph, options={"tf32": False})
    keys = [t.key for t in offered(graph, feeds, Target()) if t.key != REWRITTEN]
    assert keys
    for key in keys:
        with load(plan, "cuda:0", DeviceOptions(tactics={node.name: key})) as engine:
            given = {v.name: f for v, f in zip(graph.inputs, feeds, strict=True)}
            first, second = (next(iter(engine.run(given).values())) for _ in range(2))
        assert np.array_equal(first, second)
        if (WHOLE | LARGE)[case].get("w_dtype") is DType.F8E4M3FN:  # whose sums the matrix units cut off
            wide = [a.astype(np.float64) for a in (first, want)]
            assert np.linalg.norm(wide[0] - wide[1]) < 1e-2 * np.linalg.norm(wide[1])
        else:
            assert_within_a_step(first, want)
