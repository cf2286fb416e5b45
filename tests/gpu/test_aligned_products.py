"""Products of sizes that cuBLASLt does not like, padded and interleaved: the numbers, and the same bits every time."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.problems import Compute
from miniinfer_cli.backends.cuda.tactics.products.aligned_products import INTERLEAVED, PADDED
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import DType, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.planning.freeze import freeze
from tests.gpu.driver.operands import assert_close

SIZES = {
    PADDED: [(300, 129, 200), (300, 200, 1001), (77, 65, 33), (4096, 768, 2049)],
    INTERLEAVED: [(1003, 256, 1001), (256, 64, 75)],
}
CASES = [(PADDED, sizes, bias, constant) for sizes in SIZES[PADDED] for bias in (False, True) for constant in (True, False)]
CASES += [(INTERLEAVED, sizes, False, True) for sizes in SIZES[INTERLEAVED]]  # weights that can be turned, and no bias


def product(sizes: tuple[int, int, int], dtype: DType, *, constant: bool, bias: bool) -> tuple[Any, str, dict[str, Any], Any]:
    """A plan of one product, its node, inputs, and the result in f64."""
    m, k, n = sizes
    random = np.random.default_rng(m + n)
    kind = numpy_dtype(dtype)
    x, w, b = (random.standard_normal(s).astype(kind) for s in ((m, k), (k, n), (n,)))
    graph = Graph("main")
    left = graph.add_input("x", TensorType(dtype, x.shape))
    right = graph.add_constant(w, "w") if constant else graph.add_input("w", TensorType(dtype, w.shape))
    more = [graph.add_constant(b, "b")] if bias else []
    graph.set_outputs([insert(graph, "Gemm" if bias else "MatMul", left, right, *more)])
    (node,) = graph.nodes
    want = x.astype(np.float64) @ w.astype(np.float64) + (b.astype(np.float64) if bias else 0)
    return freeze(graph), node.name, {"x": x} if constant else {"x": x, "w": w}, want


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16, DType.F32])
@pytest.mark.parametrize(("key", "sizes", "bias", "constant"), CASES, ids=str)
def test_forced(key: str, sizes: tuple[int, int, int], dtype: DType, bias: bool, constant: bool) -> None:
    plan, name, feeds, want = product(sizes, dtype, constant=constant, bias=bias)
    with load(plan, "cuda:0", DeviceOptions(tactics={name: key})) as engine:
        (step,) = engine.program(engine.check(feeds)).steps
        assert step.tactic == key
        (first, *others) = [next(iter(engine.run(feeds).values())) for _ in range(3)]  # launched, captured, replayed
    assert_close(first, want, dtype, Compute.TF32 if dtype is DType.F32 else Compute.F32, f"{key} {sizes}")
    assert all(first.tobytes() == other.tobytes() for other in others)
