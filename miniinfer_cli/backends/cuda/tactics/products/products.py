"""Matrix products: the tactics of the library and of our kernels, in the heuristic's order."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.strides import is_in_rows, row_major, spread_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.viewing import ALIGNMENT
from miniinfer_cli.backends.cuda.tactics.products.aligned_products import aligned_tactics
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import token_tactics
from miniinfer_cli.backends.cuda.tactics.products.large_products import large_tactics
from miniinfer_cli.backends.cuda.tactics.products.library_products import LIBRARY, library_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_kernels import kernel_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product, estimate_of
from miniinfer_cli.backends.cuda.tactics.products.row_products import row_tactics
from miniinfer_cli.ir import DType

NOTHING = "nothing"
"""The key of the tactic of an empty product."""


def product_tactics(
    product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS
) -> tuple[Tactic, ...]:
    """The ways of a product, the heuristic's favourite first; none where a size is beyond an int and no library is there.

    A product with one row or column of floats is bound by the reading of its weights, which our kernels do as fast as memory
    gives them: they come first whatever the library can. So does the kernel for few tokens where it was measured to be faster.
    """
    if product.is_empty:
        return (Tactic(NOTHING, lambda work: None, estimate_of(product)),)
    kernels = kernel_tactics(product, operands, target, table)
    others = aligned_tactics(product, operands, target, table)
    library = (*others.ahead, *library_tactics(product, operands, target, table), *others.beside)
    tokens = token_tactics(product, operands, target, table)
    rows = row_tactics(product, operands, target, table)
    if rows and table.favours_rows(product, target.arch):
        return (*rows, *kernels, *library) if is_gemv(product) else (*rows, *library, *kernels, *tokens)
    if is_gemv(product):
        return (*kernels, *library, *rows)
    large = large_tactics(product, operands, target, table)
    favoured = table.favours_tokens(product, target.arch)
    return (*tokens, *library, *kernels, *large) if favoured else (*library, *kernels, *tokens, *large, *rows)


def main_tactics(product: Product, operands: Operands, target: Target) -> tuple[Tactic, ...]:
    """Of ``product_tactics`` one for each way, with the number of parts that the heuristic would take: what other work lists.

    Padded and interleaved ones are among them where they are faster.
    """
    slower = {t.key for t in aligned_tactics(product, operands, target).beside}
    by_way: dict[str, Tactic] = {}
    for tactic in product_tactics(product, operands, target):
        if tactic.key not in slower:
            by_way.setdefault(tactic.key.partition(" in ")[0], tactic)
    return tuple(by_way.values())


def alike(*listed: Sequence[Tactic]) -> tuple[tuple[Tactic, ...], ...]:
    """For work that holds several products: a way for each, the heuristic's favourites first.

    All go the same way, or each goes its favourite, the plain library's or the first of our kernels', in case some are refused.
    """
    ours = [[t.key for t in tactics if not t.problems][:1] for tactics in listed]
    leaders = [{LIBRARY, *own, *(t.key for t in tactics[:1])} for own, tactics in zip(ours, listed, strict=True)]
    return tuple(
        chosen
        for chosen in itertools.product(*listed)
        if len({t.key for t in chosen}) == 1 or all(t.key in keys for t, keys in zip(chosen, leaders, strict=True))
    )


def is_gemv(product: Product) -> bool:
    """True for one row or column of floats: the heuristic takes our kernels whatever the library can."""
    return min(product.m, product.n) == 1 and product.a.is_float


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
    """With as few batch axes as may be: those that walk on from each other are one, and rows that all meet one B are
    rows, also where each lies in a matrix of its own."""
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
        elif p.m == 1 and last.b == 0 and last.a >= p.k and last.d >= p.n:
            c = None if p.c is None else (last.c, p.c[1])
            p, axes = replace(p, m=last.size, lda=last.a, ldd=last.d, c=c), axes[:-1]
    return replace(p, batch=tuple(axes))
