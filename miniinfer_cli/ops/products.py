"""Matrix products in parts, for several threads: each part is a product that the matrix library does with one.

How a product is cut follows from its shapes and the number of threads, whoever does which part and when: the results are the
same bits every time. Another number of threads may round otherwise, since the library sums other terms first in other parts.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from miniinfer_cli.ir import Array

Stage = tuple[int, Callable[[int], object]]
"""How many parts, and what does the one of a number."""


class ForEach(Protocol):
    """``for_each(parts, body)`` calls ``body(i)`` for each i below ``parts``, on at most ``for_each.count`` threads at once."""

    count: int

    def __call__(self, parts: int, body: Callable[[int], object]) -> None:
        """See the class."""

    def in_turn(self, *stages: Stage) -> None:
        """The same for several: a stage begins when all parts of the one before are done. Waking threads once costs less."""


_PART = 4 << 20
"""Multiplications in a part, some 0.15 ms: far more than a thread takes to wake, and little to wait for at the end."""
_READ = 12  # multiplications in the time that one element takes on its way from memory: a product of a vector is all reading
_ROWS, _COLUMNS = 384, 128
"""The least of a part: the matrix library packs both operands of each part, which costs rows less than columns (OpenBLAS)."""
_SMALL = 1 << 17  # elements of a matrix that is packed in some 50 us, no more than a second stage costs: parts of few rows pay
_ALIGNED = (48, 16, 8)  # rows or columns that a cut is a multiple of: OpenBLAS's kernels do so many at a time


_UNPACKED = 1_000_000
"""Multiplications up to which OpenBLAS, for AVX-512, packs no operand; for few rows by a large matrix packing takes longest."""
_UNPACKED_OUT = 1024  # elements of such a product, where the rows of the second matrix lie apart (it is turned)
_WIDEST, _NARROWEST, _NARROWEST_TURNED = 256, 64, 16  # columns of a piece, as measured


_FOLLOWS = 1 << 17
"""Elements of a product's rows that what follows takes at a time, at least: see BLOCK in cpu/lowering/pointwise."""

_KEPT = 64  # parts of one convolution, by buffers, that stay ready: each holds some dozens of views

Cut = tuple[tuple[slice, ...], slice, slice]
Call = Callable[[], object]
"""Something that was made ready: calling it does it, on arrays that are where they were. What it gives means nothing."""
Then = Callable[[slice], Call]
"""Makes ready what follows on rows of a product of two matrices, once they are there: while they are in the cache."""


def multiply(a: Array, b: Array, out: Array | None = None, for_each: ForEach | None = None) -> Array:
    """``np.matmul(a, b, out=out)``, in parts when there is a ``for_each`` and much to do."""
    if for_each is None or len(_cuts_of(a, b, for_each.count)) < 2:
        pieces = pieces_of(a, b)
        if not pieces:
            return np.matmul(a, b, out=out)
        result = _output(a, b) if out is None else out
        for columns in pieces:
            np.matmul(a, b[:, columns], result[:, columns])
        return result
    result = _output(a, b) if out is None else out
    for_each.in_turn(*product_stages(a, b, result, for_each.count))
    return result


def prepare_product(a: Array, b: Array, out: Array, for_each: ForEach | None = None, then: Then | None = None) -> Call:
    """``multiply`` of these arrays made ready, to be called as often as they hold something new.

    ``then``, for two matrices only, follows on all rows: on the thread that did them, where a part is whole rows.
    """
    if for_each is None or len(_cuts_of(a, b, for_each.count)) < 2:
        product = _prepared(a, b, out)
        return product if then is None else in_order(product, then(slice(0, len(a))))
    return functools.partial(for_each.in_turn, *product_stages(a, b, out, for_each.count, then))


def pieces_of(a: Array, b: Array) -> Sequence[slice]:
    """Columns of ``b`` that are multiplied one piece after the other; none where one call does as well.

    8 rows by [768, 3072] take 0.46 ms then, and 1.1 in one call.
    """
    if a.ndim != 2 or b.ndim != 2 or len(a) < 2 or a.dtype != b.dtype or a.dtype.kind != "f" or a.strides[1] != a.itemsize:
        return ()
    return _columns_of_pieces(*a.shape, b.shape[1], b.strides[0] == b.itemsize < b.strides[1])


