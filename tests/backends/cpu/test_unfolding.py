"""Weights of few bits are floats once, not at every run; where memory is short they are dequantized as before."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cpu import routine
from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.ir import DType, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.interpreter import interpret

X = np.random.default_rng(0).standard_normal((3, 128)).astype(np.float32)


def dequantized(*, turned: bool, known: bool = True) -> tuple[Graph, list[Any]]:
    """x times 4-bit weights in blocks, which are returned as well; ``known``: they are constants."""
    rng = np.random.default_rng(1)
    shape = (96, 128) if turned else (128, 96)
    weights = rng.integers(-8, 8, shape).astype(numpy_dtype(DType.I4))
    scales = rng.uniform(0.1, 1, (96, 8) if turned else (8, 96)).astype(np.float32)
    graph = Graph("g")
    x = graph.add_input("x", TensorType(DType.F32, ("n", 128)))
    stored = graph.add_constant(weights, "w") if known else graph.add_input("w", TensorType(DType.I4, shape))
    wide = insert(graph, "DequantizeLinear", stored, graph.add_constant(scales, "s"), axis=int(turned), block_size=16)
    matrix = insert(graph, "Transpose", wide, perm=[1, 0]) if turned else wide
    graph.set_outputs([insert(graph, "MatMul", x, matrix), wide], ["y", "wide"])
    return graph, [X] if known else [X, weights]


def run(graph: Graph, feeds: list[Any]) -> tuple[list[str], list[Any], dict[str, Any]]:
    model = CpuModel(graph)
    program = model.make_program([TensorType(v.tensor.dtype, a.shape) for v, a in zip(graph.inputs, feeds, strict=True)])
    return [s.node.op for s in program.steps], list(model.make_context().execute(program, feeds)), model.stats()["weights"]


@pytest.mark.parametrize("turned", [False, True])
def test_weights_are_unfolded_once(turned: bool) -> None:
    graph, feeds = dequantized(turned=turned)
    steps, found, _ = run(graph, feeds)
    assert steps == ["MatMul"]
    for one, other in zip(found, interpret(graph, feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_what_is_no_constant_is_dequantized_at_every_run() -> None:
    graph, feeds = dequantized(turned=True, known=False)
    steps, found, _ = run(graph, feeds)
    assert steps == ["DequantizeLinear", "Transpose", "MatMul"]
    np.testing.assert_allclose(found[0], interpret(graph, feeds)[0], rtol=1e-5, atol=1e-5)


def test_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, feeds = dequantized(turned=False)
    monkeypatch.setattr(routine, "available_memory", lambda: 2 * 128 * 96 * 4 - 2)
    steps, found, _ = run(graph, feeds)
    assert steps == ["DequantizeLinear", "MatMul"]
    np.testing.assert_allclose(found[0], interpret(graph, feeds)[0], rtol=1e-5, atol=1e-5)


def test_programs_share_what_is_unfolded() -> None:
    graph, _ = dequantized(turned=True)
    model = CpuModel(graph)
    one, other = (model.make_program([TensorType(DType.F32, (n, 128))]) for n in (1, 2))
    matrices = [next(a for a in p.preset.values() if np.shape(a) == (128, 96)) for p in (one, other)]
    assert matrices[0] is matrices[1]
