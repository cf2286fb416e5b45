"""Matrix products whose sizes the library does not like: padded, and interleaved."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Estimate, Policy
from miniinfer_cli.backends.cuda.contract.problems import MatmulProblem
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.products.aligned_products import INTERLEAVED, PADDED, aligned_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.products import matrices, merged, product_tactics
from miniinfer_cli.ir import Constant, DType, numpy_dtype
from miniinfer_cli.ir.constants import constant as constant_of
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.numpy_library import Library

TOLERANCES = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 5e-5}
F16, F32 = (DType.F16,) * 3, (DType.F32,) * 3
AT = Operands(Operand.input(0), Operand.input(1), Operand.output(0))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


def numbers(random: np.random.Generator, shape: tuple[int, ...], dtype: str = "float16") -> Any:
    return random.standard_normal(shape).astype(numpy_dtype(DType.BF16) if dtype == "bfloat16" else dtype)


def likes(p: MatmulProblem) -> bool:
    """True for a problem of whole vectors, which the library has fast kernels for."""
    lengths = [(p.a, (p.k, p.lda, p.stride_a)), (p.b, (p.n, p.k, p.ldb, p.stride_b)), (p.d, (p.n, p.ldd, p.stride_d))]
    return p.alignment == 16 and all(n * element_nbytes(t) % 16 == 0 for t, ns in lengths for n in ns)


def check(key: str, op: str, *operands: Any, **options: Any) -> list[MatmulProblem]:
    """The operation by the tactic of this key; the problems that the library was given."""
    library = Library()
    target = library.target(policy=Policy(forced={"y0": key}))
    tolerance = TOLERANCES[operands[0].dtype.name] * 4
    check_op(op, *operands, target=target, by=key, tolerance=tolerance, **options)
    return [p for p in dict.fromkeys(library.accepted) if isinstance(p, MatmulProblem)]


# -- padded ------------------------------------------------------------------------------------------------------------

SIZES = [(9, 33, 40), (9, 40, 33), (17, 13, 19), (1, 24, 21), (5, 8, 3)]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("transposed", [0, 1])
def test_padded(dtype: str, sizes: tuple[int, int, int], weights: bool, transposed: int, random: np.random.Generator) -> None:
    m, k, n = sizes
    a, b = numbers(random, (m, k), dtype), numbers(random, (n, k) if transposed else (k, n), dtype)
    assert all(map(likes, check(PADDED, "Gemm", a, b, constants=(1,) if weights else (), transB=transposed)))


@pytest.mark.parametrize("weights", [(), (1,), (1, 2)])
@pytest.mark.parametrize("k", [24, 13])
def test_a_bias_is_padded_too(weights: tuple[int, ...], k: int, random: np.random.Generator) -> None:
    operands = numbers(random, (6, k)), numbers(random, (k, 19)), numbers(random, (19,))
    (problem,) = check(PADDED, "Gemm", *operands, alpha=0.5, constants=weights)
    assert likes(problem) and problem.bias


@pytest.mark.parametrize("n", [24, 19])
def test_what_is_added_is_padded_too(n: int, random: np.random.Generator) -> None:
    operands = numbers(random, (6, 13)), numbers(random, (13, n)), numbers(random, (6, n))
    (problem,) = check(PADDED, "Gemm", *operands)
    assert likes(problem) and problem.residual


@pytest.mark.parametrize("shapes", [((3, 5, 13), (3, 13, 19)), ((3, 5, 16), (3, 16, 19)), ((3, 5, 19), (3, 19, 16))], ids=str)
def test_batches_are_padded(shapes: Any, random: np.random.Generator) -> None:
    assert all(map(likes, check(PADDED, "MatMul", *(numbers(random, s) for s in shapes))))


def test_one_matrix_for_a_whole_batch(random: np.random.Generator) -> None:
    shared = numbers(random, (1, 7, 13)), numbers(random, (3, 13, 19))
    (problem,) = check(PADDED, "MatMul", *shared)
    assert likes(problem) and problem.stride_a == 0


def test_a_turned_left_operand_is_padded_along_k(random: np.random.Generator) -> None:
    a, b = numbers(random, (13, 16)), numbers(random, (13, 19))
    (problem,) = check(PADDED, "Gemm", a, b, transA=1)
    assert likes(problem) and (problem.k, problem.n) == (16, 24)


def test_not_a_number_beside_the_padding_stays_where_it_is(random: np.random.Generator) -> None:
    a, b = numbers(random, (9, 13)), numbers(random, (13, 19))
    a[3, 12], b[12, 5] = np.inf, np.nan
    check(PADDED, "MatMul", a, b)


# -- interleaved -------------------------------------------------------------------------------------------------------


ODD = [(dtype, n) for dtype in TOLERANCES for n in (65, 66, 67, 68, 70, 71, 121) if dtype != "float32" or n % 4]


@pytest.mark.parametrize(("dtype", "n"), ODD)
@pytest.mark.parametrize("m", [16, 21])
def test_interleaved(dtype: str, n: int, m: int, random: np.random.Generator) -> None:
    problems = check(INTERLEAVED, "MatMul", numbers(random, (m, 40), dtype), numbers(random, (40, n), dtype), constants=(1,))
    (main,) = (p for p in problems if p.batch > 1)
    assert likes(main) and main.m == m // main.batch


@pytest.mark.parametrize("constants", [(), (1,)])
def test_weights_that_lie_as_columns_are_read_as_they_are(constants: tuple[int, ...], random: np.random.Generator) -> None:
    operands = numbers(random, (24, 16)), numbers(random, (131, 16))
    check(INTERLEAVED, "Gemm", *operands, transB=1, alpha=0.25, constants=constants)
    product = replace(matrices((24, 16), (131, 16), F16, transpose_b=True))
    tactic = next(t for t in listed(product, constant=operands[1]) if t.key == INTERLEAVED)
    assert tactic.estimate.nbytes < 8 * 2 * (24 * 16 + 131 * 16 + 24 * 131)


def listed(product: Product, constant: Any = None, at: Operands = AT) -> list[Any]:
    held: dict[Operand, Constant] = {} if constant is None else {at.b: constant_of(constant)}
    found = aligned_tactics(product, replace(at, constants=held), Target())
    return [*found.ahead, *found.beside]


def test_what_cannot_be_interleaved_is_not() -> None:
    weights = np.zeros((16, 131), np.float16)
    product = matrices((24, 16), (16, 131), F16)
    assert [t.key for t in listed(product, weights)] == [PADDED, INTERLEAVED]
    for other in (
        replace(product, bias=(0, 1)),
        replace(product, c=(131, 1)),
        replace(product, m=7),
        replace(product, transpose_a=True, lda=24),
    ):
        assert INTERLEAVED not in [t.key for t in listed(other, weights)]
    assert [t.key for t in listed(product)] == [PADDED]
    assert [t.key for t in listed(matrices((24, 15), (15, 131), F16), np.zeros((15, 131), np.float16))] == [PADDED]
    assert [t.key for t in listed(product, weights, replace(AT, d=Operand.output(0, 2)))] == [PADDED]


# -- which is taken ----------------------------------------------------------------------------------------------------


class _Weights:
    """A constant of any size, of which only the shape is asked."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype = shape, DType.F16


