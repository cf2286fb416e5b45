"""Matrix products as the library takes them: the problem, and the calls for all of its batch axes."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.problems import Compute, MatmulProblem
from miniinfer_cli.backends.cuda.contract.steps import LibraryCall, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product, estimate_of
from miniinfer_cli.ir import DType

LIBRARY = "cublaslt"
"""The key of the tactic that is the library's."""


def library_tactics(
    product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS
) -> tuple[Tactic, ...]:
    """The product by the library; none where it has no words for it."""
    problem = library_problem(product, target, table)
    if problem is None:
        return ()
    problem = replace(problem, alignment=math.gcd(problem.alignment, *operands.offsets))
    return (
        Tactic(LIBRARY, lambda work: work.add(*_calls(product, problem, operands)), estimate_of(product), problems=(problem,)),
    )


def library_problem(product: Product, target: Target, table: ProductHeuristic = PRODUCTS) -> MatmulProblem | None:
    """The problem in the library's terms, to be solved for each place of the axes it does not batch over; None without one."""
    p = product
    compute = _compute(p, target)
    if compute is None or p.is_empty or p.k == 0 or p.a_zero is not None or p.b_zero is not None:
        return None
    if p.c is not None and (p.c != (p.ldd, 1) or p.beta != 1 or any(axis.c != axis.d for axis in p.batch)):
        return None
    axis, others = _batched(p)
    if calls_of(p) > table.most_calls or (axis.size > 1 and axis.d == 0):
        return None
    return MatmulProblem(
        *(p.m, p.n, p.k, p.a, p.b, p.d, compute, p.transpose_a, p.transpose_b, p.lda, p.ldb, p.ldd),
        *(axis.size, axis.a, axis.b, axis.d),
        alpha=p.alpha,
        bias=p.bias is not None,
        residual=p.c is not None,
        activation=p.activation,
        alignment=_alignment(p, others),
    )


def calls_of(product: Product) -> int:
    """How many calls of the library a product takes."""
    return math.prod(axis.size for axis in _batched(product)[1])


def _compute(p: Product, target: Target) -> Compute | None:
    if p.a.is_half and p.b == p.a and p.d in (p.a, DType.F32):
        return Compute.F32
    if p.a == p.b == p.d == DType.F32:
        return Compute.TF32 if target.tf32 else Compute.F32
    if p.a == p.b == p.d == DType.F64:
        return Compute.F64
    return Compute.I32 if p.a == p.b == DType.I8 and p.d == DType.I32 else None


def _batched(p: Product) -> tuple[Axis, tuple[Axis, ...]]:
    """The axis that one call batches over, and the others: the longest, so that there are few calls."""
    if not p.batch:
        return Axis(1), ()
    at = max(range(len(p.batch)), key=lambda i: p.batch[i].size)
    return p.batch[at], (*p.batch[:at], *p.batch[at + 1 :])


def _calls(p: Product, problem: MatmulProblem, operands: Operands) -> Iterator[LibraryCall[Operand]]:
    _, others = _batched(p)
    for place in itertools.product(*(range(axis.size) for axis in others)):
        moved = operands.moved(p, others, place)
        listed = (moved.a, moved.b, moved.d, moved.c, moved.bias)
        yield LibraryCall(problem, tuple(o for o in listed if o is not None))


def _alignment(p: Product, others: tuple[Axis, ...]) -> int:
    """What every operand of every call lies on, up to 16 bytes."""
    steps = [
        getattr(axis, name) * element_nbytes(dtype) for axis in others for name, dtype in (("a", p.a), ("b", p.b), ("d", p.d))
    ]
    return math.gcd(16, *steps)
