"""Weights of few bits are floats once, not at every run; where memory is short they are dequantized as before."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cpu import routine
from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.ir import DType, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise

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
    steps, found, held = run(graph, feeds)
    assert steps == ["MatMul"]
    assert held["derived_nbytes"] >= 4 * 128 * 96
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


@pytest.mark.parametrize("fused", [False, True])
def test_what_is_cast_and_scaled_is_unfolded_once_too(fused: bool) -> None:
    """As some exporters write it, and a table of words: 30 000 rows took half of the time, for the 40 that are looked up."""
    rng = np.random.default_rng(1)
    graph = Graph("g")
    x, rows = graph.add_input("x", TensorType(DType.F32, ("n", 128))), graph.add_input("rows", TensorType(DType.I64, ("n",)))
    stored = graph.add_constant(rng.integers(-128, 128, (128, 96)).astype(np.int8), "w")
    scaled = insert(
        graph, "Mul", insert(graph, "Cast", stored, to=1), graph.add_constant(rng.random((1, 96), dtype=np.float32), "s")
    )
    graph.set_outputs([insert(graph, "MatMul", x, scaled), insert(graph, "Gather", scaled, rows)], ["y", "looked_up"])
    if fused:
        assert fuse_pointwise(graph)
    feeds = [X, np.array([5, 0, 127])]
    steps, found, _ = run(graph, feeds)
    assert steps == ["MatMul", "Gather"]
    for one, other in zip(found, interpret(graph, feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


def test_what_is_random_stays() -> None:
    graph = Graph("g")
    like = graph.add_constant(np.zeros((64, 96), np.float32), "like")
    x = graph.add_input("x", TensorType(DType.F32, ("n", 64)))
    graph.set_outputs([insert(graph, "MatMul", x, insert(graph, "RandomNormalLike", like))], ["y"])
    assert run(graph, [X[:, :64].copy()])[0] == ["RandomNormalLike", "MatMul"]
