"""Matrix products: the tactics of the library and of our kernels, in the heuristic's order."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.launching.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.launching.product_kernels import kernel_tactics
from miniinfer_cli.backends.cuda.launching.product_records import Axis, Operands, Product, estimate_of
from miniinfer_cli.backends.cuda.problems import Compute, MatmulProblem
from miniinfer_cli.backends.cuda.steps import LibraryCall, Operand
from miniinfer_cli.backends.cuda.strides import is_in_rows, row_major, spread_strides
from miniinfer_cli.backends.cuda.tactic import Tactic
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import element_nbytes
from miniinfer_cli.backends.cuda.viewing import ALIGNMENT
from miniinfer_cli.ir import DType

LIBRARY = "cublaslt"
"""The key of the tactic that is the library's."""
NOTHING = "nothing"
"""The key of the tactic of an empty product."""


def product_tactics(
    product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS
) -> tuple[Tactic, ...]:
    """The ways of a product, the heuristic's favourite first; none where a size is beyond an int and no library is there.

    A product with one row or column of floats is bound by the reading of its weights, which our kernels do as fast as memory
    gives them: they come first whatever the library can.
    """
    if product.is_empty:
        return (Tactic(NOTHING, lambda work: None, estimate_of(product)),)
    kernels = kernel_tactics(product, operands, target, table)
    library = library_tactics(product, operands, target, table)
    return (*kernels, *library) if is_gemv(product) else (*library, *kernels)


def main_tactics(product: Product, operands: Operands, target: Target) -> tuple[Tactic, ...]:
    """Of ``product_tactics`` one for each way, with the number of parts that the heuristic would take: what other work lists."""
    by_way: dict[str, Tactic] = {}
    for tactic in product_tactics(product, operands, target):
        by_way.setdefault(tactic.key.partition(" in ")[0], tactic)
    return tuple(by_way.values())


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


def is_gemv(product: Product) -> bool:
    """True for one row or column of floats: the heuristic takes our kernels whatever the library can."""
    return min(product.m, product.n) == 1 and product.a.is_float


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


def matrices(
    a: Sequence[int],
    b: Sequence[int],
    types: tuple[DType, DType, DType],
    transpose_a: bool = False,
    transpose_b: bool = False,
    strides: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Product:
    """The product of operands of these shapes, by numpy's rules for vectors and leading axes; they are dense without ``strides``.

    Raises ValueError for strides by which neither rows nor columns lie side by side (``reads_matrix``).
    """
    walks = (row_major(a), row_major(b)) if strides is None else strides
    left, walk_a = ((1, *a), (0, *walks[0])) if len(a) == 1 else (tuple(a), tuple(walks[0]))
    right, walk_b = ((*b, 1), (*walks[1], 1)) if len(b) == 1 else (tuple(b), tuple(walks[1]))
    m, k = reversed(left[-2:]) if transpose_a else left[-2:]
    n = right[-2] if transpose_b else right[-1]
    sizes_a, sizes_b = left[:-2], right[:-2]
    sizes = np.broadcast_shapes(sizes_a, sizes_b)
    (turned_a, lda), (turned_b, ldb) = _stored(left[-2:], walk_a[-2:]), _stored(right[-2:], walk_b[-2:])
    in_batch = spread_strides(sizes_a, walk_a[:-2], sizes), spread_strides(sizes_b, walk_b[:-2], sizes), row_major(sizes)
    return Product(
        *(m, n, k, *types, transpose_a is not turned_a, transpose_b is not turned_b, lda, ldb, n),
        batch=tuple(Axis(size, x, y, d * m * n) for size, x, y, d in zip(sizes, *in_batch, strict=True)),
    )


def reads_matrix(sizes: Sequence[int], strides: Sequence[int], nbytes: int) -> bool:
    """True when a product reads an operand of these strides where it lies: its rows, or its columns, as pieces at multiples of
    16 bytes, which all ways of products read fastest."""
    unit = ALIGNMENT // nbytes
    if len(sizes) < 2:
        return False
    turned = (*sizes[:-2], sizes[-1], sizes[-2]), (*strides[:-2], strides[-1], strides[-2])
    return any(walk[-1] == 1 and is_in_rows(shape, walk, unit) for shape, walk in ((sizes, strides), turned))


def _stored(sizes: Sequence[int], strides: Sequence[int]) -> tuple[bool, int]:
    """Whether a matrix is stored by columns, and how far apart these or its rows lie."""
    (rows, columns), (row, column) = sizes, strides
    if column == 1 or columns == 1:
        return False, columns if rows == 1 else row
    if row == 1 or rows == 1:
        return True, column
    raise ValueError(f"a matrix of strides {tuple(strides)}")


def merged(product: Product) -> Product:
    """With as few batch axes as may be: those that walk on from each other are one, and rows that all meet one B are rows."""
    axes: list[Axis] = []
    for axis in product.batch:
        if axis.size == 1:
            continue
        if axes and all(s == t * axis.size for s, t in zip(axes[-1].strides, axis.strides, strict=True)):
            axis = replace(axis, size=axes.pop().size * axis.size)
        axes.append(axis)
    p = product
    if axes and not p.transpose_a and p.a_zero is None and p.b_zero is None:
        last = axes[-1]
        c_follows = p.c is None or last.c == p.m * p.c[0]
        if last.b == 0 and last.a == p.m * p.lda and last.d == p.m * p.ldd and c_follows:
            p, axes = replace(p, m=p.m * last.size), axes[:-1]
    return replace(p, batch=tuple(axes))


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
