"""MatMul and Gemm, by the library and by our kernels."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Estimate, Policy
from miniinfer_cli.backends.cuda.choice.deciding import first_fit
from miniinfer_cli.backends.cuda.contract.steps import Launch, LibraryCall, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.products import product_kernels
from miniinfer_cli.backends.cuda.tactics.products.library_products import library_problem
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_kernels import kernel_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product, estimate_of
from miniinfer_cli.backends.cuda.tactics.products.products import matrices, merged, product_tactics
from miniinfer_cli.ir import DType, numpy_dtype
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.numpy_library import Library

TOLERANCES = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 5e-5, "float64": 1e-11}
SHAPES = [
    ((3, 4), (4, 5)),
    ((70, 36), (36, 68)),  # more than a tile, and whole packs
    ((67, 33), (33, 65)),
    ((7,), (7,)),
    ((7,), (7, 9)),
    ((2, 3, 7), (7,)),
    ((2, 3, 4, 5), (5, 6)),
    ((2, 1, 3, 4), (5, 4, 6)),
    ((0, 4), (4, 3)),
    ((3, 0), (0, 4)),
]
F32 = (DType.F32,) * 3
AT = Operands(Operand.input(0), Operand.input(1), Operand.output(0))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def numbers(random: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    if "int" in dtype:
        info = np.iinfo(dtype)
        return random.integers(info.min, info.max, shape, dtype, endpoint=True)
    return random.standard_normal(shape).astype(numpy_dtype(DType.BF16) if dtype == "bfloat16" else dtype)


def solve(product: Product, operands: Operands, target: Target) -> Lowered | None:
    """What the heuristic's favourite of the tactics that may be taken gives."""
    decision = first_fit(product_tactics(product, operands, target), target, lambda: repr((product, operands.offsets)))
    if decision is None:
        return None
    work = Work()
    decision.tactic.emit(work)
    made = work.finished(decision.choice.key)
    assert isinstance(made, Lowered)
    return made


def keys_of(product: Any) -> list[str]:
    return [t.key for t in product_tactics(product, AT, Target())]


@pytest.mark.parametrize("sizes", [(1, 600, 40), (40, 1100, 3), (20, 600, 24)], ids=str)
def test_every_tactic_does_the_product_when_it_is_forced(sizes: Any, random: np.random.Generator) -> None:
    m, k, n = sizes
    a, b = numbers(random, (m, k)), numbers(random, (k, n))
    keys = keys_of(matrices(a.shape, b.shape, F32))
    assert len(set(keys)) == len(keys) and {"cublaslt", "gemm 64x64", "gemm 128x128", "gemm 64x64 in 2 parts"} <= set(keys)
    assert any(key.startswith(("gemv_along_k", "gemv_along_n")) for key in keys) == (min(m, n) <= PRODUCTS.few_rows)
    for key in keys:
        target = Library().target(policy=Policy(forced={"y0": key}))
        check_op("MatMul", a, b, target=target, tolerance=2e-4, by=key)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul_by_our_kernels(shapes: Any, random: np.random.Generator) -> None:
    check_op("MatMul", *(numbers(random, s) for s in shapes), tolerance=5e-5)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul_by_the_library(shapes: Any, random: np.random.Generator) -> None:
    check_op("MatMul", *(numbers(random, s) for s in shapes), tolerance=5e-5, target=Library().target())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("shapes", [((67, 33), (33, 65)), ((2, 40), (40, 3))], ids=str)
def test_types(dtype: str, shapes: Any, random: np.random.Generator) -> None:
    check_op("MatMul", *(numbers(random, s, dtype) for s in shapes), tolerance=TOLERANCES.get(dtype))


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("columns", [1024, 33])
def test_few_rows_in_parts_of_k(rows: int, columns: int, random: np.random.Generator) -> None:
    check_op("MatMul", numbers(random, (rows, 300)), numbers(random, (300, columns)), tolerance=5e-5)


@pytest.mark.parametrize("rows", [1, 5])
def test_few_rows_of_transposed_weights(rows: int, random: np.random.Generator) -> None:
    operands = numbers(random, (rows, 1024), "float16"), numbers(random, (40, 1024), "float16")
    check_op("Gemm", *operands, transB=1, tolerance=3e-2)


def test_few_columns(random: np.random.Generator) -> None:
    check_op("Gemm", numbers(random, (70, 36)), numbers(random, (36, 2)), numbers(random, (70, 1)), beta=0.5, tolerance=5e-5)


def test_tiles_in_parts_of_k(random: np.random.Generator) -> None:
    operands = numbers(random, (20, 1100)), numbers(random, (1100, 24)), numbers(random, (24,))
    check_op("Gemm", *operands, alpha=0.5, tolerance=2e-4)


