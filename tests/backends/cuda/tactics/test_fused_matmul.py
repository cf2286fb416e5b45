"""FusedMatMul, regions of a product and its epilogue: how much of them one product takes, and that the numbers stay."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Graph, TensorType, Value, dtype_of
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from tests.backends.cuda.harness import run_graph
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics.every_tactic import check_graph
from tests.backends.nodes import assert_close

ROW, WHOLE = "row", "whole"
SHAPES = [((3, 8), (8, 12)), ((2, 9, 8), (8, 12)), ((2, 9, 8), (2, 8, 12)), ((1, 64), (64, 40))]


def run(shapes: Any, steps: Any, target: Target, dtype: str = "float32", *, instead: Any = None, **attrs: Any) -> None:
    """``steps``: (op, operand) behind a product; the operand is ROW, WHOLE, a shape, or the approximation of Gelu.

    ``instead``: see ``harness.check_program``.
    """
    random = np.random.default_rng(1)
    graph, arrays = Graph("main"), []

    def new(shape: Any) -> Value:
        arrays.append(random.standard_normal(shape).astype(dtype))
        return graph.add_input(f"x{len(arrays)}", TensorType(dtype_of(arrays[-1]), arrays[-1].shape))

    y = insert(graph, "Gemm" if attrs else "MatMul", *(new(s) for s in shapes), **attrs)
    result = y.tensor.shape or ()
    for op, *operand in steps:
        if op == "Gelu":
            y = insert(graph, op, y, approximate=operand[0])
        elif operand:
            other = new(
                {ROW: result[-1:], WHOLE: result}.get(operand[0], operand[0]) if isinstance(operand[0], str) else operand[0]
            )
            y = insert(graph, op, y, other)
        else:
            y = insert(graph, op, y)
    graph.set_outputs([y])
    (want,) = interpret(graph, arrays)
    fuse_matmul(graph)
    assert len(graph) == 1
    (got,) = run_graph(graph, arrays, target, instead=instead)
    assert_close(got, want, 1e-2 if dtype == "float16" else 1e-4)


def taken(library: Library) -> tuple[bool, bool, str]:
    problem: Any = library.accepted[-1]
    return problem.bias, problem.residual, problem.activation


def test_a_region_over_columns_that_the_library_does_not_like_is_padded_whole() -> None:
    library = Library()
    run(((2048, 512), (512, 1001)), [("Add", ROW), ("Relu",)], library.target(), "float16")
    assert taken(library) == (True, False, "relu")
    assert {p.n for p in library.accepted} == {1008}


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "steps",
    [
        [("Add", ROW)],
        [("Add", WHOLE), ("Add", ROW), ("Relu",)],
        [("Add", ROW), ("Add", WHOLE), ("Gelu", "tanh")],
        [("Relu",)],
    ],
    ids=str,
)
def test_whole_regions(shapes: Any, steps: Any, dtype: str) -> None:
    for target in (Target(), Library().target()):
        run(shapes, steps, target, dtype)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("Add", ROW), ("Gelu", "none")], (True, False, "")),
        ([("Add", ROW), ("Sigmoid",), ("Add", WHOLE)], (True, False, "")),
        ([("Relu",), ("Add", WHOLE)], (False, False, "relu")),
        ([("Add", WHOLE), ("Add", WHOLE)], (False, True, "")),
        ([("Add", (1,)), ("Relu",)], (False, False, "")),
        ([("Add", (3, 1)), ("Relu",)], (False, False, "")),
        ([("Mul", ROW), ("Add", ROW)], (False, False, "")),
        ([("Relu",), ("Relu",)], (False, False, "relu")),
    ],
    ids=str,
)
def test_what_follows_is_a_region_of_its_own(steps: Any, expected: Any) -> None:
    library = Library()
    apart = ["MatMul", "miniinfer.FusedPointwise"] if expected == (False, False, "") else None
    run(((3, 8), (8, 12)), steps, library.target(), instead=apart)
    assert taken(library) == expected
    run(((3, 8), (8, 12)), steps, Target(), instead=apart)


def test_the_library_takes_what_it_can() -> None:
    library = Library(lambda problem: not problem.residual)
    run(((3, 8), (8, 12)), [("Add", ROW), ("Add", WHOLE), ("Relu",)], library.target())
    assert taken(library) == (True, False, "")


@pytest.mark.parametrize("library", [False, True])
def test_gemm_with_a_residual(library: bool) -> None:
    target = Library().target() if library else Target()
    run(((8, 9), (12, 8), (12,)), [("Add", WHOLE), ("Relu",)], target, transA=1, transB=1, alpha=0.5)
    run(((8, 9), (12, 8), (9, 1)), [("Add", ROW), ("Relu",)], target, transA=1, transB=1, beta=0.5)


@pytest.mark.parametrize(("shapes", "ways"), [(((20, 600), (600, 24)), []), (((1, 600), (600, 40)), ["gemv_along_n"])], ids=str)
def test_every_tactic_does_the_region_when_it_is_forced(shapes: Any, ways: list[str]) -> None:
    random, graph = np.random.default_rng(1), Graph("main")
    result = (shapes[0][0], shapes[1][1])
    arrays = [random.standard_normal(s).astype(np.float32) for s in (*shapes, result[1:], result)]
    x, w, b, z = (graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays))
    y = insert(graph, "Relu", insert(graph, "Add", insert(graph, "Add", insert(graph, "MatMul", x, w), b), z))
    graph.set_outputs([y])
    fuse_matmul(graph)
    keys = check_graph(arrays, graph, Library().target(), 2e-4)
    names = ["gemm 64x64", "gemm 128x128", *ways]
    assert sorted(key for key in keys if "parts" not in key) == sorted(["cublaslt", *names])
    assert {key.partition(" in ")[0] for key in keys if "parts" in key} == set(names)
