"""MatMulInteger by constant matrices on the CPU beside its reference: every sum exact."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.backends.cpu.lowering import quantized_matmul
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.ops import insert
from tests.backends.cpu.lowering.one_node import check_op


def whole(*shape: int, dtype: Any = np.uint8) -> Any:
    limits = np.iinfo(dtype)
    return np.random.default_rng(shape).integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("a", [np.uint8, np.int8])
@pytest.mark.parametrize("b", [np.uint8, np.int8])
@pytest.mark.parametrize("points", [(), (3,), (3, 5)])
def test_every_type(a: Any, b: Any, points: tuple[int, ...]) -> None:
    zeros = [np.asarray(p, t) for p, t in zip(points, (a, b), strict=False)]
    check_op("MatMulInteger", whole(4, 7, dtype=a), whole(7, 6, dtype=b), *zeros, constants=(1, 3), tactic="exact gemm")


@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 7), (0, 7)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    check_op("MatMulInteger", whole(*shape), whole(7, 6), constants=(1,), tactic="exact gemm")


@pytest.mark.parametrize("points", [(), (200,), (200, 3), (200, 255)])
def test_large_matrices_in_blocks(points: tuple[int, ...], monkeypatch: Any) -> None:
    monkeypatch.setattr(quantized_matmul, "_STREAMED_NBYTES", 1)
    monkeypatch.setattr(quantized_matmul, "_BLOCK", 5)
    zeros = [np.asarray(p, np.uint8) for p in points]
    for rows in (4, 0):
        check_op("MatMulInteger", whole(rows, 7), whole(7, 13), *zeros, constants=(1, 3), tactic="exact gemm in blocks")
    check_op(
        "MatMulInteger", whole(2, 3, 7, dtype=np.int8), whole(7, 10, dtype=np.int8), constants=(1,), tactic="exact gemm in blocks"
    )
    most = np.full((2, 2000), 255, np.uint8)
    check_op("MatMulInteger", most, np.full((2000, 3), 255, np.uint8), constants=(1,), tactic="exact gemm")


def test_no_terms() -> None:
    check_op("MatMulInteger", whole(3, 0), whole(0, 6), constants=(1,), tactic="exact gemm")


def test_zero_points_of_rows_and_columns() -> None:
    rows, columns = np.arange(4, dtype=np.uint8), np.arange(6, dtype=np.uint8)
    check_op("MatMulInteger", whole(4, 7), whole(7, 6), rows, columns, constants=(1, 3), tactic="exact gemm")


def test_sums_beyond_what_f32_holds() -> None:
    most = np.full((2, 2000), 255, np.uint8)
    check_op("MatMulInteger", most, np.full((2000, 3), 255, np.uint8), constants=(1,), tactic="exact gemm")
    check_op(
        "MatMulInteger", most, np.full((2000, 3), -128, np.int8), np.asarray(1, np.uint8), constants=(1,), tactic="exact gemm"
    )


@pytest.mark.parametrize(("a", "b", "constants"), [((4, 7), (7, 6), ()), ((7,), (7, 6), (1,)), ((2, 4, 7), (2, 7, 6), (1,))])
def test_what_is_left_to_the_reference(a: tuple[int, ...], b: tuple[int, ...], constants: tuple[int, ...]) -> None:
    check_op("MatMulInteger", whole(*a), whole(*b), constants=constants, tactic="reference")


def test_a_zero_point_that_is_computed_is_left_to_the_reference() -> None:
    zeros = (np.asarray(3, np.uint8), np.asarray(5, np.uint8))
    check_op("MatMulInteger", whole(4, 7), whole(7, 6), *zeros, constants=(1,), tactic="reference")


@pytest.mark.parametrize(("weight", "held"), [(255, 4), (3, 1)])
def test_narrow_copies_are_kept_where_they_are_read_alone(weight: int, held: int, monkeypatch: Any) -> None:
    """Of sums that leave what f32 holds the wide matrix is read, and the narrow one was but looked at."""
    monkeypatch.setattr(quantized_matmul, "_STREAMED_NBYTES", 1)
    graph = Graph("g")
    x = graph.add_input("x", TensorType(DType.U8, (2, 2000)))
    w = graph.add_constant(np.full((2000, 3), weight, np.uint8), "w")
    graph.set_outputs([insert(graph, "MatMulInteger", x, w)])
    model = CpuModel(graph, 1)
    model.make_program([v.type for v in graph.inputs])
    assert model.stats()["weights"]["derived_nbytes"] == held * 2000 * 3
    model.close()