def test_large_tiles(random: np.random.Generator) -> None:
    target = Target(multiprocessors=2)
    check_op("MatMul", numbers(random, (130, 17)), numbers(random, (17, 260)), target=target, tolerance=5e-5)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c", [None, (10,), (1,), (), (9, 10), (9, 1), (1, 10)], ids=str)
@pytest.mark.parametrize("library", [False, True])
def test_gemm(trans_a: int, trans_b: int, c: Any, library: bool, random: np.random.Generator) -> None:
    a = numbers(random, (12, 9) if trans_a else (9, 12))
    b = numbers(random, (10, 12) if trans_b else (12, 10))
    addend = () if c is None else (numbers(random, c),)
    target = Library().target() if library else Target()
    for alpha, beta in ((1.0, 1.0), (0.5, 0.25), (1.0, 0.0)):
        options = {"transA": trans_a, "transB": trans_b, "alpha": alpha, "beta": beta}
        check_op("Gemm", a, b, *addend, target=target, tolerance=1e-5, **options)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint64"])
def test_whole_numbers_are_scaled_as_numpy_does(dtype: str, random: np.random.Generator) -> None:
    a, b, c = (random.integers(0, 90, s).astype(dtype) for s in ((9, 12), (12, 10), (10,)))
    check_op("Gemm", a, b, c, alpha=0.3, beta=1.7)


def test_halves_are_rounded_once(random: np.random.Generator) -> None:
    a, b, c = (numbers(random, s, "float16") for s in ((9, 64), (64, 10), (9, 10)))
    check_op("Gemm", a, b, c, alpha=0.3, beta=1.7, tolerance=1e-3)


def test_nan_and_infinity_go_through() -> None:
    a = np.array([[np.nan, 1.0], [np.inf, 0.0], [1.0, 2.0]], np.float32)
    check_op("MatMul", a, np.array([[1.0, 2.0], [0.0, np.inf]], np.float32))


def test_rows_that_meet_one_matrix_are_one_product() -> None:
    assert merged(matrices((2, 3, 4, 5), (5, 6), F32)) == matrices((24, 5), (5, 6), F32)
    turned = replace(matrices((2, 3, 4), (4, 6), F32), transpose_a=True)
    assert merged(turned).batch == (Axis(2, a=12, d=18),)


def test_rows_of_a_matrix_each_are_one_product() -> None:
    first = matrices((7, 1, 5), (5, 6), F32, strides=((40, 5, 1), (6, 1)))  # of each of seven matrices
    assert merged(first) == replace(matrices((7, 5), (5, 6), F32), lda=40)
    added = replace(first, c=(6, 1), batch=tuple(replace(axis, c=18) for axis in first.batch))
    assert merged(added) == replace(matrices((7, 5), (5, 6), F32), lda=40, c=(18, 1))
    for strides in ((0, 5, 1), (3, 5, 1)):  # one row for all, and rows that overlap
        same = matrices((7, 1, 5), (5, 6), F32, strides=(strides, (6, 1)))
        assert len(merged(same).batch) == 1
    own = matrices((7, 1, 5), (7, 5, 6), F32, strides=((40, 5, 1), (30, 6, 1)))
    assert len(merged(own).batch) == 1


def test_batches_that_walk_on_are_one_axis() -> None:
    assert merged(matrices((2, 3, 4, 5), (2, 3, 5, 6), F32)).batch == (Axis(6, 20, 30, 24),)
    assert merged(matrices((2, 1, 4, 5), (2, 3, 5, 6), F32)).batch == (Axis(2, 20, 90, 72), Axis(3, 0, 30, 24))
    residual = replace(matrices((2, 4, 5), (5, 6), F32), c=(6, 1))  # the same C for both
    assert merged(residual).batch == residual.batch


def test_the_library_batches_over_the_longest_axis() -> None:
    library = Library()
    solution = solve(merged(matrices((2, 1, 4, 8), (2, 3, 8, 8), F32)), AT, library.target())
    assert solution is not None
    assert [type(a) for a in solution.actions] == [LibraryCall, LibraryCall]
    (problem,) = set(library.accepted)
    assert (problem.batch, problem.stride_a, problem.stride_b, problem.stride_d) == (3, 0, 64, 32)
    assert [o.offset for a in solution.actions if isinstance(a, LibraryCall) for o in a.operands] == [0, 0, 0, 128, 768, 384]


def test_operands_off_sixteen_bytes_are_said_to_be() -> None:
    library = Library()
    solve(merged(matrices((2, 1, 3, 5), (2, 3, 5, 7), F32)), AT, library.target())
    assert {p.alignment for p in library.accepted} == {4}
    solve(matrices((3, 8), (8, 8), F32), replace(AT, a=Operand.input(0, 8)), library.target())
    assert library.accepted[-1].alignment == 8