def favourite(m: int, k: int, n: int, types: Any = F16, weights: bool = True, **changes: Any) -> str:
    product = replace(matrices((m, k), (k, n), types), **changes)
    held: Any = {AT.b: _Weights(k, n)} if weights else {}
    return product_tactics(product, replace(AT, constants=held), Target())[0].key


def test_the_favourite_is_what_takes_least_time() -> None:
    assert favourite(8192, 768, 50257) == INTERLEAVED
    assert favourite(128, 768, 50257) == favourite(1024, 768, 50257) == PADDED
    assert favourite(8192, 768, 50257, bias=(0, 1)) == PADDED
    assert favourite(4096, 1024, 1001, F32) == favourite(8192, 1001, 768) == PADDED
    assert favourite(16, 768, 50257) == favourite(64, 1280, 1001) == favourite(102400, 256, 255) == PADDED
    assert favourite(8192, 768, 50256) == favourite(64, 64, 21) == favourite(512, 256, 101) == "cublaslt"
    assert favourite(1, 768, 50257).startswith("gemv")
    assert favourite(8192, 768, 50257, (DType.F64,) * 3) == "cublaslt"


def test_nothing_is_offered_where_the_library_has_no_faster_kernels() -> None:
    product = matrices((4096, 1024), (1024, 1001), F32)
    assert aligned_tactics(product, AT, Target(tf32=False)).ahead == ()
    assert aligned_tactics(product, AT, Target(tf32=False)).beside == ()
    assert aligned_tactics(replace(product, n=1000, ldb=1000, ldd=1000), AT, Target()).beside == ()
    assert aligned_tactics(merged(matrices((2, 3, 4, 5), (2, 1, 5, 7), F16)), AT, Target()).ahead == ()


def test_rows_that_begin_elsewhere_are_moved(random: np.random.Generator) -> None:
    """Sizes are whole vectors, and an operand lies behind the start of a buffer, or has a pitch of its own."""
    product = matrices((64, 64), (64, 64), F16)
    for at in (replace(AT, a=Operand.input(0, 2)), replace(AT, b=Operand.input(1, 8)), replace(AT, d=Operand.output(0, 4))):
        assert [t.key for t in listed(product, at=at)] == [PADDED]
    assert [t.key for t in listed(replace(product, lda=65))] == [PADDED]
    assert listed(product) == []
    batch = replace(product, batch=(Axis(3, 64 * 64 + 1, 0, 64 * 64),))
    assert [t.key for t in listed(batch)] == [PADDED]


def test_the_estimate_counts_the_copies() -> None:
    product = matrices((64, 13), (13, 19), F16)
    (tactic,) = listed(product)
    copied = 2 * 2 * (64 * 13 + 13 * 19 + 64 * 24)
    assert tactic.estimate == Estimate(2 * 64 * 16 * 24, 2 * (64 * 16 + 16 * 24 + 64 * 24) + copied)


def test_both_ways_share_one_form_of_the_weights() -> None:
    """A plan that runs with few rows and with many holds them once more, not twice."""
    keys = []
    for m in (128, 8192):
        product = matrices((m, 768), (768, 1001), F16)
        for tactic in listed(product, np.zeros((768, 1001), np.float16)):
            work = Work()
            tactic.emit(work)
            lowered = work.finished(tactic.key)
            assert isinstance(lowered, Lowered)
            keys += [d.key for d in lowered.derived]
    assert len(keys) == 4 and len(set(keys)) == 1
