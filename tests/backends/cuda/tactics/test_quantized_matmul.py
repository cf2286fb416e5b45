"""MatMulInteger and QLinearMatMul: exact, whatever way is taken."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.steps import LibraryCall
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import DType, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops import insert
from tests.backends.cuda.harness import check_op, program_of
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics.every_tactic import check_every_tactic

PAIRS = [(np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8), (np.int8, np.uint8)]


def numbers(dtype: Any, shape: Any, seed: int = 0) -> Any:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def scales(shape: Any) -> Any:
    return np.random.default_rng(5).uniform(0.002, 0.02, shape).astype(np.float32)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0].__name__}-{p[1].__name__}")
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("library", [False, True])
def test_matmul_integer(pair: Any, weights: bool, library: bool) -> None:
    target = Library().target() if library else Target()
    options: Any = {"target": target, "constants": (1,) if weights else ()}
    for a, b in (((3, 5), (5, 4)), ((70, 32), (32, 65)), ((2, 3, 5), (5, 4)), ((5,), (5, 4)), ((3, 5), (5,))):
        x, w = numbers(pair[0], a), numbers(pair[1], b, 1)
        check_op("MatMulInteger", x, w, **options)
        check_op("MatMulInteger", x, w, numbers(pair[0], (), 2), **options)
        check_op("MatMulInteger", x, w, None, numbers(pair[1], b[-1:] if len(b) > 1 else (1,), 3), **options)
        rows = numbers(pair[0], a[-2:-1] if len(a) == 2 else (1,), 4)
        check_op("MatMulInteger", x, w, rows, numbers(pair[1], (), 5), **options)


@pytest.mark.parametrize("library", [False, True])
def test_zero_points_of_batches(library: bool) -> None:
    options: Any = {"target": Library().target() if library else Target()}
    x, w = numbers(np.uint8, (2, 1, 3, 5)), numbers(np.int8, (3, 5, 4), 1)
    check_op("MatMulInteger", x, w, numbers(np.uint8, (2, 1, 3, 1), 2), numbers(np.int8, (3, 1, 4), 3), **options)
    check_op("MatMulInteger", x, w, numbers(np.uint8, (1, 1, 1, 1), 2), numbers(np.int8, (4,), 3), **options)


def test_zero_points_along_k_are_taken_before_the_product() -> None:
    x, w = numbers(np.uint8, (3, 5)), numbers(np.int8, (5, 4), 1)
    zeros = numbers(np.uint8, (3, 5), 2), numbers(np.int8, (5, 1), 3)
    check_op("MatMulInteger", x, w, *zeros, instead=["Cast", "Sub", "MatMul"])


def test_empty() -> None:
    check_op("MatMulInteger", numbers(np.uint8, (0, 5)), numbers(np.int8, (5, 4)))
    check_op("MatMulInteger", numbers(np.uint8, (3, 0)), numbers(np.int8, (0, 4)))
    check_op("MatMulInteger", numbers(np.uint8, (3, 0)), numbers(np.int8, (0, 4)), target=Library().target())


def test_zero_points_of_zero_leave_the_library_alone() -> None:
    library = Library()
    zero = np.zeros((), np.int8)
    x, w = numbers(np.int8, (3, 8)), numbers(np.int8, (8, 4), 1)
    check_op("MatMulInteger", x, w, zero, zero, constants=(1, 2, 3), target=library.target())
    (problem,) = set(library.accepted)
    assert (problem.compute, problem.a, problem.d) == ("i32", "i8", "i32")
    assert problem.transpose_b and not problem.transpose_a  # k together in both, which every device takes


def test_signed_weights_without_zero_points_are_a_call_alone() -> None:
    x, w = numbers(np.int8, (3, 8)), numbers(np.int8, (8, 4), 1)
    graph = Graph("product")
    y = insert(graph, "MatMulInteger", graph.add_input("x", TensorType(DType.I8, x.shape)), graph.add_constant(w, "w"))
    graph.set_outputs([y])
    (step,) = program_of(graph, [x], Library().target()).steps
    assert [type(action) for action in step.actions] == [LibraryCall]


@pytest.mark.parametrize("pair", PAIRS[:3], ids=lambda p: f"{p[0].__name__}-{p[1].__name__}")
@pytest.mark.parametrize("result", [np.uint8, np.int8])
def test_qlinear_matmul(pair: Any, result: Any) -> None:
    for a, b in (((3, 5), (5, 4)), ((2, 3, 5), (5, 4)), ((2, 3, 5), (2, 5, 4)), ((5,), (5, 4)), ((0, 5), (5, 4))):
        for rows in ((), (1,), *(((3,),) if len(a) > 1 and a[0] else ())):
            for columns in ((), (4,)):
                x, w = numbers(pair[0], a), numbers(pair[1], b, 1)
                left = x, scales(rows), numbers(pair[0], rows, 2)
                right = w, scales(columns), numbers(pair[1], columns, 3)
                check_op("QLinearMatMul", *left, *right, scales(rows) * 100, numbers(result, rows, 4))


def test_qlinear_matmul_by_the_library() -> None:
    library = Library()
    x, w = numbers(np.uint8, (33, 64)), numbers(np.int8, (64, 20), 1)
    left, right = (x, scales(()), numbers(np.uint8, (), 2)), (w, scales((20,)), np.zeros((20,), np.int8))
    check_op(
        "QLinearMatMul", *left, *right, scales(()) * 1000, numbers(np.uint8, (), 4), constants=(3, 5), target=library.target()
    )
    assert library.accepted


def test_ties_go_to_the_even_number() -> None:
    x, w = np.arange(-6, 6, dtype=np.int8)[:, None], np.ones((1, 1), np.int8)
    one, half = np.ones((), np.float32), np.full((), 0.5, np.float32)
    zero = np.zeros((), np.int8)
    check_op("QLinearMatMul", x, half, zero, w, one, zero, one, zero)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_narrow_scales(dtype: str) -> None:
    kind = numpy_dtype(DType(dtype))
    x, w = numbers(np.uint8, (3, 5)), numbers(np.int8, (5, 4), 1)
    left = x, scales(()).astype(kind), numbers(np.uint8, (), 2)
    check_op(
        "QLinearMatMul",
        *left,
        w,
        scales((4,)).astype(kind),
        numbers(np.int8, (4,)),
        scales(()).astype(kind),
        numbers(np.uint8, ()),
    )


OWN = ["gemm 64x64", "gemm 128x128"]


@pytest.mark.parametrize(
    ("kinds", "zeros", "weights", "keys"),
    [
        ((np.uint8, np.int8), True, True, ["cublaslt over signed bytes", *OWN]),
        ((np.uint8, np.int8), True, False, OWN),
        ((np.int8, np.int8), False, False, ["cublaslt", *OWN]),
        ((np.int8, np.int8), False, True, ["cublaslt over signed bytes", "cublaslt", *OWN]),
    ],
    ids=["weights", "computed", "as they are", "weights as they are"],
)
def test_every_tactic_multiplies_when_it_is_forced(kinds: Any, zeros: bool, weights: bool, keys: list[str]) -> None:
    x, w = numbers(kinds[0], (20, 33)), numbers(kinds[1], (33, 24), 1)
    points = (numbers(kinds[0], (), 2), numbers(kinds[1], (24,), 3)) if zeros else ()
    target = Library().target()
    found = check_every_tactic("MatMulInteger", x, w, *points, constants=(1,) if weights else (), target=target)
    assert found == [*keys, "rewritten"]
    left, right = (x, scales(()), numbers(kinds[0], (), 2)), (w, scales((24,)), numbers(kinds[1], (24,), 3))
    if not zeros:  # which are there, and known to be none
        none = (np.zeros((), np.int8), np.zeros((24,), np.int8))
        rest = (scales(()) * 1000, numbers(np.int8, (), 4))
        operands = (x, scales(()), none[0], w, scales((24,)), none[1], *rest)
        found = check_every_tactic("QLinearMatMul", *operands, constants=(2, 5, *((3,) if weights else ())), target=target)
        assert found == [*(f"{key}, requantized" for key in keys), "rewritten"]
    else:
        rest, constants = (scales(()) * 1000, numbers(np.uint8, (), 4)), (3, 5) if weights else ()
        found = check_every_tactic("QLinearMatMul", *left, *right, *rest, constants=constants, target=target)
        assert found == [*(f"{key}, requantized" for key in keys), "rewritten"]


def test_zero_points_along_k_have_one_way() -> None:
    zeros = numbers(np.uint8, (3, 5), 2), numbers(np.int8, (5, 1), 3)
    assert check_every_tactic(
        "MatMulInteger", numbers(np.uint8, (3, 5)), numbers(np.int8, (5, 4), 1), *zeros, target=Target()
    ) == ["rewritten"]


def test_a_disabled_library_multiplies_no_signed_bytes() -> None:
    target = Library().target(policy=Policy(disabled=frozenset({"cublaslt"})))
    x, w = numbers(np.uint8, (20, 33)), numbers(np.int8, (33, 24), 1)
    check_op("MatMulInteger", x, w, numbers(np.uint8, (), 2), constants=(1,), target=target, by="gemm 64x64")