@functools.lru_cache(4096)
def _columns_of_pieces(rows: int, inner: int, columns: int, turned: bool) -> Sequence[slice]:
    if rows * inner * columns <= _UNPACKED:
        return ()
    most = min(_UNPACKED // (rows * inner), _WIDEST, _UNPACKED_OUT // rows if turned else _WIDEST)
    wide = 1 << max(most, 1).bit_length() - 1
    if wide < (_NARROWEST_TURNED if turned else _NARROWEST):
        return ()
    return [slice(start, min(start + wide, columns)) for start in range(0, columns, wide)]


def _prepared(a: Array, b: Array, out: Array) -> Call:
    """``np.matmul(a, b, out)``, in pieces where that is faster."""
    pieces = pieces_of(a, b)
    if not pieces:
        return functools.partial(np.matmul, a, b, out)
    return in_order(*(functools.partial(np.matmul, a, b[:, columns], out[:, columns]) for columns in pieces))


def in_order(*calls: Call) -> Call:
    """The calls one after the other, as one."""
    if len(calls) == 1:
        return calls[0]
    if len(calls) == 2:
        one, other = calls

        def both() -> None:
            one()
            other()

        return both

    def run() -> None:
        for call in calls:
            call()

    return run


def in_buffers(parts: int, buffers: int, ready: Callable[[int, int], Call]) -> Callable[[int], None]:
    """What does the part of a number in whichever of the ``buffers`` is free: one for each thread, by its number.

    ``ready(part, buffer)`` is made once for each pair, where they are few enough to be kept.
    """
    free = list(range(buffers))
    kept: dict[tuple[int, int], Call] = {}

    def compute(part: int) -> None:
        buffer = free.pop()
        try:
            call = kept.get((part, buffer))
            if call is None:
                call = ready(part, buffer)
                if parts * buffers <= _KEPT:
                    kept[part, buffer] = call
            call()
        finally:
            free.append(buffer)

    return compute


def product_stages(a: Array, b: Array, out: Array, threads: int, then: Then | None = None) -> list[Stage]:
    """What ``multiply`` does with so many ``threads``, as stages for ``ForEach.in_turn``, made ready."""
    cuts = _cuts_of(a, b, threads)
    if len(cuts) < 2:
        whole = prepare_product(a, b, out, None, then)
        return [(1, lambda number: whole())]
    by_rows = cuts[0][2] == slice(0, out.shape[-1])
    calls: list[Call] = []
    for items, rows, columns in cuts:
        left, right = _items(a, items)[..., rows, :], _items(b, items)[..., columns]
        product = _prepared(left, right, out[(*items, rows, columns)])
        calls.append(product if then is None or not by_rows else in_order(product, then(rows)))
    stages: list[Stage] = [(len(calls), lambda number: calls[number]())]
    if then is not None and not by_rows:
        # Numpy takes long over pieces of rows: what follows a part of columns waits for the others.
        parts = even_count(min(len(out), out.size // _FOLLOWS))
        follow = [then(rows) for rows in _cuts(len(out), parts, 1)]
        stages.append((len(follow), lambda number: follow[number]()))
    return stages


def _cuts_of(a: Array, b: Array, threads: int) -> Sequence[Cut]:
    """The parts of ``a @ b``; none for a vector, or for one thread."""
    if threads == 1 or a.ndim < 2 or b.ndim < 2:
        return ()
    batch = () if a.ndim == b.ndim == 2 else np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return product_cuts(batch, a.shape[-2], a.shape[-1], b.shape[-1], threads)


def _output(a: Array, b: Array) -> Array:
    return np.empty((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), np.result_type(a, b))


@functools.lru_cache(4096)
def product_cuts(batch: tuple[int, ...], rows: int, inner: int, columns: int, threads: int) -> Sequence[Cut]:
    """The parts of a product ``[batch..., rows, inner] @ [batch..., inner, columns]``; one when there is little to do.

    Each is where it lies in the output: along each axis of the batch, in the rows and in the columns.
    """
    whole = tuple(slice(0, n) for n in batch)
    each = max(rows * inner * columns, _READ * (rows * inner + inner * columns + rows * columns))
    wanted = min(math.prod(batch) * each // _PART, 2 * threads)
    if wanted < 2:
        return [(whole, slice(0, rows), slice(0, columns))]
    axis = max(range(len(batch)), key=lambda i: batch[i], default=None)
    size = 1 if axis is None else batch[axis]
    stacks = next((n for n in _shared(min(wanted, size), threads) if -(-size // n) * n <= 1.1 * size), 1)
    # Two parts for each thread, since one may be held up; where parts cost more, one.
    least_rows = _ROWS if inner * columns > _SMALL else _ALIGNED[0]
    of_rows = _shared(min(-(-wanted // stacks), rows // least_rows), threads)[0]
    of_columns = max(min(-(-min(wanted, threads) // (stacks * of_rows)), columns // _COLUMNS), 1)
    if stacks * of_rows * of_columns == 1:
        stacks = min(wanted, size)  # unevenly, then
    items = [whole] if axis is None else [(*whole[:axis], s, *whole[axis + 1 :]) for s in _cuts(size, stacks, 1)]
    return [(i, r, c) for i in items for r in _aligned_cuts(rows, of_rows) for c in _aligned_cuts(columns, of_columns)]


def _shared(most: int, threads: int) -> Sequence[int]:
    """Numbers of parts that ``threads`` share evenly, from ``most`` down to 1; products of such numbers are, too."""
    return [n for n in range(most, 1, -1) if threads % n == 0 or n % threads == 0] + [1]


def even_count(most: int) -> int:
    """The largest of 1, 2, 4, 8, 16, 24, 32 ... up to ``most``, 1 at least: so many parts are shared evenly by few threads."""
    return most // 8 * 8 if most >= 8 else 1 << max(most, 1).bit_length() - 1


def _aligned_cuts(size: int, parts: int) -> list[slice]:
    """``_cuts`` at the largest multiples with which the parts are still of about the same length."""
    step = next((n for n in _ALIGNED if -(-size // (parts * n)) * n <= 1.03 * size / parts), _ALIGNED[-1])
    return _cuts(size, parts, step)


def _cuts(size: int, parts: int, step: int) -> list[slice]:
    """``size`` cut into ``parts`` of about the same length, at multiples of ``step``."""
    ends = [min(-(-size * i // (parts * step)) * step, size) for i in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends) if start < stop]


def _items(x: Array, items: tuple[slice, ...]) -> Any:
    """The matrices of ``x`` that meet those of the output at ``items``; axes of ``x`` may be missing or 1."""
    sizes = x.shape[:-2]
    own = items[len(items) - len(sizes) :]
    return x[tuple(slice(None) if n == 1 else s for n, s in zip(sizes, own, strict=True))]
