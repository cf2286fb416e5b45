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


class ForEach(Protocol):
    """``for_each(parts, body)`` calls ``body(i)`` for each i below ``parts``, on at most ``for_each.count`` threads at once."""

    count: int

    def __call__(self, parts: int, body: Callable[[int], None]) -> None:
        """See the class."""


_PART = 4 << 20
"""Multiplications in a part, some 0.15 ms: far more than a thread takes to wake, and little to wait for at the end."""
_READ = 12  # multiplications in the time that one element takes on its way from memory: a product of a vector is all reading
_ROWS, _COLUMNS = 384, 128
"""The least of a part: the matrix library packs both operands of each part, which costs rows less than columns (OpenBLAS)."""
_ALIGNED = 48  # rows or columns that a cut is a multiple of: OpenBLAS's kernels do so many at a time


Cut = tuple[tuple[slice, ...], slice, slice]
Then = Callable[[slice, slice], None]
"""What follows on rows and columns of a product of two matrices, once they are there: while they are in the cache."""


def multiply(a: Array, b: Array, out: Array | None = None, for_each: ForEach | None = None, then: Then | None = None) -> Array:
    """``np.matmul(a, b, out=out)``, in parts when there is a ``for_each`` and much to do.

    ``then``, for two matrices only, is called behind each part on the thread that did it, or once for the whole.
    """
    cuts: Sequence[Cut] = ()
    if for_each is not None and for_each.count > 1 and a.ndim > 1 and b.ndim > 1:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        cuts = product_cuts(batch, a.shape[-2], a.shape[-1], b.shape[-1], for_each.count)
    if for_each is None or len(cuts) < 2:
        result = np.matmul(a, b, out=out)
        if then is not None:
            then(slice(0, len(a)), slice(0, b.shape[-1]))
        return result
    result = np.empty((*batch, a.shape[-2], b.shape[-1]), np.result_type(a, b)) if out is None else out

    def part(number: int) -> None:
        items, rows, columns = cuts[number]
        target = result[(*items, rows, columns)]
        np.matmul(_items(a, items)[..., rows, :], _items(b, items)[..., columns], out=target)
        if then is not None:
            then(rows, columns)

    for_each(len(cuts), part)
    return result


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
    stacks = [slice(0, 1)] if axis is None else _cuts(batch[axis], min(wanted, batch[axis]), 1)
    # Two parts for each thread, since one may be held up; where parts cost more, one.
    most = max(min(-(-wanted // len(stacks)), rows // _ROWS), 1)
    of_rows = next(n for n in range(most, 0, -1) if n % threads == 0 or threads % n == 0)  # which they share evenly
    of_columns = max(min(-(-min(wanted, threads) // (len(stacks) * of_rows)), columns // _COLUMNS), 1)
    items = [whole if axis is None else (*whole[:axis], s, *whole[axis + 1 :]) for s in stacks]
    return [(i, r, c) for i in items for r in _cuts(rows, of_rows, _ALIGNED) for c in _cuts(columns, of_columns, _ALIGNED)]


def even_count(most: int) -> int:
    """The largest of 1, 2, 4, 8, 16, 24, 32 ... up to ``most``, 1 at least: so many parts are shared evenly by few threads."""
    return most // 8 * 8 if most >= 8 else 1 << max(most, 1).bit_length() - 1


def _cuts(size: int, parts: int, step: int) -> list[slice]:
    """``size`` cut into ``parts`` of about the same length, at multiples of ``step``."""
    ends = [min(-(-size * i // (parts * step)) * step, size) for i in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends) if start < stop]


def _items(x: Array, items: tuple[slice, ...]) -> Any:
    """The matrices of ``x`` that meet those of the output at ``items``; axes of ``x`` may be missing or 1."""
    sizes = x.shape[:-2]
    own = items[len(items) - len(sizes) :]
    return x[tuple(slice(None) if n == 1 else s for n, s in zip(sizes, own, strict=True))]
