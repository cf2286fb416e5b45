"""Sorting rows on the device: bitonic sorts of what fits into shared memory, then rounds that merge what they kept."""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import bits_type, c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, index_dtype, index_name, launch_over, power_of_two_from
from miniinfer_cli.ir import DType

ASCENDING, DESCENDING, DESCENDING_NAN_LAST = 0, 1, 2  # as in topk.cu

SHARED_NBYTES = 32 << 10
"""Bytes of the items that a block sorts at once, at most: the heuristic's favourite."""
_PER_BLOCK = 1024  # items, at least, that a block sorts when rows are short
MERGE_TILE = 1024  # as in sorting.cuh


@dataclass(frozen=True, slots=True)
class Rows:
    """What is sorted: ``size`` elements ``inner`` apart for each of ``count`` rows of ``source``; ``keep`` of each are wanted.

    ``order`` is one of the constants above. Equal elements are ordered by increasing index.
    """

    source: Operand
    dtype: DType
    count: int
    size: int
    inner: int
    keep: int
    order: int

    @property
    def item_nbytes(self) -> int:
        """Bytes of an item: an element's key and its index."""
        return 16 if element_nbytes(self.dtype) == 8 else 8

    @property
    def index(self) -> str:
        """The C type of offsets into the source and into what is sorted."""
        return index_name(self.count * power_of_two_from(self.size))

    @property
    def most(self) -> int:
        """Items that a block sorts at once, at most."""
        return SHARED_NBYTES // self.item_nbytes

    def defines(self) -> tuple[tuple[str, str], ...]:
        """The macros that kernels which compare elements are compiled with."""
        return (("MI_T", c_type(self.dtype)), ("MI_ORDER", str(self.order)), ("MI_INDEX", self.index))

    def moving(self) -> tuple[tuple[str, str], ...]:
        """Those of kernels that move elements and items: element types of one size share them."""
        return (("MI_T", bits_type(self.dtype)), ("MI_ORDER", "0"), ("MI_INDEX", self.index))

    def of_items(self) -> tuple[tuple[str, str], ...]:
        """Those of kernels that see no elements."""
        return (("MI_T", "u64" if self.item_nbytes == 16 else "u32"), ("MI_ORDER", "0"), ("MI_INDEX", self.index))


@dataclass(frozen=True, slots=True)
class Sorting:
    """The ``actions``, and the bytes of their ``scratch`` buffers.

    Where outputs were not asked for, the items lie in ``items``, ``run`` for each row (at least as many as were kept).
    """

    actions: tuple[Launch[Operand], ...]
    scratch: tuple[int, ...]
    items: Operand
    run: int


def sort_rows(
    rows: Rows, target: Target, *, outputs: tuple[Operand, Operand] | None, first_scratch: int = 0, at_once: int | None = None
) -> Sorting:
    """Sorts ``rows``, of which there is at least one element; its scratch buffers are numbered from ``first_scratch`` on.
    A block sorts ``at_once`` items, ``rows.most`` without it.

    ``outputs`` are the values and the i64 indices, shaped as the source with ``keep`` elements in each row.
    """
    buffers = [Operand.scratch(first_scratch), Operand.scratch(first_scratch + 1)]
    needed = [0, 0]
    most = at_once or rows.most
    actions: list[Launch[Operand]] = []
    lists: Operand | None = None
    length, turn = rows.size, 0
    while True:
        # Sort chunks of each row, keep the first of each, and go on with what is left: it is the smaller the less is kept.
        chunk = min(length, most)
        if lists is not None and length > most:
            chunk = most // min(rows.keep, most) * min(rows.keep, most)
        chunks = -(-length // chunk)
        keep = min(rows.keep, chunk)
        last = chunks == 1
        kept = buffers[turn]
        if not last or outputs is None:
            needed[turn] = max(needed[turn], rows.count * chunks * keep * rows.item_nbytes)
        actions.append(_sort(rows, lists, None if last and outputs else kept, outputs, length, chunk, chunks, keep))
        if last:
            return Sorting(tuple(actions), tuple(n for n in needed if n), kept, keep)
        lists, length, turn = kept, chunks * keep, 1 - turn
        if keep * 2 > most:
            break
    runs, run = chunks, keep
    while runs > 1:
        keep, pairs = min(2 * run, rows.keep), -(-runs // 2)
        tiles = -(-keep // MERGE_TILE)
        needed[turn] = max(needed[turn], rows.count * pairs * keep * rows.item_nbytes)
        arguments: tuple[Argument, ...] = (lists, buffers[turn], *map(np.int32, (runs, run, keep, tiles)))
        actions.append(
            Launch(Kernel("topk_merge", "topk.cu", rows.of_items()), (rows.count * pairs * tiles,), (BLOCK,), arguments)
        )
        lists, turn, runs, run = buffers[turn], 1 - turn, pairs, keep
    if outputs is not None:
        actions.append(_write(rows, lists, outputs, run, target))
    return Sorting(tuple(actions), tuple(n for n in needed if n), lists, run)


def _sort(
    rows: Rows,
    lists: Operand | None,
    kept: Operand | None,
    outputs: tuple[Operand, Operand] | None,
    length: int,
    chunk: int,
    chunks: int,
    keep: int,
) -> Launch[Operand]:
    index = np.dtype(index_dtype(rows.count * power_of_two_from(rows.size))).type
    segment = power_of_two_from(chunk)
    per_block = power_of_two_from(-(-_PER_BLOCK // segment)) if chunks == 1 else 1
    per_block = min(per_block, power_of_two_from(rows.count))
    values, indices = outputs if outputs is not None and kept is None else (NULL, NULL)
    arguments: tuple[Argument, ...] = (
        rows.source, NULL if lists is None else lists, NULL if kept is None else kept, values, indices,
        index(rows.count * chunks), np.int32(chunks), np.int32(chunk), np.int32(length), np.int32(rows.size), index(rows.inner),
        np.int32(keep), np.int32(segment.bit_length() - 1), np.int32(per_block.bit_length() - 1),
    )  # fmt: skip
    items = segment * per_block
    block = min(max(items // 2, 32), 1024)
    grid = (-(-rows.count * chunks // per_block),)
    return Launch(Kernel("topk_sort", "topk.cu", rows.defines()), grid, (block,), arguments, items * rows.item_nbytes)


def _write(rows: Rows, items: Operand, outputs: tuple[Operand, Operand], run: int, target: Target) -> Launch[Operand]:
    index = np.dtype(index_dtype(rows.count * power_of_two_from(rows.size))).type
    count = rows.count * rows.keep
    arguments: tuple[Argument, ...] = (
        items, rows.source, *outputs, index(count), np.int32(run), np.int32(rows.size), index(rows.inner), np.int32(rows.keep),
    )  # fmt: skip
    kernel = Kernel("topk_write", "topk.cu", rows.moving())
    return launch_over(kernel, count, arguments, target.multiprocessors)