def test_many_calls_are_left_to_our_kernels() -> None:
    many = PRODUCTS.most_calls + 1
    product = merged(matrices((many, 1, 4, 8), (many, 99, 8, 8), F32))
    assert library_problem(product, Target()) is None
    assert library_problem(product, Target(), ProductHeuristic(most_calls=many)) is not None


def test_one_row_takes_our_kernel_though_the_library_could() -> None:
    library = Library()
    solution = solve(matrices((1, 64), (64, 128), F32), AT, library.target())
    assert solution is not None and not library.asked and solution.tactic == "gemv_along_n"


@pytest.mark.parametrize(("tf32", "compute"), [(True, "tf32"), (False, "f32")])
def test_tf32_is_the_targets_choice(tf32: bool, compute: str) -> None:
    problem = library_problem(matrices((4, 8), (8, 8), F32), Target(tf32=tf32))
    assert problem is not None and problem.compute == compute


@pytest.mark.parametrize("types", [(DType.I32,) * 3, (DType.F16, DType.F16, DType.F64), (DType.U8, DType.I8, DType.I32)])
def test_types_that_the_library_does_not_multiply(types: Any) -> None:
    assert library_problem(matrices((4, 8), (8, 8), types), Target()) is None


def test_more_batch_axes_than_a_kernel_walks(random: np.random.Generator) -> None:
    a, b = numbers(random, (2, 1, 2, 1, 2, 3, 4)), numbers(random, (1, 2, 1, 2, 1, 4, 9))
    check_op("MatMul", a, b, tolerance=1e-5)


def test_sizes_beyond_an_int_are_refused() -> None:
    product = replace(matrices((4, 8), (8, 8), F32), m=1 << 31)
    assert kernel_tactics(product, AT, Target()) == ()
    assert solve(product, AT, Target()) is None


def test_empty_products_launch_nothing() -> None:
    solution = solve(matrices((0, 8), (8, 8), F32), AT, Target())
    assert solution is not None and not solution.actions


def test_batches_beyond_the_grid(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(product_kernels, "_MOST_MATRICES", 5)  # a grid of that many, since a block takes 0.1 ms here
        for m in (1, 9):
            check_op("MatMul", numbers(random, (13, m, 2)), numbers(random, (13, 2, m)), tolerance=1e-5)
    solution = solve(matrices((65540, 9, 2), (65540, 2, 9), F32), AT, Target())
    assert solution is not None and isinstance(solution.actions[0], Launch)
    assert solution.actions[0].grid[2] == 65535


def test_c_is_spread_for_the_library(random: np.random.Generator) -> None:
    operands = numbers(random, (9, 12)), numbers(random, (12, 10)), numbers(random, (9, 1))
    target = Library().target(policy=Policy(forced={"y0": "cublaslt over C"}))
    check_op("Gemm", *operands, beta=0.5, target=target, tolerance=1e-5, by="cublaslt over C")


def test_the_favourite_comes_first() -> None:
    for shapes, first in [((1, 64, 128), "gemv_along_n"), ((9, 64, 64), "cublaslt"), ((4096, 64, 4096), "cublaslt")]:
        m, k, n = shapes
        assert keys_of(matrices((m, k), (k, n), F32))[0] == first
    assert keys_of(matrices((4096, 64), (64, 4096), F32))[1] == "gemm 128x128"
    assert keys_of(matrices((64, 64), (64, 64), F32))[1] == "gemm 64x64"


def test_the_estimate_counts_each_operand_once() -> None:
    (first, *_) = product_tactics(merged(matrices((3, 9, 8), (3, 8, 5), F32)), AT, Target())
    assert first.estimate == Estimate(2 * 3 * 9 * 8 * 5, 4 * 3 * (9 * 8 + 8 * 5 + 9 * 5))
    shared = replace(matrices((3, 9, 8), (8, 5), F32), bias=(0, 1))
    assert estimate_of(shared) == Estimate(2 * 3 * 9 * 8 * 5, 4 * (3 * 9 * 8 + 8 * 5 + 5 + 3 * 9 * 5))


def test_the_estimate_of_tiles_and_parts_is_of_what_they_do() -> None:
    product = matrices((20, 600), (600, 24), F32)
    made = {t.key: t.estimate for t in product_tactics(product, AT, Target())}
    whole = estimate_of(product)
    assert made["gemm 64x64"] == replace(whole, flops=2 * 64 * 64 * 600)
    parts = made["gemm 64x64 in 2 parts"]
    assert parts == made["gemm 64x64"] + Estimate(2 * 20 * 24, 2 * 4 * 2 * 20 * 24)
